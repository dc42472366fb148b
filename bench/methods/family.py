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

# Widths of Hinton and Salakhutdinov, 2006. `shift` is how far, in pixels, copies of each training
# image are moved: nine copies for 1. An epoch is one pass over all of them.
_DEEP = {
    "hidden_layers": (1000, 500, 250),
    "n_components": 30,
    "activation": "gelu",
    "likelihood": "bernoulli",
    "precision": "bfloat16",
    "batch_size": 128,
}
RECIPES: dict[str, dict[str, Any]] = {
    "deep": {**_DEEP, "shift": 1, "learning_rate": 2e-3, "epochs": 5},
    "deep, no regularisation": {**_DEEP, "learning_rate": 2e-3, "epochs": 40},
    "denoising": {
        "hidden_layers": (1000,),
        "n_components": 500,
        "activation": "gelu",
        "likelihood": "bernoulli",
        "corruption": "gaussian:0.5",
        "precision": "bfloat16",
        "batch_size": 128,
        "learning_rate": 2e-3,
        "epochs": 20,
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
        "learning_rate": 2e-3,
        "epochs": 30,
    },
    "ordered": {
        "hidden_layers": (500, 250),
        "n_components": 64,
        "activation": "gelu",
        "likelihood": "bernoulli",
        "bottleneck": "ordered",
        "precision": "bfloat16",
        "batch_size": 128,
        "learning_rate": 2e-3,
        "epochs": 20,
    },
    # As in Vincent et al., 2010: three layers of 1,000, each taught to undo masking.
    "classifier": {
        "hidden_layers": (1000, 1000),
        "n_components": 1000,
        "activation": "gelu",
        "code_activation": "gelu",
        "corruption": "masking:0.25",
        "pretraining": "layerwise:5",
        "precision": "bfloat16",
        "batch_size": 128,
        "learning_rate": 1e-3,
        "epochs": 4,
    },
    # The tutorial's net within the tutorial's time.
    "tutorial": {
        "hidden_layers": (392,),
        "n_components": 196,
        "activation": "gelu",
        "likelihood": "bernoulli",
        "precision": "bfloat16",
        "batch_size": 128,
        "learning_rate": 4e-3,
        "epochs": 40,
    },
}
_FINE_EPOCHS, _FINE_RATE, _FINE_DECAY = 20, 1e-3, 0.02


def fit(recipe: str, images: Array, seed: int, **changes: Any) -> Any:
    """Train a recipe on images of bytes, on all of them and for all epochs."""
    from twofold import Autoencoder

    settings = {"validation_fraction": 0.0, "patience": None, "random_state": seed}
    settings |= RECIPES[recipe] | changes
    shift = settings.pop("shift", 0)
    return Autoencoder(**settings).fit(unit(moved(images, shift) if shift else images))


def moved(images: Array, by: int) -> Array:
    """Return the images in every place that lies no more than so many pixels off their own."""
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (by, by), (by, by)))
    places = range(2 * by + 1)
    copies = [padded[:, i : i + height, j : j + width] for i in places for j in places]
    return np.concatenate(copies)


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
    grey = unit(given["test"][: options["images"]])
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


def classifier(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Wrong test images, as a share: encoders trained layer by layer, then tuned on labels."""
    import torch
    from torch import nn

    changes = {"epochs": options["epochs"]} if "epochs" in options else {}
    ae = fit("classifier", given["train"], seed, **changes)
    torch.manual_seed(seed)
    network, head = ae.network_, nn.Linear(ae.network_.n_components, 10)
    x, labels = torch.from_numpy(unit(given["train"])), torch.from_numpy(given["train_labels"])
    labels = labels.long()
    weights = [p for pair in network.pairs for p in pair.encoder_parameters]
    epochs, size = changes.get("epochs", _FINE_EPOCHS), 128
    optimizer = torch.optim.AdamW([*weights, *head.parameters()], weight_decay=_FINE_DECAY)
    n_steps = epochs * -(-len(x) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _FINE_RATE, n_steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(size):
            kept = x[batch] * (torch.rand(len(batch), x.shape[1]) > 0.25)
            found = head(network.encode(kept)[0])
            loss = nn.functional.cross_entropy(found, labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        found = head(network.encode(torch.from_numpy(unit(given["test"])))[0]).argmax(1).numpy()
    return {"wrong": np.array(float((found != given["test_labels"]).mean()))}


def twins(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Squared error on test rows, over PCA's of the same size, tied and untied, all defaults."""
    from twofold import Autoencoder

    x, test = (
        unit(given[part]) if given[part].dtype == np.uint8 else given[part]
        for part in ("train", "test")
    )
    found = {}
    for name, tied in (("tied", True), ("untied", False)):
        changes = {"epochs": options["epochs"]} if "epochs" in options else {}
        start = time.perf_counter()
        ae = Autoencoder(tied=tied, random_state=seed, **changes).fit(x)
        found[f"{name}_seconds"] = np.array(time.perf_counter() - start)
        found[f"{name}_error"] = np.array(ae.compare_pca(test).ratio)
    return found


def tutorial(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Cross-entropy of held-out images at the end of so many seconds, and of test images."""
    from twofold import Autoencoder
    from twofold.training import Event

    n = len(given["train"]) * 53 // 60
    x, held_out = unit(given["train"][:n]), unit(given["train"][n:])
    changes = {"epochs": options["epochs"]} if "epochs" in options else {}
    seconds: list[float] = []
    losses: list[float] = []
    start = time.perf_counter()

    def watch(event: Event) -> None:
        if event.kind == "epoch":
            seconds.append(time.perf_counter() - start)
            losses.append(event.losses["validation_loss"])

    settings = {"patience": None, "random_state": seed} | RECIPES["tutorial"] | changes
    ae = Autoencoder(**settings)
    ae.fit(x, validation_data=held_out, on_event=watch)
    within = int(np.sum(np.array(seconds) <= float(options["seconds"])))
    again, test = ae.reconstruct(unit(given["test"])).astype(np.float64), unit(given["test"])
    again = np.clip(again, 1e-7, 1 - 1e-7)
    entropy = -(test * np.log(again) + (1 - test) * np.log1p(-again)).mean()
    return {
        "validation": np.array(min(losses[:within], default=np.nan)),
        "test": np.array(entropy),
        "seconds": np.array(seconds[within - 1] if within else np.nan),
    }


_SHARED = (fit, moved, unit, squared_error)
_FIXED = (RECIPES, _FINE_EPOCHS, _FINE_RATE, _FINE_DECAY)
STUDIES = {
    study.__name__: Method(study, helpers=(*_SHARED, judge_codes), constants=_FIXED)
    for study in (reconstruction, denoising, likelihood, ordered, classifier, twins, tutorial)
}
