"""The command line: one command per verb, with the estimator's options, names and error texts.

Results go to standard output, progress, warnings and errors to standard error. Torch and the rest
are imported inside the commands, so that `twofold --help` answers at once.
"""

from __future__ import annotations

import csv
import inspect
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from twofold import __version__, modeltext
from twofold.errors import DataError, InterruptedWarning, OptionError, TwofoldError
from twofold.options import OPTIONS, Option, check, flag
from twofold.texttable import counted, pairs, size

if TYPE_CHECKING:
    from twofold.autoencoder import Autoencoder

INTERRUPTED = 130  # what shells give a program that Ctrl-C ended: 128 + SIGINT


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
    for stream in (sys.stdout, sys.stderr):
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
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of the model, as `twofold fit` wrote it.")
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Rows: a CSV, Parquet, .npy or .npz file, a folder of Parquet or CSV files, or a "
        "pattern such as 'data/*.parquet' in quotes. The model's columns are picked by name.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Where the result goes: .csv, .parquet or .npy."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Seed; the same seed draws the same. [default: none]", show_default=False
    ),
]


@app.callback()
def twofold(version: Version = False) -> None:
    """Stacked autoencoders with tied weights: one weight matrix, used both ways.

    A symmetric stack of layers narrows each row of a table to a short code and widens it back.

    - `twofold demo` trains on images and shows what comes out.
    - `twofold fit rows.csv --output model` trains on a table.
    - `twofold score model rows.csv --output scores.csv` finds the rows that do not fit in.
    - `twofold explain model rows.csv` tells what is odd about them.
    """


@app.command()
def demo(
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Images: mnist, fashion_mnist or digits.")
    ] = "mnist",
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the images.")] = 20,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where models and figures go.")
    ] = Path("twofold-demo"),
    force: Force = False,
) -> None:
    """Train a tied and an untied autoencoder on images and show the results.

    For example:

    - `twofold demo`
    - `twofold demo --dataset digits --epochs 5 --output digits-demo`
    """
    from twofold.demo import run

    run(dataset=dataset, epochs=epochs, output=output, force=force)


def _fit(
    source: str,
    output: Path,
    given: Mapping[str, Any],
    drop: Sequence[str],
    force: bool,
    quiet: bool,
) -> None:
    """Train an autoencoder on the rows of SOURCE and save it as a model.

    Columns may hold numbers, text, booleans and times, and cells may be missing. What a column is
    shows in its type and its cells, unless --kinds settles it; --drop leaves columns out. Ctrl-C
    stops the training and keeps the best weights until then.

    For example:

    - `twofold fit rows.csv --output model`
    - `twofold fit rows.csv --output model --n-components 8 --hidden-layers 64,32 --epochs 50`
    - `twofold fit 'data/*.parquet' --output model --drop id,name --untied --random-state 0`
    - `twofold fit rows.csv --output model --kinds zip=category,visits=real,comment=ignored`
    """
    check(given)
    started = time.perf_counter()
    from twofold import bundle, data
    from twofold.autoencoder import Autoencoder
    from twofold.progress import Progress

    bundle.require_free(output, force)
    data.require_writable(output)
    rows = data.load(source, drop=drop)
    with _plain_warnings() as caught, nullcontext() if quiet else Progress() as progress:
        ae = Autoencoder(**given).fit(rows, on_event=progress)
    ae.save(output, overwrite=force)
    lines = {
        **modeltext.fitted(ae, len(rows)),
        "time": f"{time.perf_counter() - started:.1f} s",
        "model": f"{output} ({size(_bytes_in(output))})",
    }
    typer.echo("\n\n".join([ae.summary(), *modeltext.remarks(ae), pairs(lines)]))
    if any(warning.category is InterruptedWarning for warning in caught):
        typer.echo("Training was interrupted; the model was saved all the same.", err=True)
        raise typer.Exit(INTERRUPTED)


def _command_of_fit() -> Callable[..., None]:
    """Give `_fit` one flag per entry of the option table."""

    def fit(
        source: str, output: Path, drop: list[str], force: bool, quiet: bool, **texts: Any
    ) -> None:
        given = {name: _value(name, text) for name, text in texts.items() if text is not None}
        _fit(source, output, given, _split(drop), force, quiet)

    source = typer.Argument(
        metavar="SOURCE",
        help="Rows: a CSV, Parquet, .npy or .npz file, a folder of Parquet or CSV files, or a "
        "pattern such as 'data/*.parquet' in quotes.",
    )
    output = typer.Option("--output", "-o", metavar="MODEL", help="Folder to save the model in.")
    dropped = typer.Option(
        metavar="NAME,NAME", help="Columns to leave out; may be given several times."
    )
    parameters = [
        _parameter("source", Annotated[str, source]),
        _parameter("output", Annotated[Path, output]),
        _parameter("drop", Annotated[list[str], dropped], []),
        _parameter("force", Force, False),
        _parameter("quiet", Quiet, False),
    ]
    for name in OPTIONS:
        if flag(name):
            parameters.append(_parameter(name, _annotation(name), None))
    fit.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    fit.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    fit.__doc__ = _fit.__doc__
    return fit


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> Any:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


