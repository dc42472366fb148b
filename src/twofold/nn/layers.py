"""The layers of a stack: what one is, as a value, and the pair that works it both ways.

A *pair* is one level of the stack. It owns one tensor of weights and uses it both ways: `decode` is
the transposed of `encode`. Nothing is aliased and nothing is registered twice, so copying, casting,
saving and loading cannot untie it.

Rows stay flat between pairs, `(batch, n_in)` and `(batch, n_out)`. An image, and a map of features,
is flattened as `(height, width, channels)`, a sequence as `(steps, channels)`: `shape_in` and
`shape_out` say how. All pairs have `encode(x, seen=None)`, `decode(h)` and `weight`, and where they
are untied, `decoder_weight`. `seen` tells which inputs are there (None: all of them), for layers
that ask, and `seen_above(seen)` which of the outputs then are.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.errors import OptionError

Product = tuple[int, int, int]


@dataclass(frozen=True)
class Conv:
    """A layer of filters that slide over an image, the same at every place.

    The decoder slides the same filters back, transposed (Masci, Meier, Ciresan and Schmidhuber,
    2011, "Stacked Convolutional Auto-Encoders for Hierarchical Feature Extraction", section 3), so
    that it gives images of the very size that came in.

    Parameters
    ----------
    channels : int
        Number of filters.
    size : int
        Height and width of a filter, in pixels.
    stride : int, default=1
        Pixels from one place of a filter to the next; 2 halves height and width.
    padding : int or None, default=None
        Pixels of zeros put around the image. None is `(size - 1) // 2`: then a stride of 1 keeps
        height and width where `size` is an odd number.

    Examples
    --------
    >>> from twofold import Autoencoder, Conv
    >>> ae = Autoencoder(hidden_layers=(Conv(16, 3, stride=2), Conv(8, 3, stride=2)))
    """

    channels: int
    size: int
    stride: int = 1
    padding: int | None = None

    def __post_init__(self) -> None:
        for name in ("channels", "size", "stride"):
            _require_whole(self, name, 1)
        if self.padding is not None:
            _require_whole(self, "padding", 0)
        if self.zeros >= self.size:
            raise OptionError(
                f"Expected padding below size, so that filters see more than zeros, got {self!r}. "
                f"Choose a smaller padding."
            )

    @property
    def zeros(self) -> int:
        """Pixels of zeros put around the image."""
        return (self.size - 1) // 2 if self.padding is None else self.padding

    def __str__(self) -> str:
        parts = [self.channels, self.size]
        if self.stride != 1 or self.padding is not None:
            parts.append(self.stride)
        if self.padding is not None:
            parts.append(self.padding)
        return ":".join(map(str, ["conv", *parts]))


@dataclass(frozen=True)
class Recurrent:
    """A layer that reads a sequence step by step, and keeps a state.

    The last state goes up the stack; where the next layer is recurrent too, all states do. The
    decoder has a cell of its own, which starts from the state, is given it again at every step
    (Cho et al., 2014, "Learning Phrase Representations using RNN Encoder-Decoder", section 2.2) and
    writes the steps in their order. `RecurrentPair` says what is tied.

    Parameters
    ----------
    units : int
        Size of the state.
    cell : "gru", "lstm" or "rnn", default="gru"
        Gated recurrent units (Cho et al., 2014), long short-term memory (Hochreiter and
        Schmidhuber, 1997, with the forget gate of Gers et al., 2000) or the plain cell, the tanh of
        a sum.

    Examples
    --------
    >>> from twofold import Autoencoder, Recurrent
    >>> ae = Autoencoder(hidden_layers=(Recurrent(64),), n_components=8)
    """

    units: int
    cell: str = "gru"

    def __post_init__(self) -> None:
        _require_whole(self, "units", 1)
        if self.cell not in CELLS:
            raise OptionError(
                f"Expected the cell 'gru', 'lstm' or 'rnn', got {self.cell!r}. Choose one."
            )

    def __str__(self) -> str:
        return f"recurrent:{self.units}:{self.cell}"


Spec = int | Conv | Recurrent
SPECS: dict[str, Callable[..., Conv | Recurrent]] = {"conv": Conv, "recurrent": Recurrent}


def resolve(layer: Spec | str) -> Spec:
    """Return what one entry of the option `hidden_layers` stands for; a number is a dense layer.

    Examples
    --------
    >>> resolve("conv:16:3:2")
    Conv(channels=16, size=3, stride=2, padding=None)
    >>> resolve("recurrent:64:lstm"), resolve(32)
    (Recurrent(units=64, cell='lstm'), 32)
    """
    if isinstance(layer, Conv | Recurrent):
        return layer
    if not isinstance(layer, str):
        return int(layer)
    name, *rest = layer.split(":")
    try:
        if name == "recurrent":
            return Recurrent(int(rest[0]), *rest[1:])
        return SPECS[name](*map(int, rest))
    except (LookupError, TypeError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(
            f"{layer!r} is not a layer. Write a width, 'conv:CHANNELS:SIZE:STRIDE:PADDING' (stride "
            f"and padding may be left out) or 'recurrent:UNITS:CELL'."
        ) from error


def to_json(layer: Spec | str) -> Any:
    """Return a layer as plain data."""
    if isinstance(layer, Conv | Recurrent):
        name = next(name for name, kind in SPECS.items() if type(layer) is kind)
        return {"name": name, **asdict(layer)}
    return layer if isinstance(layer, str) else int(layer)


def from_json(document: Mapping[str, Any] | int | str) -> Spec | str:
    """Read back what `to_json` gave; raise KeyError, TypeError or OptionError if it is not that."""
    if isinstance(document, Mapping):
        values = dict(document)
        return SPECS[values.pop("name")](**values)
    if type(document) not in (int, str):
        raise TypeError(f"{document!r} is not a layer")
    return document


def reads_sequences(layers: str | Sequence[Spec | str]) -> bool:
    """Whether rows are sequences to the first of these layers."""
    return not isinstance(layers, str) and any(
        isinstance(resolve(layer), Recurrent) for layer in layers
    )


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

    is_recurrent = False

    def __init__(
        self, n_in: int, n_out: int, tied: bool = True, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.shape_in: tuple[int, ...] = (n_in,)
        self.weight = nn.Parameter(_glorot((n_out, n_in), n_in, n_out, generator))
        self.encoder_bias = nn.Parameter(torch.zeros(n_out))
        self.decoder_bias = nn.Parameter(torch.zeros(n_in))
        self.decoder_weight = (
            None if tied else nn.Parameter(_glorot((n_out, n_in), n_in, n_out, generator))
        )

    def encode(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return `x W^T + encoder_bias`: (batch, n_in) -> (batch, n_out)."""
        return F.linear(x, self.weight, self.encoder_bias)

    def decode(self, h: Tensor) -> Tensor:
        """Return `h W + decoder_bias`: (batch, n_out) -> (batch, n_in)."""
        matrix = self.weight if self.decoder_weight is None else self.decoder_weight
        # addmm and not linear(h, W.t()): exporters then keep one copy of a tied matrix.
        return torch.addmm(self.decoder_bias, h, matrix)

    def seen_above(self, seen: Tensor | None) -> None:
        """Say that all outputs are there."""

    def cut(self, n_out: int) -> None:
        """Keep the first outputs alone."""
        self.n_out = n_out
        for name in ("weight", "encoder_bias", "decoder_weight"):
            whole = getattr(self, name)
            if whole is not None:
                setattr(self, name, nn.Parameter(whole.data[:n_out].clone()))

    @property
    def shape_out(self) -> tuple[int, ...]:
        """The output's shape."""
        return (self.n_out,)

    @property
    def encoder_parameters(self) -> list[Tensor]:
        """What `encode` uses."""
        return [self.weight, self.encoder_bias]

    def product(self, n_rows: int) -> Product:
        """Return the matrix product of `encode` as (rows, inner, columns)."""
        return n_rows, self.n_in, self.n_out


