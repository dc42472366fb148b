"""The tutorial in one run: a stacked and a tied autoencoder on images, side by side with PCA.

`run` trains both networks with one recipe and leaves a folder behind: the two models, two pictures,
every number in `figures.json`, and `index.html`, one page that holds all of it and asks no one for
anything.
"""

from __future__ import annotations

import base64
import json
import math
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich.box
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from twofold import __version__, bundle, datasets, figures, metrics, options, training
from twofold.autoencoder import Autoencoder
from twofold.errors import (
    DataError,
    DatasetUnavailable,
    InterruptedWarning,
    LosesToPCAWarning,
    OutputExistsError,
)
from twofold.network import Network, default_n_components
from twofold.objective import Objective
from twofold.progress import Progress

Array = NDArray[Any]
Figures = dict[str, Any]  # what figures.json holds

_VALIDATION_SHARE = 7 / 60  # the tutorial's split: the last 7,000 of 60,000
_SHOWN = 10  # images in reconstructions.png
_SHOWN_IN_TERMINAL = 8
_FILES = ("reconstructions.png", "history.png", "figures.json", "index.html")
_NETS = {"stacked": False, "tied": True}  # folder and title, and whether it is tied
_RECIPE = (
    "n_components",
    "hidden_layers",
    "activation",
    "code_activation",
    "likelihood",
    "optimizer",
    "learning_rate",
    "schedule",
    "batch_size",
    "patience",
    "random_state",
)
_PACKAGES = ("torch", "numpy", "scikit-learn", "matplotlib")


def recipe(width: int, tied: bool, epochs: int = 20, random_state: int = 42) -> Autoencoder:
    """Return the tutorial's autoencoder for rows of `width` pixels: half, a quarter, and back.

    Examples
    --------
    >>> from twofold.demo import recipe
    >>> recipe(784, tied=True).hidden_layers, recipe(784, tied=True).n_components
    ((392,), 196)
    """
    return Autoencoder(
        n_components=default_n_components(width),
        hidden_layers=(math.ceil(width / 2),),
        tied=tied,
        activation="selu",
        code_activation="selu",
        likelihood="bernoulli",
        optimizer="sgd",
        learning_rate=1.5,
        schedule="constant",
        batch_size=32,
        epochs=epochs,
        patience=None,
        random_state=random_state,
    )


