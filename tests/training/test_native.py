"""The native step: autograd's numbers, whatever the stack, the threads and the instruction set."""

from __future__ import annotations

import copy
import pickle
import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_fused import (
    BATCHES,
    COLUMNS,
    NOISES,
    PLAN,
    PLANS,
    TOLERANCE,
    assert_equal_networks,
    assert_same_run,
    distance,
    parts,
    rows,
    run,
)
from tests.training.test_fused import table as mixed_table
from twofold.errors import DivergenceError
from twofold.nn.activations import ACTIVATIONS as ALL_ACTIVATIONS
from twofold.nn.corruption import Masking
from twofold.nn.likelihoods import Poisson
from twofold.nn.native import library
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Column, Schema
from twofold.training.autograd import AutogradStep
from twofold.training.batches import Selection, TrainingData
from twofold.training.config import TrainingConfig
from twofold.training.native import OPTIMIZERS, NativeStep, obstacle
from twofold.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("compiled")

SETS = ["neon"] if platform.machine() in ("aarch64", "arm64") else ["baseline", "avx2", "avx512"]
ACTIVATIONS = [
    name for name, activation in ALL_ACTIVATIONS.items() if activation.kernel is not None
]
COVERED = {name: plan for name, plan in PLANS.items() if plan.optimizer in OPTIMIZERS}


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest) -> str:
    """Each instruction set that this processor has."""
    name: str = request.param
    if name not in library.instruction_sets():
        pytest.skip(f"this processor has no {name}")
    return name


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def native(**named: Any) -> Callable[[Network, Objective, TrainingConfig], NativeStep]:
    return lambda net, objective, plan: NativeStep(net, objective, plan, **named)


def stack(
    widths: tuple[int, ...],
    activation: str = "tanh",
    tied: bool = True,
    likelihood: str = "mixed",
    shortcut: bool = False,
) -> tuple[Network, Objective]:
    """A stack of any widths, from the input to the code, whose columns take turns."""
    names = COLUMNS[likelihood]
    columns = (Column(f"x{i}", "real", names[i % len(names)]) for i in range(widths[0]))
    net = Network(
        widths[0],
        widths[1:-1],
        widths[-1],
        tied=tied,
        activation=activation,
        shortcut=shortcut,
        generator=torch.Generator().manual_seed(0),
    )
    return net, Objective(Schema(tuple(columns), (widths[0],)))


def table(n_rows: int, width: int) -> Tensor:
    return torch.rand(n_rows, width, generator=torch.Generator().manual_seed(1))


def train(step: NativeStep, x: Tensor, batch: int, n_steps: int = 5) -> list[float]:
    """Pass over the rows, the last batch being smaller."""
    batches = x.split(batch)
    return [float(step.update(batches[i % len(batches)], 0.05)) for i in range(n_steps)]


@pytest.mark.parametrize("j", range(len(COVERED)), ids=list(COVERED))
@pytest.mark.parametrize("i", range(len(ACTIVATIONS)), ids=ACTIVATIONS)
def test_hundred_steps_end_where_autograd_does(i: int, j: int) -> None:
    activation, plan = ACTIVATIONS[i], list(COVERED.values())[j]
    # Independent of both, as in the fused step's tests.
    net, objective = parts(activation, tied=(i + j) % 2 == 0, dtype=torch.float32)
    net.code_activation = "tanh" if activation == "identity" else "identity"
    assert_same_run(net, objective, plan, rows(torch.float32), make=native())


