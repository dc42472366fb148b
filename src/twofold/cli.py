"""The command line: one command per verb, with the estimator's options, names and error texts.

Results go to standard output, progress, warnings and errors to standard error. Torch and the rest
are imported inside the commands, so that `twofold --help` answers at once.
"""

from __future__ import annotations

import csv
import inspect
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from twofold import __version__
from twofold.errors import InterruptedWarning, TwofoldError
from twofold.options import OPTIONS, Option, check, flag

if TYPE_CHECKING:
    from twofold.autoencoder import Autoencoder

INTERRUPTED = 130  # what shells give a program that Ctrl-C ended: 128 + SIGINT
_SHOWN_COLUMNS = 20


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


@app.callback()
def twofold(version: Version = False) -> None:
    """Stacked autoencoders with tied weights: one weight matrix, used both ways.

    A symmetric stack of layers narrows each row of a table to a short code and widens it back.

    - `twofold demo` trains on images and shows what comes out.
    - `twofold fit rows.csv --output model` trains on a table.
    - `twofold score model rows.csv --output scores.csv` finds the rows that do not fit in.
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

    Columns must hold numbers; --drop leaves others out. Ctrl-C stops the training and keeps the
    best weights until then.

    For example:

    - `twofold fit rows.csv --output model`
    - `twofold fit rows.csv --output model --n-components 8 --hidden-layers 64,32 --epochs 50`
    - `twofold fit 'data/*.parquet' --output model --drop id,name --untied --random-state 0`
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
    typer.echo(ae.summary() + "\n")
    lines = {
        "rows": f"{len(rows):,}; {ae.schema_}",
        **_losses_kept(ae),
        "variance kept": _variance_kept(ae),
        "beside PCA": _beside_pca(ae),
        "anomalies": f"score below {ae.offset_:.6g}",
        "time": f"{time.perf_counter() - started:.1f} s",
        "model": f"{output} ({_size(_bytes_in(output))})",
    }
    typer.echo(_pairs(lines))
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

    ae = _open(model, output, force)
    # Rows come as one array, whatever the model was trained on: the file's suffix decides here.
    ae.schema_ = ae.schema_.with_container("numpy")
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
def score(model: Model, source: Source, output: Output, force: Force = False) -> None:
    """Write how normal every row is, and which rows are anomalies.

    The columns are row (counted from 0), score (log-density in nats: higher is more normal) and
    label (1 for normal rows, -1 for anomalies).

    For example:

    - `twofold score model rows.csv --output scores.csv`
    """
    import numpy as np
    import pyarrow

    from twofold import data

    ae = _open(model, output, force)
    with _plain_warnings():
        scores = ae.score_samples(source)
    labels = np.where(scores - ae.offset_ < 0, -1, 1)
    table = {"row": np.arange(len(scores)), "score": scores, "label": labels}
    data.write(pyarrow.table(table), output, force)
    anomalies = int((labels < 0).sum())
    verb = "is an anomaly" if anomalies == 1 else "are anomalies"
    typer.echo(
        f"{anomalies:,} of {len(scores):,} rows {verb} (score below {ae.offset_:.6g}); the scores "
        f"are in {output}"
    )


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
        "Options that differ from the defaults": _options_table(document["options"]),
        f"Columns ({ae.schema_})": _columns_table(ae),
        "Layers": ae.summary(),
        "Training": _training_table(ae),
        "File": _pairs(
            {
                "folder": str(model),
                **{file.name: _size(file.stat().st_size) for file in sorted(model.iterdir())},
                "made with": ", ".join(f"{k} {v}" for k, v in document["versions"].items()),
            }
        ),
    }
    typer.echo("\n\n".join(f"{title}\n\n{text}" for title, text in parts.items()))


def _options_table(values: Mapping[str, Any]) -> str:
    changed = []
    for name, value in values.items():
        default = OPTIONS[name].default
        if value != default:
            changed.append((name, _plain(value), f"default {_plain(default)}"))
    return _table(None, changed) if changed else "none"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "no hidden layer"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={word}" for name, word in value.items())
    return "none" if value is None else str(value)


def _columns_table(ae: Autoencoder) -> str:
    columns = ae.schema_.columns
    rows = [
        (
            c.name,
            c.kind,
            c.likelihood,
            f"{c.center:.6g}",
            "constant" if c.constant else f"{c.scale:.6g}",
        )
        for c in columns[:_SHOWN_COLUMNS]
    ]
    text = _table(("column", "kind", "likelihood", "center", "scale"), rows, right=(3, 4))
    if len(columns) > _SHOWN_COLUMNS:
        text += f"\nand {len(columns) - _SHOWN_COLUMNS:,} more"
    constant = ae.schema_.constant_columns()
    if constant:
        more = f" and {len(constant) - _SHOWN_COLUMNS:,} more"
        text += f"\n\nconstant in training: {', '.join(constant[:_SHOWN_COLUMNS])}"
        text += more if len(constant) > _SHOWN_COLUMNS else ""
    return text


def _training_table(ae: Autoencoder) -> str:
    lines = {"epochs": f"{len(ae.history_):,} run"}
    if ae.best_epoch_:
        lines["best"] = f"epoch {ae.best_epoch_:,}: {_losses(ae.history_[ae.best_epoch_ - 1])}"
    if ae.history_:
        last = ae.history_[-1]
        lines["last"] = f"epoch {last['epoch']:,}: {_losses(last)}"
        lines["time"] = f"{last['seconds']:.1f} s"
    lines["variance kept"] = _variance_kept(ae)
    lines["anomalies"] = f"score below {ae.offset_:.6g}"
    return _pairs(lines)


def _open(model: Path, output: Path, force: bool) -> Autoencoder:
    """Read the model, once it is clear that the output can be written."""
    from twofold import data
    from twofold.autoencoder import load

    data.require_free_output(output, force)
    return load(model)


def _save(rows: Any, names: Sequence[str], output: Path, force: bool) -> None:
    """Write rows, an array `(n_rows, ...)` or an Arrow table, to a file."""
    import numpy as np

    from twofold import data

    if isinstance(rows, np.ndarray) and output.suffix.lower() != ".npy":
        rows = data.to_arrow(rows.reshape(len(rows), len(names)), names)
    data.write(rows, output, force)


def _report(what: str, output: Path) -> None:
    typer.echo(f"{output}: {what}, {_size(output.stat().st_size)}")


@contextmanager
def _plain_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect warnings, and show each as one line at the end instead of in Python's format."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning)
        try:
            yield caught
        finally:
            for warning in caught:
                typer.echo(f"warning: {warning.message}", err=True)


def _beside_pca(ae: Autoencoder) -> str:
    comparison = ae.comparison_
    better = "the network" if comparison.ratio < 1 else "PCA"
    return (
        f"network {_share(comparison.r2)}, PCA with as many components {_share(comparison.r2_pca)} "
        f"on {comparison.n_rows:,} {_which_rows(ae)} rows: {better} keeps more"
    )


def _losses(epoch: Mapping[str, float]) -> str:
    text = f"{epoch['loss']:.5g}"
    if "validation_loss" in epoch:
        text += f", {epoch['validation_loss']:.5g} on held-out rows"
    return text


def _losses_kept(ae: Autoencoder) -> dict[str, str]:
    if not ae.best_epoch_:
        return {"epochs": "none was finished"}
    epochs = f"{len(ae.history_):,} run, the weights are those of epoch {ae.best_epoch_:,}"
    return {"epochs": epochs, "loss": _losses(ae.history_[ae.best_epoch_ - 1])}


def _variance_kept(ae: Autoencoder) -> str:
    return f"{_share(ae.reconstruction_r2_)} on {_which_rows(ae)} rows"


def _which_rows(ae: Autoencoder) -> str:
    return "held-out" if "validation_loss" in (ae.history_ or [{}])[-1] else "training"


def _share(r2: float) -> str:
    return f"{100 * r2:.1f} %"


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _size(n_bytes: float) -> str:
    """Write a file's size.

    Examples
    --------
    >>> _size(812), _size(35_200), _size(3_100_000)
    ('812 bytes', '35.2 kB', '3.1 MB')
    """
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    for unit in ("kB", "MB"):
        n_bytes /= 1000
        if n_bytes < 999.95:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1000:.1f} GB"


def _pairs(lines: Mapping[str, str]) -> str:
    return _table(None, list(lines.items()))


def _table(
    titles: Sequence[str] | None, rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> str:
    """Line up cells in columns, in plain text that reads the same on a terminal and in a file."""
    every = [*([titles] if titles else []), *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    ]
    if titles:
        lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)
