"""What was measured before, so that an interrupted run goes on where it was.

A finished method is one line of a file. Its key is a hash of what the result hangs on: the rows,
the seed, the method with its options and its own code, and the versions of what it runs on; for
twofold's methods, twofold's own source. The row's name is not in it, so that equal trials of two
rows are run once.
"""

from __future__ import annotations

import ast
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

# They, and what they alone need, show what was computed and compute nothing.
_ONLY_SHOW = {"figures", "progress", "sharing"}


def key(*parts: Any) -> str:
    """Return the hash of whatever JSON can write."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Cache:
    """Finished results on disk, one JSON line each; of equal keys the last line counts.

    The folder keeps itself out of version control.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        self.path = folder / "quality.jsonl"
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        if text and not text.endswith("\n"):
            self._append("\n")  # a line that a power cut left unfinished stays alone
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = entry
            except (json.JSONDecodeError, KeyError, TypeError):
                continue

    def get(self, name: str) -> dict[str, Any] | None:
        return self._known.get(name)

    def add(self, name: str, entry: dict[str, Any]) -> None:
        with self._lock:
            self._known[name] = entry
            self._append(json.dumps({"key": name, **entry}) + "\n")

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


class Source:
    """A package's code as it was when the run began, and whether it still is."""

    def __init__(self, package: Path, start: str) -> None:
        self._package, self._start = package, start
        self._lock = threading.Lock()
        self._stamps = self._read_stamps()
        self.hash = source_hash(package, start)

    def unchanged(self) -> bool:
        with self._lock:
            stamps = self._read_stamps()
            if stamps != self._stamps:
                if source_hash(self._package, self._start) != self.hash:
                    return False
                self._stamps = stamps
            return True

    def _read_stamps(self) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in self._package.rglob("*.py")}


def source_hash(package: Path, start: str) -> str:
    """Return the hash of a module and of every module of its package that it needs.

    Comments, docstrings and layout do not count.
    """
    sha = hashlib.sha256()
    for name in sorted(needed(package, start)):
        sha.update(f"{name}\n{_bare(ast.parse(_path(package, name).read_text()))}\n".encode())
    return sha.hexdigest()


def needed(package: Path, start: str) -> set[str]:
    """Return `start` and the modules of its package that it imports, and those that they import."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        name = ahead.pop()
        path = _path(package, name)
        if name in found or name in _ONLY_SHOW or not path.exists():
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            inside = (name.partition(".") for name in names)
            ahead += [name for top, _, name in inside if top == package.name]
    return found


def _path(package: Path, name: str) -> Path:
    return package.joinpath(*name.split(".")).with_suffix(".py")


def _bare(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and isinstance(node.body[0] if node.body else None, ast.Expr)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