@pytest.mark.parametrize("likelihood", COLUMNS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_step_is_that_of_autograd_on_every_instruction_set(
    activation: str, likelihood: str, instruction_set: str
) -> None:
    for tied in (True, False):
        net, objective = stack((21, 13, 7), activation, tied, likelihood)
        net.code_activation = "selu"
        plain, x = copy.deepcopy(net), table(37, 21)
        step = NativeStep(net, objective, PLAN, instruction_set=instruction_set)
        loss = float(step.update(x, 0.1))
        assert loss == pytest.approx(
            float(AutogradStep(plain, objective, PLAN).update(x, 0.1)), rel=1e-6
        )
        for name, parameter in plain.named_parameters():
            assert distance(net.get_parameter(name), parameter) < 1e-6, name


WIDTHS = [(1, 1), (5, 3), (17, 33, 16), (40, 7, 6, 5), (65, 129, 31), (300, 13)]


@pytest.mark.parametrize("batch", [1, 7, 16, 33, 70])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_any_width_and_batch_on_every_instruction_set(
    widths: tuple[int, ...], batch: int, instruction_set: str
) -> None:
    for tied in (True, False):
        net, objective = stack(widths, tied=tied)
        plan = replace(PLANS["momentum"], batch_size=batch)
        plain, x = copy.deepcopy(net), table(2 * batch + 3, widths[0])
        step = NativeStep(net, objective, plan, instruction_set=instruction_set)
        reference = AutogradStep(plain, objective, plan)
        for part in x.split(batch):
            expected = float(reference.update(part, 0.01))
            assert float(step.update(part, 0.01)) == pytest.approx(expected, rel=1e-5)
        for name, parameter in plain.named_parameters():
            assert distance(net.get_parameter(name), parameter) < 1e-4, name


@pytest.mark.parametrize("batch", [32, 100])
@pytest.mark.parametrize("plan", [PLANS["sgd"], PLANS["adam"]], ids=["sgd", "adam"])
def test_any_number_of_threads_gives_the_same_bits(
    plan: TrainingConfig, batch: int, instruction_set: str, threads: Callable[[int], None]
) -> None:
    x, found = table(3 * batch + 1, 70), []
    for n in (1, 2, 3, 16):
        threads(n)
        net, objective = stack((70, 45, 23), "selu")
        step = NativeStep(net, objective, plan, instruction_set=instruction_set)
        found.append((train(step, x, batch), net))
    for losses, net in found[1:]:
        assert losses == found[0][0]
        assert_equal_networks(net, found[0][1])


def blank_in_part(n_rows: int, width: int) -> Tensor:
    """Rows like images: margins are 0 in all of them, and all but one patch is in each."""
    x, patch = table(n_rows, width), torch.arange(width)
    for i, row in enumerate(x):
        row[(patch < width // 10) | ((patch - 3 * i) % width > width // 3)] = 0.0
    return x


@pytest.mark.parametrize("batch", [7, 32, 100])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shortcut", [True, False], ids=["shortcut", "stack"])
@pytest.mark.parametrize("plan", [PLANS["sgd"], PLANS["adam"]], ids=["sgd", "adam"])
def test_blank_inputs_are_left_out_and_no_bit_changes(
    plan: TrainingConfig, shortcut: bool, tied: bool, batch: int, instruction_set: str
) -> None:
    """Zeros are left out, 1e-38 is not, and what a sum of other numbers is with it is the same."""
    x, found = blank_in_part(2 * batch + 1, 150), []
    for nothing in (0.0, 1e-38):
        net, objective = stack((150, 60, 9), "selu", tied, shortcut=shortcut)
        if shortcut:
            with torch.no_grad():
                net.encoder_gate.fill_(0.3)
                net.decoder_gate.fill_(0.2)
        step = NativeStep(net, objective, plan, instruction_set=instruction_set)
        losses = train(step, x.where(x != 0, torch.tensor(nothing)), batch)
        found.append((losses, net))
    assert found[0][0] == found[1][0]
    assert_equal_networks(found[0][1], found[1][1])


@pytest.mark.parametrize("plan", COVERED.values(), ids=list(COVERED))
def test_many_steps_in_one_call_give_the_bits_of_single_ones(plan: TrainingConfig) -> None:
    net, objective = parts(dtype=torch.float32)
    twin, x = copy.deepcopy(net), rows(torch.float32)
    one, many = NativeStep(net, objective, plan), NativeStep(twin, objective, plan)
    expected = [float(one.update(part, 0.05)) for part in x.split(BATCHES)]
    losses = many.update_many(list(x.split(BATCHES)), [0.05] * len(BATCHES))
    assert losses.tolist() == expected
    assert_equal_networks(twin, net)
    assert one.state_dict().keys() == many.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(many.state_dict()[name], tensor), name


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("plan", COVERED.values(), ids=list(COVERED))
def test_positions_in_a_matrix_give_the_bits_of_copied_rows(
    plan: TrainingConfig, holes: bool
) -> None:
    net, objective = parts(dtype=torch.float32)
    twin, x = copy.deepcopy(net), rows(torch.float32)
    if holes:
        x[::3, 2] = torch.nan
    wider = torch.full((len(x), x.shape[1] + 5), torch.inf)
    wider[:, : x.shape[1]] = x
    matrix = wider[:, : x.shape[1]]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    copied = NativeStep(net, objective, plan, complete=not holes)
    in_place = NativeStep(twin, objective, plan, complete=not holes)
    rates = [0.05] * len(BATCHES)
    expected = copied.update_many([x[at] for at in order.split(BATCHES)], rates)
    assert in_place.reads(matrix)
    found = in_place.update_many(order.split(BATCHES), rates, matrix)
    assert torch.equal(found, expected)
    assert_equal_networks(twin, net)


def test_what_is_no_matrix_of_this_machine_is_not_read_in_place() -> None:
    net, objective = parts(dtype=torch.float32)
    x, plan = rows(torch.float32), PLANS["sgd"]
    step = NativeStep(net, objective, plan)
    assert step.reads(x)
    assert not step.reads(x.double())
    assert not step.reads(x.t().contiguous().t())
    assert not NativeStep(net, objective, replace(plan, corruption=Masking(0.2))).reads(x)


@pytest.mark.parametrize("holes", [False, True])
def test_training_in_place_gives_the_bits_of_training_on_copies(
    holes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, found = table(230, 12), []
    if holes:
        x[::4, 3] = torch.nan
    plan = replace(PLANS["adam"], epochs=3, batch_size=32)
    seen: list[bool] = []
    many = NativeStep.update_many

    def noted(self: NativeStep, *given: Any) -> Tensor:
        seen.append(given[2] is not None)
        return many(self, *given)

    monkeypatch.setattr(NativeStep, "update_many", noted)
    for in_place in (True, False):
        if not in_place:
            monkeypatch.setattr(NativeStep, "reads", lambda *_: False)
        net, objective = stack((12, 9, 4), "selu")
        data = TrainingData(
            Selection(x, torch.arange(20, 230)), x[:20], x, torch.arange(20, 230), not holes
        )
        history = Trainer(net, objective, plan, torch.Generator().manual_seed(2)).fit(data)
        found.append((net, [entry["loss"] for entry in history.epochs]))
    assert seen == [True] * 3 + [False] * 3
    assert found[0][1] == found[1][1]
    assert_equal_networks(found[0][0], found[1][0])


@pytest.mark.parametrize("plan", [PLANS["sgd"], PLANS["adam"]], ids=["sgd", "adam"])
@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_hundred_steps_from_corrupted_rows_end_where_autograd_does(
    noise: Any, plan: TrainingConfig
) -> None:
    net, objective = parts(dtype=torch.float32)
    plain, x = copy.deepcopy(net), rows(torch.float32)
    plan = replace(plan, corruption=noise)
    ours = NativeStep(net, objective, plan, torch.Generator().manual_seed(7))
    theirs = AutogradStep(plain, objective, plan, torch.Generator().manual_seed(7))
    losses = run(ours, x, 100, plan.learning_rate)
    assert distance(losses, run(theirs, x, 100, plan.learning_rate)) < TOLERANCE[torch.float32]
    for name, parameter in plain.named_parameters():
        assert distance(net.get_parameter(name), parameter) < TOLERANCE[torch.float32], name


@pytest.mark.parametrize("plan", [PLANS["sgd"], PLANS["adam"]], ids=["sgd", "adam"])
@pytest.mark.parametrize("noise", [None, Masking(0.4), Masking(0.4, only_hidden=True)], ids=repr)
def test_missing_cells_count_as_in_autograd(
    noise: Any, plan: TrainingConfig, instruction_set: str
) -> None:
    net, objective = parts(dtype=torch.float32)
    objective.noise.fill_(0.7)
    plain, x = copy.deepcopy(net), rows(torch.float32)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(5)) < 0.3] = torch.nan
    x[3] = torch.nan
    plan = replace(plan, corruption=noise)
    ours = NativeStep(
        net,
        objective,
        plan,
        torch.Generator().manual_seed(7),
        complete=False,
        instruction_set=instruction_set,
    )
    theirs = AutogradStep(plain, objective, plan, torch.Generator().manual_seed(7))
    losses = run(ours, x, 100, plan.learning_rate)
    assert distance(losses, run(theirs, x, 100, plan.learning_rate)) < TOLERANCE[torch.float32]
    for name, parameter in plain.named_parameters():
        assert distance(net.get_parameter(name), parameter) < TOLERANCE[torch.float32], name


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "missing"])
def test_the_loss_is_a_mean_over_cells_where_a_cell_is_several_inputs(complete: bool) -> None:
    columns = (Column("t", "time", "gaussian", cycles=("day",)), Column("x", "real", "gaussian"))
    net = Network(4, (5,), 3, generator=torch.Generator().manual_seed(0))
    x = rows(torch.float32)[:, :4].contiguous()
    if not complete:
        x[::3, :3] = torch.nan
    make = native(complete=complete)
    assert_same_run(net, Objective(Schema(columns, (4,))), PLANS["sgd"], x, make=make)


