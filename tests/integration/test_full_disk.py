"""A disk that is full while a command writes costs nothing but the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from twofold import Autoencoder, load

pytest.importorskip("resource", reason="limits of files are POSIX's")

# As on a full disk: no file may grow beyond so many bytes.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from twofold.cli.main import main
main()
"""
COMMANDS = {
    "fit": ["fit", "rows.csv", "--output", "model", "--force", "--epochs", "1"],
    "score": ["score", "model", "rows.csv", "--output", "out.csv", "--force"],
    "impute": ["impute", "model", "rows.csv", "--output", "out.csv", "--force"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(3000, 4)), columns=list("abcd"))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    Autoencoder(n_components=1, epochs=1, random_state=0).fit(frame).save(tmp_path / "model")
    (tmp_path / "out.csv").write_text("what was there\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_full_disk_leaves_everything_as_it_was(folder: Path, command: str) -> None:
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "1000", *COMMANDS[command]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == files
    load(folder / "model")
