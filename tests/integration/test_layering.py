"""Imports go down from room to room, and `import twofold` waits for nothing heavy."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "twofold"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
# Packages whose import takes long: worth postponing until a function needs them.
HEAVY = {"torch", "sklearn", "numpy", "scipy", "matplotlib", "pyarrow", "jinja2", "rich", "PIL"}
IMPORT_NAMES = {"pillow": "PIL", "mlflow-skinny": "mlflow"}


def _imports(node: ast.AST, inside: bool = False) -> Iterator[tuple[str, bool, int]]:
    """Every module that the source names, whether within a function, and its line."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, inside, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, f"line {child.lineno}: relative import"
            yield child.module, inside, child.lineno
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue  # read by type checkers alone
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, inside or function)


def _extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line for lines in project["optional-dependencies"].values() for line in lines]
    names = {line.split(">")[0].split("[")[0].strip().lower() for line in lines}
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_functions_import_only_what_is_optional_or_heavy(path: Path) -> None:
    allowed = _extras() | HEAVY | {"twofold"}
    for name, inside, line in _imports(ast.parse(path.read_text(encoding="utf-8"))):
        top = name.partition(".")[0]
        late = inside and top not in allowed
        assert not late, f"{path.name}:{line}: import {name} belongs at the top of the module"


def _python(code: str) -> str:
    # A process of its own, away from what pytest has imported and from the coverage of a caller.
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize("module", ["twofold", "twofold.errors", "twofold.cli.main"])
def test_import_loads_nothing_heavy(module: str) -> None:
    heavy = {"torch", "sklearn", "numpy", "pandas", "matplotlib", "pyarrow"}
    loaded = set(_python(f"import sys, {module}; print(*sys.modules)").split())
    assert not heavy & loaded


def test_import_is_quick() -> None:
    code = "from time import perf_counter as now; t = now(); import twofold; print(now() - t)"
    # The least of several: on a shared machine only the quickest run says what the import costs.
    assert min(float(_python(code)) for _ in range(5)) < 0.1


def test_help_answers() -> None:
    command = Path(sys.executable).with_name("twofold")
    answer = subprocess.run(
        [command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert answer.returncode == 0, answer.stderr
    assert "Usage: twofold" in answer.stdout
