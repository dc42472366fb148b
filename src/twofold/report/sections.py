"""The sections of a report: what they show and say about columns, scores and codes.

Every function returns what the page's template fills in for one section: sentences that the numbers
decide, drawings, and the lines of tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.formatting import counted, duration, listed, number, percent, shortened
from twofold.report import charts
from twofold.report.charts import Mark
from twofold.report.checks import not_learned, varies
from twofold.report.components import Components
from twofold.report.measurements import Fitted, Measurements, has_levels, is_picture
from twofold.schema.column import Column
from twofold.schema.schema import Schema

Array = NDArray[Any]
Section = dict[str, Any]

_ALL_COLUMNS = 40  # up to here every column has its line
_SOME_COLUMNS = 12  # and of more, so many of the worst and of the best
_LETTERS = 40
_DRAWN = 5_000  # points of the map
_BINS = 44
_LEAST_HELD_OUT = 20  # rows, for a picture of p-values
_TWINS = 8
_PIECES = {20: 400, 10: 150, 5: 0}  # of the p-values, and the held-out rows that so many take


def fit(ae: Fitted, found: Measurements) -> Section:
    """Show how well each column is reconstructed, compared with PCA."""
    both, columns = found.comparison, found.columns
    pixel = "pixel" if is_picture(ae.schema_) else "column"
    seen = np.array([column.width > 0 for column in ae.schema_.columns])
    known = seen & np.isfinite(columns.kept)
    sentences = [_compared_with_pca(found)]
    n = int(known.sum())
    if n > 1:
        better = int((columns.kept[known] >= columns.kept_pca[known]).sum())
        sentences.append(
            f"The network is at least as good as PCA in {better:,} of {counted(n, pixel)} that "
            f"{'varies' if n == 1 else 'vary'}."
        )
    if n > _ALL_COLUMNS and not is_picture(ae.schema_):
        low, middle = np.quantile(columns.kept[known], [0.1, 0.5])
        sentences.append(
            f"Half of the columns keep at least {percent(float(middle))} of their variance; one "
            f"in ten keeps less than {percent(float(low))}."
        )
        still = int((known & ~varies(found)).sum())
        if still:
            sentences.append(f"{counted(still, 'column')} that hardly vary are not listed below.")
    if both.n_rows < 20:
        sentences.append(
            f"With {counted(both.n_rows, 'row')} these figures say little about other rows."
        )
    maps = _error_maps(ae.schema_, found) if is_picture(ae.schema_) else None
    side = math.isqrt(len(seen))
    flat = not is_picture(ae.schema_) and side**2 == len(seen) and side >= 8
    if flat and all(column.kind == "pixel" for column in ae.schema_.columns):
        sentences.append(
            f"If these rows are images of {side} × {side} pixels, pass them as (n, {side}, {side}) "
            f"to see them here."
        )
    many = n > _ALL_COLUMNS and maps is None
    return {
        "sentences": sentences,
        "maps": maps["maps"] if maps else [],
        "scale": maps["scale"] if maps else "",
        "top": maps["top"] if maps else "",
        "chart": _kept_chart(columns.kept[known], columns.kept_pca[known]) if many else None,
        "caption": "Columns by the share of their variance that reconstructions keep; the first "
        "bar holds those at 0 and below.",
        "tables": [] if maps else _fit_tables(ae, found, seen),
    }


def _compared_with_pca(found: Measurements) -> str:
    both = found.comparison
    k = counted(both.n_components, "component")
    if both.n_rows < 2 or not math.isfinite(both.r2):
        return (
            f"Squared error: {number(both.squared_error)} for the network and "
            f"{number(both.squared_error_pca)} for PCA with {k}. With no variance among the rows "
            f"there is no share of it to keep."
        )
    return (
        f"Over {counted(both.n_rows, 'row')}, reconstructions keep {percent(both.r2)} of the "
        f"variance; those of PCA with {k} keep {percent(both.r2_pca)}. The network's squared error "
        f"is {_relation(both.ratio)}."
    )


def _relation(ratio: float) -> str:
    if not math.isfinite(ratio) or ratio >= 2:
        return f"{number(ratio, 2)} times PCA's"
    if abs(ratio - 1) < 5e-4:
        return "the same as PCA's"
    return f"{percent(abs(1 - ratio))} {'below' if ratio < 1 else 'above'} PCA's"


def _kept_chart(kept: Array, kept_pca: Array) -> str:
    edges = np.linspace(-0.05, 1.0, 22)
    counts = [np.histogram(np.clip(v, -0.04, 1), edges)[0] for v in (kept, kept_pca)]
    middle = [percent(float(np.median(v))) for v in (kept, kept_pca)]
    return charts.histogram(
        "kept",
        "Columns by the share of variance kept",
        f"The median column keeps {middle[0]} in the network and {middle[1]} in PCA.",
        edges,
        counts[0],
        counts[1],
        x_text=lambda value: percent(max(value, 0.0)),
    )


def _error_maps(schema: Schema, found: Measurements) -> Section:
    shape = schema.row_shape
    maps = [errors.reshape(shape) for errors in found.column_errors]
    maps = [m.mean(axis=2) if m.ndim == 3 else m for m in maps]
    top = max(float(np.nanmax(m)) for m in maps)
    names = ("the network", "PCA with the same code size")
    both = found.comparison
    errors = (both.squared_error, both.squared_error_pca)
    entries = []
    for name, errors_map, error in zip(names, maps, errors, strict=True):
        pixels = charts.heat(charts.shrunk(errors_map), top)
        down, across = np.unravel_index(int(np.nanargmax(errors_map)), errors_map.shape)
        entries.append(
            {
                "uri": charts.data_uri(pixels),
                "width": pixels.shape[1],
                "height": pixels.shape[0],
                "text": f"{name}: {number(error)} per image",
                "alt": f"Heat map of {name}'s squared error in each pixel; it is largest in line "
                f"{down}, column {across}",
            }
        )
    ramp = charts.heat(np.linspace(0, 1, 64)[None], 1.0)
    return {"maps": entries, "scale": charts.data_uri(ramp), "top": number(top, 2)}


def _fit_tables(ae: Fitted, found: Measurements, seen: Array) -> list[Section]:
    kept = np.where(np.isnan(found.columns.kept), np.inf, found.columns.kept)
    order = np.argsort(kept, kind="stable")
    order = order[seen[order]]
    missing = bool(found.columns.missing[seen].any())
    if len(order) <= _ALL_COLUMNS:
        lines = [_fit_line(ae, found, int(i)) for i in order]
        return [{"name": "every", "title": "Column by column", "lines": lines, "missing": missing}]
    # What hardly varies at all comes back badly without any harm.
    known = order[np.isfinite(kept[order]) & varies(found)[order]]
    parts = {"worst": known[:_SOME_COLUMNS], "best": known[::-1][:_SOME_COLUMNS]}
    return [
        {
            "name": name,
            "title": f"The {len(part)} {name} of {len(seen):,} columns",
            "lines": [_fit_line(ae, found, int(i)) for i in part],
            "missing": missing,
        }
        for name, part in parts.items()
    ]


def _fit_line(ae: Fitted, found: Measurements, i: int) -> Section:
    column, columns = ae.schema_.columns[i], found.columns
    kept, kept_pca = float(columns.kept[i]), float(columns.kept_pca[i])
    poor = bool(not_learned(ae, found)[i])
    return {
        "name": shortened(column.name, _LETTERS),
        "kind": column.kind,
        "kept": _kept(kept),
        "kept_pca": _kept(kept_pca),
        "bar": charts.bar(kept, "anomaly" if poor else "net", kept_pca),
        "typical": _typical(column, float(columns.typical[i])),
        "typical_pca": _typical(column, float(columns.typical_pca[i])),
        "missing": percent(float(columns.missing[i])),
        "poor": poor,
    }


def _kept(share: float) -> str:
    if math.isnan(share):
        return "–"
    return percent(share) if share >= 0 else "below 0"


def _typical(column: Column, error: float) -> str:
    if math.isnan(error):
        return "–"
    if has_levels(column):
        return f"{percent(error)} wrong"
    return duration(error) if column.kind == "time" else number(error)


def scores(ae: Fitted, found: Measurements) -> Section:
    """Show how rows score compared with the held-out ones, and how many are flagged."""
    held = "validation_loss" in (ae.history_ or [{}])[-1]
    others = "held-out rows" if held else "training rows"
    compared = found.scores
    low, high, edges = _score_edges(compared.rows.score, compared.held_out, compared.threshold)
    shares = [
        np.histogram(np.clip(part, low, high), edges)[0] / max(len(part), 1)
        for part in (compared.rows.score, compared.held_out)
    ]
    below = int((compared.rows.score < edges[0]).sum())
    caption = (
        f"Share of {counted(found.n_rows, 'row')} by score, and of the "
        f"{counted(len(compared.held_out), others.split()[0] + ' row')}; higher is more normal."
    )
    if below:
        caption += (
            f" The first bar holds {counted(below, 'row')} below {number(float(edges[0]))}; "
            f"the lowest score is {number(float(compared.rows.score.min()))}."
        )
    chart = charts.histogram(
        "score-chart",
        "Distribution of the scores",
        f"{compared.n_anomalies} of {found.n_rows} rows score below the threshold "
        f"{number(compared.threshold)}; the median row scores "
        f"{number(float(np.median(compared.rows.score)))}, the median of the {others} is "
        f"{number(float(np.median(compared.held_out)))}.",
        edges,
        shares[0],
        shares[1],
        Mark(compared.threshold, f"threshold {number(compared.threshold, 4)}"),
        first=f"{below:,} lower" if below else "",
    )
    return {
        "sentences": [flagged_in_words(found), _rule_in_words(ae, found, others)],
        "others": others,
        "chart": chart,
        "caption": caption,
        **_p_values(found, others),
    }


def flagged_in_words(found: Measurements) -> str:
    """Say how many rows are flagged, and how many were to be expected."""
    compared, n = found.scores, found.n_rows
    if n == 1:
        is_anomaly = bool(compared.n_anomalies)
        return (
            f"The row scores {number(float(compared.rows.score[0]), 4)}, "
            f"{'below' if is_anomaly else 'not below'} the threshold: it is "
            f"{'flagged as an anomaly' if is_anomaly else 'not flagged'}."
        )
    text = (
        f"{compared.n_anomalies:,} of {counted(n, 'row')} "
        f"{'is' if compared.n_anomalies == 1 else 'are'} flagged as "
        f"{'an anomaly' if compared.n_anomalies == 1 else 'anomalies'} "
        f"({percent(compared.n_anomalies / n)}). "
    )
    expected = compared.expected * n
    about = f"about {expected:,.0f}" if expected >= 1 else "fewer than one"
    text += f"Of rows like the held-out ones {about} would be ({percent(compared.expected)}): "
    # The threshold itself is uncertain, resting on so many held-out rows.
    variance = compared.expected * (1 - compared.expected)
    spread = n * math.sqrt(variance * (1 / n + 1 / max(len(compared.held_out), 1)))
    difference = compared.n_anomalies - expected
    if abs(difference) <= 2 * spread:
        return text + "the difference is within sampling error."
    if difference < 0:
        return text + "these rows are more normal than the held-out ones."
    return text + f"{number(compared.n_anomalies / expected, 2)} times as many as expected."


def _rule_in_words(ae: Fitted, found: Measurements, others: str) -> str:
    compared = found.scores
    wanted = ae.get_params(deep=False)["contamination"]
    n = counted(len(compared.held_out), others.split()[0] + " row")
    if wanted == "auto":
        return (
            f"A row is flagged where it scores below {number(compared.threshold, 4)}, which "
            f"{percent(compared.expected)} of normal rows do, going by {n}. Scores are "
            f"log-densities in nats: what counts is how they compare."
        )
    return (
        f"A row is flagged where it scores below {number(compared.threshold, 4)}, as "
        f"{percent(float(wanted))} of the training rows did (contamination={wanted:g}). P-values "
        f"go by {n}."
    )


def _score_edges(
    values: NDArray[np.float64], held_out: NDArray[np.float64], threshold: float
) -> tuple[float, float, Array]:
    """Return bins that hold nearly all scores, and have the threshold for an edge.

    A few scores far below would otherwise press all others into one bar.
    """
    every = np.concatenate([values[np.isfinite(values)], held_out[np.isfinite(held_out)]])
    if not len(every):
        every = np.array([threshold])
    first, high = (float(v) for v in np.quantile(every, [0.002, 1.0]))
    high = max(high, threshold)
    start = max(first, threshold - 0.7 * (high - threshold))
    start = min(start, threshold - 0.1 * (high - threshold))
    step = (high - start) / _BINS
    if not step > 1e-9 * max(1.0, abs(threshold)):
        step = max(1e-3 * abs(threshold), 1e-3)
    n_below = max(1, math.ceil((threshold - start) / step - 1e-9))
    n_above = max(1, math.ceil((high - threshold) / step + 1e-9))
    edges = threshold + step * np.arange(-n_below, n_above + 1)
    return float(edges[0]), float(edges[-1]), edges


def _p_values(found: Measurements, others: str) -> Section:
    compared = found.scores
    if len(compared.held_out) < _LEAST_HELD_OUT or found.n_rows < _LEAST_HELD_OUT:
        return {"p_chart": None, "p_sentence": "", "p_share": ""}
    # Among few held-out rows there are few different p-values.
    n = next(pieces for pieces, rows in _PIECES.items() if len(compared.held_out) >= rows)
    edges = np.linspace(0, 1, n + 1)
    bars = np.histogram(compared.rows.p_value, edges)[0] / found.n_rows
    text = (
        f"A p-value is the probability that a normal row is at least as anomalous. P-values of "
        f"normal rows are spread evenly from 0 to 1. {_evenness(found, others)}"
    )
    chart = charts.histogram(
        "p-chart",
        "Distribution of the p-values",
        f"{percent(float((compared.rows.p_value <= 0.05).mean()))} of the rows have a p-value of "
        f"at most 0.05, and "
        f"{percent(float((compared.rows.p_value <= 0.5).mean()))} one of at most 0.5.",
        edges,
        bars,
        level=1 / n,
    )
    return {"p_chart": chart, "p_sentence": text, "p_share": percent(1 / n)}


def _evenness(found: Measurements, others: str) -> str:
    compared, side = found.scores, found.scores.side
    if side == "lower":
        return (
            f"These crowd at the low end: the rows are more anomalous than the {others}, so alarms "
            f"are more frequent than stated."
        )
    if side == "higher":
        return f"These crowd at the high end: the rows are more normal than the {others}."
    if compared.p_value < 1e-3:
        return (
            "These nearly are: they differ by more than sampling error, but too little to matter "
            f"(at most {percent(compared.distance)} of the rows would have to move)."
        )
    return "These are, within sampling error: the alarm rate can be trusted."


def code_map(ae: Fitted, found: Measurements) -> Section:
    """Show the codes as points on a plane."""
    parts, compared = found.components, found.scores
    n, k = len(found.sample), ae.network_.n_components
    chosen = np.arange(n)
    if n > _DRAWN:
        chosen = np.random.default_rng(0).permutation(n)[:_DRAWN]
    rows = found.sample[chosen]
    places, p = parts.places[chosen], compared.rows.p_value[rows]
    flagged = compared.rows.is_anomaly[rows]
    groups = [
        ("p1", places[~flagged & (p > 0.5)]),
        ("p2", places[~flagged & (p > 0.2) & (p <= 0.5)]),
        ("p3", places[~flagged & (p <= 0.2)]),
        ("anomaly", places[flagged]),
    ]
    marks = [
        (str(i + 1), parts.marked[i])
        for i, row in enumerate(found.explanation.rows)
        if compared.rows.is_anomaly[row]
    ]
    every = np.concatenate([places, *(point[None] for _, point in marks)])
    outside = charts.beyond(every)
    title, sentence = _map_in_words(parts, k)
    caption = f"{counted(len(chosen), 'row')} drawn"
    caption += f", chosen at random out of {found.n_rows:,}" if len(chosen) < found.n_rows else ""
    caption += f", and {counted(len(marks), 'ring')} around the most anomalous" if marks else ""
    caption += f"; {counted(outside, 'point')} far out lie at the edge" if outside else ""
    chart = charts.scatter(
        "map-chart",
        title,
        f"{caption}. {int(flagged.sum())} of the points are anomalies.",
        groups,
        marks,
    )
    return {"sentences": [sentence], "chart": chart, "caption": f"{caption}."}


def _map_in_words(parts: Components, k: int) -> tuple[str, str]:
    near = "Rows close together have similar codes; colours show p-values."
    if k == 1:
        return (
            "The code against the score",
            f"The code is one number. It runs from left to right, and the score upwards. {near}",
        )
    if k == 2:
        return (
            "The code as a point",
            f"The code's two components: the first to the right, the second upwards. {near}",
        )
    shown = percent(sum(parts.shares))
    return (
        "The first two principal components of the codes",
        f"The code has {k:,} components, of which this shows the first two principal "
        f"components; they hold {shown} of their variance "
        f"({' and '.join(percent(share) for share in parts.shares)}). {near}",
    )


def components(ae: Fitted, found: Measurements) -> Section:
    """Show what each component of the code contributes."""
    parts, k = found.components, ae.network_.n_components
    sentences = [_unused_in_words(parts, k)]
    if parts.directions is not None and k > 1:
        enough = parts.directions
        sentences.append(
            f"All {k:,} directions of the code are needed to reconstruct this well."
            if enough == k
            else f"{counted(enough, 'direction')} of the code "
            f"{'reconstructs' if enough == 1 else 'reconstruct'} about as well as all {k:,} do "
            f"({_more(parts.cost)}): n_components={enough} may be enough."
        )
    shown = []
    if parts.n_rows and np.isfinite(parts.importance).any():
        importance = np.nan_to_num(parts.importance).clip(min=0)
        most = int(importance.argmax())
        untested = int(np.isnan(parts.importance).sum())
        caption = (
            f"Component {most} contributes most: {percent(float(importance[most]))} of the rows' "
            f"variance is lost without it. Tested on {counted(parts.n_rows, 'row')}"
        )
        caption += f"; the {untested:,} that vary most were not tested" if untested else ""
        caption += "; crosses mark unused components" if parts.unused else ""
        shown.append(
            _spike_chart(
                "importance",
                "What is lost without each component",
                importance,
                parts,
                caption,
                percent,
            )
        )
    spread = parts.spread
    if found.n_rows > 1 and k > 1:
        low, high = int(spread.argmin()), int(spread.argmax())
        caption = (
            f"Components by number, from 0. Component {high} varies most (standard deviation "
            f"{number(float(spread[high]))}), component {low} least ({number(float(spread[low]))})"
        )
        shown.append(
            _spike_chart("spread", "How much each component varies", spread, parts, caption, number)
        )
    twins = [(str(i), str(j), number(alike, 3)) for i, j, alike in parts.twins[:_TWINS]]
    return {"sentences": sentences, "charts": shown, "twins": twins}


def _more(cost: float) -> str:
    return f"the error is {percent(cost)} larger" if cost > 5e-4 else "the error is the same"


def _unused_in_words(parts: Components, k: int) -> str:
    if not parts.n_rows:
        return "So few rows do not show what the components contribute."
    unused = parts.unused
    if not unused and k == 1:
        return "The code's one component is in use: without it, reconstructions are worse."
    if not unused:
        tested = int(np.isfinite(parts.importance).sum())
        return (
            f"None of the {k:,} components is unused: without any one of them, reconstructions are "
            f"worse."
            if tested == k
            else f"Of the {tested:,} components that vary least, none is unused."
        )
    names = listed([str(i) for i in unused], 12)
    return (
        f"{len(unused):,} of {counted(k, 'component')} {'is' if len(unused) == 1 else 'are'} "
        f"unused ({names}): held at {'its' if len(unused) == 1 else 'their'} mean, "
        f"{'it costs' if len(unused) == 1 else 'each costs'} less than a hundredth of what a "
        f"component contributes on average."
        + (f" Try n_components={k - len(unused)}." if len(unused) < k else "")
    )


def _spike_chart(
    name: str,
    title: str,
    values: Array,
    parts: Components,
    caption: str,
    write: Callable[[float], str],
) -> Section:
    chart = charts.spikes(f"{name}-chart", title, f"{caption}.", values, parts.unused, write)
    return {"title": title, "chart": chart, "caption": f"{caption}."}
