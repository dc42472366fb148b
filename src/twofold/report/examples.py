"""The rows that a report shows: their reconstructions, and why anomalies are anomalous."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.formatting import cell, counted, number, shortened
from twofold.report import charts
from twofold.report.measurements import Fitted, Measurements, is_picture
from twofold.schema.column import Column
from twofold.schema.schema import Schema

Array = NDArray[Any]
Section = dict[str, Any]

_CELLS = 6  # of a row that is shown
_CELLS_OF_ANOMALY = 5
_LEAST_SHARE = 0.05  # nats: what is written as 0 is not shown
_LETTERS = 40
_LONG = 20 * 86_400.0  # seconds: timestamps that spread more are shown by their day


def examples(ae: Fitted, found: Measurements) -> Section:
    """Show rows with the worst, typical and best reconstructions."""
    titles = {
        "worst": "Reconstructed worst",
        "typical": "Typical",
        "best": "Reconstructed best",
    }
    groups, start = [], 0
    for name, positions in found.shown.items():
        at = range(start, start + len(positions))
        start += len(positions)
        if len(positions):
            title = titles[name] if found.n_rows > 1 else "The only row"
            group: Section = {"title": title, "images": [], "cards": []}
            pairs = list(zip(at, positions.tolist(), strict=True))
            if is_picture(ae.schema_):
                group["images"] = [_image_pair(ae, found, i, position) for i, position in pairs]
            else:
                group["cards"] = [_row_card(ae, found, i, position) for i, position in pairs]
            groups.append(group)
    if is_picture(ae.schema_):
        text = (
            "Each original is above its reconstruction, and below both is the squared error, "
            "summed over the pixels."
        )
    else:
        seen = sum(column.width > 0 for column in ae.schema_.columns)
        which = f"the {_CELLS} cells" if seen > _CELLS else "cells"
        text = (
            f"Of each row, {which} that differ most, in standard deviations of their column: 1 "
            f"is the error of the column mean."
        )
    return {"sentences": [text], "groups": groups}


def _image_pair(ae: Fitted, found: Measurements, i: int, position: int) -> Section:
    row = int(found.sample[position])
    images = [
        _pixels(ae.schema_, part[i], found.observed) for part in (found.observed, found.expected)
    ]
    return {
        "row": f"{row:,}",
        "observed": charts.data_uri(images[0]),
        "expected": charts.data_uri(images[1]),
        "width": images[0].shape[1],
        "height": images[0].shape[0],
        "alt": f"Row {row}",
        "alt_expected": f"Its reconstruction, with a squared error of "
        f"{number(float(found.errors[position]))}",
        "error": f"error {number(float(found.errors[position]))}",
    }


def _pixels(schema: Schema, row: Array, like: Array) -> Array:
    """Return a row as a picture's bytes, from black to white as the rows in `like` run."""
    known = like[np.isfinite(like.astype(np.float64))].astype(np.float64)
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low >= 0:
        low, high = 0.0, 1.0 if high <= 1 else 255.0 if high <= 255 else high
    image = charts.shrunk(row.astype(np.float64).reshape(schema.row_shape))
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    return charts.shades(image, low, high)


def _row_card(ae: Fitted, found: Measurements, i: int, position: int) -> Section:
    schema = ae.schema_
    off = found.off[i]
    order = np.argsort(-np.nan_to_num(off, nan=-1.0), kind="stable")
    order = np.array([j for j in order if schema.columns[j].width])
    top = float(np.nanmax(off, initial=0)) or 1.0
    lines = [
        {
            "name": shortened(schema.columns[j].name, _LETTERS),
            "observed": _cell(schema.columns[j], found.observed[i, j]),
            "expected": _expected(schema.columns[j], found.expected[i, j]),
            "bar": charts.bar(float(off[j]) / top),
            "share": "–" if np.isnan(off[j]) else _off(float(off[j])),
        }
        for j in order[:_CELLS]
    ]
    return {
        "row": _named(schema, int(found.sample[position]), found.observed[i]),
        "text": f"squared error {number(float(found.errors[position]))}",
        "other": "reconstructed as",
        "measure": "off by",
        "lines": lines,
    }


def _off(spreads: float) -> str:
    if 0 < spreads < 0.005:
        return "<0.01"
    return f"{spreads:.2f}" if spreads < 9.995 else number(spreads)


