"""The tutorial in one run: a stacked and a tied autoencoder on images, side by side with PCA.

`run` trains both networks with one recipe and shows what they are for: reconstructions, new images,
steps between two images, and codes as features of a classifier. It leaves a folder behind: the two
models, two pictures, every number in `figures.json`, and `index.html`, one self-contained page.
"""

from __future__ import annotations

import math
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from sklearn.neighbors import KNeighborsClassifier

from twofold import __version__, datasets, metrics, options
from twofold.cli.demo.page import (
    FILES,
    SHARING,
    Figures,
    conclude,
    make_writable,
    say,
    write_all,
)
from twofold.data.output import already_exists
from twofold.errors import (
    DatasetUnavailable,
    InterruptedWarning,
    LosesToPCAWarning,
    OutputExistsError,
)
from twofold.estimators.autoencoder import Autoencoder
from twofold.formatting import counted
from twofold.nn.likelihoods import LIKELIHOODS
from twofold.nn.network import Network, default_n_components
from twofold.nn.objective import Objective
from twofold.persistence import folder as model_folder
from twofold.report import plots
from twofold.training import trainer
from twofold.training.progress import Progress

Array = NDArray[Any]

_VALIDATION_SHARE = 7 / 60  # the tutorial's split: the last 7,000 of 60,000
_SHOWN = 10  # images in reconstructions.png
_SHOWN_IN_TERMINAL = 8
_LABELLED = 3000  # training images whose class the classifiers see
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
    >>> from twofold.cli.demo.run import recipe
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
        If `output` holds anything and `force` is false, or what it holds is not the demo's.
    DataError
        If the data set is unknown, or the folder cannot be written.
    KeyboardInterrupt
        At the second Ctrl-C; the first one ends the training at hand, and the story goes on.
    """
    output = Path(output)
    console = console or Console()
    options.check(recipe(4, tied=True, epochs=epochs).get_params(deep=False))
    _require_free(output, force)
    data = _load(dataset, console)
    make_writable(output)
    _introduce(data, epochs, console)
    nets = _train_both(data, epochs, console)
    for name, net in nets.items():
        net.autoencoder.save(output / name, overwrite=force)
    numbers = _numbers(data, nets, output)
    conclude(numbers, console)
    write_all(
        output,
        numbers,
        stacks={
            "reconstructions": _reconstructions(data, nets),
            "generated": _generated(nets["tied"].autoencoder),
            "interpolated": _interpolated(data, nets["tied"].autoencoder),
        },
        histories={name: net.autoencoder.history_ for name, net in nets.items()},
        summaries={name: _summary(data.width, tied) for name, tied in _NETS.items()},
    )
    say(console, f"Written to {output}: {', '.join([*_NETS, *FILES])}.")
    say(console, f"Open {output / 'index.html'} in a browser.")
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
    def width(self) -> int:
        return int(np.prod(self.train.shape[1:]))


class _Net(NamedTuple):
    autoencoder: Autoencoder
    epochs_asked: int
    interrupted: bool


def _load(dataset: str, console: Console) -> _Data:
    def tell(line: str) -> None:
        say(console, line)

    try:
        images = datasets.load(dataset, on_progress=tell)
    except DatasetUnavailable as error:
        tell(str(error))
        images = datasets.load("digits", on_progress=tell)
    height, width = images.train.shape[1:]
    title = images.title if images.name != "digits" else f"{images.title} ({height}x{width})"
    if images.name != dataset:
        title += f", because {datasets.TITLES[dataset]} could not be had"
        tell(f"Going on with {title}.")
    n = round(len(images.train) * _VALIDATION_SHARE)
    train = images.train / np.float32(255)
    return _Data(title, dataset, images, train[:-n], train[-n:], images.test / np.float32(255))


def _introduce(data: _Data, epochs: int, console: Console) -> None:
    height, width = data.train.shape[1:]
    say(
        console,
        f"{data.title}: {len(data.train):,} images of {height}x{width} to train on, "
        f"{len(data.validation):,} to validate, {len(data.test):,} to test; from "
        f"{data.images.source}.",
    )
    console.print()
    console.print(plots.terminal_images(data.images.train[:_SHOWN_IN_TERMINAL], console))
    for name, tied in _NETS.items():
        console.print()
        say(console, f"{name}: {SHARING[name]}", style="bold")
        say(console, _summary(data.width, tied))
    console.print()
    say(
        console,
        f"Both train for {counted(epochs, 'epoch')} in batches of 32, by plain SGD at a learning "
        f"rate of 1.5, and lower the binary cross-entropy of their outputs' sigmoid. Ctrl-C ends a "
        f"training early and goes on.",
    )


def _summary(width: int, tied: bool) -> str:
    """Return the layer table of a network of the recipe that nobody has trained yet."""
    settings = recipe(width, tied)
    assert isinstance(settings.hidden_layers, tuple)
    assert isinstance(settings.n_components, int)
    widths = [layer for layer in settings.hidden_layers if isinstance(layer, int)]
    with torch.device("meta"):  # neither memory nor random numbers are needed to count
        network = Network(
            width,
            widths,
            settings.n_components,
            tied=tied,
            activation=settings.activation,
            code_activation=settings.code_activation,
        )
    return network.summary(LIKELIHOODS["bernoulli"].link)


def _train_both(data: _Data, epochs: int, console: Console) -> dict[str, _Net]:
    nets: dict[str, _Net] = {}
    for name, tied in _NETS.items():
        autoencoder = recipe(data.width, tied, epochs)
        with _fit_warnings(console) as caught, Progress(title=name) as progress:
            autoencoder.fit(data.train, validation_data=data.validation, callbacks=[progress])
        interrupted = any(issubclass(w.category, InterruptedWarning) for w in caught)
        if interrupted and any(net.interrupted for net in nets.values()):
            raise KeyboardInterrupt
        nets[name] = _Net(autoencoder, epochs, interrupted)
        if interrupted and len(nets) < len(_NETS):
            epochs = max(1, len(autoencoder.history_))
            say(
                console,
                f"The other network trains for {counted(epochs, 'epoch')} as well, so that the two "
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
            say(console, f"Note: {warning.message}")
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
        name: {
            **_measure(net, data),
            "bytes": (output / name / model_folder.WEIGHTS).stat().st_size,
        }
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
        "classifier": _classifiers(data, nets["tied"].autoencoder),
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": joblib.cpu_count(),
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


def _classifiers(data: _Data, autoencoder: Autoencoder) -> dict[str, Any]:
    """Return how well the nearest neighbours classify test images, by pixels and by codes."""
    labels = data.images.train_labels[: len(data.train)]
    chosen = np.random.RandomState(42).permutation(len(labels))[:_LABELLED]
    flat, test = (part.reshape(len(part), -1) for part in (data.train[chosen], data.test))
    pca = autoencoder.pca_
    features = {
        "pixels": (flat, test),
        "codes of PCA": (
            (flat - pca.mean) @ pca.components.T,
            (test - pca.mean) @ pca.components.T,
        ),
        "codes of the tied network": (
            autoencoder.transform(data.train[chosen]),
            autoencoder.transform(data.test),
        ),
    }
    accuracy = {}
    for name, (known, unknown) in features.items():
        classifier = KNeighborsClassifier(3).fit(known, labels[chosen])
        accuracy[name] = float(classifier.score(unknown, data.images.test_labels))
    sizes = {name: int(known.shape[1]) for name, (known, _) in features.items()}
    return {"labelled": len(chosen), "test": len(test), "sizes": sizes, "accuracy": accuracy}


@torch.no_grad()
def _loss(autoencoder: Autoencoder, images: Array) -> float:
    """Return the binary cross-entropy per pixel, in nats, with the weights as they are now."""
    network = autoencoder.network_
    device = next(network.parameters()).device
    x = torch.from_numpy(images.reshape(len(images), -1)).to(device)
    return trainer.evaluate(network, Objective(autoencoder.schema_).to(device), x)


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


def _reconstructions(data: _Data, nets: Mapping[str, _Net]) -> dict[str, Array]:
    """Return the first test image of each class, and what each model makes of it."""
    _, firsts = np.unique(data.images.test_labels, return_index=True)
    originals = data.test[firsts[:_SHOWN]]
    stacks = {
        name: np.asarray(net.autoencoder.reconstruct(originals)) for name, net in nets.items()
    }
    flat = originals.reshape(len(originals), -1)
    pca = nets["tied"].autoencoder.pca_
    stacks["PCA"] = pca.reconstruct(flat).reshape(originals.shape)
    return {"original": originals, **stacks}


def _generated(autoencoder: Autoencoder) -> dict[str, Array]:
    """Return images that are drawn from the density of the codes, and decoded."""
    drawn = np.asarray(autoencoder.sample(2 * _SHOWN, random_state=42))
    return {"new images": drawn[:_SHOWN], "more of them": drawn[_SHOWN:]}


def _interpolated(data: _Data, autoencoder: Autoencoder) -> dict[str, Array]:
    """Return the steps between test images of two pairs of classes, straight from code to code."""
    _, firsts = np.unique(data.images.test_labels, return_index=True)
    first = data.test[firsts]
    pairs = ((0, 1), (3, 8)) if len(first) > 8 else ((0, 1),)
    return {
        f"from class {a} to class {b}": np.asarray(
            autoencoder.interpolate(first[a : a + 1], first[b : b + 1], _SHOWN)
        )
        for a, b in pairs
    }


def _require_free(output: Path, force: bool) -> None:
    """Raise if the folder cannot be written to without touching what is not the demo's."""
    if output.is_dir():
        if any(output.iterdir()) and not force:
            raise already_exists(output)
    elif os.path.lexists(output):
        raise OutputExistsError(f"{output} exists and is not a folder. Choose another name.")
    for name in _NETS:
        model_folder.require_free(output / name, overwrite=force)
    for name in FILES:
        if (output / name).is_dir():
            raise OutputExistsError(
                f"{output / name} is a folder where the demo writes a file. Choose another folder."
            )
