"""The documentation runs (code, command lines, docstrings) and leaves nothing out."""

from __future__ import annotations

import doctest
import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import twofold
from twofold import datasets
from twofold.cli.main import app
from twofold.errors import DatasetUnavailable, MissingExtraError
from twofold.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "twofold"
PAGES = sorted(p for p in (ROOT / "README.md", *ROOT.glob("docs/*.md")) if p.exists())
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
)
BLOCK = re.compile(
    r"^(?:<!-- not run:(?P<reason>(?:(?!-->).)*)-->\s*\n)?"
    r"^(?P<fence>```+)(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page: language, text, first line, and why it is not run."""

    language: str
    code: str
    line: int
    reason: str | None

    def commands(self) -> Iterator[list[str]]:
        """The arguments of every `twofold ...` line; in a console block, lines after a `$`."""
        for line in self.code.replace("\\\n", " ").splitlines():
            if self.language == "console" and not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["twofold"]:
                yield words[1:]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["code"], text.count("\n", 0, m.start("code")), m["reason"])
        for m in BLOCK.finditer(text)
    ]


def run_python(page: Path, block: Block, namespace: dict[str, Any]) -> None:
    if ">>>" in block.code:
        run_examples(block.code, page.name, block.line, namespace)
    else:
        # Empty lines in front, so that a traceback shows the line of the page.
        exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)


def run_examples(text: str, name: str, line: int, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(text, namespace, name, name, line)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(test, out=report.append, clear_globs=False)
    namespace.update(test.globs)
    assert not runner.failures, "".join(report)


def run_command(page: Path, block: Block, arguments: list[str]) -> None:
    where = f"{page.name}:{block.line}: twofold {shlex.join(arguments)}"
    assert not {"|", ">", ">>", "<", "&&", "&", ";"} & set(arguments), f"{where}: needs a shell"
    result = CliRunner().invoke(app, arguments)
    if "was not found anywhere" in result.output:
        raise DatasetUnavailable(result.output)
    assert result.exit_code == 0, f"{where}\n{result.output}\n{result.exception!r}"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder for documentation that runs, and no way to mirrors from it."""
    sources = datasets._sources
    monkeypatch.setattr(datasets, "_sources", lambda name, cache, _: sources(name, cache, False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, scratch: Path) -> None:
    # One page is one session: a later block may use what an earlier one made.
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for block in blocks(page):
            if block.reason is not None:
                continue
            if block.language in ("python", "pycon"):
                run_python(page, block, namespace)
            elif block.language in ("console", "sh"):
                for arguments in block.commands():
                    run_command(page, block, arguments)
    except DatasetUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_block_that_is_not_run_has_a_reason(page: Path) -> None:
    silent = [
        block.line
        for block in blocks(page)
        if block.reason is not None and not block.reason.strip()
    ]
    assert not silent, f"{page.name}: say why the blocks at lines {silent} are not run"


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module: str, scratch: Path) -> None:
    try:
        found = doctest.DocTestFinder().find(importlib.import_module(module))
    except MissingExtraError as error:
        pytest.skip(str(error))
    for test in found:
        if test.examples:
            run_examples(test.docstring, test.name, test.lineno or 0, test.globs)


def cli_commands() -> dict[str, Any]:
    return dict(typer.main.get_command(app).commands)


def test_every_command_is_documented() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in cli_commands() if not re.search(rf"\btwofold {name}\b", text)]
    assert not missing, f"show these commands in README.md or docs/: {', '.join(missing)}"


def test_every_route_is_documented() -> None:
    pytest.importorskip("starlette", reason="starlette is not installed")
    from twofold.service import create_app

    text = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(?:GET|POST) (/[\w.]+)` \|", text, flags=re.MULTILINE))
    x = np.outer(np.random.default_rng(0).normal(size=100), [1.0, 2.0, 3.0])
    ae = twofold.Autoencoder(n_components=1, hidden_layers=(), pretraining="pca").fit(x)
    assert named == set(create_app(ae).state.service.document()["paths"]) | {"/openapi.json"}


def test_every_command_and_parameter_has_help() -> None:
    silent = []
    for name, command in cli_commands().items():
        silent += [] if command.help else [name]
        silent += [f"{name} {p.name}" for p in command.params if not getattr(p, "help", None)]
    assert not silent, f"say in a sentence what these are for: {', '.join(silent)}"


def test_every_option_is_documented() -> None:
    page = ROOT / "docs" / "options.md"
    if not page.exists():
        pytest.skip("docs/options.md is not written yet")
    text = page.read_text(encoding="utf-8")
    missing = [name for name in OPTIONS if f"`{name}`" not in text]
    assert not missing, f"docs/options.md leaves out {', '.join(missing)}"


def test_changelog_names_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{twofold.__version__}]" in text


def test_the_readme_says_what_the_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "bench" / "readme.py"
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr(sys, "argv", [str(script), "--check"])
    for name in (path.stem for path in script.parent.glob("*.py")):  # its modules, gone afterwards
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        del sys.modules[name]
    runpy.run_path(str(script), run_name="__main__")
