"""What each kind of autoencoder is worth, on images: `(given, seed, options) -> arrays`.

`given` holds `train` and `test` images as bytes and, where codes are judged, their labels. While a
recipe is being chosen, `test` are training images that are held back; test images come last.
Errors are squared, summed over an image whose pixels lie in [0, 1].
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.method import Method

Array = NDArray[Any]
Arrays = dict[str, Array]

# Widths of Hinton and Salakhutdinov, 2006.
_DEEP = {"hidden_layers": (1000, 500, 250), "n_components": 30}
RECIPES: dict[str, dict[str, Any]] = {
    "deep": {
        **_DEEP,
        "activation": "gelu",
        "likelihood": "gaussian",
        "corruption": "gaussian:0.1",
        "batch_size": 128,
        "learning_rate": 1e-3,
        "epochs": 50,
    },
    "deep, no regularisation": {
        **_DEEP,
        "activation": "gelu",
        "likelihood": "gaussian",
        "batch_size": 128,
        "learning_rate": 1e-3,
        "epochs": 250,
    },
    "denoising": {
        "hidden_layers": (1000, 1000),
        "n_components": 500,
        "activation": "gelu",
        "likelihood": "gaussian",
        "corruption": "gaussian:0.5",
        "tied": False,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "epochs": 40,
    },
    "variational": {
        "hidden_layers": (500, 500),
        "n_components": 50,
        "activation": "gelu",
        "likelihood": "bernoulli",
        "corruption": "binarize",
        "bottleneck": "variational:1",
        "tied": False,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "epochs": 100,
    },
    "ordered": {
        "hidden_layers": (500, 250),
        "n_components": 64,
        "activation": "gelu",
        "likelihood": "gaussian",
        "bottleneck": "ordered",
        "batch_size": 128,
        "learning_rate": 1e-3,
        "epochs": 40,
    },
}


def fit(recipe: str, images: Array, seed: int, **changes: Any) -> Any:
    """Train a recipe on images of bytes, on all of them and for all epochs."""
    from twofold import Autoencoder

    settings = {"validation_fraction": 0.0, "patience": None, "random_state": seed}
    return Autoencoder(**settings | RECIPES[recipe] | changes).fit(unit(images))


def unit(images: Array) -> Array:
    """Return bytes as rows of numbers in [0, 1]."""
    return images.reshape(len(images), -1) / np.float32(255)


def squared_error(images: Array, reconstructed: Array) -> Array:
    difference = np.clip(reconstructed, 0, 1) - unit(images)
    return np.array(float((difference.astype(np.float64) ** 2).sum(1).mean()))


def reconstruction(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Errors on training and test images; codes judged by what linear and nearest rules find."""
    start = time.perf_counter()
    changes = {"epochs": options["epochs"]} if "epochs" in options else {}
    ae = fit(options["recipe"], given["train"], seed, **changes)
    seconds = time.perf_counter() - start
    codes = {part: ae.transform(unit(given[part])) for part in ("train", "test")}
    found = {
        f"{part}_error": squared_error(given[part], ae.inverse_transform(codes[part]))
        for part in codes
    }
    found["seconds"] = np.array(seconds)
    if "train_labels" in given:
        found |= judge_codes(codes, given["train_labels"], given["test_labels"])
    return found


def judge_codes(codes: Arrays, train_labels: Array, test_labels: Array) -> Arrays:
    """Return the accuracy of logistic regression and of five nearest neighbours on codes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    judges = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "neighbours": KNeighborsClassifier(5),
    }
    return {
        name: np.array(judge.fit(codes["train"], train_labels).score(codes["test"], test_labels))
        for name, judge in judges.items()
    }


def denoising(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Mean squared error per pixel of test images that get fresh noise of standard deviation .5."""
    changes = {"epochs": options["epochs"]} if "epochs" in options else {}
    ae = fit(options["recipe"], given["train"], seed, **changes)
    clean = unit(given["test"])
    noise = np.random.RandomState(1000 + seed).standard_normal(clean.shape).astype(np.float32)
    error = squared_error(given["test"], ae.reconstruct(clean + np.float32(0.5) * noise))
    return {"error": error / clean.shape[1]}


def likelihood(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Minus the log-density of test images, binarised once, in nats: bound and 5,000 draws."""
    from twofold import Variational

    changes: dict[str, Any] = {"epochs": options["epochs"]} if "epochs" in options else {}
    if options.get("n_samples", 1) > 1:
        changes["bottleneck"] = Variational(n_samples=options["n_samples"])
    ae = fit("variational", given["train"], seed, **changes)
    grey = unit(given["test"])
    black = (np.random.RandomState(0).random_sample(grey.shape) < grey).astype(np.float32)
    estimate = ae.log_likelihood(black, options["draws"], random_state=seed)
    return {
        "bound": np.array(-float(ae.score_samples(black).mean())),
        "estimate": np.array(-float(estimate.mean())),
    }


def ordered(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Errors of the first k components of one ordered code, of nets made for k, and of PCA."""
    from sklearn.decomposition import PCA

    changes = {"epochs": options["epochs"]} if "epochs" in options else {}
    ae = fit("ordered", given["train"], seed, **changes)
    codes = ae.transform(unit(given["test"]))
    sizes = options["sizes"]
    pca = PCA(max(sizes), random_state=seed).fit(unit(given["train"]))
    placed = pca.transform(unit(given["test"]))
    found: dict[str, list[float]] = {"cut": [], "own": [], "pca": []}
    for k in sizes:
        cut = ae.inverse_transform(codes[:, :k])
        found["cut"].append(float(squared_error(given["test"], cut)))
        own = fit("ordered", given["train"], seed, **changes, n_components=k, bottleneck="plain")
        own_rows = own.reconstruct(unit(given["test"]))
        found["own"].append(float(squared_error(given["test"], own_rows)))
        linear = placed[:, :k] @ pca.components_[:k] + pca.mean_
        found["pca"].append(float(squared_error(given["test"], linear)))
    return {name: np.array(errors) for name, errors in found.items()}


_SHARED = (fit, unit, squared_error)
STUDIES = {
    "reconstruction": Method(reconstruction, helpers=(*_SHARED, judge_codes)),
    "denoising": Method(denoising, helpers=_SHARED),
    "likelihood": Method(likelihood, helpers=_SHARED),
    "ordered": Method(ordered, helpers=_SHARED),
}
