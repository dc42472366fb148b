"""How tests run commands, and the rows that they are given."""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from twofold import Autoencoder
from twofold.cli.main import app
from twofold.data import files, sources
from twofold.errors import LosesToPCAWarning
from twofold.training import events

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
MIXED_KINDS = 'zip=category,"no, 1"=real,visits=count'
MIXED = ("--epochs", "2", "--random-state", "4", "--quiet", "--kinds", MIXED_KINDS)
ANOMALOUS_ROW = 11


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


def fitted_in_python(source: Any, **given: Any) -> Autoencoder:
    ae = Autoencoder(**{"n_components": 2, "epochs": 3, "random_state": 0, **given})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return ae.fit(source)


def values(path: Path) -> NDArray[Any]:
    return sources.read(files.load(path)).values


def interrupt_after(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    emit = events.EventEmitter.emit

    def emitted(self: Any, kind: str, number: int, *rest: Any) -> None:
        emit(self, kind, number, *rest)
        if kind == "epoch" and number == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(events.EventEmitter, "emit", emitted)


def write_text(path: Path) -> None:
    path.write_text("a,b\n1,x\n", encoding="utf-8")


def write_header(path: Path) -> None:
    path.write_text("a,b\n", encoding="utf-8")


def write_nothing(path: Path) -> None:
    pass


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
    frame.loc[ANOMALOUS_ROW, "age"] = 400.0
    frame.loc[3, ["age", "城市"]] = None
    frame.loc[5, "joined"] = None
    return frame


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path


def types_of(path: Path) -> dict[str, str]:
    return {field.name: str(field.type) for field in pq.read_schema(path)}
