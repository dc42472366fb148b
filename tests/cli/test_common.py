"""What commands share: how files are read, and what is printed where."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from twofold.cli import common


def test_files_are_read_as_the_flags_say() -> None:
    files = common.files("rows/", None, "skip", ["a"])
    assert (files.source, files.stream, files.on_bad_file) == ("rows/", "auto", "skip")
    assert common.files("rows/", False, "error").stream is False


def test_what_was_written_is_printed_with_its_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, size in {"a.csv": 1000, "folder/b.csv": 34}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    common.print_written("3 rows", tmp_path / "a.csv")
    common.print_written("3 rows", tmp_path / "folder")
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("a.csv: 3 rows, 1.0 kB")
    assert second.endswith("folder: 3 rows, 34 bytes")


def test_each_warning_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with common.plain_warnings() as caught:
        for text in ("a", "b", "a"):
            warnings.warn(text, stacklevel=1)
    assert len(caught) == 3
    assert capsys.readouterr().err == "warning: a\nwarning: b\n"


def test_quiet_commands_print_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    assert common.progress_printer(True) is None
    printer = common.progress_printer(False)
    assert printer is not None
    printer("half done")
    assert capsys.readouterr().err == "half done\n"
