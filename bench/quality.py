"""How good twofold's scores, fillings and explanations are, against peers, in one run.

    python bench/quality.py                     everything, to bench/results/quality.json
    python bench/quality.py --quick             little of each, to a temporary file
    python bench/quality.py --only odds,planted
    python bench/quality.py --table
    python bench/quality.py --suite family      each kind of autoencoder on images
    python bench/quality.py --ready             run nothing; sum up what is finished so far
    python bench/quality.py --only odds --update  put this row into the results, beside the others
    python bench/quality.py --only odds --update --own  twofold's methods alone; peers' figures stay

bench/README.md says what each row means. What is finished is kept in a cache, so that an
interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import machine
import pool
import quality_table
from cache import Cache, Source
from rows import FAMILY, ROWS
from sources import Missing
from trials import Row, Settings

HERE = Path(__file__).parent
ROOT = HERE.parent
SUITES = {"quality": ROWS, "family": FAMILY}
PACKAGES = ("twofold", "torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(
    crew: pool.Pool,
    rows: Mapping[str, Row],
    names: list[str],
    settings: Settings,
    ready: bool = False,
    own: bool = False,
) -> dict[str, Any]:
    """Run what is not in the cache, and sum up every row asked for.

    Of what is `ready` alone, nothing is run: the summary is of the trials that are in the cache.
    With `own`, it is of the methods that twofold computes.
    """
    planned: dict[str, list[pool.Task]] = {}
    found: dict[str, Any] = {}
    for name in names:
        try:
            planned[name] = crew.plan(rows[name].trials(settings))
            if own:
                planned[name] = [t for t in planned[name] if t.uses == "twofold"]
            if ready:
                planned[name] = [t for t in planned[name] if crew.cache.get(t.key) is not None]
                if not planned[name]:
                    raise Missing("not measured yet")
        except Missing as reason:
            found[name] = {"skipped": str(reason)}
            say(f"{name}: skipped ({reason})")
        else:
            fresh = sum(crew.cache.get(task.key) is None for task in planned[name])
            say(f"{name}: {len(planned[name])} to have, {fresh} of them to run")
    crew.run([task for tasks in planned.values() for task in tasks])
    for name, tasks in planned.items():
        found[name] = rows[name].summary([crew.entry(task) for task in tasks])
    return {name: found[name] for name in names}


def describe(cores: list[int], bases: dict[str, str]) -> dict[str, Any]:
    """Return when, on what machine and with which versions this was measured."""
    pins = (HERE / "constraints-pyod.txt").read_text(encoding="utf-8")
    return {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(cores),
        "versions": {
            **{name: metadata.version(name) for name in PACKAGES},
            **dict(re.findall(r"^(pyod)==(\S+)", pins, flags=re.MULTILINE)),
        },
        "source": bases["twofold"],
    }


def updated(before: dict[str, Any], now: dict[str, Any], own: bool = False) -> dict[str, Any]:
    """Return the results of before with the rows measured now in their places.

    Every row then says when, on what and of which source it was measured. With `own`, only
    twofold's methods were: the others' figures, which are of the same rows, stay in their places.
    """
    rows: dict[str, Any] = {}
    for result in (before, now):
        measured = {
            "made": result["made"],
            "processor": result["machine"]["processor"],
            "source": result["source"],
        }
        for name, row in result["rows"].items():
            if "skipped" in row:
                continue
            if own and result is now and name in rows:
                peers = rows[name].get("peers_measured", rows[name]["measured"])
                both = {**_merged(rows[name], row), "peers_measured": peers}
                rows[name] = {**both, "measured": measured}
            else:
                rows[name] = {"measured": measured, **row}
    return {**now, "rows": rows}


def _merged(before: Any, now: Any) -> Any:
    """Return what is there now, in dictionaries next to what was there before alone."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return now
    return {**before, **{name: _merged(before.get(name), part) for name, part in now.items()}}


def rounded(value: Any) -> Any:
    """Return the same with figures of six digits."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def as_text(result: dict[str, Any]) -> str:
    """Return JSON with lists of figures on one line each."""
    text = json.dumps(rounded(result), indent=1)
    flat = re.sub(r"\[\s+([^][{}\"]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    return flat + "\n"


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}; choose from {', '.join(known)}")
        return [name for name in known if name in names]

    return parse


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--suite", choices=SUITES, default="quality", help="which rows, and which results file")
    known = tuple(name for suite in SUITES.values() for name in suite)
    add("--only", type=_names(known), help=f"rows to measure, of {', '.join(known)}")
    add("--quick", action="store_true", help="small sets and one seed, to see that everything runs")
    add("--seeds", type=_positive, help="seeds per row, in place of each row's own number")
    add("--ready", action="store_true", help="run nothing: sum up what the cache holds")
    add("--jobs", type=_positive, default=2, help="trials at a time, one thread each (default 2)")
    add("--cache", type=Path, help="where finished results are kept (default .bench-cache)")
    add("--venvs", type=Path, help="where peers' environments are kept (default .venv-bench)")
    add("--output", type=Path, help="the JSON file; a part of the bench goes to a temporary one")
    add("--update", action="store_true", help="put the rows into the results file, beside others")
    add("--own", action="store_true", help="with --update: twofold's methods alone, others stay")
    add("--table", action="store_true", help="measure nothing; print the tables of the results")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    rows_of_suite = SUITES[arguments.suite]
    results = HERE / "results" / f"{arguments.suite}.json"
    if arguments.table:
        source = arguments.output or results
        if not source.exists():
            sys.exit(f"{source} is not there yet: run make quality")
        result = json.loads(source.read_text(encoding="utf-8"))
        print(quality_table.markdown(result))
        return

    complete = not (arguments.quick or arguments.only or arguments.seeds or arguments.own)
    begun = time.monotonic()
    cores = sorted(os.sched_getaffinity(0))
    cache = Cache((arguments.cache or ROOT / ".bench-cache").absolute())
    source = Source(ROOT / "src" / "twofold", "autoencoder")
    bases = pool.bases(ROOT, source)
    venvs = (arguments.venvs or ROOT / ".venv-bench").absolute()
    venvs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as folder:
        crew = pool.Pool(cache, venvs, Path(folder), arguments.jobs, len(cores), source, bases, say)
        settings = Settings(arguments.quick, arguments.seeds)
        names = arguments.only or list(rows_of_suite)
        try:
            rows = run(crew, rows_of_suite, names, settings, arguments.ready, arguments.own)
        except KeyboardInterrupt:
            crew.stop()
            sys.exit(f"interrupted; what is finished is in {cache.path}, and the same call goes on")
    result = {**describe(cores, bases), "quick": arguments.quick, "rows": rows}
    output = arguments.output
    if arguments.update and not arguments.quick:
        output = output or results
        before = json.loads(output.read_text(encoding="utf-8"))
        known = before["rows"].items()
        before["rows"] = {name: row for name, row in known if name in rows_of_suite}
        result = updated(before, result, arguments.own)
    if output is None:
        scratch = Path(tempfile.gettempdir()) / "twofold-bench" / results.name
        skipped = any("skipped" in row for row in rows.values())
        output = results if complete and not skipped else scratch
    write_atomically(output, as_text(result))
    say(f"wrote {output} after {(time.monotonic() - begun) / 60:.0f} min")
    print(quality_table.markdown(result))


if __name__ == "__main__":
    main()
