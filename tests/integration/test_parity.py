"""Faithful to what it stands beside: Keras step for step, and PCA in the linear case."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from twofold import Autoencoder, datasets
from twofold.errors import DatasetUnavailable
from twofold.estimators import fitting, validation
from twofold.nn.native import library
from twofold.nn.network import Network
from twofold.training.autograd import AutogradStep, Step
from twofold.training.config import TrainingConfig
from twofold.training.native import NativeStep

Array = NDArray[np.float32]
N_BATCHES, BATCH, RATE = 200, 32, 1.5
RECIPE: dict[str, Any] = {
    "n_components": 196,
    "hidden_layers": (392,),
    "activation": "selu",
    "code_activation": "selu",
    "likelihood": "bernoulli",
    "optimizer": "sgd",
    "learning_rate": RATE,
    "schedule": "constant",
    "batch_size": BATCH,
    "epochs": 1,
    "patience": None,
    "validation_fraction": 0.0,
    "random_state": 42,
}


@pytest.fixture(scope="module")
def images() -> Array:
    """6,400 images of 784 pixels from 0 to 1: MNIST where it is, else digits made as large."""
    try:
        rows = datasets.mnist(download=False).train[: N_BATCHES * BATCH]
        return rows.reshape(len(rows), -1) / np.float32(255)
    except DatasetUnavailable:
        small = load_digits().images / 16
        large = np.pad(np.kron(small, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
        large = np.resize(large, (N_BATCHES * BATCH, 28, 28))
        return large.reshape(len(large), -1).astype(np.float32)


@dataclass(frozen=True)
class Run:
    """The loss before each step, and the weights at the end by our names."""

    losses: NDArray[np.float64]
    weights: dict[str, Array]
    rounds_apart: bool = False


def start(tied: bool) -> dict[str, Array]:
    """The weights that both sides begin with."""
    generator = torch.Generator().manual_seed(42)
    net = Network(784, (392,), 196, tied=tied, generator=generator)
    return {name: p.detach().numpy().copy() for name, p in net.named_parameters()}


def keras_model(tied: bool, from_logits: bool) -> tuple[Any, dict[str, Any]]:
    """The tutorial's model in Keras, and its variables by the names of our parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras' own imports
        keras = importlib.import_module("keras")

    class Transposed(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """A dense layer that uses the transposed kernel of another one, and a bias of its own."""

        def __init__(self, dense: Any, activation: str | None) -> None:
            super().__init__()
            self.dense, self.activation = dense, keras.activations.get(activation)

        def build(self, shape: Any) -> None:
            self.bias = self.add_weight(shape=(self.dense.kernel.shape[0],), initializer="zeros")

        def call(self, x: Any) -> Any:
            kernel = keras.ops.transpose(self.dense.kernel)
            return self.activation(keras.ops.matmul(x, kernel) + self.bias)

    last = None if from_logits else "sigmoid"
    up = [keras.layers.Dense(392, activation="selu"), keras.layers.Dense(196, activation="selu")]
    if tied:
        down = [Transposed(up[1], "selu"), Transposed(up[0], last)]
    else:
        down = [keras.layers.Dense(392, activation="selu"), keras.layers.Dense(784, last)]
    model = keras.Sequential([keras.Input((784,)), *up, *down])
    loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
    model.compile(loss=loss, optimizer=keras.optimizers.SGD(learning_rate=RATE))
    variables: dict[str, Any] = {}
    for level in (0, 1):
        variables[f"levels.{level}.weight"] = up[level].kernel
        variables[f"levels.{level}.encoder_bias"] = up[level].bias
        variables[f"levels.{level}.decoder_bias"] = down[1 - level].bias
        if not tied:
            variables[f"levels.{level}.decoder_weight"] = down[1 - level].kernel
    return model, variables


def ours(name: str, value: Any) -> Any:
    """Turn Keras' kernels (n_in, n_out) into our layout, or ours into Keras'."""
    return value.T if name.endswith(".weight") else value


@pytest.fixture(scope="module")
def keras_runs(images: Array) -> Callable[[str], tuple[bool, Run]]:
    """Run Keras once for each kind of network."""
    return cache(partial(keras_run, images))


def keras_run(images: Array, kind: str) -> tuple[bool, Run]:
    """What Keras' own training step makes of the batches, and whether its model is tied."""
    tied = kind != "untied"
    model, variables = keras_model(tied, from_logits="logits" in kind)
    for name, value in start(tied).items():
        variables[name].assign(ours(name, value))
    losses = []
    for batch in np.split(images, N_BATCHES):
        model.reset_metrics()  # or it would return the mean over all batches so far
        losses.append(float(model.train_on_batch(batch, batch)))
    weights = {
        name: ours(name, v.value.detach().cpu().numpy()).copy() for name, v in variables.items()
    }
    return tied, Run(np.array(losses), weights)


def estimators_step(tied: bool) -> tuple[Network, Step]:
    """The very step that `fit` made for the recipe."""
    rows = np.random.default_rng(0).uniform(size=(2 * BATCH, 784)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so short a training loses to PCA
        ae = Autoencoder(tied=tied, **RECIPE).fit(rows)
    assert ae._step is not None
    return ae.network_, ae._step


def plain_step(tied: bool) -> tuple[Network, Step]:
    """The step that autograd takes for the recipe."""
    grey = (np.random.default_rng(0).integers(0, 256, (4, 784)) / 255).astype(np.float32)
    ae, rng = Autoencoder(tied=tied, **RECIPE), np.random.RandomState(0)
    fitting.build(ae, validation.training_rows(ae, grey, rng, 0.0, reset=True), rng)
    plan = TrainingConfig.resolve(ae.get_params(deep=False), 4, 784)
    return ae.network_, AutogradStep(ae.network_, ae._objective, plan)


def step_without_native(tied: bool) -> tuple[Network, Step]:
    """The step that `fit` makes where nothing is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.VARIABLE, "off")
        return estimators_step(tied)


STEPS: dict[str, Callable[[bool], tuple[Network, Step]]] = {
    "estimator": estimators_step,
    "estimator without native": step_without_native,
    "autograd": plain_step,
}


# Every step with the tutorial's network, every network with one step: that the steps agree with
# each other, whatever the network, is shown in `tests/training`.
RUNS = [("tied", step) for step in STEPS]
RUNS += [("untied", "estimator"), ("tied, from logits", "estimator without native")]


@pytest.fixture(scope="module", params=RUNS, ids=" by ".join)
def both(
    request: pytest.FixtureRequest,
    keras_runs: Callable[[str], tuple[bool, Run]],
    images: Array,
) -> tuple[Run, Run]:
    """Our run and Keras' on the same batches from the same weights."""
    kind, how = request.param
    tied, theirs = keras_runs(kind)
    network, step = STEPS[how](tied)
    weights = {name: torch.from_numpy(value) for name, value in start(tied).items()}
    network.load_state_dict(weights, strict=False)
    losses = []
    for batch in torch.from_numpy(images).split(BATCH):
        losses.append(float(step.update(step.buffer(BATCH).copy_(batch), RATE)))
    final = {name: p.detach().numpy().copy() for name, p in network.named_parameters()}
    return Run(np.array(losses), final, isinstance(step, NativeStep)), theirs


def test_every_loss_is_that_of_keras(both: tuple[Run, Run]) -> None:
    own, theirs = both
    n = len(own.losses)
    if own.rounds_apart:
        # Keras uses PyTorch's products, and so do the other steps. Where sums round otherwise, an
        # input of selu that is zero to rounding can take the other one of its two slopes, and that
        # moves a weight by up to 5e-5: in 64 bits such inputs are found at the very steps where
        # runs part. Until the first one they agree as closely.
        n = 100
        np.testing.assert_allclose(own.losses, theirs.losses, rtol=1e-4)
    np.testing.assert_allclose(own.losses[:n], theirs.losses[:n], rtol=1e-5)


def test_the_weights_at_the_end_are_those_of_keras(both: tuple[Run, Run]) -> None:
    own, theirs = both
    assert own.weights.keys() == theirs.weights.keys()
    moved = 1e-4 if own.rounds_apart else 0.0  # by slopes of selu, as above
    for name, value in own.weights.items():
        assert np.abs(value - theirs.weights[name]).max() < 1e-3 * np.abs(value).max() + moved


def test_the_weights_move_far_enough_to_tell(both: tuple[Run, Run]) -> None:
    own, theirs = both
    begin = start("levels.0.decoder_weight" not in theirs.weights)
    for name, value in own.weights.items():
        assert np.abs(value - begin[name]).max() > 0.02 * np.abs(value).max()


def test_the_loss_falls_as_it_does_in_the_tutorial(both: tuple[Run, Run]) -> None:
    own, _ = both
    assert own.losses[-10:].mean() < 0.45 * own.losses[0]


@pytest.fixture(scope="module")
def linear() -> tuple[Autoencoder, NDArray[np.float64], PCA]:
    """A tied linear layer trained to convergence, standardised rows, and PCA of the same size."""
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    rows = (rows - rows.mean(0)) / rows.std(0)
    ae = Autoencoder(
        n_components=2,
        hidden_layers=(),
        activation="identity",
        code_activation="identity",
        likelihood="gaussian",
        optimizer="sgd",
        learning_rate=0.5,
        momentum=0.9,
        schedule="constant",
        batch_size=300,
        epochs=1500,
        validation_fraction=0.0,
        patience=None,
        precision="float64",
        random_state=0,
    ).fit(rows)
    return ae, rows, PCA(2).fit(rows)


def projector(basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthogonal projection on the span of the rows of `basis`."""
    q, _ = np.linalg.qr(basis.T)
    return np.asarray(q @ q.T)


def test_a_tied_linear_layer_spans_the_subspace_of_pca(
    linear: tuple[Autoencoder, NDArray[np.float64], PCA],
) -> None:
    ae, _, pca = linear
    weight = ae.network_.pairs[0].weight.detach().numpy()
    assert np.abs(projector(weight) - projector(pca.components_)).max() < 1e-5


def test_a_tied_linear_layer_has_the_error_of_pca(
    linear: tuple[Autoencoder, NDArray[np.float64], PCA],
) -> None:
    ae, rows, pca = linear
    own = ((ae.reconstruct(rows) - rows) ** 2).mean()
    theirs = ((pca.inverse_transform(pca.transform(rows)) - rows) ** 2).mean()
    assert own == pytest.approx(theirs, rel=1e-9)


def test_a_tied_linear_layer_has_orthonormal_rows_as_pca_has(
    linear: tuple[Autoencoder, NDArray[np.float64], PCA],
) -> None:
    weight = linear[0].network_.pairs[0].weight.detach().numpy()
    np.testing.assert_allclose(weight @ weight.T, np.eye(2), atol=1e-5)


def test_the_baseline_beside_it_is_the_same_pca(
    linear: tuple[Autoencoder, NDArray[np.float64], PCA],
) -> None:
    ae, _, pca = linear
    assert np.abs(projector(ae.pca_.components) - projector(pca.components_)).max() < 1e-10