@pytest.mark.parametrize("plan", [PLANS["momentum"], PLANS["adam"]], ids=["momentum", "adam"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_shortcut_and_its_gates_are_trained_as_by_autograd(
    activation: str, tied: bool, plan: TrainingConfig, instruction_set: str
) -> None:
    options: dict[str, Any] = {"tied": tied, "activation": activation, "shortcut": True}
    options["code_activation"] = "silu" if activation == "gelu" else "identity"
    net = Network(6, (19, 14), 3, **options, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.encoder_gate.fill_(0.3)
        net.decoder_gate.fill_(0.2)
    _, objective = parts(dtype=torch.float32)
    assert_same_run(
        net, objective, plan, rows(torch.float32), make=native(instruction_set=instruction_set)
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(
    "likelihoods", [{"categorical": 3}, {"gaussian": 3, "categorical": 2}], ids=str
)
def test_categories_learn_as_with_autograd(
    likelihoods: dict[str, int], missing: float, optimizer: str, instruction_set: str
) -> None:
    net, objective, x = mixed_table(missing, likelihoods)
    objective.noise.fill_(0.7)
    make = native(complete=missing == 0, instruction_set=instruction_set)
    assert_same_run(net.float(), objective.float(), PLANS[optimizer], x.float(), make)


def test_corrupted_categories_learn_as_with_autograd(instruction_set: str) -> None:
    net, objective, x = mixed_table(0.2, {"gaussian": 2, "categorical": 2})
    net, objective, x = net.float(), objective.float(), x.float()
    twin, plan = copy.deepcopy(net), replace(PLANS["adam"], corruption=Masking(0.3))
    own, others = (torch.Generator().manual_seed(7) for _ in range(2))
    step = NativeStep(net, objective, plan, own, complete=False, instruction_set=instruction_set)
    losses = run(step, x, 50, plan.learning_rate)
    expected = run(AutogradStep(twin, objective, plan, others), x, 50, plan.learning_rate)
    assert distance(losses, expected) < TOLERANCE[torch.float32]


def levels_table(n_rows: int, *n_levels: int) -> tuple[Objective, Tensor]:
    """Numbers and categories in turn, of so many levels each."""
    columns: list[Column] = []
    for i, n in enumerate(n_levels):
        levels = tuple(map(str, range(n)))
        columns.append(Column(f"x{i}", "real", "gaussian"))
        columns.append(
            Column(f"c{i}", "category", "categorical", levels=levels, kept=tuple(range(n - 1)))
        )
    schema = Schema(tuple(columns), (len(columns),))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n_rows, schema.width, generator=generator)
    for column, at in zip(columns, schema.inputs, strict=True):
        if column.kind == "category":
            n = at.stop - at.start
            x[:, at] = torch.eye(n)[torch.randint(n, (n_rows,), generator=generator)]
    return Objective(schema), x


@pytest.mark.parametrize("batch", [7, 32, 70])
def test_categories_of_any_size_give_the_same_bits_with_any_number_of_threads(
    batch: int, threads: Callable[[int], None], instruction_set: str
) -> None:
    objective, x = levels_table(3 * batch + 5, 2, 17, 40, 3)
    net = Network(
        x.shape[1], (19, 11), 5, shortcut=True, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        net.encoder_gate.fill_(0.3)
        net.decoder_gate.fill_(0.2)
    plain, found = copy.deepcopy(net), []
    reference = AutogradStep(plain, objective, PLAN)
    expected = [float(reference.update(part, 0.05)) for part in x.split(batch)]
    for n in (1, 2, 16):
        threads(n)
        ours = copy.deepcopy(net)
        step = NativeStep(ours, objective, PLAN, instruction_set=instruction_set)
        losses = [float(step.update(part, 0.05)) for part in x.split(batch)]
        assert losses == pytest.approx(expected, rel=1e-5)
        found.append((losses, ours))
    for name, parameter in plain.named_parameters():
        assert distance(found[0][1].get_parameter(name), parameter) < 1e-4, name
    for losses, ours in found[1:]:
        assert losses == found[0][0]
        assert_equal_networks(ours, found[0][1])


@pytest.mark.parametrize("reach", [1e-3, 1.0, 30.0, 200.0])
def test_the_loss_of_levels_is_exact_however_far_their_thetas_reach(
    reach: float, instruction_set: str
) -> None:
    objective, x = levels_table(40, 9)
    net = Network(x.shape[1], (), 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.pairs[0].decoder_bias.copy_(torch.linspace(-reach, reach, x.shape[1]))
    plain = copy.deepcopy(net).double()
    loss = float(NativeStep(net, objective, PLAN, instruction_set=instruction_set).update(x, 0.1))
    reference = AutogradStep(plain, copy.deepcopy(objective).double(), PLAN)
    assert loss == pytest.approx(float(reference.update(x.double(), 0.1)), rel=1e-6)
    for name, parameter in plain.named_parameters():
        assert distance(net.get_parameter(name).double(), parameter) < 1e-5, name


def test_a_batch_without_any_cell_changes_nothing() -> None:
    net, objective = parts(dtype=torch.float32)
    before = copy.deepcopy(net)
    step = NativeStep(net, objective, PLAN, complete=False)
    assert float(step.update(torch.full((8, 6), torch.nan), 0.5)) == 0
    assert_equal_networks(net, before)


@pytest.mark.parametrize("reach", [1e-3, 1.0, 30.0, 200.0])
def test_cross_entropy_is_exact_however_far_the_log_odds_reach(
    reach: float, instruction_set: str
) -> None:
    net, objective = stack((200, 3), "identity", likelihood="bernoulli")
    with torch.no_grad():
        net.pairs[0].decoder_bias.uniform_(
            -reach, reach, generator=torch.Generator().manual_seed(3)
        )
    x = table(40, 200)
    theta, _ = net(x)
    expected = objective.reconstruction(theta.double(), x.double()).item()
    step = NativeStep(net, objective, PLAN, instruction_set=instruction_set)
    assert step.update(x, 0.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "activation", ["elu", "selu", "tanh", "sigmoid", "gelu", "silu", "softplus"]
)
@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 100.0])
def test_activations_are_exact_near_zero_and_far_from_it(
    activation: str, scale: float, instruction_set: str
) -> None:
    net, objective = stack((64, 64), "identity", likelihood="gaussian")
    net.code_activation = activation
    plan = replace(PLAN, batch_size=64)
    with torch.no_grad():
        net.pairs[0].weight.copy_(torch.eye(64))
    x = scale * (2 * table(64, 64) - 1)
    exact = copy.deepcopy(net).double()(x.double())[0]
    expected = objective.double().reconstruction(exact, x.double()).item()
    step = NativeStep(net, objective, plan, instruction_set=instruction_set)
    assert step.update(x, 0.0).item() == pytest.approx(expected, rel=3e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_ends_the_call_at_its_step(value: float) -> None:
    net, objective = parts(dtype=torch.float32)
    batches = [rows(torch.float32)[:8].clone() for _ in range(5)]
    batches[2][4, 1] = value
    step = NativeStep(net, objective, PLAN)
    losses = step.update_many(batches, [0.01] * 5)
    assert losses.isfinite().tolist() == [True, True, False]


def test_divergence_names_the_very_step() -> None:
    net, objective = parts("relu", dtype=torch.float32, likelihood="gaussian")
    plan = replace(PLAN, learning_rate=1e4, epochs=50)
    x, steps = rows(torch.float32), []
    for make in (NativeStep, AutogradStep):
        own = copy.deepcopy(net)
        trainer, positions = Trainer(own, objective, plan, torch.Generator()), torch.arange(len(x))
        trainer.step = make(own, objective, plan)
        data = TrainingData(Selection(x, positions), None, x, positions, complete=True)
        with pytest.raises(DivergenceError) as caught:
            trainer.fit(data)
        steps.append(str(caught.value).split(";")[0])
    assert steps[0] == steps[1]


@pytest.mark.parametrize("optimizer", COVERED)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_on_where_the_original_does(
    copied: Callable[[NativeStep], NativeStep], optimizer: str
) -> None:
    net, objective = parts(dtype=torch.float32)
    step, x = NativeStep(net, objective, PLANS[optimizer]), rows(torch.float32)
    run(step, x, 5, 0.1)
    twin = copied(step)
    run(step, x, 5, 0.1)
    assert distance(twin.network.pairs[0].weight, net.pairs[0].weight) > 0
    run(twin, x, 5, 0.1)
    assert_equal_networks(twin.network, net)


def test_a_pickled_step_holds_no_buffers() -> None:
    net, objective = parts(dtype=torch.float32)
    step = NativeStep(net, objective, PLANS["adam"])
    before = len(pickle.dumps(step))
    step.update(torch.rand(5000, 6), 0.1)
    assert len(pickle.dumps(step)) < before + 100


@pytest.mark.parametrize("optimizer", COVERED)
def test_the_fused_step_goes_on_from_a_native_state(optimizer: str) -> None:
    net, objective = parts("sigmoid", dtype=torch.float32)
    plan, x = PLANS[optimizer], rows(torch.float32)
    step = NativeStep(net, objective, plan)
    run(step, x, 20, plan.learning_rate)
    twin = copy.deepcopy(net)
    plain = AutogradStep(twin, objective, plan)
    plain.load_state_dict({name: tensor.clone() for name, tensor in step.state_dict().items()})
    run(step, x, 20, plan.learning_rate)
    run(plain, x, 20, plan.learning_rate)
    for name, parameter in twin.named_parameters():
        assert distance(net.get_parameter(name), parameter) < TOLERANCE[torch.float32], name


def test_the_random_state_is_untouched(untouched_random_state: None) -> None:
    net, objective = parts(dtype=torch.float32)
    NativeStep(net, objective, PLAN, Masking(0.3)).update(rows(torch.float32), 0.1)


class _Own(Poisson):
    """A likelihood made of another one, whose kernel is not its own."""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda net, objective: net.double(), "float64"),
        (lambda net, objective: setattr(net, "activation", "own"), "activation own"),
        (lambda net, objective: net.pairs[0].weight.requires_grad_(False), "frozen parameters"),
        (
            lambda net, objective: setattr(objective, "groups", [(_Own(), slice(None))]),
            "likelihood _Own",
        ),
    ],
)
def test_an_obstacle_is_named(
    change: Callable[[Network, Objective], object], reason: str, own_activation: str
) -> None:
    net, objective = parts(dtype=torch.float32)
    assert obstacle(net, objective, PLAN) == ""
    change(net, objective)
    assert obstacle(net, objective, PLAN) == reason
    assert obstacle(*parts(dtype=torch.float32), PLANS["muon"]) == "optimizer muon"
