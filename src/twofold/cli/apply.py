"""Commands that apply a model to rows, here or on a cluster, and write what comes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli.common import (
    Address,
    Force,
    Model,
    OnBadFile,
    Output,
    Quiet,
    Seed,
    Source,
    Stream,
    Tasks,
    files,
    plain_warnings,
    tell_written,
    teller,
)
from twofold.errors import DataError, OptionError
from twofold.formatting import counted
from twofold.options import check

if TYPE_CHECKING:
    from twofold.data.files import Files
    from twofold.distributed.tally import Say, Tally
    from twofold.estimators.autoencoder import Autoencoder


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
    opened = files(source, stream, on_bad_file)
    _, told = _apply("encode", model, opened, output, address, workers, force, quiet)
    what = f"the codes of {told.n_rows:,} rows, {told.n_columns:,} columns"
    tell_written(what, output)


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
    from twofold.data import sources

    ae = _forfiles(_open(model, output, force))
    rows = ae.inverse_transform(sources.load(codes, columns=list(ae.get_feature_names_out())))
    _save(rows, ae.schema_.names, output, force)
    tell_written(f"{len(rows):,} rows", output)


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
    opened = files(source, stream, on_bad_file)
    _, told = _apply("reconstruct", model, opened, output, address, workers, force, quiet)
    tell_written(f"{told.n_rows:,} reconstructed rows", output)


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
    from twofold.distributed.reasons import odd_table

    opened = files(source, stream, on_bad_file)
    ae, told = _apply("score", model, opened, output, address, workers, force, quiet)
    n_odd = told.n_anomalies
    verb = "is an anomaly" if n_odd == 1 else "are anomalies"
    typer.echo(
        f"{n_odd:,} of {counted(told.n_rows, 'row')} {verb} (score below {ae.offset_:.6g}); the "
        f"scores are in {output}"
    )
    if n_odd:
        typer.echo("\n" + odd_table(told.oddest, n_odd))


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

    from twofold.data import sources
    from twofold.distributed.reasons import Report, Scored

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
    with plain_warnings():
        scored = Scored(ae, _load(ae, source))
        n_rows = len(scored.scores)
        if row is not None and not 0 <= row < n_rows:
            raise OptionError(
                f"There is no row {row}: {source} has {counted(n_rows, 'row')}, counted from 0."
            )
        chosen = scored.oddest(n_top) if row is None else np.array([row])
        for part in scored.explained(chosen, teller(quiet)):
            report.show(part)
            if output is not None:
                report.keep(part)
    if output is not None:
        sources.write(report.arrow(), output, force)
    which = f"Row {row}" if row is not None else f"{len(chosen):,} oddest"
    typer.echo(
        f"{which} of {counted(n_rows, 'row')}; a score below {ae.offset_:.6g} is an anomaly. "
        f"Contributions are in nats.\n"
    )
    typer.echo(report.table(scored))
    if output is not None:
        typer.echo()
        tell_written("all columns of these rows", output)


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
    check({"random_state": random_state})
    opened = files(source, stream, on_bad_file)
    if n_draws == 1:
        _, told = _apply("impute", model, opened, output, address, workers, force, quiet)
        return _tell_imputed(told, [output])
    if address is not None:
        raise OptionError("--n-draws is for a single process, and --address for a cluster.")
    from twofold.distributed.tally import imputed
    from twofold.inference.sampling import random_state as generator

    outputs = [output]
    if output.suffix:
        outputs = [output.with_stem(f"{output.stem}-{i + 1}") for i in range(n_draws)]
    ae, rng = _open(model, outputs, force), generator(random_state)

    def draw(part: Any, first_row: int, say: Say | None) -> tuple[Sequence[Any], Tally]:
        drawn = ae.impute(part, n_draws, rng)
        return drawn, imputed(part, drawn[0])

    _tell_imputed(_write(ae, draw, ae.schema_.names, opened, outputs, force, quiet), outputs)


def _tell_imputed(told: Tally, outputs: Sequence[Path]) -> None:
    filled = counted(told.n_missing - told.n_left, "missing cell")
    what = f"{counted(told.n_rows, 'row')}, {filled} filled"
    for path in outputs:
        left = f", {told.n_left:,} left in ignored columns" * (told.n_left > 0)
        tell_written(what + left, path)


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
    ae = _forfiles(_open(model, output, force))
    drawn = ae.sample(rows, random_state)
    _save(drawn, ae.schema_.names, output, force)
    tell_written(counted(rows, "new row"), output)


def _open(model: Path, outputs: Path | Sequence[Path] | None, force: bool) -> Autoencoder:
    """Read the model, once it is clear that the outputs can be written."""
    from twofold.data import sources
    from twofold.estimators.autoencoder import load

    for output in [outputs] if isinstance(outputs, Path) else outputs or ():
        sources.require_free_output(output, force)
    return load(model)


def _forfiles(ae: Autoencoder) -> Autoencoder:
    """Let rows that come from codes be Arrow tables with their columns' types, or else arrays."""
    typed = ae.schema_.formats() is not None
    ae.schema_ = ae.schema_.with_container("arrow" if typed else "numpy")
    return ae


