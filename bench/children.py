"""The bench's processes: their environments, how they start, take turns, and end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
START_SECONDS = 300.0
ANSWER_SECONDS = 1800.0

# Environment -> what is asked for; bench/constraints-<environment>.txt has the exact versions.
ENVIRONMENTS = {
    "keras-tensorflow": ("keras", "tensorflow-cpu"),
    "keras-torch": ("keras", "torch"),
    "jax": ("keras", "jax"),
    "pyod": ("pyod", "torch", "tqdm"),  # it needs tqdm and does not say so
}
# twofold's own environment: the one that runs speed.py.
OWN = "twofold"


class Failed(Exception):
    """A peer that could not be installed, started or finished; says why."""


def python_of(environment: str, venvs: Path, say: Any) -> str:
    """Return the environment's interpreter, after making the environment where it is missing."""
    if environment == OWN:
        return sys.executable
    constraints = HERE / f"constraints-{environment}.txt"
    folder = venvs / environment
    python = folder / "bin" / "python"
    # Written last, and it names what was asked for: a half-made or older environment is completed.
    mark = folder / ".ready"
    asked = hashlib.sha256(
        constraints.read_bytes() + " ".join(ENVIRONMENTS[environment]).encode()
    ).hexdigest()
    if mark.exists() and mark.read_text() == asked:
        return str(python)
    say(f"setting up {folder} (once)")
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(folder)])
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _run([*install, "-c", str(constraints), *ENVIRONMENTS[environment]])
    mark.write_text(asked)
    return str(python)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "WARNING" not in line] or ["?"]
        # pip says first what is wrong, and last where to read about it.
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise Failed(f"{Path(command[0]).name} {' '.join(command[1:4])} failed: {said[:300]}")


class Child:
    """One process. A timed one is stopped (SIGSTOP) while it is not its turn, so it uses no core.

    Libraries keep threads that spin or poll; without the pause, they would disturb each other.
    """

    def __init__(
        self,
        python: str,
        script: str,
        settings: Mapping[str, Any],
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.log = log
        self._buffer = b""
        self._read, write = os.pipe()
        message = json.dumps({**settings, "answers": write})
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [python, str(HERE / script), message],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                pass_fds=(write,),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
                start_new_session=True,
            )
        os.close(write)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def answer(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Wait for the next answer."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Failed(f"no answer within {seconds:.0f} s")
            part = os.read(self._read, 1 << 16)
            if not part:
                raise Failed(self._why())
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\n", 1)
        result: dict[str, Any] = json.loads(line)
        return result

    def epoch(self) -> dict[str, Any]:
        """Let it do one epoch, and pause it again."""
        self._signal(signal.SIGCONT)
        self._tell("epoch")
        result = self.answer()
        self.pause()
        return result

    def ask(self, request: Mapping[str, Any], seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Ask for something, and wait for the answer."""
        self._tell(json.dumps(request))
        return self.answer(seconds)

    def pause(self) -> None:
        """Stop it until its next epoch."""
        self._signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill it and what it started; whoever waits for its answer is told."""
        self._signal(signal.SIGKILL)

    def end(self) -> None:
        """End it and what it started."""
        self.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise Failed(self._why()) from error

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _why(self) -> str:
        """Say how it ended: its last line is the error, if Python ended it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        status = self.process.returncode
        if status is not None and status < 0:
            # SIGKILL without our doing: most often the system ran out of memory.
            return f"was ended by {signal.Signals(-status).name}"
        lines = self.log.read_text(errors="replace").strip().splitlines()
        said = lines[-1][:300] if lines else "it said nothing"
        return f"ended with status {status}: {said}"


def thread_settings(n: int) -> dict[str, str]:
    """Return environment variables that give every peer `n` threads, and no accelerator."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {
        **{name: str(n) for name in names},
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
