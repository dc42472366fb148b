"""What a served model does with rows: each verb as arrays and tables with an entry per row.

What takes long is a generator that stops after each piece, so that others have their turn.
"""

from __future__ import annotations

from collections.abc import Generator
from copy import copy, deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from twofold.data import convert, sources
from twofold.data.table import cells
from twofold.estimators import validation
from twofold.estimators.autoencoder import Autoencoder
from twofold.inference import apply, sampling
from twofold.metrics import Scores
from twofold.nn.likelihoods import LIKELIHOODS
from twofold.schema.column import Column
from twofold.service.batching import joined, part_of

Array = NDArray[Any]
_EXPLAINED_CELLS = 10_000  # in one call
_NARROW = {k.id for k in (pa.bool_(), pa.int8(), pa.uint8(), pa.int16(), pa.uint16())}
_NARROW |= {k.id for k in (pa.float16(), pa.float32(), pa.null())}
_WIDE = {k.id for k in (pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.float64())}


class ServedModel:
    """A fitted estimator whose rows come and go as Arrow tables, or as arrays where it had arrays.

    The estimator that is handed in is left as it is. Two copies of its network are kept, one in 32
    bits and one in 64, for the precision of a call is that of its rows.

    Attributes
    ----------
    model : Autoencoder
    most_rows, most_explained : int
        Rows that one call of the library has at most.
    """

    def __init__(self, ae: Autoencoder) -> None:
        typed = ae.schema_.formats() is not None
        self.model = copy(ae)
        self.model.schema_ = ae.schema_.with_container("arrow" if typed else "numpy")
        if typed and not hasattr(ae, "feature_names_in_"):
            # A frame whose names were numbers; rows have the names as text.
            self.model.feature_names_in_ = np.array(ae.schema_.names, dtype=object)
        self.named = hasattr(self.model, "feature_names_in_")
        self.names = ae.schema_.names
        self.code_names = [str(name) for name in ae.get_feature_names_out()]
        width = ae.schema_.width
        self.most_rows = next(sources.row_chunks(2**31, width)).stop
        self.most_explained = max(1, _EXPLAINED_CELLS // width)

    @cached_property
    def _narrow(self) -> Autoencoder:
        return self._in_precision(torch.float32)

    @cached_property
    def _wide(self) -> Autoencoder:
        return self._in_precision(torch.float64)

    def _in_precision(self, dtype: torch.dtype) -> Autoencoder:
        model = copy(self.model)
        if next(model.network_.parameters()).dtype != dtype:
            # Made once, where the estimator's own methods make it for each call.
            model.network_ = deepcopy(model.network_).to(dtype)
            model.scorer_ = deepcopy(model.scorer_).to(dtype)
        return model

    def _for(self, rows: Any) -> Autoencoder:
        """Return the copy that computes on these rows fastest; each gives the same numbers."""
        if not isinstance(rows, pa.Table):
            return self._wide if getattr(rows, "dtype", None) == np.float64 else self._narrow
        model = self._wide if _is_wide(rows.schema) else self._narrow
        if not self.named:
            # Columns are taken as they come, which the estimator would warn of.
            model = copy(model)
            model.feature_names_in_ = np.array(rows.column_names, dtype=object)
        return model

    def encode(self, rows: Any) -> dict[str, Any]:
        """Return the codes."""
        return {"codes": np.asarray(self._for(rows).transform(rows))}

    def decode(self, codes: Any) -> dict[str, Any]:
        """Return the rows that codes stand for."""
        return {"rows": self._for(codes).inverse_transform(codes)}

    def reconstruct(self, rows: Any) -> dict[str, Any]:
        """Return what the network makes of rows."""
        return {"rows": self._for(rows).reconstruct(rows)}

    def score(self, rows: Any) -> dict[str, Any]:
        """Return scores, p-values and labels."""
        score = self._for(rows).score_samples(rows)
        found = Scores.of(score, self.model.calibration_scores_, self.model.offset_)
        return {"score": found.score, "p_value": found.p_value, "label": found.label}

    def explain(self, rows: Any) -> dict[str, Any]:
        """Return what was observed and expected, and each column's share of minus the score."""
        found = self._for_explaining(rows).explain(rows)
        return {
            "base": found.base,
            "score": -(found.base + found.contribution.sum(axis=1)),
            "observed": found.observed,
            "expected": found.expected,
            "contribution": found.contribution,
        }

    def _for_explaining(self, rows: Any) -> Autoencoder:
        # Explanations are 64-bit whatever the rows.
        model = copy(self._for(rows))
        model.network_, model.scorer_ = self._wide.network_, self._wide.scorer_
        return model

    def impute(self, rows: Any) -> dict[str, Any]:
        """Return the rows with missing cells filled by their best values."""
        return {"rows": self._for(rows).impute(rows)}

    def draws(
        self, rows: Any, n_draws: int, random_state: int | None
    ) -> Generator[Any, None, list[Any]]:
        """Return the rows with missing cells filled by random draws, some rows at a time."""
        model = self._for(rows)
        if n_draws < 1:
            model.impute(rows, n_draws)  # which raises the error
        generator = sampling.torch_generator(sampling.random_state(random_state))
        table, fill, drawn = model.read(rows), sampling.imputer(generator), []
        numbers, known = sampling.numpy_generator(generator), model._calibration.cells
        network, schema = model.network_, model.schema_
        formats = schema.formats(table.formats)
        for _ in range(n_draws):
            xs, parts = [], []
            for at in sources.row_chunks(table.n_rows, network.widest):
                part = table.slice(at)
                xs.append(apply.apply_to_table(fill, network, model.scorer_, schema, part))
                if at.stop < table.n_rows:
                    yield xs[-1]
            x = np.concatenate(xs)
            for at in sources.row_chunks(table.n_rows, schema.width):
                part, given = table.slice(at), part_of(rows, at.start, at.stop)
                cells = sampling.cells(schema, known, x[at], part, numbers)
                parts.append(convert.fill(given, part, cells, formats))
                yield parts[-1]
            drawn.append(joined(parts))
        return drawn

    def sample(self, n: int, random_state: int | None) -> Generator[None, None, Any]:
        """Return new rows, some at a time."""
        model, schema, xs, parts = self.model, self.model.schema_, [], []
        generator = sampling.torch_generator(sampling.random_state(random_state))
        for x in sampling.batches(model.network_, model.scorer_, n, generator):
            xs.append(x)
            yield
        numbers, known = sampling.numpy_generator(generator), model._calibration.cells
        x = np.concatenate(xs)
        for at in sources.row_chunks(n, schema.width):
            cells = sampling.cells(schema, known, x[at], rng=numbers)
            parts.append(validation.give_back(schema, cells))
            yield
        return joined(parts)

    def check(self, rows: Any) -> Generator[None, None, None]:
        """Raise the error that rows have, with their numbers in the whole."""
        model = self._for(rows)
        table = model.read(rows)
        for at in sources.row_chunks(table.n_rows, model.network_.widest):
            model.schema_.to_matrix(table.slice(at), apply.dtype_of(table), first_row=at.start)
            yield


def _is_wide(schema: Any) -> bool:
    """Whether the library computes in 64 bits on rows of this Arrow schema."""
    ids = {kind.id for kind in schema.types}
    return ids <= _NARROW | _WIDE and bool(ids & _WIDE)


def describe_columns(ae: Autoencoder) -> dict[str, Any]:
    """Return what each column is, and the shape of a row, as plain data."""
    schema = ae.schema_
    return {
        "columns": [_column(column) for column in schema.columns],
        "row_shape": list(schema.row_shape),
        "named": schema.named,
    }


def _column(column: Column) -> dict[str, Any]:
    form = column.format
    kept = [column.levels[i] for i in column.kept]
    low, high = None, None
    if column.width:
        low, high = LIKELIHOODS[column.likelihood].cell_range(column)
    if column.kind == "binary":
        low, high = 0.0, 1.0
    return {
        "name": column.name,
        "kind": column.kind,
        "likelihood": column.likelihood,
        "type": "number" if form is None else form.type,
        "dtype": "" if form is None else form.dtype,
        "constant": column.constant,
        "levels": kept if column.kind == "category" else None,
        "range": [low, high],
        "typical": _typical(column),
        "note": column.note,
    }


def _typical(column: Column) -> Any:
    """Return the cell that the training cells lie around, where the model keeps one."""
    if column.kind in ("ignored", "category"):
        return None
    if column.kind == "count" and not column.knots:
        return float(np.expm1(column.center))
    if column.format is None:
        return column.center
    return cells(np.array([[column.center]]), (column.format,))[0, 0]
