"""One page about a fitted model and some rows: complete in itself, for reading and for keeping.

The page needs no server, no script and no other file. `measurements` holds the numbers, `checks`
what follows from them, `sections` and `examples` what is shown.
"""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from twofold import __version__
from twofold.data import sources
from twofold.data.files import Files
from twofold.data.output import require_free, write_bytes
from twofold.formatting import counted, duration, number, percent, shortened
from twofold.options import changed
from twofold.report import charts, examples, sections
from twofold.report import html as page
from twofold.report.charts import Mark, Series
from twofold.report.checks import Finding, improvement, in_order, losses, run_checks, trained_on
from twofold.report.measurements import (
    LEAST_CALIBRATION_ROWS,
    Fitted,
    Measurements,
    Progress,
    examine,
    is_picture,
)
from twofold.schema.schema import Schema

_TITLES = {
    "training": "Training",
    "columns": "Error by column, compared with PCA",
    "rows": "Rows and their reconstructions",
    "scores": "Scores and false alarms",
    "anomalies": "The most anomalous rows, and why",
    "map": "Map of the codes",
    "components": "Components of the code",
    "model": "What was trained",
    "about": "About this page",
}


def write(
    ae: Fitted,
    X: Any,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    *,
    progress: Progress | None = None,
) -> list[Finding]:
    """Write a page about a fitted model and the rows of X, as `Autoencoder.report` says."""
    file = require_free(path, overwrite)
    found = examine(ae, X, progress)
    notes = run_checks(ae, found)
    content = html(ae, X, found, notes)
    write_bytes(file, content.encode(), overwrite)
    return notes


def html(ae: Fitted, X: Any, found: Measurements, notes: list[Finding]) -> str:
    """Return the page as text."""
    schema = ae.schema_
    titles = dict(_TITLES)
    if is_picture(schema):
        titles["columns"] = "Error by pixel, compared with PCA"
        titles["rows"] = "Images and their reconstructions"
        titles["anomalies"] = "The most anomalous images, and why"
    heading, lead = _heading(ae, X, found)
    return page.render(
        "report/report.html.j2",
        title=f"Model report: {heading}",
        heading=heading,
        lead=lead,
        keys=_keys(ae, found, {note.kind for note in notes if note.urgent}),
        findings=notes,
        passed=", ".join(in_order(ae, found, notes)),
        sections=titles,
        training=_training(ae),
        fit=sections.fit(ae, found),
        examples=examples.examples(ae, found),
        scores=sections.scores(ae, found),
        anomalies=examples.anomalies(ae, found),
        map=sections.code_map(ae, found),
        components=sections.components(ae, found),
        model=_model(ae),
        about=_about(found),
        version=__version__,
        date=datetime.now(UTC).date().isoformat(),
    )


def _heading(ae: Fitted, X: Any, found: Measurements) -> tuple[str, str]:
    schema, network = ae.schema_, ae.network_
    shape = _shape_in_words(schema)
    heading = f"A model of {'images of ' if is_picture(schema) else ''}{shape}"
    sizes = ["×".join(f"{n}" for n in layer.shape) for layer in network.layers()]
    kind = "A tied" if network.tied else "An untied"
    noun = "image" if is_picture(schema) else "row"
    path = X.source if isinstance(X, Files) else X
    name = os.path.basename(os.fspath(path).rstrip("/\\")) if sources.is_path(path) else ""
    source = f" of {shortened(name)}" if name else ""
    return heading, (
        f"{kind} autoencoder, {'-'.join(sizes)}, applied to "
        f"{counted(found.n_rows, noun)}{source}, {_seen(ae, found)}."
    )


def _seen(ae: Fitted, found: Measurements) -> str:
    """Say whether the model has seen the rows, as far as their scores tell."""
    if trained_on(found):
        return "which it was trained or calibrated on"
    if len(ae.calibration_scores_) < LEAST_CALIBRATION_ROWS:
        return "which it may have been trained on"
    return "which it was not calibrated on"


def _shape_in_words(schema: Schema) -> str:
    if not is_picture(schema):
        return counted(len(schema.columns), "column")
    return " × ".join(map(str, schema.row_shape)) + " pixels"


