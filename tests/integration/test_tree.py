"""The tree: few modules at its root, none too long, and a test file of its name for each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "twofold"
TESTS = ROOT / "tests"
LONGEST, AT_THE_ROOT, MOST_PARAMETERS = 650, 8, 6
PUBLIC = {"fit"}  # of the estimators: their parameters are what users asked for
MODULES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")


def test_few_modules_lie_at_the_root() -> None:
    found = sorted(path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py")
    assert len(found) <= AT_THE_ROOT, f"put these into rooms: {', '.join(found)}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_no_module_is_too_long(module: Path) -> None:
    lines = (PACKAGE / module).read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{module} has {lines} lines: split it by nouns of the field"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_each_module_has_a_test_file_of_its_name(module: Path) -> None:
    place = TESTS / module.parent / f"test_{module.stem}.py"
    assert place.is_file(), f"write {place.relative_to(ROOT)}"


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.parts[0] in ("training", "estimators")], ids=str
)
def test_functions_take_few_parameters(module: Path) -> None:
    many = []
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name not in PUBLIC:
            every = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            if len([a for a in every if a.arg not in ("self", "cls")]) > MOST_PARAMETERS:
                many.append(f"{module}:{node.lineno}: {node.name}")
    assert not many, f"hand these an object that holds what belongs together: {', '.join(many)}"
