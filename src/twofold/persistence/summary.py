"""What a fitted model is, in plain text: its options, columns and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twofold.formatting import listed, pairs, shortened, table
from twofold.options import changed

if TYPE_CHECKING:
    from twofold.estimators.autoencoder import Autoencoder

_SHOWN_COLUMNS = 20


def changed_options(values: Mapping[str, Any]) -> str:
    """List the options that differ from their defaults."""
    lines = [
        (name, shortened(value), f"default {default}") for name, value, default in changed(values)
    ]
    return pairs(lines) or "none"


def columns(ae: Autoencoder) -> str:
    """Show the first columns, and of many name those that need a word."""
    every = ae.schema_.columns
    rows = []
    for column in every[:_SHOWN_COLUMNS]:
        note = column.note or ("constant" if column.constant else "")
        seen = "nothing" if column.kind == "ignored" else column.describe()
        rows.append((column.name, column.kind, column.likelihood, seen, note))
    text = table(("column", "kind", "likelihood", "what the network sees", "note"), rows)
    if len(every) <= _SHOWN_COLUMNS:
        return text
    text += f"\nand {len(every) - _SHOWN_COLUMNS:,} more"
    return "\n\n".join([text, *remarks(ae)])


def remarks(ae: Autoencoder) -> list[str]:
    """Say which columns are ignored and why, what to know of others, and which never vary."""
    schema = ae.schema_
    ignored = schema.ignored_columns()
    notes = {c.name: c.note for c in schema.columns if c.note and c.name not in ignored}
    constant = schema.constant_columns()
    parts = []
    if ignored:
        parts.append("ignored columns:\n" + _noted(ignored))
    if notes:
        parts.append("notes on columns:\n" + _noted(notes))
    if constant:
        parts.append(f"constant in training: {listed(constant, _SHOWN_COLUMNS)}")
    return parts


def _noted(notes: Mapping[str, str]) -> str:
    first = list(notes.items())[:_SHOWN_COLUMNS]
    text = pairs([(f"  {shortened(name)}", note) for name, note in first])
    more = len(notes) - len(first)
    return text + (f"\n  and {more:,} more" if more else "")


def training(ae: Autoencoder) -> str:
    """Say how the training went."""
    lines = {"epochs": f"{len(ae.history_):,} run"}
    if ae.best_epoch_:
        lines["best"] = f"epoch {ae.best_epoch_:,}: {_losses(ae.history_[ae.best_epoch_ - 1])}"
    elif ae.history_:
        lines["best"] = "the start: no epoch was better on the held-out rows"
    if ae.history_:
        last = ae.history_[-1]
        lines["last"] = f"epoch {last['epoch']:,}: {_losses(last)}"
        lines["time"] = f"{last['seconds']:.1f} s"
    lines["variance kept"] = _variance_kept(ae)
    lines["anomalies"] = f"score below {ae.offset_:.6g} nats"
    return pairs(lines)


def fitted(ae: Autoencoder, n_rows: int) -> dict[str, str]:
    """Say what came of fitting to so many rows."""
    lines = {"rows": f"{n_rows:,}", "epochs": "none was finished"}
    if ae.best_epoch_:
        best = f"the weights are those of epoch {ae.best_epoch_:,}"
        lines["epochs"] = f"{len(ae.history_):,} run, {best}"
        lines["loss"] = _losses(ae.history_[ae.best_epoch_ - 1])
    elif ae.history_:
        lines["epochs"] = f"{len(ae.history_):,} run; the start was better on the held-out rows"
    lines["variance kept"] = _variance_kept(ae)
    lines["compared with PCA"] = _compared_with_pca(ae)
    lines["anomalies"] = f"score below {ae.offset_:.6g} nats"
    return lines


def _compared_with_pca(ae: Autoencoder) -> str:
    comparison = ae.comparison_
    if abs(comparison.ratio - 1) < 1e-3:  # where training gains nothing, the start is kept: PCA
        verdict = "both keep about as much"
    else:
        verdict = f"{'the network' if comparison.ratio < 1 else 'PCA'} keeps more"
    return (
        f"network {_share(comparison.r2)}, PCA with as many components {_share(comparison.r2_pca)} "
        f"on {comparison.n_rows:,} {_which_rows(ae)} rows: {verdict}"
    )


def _losses(epoch: Mapping[str, float]) -> str:
    text = f"{epoch['loss']:.5g} nats per cell"
    if "validation_loss" in epoch:
        text += f", {epoch['validation_loss']:.5g} on held-out rows"
    return text


def _variance_kept(ae: Autoencoder) -> str:
    return f"{_share(ae.reconstruction_r2_)} on {_which_rows(ae)} rows"


def _which_rows(ae: Autoencoder) -> str:
    return "held-out" if "validation_loss" in (ae.history_ or [{}])[-1] else "training"


def _share(r2: float) -> str:
    return f"{100 * r2:.1f} %"
