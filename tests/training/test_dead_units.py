"""Dead units of a sparse code are counted, and live again; living ones stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from twofold import Autoencoder, Ordered, Sparse
from twofold.data.table import Table
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema
from twofold.training import dead_units
from twofold.training.autograd import AutogradStep
from twofold.training.batches import Selection
from twofold.training.config import TrainingConfig

RNG = np.random.default_rng(7)
ROWS = (RNG.normal(size=(300, 3)) @ RNG.normal(size=(3, 8)) + 0.3 * RNG.normal(size=(300, 8))) + 5
DIGITS = (load_digits().data[:800] / 16).astype(np.float32)
pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")


def made(kind: Any, **options: Any) -> Autoencoder:
    quick = {"n_components": 4, "epochs": 3, "random_state": 0, "patience": None}
    return Autoencoder(**{**quick, "bottleneck": kind, "code_activation": "identity", **options})


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def planted(kind: str = "l1", tied: bool = True) -> tuple[Network, Objective, AutogradStep, Tensor]:
    """A network one of whose components never is active, and a step with a memory of gradients."""
    schema = Schema.infer(Table(ROWS))
    network = Network(
        8, (6,), 4, tied=tied, bottleneck=Sparse(kind), code_activation="relu", generator=seeded()
    ).double()
    last: Any = network.pairs[-1]
    last.weight.data[2], last.encoder_bias.data[2] = 0, -1
    last.encoder_bias.data[[0, 1, 3]] = 1
    plan = TrainingConfig.resolve(Autoencoder(epochs=9).get_params(deep=False), 300, 8)
    objective = Objective(schema).double()
    step = AutogradStep(network, objective, plan, generator=seeded())
    for moments in step._optimizer.moments:
        for moment in moments:
            moment.fill_(1)
    return network, objective, step, torch.from_numpy(schema.to_matrix(Table(ROWS), np.float64))


def revived(kind: str = "l1", revives: bool = True, tied: bool = True) -> tuple[Any, Any, Tensor]:
    network, objective, step, x = planted(kind, tied)
    rows = Selection(x, torch.arange(len(x)))
    found = dead_units.revive_dead_units(step, network, objective, rows, revives, seeded())
    assert found == {"dead_units": 1}
    return network, step, x


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["l1", "topk"])
def test_a_dead_component_lives_again(kind: str, tied: bool) -> None:
    network, _, x = revived(kind, tied=tied)
    activity = network.encode(x)[0]
    assert 0.05 < float((activity[:, 2] > 0).double().mean()) < 0.95


def test_a_revived_component_starts_at_a_fifth_of_the_others() -> None:
    sizes = revived()[0].pairs[-1].weight.detach().norm(dim=1)
    assert float(sizes[2]) == pytest.approx(0.2 * float(sizes[[0, 1, 3]].mean()))


def test_the_memory_of_a_revived_component_is_forgotten() -> None:
    network, step, _ = revived()
    weight = next(
        i for i, p in enumerate(step._optimizer.parameters) if p is network.pairs[-1].weight
    )
    for moment in step._optimizer.moments[weight]:
        assert not moment[2].any()
        assert moment[[0, 1, 3]].all()


def test_what_lives_stays_as_it_is() -> None:
    before, after = planted()[0].state_dict(), revived()[0].state_dict()
    for name, tensor in before.items():
        changed = (tensor != after[name]).nonzero()
        assert not len(changed) or set(changed[:, 0].tolist()) == {2}, name


def test_late_epochs_only_count() -> None:
    before, after = planted()[0].state_dict(), revived(revives=False)[0].state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_the_history_counts_dead_components(monkeypatch: pytest.MonkeyPatch) -> None:
    revived: list[bool] = []
    revive_before = dead_units.revive_dead_units

    def spy(step: object, net: Any, aim: Any, rows: Any, revives: bool, *others: Any) -> Any:
        revived.append(revives)
        return revive_before(step, net, aim, rows, revives, *others)

    monkeypatch.setattr(dead_units, "revive_dead_units", spy)
    ae = made(Sparse("topk", k=1), epochs=4).fit(ROWS)
    assert all(entry["dead_units"] in range(5) for entry in ae.history_)
    assert revived == [True, True, False, False]


def test_reviving_leaves_fewer_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"n_components": 48, "hidden_layers": (), "code_activation": "relu", "epochs": 12}
    sparse = Sparse("topk", k=3)
    ours = made(sparse, **options).fit(DIGITS).history_[-1]["dead_units"]
    monkeypatch.setattr(dead_units, "_revive", lambda *_: None)
    theirs = made(sparse, **options).fit(DIGITS).history_[-1]["dead_units"]
    assert ours < theirs


def test_other_codes_have_no_dead_components() -> None:
    assert "dead_units" not in made(Ordered()).fit(ROWS).history_[0]
