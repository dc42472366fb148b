"""One matrix, used both ways: what tying promises, and the shapes and counts of the stack."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor

from twofold.errors import OptionError
from twofold.nn.activations import ACTIVATIONS
from twofold.nn.network import DensePair, Network, halving, stack_shape


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64) - 0.5


def network(tied: bool = True, **options: Any) -> Network:
    """A small stack whose biases are not zero, so that nothing hides behind them."""
    net = Network(6, (5, 4), 3, tied=tied, generator=generator(), **options).double()
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            if parameter.ndim == 1:
                parameter.copy_(uniform(len(parameter), seed=i))
    return net


def without_biases(module: Any) -> Any:
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data.zero_()
    return module


def test_the_tied_stack_of_mnist_has_385924_parameters() -> None:
    assert Network(784, (392,), 196, tied=True).n_parameters == 385_924


def test_the_untied_stack_of_mnist_has_770084_parameters() -> None:
    assert Network(784, (392,), 196, tied=False).n_parameters == 770_084


@pytest.mark.parametrize(("n_in", "n_out"), [(7, 3), (3, 7), (5, 5), (1, 1), (4, 1)])
def test_decode_is_the_adjoint_of_encode_in_a_tied_pair(n_in: int, n_out: int) -> None:
    pair = DensePair(n_in, n_out, tied=True, generator=generator()).double()
    x, h = uniform(9, n_in), uniform(9, n_out, seed=2)
    torch.testing.assert_close((pair.encode(x) * h).sum(), (x * pair.decode(h)).sum())


def test_decode_is_not_the_adjoint_in_an_untied_pair() -> None:
    pair = DensePair(7, 3, tied=False, generator=generator()).double()
    x, h = uniform(9, 7), uniform(9, 3, seed=2)
    assert not torch.isclose((pair.encode(x) * h).sum(), (x * pair.decode(h)).sum(), rtol=0.01)


def test_decode_is_the_adjoint_of_encode_through_a_tied_linear_stack() -> None:
    net = without_biases(network(activation="identity"))
    x, code = uniform(9, 6), uniform(9, 3, seed=2)
    torch.testing.assert_close((net.encode(x)[0] * code).sum(), (x * net.decode(code)).sum())


def test_encode_is_the_affine_map_of_the_weight_and_encoder_bias() -> None:
    pair = network().pairs[0]
    x = uniform(9, 6)
    torch.testing.assert_close(pair.encode(x), x @ pair.weight.T + pair.encoder_bias)


def test_decode_is_the_affine_map_of_the_same_weight_and_decoder_bias() -> None:
    pair = network().pairs[0]
    h = uniform(9, 5)
    torch.testing.assert_close(pair.decode(h), h @ pair.weight + pair.decoder_bias)


def test_the_gradient_of_a_tied_matrix_is_the_sum_of_both_uses() -> None:
    tied, untied = DensePair(6, 4), DensePair(6, 4, tied=False)
    untied.load_state_dict(tied.state_dict() | {"decoder_weight": tied.weight.detach().clone()})
    x = uniform(9, 6).float()
    for pair in (tied, untied):
        ((x - pair.decode(torch.tanh(pair.encode(x)))) ** 2).sum().backward()
    assert untied.decoder_weight is not None
    both = untied.weight.grad + untied.decoder_weight.grad  # type: ignore[operator]
    torch.testing.assert_close(tied.weight.grad, both)


def reborn(net: Network, how: str) -> Network:
    if how == "deepcopy":
        return copy.deepcopy(net)
    if how == "double":
        return copy.deepcopy(net).double()
    if how == "apply":
        return copy.deepcopy(net).to(torch.device("cpu"), torch.float64)
    if how == "state dict":
        fresh = Network(6, (5, 4), 3, activation=net.activation, generator=generator(9))
        fresh.load_state_dict(net.state_dict())
        return fresh
    if how == "assigned state dict":
        with torch.device("meta"):
            fresh = Network(6, (5, 4), 3, activation=net.activation)
        fresh.load_state_dict(net.state_dict(), assign=True)
        return fresh
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    loaded: Network = torch.load(buffer, weights_only=False)
    return loaded


WAYS = ["deepcopy", "double", "apply", "state dict", "assigned state dict", "pickle"]


@pytest.mark.parametrize("how", WAYS)
def test_decode_follows_the_encoders_matrix_after_a_copy(how: str) -> None:
    net = reborn(Network(6, (5, 4), 3, generator=generator()), how)
    code = uniform(2, 3).to(net.pairs[0].weight.dtype)
    before = net.decode(code)
    with torch.no_grad():
        net.pairs[1].weight += 1
    assert not torch.equal(net.decode(code), before)


@pytest.mark.parametrize("how", WAYS)
def test_a_copy_has_one_trained_tensor_per_matrix(how: str) -> None:
    net = reborn(Network(6, (5, 4), 3, generator=generator()), how)
    assert net.n_parameters == Network(6, (5, 4), 3).n_parameters == 89


@pytest.mark.parametrize("how", ["deepcopy", "assigned state dict", "pickle"])
def test_a_copy_shares_nothing_with_the_original(how: str) -> None:
    net = Network(6, (5, 4), 3, generator=generator())
    before = net.pairs[0].weight.detach().clone()
    other = reborn(net, how) if how != "assigned state dict" else reborn(copy.deepcopy(net), how)
    with torch.no_grad():
        other.pairs[0].weight += 1
    assert torch.equal(net.pairs[0].weight, before)


@pytest.mark.parametrize("how", WAYS)
def test_a_copy_still_decodes_with_the_encoders_matrix_after_training_on(how: str) -> None:
    net = reborn(Network(6, (5, 4), 3, activation="identity", generator=generator()), how)
    x = uniform(20, 6).to(net.pairs[0].weight.dtype)
    optimizer = torch.optim.SGD(net.parameters(), 0.001)
    for _ in range(3):
        optimizer.zero_grad()
        ((net(x)[0] - x) ** 2).sum().backward()
        optimizer.step()
    without_biases(net)
    code = uniform(20, 3, seed=2).to(x.dtype)
    torch.testing.assert_close((net.encode(x)[0] * code).sum(), (x * net.decode(code)).sum())


@pytest.mark.parametrize("tied", [True, False])
def test_the_state_dict_has_one_entry_per_matrix(tied: bool) -> None:
    state = network(tied).state_dict()
    matrices = [name for name in state if name.startswith("levels.") and "weight" in name]
    own = ["levels.0.weight", "levels.1.weight", "levels.2.weight"]
    second = [f"levels.{i}.decoder_weight" for i in range(3)]
    assert sorted(matrices) == sorted(own if tied else own + second)


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_start_uniform_within_glorots_bound(tied: bool) -> None:
    for pair in Network(300, (), 100, tied=tied, generator=generator()).pairs:
        for matrix in (pair.weight, pair.decoder_weight):
            if matrix is not None:
                bound = (6 / 400) ** 0.5
                assert matrix.abs().max() <= bound
                assert matrix.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_biases_start_at_zero() -> None:
    net = Network(6, (5,), 3, generator=generator())
    assert not any(p.any() for p in net.parameters() if p.ndim == 1)


def test_an_untied_pair_starts_with_two_different_matrices() -> None:
    pair = DensePair(6, 4, tied=False, generator=generator())
    assert pair.decoder_weight is not None
    assert not torch.equal(pair.weight, pair.decoder_weight)


def test_the_same_generator_gives_the_same_weights() -> None:
    first, second = (Network(6, (5,), 3, generator=generator(4)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_building_draws_from_the_generator_alone(untouched_random_state: None) -> None:
    Network(6, (5,), 3, tied=False, generator=generator())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_stack_is_its_formula(name: str) -> None:
    net, act = network(activation=name, code_activation="tanh"), ACTIVATIONS[name]
    a, b, c = net.pairs
    x = uniform(9, 6)
    h = act(act(x @ a.weight.T + a.encoder_bias) @ b.weight.T + b.encoder_bias)
    code = torch.tanh(h @ c.weight.T + c.encoder_bias)
    h = act(act(code @ c.weight + c.decoder_bias) @ b.weight + b.decoder_bias)
    torch.testing.assert_close(net(x)[0], h @ a.weight + a.decoder_bias)


def test_forward_is_decode_of_encode() -> None:
    net, x = network(), uniform(9, 6)
    torch.testing.assert_close(net(x)[0], net.decode(net.encode(x)[0]), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("width", "n_components", "widths"),
    [
        (784, 196, (392,)),
        (784, 30, (392, 196, 98, 49)),
        (784, 392, ()),
        (8, 8, ()),
        (9, 4, (5,)),
        (5, 1, (3, 2)),
        (2, 1, ()),
        (1, 1, ()),
    ],
)
def test_halving(width: int, n_components: int, widths: tuple[int, ...]) -> None:
    assert halving(width, n_components) == widths


@pytest.mark.parametrize(("width", "size"), [(784, 196), (30, 8), (5, 2), (1, 1)])
def test_the_code_is_a_quarter_of_the_inputs_rounded_up(width: int, size: int) -> None:
    assert stack_shape(width, "halving", None)[1] == size


def test_a_code_as_wide_as_the_input_is_allowed() -> None:
    assert stack_shape(8, "halving", 8) == ((), 8)


def test_a_code_wider_than_the_input_is_refused() -> None:
    with pytest.raises(OptionError, match="n_components=9 is more than the 8 inputs.* at most 8"):
        stack_shape(8, "halving", 9)


def test_given_widths_are_kept() -> None:
    assert stack_shape(8, [20, 3], 2) == ((20, 3), 2)


@pytest.mark.parametrize("tied", [True, False])
def test_the_layer_table_counts_every_parameter(tied: bool) -> None:
    net = network(tied)
    assert sum(layer.n_parameters for layer in net.layers()) == net.n_parameters


def test_the_layer_table_goes_from_input_to_output() -> None:
    layers = network().layers("sigmoid")
    assert [(layer.name, layer.width, layer.activation) for layer in layers] == [
        ("input", 6, ""),
        ("encoder 1", 5, "selu"),
        ("encoder 2", 4, "selu"),
        ("code", 3, "identity"),
        ("decoder 1", 4, "selu"),
        ("decoder 2", 5, "selu"),
        ("output", 6, "sigmoid"),
    ]


@pytest.mark.parametrize(
    ("tied", "matrices"),
    [
        (True, ["W1", "W2", "W3"] + [f"W{i} transposed (shared)" for i in (3, 2, 1)]),
        (False, ["W1", "W2", "W3", "V3", "V2", "V1"]),
    ],
)
def test_the_layer_table_says_whose_matrix_is_used(tied: bool, matrices: list[str]) -> None:
    assert [layer.matrix for layer in network(tied).layers()[1:]] == matrices


def test_the_summary_ends_with_the_total() -> None:
    text = Network(784, (392,), 196).summary()
    assert text.splitlines()[-1] == "385,924 parameters, tied weights"
