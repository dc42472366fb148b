"""Draws the pictures of the documentation anew: runs each page's Python, and takes what it drew.

    python bench/pictures.py                every page whose code writes a picture
    python bench/pictures.py first-model    this page

A picture belongs to a page that shows `images/NAME.png` and whose code writes `NAME.png`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"\(images/([\w.-]+\.png)\)")


def draw(page: Path) -> list[str]:
    """Run the page's code in an empty folder; return the names of the pictures that it shows."""
    text = page.read_text(encoding="utf-8")
    code = "\n".join(PYTHON.findall(text))
    wanted = [name for name in SHOWN.findall(text) if name in code]
    if not wanted:
        return []
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            exec(compile(code, str(page), "exec"), {})
            pictures = {name: Path(name).read_bytes() for name in wanted}
        finally:
            os.chdir(before)
    for name, content in pictures.items():
        part = DOCS / "images" / f"{name}.part"
        part.write_bytes(content)
        os.replace(part, DOCS / "images" / name)
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("pages", nargs="*", help="names of pages in docs/, without .md")
    names = parser.parse_args().pages or sorted(page.stem for page in DOCS.glob("*.md"))
    warnings.simplefilter("error")
    for name in names:
        for picture in draw(DOCS / f"{name}.md"):
            print(f"docs/images/{picture}", file=sys.stderr)


if __name__ == "__main__":
    main()
