"""Every command exists, explains itself, and fails in words."""

from __future__ import annotations

import io
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import twofold
from tests.cli.running import (
    COMMANDS,
    FITTING,
    ROOT,
    WRITING,
    fail,
    run,
    succeed,
)
from twofold import load, options
from twofold.cli.main import main


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


@pytest.mark.parametrize("command", WRITING)
def test_model_that_is_none_is_refused(folder: Path, tmp_path: Path, command: str) -> None:
    said = fail(command, tmp_path / "none", folder / "rows.csv", "-o", tmp_path / "out.csv")
    assert "Expected a model's folder" in said
    assert f"{tmp_path / 'none'} does not exist" in said


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


def test_version() -> None:
    assert succeed("--version").stdout == f"twofold {twofold.__version__}\n"


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


def test_options_page_comes_from_the_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "twofold.options")  # or running it as a program warns
    runpy.run_module("twofold.options", run_name="__main__")
    assert capsys.readouterr().out == options.reference()


def test_closed_output_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    monkeypatch.setattr(sys, "argv", ["twofold", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    for stream in (sys.stdout, sys.stderr):
        stream.close()
