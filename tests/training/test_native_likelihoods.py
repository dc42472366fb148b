"""Histograms, counts and heavy tails in the native step: autograd's numbers, clipped or not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from tests.training.test_fused import (
    BATCHES,
    PLANS,
    TOLERANCE,
    assert_equal_networks,
    assert_same_run,
    distance,
    run,
)
from tests.training.test_native import COVERED, instruction_set, native, threads
from twofold.data import sources
from twofold.nn.corruption import Masking
from twofold.nn.likelihoods import LIKELIHOODS
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema
from twofold.training.autograd import AutogradStep
from twofold.training.config import TrainingConfig
from twofold.training.native import NativeStep
from twofold.training.step import choose

__all__ = ["instruction_set", "threads"]
pytestmark = pytest.mark.usefixtures("compiled")

N_ROWS = sum(BATCHES)
TABLES = {
    "histogram": ["histogram"] * 3,
    "student_t": ["student_t"] * 3,
    "poisson": ["poisson"] * 3,
    "negative_binomial": ["negative_binomial"] * 3,
    "all": [*LIKELIHOODS, "histogram", "negative_binomial"],
}


def table(
    names: Sequence[str], n_rows: int = N_ROWS, missing: float = 0.0
) -> tuple[Objective, Tensor]:
    """Columns of these likelihoods, half of the histograms over few values, and their inputs."""
    rng = np.random.default_rng(3)
    makers: dict[str, Callable[[int], Any]] = {
        "bernoulli": lambda i: rng.uniform(size=n_rows) < 0.3,
        "categorical": lambda i: np.array(["a", "b", "c", "d", "e"])[rng.integers(5, size=n_rows)],
        "poisson": lambda i: rng.poisson(2.0, n_rows),
        "negative_binomial": lambda i: rng.negative_binomial(2, 0.3, n_rows),
        "histogram": lambda i: (
            rng.integers(4, size=n_rows) / 2 if i % 2 else rng.gamma(2, 1, n_rows)
        ),
    }
    columns = {
        f"x{i}": makers.get(name, lambda _: rng.normal(3.0, 2.0, n_rows))(i)
        for i, name in enumerate(names)
    }
    cells = sources.read(pd.DataFrame(columns))
    schema = Schema.infer(cells, dict(zip(columns, names, strict=True)))
    assert set(schema.likelihoods()) == set(names)
    objective = Objective(schema)
    objective.spread.mul_(0.7)
    objective.noise.fill_(0.6)
    cells.values[rng.uniform(size=cells.values.shape) < missing] = np.nan
    return objective, torch.from_numpy(schema.to_matrix(cells, np.float32))


def network(
    objective: Objective, tied: bool = True, shortcut: bool = False, activation: str = "gelu"
) -> Network:
    options: dict[str, Any] = {"activation": activation, "code_activation": "tanh"}
    generator = torch.Generator().manual_seed(0)
    net = Network(
        objective.width, (19, 14), 7, tied=tied, shortcut=shortcut, generator=generator, **options
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        if shortcut:
            net.encoder_gate.fill_(0.3)
            net.decoder_gate.fill_(0.2)
    return net


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("names", TABLES.values(), ids=list(TABLES))
def test_one_step_is_that_of_autograd_on_every_instruction_set(
    names: list[str], missing: float, instruction_set: str
) -> None:
    objective, x = table(names, 37, missing)
    for tied, shortcut in ((True, False), (False, False), (True, True), (False, True)):
        net = network(objective, tied, shortcut)
        plain, plan = copy.deepcopy(net), PLANS["sgd"]
        make = native(complete=missing == 0, instruction_set=instruction_set)
        loss = float(make(net, objective, plan).update(x, 0.1))
        expected = float(AutogradStep(plain, objective, plan).update(x, 0.1))
        assert loss == pytest.approx(expected, rel=1e-6)
        for name, parameter in plain.named_parameters():
            assert distance(net.get_parameter(name), parameter) < 1e-6, name


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("plan", COVERED.values(), ids=list(COVERED))
@pytest.mark.parametrize("names", TABLES.values(), ids=list(TABLES))
def test_hundred_steps_end_where_autograd_does(
    names: list[str], plan: TrainingConfig, missing: float
) -> None:
    objective, x = table(names, missing=missing)
    net = network(objective, tied=plan.momentum == 0, shortcut=missing == 0)
    # At a rate of 0.3, rounding alone grows to the tolerance in either.
    plan = replace(plan, learning_rate=min(plan.learning_rate, 0.1))
    assert_same_run(net, objective, plan, x, make=native(complete=missing == 0))


@pytest.mark.parametrize("plan", [PLANS["sgd"], PLANS["adam"]], ids=["sgd", "adam"])
@pytest.mark.parametrize(
    "noise", [Masking(0.4), Masking(0.5, up_to=True, only_hidden=True)], ids=repr
)
def test_hidden_cells_count_as_in_autograd(
    noise: Masking, plan: TrainingConfig, instruction_set: str
) -> None:
    objective, x = table(TABLES["histogram"], missing=0.2)
    net = network(objective)
    plain, plan = copy.deepcopy(net), replace(plan, corruption=noise)
    own, others = (torch.Generator().manual_seed(7) for _ in range(2))
    step = NativeStep(net, objective, plan, own, complete=False, instruction_set=instruction_set)
    losses = run(step, x, 100, plan.learning_rate)
    reference = AutogradStep(plain, objective, plan, others)
    assert distance(losses, run(reference, x, 100, plan.learning_rate)) < TOLERANCE[torch.float32]
    for name, parameter in plain.named_parameters():
        assert distance(net.get_parameter(name), parameter) < TOLERANCE[torch.float32], name


@pytest.mark.parametrize("batch", [7, 32, 70])
@pytest.mark.parametrize("plan", [PLANS["sgd"], PLANS["adam"]], ids=["sgd", "adam"])
def test_any_number_of_threads_gives_the_same_bits(
    plan: TrainingConfig, batch: int, threads: Callable[[int], None], instruction_set: str
) -> None:
    objective, x = table(TABLES["all"], 3 * batch + 5)
    net, found = network(objective, tied=batch != 32, shortcut=True), []
    for n in (1, 2, 3, 16):
        threads(n)
        ours = copy.deepcopy(net)
        step = NativeStep(ours, objective, plan, instruction_set=instruction_set)
        found.append(([float(step.update(part, 0.05)) for part in x.split(batch)], ours))
    for losses, ours in found[1:]:
        assert losses == found[0][0]
        assert_equal_networks(ours, found[0][1])


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_gradient_longer_than_one_is_scaled_down_to_that(scale: float) -> None:
    """Plain gradient descent at a rate of 1 moves the parameters by the gradient."""
    objective, x = table(TABLES["histogram"])
    net = network(objective)
    with torch.no_grad():
        net.pairs[0].weight.mul_(scale)
    before, plain = copy.deepcopy(net), copy.deepcopy(net)
    NativeStep(net, objective, PLANS["sgd"]).update(x, 1.0)
    AutogradStep(plain, objective, PLANS["sgd"]).update(x, 1.0)
    for name, parameter in plain.named_parameters():
        assert distance(net.get_parameter(name), parameter) < 1e-5, name
    moves = [
        (now - then).detach().flatten()
        for now, then in zip(net.parameters(), before.parameters(), strict=True)
    ]
    length = float(torch.cat(moves).norm())
    assert length == pytest.approx(1.0, rel=1e-4) if scale > 1 else length < 1


def test_many_steps_in_one_call_give_the_bits_of_single_ones() -> None:
    objective, x = table(TABLES["all"])
    net = network(objective)
    twin, plan = copy.deepcopy(net), PLANS["adam"]
    one, many = NativeStep(net, objective, plan), NativeStep(twin, objective, plan)
    expected = [float(one.update(part, 0.05)) for part in x.split(BATCHES)]
    assert many.update_many(list(x.split(BATCHES)), [0.05] * len(BATCHES)).tolist() == expected
    assert_equal_networks(twin, net)


@pytest.mark.parametrize("name", ["student_t", "negative_binomial"])
def test_a_spread_that_is_learned_later_counts_from_then_on(name: str) -> None:
    objective, x = table(TABLES[name])
    net = network(objective)
    plain = copy.deepcopy(net)
    ours = NativeStep(net, objective, PLANS["sgd"])
    theirs = AutogradStep(plain, objective, PLANS["sgd"])
    for spread in (0.3, 2.0, 9.0, 11.0, 5000.0):
        objective.spread.fill_(spread)
        expected = float(theirs.update(x, 0.01))
        assert float(ours.update(x, 0.01)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reach", [1e-3, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("names", TABLES.values(), ids=list(TABLES))
def test_losses_are_exact_however_far_thetas_and_cells_reach(
    names: list[str], reach: float, instruction_set: str
) -> None:
    objective, x = table(names, 40)
    x *= 1 + min(reach, 10.0) / 5  # knots whose weights add up to more than 1 among them
    net = Network(objective.width, (), 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.pairs[0].decoder_bias.copy_(torch.linspace(-reach, reach, objective.width))
    plain, exact = copy.deepcopy(net).double(), copy.deepcopy(objective).double()
    loss = float(
        NativeStep(net, objective, PLANS["sgd"], instruction_set=instruction_set).update(x, 1e-3)
    )
    expected = float(AutogradStep(plain, exact, PLANS["sgd"]).update(x.double(), 1e-3))
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, parameter in plain.named_parameters():
        assert distance(net.get_parameter(name).double(), parameter) < 1e-5, name


@pytest.mark.parametrize("size", [1, 2])
def test_workers_clip_what_they_have_together(size: int) -> None:
    class Workers:
        rank, is_main = 0, True

    Workers.size = size  # type: ignore[attr-defined]
    objective, _ = table(TABLES["histogram"])
    kind, _ = choose(network(objective), objective, PLANS["adam"], workers=Workers())  # type: ignore[arg-type]
    assert kind == ("native" if size == 1 else "autograd")
