"""What each kind of autoencoder is worth, on images: `(given, seed, options) -> arrays`.

`given` holds `train` and `test` images as bytes and, where codes are judged, their labels. While a
recipe is being chosen, `test` are training images that are held back; test images come last.
Errors are squared, summed over an image whose pixels lie in [0, 1]. `options["recipe"]` holds the
estimator's options, and of `shift`, `shape`, `amounts` and `fine` what the functions below say.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.method import Method

Array = NDArray[Any]
Arrays = dict[str, Array]
_WATCHED = 1_000  # training images whose loss is followed; scores are calibrated on them too


def fit(recipe: dict[str, Any], images: Array, seed: int) -> Any:
    """Train a recipe on all images, of bytes, for all epochs.

    `shift` is how far, in pixels, copies of each image are moved: nine copies for 1. An epoch is
    one pass over all of them. With `shape` images keep their height, width and channels.
    """
    from twofold import Autoencoder

    settings = {"patience": None, "random_state": seed} | recipe
    shift, shape = settings.pop("shift", 0), settings.pop("shape", None)
    if isinstance(settings["hidden_layers"], list):  # JSON has no tuples
        settings["hidden_layers"] = tuple(settings["hidden_layers"])
    x = unit(moved(images, shift) if shift else images)
    watched = unit(images[:_WATCHED])
    if shape is not None:
        x, watched = x.reshape(-1, *shape), watched.reshape(-1, *shape)
    return Autoencoder(**settings).fit(x, validation_data=watched)


def rows_of(ae: Any, images: Array) -> Array:
    """Return bytes as rows of the shape that the network was trained on."""
    return unit(images).reshape(-1, *ae.schema_.row_shape)


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
    difference = np.clip(reconstructed.reshape(len(images), -1), 0, 1) - unit(images)
    return np.array(float((difference.astype(np.float64) ** 2).sum(1).mean()))


def reconstruction(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Errors on training and test images; codes judged by what linear and nearest rules find."""
    start = time.perf_counter()
    ae = fit(options["recipe"], given["train"], seed)
    seconds = time.perf_counter() - start
    codes = codes_of(ae, given)
    found = {
        f"{part}_error": squared_error(given[part], ae.inverse_transform(codes[part]))
        for part in codes
    }
    found["seconds"] = np.array(seconds)
    if "train_labels" in given:
        found |= judge_codes(codes, given["train_labels"], given["test_labels"])
    return found


