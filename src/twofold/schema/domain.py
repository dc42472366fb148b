"""Which values a column was observed to have: its range, and the steps between its cells.

Whatever a model writes into a cell that was never observed (a filled, drawn or expected value) is
brought back to them, so that a day of the month stays a day of the month.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_MOST_DECIMALS = 12
_MOST_CELLS = 200_000  # cells enough to see in which steps a column goes
_FEW_CELLS = 64  # cells enough to see of most columns that they go in none
_MOST_VALUES = 20  # different ones in a column that has no others
_REPEATED = 4  # times that each of them is there, on average
_SOME_CELLS = 2000
_LEAST_UNITS = 100.0  # roundings that a step must be wider than: any number is near a finer grid


@dataclass(frozen=True)
class Domain:
    """The observed range of a column's cells, and the grid that they lie on.

    Attributes
    ----------
    low, high : float
        The least and the greatest cell.
    step : float
        The largest number of which all differences between cells are multiples; 0 if there is none.
    decimals : int
        How many decimals cells have, if there is a step.
    values : tuple of float
        The cells in order, if they are few, repeat, and are not all that lie on the grid.

    Examples
    --------
    >>> days = Domain.of(np.array([1.0, 31.0, 12.0]))
    >>> days.low, days.high, days.step
    (1.0, 31.0, 1.0)
    >>> days.nearest(np.array([-878441.0, 3.7, 44.0])).tolist()
    [1.0, 4.0, 31.0]
    """

    low: float = -math.inf
    high: float = math.inf
    step: float = 0.0
    decimals: int = 0
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, cells: Array, low: float | None = None, high: float | None = None) -> Domain:
        """Return the domain of these cells, NaN for missing ones.

        `low` and `high` are those of all rows, if `cells` are only some of them.
        """
        known = cells[~np.isnan(cells)]
        if len(known) == 0:
            return cls()
        least = float(known.min()) if low is None else low
        greatest = float(known.max()) if high is None else high
        some = known[:: max(1, len(known) // _MOST_CELLS)].astype(np.float64)
        ends = [least, greatest]
        grid = _grid(np.append(some, ends), _rounding(known))
        return cls(least, greatest, *grid, _few(some, ends, grid[0]))

    @property
    def is_known(self) -> bool:
        """Whether any cell was observed."""
        return self.low > -math.inf

    def widened(self, cells: Array) -> Domain:
        """Return the domain of the cells that this one is of and of further ones."""
        new = Domain.of(cells)
        if not self.is_known or not new.is_known:
            return new if new.is_known else self
        low, high = min(self.low, new.low), max(self.high, new.high)
        both = np.array([self.low, self.low + self.step, new.low, new.low + new.step, low, high])
        if self.low == self.high or new.low == new.high or (self.step and new.step):
            grid = _grid(both, _rounding(cells))
            listed = [d.values or (d.low, d.high) for d in (self, new)]
            few = all(d.values or d.low == d.high for d in (self, new))
            values = tuple(sorted({*listed[0], *listed[1]})) if few else ()
            return Domain(low, high, *grid, values if len(values) > 2 else ())
        return Domain(low, high)

    def nearest(self, cells: Array) -> Array:
        """Return the values of the domain that are nearest to the cells; NaN stays as it is."""
        return nearest(cells, [self])

    def to_json(self) -> dict[str, Any]:
        """Return what differs from a domain that nothing is known of, as plain data."""
        return {k: v for k, v in asdict(self).items() if v != getattr(UNKNOWN, k)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Domain:
        """Read back what `to_json` gave; raises TypeError or ValueError if it is not one."""
        domain = cls(**document)
        low, high, step = map(float, (domain.low, domain.high, domain.step))
        domain = cls(low, high, step, domain.decimals, tuple(map(float, domain.values)))
        numbers = not any(map(math.isnan, (domain.low, domain.high)))
        grid = math.isfinite(domain.step) and domain.step >= 0 and (not domain.step or numbers)
        places = type(domain.decimals) is int and 0 <= domain.decimals <= _MOST_DECIMALS
        if not (numbers and domain.low <= domain.high and grid and places):
            raise ValueError(f"no column has the domain {domain}")
        values = domain.values
        if values and (
            list(values) != sorted(set(values)) or (values[0], values[-1]) != (low, high)
        ):
            raise ValueError(f"no column has the domain {domain}")
        if domain.step and not math.isfinite(domain.high - domain.low):
            raise ValueError(f"no column goes in steps over the domain {domain}")
        return domain


UNKNOWN = Domain()


def widened(low: Array, high: Array, own: Array | None) -> tuple[Array, Array]:
    """Return limits that reach as far as rows' own cells, where these are given and known."""
    return (low, high) if own is None else (np.fmin(low, own), np.fmax(high, own))


