"""A mixed model comes back from its folder bit for bit, and what cannot be one is refused."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from twofold import Autoencoder, load
from twofold.errors import DataError, LosesToPCAWarning, ModelFileError
from twofold.estimators import validation
from twofold.persistence import folder as model_folder
from twofold.persistence import model as modelfile
from twofold.persistence.folder import DOCUMENT, WEIGHTS
from twofold.schema.schema import Schema

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
N = 150
RNG = np.random.default_rng(0)
Z = RNG.normal(size=N)
FRAME = pd.DataFrame(
    {
        "height": 170 + 8 * Z + RNG.normal(size=N),
        "income": 2000 + 300 * Z + 200 * RNG.standard_t(3, size=N),
        "visits": RNG.poisson(np.exp(0.6 + 0.5 * Z)),
        "calls": RNG.poisson(np.exp(0.2 + 0.5 * Z)),
        "smoker": RNG.uniform(size=N) < 1 / (1 + np.exp(-2 * Z)),
        "town": np.array(["Bonn", "Kiel", "Ulm"])[np.clip(np.rint(Z + 1), 0, 2).astype(int)],
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, N), "D"),
        "share": RNG.beta(0.3, 0.4, N) * 7 - 2,
        "key": [f"k{i}" for i in range(N)],
    }
)
LIKELIHOOD = {"income": "student_t", "visits": "poisson", "share": "histogram"}
HOLES = FRAME.astype({"visits": "Int64", "calls": "Int64", "smoker": "boolean"}).mask(
    RNG.uniform(size=FRAME.shape) < 0.1
)


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    """A model of every kind of column, fitted to rows with holes; no test changes it."""
    ae = Autoencoder(
        n_components=3,
        epochs=3,
        batch_size=32,
        random_state=0,
        likelihood=LIKELIHOOD,
        kinds={"key": "ignored"},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return ae.fit(HOLES)


@pytest.fixture
def folder(model: Autoencoder, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    model.save(path)
    return path


VERBS: dict[str, Callable[[Autoencoder], Any]] = {
    "scores": lambda ae: ae.score_samples(HOLES),
    "pvalues": lambda ae: ae.anomaly_pvalue(HOLES),
    "labels": lambda ae: ae.predict(HOLES),
    "codes": lambda ae: ae.transform(HOLES),
    "contributions": lambda ae: ae.explain(HOLES.iloc[:20]).contribution,
    "bases": lambda ae: ae.explain(HOLES.iloc[:20]).base,
    "comparison": lambda ae: ae.compare_pca(HOLES),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_loaded_model_gives_the_same_numbers(verb: str, model: Autoencoder, folder: Path) -> None:
    expected, found = VERBS[verb](model), VERBS[verb](load(folder))
    np.testing.assert_array_equal(found, expected)


FRAMES: dict[str, Callable[[Autoencoder], pd.DataFrame]] = {
    "reconstructions": lambda ae: ae.reconstruct(HOLES),
    "imputed rows": lambda ae: ae.impute(HOLES),
    "draws": lambda ae: ae.impute(HOLES, 2, random_state=0)[1],
    "new rows": lambda ae: ae.sample(40, random_state=0),
    "rows of codes": lambda ae: ae.inverse_transform(np.eye(3)),
    "a way": lambda ae: ae.interpolate(HOLES[:1], HOLES[1:2], 4),
    "expected cells": lambda ae: pd.DataFrame(ae.explain(HOLES.iloc[:20]).expected),
}


@pytest.mark.parametrize("verb", FRAMES)
def test_a_loaded_model_gives_the_same_cells(verb: str, model: Autoencoder, folder: Path) -> None:
    pd.testing.assert_frame_equal(FRAMES[verb](load(folder)), FRAMES[verb](model), check_exact=True)


def test_a_loaded_model_has_the_same_options_and_schema(model: Autoencoder, folder: Path) -> None:
    loaded = load(folder)
    assert loaded.get_params() == model.get_params()
    assert loaded.schema_ == model.schema_
    assert list(loaded.feature_names_in_) == list(FRAME.columns)
    assert (loaded.offset_, loaded.best_epoch_) == (model.offset_, model.best_epoch_)


def test_everything_that_was_learned_is_kept(model: Autoencoder, folder: Path) -> None:
    own, found = model.scorer_.state_dict(), load(folder).scorer_.state_dict()
    assert own.keys() == found.keys()
    for name in own:
        assert torch.equal(own[name], found[name]), name
        assert own[name].dtype == found[name].dtype, name
    np.testing.assert_array_equal(load(folder).calibration_scores_, model.calibration_scores_)


def test_a_loaded_model_learns_on(folder: Path) -> None:
    ae = load(folder)
    assert len(ae.partial_fit(HOLES).history_) == 4
    assert np.isfinite(ae.score_samples(HOLES)).all()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_precision_of_training_is_kept(precision: str, tmp_path: Path) -> None:
    ae = Autoencoder(n_components=2, epochs=1, precision=precision, random_state=0).fit(FRAME)
    ae.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert {p.dtype for p in loaded.network_.parameters()} == {getattr(torch, precision)}
    np.testing.assert_array_equal(loaded.score_samples(FRAME), ae.score_samples(FRAME))


CELLS: dict[str, Callable[[np.random.Generator], Any]] = {
    "counts": lambda rng: rng.poisson(rng.choice([0.1, 1, 20]), 60),
    "far": lambda rng: rng.standard_cauchy(60) * 10.0 ** rng.integers(-20, 20),
    "skewed": lambda rng: np.exp(rng.normal(size=60) * rng.choice([1, 5, 15])),
    "mostly 0": lambda rng: np.where(rng.random(60) < 0.95, 0.0, rng.normal(size=60) * 1e6),
    "nearly equal": lambda rng: np.where(rng.random(60) < 0.9, 1 + rng.random(60) * 1e-12, 5.0),
    "about 1e9": lambda rng: 1e9 + rng.normal(size=60) * 10.0 ** rng.integers(-3, 3),
    "letters": lambda rng: rng.choice(list("abcde"), 60),
    "names": lambda rng: [f"n{i}" for i in rng.integers(0, 30, 60)],
    "flag": lambda rng: rng.random(60) < 0.3,
}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    chosen=st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
    precision=st.sampled_from(["float32", "float64"]),
)
def test_whatever_was_fitted_can_be_loaded(chosen: list[str], seed: int, precision: str) -> None:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({f"c{i}": CELLS[name](rng) for i, name in enumerate(chosen)})
    frame = frame.mask(rng.random(frame.shape) < 0.1)
    try:
        fitted = Autoencoder(epochs=1, random_state=0, precision=precision).fit(frame)
    except DataError:  # identifiers alone
        return
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(Path(folder) / "model")
        again = load(Path(folder) / "model")
    np.testing.assert_array_equal(again.score_samples(frame), fitted.score_samples(frame))


def test_the_document_tells_what_each_column_is(folder: Path) -> None:
    columns = json.loads((folder / DOCUMENT).read_text())["schema"]["columns"]
    assert [c["name"] for c in columns] == list(FRAME.columns)
    assert columns[5]["levels"] == ["Bonn", "Kiel", "Ulm"]
    assert columns[8]["kind"] == "ignored"


def test_parts_are_what_was_saved(model: Autoencoder, folder: Path) -> None:
    parts = modelfile.load(folder)
    assert parts.schema == model.schema_
    assert parts.history == model.history_
    assert parts.feature_names


# --- hostile documents


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the document as someone would who knows how its digest is made."""
    document = json.loads((folder / DOCUMENT).read_text())
    del document["sha256"]
    change(document)
    document["sha256"] = model_folder._digest(document)
    (folder / DOCUMENT).write_text(json.dumps(document))