def _cell(column: Column, value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    text = cell(value, "" if column.format is None else column.format.dtype)
    if text is None:
        return "missing"
    if isinstance(value, datetime):
        text = text.removesuffix(" 00:00:00")
    elif not isinstance(value, str):
        text = text.replace("-", "−")
    return shortened(text, _LETTERS) or ("empty" if not text else "blank")


def _expected(column: Column, value: Any) -> str:
    """Write a reconstructed cell, without digits beyond its precision."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime) and column.scale > _LONG:
        value = datetime.combine(value.date(), datetime.min.time())
    elif isinstance(value, datetime):
        value = value.replace(second=0, microsecond=0)
    elif isinstance(value, float) and column.kind != "category" and math.isfinite(value):
        scale = abs(value) if column.kind == "count" else column.scale
        decimals = max(0, 2 - math.floor(math.log10(max(scale, 1e-12))))
        value = round(value, decimals)
    return _cell(column, value)


def anomalies(ae: Fitted, found: Measurements) -> Section:
    """Show the most anomalous rows, with the columns that contribute most."""
    compared = found.scores
    n = min(len(found.explanation.rows), max(compared.n_anomalies, 3))
    if not compared.n_anomalies:
        first = (
            f"No row is flagged. The {counted(n, 'row')} with the lowest "
            f"{'score is' if n == 1 else 'scores are'} shown anyway."
        )
    else:
        shown = min(n, compared.n_anomalies)
        first = (
            f"The {counted(shown, 'row')} with the lowest scores, out of "
            f"{counted(compared.n_anomalies, 'anomaly', 'anomalies')}."
            if shown < compared.n_anomalies
            else f"{'The anomaly' if shown == 1 else f'All {shown:,} anomalies'}, the lowest score "
            f"first{', and what comes next' if shown < n else ''}."
        )
    picture = is_picture(ae.schema_)
    second = (
        "The last picture of each shows what each pixel contributes to the anomaly score: black "
        "nothing, yellow most."
        if picture
        else "Contributions are in nats: by so much a cell lowers the row's score, next to "
        "the value expected there."
    )
    cards = [
        _anomaly_image(ae, found, i) if picture else _anomaly_card(ae, found, i) for i in range(n)
    ]
    return {"sentences": [first, second], "cards": cards}


def _named(schema: Schema, row: int, observed: Array) -> str:
    """Return a row's number, and its name if the rows have names."""
    if schema.id_column is None:
        return f"{row:,}"
    at = schema.names.index(schema.id_column)
    return f"{row:,} ({_cell(schema.columns[at], observed[at])})"


def _anomaly_row(ae: Fitted, found: Measurements, i: int) -> Section:
    row, compared = int(found.explanation.rows[i]), found.scores
    flag = "anomaly" if compared.rows.is_anomaly[row] else "not flagged"
    return {
        "rank": i + 1,
        "row": _named(ae.schema_, row, found.explanation.observed[i]),
        "text": f"score {number(float(compared.rows.score[row]), 4)} · p "
        f"{_p_value(float(compared.rows.p_value[row]))} · {flag}",
        "images": [],
        "tail": "",
    }


def _p_value(p: float) -> str:
    return f"= {number(p, 2)}" if p < 1 else "= 1"


def _anomaly_card(ae: Fitted, found: Measurements, i: int) -> Section:
    why, schema = found.explanation, ae.schema_
    shares = np.nan_to_num(why.contribution[i].astype(np.float64))
    order = np.argsort(-shares, kind="stable")
    order = np.array([j for j in order if schema.columns[j].width])
    top = float(shares[order].max(initial=0)) or 1.0
    most = _CELLS_OF_ANOMALY if len(order) > _CELLS_OF_ANOMALY + 1 else len(order)
    shown = order[: max(1, min(most, int((shares[order] > max(0.02 * top, _LEAST_SHARE)).sum())))]
    lines = [
        {
            "name": shortened(schema.columns[j].name, _LETTERS),
            "observed": _cell(schema.columns[j], why.observed[i, j]),
            "expected": _expected(schema.columns[j], why.expected[i, j]),
            "bar": charts.bar(float(shares[j]) / top, "anomaly"),
            "share": _signed(float(shares[j])),
        }
        for j in shown
    ]
    rest = order[len(shown) :]
    parts = []
    if len(rest):
        parts.append(
            f"{counted(len(rest), 'other column')}: {_signed(float(shares[rest].sum()))} together."
        )
    if np.isfinite(why.base[i]):
        parts.append(f"The expected row scores {number(-float(why.base[i]), 4)}.")
    return {
        **_anomaly_row(ae, found, i),
        "other": "expected",
        "measure": "contribution",
        "lines": lines,
        "tail": " ".join(parts),
    }


def _signed(nats: float) -> str:
    if abs(nats) < 0.05:
        return "0"
    text = f"{abs(nats):.1f}" if abs(nats) < 99.95 else number(abs(nats))
    return ("+" if nats > 0 else "−") + text


def _anomaly_image(ae: Fitted, found: Measurements, i: int) -> Section:
    why, schema = found.explanation, ae.schema_
    shares = np.nan_to_num(why.contribution[i].astype(np.float64)).reshape(schema.row_shape)
    shares = shares.sum(axis=2) if shares.ndim == 3 else shares
    shares = charts.shrunk(shares.clip(min=0))
    images = [_pixels(schema, part[i], why.observed) for part in (why.observed, why.expected)]
    row = int(why.rows[i])
    down, across = np.unravel_index(int(shares.argmax()), shares.shape)
    pictures = [
        (images[0], "observed", f"Row {row}"),
        (images[1], "expected", f"The row expected in place of row {row}"),
        (
            charts.heat(shares, float(shares.max())),
            "contribution",
            f"Heat map of what each pixel of row {row} contributes to its anomaly score; most "
            f"is in line {down}, column {across}",
        ),
    ]
    return {
        **_anomaly_row(ae, found, i),
        "width": images[0].shape[1],
        "height": images[0].shape[0],
        "images": [
            {"uri": charts.data_uri(pixels), "text": text, "alt": alt}
            for pixels, text, alt in pictures
        ],
    }
