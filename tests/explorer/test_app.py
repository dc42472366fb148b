"""The explorer's routes: the page and its files, the rows' numbers, selections, and refusals."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib.path
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from twofold import Autoencoder, datasets
from twofold.cli.main import app as command_line

pytest.importorskip("starlette", reason="the explorer needs Starlette")
pytest.importorskip("uvicorn", reason="the explorer needs uvicorn")
from starlette.testclient import TestClient

from twofold.explorer import code_map, create_app

Array = NDArray[Any]
HERE = "http://127.0.0.1"
# Models here learn in a moment what a page can show.
pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")


def frame(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    size = rng.normal(10, 2, n)
    rows = pd.DataFrame(
        {
            "size": size,
            "price": size * rng.normal(3, 0.2, n),
            "town": rng.choice(["Oslo", "Porto", "Turin"], n),
            "new": rng.random(n) < 0.3,
            "sold": pd.date_range("2024-01-01 09:30", periods=n, freq="17h"),
        }
    )
    rows.loc[7, "price"] = 300.0
    rows.loc[11, "size"] = None
    return rows


@pytest.fixture(scope="module")
def table_model() -> Autoencoder:
    return Autoencoder(n_components=3, epochs=10, random_state=0).fit(frame())


@pytest.fixture(scope="module")
def table(table_model: Autoencoder) -> Iterator[TestClient]:
    rows = frame().assign(label=np.arange(300) % 3)
    with TestClient(create_app(table_model, rows, title="houses"), base_url=HERE) as client:
        yield client


@pytest.fixture(scope="module")
def image_model() -> Autoencoder:
    images = datasets.digits().train[:500]
    return Autoencoder(n_components=2, hidden_layers=(16,), epochs=3, random_state=0).fit(images)


@pytest.fixture(scope="module")
def images(image_model: Autoencoder) -> Iterator[TestClient]:
    app = create_app(image_model, datasets.digits().train[:500])
    with TestClient(app, base_url=HERE) as client:
        yield client


def numbers(client: TestClient, path: str, kind: str = "<f4") -> Array:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    return np.frombuffer(answer.content, kind)


def test_the_page_is_served(table: TestClient) -> None:
    answer = table.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert 'src="explorer/explorer.js"' in answer.text


def test_all_that_the_page_names_is_there(table: TestClient) -> None:
    page = table.get("/").text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    scripts = [name for name in named if name.endswith(".js")]
    for script in scripts:
        text = table.get(f"/{script}").text
        named += [f"explorer/{name}" for name in re.findall(r'from "\./([^"]+)"', text)]
    assert len(scripts) >= 5
    assert {table.get(f"/{name}").status_code for name in named} == {200}


@pytest.mark.parametrize("name", ["secrets.py", "..%2Fapp.py", "%2e%2e/app.py"])
def test_nothing_else_is_served(table: TestClient, name: str) -> None:
    assert table.get(f"/explorer/{name}").status_code == 404


def test_the_page_may_run_nothing_but_itself(table: TestClient) -> None:
    policy = table.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert table.get("/rows").headers["x-content-type-options"] == "nosniff"


def test_the_files_ask_no_other_host() -> None:
    for file in resources.files("twofold").joinpath("explorer", "page").iterdir():
        text = file.read_text(encoding="utf-8")
        hosts = set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org"}
        assert not hosts, f"{file.name} names {hosts}"


def test_no_handlers_or_styles_are_inline() -> None:
    page = (
        resources.files("twofold")
        .joinpath("explorer", "page", "index.html")
        .read_text(encoding="utf-8")
    )
    assert not re.search(r"\son\w+=|<style|style=|<script>", page)


def test_the_page_is_light(table: TestClient) -> None:
    names = [
        file.name for file in resources.files("twofold").joinpath("explorer", "page").iterdir()
    ]
    sizes = [table.get(f"/explorer/{name}").headers["content-length"] for name in names]
    assert sum(map(int, sizes)) < 50_000  # as sent, compressed
    plain = {"Accept-Encoding": "identity"}
    assert sum(len(table.get(f"/explorer/{n}", headers=plain).content) for n in names) < 150_000


def test_a_page_elsewhere_gets_no_answer(table: TestClient) -> None:
    assert table.get("/rows", headers={"Host": "elsewhere.example"}).status_code == 421


def test_what_there_is(table: TestClient, table_model: Autoencoder) -> None:
    about = table.get("/rows").json()
    assert (about["title"], about["n_rows"], about["n_components"]) == ("houses", 300, 3)
    assert about["n_anomalies"] == (table_model.predict(frame()) == -1).sum()
    assert about["offset"] == table_model.offset_
    assert [c["name"] for c in about["columns"] if c["own"]] == list(frame())
    assert [c["name"] for c in about["columns"] if not c["own"]] == ["label"]
    assert about["sampled"] is False
    assert about["history"][-1]["loss"] == table_model.history_[-1]["loss"]


def test_sliders_start_with_what_varies_most(table: TestClient, table_model: Autoencoder) -> None:
    components = table.get("/rows").json()["components"]
    codes = table_model.transform(frame())
    assert [c["position"] for c in components] == np.argsort(-codes.std(axis=0)).tolist()
    first = codes[:, components[0]["position"]]
    assert first.min() <= components[0]["low"] < components[0]["high"] <= first.max()


def test_positions_come_in_drawing_order(images: TestClient, image_model: Autoencoder) -> None:
    order = numbers(images, "/rows/numbers", "<u4")
    codes = image_model.transform(datasets.digits().train[:500])
    for axis in (0, 1):
        found = numbers(images, f"/rows/values/c{axis}")
        assert np.allclose(found, codes[order, axis], atol=1e-5)


def test_scores_labels_and_p_values(images: TestClient, image_model: Autoencoder) -> None:
    rows = datasets.digits().train[:500]
    order = numbers(images, "/rows/numbers", "<u4")
    scores = image_model.score_samples(rows)[order]
    assert np.allclose(numbers(images, "/rows/values/score"), scores, rtol=1e-5)
    labels = numbers(images, "/rows/values/label")
    levels = images.get("/rows/about/label").json()["levels"]
    assert [levels[int(i)] for i in labels[-3:]] == ["anomaly"] * 3
    assert np.array_equal(labels == 0, image_model.predict(rows)[order] == -1)
    p_values = image_model.anomaly_pvalue(rows)[order]
    assert np.allclose(numbers(images, "/rows/values/p_value"), p_values, rtol=1e-6)


def test_a_column_gives_levels(table: TestClient) -> None:
    order = numbers(table, "/rows/numbers", "<u4")
    about = table.get("/rows/about/column2").json()
    values = numbers(table, "/rows/values/column2")
    assert about["title"] == "town"
    assert [about["levels"][int(i)] for i in values] == frame()["town"][order].tolist()


def test_a_column_gives_numbers(table: TestClient) -> None:
    order = numbers(table, "/rows/numbers", "<u4")
    assert table.get("/rows/about/column1").json()["levels"] is None
    expected = frame()["price"][order].astype(np.float32)
    assert np.array_equal(numbers(table, "/rows/values/column1"), expected)


@pytest.mark.parametrize("row", [0, 7, 11, 299])
def test_a_row_can_be_handed_to_the_verbs(
    table: TestClient, table_model: Autoencoder, row: int
) -> None:
    told = table.get(f"/rows/{row}").json()
    body = {"rows": [told["cells"]]}
    one = frame()[row : row + 1]
    scored = table.post("/score", json=body).json()
    assert scored["score"][0] == pytest.approx(table_model.score_samples(one)[0], rel=1e-5)
    assert told["score"] == pytest.approx(scored["score"][0], rel=1e-5)
    found = table.post("/explain", json=body).json()
    assert np.allclose(found["contribution"], table_model.explain(one).contribution, atol=1e-4)
    assert found["base"][0] + sum(found["contribution"][0]) == pytest.approx(-told["score"], 1e-5)
    decoded = table.post("/decode", json={"codes": [told["code"]]}).json()["rows"][0]
    expected = table_model.reconstruct(one).iloc[0]
    assert decoded[:2] == pytest.approx(expected[["size", "price"]].tolist(), rel=1e-4)
    assert decoded[2:4] == [expected["town"], bool(expected["new"])]


def test_an_image_can_be_handed_to_the_verbs(images: TestClient, image_model: Autoencoder) -> None:
    told = images.get("/rows/3").json()
    image = datasets.digits().train[3:4]
    assert told["cells"] == image.ravel().tolist()
    found = images.post("/explain", json={"rows": [told["cells"]]}).json()
    assert np.allclose(found["contribution"], image_model.explain(image).contribution, atol=1e-4)
    decoded = images.post("/decode", json={"codes": [told["code"]]}).json()["rows"]
    assert np.allclose(decoded, image_model.reconstruct(image).reshape(1, -1), atol=1e-3)


def test_anomalies_page_by_page(table: TestClient, table_model: Autoencoder) -> None:
    scores = table_model.score_samples(frame())
    odd = np.flatnonzero(table_model.predict(frame()) == -1)
    oddest = odd[np.argsort(scores[odd])].tolist()
    first = table.get("/rows/anomalies?order=lowest&start=0&count=3").json()
    then = table.get("/rows/anomalies?order=lowest&start=3&count=100").json()
    assert first["total"] == len(odd)
    assert [row["row"] for row in first["rows"] + then["rows"]] == oddest
    assert oddest[0] == 7
    highest = table.get("/rows/anomalies?order=highest&start=0&count=1").json()
    assert highest["rows"][0]["row"] == oddest[-1]


def selection(client: TestClient, seed: int = 0) -> tuple[dict[str, Any], Array]:
    """A polygon on the map, and which rows lie in it, found in another way."""
    about = client.get("/rows").json()
    x, y = about["default_axes"]
    order = numbers(client, "/rows/numbers", "<u4")
    places = np.stack([numbers(client, f"/rows/values/{axis}") for axis in (x, y)], 1)
    rng = np.random.default_rng(seed)
    turn = np.sort(rng.uniform(0, 2 * np.pi, 12))
    corners = np.median(places, 0) + places.std(0) * np.stack([np.cos(turn), np.sin(turn)], 1)
    inside = matplotlib.path.Path(corners).contains_points(places)
    chosen = np.zeros(about["n_rows"], dtype=bool)
    chosen[order[inside]] = True
    return {"x": x, "y": y, "polygon": corners.tolist()}, chosen


def test_a_selection_is_counted_and_compared(table: TestClient, table_model: Autoencoder) -> None:
    asked, chosen = selection(table)
    told = table.post("/rows/selection", json=asked).json()
    assert 10 < told["count"] == chosen.sum() < 290
    assert told["n_anomalies"] == (table_model.predict(frame())[chosen] == -1).sum()
    size = next(column for column in told["columns"] if column["name"] == "size")
    assert size["mean"] == pytest.approx(frame()["size"][chosen].mean())
    assert size["mean_all"] == pytest.approx(frame()["size"].mean())
    differences = [abs(column["difference"]) for column in told["columns"]]
    assert differences == sorted(differences, reverse=True)


def test_a_selection_of_images_has_means(images: TestClient) -> None:
    asked, chosen = selection(images)
    told = images.post("/rows/selection", json=asked).json()
    rows = datasets.digits().train[:500].reshape(500, -1)
    assert np.allclose(told["image"]["mean"], rows[chosen].mean(0))
    assert np.allclose(told["image"]["mean_all"], rows.mean(0))


def test_a_mask_has_a_bit_per_row(table: TestClient) -> None:
    asked, chosen = selection(table)
    content = table.post("/rows/selection/mask", json=asked).content
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    assert np.array_equal(bits[:300].astype(bool), chosen)


def test_anomalies_can_be_selected(table: TestClient, table_model: Autoencoder) -> None:
    told = table.post("/rows/selection", json={"label": -1}).json()
    assert told["count"] == told["n_anomalies"] == (table_model.predict(frame()) == -1).sum()


def test_an_empty_selection(table: TestClient) -> None:
    far = [[1e6, 1e6], [1e6 + 1, 1e6], [1e6, 1e6 + 1]]
    told = table.post("/rows/selection", json={"x": "pc1", "y": "pc2", "polygon": far}).json()
    assert (told["count"], told["columns"]) == (0, [])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_selection_can_be_saved(table: TestClient, suffix: str) -> None:
    asked, chosen = selection(table)
    answer = table.post(f"/rows/selection/export?format={suffix}", json=asked)
    assert f'filename="selection.{suffix}"' in answer.headers["content-disposition"]
    file = io.BytesIO(answer.content)
    found = pd.read_csv(file) if suffix == "csv" else pd.read_parquet(file)
    assert found["row"].tolist() == np.flatnonzero(chosen).tolist()
    assert found["town"].tolist() == frame()["town"][chosen].tolist()
    assert found.columns[-4:].tolist() == ["label", "score", "p_value", "label_"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"x": "pc1", "y": "c99", "polygon": [[0, 0], [1, 0], [0, 1]]}, "or score, got 'c99'"),
        ({"x": "pc1", "y": "pc2", "polygon": [[0, 0], [1, 0]]}, "at least three corners"),
        ({"x": "pc1", "y": "pc2", "polygon": [[0, "a"]] * 3}, "Expected a selection"),
        ({"x": "pc1", "y": "pc2", "polygon": 7}, "Expected a selection"),
        ({"x": "pc1", "y": "pc2", "polygon": [[0, 0]] * 6000}, "5,000 corners, got 6,000"),
        ([1, 2], "Expected a selection"),
        ({"label": 3}, "Expected a selection"),
    ],
)
def test_a_selection_that_means_nothing_is_refused(table: TestClient, body: Any, text: str) -> None:
    answer = table.post("/rows/selection", json=body)
    assert answer.status_code == 422
    assert text in answer.json()["error"]


JSON = {"content-type": "application/json"}


def test_a_selection_of_another_type_is_refused(table: TestClient) -> None:
    answer = table.post("/rows/selection", content=b'{"label": 1}', headers={"content-type": "x"})
    assert answer.status_code == 415


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"label": NaN}'])
def test_what_is_no_json_is_refused(table: TestClient, body: bytes) -> None:
    answer = table.post("/rows/selection", content=body, headers=JSON)
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]


def test_a_selection_that_is_too_large_is_refused(table: TestClient) -> None:
    assert table.post("/rows/selection", content=b"[" * 2**21, headers=JSON).status_code == 413


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/rows/300", "got 300"),
        ("/rows/values/c99", "or score, got 'c99'"),
        ("/rows/about/c99", "or score, got 'c99'"),
        ("/rows/values/pc1?points=some", "to be 'sample' or 'all'"),
        ("/rows/anomalies?order=best", "one of lowest, highest, row"),
        ("/rows/anomalies?start=-1", "to be an integer"),
    ],
)
def test_what_does_not_exist_is_refused_in_words(table: TestClient, path: str, text: str) -> None:
    answer = table.get(path)
    assert answer.status_code == 422
    assert text in answer.json()["error"]


def test_many_rows_are_sampled(image_model: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_map, "SAMPLE", 200)
    monkeypatch.setattr(code_map, "_LEAST_NORMAL", 100)
    app = create_app(image_model, datasets.digits().train[:500])
    with TestClient(app, base_url=HERE) as client:
        about = client.get("/rows").json()
        assert about["sampled"] is True
        assert about["n_shown"] == len(numbers(client, "/rows/numbers", "<u4")) == 200
        assert about["n_anomalies_shown"] == about["n_anomalies"]
        assert len(numbers(client, "/rows/values/c0?points=all")) == 500


def test_infinite_scores_and_holes_are_json(table_model: Autoencoder) -> None:
    rows = frame()
    rows.loc[3, "price"] = 1e30
    rows.loc[4, ["size", "price", "town", "sold"]] = None
    with TestClient(create_app(table_model, rows), base_url=HERE) as client:
        for path in ("/rows", "/rows/3", "/rows/4", "/rows/anomalies?count=5"):
            assert json.loads(client.get(path).text)


def test_a_port_in_use_is_said_at_once(tmp_path: Path, table_model: Autoencoder) -> None:
    import socket

    table_model.save(tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        # The source does not exist: the port is tried before the rows are read.
        result = CliRunner().invoke(
            command_line, ["explore", str(tmp_path / "model"), "nowhere.csv", "--port", port]
        )
    assert result.exit_code == 2
    assert f"Port {port}" in result.output


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_the_command_serves_until_it_is_stopped(tmp_path: Path, table_model: Autoencoder) -> None:
    table_model.save(tmp_path / "model")
    frame().to_parquet(tmp_path / "rows.parquet")
    command = [Path(sys.executable).with_name("twofold"), "explore", "model", "rows.parquet"]
    with subprocess.Popen(
        [*command, "--port", "0", "--no-browser"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found is not None
        import httpx

        about = httpx.get(f"{found[0]}/rows", trust_env=False).json()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert (about["title"], about["source"]) == ("model", "rows.parquet")