HOSTILE: dict[str, tuple[int, dict[str, Any]]] = {
    "unknown kind": (0, {"kind": "os.system"}),
    "another likelihood": (0, {"likelihood": "categorical"}),
    "scale of zero": (0, {"scale": 0}),
    "scale of text that is no number": (0, {"scale": "nan"}),
    "endless center": (0, {"center": "inf"}),
    "no name": (0, {"name": None, "kind": None}),
    "a field of the future": (0, {"wavelet": 3}),
    "turns of a number": (0, {"cycles": ["day"]}),
    "unknown turns": (6, {"cycles": ["moon"]}),
    "turns that are left out": (6, {"cycles": []}),
    "fewer levels": (5, {"levels": ["Bonn"]}),
    "levels of objects": (5, {"levels": [{}, {}, {}]}),
    "kept out of range": (5, {"kept": [0, 1, 3]}),
    "kept below 0": (5, {"kept": [0, 1, -1]}),
    "kept many times": (5, {"kept": [0] * 1_000_000}),
    "rest out of range": (5, {"rest": 3}),
    "text that is a number": (5, {"kind": "real", "likelihood": "gaussian"}),
    "no knots": (7, {"knots": []}),
    "knots in disorder": (7, {"knots": [3.0, 1.0, 2.0]}),
    "knots of text": (7, {"knots": ["a", "b"]}),
    "unknown format": (0, {"format": {"type": "pickle", "dtype": "object"}}),
    "format of a list": (0, {"format": [1]}),
    "ignored no more": (8, {"kind": "category", "likelihood": "categorical"}),
    "ignored now": (0, {"kind": "ignored", "likelihood": "none"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_column_is_refused(name: str, folder: Path) -> None:
    position, change = HOSTILE[name]
    rewrite(folder, lambda document: document["schema"]["columns"][position].update(change))
    with pytest.raises(ModelFileError, match="does not fit together"):
        load(folder)


@pytest.mark.parametrize(
    "columns", [None, [], [1, 2], {"height": {}}, "height", [{}] * 9, [None] * 9]
)
def test_columns_that_are_none_are_refused(columns: Any, folder: Path) -> None:
    rewrite(folder, lambda document: document["schema"].update(columns=columns))
    with pytest.raises(ModelFileError):
        load(folder)


def test_a_dtype_that_means_nothing_costs_no_more_than_the_type(folder: Path) -> None:
    rewrite(
        folder,
        lambda document: [
            c.setdefault("format", {}).update(dtype="__import__('os')")
            for c in document["schema"]["columns"]
        ],
    )
    frame = load(folder).sample(5, random_state=0)
    assert frame.shape == (5, 9)
    assert set(frame["town"]) <= {"Bonn", "Kiel", "Ulm"}


@pytest.mark.parametrize("container", ["pickle", "numpy", "../x"])
def test_a_container_that_is_another_runs_nothing(container: str, folder: Path) -> None:
    rewrite(folder, lambda document: document["schema"].update(container=container))
    try:
        rows = load(folder).sample(5, random_state=0)
    except ModelFileError:
        return
    assert isinstance(rows, np.ndarray)


def altered(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    tensors = load_file(folder / WEIGHTS)
    assert name in tensors
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS)
    blob = (folder / WEIGHTS).read_bytes()
    digest = hashlib.sha256(blob).hexdigest()
    rewrite(folder, lambda d: d.update(weights_sha256=digest, weights_bytes=len(blob)))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("scorer.typical", None),
        ("scorer.typical", torch.zeros(3)),
        ("scorer.spread", torch.zeros(1)),
        ("scorer.spread", "negative"),
        ("scorer.spread", "nan"),
        ("scorer.rounds", torch.tensor(10**12)),
        ("scorer.rounds", torch.tensor(0)),
        ("scorer.rounds", torch.tensor(-5)),
        ("scorer.rounds", torch.ones(2, dtype=torch.int64)),
        ("scorer.rounds", torch.tensor(1, dtype=torch.int32)),
        ("scorer.spread", "half"),
        ("scorer.spread", "int"),
        ("network.levels.0.weight", "int"),
        ("network.levels.0.weight", "double"),
        ("donors.values", "int"),
        ("pca.mean", "int"),
        ("scorer.density.numbers.mean", None),
        ("scorer.density.levels.partner", torch.tensor([0, 99])),
        ("scorer.density.levels.table", None),
        ("scorer.density.numbers.mean", torch.zeros(1, 1, 1)),
        ("calibration.scores", None),
        ("calibration.scores", torch.zeros(3, 3, dtype=torch.float64)),
        ("calibration.scores", torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_a_hostile_tensor_is_refused(name: str, tensor: Any, folder: Path) -> None:
    if isinstance(tensor, str):
        whole = load_file(folder / WEIGHTS)[name]
        changed = {"negative": -whole - 1, "nan": whole * torch.nan}
        tensor = changed[tensor] if tensor in changed else getattr(whole, tensor)()
    altered(folder, name, tensor)
    with pytest.raises(ModelFileError, match="does not fit together"):
        load(folder)


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None, 2**40])
@pytest.mark.parametrize("place", [("network", "n_components"), ("best_epoch",)])
def test_numbers_that_are_no_counts_are_refused(
    place: tuple[str, ...], value: Any, folder: Path
) -> None:
    def change(document: dict[str, Any]) -> None:
        inner = document if len(place) == 1 else document[place[0]]
        inner[place[-1]] = value

    rewrite(folder, change)
    with pytest.raises(ModelFileError, match="does not fit together"):
        load(folder)


def test_a_schema_of_another_table_is_refused(folder: Path) -> None:
    schema = Schema.infer(validation.table(Autoencoder(), FRAME[["height"]], reset=True)).to_json()
    rewrite(folder, lambda document: document.update(schema=schema))
    with pytest.raises(ModelFileError):
        load(folder)
