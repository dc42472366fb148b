"""A served model: its verbs on arrays and tables, what it reads and answers, and what it is.

Another version replaces it as a whole. What takes long is a generator that stops after each piece,
so that others have their turn.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Generator, Sequence
from copy import copy, deepcopy
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from twofold import __version__, options, verbs
from twofold.data import convert, sources
from twofold.data.table import cells
from twofold.errors import OptionError
from twofold.estimators import fitting, validation
from twofold.estimators.autoencoder import Autoencoder, load
from twofold.inference import apply, sampling
from twofold.metrics import Scores
from twofold.persistence import summary
from twofold.persistence.folder import DOCUMENT
from twofold.persistence.model import plain
from twofold.schema.column import Column
from twofold.service import responses
from twofold.service.arrow_rows import ArrowReader
from twofold.service.batching import Result, Steps, Verb, joined, part_of
from twofold.service.json_rows import JsonReader
from twofold.service.memory import Share, size_of
from twofold.service.requests import JSON, Limits
from twofold.service.responses import Answer
from twofold.verbs import VERBS

_EXPLAINED_CELLS = 10_000  # in one call
_WIDE = {pa.int32(), pa.uint32(), pa.int64(), pa.uint64(), pa.float64()}
_NUMBERS = _WIDE | {pa.bool_(), pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.null()}
_NUMBERS |= {pa.float16(), pa.float32()}


class ServedModel:
    """A fitted estimator whose rows come and go as Arrow tables, or as arrays where it had arrays.

    The estimator that is handed in is left as it is. Two copies of its network are kept, one in 32
    bits and one in 64, for the precision of a call is that of its rows. `folder` is where it was
    loaded from, and `version` says which model that was.
    """

    def __init__(
        self,
        ae: Autoencoder,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        folder: Path | None = None,
        version: str | None = None,
    ) -> None:
        self.limits, self.folder, self.version = limits, folder, version
        typed = ae.schema_.formats() is not None
        self.model = copy(ae)
        self.schema = self.model.schema_ = ae.schema_.with_container("arrow" if typed else "numpy")
        if typed and not hasattr(ae, "feature_names_in_"):
            # A frame whose names were numbers; rows have the names as text.
            self.model.feature_names_in_ = np.array(ae.schema_.names, dtype=object)
        self.named = hasattr(self.model, "feature_names_in_")
        self.names = list(ae.schema_.names)
        self.code_names = [str(name) for name in ae.get_feature_names_out()]
        picked = self.names if self.named else None
        self._json = JsonReader(self.schema, limits)
        self._arrow = ArrowReader(len(self.names), picked, self.code_names, limits)
        self.document: dict[str, Any] | None = None  # of OpenAPI, once it is asked for
        most = next(sources.row_chunks(2**31, ae.schema_.width)).stop
        explained = max(1, _EXPLAINED_CELLS // ae.schema_.width)
        self.verbs = {
            name: Verb(
                name,
                partial(self.call, verb),
                explained if verb.returns == "explanation" else most,
                self.check if verb.takes == "rows" else None,
            )
            for name, verb in VERBS.items()
            if verb.takes != "nothing"
        }

    @classmethod
    def of(cls, model: Autoencoder | str | os.PathLike[str], limits: Limits) -> ServedModel:
        """Return a model, or the one in a folder, as it is served."""
        if isinstance(model, Autoencoder):
            return cls(model, limits)
        folder = Path(model)
        while True:
            version = version_of(folder)
            loaded = load(folder)
            if version == version_of(folder):  # or else it was replaced in between
                return cls(loaded, limits, folder, version)

    def reloaded(self) -> ServedModel:
        """Return what the folder holds now."""
        if self.folder is None:
            raise OptionError(
                "Expected a model with a folder, got one from memory. Create the application from "
                "a folder."
            )
        return ServedModel.of(self.folder, self.limits)

    def read(self, media_type: str, body: bytes, fields: Sequence[str], share: Share) -> Steps:
        """Return the fields of a body, its rows or codes and what goes with them, piece by piece.

        `fields` are those that the route knows. "rows" come back as an Arrow table, as `JsonRows`
        or as an array, "codes" as a table or an array, others as JSON has them. Whatever makes no
        array stays a list, and the library says what is wrong with it.

        Raises
        ------
        RequestError
            If the body cannot be read, or is too large.
        DataError
            If it holds anything but cells.
        """
        if media_type == JSON:
            return self._json.read(body, fields, share)
        return self._arrow.read(body, fields[0], share)

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
        kinds = set(rows.schema.types)
        model = self._wide if kinds & _WIDE and kinds <= _NUMBERS else self._narrow
        if not self.named:
            # Columns are taken as they come, which the estimator would warn of.
            model = copy(model)
            model.feature_names_in_ = np.array(rows.column_names, dtype=object)
        return model

    def call(self, verb: verbs.Verb, rows: Any) -> Result:
        """Return what a verb makes of rows or codes: arrays and tables with an entry per row."""
        model = self._for(rows)
        if verb.returns == "explanation":
            # They are 64-bit whatever the rows.
            model = copy(model)
            model.network_, model.scorer_ = self._wide.network_, self._wide.scorer_
        found = getattr(model, verb.method)(rows)
        if verb.returns == "scores":
            scores = Scores.of(found, model.calibration_scores_, model.offset_)
            return {"score": scores.score, "p_value": scores.p_value, "label": scores.label}
        if verb.returns == "explanation":
            score = -(found.base + found.contribution.sum(axis=1))
            parts = ("observed", "expected", "contribution")
            return {"base": found.base, "score": score} | {p: getattr(found, p) for p in parts}
        # Codes may come as a frame, where the estimator was set to give such.
        return {verb.returns: np.asarray(found) if verb.returns == "codes" else found}

    def draws(self, rows: Any, n_draws: int, random_state: int | None, share: Share) -> Steps:
        """Return the rows with missing cells filled by random draws, some rows at a time."""
        options.require_integer("n_draws", n_draws)
        model, parts, drawn = self._for(rows), list[Any](), list[Any]()
        generator = sampling.torch_generator(sampling.random_state(random_state))
        table = model.read(rows)
        formats = self.schema.formats(table.formats)
        for at, filled in fitting.imputed(model, table, n_draws, generator):
            given = part_of(rows, at.start, at.stop)
            parts.append(convert.fill(given, table.slice(at), filled, formats))
            share.hold(size_of(parts[-1]))
            yield
            if at.stop == table.n_rows:
                drawn.append(joined(parts))
                parts.clear()
        return {"draws": drawn}

    def sample(self, n: int, random_state: int | None, share: Share) -> Steps:
        """Return new rows, some at a time."""
        generator, parts = sampling.torch_generator(sampling.random_state(random_state)), []
        for drawn in fitting.sampled(self.model, n, generator):
            parts.append(validation.give_back(self.schema, drawn))
            share.hold(size_of(parts[-1]))
            yield
        return {"rows": joined(parts)}

    def check(self, rows: Any) -> Generator[None, None, None]:
        """Raise the error that rows have, with their numbers in the whole."""
        model = self._for(rows)
        table = model.read(rows)
        for at in sources.row_chunks(table.n_rows, model.network_.widest):
            model.schema_.to_matrix(table.slice(at), apply.dtype_of(table), first_row=at.start)
            yield

    def answer(self, name: str, found: Result) -> Answer:
        """Return the answer that a verb's result is."""
        returns = VERBS[name].returns
        if returns == "codes":
            return responses.of_codes(found["codes"], self.code_names)
        if returns == "scores":
            return responses.of_scores(found, self.model.offset_)
        if returns == "explanation":
            return responses.of_explanation(found, self.names)
        first = found["draws"][0] if "draws" in found else found["rows"]
        names = list(first.column_names) if isinstance(first, pa.Table) else self.names
        return responses.of_rows(found, names, self.schema.row_shape)

    def describe(self) -> dict[str, Any]:
        """Return what the model is, as plain data: options, layers, training, figures, versions."""
        ae = self.model
        network = ae.network_
        return {
            "version": self.version,
            "replaced": self.folder is not None and version_of(self.folder) != self.version,
            "options": plain(ae.get_params(deep=False)),
            "n_columns": len(ae.schema_.columns),
            "n_components": network.n_components,
            "n_parameters": network.n_parameters,
            "layers": [asdict(layer) for layer in network.layers(ae.scorer_.link)],
            "training": {
                "epochs": len(ae.history_),
                "best_epoch": ae.best_epoch_,
                "history": ae.history_,
            },
            "comparison": asdict(ae.comparison_),
            "offset": ae.offset_,
            "summary": ae.summary(),
            "remarks": summary.remarks(ae),
            "versions": {
                "twofold": __version__,
                "python": platform.python_version(),
                **{module.__name__: module.__version__ for module in (torch, np, pa)},
            },
        }

    def describe_columns(self) -> dict[str, Any]:
        """Return what each column is, and the shape of a row, as plain data."""
        return {
            "columns": [_column(column) for column in self.schema.columns],
            "row_shape": list(self.schema.row_shape),
            "named": self.schema.named,
        }


