"""Each kind of autoencoder on images of 28 x 28: see `methods.family` for what is done.

Recipes are chosen on training images that are held back; these rows show their test figures.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import sources
from numpy.typing import NDArray
from trials import Arrays, Entry, Rows, Settings, Trial

Array = NDArray[Any]
SEEDS = 5
QUICK_ROWS, QUICK_EPOCHS = 2_000, 2
SIZES = (2, 10, 30)
DRAWS, DRAWN = 5_000, 2_000  # of each of so many test images


def trials(
    row: str, study: str, sets: tuple[str, ...], options: dict[str, Any], settings: Settings
) -> list[Trial]:
    if settings.quick:
        options = {**options, "epochs": QUICK_EPOCHS} | ({"draws": 5} if "draws" in options else {})
    labels = study in ("reconstruction", "classifier")
    return [
        Trial(row, name, seed, "study", (study,), make, figures, options)
        for name in sets
        for seed in range(settings.count(SEEDS))
        for make in [
            partial(images, name, labels, settings.quick)
            if name in BOTH
            else partial(numbers, name, seed)
        ]
    ]


def images(name: str, labels: bool, quick: bool) -> Rows:
    n = QUICK_ROWS if quick else None
    given = {
        "train": _idx(name, "train-images-idx3-ubyte")[:n],
        "test": _idx(name, "t10k-images-idx3-ubyte")[:n],
    }
    if labels:
        given["train_labels"] = _idx(name, "train-labels-idx1-ubyte")[:n]
        given["test_labels"] = _idx(name, "t10k-labels-idx1-ubyte")[:n]
    return Rows(given)


def numbers(name: str, seed: int) -> Rows:
    """Return a complete table of numbers; a fifth of its rows are for the test."""
    x = sources.matrix(sources.file("imputation", f"{name}.csv"), skip=0).astype(np.float32)
    order = np.random.RandomState(seed).permutation(len(x))
    n = len(x) // 5
    return Rows({"train": x[order[n:]], "test": x[order[:n]]})


def _idx(name: str, file: str) -> Array:
    with gzip.open(sources.file(name, f"{file}.gz")) as opened:
        content = opened.read()
    shape = tuple(np.frombuffer(content, ">i4", count=content[3], offset=4))
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def figures(answer: Arrays, rows: Rows) -> dict[str, Any]:
    return {name: values.tolist() for name, values in answer.items()}


def summary(entries: list[Entry]) -> dict[str, Any]:
    """Return per set each figure's mean and spread over seeds."""
    sets: dict[str, Any] = {}
    for name in dict.fromkeys(entry["set"] for entry in entries):
        mine = [entry for entry in entries if entry["set"] == name]
        good = [entry["result"] for entry in mine if "result" in entry]
        if not good:
            sets[name] = {"failed": mine[0]["failed"]}
            continue
        sets[name] = {"seeds": len(good)}
        for figure in good[0]:
            values = np.array([found[figure] for found in good], dtype=float)
            spread = values.std(axis=0, ddof=1).tolist() if len(good) > 1 else None
            sets[name][figure] = {"mean": values.mean(axis=0).tolist(), "spread": spread}
    return {"sets": sets}


def _row(
    row: str, study: str, sets: tuple[str, ...], **options: Any
) -> Callable[[Settings], list[Trial]]:
    return partial(trials, row, study, sets, options)


def _tutorial_seconds() -> float:
    """Return how long the tutorial's script takes for its 20 epochs, by the last results."""
    measured = json.loads((sources.HERE / "results" / "speed.json").read_text())
    return 20 * measured["epoch"]["peers"]["keras-tensorflow"]["tied"]["median_seconds"]


BOTH, MNIST = ("mnist", "fashion_mnist"), ("mnist",)
TRIALS = {
    "deep": _row("deep", "reconstruction", BOTH, recipe="deep"),
    "deep-training": _row(
        "deep-training", "reconstruction", MNIST, recipe="deep, no regularisation"
    ),
    "denoising": _row("denoising", "denoising", MNIST, recipe="denoising"),
    "variational": _row("variational", "likelihood", MNIST, draws=DRAWS, images=DRAWN),
    "importance": _row("importance", "likelihood", MNIST, draws=DRAWS, images=DRAWN, n_samples=50),
    "ordered": _row("ordered", "ordered", MNIST, sizes=list(SIZES)),
    "classifier": _row("classifier", "classifier", MNIST),
    "twins": _row("twins", "twins", (*BOTH, "gain_letter", "gain_spam")),
    "tutorial": _row("tutorial", "tutorial", MNIST, seconds=_tutorial_seconds()),
}
