"""The C code in every way that it can be called; under sanitizers where `make sanitize` asks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from twofold.nn.native import build

CHECK = Path(__file__).with_name("check.c")
SANITIZERS = {
    "none": ("-O2",),
    "address and undefined": ("-O1", "-g", "-fsanitize=address,undefined"),
    "thread": ("-O1", "-g", "-fsanitize=thread"),
}


@pytest.mark.parametrize("name", SANITIZERS)
def test_no_thread_and_no_way_to_train_changes_bits(name: str, tmp_path: Path) -> None:
    if name != "none" and "TWOFOLD_SANITIZE" not in os.environ:
        pytest.skip("takes minutes: make sanitize")
    program, flags = tmp_path / "check", (*SANITIZERS[name], "-Werror")
    if name != "none":
        flags = (*flags, "-fno-sanitize-recover=all")
    build.compile_with(*flags, target=program, more=[CHECK])
    ways = [] if name == "none" else ["all"]
    done = subprocess.run(
        [program, *ways], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same bits" in done.stdout
