"""Put the README's tables and pictures together from the files that hold the figures.

    twofold demo --output twofold-demo && python bench/readme.py --demo twofold-demo
    make bench && python bench/readme.py

Nothing is measured here. `--check` changes nothing and fails where the README says anything else
than the files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import table

from twofold import demo_page

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "images"


def insert(page: str, name: str, text: str) -> str:
    """Return `page` with `text` between the two markers called `name`."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed or begin in after or end in after:
        raise SystemExit(f"the README needs {begin!r} and, below it, {end!r}, once each")
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


def readme() -> str:
    """Return what the README ought to say."""
    page = README.read_text(encoding="utf-8")
    for name, make in (("demo", demo_page.readme_table), ("speed", table.markdown)):
        source = RESULTS / f"{name}.json"
        if source.exists():
            figures = json.loads(source.read_text(encoding="utf-8"))
            page = insert(page, f"{name} table", make(figures))
    return page


def take_over(folder: Path) -> None:
    """Keep the figures and the picture of a finished demo."""
    for directory in (RESULTS, PICTURES):
        directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "figures.json", RESULTS / "demo.json")
    shutil.copyfile(folder / "reconstructions.png", PICTURES / "reconstructions.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Regenerate the README's tables and pictures.")
    parser.add_argument("--demo", type=Path, help="take the figures over from this demo's folder")
    parser.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args()
    if arguments.demo:
        take_over(arguments.demo)
    page = readme()
    if not arguments.check:
        README.write_text(page, encoding="utf-8")
    elif page != README.read_text(encoding="utf-8"):
        sys.exit("the README's tables are not those of bench/results: run python bench/readme.py")


if __name__ == "__main__":
    main()
