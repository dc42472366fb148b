"""Kill a run of training again and again, at random moments, and see what it costs.

Each run is a process that SIGKILL ends at a moment drawn at random; the next one goes on from its
checkpoint, until the last is let to its end. Its weights and its losses on held-out rows are
compared with those of a run that was never killed, bit by bit. The training loss is compared too:
its last digits depend on how many threads added it up, which follows the load of the machine.
Updates are counted in memory that outlives the processes.

    python bench/kill.py                # about three minutes
    python bench/kill.py --kills 5
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import shutil
import signal
import statistics
import struct
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import machine
import numpy as np

from twofold import Autoencoder, datasets
from twofold.training import events, trainer
from twofold.training.checkpoint import Checkpoint

RESULTS = Path(__file__).parent / "results" / "kill.json"
# One run by the hand-derived step, one by autograd with chance in every update.
RUNS: dict[str, dict[str, Any]] = {
    "784-392-196, gradient descent": {"optimizer": "sgd", "learning_rate": 1.5},
    "784-392-196, Adam, masking": {"corruption": "masking:0.25"},
}
COMMON: dict[str, Any] = {
    "n_components": 196,
    "hidden_layers": (392,),
    "batch_size": 32,
    "epochs": 4,
    "random_state": 0,
}


class Counter:
    """Numbers that several processes add to, and that the end of one does not undo."""

    def __init__(self, n: int) -> None:
        self._memory = mmap.mmap(-1, 8 * n)

    def add(self, place: int, amount: float) -> None:
        """Add to one of the numbers."""
        self._memory[8 * place : 8 * place + 8] = struct.pack("d", self.value(place) + amount)

    def value(self, place: int) -> float:
        """Return one of the numbers."""
        return float(struct.unpack("d", self._memory[8 * place : 8 * place + 8])[0])


UPDATES, SECONDS, WRITTEN, WRITING = range(4)


def child(
    options: dict[str, Any],
    images: np.ndarray,
    folder: Path,
    seconds: float | None,
    every: float,
    counter: Counter,
) -> int:
    """Run, or go on with a run, in a process of its own; return how it ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    warnings.simplefilter("ignore")
    _count(counter, seconds)
    ae = Autoencoder(**COMMON, **options)
    ae.fit(images, checkpoint=folder, resume=True, checkpoint_seconds=every)
    tensors = {**ae.network_.state_dict(), **ae.scorer_.state_dict()}
    content = b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))
    held_out = [entry["validation_loss"] for entry in ae.history_]
    digest = hashlib.sha256(content + repr(held_out).encode()).hexdigest()
    told = {"sha256": digest, "losses": [entry["loss"] for entry in ae.history_]}
    (folder / "told.json").write_text(json.dumps(told))
    os._exit(0)


def _count(counter: Counter, seconds: float | None) -> None:
    updates, write, tell = trainer._Run.updates, Checkpoint.write, events.EventEmitter.emit

    def counted(run: Any) -> Any:
        for number in updates(run):
            counter.add(UPDATES, 1)
            yield number

    def timed(saved: Any, tensors: Any, document: Any) -> None:
        started = time.perf_counter()
        write(saved, tensors, document)
        counter.add(WRITING, time.perf_counter() - started)
        counter.add(WRITTEN, 1)

    def begun(watch: Any, kind: str, *rest: Any) -> None:
        tell(watch, kind, *rest)
        if kind == "start":
            begun.started = time.perf_counter()  # type: ignore[attr-defined]
            if seconds is not None:
                threading.Thread(target=_kill_after, args=[seconds], daemon=True).start()
        if kind == "end":
            counter.add(SECONDS, time.perf_counter() - begun.started)  # type: ignore[attr-defined]

    trainer._Run.updates = counted  # type: ignore[method-assign]
    Checkpoint.write = timed  # type: ignore[method-assign]
    events.EventEmitter.emit = begun  # type: ignore[method-assign]


def _kill_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def measure(options: dict[str, Any], images: np.ndarray, n_kills: int, every: float) -> dict:
    """Return what one run, killed so many times, costs beside one that never was."""
    scratch = Path(tempfile.mkdtemp(prefix="twofold-kill-"))
    try:
        once, again = Counter(4), Counter(4)
        never = scratch / "never"
        if child(options, images, never, None, every, once):
            raise SystemExit("the run that is not killed has failed")
        size = max(path.stat().st_size for path in never.glob("*.safetensors"))
        seconds = once.value(SECONDS)
        # Together about as long as one run takes, so that the last moments are near its end.
        moments = np.random.default_rng(0).uniform(0, 2 * seconds / n_kills, n_kills)
        killed = scratch / "killed"
        ends = [child(options, images, killed, s, every, again) for s in moments.tolist()]
        if child(options, images, killed, None, every, again):
            raise SystemExit("the run that goes on to its end has failed")
        one, two = (json.loads((folder / "told.json").read_text()) for folder in (never, killed))
        apart = [abs(a / b - 1) for a, b in zip(one["losses"], two["losses"], strict=True)]
        n_killed = ends.count(-signal.SIGKILL)
        repeated = again.value(UPDATES) - once.value(UPDATES)
        return {
            "options": options,
            "same_bits": one["sha256"] == two["sha256"],
            "training_loss_apart": max(apart),
            "kills": n_killed,
            "updates": int(once.value(UPDATES)),
            "updates_repeated": int(repeated),
            "updates_repeated_per_kill": round(repeated / max(1, n_killed), 1),
            "seconds_between_checkpoints": every,
            "checkpoint_bytes": size,
            "checkpoint_seconds": round(once.value(WRITING) / once.value(WRITTEN), 4),
            "training_seconds": round(seconds, 2),
            "share_of_training": round(once.value(WRITING) / seconds, 4),
            "share_of_training_at_60_s": round(once.value(WRITING) / once.value(WRITTEN) / 60, 5),
        }
    finally:
        shutil.rmtree(scratch)


def main() -> None:
    """Run all, show it, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between checkpoints")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    images = datasets.mnist(download=False).train[: given.rows].reshape(given.rows, -1)
    watch = machine.Watch()
    runs = {}
    for name, options in RUNS.items():
        runs[name] = measure(options, images / np.float32(255), given.kills, given.every)
        print(name, json.dumps(runs[name]), file=sys.stderr)
    result = {
        "machine": machine.describe(sorted(os.sched_getaffinity(0))),
        "others": watch.stop(),
        "rows": given.rows,
        "runs": runs,
        "same_bits": all(run["same_bits"] for run in runs.values()),
        "mean_repeated": statistics.mean(r["updates_repeated_per_kill"] for r in runs.values()),
    }
    given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