def _annotation(name: str) -> Any:
    entry, said = OPTIONS[name], flag(name)
    switch = "/" in said
    shown = typer.Option(
        said,
        metavar=None if switch else _metavar(entry),
        help=_help(entry),
        show_default=False,
        # Apart from each other, for the second name of a switch takes width from every line.
        rich_help_panel="Switches of the model" if switch else "Options of the model",
    )
    return Annotated[bool | None if switch else str | None, shown]


def _metavar(entry: Option) -> str:
    words = {"int": "N", "float": "X", "widths": "N,N", "seed": "N", "none": "none"}
    words |= {"names": "NAME|COLUMN=NAME", "corruption": "NAME:X"}
    parts = [] if _choices_in_help(entry) else list(entry.choices)
    return "|".join(parts + [words[kind] for kind in entry.kinds if kind in words]) or "NAME"


def _choices_in_help(entry: Option) -> bool:
    return len("|".join(entry.choices)) > 16


def _help(entry: Option) -> str:
    default = "none" if entry.default is None else str(entry.default)
    if isinstance(entry.default, bool):
        default = "yes" if entry.default else "no"
    listed = [choice for choice in entry.choices if f"'{choice}'" not in entry.help]
    text = entry.help[0].upper() + entry.help[1:]
    if listed and _choices_in_help(entry):
        text += f": {', '.join(listed)}"
    return f"{text}. [default: {default}]"


def _value(name: str, text: str | bool) -> Any:
    """Read an option's text; what cannot be read is left for `check` to refuse with its reasons."""
    if isinstance(text, bool):
        return text
    try:
        return OPTIONS[name].parse(text)
    except ValueError:
        pass
    try:
        return float(text)  # a number all the same, though not of the right sort
    except ValueError:
        return text


def _split(texts: Sequence[str]) -> list[str]:
    """Split lists of names at commas; a name with a comma can be put in double quotes."""
    return [name for text in texts for name in next(csv.reader([text], skipinitialspace=True), [])]


app.command("fit")(_command_of_fit())


@app.command()
def encode(model: Model, source: Source, output: Output, force: Force = False) -> None:
    """Write the code of every row.

    For example:

    - `twofold encode model rows.csv --output codes.parquet`
    """
    ae = _open(model, output, force)
    with _plain_warnings():
        codes = ae.transform(source)
    _save(codes, ae.get_feature_names_out(), output, force)
    _report(f"the codes of {len(codes):,} rows, {codes.shape[1]:,} columns", output)


@app.command()
def decode(
    model: Model,
    codes: Annotated[
        str, typer.Argument(metavar="CODES", help="File with codes, as `twofold encode` wrote it.")
    ],
    output: Output,
    force: Force = False,
) -> None:
    """Write the row that every code stands for.

    For example:

    - `twofold decode model codes.parquet --output rows.csv`
    """
    from twofold import data

    ae = _for_files(_open(model, output, force))
    rows = ae.inverse_transform(data.load(codes, columns=list(ae.get_feature_names_out())))
    _save(rows, ae.schema_.names, output, force)
    _report(f"{len(rows):,} rows", output)


@app.command()
def reconstruct(model: Model, source: Source, output: Output, force: Force = False) -> None:
    """Write what the network makes of every row.

    For example:

    - `twofold reconstruct model rows.csv --output reconstructed.csv`
    """
    ae = _open(model, output, force)
    with _plain_warnings():
        rows = ae.reconstruct(source)
    _save(rows, ae.schema_.names, output, force)
    _report(f"{len(rows):,} reconstructed rows", output)