def run(
    dataset: str = "mnist",
    epochs: int = 20,
    output: str | os.PathLike[str] = "twofold-demo",
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Train a stacked and a tied autoencoder on images, compare them, and write what came of it.

    Parameters
    ----------
    dataset : str
        One of `datasets.NAMES`. Where no source has it, scikit-learn's digits take its place, and
        everything printed and written says so.
    epochs : int
        Passes over the training images.
    output : path-like
        Folder to write to.
    force : bool
        Whether files of an earlier run in `output` may be replaced.
    console : rich.console.Console, optional
        Where to tell the story; by default standard output.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputExistsError
        Where `output` holds anything and `force` is false, or what it holds is not the demo's.
    DataError
        Where there is no data set of this name, or the folder cannot be written.
    KeyboardInterrupt
        At the second Ctrl-C; the first one ends the training at hand, and the story goes on.
    """
    output = Path(output)
    console = console or Console()
    options.check(recipe(4, tied=True, epochs=epochs).get_params(deep=False))
    _require_free(output, force)
    data = _load(dataset, console)
    _make_writable(output)
    _introduce(data, epochs, console)
    nets = _train_both(data, epochs, console)
    for name, net in nets.items():
        net.autoencoder.save(output / name, overwrite=force)
    numbers = _numbers(data, nets, output)
    _conclude(numbers, console)
    _write_all(output, data, nets, numbers)
    _say(console, f"Written to {output}: {', '.join([*_NETS, *_FILES])}.")
    _say(console, f"Open {output / 'index.html'} in a browser.")
    return output


@dataclass(frozen=True)
class _Data:
    """The images as the networks see them, float32 from 0 to 1, `(n, height, width)`."""

    title: str  # what everything printed and written calls them
    requested: str
    images: datasets.Images
    train: Array
    validation: Array
    test: Array

    @property
    def is_substitute(self) -> bool:
        return self.requested != self.images.name

    @property
    def width(self) -> int:
        return int(np.prod(self.train.shape[1:]))


class _Net(NamedTuple):
    autoencoder: Autoencoder
    epochs_asked: int
    interrupted: bool


def _load(dataset: str, console: Console) -> _Data:
    def say(line: str) -> None:
        _say(console, line)

    try:
        images = datasets.load(dataset, on_progress=say)
    except DatasetUnavailable as error:
        say(str(error))
        images = datasets.load("digits", on_progress=say)
    height, width = images.train.shape[1:]
    title = images.title if images.name != "digits" else f"{images.title} ({height}x{width})"
    if images.name != dataset:
        title += f", because {datasets.TITLES[dataset]} could not be had"
        say(f"Going on with {title}.")
    n = round(len(images.train) * _VALIDATION_SHARE)
    train = images.train / np.float32(255)
    return _Data(title, dataset, images, train[:-n], train[-n:], images.test / np.float32(255))


def _introduce(data: _Data, epochs: int, console: Console) -> None:
    height, width = data.train.shape[1:]
    _say(
        console,
        f"{data.title}: {len(data.train):,} images of {height}x{width} to train on, "
        f"{len(data.validation):,} to validate, {len(data.test):,} to test; from "
        f"{data.images.source}.",
    )
    console.print()
    console.print(terminal_images(data.images.train[:_SHOWN_IN_TERMINAL], console))
    for name, tied in _NETS.items():
        console.print()
        _say(console, f"{name}: {_SHARING[name]}", style="bold")
        _say(console, _summary(data.width, tied))
    console.print()
    _say(
        console,
        f"Both train for {_count(epochs, 'epoch')} in batches of 32, by plain SGD at a learning "
        f"rate of 1.5, and lower the binary cross-entropy of their outputs' sigmoid. Ctrl-C ends a "
        f"training early and goes on.",
    )


_SHARING = {
    "stacked": "encoder and decoder have matrices of their own",
    "tied": "the decoder reuses the encoder's matrices, transposed",
}


def _summary(width: int, tied: bool) -> str:
    """Return the layer table of a network of the recipe that nobody has trained yet."""
    settings = recipe(width, tied)
    assert isinstance(settings.hidden_layers, tuple)
    assert settings.n_components is not None
    with torch.device("meta"):  # neither memory nor random numbers are needed to count
        network = Network(
            width,
            settings.hidden_layers,
            settings.n_components,
            tied=tied,
            activation=settings.activation,
            code_activation=settings.code_activation,
        )
    return network.summary()


def terminal_images(images: Array, console: Console) -> Text:
    """Return grey images `(n, height, width)`, 0 to 255, side by side as text.

    Two pixels share a character, one above the other. A margin that all images leave black is cut
    off, images larger than 14 pixels across are shrunk by averaging, and as many are shown as fit.
    In a colour terminal the characters carry grey levels, elsewhere they are blocks, or plain ASCII
    where the encoding has no blocks.
    """
    images = _without_margin(images)
    factor = math.ceil(images.shape[2] / 14)
    shown = max(1, (console.width + 1) // (math.ceil(images.shape[2] / factor) + 1))
    small = [_shrunk(image, factor) for image in images[:shown]]
    gap = np.full((len(small[0]), 1), np.nan)
    strip = np.hstack([part for image in small for part in (image, gap)][:-1])
    in_grey = console.is_terminal and console.color_system in ("256", "truecolor")
    blocks = " ▀▄█" if console.encoding.lower().startswith("utf") else " '.#"
    text = Text(no_wrap=True)
    for top, bottom in zip(strip[::2], strip[1::2], strict=True):
        for upper, lower in zip(top, bottom, strict=True):
            if np.isnan(upper):
                text.append(" ")
            elif in_grey and not console.no_color and blocks[1] == "▀":
                text.append("▀", f"{_grey(upper)} on {_grey(lower)}")
            else:
                text.append(blocks[int(upper > 96) + 2 * int(lower > 96)])
        text.append("\n")
    text.rstrip()
    return text


def _without_margin(images: Array) -> Array:
    _, down, across = np.nonzero(images)
    if len(down) == 0:
        return images
    return images[:, down.min() : down.max() + 1, across.min() : across.max() + 1]


def _shrunk(image: Array, factor: int) -> Array:
    """Return the means of squares of `factor` pixels; the height of the result is even."""
    height, width = (math.ceil(size / factor) for size in image.shape)
    height += height % 2
    padded = np.zeros((height * factor, width * factor))
    padded[: image.shape[0], : image.shape[1]] = image
    squares = padded.reshape(height, factor, width, factor)
    return np.asarray(squares.mean(axis=(1, 3)))


def _grey(level: float) -> str:
    return f"rgb({level:.0f},{level:.0f},{level:.0f})"


def _train_both(data: _Data, epochs: int, console: Console) -> dict[str, _Net]:
    nets: dict[str, _Net] = {}
    for name, tied in _NETS.items():
        autoencoder = recipe(data.width, tied, epochs)
        with _fit_warnings(console) as caught, Progress(title=name) as progress:
            autoencoder.fit(data.train, validation_data=data.validation, on_event=progress)
        interrupted = any(issubclass(w.category, InterruptedWarning) for w in caught)
        if interrupted and any(net.interrupted for net in nets.values()):
            raise KeyboardInterrupt
        nets[name] = _Net(autoencoder, epochs, interrupted)
        if interrupted and len(nets) < len(_NETS):
            epochs = max(1, len(autoencoder.history_))
            _say(
                console,
                f"The other network trains for {_count(epochs, 'epoch')} as well, so that the two "
                f"compare. Ctrl-C again ends the demo.",
            )
    return nets


@contextmanager
def _fit_warnings(console: Console) -> Iterator[list[warnings.WarningMessage]]:
    """Tell what `fit` warns about in one plain line each; other warnings take their usual way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    for warning in caught:
        if issubclass(warning.category, LosesToPCAWarning | InterruptedWarning):
            _say(console, f"Note: {warning.message}")
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _seconds_of_pca(data: _Data) -> float:
    """Return how long it takes to fit the baseline that each fitted network already has."""
    flat = data.train.reshape(len(data.train), -1)
    start = time.perf_counter()
    metrics.fit_pca(flat, default_n_components(data.width), np.random.RandomState(42))
    return time.perf_counter() - start


def _numbers(data: _Data, nets: Mapping[str, _Net], output: Path) -> Figures:
    """Collect every number of the table, and what it takes to judge them."""
    rows = {
        name: {**_measure(net, data), "bytes": (output / name / bundle.WEIGHTS).stat().st_size}
        for name, net in nets.items()
    }
    rows["PCA"] = _measure_pca(nets["tied"].autoencoder.pca_, data)
    device = next(nets["tied"].autoencoder.network_.parameters()).device
    return {
        "dataset": {
            "name": data.images.name,
            "requested": data.requested,
            "title": data.title,
            "source": data.images.source,
            "image": list(data.train.shape[1:]),
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "least_loss": _least_loss(data.validation),
        },
        "recipe": _settings(nets["tied"].autoencoder),
        "rows": rows,
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": _granted_cores(),
            "threads": torch.get_num_threads(),
            "device": str(device),
        },
        "versions": {
            "twofold": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "date": datetime.now(UTC).date().isoformat(),
    }


def _measure(net: _Net, data: _Data) -> dict[str, Any]:
    autoencoder, history = net.autoencoder, net.autoencoder.history_
    seconds = history[-1]["seconds"] if history else None
    loss, validation_loss = (_loss(autoencoder, part) for part in (data.train, data.validation))
    errors = {
        f"squared_error_{part}": metrics.squared_error(images, autoencoder.reconstruct(images))
        for part, images in (("validation", data.validation), ("test", data.test))
    }
    return {
        "parameters": autoencoder.network_.n_parameters,
        "epochs": len(history),
        "epochs_asked": net.epochs_asked,
        "interrupted": net.interrupted,
        "seconds": seconds,
        "seconds_per_epoch": None if seconds is None else seconds / len(history),
        "loss": loss,
        "validation_loss": validation_loss,
        "overfitting": validation_loss - loss,
        **errors,
    }


def _measure_pca(pca: metrics.PCA, data: _Data) -> dict[str, Any]:
    flat = {part: getattr(data, part).reshape(-1, data.width) for part in ("validation", "test")}
    errors = {
        f"squared_error_{part}": metrics.squared_error(rows, pca.reconstruct(rows))
        for part, rows in flat.items()
    }
    numbers = pca.components.size + pca.mean.size
    return {
        "parameters": numbers,
        "seconds": _seconds_of_pca(data),
        **errors,
        "bytes": numbers * np.dtype(np.float32).itemsize,
    }


@torch.no_grad()
def _loss(autoencoder: Autoencoder, images: Array) -> float:
    """Return the binary cross-entropy per pixel, in nats, with the weights as they are now."""
    network = autoencoder.network_
    device = next(network.parameters()).device
    x = torch.from_numpy(images.reshape(len(images), -1)).to(device)
    return training.evaluate(network, Objective(autoencoder.schema_).to(device), x)


def _least_loss(images: Array) -> float:
    """Return the cross-entropy of a perfect reconstruction: the entropy of the grey levels."""
    x = images[(images > 0) & (images < 1)].astype(np.float64)
    return float(-(x * np.log(x) + (1 - x) * np.log1p(-x)).sum() / images.size)


def _settings(autoencoder: Autoencoder) -> dict[str, Any]:
    """Return the recipe's options, without the two that differ between the networks."""
    values = {name: getattr(autoencoder, name) for name in _RECIPE}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _granted_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Measure(NamedTuple):
    """One line of the table: its title, its key in figures.json and how its numbers are written."""

    title: str
    key: str
    text: Callable[[float], str]


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + "s" * (n != 1)


def _seconds(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


_MEASURES = (
    _Measure("parameters", "parameters", "{:,}".format),
    _Measure("training time, s", "seconds", _seconds),
    _Measure("time per epoch, s", "seconds_per_epoch", _seconds),
    _Measure("training loss", "loss", "{:.4f}".format),
    _Measure("validation loss", "validation_loss", "{:.4f}".format),
    _Measure("over-fitting (validation - training)", "overfitting", "{:.4f}".format),
    _Measure("squared error, validation", "squared_error_validation", "{:.3f}".format),
    _Measure("squared error, test", "squared_error_test", "{:.3f}".format),
    _Measure("weights on disk, kB", "bytes", lambda value: f"{value / 1000:,.0f}"),
)


def _cells(numbers: Figures) -> tuple[list[str], list[list[str]]]:
    """Return the table as text: the heads of its columns, and its lines."""
    rows = numbers["rows"]
    heads = ["", *(_head(name, row) for name, row in rows.items())]
    lines = []
    for title, key, text in _MEASURES:
        values = [row.get(key) for row in rows.values()]
        lines.append([title, *("-" if value is None else text(value) for value in values)])
    return heads, lines


def _head(name: str, row: Mapping[str, Any]) -> str:
    if not row.get("interrupted"):
        return name
    return f"{name}, interrupted after {row['epochs']} of {_count(row['epochs_asked'], 'epoch')}"


def _conclusions(numbers: Figures) -> list[str]:
    """Say what the table shows, in sentences that its numbers decide."""
    stacked, tied, pca = (numbers["rows"][name] for name in ("stacked", "tied", "PCA"))
    share = tied["parameters"] / stacked["parameters"]
    loss = tied["validation_loss"] / stacked["validation_loss"]
    error = tied["squared_error_validation"] / pca["squared_error_validation"]
    return [
        f"The tied network has {100 * share:.0f} % of the stacked one's parameters, and its "
        f"validation loss is {_beside(loss, 'the stacked one')}'s. It over-fits by "
        f"{tied['overfitting']:.4f}, the stacked one by {stacked['overfitting']:.4f}.",
        f"Its squared error on the validation images is "
        f"{_beside(error, 'that of PCA with a code of the same size')}.",
    ]


def _beside(ratio: float, other: str) -> str:
    if ratio >= 2:
        return f"{ratio:.1f} times {other}"
    return f"{100 * abs(ratio - 1):.1f} % {'lower' if ratio < 1 else 'higher'} than {other}"


def _explanations(numbers: Figures) -> list[str]:
    return [
        f"Losses are binary cross-entropies in nats per pixel, measured after training; no "
        f"reconstruction of these validation images can get below "
        f"{numbers['dataset']['least_loss']:.4f}, the entropy of their grey levels.",
        "Squared errors are sums over the pixels of an image, from 0 to 1, averaged over images.",
        "A network's file also holds its PCA baseline and the density of its codes, which anomaly "
        "scores need; PCA's size is that of its components and mean.",
    ]


def _conclude(numbers: Figures, console: Console) -> None:
    heads, lines = _cells(numbers)
    table = Table(box=rich.box.SIMPLE_HEAD, title=None, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(
            head, justify="right" if number else "left", max_width=14 if number else None
        )
    for line in lines:
        table.add_row(*line)
    console.print()
    _say(console, _heading(numbers), style="bold")
    console.print(table)
    for sentence in [*_conclusions(numbers), *_explanations(numbers)]:
        _say(console, sentence)
    console.print()


def _heading(numbers: Figures) -> str:
    epochs = max(row.get("epochs", 0) for row in numbers["rows"].values())
    return f"{numbers['dataset']['title']}: {_count(epochs, 'epoch')}"


def readme_table(numbers: Figures) -> str:
    """Return the table of a `figures.json` in Markdown, with a line on where it was measured.

    Parameters
    ----------
    numbers : dict
        What `figures.json` holds.
    """
    heads, lines = _cells(numbers)
    marks = [":--", *["--:"] * (len(heads) - 1)]
    table = [f"| {' | '.join(line)} |" for line in ([heads[0] or " ", *heads[1:]], marks, *lines)]
    return "\n".join([*table, "", f"{_heading(numbers)}. {_circumstances(numbers)}"])


def _circumstances(numbers: Figures) -> str:
    machine, versions = numbers["machine"], numbers["versions"]
    return (
        f"Measured on {numbers['date']} with twofold {versions['twofold']}, PyTorch "
        f"{versions['torch']} and {_count(machine['threads'], 'thread')} on {machine['processor']}"
        f"{'' if machine['device'] == 'cpu' else ' and ' + machine['device']}."
    )


def _write_all(output: Path, data: _Data, nets: Mapping[str, _Net], numbers: Figures) -> None:
    """Write the pictures, the numbers and, last of all, the page that holds them."""
    pictures = {
        "reconstructions": figures.to_png(figures.rows(_reconstructions(data, nets))),
        "history": figures.to_png(_history_figure(nets, numbers)),
    }
    for name, png in pictures.items():
        _write(output / f"{name}.png", png)
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    _write(output / "figures.json", f"{text}\n".encode())
    _write(output / "index.html", _page(data, numbers, pictures).encode())


def _reconstructions(data: _Data, nets: Mapping[str, _Net]) -> dict[str, Array]:
    """Return the first test image of each class, and what each model makes of it."""
    _, firsts = np.unique(data.images.test_labels, return_index=True)
    originals = data.test[firsts[:_SHOWN]]
    stacks = {name: net.autoencoder.reconstruct(originals) for name, net in nets.items()}
    flat = originals.reshape(len(originals), -1)
    pca = nets["tied"].autoencoder.pca_
    stacks["PCA"] = pca.reconstruct(flat).reshape(originals.shape)
    return {"original": originals, **stacks}


def _history_figure(nets: Mapping[str, _Net], numbers: Figures) -> Any:
    least = numbers["dataset"]["least_loss"]
    return figures.history(
        {name: net.autoencoder.history_ for name, net in nets.items()},
        references={f"lowest possible on the validation images: {least:.4f}": least},
    )


def _page(data: _Data, numbers: Figures, pictures: Mapping[str, bytes]) -> str:
    import jinja2

    source = resources.files("twofold").joinpath("demo.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    heads, lines = _cells(numbers)
    sizes = [data.width, math.ceil(data.width / 2), default_n_components(data.width)]
    return environment.from_string(source).render(
        dataset=numbers["dataset"],
        is_substitute=data.is_substitute,
        shape="-".join(str(size) for size in [*sizes, *sizes[-2::-1]]),
        sharing=_SHARING,
        summaries={name: _summary(data.width, tied) for name, tied in _NETS.items()},
        heading=_heading(numbers),
        heads=heads,
        lines=lines,
        conclusions=_conclusions(numbers),
        explanations=_explanations(numbers),
        circumstances=_circumstances(numbers),
        code=_code(numbers),
        images={name: base64.b64encode(png).decode() for name, png in pictures.items()},
        alternatives=_alternatives(data, numbers),
        machine=numbers["machine"],
        versions=numbers["versions"],
        date=numbers["date"],
    )


def _code(numbers: Figures) -> str:
    """Return the call that makes the tied network, as one would type it."""
    settings = {
        "tied": True,
        **numbers["recipe"],
        "epochs": numbers["rows"]["tied"]["epochs_asked"],
    }
    lines = [f"    {name}={_literal(value)}," for name, value in settings.items()]
    return "\n".join(
        [
            "from twofold import Autoencoder",
            "",
            "autoencoder = Autoencoder(",
            *lines,
            ").fit(train, validation_data=validation)",
        ]
    )


def _literal(value: Any) -> str:
    if isinstance(value, list):
        value = tuple(value)
    return repr(value).replace("'", '"') if isinstance(value, str) else repr(value)


def _alternatives(data: _Data, numbers: Figures) -> dict[str, str]:
    """Say in words what the two pictures show."""
    rows = numbers["rows"]
    ends = ", ".join(
        f"{name} ends at {rows[name]['loss']:.4f} in training and "
        f"{rows[name]['validation_loss']:.4f} in validation"
        for name in _NETS
    )
    errors = ", ".join(f"{name} {row['squared_error_test']:.3f}" for name, row in rows.items())
    return {
        "reconstructions": (
            f"Ten test images of {data.title}, one of each class, and below each its "
            f"reconstruction by the stacked network, by the tied network and by PCA. Mean squared "
            f"error per test image: {errors}."
        ),
        "history": f"The loss per epoch on {data.title}, as lines: {ends}.",
    }


def _require_free(output: Path, force: bool) -> None:
    """Raise where the folder cannot be written to without touching what is not the demo's."""
    if output.is_dir():
        if any(output.iterdir()) and not force:
            raise OutputExistsError(
                f"{output} exists and is not empty, and nothing is overwritten unasked. Choose "
                f"another folder, or say so: --force on the command line, force=True in Python."
            )
    elif os.path.lexists(output):
        raise OutputExistsError(f"{output} exists and is no folder. Choose another name.")
    for name in _NETS:
        bundle.require_free(output / name, overwrite=force)
    for name in _FILES:
        if (output / name).is_dir():
            raise OutputExistsError(
                f"{output / name} is a folder where the demo writes a file. Choose another folder."
            )


def _make_writable(output: Path) -> None:
    """Make the folder, and write to it once: better to fail now than after the training."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        raise _not_written(output, error) from error


def _write(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        Path(name).unlink(missing_ok=True)


def _not_written(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} could not be written: {error.strerror or error}. Free some space or choose "
        f"another folder."
    )


def _say(console: Console, line: str, style: str | None = None) -> None:
    # As it is: no markup, no colouring of numbers; and in a log a line stays one line.
    unbroken = not console.is_terminal
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=unbroken)
