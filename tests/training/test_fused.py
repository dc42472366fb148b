"""The fused step: autograd's numbers, whatever the network, the columns and the optimizer."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.training import test_config
from twofold.errors import DivergenceError
from twofold.nn.activations import ACTIVATIONS
from twofold.nn.bottleneck import Bottleneck, Penalties
from twofold.nn.corruption import Binarize, Corruption, Gaussian, Masking, SaltAndPepper, Swap
from twofold.nn.likelihoods import LIKELIHOODS
from twofold.nn.network import DensePair, Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Column, Schema
from twofold.training.autograd import AutogradStep, Step
from twofold.training.batches import Selection, TrainingData
from twofold.training.config import TrainingConfig
from twofold.training.fused import FusedStep
from twofold.training.step import make_step
from twofold.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("own_activation")

PLAN = replace(test_config.PLAN, learning_rate=0.3, epochs=1)
PLANS = {
    "sgd": PLAN,
    "momentum": replace(PLAN, momentum=0.9, weight_decay=0.02, learning_rate=0.1),
    "nesterov": replace(PLAN, momentum=0.9, nesterov=True, learning_rate=0.1),
    "adam": replace(PLAN, optimizer="adam", learning_rate=0.01),
    "adamw": replace(PLAN, optimizer="adamw", learning_rate=0.01, weight_decay=0.02),
    "muon": replace(PLAN, optimizer="muon", learning_rate=0.02, weight_decay=0.02),
}
BFLOAT16 = replace(PLANS["adam"], bfloat16=True)
COLUMNS = {
    "gaussian": ["gaussian"] * 6,
    "bernoulli": ["bernoulli"] * 6,
    "mixed": ["gaussian", "bernoulli", "bernoulli", "gaussian", "bernoulli", "gaussian"],
}
# Activation, likelihood, tying and optimizer are parts of a step that know nothing of each other:
# where a test takes two of them in full, the others go round in a Latin square, so that any two
# meet in all of their values.
NAMES = list(ACTIVATIONS)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
# Two full batches and the smaller one that ends an epoch.
BATCHES = (8, 8, 3)


def parts(
    activation: str = "selu",
    tied: bool = True,
    likelihood: str = "mixed",
    dtype: torch.dtype = torch.float64,
    hidden: tuple[int, ...] = (5,),
) -> tuple[Network, Objective]:
    """A tiny network whose code has another activation than its hidden layers."""
    names = [name for name in ACTIVATIONS if name != "own"]
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
        torch.index_select(batch, 0, torch.arange(len(batch), device=x.device), out=buffer)
        losses.append(float(step.update(buffer, learning_rate)))
    return torch.tensor(losses, dtype=torch.float64)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """How far apart two tensors are, relative to the larger one's largest number."""
    with torch.no_grad():
        return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-3))


def assert_same_run(
    net: Network,
    objective: Objective,
    plan: TrainingConfig,
    x: Tensor,
    make: Callable[[Network, Objective, TrainingConfig], Step] = FusedStep,
) -> None:
    """After 100 steps the losses and the parameters are those of autograd."""
    plain = copy.deepcopy(net)
    losses = run(make(net, objective, plan), x, 100, plan.learning_rate)
    expected = run(AutogradStep(plain, objective, plan), x, 100, plan.learning_rate)
    tolerance = TOLERANCE[x.dtype]
    assert distance(losses, expected) < tolerance
    for name, parameter in plain.named_parameters():
        assert distance(net.get_parameter(name), parameter) < tolerance, name


