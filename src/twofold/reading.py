"""How rows of any source reach the estimator, checked as scikit-learn does, and go back alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from twofold import data
from twofold.errors import DataError
from twofold.schema import Schema
from twofold.table import Table

Array = NDArray[Any]


def table(estimator: BaseEstimator, X: Any, reset: bool) -> Table:
    """Read any source into a table; `reset` makes its columns the ones that later rows must have.

    Raises
    ------
    DataError
        Where the rows cannot be read, or have other columns than the training table.
    """
    names = None if reset else getattr(estimator, "feature_names_in_", None)
    source = data.load(X, columns=names)
    container = data.container_of(source)
    if container not in ("numpy", "torch"):
        _validated(estimator, source, reset, skip_check_array=True)
        rows = data.read(source)
        if rows.n_rows == 0:
            raise DataError("The table has no rows (0 sample(s)); a minimum of 1 is required.")
        return rows
    if container == "torch" or len(getattr(source, "shape", ())) > 2:
        rows = data.read(source)
        checked = _validated(estimator, rows.values, reset, ensure_all_finite=False)
        return Table(checked, None, rows.row_shape, rows.container)
    if isinstance(source, np.ma.MaskedArray):
        # A masked cell is a missing one, and not the number that lies below the mask.
        source = np.ma.filled(source.astype(np.result_type(source, np.float32)), np.nan)
    if isinstance(source, np.ndarray | list | tuple):
        data.require_numbers(_array(source))
    checked = _validated(estimator, source, reset, ensure_all_finite=False)
    return data.read(checked)


def give_back(schema: Schema, x: Array, like: Table | None = None, index: Any = None) -> Any:
    """Turn a matrix into rows of the container of `like`, else of the training table."""
    values, formats = schema.cells(x, like)
    if like is None:
        container, names, shape = schema.container, schema.names, schema.row_shape
    else:
        container, names, shape = like.container, like.names or schema.names, like.row_shape
        index = like.index
    return data.give_back(values, container, names, shape, index, formats)


def _validated(estimator: BaseEstimator, X: Any, reset: bool, **checks: bool) -> Any:
    try:
        return validate_data(estimator, X, reset=reset, **checks)
    except ValueError as error:
        raise DataError(str(error)) from error


def _array(rows: Any) -> Array:
    try:
        return np.asarray(rows)
    except ValueError as error:
        raise DataError(f"These rows make no table, all of one length: {error}") from error