def nearest(cells: Array, domains: list[Domain], own: Array | None = None) -> Array:
    """Return the values of each column's domain that are nearest to its cells, in 64 bits.

    `cells` are `(n_rows,)` for one domain, else `(n_rows, n_columns)`. NaN stays as it is. Domains
    go on as far as the rows' `own` cells, where they are given, in the same shape.
    """
    first, last = (np.array([getattr(d, name) for d in domains]) for name in ("low", "high"))
    wide = cells.astype(np.float64)
    found = wide.reshape(len(cells), -1)
    seen = None if own is None else own.astype(np.float64).reshape(found.shape)
    ends = widened(first, last, seen)
    found = np.clip(found, *ends)
    low, high = (np.broadcast_to(end, found.shape) for end in ends)
    for decimals in {d.decimals for d in domains if d.step}:
        at = [i for i, d in enumerate(domains) if d.step and d.decimals == decimals]
        start, step = first[at], np.array([domains[i].step for i in at])
        whole = start + np.rint((found[:, at] - start) / step) * step
        found[:, at] = np.clip(whole.round(decimals), low[:, at], high[:, at])
    for i, domain in enumerate(domains):
        if domain.values:
            values = np.array(domain.values)
            place = np.searchsorted(
                (values[1:] + values[:-1]) / 2, wide.reshape(len(cells), -1)[:, i]
            )
            found[:, i] = np.where(np.isnan(found[:, i]), np.nan, values[place])
    return np.asarray(found.reshape(cells.shape))


def _few(cells: Array, ends: list[float], step: float) -> tuple[float, ...]:
    """Return the different cells if they are few, repeat, and are not the whole grid."""
    if len(np.unique(cells[:_SOME_CELLS])) > _MOST_VALUES:
        return ()
    values = np.unique(np.append(cells, ends))
    if not 2 < len(values) <= min(_MOST_VALUES, len(cells) / _REPEATED):
        return ()
    whole = step and (ends[1] - ends[0]) / step + 1 <= len(values) + 0.5
    return () if whole else tuple(values.tolist())


def _rounding(cells: Array) -> float:
    return float(np.finfo(cells.dtype if cells.dtype.kind == "f" else np.float64).eps)


def _grid(cells: Array, exact: float) -> tuple[float, int]:
    """Return the step and the decimals of the grid that cells lie on, (0, 0) if there is none.

    `exact` is the rounding that cells carry, as a share of the largest.
    """
    rounding = exact * float(np.abs(cells).max())
    for decimals in range(_MOST_DECIMALS + 1):
        unit = 10.0**-decimals
        if unit < _LEAST_UNITS * rounding:
            break
        if not (_are_whole(cells[-_FEW_CELLS:] / unit, rounding / unit)):
            continue
        counts = cells / unit
        if _are_whole(counts, rounding / unit):
            steps = np.rint(counts - counts.min()).astype(np.int64)
            common = int(np.gcd.reduce(steps))
            return (round(common * unit, decimals), decimals) if common else (0.0, 0)
    return 0.0, 0


def _are_whole(counts: Array, rounding: float) -> bool:
    return bool((np.abs(counts - np.rint(counts)) <= 2 * rounding + 1e-12).all())