def version_of(folder: Path) -> str | None:
    """Return which model is in a folder, as a short text, or None if there is none."""
    try:
        return hashlib.sha256((folder / DOCUMENT).read_bytes()).hexdigest()[:16]
    except OSError:
        return None


def _column(column: Column) -> dict[str, Any]:
    is_number = column.kind not in ("ignored", "category")
    is_log = column.kind == "count" and not column.knots
    typical = float(np.expm1(column.center)) if is_log else _cell(column, column.center)
    return {
        "name": column.name,
        "kind": column.kind,
        "likelihood": column.likelihood,
        "type": "number" if column.format is None else column.format.type,
        "dtype": "" if column.format is None else column.format.dtype,
        "constant": column.constant,
        "levels": [column.levels[i] for i in column.kept] if column.kind == "category" else None,
        "range": [_cell(column, end) for end in (column.domain.low, column.domain.high)],
        # The cell that the training cells lie around, where the model keeps one.
        "typical": typical if is_number else None,
        "note": column.note,
    }


def _cell(column: Column, value: float) -> Any:
    """Return a number of a column as the column's cells look, or None if it is infinite."""
    if column.format is None or not math.isfinite(value):
        return value if math.isfinite(value) else None
    return cells(np.array([[value]]), (column.format,))[0, 0]
