"""What all commands share: arguments and flags, how files are read, and what is printed.

Results go to standard output, progress, warnings and errors to standard error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twofold.formatting import size

if TYPE_CHECKING:
    from twofold.data.files import Files

INTERRUPTED = 130  # what shells give a program that Ctrl-C ended: 128 + SIGINT

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of the model, as `twofold fit` wrote it.")
]
OptionalModel = Annotated[
    Path | None,
    typer.Argument(metavar="MODEL", help="Folder of the model, as `twofold fit` wrote it."),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Rows: a CSV, Parquet, .npy or .npz file, a folder of Parquet, CSV, PNG or JPEG "
        "files, or a pattern such as 'data/*.parquet' in quotes. The model's columns are picked by "
        "name.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Where the result goes: .csv, .parquet or .npy."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
CsvSafe = Annotated[
    bool,
    typer.Option(
        "--csv-safe",
        help="Put an apostrophe before names and cells of a .csv output that a spreadsheet would "
        "run as formulas: those that begin with =, +, -, @, a tab or a carriage return, except "
        "numbers.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Seed; the same seed draws the same. [default: none]", show_default=False
    ),
]

Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        help="Whether rows stay on disk and pass through memory part by part; unless said, they do "
        "where they would take more than a quarter of the memory there is.",
        show_default=False,
    ),
]
OnBadFile = Annotated[
    str,
    typer.Option(
        "--on-bad-file",
        metavar="error|skip",
        help="What to do where some of the files cannot be read or do not fit to the others: "
        "refuse them all (unless said otherwise), or leave them out.",
        show_default=False,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="auto|local|HOST:PORT",
        help="Let a Ray cluster do it: the one that this machine is part of, one of this machine "
        "alone for the time of the command, or another. Files have to be there on all of its "
        "machines.",
        show_default=False,
    ),
]
Tasks = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="How many tasks of a cluster run at a time; one per CPU, unless said. With --address, "
        "the result is a folder of Parquet files.",
        show_default=False,
    ),
]

Device = Annotated[
    str | None,
    typer.Option(
        metavar="auto|cpu|cuda",
        help="Where tasks of a cluster compute: on GPUs, as far as there are free ones (unless "
        "said), on CPUs alone, or on GPUs without fail.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class TextFlags:
    """The flags that say how text files are read, where that is not to be detected."""

    delimiter: Annotated[
        str | None,
        typer.Option(
            metavar="X", help="What separates the cells of text files. [default: detected]"
        ),
    ] = None
    encoding: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How text files store letters. [default: detected]"),
    ] = None
    decimal: Annotated[
        str | None,
        typer.Option(metavar=".|,", help="What stands before decimals. [default: detected]"),
    ] = None
    missing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Word for a missing value, besides empty cells; may be given several times. "
            "[default: detected]",
        ),
    ] = None
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether the first line of text files names the columns. [default: detected]",
            show_default=False,
        ),
    ] = None
    date_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="How dates are written: %d/%m/%Y. [default: detected]"),
    ] = None
    id: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column that names the rows. [default: none]"),
    ] = None


def files(
    source: str,
    stream: bool | None,
    on_bad_file: str,
    drop: Sequence[str] = (),
    text: TextFlags | None = None,
) -> Files:
    """Return the source and how it is read."""
    from twofold.data.files import Files

    given = {} if text is None else {f.name: getattr(text, f.name) for f in fields(TextFlags)}
    delimiter = given.get("delimiter")
    if delimiter in ("\\t", "tab"):
        given["delimiter"] = "\t"
    return Files(source, "auto" if stream is None else stream, on_bad_file, tuple(drop), **given)


def progress_printer(quiet: bool) -> Callable[[str], None] | None:
    """Return what prints lines of progress, or None for none."""
    return None if quiet else lambda text: typer.echo(text, err=True)


def print_written(what: str, output: Path) -> None:
    """Print what is in a file or a folder, and how large it is."""
    from twofold.data.addresses import shown, size_of

    typer.echo(f"{shown(output)}: {what}, {size(size_of(output))}")


@contextmanager
def plain_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect warnings, and show each as one line at the end instead of in Python's format."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning)
        try:
            yield caught
        finally:
            for text in dict.fromkeys(str(warning.message) for warning in caught):
                typer.echo(f"warning: {text}", err=True)
