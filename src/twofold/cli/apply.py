"""Commands that apply a model to rows, here or on a cluster, and write the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twofold.cli import options
from twofold.cli.common import (
    Address,
    CsvSafe,
    Device,
    Force,
    Model,
    OnBadFile,
    Output,
    Quiet,
    Seed,
    Source,
    Stream,
    Tasks,
    TextFlags,
    files,
    plain_warnings,
    print_written,
    progress_printer,
)
from twofold.errors import DataError, OptionError
from twofold.formatting import counted
from twofold.options import check, require_integer
from twofold.verbs import VERBS

if TYPE_CHECKING:
    from twofold.data.files import Files
    from twofold.distributed.results import Progress, Summary
    from twofold.estimators.autoencoder import Autoencoder
    from twofold.schema.schema import Schema


@dataclass(frozen=True, kw_only=True)
class Batch(TextFlags):
    """What every command has in common that makes one row of each row of a source.

    The fields are the arguments and flags of these commands, declared once.
    """

    model: Model
    source: Source
    output: Output
    stream: Stream = None
    on_bad_file: OnBadFile = "error"
    address: Address = None
    workers: Tasks = None
    device: Device = None
    force: Force = False
    csv_safe: CsvSafe = False
    quiet: Quiet = False

    @property
    def files(self) -> Files:
        """The source, and how it is read."""
        return files(self.source, self.stream, self.on_bad_file, text=self)


def verb_command(name: str, *examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a function as the command of a verb, explained as `twofold.verbs` explains it.

    Where the function has a parameter `batch`, the command has the arguments and flags of `Batch`
    in its place.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        command = options.spread("batch", Batch, function)
        verb = VERBS[name]
        listed = "\n".join(f"- `{example}`" for example in examples)
        parts = (verb.help, verb.details, "For example:", listed)
        command.__doc__ = "\n\n".join(part for part in parts if part)
        return command

    return declare


@verb_command(
    "encode",
    "twofold encode model rows.csv --output codes.parquet",
    "twofold encode model /shared/rows --output /shared/codes --address auto",
)
def encode(batch: Batch) -> None:
    """Write codes."""
    _, summary = _apply("encode", batch)
    what = f"the codes of {summary.n_rows:,} rows, {summary.n_columns:,} columns"
    print_written(what, batch.output)


@verb_command("decode", "twofold decode model codes.parquet --output rows.csv")
def decode(
    model: Model,
    codes: Annotated[
        str, typer.Argument(metavar="CODES", help="File with codes, as `twofold encode` wrote it.")
    ],
    output: Output,
    force: Force = False,
    csv_safe: CsvSafe = False,
) -> None:
    """Write the rows of codes."""
    from twofold.data.files import load

    ae = _for_files(_open(model, output, force))
    rows = ae.inverse_transform(load(codes, columns=list(ae.get_feature_names_out())))
    _save(rows, ae.schema_, output, force, csv_safe)
    print_written(f"{len(rows):,} rows", output)


@verb_command("reconstruct", "twofold reconstruct model rows.csv --output reconstructed.csv")
def reconstruct(batch: Batch) -> None:
    """Write reconstructions."""
    _, summary = _apply("reconstruct", batch)
    print_written(f"{summary.n_rows:,} reconstructed rows", batch.output)


@verb_command("score", "twofold score model rows.csv --output scores.csv")
def score(batch: Batch) -> None:
    """Write scores, and show the most anomalous rows."""
    ae, summary = _apply("score", batch)
    n = summary.n_anomalies
    verb = "is an anomaly" if n == 1 else "are anomalies"
    typer.echo(
        f"{n:,} of {counted(summary.n_rows, 'row')} {verb} (score below {ae.offset_:.6g} nats); "
        f"the scores are in {batch.output}"
    )
    if n:
        typer.echo("\n" + summary.anomaly_table())


@options.text_flags
@verb_command(
    "explain",
    "twofold explain model rows.csv",
    "twofold explain model rows.csv --row 17 --columns 10",
    "twofold explain model rows.csv --top 100 --output reasons.csv",
)
def explain(
    model: Model,
    source: Source,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="How many rows, the most anomalous first. [default: 10]",
            show_default=False,
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
    stream: Stream = None,
    force: Force = False,
    csv_safe: CsvSafe = False,
    quiet: Quiet = False,
    *,
    text: TextFlags,
) -> None:
    """Show, and write where wanted, what each column contributes to the anomaly score."""
    import numpy as np

    from twofold.data.output import write
    from twofold.distributed.results import ExplanationReport, ScoredRows
    from twofold.estimators import validation

    if top is not None and row is not None:
        raise OptionError("Expected --top or --row, got both. Leave one of them out.")
    n_top = 10 if top is None else top
    for name, n in {"top": n_top, "columns": columns}.items():
        require_integer(f"--{name}", n)
    if output is not None and output.suffix.lower() == ".npy":
        raise DataError(
            f"Expected a file that can hold column names, got {output}. Write .csv or .parquet."
        )
    ae = _open(model, output, force)
    report = ExplanationReport(ae, columns)
    with plain_warnings():
        rows = validation.open_rows(ae, files(source, stream, "error", text=text))
        scored = ScoredRows(ae, rows)
        n_rows = len(scored)
        if row is not None and not 0 <= row < n_rows:
            raise OptionError(
                f"Expected a row from 0 to {n_rows - 1:,}, got --row {row}: {source} has "
                f"{counted(n_rows, 'row')}."
            )
        chosen = scored.scores.most_anomalous(n_top) if row is None else np.array([row])
        for part in scored.explained(chosen, progress_printer(quiet)):
            report.show(part)
            if output is not None:
                report.keep(part)
    if output is not None:
        write(report.arrow(), output, force, csv_safe=csv_safe)
    which = f"Row {row}" if row is not None else f"The {len(chosen):,} most anomalous"
    typer.echo(
        f"{which} of {counted(n_rows, 'row')}; a score below {ae.offset_:.6g} nats is an anomaly. "
        f"Contributions are in nats.\n"
    )
    typer.echo(report.table(scored))
    if output is not None:
        typer.echo()
        print_written("all columns of these rows", output)


@verb_command(
    "impute",
    "twofold impute model rows.csv --output complete.csv",
    "twofold impute model rows.csv --output complete.csv --n-draws 5 --random-state 0",
)
def impute(
    batch: Batch,
    n_draws: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="With more than 1, as many files with random draws, numbered -1, -2, ...",
        ),
    ] = 1,
    random_state: Seed = None,
) -> None:
    """Write rows whose missing values are filled."""
    check({"random_state": random_state})
    output = batch.output
    if n_draws == 1:
        _, summary = _apply("impute", batch)
        return _print_imputed(summary, [output])
    if batch.address is not None:
        raise OptionError(
            f"Expected --n-draws 1 with --address, got {n_draws}. Leave one of them out: several "
            f"draws are made in a single process."
        )
    from twofold.distributed.results import Summary
    from twofold.inference.sampling import random_state as generator

    outputs = [output]
    if output.suffix:
        outputs = [output.with_stem(f"{output.stem}-{i + 1}") for i in range(n_draws)]
    ae, rng = _open(batch.model, outputs, batch.force), generator(random_state)

    def draw(part: Any, first_row: int, progress: Progress | None) -> tuple[Sequence[Any], Summary]:
        drawn = ae.impute(part, n_draws, rng)
        return drawn, Summary.of_imputed(part, drawn[0])

    _print_imputed(_write(ae, draw, ae.schema_.names, batch, outputs), outputs)


def _print_imputed(summary: Summary, outputs: Sequence[Path]) -> None:
    filled = counted(summary.n_missing - summary.n_left, "missing value")
    what = f"{counted(summary.n_rows, 'row')}, {filled} filled"
    for path in outputs:
        left = f", {summary.n_left:,} left missing" * (summary.n_left > 0)
        print_written(what + left, path)


@verb_command("sample", "twofold sample model --rows 100 --output new.csv --random-state 0")
def sample(
    model: Model,
    rows: Annotated[int, typer.Option(metavar="N", help="How many rows.")],
    output: Output,
    random_state: Seed = None,
    force: Force = False,
    csv_safe: CsvSafe = False,
) -> None:
    """Write new rows."""
    check({"random_state": random_state})
    ae = _for_files(_open(model, output, force))
    drawn = ae.sample(rows, random_state)
    _save(drawn, ae.schema_, output, force, csv_safe)
    print_written(counted(rows, "new row"), output)


def _open(model: Path, outputs: Path | Sequence[Path] | None, force: bool) -> Autoencoder:
    """Read the model, once it is clear that the outputs can be written."""
    from twofold.data.output import require_free_table
    from twofold.estimators.autoencoder import load

    for output in [outputs] if isinstance(outputs, Path) else outputs or ():
        require_free_table(output, force)
    return load(model)


def _for_files(ae: Autoencoder) -> Autoencoder:
    """Let rows that come from codes be Arrow tables with their columns' types, or else arrays."""
    typed = ae.schema_.formats() is not None
    ae.schema_ = ae.schema_.with_container("arrow" if typed else "numpy")
    return ae


