"""Every command does what Python does, with the same values and the same error texts."""

from __future__ import annotations

import datetime
import io
import json
import os
import re
import signal
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

import twofold
from twofold import Autoencoder, load, options
from twofold.cli.main import app, main
from twofold.data import output as writing
from twofold.data import sources
from twofold.errors import LosesToPCAWarning, OptionError, TwofoldError
from twofold.persistence import folder as bundle
from twofold.training import loop

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "demo",
    "fit",
    "encode",
    "decode",
    "reconstruct",
    "score",
    "explain",
    "impute",
    "sample",
    "info",
)
WRITING = ("encode", "decode", "reconstruct", "score", "explain", "impute")
FITTING = ("--n-components", "2", "--epochs", "3", "--random-state", "0")


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def succeed(*words: str | Path) -> Result:
    result = run(*words)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result


def fail(*words: str | Path) -> str:
    """Return what a command says that ends with exit status 2 and no traceback."""
    result = run(*words)
    assert result.exit_code == 2, f"{result.output}\n{result.exception!r}"
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows in every format and a model fitted to the CSV on the command line."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(60, 5))
    frame = pd.DataFrame(x, columns=["a", "b c", "d, e", "f", "constant"])
    frame["constant"] = 7.0
    frame.insert(0, "name", "p")
    frame.to_csv(folder / "rows.csv", index=False)
    frame.to_parquet(folder / "rows.parquet")
    np.save(folder / "rows.npy", frame.drop(columns="name").to_numpy())
    np.savez(folder / "rows.npz", X=frame.drop(columns="name").to_numpy())
    succeed("fit", folder / "rows.csv", "--output", folder / "model", "--drop", "name", *FITTING)
    return folder


def fitted_in_python(source: Any, **given: Any) -> Autoencoder:
    ae = Autoencoder(**{"n_components": 2, "epochs": 3, "random_state": 0, **given})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return ae.fit(source)


def values(path: Path) -> NDArray[Any]:
    return sources.read(sources.load(path)).values


# fit


def test_fit_gives_the_model_that_python_gives(folder: Path) -> None:
    ae = fitted_in_python(sources.load(folder / "rows.csv", drop=["name"]))
    ours = load(folder / "model")
    for name, tensor in ae.network_.state_dict().items():
        np.testing.assert_array_equal(ours.network_.state_dict()[name], tensor)
    assert ours.offset_ == ae.offset_
    assert ours.get_params() == ae.get_params()


@pytest.mark.parametrize("name", ["rows.parquet", "rows.npy", "rows.npz", "*.parquet"])
def test_fit_takes_every_sort_of_source(folder: Path, tmp_path: Path, name: str) -> None:
    drop = ("--drop", "name") if name.endswith("parquet") else ()
    succeed("fit", folder / name, "-o", tmp_path / "m", *drop, *FITTING)
    assert load(tmp_path / "m").reconstruction_r2_ == load(folder / "model").reconstruction_r2_


def test_fit_hands_on_the_options_that_are_given(folder: Path, tmp_path: Path) -> None:
    words = (
        "--hidden-layers 4,3 --untied --activation tanh --likelihood a=gaussian --optimizer sgd "
        "--learning-rate 0.05 --momentum 0.5 --nesterov --schedule constant --batch-size 16 "
        "--weight-decay 1e-4 --validation-fraction 0.2 --patience none --contamination 0.1 "
        "--device cpu --precision float64"
    )
    source = folder / "rows.csv"
    succeed("fit", source, "-o", tmp_path / "m", "--drop", "name", *FITTING, *words.split())
    changed = {
        name: value
        for name, value in load(tmp_path / "m").get_params().items()
        if value != options.OPTIONS[name].default
    }
    assert changed == {
        "n_components": 2,
        "epochs": 3,
        "random_state": 0,
        "hidden_layers": (4, 3),
        "tied": False,
        "activation": "tanh",
        "likelihood": {"a": "gaussian"},
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.5,
        "nesterov": True,
        "schedule": "constant",
        "batch_size": 16,
        "weight_decay": 1e-4,
        "validation_fraction": 0.2,
        "patience": None,
        "contamination": 0.1,
        "device": "cpu",
        "precision": "float64",
    }


