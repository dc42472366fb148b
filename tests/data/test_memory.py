"""How much memory there is shows in the system's own figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.data import memory


def test_there_is_memory() -> None:
    assert 0 < memory.available() < 2**50


def test_figures_are_read_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmSize:  1024 kB\nName: x\n", encoding="utf-8")
    assert memory._figures(tmp_path / "status") == {"VmSize": 1024 * 1024}


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert memory._figures(tmp_path / "nothing") == {}


def test_the_least_of_all_limits_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free", lambda: 10**9)
    monkeypatch.setattr(memory, "_left_by_groups", lambda: [3_000, 5_000])
    monkeypatch.setattr(memory, "_left_by_limits", list)
    assert memory.available() == 3_000
    monkeypatch.setattr(memory, "_left_by_limits", lambda: [-5])
    assert memory.available() == 0
