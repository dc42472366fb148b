"""The build: what is compiled, and what happens where nothing can be."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from twofold.nn.native import build

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


def test_a_library_of_other_sources_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(*flags: str, target: Path) -> None:
        assert "-shared" in flags
        target.write_bytes(b"library")

    module = copied(tmp_path)
    monkeypatch.setattr(module, "compile_with", compiled)
    stale = module.FOLDER / "libtwofold-0123456789ab.so"
    stale.touch()
    made = module.compile_library()
    assert made == module.path()
    assert made.name == build.path().name
    assert not stale.exists()
    assert [path.read_bytes() for path in module.FOLDER.glob("libtwofold*")] == [b"library"]


def test_other_sources_have_another_library(tmp_path: Path) -> None:
    module = copied(tmp_path)
    before = module.path()
    source = module.FOLDER / "threads.c"
    source.write_text(source.read_text() + "\n")
    assert module.path() != before


def built(folder: Path, compiler: str | None) -> Path:
    """The wheel of a copy of the tree, in which nothing is compiled yet."""
    tree = folder / "tree"
    tree.mkdir()
    for name in ("src", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tree / name)
    for library in tree.rglob("*.so"):
        library.unlink()
    environment = dict(os.environ) | ({} if compiler is None else {"CC": compiler})
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=tree,
        env=environment,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"), None)


def libraries(wheel: Path) -> list[str]:
    return [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]


def test_a_wheel_is_for_this_platform(wheel: Path) -> None:
    assert len(libraries(wheel)) == 1
    assert not wheel.name.endswith("-py3-none-any.whl")


def test_without_a_compiler_a_wheel_is_pure(tmp_path: Path) -> None:
    wheel = built(tmp_path, "false")
    assert not libraries(wheel)
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.timeout(120)
def test_a_wheel_installs_and_runs_the_first_lines_of_the_readme(
    wheel: Path, tmp_path: Path
) -> None:
    """Into a new environment, which finds the packages that it depends on in this one."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel],
        check=True,
        env=os.environ | {"PIP_NO_INDEX": "1"},
    )
    (packages,) = environment.rglob("site-packages")
    # Paths in such a file are searched, but their own are not read: twofold is the wheel's.
    (packages / "present.pth").write_text(sysconfig.get_path("purelib") + "\n")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = readme.partition("```python\n")[2].partition("```")[0]
    script = (
        f"import sys, twofold\nassert twofold.__file__.startswith({str(environment)!r})\n{lines}\n"
        "assert 'torch._dynamo' not in sys.modules, 'a compiler that takes seconds to import'\n"
    )
    done = subprocess.run(
        [python, "-c", script],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "W1 transposed (shared)" in done.stdout
