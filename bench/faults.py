"""End commands at random moments, fill the disk under them, and see what they leave.

    python bench/faults.py                  20 trials of each, to bench/results/faults.json
    python bench/faults.py --only score     those of one command, to standard output

Each trial runs a command in a process of its own, in a folder of its own, and ends it by SIGKILL or
SIGINT at a moment drawn at random, or lets it write only so many bytes into a file (RLIMIT_FSIZE),
as on a full disk. Then the inputs must be as they were, an output must be whole or not there, and
the same command, run again after every fifth trial, must come to the same result.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import machine

RESULTS = Path(__file__).parent / "results" / "faults.json"
COMMANDS = {
    "fit": ["fit", "rows.csv", "--output", "out", "--epochs", "3", "--random-state", "0"],
    "save": [],  # by Python: `load("model").save("out")`
    "score": ["score", "model", "rows.csv", "--output", "out.csv"],
    "impute": ["impute", "model", "rows.csv", "--output", "out.csv"],
    "sample": ["sample", "model", "--rows", "5000", "--random-state", "0", "--output", "out.csv"],
    "demo": ["demo", "--dataset", "digits", "--epochs", "2", "--output", "out"],
}
FAULTS = ("SIGKILL", "SIGINT", "full disk")
VARYING = {"figures.json", "index.html", "demo.html", "model.json"}  # which hold times


def rows(path: Path, n: int = 4_000) -> None:
    """Write a table with missing cells."""
    rng = random.Random(0)
    with path.open("w") as file:
        file.write("load,flow,power,mode\n")
        for _ in range(n):
            load = rng.uniform(20, 100)
            cells = [load, 1.2 * load + rng.gauss(0, 2), 0.9 * load + rng.gauss(10, 2)]
            texts = ["" if rng.random() < 0.05 else f"{cell:.3f}" for cell in cells]
            file.write(",".join([*texts, "boost" if load > 60 else "normal"]) + "\n")


def run(command: str, folder: Path, ended: Any = None, after: float = 0.0, most: int = -1) -> int:
    """Run a command in a process of its own; return its exit status, or minus the signal."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.chdir(folder)
    out = os.open("/dev/null" if ended is None else str(folder / ".said"), os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ended is not None:
        threading.Thread(target=_end, args=[after, ended], daemon=True).start()
    if most >= 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    status = 1
    try:
        if command == "save":
            from twofold import load

            load("model").save("out")
        else:
            from twofold.cli.main import main

            sys.argv = ["twofold", *COMMANDS[command]]
            main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        status = 2 if type(error).__module__.startswith("twofold") else 3
    finally:
        os._exit(status)


def _end(seconds: float, number: int) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), number)


def digest(path: Path) -> dict[str, str]:
    """Return what there is at a path: each file that is not hidden, and its content."""
    files = [path] if path.is_file() else sorted(path.rglob("*")) if path.exists() else []
    return {
        str(file.relative_to(path)): ""
        if file.name in VARYING
        else hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }


def measure(command: str, scratch: Path, trials: int) -> dict[str, Any]:
    """Return how the trials of one command ended, by fault."""

    def fresh() -> Path:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        shutil.copy(scratch / "rows.csv", folder)
        if (scratch / "model").exists():
            shutil.copytree(scratch / "model", folder / "model")
        return folder

    output = (
        COMMANDS[command][COMMANDS[command].index("--output") + 1] if command != "save" else "out"
    )
    whole, start = fresh(), time.perf_counter()
    if status := run(command, whole):
        raise SystemExit(f"{command} failed with status {status}")
    seconds, expected = time.perf_counter() - start, digest(whole / output)
    largest = max(f.stat().st_size for f in whole.rglob("*") if f.is_file())
    rng, found = random.Random(1), {}
    for fault in FAULTS:
        count = dict.fromkeys(("trials", "ended", "whole", "absent"), 0)
        count |= dict.fromkeys(("half", "inputs_changed", "left_over", "not_repeatable"), 0)
        statuses: dict[int, int] = {}
        for trial in range(trials):
            folder = fresh()
            before = digest(folder)
            if fault == "full disk":
                status = run(command, folder, most=rng.randrange(largest))
            else:
                after = rng.uniform(0, seconds)
                status = run(command, folder, getattr(signal, fault), after)
            statuses[status] = statuses.get(status, 0) + 1
            now = digest(folder)
            got = digest(folder / output)
            count["trials"] += 1
            count["ended"] += status != 0
            if not got:
                count["absent"] += 1
            else:
                count["whole" if got == expected else "half"] += 1
            count["inputs_changed"] += any(now.get(name) != text for name, text in before.items())
            others = set(os.listdir(folder)) - {"rows.csv", "model", output, ".said"}
            count["left_over"] += bool(others)
            shutil.rmtree(folder / output, ignore_errors=True)
            (folder / output).unlink(missing_ok=True)
            if trial % 5 == 0:
                again = run(command, folder)
                count["not_repeatable"] += bool(again) or digest(folder / output) != expected
            shutil.rmtree(folder)
        found[fault] = count | {"statuses": {str(k): v for k, v in sorted(statuses.items())}}
        print(command, fault, json.dumps(found[fault]), flush=True)
    return {"seconds": round(seconds, 2), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", choices=COMMANDS)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    for module in ("cli.main", "cli.train", "cli.apply", "estimators.autoencoder"):
        importlib.import_module(f"twofold.{module}")  # once, before the processes divide

    scratch = Path(tempfile.mkdtemp(prefix="twofold-faults-"))
    found = {}
    try:
        rows(scratch / "rows.csv")
        if run("fit", scratch):
            raise SystemExit("the model could not be fitted")
        (scratch / "out").rename(scratch / "model")
        for command in COMMANDS:
            if given.only in (None, command):
                found[command] = measure(command, scratch, given.trials)
    finally:
        shutil.rmtree(scratch)
    if given.only is None:
        result = {"machine": machine.describe(sorted(os.sched_getaffinity(0))), "commands": found}
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
