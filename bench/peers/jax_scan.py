"""The same net by hand in JAX: a whole epoch is one jitted `lax.scan` over its batches."""

from __future__ import annotations

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from channel import Channel

SIZES = (784, 392, 196)
Params = dict[str, jax.Array]


def make_params(tied: bool, key: jax.Array) -> Params:
    glorot = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, 4)
    (n0, n1, n2) = SIZES
    params = {"w1": glorot(keys[0], (n0, n1)), "w2": glorot(keys[1], (n1, n2))}
    if not tied:
        params |= {"v2": glorot(keys[2], (n2, n1)), "v1": glorot(keys[3], (n1, n0))}
    biases = {"b1": n1, "b2": n2, "c2": n1, "c1": n0}
    return params | {name: jnp.zeros(n) for name, n in biases.items()}


def loss_of(params: Params, x: jax.Array) -> jax.Array:
    v1 = params["v1"] if "v1" in params else params["w1"].T
    v2 = params["v2"] if "v2" in params else params["w2"].T
    h = jax.nn.selu(x @ params["w1"] + params["b1"])
    h = jax.nn.selu(h @ params["w2"] + params["b2"])
    h = jax.nn.selu(h @ v2 + params["c2"])
    theta = h @ v1 + params["c1"]
    # Binary cross-entropy of log-odds, without a sigmoid that could round to 0 or 1.
    return jnp.mean(jax.nn.softplus(theta) - x * theta)


def update(params: Params, x: jax.Array) -> tuple[Params, jax.Array]:
    loss, gradient = jax.value_and_grad(loss_of)(params, x)
    return jax.tree.map(lambda p, g: p - 1.5 * g, params, gradient), loss


@partial(jax.jit, static_argnames="batch_size", donate_argnames="params")
def epoch(
    params: Params, x: jax.Array, key: jax.Array, batch_size: int
) -> tuple[Params, jax.Array]:
    order = jax.random.permutation(key, len(x))
    n_full = len(x) // batch_size
    full, rest = order[: n_full * batch_size], order[n_full * batch_size :]
    params, losses = jax.lax.scan(
        lambda params, at: update(params, x[at]), params, full.reshape(n_full, batch_size)
    )
    total = losses.sum() * batch_size
    if len(rest):
        params, loss = update(params, x[rest])
        total += loss * len(rest)
    return params, total / len(x)


def main() -> None:
    channel = Channel()
    wanted = channel.settings
    x = jnp.asarray(np.load(wanted["train"])[: wanted["n_rows"]])
    key, first = jax.random.split(jax.random.key(0))
    params = make_params(wanted["tied"], first)
    jax.block_until_ready((x, params))
    channel.start(["jax", "jaxlib", "numpy"], lambda: len(os.sched_getaffinity(0)))
    while True:
        key, this = jax.random.split(key)
        params, loss = epoch(params, x, this, wanted["batch_size"])
        jax.block_until_ready(params)
        channel.epoch_done(float(loss))


if __name__ == "__main__":
    main()
