"""A disk that is full while a command writes costs nothing but the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from twofold import Autoencoder, load
from twofold.cli.main import app

resource = pytest.importorskip("resource", reason="limits of files are POSIX's")

COMMANDS = {
    "fit": ["fit", "rows.csv", "--output", "model", "--force", "--epochs", "1"],
    "score": ["score", "model", "rows.csv", "--output", "out.csv", "--force"],
    "impute": ["impute", "model", "rows.csv", "--output", "out.csv", "--force"],
}


Run = tuple[int, str, Path, dict[Path, bytes]]


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 1,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """What each command ended with, what it said, its folder, and what was in it before."""
    top = tmp_path_factory.mktemp("full")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(3000, 4)), columns=list("abcd"))
    ae = Autoencoder(n_components=1, epochs=1, random_state=0).fit(frame)
    before: dict[str, dict[Path, bytes]] = {}
    for name in COMMANDS:
        folder = top / name
        folder.mkdir()
        frame.to_csv(folder / "rows.csv", index=False)
        ae.save(folder / "model")
        (folder / "out.csv").write_text("what was there\n")
        before[name] = contents(folder)
    said: dict[str, Run] = {}
    for name, words in COMMANDS.items():
        with pytest.MonkeyPatch.context() as patch, full_disk():
            patch.chdir(top / name)
            result = CliRunner().invoke(app, words)
        said[name] = result.exit_code, result.stderr, top / name, before[name]
    return said


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_full_disk_leaves_everything_as_it_was(command: str, runs: dict[str, Run]) -> None:
    status, said, folder, before = runs[command]
    assert status == 2, said
    assert "could not be written" in said
    assert "Traceback" not in said
    assert contents(folder) == before
    load(folder / "model")