@pytest.mark.parametrize("j", range(len(PLANS)), ids=list(PLANS))
@pytest.mark.parametrize("i", range(len(NAMES)), ids=NAMES)
def test_hundred_steps_end_where_autograd_does(i: int, j: int) -> None:
    likelihood, tied = list(COLUMNS)[(i + j) % 3], (i // 3 + j // 3) % 2 == 0
    assert_same_run(*parts(NAMES[i], tied, likelihood), list(PLANS.values())[j], rows())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("i", range(len(NAMES)), ids=NAMES)
def test_hundred_steps_in_32_bits(i: int, tied: bool) -> None:
    plan = list(PLANS.values())[(i + 3 * tied) % 6]
    assert_same_run(*parts(NAMES[i], tied, dtype=torch.float32), plan, rows(torch.float32))


NOISES = [Gaussian(0.4), Masking(0.3), Masking(0.5, up_to=True), Swap(0.3), SaltAndPepper(0.2)]


@pytest.mark.parametrize("j", range(3), ids=["sgd", "adam", "bfloat16"])
@pytest.mark.parametrize("i", range(6), ids=map(repr, [*NOISES, Binarize()]))
def test_hundred_steps_from_corrupted_rows_end_where_autograd_does(i: int, j: int) -> None:
    noise, plan = [*NOISES, Binarize()][i], [PLANS["sgd"], PLANS["adam"], BFLOAT16][j]
    tied = (i + j) % 2 == 0
    dtype = torch.float32 if plan.bfloat16 else torch.float64
    net, objective = parts(
        tied=tied, likelihood="bernoulli" if noise == Binarize() else "mixed", dtype=dtype
    )
    plain, x = copy.deepcopy(net), rows(dtype)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(7)

    plan = replace(plan, corruption=noise)
    losses = run(FusedStep(net, objective, plan, generator()), x, 100, plan.learning_rate)
    step = AutogradStep(plain, objective, plan, generator())
    expected = run(step, x, 100, plan.learning_rate)
    tolerance = 0.05 if plan.bfloat16 else TOLERANCE[dtype]
    assert distance(losses, expected) < tolerance
    if not plan.bfloat16:
        for name, parameter in plain.named_parameters():
            assert distance(net.get_parameter(name), parameter) < tolerance, name


def test_corrupted_rows_take_the_fused_step_where_all_cells_count() -> None:
    net, objective = parts()
    for noise in NOISES:
        step = make_step(net, objective, replace(PLAN, corruption=noise))
        assert isinstance(step, FusedStep)
        assert step.corruption is noise  # held-out rows are corrupted alike
    fills = Masking(0.3, only_hidden=True)
    assert isinstance(make_step(net, objective, replace(PLAN, corruption=fills)), AutogradStep)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weight_decay_is_that_of_the_plain_step(optimizer: str, tied: bool) -> None:
    plan = replace(PLANS[optimizer], weight_decay=0.05)
    assert_same_run(*parts(tied=tied), plan, rows())


def with_shortcut(
    tied: bool = True,
    likelihood: str = "mixed",
    dtype: torch.dtype = torch.float64,
    hidden: tuple[int, ...] = (5,),
) -> tuple[Network, Objective]:
    """A tiny network with a linear pair beside it, and gates that are open a little."""
    _, objective = parts(likelihood=likelihood, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    net = Network(6, hidden, 3, tied=tied, shortcut=True, generator=generator).to(dtype)
    with torch.no_grad():
        net.encoder_gate.fill_(0.3)
        net.decoder_gate.fill_(-0.2)
    return net, objective


@pytest.mark.parametrize("j", range(len(PLANS)), ids=list(PLANS))
@pytest.mark.parametrize("i", range(3), ids=["()", "(5,)", "(8, 4)"])
def test_a_shortcut_learns_as_with_autograd(i: int, j: int) -> None:
    hidden, plan = [(), (5,), (8, 4)][i], list(PLANS.values())[j]
    likelihood, tied = list(COLUMNS)[(i + j) % 3], (i + j // 3) % 2 == 0
    assert_same_run(*with_shortcut(tied, likelihood, hidden=hidden), plan, rows())
    # What differs in a step on a GPU.
    assert_same_run(*with_shortcut(tied, likelihood, hidden=hidden), plan, rows(), make=capturable)


@pytest.mark.parametrize("noise", [None, *NOISES], ids=repr)
def test_a_shortcut_reads_spoilt_rows_too(noise: Corruption | None) -> None:
    net, objective = with_shortcut()
    twin, x, plan = copy.deepcopy(net), rows(), PLANS["adam"]
    own, others = (torch.Generator().manual_seed(7) for _ in range(2))
    plan = replace(plan, corruption=noise)
    losses = run(FusedStep(net, objective, plan, own), x, 30, plan.learning_rate)
    expected = run(AutogradStep(twin, objective, plan, others), x, 30, plan.learning_rate)
    assert distance(losses, expected) < TOLERANCE[x.dtype]


@pytest.mark.parametrize("plan", PLANS.values(), ids=list(PLANS))
def test_a_shortcut_in_bfloat16(plan: TrainingConfig) -> None:
    x = rows(torch.float32)
    net, objective = with_shortcut(dtype=torch.float32)
    twin = copy.deepcopy(net)
    losses = run(FusedStep(net, objective, replace(plan, bfloat16=True)), x, 30, plan.learning_rate)
    expected = run(FusedStep(twin, objective, plan), x, 30, plan.learning_rate)
    torch.testing.assert_close(losses, expected, rtol=0.05, atol=5e-3)


@pytest.mark.parametrize("hidden", [(), (6, 5, 5, 4)], ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_any_depth(optimizer: str, tied: bool, hidden: tuple[int, ...]) -> None:
    assert_same_run(*parts(tied=tied, hidden=hidden), PLANS[optimizer], rows())


def test_the_loss_is_a_mean_over_cells_where_a_cell_is_several_inputs() -> None:
    columns = (Column("t", "time", "gaussian", cycles=("day",)), Column("x", "real", "gaussian"))
    objective = Objective(Schema(columns, (4,))).double()
    net = Network(4, (5,), 3, generator=torch.Generator().manual_seed(0)).double()
    assert_same_run(net, objective, PLANS["sgd"], rows()[:, :4].contiguous())


def capturable(net: Network, objective: Objective, plan: TrainingConfig) -> FusedStep:
    return FusedStep(net, objective, plan, capturable=True)


@pytest.mark.parametrize("j", range(len(PLANS)), ids=list(PLANS))
@pytest.mark.parametrize("i", range(3), ids=["identity", "selu", "gelu"])
def test_capturable_steps_end_where_autograd_does(i: int, j: int) -> None:
    made = parts(["identity", "selu", "gelu"][i], tied=(i + j) % 2 == 0)
    assert_same_run(*made, list(PLANS.values())[j], rows(), make=capturable)


@pytest.mark.parametrize("plan", PLANS.values(), ids=list(PLANS))
def test_capturable_steps_in_32_bits(plan: TrainingConfig) -> None:
    assert_same_run(*parts(dtype=torch.float32), plan, rows(torch.float32), make=capturable)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_capturable_weight_decay_is_that_of_the_plain_step(optimizer: str) -> None:
    plan = replace(PLANS[optimizer], weight_decay=0.05)
    assert_same_run(*parts(), plan, rows(), make=capturable)


@pytest.mark.parametrize("plan", PLANS.values(), ids=list(PLANS))
def test_capturable_bfloat16_is_bfloat16(plan: TrainingConfig) -> None:
    plan, x = replace(plan, bfloat16=True), rows(torch.float32)
    net, objective = parts(dtype=torch.float32)
    twin = copy.deepcopy(net)
    losses = run(capturable(net, objective, plan), x, 30, plan.learning_rate)
    expected = run(FusedStep(twin, objective, plan), x, 30, plan.learning_rate)
    torch.testing.assert_close(losses, expected, rtol=0.01, atol=1e-3)


def _same_place(*groups: Sequence[Tensor], lr: Tensor, **settings: object) -> None:
    """Stands for PyTorch's kernels, and requires what they do of tensors on a GPU."""
    *lists, steps = groups if len(groups) == 6 else (*groups, ())
    for tensors in zip(*(tensors for tensors in lists if tensors), strict=True):
        assert len({(t.shape, t.stride(), t.dtype, t.device) for t in tensors}) == 1
        assert tensors[0].is_contiguous()
    for scalar in (lr, *steps):
        assert (scalar.shape, scalar.dtype, scalar.device.type) == ((), torch.float32, "meta")


@pytest.mark.parametrize("bfloat16", [False, True], ids=["exact", "bfloat16"])
@pytest.mark.parametrize("i", range(len(NAMES)), ids=NAMES)
def test_a_step_on_a_device_mixes_no_devices_and_asks_for_no_number(
    i: int, bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = list(PLANS.values())[(i + 3 * bfloat16) % 6]
    for kernel in ("_fused_sgd_", "_fused_adam_", "_fused_adamw_"):
        monkeypatch.setattr(torch, kernel, _same_place)
    net, objective = parts(NAMES[i], dtype=torch.float32)
    # A device that is always there, whose tensors hold no numbers: to read one is an error.
    with FakeTensorMode(allow_non_fake_inputs=True):
        for pair in net.pairs:
            for name, parameter in list(pair.named_parameters()):
                setattr(pair, name, nn.Parameter(torch.empty_like(parameter, device="meta")))
        step = capturable(net, objective, replace(plan, bfloat16=bfloat16))
        x = step.buffer(8)
        assert step._rate is not None
        with torch.inference_mode():
            loss = step._update(step._workspace(8), step._rate)
    assert x.device == loss.device == torch.device("meta")
    assert (loss.shape, loss.dtype) == ((), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("reach", [1e-3, 1.0, 30.0, 200.0])
def test_cross_entropy_is_exact_however_far_the_log_odds_reach(
    reach: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(3)
    net, objective = parts("identity", likelihood="bernoulli", dtype=dtype, hidden=())
    with torch.no_grad():
        net.pairs[0].decoder_bias.uniform_(-reach, reach, generator=generator)
    x = rows(dtype)
    theta, _ = net(x)
    expected = objective.reconstruction(theta, x).item()
    loss = FusedStep(net, objective, PLAN).update(x, 0.0).item()
    assert loss == pytest.approx(expected, rel=100 * torch.finfo(dtype).eps)


def test_update_returns_the_loss_before_it() -> None:
    net, objective = parts()
    step = FusedStep(net, objective, PLAN)
    x = rows()
    with torch.no_grad():
        before = objective.reconstruction(net(x)[0], x)
    assert step.update(x, 0.5).item() == pytest.approx(before.item())
    assert step.update(x, 0.5).item() < before.item()


def test_rows_from_elsewhere_are_copied_in() -> None:
    net, objective = parts()
    twin = copy.deepcopy(net)
    x = rows()
    step = FusedStep(net, objective, PLAN)
    step.buffer(len(x)).copy_(x)
    step.update(step.buffer(len(x)), 0.5)
    FusedStep(twin, objective, PLAN).update(x, 0.5)
    assert_equal_networks(net, twin)


def assert_equal_networks(ours: Network, theirs: Network) -> None:
    for name, parameter in theirs.named_parameters():
        assert torch.equal(ours.get_parameter(name), parameter), name


def test_the_gradient_of_a_tied_matrix_is_one_product_over_twice_the_batch() -> None:
    net, objective = parts(tied=True)
    work = FusedStep(net, objective, PLAN)._workspace(8)
    assert [(left.shape, right.shape) for _, left, right in work.products] == [
        ((pair.n_out, 16), (16, pair.n_in)) for pair in net.pairs
    ]


@pytest.mark.parametrize("optimizer", PLANS)
def test_parameters_stay_apart_and_carry_no_gradient(optimizer: str) -> None:
    net, objective = parts()
    before = {name: p.data_ptr() for name, p in net.named_parameters()}
    run(FusedStep(net, objective, PLANS[optimizer]), rows(), 3, 0.1)
    assert {name: p.data_ptr() for name, p in net.named_parameters()} == before
    assert all(p.grad is None for p in net.parameters())
    theta, _ = net(rows())
    theta.sum().backward()  # weights updated in inference mode still take part in autograd


@pytest.mark.parametrize("optimizer", PLANS)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_on_where_the_original_does(
    copied: Callable[[FusedStep], FusedStep], optimizer: str
) -> None:
    net, objective = parts()
    step = FusedStep(net, objective, PLANS[optimizer])
    run(step, rows(), 5, 0.1)
    twin = copied(step)
    run(step, rows(), 5, 0.1)
    assert distance(twin.network.pairs[0].weight, net.pairs[0].weight) > 0
    run(twin, rows(), 5, 0.1)
    assert_equal_networks(twin.network, net)
    assert twin.network.n_parameters == net.n_parameters


def test_a_pickled_step_holds_no_buffers() -> None:
    net, objective = parts(dtype=torch.float32)
    step = FusedStep(net, objective, PLANS["adam"])
    before = len(pickle.dumps(step))
    step.update(torch.rand(5000, 6), 0.1)
    assert len(pickle.dumps(step)) < before + 100


@pytest.mark.parametrize("optimizer", PLANS)
def test_a_network_cast_between_steps_trains_on_in_its_new_precision(optimizer: str) -> None:
    net, objective = parts(dtype=torch.float32)
    plan = PLANS[optimizer]
    step = FusedStep(net, objective, plan)
    run(step, rows(torch.float32), 5, plan.learning_rate)
    net.double()
    losses = run(step, rows(), 30, plan.learning_rate)
    assert step.buffer(8).dtype == net.pairs[0].weight.dtype == torch.float64
    assert losses[-1] < losses[0]
    assert [matrix is pair.weight for (matrix, _, _), pair in _uses(step, net)] == [True] * 2


def _uses(step: FusedStep, net: Network) -> zip[tuple[tuple[Tensor, Tensor, Tensor], DensePair]]:
    return zip(step._workspace(8).products, net.pairs, strict=True)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_weights_put_in_between_steps_are_the_ones_trained_on(bfloat16: bool) -> None:
    net, objective = parts(dtype=torch.float32)
    start = copy.deepcopy(net)
    step = FusedStep(net, objective, replace(PLAN, bfloat16=bfloat16))
    first = run(step, rows(torch.float32), 3, 0.3)
    net.load_state_dict(start.state_dict())
    assert torch.equal(run(step, rows(torch.float32), 3, 0.3), first)
    for parameter, original in zip(net.parameters(), start.parameters(), strict=True):
        parameter.data = original.data.clone()  # other memory, same parameter
    assert torch.equal(run(step, rows(torch.float32), 3, 0.3), first)


def test_memory_is_kept_for_two_batch_sizes_only() -> None:
    net, objective = parts()
    step = FusedStep(net, objective, PLAN)
    for n in range(1, 20):
        step.buffer(n)
    assert len(step._workspaces) <= 2


def test_training_stops_at_the_step_that_diverges() -> None:
    net, objective = parts("identity", likelihood="gaussian")
    plan = replace(PLAN, learning_rate=1e6, epochs=50)
    x, positions = rows(), torch.arange(19)
    data = TrainingData(Selection(x, positions), None, x, positions, complete=True)
    with pytest.raises(DivergenceError, match="epoch"):
        Trainer(net, objective, plan, torch.Generator()).fit(data)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_global_random_state_stays(optimizer: str, untouched_random_state: None) -> None:
    run(FusedStep(*parts(), PLANS[optimizer]), rows(), 3, 0.1)


class _OwnPair(DensePair):
    def encode(self, x: Tensor) -> Tensor:
        return 2 * super().encode(x)


class _OwnBottleneck(Bottleneck):
    def forward(
        self, code: Tensor, path: object, generator: object = None
    ) -> tuple[Tensor, Penalties]:
        return code, {"sparsity": code.abs().mean()}


def _own_pair(net: Network, objective: Objective) -> None:
    net.levels[0] = _OwnPair(6, 5).double()


def _own_bottleneck(net: Network, objective: Objective) -> None:
    net.bottleneck = _OwnBottleneck(3).double()


def _own_activation(net: Network, objective: Objective) -> None:
    net.activation = "own"


def _own_likelihood(net: Network, objective: Objective) -> None:
    objective.groups = [(LIKELIHOODS["student_t"], slice(None))]


def _frozen(net: Network, objective: Objective) -> None:
    net.pairs[0].weight.requires_grad_(False)


def _half(net: Network, objective: Objective) -> None:
    net.to(torch.bfloat16)


@pytest.mark.parametrize(
    "change", [_own_pair, _own_bottleneck, _own_activation, _own_likelihood, _frozen, _half]
)
def test_what_the_derivation_does_not_cover_is_left_to_autograd(
    change: Callable[[Network, Objective], None],
) -> None:
    net, objective = parts()
    change(net, objective)
    assert type(make_step(net, objective, PLAN)) is AutogradStep


def test_dense_stacks_take_the_fused_step() -> None:
    assert type(make_step(*parts(), PLAN)) is FusedStep


@pytest.mark.parametrize("plan", PLANS.values(), ids=list(PLANS))
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_bfloat16_learns_what_float32_does(plan: TrainingConfig, tied: bool) -> None:
    x = rows(torch.float32)
    net, objective = parts(tied=tied, dtype=torch.float32)
    exact = copy.deepcopy(net)
    expected = run(FusedStep(exact, objective, plan), x, 200, plan.learning_rate)
    losses = run(
        FusedStep(net, objective, replace(plan, bfloat16=True)), x, 200, plan.learning_rate
    )
    drop = float(expected[0] - expected[-3:].mean())
    assert float((losses[-3:] - expected[-3:]).abs().mean()) < 0.1 * drop


def test_bfloat16_keeps_the_weights_in_float32() -> None:
    net, objective = parts(dtype=torch.float32)
    step = FusedStep(net, objective, replace(PLANS["adam"], bfloat16=True))
    run(step, rows(torch.float32), 5, 1e-6)  # updates far below bfloat16's resolution
    start, _ = parts(dtype=torch.float32)
    moved = net.pairs[0].weight.data - start.pairs[0].weight.data
    assert net.pairs[0].weight.dtype == torch.float32
    assert 0 < float(moved.abs().max()) < 1e-4


def test_bfloat16_really_rounds_the_products() -> None:
    x = rows(torch.float32)
    net, objective = parts(dtype=torch.float32)
    other = copy.deepcopy(net)
    a = run(FusedStep(net, objective, PLAN), x, 1, 0.1)
    b = run(FusedStep(other, objective, replace(PLAN, bfloat16=True)), x, 1, 0.1)
    assert 1e-7 < float((a - b).abs()) < 1e-2


def test_the_plain_step_knows_bfloat16_too() -> None:
    x = rows(torch.float32)
    net, objective = parts(dtype=torch.float32)
    other = copy.deepcopy(net)
    plan = replace(PLANS["adam"], bfloat16=True)
    fused_losses = run(FusedStep(net, objective, plan), x, 100, 0.01)
    plain_losses = run(AutogradStep(other, objective, plan), x, 100, 0.01)
    torch.testing.assert_close(fused_losses, plain_losses, rtol=0.05, atol=0.01)


# A GPU takes the learning rate in 32 bits, so only such rates are the same on both sides.
GPU_PLANS = {
    name: replace(plan, learning_rate=2.0 ** round(math.log2(plan.learning_rate)))
    for name, plan in PLANS.items()
}


def on_both(
    plan: TrainingConfig, tied: bool, dtype: torch.dtype = torch.float64
) -> tuple[FusedStep, FusedStep]:
    net, objective = parts(tied=tied, dtype=dtype)
    there = copy.deepcopy(net).cuda(), copy.deepcopy(objective).cuda()
    return FusedStep(*there, plan), FusedStep(net, objective, plan)


def assert_close_networks(ours: Network, theirs: Network, tolerance: float) -> None:
    for name, parameter in theirs.named_parameters():
        assert distance(ours.get_parameter(name).cpu(), parameter) < tolerance, name


def replays(step: FusedStep) -> list[bool]:
    """Tell for each batch size whether its step is recorded."""
    recordings = [work.recording for work in step._workspaces.values()]
    return [recording is not None and recording._recorded is not None for recording in recordings]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("plan", GPU_PLANS.values(), ids=list(GPU_PLANS))
def test_a_gpu_ends_where_the_cpu_does(
    plan: TrainingConfig, tied: bool, dtype: torch.dtype
) -> None:
    there, here = on_both(plan, tied, dtype)
    tolerance = {torch.float64: 1e-7, torch.float32: 1e-3}[dtype]
    losses = run(there, rows(dtype).cuda(), 100, plan.learning_rate)
    assert distance(losses, run(here, rows(dtype), 100, plan.learning_rate)) < tolerance
    assert_close_networks(there.network, here.network, tolerance)
    assert replays(there) == [True, True]


@pytest.mark.gpu
def test_a_gpu_takes_a_new_rate_at_every_step() -> None:
    there, here = on_both(GPU_PLANS["momentum"], True)
    x = rows()[:8]
    for number in range(20):
        rate = 2.0 ** -(3 + number % 4)
        assert float(there.update(x.cuda(), rate)) == pytest.approx(float(here.update(x, rate)))
    assert_close_networks(there.network, here.network, 1e-7)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", GPU_PLANS)
def test_a_copy_on_a_gpu_goes_on_where_the_original_does(optimizer: str) -> None:
    plan = GPU_PLANS[optimizer]
    step, _ = on_both(plan, True)
    run(step, rows().cuda(), 20, plan.learning_rate)
    twin = copy.deepcopy(step)
    losses = run(step, rows().cuda(), 20, plan.learning_rate)
    assert distance(run(twin, rows().cuda(), 20, plan.learning_rate), losses) < 1e-9
    assert_close_networks(twin.network, step.network.cpu(), 1e-9)


@pytest.mark.gpu
def test_a_network_moves_to_a_gpu_and_back_between_steps() -> None:
    plan = GPU_PLANS["adam"]
    moved, stayed = on_both(plan, True)
    for device in ("cpu", "cuda", "cpu"):
        moved.network.to(device)
        run(moved, rows().to(device), 20, plan.learning_rate)
        run(stayed, rows(), 20, plan.learning_rate)
    assert_close_networks(moved.network, stayed.network, 1e-7)


@pytest.mark.gpu
def test_weights_moved_on_a_gpu_are_the_ones_trained_on() -> None:
    plan = GPU_PLANS["sgd"]
    there, here = on_both(plan, True)
    for _ in range(3):
        run(there, rows().cuda(), 20, plan.learning_rate)
        run(here, rows(), 20, plan.learning_rate)
        for parameter in there.network.parameters():
            old, parameter.data = parameter.data, parameter.data.clone()
            old.fill_(math.nan)
    assert_close_networks(there.network, here.network, 1e-7)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_recorded_step_does_not_wait_for_the_gpu() -> None:
    plan = GPU_PLANS["adamw"]
    step, _ = on_both(plan, True)
    x = rows().cuda()
    run(step, x, 20, plan.learning_rate)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in x.split(BATCHES) * 5:
            step.update(batch, plan.learning_rate)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.gpu
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_bfloat16_on_a_gpu_learns_what_float32_does(tied: bool) -> None:
    plan = replace(GPU_PLANS["adam"], bfloat16=True)
    step, _ = on_both(plan, tied, torch.float32)
    _, exact = on_both(GPU_PLANS["adam"], tied, torch.float32)
    losses = run(step, rows(torch.float32).cuda(), 200, plan.learning_rate)
    expected = run(exact, rows(torch.float32), 200, plan.learning_rate)
    drop = float(expected[0] - expected[-3:].mean())
    assert float((losses[-3:] - expected[-3:]).abs().mean()) < 0.1 * drop


def table(missing: float, likelihoods: dict[str, int]) -> tuple[Network, Objective, Tensor]:
    """A small table of numbers and categories, some of whose cells are missing."""
    columns = tuple(
        Column(f"{name}{i}", "category", name, levels=("a", "b", "c"), kept=(0, 1))
        if name == "categorical"
        else Column(f"{name}{i}", "real", name)
        for name, n in likelihoods.items()
        for i in range(n)
    )
    schema = Schema(columns, (len(columns),))
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(sum(BATCHES), schema.width, generator=generator, dtype=torch.float64)
    for column, at in zip(columns, schema.inputs, strict=True):
        if column.kind == "category":
            level = torch.randint(3, (len(x),), generator=generator)
            x[:, at] = F.one_hot(level, 3).double()
        x[torch.rand(len(x), generator=generator) < missing, at] = math.nan
    net = Network(schema.width, (8, 4), 3, activation="relu", shortcut=True, generator=generator)
    with torch.no_grad():
        net.encoder_gate.fill_(0.3)
        net.decoder_gate.fill_(-0.2)
    return net.double(), Objective(schema).double(), x


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(
    "likelihoods", [{"gaussian": 5}, {"categorical": 3}, {"gaussian": 3, "categorical": 2}], ids=str
)
def test_categories_and_missing_cells_learn_as_with_autograd(
    likelihoods: dict[str, int], missing: float, optimizer: str
) -> None:
    net, objective, x = table(missing, likelihoods)
    for make in (FusedStep, capturable):

        def step(
            net: Network, objective: Objective, plan: TrainingConfig, make: Any = make
        ) -> FusedStep:
            made: FusedStep = make(net, objective, plan)
            made.takes_missing = missing > 0
            return made

        assert_same_run(copy.deepcopy(net), objective, PLANS[optimizer], x, step)


@pytest.mark.parametrize("noise", [Masking(0.3), Swap(0.3)], ids=repr)
def test_corrupted_rows_with_missing_cells_learn_as_with_autograd(noise: Corruption) -> None:
    net, objective, x = table(0.2, {"gaussian": 3, "categorical": 2})
    twin, plan = copy.deepcopy(net), PLANS["adam"]
    own, others = (torch.Generator().manual_seed(7) for _ in range(2))
    plan = replace(plan, corruption=noise)
    step = FusedStep(net, objective, plan, own, complete=False)
    losses = run(step, x, 30, plan.learning_rate)
    expected = run(AutogradStep(twin, objective, plan, others), x, 30, plan.learning_rate)
    assert distance(losses, expected) < TOLERANCE[x.dtype]
