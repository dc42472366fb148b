"""What the site needs besides its pages: README as first page, and links that lead out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+((?:src|bench|tests)/[^)]*|[A-Z]+\.md)\)")


def on_files(files: Files, config: Any) -> Files:
    """Make the first page of README, and a page of the changelog."""
    for name, page in (("README.md", "index.md"), ("CHANGELOG.md", "changelog.md")):
        text = (ROOT / name).read_text(encoding="utf-8")
        text = text.replace("](docs/", "](").replace("](CHANGELOG.md)", "](changelog.md)")
        text = re.sub(r"\[([^\]]+)\]\((?:[A-Z]+\.md|notebooks)\)", r"\1", text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to README lead to the first page, and name other files outside of the site."""
    markdown = markdown.replace("](../README.md", "](index.md")
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Give the theme's search dialog a name, for those who hear the page."""
    return output.replace('role="dialog">', 'role="dialog" aria-label="Search">')