@app.command()
def score(
    model: Model, source: Source, output: Output, force: Force = False, quiet: Quiet = False
) -> None:
    """Write how normal every row is, and which rows are anomalies.

    The columns are row (counted from 0), score (log-density in nats: higher is more normal),
    p_value (how likely a normal row is to be at least as odd), label (1 for normal rows, -1 for
    anomalies) and columns (for anomalies, up to three columns that make them odd, the first one
    most). An .npy file holds numbers only, and lacks the last.

    For example:

    - `twofold score model rows.csv --output scores.csv`
    """
    import numpy as np
    import pyarrow

    from twofold import data
    from twofold.reasons import Scored

    ae = _open(model, output, force)
    with _plain_warnings():
        scored = Scored(ae, _load(ae, source))
        reasons = scored.reasons(_teller(quiet))
    n_rows, n_odd = len(scored.scores), len(scored.anomalies)
    columns = {
        "row": np.arange(n_rows),
        "score": scored.scores,
        "p_value": scored.p_values,
        "label": scored.labels,
    }
    if output.suffix.lower() != ".npy":
        columns["columns"] = pyarrow.array(reasons, pyarrow.string())
    data.write(pyarrow.table(columns), output, force)
    verb = "is an anomaly" if n_odd == 1 else "are anomalies"
    typer.echo(
        f"{n_odd:,} of {counted(n_rows, 'row')} {verb} (score below {ae.offset_:.6g}); the scores "
        f"are in {output}"
    )
    if n_odd:
        typer.echo("\n" + scored.table(reasons))


@app.command()
def explain(
    model: Model,
    source: Source,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="How many of the oddest rows. [default: 10]", show_default=False
        ),
    ] = None,
    row: Annotated[
        int | None, typer.Option(metavar="N", help="This row instead, counted from 0.")
    ] = None,
    columns: Annotated[
        int, typer.Option(metavar="N", help="How many columns to show for each row.")
    ] = 3,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where all columns of these rows go: .csv or .parquet.",
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Tell which columns make rows odd, and what was expected in their place.

    Contributions are nats by which a cell lowers the row's score; those of all columns add up to
    what tells the row's score from the score of the row that was expected. The file has the columns
    row, column, observed, expected and contribution.

    For example:

    - `twofold explain model rows.csv`
    - `twofold explain model rows.csv --row 17 --columns 10`
    - `twofold explain model rows.csv --top 100 --output reasons.csv`
    """
    import numpy as np

    from twofold import data
    from twofold.reasons import Report, Scored

    if top is not None and row is not None:
        raise OptionError("--top and --row exclude each other; give one of them.")
    n_top = 10 if top is None else top
    for name, n in {"top": n_top, "columns": columns}.items():
        if n < 1:
            raise OptionError(f"--{name} must be a whole number of at least 1; got {n}.")
    if output is not None and output.suffix.lower() == ".npy":
        raise DataError(f"{output} could not hold the columns' names. Write .csv or .parquet.")
    ae = _open(model, output, force)
    report = Report(ae, columns)
    with _plain_warnings():
        scored = Scored(ae, _load(ae, source))
        n_rows = len(scored.scores)
        if row is not None and not 0 <= row < n_rows:
            raise OptionError(
                f"There is no row {row}: {source} has {counted(n_rows, 'row')}, counted from 0."
            )
        chosen = scored.oddest(n_top) if row is None else np.array([row])
        for part in scored.explained(chosen, _teller(quiet)):
            report.show(part)
            if output is not None:
                report.keep(part)
    if output is not None:
        data.write(report.arrow(), output, force)
    which = f"Row {row}" if row is not None else f"{len(chosen):,} oddest"
    typer.echo(
        f"{which} of {counted(n_rows, 'row')}; a score below {ae.offset_:.6g} is an anomaly. "
        f"Contributions are in nats.\n"
    )
    typer.echo(report.table(scored))
    if output is not None:
        typer.echo()
        _report("all columns of these rows", output)


@app.command()
def impute(
    model: Model,
    source: Source,
    output: Output,
    n_draws: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="With more than 1, so many files with random fillings, numbered -1, -2, ...",
        ),
    ] = 1,
    random_state: Seed = None,
    force: Force = False,
) -> None:
    """Fill missing cells by what the rest of their row lets expect, and write the rows.

    Other cells stay as they are. Several draws differ as much as the cells are uncertain, so that
    what is computed from each tells how far to trust it.

    For example:

    - `twofold impute model rows.csv --output complete.csv`
    - `twofold impute model rows.csv --output complete.csv --n-draws 5 --random-state 0`
    """
    check({"random_state": random_state})
    outputs = [output]
    if n_draws != 1 and output.suffix:
        outputs = [output.with_stem(f"{output.stem}-{i + 1}") for i in range(n_draws)]
    ae = _open(model, outputs, force)
    with _plain_warnings():
        rows = _load(ae, source)
        drawn = ae.impute(rows, n_draws, random_state)
    tables = [drawn] if n_draws == 1 else drawn
    holes, left = _missing(rows), _missing(tables[0])
    _save_all(tables, ae.schema_.names, outputs, force)
    what = f"{counted(len(rows), 'row')}, {counted(holes - left, 'missing cell')} filled"
    for path in outputs:
        _report(what + f", {left:,} left in ignored columns" * (left > 0), path)


@app.command()
def sample(
    model: Model,
    rows: Annotated[int, typer.Option(metavar="N", help="How many rows.")],
    output: Output,
    random_state: Seed = None,
    force: Force = False,
) -> None:
    """Draw new rows that look like the training rows.

    For example:

    - `twofold sample model --rows 100 --output new.csv --random-state 0`
    """
    check({"random_state": random_state})
    ae = _for_files(_open(model, output, force))
    drawn = ae.sample(rows, random_state)
    _save(drawn, ae.schema_.names, output, force)
    _report(counted(rows, "new row"), output)


@app.command()
def info(
    model: Model,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the model's whole document as JSON.")
    ] = False,
) -> None:
    """Tell what a model is: options, columns, layers, training and versions.

    For example:

    - `twofold info model`
    - `twofold info model --json`
    """
    from twofold import bundle
    from twofold.autoencoder import load

    _, document = bundle.read(model)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    ae = load(model)
    parts = {
        "Options that differ from the defaults": modeltext.changed_options(document["options"]),
        f"Columns ({ae.schema_})": modeltext.columns(ae),
        "Layers": ae.summary(),
        "Training": modeltext.training(ae),
        "File": pairs(
            {
                "folder": str(model),
                **{file.name: size(file.stat().st_size) for file in sorted(model.iterdir())},
                "made with": ", ".join(f"{k} {v}" for k, v in document["versions"].items()),
            }
        ),
    }
    typer.echo("\n\n".join(f"{title}\n\n{text}" for title, text in parts.items()))


def _open(model: Path, outputs: Path | Sequence[Path] | None, force: bool) -> Autoencoder:
    """Read the model, once it is clear that the outputs can be written."""
    from twofold import data
    from twofold.autoencoder import load

    for output in [outputs] if isinstance(outputs, Path) else outputs or ():
        data.require_free_output(output, force)
    return load(model)


def _for_files(ae: Autoencoder) -> Autoencoder:
    """Let rows that come from codes be Arrow tables with their columns' types, or else arrays."""
    typed = ae.schema_.formats() is not None
    ae.schema_ = ae.schema_.with_container("arrow" if typed else "numpy")
    return ae


