"""Each kind of autoencoder on images of 28 x 28: see `methods.family` for what is done.

Recipes were chosen on training images that were held back; these rows show their test figures.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from typing import Any

import machine
import numpy as np
import sources
from numpy.typing import NDArray
from trials import Arrays, Entry, Rows, Settings, Trial

Array = NDArray[Any]
SEEDS = 5
QUICK_ROWS, QUICK_EPOCHS = 2_000, 2
SIZES = (2, 10, 30)
DRAWS, DRAWN = 5_000, 2_000  # of each of so many test images

_COMMON = {"activation": "gelu", "likelihood": "bernoulli", "batch_size": 128}
# Widths of Hinton and Salakhutdinov, 2006. Deep, wide nets learn more in the same time with Muon.
_DEEP = _COMMON | {
    "hidden_layers": [1000, 500, 250],
    "n_components": 30,
    "precision": "bfloat16",
    "optimizer": "muon",
    "batch_size": 1024,
    "learning_rate": 1e-2,
}
_NOISE = _COMMON | {
    "corruption": "gaussian:0.5",
    "shift": 1,
    "precision": "bfloat16",
    "learning_rate": 2e-3,
}
_VARIATIONAL = _COMMON | {
    "hidden_layers": [500, 500],
    "n_components": 50,
    "corruption": "binarize",
    "tied": False,
    "precision": "bfloat16",
    "optimizer": "muon",
    "batch_size": 512,
    "learning_rate": 6e-3,
}
# As in Vincent et al., 2010: three layers of 1,000, each taught to undo masking.
_CLASSIFIER: dict[str, Any] = {
    "activation": "gelu",
    "batch_size": 128,
    "hidden_layers": [1000, 1000],
    "n_components": 1000,
    "code_activation": "gelu",
    "corruption": "masking:0.25",
    "pretraining": "layerwise:5",
    "precision": "bfloat16",
    "learning_rate": 1e-3,
    "epochs": 4,
    "fine": {
        "epochs": 20,
        "learning_rate": 1e-3,
        "decay": 0.02,
        "corruptions": ["masking:0.25"],
    },
}
RECIPES: dict[str, dict[str, Any]] = {
    "deep": _DEEP | {"shift": 1, "epochs": 5},
    "deep-training": _DEEP | {"batch_size": 512, "learning_rate": 5e-3, "epochs": 250},
    "codes": _DEEP | {"shape": [28, 28], "epochs": 20, "amounts": [0.5, 1.0], "brief_epochs": 4},
    "denoising": _NOISE | {"hidden_layers": [1000], "n_components": 500, "epochs": 4},
    "denoising-conv": _NOISE
    | {
        "hidden_layers": ["conv:16:5:2", 1000],
        "n_components": 500,
        "shape": [28, 28],
        "epochs": 2,
    },
    "variational": _VARIATIONAL | {"epochs": 100},
    "importance": _VARIATIONAL | {"epochs": 100, "weight_decay": 0.1},
    "ordered": _COMMON
    | {
        "hidden_layers": [500, 1000],
        "n_components": 64,
        "precision": "bfloat16",
        "optimizer": "muon",
        "batch_size": 512,
        "learning_rate": 1e-2,
        "epochs": 24,
    },
    "classifier": _CLASSIFIER,
    "classifier-warp": _CLASSIFIER
    | {
        "shape": [28, 28],
        "fine": _CLASSIFIER["fine"] | {"epochs": 30, "corruptions": ["warp:0.5"]},
    },
    "twins": {},
    # The tutorial's net within the tutorial's time, for as many epochs as go into it.
    "tutorial": _COMMON
    | {
        "hidden_layers": [392],
        "n_components": 196,
        "precision": "auto",
        "optimizer": "muon",
        "batch_size": 1024,
        "learning_rate": 1e-2,
    },
}


def trials(
    row: str, study: str, sets: tuple[str, ...], options: dict[str, Any], settings: Settings
) -> list[Trial]:
    recipe = RECIPES[row]
    if settings.quick:
        recipe = recipe | {"epochs": QUICK_EPOCHS}
        if "brief_epochs" in recipe:
            recipe["brief_epochs"] = 1
        if "fine" in recipe:
            recipe["fine"] = recipe["fine"] | {"epochs": QUICK_EPOCHS}
        options = options | ({"draws": 5} if "draws" in options else {})
    options = options | {"recipe": recipe}
    labels = study in ("reconstruction", "codes", "classifier")
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
        good = [dict(entry["result"]) for entry in mine if "result" in entry]
        if not good:
            sets[name] = {"failed": mine[0]["failed"]}
            continue
        sets[name] = {"seeds": len(good)}
        if loads := [found.pop("load") for found in good if "load" in found]:
            sets[name]["load"] = machine.verdict(loads)
        for figure in good[0]:
            values = np.array([found[figure] for found in good], dtype=float)
            spread = values.std(axis=0, ddof=1).tolist() if len(good) > 1 else None
            sets[name][figure] = {"mean": values.mean(axis=0).tolist(), "spread": spread}
    return {"sets": sets}


def _row(
    row: str, study: str, sets: tuple[str, ...], **options: Any
) -> Callable[[Settings], list[Trial]]:
    return partial(trials, row, study, sets, options)


def _tutorial(settings: Settings) -> list[Trial]:
    options = {
        "recipe": RECIPES["tutorial"],
        "rounds": 1 if settings.quick else 3,
        "quick": settings.quick,
    }

    def make() -> Rows:
        measure = sources.raw(sources.HERE / "measures" / "tutorial.py")
        return Rows({**images("mnist", False, settings.quick).given, "measure": measure})

    return [
        Trial(
            "tutorial", "mnist", seed, "script", ("tutorial",), make, figures, options, alone=True
        )
        for seed in range(settings.count(SEEDS))
    ]


BOTH, MNIST = ("mnist", "fashion_mnist"), ("mnist",)
TRIALS = {
    "deep": _row("deep", "reconstruction", BOTH),
    "codes": _row("codes", "codes", BOTH),
    "deep-training": _row("deep-training", "reconstruction", MNIST),
    "denoising": _row("denoising", "denoising", MNIST),
    "denoising-conv": _row("denoising-conv", "denoising", MNIST),
    "variational": _row("variational", "likelihood", MNIST, draws=DRAWS, images=DRAWN, n_samples=1),
    "importance": _row("importance", "likelihood", MNIST, draws=DRAWS, images=DRAWN, n_samples=5),
    "ordered": _row("ordered", "ordered", MNIST, sizes=list(SIZES)),
    "classifier": _row("classifier", "classifier", MNIST),
    "classifier-warp": _row("classifier-warp", "classifier", MNIST),
    "twins": _row("twins", "twins", (*BOTH, "gain_letter", "gain_spam")),
    "tutorial": _tutorial,
}
