"""The fused step: autograd's numbers, whatever the network, the columns and the optimizer."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from twofold import fused, network
from twofold.errors import DivergenceError
from twofold.fused import FusedStep, make_step, supports
from twofold.network import DensePair, Network
from twofold.objective import Objective
from twofold.schema import Column, Schema
from twofold.training import AutogradStep, Plan, Step, fit

PLAN = Plan(
    optimizer="sgd",
    learning_rate=0.3,
    momentum=0.0,
    nesterov=False,
    schedule="constant",
    batch_size=8,
    epochs=1,
    weight_decay=0.0,
    patience=None,
)
ADAM = replace(PLAN, optimizer="adam", learning_rate=0.01)
PLANS = {
    "sgd": PLAN,
    "sgd with decay": replace(PLAN, weight_decay=0.02),
    "momentum": replace(PLAN, momentum=0.9, weight_decay=0.02, learning_rate=0.1),
    "nesterov": replace(PLAN, momentum=0.9, nesterov=True, learning_rate=0.1),
    "adam": ADAM,
    "adam with decay": replace(ADAM, weight_decay=0.02),
    "adamw": replace(ADAM, optimizer="adamw", weight_decay=0.02),
}
COLUMNS = {
    "gaussian": ["gaussian"] * 6,
    "bernoulli": ["bernoulli"] * 6,
    "mixed": ["gaussian", "bernoulli", "bernoulli", "gaussian", "bernoulli", "gaussian"],
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# Two full batches and the smaller one that ends an epoch.
BATCHES = (8, 8, 3)


def parts(
    activation: str = "selu",
    tied: bool = True,
    likelihood: str = "mixed",
    dtype: torch.dtype = torch.float64,
    hidden: tuple[int, ...] = (5, 4),
) -> tuple[Network, Objective]:
    """A tiny network whose code has another activation than its hidden layers."""
    names = list(network.ACTIVATIONS)
    schema = Schema(
        tuple(Column(f"x{i}", "real", name) for i, name in enumerate(COLUMNS[likelihood])), (6,)
    )
    net = Network(
        6,
        hidden,
        3,
        tied=tied,
        activation=activation,
        code_activation=names[names.index(activation) - 1],
        generator=torch.Generator().manual_seed(0),
    )
    return net.to(dtype), Objective(schema).to(dtype)


def rows(dtype: torch.dtype = torch.float64) -> Tensor:
    """One epoch's rows, between 0 and 1 so that every likelihood takes them."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(sum(BATCHES), 6, generator=generator, dtype=dtype)


def run(step: Step, x: Tensor, n_steps: int, learning_rate: float) -> Tensor:
    """Take steps over the rows as training does, and return the losses."""
    batches = x.split(BATCHES)
    losses = []
    for i in range(n_steps):
        batch = batches[i % len(batches)]
        buffer = step.buffer(len(batch))
        torch.index_select(batch, 0, torch.arange(len(batch)), out=buffer)
        losses.append(float(step.update(buffer, learning_rate)))
    return torch.tensor(losses, dtype=torch.float64)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """How far apart two tensors are, relative to the larger one's largest number."""
    with torch.no_grad():
        return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=list(PLANS))
@pytest.mark.parametrize("likelihood", COLUMNS)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("activation", network.ACTIVATIONS)
def test_hundred_steps_end_where_autograd_does(
    activation: str, tied: bool, likelihood: str, plan: Plan, dtype: torch.dtype
) -> None:
    net, objective = parts(activation, tied, likelihood, dtype)
    plain = copy.deepcopy(net)
    assert supports(net, objective)

    losses = run(FusedStep(net, objective, plan), rows(dtype), 100, plan.learning_rate)
    expected = run(AutogradStep(plain, objective, plan), rows(dtype), 100, plan.learning_rate)

    assert distance(losses, expected) < TOLERANCE[dtype]
    for name, parameter in plain.named_parameters():
        assert distance(net.get_parameter(name), parameter) < TOLERANCE[dtype], name