def _load(ae: Autoencoder, source: str) -> Any:
    """Read the model's columns of a source, once for all that is done with its rows."""
    from twofold import data

    return data.load(source, columns=getattr(ae, "feature_names_in_", None))


def _teller(quiet: bool) -> Callable[[str], None] | None:
    return None if quiet else lambda text: typer.echo(text, err=True)


def _missing(rows: Any) -> int:
    """Count the missing cells of an array or an Arrow table."""
    import numpy as np
    import pyarrow.compute as pc

    if isinstance(rows, np.ndarray):
        return int(np.isnan(rows).sum())
    return sum(pc.sum(pc.is_null(c, nan_is_null=True)).as_py() or 0 for c in rows.columns)


def _save_all(
    tables: Sequence[Any], names: Sequence[str], outputs: Sequence[Path], force: bool
) -> None:
    """Write every table to its file, or none of them."""
    from twofold import data

    if len(tables) == 1:
        return _save(tables[0], names, outputs[0], force)
    folder = outputs[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{outputs[0].name}.", dir=folder) as fresh:
        for rows, output in zip(tables, outputs, strict=True):
            _save(rows, names, Path(fresh, output.name), force)
        for output in outputs:
            data.require_free_output(output, force)
        for output in outputs:
            os.replace(Path(fresh, output.name), output)


def _save(rows: Any, names: Sequence[str], output: Path, force: bool) -> None:
    """Write rows, an array `(n_rows, ...)` or an Arrow table, to a file."""
    import numpy as np

    from twofold import data

    if isinstance(rows, np.ndarray) and output.suffix.lower() != ".npy":
        rows = data.to_arrow(rows.reshape(len(rows), len(names)), names)
    data.write(rows, output, force)


def _report(what: str, output: Path) -> None:
    typer.echo(f"{output}: {what}, {size(output.stat().st_size)}")


@contextmanager
def _plain_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect warnings, and show each as one line at the end instead of in Python's format."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning)
        try:
            yield caught
        finally:
            for text in dict.fromkeys(str(warning.message) for warning in caught):
                typer.echo(f"warning: {text}", err=True)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
