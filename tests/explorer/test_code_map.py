"""Codes on a map: the model's own numbers, its axes, a fair sample, and what lies in a polygon."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import matplotlib.path
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from twofold import Autoencoder
from twofold.errors import DataError, OptionError
from twofold.explorer import code_map
from twofold.explorer.code_map import CodeMap, within
from twofold.explorer.source import Source

Array = NDArray[Any]
# Models here learn in a moment what a map can be drawn of.
pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")


def rows(n: int = 600, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 3)) * [3, 2, 1]
    X = np.tanh(hidden @ np.random.default_rng(9).normal(size=(3, 9)))
    X[::50] += rng.normal(0, 3, X[::50].shape)
    return X.astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    return Autoencoder(n_components=4, epochs=8, random_state=0).fit(rows(seed=1))


@pytest.fixture(scope="module")
def mapped(model: Autoencoder) -> CodeMap:
    return CodeMap(model, Source.read(rows(), model.schema_))


def test_codes_and_scores_are_the_models(model: Autoencoder, mapped: CodeMap) -> None:
    assert np.allclose(mapped.codes, model.transform(rows()), atol=1e-6)
    assert np.allclose(mapped.scores.score, model.score_samples(rows()), rtol=1e-6)
    assert np.array_equal(mapped.scores.is_anomaly, model.predict(rows()) == -1)
    assert np.array_equal(mapped.scores.p_value, model.anomaly_pvalue(rows()))


def test_parts_give_what_the_whole_gives(
    model: Autoencoder, mapped: CodeMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_map, "_CHUNK_CELLS", 0)  # 1,000 rows at a time
    long = np.tile(rows(), (4, 1))
    again = CodeMap(model, Source.read(long, model.schema_))
    assert np.allclose(again.codes, np.tile(mapped.codes, (4, 1)), atol=1e-6)


def test_codes_too_large_for_memory_lie_in_a_file(
    model: Autoencoder, mapped: CodeMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_map, "_IN_MEMORY", 0)
    again = CodeMap(model, Source.read(rows(), model.schema_))
    assert isinstance(again.codes, np.memmap)
    assert np.array_equal(again.codes, mapped.codes)


def test_progress_is_told(model: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_map, "_CHUNK_CELLS", 0)
    monkeypatch.setattr(code_map, "_PROGRESS_SECONDS", -1)
    said: list[str] = []
    CodeMap(model, Source.read(np.tile(rows(), (4, 1)), model.schema_), said.append)
    assert [line.partition(" rows")[0] for line in said] == [
        "encoded 1,000 of 2,400",
        "encoded 2,000 of 2,400",
    ]


def test_a_row_that_cannot_be_used_is_named_by_its_number(
    model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_map, "_CHUNK_CELLS", 0)
    long = np.tile(rows(), (4, 1))
    long[1500, 2] = np.inf
    with pytest.raises(DataError, match="row 1500"):
        CodeMap(model, Source.read(long, model.schema_))


def test_no_rows_make_no_map() -> None:
    frame = pd.DataFrame(rows(50), columns=list("abcdefghi"))
    model = Autoencoder(n_components=2, epochs=1, random_state=0).fit(frame)
    with pytest.raises(DataError, match="Expected rows to explore"):
        CodeMap(model, Source.read(frame[:0], model.schema_))


def test_principal_components_are_those_of_the_codes(mapped: CodeMap) -> None:
    pca = PCA(2).fit(mapped.codes.astype(np.float64))
    places = pca.transform(mapped.codes.astype(np.float64))
    for i, key in enumerate(("pc1", "pc2")):
        along = mapped.along(key)
        assert np.allclose(np.abs(along), np.abs(places[:, i]), atol=1e-4)
        assert mapped.axes[i].share == pytest.approx(pca.explained_variance_ratio_[i], rel=1e-3)
    assert mapped.default_axes == ("pc1", "pc2")


def test_axes_of_the_components(mapped: CodeMap) -> None:
    axes = [axis for axis in mapped.axes if axis.component is not None]
    assert [axis.title for axis in axes] == [f"component {i}" for i in range(4)]
    assert sum(axis.share or 0 for axis in axes) == pytest.approx(1)
    assert np.array_equal(mapped.along("c2"), mapped.codes[:, 2])


@pytest.mark.parametrize(("size", "axes"), [(1, ("c0", "score")), (2, ("c0", "c1"))])
def test_short_codes_are_the_map_themselves(size: int, axes: tuple[str, str]) -> None:
    model = Autoencoder(n_components=size, epochs=1, random_state=0).fit(rows(100))
    mapped = CodeMap(model, Source.read(rows(100), model.schema_))
    assert mapped.default_axes == axes
    assert len(mapped.principal) == 0


def test_an_axis_that_does_not_exist(mapped: CodeMap) -> None:
    with pytest.raises(OptionError, match="or score, got 'c99'"):
        mapped.along("c99")


def test_every_row_is_drawn_once_the_lowest_score_last(mapped: CodeMap) -> None:
    order = mapped.everything
    n_anomalies = int(mapped.scores.is_anomaly.sum())
    assert sorted(order) == list(range(600))
    assert mapped.scores.is_anomaly[order[-n_anomalies:]].all()
    assert order[-1] == mapped.scores.score.argmin()


def test_few_rows_are_their_own_sample(mapped: CodeMap) -> None:
    assert np.array_equal(mapped.sample, mapped.everything)


@pytest.fixture
def sampled(model: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> CodeMap:
    monkeypatch.setattr(code_map, "SAMPLE", 400)
    monkeypatch.setattr(code_map, "_LEAST_NORMAL", 200)
    return CodeMap(model, Source.read(rows(3000), model.schema_))


def test_a_sample_holds_every_anomaly(sampled: CodeMap) -> None:
    found = np.flatnonzero(sampled.scores.is_anomaly)
    assert 0 < len(found) < 400
    assert len(sampled.sample) == max(400, 200 + len(found))
    assert set(found) <= set(sampled.sample.tolist())
    assert len(set(sampled.sample.tolist())) == len(sampled.sample)


def test_of_very_many_anomalies_a_sample_holds_the_lowest_scores(
    sampled: CodeMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_anomalies = int(sampled.scores.is_anomaly.sum())
    monkeypatch.setattr(code_map, "SAMPLE", n_anomalies // 2)
    order = np.argsort(sampled.scores.score)
    assert set(order[: n_anomalies // 2]) <= set(sampled.sample.tolist())
    assert sampled.scores.is_anomaly[sampled.sample].sum() == n_anomalies // 2


def test_a_sample_takes_of_each_region_its_share(sampled: CodeMap) -> None:
    normal = np.flatnonzero(~sampled.scores.is_anomaly)
    x = sampled.along("pc1")
    strips = np.quantile(x[normal], np.linspace(0, 1, 11))
    drawn = sampled.sample[~sampled.scores.is_anomaly[sampled.sample]]
    counts = np.histogram(x[drawn], strips)[0]
    # A random sample is off by eight: strips hold a tenth, with a deviation of 4.7 in each.
    assert np.abs(counts - len(drawn) / 10).max() <= 3


def test_anomalies_come_in_three_orders(mapped: CodeMap) -> None:
    n_anomalies = int(mapped.scores.is_anomaly.sum())
    found = mapped.anomalies("lowest", 0, n_anomalies)
    assert np.all(np.diff(mapped.scores.score[found]) >= 0)
    assert mapped.anomalies("highest", 0, n_anomalies) == found[::-1]
    assert mapped.anomalies("row", 0, n_anomalies) == sorted(found)
    assert mapped.anomalies("lowest", 2, 3) == found[2:5]


@pytest.mark.parametrize("seed", range(5))
def test_within_a_polygon(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 4000)).astype(np.float32)
    turn = np.sort(rng.uniform(0, 2 * np.pi, 30))
    corners = np.stack([np.cos(turn), np.sin(turn)], 1) * rng.uniform(0.3, 2, (30, 1))
    truth = matplotlib.path.Path(corners).contains_points(np.stack([x, y], 1))
    assert np.array_equal(within(x, y, corners), truth)


def test_what_is_enclosed_twice_is_outside() -> None:
    star = np.array([[np.sin(a), np.cos(a)] for a in np.arange(5) * 4 * np.pi / 5])
    inside = within(np.array([0.0, 0.0]), np.array([0.0, 0.6]), star)
    assert inside.tolist() == [False, True]


def test_rows_without_a_place_lie_nowhere() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    assert within(np.array([0.5, np.nan, 0.5]), np.array([0.5, 0.5, np.inf]), square).sum() == 1


@pytest.mark.parametrize("polygon", [[], [[0, 0], [1, 1]], [[0, 0, 0]] * 3])
def test_a_polygon_has_three_corners(mapped: CodeMap, polygon: list[list[float]]) -> None:
    with pytest.raises(OptionError, match="at least three corners"):
        mapped.within("pc1", "pc2", polygon)


def test_a_row_is_described(model: Autoencoder, mapped: CodeMap) -> None:
    told = mapped.describe(17)
    assert told["cells"] == rows()[17].tolist()
    assert told["label"] == model.predict(rows()[17:18])[0]
    assert told["axes"]["pc2"] == mapped.along("pc2")[17]
    assert np.allclose(told["code"], mapped.codes[17])


def test_the_neighbor_map_keeps_neighbours_together(
    model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_map, "_LANDMARKS", 120)
    found = CodeMap(model, Source.read(rows(), model.schema_))
    assert "tsne1" not in found.describe(0)["axes"]  # nothing is worked out before it is asked for
    places = np.column_stack([found.along("tsne1"), found.along("tsne2")])
    assert places.shape == (600, 2)
    assert np.isfinite(places).all()
    near = NearestNeighbors(n_neighbors=2).fit(found.codes).kneighbors(found.codes)[1][:, 1]
    spread = np.linalg.norm(places - places.mean(axis=0), axis=1).mean()
    assert np.median(np.linalg.norm(places - places[near], axis=1)) < 0.25 * spread
    assert found.describe(7)["axes"]["tsne2"] == places[7, 1]


def test_the_neighbor_map_is_worked_out_once(
    mapped: CodeMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def placed(codes: Array, method: str, rng: np.random.RandomState) -> Array:
        calls.append(method)
        return codes[:, :2]

    monkeypatch.setattr(code_map.neighbors, "on_a_map", placed)
    mapped._placed = None
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(mapped.along, ["tsne1", "tsne2", "tsne1", "tsne2"]))
    mapped._placed = None
    assert calls == ["tsne"]


def test_many_rows_and_short_codes_have_no_neighbor_map(
    model: Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_map, "SAMPLE", 599)
    with pytest.raises(OptionError, match="Expected an axis such as pc1, pc2"):
        CodeMap(model, Source.read(rows(), model.schema_)).along("tsne1")
