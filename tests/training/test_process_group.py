"""A process that trains alone is a group of one, and a context says which group trains."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from twofold.training.process_group import SingleProcess, current_workers, using


def test_every_exchange_of_a_single_process_gives_back_what_it_got() -> None:
    alone, generator = SingleProcess(), torch.Generator()
    gradients, loss = [torch.ones(2)], torch.tensor(3.0)
    assert alone.is_main
    assert alone.broadcast("value") == "value"
    assert alone.generator(generator) is generator
    assert alone.all_reduce_mean(gradients, loss, lambda: 5) == (gradients, loss)
    assert alone.all_reduce_sum([1.0, 2.0]) == [1.0, 2.0]
    assert [alone.should_stop(requested) for requested in (True, False)] == [True, False]


def test_a_single_process_leaves_weights_and_random_states_as_they_are() -> None:
    module, rng = nn.Linear(2, 2), np.random.RandomState(0)
    weights, state = module.weight.clone(), rng.get_state()[1].copy()
    SingleProcess().synchronize(module)
    SingleProcess().synchronize_random_state(rng)
    assert torch.equal(module.weight, weights)
    assert np.array_equal(rng.get_state()[1], state)


def test_workers_are_those_of_the_innermost_context() -> None:
    assert current_workers() == SingleProcess()
    second = SingleProcess(1, 3)
    with using(second) as given:
        assert current_workers() is given is second
    assert current_workers() == SingleProcess()
