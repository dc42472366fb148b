"""The tutorial's script for Keras 3: two Sequential models and `model.fit`.

KERAS_BACKEND in the environment chooses TensorFlow, JAX or PyTorch. The tied layer is written by
hand, as in the stacked autoencoder of A. Géron, "Hands-On Machine Learning", chapter 17: it holds
the layer whose kernel it uses transposed, and a bias of its own.
"""

from __future__ import annotations

import os

import keras
import numpy as np
from channel import Channel
from keras import layers, ops


class DenseTranspose(layers.Layer):
    """Dense layer with the transposed kernel of another one."""

    def __init__(self, dense: layers.Dense, activation: str) -> None:
        super().__init__()
        self.dense = dense
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        n_out = self.dense.kernel.shape[0]
        self.bias = self.add_weight(name="bias", shape=(n_out,), initializer="zeros")

    def call(self, inputs: object) -> object:
        z = ops.matmul(inputs, ops.transpose(self.dense.kernel))
        return self.activation(z + self.bias)


def make_model(tied: bool) -> keras.Model:
    up1 = layers.Dense(392, activation="selu")
    up2 = layers.Dense(196, activation="selu")
    encoder = keras.Sequential([keras.Input((784,)), up1, up2])
    if tied:
        down = [DenseTranspose(up2, "selu"), DenseTranspose(up1, "sigmoid")]
    else:
        down = [layers.Dense(392, activation="selu"), layers.Dense(784, activation="sigmoid")]
    decoder = keras.Sequential([keras.Input((196,)), *down])
    return keras.Sequential([encoder, decoder])


class Report(keras.callbacks.Callback):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self.channel = channel

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        more = {"validation_loss": logs["val_loss"]} if "val_loss" in logs else {}
        self.channel.epoch_done(logs["loss"], **more)


def set_threads(n: int) -> list[str]:
    """Give the backend `n` threads; return the packages whose versions matter."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(n)
        tf.config.threading.set_inter_op_parallelism_threads(n)
        return ["keras", "tensorflow-cpu", "numpy"]
    # PyTorch goes by OMP_NUM_THREADS, XLA by the cores that this process may run on.
    if backend == "torch":
        import torch

        torch.set_num_threads(n)
        return ["keras", "torch", "numpy"]
    return ["keras", "jax", "jaxlib", "numpy"]


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    packages = set_threads(wanted["threads"])
    keras.utils.set_random_seed(0)
    x = np.load(wanted["train"])[: wanted["n_rows"]]
    model = make_model(wanted["tied"])
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.SGD(learning_rate=1.5))
    more = {}
    if wanted.get("validate"):
        held_out = np.load(wanted["validation"])
        more = {"validation_data": (held_out, held_out)}
    channel.start(packages, lambda: min(wanted["threads"], len(os.sched_getaffinity(0))))
    model.fit(
        x,
        x,
        epochs=1_000_000,
        batch_size=wanted["batch_size"],
        callbacks=[Report(channel)],
        verbose=0,
        **more,
    )


if __name__ == "__main__":
    main()
