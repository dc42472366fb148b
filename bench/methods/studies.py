"""Measures of twofold alone: `(given, seed, options) -> arrays`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods import corruption
from methods.imputers import impute_with_twofold
from methods.method import Method

Array = NDArray[Any]
Arrays = dict[str, Array]


def p_values(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Fit to normal rows and give fresh normal rows their p-values and labels."""
    from twofold import Autoencoder

    ae = Autoencoder(random_state=seed).fit(given["train"])
    return {"p": ae.anomaly_pvalue(given["fresh"]), "label": ae.predict(given["fresh"])}


def round_trip(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Fill a table's own holes, and look at everything that must not change."""
    frame = read_frame(given["table"])
    filled = impute_with_twofold(frame, seed)
    same = all(_same_bits(frame[name], filled[name]) for name in frame.columns)
    return {
        "holes": np.array(int(frame.isna().sum().sum())),
        "holes_left": np.array(int(filled.isna().sum().sum())),
        "types_kept": np.array(bool(frame.dtypes.equals(filled.dtypes))),
        "order_kept": np.array(
            bool(frame.index.equals(filled.index) and frame.columns.equals(filled.columns))
        ),
        "observed_cells_same": np.array(same),
    }


def _same_bits(before: Any, after: Any) -> bool:
    known = before.notna().to_numpy()
    a, b = (column.to_numpy()[known] for column in (before, after))
    if a.dtype == object or b.dtype == object:
        return bool((a == b).all())
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def planted_errors(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Corrupt one cell each of rows that looked normal: are they flagged, and is it named?

    Trained on 80 % of the rows. Of the others, `n_rows` that the model does not flag are drawn and
    corrupted as `corruption.corrupt` says. Arrays hold one entry per corrupted row; columns are
    positions in the table.
    """
    from twofold import Autoencoder

    frame = read_frame(given["table"])
    rng = np.random.RandomState(seed)
    order = rng.permutation(len(frame))
    n = round(0.8 * len(frame))
    train = frame.iloc[order[:n]].reset_index(drop=True)
    held_out = frame.iloc[order[n:]].reset_index(drop=True)
    ae = Autoencoder(random_state=seed).fit(train)
    labels = ae.predict(held_out)
    normal = np.flatnonzero(labels == 1)
    rows = rng.permutation(normal)[: options["n_rows"]]
    corrupted, columns, ways = corruption.corrupt(
        held_out.iloc[rows].reset_index(drop=True), train, rng
    )
    blamed = np.argmax(ae.explain(corrupted).contribution, axis=1)
    return {
        "columns": columns,
        "ways": ways,
        "flagged": ae.predict(corrupted) == -1,
        "blamed": blamed,
        "flagged_before": np.array(float(np.mean(labels == -1))),
    }


def read_frame(raw: Array) -> Any:
    """Read the bytes of a CSV file."""
    import pandas

    return pandas.read_csv(io.BytesIO(raw.tobytes()))


def _in_a_process_of_its_own(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    raise NotImplementedError("a script in measures does this")


STUDIES = {
    "p-values": Method(p_values),
    "round trip": Method(round_trip, helpers=(impute_with_twofold, _same_bits)),
    "planted errors": Method(planted_errors, helpers=(corruption.corrupt, corruption.moved)),
}
SCRIPTS = {
    name: Method(_in_a_process_of_its_own, script=f"measures/{name}.py")
    for name in ("large", "tutorial")
}