def _keys(ae: Fitted, found: Measurements, urgent: set[str]) -> list[dict[str, Any]]:
    """Return the most important figures, each with what it means."""
    both, scores, k = found.comparison, found.scores, ae.network_.n_components
    keys = [
        {
            "name": "Variance kept",
            "value": percent(both.r2) if math.isfinite(both.r2) else "–",
            "means": f"of these rows is kept by a code of {counted(k, 'number')}",
            "bad": "nothing" in urgent,
        },
        {**_compared_with_pca(found), "bad": "pca" in urgent},
        {
            "name": "Anomalies",
            "value": f"{scores.n_anomalies:,}",
            "means": f"of {counted(found.n_rows, 'row')} flagged "
            f"({percent(scores.n_anomalies / found.n_rows)}); {percent(scores.expected)} expected",
            "bad": "shift" in urgent,
        },
    ]
    parts = found.components
    if parts.n_rows:
        used = k - len(parts.unused)
        keys.append(
            {
                "name": "Code",
                "value": f"{k:,}" if used == k else f"{used:,} of {k:,}",
                "means": f"{'components, all' if used == k else 'components'} in use"
                if k > 1
                else "component",
                "bad": False,
            }
        )
    history = ae.history_
    keys.append(
        {
            "name": "Training",
            "value": duration(seconds(ae.history_)) if history else "none",
            "means": f"for {counted(len(history), 'epoch')}, of which epoch {ae.best_epoch_:,} was "
            f"kept",
            "bad": not history,
        }
    )
    keys.append(
        {
            "name": "Parameters",
            "value": f"{ae.network_.n_parameters:,}",
            "means": "shared by encoder and decoder" if ae.network_.tied else "in both directions",
            "bad": False,
        }
    )
    return keys


def _compared_with_pca(found: Measurements) -> dict[str, Any]:
    ratio = found.comparison.ratio
    if not math.isfinite(ratio) or ratio >= 2:
        value, means = f"{number(ratio, 2)} ×", "the squared error of PCA with the same code size"
    elif abs(1 - ratio) < 5e-4:
        value, means = "equal", "squared error to that of PCA with the same code size"
    else:
        value = percent(abs(1 - ratio))
        means = f"{'less' if ratio < 1 else 'more'} squared error than PCA with the same code size"
    return {"name": "Compared with PCA", "value": value, "means": means}


def seconds(history: list[dict[str, float]]) -> float:
    """Return how long training took; every run counts its seconds from its own start."""
    total, last = 0.0, 0.0
    for entry in history:
        total += entry["seconds"] - (last if entry["seconds"] >= last else 0.0)
        last = entry["seconds"]
    return total


def _training(ae: Fitted) -> dict[str, Any]:
    history, best = ae.history_, ae.best_epoch_
    if not history:
        return {
            "sentences": ["No epoch of training was finished."],
            "chart": None,
            "held_out": False,
        }
    held_out = any("validation_loss" in entry for entry in history)
    watched = losses(history)
    text = f"{counted(len(history), 'epoch')} took {duration(seconds(history))}. "
    if best:
        kind = "held-out rows" if "validation_loss" in history[best - 1] else "training rows"
        text += (
            f"The weights of epoch {best:,} were kept, with a loss of "
            f"{number(watched[best - 1], 4)} on {kind}"
        )
        if "validation_loss" in history[best - 1]:
            text += f" and {number(history[best - 1]['loss'], 4)} on training rows"
        text += "."
    elif held_out:
        text += (
            "The weights that training started with were kept: no epoch had a lower loss on "
            "held-out rows."
        )
    sentences = [text.rstrip()]
    patience = ae.get_params(deep=False)["patience"]
    if isinstance(patience, int) and len(history) - best >= patience and held_out:
        sentences.append(
            f"Training stopped there because {counted(patience, 'epoch')} brought no improvement."
        )
    if improvement(history) <= 0 and len(history) > 1:
        sentences.append("The loss never fell below that of the first epoch.")
    epochs = [float(entry["epoch"]) for entry in history]
    series = [
        Series("training", epochs, [entry["loss"] for entry in history], "thin" if held_out else "")
    ]
    if held_out:
        values = [entry.get("validation_loss", math.nan) for entry in history]
        series.append(Series("held-out", epochs, values, ""))
    mark = Mark(float(best), f"epoch {best:,} kept", "net") if best else None
    chart = charts.lines(
        "training-chart",
        "Loss by epoch",
        f"From {number(watched[0], 4)} in the first epoch to {number(watched[-1], 4)} in the last; "
        f"the least is {number(min(watched), 4)}.",
        series,
        mark,
        "epoch",
    )
    return {"sentences": sentences, "chart": chart, "held_out": held_out}