def _load(ae: Autoencoder, source: str) -> Any:
    """Read the model's columns of a source, once for all that is done with its rows."""
    from twofold.data import sources

    return sources.load(source, columns=getattr(ae, "feature_names_in_", None))


def _save(rows: Any, names: Sequence[str], output: Path, force: bool) -> None:
    """Write rows, an array `(n_rows, ...)` or an Arrow table, to a file."""
    import numpy as np

    from twofold.data import sources

    if isinstance(rows, np.ndarray) and output.suffix.lower() != ".npy":
        rows = sources.to_arrow(rows.reshape(len(rows), len(names)), names)
    sources.write(rows, output, force)


def _apply(
    verb: str,
    model: Path,
    source: Files,
    output: Path,
    address: str | None,
    workers: int | None,
    force: bool,
    quiet: bool,
) -> tuple[Autoencoder, Tally]:
    """Write what the model makes of the rows: in this process, or where a cluster's address is."""
    if address is None:
        if workers is not None:
            raise OptionError("--workers is for a cluster, whose --address is missing.")
        from twofold.distributed.tally import VERBS

        ae, (apply, columns) = _open(model, output, force), VERBS[verb]

        def make(part: Any, first_row: int, say: Say | None) -> tuple[Sequence[Any], Tally]:
            made, told = apply(ae, part, first_row, say)
            if verb == "score" and output.suffix.lower() == ".npy":
                made = made.drop_columns(["columns"])  # they are text
            return [made], told

        return ae, _write(ae, make, columns(ae), source, [output], force, quiet)
    from twofold.distributed import batch_inference
    from twofold.estimators.autoencoder import load

    ae = load(model)
    with plain_warnings(), redirect_stdout(sys.stderr):  # where Ray says what has ended
        return ae, batch_inference.write(
            ae,
            verb,
            source,
            output,
            address=address,
            workers=workers,
            force=force,
            say=teller(quiet),
        )


def _write(
    ae: Autoencoder,
    make: Callable[[Any, int, Say | None], tuple[Sequence[Any], Tally]],
    names: Sequence[str],
    source: Files,
    outputs: Sequence[Path],
    force: bool,
    quiet: bool,
) -> Tally:
    """Write what is made of the rows, part by part: one table for each output."""
    from twofold.data.files import in_parts, opened
    from twofold.data.output import Pace, Writer
    from twofold.distributed.tally import Tally
    from twofold.estimators import reading

    say, total = teller(quiet), Tally()
    with plain_warnings(), Writer(outputs, names, force) as writer:
        rows = opened(source, reading.names_of(ae))
        pace = Pace(len(rows), say)
        for part, (made, told) in in_parts(rows, lambda p: make(p, total.n_rows, say)):
            writer.write(*made)
            total.add(told)
            pace.add(len(part))
    return total
