"""Rows and fitted models that the tests of several commands share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.running import (
    FITTING,
    MIXED,
    mixed_frame,
    succeed,
)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of every sort of column as CSV and Parquet, and a model of the CSV."""
    folder = tmp_path_factory.mktemp("mixed")
    frame = mixed_frame()
    frame.to_csv(folder / "rows.csv", index=False)
    frame.astype({"城市": "category"}).to_parquet(folder / "rows.parquet", index=False)
    succeed("fit", folder / "rows.csv", "-o", folder / "model", *MIXED)
    succeed("fit", folder / "rows.parquet", "-o", folder / "typed", *MIXED)
    return folder


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    monkeypatch.setenv("NO_COLOR", "1")
