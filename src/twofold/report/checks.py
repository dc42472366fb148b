"""What a fitted model and its rows call for, in plain words: what is amiss, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twofold.formatting import counted
from twofold.report.html import isolated, number, percent, short
from twofold.report.measurements import Findings, Fitted, has_levels, is_picture

_PLAIN = {0x2068: None, 0x2069: None, 0xA0: " "}  # isolates and spaces that do not break
_NAMED = 6  # columns, of which the rest is counted
_LETTERS = 32  # of a column's name
_FEW_ROWS = 20  # fewer say little about a column or a shift
_GAP = 0.2  # of what training lowered the loss by: held-out rows that much worse are over-fitting
_RISE = 0.05  # of the same: held-out loss that rose again by that much
_STILL = 0.01  # of the same: a last tenth of the epochs that brought that much was not the last
_NOT_LEARNED = 0.1  # of a column's variance
_SMALL_COLUMN = 0.01  # of the mean variance: what varies less is not worth a word
_MARGIN = 1.02  # by how much PCA must be better to be no chance
_HOLES = 0.3  # of a column's cells
_CAUSE = 0.3  # nats a row, and share of the largest, from which on a column lowers all scores
_FOR_FIVE_PERCENT = 19  # held-out rows, below which 5 % of false alarms cannot be promised
_COARSE = 99  # held-out rows, below which no p-value is below 1 %


@dataclass(frozen=True)
class Caution:
    """One thing to know: a name for it, what is the matter, what to do, and where to read on.

    `urgent` ones make the model or its alarms worse than they need be.
    """

    kind: str
    urgent: bool
    text: str
    advice: str
    section: str

    @property
    def said(self) -> str:
        """What is the matter and what to do, for a terminal."""
        return f"{self.text} {self.advice}".translate(_PLAIN)


Check = Callable[[Fitted, Findings], Caution | None]
# What each kind of caution is about, for the list of what is in order.
_ABOUT = {
    "overfitting": "over-fitting",
    "unfinished": "length of training",
    "pca": "error beside PCA",
    "shift": "shift since training",
    "calibration": "held-out rows",
    "few-rows": "rows for the threshold",
    "not-learned": "columns learned",
    "unseen": "known levels",
    "holes": "missing cells",
    "unused": "components in use",
    "twins": "components that differ",
    "constant": "no constant columns",
    "ignored": "no columns left out",
}
_OF_MANY_ROWS = {"pca", "shift", "not-learned", "unused", "twins"}
_OF_TABLES = {"not-learned", "unseen", "constant", "ignored"}


def cautions(ae: Fitted, findings: Findings) -> list[Caution]:
    """Return what the reader should know, the urgent first."""
    found = [check(ae, findings) for check in _CHECKS]
    return sorted((c for c in found if c is not None), key=lambda c: not c.urgent)


def in_order(ae: Fitted, findings: Findings, found: Sequence[Caution]) -> list[str]:
    """Return what was checked and gives no cause for caution."""
    absent = {caution.kind for caution in found}
    if findings.n_rows < _FEW_ROWS:
        absent |= _OF_MANY_ROWS
    if is_picture(ae.schema_):
        absent |= _OF_TABLES
    if "nothing" in absent:
        absent.add("not-learned")
    if "calibration" in absent:
        absent |= {"overfitting", "shift", "few-rows"}
    if not any(column.kind == "category" for column in ae.schema_.columns):
        absent.add("unseen")
    return [text for kind, text in _ABOUT.items() if kind not in absent]


def progress(history: Sequence[dict[str, float]]) -> float:
    """Return by how much training lowered the loss that it watched."""
    watched = losses(history)
    return float(history[0]["loss"] - min(watched)) if watched else 0.0


def losses(history: Sequence[dict[str, float]]) -> list[float]:
    """Return the losses that training went by: of held-out rows, where there were some."""
    return [float(entry.get("validation_loss", entry["loss"])) for entry in history]


def named(names: Sequence[str], most: int = _NAMED) -> str:
    """Name the first of many columns."""
    text = ", ".join(_quoted(name) for name in names[:most])
    more = len(names) - most
    return text + (f" and {more:,} more" if more > 0 else "")


def _quoted(name: str) -> str:
    return f"“{isolated(short(name, _LETTERS))}”"


def _chosen(ae: Fitted, mask: Any, by: Any = None) -> list[str]:
    """Return the names of the columns in `mask`, the largest of `by` first."""
    at = np.flatnonzero(mask)
    if by is not None:
        at = at[np.argsort(-np.asarray(by)[at], kind="stable")]
    return [ae.schema_.columns[i].name for i in at]


def _overfitting(ae: Fitted, findings: Findings) -> Caution | None:
    history, best = ae.history_, ae.best_epoch_
    if len(history) < 2 or not best or "validation_loss" not in history[best - 1]:
        return None
    moved, watched = progress(history), losses(history)
    if moved <= 0:
        return None
    rise = watched[best - 1] - min(watched)
    if rise > _RISE * moved:
        least = int(np.argmin(watched)) + 1
        return Caution(
            "overfitting",
            True,
            f"The loss on held-out rows was lowest in epoch {least} ({number(min(watched))}) and "
            f"rose to {number(watched[best - 1])} in epoch {best}, whose weights were kept: the "
            f"network learned the training rows by heart.",
            "Set patience=10, which keeps the best weights, or train for fewer epochs.",
            "training",
        )
    gap = watched[best - 1] - history[best - 1]["loss"]
    if gap <= _GAP * moved:
        return None
    return Caution(
        "overfitting",
        True,
        f"The loss is {number(history[best - 1]['loss'])} on training rows and "
        f"{number(watched[best - 1])} on held-out ones: part of what was learned holds for the "
        f"training rows only.",
        "Train on more rows, or with a smaller code (n_components), fewer or narrower "
        "hidden_layers, weight_decay, or a corruption such as 'masking'.",
        "training",
    )


def _unfinished(ae: Fitted, findings: Findings) -> Caution | None:
    history = ae.history_
    patience = ae.get_params(deep=False)["patience"]
    n, watched = len(history), losses(history)
    if not n or (patience is not None and n - ae.best_epoch_ >= patience):
        return None
    tail = max(1, n // 10)
    if n > 2:
        gain = min(watched[:-tail]) - min(watched[-tail:])
        if gain <= _STILL * progress(history) or gain <= 0:
            return None
        text = (
            f"Training ended after {counted(n, 'epoch')} while it was still getting better: the "
            f"last {counted(tail, 'epoch')} brought {percent(gain / progress(history))} of all "
            f"that was gained."
        )
    else:
        text = f"Training ended after {counted(n, 'epoch')}, too early to tell how far it gets."
    return Caution("unfinished", True, text, f"Try epochs={2 * n} or more.", "training")


def _untrained(ae: Fitted, findings: Findings) -> Caution | None:
    if ae.history_:
        return None
    return Caution(
        "untrained",
        True,
        "No epoch of training was finished, so the weights are those that it started from.",
        "Fit the model anew.",
        "training",
    )


def _worse_than_pca(ae: Fitted, findings: Findings) -> Caution | None:
    both = findings.comparison
    worse = both.squared_error > _MARGIN * both.squared_error_pca + 1e-9
    if not worse or both.n_rows < 10:
        return None
    text = (
        f"On these rows PCA with a code of the same size has a squared error of "
        f"{number(both.squared_error_pca)}, and the network one of {number(both.squared_error)}."
    )
    if ae._objective.adapts or ae.get_params(deep=False)["corruption"] is not None:
        text += " Squared error of clean cells is not what this network was trained to lower."
        advice = "Judge by what the model is for: scores, filled cells or codes."
        return Caution("pca", False, text, advice, "columns")
    advice = "Try more epochs, another learning_rate, or wider hidden_layers; or use PCA."
    return Caution("pca", True, text, advice, "columns")


def _learned_nothing(ae: Fitted, findings: Findings) -> Caution | None:
    r2 = findings.comparison.r2
    if not r2 <= _NOT_LEARNED or findings.comparison.n_rows < _FEW_ROWS:
        return None
    what = "nothing" if r2 <= 0 else f"only {percent(r2)}"
    return Caution(
        "nothing",
        True,
        f"Reconstructions keep {what} of these rows' variance: they are hardly better than the "
        f"columns' means.",
        "Try a larger n_components and more epochs. Columns that have nothing to do with each "
        "other cannot be told by a shorter code.",
        "columns",
    )


def not_learned(ae: Fitted, findings: Findings) -> Any:
    """Return which columns reconstructions hardly know: an array of bool, (n_columns,)."""
    columns = findings.columns
    if findings.comparison.n_rows < _FEW_ROWS:
        return np.zeros(len(columns.kept), dtype=bool)
    with np.errstate(invalid="ignore"):
        return varies(findings) & (columns.kept <= _NOT_LEARNED)


def varies(findings: Findings) -> Any:
    """Return which columns vary enough to be worth a word: an array of bool, (n_columns,)."""
    variance = findings.columns.variance
    mean = np.nanmean(variance) if np.isfinite(variance).any() else 0.0
    with np.errstate(invalid="ignore"):
        return variance > _SMALL_COLUMN * mean


def _columns_not_learned(ae: Fitted, findings: Findings) -> Caution | None:
    mask = not_learned(ae, findings)
    n = int(mask.sum())
    # Of an image, single pixels are no news; and where nothing is learned, no column is.
    if not n or is_picture(ae.schema_) or findings.comparison.r2 <= _NOT_LEARNED:
        return None
    return Caution(
        "not-learned",
        False,
        f"{counted(n, 'column')} {'is' if n == 1 else 'are'} not learned "
        f"(less than {percent(_NOT_LEARNED)} of the variance is kept): "
        f"{named(_chosen(ae, mask, -findings.columns.kept))}.",
        "Either nothing else in a row tells them, and they can be dropped; or the code is too "
        "short for them: try a larger n_components.",
        "columns",
    )


def _holes(ae: Fitted, findings: Findings) -> Caution | None:
    seen = np.array([column.width > 0 for column in ae.schema_.columns])
    mask = seen & (findings.columns.missing > _HOLES)
    n = int(mask.sum())
    if not n:
        return None
    empty = int((findings.columns.missing[mask] == 1).sum())
    tail = f" {empty} of them hold no cell at all." if 0 < empty < n else ""
    if empty == n:
        tail = " No cell of theirs is there at all." if n > 1 else " It holds no cell at all."
    return Caution(
        "holes",
        False,
        f"In {counted(n, 'column')} more than {percent(_HOLES)} of these rows' cells are missing: "
        f"{named(_chosen(ae, mask, findings.columns.missing))}.{tail}",
        "Missing cells count what such cells count on average, so these columns say little about "
        "a row. See that the source is read as it should be, or drop them.",
        "columns",
    )


def _shift(ae: Fitted, findings: Findings) -> Caution | None:
    columns, side = findings.columns, findings.scores.side
    moved = columns.is_shifted & (len(findings.sample) >= _FEW_ROWS)
    if side != "lower" and not (moved.any() and not side):
        return None
    parts = []
    if side:
        parts.append(
            "These rows score lower than the held-out ones did: they come from somewhere else, or "
            "something has changed."
        )
        causes = findings.causes
        least = 0.0 if causes is None else _CAUSE * max(1.0, float(causes.max()))
        if causes is not None and causes.max() > least and not is_picture(ae.schema_):
            names = _chosen(ae, causes > least, causes)
            parts.append(f"What lowers them most is {named(names, 3)}.")
    if moved.any() and is_picture(ae.schema_):
        parts.append(f"The mean of {counted(int(moved.sum()), 'pixel')} has moved since training.")
    elif moved.any():
        order = np.flatnonzero(moved)
        order = order[np.argsort(-np.abs(columns.shift[order]), kind="stable")]
        told = "; ".join(_movement(ae, findings, int(i)) for i in order[:_NAMED])
        more = len(order) - _NAMED
        told += f"; and {counted(more, 'more column')}" if more > 0 else ""
        parts.append(f"Since training, {told}.")
    return Caution(
        "shift",
        side == "lower",
        " ".join(parts),
        "See whether the source, its units or the world changed. If these rows are what is normal "
        "now, fit anew on rows like them; until then, more alarms are false than was promised."
        if side
        else "Scores still agree with the held-out rows'. Keep an eye on these columns, and fit "
        "anew if they go on moving.",
        "scores",
    )


def _movement(ae: Fitted, findings: Findings, i: int) -> str:
    column, shift = ae.schema_.columns[i], float(findings.columns.shift[i])
    name = _quoted(column.name)
    if column.kind == "category" or column.knots:
        what = "levels" if column.kind == "category" else "values"
        return f"the {what} of {name} changed in {percent(shift)} of the rows"
    if has_levels(column):
        return f"{name} became {'more' if shift > 0 else 'less'} frequent"
    away = "later" if column.kind == "time" else "higher"
    near = "earlier" if column.kind == "time" else "lower"
    return f"{name} is {number(abs(shift), 2)} spreads {away if shift > 0 else near}"


def _higher_scores(ae: Fitted, findings: Findings) -> Caution | None:
    if findings.scores.side != "higher":
        return None
    return Caution(
        "higher",
        False,
        "These rows score higher than the held-out ones did. So do rows that the network was "
        "trained on, where it over-fits, and rows that are more alike than those of the training.",
        "Judge false alarms by rows that the network has not seen.",
        "scores",
    )


def _unseen_levels(ae: Fitted, findings: Findings) -> Caution | None:
    counts = findings.columns.unseen
    if not counts.any():
        return None
    names = _chosen(ae, counts > 0, counts)
    return Caution(
        "unseen",
        False,
        f"{counted(int(counts.sum()), 'cell')} of the rows measured here "
        f"{'holds a level' if counts.sum() == 1 else 'hold levels'} that training did not have, in "
        f"{named(names)}.",
        "They count as rare levels. Correct their spelling, or fit anew if they are here to stay.",
        "columns",
    )


def _constant(ae: Fitted, findings: Findings) -> Caution | None:
    names = ae.schema_.constant_columns()
    if not names or is_picture(ae.schema_):
        return None
    n = len(names)
    return Caution(
        "constant",
        False,
        f"{counted(n, 'column')} held one value only in training: {named(names)}.",
        f"{'It teaches' if n == 1 else 'They teach'} the network nothing, and any other value "
        f"there looks odd. Drop {'it' if n == 1 else 'them'} unless that is what you want.",
        "model",
    )


def _ignored(ae: Fitted, findings: Findings) -> Caution | None:
    ignored = ae.schema_.ignored_columns()
    if not ignored:
        return None
    told = [f"{_quoted(name)} ({short(note)})" for name, note in ignored.items()]
    more = f" and {len(told) - _NAMED:,} more" if len(told) > _NAMED else ""
    n = len(ignored)
    return Caution(
        "ignored",
        False,
        f"{counted(n, 'column')} {'is' if n == 1 else 'are'} left out of the model: "
        f"{', '.join(told[:_NAMED])}{more}.",
        "If that is wrong, settle the kind with kinds={...} and fit anew.",
        "model",
    )


def _few_for_threshold(ae: Fitted, findings: Findings) -> Caution | None:
    scores = findings.scores
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
    advice = "Fit on more rows, or raise validation_fraction, or hand in validation_data."
    return Caution("few-rows", n < _FOR_FIVE_PERCENT, text, advice, "scores")


def _no_held_out(ae: Fitted, findings: Findings) -> Caution | None:
    if not ae.history_ or "validation_loss" in ae.history_[-1]:
        return None
    return Caution(
        "calibration",
        True,
        "No rows were held out: the threshold and the p-values rest on rows that the network was "
        "trained on, which it knows better than new ones.",
        "Leave validation_fraction at 0.1, or hand in validation_data, so that false alarms stay "
        "at the promised rate.",
        "scores",
    )


def _unused_components(ae: Fitted, findings: Findings) -> Caution | None:
    unused = findings.components.unused
    k = ae.network_.n_components
    if not unused:
        return None
    n = len(unused)
    left = f"try n_components={k - n}" if n < k else "the code says nothing; train for longer"
    return Caution(
        "unused",
        False,
        f"{n} of {counted(k, 'component')} {'is' if n == 1 else 'are'} unused: "
        f"reconstructions are as good with {'it' if n == 1 else 'each of them'} held still.",
        f"The code can be shorter: {left}." if n < k else f"{left[0].upper()}{left[1:]}.",
        "components",
    )


def _twin_components(ae: Fitted, findings: Findings) -> Caution | None:
    twins = findings.components.twins
    directions = findings.components.directions
    # Numbers that are much alike may still differ in what matters.
    if not twins or directions == ae.network_.n_components:
        return None
    i, j, alike = twins[0]
    shorter = f"try n_components={directions}" if directions else "try a smaller n_components"
    return Caution(
        "twins",
        False,
        f"{counted(len(twins), 'pair')} of components "
        f"{'says' if len(twins) == 1 else 'say'} nearly the same, such as {i} and {j} (correlation "
        f"{number(alike, 3)}).",
        f"The code can probably be shorter: {shorter}.",
        "components",
    )


_CHECKS: tuple[Check, ...] = (
    _untrained,
    _overfitting,
    _unfinished,
    _learned_nothing,
    _worse_than_pca,
    _shift,
    _no_held_out,
    _few_for_threshold,
    _higher_scores,
    _columns_not_learned,
    _unseen_levels,
    _holes,
    _unused_components,
    _twin_components,
    _constant,
    _ignored,
)
