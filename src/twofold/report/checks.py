"""Checks of a fitted model and its rows: what is wrong, in plain words, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twofold.formatting import counted, number, percent, shortened
from twofold.report.html import isolated
from twofold.report.measurements import (
    LEAST_CALIBRATION_ROWS,
    Fitted,
    Measurements,
    has_levels,
    is_picture,
)

_PLAIN = {0x2068: None, 0x2069: None, 0xA0: " "}  # isolates and spaces that do not break
_NAMED = 6  # columns, of which the rest is counted
_LETTERS = 32  # of a column's name
_FEW_ROWS = 20  # fewer say little about a column or a shift
_GAP = 0.2  # of what training lowered the loss by: held-out rows that much worse are over-fitting
_RISE = 0.05  # of the same: held-out loss that rose again by that much
_STILL = 0.01  # of the same: a last tenth of the epochs that brought that much was not the last
_NOT_LEARNED = 0.1  # of a column's variance
_SMALL_COLUMN = 0.01  # of the mean variance: what varies less is not mentioned
_MARGIN = 1.02  # by how much PCA must be better beyond sampling error
_MISSING = 0.3  # of a column's cells
_POOLED = 0.1  # of a column's cells
_CAUSE = (
    0.3  # nats a row, and share of the largest, from which a column is said to lower all scores
)
_FOR_FIVE_PERCENT = 19  # held-out rows, below which 5 % of false alarms cannot be guaranteed
_RECURRING = 0.95  # of the calibration rows' scores
_COARSE = 99  # held-out rows, below which no p-value is below 1 %


@dataclass(frozen=True)
class Finding:
    """One result of a check: its name, what is wrong, what to do, and the section with more.

    `urgent` ones make the model or its alarms worse than they need be.
    """

    kind: str
    urgent: bool
    text: str
    advice: str
    section: str

    @property
    def sentence(self) -> str:
        """What is wrong and what to do, for a terminal."""
        return f"{self.text} {self.advice}".translate(_PLAIN)


Check = Callable[[Fitted, Measurements], Finding | None]
# What each check is about, for the list of what is in order.
_ABOUT = {
    "overfitting": "over-fitting",
    "unfinished": "length of training",
    "pca": "error compared with PCA",
    "shift": "shift since training",
    "calibration": "held-out rows",
    "few-rows": "rows for the threshold",
    "training-rows": "rows that the model has not seen",
    "not-learned": "columns learned",
    "unseen": "known categories",
    "missing": "missing values",
    "unused": "components in use",
    "twins": "components that differ",
    "constant": "no constant columns",
    "ignored": "no columns left out",
    "pooled": "no rare levels",
}
_OF_MANY_ROWS = {"pca", "shift", "not-learned", "unused", "twins"}
_OF_TABLES = {"not-learned", "unseen", "constant", "ignored", "pooled"}


def run_checks(ae: Fitted, measured: Measurements) -> list[Finding]:
    """Return what the reader should know, urgent findings first."""
    found = [check(ae, measured) for check in _CHECKS]
    return sorted((c for c in found if c is not None), key=lambda c: not c.urgent)


def in_order(ae: Fitted, measured: Measurements, found: Sequence[Finding]) -> list[str]:
    """Return what was checked and is in order."""
    absent = {finding.kind for finding in found}
    if measured.n_rows < _FEW_ROWS:
        absent |= _OF_MANY_ROWS
    if is_picture(ae.schema_):
        absent |= _OF_TABLES
    if "nothing" in absent:
        absent.add("not-learned")
    if "calibration" in absent:
        absent |= {"overfitting", "shift", "few-rows"}
    if len(ae.calibration_scores_) < LEAST_CALIBRATION_ROWS:
        absent.add("training-rows")
    if not any(column.kind == "category" for column in ae.schema_.columns):
        absent |= {"unseen", "pooled"}
    return [text for kind, text in _ABOUT.items() if kind not in absent]


def improvement(history: Sequence[dict[str, float]]) -> float:
    """Return by how much training lowered the loss that early stopping monitors."""
    monitored = losses(history)
    return float(history[0]["loss"] - min(monitored)) if monitored else 0.0


def losses(history: Sequence[dict[str, float]]) -> list[float]:
    """Return the monitored losses: of held-out rows, if there were some."""
    return [float(entry.get("validation_loss", entry["loss"])) for entry in history]


def named(names: Sequence[str], most: int = _NAMED) -> str:
    """Name the first of many columns."""
    text = ", ".join(_quoted(name) for name in names[:most])
    more = len(names) - most
    return text + (f" and {more:,} more" if more > 0 else "")


def _quoted(name: str) -> str:
    return f"“{isolated(shortened(name, _LETTERS))}”"


def _chosen(ae: Fitted, mask: Any, by: Any = None) -> list[str]:
    """Return the names of the columns in `mask`, the largest of `by` first."""
    at = np.flatnonzero(mask)
    if by is not None:
        at = at[np.argsort(-np.asarray(by)[at], kind="stable")]
    return [ae.schema_.columns[i].name for i in at]


def _overfitting(ae: Fitted, measured: Measurements) -> Finding | None:
    history, best = ae.history_, ae.best_epoch_
    if len(history) < 2 or not best or "validation_loss" not in history[best - 1]:
        return None
    moved, monitored = improvement(history), losses(history)
    if moved <= 0:
        return None
    rise = monitored[best - 1] - min(monitored)
    if rise > _RISE * moved:
        least = int(np.argmin(monitored)) + 1
        return Finding(
            "overfitting",
            True,
            f"The loss on held-out rows was lowest in epoch {least} ({number(min(monitored))}) and "
            f"rose to {number(monitored[best - 1])} in epoch {best}, whose weights were kept: the "
            f"network memorised the training rows.",
            "Set patience=10, which keeps the best weights, or train for fewer epochs.",
            "training",
        )
    gap = monitored[best - 1] - history[best - 1]["loss"]
    if gap <= _GAP * moved:
        return None
    return Finding(
        "overfitting",
        True,
        f"The loss is {number(history[best - 1]['loss'])} on training rows and "
        f"{number(monitored[best - 1])} on held-out ones: part of what was learned holds for the "
        f"training rows only.",
        "Train on more rows, or with a smaller code (n_components), fewer or narrower "
        "hidden_layers, weight_decay, or a corruption such as 'masking'.",
        "training",
    )


def _unfinished(ae: Fitted, measured: Measurements) -> Finding | None:
    history = ae.history_
    patience = ae.get_params(deep=False)["patience"]
    n, monitored = len(history), losses(history)
    if not n or (isinstance(patience, int) and n - ae.best_epoch_ >= patience):
        return None
    tail = max(1, n // 10)
    if n > 2:
        gain = min(monitored[:-tail]) - min(monitored[-tail:])
        whole = improvement(history)
        if gain <= _STILL * whole or gain <= 0 or whole <= 0:
            return None
        text = (
            f"Training ended after {counted(n, 'epoch')} while the loss was still falling: the "
            f"last {counted(tail, 'epoch')} brought {percent(gain / whole)} of all "
            f"that was gained."
        )
    else:
        text = f"Training ended after {counted(n, 'epoch')}, too early to say how far it gets."
    return Finding("unfinished", True, text, f"Try epochs={2 * n} or more.", "training")


def _untrained(ae: Fitted, measured: Measurements) -> Finding | None:
    if ae.history_:
        return None
    return Finding(
        "untrained",
        True,
        "No epoch of training was finished, so the weights are those that it started from.",
        "Fit the model again.",
        "training",
    )


def _worse_than_pca(ae: Fitted, measured: Measurements) -> Finding | None:
    both = measured.comparison
    worse = both.squared_error > _MARGIN * both.squared_error_pca + 1e-9
    if not worse or both.n_rows < 10:
        return None
    text = (
        f"On these rows PCA with a code of the same size has a squared error of "
        f"{number(both.squared_error_pca)}, and the network one of {number(both.squared_error)}."
    )
    trained_otherwise = ae.scorer_.needs_weights or ae.network_.bottleneck.has_posterior
    if trained_otherwise or ae.get_params(deep=False)["corruption"] is not None:
        text += " Squared error of clean cells is not what this network was trained to lower."
        advice = "Judge by what the model is for: scores, filled cells or codes."
        return Finding("pca", False, text, advice, "columns")
    advice = "Try more epochs, another learning_rate, or wider hidden_layers; or use PCA."
    return Finding("pca", True, text, advice, "columns")


def _learned_nothing(ae: Fitted, measured: Measurements) -> Finding | None:
    r2 = measured.comparison.r2
    if not r2 <= _NOT_LEARNED or measured.comparison.n_rows < _FEW_ROWS:
        return None
    what = "nothing" if r2 <= 0 else f"only {percent(r2)}"
    return Finding(
        "nothing",
        True,
        f"Reconstructions keep {what} of these rows' variance: they are hardly better than the "
        f"columns' means.",
        "Try a larger n_components and more epochs. Independent columns cannot be "
        "summarised by a shorter code.",
        "columns",
    )


def not_learned(ae: Fitted, measured: Measurements) -> Any:
    """Return which columns are hardly reconstructed: an array of bool, (n_columns,)."""
    columns = measured.columns
    if measured.comparison.n_rows < _FEW_ROWS:
        return np.zeros(len(columns.kept), dtype=bool)
    with np.errstate(invalid="ignore"):
        return varies(measured) & (columns.kept <= _NOT_LEARNED)


def varies(measured: Measurements) -> Any:
    """Return which columns vary enough to be mentioned: an array of bool, (n_columns,)."""
    variance = measured.columns.variance
    mean = np.nanmean(variance) if np.isfinite(variance).any() else 0.0
    with np.errstate(invalid="ignore"):
        return variance > _SMALL_COLUMN * mean


def _columns_not_learned(ae: Fitted, measured: Measurements) -> Finding | None:
    mask = not_learned(ae, measured)
    n = int(mask.sum())
    # Single pixels of an image do not matter; and if nothing is learned, no column is.
    if not n or is_picture(ae.schema_) or measured.comparison.r2 <= _NOT_LEARNED:
        return None
    return Finding(
        "not-learned",
        False,
        f"{counted(n, 'column')} {'is' if n == 1 else 'are'} not learned "
        f"(less than {percent(_NOT_LEARNED)} of the variance is kept): "
        f"{named(_chosen(ae, mask, -measured.columns.kept))}.",
        "Either they are independent of the other columns and can be dropped, or the code is too "
        "short for them: try a larger n_components.",
        "columns",
    )


def _missing(ae: Fitted, measured: Measurements) -> Finding | None:
    seen = np.array([column.width > 0 for column in ae.schema_.columns])
    mask = seen & (measured.columns.missing > _MISSING)
    n = int(mask.sum())
    if not n:
        return None
    empty = int((measured.columns.missing[mask] == 1).sum())
    tail = f" {empty} of them {'is' if empty == 1 else 'are'} empty." if 0 < empty < n else ""
    if empty == n:
        tail = " They are empty." if n > 1 else " It is empty."
    return Finding(
        "missing",
        False,
        f"In {counted(n, 'column')} more than {percent(_MISSING)} of these rows' cells are "
        f"missing: {named(_chosen(ae, mask, measured.columns.missing))}.{tail}",
        "A missing cell counts the average of its column, so these columns contribute little to a "
        "score. Check that the source is read correctly, or drop them.",
        "columns",
    )


def _shift(ae: Fitted, measured: Measurements) -> Finding | None:
    columns, side = measured.columns, measured.scores.side
    moved = columns.is_shifted & (len(measured.sample) >= _FEW_ROWS)
    if side != "lower" and not (moved.any() and not side):
        return None
    parts = []
    if side:
        parts.append(
            "These rows score lower than the held-out ones did: they have another source, or the "
            "data has changed."
        )
        causes = measured.causes
        least = 0.0 if causes is None else _CAUSE * max(1.0, float(causes.max()))
        if causes is not None and causes.max() > least and not is_picture(ae.schema_):
            names = _chosen(ae, causes > least, causes)
            parts.append(f"What lowers them most is {named(names, 3)}.")
    if moved.any() and is_picture(ae.schema_):
        parts.append(f"The mean of {counted(int(moved.sum()), 'pixel')} has moved since training.")
    elif moved.any():
        order = np.flatnonzero(moved)
        order = order[np.argsort(-np.abs(columns.shift[order]), kind="stable")]
        movements = "; ".join(_movement(ae, measured, int(i)) for i in order[:_NAMED])
        more = len(order) - _NAMED
        movements += f"; and {counted(more, 'more column')}" if more > 0 else ""
        parts.append(f"Since training, {movements}.")
    return Finding(
        "shift",
        side == "lower",
        " ".join(parts),
        "Check whether the source or its units changed. If these rows are normal now, fit again on "
        "rows like them; until then, more alarms are false than stated."
        if side
        else "Scores still agree with the held-out rows'. Monitor these columns, and fit again if "
        "they keep moving.",
        "scores",
    )


def _movement(ae: Fitted, measured: Measurements, i: int) -> str:
    column, shift = ae.schema_.columns[i], float(measured.columns.shift[i])
    name = _quoted(column.name)
    if column.kind == "category" or column.knots:
        what = "categories" if column.kind == "category" else "values"
        return f"the {what} of {name} changed in {percent(shift)} of the rows"
    if has_levels(column):
        return f"{name} became {'more' if shift > 0 else 'less'} frequent"
    away = "later" if column.kind == "time" else "higher"
    near = "earlier" if column.kind == "time" else "lower"
    return f"{name} is {number(abs(shift), 2)} standard deviations {away if shift > 0 else near}"


def _higher_scores(ae: Fitted, measured: Measurements) -> Finding | None:
    if measured.scores.side != "higher":
        return None
    return Finding(
        "higher",
        False,
        "These rows score higher than the held-out ones did. So do rows that an over-fitted "
        "network was trained on, and rows that vary less than the training rows.",
        "Judge false alarms by rows that the network has not seen.",
        "scores",
    )


def _unseen_levels(ae: Fitted, measured: Measurements) -> Finding | None:
    counts = measured.columns.unseen
    if not counts.any():
        return None
    names = _chosen(ae, counts > 0, counts)
    return Finding(
        "unseen",
        False,
        f"{counted(int(counts.sum()), 'cell')} of the rows measured here "
        f"{'holds a category' if counts.sum() == 1 else 'hold categories'} not seen in training, "
        f"in {named(names)}.",
        "They count as rare categories. Correct their spelling, or fit again on rows that "
        "hold them.",
        "columns",
    )


def _constant(ae: Fitted, measured: Measurements) -> Finding | None:
    names = ae.schema_.constant_columns()
    if not names or is_picture(ae.schema_):
        return None
    n = len(names)
    return Finding(
        "constant",
        False,
        f"{counted(n, 'column')} held one value only in training: {named(names)}.",
        f"The network learns nothing from {'it' if n == 1 else 'them'}, and any other value there "
        f"is an anomaly. Drop {'it' if n == 1 else 'them'} unless that is what you want.",
        "model",
    )


def _ignored(ae: Fitted, measured: Measurements) -> Finding | None:
    ignored = ae.schema_.ignored_columns()
    if not ignored:
        return None
    names = [f"{_quoted(name)} ({shortened(note)})" for name, note in ignored.items()]
    n = len(ignored)
    return Finding(
        "ignored",
        False,
        f"{counted(n, 'column')} {'is' if n == 1 else 'are'} left out of the model: "
        f"{', '.join(names[:_NAMED])}"
        + (f" and {len(names) - _NAMED:,} more." if len(names) > _NAMED else "."),
        "If that is wrong, set the kind with kinds={...} and fit again.",
        "model",
    )


def _pooled(ae: Fitted, measured: Measurements) -> Finding | None:
    shares = []
    for column in ae.schema_.columns:
        rare = sum(column.counts[i] for i in column.pooled) if len(column.pooled) > 1 else 0
        shares.append(rare / max(1, sum(column.counts)))
    mask = np.array(shares) >= _POOLED
    if not mask.any():
        return None
    return Finding(
        "pooled",
        False,
        f"In {counted(int(mask.sum()), 'column')} at least {percent(_POOLED)} of the cells hold "
        f"levels so rare that they share one input: {named(_chosen(ae, mask, np.array(shares)))}.",
        "Which of them a missing cell holds cannot be predicted, so it stays missing. Group the "
        "levels, or draw them with n_draws=2 or more.",
        "columns",
    )


def _few_for_threshold(ae: Fitted, measured: Measurements) -> Finding | None:
    scores = measured.scores
    n = len(scores.held_out)
    if ae.get_params(deep=False)["contamination"] != "auto" or n >= _COARSE:
        return None
    if n < _FOR_FIVE_PERCENT:
        text = (
            f"The threshold rests on {counted(n, 'row')}: a normal row is flagged with a "
            f"probability of up to {percent(1 / (n + 1))}, and no p-value can be below that."
        )
    else:
        text = f"P-values rest on {counted(n, 'row')}, so none can be below {percent(1 / (n + 1))}."
    advice = "Fit on more rows, raise validation_fraction, or pass validation_data."
    return Finding("few-rows", n < _FOR_FIVE_PERCENT, text, advice, "scores")


def _no_held_out(ae: Fitted, measured: Measurements) -> Finding | None:
    if not ae.history_ or "validation_loss" in ae.history_[-1]:
        return None
    return Finding(
        "calibration",
        True,
        "No rows were held out: the threshold and the p-values rest on rows that the network was "
        "trained on, which it knows better than new ones.",
        "Leave validation_fraction at 0.1, or pass validation_data, so that false alarms stay at "
        "the stated rate.",
        "scores",
    )


def trained_on(measured: Measurements) -> bool:
    """Whether these rows are, or hold, those that the model was trained and calibrated on."""
    return measured.recurring >= _RECURRING


def _training_rows(ae: Fitted, measured: Measurements) -> Finding | None:
    if not trained_on(measured):
        return None
    return Finding(
        "training-rows",
        False,
        f"These rows are those that the model was trained or calibrated on: "
        f"{percent(measured.recurring)} of the calibration rows' scores recur among theirs. Errors "
        f"look smaller here than on new rows.",
        "Judge the model by rows that it has not seen.",
        "scores",
    )


def _unused_components(ae: Fitted, measured: Measurements) -> Finding | None:
    unused = measured.components.unused
    k = ae.network_.n_components
    if not unused:
        return None
    n = len(unused)
    left = (
        f"try n_components={k - n}"
        if n < k
        else "the code carries no information; train for longer"
    )
    return Finding(
        "unused",
        False,
        f"{n} of {counted(k, 'component')} {'is' if n == 1 else 'are'} unused: "
        f"reconstructions are as good with {'it' if n == 1 else 'each of them'} held constant.",
        f"The code can be shorter: {left}." if n < k else f"{left[0].upper()}{left[1:]}.",
        "components",
    )


def _twin_components(ae: Fitted, measured: Measurements) -> Finding | None:
    twins = measured.components.twins
    directions = measured.components.directions
    # Components that correlate highly may still differ in what matters.
    if not twins or directions == ae.network_.n_components:
        return None
    i, j, alike = twins[0]
    shorter = f"try n_components={directions}" if directions else "try a smaller n_components"
    return Finding(
        "twins",
        False,
        f"{counted(len(twins), 'pair')} of components "
        f"{'carries' if len(twins) == 1 else 'carry'} nearly the same information, such as "
        f"{i} and {j} (correlation {number(alike, 3)}).",
        f"The code can probably be shorter: {shorter}.",
        "components",
    )


# The most useful to know first; those that are urgent come before all others.
_CHECKS: tuple[Check, ...] = (
    _untrained,
    _learned_nothing,
    _worse_than_pca,
    _shift,
    _no_held_out,
    _overfitting,
    _unfinished,
    _ignored,
    _pooled,
    _few_for_threshold,
    _columns_not_learned,
    _unseen_levels,
    _missing,
    _training_rows,
    _higher_scores,
    _unused_components,
    _twin_components,
    _constant,
)