def test_fit_without_options_is_fit_with_the_defaults(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twofold.training.config.automatic_epochs", lambda *_: 1)
    succeed("fit", folder / "rows.npy", "-o", tmp_path / "m")
    assert load(tmp_path / "m").get_params() == Autoencoder().get_params()


def test_fit_tells_what_came_of_it(folder: Path, tmp_path: Path) -> None:
    result = succeed("fit", folder / "rows.npy", "-o", tmp_path / "m", *FITTING)
    ae = load(tmp_path / "m")
    assert ae.summary() in result.stdout
    lines = dict(re.findall(r"^(\w[\w ]*?)  +(.*)$", result.stdout.split("\n\n")[-1], re.M))
    last = ae.history_[ae.best_epoch_ - 1]
    assert lines["loss"] == f"{last['loss']:.5g}, {last['validation_loss']:.5g} on held-out rows"
    assert lines["variance kept"] == f"{100 * ae.reconstruction_r2_:.1f} % on held-out rows"
    assert f"network {100 * ae.comparison_.r2:.1f} %" in lines["beside PCA"]
    assert f"on {ae.comparison_.n_rows} held-out rows" in lines["beside PCA"]
    assert lines["beside PCA"].endswith(": PCA keeps more")
    assert lines["model"].startswith(str(tmp_path / "m"))
    assert re.fullmatch(r"\d+\.\d s", lines["time"])


def test_fit_shows_progress_on_standard_error(folder: Path, tmp_path: Path) -> None:
    result = succeed("fit", folder / "rows.npy", "-o", tmp_path / "m", *FITTING)
    assert "epoch 3/3" in result.stderr
    assert "epoch 3/3" not in result.stdout


def test_fit_can_be_quiet(folder: Path, tmp_path: Path) -> None:
    result = succeed("fit", folder / "rows.npy", "-o", tmp_path / "m", "--quiet", *FITTING)
    assert "epoch 3/3" not in result.stderr


def test_warning_is_one_plain_line(folder: Path, tmp_path: Path) -> None:
    result = succeed("fit", folder / "rows.npy", "-o", tmp_path / "m", "--quiet", *FITTING)
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: PCA with as many components reconstructs these rows better")


def test_columns_to_drop_may_be_listed_in_several_ways(folder: Path, tmp_path: Path) -> None:
    words = ("--drop", 'name, "d, e"', "--drop", "constant")
    succeed("fit", folder / "rows.csv", "-o", tmp_path / "m", *words, *FITTING)
    assert load(tmp_path / "m").schema_.names == ("a", "b c", "f")


def test_fit_overwrites_a_model_only_when_asked(folder: Path, tmp_path: Path) -> None:
    words = ("fit", folder / "rows.npy", "-o", tmp_path / "m", *FITTING)
    succeed(*words)
    before = (tmp_path / "m" / "model.json").read_bytes()
    assert "already exists" in fail(*words, "--untied")
    assert (tmp_path / "m" / "model.json").read_bytes() == before
    succeed(*words, "--untied", "--force")
    assert not load(tmp_path / "m").tied


def interrupt_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = loop._Watch.tell

    def told(self: Any, kind: str, number: int, *rest: Any) -> None:
        tell(self, kind, number, *rest)
        if kind == "epoch" and number == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Watch, "tell", told)


def test_interrupted_fit_saves_the_best_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(2, monkeypatch)
    result = run("fit", folder / "rows.npy", "-o", tmp_path / "m", *FITTING)
    assert result.exit_code == 130
    assert "warning: Training was interrupted after 2 of 3 epochs" in result.stderr
    assert "the model was saved all the same" in result.stderr
    assert load(tmp_path / "m").n_iter_ == 2


def test_second_interrupt_ends_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Autoencoder, "_calibrate", interrupted)
    result = run("fit", folder / "rows.npy", "-o", tmp_path / "m", *FITTING)
    assert result.exit_code == 130
    assert "Interrupted; nothing was written." in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "m").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to a single process")
def test_ctrl_c_in_a_real_process(folder: Path, tmp_path: Path) -> None:
    words = ("fit", str(folder / "rows.npy"), "-o", str(tmp_path / "m"), *FITTING)
    words += ("--epochs", "1000000", "--patience", "none")
    process = subprocess.Popen(
        [sys.executable, "-c", "from twofold.cli.main import main; main()", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert first.startswith("epoch 1/1000000"), first + errors
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert load(tmp_path / "m").n_iter_ >= 1


# Errors


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("--batch-size x", {"batch_size": "x"}),
        ("--batch-size 0", {"batch_size": 0}),
        ("--epochs 1.5", {"epochs": 1.5}),
        ("--n-components 1.5", {"n_components": 1.5}),
        ("--hidden-layers 64,x", {"hidden_layers": "64,x"}),
        ("--hidden-layers 64,0", {"hidden_layers": (64, 0)}),
        ("--activation Selu", {"activation": "Selu"}),
        ("--likelihood a=poison", {"likelihood": {"a": "poison"}}),
        ("--kinds a=real,b=categry", {"kinds": {"a": "real", "b": "categry"}}),
        ("--momentum 0.9", {"momentum": 0.9}),
        ("--nesterov", {"nesterov": True}),
        ("--learning-rate nan", {"learning_rate": float("nan")}),
        ("--random-state -1", {"random_state": -1}),
        ("--patience 0 --contamination 0.7", {"patience": 0, "contamination": 0.7}),
    ],
)
def test_option_without_meaning_is_refused_in_pythons_words(
    folder: Path, tmp_path: Path, words: str, given: dict[str, Any]
) -> None:
    with pytest.raises(OptionError) as raised:
        options.check(given)
    said = fail("fit", folder / "rows.npy", "-o", tmp_path / "m", *words.split())
    assert said == f"Error: {raised.value}\n"


def write_text(path: Path) -> None:
    path.write_text("a,b\n1,x\n", encoding="utf-8")


def write_header(path: Path) -> None:
    path.write_text("a,b\n", encoding="utf-8")


def write_nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [write_text, write_header, write_nothing])
def test_source_that_cannot_be_used_is_refused_in_pythons_words(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "x.csv")
    with pytest.raises(TwofoldError) as raised:
        Autoencoder(n_components=1).fit(tmp_path / "x.csv")
    said = fail("fit", tmp_path / "x.csv", "-o", tmp_path / "m", "--n-components", "1")
    assert said == f"Error: {raised.value}\n"
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("command", ["encode", "reconstruct", "score", "explain", "impute"])
def test_rows_that_do_not_fit_the_model_are_refused(
    folder: Path, tmp_path: Path, command: str
) -> None:
    np.save(tmp_path / "narrow.npy", np.ones((3, 2)))
    output = tmp_path / "out.csv"
    said = fail(command, folder / "model", tmp_path / "narrow.npy", "-o", output)
    assert "2 features" in said
    (tmp_path / "x.csv").write_text("a,f\n1,2\n", encoding="utf-8")
    said = fail(command, folder / "model", tmp_path / "x.csv", "-o", output)
    assert "has no column 'b c', 'd, e', 'constant'" in said
    assert not output.exists()


