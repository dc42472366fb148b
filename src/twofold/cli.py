"""The command line: one command per verb, with the estimator's options, names and error texts.

Results go to standard output, progress, warnings and errors to standard error. Torch and the rest
are imported inside the commands, so that `twofold --help` answers at once.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from twofold import __version__, flags, modeltext
from twofold.errors import DataError, InterruptedWarning, OptionError, TwofoldError
from twofold.options import check
from twofold.texttable import counted, pairs, size

if TYPE_CHECKING:
    from twofold.autoencoder import Autoencoder
    from twofold.bulk import Tally
    from twofold.files import Files
    from twofold.reasons import OddRow

Result = TypeVar("Result")

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


@app.command()
@flags.takes_options
def fit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Rows: a CSV, Parquet, .npy or .npz file, a folder of Parquet, CSV, PNG or JPEG "
            "files, or a pattern such as 'data/*.parquet' in quotes.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="MODEL", help="Folder to save the model in."),
    ],
    given: Mapping[str, Any],
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,NAME", help="Columns to leave out; may be given several times."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep in this folder what training can go on from, should it be ended.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the newest checkpoint; from the beginning without one."
        ),
    ] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(metavar="X", help="Time between two checkpoints within an epoch.")
    ] = 60.0,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN:MAX",
            help="Processes that train together; on a cluster, maybe as many as there is room for.",
        ),
    ] = "1",
    address: Address = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the training here for TensorBoard to show."),
    ] = None,
    stream: Stream = None,
    on_bad_file: OnBadFile = "error",
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train an autoencoder on the rows of SOURCE and save it as a model.

    Columns may hold numbers, text, booleans and times, and cells may be missing. What a column is
    shows in its type and its cells, unless --kinds settles it; --drop leaves columns out. Ctrl-C
    stops the training and keeps the best weights until then. With --checkpoint, training that was
    ended, by whatever, goes on with --resume; once the model is saved, the checkpoint is removed.
    Rows that do not fit into memory stay on disk. Under `torchrun`, every process is a worker.

    For example:

    - `twofold fit rows.csv --output model`
    - `twofold fit rows.csv --output model --n-components 8 --hidden-layers 64,32 --epochs 50`
    - `twofold fit 'data/*.parquet' --output model --drop id,name --untied --random-state 0`
    - `twofold fit rows.csv --output model --kinds zip=category,visits=real,comment=ignored`
    - `twofold fit rows.csv --output model --checkpoint model-run --resume`
    - `twofold fit 'data/*.parquet' --output model --batch-size 4096 --workers 4`
    - `twofold fit '/shared/*.parquet' --output model --workers 2:8 --address auto`
    """
    check(given)
    started = time.perf_counter()
    from twofold import bundle, data, distributed
    from twofold import checkpoint as checkpoints
    from twofold.autoencoder import Autoencoder
    from twofold.progress import Progress
    from twofold.tracking import TensorBoard, together

    bundle.require_free(output, force)
    data.require_writable(output)
    files = _files(source, stream, on_bad_file, flags.names(drop or ()))
    ae, team = Autoencoder(**given), distributed.joined()
    leads = team is None or team.leads
    with (
        _plain_warnings() as caught,
        Progress() if leads and not quiet else nullcontext() as progress,
        nullcontext() if tensorboard is None else TensorBoard(tensorboard, ae) as log,
        redirect_stdout(sys.stderr),  # where Ray says what has ended
    ):
        ae, n_rows = distributed.fit(
            ae,
            files,
            workers=flags.workers(workers),
            address=address,
            team=team,
            on_event=together(progress, log),
            checkpoint=checkpoint,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
        )
    if not leads:
        return
    ae.save(output, overwrite=force)
    interrupted = any(warning.category is InterruptedWarning for warning in caught)
    if checkpoint is not None and not interrupted:
        checkpoints.remove(checkpoint)
    lines = {
        **modeltext.fitted(ae, n_rows),
        "time": f"{time.perf_counter() - started:.1f} s",
        "model": f"{output} ({size(_bytes_in(output))})",
    }
    typer.echo("\n\n".join([ae.summary(), *modeltext.remarks(ae), pairs(lines)]))
    if interrupted:
        remedy = " The same command with --resume --force goes on." if checkpoint else ""
        typer.echo(f"Training was interrupted; the model was saved all the same.{remedy}", err=True)
        raise typer.Exit(INTERRUPTED)


