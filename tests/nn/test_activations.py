"""Activations, their derivatives and where they are straight; those of a user's own."""

from __future__ import annotations

import pytest
import torch

from twofold.errors import OptionError
from twofold.nn.activations import ACTIVATIONS, Activation, register_activation

X = torch.linspace(-6, 6, 240, dtype=torch.float64)  # without 0, where some have a corner


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_derivative_in_place_is_autograds(name: str) -> None:
    activation = ACTIVATIONS[name]
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(activation(x).sum(), x)
    assert activation.in_place is not None
    a, delta = X.clone(), torch.ones_like(X)
    output = torch.empty_like(a) if activation.in_place.keeps_input else a
    activation.in_place.forward(a, output)
    torch.testing.assert_close(output, activation(X))
    activation.in_place.backward(delta, a)
    torch.testing.assert_close(delta, expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_straight_where_it_says(name: str) -> None:
    activation = ACTIVATIONS[name]
    straight = activation.straight
    assert straight is not None
    start = 0.0 if straight.begin is None else max(straight.begin, -6.0)
    reach = 0.2 if straight.begin is None else 3.0
    x = start + torch.linspace(0, reach, 50, dtype=torch.float64)
    slope = (activation(x[1:]) - activation(x[:-1])) / (x[1:] - x[:-1])
    torch.testing.assert_close(slope, torch.full_like(slope, straight.slope), rtol=0.1, atol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_shares_lie_between_0_and_1(name: str) -> None:
    y = ACTIVATIONS[name](X)
    assert ACTIVATIONS[name].is_share == bool(((y >= 0) & (y <= 1)).all())


def test_no_two_activations_have_one_kernel() -> None:
    kernels = [one.kernel for one in ACTIVATIONS.values() if one.kernel is not None]
    assert len(set(kernels)) == len(kernels)


@pytest.mark.parametrize("name", ["relu", "Relu", "auto"])
def test_a_name_that_is_taken_or_no_word_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"Choose another"):
        register_activation(name, Activation(torch.relu))
