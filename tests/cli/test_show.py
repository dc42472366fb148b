"""Commands that show a model say what Python says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

import twofold
from tests.cli.running import (
    fail,
    fitted_in_python,
    succeed,
    values,
)
from twofold import load
from twofold.persistence import folder as bundle


def test_model_fitted_on_a_pandas_frame_serves_files(folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(folder / "rows.csv").drop(columns="name")
    ae = fitted_in_python(frame)
    ae.save(tmp_path / "m")
    succeed("encode", tmp_path / "m", folder / "rows.csv", "-o", tmp_path / "c.parquet")
    succeed("decode", tmp_path / "m", tmp_path / "c.parquet", "-o", tmp_path / "d.npy")
    np.testing.assert_allclose(values(tmp_path / "d.npy"), ae.reconstruct(frame), rtol=1e-12)


def test_info_tells_what_the_network_sees(mixed: Path) -> None:
    text = succeed("info", mixed / "model").stdout
    assert re.search(r"^id +ignored +none +nothing +looks like an identifier", text, re.M)
    assert re.search(r'^城市 +category +categorical +3 levels: Zürich, Bern, "alt"', text, re.M)
    assert re.search(r"^joined +time +gaussian +centre 2024-0\d-\d\dT", text, re.M)
    assert re.search(r"^visits +count +negative_binomial +around ", text, re.M)


def test_info_names_the_odd_columns_among_many(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 30))
    x[:, 25] = 4.0
    x[:, 26] = np.nan
    fitted_in_python(x).save(tmp_path / "m")
    text = succeed("info", tmp_path / "m").stdout
    assert "ignored columns:\n  x26  holds no cell that is not missing" in text
    assert "constant in training: x25" in text


def test_info_tells_what_the_model_is(folder: Path) -> None:
    text = succeed("info", folder / "model").stdout
    ae = load(folder / "model")
    assert re.search(r"^n_components +2 +default none$", text, re.M)
    assert re.search(r"^random_state +0 +default none$", text, re.M)
    assert "batch_size" not in text
    assert re.search(r"^d, e +real +gaussian +centre -?[\d.e-]+, scale [\d.e-]+$", text, re.M)
    assert re.search(r"^constant +real +gaussian +centre 7, scale 0.07 +constant$", text, re.M)
    assert ae.summary() in text
    assert f"epoch {ae.n_iter_}: {ae.history_[-1]['loss']:.5g}" in text
    assert f"score below {ae.offset_:.6g}" in text
    assert f"twofold {twofold.__version__}" in text
    assert re.search(r"^weights.safetensors +[\d.]+ (kB|bytes)$", text, re.M)


def test_info_of_a_model_of_defaults_says_so(folder: Path, tmp_path: Path) -> None:
    fitted_in_python(
        folder / "rows.npy", n_components=None, epochs="auto", random_state=None
    ).set_params(epochs="auto").save(tmp_path / "m")
    assert (
        "Options that differ from the defaults\n\nnone\n" in succeed("info", tmp_path / "m").stdout
    )


def test_info_shows_the_first_columns_of_many(tmp_path: Path) -> None:
    fitted_in_python(np.random.default_rng(0).normal(size=(30, 45))).save(tmp_path / "m")
    text = succeed("info", tmp_path / "m").stdout
    assert "x19 " in text
    assert "x20 " not in text
    assert "and 25 more" in text


def test_info_about_the_system_names_the_training_step() -> None:
    text = succeed("info", "--system").stdout
    for word in ("twofold", "PyTorch", "threads", "training step"):
        assert word in text
    assert ("native, compiled for" in text) != ("nothing native: " in text)


def test_info_about_nothing_says_what_to_name() -> None:
    assert "Expected the folder of a model, got none." in fail("info")


def test_info_as_json_is_the_document(folder: Path) -> None:
    text = succeed("info", folder / "model", "--json").stdout
    assert json.loads(text) == bundle.read(folder / "model")[1]