@app.command()
def encode(
    model: Model,
    source: Source,
    output: Output,
    stream: Stream = None,
    on_bad_file: OnBadFile = "error",
    address: Address = None,
    workers: Tasks = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write the code of every row.

    For example:

    - `twofold encode model rows.csv --output codes.parquet`
    - `twofold encode model /shared/rows --output /shared/codes --address auto`
    """
    from twofold.writing import Writer

    files = _files(source, stream, on_bad_file)
    done = _on_cluster("encode", model, files, output, address, workers, force, quiet)
    if done is not None:
        what = f"the codes of {done.n_rows:,} rows, {done.n_columns:,} columns"
        return _report(what, output)
    ae = _open(model, output, force)
    names, n_rows = ae.get_feature_names_out(), 0
    with _plain_warnings(), Writer(output, names, force) as writer:
        for rows, codes in _by_parts(ae, files, ae.transform, quiet):
            writer.write(codes)
            n_rows += len(rows)
    _report(f"the codes of {n_rows:,} rows, {len(names):,} columns", output)


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
def reconstruct(
    model: Model,
    source: Source,
    output: Output,
    stream: Stream = None,
    on_bad_file: OnBadFile = "error",
    address: Address = None,
    workers: Tasks = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write what the network makes of every row.

    For example:

    - `twofold reconstruct model rows.csv --output reconstructed.csv`
    """
    from twofold.writing import Writer

    files = _files(source, stream, on_bad_file)
    done = _on_cluster("reconstruct", model, files, output, address, workers, force, quiet)
    if done is not None:
        return _report(f"{done.n_rows:,} reconstructed rows", output)
    ae, n_rows = _open(model, output, force), 0
    with _plain_warnings(), Writer(output, ae.schema_.names, force) as writer:
        for rows, reconstructed in _by_parts(ae, files, ae.reconstruct, quiet):
            writer.write(reconstructed)
            n_rows += len(rows)
    _report(f"{n_rows:,} reconstructed rows", output)


@app.command()
def score(
    model: Model,
    source: Source,
    output: Output,
    stream: Stream = None,
    on_bad_file: OnBadFile = "error",
    address: Address = None,
    workers: Tasks = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write how normal every row is, and which rows are anomalies.

    The columns are row (counted from 0), score (log-density in nats: higher is more normal),
    p_value (how likely a normal row is to be at least as odd), label (1 for normal rows, -1 for
    anomalies) and columns (for anomalies, up to three columns that make them odd, the first one
    most). An .npy file holds numbers only, and lacks the last.

    For example:

    - `twofold score model rows.csv --output scores.csv`
    """
    from twofold.reasons import Scored
    from twofold.writing import Writer

    files = _files(source, stream, on_bad_file)
    done = _on_cluster("score", model, files, output, address, workers, force, quiet)
    if done is not None:
        return _show_scored(done.offset, done.n_rows, done.n_anomalies, done.oddest, output)
    ae, n_rows, n_odd = _open(model, output, force), 0, 0
    oddest: list[OddRow] = []

    def scored(rows: Any) -> tuple[Scored, list[str | None]]:
        found = Scored(ae, rows, n_rows)
        return found, found.reasons(_teller(quiet))

    with _plain_warnings(), Writer(output, force=force) as writer:
        for rows, (found, reasons) in _by_parts(ae, files, scored, quiet):
            writer.write(found.arrow(None if output.suffix.lower() == ".npy" else reasons))
            oddest += found.lines(reasons)
            n_rows, n_odd = n_rows + len(rows), n_odd + len(found.anomalies)
    _show_scored(ae.offset_, n_rows, n_odd, oddest, output)


def _show_scored(
    offset: float, n_rows: int, n_odd: int, oddest: Sequence[OddRow], output: Path
) -> None:
    from twofold.reasons import odd_table

    verb = "is an anomaly" if n_odd == 1 else "are anomalies"
    typer.echo(
        f"{n_odd:,} of {counted(n_rows, 'row')} {verb} (score below {offset:.6g}); the scores "
        f"are in {output}"
    )
    if n_odd:
        typer.echo("\n" + odd_table(oddest, n_odd))


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
    stream: Stream = None,
    on_bad_file: OnBadFile = "error",
    address: Address = None,
    workers: Tasks = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Fill missing cells by what the rest of their row lets expect, and write the rows.

    Other cells stay as they are. Several draws differ as much as the cells are uncertain, so that
    what is computed from each tells how far to trust it.

    For example:

    - `twofold impute model rows.csv --output complete.csv`
    - `twofold impute model rows.csv --output complete.csv --n-draws 5 --random-state 0`
    """
    from twofold.bulk import missing_cells
    from twofold.generate import random_state as generator
    from twofold.writing import Writer

    check({"random_state": random_state})
    files = _files(source, stream, on_bad_file)
    if address is not None and n_draws != 1:
        raise OptionError("--n-draws is for a single process, and --address for a cluster.")
    done = _on_cluster("impute", model, files, output, address, workers, force, quiet)
    if done is not None:
        return _show_imputed(done.n_rows, done.n_missing, done.n_left, [output])
    outputs = [output]
    if n_draws != 1 and output.suffix:
        outputs = [output.with_stem(f"{output.stem}-{i + 1}") for i in range(n_draws)]
    ae, rng = _open(model, outputs, force), generator(random_state)
    n_rows = holes = left = 0
    with _plain_warnings(), Writer(outputs, ae.schema_.names, force) as writer:
        for rows, drawn in _by_parts(ae, files, lambda part: ae.impute(part, n_draws, rng), quiet):
            tables = [drawn] if n_draws == 1 else drawn
            writer.write(*tables)
            n_rows += len(rows)
            holes += missing_cells(rows)
            left += missing_cells(tables[0])
    _show_imputed(n_rows, holes, left, outputs)


def _show_imputed(n_rows: int, holes: int, left: int, outputs: Sequence[Path]) -> None:
    what = f"{counted(n_rows, 'row')}, {counted(holes - left, 'missing cell')} filled"
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


@app.command()
def report(
    model: Model,
    source: Source,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the page goes: .html.")
    ],
    stream: Stream = None,
    on_bad_file: OnBadFile = "error",
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write one page about a model and rows: errors, scores, anomalies, codes, and what to do.

    The page is complete in itself and asks no server. Rows that the model has not seen say most.
    All of them are scored; of many, a random sample is measured.

    For example:

    - `twofold report model rows.csv --output report.html`
    """
    from twofold import page
    from twofold import report as reports
    from twofold.autoencoder import load

    page.require_free(output, force)
    files = _files(source, stream, on_bad_file)
    with _plain_warnings():
        cautions = reports.write(load(model), files, output, force, say=_teller(quiet))
    urgent = [caution.said for caution in cautions if caution.urgent]
    to_act, to_know = counted(len(urgent), "thing"), len(cautions) - len(urgent)
    _report(f"a page with {to_act} to act on and {to_know} to know", output)
    for text in urgent:
        typer.echo(f"- {text}")


@app.command()
def export(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the graph goes: .onnx.")
    ],
    part: Annotated[
        str, typer.Option(metavar="PART", help="What it gives: all, encoder, decoder or scorer.")
    ] = "all",
    force: Force = False,
) -> None:
    """Write the model as one ONNX graph that runs without twofold.

    Rows go in and come out in their own units, for scaling is part of the graph. It gives codes,
    reconstructions, scores, and decisions, which are below 0 for anomalies.

    For example:

    - `twofold export model --output model.onnx`
    - `twofold export model --output scorer.onnx --part scorer`
    """
    from twofold.autoencoder import load
    from twofold.export import OUTPUTS, onnx, require_free

    require_free(output, force)
    onnx(load(model), output, part, overwrite=force)
    _report(f"a graph that gives {', '.join(OUTPUTS[part])}", output)


@app.command()
def explore(
    model: Model,
    source: Source,
    port: Annotated[
        int, typer.Option(metavar="N", help="Port of this machine; 0 takes any that is free.")
    ] = 8765,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Whether to open it in the browser.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Look at rows on a map of their codes, in the browser.

    Every row is encoded and scored once; then a page shows them as a map, with their
    reconstructions, anomalies and the reasons for them, selections to save, and codes to change by
    hand. Columns that the model was not trained on, such as known labels, can give the colours.
    Only this machine can reach the page. Ctrl-C ends it.

    For example:

    - `twofold explore model rows.csv`
    - `twofold explore model images.npz --port 9000 --no-browser`
    """
    from twofold.autoencoder import load
    from twofold.explore import run

    ae = load(model)
    title, progress = model.resolve().name, _teller(quiet)
    run(ae, source, title=title, port=port, browser=browser, say=typer.echo, progress=progress)


@app.command()
def serve(
    model: Model,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Where to listen; this machine alone unless said."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0 takes any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            envvar="TWOFOLD_TOKEN",
            help="What clients have to send as 'Authorization: Bearer WORD'; better given in the "
            "environment, where other users of the machine do not see it. [default: none]",
            show_default=False,
            show_envvar=True,
        ),
    ] = None,
    max_rows: Annotated[
        int, typer.Option(metavar="N", help="Rows that one request may send or ask for.")
    ] = 100_000,
    max_bytes: Annotated[
        int,
        typer.Option(
            metavar="N", help="Bytes of a request; rows times columns may not be more either."
        ),
    ] = 33_554_432,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="How long a request may take to arrive, and to be answered."
        ),
    ] = 30.0,
) -> None:
    """Answer requests over HTTP: a route per verb, in JSON, Arrow or Parquet.

    `GET /openapi.json` describes every route. Ctrl-C and SIGTERM end the service after it has
    answered what it accepted.

    For example:

    - `twofold serve model`
    - `twofold serve model --host 0.0.0.0 --port 80 --max-rows 1000`
    """
    from twofold import serving

    # The port is taken first: it is better to fail at once.
    with serving.listen(host, port) as listener:
        from twofold.autoencoder import load
        from twofold.service import create_app

        application = create_app(
            load(model),
            token=token,
            hosts=serving.own_names(host),
            max_rows=max_rows,
            max_bytes=max_bytes,
            timeout=timeout,
        )
        if token is None and not serving.is_loopback(host):
            typer.echo(
                f"warning: everyone who reaches {host} can use this service. Give it a --token, "
                f"or leave --host out.",
                err=True,
            )
        serving.serve(
            application,
            listener,
            timeout=timeout,
            on_start=lambda address: typer.echo(f"Serving {model} at {address} (Ctrl-C ends it)."),
        )


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