class ConvPair(nn.Module):
    """One level of filters: `encode` slides them over images, `decode` slides them back.

    `encode` is the convolution `conv2d` and `decode` its transposed, `conv_transpose2d`, with the
    same `weight`. Several sizes of images become the same size where the stride is above 1, so how
    many rows and columns the way back has to add is worked out here.

    Parameters
    ----------
    shape : (int, int, int)
        Height, width and channels of the images.
    layer : Conv
        The filters.
    tied : bool
        `decode` uses the encoder's filters; otherwise it has filters of its own.
    generator : torch.Generator, optional
        Source of the initial weights: uniform within `sqrt(6 / (fan_in + fan_out))` (Glorot and
        Bengio, 2010, eq. 16), of the connections of one output and of one input; biases start at
        zero.

    Raises
    ------
    OptionError
        If the filters are larger than the images.
    """

    is_recurrent = False

    def __init__(
        self,
        shape: Sequence[int],
        layer: Conv,
        tied: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        height, width, below = shape
        above, size = layer.channels, layer.size
        reach = [length + 2 * layer.zeros - size for length in (height, width)]
        if min(reach) < 0:
            raise OptionError(
                f"{layer!r} has filters of {size} x {size} pixels, and what comes to it is only "
                f"{height} x {width} pixels. Choose a smaller size or stride, or fewer layers."
            )
        self.stride, self.padding = layer.stride, layer.zeros
        # So many rows and columns at the end are under no filter, and come back all the same.
        self.left_over = tuple(length % layer.stride for length in reach)
        self.shape_in = tuple(shape)
        self.shape_out = (*(n // layer.stride + 1 for n in reach), above)
        self.n_in, self.n_out = math.prod(self.shape_in), math.prod(self.shape_out)
        filters = (above, below, size, size)
        fans = below * size**2, above * size**2 / layer.stride**2
        self.weight = nn.Parameter(_glorot(filters, *fans, generator))
        self.encoder_bias = nn.Parameter(torch.zeros(above))
        self.decoder_bias = nn.Parameter(torch.zeros(below))
        self.decoder_weight = None if tied else nn.Parameter(_glorot(filters, *fans, generator))

    def encode(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the images' features: (batch, h * w * c) -> (batch, n_out)."""
        images = x.unflatten(1, self.shape_in).permute(0, 3, 1, 2)
        maps = F.conv2d(images, self.weight, self.encoder_bias, self.stride, self.padding)
        return maps.permute(0, 2, 3, 1).flatten(1)

    def decode(self, h: Tensor) -> Tensor:
        """Return the images that features stand for: (batch, n_out) -> (batch, h * w * c)."""
        filters = self.weight if self.decoder_weight is None else self.decoder_weight
        maps = h.unflatten(1, self.shape_out).permute(0, 3, 1, 2)
        images = F.conv_transpose2d(
            maps, filters, self.decoder_bias, self.stride, self.padding, self.left_over
        )
        return images.permute(0, 2, 3, 1).flatten(1)

    def seen_above(self, seen: Tensor | None) -> None:
        """Say that all outputs are there."""

    @property
    def encoder_parameters(self) -> list[Tensor]:
        """What `encode` uses."""
        return [self.weight, self.encoder_bias]

    def product(self, n_rows: int) -> Product:
        """Return the matrix product that `encode` amounts to as (rows, inner, columns)."""
        height, width, above = self.shape_out
        return n_rows * height * width, self.weight[0].numel(), above


@dataclass(frozen=True)
class _Cell:
    """How many gates a cell has, and which of them is tied: what the input offers to the state."""

    n_gates: int
    tied: int


CELLS = {"gru": _Cell(3, 2), "lstm": _Cell(4, 2), "rnn": _Cell(1, 0)}  # gates as PyTorch has them
_FORGET = 1  # among the gates of "lstm"


class RecurrentPair(nn.Module):
    """One recurrent level: `encode` reads a sequence into a state, `decode` writes one from it.

    A cell makes of a step x and its state h an offer, which its gates mix with h: for "gru" and
    "lstm" the offer is `tanh(W x + ...)`, and for "rnn", which has no gates, it is the new state
    itself. **Tied means W, `weight`**: the decoder reads each step out of its own states g by
    `W^T g + decoder_bias`. All other matrices, those of the gates and those from state to state,
    belong to the encoder or to the decoder alone.

    A sequence ends with the last step that is there: what is missing after it does not move the
    encoder's state, so that sequences of different lengths may be filled up with missing steps.
    Missing steps before it are steps like any other, for time goes on in them, too, and are read as
    what they are filled with: were they passed over, a slow wave with missing steps would look like
    a fast one.

    Parameters
    ----------
    shape : (int, int)
        Steps, and channels of each.
    layer : Recurrent
        The cell and its size.
    whole : bool
        `encode` gives the states after all steps, and not the last one alone; `decode` then reads
        such a sequence.
    tied : bool
        The read-out uses the encoder's matrix; otherwise it has one of its own.
    generator : torch.Generator, optional
        Source of the initial weights: uniform within Glorot's bound, those from state to state
        orthogonal (Saxe, McClelland and Ganguli, 2014). Biases start at zero, those of forget gates
        at one (Jozefowicz, Zaremba and Sutskever, 2015).
    """

    is_recurrent = True

    def __init__(
        self,
        shape: Sequence[int],
        layer: Recurrent,
        whole: bool = False,
        tied: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.steps, channels = shape
        n, cell = layer.units, CELLS[layer.cell]
        self.cell, self.units, self.whole = layer.cell, n, whole
        self.shape_in = tuple(shape)
        self.shape_out: tuple[int, ...] = (self.steps, n) if whole else (n,)
        self.n_in, self.n_out = math.prod(self.shape_in), math.prod(self.shape_out)

        def matrix(n_gates: int, n_below: int) -> nn.Parameter:
            gates = [_glorot((n, n_below), n_below, n, generator) for _ in range(n_gates)]
            return nn.Parameter(torch.cat(gates))

        def recurrent() -> nn.Parameter:
            return nn.Parameter(torch.cat([_orthogonal(n, generator) for _ in range(cell.n_gates)]))

        def bias() -> nn.Parameter:
            zeros = torch.zeros(cell.n_gates * n)
            if layer.cell == "lstm":
                zeros[_FORGET * n : (_FORGET + 1) * n] = 1
            return nn.Parameter(zeros)

        self.weight = matrix(1, channels)
        self.encoder_gates = matrix(cell.n_gates - 1, channels) if cell.n_gates > 1 else None
        self.encoder_recurrent, self.encoder_bias = recurrent(), bias()
        self.decoder_input = matrix(cell.n_gates, n)
        self.decoder_recurrent, self.decoder_cell_bias = recurrent(), bias()
        self.decoder_bias = nn.Parameter(torch.zeros(channels))
        self.decoder_weight = None if tied else matrix(1, channels)

    def encode(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the last state, or all: (batch, steps * channels) -> (batch, n_out).

        States after the end of a sequence are zero, and so is that of a row without any step.
        """
        states = self._read(x.unflatten(1, self.shape_in))
        if seen is None:
            return states.flatten(1) if self.whole else states[:, -1]
        within = self._within(seen)
        states = torch.where(within.unsqueeze(2), states, 0.0)
        if self.whole:
            return states.flatten(1)
        last = (within.sum(1) - 1).clamp_min(0)[:, None, None].expand(-1, 1, self.units)
        return states.gather(1, last).squeeze(1)

    def decode(self, h: Tensor) -> Tensor:
        """Return the sequences that states stand for: (batch, n_out) -> (batch, n_in)."""
        if self.whole:
            given = h.unflatten(1, self.shape_out)
            start = torch.zeros_like(given[:, 0])
        else:
            given, start = h.unsqueeze(1).expand(-1, self.steps, -1), h
        states = self._unroll(
            given, start, self.decoder_input, self.decoder_recurrent, self.decoder_cell_bias
        )
        matrix = self.weight if self.decoder_weight is None else self.decoder_weight
        steps = torch.addmm(self.decoder_bias, states.flatten(0, 1), matrix)
        return steps.reshape(h.shape[0], self.n_in)

    def seen_above(self, seen: Tensor | None) -> Tensor | None:
        """Return which outputs are there: those until the end of the sequence."""
        if seen is None or not self.whole:
            return None
        return self._within(seen).repeat_interleave(self.units, dim=1)

    def _within(self, seen: Tensor) -> Tensor:
        """Return which steps come before the end: (batch, steps * channels) -> (batch, steps)."""
        there = seen.unflatten(1, self.shape_in).any(2)
        within: Tensor = there.flip(1).cumsum(1).flip(1) > 0  # it or a later one is there
        return within

    def _read(self, steps: Tensor) -> Tensor:
        """Return the encoder's states: (batch, steps, channels) -> (batch, steps, units)."""
        parts: list[Tensor] = [self.weight]
        if self.encoder_gates is not None:
            before = CELLS[self.cell].tied * self.units
            parts = [self.encoder_gates[:before], self.weight, self.encoder_gates[before:]]
        start = steps.new_zeros(steps.shape[0], self.units)
        matrix = torch.cat(parts)
        return self._unroll(steps, start, matrix, self.encoder_recurrent, self.encoder_bias)

    def _unroll(
        self, steps: Tensor, start: Tensor, matrix: Tensor, recurrent: Tensor, bias: Tensor
    ) -> Tensor:
        """Return the states after each step: (batch, steps, n) -> (batch, steps, units)."""
        parameters = [matrix, recurrent, bias, torch.zeros_like(bias)]  # PyTorch has two biases
        how = True, 1, 0.0, True, False, True  # biases, one layer, batch first
        h = start.unsqueeze(0)
        states: Tensor
        with _no_advice() if steps.is_cuda else nullcontext():
            if self.cell == "lstm":
                states = torch.lstm(steps, (h, h), parameters, *how)[0]
            else:
                function = torch.gru if self.cell == "gru" else torch.rnn_tanh
                states = function(steps, h, parameters, *how)[0]
        return states

    @property
    def encoder_parameters(self) -> list[Tensor]:
        """What `encode` uses."""
        own = [self.encoder_recurrent, self.encoder_bias]
        return [self.weight, *([] if self.encoder_gates is None else [self.encoder_gates]), *own]


Pair = DensePair | ConvPair | RecurrentPair


def stack(
    shape: Sequence[int],
    width: int,
    layers: Sequence[Spec],
    n_components: int,
    tied: bool,
    generator: torch.Generator | None = None,
) -> list[Pair]:
    """Make the pairs of a stack, from the rows to the code.

    Parameters
    ----------
    shape : sequence of int
        Shape of one row: `(width,)`, `(height, width)` or `(height, width, channels)` of images,
        `(steps, channels)` of sequences.
    width : int
        Number of inputs that a row has.
    layers : sequence of int, Conv or Recurrent
        The hidden layers of the encoder; a dense one makes the code.

    Raises
    ------
    OptionError
        If a layer cannot read what comes to it; the message says why.
    """
    pairs: list[Pair] = []
    n_in = width
    for i, layer in enumerate([*layers, n_components]):
        below = layers[i - 1] if i else None
        if isinstance(layer, Conv):
            image = pairs[-1].shape_out if isinstance(below, Conv) else None
            if image is None:
                image = _image(shape, width, layer, below)
            pairs.append(ConvPair(image, layer, tied, generator))
        elif isinstance(layer, Recurrent):
            sequence = pairs[-1].shape_out if isinstance(below, Recurrent) else None
            if sequence is None:
                sequence = _sequence(shape, width, layer, below)
            whole = isinstance((*layers, n_components)[i + 1], Recurrent)
            pairs.append(RecurrentPair(sequence, layer, whole, tied, generator))
        else:
            pairs.append(DensePair(n_in, int(layer), tied, generator))
        n_in = pairs[-1].n_out
    return pairs


def _image(
    shape: Sequence[int], width: int, layer: Conv, below: Spec | None
) -> tuple[int, int, int]:
    """Return height, width and channels of the rows, or say why `layer` cannot read them."""
    if below is not None:
        what = "a dense layer leaves" if isinstance(below, int) else f"{below!r} leaves"
        raise OptionError(
            f"{layer!r} slides over images, and {what} none. Put convolutional layers first in "
            f"hidden_layers."
        )
    if len(shape) not in (2, 3):
        rows = "flat rows" if len(shape) == 1 else "rows"
        raise OptionError(
            f"{layer!r} slides over images, and was given {rows} of shape {_text(shape)}. Pass an "
            f"array (n, height, width) or (n, height, width, channels): "
            f"X.reshape(-1, height, width)."
        )
    if width != math.prod(shape):
        raise OptionError(
            f"{layer!r} reads one number per pixel, and these images of {math.prod(shape):,} cells "
            f"are {width:,} inputs. Leave out likelihood='histogram' and categories, and give "
            f"pixels that are always missing a value."
        )
    height, across = shape[:2]
    return height, across, shape[2] if len(shape) == 3 else 1


def _sequence(
    shape: Sequence[int], width: int, layer: Recurrent, below: Spec | None
) -> tuple[int, int]:
    """Return steps and channels of the rows, or say why `layer` cannot read them."""
    if below is not None:
        what = "a dense layer leaves" if isinstance(below, int) else f"{below!r} leaves"
        raise OptionError(
            f"{layer!r} reads sequences, and {what} none. Put recurrent layers first in "
            f"hidden_layers."
        )
    if len(shape) != 2 or width % shape[0]:
        raise OptionError(
            f"{layer!r} reads sequences, and was given rows of shape {_text(shape)}. Pass an array "
            f"(n, steps, channels); X[:, :, None] makes one of a table with a column per step."
        )
    return shape[0], width // shape[0]


def _text(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


@contextmanager
def _no_advice() -> Iterator[None]:
    """Keep PyTorch from advising to lay a cell's matrices side by side, as its own modules do.

    They would be one tensor under several names then.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part", UserWarning)
        yield


def _glorot(
    shape: tuple[int, ...], fan_in: float, fan_out: float, generator: torch.Generator | None
) -> Tensor:
    bound = math.sqrt(6 / (fan_in + fan_out))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _orthogonal(n: int, generator: torch.Generator | None) -> Tensor:
    q, r = torch.linalg.qr(torch.empty(n, n).normal_(generator=generator))
    # Signs as the diagonal has them make every rotation as likely (Mezzadri, 2007, section 5).
    turned: Tensor = q * r.diagonal().sign()
    return turned


def _require_whole(layer: Conv | Recurrent, name: str, least: int) -> None:
    """Make a field a plain integer, or raise OptionError."""
    value = getattr(layer, name)
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < least:
        given = ", ".join(f"{f.name}={getattr(layer, f.name)!r}" for f in fields(layer))
        raise OptionError(
            f"Expected {name} to be an integer of at least {least}, got "
            f"{type(layer).__name__}({given})."
        )
    object.__setattr__(layer, name, number)  # JSON cannot hold a number of numpy's
