"""Rows on their way into the estimator and back: checks as in scikit-learn, containers, columns."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, validate_data

from twofold.data import convert, sources
from twofold.data.files import OpenFiles
from twofold.data.rows import opened
from twofold.data.table import Table
from twofold.errors import DataError
from twofold.inference import apply as inference
from twofold.nn.network import Network
from twofold.schema.schema import Schema
from twofold.schema.texts import typed
from twofold.training.batches import InMemory, Source
from twofold.training.streaming import Stream

Array = NDArray[Any]
# What to do, after what scikit-learn says.
_ADVICE = {
    "The feature names should match": "\nPass the columns of feature_names_in_, in that order.",
    "Found array with 0 sample(s)": " Pass at least one row.",
    "Expected a 2-dimensional container": " A row is X.iloc[[i]], a column X[[name]].",
    "Complex data": " Pass real and imaginary parts side by side.",
}
_MOST_COPIES = 10  # times as many rows as there are, for weights that are not whole


def names_of(estimator: BaseEstimator) -> Any:
    """Return the names of the columns that the estimator was fitted to, or None without names."""
    return getattr(estimator, "feature_names_in_", None)


def open_rows(
    estimator: BaseEstimator, X: Any, stream: bool | None = None, as_written: bool = False
) -> Any:
    """Open rows as `data.rows.opened` does, with the columns and formats of a fitted estimator."""
    schema = getattr(estimator, "schema_", None)
    formats = None if schema is None else schema.training_formats
    return opened(X, names_of(estimator), stream, formats=formats, as_written=as_written)


def wanted_types(kinds: str | Mapping[str, str]) -> dict[str, str]:
    """Return the columns that have to hold numbers or times for their kinds."""
    types = {"real": "number", "count": "number", "time": "time"}
    asked = {} if isinstance(kinds, str) else kinds
    return {name: types[kind] for name, kind in asked.items() if kind in types}


def training_rows(
    estimator: BaseEstimator, X: Any, rng: np.random.RandomState, fraction: float, reset: bool
) -> Source:
    """Read the rows to train on: into memory if they fit."""
    X = _opened(estimator, X, reset)
    if not isinstance(X, OpenFiles):
        rows = table(estimator, X, reset)
        if reset:
            rows = typed(rows, getattr(estimator, "kinds", "auto"))
        else:
            rows = estimator.schema_.matched(rows)
        return InMemory(rows, rng, fraction)
    if X.schema is None:
        few = np.zeros((1, int(np.prod(X.row_shape))))
        _validated(estimator, few, reset, ensure_all_finite=False)
    else:
        _validated(estimator, X.schema.empty_table(), reset, skip_check_array=True)
    # From a copy, so that the same seed gives the same first weights as with rows in memory.
    stream = Stream(X, int(deepcopy(rng).randint(2**31)), fraction)
    if not reset:
        _require_same_types(estimator.schema_, stream.sample)
    return stream


def held_out(estimator: Any, X: Any) -> Table:
    """Read rows to measure training on: all, or a sample of those that do not fit into memory.

    Raises
    ------
    DataError
        If they are a pair of rows and targets, which Keras takes.
    """
    if isinstance(X, tuple) and len(X) == 2 and all(getattr(part, "ndim", 0) > 1 for part in X):
        raise DataError(
            "Expected validation_data to be rows alone, got a pair. Pass validation_data=X_valid: "
            "rows are their own targets."
        )
    X = open_rows(estimator, X)
    if not isinstance(X, OpenFiles):
        rows: Table = estimator.read(X)
        return rows
    sample = Stream(X, 0, 0.0).sample
    matched: Table = estimator.schema_.matched(sample)
    return matched


def _require_same_types(schema: Schema, sample: Table) -> None:
    """Refuse rows to train on that stay in their files and have columns of other types."""
    found = schema.matched(sample)
    if found is not sample:
        assert found.given is not None
        assert found.formats is not None
        kinds = zip(found.given, found.formats, strict=True)
        names = [n for n, (a, b) in zip(schema.names, kinds, strict=True) if a.type != b.type]
        raise DataError(
            f"Expected columns of the training table's types, got others in "
            f"{sources.listed(names)}. Write them in those types, or read the rows into a frame "
            f"first."
        )


def weighted(rows: Source, sample_weight: Any) -> Source:
    """Return the rows that have a weight, each of which counts as so many equal ones.

    Whole numbers are taken as they are. Others, and such as would make far more rows than there
    are, are scaled and rounded up or down at random, so that each row counts as its weight says on
    average.

    Raises
    ------
    DataError
        If the weights are negative, all 0, or not one per row, or the rows are not in memory.
    """
    if sample_weight is None:
        return rows
    if not isinstance(rows, InMemory):
        raise DataError(
            "Expected rows in memory for sample_weight, got rows that stay in their files. Read "
            "them into a frame first."
        )
    try:
        weight = _check_sample_weight(
            sample_weight, rows.sample.values, dtype=np.float64, ensure_non_negative=True
        )
    except ValueError as error:
        raise DataError(
            f"Expected sample_weight to be a number of at least 0 for each of the "
            f"{rows.sample.n_rows:,} rows, got other weights: {error}"
        ) from error
    known = np.flatnonzero(weight)
    weight = weight[known]
    if weight.sum() > _MOST_COPIES * len(weight) or (weight != weight.round()).any():
        weight = weight * min(_MOST_COPIES * len(weight) / weight.sum(), 1 / weight.min())
    return rows.weighted(known, weight)


def table(estimator: BaseEstimator, X: Any, reset: bool) -> Table:
    """Read rows of any source as a table; with `reset`, its columns become those of the estimator.

    Raises
    ------
    DataError
        If the rows cannot be read, or have other columns than the training table.
    """
    source = _opened(estimator, X, reset, stream=False)
    container = sources.container_of(source)
    if container not in ("numpy", "torch"):
        _validated(estimator, source, reset, skip_check_array=True)
        rows = sources.read(source)
        if rows.n_rows == 0:
            raise DataError("Expected at least one row, got none (0 sample(s)).")
        if not reset and hasattr(estimator, "schema_"):
            _require_same_labels(estimator.schema_, rows)
        return rows
    if container == "numpy":
        sources.require_rows(source)
    if not reset:
        _require_many(estimator, source)
    if container == "torch" or len(getattr(source, "shape", ())) > 2:
        rows = sources.read(source)
        checked = _validated(estimator, rows.values, reset, ensure_all_finite=False)
        return Table(checked, None, rows.row_shape, rows.container)
    if isinstance(source, np.ma.MaskedArray):
        # A masked cell is missing; the number below the mask does not count.
        source = np.ma.filled(source.astype(np.result_type(source, np.float32)), np.nan)
    if isinstance(source, np.ndarray | list | tuple):
        sources.require_numbers(_array(source))
    checked = _validated(estimator, source, reset, ensure_all_finite=False)
    return sources.read(checked)


def _opened(estimator: BaseEstimator, X: Any, reset: bool, stream: bool | None = None) -> Any:
    if reset:
        return opened(X, stream=stream, wanted=wanted_types(getattr(estimator, "kinds", "auto")))
    return open_rows(estimator, X, stream)


def codes(network: Network, X: Any) -> tuple[Array, Any]:
    """Read codes, `(n_rows, n_components)`, and the index of the frame that holds them, if any.

    Of an ordered code, the first components alone are enough.

    Raises
    ------
    DataError
        If they have another number of components, or cells that are missing, infinite or no
        numbers.
    """
    table = sources.read(X)
    k, ordered = network.n_components, network.bottleneck.is_ordered
    shape = tuple(table.values.shape)
    fits = len(shape) == 2 and (shape[1] == k or (ordered and 0 < shape[1] < k))
    if not fits:
        raise DataError(
            f"Expected codes with {k} components{' or fewer' if ordered else ''}, got an array of "
            f"shape {shape}. Pass what transform returns."
        )
    for position, form in enumerate(table.formats or ()):
        if form.type in ("text", "time"):
            raise DataError(
                f"Expected codes, which are numbers, got {form.type} in column "
                f"{table.name(position)}. Pass what transform returned."
            )
    table.check_finite()
    values = table.values.astype(inference.dtype_of(table), copy=False)
    return np.pad(values, ((0, 0), (0, k - shape[1]))), table.index


def give_back(schema: Schema, values: Array, like: Table | None = None, index: Any = None) -> Any:
    """Return cells as rows in the container of `like`, by default of the training table."""
    formats = schema.formats(None if like is None else like.formats)
    if like is None:
        container, names, shape = schema.container, schema.labels, schema.row_shape
    else:
        container, names, shape = like.container, like.labels or schema.names, like.row_shape
        index = like.index
    return convert.give_back(values, container, names, shape, index, formats)


def _require_many(estimator: BaseEstimator, source: Any) -> None:
    """Refuse images or sequences of another size, and a single one, whose lines are not rows."""
    shape = tuple(getattr(source, "shape", ()))
    schema = getattr(estimator, "schema_", None)
    # One of a single line of pixels, or of one step, is a row as it is.
    if schema is not None and len(shape) > 1 and shape[0] > 1 and shape == schema.row_shape:
        raise DataError(
            f"Expected rows of shape (n, {', '.join(map(str, shape))}), got a single one of shape "
            f"{shape}. Pass X[None]."
        )
    if schema is not None and len(shape) > 2 and math.prod(shape[1:]) != len(schema.columns):
        raise DataError(
            f"Expected rows of shape {schema.row_shape}, as in training, got {shape[1:]}. Bring "
            f"them to that shape."
        )


def _require_same_labels(schema: Schema, rows: Table) -> None:
    """Refuse columns in another order, if numbers or tuples name them.

    scikit-learn compares names that are text only.
    """
    known, found = schema.labels, rows.labels or ()
    if known == found or not any(form.label is not None for form in rows.formats or ()):
        return
    if not all(isinstance(label, str) for label in known):
        raise DataError(
            f"Expected the columns {sources.listed(known)}, in that order, got "
            f"{sources.listed(found)}. Pass X[[...]] with the columns of the training frame."
        )


def _validated(estimator: BaseEstimator, X: Any, reset: bool, **checks: bool) -> Any:
    try:
        return validate_data(estimator, X, reset=reset, **checks)
    except ValueError as error:
        # scikit-learn shows all cells of an array without rows, and of complex numbers.
        text = re.sub(r"(?s)(instead|supported):?\n.*?(\nReshape|$)", r"\1.\2", str(error)).rstrip()
        advice = next((do for start, do in _ADVICE.items() if text.startswith(start)), "")
        raise DataError(text + advice) from error


def _array(rows: Any) -> Array:
    try:
        return np.asarray(rows)
    except ValueError as error:
        raise DataError(
            f"Expected rows of equal length, got others ({error}). Fill them up with NaN."
        ) from error
