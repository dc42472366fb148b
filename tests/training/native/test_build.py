"""The build: what is compiled, and what happens where nothing can be."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from twofold.training.native import build

ROOT = Path(__file__).resolve().parents[3]


def copied(folder: Path) -> ModuleType:
    """The build module in a copy of its folder, so that the library in use stays as it is."""
    native = folder / "native"
    shutil.copytree(build.FOLDER, native, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    spec = importlib.util.spec_from_file_location("copied_build", native / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("false", "false failed with status 1"), ("no-such-compiler", "there is no C compiler")],
)
def test_without_a_compiler_it_says_so_and_leaves_nothing(
    compiler: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    module = copied(tmp_path)
    with pytest.raises(module.NoCompilerError, match=reason):
        module.compile_library()
    assert not list(module.FOLDER.glob("libtwofold*"))


def test_a_library_of_other_sources_goes(tmp_path: Path) -> None:
    module = copied(tmp_path)
    stale = module.FOLDER / "libtwofold-0123456789ab.so"
    stale.touch()
    made = module.compile_library()
    assert made == module.path()
    assert made.name == build.path().name
    assert not stale.exists()
    assert made.stat().st_size > 10_000


def test_other_sources_have_another_library(tmp_path: Path) -> None:
    module = copied(tmp_path)
    before = module.path()
    source = module.FOLDER / "threads.c"
    source.write_text(source.read_text() + "\n")
    assert module.path() != before


@pytest.mark.parametrize("compiler", [None, "false"], ids=["compiler", "no compiler"])
def test_a_wheel_is_for_this_platform_or_pure(compiler: str | None, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("src", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        (tree).mkdir(exist_ok=True)
        copy(ROOT / name, tree / name)
    for library in tree.rglob("*.so"):
        library.unlink()
    environment = dict(os.environ) | ({} if compiler is None else {"CC": compiler})
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=tree,
        env=environment,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    libraries = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    assert len(libraries) == (compiler is None)
    assert wheel.name.endswith("-py3-none-any.whl") == (compiler is not None)