@pytest.mark.parametrize("command", WRITING)
def test_model_that_is_none_is_refused(folder: Path, tmp_path: Path, command: str) -> None:
    said = fail(command, tmp_path / "none", folder / "rows.csv", "-o", tmp_path / "out.csv")
    assert "none does not exist; a model is a folder" in said


def test_codes_of_another_width_are_refused(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.ones((3, 7)))
    said = fail("decode", folder / "model", tmp_path / "codes.npy", "-o", tmp_path / "x.csv")
    assert "Expected codes with 2 components" in said


@pytest.mark.parametrize("command", WRITING)
def test_output_is_checked_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    output = tmp_path / "x.csv"
    output.write_text("mine", encoding="utf-8")
    monkeypatch.setattr(
        "twofold.estimators.autoencoder.load", lambda *_: pytest.fail("worked first")
    )
    said = fail(command, folder / "model", folder / "rows.csv", "-o", output)
    assert "already exists" in said
    assert output.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("name", "reason"), [("x/model", "x is not a folder"), ("x", "is not a twofold model")]
)
def test_place_of_the_model_is_checked_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    (tmp_path / "x").touch()
    monkeypatch.setattr(Autoencoder, "fit", lambda *_, **__: pytest.fail("worked first"))
    said = fail("fit", folder / "rows.npy", "-o", tmp_path / name, "--force")
    assert reason in said


def test_error_of_the_system_is_one_plain_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr("twofold.estimators.autoencoder.load", refuse)
    said = fail("encode", folder / "model", folder / "rows.csv", "-o", tmp_path / "x.csv")
    assert said == "Error: /secret: Permission denied.\n"


def test_unknown_option_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "--batchsize" in fail("fit", folder / "rows.npy", "-o", tmp_path / "m", "--batchsize=1")