def _save(rows: Any, schema: Schema, output: Path, force: bool, csv_safe: bool) -> None:
    """Write rows, an array `(n_rows, ...)` or an Arrow table, as the training file was written."""
    import numpy as np

    from twofold.data.convert import to_arrow
    from twofold.data.notation import DELIMITER_KEY
    from twofold.data.output import write

    if isinstance(rows, np.ndarray):
        if output.suffix.lower() != ".npy":
            rows = to_arrow(rows.reshape(len(rows), len(schema.names)), schema.names)
    else:
        rows = rows.replace_schema_metadata({DELIMITER_KEY: schema.delimiter})
    write(rows, output, force, csv_safe=csv_safe)


def _apply(verb: str, batch: Batch) -> tuple[Autoencoder, Summary]:
    """Write the verb's result: by this process, or by the cluster at the address."""
    if batch.address is None:
        for flag in ("workers", "device"):
            if getattr(batch, flag) is not None:
                raise OptionError(
                    f"--{flag} needs a cluster. Add its --address, or leave --{flag} out."
                )
        from twofold.distributed import results

        ae = _open(batch.model, batch.output, batch.force)

        def make(
            part: Any, first_row: int, progress: Progress | None
        ) -> tuple[Sequence[Any], Summary]:
            is_array = batch.output.suffix.lower() == ".npy"  # which holds numbers only
            made, summary = results.apply(verb, ae, part, first_row, progress, named=not is_array)
            if verb == "score" and is_array:
                made = made.drop_columns(["columns"])  # they are text
            return [made], summary

        return ae, _write(ae, make, VERBS[verb].columns(ae), batch, [batch.output])
    from twofold.distributed import batch_inference
    from twofold.estimators.autoencoder import load

    ae = load(batch.model)
    with plain_warnings(), redirect_stdout(sys.stderr):  # where Ray says what has ended
        return ae, batch_inference.write(
            ae,
            verb,
            batch.files,
            batch.output,
            address=batch.address,
            workers=batch.workers,
            device="auto" if batch.device is None else batch.device,
            force=batch.force,
            progress=progress_printer(batch.quiet),
        )


def _write(
    ae: Autoencoder,
    make: Callable[[Any, int, Progress | None], tuple[Sequence[Any], Summary]],
    names: Sequence[str],
    batch: Batch,
    outputs: Sequence[Path],
) -> Summary:
    """Write what is made of the rows, part by part: one table for each output."""
    from twofold.data.chunks import in_parts
    from twofold.data.output import Pace, Writer
    from twofold.distributed.results import Summary
    from twofold.estimators import validation

    progress, total = progress_printer(batch.quiet), Summary()
    with plain_warnings(), Writer(outputs, names, batch.force, batch.csv_safe) as writer:
        # Cells of text files are written again as they are.
        as_written = all(path.suffix.lower() == ".csv" for path in outputs)
        rows = validation.open_rows(ae, batch.files, as_written=as_written)
        pace = Pace(len(rows), progress)
        for part, (made, summary) in in_parts(rows, lambda p: make(p, total.n_rows, progress)):
            writer.write(*made)
            total.add(summary)
            pace.add(len(part))
    return total
