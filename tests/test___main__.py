"""The command line is there where the folder of scripts is not."""

from __future__ import annotations

import subprocess
import sys


def test_the_package_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twofold", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()
