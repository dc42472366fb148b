"""Networks applied in C: PyTorch's numbers, whatever the stack, other rows and threads are."""

from __future__ import annotations

import pytest
import torch

from twofold.nn.activations import ACTIVATIONS
from twofold.nn.native.stack import AppliedNetwork, applied, obstacle
from twofold.nn.network import Network
from twofold.registry import BOTTLENECKS

COVERED = [name for name, activation in ACTIVATIONS.items() if activation.kernel is not None]
SHAPES = [(1, (), 1), (7, (5,), 3), (33, (40, 17), 9), (100, (129,), 64)]


def made(width: int, hidden: tuple[int, ...], n: int, **options: object) -> Network:
    """Make a network with gates that are not at their start, and with biases."""
    generator = torch.Generator().manual_seed(1)
    network = Network(width, hidden, n, generator=generator, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


def rows(n: int, width: int) -> torch.Tensor:
    """Make rows."""
    return torch.randn(n, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shortcut", [True, False])
@torch.inference_mode()
def test_codes_and_outputs_are_those_of_pytorch(
    shape: tuple[int, tuple[int, ...], int], tied: bool, shortcut: bool
) -> None:
    network = made(*shape, tied=tied, shortcut=shortcut)
    exact = made(*shape, tied=tied, shortcut=shortcut).double()
    quick = applied(network)
    assert type(quick) is AppliedNetwork
    for n in (0, 1, 15, 16, 17, 150):
        x = rows(n, shape[0])
        code = quick.encode(x)[0]
        wanted = exact.encode(x.double())[0]
        torch.testing.assert_close(code.double(), wanted, rtol=1e-4, atol=1e-4)
        theta = exact.decode(code.double())
        torch.testing.assert_close(quick.decode(code).double(), theta, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", COVERED)
@torch.inference_mode()
def test_every_activation(activation: str) -> None:
    network = made(9, (12, 6), 4, activation=activation, code_activation=activation)
    x = rows(40, 9)
    found = applied(network)
    torch.testing.assert_close(found.encode(x)[0], network.encode(x)[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.forward(x)[0], network.forward(x)[0], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_row_has_the_same_bits_alone_among_others_and_with_threads() -> None:
    network, x = made(33, (40, 17), 9, shortcut=True), rows(1000, 33)
    x[:300, 4:29] = 0.0  # most inputs are blank in rows that are alone, fewer among others
    x[::9, 11] = 1.0
    quick = applied(network)
    code, theta = quick.encode(x)[0], quick.forward(x)[0]
    for at in (slice(0, 1), slice(3, 50), slice(999, 1000), slice(0, 1000, 7)):
        assert torch.equal(quick.encode(x[at])[0], code[at])
        assert torch.equal(quick.forward(x[at])[0], theta[at])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(16)
        assert torch.equal(applied(network).forward(x)[0], theta)
    finally:
        torch.set_num_threads(before)


def test_what_is_not_covered_is_applied_as_it_is(
    monkeypatch: pytest.MonkeyPatch, own_activation: str
) -> None:
    for network in (
        made(8, (6,), 3, activation=own_activation),
        made(8, (6,), 3).double(),
        made(8, (6,), 3, bottleneck=BOTTLENECKS["sparse"]()),
    ):
        assert obstacle(network)
        assert applied(network) is network
    covered = made(8, (6,), 3)
    assert not obstacle(covered)
    monkeypatch.setenv("TWOFOLD_NATIVE", "off")
    assert applied(covered) is covered