def _model(ae: Fitted) -> dict[str, Any]:
    schema, network = ae.schema_, ae.network_
    held = "held-out" if "validation_loss" in (ae.history_ or [{}])[-1] else "training"
    facts = {
        "Rows": f"{_shape_in_words(schema)}, of which the network sees "
        f"{counted(schema.width, 'input')}",
        "Code": counted(network.n_components, "component"),
        "Calibrated on": f"{counted(len(ae.calibration_scores_), held + ' row')}, in which "
        f"reconstructions keep {percent(ae.comparison_.r2)} of the variance (PCA "
        f"{percent(ae.comparison_.r2_pca)})",
        "Training time": f"{duration(seconds(ae.history_))} for "
        f"{counted(len(ae.history_), 'epoch')}",
    }
    constant = schema.constant_columns()
    if constant:
        facts["Constant"] = (
            f"{len(constant):,} of {len(schema.columns):,} "
            f"{'pixels' if is_picture(schema) else 'columns'} had one value only in training"
        )
    return {
        "facts": facts,
        "options": [
            (name, shortened(value), default)
            for name, value, default in changed(ae.get_params(deep=False))
        ],
        "kinds": _kinds(schema),
        "layers": [
            {
                "name": layer.name,
                "activation": layer.activation or "–",
                "width": " × ".join(f"{n:,}" for n in layer.shape),
                "parameters": f"{layer.n_parameters:,}",
                "matrix": layer.matrix or "–",
            }
            for layer in network.layers(ae.scorer_.link)
        ],
        "total": f"{network.n_parameters:,} parameters, "
        f"{'tied' if network.tied else 'untied'} weights."
        + (" A shared matrix counts once." if network.tied else ""),
    }


def _kinds(schema: Schema) -> list[dict[str, Any]]:
    counts = Counter((column.kind, column.likelihood) for column in schema.columns)
    lines = []
    for (kind, likelihood), count in counts.items():
        those = [c for c in schema.columns if (c.kind, c.likelihood) == (kind, likelihood)]
        names = ", ".join(shortened(column.name, 24) for column in those[:3])
        lines.append(
            {
                "kind": kind,
                "likelihood": likelihood,
                "columns": f"{count:,}",
                "inputs": f"{sum(column.width for column in those):,}",
                "example": "" if is_picture(schema) else names + (", …" if count > 3 else ""),
            }
        )
    return lines


def _about(found: Measurements) -> dict[str, str]:
    n, sample = found.n_rows, len(found.sample)
    measured = f"All {n:,} rows are scored. "
    if n == 1:
        measured = "The row is scored and measured."
    elif sample == n:
        measured = f"All {n:,} rows are scored and measured."
    else:
        measured += (
            f"Errors, columns, components and the map are of {sample:,} of them, drawn at random."
        )
    return {
        "Rows": f"{measured} Rows are counted from 0.",
        "Variance kept": "1 minus the squared error over the squared distance from the mean of "
        "these rows, in the network's units. 100 % is perfect; below 0 the mean itself is "
        "better.",
        "PCA": "As many components as the code has, fitted to the training rows: the best "
        "linear code of that size.",
        "Scores": "Log-densities in nats; higher is more normal. Contributions are each "
        "column's part of the difference between the row's score and the expected row's.",
        "Versions": f"twofold {__version__}, Python {platform.python_version()}, PyTorch "
        f"{torch.__version__}, NumPy {np.__version__}",
        "Made": f"{datetime.now(UTC).strftime('%Y-%m-%d %H:%M')} UTC, in {duration(found.seconds)}",
    }
