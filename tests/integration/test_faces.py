"""One vocabulary: Python, the command line and the service give equal numbers and error texts."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from twofold import Autoencoder
from twofold.cli.main import app
from twofold.data import files
from twofold.errors import LosesToPCAWarning, TwofoldError

pytest.importorskip("starlette", reason="the extra `service` is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="httpx is not installed")

N = 120


def table(n: int = N, seed: int = 0) -> pd.DataFrame:
    """Numbers, flags, counts, categories and moments, with holes."""
    rng = np.random.default_rng(seed)
    size = rng.gamma(9, 12, n)
    frame = pd.DataFrame(
        {
            "size": size,
            "price, EUR": size * rng.normal(3000, 250, n),
            "rooms": np.round(size / 30).astype(int) + 1,
            "sold": rng.random(n) < 0.4,
            "city": rng.choice(["Oslo", "Porto", "Turin"], n),
            "day": pd.Timestamp("2022-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
        }
    )
    frame.loc[::11, "size"] = np.nan
    frame.loc[5::13, "city"] = None
    return frame


class Faces:
    """One fitted model behind all three, and rows that they are asked about."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LosesToPCAWarning)
            self.ae = Autoencoder(n_components=3, epochs=5, random_state=0).fit(table())
        self.ae.save(folder / "model")
        self.rows = table(20, seed=1)
        self.rows.to_parquet(folder / "rows.parquet")

    def command(self, *words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    def written(self, verb: str, *words: object, source: object = "rows.parquet") -> Any:
        """Return the table that a command writes about the model."""
        output = self.folder / f"{verb}.parquet"
        given = [self.folder / str(source)] if source else []
        result = self.command(verb, self.folder / "model", *given, "-o", output, "--force", *words)
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        return files.load(output).to_pandas()

    def service(self, verb: str, body: Any) -> Any:
        """Return the document that the service answers with."""
        answer = self.client.post(f"/{verb}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def as_json(self, rows: pd.DataFrame) -> dict[str, Any]:
        return {"rows": [{k: plain(v) for k, v in row.items()} for row in rows.to_dict("records")]}

    client: Any


def plain(cell: Any) -> Any:
    """Return a cell as JSON has it."""
    if pd.isna(cell):
        return None
    if isinstance(cell, datetime.datetime):
        return cell.isoformat()
    return cell.item() if isinstance(cell, np.generic) else cell


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faces]:
    from twofold.service import create_app

    made = Faces(tmp_path_factory.mktemp("faces"))
    with testclient.TestClient(create_app(made.ae)) as client:
        made.client = client
        yield made


def same(left: Any, right: Any) -> None:
    """Require equal numbers, to the digits that a file or JSON may round away."""
    np.testing.assert_allclose(
        np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64), rtol=1e-6
    )


def same_cells(left: pd.DataFrame, right: pd.DataFrame) -> None:
    assert list(left.columns) == list(right.columns)
    for name in left.columns:
        a, b = left[name], right[name]
        if a.dtype.kind in "fiu":
            same(a, b)
        elif a.dtype.kind == "M":  # of 32 bits, a moment is exact to seconds
            assert ((a - b).abs() < pd.Timedelta(seconds=5)).all()
        else:
            assert [str(plain(x)) for x in a] == [str(plain(x)) for x in b], name


def framed(answer: Any, like: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a service's answer in the types of a frame."""
    frame = pd.DataFrame(answer["rows"], columns=answer["columns"])
    for name, dtype in like.dtypes.items():
        frame[name] = frame[name].astype(dtype)
    return frame


def test_encode(faces: Faces) -> None:
    codes = faces.ae.transform(faces.rows)
    same(faces.written("encode").to_numpy(), codes)
    answer = faces.service("encode", faces.as_json(faces.rows))
    same(answer["codes"], codes)
    assert answer["names"] == list(faces.written("encode").columns)


def test_decode(faces: Faces) -> None:
    codes = faces.ae.transform(faces.rows)
    rows = faces.ae.inverse_transform(codes)
    faces.written("encode")
    same_cells(faces.written("decode", source="encode.parquet"), rows)
    same_cells(framed(faces.service("decode", {"codes": codes.tolist()}), rows), rows)


def test_reconstruct(faces: Faces) -> None:
    rows = faces.ae.reconstruct(faces.rows)
    same_cells(faces.written("reconstruct"), rows)
    answer = faces.service("reconstruct", faces.as_json(faces.rows))
    same_cells(framed(answer, rows), rows)


def test_score(faces: Faces) -> None:
    written = faces.written("score")
    answer = faces.service("score", faces.as_json(faces.rows))
    for name, values in {
        "score": faces.ae.score_samples(faces.rows),
        "p_value": faces.ae.anomaly_pvalue(faces.rows),
        "label": faces.ae.predict(faces.rows),
    }.items():
        same(written[name], values)
        same(answer[name], values)
    assert answer["offset"] == pytest.approx(faces.ae.offset_)


def test_explain(faces: Faces) -> None:
    found = faces.ae.explain(faces.rows)
    answer = faces.service("explain", faces.as_json(faces.rows))
    assert tuple(answer["columns"]) == found.columns
    same(answer["contribution"], found.contribution)
    same(answer["base"], found.base)
    written = faces.written("explain", "--top", len(faces.rows))
    by_cell = written.set_index(["row", "column"])["contribution"]
    for position, row in enumerate(found.rows):
        for j, name in enumerate(found.columns):
            same(by_cell[(row, name)], found.contribution[position, j])


def test_impute(faces: Faces) -> None:
    rows = faces.ae.impute(faces.rows)
    assert not rows.isna().any().any()
    same_cells(faces.written("impute"), rows)
    same_cells(framed(faces.service("impute", faces.as_json(faces.rows)), rows), rows)


def test_sample(faces: Faces) -> None:
    rows = faces.ae.sample(7, random_state=3)
    written = faces.written("sample", "--rows", 7, "--random-state", 3, source=None)
    same_cells(written, rows)
    answer = faces.service("sample", {"n": 7, "random_state": 3})
    same_cells(framed(answer, rows), rows)


def test_the_model_is_told_alike(faces: Faces) -> None:
    told = faces.client.get("/model").json()
    assert told["offset"] == pytest.approx(faces.ae.offset_)
    described = faces.command("info", faces.folder / "model").output
    assert str(faces.ae.network_.n_parameters) in described.replace(",", "")


def _without_a_column(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="rooms")


def _text_for_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(size=["n/a", *rows["size"].astype(str)[1:]])


@pytest.mark.parametrize("verb", ["encode", "reconstruct", "score", "explain", "impute"])
@pytest.mark.parametrize("spoil", [_without_a_column, _text_for_numbers])
def test_mistakes_are_told_in_the_same_words(
    faces: Faces, verb: str, spoil: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    rows, path = spoil(faces.rows), faces.folder / "spoilt.parquet"
    rows.to_parquet(path)
    method = getattr(faces.ae, {"encode": "transform", "score": "score_samples"}.get(verb, verb))
    with pytest.raises(TwofoldError) as of_file:
        method(path)
    output = faces.folder / "no.parquet"
    result = faces.command(verb, faces.folder / "model", path, "-o", output)
    assert result.exit_code == 2
    assert result.stderr.strip() == f"Error: {of_file.value}".strip()
    assert not output.exists()
    with pytest.raises(TwofoldError) as of_rows:
        method(rows)
    answer = faces.client.post(f"/{verb}", json=faces.as_json(rows))
    assert answer.status_code == 422
    assert answer.json()["error"].strip() == str(of_rows.value).strip()
