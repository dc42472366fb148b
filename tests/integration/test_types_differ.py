"""Frames whose types differ from training are matched by what cells mean, or refused by column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from twofold import Autoencoder
from twofold.errors import DataError

N = 80
Change = Callable[[pd.DataFrame], Any]


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": rng.integers(1, 40, N),
            "price": rng.gamma(2, 40, N).round(2),
            "flag": rng.integers(0, 2, N),
            "code": rng.choice(["1", "2", "13", "x7"], N),
            "zip": rng.choice(["0501", "0502", "7777"], N),
            "agree": rng.choice(["yes", "no"], N),
            "smoker": rng.random(N) < 0.4,
            "when": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(rng.integers(0, 9**5, N), unit="s"),
            "stamp": pd.Timestamp("2024-01-01", tz="UTC")
            + pd.to_timedelta(rng.integers(0, 9**5, N), unit="s"),
        }
    )


ROWS = table()


@pytest.fixture(scope="module", params=["frame", "file"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Autoencoder:
    ae = Autoencoder(epochs=1, n_components=3, hidden_layers=(4,), random_state=0)
    if request.param == "frame":
        return ae.fit(ROWS)
    path = tmp_path_factory.mktemp("types") / "rows.csv"
    write(ROWS).to_csv(path, index=False)
    return ae.fit(path)


def write(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with times as ISO 8601 has them."""
    stamp = rows.stamp.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return rows.assign(stamp=stamp, smoker=rows.smoker.map({True: "true", False: "false"}))


MATCHED: dict[str, dict[str, Change]] = {
    "size": {
        "floats": lambda d: d["size"].astype(float),
        "text": lambda d: d["size"].astype(str),
        "text of floats": lambda d: d["size"].map("{:.1f}".format),
        "objects": lambda d: d["size"].astype(object),
        "Decimal": lambda d: d["size"].map(Decimal),
        "nullable": lambda d: d["size"].astype("Int64"),
        "Arrow": lambda d: d["size"].astype("int32[pyarrow]"),
        "category": lambda d: d["size"].astype("category"),
        "category of text": lambda d: d["size"].astype(str).astype("category"),
        "spaces": lambda d: d["size"].map(" {} ".format),
    },
    "price": {
        "text": lambda d: d.price.astype(str),
        "more decimals": lambda d: d.price.map("{:.5f}".format),
        "Decimal": lambda d: d.price.map(lambda v: Decimal(str(v))),
        "objects of text": lambda d: d.price.astype(str).astype(object),
    },
    "flag": {
        "booleans": lambda d: d.flag.astype(bool),
        "nullable booleans": lambda d: d.flag.astype("boolean"),
        "floats": lambda d: d.flag.astype(float),
        "text": lambda d: d.flag.astype(str),
        "object booleans": lambda d: d.flag.astype(bool).astype(object),
    },
    "code": {
        "category": lambda d: d.code.astype("category"),
        "objects": lambda d: d.code.astype(object),
        "1.0 for 1": lambda d: d.code.replace({"1": "1.0", "2": "2.0", "13": "13.0"}),
        "spaces": lambda d: d.code + " ",
        "string": lambda d: d.code.astype("string"),
    },
    "zip": {
        "numbers": lambda d: d.zip.astype(int),
        "floats": lambda d: d.zip.astype(float),
        "category of numbers": lambda d: d.zip.astype(int).astype("category"),
    },
    "agree": {
        "booleans": lambda d: d.agree == "yes",
        "nullable booleans": lambda d: (d.agree == "yes").astype("boolean"),
        "capitals": lambda d: d.agree.str.upper(),
        "y and n": lambda d: d.agree.str[0],
        "object booleans": lambda d: (d.agree == "yes").astype(object),
    },
    "smoker": {
        "numbers": lambda d: d.smoker.astype(int),
        "floats": lambda d: d.smoker.astype(float),
        "yes and no": lambda d: d.smoker.map({True: "yes", False: "no"}),
        "True and False as text": lambda d: d.smoker.astype(str),
        "1 and 0 as text": lambda d: d.smoker.astype(int).astype(str),
        "category": lambda d: d.smoker.astype("category"),
    },
    "when": {
        "text": lambda d: d.when.astype(str),
        "ISO text": lambda d: d.when.dt.strftime("%Y-%m-%dT%H:%M:%S"),
        "seconds": lambda d: d.when.astype("datetime64[s]"),
        "nanoseconds": lambda d: d.when.astype("datetime64[ns]"),
        "objects": lambda d: pd.Series(d.when.dt.to_pydatetime(), dtype=object),
        "Arrow": lambda d: d.when.astype("timestamp[us][pyarrow]"),
        "category": lambda d: d.when.astype("category"),
    },
    "stamp": {
        "another zone": lambda d: d.stamp.dt.tz_convert("Asia/Tokyo"),
        "ISO text": lambda d: d.stamp.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "text of another zone": lambda d: d.stamp.dt.tz_convert("Asia/Tokyo").astype(str),
        "objects": lambda d: pd.Series(d.stamp.dt.to_pydatetime(), dtype=object),
    },
}
REFUSED: dict[str, dict[str, Change]] = {
    "size": {
        "a word": lambda d: d["size"].astype(str).replace("7", "seven"),
        "times": lambda d: d.when,
        "decimal commas": lambda d: d.price.map("{:.2f}".format).str.replace(".", ","),
        "mixed objects": lambda d: d["size"].astype(object).where(d.index > 3, "many"),
    },
    "code": {"other numbers": lambda d: d["size"] + 100, "times": lambda d: d.when},
    "agree": {
        "numbers": lambda d: d["size"],
        "mixed objects": lambda d: d.agree.where(d.flag > 0, 3),
    },
    "smoker": {"other words": lambda d: d.smoker.map({True: "smokes", False: "smokes not"})},
    "when": {
        "numbers": lambda d: d["size"],
        "words": lambda d: d.code,
        "a zone": lambda d: d.stamp,
        "years": lambda d: d.when.dt.year,
    },
    "stamp": {"no zone": lambda d: d.when},
}


