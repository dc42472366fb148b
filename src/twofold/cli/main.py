"""The command line: one command per verb, with the estimator's options, names and error texts.

Torch and the rest are imported inside the commands, so that `twofold --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from twofold import __version__
from twofold.cli import apply, show, train
from twofold.cli.common import INTERRUPTED
from twofold.errors import TwofoldError


class _Commands(TyperGroup):
    """Turns what goes wrong in a command into one message and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TwofoldError as error:
            _fail(str(error))
        except BrokenPipeError:  # `twofold info model | head`: the reader has seen enough
            raise
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}{error.strerror or error}.")
        except KeyboardInterrupt:
            typer.echo("\nInterrupted; nothing was written.", err=True)
            raise typer.Exit(INTERRUPTED) from None


def _fail(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(2)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; what the `twofold` command starts."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed: `twofold ... >&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            # Names and cells may hold letters that the terminal's encoding does not have.
            stream.reconfigure(errors="backslashreplace")
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"twofold {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
]


@app.callback()
def twofold(version: Version = False) -> None:
    """Stacked autoencoders with tied weights: one weight matrix, used both ways.

    A symmetric stack of layers narrows each row of a table to a short code and widens it back.

    - `twofold demo` trains on images and shows what comes out.
    - `twofold fit rows.csv --output model` trains on a table.
    - `twofold score model rows.csv --output scores.csv` finds anomalies.
    - `twofold explain model rows.csv` shows which columns make them anomalous.
    """


for _command in (
    train.demo,
    train.fit,
    apply.encode,
    apply.decode,
    apply.reconstruct,
    apply.score,
    apply.explain,
    apply.impute,
    apply.sample,
    show.info,
    show.report,
    show.export,
    show.explore,
    show.serve,
):
    app.command()(_command)
