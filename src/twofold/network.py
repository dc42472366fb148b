"""The whole network, top to bottom: pairs, and the stack that they make.

A *pair* is one level of the stack. It owns one weight matrix and uses it both ways: `encode`
multiplies by the transposed matrix, `decode` by the matrix itself. Nothing is aliased and nothing
is registered twice, so copying, casting, saving and loading cannot untie it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.bottleneck import Penalties, Plain
from twofold.errors import OptionError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}


class DensePair(nn.Module):
    """One dense level: `encode` maps `n_in` to `n_out`, `decode` maps back.

    Parameters
    ----------
    n_in, n_out : int
        Width below and above the pair.
    tied : bool
        `decode` uses the encoder's matrix; otherwise it has one of its own.
    generator : torch.Generator, optional
        Source of the initial weights: uniform within `sqrt(6 / (n_in + n_out))` (Glorot and
        Bengio, 2010, eq. 16); biases start at zero.
    """

    def __init__(
        self, n_in: int, n_out: int, tied: bool = True, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.weight = nn.Parameter(_glorot(n_out, n_in, generator))
        self.encoder_bias = nn.Parameter(torch.zeros(n_out))
        self.decoder_bias = nn.Parameter(torch.zeros(n_in))
        self.decoder_weight = None if tied else nn.Parameter(_glorot(n_out, n_in, generator))

    def encode(self, x: Tensor) -> Tensor:
        """Return `x W^T + encoder_bias`: (batch, n_in) -> (batch, n_out)."""
        return F.linear(x, self.weight, self.encoder_bias)

    def decode(self, h: Tensor) -> Tensor:
        """Return `h W + decoder_bias`: (batch, n_out) -> (batch, n_in)."""
        matrix = self.weight if self.decoder_weight is None else self.decoder_weight
        # addmm and not linear(h, W.t()): exporters then keep one copy of a tied matrix.
        return torch.addmm(self.decoder_bias, h, matrix)


def _glorot(n_out: int, n_in: int, generator: torch.Generator | None) -> Tensor:
    bound = math.sqrt(6 / (n_in + n_out))
    return torch.empty(n_out, n_in).uniform_(-bound, bound, generator=generator)


@dataclass(frozen=True)
class Layer:
    """One row of `summary()`: a layer, its size, and whose matrix it uses."""

    name: str
    activation: str
    width: int
    n_parameters: int
    matrix: str


class Network(nn.Module):
    """A symmetric stack: the encoder up through the pairs, the decoder down through the same ones.

    Parameters
    ----------
    width : int
        Number of inputs, and of outputs.
    hidden_layers : sequence of int
        Widths of the encoder's hidden layers; the decoder mirrors them.
    n_components : int
        Size of the code.
    tied : bool
        Each pair uses one matrix both ways.
    activation, code_activation : str
        Names in `ACTIVATIONS`, for the hidden layers and for the code. The output layer has none:
        it holds the parameters of each column's likelihood.
    generator : torch.Generator, optional
        Source of the initial weights.

    Examples
    --------
    >>> from twofold.network import Network
    >>> Network(784, (392,), 196, tied=True).n_parameters
    385924
    >>> Network(784, (392,), 196, tied=False).n_parameters
    770084
    """

    def __init__(
        self,
        width: int,
        hidden_layers: Sequence[int],
        n_components: int,
        *,
        tied: bool = True,
        activation: str = "selu",
        code_activation: str = "identity",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.width, self.n_components, self.tied = width, n_components, tied
        self.activation, self.code_activation = activation, code_activation
        sizes = (width, *hidden_layers, n_components)
        self.levels = nn.ModuleList(
            DensePair(n_in, n_out, tied, generator) for n_in, n_out in itertools.pairwise(sizes)
        )
        self.bottleneck = Plain(n_components)

    def encode(self, x: Tensor) -> tuple[Tensor, Penalties]:
        """Return the code and its penalties: (batch, width) -> (batch, n_components)."""
        for pair, activation in zip(self.pairs, self.encoder_activations, strict=True):
            x = ACTIVATIONS[activation](pair.encode(x))
        code, penalties = self.bottleneck(x)
        return code, penalties

    def decode(self, code: Tensor) -> Tensor:
        """Return the likelihoods' parameters: (batch, n_components) -> (batch, width)."""
        h = code
        for pair, activation in zip(reversed(self.pairs), self.decoder_activations, strict=True):
            h = ACTIVATIONS[activation](pair.decode(h))
        return h

    def forward(self, x: Tensor) -> tuple[Tensor, Penalties]:
        """Return the likelihoods' parameters for the rows `x`, and the code's penalties."""
        code, penalties = self.encode(x)
        return self.decode(code), penalties

    @property
    def pairs(self) -> list[DensePair]:
        """The pairs, from the input to the code."""
        return cast("list[DensePair]", list(self.levels))

    @property
    def encoder_activations(self) -> tuple[str, ...]:
        """Activation after each `encode`, in order; the last one makes the code."""
        return (self.activation,) * (len(self.pairs) - 1) + (self.code_activation,)

    @property
    def decoder_activations(self) -> tuple[str, ...]:
        """Activation after each `decode`, in order; the last one gives likelihood parameters."""
        return (self.activation,) * (len(self.pairs) - 1) + ("identity",)

    @property
    def n_parameters(self) -> int:
        """Number of trained numbers; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def layers(self, link: str = "identity") -> list[Layer]:
        """List every layer from the input to the output, whose activation is called `link`."""
        n = len(self.pairs)
        rows = [Layer("input", "", self.width, 0, "")]
        for level, (pair, activation) in enumerate(
            zip(self.pairs, self.encoder_activations, strict=True), start=1
        ):
            count = pair.weight.numel() + pair.encoder_bias.numel()
            name = "code" if level == n else f"encoder {level}"
            rows.append(Layer(name, activation, pair.n_out, count, f"W{level}"))
        for step, (pair, activation) in enumerate(
            zip(reversed(self.pairs), self.decoder_activations, strict=True), start=1
        ):
            level = n + 1 - step
            own = 0 if pair.decoder_weight is None else pair.decoder_weight.numel()
            matrix = f"W{level} transposed (shared)" if self.tied else f"V{level}"
            name = "output" if step == n else f"decoder {step}"
            activation = link if step == n else activation
            count = own + pair.decoder_bias.numel()
            rows.append(Layer(name, activation, pair.n_in, count, matrix))
        return rows

    def summary(self, link: str = "identity") -> str:
        """Return the layer table as text, with widths and parameter counts.

        `link` names the activation that the likelihood puts on the output layer.
        """
        titles = ("layer", "activation", "output", "parameters", "matrix")
        cells = [
            (
                layer.name,
                layer.activation or "-",
                f"{layer.width:,}",
                f"{layer.n_parameters:,}",
                layer.matrix or "-",
            )
            for layer in self.layers(link)
        ]
        widths = [max(len(row[i]) for row in [titles, *cells]) for i in range(5)]
        right = (False, False, True, True, False)

        def line(row: Sequence[str]) -> str:
            parts = [
                text.rjust(width) if to_right else text.ljust(width)
                for text, width, to_right in zip(row, widths, right, strict=True)
            ]
            return "  ".join(parts).rstrip()

        rule = "-" * (sum(widths) + 2 * 4)
        kind = "tied" if self.tied else "untied"
        total = f"{self.n_parameters:,} parameters, {kind} weights"
        return "\n".join([line(titles), rule, *map(line, cells), rule, total])


def default_n_components(width: int) -> int:
    """Return the code size used where none is given: a quarter of the inputs, rounded up."""
    return math.ceil(width / 4)


def halving(width: int, n_components: int) -> tuple[int, ...]:
    """Return hidden widths that halve from the input until the code.

    Examples
    --------
    >>> halving(784, 196)
    (392,)
    >>> halving(784, 30)
    (392, 196, 98, 49)
    """
    widths = []
    while (width := math.ceil(width / 2)) > max(n_components, 1):
        widths.append(width)
    return tuple(widths)


def stack_shape(
    width: int,
    hidden_layers: str | Sequence[int],
    n_components: int | None,
    denoising: bool = False,
) -> tuple[tuple[int, ...], int]:
    """Work out the hidden widths and the code size for a table that is `width` inputs wide.

    A code may be wider than the input where the network has noise to remove (`denoising`).

    Raises
    ------
    OptionError
        Where the code would be wider than the input: it would have nothing to learn but a copy.
    """
    size = default_n_components(width) if n_components is None else int(n_components)
    if size > width and not denoising:
        raise OptionError(
            f"n_components={size} is more than the {width} inputs, so the code could simply copy "
            f"them. Choose n_components of at most {width}, or set corruption, which leaves "
            f"something to learn."
        )
    if isinstance(hidden_layers, str):
        return halving(width, size), size
    return tuple(int(layer) for layer in hidden_layers), size