# encode, decode, reconstruct, score


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_encode_writes_pythons_codes(folder: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"codes{suffix}"
    succeed("encode", folder / "model", folder / "rows.csv", "--output", output)
    ae = load(folder / "model")
    np.testing.assert_array_equal(values(output), ae.transform(folder / "rows.csv"))
    if suffix != ".npy":
        assert sources.load(output).column_names == list(ae.get_feature_names_out())


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_reconstruct_writes_pythons_rows(folder: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"rows{suffix}"
    succeed("reconstruct", folder / "model", folder / "rows.csv", "--output", output)
    expected = sources.read(load(folder / "model").reconstruct(folder / "rows.csv"))
    np.testing.assert_array_equal(values(output), expected.values)
    if suffix != ".npy":
        assert tuple(sources.load(output).column_names) == expected.names


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_decoded_codes_are_the_reconstruction(folder: Path, tmp_path: Path, suffix: str) -> None:
    codes, rows = tmp_path / f"codes{suffix}", tmp_path / f"rows{suffix}"
    succeed("encode", folder / "model", folder / "rows.csv", "--output", codes)
    succeed("decode", folder / "model", codes, "--output", rows)
    expected = sources.read(load(folder / "model").reconstruct(folder / "rows.csv"))
    np.testing.assert_allclose(values(rows), expected.values, rtol=1e-12)
    if suffix != ".npy":
        assert tuple(sources.load(rows).column_names) == expected.names


def test_decode_finds_the_codes_by_name(folder: Path, tmp_path: Path) -> None:
    succeed("encode", folder / "model", folder / "rows.csv", "-o", tmp_path / "codes.csv")
    codes = pd.read_csv(tmp_path / "codes.csv")
    codes.iloc[:, ::-1].assign(note="n").to_csv(tmp_path / "mixed.csv", index=False)
    for name in ("codes", "mixed"):
        succeed(
            "decode", folder / "model", tmp_path / f"{name}.csv", "-o", tmp_path / f"{name}.npy"
        )
    np.testing.assert_array_equal(values(tmp_path / "codes.npy"), values(tmp_path / "mixed.npy"))


def test_score_writes_pythons_scores_and_labels(folder: Path, tmp_path: Path) -> None:
    result = succeed("score", folder / "model", folder / "rows.csv", "-o", tmp_path / "s.parquet")
    ae = load(folder / "model")
    table = sources.load(tmp_path / "s.parquet").to_pydict()
    assert table["row"] == list(range(60))
    assert table["score"] == ae.score_samples(folder / "rows.csv").tolist()
    assert table["label"] == ae.predict(folder / "rows.csv").tolist()
    odd = table["label"].count(-1)
    assert re.search(
        rf"^{odd} of 60 rows (is an anomaly|are anomalies) \(score below -?\d", result.stdout
    )


def test_rows_may_come_in_another_format_than_in_training(folder: Path, tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.parquet"):
        succeed("score", folder / "model", folder / name, "-o", tmp_path / f"{name}.npy")
    first, second = (values(tmp_path / f"{n}.npy") for n in ("rows.csv", "rows.parquet"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("command", WRITING)
def test_result_is_overwritten_only_when_asked(folder: Path, tmp_path: Path, command: str) -> None:
    source = folder / "rows.csv"
    if command == "decode":
        source = tmp_path / "codes.csv"
        succeed("encode", folder / "model", folder / "rows.csv", "-o", source)
    output = tmp_path / "out.csv"
    output.write_text("mine", encoding="utf-8")
    fail(command, folder / "model", source, "-o", output)
    assert output.read_text(encoding="utf-8") == "mine"
    succeed(command, folder / "model", source, "-o", output, "--force")
    # Ten rows are explained, with a line for each of their five columns.
    assert len(values(output)) == (50 if command == "explain" else 60)


def test_images_stay_images_in_an_npy_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 3, 4), dtype=np.float32)
    np.save(tmp_path / "x.npy", images)
    succeed("fit", tmp_path / "x.npy", "-o", tmp_path / "m", *FITTING)
    succeed("encode", tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "c.npy")
    succeed("decode", tmp_path / "m", tmp_path / "c.npy", "-o", tmp_path / "d.npy")
    succeed("reconstruct", tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "r.npy")
    decoded, rows = np.load(tmp_path / "d.npy"), np.load(tmp_path / "r.npy")
    assert decoded.shape == rows.shape == images.shape
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, rows, rtol=1e-5)
    succeed("decode", tmp_path / "m", tmp_path / "c.npy", "-o", tmp_path / "d.csv")
    assert sources.load(tmp_path / "d.csv").num_columns == 12


def test_model_fitted_on_a_pandas_frame_serves_files(folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(folder / "rows.csv").drop(columns="name")
    ae = fitted_in_python(frame)
    ae.save(tmp_path / "m")
    succeed("encode", tmp_path / "m", folder / "rows.csv", "-o", tmp_path / "c.parquet")
    succeed("decode", tmp_path / "m", tmp_path / "c.parquet", "-o", tmp_path / "d.npy")
    np.testing.assert_allclose(values(tmp_path / "d.npy"), ae.reconstruct(frame), rtol=1e-12)


# Text, categories, times and missing cells

MIXED = ("--epochs", "2", "--random-state", "1", "--quiet", "--kinds", 'zip=category,"no, 1"=real')
ODD_ROW = 11


def mixed_frame() -> pd.DataFrame:
    """People, with names in several scripts, holes, and one absurd age in row 11."""
    rng = np.random.default_rng(3)
    n = 60
    start = datetime.datetime(2024, 1, 1)
    frame = pd.DataFrame(
        {
            "id": [f"k{i:03}" for i in range(n)],
            "age": rng.normal(40, 10, n).round(1),
            "城市": rng.choice(["Zürich", 'Bern, "alt"', "New York"], n, p=[0.5, 0.3, 0.2]),
            "visits": rng.negative_binomial(2, 0.6, n),
            "joined": [start + datetime.timedelta(hours=int(h)) for h in rng.integers(0, 2000, n)],
            "zip": rng.integers(8000, 8005, n),
            "no, 1": rng.integers(0, 9, n),
            "smoker": rng.random(n) < 0.4,
            "fixed": 7,
        }
    )
    frame.loc[ODD_ROW, "age"] = 400.0
    frame.loc[3, ["age", "城市"]] = None
    frame.loc[5, "joined"] = None
    return frame


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of every sort of column as CSV and Parquet, and a model of the CSV."""
    folder = tmp_path_factory.mktemp("mixed")
    frame = mixed_frame()
    frame.to_csv(folder / "rows.csv", index=False)
    frame.astype({"城市": "category"}).to_parquet(folder / "rows.parquet", index=False)
    succeed("fit", folder / "rows.csv", "-o", folder / "model", *MIXED)
    succeed("fit", folder / "rows.parquet", "-o", folder / "typed", *MIXED)
    return folder


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path


def test_fit_takes_kinds_by_name(mixed: Path) -> None:
    ae = load(mixed / "model")
    assert ae.kinds == {"zip": "category", "no, 1": "real"}
    kinds = {column.name: column.kind for column in ae.schema_.columns}
    assert (kinds["zip"], kinds["no, 1"]) == ("category", "real")
    assert (kinds["id"], kinds["城市"], kinds["joined"]) == ("ignored", "category", "time")


def test_fit_tells_what_became_of_odd_columns(tmp_path: Path) -> None:
    frame = mixed_frame()
    frame.loc[7, "城市"] = "Ωmega"
    result = succeed("fit", write_csv(frame, tmp_path / "x.csv"), "-o", tmp_path / "m", *MIXED)
    text = result.stdout
    assert "ignored columns:\n  id  looks like an identifier: 60 different texts\n" in text
    assert re.search(r"^columns with rare levels:\n  城市  1 rare level shares", text, re.M)
    assert "constant in training: fixed\n" in text


def test_fit_tells_of_the_first_of_many_odd_columns(tmp_path: Path) -> None:
    frame = mixed_frame()
    texts = pd.DataFrame({f"t{i}": [f"{i}-{k}" for k in range(60)] for i in range(25)})
    frame = pd.concat([frame.drop(columns="id"), texts], axis=1)
    words = ("--epochs", "2", "--quiet")
    text = succeed("fit", write_csv(frame, tmp_path / "x.csv"), "-o", tmp_path / "m", *words).stdout
    assert "  t19  looks like" in text
    assert "  t20  looks like" not in text
    assert "  and 5 more\n" in text


def test_info_tells_what_the_network_sees(mixed: Path) -> None:
    text = succeed("info", mixed / "model").stdout
    assert re.search(r"^id +ignored +none +nothing +looks like an identifier", text, re.M)
    assert re.search(r'^城市 +category +categorical +3 levels: Zürich, Bern, "alt"', text, re.M)
    assert re.search(r"^joined +time +gaussian +around 2024-0\d-\d\dT", text, re.M)
    assert re.search(r"^visits +count +negative_binomial +around ", text, re.M)


def test_info_names_the_odd_columns_among_many(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 30))
    x[:, 25] = 4.0
    x[:, 26] = np.nan
    fitted_in_python(x).save(tmp_path / "m")
    text = succeed("info", tmp_path / "m").stdout
    assert "ignored columns:\n  x26  holds no cell that is not missing" in text
    assert "constant in training: x25" in text


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_score_says_why(mixed: Path, tmp_path: Path, name: str) -> None:
    source = mixed / name
    result = succeed("score", mixed / "model", source, "-o", tmp_path / "s.parquet")
    ae = load(mixed / "model")
    table = pq.read_table(tmp_path / "s.parquet").to_pydict()
    assert list(table) == ["row", "score", "p_value", "label", "columns"]
    assert table["score"] == ae.score_samples(source).tolist()
    assert table["p_value"] == ae.anomaly_pvalue(source).tolist()
    assert table["label"] == ae.predict(source).tolist()
    explanation = ae.explain(source)
    for row, label in enumerate(table["label"]):
        expected = "; ".join(explanation.top(row)) if label < 0 else None
        assert table["columns"][row] == expected
    assert table["columns"][ODD_ROW] is not None
    assert table["columns"][ODD_ROW].split("; ")[0] == "age"
    first = result.stdout.split("\n\n")[1].splitlines()[2]
    assert re.match(rf"^ *{ODD_ROW} +-[\d.]+ +0\.\d+ +age; ", first)


def test_score_without_anomalies_shows_none(mixed: Path, tmp_path: Path) -> None:
    frame = mixed_frame().drop(index=ODD_ROW)
    ae = load(mixed / "model")
    normal = frame[ae.predict(write_csv(frame, tmp_path / "x.csv")) == 1]
    source = write_csv(normal, tmp_path / "x.csv")
    text = succeed("score", mixed / "model", source, "-o", tmp_path / "s.csv").stdout
    assert re.fullmatch(r"0 of \d+ rows are anomalies .*\n", text)
    assert set(pd.read_csv(tmp_path / "s.csv")["columns"].isna()) == {True}


def test_score_as_an_array_holds_the_numbers(mixed: Path, tmp_path: Path) -> None:
    succeed("score", mixed / "model", mixed / "rows.csv", "-o", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").shape == (60, 4)


def test_explain_shows_the_most_anomalous_rows_and_their_columns(mixed: Path) -> None:
    text = succeed("explain", mixed / "model", mixed / "rows.csv", "--top", 2).stdout
    scores = load(mixed / "model").score_samples(mixed / "rows.csv")
    shown = [int(row) for row in re.findall(r"^row (\d+): score", text, re.M)]
    assert shown == np.argsort(scores)[:2].tolist()
    assert text.startswith("The 2 most anomalous of 60 rows; a score below ")
    assert re.search(
        rf"^row {ODD_ROW}: score {scores[ODD_ROW]:.6g}, p-value 0\.\d+\n  age +400 +\d\d\.\d+ +\d",
        text,
        re.M,
    )
    assert len(re.findall("^  ", text, re.M)) == 2 * 3


def test_explain_shows_ten_rows_if_there_are_so_many(mixed: Path, tmp_path: Path) -> None:
    text = succeed("explain", mixed / "model", mixed / "rows.csv").stdout
    assert text.count("\nrow ") == 10
    few = write_csv(mixed_frame()[:2], tmp_path / "x.csv")
    assert succeed("explain", mixed / "model", few).stdout.count("\nrow ") == 2


def test_explain_shows_one_row_as_a_reader_knows_it(mixed: Path) -> None:
    words = ("--row", 3, "--columns", 99)
    text = succeed("explain", mixed / "model", mixed / "rows.csv", *words).stdout
    frame = mixed_frame()
    assert text.startswith("Row 3 of 60 rows; ")
    assert re.search(r"^  age +\(missing\) +\d+\.\d+ +0\.00$", text, re.M)
    assert re.search(r"^  城市 +\(missing\) +(Zürich|Bern|New York)", text, re.M)
    assert re.search(rf"^  zip +{frame['zip'][3]} +800\d +", text, re.M)
    assert re.search(
        rf"^  joined +{frame['joined'][3]} +\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d ", text, re.M
    )
    assert "  id " not in text  # which the network does not see


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_explain_writes_every_column(mixed: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"e{suffix}"
    words = ("--top", 4, "--columns", 1, "-o", output)
    succeed("explain", mixed / "model", mixed / "rows.csv", *words)
    ae = load(mixed / "model")
    lowest = np.argsort(ae.score_samples(mixed / "rows.csv"))[:4]
    expected = ae.explain(mixed / "rows.csv").to_frame()
    expected = pd.concat([expected[expected["row"] == row] for row in lowest])
    table = (pd.read_csv if suffix == ".csv" else pd.read_parquet)(output)
    assert list(table) == ["row", "column", "observed", "expected", "contribution"]
    assert table["row"].tolist() == expected["row"].tolist()
    np.testing.assert_allclose(table["contribution"], expected["contribution"], atol=1e-8)
    cells = table[table["row"] == ODD_ROW].set_index("column")
    assert cells["observed"]["age"] == "400"
    assert cells["observed"]["城市"] == mixed_frame()["城市"][ODD_ROW]
    assert cells["observed"]["joined"] == str(mixed_frame()["joined"][ODD_ROW])
    assert pd.isna(cells["expected"]["id"])


def test_explained_numbers_stay_numbers(folder: Path, tmp_path: Path) -> None:
    succeed("explain", folder / "model", folder / "rows.csv", "-o", tmp_path / "e.parquet")
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "e.parquet")}
    assert (types["observed"], types["expected"]) == ("double", "double")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--row 60", "from 0 to 59, got --row 60: "),
        ("--row -1", "has 60 rows"),
        ("--top 0", "--top must be an integer of at least 1, got 0."),
        ("--columns 0", "--columns must be an integer of at least 1, got 0."),
        ("--top 3 --row 3", "Expected --top or --row, got both"),
        ("--output x.npy", "Write .csv or .parquet."),
        ("--output x.txt", "outputs are .csv, .parquet, .npy"),
    ],
)
def test_explain_refuses_what_cannot_be(mixed: Path, words: str, reason: str) -> None:
    assert reason in fail("explain", mixed / "model", mixed / "rows.csv", *words.split())


@pytest.mark.parametrize("command", ["encode", "reconstruct", "score", "explain", "impute"])
def test_numbers_that_became_text_are_named(mixed: Path, tmp_path: Path, command: str) -> None:
    frame = mixed_frame().astype({"age": object})
    frame.loc[17, "age"] = "n/a?"
    source = write_csv(frame, tmp_path / "x.csv")
    said = fail(command, mixed / "model", source, "-o", tmp_path / "out.csv")
    assert "Column 'age' held numbers in training and holds text here (row 17: 'n/a?')" in said
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("command", ["score", "explain", "impute"])
def test_missing_column_is_named(mixed: Path, tmp_path: Path, command: str) -> None:
    source = write_csv(mixed_frame().drop(columns="visits"), tmp_path / "x.csv")
    said = fail(command, mixed / "model", source, "-o", tmp_path / "out.csv")
    assert "has no column 'visits'" in said


def test_other_columns_and_another_order_change_nothing(mixed: Path, tmp_path: Path) -> None:
    frame = mixed_frame().iloc[:, ::-1]
    source = write_csv(frame.assign(comment="a,b\n"), tmp_path / "x.csv")
    for name, path in (("a", mixed / "rows.csv"), ("b", source)):
        succeed("score", mixed / "model", path, "-o", tmp_path / f"{name}.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_unseen_categories_and_commands_to_the_terminal_are_cells(
    mixed: Path, tmp_path: Path
) -> None:
    source = write_csv(mixed_frame().assign(城市="Atlantis\x1b[31m\nII"), tmp_path / "x.csv")
    text = succeed("explain", mixed / "model", source, "--row", 0, "--columns", 9).stdout
    assert re.search(r"^  城市 +Atlantis\\x1b\[31m\\nII +\w", text, re.M)
    output = tmp_path / "i.csv"
    succeed("impute", mixed / "model", source, "-o", output)
    assert set(pd.read_csv(output)["城市"]) == {"Atlantis\x1b[31m\nII"}


@pytest.mark.parametrize("command", ["score", "explain", "impute"])
def test_one_row_is_a_table(mixed: Path, tmp_path: Path, command: str) -> None:
    source = write_csv(mixed_frame()[:1], tmp_path / "x.csv")
    succeed(command, mixed / "model", source, "-o", tmp_path / "out.csv")
    assert "1 row" in succeed("explain", mixed / "model", source).stdout


@pytest.mark.parametrize("command", ["score", "explain", "impute"])
def test_no_row_is_no_table(mixed: Path, tmp_path: Path, command: str) -> None:
    source = write_csv(mixed_frame()[:0], tmp_path / "x.csv")
    said = fail(command, mixed / "model", source, "-o", tmp_path / "out.csv")
    assert "The table has no rows" in said


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_impute_fills_the_holes_only(mixed: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    text = succeed("impute", mixed / "typed", mixed / name, "-o", output).stdout
    assert "60 rows, 3 missing values filled" in text
    before, after = sources.load(mixed / name), sources.load(output)
    assert after.schema.remove_metadata() == before.schema.remove_metadata()
    for old, new in zip(before.columns, after.columns, strict=True):
        pairs = zip(old.to_pylist(), new.to_pylist(), strict=True)
        assert all(b is not None and (a is None or a == b) for a, b in pairs)


def test_impute_counts_what_stays_missing(mixed: Path, tmp_path: Path) -> None:
    frame = mixed_frame()
    frame.loc[8, "id"] = None
    source = write_csv(frame, tmp_path / "x.csv")
    text = succeed("impute", mixed / "model", source, "-o", tmp_path / "i.csv").stdout
    assert "3 missing values filled, 1 left in ignored columns" in text


def test_impute_writes_a_file_per_draw(mixed: Path, tmp_path: Path) -> None:
    words = ("--n-draws", 3, "--random-state", 5)
    succeed("impute", mixed / "model", mixed / "rows.csv", "-o", tmp_path / "i.csv", *words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i-1.csv", "i-2.csv", "i-3.csv"]
    drawn = load(mixed / "model").impute(mixed / "rows.csv", 3, random_state=5)
    ages = [table.column("age")[3].as_py() for table in drawn]
    assert [pd.read_csv(tmp_path / f"i-{i}.csv")["age"][3] for i in (1, 2, 3)] == ages
    assert len(set(ages)) == 3


def test_draws_overwrite_all_files_or_none(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "i-2.csv").write_text("mine", encoding="utf-8")
    words = ("impute", mixed / "model", mixed / "rows.csv", "-o", tmp_path / "i.csv")
    assert "i-2.csv' already exists" in fail(*words, "--n-draws", 3)
    assert [p.name for p in tmp_path.iterdir()] == ["i-2.csv"]
    succeed(*words, "--n-draws", 3, "--force")
    assert len(list(tmp_path.iterdir())) == 3
    assert len(values(tmp_path / "i-2.csv")) == 60


def test_draws_that_cannot_all_be_written_leave_nothing(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(sink: Any, table: Any) -> None:
        written.append(sink)
        if len(written) == 3:
            raise OSError(28, "No space left on device", "i-3.csv")

    monkeypatch.setattr(writing._Csv, "write", full)
    words = ("--n-draws", 3, "-o", tmp_path / "i.csv")
    assert "No space left" in fail("impute", mixed / "model", mixed / "rows.csv", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [0, -2])
def test_impute_refuses_no_draws(mixed: Path, tmp_path: Path, n: int) -> None:
    words = ("--n-draws", n, "-o", tmp_path / "i.csv")
    said = fail("impute", mixed / "model", mixed / "rows.csv", *words)
    assert said == f"Error: n_draws={n} must be a whole number of at least 1.\n"


def test_impute_needs_a_file_name(mixed: Path) -> None:
    words = ("--n-draws", 2, "-o", ".")
    assert "ends in nothing" in fail("impute", mixed / "model", mixed / "rows.csv", *words)


def types_of(path: Path) -> dict[str, str]:
    return {field.name: str(field.type) for field in pq.read_schema(path)}


def test_rows_from_codes_have_their_types_again(mixed: Path, tmp_path: Path) -> None:
    source = mixed / "rows.parquet"
    succeed("encode", mixed / "typed", source, "-o", tmp_path / "c.parquet")
    succeed("decode", mixed / "typed", tmp_path / "c.parquet", "-o", tmp_path / "d.parquet")
    succeed("reconstruct", mixed / "typed", source, "-o", tmp_path / "r.parquet")
    succeed("sample", mixed / "typed", "--rows", 9, "-o", tmp_path / "s.parquet")
    for name in ("d", "r", "s"):
        assert types_of(tmp_path / f"{name}.parquet") == types_of(source)
    assert types_of(source)["城市"].startswith("dictionary")
    assert types_of(source)["joined"].startswith("timestamp")


def test_decoded_cells_are_the_reconstruction(mixed: Path, tmp_path: Path) -> None:
    source = mixed / "rows.csv"
    succeed("encode", mixed / "model", source, "-o", tmp_path / "c.csv")
    succeed("decode", mixed / "model", tmp_path / "c.csv", "-o", tmp_path / "d.csv")
    succeed("reconstruct", mixed / "model", source, "-o", tmp_path / "r.csv")
    decoded, rows = pd.read_csv(tmp_path / "d.csv"), pd.read_csv(tmp_path / "r.csv")
    assert list(decoded) == list(mixed_frame())
    columns = ["城市", "visits", "zip", "smoker"]
    pd.testing.assert_frame_equal(decoded[columns], rows[columns])


@pytest.mark.parametrize("trained_on", ["pandas", "polars"])
def test_model_of_a_frame_writes_files_with_types(tmp_path: Path, trained_on: str) -> None:
    import polars

    frame: Any = mixed_frame().drop(columns="id")
    frame = polars.from_pandas(frame) if trained_on == "polars" else frame
    Autoencoder(epochs=2, random_state=0).fit(frame).save(tmp_path / "m")
    succeed("sample", tmp_path / "m", "--rows", 4, "-o", tmp_path / "s.parquet")
    types = types_of(tmp_path / "s.parquet")
    assert (types["visits"], types["smoker"]) == ("int64", "bool")
    assert types["joined"].startswith("timestamp")
    assert "string" in types["城市"]


def test_sample_draws_what_python_draws(mixed: Path, tmp_path: Path) -> None:
    words = ("--rows", 7, "--random-state", 4, "-o")
    for name in ("a", "b"):
        succeed("sample", mixed / "model", *words, tmp_path / f"{name}.parquet")
    first, second = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    expected = load(mixed / "model").sample(7, random_state=4)
    assert first.drop_columns("joined").equals(expected.drop_columns("joined"))
    assert first.equals(second)
    cells = pd.read_parquet(tmp_path / "a.parquet")
    assert set(cells["城市"]) <= set(mixed_frame()["城市"].dropna())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--rows 0", "n must be an integer of at least 1, got 0"),
        ("--rows 3 --random-state -1", "random_state must be None"),
        ("--rows 3 --random-state 4294967296", "random_state=4294967296 is no seed"),
    ],
)
def test_sample_refuses_what_cannot_be(
    mixed: Path, tmp_path: Path, words: str, reason: str
) -> None:
    output = tmp_path / "s.csv"
    assert reason in fail("sample", mixed / "model", "-o", output, *words.split())
    assert not output.exists()


def test_sample_overwrites_only_when_asked(mixed: Path, tmp_path: Path) -> None:
    words = ("sample", mixed / "model", "--rows", 3, "-o", tmp_path / "s.csv")
    succeed(*words)
    assert "already exists" in fail(*words)
    succeed(*words, "--force")


def test_text_does_not_fit_an_array(mixed: Path, tmp_path: Path) -> None:
    words = ("sample", mixed / "model", "--rows", 3, "-o", tmp_path / "s.npy")
    assert "An .npy file holds numbers only" in fail(*words)


def test_images_are_completed_and_drawn_as_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 3, 4))
    np.save(tmp_path / "x.npy", images)
    succeed("fit", tmp_path / "x.npy", "-o", tmp_path / "m", *FITTING)
    images[2, 1, 1] = np.nan
    np.save(tmp_path / "y.npy", images)
    text = succeed("impute", tmp_path / "m", tmp_path / "y.npy", "-o", tmp_path / "i.npy").stdout
    assert "40 rows, 1 missing value filled" in text
    succeed("sample", tmp_path / "m", "--rows", 5, "-o", tmp_path / "s.npy")
    assert np.load(tmp_path / "i.npy").shape == images.shape
    assert np.load(tmp_path / "s.npy").shape == (5, 3, 4)
    assert (
        "  x5 "
        in succeed(
            "explain", tmp_path / "m", tmp_path / "y.npy", "--row", 2, "--columns", 12
        ).stdout
    )


def test_explaining_tells_how_far_it_got(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofold.distributed.results._CELLS", 1)
    monkeypatch.setattr("twofold.distributed.results._PROGRESS_SECONDS", -1.0)
    words = ("explain", mixed / "model", mixed / "rows.csv", "--top", 3)
    lines = succeed(*words).stderr.splitlines()
    assert [line.partition(" rows")[0] for line in lines] == [
        "explained 1 of 3",
        "explained 2 of 3",
    ]
    assert succeed(*words, "--quiet").stderr == ""


def test_names_beyond_the_terminals_letters_are_printed(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = {
        name: io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for name in ("stdout", "stderr")
    }
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "argv", ["twofold", "info", str(mixed / "model")])
    with pytest.raises(SystemExit) as ended:
        main()
    written = {name: stream.buffer.getvalue() for name, stream in streams.items()}  # type: ignore[attr-defined]
    assert ended.value.code == 0, written
    assert b"\\u57ce\\u5e02 " in written["stdout"]


def test_times_of_day_and_zones_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    start = datetime.datetime(2024, 5, 1)
    moments = [start + datetime.timedelta(hours=int(h)) for h in rng.integers(0, 900, 50)]
    table = pa.table(
        {
            "day": pa.array([moment.date() for moment in moments]),
            "hour": pa.array([moment.time() for moment in moments], pa.time32("ms")),
            "moment": pa.array(moments, pa.timestamp("us", tz="Europe/Zurich")),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    succeed("fit", tmp_path / "x.parquet", "-o", tmp_path / "m", "--epochs", 2, "--quiet")
    text = succeed("explain", tmp_path / "m", tmp_path / "x.parquet", "--row", 4).stdout
    assert re.search(rf"^  day +{moments[4]:%Y-%m-%d} +\d{{4}}-\d\d-\d\d ", text, re.M)
    assert re.search(rf"^  hour +{moments[4]:%H:%M:%S} +\d\d:\d\d:\d\d ", text, re.M)
    assert re.search(rf"^  moment +{moments[4]:%Y-%m-%d %H:%M:%S}Z +\d.*Z ", text, re.M)


# info


def test_info_tells_what_the_model_is(folder: Path) -> None:
    text = succeed("info", folder / "model").stdout
    ae = load(folder / "model")
    assert re.search(r"^n_components +2 +default none$", text, re.M)
    assert re.search(r"^random_state +0 +default none$", text, re.M)
    assert "batch_size" not in text
    assert re.search(r"^d, e +real +gaussian +-?[\d.e-]+ by [\d.e-]+$", text, re.M)
    assert re.search(r"^constant +real +gaussian +7 by 0.07 +constant$", text, re.M)
    assert ae.summary() in text
    assert f"epoch {ae.best_epoch_}: {ae.history_[ae.best_epoch_ - 1]['loss']:.5g}" in text
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


def test_info_as_json_is_the_document(folder: Path) -> None:
    text = succeed("info", folder / "model", "--json").stdout
    assert json.loads(text) == bundle.read(folder / "model")[1]


# demo


def test_demo_hands_on_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[dict[str, Any]] = []
    demo = types.ModuleType("twofold.cli.demo.run")
    demo.run = lambda **given: called.append(given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "twofold.cli.demo.run", demo)
    succeed("demo", "--dataset", "digits", "--epochs", "2", "--output", "here", "--force")
    assert called == [{"dataset": "digits", "epochs": 2, "output": Path("here"), "force": True}]


def test_demo_shares_its_defaults_with_python() -> None:
    import inspect

    from twofold.cli.demo.run import run as run_demo

    defaults = {name: p.default for name, p in inspect.signature(run_demo).parameters.items()}
    (command,) = (
        c for c in app.registered_commands if c.callback and c.callback.__name__ == "demo"
    )
    assert command.callback is not None
    for name, parameter in inspect.signature(command.callback).parameters.items():
        assert str(parameter.default) == str(defaults[name])


# help


def test_version() -> None:
    assert succeed("--version").stdout == f"twofold {twofold.__version__}\n"


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.usefixtures("wide")
def test_help_lists_every_command() -> None:
    text = succeed("--help").stdout
    assert [name for name in COMMANDS if not re.search(rf"│ {name} ", text)] == []


@pytest.mark.usefixtures("wide")
def test_help_of_fit_lists_every_option_and_its_default() -> None:
    text = succeed("fit", "--help").stdout
    flags = [flag for name in options.OPTIONS if (flag := options.flag(name))]
    missing = [f for flag in flags for f in flag.split("/") if not re.search(rf"{f}\b", text)]
    assert not missing
    defaults = [line for line in text.splitlines() if "[default: " in line]
    assert len(defaults) >= len(flags)  # what is about the run alone comes on top
    assert "[default: one-cycle]" in text
    assert "--verbose" not in text


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command: str) -> None:
    assert f"• twofold {command} " in succeed(command, "--help").stdout + " "


@pytest.mark.usefixtures("wide")
def test_help_keeps_what_stands_in_brackets() -> None:
    assert "values in [0, 1]" in succeed("fit", "--help").stdout


def test_nothing_at_all_shows_the_help() -> None:
    assert "Usage:" in run().output


def test_options_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert page == options.reference(), "run: python -m twofold.options > docs/options.md"


def test_options_page_comes_from_the_module() -> None:
    command = [sys.executable, "-m", "twofold.options"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout == options.reference()
