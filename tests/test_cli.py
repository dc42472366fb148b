"""Every command does what Python does, with the same values and the same error texts."""

from __future__ import annotations

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
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

import twofold
from twofold import Autoencoder, bundle, data, load, options, training
from twofold.cli import app
from twofold.errors import LosesToPCAWarning, OptionError, TwofoldError

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("demo", "fit", "encode", "decode", "reconstruct", "score", "info")
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
    return data.read(data.load(path)).values


# fit


def test_fit_gives_the_model_that_python_gives(folder: Path) -> None:
    ae = fitted_in_python(data.load(folder / "rows.csv", drop=["name"]))
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
    monkeypatch.setattr(training, "automatic_epochs", lambda *_: 1)
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
    assert "exists, and nothing is overwritten unasked" in fail(*words, "--untied")
    assert (tmp_path / "m" / "model.json").read_bytes() == before
    succeed(*words, "--untied", "--force")
    assert not load(tmp_path / "m").tied


def interrupt_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = training._Watch.tell

    def told(self: Any, kind: str, number: int, *rest: Any) -> None:
        tell(self, kind, number, *rest)
        if kind == "epoch" and number == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Watch, "tell", told)


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
        [sys.executable, "-c", "from twofold.cli import main; main()", *words],
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
        ("--n-components 0.5", {"n_components": 0.5}),
        ("--hidden-layers 64,x", {"hidden_layers": "64,x"}),
        ("--hidden-layers 64,0", {"hidden_layers": (64, 0)}),
        ("--activation Selu", {"activation": "Selu"}),
        ("--likelihood a=poisson", {"likelihood": {"a": "poisson"}}),
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


def write_missing(path: Path) -> None:
    path.write_text("a,b\n1,2\n,3\n4,5\n", encoding="utf-8")


def write_nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [write_text, write_missing, write_nothing])
def test_source_that_cannot_be_used_is_refused_in_pythons_words(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "x.csv")
    with pytest.raises(TwofoldError) as raised:
        Autoencoder(n_components=1).fit(tmp_path / "x.csv")
    said = fail("fit", tmp_path / "x.csv", "-o", tmp_path / "m", "--n-components", "1")
    assert said == f"Error: {raised.value}\n"
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("command", ["encode", "reconstruct", "score"])
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


@pytest.mark.parametrize("command", ["encode", "decode", "reconstruct", "score"])
def test_model_that_is_none_is_refused(folder: Path, tmp_path: Path, command: str) -> None:
    said = fail(command, tmp_path / "none", folder / "rows.csv", "-o", tmp_path / "out.csv")
    assert "none does not exist; a model is a folder" in said


def test_codes_of_another_width_are_refused(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.ones((3, 7)))
    said = fail("decode", folder / "model", tmp_path / "codes.npy", "-o", tmp_path / "x.csv")
    assert "Codes have 2 components" in said


@pytest.mark.parametrize("command", ["encode", "decode", "reconstruct", "score"])
def test_output_is_checked_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    output = tmp_path / "x.csv"
    output.write_text("mine", encoding="utf-8")
    monkeypatch.setattr("twofold.autoencoder.load", lambda *_: pytest.fail("worked first"))
    said = fail(command, folder / "model", folder / "rows.csv", "-o", output)
    assert "exists, and nothing is overwritten unasked" in said
    assert output.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("name", "reason"), [("x/model", "x is no folder"), ("x", "is no twofold model")]
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

    monkeypatch.setattr("twofold.autoencoder.load", refuse)
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
        assert data.load(output).column_names == list(ae.get_feature_names_out())


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_reconstruct_writes_pythons_rows(folder: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"rows{suffix}"
    succeed("reconstruct", folder / "model", folder / "rows.csv", "--output", output)
    expected = data.read(load(folder / "model").reconstruct(folder / "rows.csv"))
    np.testing.assert_array_equal(values(output), expected.values)
    if suffix != ".npy":
        assert tuple(data.load(output).column_names) == expected.names


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_decoded_codes_are_the_reconstruction(folder: Path, tmp_path: Path, suffix: str) -> None:
    codes, rows = tmp_path / f"codes{suffix}", tmp_path / f"rows{suffix}"
    succeed("encode", folder / "model", folder / "rows.csv", "--output", codes)
    succeed("decode", folder / "model", codes, "--output", rows)
    expected = data.read(load(folder / "model").reconstruct(folder / "rows.csv"))
    np.testing.assert_allclose(values(rows), expected.values, rtol=1e-12)
    if suffix != ".npy":
        assert tuple(data.load(rows).column_names) == expected.names


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
    table = data.load(tmp_path / "s.parquet").to_pydict()
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


@pytest.mark.parametrize("command", ["encode", "decode", "reconstruct", "score"])
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
    assert len(values(output)) == 60


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
    assert data.load(tmp_path / "d.csv").num_columns == 12


def test_model_fitted_on_a_pandas_frame_serves_files(folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(folder / "rows.csv").drop(columns="name")
    ae = fitted_in_python(frame)
    ae.save(tmp_path / "m")
    succeed("encode", tmp_path / "m", folder / "rows.csv", "-o", tmp_path / "c.parquet")
    succeed("decode", tmp_path / "m", tmp_path / "c.parquet", "-o", tmp_path / "d.npy")
    np.testing.assert_allclose(values(tmp_path / "d.npy"), ae.reconstruct(frame), rtol=1e-12)


# info


def test_info_tells_what_the_model_is(folder: Path) -> None:
    text = succeed("info", folder / "model").stdout
    ae = load(folder / "model")
    assert re.search(r"^n_components +2 +default none$", text, re.M)
    assert re.search(r"^random_state +0 +default none$", text, re.M)
    assert "batch_size" not in text
    assert re.search(r"^d, e +real +gaussian +-?[\d.e-]+ +[\d.e-]+$", text, re.M)
    assert "constant in training: constant" in text
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
    demo = types.ModuleType("twofold.demo")
    demo.run = lambda **given: called.append(given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "twofold.demo", demo)
    succeed("demo", "--dataset", "digits", "--epochs", "2", "--output", "here", "--force")
    assert called == [{"dataset": "digits", "epochs": 2, "output": Path("here"), "force": True}]


def test_demo_shares_its_defaults_with_python() -> None:
    import inspect

    from twofold.demo import run as run_demo

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
    assert text.count("[default: ") == len(flags)
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
