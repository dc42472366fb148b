"""Finding the library: what it is compiled for, what the environment says, and what is missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.test_fused import PLAN, parts, rows
from twofold.nn.corruption import Masking
from twofold.nn.native import library
from twofold.training.autograd import AutogradStep
from twofold.training.fused import FusedStep
from twofold.training.native import NativeStep
from twofold.training.step import make_step


@pytest.fixture(autouse=True)
def looks_again() -> Iterator[None]:
    library.forget()
    yield
    library.forget()


def test_the_best_instruction_set_is_taken() -> None:
    assert library.find("").reason == f"compiled for {library.instruction_sets()[-1]}"


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in library.instruction_sets():
        monkeypatch.setenv(library.VARIABLE, name)
        assert library.find().reason == f"compiled for {name}"


@pytest.mark.parametrize(
    ("choice", "reason"),
    [("off", "switched off by TWOFOLD_NATIVE=off"), ("avx1024", "TWOFOLD_NATIVE=avx1024 is none")],
)
def test_switched_off_or_misspelt_leaves_the_fused_step(
    choice: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(library.VARIABLE, choice)
    with caplog.at_level(logging.INFO, logger="twofold"):
        step = make_step(*parts(dtype=torch.float32), PLAN)
    assert type(step) is FusedStep
    assert reason in caplog.text


def test_without_the_library_the_numbers_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    net, objective = parts(dtype=torch.float32)
    loss = float(make_step(net, objective, PLAN).update(rows(torch.float32), 0.1))
    monkeypatch.setattr(library, "path", lambda: tmp_path / "none.so")
    library.forget()
    net, objective = parts(dtype=torch.float32)
    with caplog.at_level(logging.INFO, logger="twofold"):
        step = make_step(net, objective, PLAN)
    assert type(step) is FusedStep
    assert "installed without the compiled library" in caplog.text
    assert float(step.update(rows(torch.float32), 0.1)) == pytest.approx(loss, rel=1e-6)
    assert type(make_step(net, objective, PLAN, complete=False)) is AutogradStep


def test_a_file_that_is_no_library_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(library, "path", lambda: broken)
    assert "cannot be loaded" in library.find("").reason


def test_dense_stacks_take_the_native_step(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="twofold"):
        step = make_step(*parts(dtype=torch.float32), PLAN)
    assert type(step) is NativeStep
    assert "training with the native step" in caplog.text


def test_missing_cells_take_the_native_step() -> None:
    net, objective = parts(dtype=torch.float32)
    for step in (
        make_step(net, objective, PLAN, complete=False),
        make_step(net, objective, replace(PLAN, corruption=Masking(0.3, only_hidden=True))),
    ):
        assert type(step) is NativeStep
        assert step.takes_missing