def cases(table: dict[str, dict[str, Change]]) -> list[Any]:
    return [
        pytest.param(name, change, id=f"{name}: {what}")
        for name, changes in table.items()
        for what, change in changes.items()
    ]


@pytest.mark.parametrize(("name", "change"), cases(MATCHED))
def test_cells_that_mean_the_same_score_the_same(
    model: Autoencoder, name: str, change: Change
) -> None:
    expected = model.score_samples(ROWS)
    changed = ROWS.assign(**{name: change(ROWS)})
    np.testing.assert_allclose(model.score_samples(changed), expected, rtol=1e-4, atol=1e-4)
    pieces = [model.score_samples(changed[i : i + 1])[0] for i in (0, 40)]
    np.testing.assert_allclose(pieces, expected[[0, 40]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "change"), cases(REFUSED))
def test_cells_that_do_not_say_what_they_mean_are_refused_by_column(
    model: Autoencoder, name: str, change: Change
) -> None:
    with pytest.raises(DataError, match=f"Column '{name}'"):
        model.score_samples(ROWS.assign(**{name: change(ROWS)}))


@pytest.mark.parametrize("name", ["size", "price", "flag", "code", "agree", "smoker", "when"])
@pytest.mark.parametrize("container", ["polars", "arrow"])
def test_text_in_other_containers_is_matched(model: Autoencoder, name: str, container: str) -> None:
    text = ROWS.assign(**{name: ROWS[name].astype(str)})
    rows = pl.from_pandas(text) if container == "polars" else pa.Table.from_pandas(text)
    np.testing.assert_allclose(
        model.score_samples(rows), model.score_samples(ROWS), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("model", ["frame"], indirect=True)
@pytest.mark.parametrize(("name", "change"), cases(MATCHED))
def test_missing_cells_are_filled_in_the_type_of_the_frame(
    model: Autoencoder, name: str, change: Change
) -> None:
    column = change(ROWS)
    gone = np.arange(N) % 5 == 2
    kind = {"bool": "boolean", "int64": "Int64"}.get(str(column.dtype), column.dtype)
    column = pd.Series(column.array, dtype=kind)
    given = ROWS.assign(**{name: column.mask(gone)})
    filled = model.impute(given)[name]
    assert filled.dtype == column.dtype or column.dtype == "category"
    assert not filled.isna().any()
    assert (filled[~gone].astype(object) == column[~gone].astype(object)).all()
    kinds = {datetime if isinstance(cell, datetime) else type(cell) for cell in column[~gone]}
    assert all(isinstance(cell, tuple(kinds)) for cell in filled[gone])
    again = ROWS.assign(**{name: filled})
    assert np.isfinite(model.score_samples(again)).all()


def test_a_file_whose_cells_are_written_otherwise_is_matched(
    model: Autoencoder, tmp_path: Path
) -> None:
    other = write(ROWS).assign(
        size=ROWS["size"].map("{:.1f}".format),
        agree=ROWS.agree.str.upper(),
        smoker=ROWS.smoker.astype(int),
        code=ROWS.code.replace({"1": "1.0"}),
    )
    other.to_csv(tmp_path / "other.csv", index=False)
    np.testing.assert_allclose(
        model.score_samples(tmp_path / "other.csv"),
        model.score_samples(ROWS),
        rtol=1e-4,
        atol=1e-4,
    )
