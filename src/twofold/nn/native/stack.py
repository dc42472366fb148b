"""Dense stacks as C knows them, and networks that encode and decode in C."""

from __future__ import annotations

import threading
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


class NetworkStack:
    """A network's stack as C knows it, made again where its parameters have moved.

    `moments` are parameters, each with what an optimizer remembers of it.
    """

    def __init__(
        self, network: Network, moments: Sequence[tuple[Tensor, Sequence[Tensor]]] = ()
    ) -> None:
        self._network, self._moments = network, moments
        # `network.parameters()` asks each module for its children, which takes longer than a step.
        self._parameters = [module._parameters for module in network.modules()]
        self._stack = Stack()
        self._places: list[int] = []

    def now(self, isa: int) -> Stack:
        """Return the stack, with as many threads as PyTorch has now."""
        found = (p for each in self._parameters for p in each.values() if p is not None)
        places = [p.data_ptr() for p in found]
        places += [moment.data_ptr() for _, own in self._moments for moment in own]
        if places != self._places:
            moments = {id(p): own for p, own in self._moments}
            self._stack, self._places = _stack_of(self._network, moments), places
        self._stack.n_threads, self._stack.isa = torch.get_num_threads(), isa
        return self._stack


def _stack_of(network: Network, moments: Mapping[int, Sequence[Tensor]]) -> Stack:
    def parameter(tensor: Tensor | None) -> Parameter:
        if tensor is None:
            return Parameter()
        own = moments.get(id(tensor), ())
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

    It shares its parameters with the network it is made of, and follows their updates. The result
    for a row depends neither on the other rows nor on the number of threads. Several threads may
    apply it at once.

    Parameters
    ----------
    network : Network
        `obstacle` says which ones are taken.
    """

    def __init__(self, network: Network) -> None:
        self.__dict__.update(network.__dict__)
        self._stack, self._own = NetworkStack(network), threading.local()

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

    def forward(
        self, x: Tensor, generator: torch.Generator | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Penalties]:
        """Return the likelihoods' parameters for the rows `x`, and no penalties."""
        x = x.contiguous()
        code, theta = x.new_empty(len(x), self.n_components), torch.empty_like(x)
        self._run(x, code, theta)
        return theta, {}

    def _run(self, x: Tensor | None, code: Tensor, theta: Tensor | None) -> None:
        found = library.find()
        assert found.library is not None
        stack = self._stack.now(found.isa)
        n_bytes = found.library.twofold_apply_bytes(stack)
        scratch = getattr(self._own, "scratch", None)
        if scratch is None or n_bytes > len(scratch):
            scratch = self._own.scratch = torch.empty(n_bytes, dtype=torch.uint8)
        found.library.twofold_apply(
            stack,
            len(code),
            None if x is None else x.data_ptr(),
            code.data_ptr(),
            None if theta is None else theta.data_ptr(),
            scratch.data_ptr(),
        )


def applied(network: Network) -> Network:
    """Return the network, ready to be applied in C where that can be, else as it is."""
    return network if obstacle(network) else AppliedNetwork(network)
