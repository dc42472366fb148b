"""Commands that train: on images to see what it is about, and on rows."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from twofold.cli import options
from twofold.cli.common import (
    INTERRUPTED,
    Address,
    Force,
    OnBadFile,
    Quiet,
    Stream,
    TextFlags,
    files,
    plain_warnings,
)
from twofold.errors import InterruptedWarning
from twofold.formatting import pairs, size
from twofold.options import check
from twofold.persistence import summary


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
    from twofold.cli.demo.run import run

    run(dataset=dataset, epochs=epochs, output=output, force=force)


@options.text_flags
@options.takes_options
def fit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Rows: a CSV, Parquet, .npy or .npz file, a folder of Parquet, CSV, PNG or JPEG "
            "files, or a pattern such as 'data/*.parquet' in quotes.",
        ),
    ],
    given: Mapping[str, Any],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="MODEL",
            help="Folder to save the model in. [default: the name of SOURCE with .twofold, in this "
            "folder]",
            show_default=False,
        ),
    ] = None,
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
    *,
    text: TextFlags,
) -> None:
    """Train an autoencoder on the rows of SOURCE and save it as a model.

    Columns may hold numbers, text, booleans and times, and cells may be missing. What a column is
    shows in its type and its cells, unless --kinds settles it; --drop leaves columns out. Ctrl-C
    stops the training and keeps the best weights until then. With --checkpoint, training that was
    ended, by whatever, goes on with --resume; once the model is saved, the checkpoint is removed.
    Rows that do not fit into memory stay on disk. Under `torchrun`, every process is a worker.

    For example:

    - `twofold fit rows.csv`, which writes the model rows.twofold
    - `twofold fit rows.csv --output model --n-components 8 --hidden-layers 64,32 --epochs 50`
    - `twofold fit 'data/*.parquet' --output model --drop id,name --untied --random-state 0`
    - `twofold fit rows.csv --output model --kinds zip=category,visits=real,comment=ignored`
    - `twofold fit rows.csv --output model --checkpoint model-run --resume`
    - `twofold fit 'data/*.parquet' --output model --batch-size 4096 --workers 4`
    - `twofold fit '/shared/*.parquet' --output model --workers 2:8 --address auto`
    """
    check(given)
    started = time.perf_counter()
    from twofold.data import sources
    from twofold.data.addresses import shown, size_of
    from twofold.data.output import require_writable
    from twofold.distributed import launch
    from twofold.estimators.autoencoder import Autoencoder
    from twofold.persistence import folder as model_folder
    from twofold.training import checkpoint as checkpoints
    from twofold.training.callbacks import TensorBoard
    from twofold.training.process_group import using
    from twofold.training.progress import Progress

    if output is None:
        output = Path(f"{sources.title_of(source)}.twofold")
    model_folder.require_free(output, force)
    require_writable(output)
    opened = files(source, stream, on_bad_file, options.names(drop or ()), text)
    ae = Autoencoder(**given)
    with (
        using(launch.joined()) as group,
        plain_warnings() as caught,
        Progress() if group.is_main and not quiet else nullcontext() as progress,
        nullcontext() if tensorboard is None else TensorBoard(tensorboard, ae) as log,
        redirect_stdout(sys.stderr),  # where Ray says what has ended
    ):
        ae, n_rows = launch.fit(
            ae,
            opened,
            workers=options.workers(workers),
            address=address,
            callbacks=[each for each in (progress, log) if each is not None],
            checkpoint=checkpoint,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
        )
    if not group.is_main:
        return
    ae.save(output, overwrite=force)
    interrupted = any(warning.category is InterruptedWarning for warning in caught)
    if checkpoint is not None and not interrupted:
        checkpoints.remove(checkpoint)
    lines = {
        **summary.fitted(ae, n_rows),
        "time": f"{time.perf_counter() - started:.1f} s",
        "model": f"{shown(output)} ({size(size_of(output))})",
    }
    typer.echo("\n\n".join([ae.summary(), ae.schema_.summary(), pairs(lines)]))
    if interrupted:
        remedy = " The same command with --resume --force goes on." if checkpoint else ""
        typer.echo(f"Training was interrupted; the model was saved all the same.{remedy}", err=True)
        raise typer.Exit(INTERRUPTED)
