"""Commands that show a model to people and hand it on to programs."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated

import typer

from twofold import __version__
from twofold.cli.common import (
    Force,
    Model,
    OnBadFile,
    OptionalModel,
    Quiet,
    Source,
    Stream,
    TextFlags,
    files,
    plain_warnings,
    print_written,
    progress_printer,
)
from twofold.cli.options import text_flags
from twofold.errors import OptionError
from twofold.formatting import counted, pairs, size
from twofold.persistence import summary


def info(
    model: OptionalModel = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the model's whole document as JSON.")
    ] = False,
    system: Annotated[
        bool,
        typer.Option("--system", help="Say what twofold computes with on this machine instead."),
    ] = False,
) -> None:
    """Tell what a model is: options, columns, layers, training and versions.

    For example:

    - `twofold info model`
    - `twofold info model --json`
    - `twofold info --system`
    """
    from twofold.data.addresses import Folder, shown
    from twofold.estimators.autoencoder import load
    from twofold.persistence import folder as model_folder

    if system:
        typer.echo(_system())
        return
    if model is None:
        raise OptionError("Expected the folder of a model, got none. Name one, or pass --system.")

    _, document = model_folder.read(model)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    ae = load(model)
    parts = {
        "Options that differ from the defaults": summary.changed_options(document["options"]),
        "Understood": ae.schema_.summary(),
        f"Columns ({ae.schema_})": summary.columns(ae),
        "Layers": ae.summary(),
        "Training": summary.training(ae),
        "File": pairs(
            {
                "folder": shown(model),
                **{name: size(n) for name, n in Folder(model).sizes().items()},
                "made with": ", ".join(f"{k} {v}" for k, v in document["versions"].items()),
            }
        ),
    }
    typer.echo("\n\n".join(f"{title}\n\n{text}" for title, text in parts.items()))


def _system() -> str:
    """Return what computes here: versions, threads, device and training step."""
    import torch

    from twofold.inference.apply import find_device
    from twofold.nn.threads import granted
    from twofold.training.step import describe

    return pairs(
        {
            "twofold": __version__,
            "Python": platform.python_version(),
            "PyTorch": torch.__version__,
            "system": f"{platform.system()} {platform.machine()}",
            "device": str(find_device("auto")),
            "threads": str(granted()),
            "training step": describe(),
        }
    )


@text_flags
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
    *,
    text: TextFlags,
) -> None:
    """Write one page about a model and rows: errors, scores, anomalies, codes, and what to do.

    The page is complete in itself and asks no server. Rows that the model has not seen say most.
    All of them are scored; of many, a random sample is measured.

    For example:

    - `twofold report model rows.csv --output report.html`
    """
    from twofold.data.output import require_free
    from twofold.estimators.autoencoder import load
    from twofold.report import document as reports

    require_free(output, force)
    opened = files(source, stream, on_bad_file, text=text)
    with plain_warnings():
        findings = reports.write(
            load(model), opened, output, force, progress=progress_printer(quiet)
        )
    urgent = [finding.sentence for finding in findings if finding.urgent]
    to_act, to_know = counted(len(urgent), "thing"), len(findings) - len(urgent)
    print_written(f"a page with {to_act} to act on and {to_know} to know", output)
    for sentence in urgent:
        typer.echo(f"- {sentence}")


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
    from twofold.data.output import require_free
    from twofold.estimators.autoencoder import load
    from twofold.persistence.onnx.export import OUTPUTS, onnx

    require_free(output, force)
    onnx(load(model), output, part, overwrite=force)
    print_written(f"a graph that gives {', '.join(OUTPUTS[part])}", output)


@text_flags
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
    *,
    text: TextFlags,
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
    from twofold.estimators.autoencoder import load
    from twofold.explorer.app import run

    ae = load(model)
    title, progress = model.resolve().name, progress_printer(quiet)
    rows = files(source, None, "error", text=text)
    run(ae, rows, title=title, port=port, browser=browser, say=typer.echo, progress=progress)


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
    max_memory: Annotated[
        int,
        typer.Option(
            metavar="N", help="Bytes that bodies, rows and results of all requests together take."
        ),
    ] = 536_870_912,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="How long a request may take to arrive, to be decoded, and to be computed, each.",
        ),
    ] = 30.0,
) -> None:
    """Answer requests over HTTP: a route per verb, in JSON or Arrow.

    `GET /openapi.json` describes every route. Ctrl-C and SIGTERM end the service within 10 seconds;
    SIGHUP loads the model again.

    For example:

    - `twofold serve model`
    - `twofold serve model --host 0.0.0.0 --port 80 --max-rows 1000`
    """
    from twofold.service import server

    # The port is taken first: it is better to fail at once.
    with server.listen(host, port) as listener:
        from twofold.service.app import create_app

        application = create_app(
            model,
            token=token,
            hosts=server.own_names(host),
            max_rows=max_rows,
            max_bytes=max_bytes,
            max_memory=max_memory,
            timeout=timeout,
        )
        if token is None and not server.is_loopback(host):
            typer.echo(
                f"warning: everyone who reaches {host} can use this service. Give it a --token, "
                f"or leave --host out.",
                err=True,
            )
        server.serve(
            application,
            listener,
            timeout=timeout,
            on_start=lambda address: typer.echo(f"Serving {model} at {address} (Ctrl-C ends it)."),
        )
