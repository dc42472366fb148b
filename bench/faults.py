"""End commands at random times, fill the disk under them, and see what they leave.

    python bench/faults.py                  20 trials of each, to bench/results/faults.json
    python bench/faults.py --only score     those of one command, next to what is there

Each trial runs a command in a process of its own, in a folder of its own, and ends it by SIGKILL or
SIGINT at a time drawn at random, or lets it write only so many bytes into a file (RLIMIT_FSIZE),
as on a full disk. Then the inputs must be as they were, an output must be whole or not there, and
the same command, run again after every fifth trial, must come to the same result. A fit that is
interrupted may write the model that it has so far, which then has to load; of the demo, which
writes several models and pages, some may be there, each whole. After SIGKILL a file that was being
written may be left over under its temporary name, which begins with a dot.

Then commands meet circumstances that are not as they should be (`CIRCUMSTANCES`): they have to do
their work or say what is wrong, without a traceback, and leave their inputs alone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
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
HUNG = 1000  # in place of the exit status of a command that did not end
FAULTS = ("SIGKILL", "SIGINT", "full disk")
MOST_SECONDS = 300.0  # after which a command hangs
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
    """Run a command in a process of its own; return its exit status, or minus the signal, or HUNG.

    It ends by the signal `ended` `after` so many seconds, or writes at most `most` bytes.
    """
    pid = os.fork()
    if pid:
        start = time.perf_counter()
        while not (found := os.waitpid(pid, os.WNOHANG))[0]:
            if time.perf_counter() - start > MOST_SECONDS:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return HUNG
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(found[1])
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
        count = dict.fromkeys(("trials", "ended", "whole", "absent", "some_files", "half"), 0)
        count |= dict.fromkeys(("inputs_changed", "left_over", "not_repeatable", "hung"), 0)
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
            count["hung"] += status == HUNG
            if not got:
                count["absent"] += 1
            elif got == expected or (fault == "SIGINT" and command == "fit" and loads(folder)):
                count["whole"] += 1
            elif command == "demo" and got.items() < expected.items():
                count["some_files"] += 1
            else:
                count["half"] += 1
            count["inputs_changed"] += any(now.get(name) != text for name, text in before.items())
            others = set(os.listdir(folder)) - {"rows.csv", "model", output, ".said"}
            count["left_over"] += bool(others)
            visible = {name for name in others if not name.startswith(".")}
            count["half"] += bool(visible)
            shutil.rmtree(folder / output, ignore_errors=True)
            (folder / output).unlink(missing_ok=True)
            if trial % 5 == 0:
                again = run(command, folder)
                count["not_repeatable"] += bool(again) or digest(folder / output) != expected
            shutil.rmtree(folder)
        found[fault] = count | {"statuses": {str(k): v for k, v in sorted(statuses.items())}}
        print(command, fault, json.dumps(found[fault]), flush=True)
    return {"seconds": round(seconds, 2), **found}


def loads(folder: Path) -> bool:
    from twofold import load
    from twofold.errors import TwofoldError

    try:
        load(folder / "out")
    except TwofoldError:
        return False
    return True


def at_once(command: str, folders: list[Path]) -> list[int]:
    """Run a command in several processes at the same time, and return their statuses."""
    found = [0] * len(folders)

    def one(i: int) -> None:
        found[i] = subprocess.run(
            [*TWOFOLD, *COMMANDS[command]], cwd=folders[i], capture_output=True
        ).returncode

    threads = [threading.Thread(target=one, args=[i]) for i in range(len(folders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


TWOFOLD = [sys.executable, "-c", "from twofold.cli.main import main; main()"]
SCORE = " ".join(map(shlex.quote, [*TWOFOLD, "score", "model"]))
PLAIN = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LC_ALL": "C", "LANG": "C"}
# Name -> shell command in a folder with `model` and `rows.csv`; what it may exit with; environment,
# None for what is taken out of it; the output that has to be there afterwards.
CIRCUMSTANCES: dict[str, tuple[str, set[int], dict[str, str | None], str]] = {
    "output is the input": (f"{SCORE} rows.csv -o rows.csv", {2}, {}, ""),
    "output is the input, forced": (
        f"cp rows.csv x.csv; {SCORE} x.csv -o x.csv --force",
        {0},
        {},
        "x.csv",
    ),
    "output is a folder": (f"mkdir x.csv; {SCORE} rows.csv -o x.csv --force", {2}, {}, ""),
    "output is a link": (
        f"cp rows.csv t.csv; ln -s t.csv x.csv; {SCORE} rows.csv -o x.csv --force && "
        "cmp rows.csv t.csv",
        {0},
        {},
        "x.csv",
    ),
    "output is a broken link": (f"ln -s nowhere x.csv; {SCORE} rows.csv -o x.csv", {2}, {}, ""),
    "folder cannot be written": (f"{SCORE} rows.csv -o /proc/x.csv", {2}, {}, ""),
    "folder is a file": (f"{SCORE} rows.csv -o rows.csv/x.csv", {2}, {}, ""),
    "disk is full": (f"{SCORE} rows.csv -o /dev/full/x.csv", {2}, {}, ""),
    "input is a pipe": (
        f"mkfifo p.csv; cat rows.csv > p.csv & {SCORE} p.csv -o x.csv",
        {0, 2},
        {},
        "",
    ),
    "no HOME": (f"{SCORE} rows.csv -o x.csv", {0}, {"HOME": None}, "x.csv"),
    "HOME and cache cannot be written": (
        f"{SCORE} rows.csv -o x.csv",
        {0},
        {"HOME": "/proc/x", "XDG_CACHE_HOME": "/proc/x", "MPLCONFIGDIR": "/proc/x"},
        "x.csv",
    ),
    "locale C": (f"{SCORE} rows.csv -o maß.csv && mv ma*.csv y.csv", {0}, PLAIN, "y.csv"),
    "input's name is not in the locale": (
        f"cp rows.csv größe.csv; {SCORE} größe.csv -o x.csv",
        {2},
        PLAIN,
        "",
    ),
    "output's name is not UTF-8": (
        f"{SCORE} rows.csv -o $'x\\xff.csv' && mv x*.csv y.csv",
        {0},
        {},
        "y.csv",
    ),
    "input's name is not UTF-8": (
        f"cp rows.csv $'r\\xff.csv'; {SCORE} $'r\\xff.csv' -o x.csv",
        {2},
        {},
        "",
    ),
    "reader that goes away": (
        f"set -o pipefail; {SCORE} rows.csv -o x.csv | true",
        {0, 1, 141},
        {},
        "x.csv",
    ),
    "info to head": (
        f"{SCORE.replace(' score ', ' info ')} | head -n 1 > /dev/null",
        {0},
        {},
        "",
    ),
    "no standard output": (f"{SCORE} rows.csv -o x.csv >&-", {0, 1, 2}, {}, "x.csv"),
    "standard output is full": (f"{SCORE} rows.csv -o x.csv > /dev/full", {0, 1, 2}, {}, "x.csv"),
}


def meet(scratch: Path) -> dict[str, Any]:
    """Return how commands fare in each circumstance."""
    found: dict[str, Any] = {}
    for name, (command, allowed, changes, output) in CIRCUMSTANCES.items():
        folder = Path(tempfile.mkdtemp(dir=scratch))
        shutil.copy(scratch / "rows.csv", folder)
        shutil.copytree(scratch / "model", folder / "model")
        before = digest(folder)
        environment = {**os.environ, **{k: v for k, v in changes.items() if v is not None}}
        for key in (k for k, v in changes.items() if v is None):
            environment.pop(key, None)
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, timeout=300
        )
        said, now = done.stderr.decode(errors="replace"), digest(folder)
        found[name] = {
            "status": done.returncode,
            "good": done.returncode in allowed
            and "Traceback" not in said
            and "Exception ignored" not in said
            and all(now.get(file) == text for file, text in before.items())
            and (not output or (folder / output).stat().st_size > 0),
            "said": said.strip()[-300:],
        }
        print(name, json.dumps(found[name]), flush=True)
    return found


def race(scratch: Path, trials: int) -> dict[str, int]:
    """Return how it ends if two processes write the same model at the same time."""
    count = dict.fromkeys(("trials", "whole", "refused", "left_over"), 0)
    for _ in range(trials):
        folder = Path(tempfile.mkdtemp(dir=scratch))
        shutil.copy(scratch / "rows.csv", folder)
        statuses = at_once("fit", [folder, folder])
        count["trials"] += 1
        count["whole"] += loads(folder) and statuses.count(0) >= 1 and set(statuses) <= {0, 2}
        count["refused"] += statuses.count(2)
        count["left_over"] += bool(set(os.listdir(folder)) - {"rows.csv", "out"})
        shutil.rmtree(folder)
    print("race", json.dumps(count), flush=True)
    return count


def markdown(result: dict[str, Any]) -> str:
    """Return the results as tables."""
    lines = [
        "| command | fault | trials | ended by it | output whole | some files, whole | none | "
        "half | inputs changed | hidden files left over | not repeatable | hung |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    columns = ("trials", "ended", "whole", "some_files", "absent", "half", "inputs_changed")
    for command, found in result.get("commands", {}).items():
        for fault in FAULTS:
            more = ("left_over", "not_repeatable", "hung")
            cells = [str(found[fault].get(name, 0)) for name in (*columns, *more)]
            lines.append("| " + " | ".join([f"`{command}`", fault, *cells]) + " |")
    if race := result.get("race"):
        lines += [
            "",
            f"Two processes wrote the same model at the same time, {race['trials']} times: one "
            f"whole model {race['whole']} times, {race['refused']} refusals, files left over "
            f"{race['left_over']} times.",
        ]
    if met := result.get("circumstances"):
        bad = [name for name, found in met.items() if not found["good"]]
        lines += [
            "",
            f"Circumstances in which commands did their work or said what was wrong, "
            f"{len(met) - len(bad)} of {len(met)}: {'; '.join(met)}."
            + (f" Not so: {'; '.join(bad)}." if bad else ""),
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", choices=[*COMMANDS, "circumstances", "race"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    for module in ("cli.main", "cli.train", "cli.apply", "estimators.autoencoder"):
        importlib.import_module(f"twofold.{module}")  # once, before the processes divide

    scratch = Path(tempfile.mkdtemp(prefix="twofold-faults-"))
    kept = json.loads(given.output.read_text()) if given.output.exists() else {}
    kept["machine"] = machine.describe(sorted(os.sched_getaffinity(0)))

    def keep(where: dict[str, Any], name: str, found: Any) -> None:
        where[name] = found
        given.output.write_text(json.dumps(kept, indent=1) + "\n")

    try:
        rows(scratch / "rows.csv")
        if run("fit", scratch):
            raise SystemExit("the model could not be fitted")
        (scratch / "out").rename(scratch / "model")
        if given.only in (None, "circumstances"):
            keep(kept, "circumstances", meet(scratch))
        for command in COMMANDS:
            if given.only in (None, command):
                where = kept.setdefault("commands", {})
                keep(where, command, measure(command, scratch, given.trials))
        if given.only in (None, "race"):
            keep(kept, "race", race(scratch, given.trials))
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
