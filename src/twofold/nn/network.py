"""The whole network, top to bottom: the encoder up through the pairs, the decoder down again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from twofold.errors import OptionError
from twofold.formatting import table
from twofold.nn import layers
from twofold.nn.activations import ACTIVATIONS
from twofold.nn.bottleneck import Bottleneck, BottleneckSpec, Penalties, Plain
from twofold.nn.layers import DensePair, Pair, Product, RecurrentPair, Spec

_PASS_CELLS = 2**26
_LEAST_WIDE, _WIDEST, _WIDER = 128, 512, 4  # of `wide`; the last one times the inputs


@dataclass(frozen=True)
class Layer:
    """One row of `summary()`: a layer, its size and shape, and whose matrix it uses."""

    name: str
    activation: str
    width: int
    n_parameters: int
    matrix: str
    shape: tuple[int, ...] = ()


class Network(nn.Module):
    """A symmetric stack: the encoder up through the pairs, the decoder down through the same ones.

    Parameters
    ----------
    width : int
        Number of inputs, and of outputs.
    hidden_layers : sequence of int, Conv or Recurrent
        The encoder's hidden layers, dense ones by their width; the decoder mirrors them.
    n_components : int
        Size of the code.
    tied : bool
        Each pair uses one matrix both ways.
    activation, code_activation : str
        Names in `ACTIVATIONS`, for the hidden layers and for the code. The output layer has none:
        it holds the parameters of each column's likelihood.
    bottleneck : Plain, Sparse, Variational or Ordered, optional
        What is done to the code; by default nothing.
    row_shape : sequence of int, optional
        Shape of one row, for layers that see rows as images or as sequences; by default `(width,)`.
    shortcut : bool, default=False
        A linear pair from the rows to the code and back goes next to the stack, and is added to
        what the stack gives. Two trained numbers, which start at zero, say how much of the stack
        is added, so that the network starts as the linear pair alone.
    generator : torch.Generator, optional
        Source of the initial weights.

    Raises
    ------
    OptionError
        If a layer cannot read what comes to it.

    References
    ----------
    T. Kärkkäinen and J. Hänninen, 2023, "Additive autoencoder for dimension estimation" (a linear
    part next to a network).

    Examples
    --------
    >>> from twofold.nn.network import Network
    >>> Network(784, (392,), 196, tied=True).n_parameters
    385924
    >>> Network(784, (392,), 196, tied=False).n_parameters
    770084
    """

    def __init__(
        self,
        width: int,
        hidden_layers: Sequence[Spec],
        n_components: int,
        *,
        tied: bool = True,
        activation: str = "selu",
        code_activation: str = "identity",
        bottleneck: BottleneckSpec | None = None,
        row_shape: Sequence[int] | None = None,
        shortcut: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.width, self.n_components, self.tied = width, n_components, tied
        self.activation, self.code_activation = activation, code_activation
        self.hidden_layers = tuple(hidden_layers)
        pairs = layers.stack(
            row_shape or (width,), width, self.hidden_layers, n_components, tied, generator
        )
        self.levels = nn.ModuleList(pairs)
        self.shortcut: DensePair | None = None
        if shortcut:
            self.shortcut = DensePair(width, n_components, tied, generator)
            self.encoder_gate = nn.Parameter(torch.zeros(()))
            self.decoder_gate = nn.Parameter(torch.zeros(()))
        spec = bottleneck or Plain()
        self.bottleneck: Bottleneck = spec.module(n_components, pairs[-1].n_in)

    def encode(
        self, x: Tensor, generator: torch.Generator | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Penalties]:
        """Return the code and its penalties: (batch, width) -> (batch, n_components).

        With a `generator` it is the code of training, which some bottlenecks draw or cut at random.
        `seen` tells which inputs are there (None: all of them), for layers that ask.
        """
        *path, code = self.path(x, seen)
        code, penalties = self.bottleneck(code, path, generator)
        return code, penalties

    def path(self, x: Tensor, seen: Tensor | None = None) -> list[Tensor]:
        """Return the rows, the hidden layers' outputs and what becomes the code, in order."""
        path = [x]
        for pair, activation in zip(self.pairs, self.encoder_activations, strict=True):
            path.append(ACTIVATIONS[activation](pair.encode(path[-1], seen)))
            seen = pair.seen_above(seen)
        if self.shortcut is not None:
            path[-1] = self.shortcut.encode(x) + self.encoder_gate * path[-1]
        return path

    def seen(self, x: Tensor) -> Tensor | None:
        """Return which inputs are not NaN; None if no layer asks."""
        return ~torch.isnan(x) if self.is_recurrent else None

    def decode(self, code: Tensor) -> Tensor:
        """Return the likelihoods' parameters: (batch, n_components) -> (batch, width)."""
        h = code = self.bottleneck.widen(code)
        for pair, activation in zip(reversed(self.pairs), self.decoder_activations, strict=True):
            h = ACTIVATIONS[activation](pair.decode(h))
        if self.shortcut is not None:
            h = self.shortcut.decode(code) + self.decoder_gate * h
        return h

    def forward(
        self, x: Tensor, generator: torch.Generator | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Penalties]:
        """Return the likelihoods' parameters for the rows `x`, and the code's penalties."""
        code, penalties = self.encode(x, generator, seen)
        return self.decode(code), penalties

    def cut(self, n_components: int) -> None:
        """Keep the first components of the code alone."""
        last = self.pairs[-1]
        assert isinstance(last, DensePair)
        last.cut(n_components)
        if self.shortcut is not None:
            self.shortcut.cut(n_components)
        self.bottleneck.cut(n_components)
        self.n_components = n_components

    @property
    def pairs(self) -> list[Pair]:
        """The pairs, from the input to the code."""
        return cast("list[Pair]", list(self.levels))

    @property
    def is_dense(self) -> bool:
        """Whether all layers are dense."""
        return all(isinstance(pair, DensePair) for pair in self.pairs)

    @property
    def is_recurrent(self) -> bool:
        """Whether rows are read step by step, and missing steps are passed over."""
        return self.pairs[0].is_recurrent

    @property
    def widest(self) -> int:
        """The most numbers that one row becomes: inputs, or what a layer gives."""
        return max(self.width, *(pair.n_out for pair in self.pairs))

    @property
    def fan_in(self) -> int:
        """The most inputs that a unit of the stack adds up."""
        return max(max(pair.n_in, pair.n_out) for pair in self.pairs)

    @property
    def rows_per_pass(self) -> int:
        """So many rows at once keep what becomes of them near 256 MB, where nothing is learned."""
        return max(64, _PASS_CELLS // self.widest)

    def products(self, n_rows: int) -> list[Product]:
        """List the matrix products of one `encode`, as (rows, inner, columns).

        There are none worth sharing among threads where steps are read one by one.
        """
        shared = [pair for pair in self.pairs if not isinstance(pair, RecurrentPair)]
        shared += [] if self.shortcut is None else [self.shortcut]
        return [] if self.is_recurrent else [pair.product(n_rows) for pair in shared]

    def work(self, n_rows: int) -> float:
        """Return how many multiplications that are worth sharing one `encode` takes."""
        return float(sum(rows * inner * columns for rows, inner, columns in self.products(n_rows)))

    @property
    def encoder_activations(self) -> tuple[str, ...]:
        """Activation after each `encode`, in order; the last one makes the code."""
        hidden = self.pairs[:-1]
        # A cell has its own: its states come out of a tanh.
        own = ("identity" if pair.is_recurrent else self.activation for pair in hidden)
        return (*own, self.code_activation)

    @property
    def decoder_activations(self) -> tuple[str, ...]:
        """Activation after each `decode`, in order; the last one gives likelihood parameters."""
        hidden = reversed(self.pairs[:-1])
        # What a cell starts from is a state: as if it came out of a tanh.
        states = ("tanh" if pair.is_recurrent else self.activation for pair in hidden)
        return (*states, "identity")

    @property
    def n_parameters(self) -> int:
        """Number of trained numbers; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def layers(self, link: str = "identity") -> list[Layer]:
        """List every layer from the input to the output, whose activation is called `link`."""
        n, pairs = len(self.pairs), self.pairs
        rows = [Layer("input", "", self.width, 0, "", pairs[0].shape_in)]
        for level, (pair, activation) in enumerate(
            zip(pairs, self.encoder_activations, strict=True), start=1
        ):
            count = sum(parameter.numel() for parameter in pair.encoder_parameters)
            name = "code" if level == n else f"encoder {level}"
            activation = pair.cell if isinstance(pair, RecurrentPair) else activation
            rows.append(Layer(name, activation, pair.n_out, count, f"W{level}", pair.shape_out))
        for step, (pair, activation) in enumerate(
            zip(reversed(pairs), self.decoder_activations, strict=True), start=1
        ):
            level = n + 1 - step
            matrix = f"W{level} transposed (shared)" if self.tied else f"V{level}"
            name = "output" if step == n else f"decoder {step}"
            activation = link if step == n else activation
            if isinstance(pair, RecurrentPair):
                activation = f"{pair.cell}, {activation}"
            shared = sum(parameter.numel() for parameter in pair.encoder_parameters)
            count = sum(parameter.numel() for parameter in pair.parameters()) - shared
            shape = pairs[0].shape_in if step == n else pairs[level - 2].shape_out
            rows.append(Layer(name, activation, pair.n_in, count, matrix, shape))
        if self.shortcut is not None:
            rows.insert(n + 1, self._shortcut_layer(link, encodes=True))
            rows.append(self._shortcut_layer(link, encodes=False))
        return rows

    def _shortcut_layer(self, link: str, *, encodes: bool) -> Layer:
        """Return the row of `summary()` for one direction of the linear pair, and its gate."""
        pair = self.shortcut
        assert pair is not None
        shared = sum(parameter.numel() for parameter in pair.encoder_parameters)
        if encodes:
            name = "+ shortcut to code"
            return Layer(name, "identity", pair.n_out, shared + 1, "P", pair.shape_out)
        count = sum(parameter.numel() for parameter in pair.parameters()) - shared + 1
        matrix = "P transposed (shared)" if self.tied else "Q"
        return Layer("+ shortcut to output", link, pair.n_in, count, matrix, pair.shape_in)

    def summary(self, link: str = "identity") -> str:
        """Return the layer table as text, with shapes and parameter counts.

        `link` names the activation that the likelihood puts on the output layer.
        """
        titles = ("layer", "activation", "output", "parameters", "matrix")
        cells = [
            (
                layer.name,
                layer.activation or "-",
                " x ".join(f"{n:,}" for n in layer.shape),
                f"{layer.n_parameters:,}",
                layer.matrix or "-",
            )
            for layer in self.layers(link)
        ]
        text = table(titles, cells, right=(2, 3), width=0)
        rule = text.splitlines()[1]
        kind = "tied" if self.tied else "untied"
        return f"{text}\n{rule}\n{self.n_parameters:,} parameters, {kind} weights"


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


def resolve_activation(activation: str, is_table: bool) -> str:
    """Return what the option `activation` stands for: "auto" is relu for tables, else selu."""
    if activation != "auto":
        return activation
    return "relu" if is_table else "selu"


def wide(width: int) -> tuple[int, int]:
    """Return two hidden widths for a table: they unfold its rows before the code narrows them.

    Examples
    --------
    >>> wide(16), wide(50), wide(800)
    ((128, 64), (200, 100), (512, 256))
    """
    first = min(_WIDEST, max(_LEAST_WIDE, _WIDER * width))
    return first, first // 2


def takes_shortcut(
    option: bool | str,
    hidden_layers: Sequence[Spec],
    *,
    is_table: bool,
    code_activation: str,
    bottleneck: BottleneckSpec,
    pretraining: str | None,
) -> bool:
    """Work out whether a linear pair goes next to the stack; "auto" has it where it can be.

    Raises
    ------
    OptionError
        Where it is asked for and cannot be.
    """
    why = ""
    if not all(isinstance(layer, int) for layer in hidden_layers):
        why = "goes from all inputs to the code, and these hidden_layers see parts of a row"
    elif code_activation != "identity":
        why = f"gives codes without bounds, and code_activation={code_activation!r} bends them"
    elif not bottleneck.takes_shortcut:
        name = type(bottleneck).__name__
        why = f"starts with codes like PCA's, which bottleneck={name} would change"
    elif pretraining is not None:
        why = f"starts as PCA by itself, and pretraining={pretraining!r} starts the stack"
    if option == "auto":
        return is_table and not why and len(hidden_layers) > 0
    if option and why:
        raise OptionError(f"shortcut=True {why}. Leave one of them out.")
    return bool(option)


def stack_shape(
    width: int,
    hidden_layers: str | Sequence[Spec | str],
    n_components: int | None,
    denoising: bool = False,
    is_table: bool = False,
) -> tuple[tuple[Spec, ...], int]:
    """Work out the hidden layers and the code size for rows that are `width` inputs wide.

    `is_table` says that inputs are not pixels and not steps of a sequence. A code may be wider than
    the input if the network has noise to remove (`denoising`).

    Raises
    ------
    OptionError
        If the code would be wider than the input: it would have nothing to learn but a copy.
    """
    size = default_n_components(width) if n_components is None else int(n_components)
    if size > width and not denoising:
        raise OptionError(
            f"n_components={size} is more than the {width} inputs, so the code could simply copy "
            f"them. Choose n_components of at most {width}, or set corruption, which leaves "
            f"something to learn."
        )
    if isinstance(hidden_layers, str):
        is_wide = hidden_layers == "wide" or (hidden_layers == "auto" and is_table)
        return (wide(width) if is_wide else halving(width, size)), size
    return tuple(layers.resolve(layer) for layer in hidden_layers), size
