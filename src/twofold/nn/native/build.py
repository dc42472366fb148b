"""Compiles the native library: one copy of the code per instruction set of this kind of processor.

The package's build calls it (`hatch_build.py`), and so does `make`. It needs a C compiler that
understands GCC's vector extensions (GCC or Clang, or what the environment variable `CC` names), and
nothing of the package: it runs before the package is there.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
_FLAGS = ("-std=gnu11", "-fPIC", "-Wall", "-Wextra", "-Wno-psabi")
# Infinities and NaN keep their meaning. What these give up are flags that nobody reads, and a
# rounding between products and sums.
_ARITHMETIC = ("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_AVX512 = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512"
_X86 = {"baseline": "", "avx2": "-mavx2 -mfma", "avx512": _AVX512}
_SETS = {"x86_64": _X86, "aarch64": {"neon": ""}}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


class NoCompilerError(Exception):
    """The library cannot be compiled here; the text says why."""


def path() -> Path:
    """Return where the library belongs that is compiled from the C files in this folder.

    They are part of its name, so that no library of other sources is ever loaded.
    """
    sources = hashlib.sha256()
    for file in sorted([*FOLDER.glob("*.c"), *FOLDER.glob("*.h")]):
        sources.update(file.name.encode() + file.read_bytes())
    return FOLDER / f"libtwofold-{sources.hexdigest()[:12]}.so"


def compile_library() -> Path:
    """Compile the library, put it into its place of others, and return that.

    Raises
    ------
    NoCompilerError
        If there is no compiler, or it does not understand the code.
    """
    target = path()
    # Moved into its place whole: whoever looks meanwhile finds no library or all of it.
    made = target.with_suffix(f".{os.getpid()}")
    try:
        compile_with("-O3", *_ARITHMETIC, "-fvisibility=hidden", "-shared", target=made)
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)
    for other in FOLDER.glob("libtwofold-*.so"):
        if other != target:
            other.unlink(missing_ok=True)
    return target


def compile_with(*flags: str, target: Path, more: Sequence[Path] = ()) -> None:
    """Compile the code and `more` C files with these flags, and link them all to `target`.

    Raises
    ------
    NoCompilerError
        If there is no compiler, or it does not understand the code.
    """
    if sys.platform == "win32":
        raise NoCompilerError("there is no native step on Windows")
    command = [*_compiler(), *_FLAGS, *flags, f"-I{FOLDER}"]
    machine = platform.machine().lower()
    sets = _SETS.get(_ALIASES.get(machine, machine), {"baseline": ""})
    jobs = [(FOLDER / "step.c", own.split()) for own in sets.values()]
    jobs += [(file, []) for file in (FOLDER / "dispatch.c", FOLDER / "threads.c", *more)]
    with tempfile.TemporaryDirectory() as folder:
        objects = [str(Path(folder, f"{number}.o")) for number in range(len(jobs))]
        _run_all(
            [
                [*command, *own, "-c", str(file), "-o", made]
                for (file, own), made in zip(jobs, objects, strict=True)
            ]
        )
        _run_all([[*command, *objects, "-o", str(target), "-lm", "-lpthread"]])


def _compiler() -> list[str]:
    chosen = os.environ.get("CC")
    for candidate in [chosen] if chosen else ["cc", "gcc", "clang"]:
        words = shlex.split(candidate)
        if words and shutil.which(words[0]):
            return words
    raise NoCompilerError("there is no C compiler")


def _run_all(commands: list[list[str]]) -> None:
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    outputs = [process.communicate()[0] for process in processes]
    for command, process, output in zip(commands, processes, outputs, strict=True):
        if process.returncode:
            last = (output.strip().splitlines() or ["no message"])[-1]
            raise NoCompilerError(f"{command[0]} failed with status {process.returncode}: {last}")


if __name__ == "__main__":
    try:
        compile_library()
    except NoCompilerError as error:
        sys.stderr.write(f"The native step was not compiled: {error}.\n")