def codes(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """How much of a label codes tell whose net learned to make warped images upright.

    Of the recipe's `amounts` of warping, the one is taken whose codes, of a short run on the first
    five sixths of the training images, tell most of the labels of the others.
    """
    start = time.perf_counter()
    recipe = dict(options["recipe"])
    amounts, briefly = recipe.pop("amounts"), recipe.pop("brief_epochs")
    n = len(given["train"]) * 5 // 6
    parts = {"train": given["train"][:n], "test": given["train"][n:]}
    labels = given["train_labels"][:n], given["train_labels"][n:]

    def told(amount: float) -> float:
        how = recipe | {"corruption": f"warp:{amount}", "epochs": briefly}
        ae = fit(how, parts["train"], seed)
        return float(sum(judge_codes(codes_of(ae, parts), *labels).values()))

    amount = max(amounts, key=told)
    ae = fit(recipe | {"corruption": f"warp:{amount}"}, given["train"], seed)
    judged = judge_codes(codes_of(ae, given), given["train_labels"], given["test_labels"])
    seconds = time.perf_counter() - start
    return judged | {"amount": np.array(amount), "seconds": np.array(seconds)}


def codes_of(ae: Any, given: Arrays) -> Arrays:
    """Return the codes of training and test images."""
    return {part: ae.transform(rows_of(ae, given[part])) for part in ("train", "test")}


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
    start = time.perf_counter()
    ae = fit(options["recipe"], given["train"], seed)
    seconds = time.perf_counter() - start
    clean = rows_of(ae, given["test"])
    noise = np.random.RandomState(1000 + seed).standard_normal(clean.shape).astype(np.float32)
    again = ae.reconstruct(clean + np.float32(0.5) * noise)
    return {
        "error": squared_error(given["test"], again) / clean[0].size,
        "seconds": np.array(seconds),
    }


def likelihood(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Minus the log-density of test images, binarised once, in nats: bound and 5,000 draws."""
    from twofold import Variational

    bottleneck = Variational(n_samples=options["n_samples"])
    start = time.perf_counter()
    ae = fit(options["recipe"] | {"bottleneck": bottleneck}, given["train"], seed)
    seconds = time.perf_counter() - start
    grey = unit(given["test"][: options["images"]])
    black = (np.random.RandomState(0).random_sample(grey.shape) < grey).astype(np.float32)
    estimate = ae.log_likelihood(black, options["draws"], random_state=seed)
    return {
        "bound": np.array(-float(ae.score_samples(black).mean())),
        "estimate": np.array(-float(estimate.mean())),
        "seconds": np.array(seconds),
    }


def ordered(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Errors of the first k components of one ordered code, of nets made for k, and of PCA.

    One ordered code was taught all sizes, another one those that are asked for and the whole.
    """
    from sklearn.decomposition import PCA

    recipe, sizes = options["recipe"], options["sizes"]
    named = f"ordered:{','.join(map(str, sizes))}"
    nets = {
        name: fit(recipe | {"bottleneck": bottleneck}, given["train"], seed)
        for name, bottleneck in (("cut", "ordered"), ("named", named))
    }
    codes = {name: ae.transform(unit(given["test"])) for name, ae in nets.items()}
    pca = PCA(max(sizes), random_state=seed).fit(unit(given["train"]))
    placed = pca.transform(unit(given["test"]))
    found: dict[str, list[float]] = {"cut": [], "named": [], "own": [], "pca": []}
    for k in sizes:
        for name, ae in nets.items():
            cut = ae.inverse_transform(codes[name][:, :k])
            found[name].append(float(squared_error(given["test"], cut)))
        own = fit(recipe | {"n_components": k, "bottleneck": "plain"}, given["train"], seed)
        own_rows = own.reconstruct(unit(given["test"]))
        found["own"].append(float(squared_error(given["test"], own_rows)))
        linear = placed[:, :k] @ pca.components_[:k] + pca.mean_
        found["pca"].append(float(squared_error(given["test"], linear)))
    return {name: np.array(errors) for name, errors in found.items()}


def classifier(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Wrong test images, as a share: encoders trained layer by layer, then tuned on labels.

    `fine` says how they are tuned: epochs, the largest learning rate, decay, and the corruptions
    that images go through, one after the other.
    """
    import torch
    from torch import nn

    from twofold.nn import corruption
    from twofold.nn.cell_model import observed

    start = time.perf_counter()
    recipe = dict(options["recipe"])
    fine = recipe.pop("fine")
    ae = fit(recipe, given["train"], seed)
    noises = [corruption.resolve(name) for name in fine["corruptions"]]
    generator = torch.Generator().manual_seed(seed)
    network, head = ae.network_, nn.Linear(ae.network_.n_components, 10)
    nn.init.zeros_(head.weight)
    x, labels = torch.from_numpy(unit(given["train"])), torch.from_numpy(given["train_labels"])
    labels = labels.long()
    weights = [p for pair in network.pairs for p in pair.encoder_parameters]
    epochs, size = fine["epochs"], 256
    optimizer = torch.optim.AdamW([*weights, *head.parameters()], weight_decay=fine["decay"])
    n_steps = epochs * -(-len(x) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, fine["learning_rate"], n_steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(size):
            rows = x[batch]
            for noise in noises:
                rows = observed(noise(rows, ae.scorer_, generator))[0]
            with torch.autocast("cpu", torch.bfloat16):
                found = head(network.encode(rows)[0])
            loss = nn.functional.cross_entropy(found.float(), labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        found = head(network.encode(torch.from_numpy(unit(given["test"])))[0]).argmax(1).numpy()
    return {
        "wrong": np.array(float((found != given["test_labels"]).mean())),
        "seconds": np.array(time.perf_counter() - start),
    }


def twins(given: Arrays, seed: int, options: dict[str, Any]) -> Arrays:
    """Squared error on test rows, over PCA's of the same size: tied, untied, and tied but wider.

    All have the defaults; the third has hidden layers so wide that it has as many parameters as
    the second.
    """
    from twofold import Autoencoder

    x, test = (
        unit(given[part]) if given[part].dtype == np.uint8 else given[part]
        for part in ("train", "test")
    )
    found = {}

    def measure(name: str, **changed: Any) -> Any:
        start = time.perf_counter()
        ae = Autoencoder(random_state=seed, **options["recipe"] | changed).fit(x)
        found[f"{name}_seconds"] = np.array(time.perf_counter() - start)
        found[f"{name}_error"] = np.array(ae.compare_pca(test).ratio)
        return ae.network_

    measure("tied", tied=True)
    untied = measure("untied", tied=False)
    hidden = wider(untied)
    wide = measure("wider", tied=True, hidden_layers=hidden, n_components=untied.n_components)
    found["parameters"] = np.array(wide.n_parameters / untied.n_parameters)
    return found


def wider(network: Any) -> tuple[int, ...]:
    """Return the hidden widths of a tied net with about as many parameters as an untied one has.

    All grow by the same factor.
    """
    from twofold.nn.network import Network

    def hidden(factor: float) -> tuple[int, ...]:
        return tuple(round(factor * width) for width in network.hidden_layers)

    def parameters(factor: float) -> int:
        return Network(network.width, hidden(factor), network.n_components).n_parameters

    low, high = 1.0, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        if parameters(middle) <= network.n_parameters:
            low = middle
        else:
            high = middle
    return hidden(low)


_SHARED = (fit, moved, unit, rows_of, squared_error, codes_of, judge_codes, wider)
STUDIES = {
    study.__name__: Method(study, helpers=_SHARED, constants=(_WATCHED,))
    for study in (
        reconstruction,
        codes,
        denoising,
        likelihood,
        ordered,
        classifier,
        twins,
    )
}
