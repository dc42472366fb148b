"""Dense stacks as C knows them, and networks that encode and decode in C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import pointer

import torch
from torch import Tensor, nn

from twofold.nn.activations import ACTIVATIONS
from twofold.nn.bottleneck import Penalties
from twofold.nn.layers import DensePair
from twofold.nn.native import library
from twofold.nn.native.library import Pair, Parameter, Stack
from twofold.nn.network import Network

_MOST_PAIRS = 64


def obstacle(network: Network) -> str:
    """Say what keeps C from computing with this network, nothing if nothing does."""
    found = library.find()
    if found.library is None:
        return found.reason
    pairs = network.pairs
    if type(network) is not Network or any(type(pair) is not DensePair for pair in pairs):
        return "not a dense stack"
    if len(pairs) > _MOST_PAIRS:
        return f"more than {_MOST_PAIRS} pairs"
    if not network.bottleneck.is_plain:
        return "a bottleneck"
    for activation in (network.activation, network.code_activation):
        if ACTIVATIONS[activation].kernel is None:
            return f"activation {activation}"
    for parameter in network.parameters():
        if parameter.device.type != "cpu":
            return f"device {parameter.device.type}"
        if parameter.dtype != torch.float32:
            return str(parameter.dtype).removeprefix("torch.")
        if not parameter.is_contiguous():
            return "parameters that are not contiguous"
    return ""


def stack_of(
    network: Network, isa: int, moments: Mapping[int, Sequence[Tensor]] | None = None
) -> Stack:
    """Return the stack as C knows it, with as many threads as PyTorch has now.

    `moments` are what an optimizer remembers of each parameter, by the parameter's `id`.
    """
    remembered = {} if moments is None else moments

    def parameter(tensor: Tensor | None) -> Parameter:
        if tensor is None:
            return Parameter()
        own = remembered.get(id(tensor), ())
        return Parameter(tensor.data_ptr(), *(moment.data_ptr() for moment in own))

    def pair_of(pair: nn.Module, up: str, down: str) -> Pair:
        assert isinstance(pair, DensePair)
        return Pair(
            pair.n_in,
            pair.n_out,
            _kernel(up),
            _kernel(down),
            parameter(pair.weight),
            parameter(pair.decoder_weight),
            parameter(pair.encoder_bias),
            parameter(pair.decoder_bias),
        )

    names = zip(network.encoder_activations, reversed(network.decoder_activations), strict=True)
    pairs = [pair_of(pair, *own) for pair, own in zip(network.pairs, names, strict=True)]
    stack = Stack(len(pairs), (Pair * len(pairs))(*pairs), None)
    stack.n_threads, stack.isa = torch.get_num_threads(), isa
    if network.shortcut is not None:
        stack.shortcut = pointer(pair_of(network.shortcut, "identity", "identity"))
        stack.encoder_gate = parameter(network.encoder_gate)
        stack.decoder_gate = parameter(network.decoder_gate)
    return stack


def _kernel(activation: str) -> int:
    number = ACTIVATIONS[activation].kernel
    assert number is not None
    return number


class AppliedNetwork(Network):
    """A dense stack whose encoder and decoder run in C, for rows without gradients.

    It shares its parameters with the network it is made of, which must stay as it is meanwhile. The
    result for a row depends neither on the other rows nor on the number of threads.

    Parameters
    ----------
    network : Network
        `obstacle` says which ones are taken.
    """

    def __init__(self, network: Network) -> None:
        self.__dict__.update(network.__dict__)
        found = library.find()
        assert found.library is not None
        self._library, self._stack = found.library, stack_of(network, found.isa)
        n_bytes = found.library.twofold_apply_bytes(self._stack)
        self._scratch = torch.empty(n_bytes, dtype=torch.uint8)

    def path(self, x: Tensor, seen: Tensor | None = None) -> list[Tensor]:
        """Return the rows and their codes; what lies between is not kept."""
        x = x.contiguous()
        code = x.new_empty(len(x), self.n_components)
        self._run(x, code, None)
        return [x, code]

    def encode(
        self, x: Tensor, generator: torch.Generator | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Penalties]:
        """Return the code, which has no penalties."""
        return self.path(x)[-1], {}

    def decode(self, code: Tensor) -> Tensor:
        """Return the likelihoods' parameters: (batch, n_components) -> (batch, width)."""
        theta = code.new_empty(len(code), self.width)
        self._run(None, code.contiguous(), theta)
        return theta

    def _run(self, x: Tensor | None, code: Tensor, theta: Tensor | None) -> None:
        self._library.twofold_apply(
            self._stack,
            len(code),
            None if x is None else x.data_ptr(),
            code.data_ptr(),
            None if theta is None else theta.data_ptr(),
            self._scratch.data_ptr(),
        )


def applied(network: Network) -> Network:
    """Return the network, ready to be applied in C where that can be, else as it is."""
    return network if obstacle(network) else AppliedNetwork(network)
