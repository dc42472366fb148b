"""Put the tables and pictures of the README and of docs/ together from the files with the figures.

    twofold demo --output twofold-demo && python bench/readme.py --demo twofold-demo
    make bench && make quality && python bench/readme.py

Nothing is measured here, and a table whose figures are not there stays as it is. `--check` changes
nothing and fails where a page says anything else than the files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attack
import columns
import defaults
import everyday
import explorer
import faults
import fuzz
import imputation
import quality_table
import s3
import samples
import scaling
import service
import stream
import table

from twofold.cli.demo import page as demo_page

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "images"


# Page -> table -> the results it is made from, and what makes it.
PAGES: dict[Path, dict[str, tuple[str, Callable[[dict[str, Any]], str]]]] = {
    README: {"demo": ("demo", demo_page.readme_table)},
    ROOT / "docs" / "performance.md": {
        "twins": ("family", quality_table.table("twins")),
        "speed": ("speed", table.markdown),
    },
    ROOT / "docs" / "anomaly.md": {
        name: ("quality", quality_table.table(name))
        for name in (
            "detection",
            "adbench",
            "odds",
            "ablation",
            "false alarms",
            "planted errors",
            "large",
            "measured on",
        )
    },
    ROOT / "docs" / "imputation.md": {
        name: ("quality", quality_table.table(name))
        for name in ("imputation", "round trip", "measured on")
    }
    | {"small tables": ("imputation", imputation.markdown)},
    ROOT / "docs" / "defaults.md": {
        "defaults": ("defaults", defaults.markdown),
        "columns": ("columns", columns.markdown),
        "samples": ("samples", samples.markdown),
    },
    ROOT / "docs" / "family.md": {
        name: ("family", quality_table.table(name)) for name in ("family", "ordered", "family made")
    },
    ROOT / "docs" / "scale-out.md": {
        "stream": ("stream", stream.markdown),
        "requests": ("s3", s3.table),
        "start-up": ("scaling", scaling.starts),
        "rates": ("scaling", scaling.measured),
        "scaling": ("scaling", scaling.table),
    },
    ROOT / "docs" / "service.md": {
        "service": ("service", service.markdown),
        "attack": ("attack", attack.markdown),
        "fuzz": ("fuzz", fuzz.markdown),
    },
    ROOT / "docs" / "files.md": {
        "everyday": ("everyday", everyday.markdown),
        "faults": ("faults", faults.markdown),
    },
    ROOT / "docs" / "explorer.md": {"explorer": ("explorer", explorer.markdown)},
}


def insert(page: str, name: str, text: str, where: str = "the README") -> str:
    """Return `page` with `text` between the two markers called `name`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed or begin in after or end in after:
        raise SystemExit(f"{where} needs {begin!r} and, below it, {end!r}, once each")
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


def filled(path: Path) -> str:
    """Return what the page ought to say."""
    page = path.read_text(encoding="utf-8")
    for name, (results, make) in PAGES[path].items():
        source = RESULTS / f"{results}.json"
        if not source.exists():
            continue
        figures = json.loads(source.read_text(encoding="utf-8"))
        if results not in ("quality", "family") or quality_table.available(figures, name):
            page = insert(page, f"{name} table", make(figures), path.name)
    return page


def take_over(folder: Path) -> None:
    """Keep the figures and the picture of a finished demo."""
    for directory in (RESULTS, PICTURES):
        directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "figures.json", RESULTS / "demo.json")
    shutil.copyfile(folder / "reconstructions.png", PICTURES / "reconstructions.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Regenerate the tables of README and docs.")
    parser.add_argument("--demo", type=Path, help="take the figures over from this demo's folder")
    parser.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args()
    if arguments.demo:
        take_over(arguments.demo)
    different = []
    for path in PAGES:
        page = filled(path)
        if not arguments.check:
            path.write_text(page, encoding="utf-8")
        elif page != path.read_text(encoding="utf-8"):
            different.append(str(path.relative_to(ROOT)))
    if different:
        sys.exit(
            f"tables of {', '.join(different)} are not those of bench/results: run python "
            f"bench/readme.py"
        )


if __name__ == "__main__":
    main()
