"""The site names every public object and page, and notebooks and containers are in order."""

from __future__ import annotations

import ast
import importlib
import json
import re
import tomllib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from twofold.errors import LosesToPCAWarning

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PUBLIC = ("twofold", "twofold.nn", "twofold.training", "twofold.inference", "twofold.data")
NOT_OBJECTS = {"twofold.data.images", "twofold.callbacks", "twofold.training.callbacks"}


class _Settings(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python objects."""


def site() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(
        (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Settings
    )
    return found


def pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [
        page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages(part)
    ]


def documented() -> set[str]:
    """The objects of the reference, each by an address that can be imported."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference").glob("*.md")]
    named = set(re.findall(r"^::: ([\w.]+)$", "\n".join(texts), re.MULTILINE))
    return {name.replace("twofold.callbacks", "twofold.training.callbacks") for name in named}


def identities(name: str) -> list[int]:
    """The object of that name, and of a module also what is in it."""
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    return (
        [id(found), *map(id, vars(found).values())]
        if isinstance(found, ModuleType)
        else [id(found)]
    )


def test_the_reference_names_every_public_object() -> None:
    public = {
        f"{module}.{name}" for module in PUBLIC for name in importlib.import_module(module).__all__
    }
    known = {one for name in documented() for one in identities(name)}
    missing = {name for name in public - NOT_OBJECTS if identities(name)[0] not in known}
    assert not missing, f"name these in docs/reference/: {', '.join(sorted(missing))}"


def test_the_site_lists_every_page() -> None:
    listed = set(pages(site()["nav"]))
    there = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert there | {"index.md", "changelog.md"} == listed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    shown = []
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        assert not cell["outputs"], "notebooks are kept without outputs"
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        where = f"{path.name}, cell {number}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LosesToPCAWarning)  # a few epochs each
            exec(compile(tree, where, "exec"), namespace)
            if last is not None:
                shown.append(eval(compile(ast.Expression(last.value), where, "eval"), namespace))
    rich = [
        v for v in shown if isinstance(v, Figure) or "<table" in getattr(v, "_repr_html_", str)()
    ]
    assert len(rich) >= 2, "a notebook shows figures and tables"


def test_the_release_builds_what_it_publishes() -> None:
    flow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    assert {"wheels", "sdist", "publish"} <= set(flow["jobs"])
    assert set(flow["jobs"]["publish"]["needs"]) == {"wheels", "sdist"}
    assert flow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    for job in flow["jobs"].values():
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step


def test_hooks_run_what_make_check_runs() -> None:
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = {hook["entry"] for repo in settings["repos"] for hook in repo["hooks"]}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert entries
    for entry in entries:
        assert entry.removeprefix(".venv/bin/") in makefile


def test_containers_are_in_order() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    words = [line.split()[0] for line in lines if line and not line.startswith(("#", " "))]
    assert words[0] == "FROM"
    assert {"USER", "HEALTHCHECK", "ENTRYPOINT"} <= set(words)
    for line in lines:
        for name in re.findall(r"^COPY ([^-].*) \S+$", line):
            assert all((ROOT / part).exists() for part in name.split()), line
    settings = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert settings["postCreateCommand"] == "make check"


def test_metadata_names_the_versions_that_are_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = [c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c]
    assert versions[0] == project["requires-python"].removeprefix(">=")
    assert {"docs", "test", "all"} <= set(project["optional-dependencies"])