def _files(source: str, stream: bool | None, on_bad_file: str, drop: Sequence[str] = ()) -> Files:
    """Return the source and how it is read."""
    from twofold.files import Files

    return Files(source, "auto" if stream is None else stream, on_bad_file, tuple(drop))


def _by_parts(
    ae: Autoencoder, files: Files, verb: Callable[[Any], Result], quiet: bool
) -> Iterator[tuple[Any, Result]]:
    """Give rows and what a verb makes of them, part by part, and say how far it got."""
    from twofold import reading
    from twofold.writing import Pace

    rows = reading.opened(ae, files)
    pace = Pace(len(rows), _teller(quiet))
    for part, result in reading.in_parts(rows, verb):
        yield part, result
        pace.add(len(part))


def _on_cluster(
    verb: str,
    model: Path,
    files: Files,
    output: Path,
    address: str | None,
    workers: int | None,
    force: bool,
    quiet: bool,
) -> Tally | None:
    """Let a cluster write what the model makes of the rows, where its address is given."""
    if address is None:
        if workers is not None:
            raise OptionError("--workers is for a cluster, whose --address is missing.")
        return None
    from twofold import bulk
    from twofold.autoencoder import load

    with _plain_warnings(), redirect_stdout(sys.stderr):  # where Ray says what has ended
        return bulk.write(
            load(model),
            verb,
            files,
            output,
            address=address,
            workers=workers,
            force=force,
            say=_teller(quiet),
        )


def _teller(quiet: bool) -> Callable[[str], None] | None:
    return None if quiet else lambda text: typer.echo(text, err=True)


def _save(rows: Any, names: Sequence[str], output: Path, force: bool) -> None:
    """Write rows, an array `(n_rows, ...)` or an Arrow table, to a file."""
    import numpy as np

    from twofold import data

    if isinstance(rows, np.ndarray) and output.suffix.lower() != ".npy":
        rows = data.to_arrow(rows.reshape(len(rows), len(names)), names)
    data.write(rows, output, force)


def _report(what: str, output: Path) -> None:
    n_bytes = _bytes_in(output) if output.is_dir() else output.stat().st_size
    typer.echo(f"{output}: {what}, {size(n_bytes)}")


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
