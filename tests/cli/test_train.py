"""`twofold fit` does what Python does, with the same values and the same error texts."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.cli.running import (
    FITTING,
    MIXED,
    fail,
    fitted_in_python,
    interrupt_after,
    mixed_frame,
    run,
    succeed,
    write_csv,
    write_header,
    write_nothing,
    write_text,
)
from twofold import Autoencoder, load, options
from twofold.cli.main import app
from twofold.data import files
from twofold.errors import OptionError, TwofoldError


def test_fit_gives_the_model_that_python_gives(folder: Path) -> None:
    ae = fitted_in_python(files.load(folder / "rows.csv", drop=["name"]))
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
    result = succeed("fit", folder / "rows.npy", "-o", tmp_path / "m", *FITTING, "--no-shortcut")
    ae = load(tmp_path / "m")
    assert ae.summary() in result.stdout
    lines = dict(re.findall(r"^(\w[\w ]*?)  +(.*)$", result.stdout.split("\n\n")[-1], re.M))
    last = ae.history_[ae.best_epoch_ - 1]
    losses = f"{last['loss']:.5g} nats per cell, {last['validation_loss']:.5g} on held-out rows"
    assert lines["loss"] == losses
    assert lines["variance kept"] == f"{100 * ae.reconstruction_r2_:.1f} % on held-out rows"
    assert f"network {100 * ae.comparison_.r2:.1f} %" in lines["compared with PCA"]
    assert f"on {ae.comparison_.n_rows} held-out rows" in lines["compared with PCA"]
    assert lines["compared with PCA"].endswith(": PCA keeps more")
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
    words = ("--no-shortcut", "--quiet", *FITTING)
    result = succeed("fit", folder / "rows.npy", "-o", tmp_path / "m", *words)
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

    monkeypatch.setattr("twofold.estimators.fitting.calibrate", interrupted)
    result = run("fit", folder / "rows.npy", "-o", tmp_path / "m", *FITTING)
    assert result.exit_code == 130
    assert "Interrupted; nothing was written." in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "m").exists()


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


def test_unknown_option_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "--batchsize" in fail("fit", folder / "rows.npy", "-o", tmp_path / "m", "--batchsize=1")


def test_fit_takes_kinds_by_name(mixed: Path) -> None:
    ae = load(mixed / "model")
    assert ae.kinds == {"zip": "category", "no, 1": "real", "visits": "count"}
    kinds = {column.name: column.kind for column in ae.schema_.columns}
    assert (kinds["zip"], kinds["no, 1"]) == ("category", "real")
    assert (kinds["id"], kinds["城市"], kinds["joined"]) == ("ignored", "category", "time")


def test_fit_tells_what_became_of_odd_columns(tmp_path: Path) -> None:
    frame = mixed_frame()
    frame.loc[7, "城市"] = "Ωmega"
    result = succeed("fit", write_csv(frame, tmp_path / "x.csv"), "-o", tmp_path / "m", *MIXED)
    text = result.stdout
    assert re.search(r"^ignored +'id' looks like an identifier: 60 different texts", text, re.M)
    assert re.search(r"^notes +'城市' 1 rare level, 'Ωmega', shares one input", text, re.M)
    assert re.search(r"^constant +'fixed'$", text, re.M)


def test_fit_names_the_model_after_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    write_csv(mixed_frame(), tmp_path / "data" / "messy.csv")
    monkeypatch.chdir(tmp_path)
    words = ("fit", "data/messy.csv", "--epochs", 1, "--quiet")
    text = succeed(*words).stdout
    assert re.search(r"^model +messy\.twofold \(", text, re.M)
    assert load(tmp_path / "messy.twofold").schema_.names[0] == "id"
    assert "already exists" in fail(*words)


def test_fit_tells_of_the_first_of_many_odd_columns(tmp_path: Path) -> None:
    frame = mixed_frame()
    texts = pd.DataFrame({f"t{i}": [f"{i}-{k}" for k in range(60)] for i in range(25)})
    frame = pd.concat([frame.drop(columns="id"), texts], axis=1)
    words = ("--epochs", "2", "--quiet")
    text = succeed("fit", write_csv(frame, tmp_path / "x.csv"), "-o", tmp_path / "m", *words).stdout
    assert "'t4' looks like" in text
    assert "'t5' looks like" not in text
    assert "  and 20 more\n" in text


def test_text_does_not_fit_an_array(mixed: Path, tmp_path: Path) -> None:
    words = ("sample", mixed / "model", "--rows", 3, "-o", tmp_path / "s.npy")
    assert "An .npy file holds numbers only" in fail(*words)


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
