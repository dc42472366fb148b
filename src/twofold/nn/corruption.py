"""Noise put on a row's inputs while training, whose clean cells the network then has to give back.

Denoising makes the code hold what cells tell about each other (Vincent, Larochelle, Lajoie, Bengio
and Manzagol, 2010, "Stacked Denoising Autoencoders", section 3.3). Each kind is a value: a frozen
dataclass that is called with a batch and a generator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold import registry
from twofold.errors import OptionError
from twofold.nn.likelihoods import LIKELIHOODS
from twofold.registry import Registry


class Cells(Protocol):
    """What inputs are of: an `objective.Objective` knows.

    Attributes
    ----------
    column : Tensor
        Which column each input belongs to, `(width,)`.
    center, unit : Tensor
        An input times its unit, plus its centre, is its cell, `(width,)` each.
    row_shape : tuple of int
        Shape of one row: `(width,)`, or `(height, width)` or `(height, width, channels)`.
    """

    column: Tensor
    center: Tensor
    unit: Tensor
    row_shape: tuple[int, ...]


class Corruption(ABC):
    """Something that corrupts inputs: (batch, width) -> (batch, width), which may hold NaN."""

    @abstractmethod
    def __call__(self, x: Tensor, cells: Cells, generator: torch.Generator) -> Tensor:
        """Return corrupted inputs, of these cells."""

    def target(self, corrupted: Tensor, x: Tensor) -> Tensor:
        """Return what the network has to give back, NaN where the loss does not count."""
        return x

    def check(self, likelihoods: Sequence[str], cells: Cells, is_image: bool) -> None:
        """Raise OptionError if it cannot be used with these cells; by default it can."""
        return

    def for_codes(self, spread: float) -> Corruption | None:
        """Return what is done to codes, which vary by `spread`, if cells are corrupted so."""
        return self

    @property
    def noise(self) -> float:
        """Standard deviation of what it adds to inputs, beyond their range too."""
        return 0.0

    @property
    def hides(self) -> bool:
        """Whether the loss counts hidden cells alone."""
        return False


@dataclass(frozen=True)
class Masking(Corruption):
    """Hide cells: `share` of them at random, each for itself.

    With `up_to=True`, each row hides a share of its own, drawn evenly between 0 and `share`. With
    `only_hidden=True`, the loss counts the hidden cells alone, so that nothing is gained by copying
    (the emphasis on corrupted cells of Vincent et al., with alpha = 1 and beta = 0).
    """

    share: float = 0.25
    up_to: bool = False
    only_hidden: bool = False

    def __post_init__(self) -> None:
        _require_share(self)

    def __call__(self, x: Tensor, cells: Cells, generator: torch.Generator) -> Tensor:
        """Return the inputs, NaN where hidden: the network sees 0, as for missing cells."""
        share: Tensor | float = self.share
        if self.up_to:
            share = self.share * torch.rand(len(x), 1, generator=generator).to(x)
        return torch.where(_chosen(x, cells.column, share, generator), torch.nan, x)

    def target(self, corrupted: Tensor, x: Tensor) -> Tensor:
        """Return the clean inputs, or those that are hidden alone."""
        return torch.where(torch.isnan(corrupted), x, torch.nan) if self.only_hidden else x

    @property
    def hides(self) -> bool:
        """Whether the loss counts hidden cells alone."""
        return self.only_hidden


@dataclass(frozen=True)
class Swap(Corruption):
    """Replace `share` of the cells by the same column's cell of another row of the batch."""

    share: float = 0.15

    def __post_init__(self) -> None:
        _require_share(self)

    def __call__(self, x: Tensor, cells: Cells, generator: torch.Generator) -> Tensor:
        """Return the inputs with cells swapped."""
        other = x[torch.randperm(len(x), generator=generator).to(x.device)]
        return torch.where(_chosen(x, cells.column, self.share, generator), other, x)


@dataclass(frozen=True)
class Gaussian(Corruption):
    """Add normal noise of standard deviation `scale` to every input.

    Inputs are in standard deviations for real columns, and in [0, 1] for pixels and categories.
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise OptionError(f"Expected scale to be above 0, got Gaussian(scale={self.scale!r}).")

    def __call__(self, x: Tensor, cells: Cells, generator: torch.Generator) -> Tensor:
        """Return the inputs with noise on them."""
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        return x + self.scale * noise

    def for_codes(self, spread: float) -> Corruption:
        """Return noise in the unit of codes: its own is that of inputs, which vary by one."""
        return Gaussian(max(self.scale * spread, 1e-6))

    @property
    def noise(self) -> float:
        """Its scale."""
        return self.scale


@dataclass(frozen=True)
class SaltAndPepper(Corruption):
    """Set `share` of the cells to the lowest or the highest value of their input in the batch."""

    share: float = 0.1

    def __post_init__(self) -> None:
        _require_share(self)

    def __call__(self, x: Tensor, cells: Cells, generator: torch.Generator) -> Tensor:
        """Return the inputs with extremes among them."""
        known = torch.nan_to_num(x, nan=0.0)
        high = torch.rand(x.shape, generator=generator).to(x.device) < 0.5
        extreme = torch.where(high, known.amax(0), known.amin(0))
        return torch.where(_chosen(x, cells.column, self.share, generator), extreme, x)


@dataclass(frozen=True)
class Binarize(Corruption):
    """Draw each input in [0, 1] to be 0 or 1, again in every epoch, with its value as probability.

    The draw is what the network is given and what it has to give back, so that densities of grey
    images are those of black and white ones (Salakhutdinov and Murray, 2008, "On the Quantitative
    Analysis of Deep Belief Networks", section 5).
    """

    def __call__(self, x: Tensor, cells: Cells, generator: torch.Generator) -> Tensor:
        """Return black and white inputs; missing ones stay missing."""
        uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        return torch.where(torch.isnan(x), x, (uniform < x).to(x.dtype))

    def target(self, corrupted: Tensor, x: Tensor) -> Tensor:
        """Return the draw."""
        return corrupted

    def check(self, likelihoods: Sequence[str], cells: Cells, is_image: bool) -> None:
        """Raise OptionError if cells are not values between 0 and 1."""
        others = sorted({name for name in likelihoods if LIKELIHOODS[name].cells != "shares"})
        if others:
            raise OptionError(
                f"corruption='binarize' draws pixels and flags. Expected the likelihood "
                f"'bernoulli' alone, got {', '.join(map(repr, others))} as well. Choose 'masking' "
                f"or 'swap', or likelihood='bernoulli' for values in [0, 1]."
            )

    def for_codes(self, spread: float) -> None:
        """Return None: codes are not grey values."""


@dataclass(frozen=True)
class Warp(Corruption):
    """Turn, stretch, move and bend images, each in a way of its own; upright ones come back.

    What a code holds is then what survives: which thing an image shows rather than where and how
    it stands, so that simple classifiers and near neighbours find more in codes. Reconstructions
    lose that detail in return. The ways are those of Simard, Steinkraus and Platt, 2003, "Best
    Practices for Convolutional Neural Networks Applied to Visual Document Analysis", section 2: an
    affine map, and a smooth field of displacements.

    Parameters
    ----------
    amount : float
        With 1, the entries of the affine map have a standard deviation of 0.12 about the identity,
        its shift one of 3.5 % of the image's sides, and so has, with 3 %, the field, which is
        drawn on a lattice of 6 x 6 points and is smooth between them.
    """

    amount: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.amount < math.inf:
            raise OptionError(f"Expected amount to be above 0, got Warp(amount={self.amount!r}).")

    def __call__(self, x: Tensor, cells: Cells, generator: torch.Generator) -> Tensor:
        """Return warped images; what lies beyond an edge is like the edge."""
        n, (height, across) = len(x), cells.row_shape[:2]

        def normal(*shape: int) -> Tensor:
            return self.amount * torch.randn(n, *shape, generator=generator).to(x)

        # Places run from -1 to 1 along each side.
        linear = torch.eye(2).to(x) + _LINEAR * normal(2, 2)
        affine = torch.cat([linear, 2 * _SHIFT * normal(2, 1)], 2)
        places = F.affine_grid(affine, [n, 1, height, across], align_corners=False)
        lattice = 2 * _BEND * normal(2, _LATTICE, _LATTICE)
        field = F.interpolate(lattice, (height, across), mode="bicubic", align_corners=True)
        places = places + field.permute(0, 2, 3, 1)
        # Cells, and not inputs: columns that are standardised each for itself have no neighbours.
        images = (x * cells.unit + cells.center).view(n, height, across, -1).permute(0, 3, 1, 2)
        warped = F.grid_sample(images, places, padding_mode="border", align_corners=False)
        return (warped.permute(0, 2, 3, 1).reshape(x.shape) - cells.center) / cells.unit

    def check(self, likelihoods: Sequence[str], cells: Cells, is_image: bool) -> None:
        """Raise OptionError if rows are not images of one number per pixel."""
        shape, width = cells.row_shape, len(cells.column)
        if not is_image:
            raise OptionError(
                f"corruption='warp' bends images. Expected an array (n, height, width) or "
                f"(n, height, width, channels), got rows of shape {shape}. Pass such an array, or "
                f"choose 'masking' or 'gaussian'."
            )
        if width != math.prod(shape):
            raise OptionError(
                f"corruption='warp' reads one number per pixel. Expected {math.prod(shape):,} "
                f"inputs for these images, got {width:,}. Leave out likelihood='histogram' and "
                f"categories, and give pixels that are always missing a value."
            )

    def for_codes(self, spread: float) -> None:
        """Return None: codes are not images."""


CORRUPTIONS: Registry[Callable[..., Corruption]] = registry.CORRUPTIONS
for _name, _kind in {
    "masking": Masking,
    "swap": Swap,
    "gaussian": Gaussian,
    "salt-and-pepper": SaltAndPepper,
    "binarize": Binarize,
    "warp": Warp,
}.items():
    CORRUPTIONS.add(_name, _kind)
_LINEAR, _SHIFT, _BEND, _LATTICE = 0.12, 0.035, 0.03, 6  # of `Warp(1)`


def to_json(corruption: Corruption) -> dict[str, Any]:
    """Return a corruption as plain data."""
    name = next(name for name, kind in CORRUPTIONS.items() if type(corruption) is kind)
    return {"name": name, **asdict(corruption)}  # type: ignore[call-overload]


def from_json(document: Mapping[str, Any]) -> Corruption:
    """Read back what `to_json` gave; raise KeyError, TypeError or OptionError if it is not that."""
    values = dict(document)
    return CORRUPTIONS[values.pop("name")](**values)


def resolve(option: Corruption | str | None) -> Corruption | None:
    """Return what the option `corruption` stands for: "masking:0.3" is `Masking(0.3)`."""
    if not isinstance(option, str):
        return option
    name, _, number = option.partition(":")
    return CORRUPTIONS[name](float(number)) if number else CORRUPTIONS[name]()


def _chosen(x: Tensor, column: Tensor, share: float | Tensor, generator: torch.Generator) -> Tensor:
    """Return which inputs are corrupted; those of one cell share its fate."""
    n_columns = int(column[-1]) + 1
    uniform = torch.rand(len(x), n_columns, generator=generator).to(x.device)
    corrupted = uniform < share
    return corrupted if n_columns == x.shape[1] else corrupted[:, column]


def _require_share(corruption: Any) -> None:
    name, share = type(corruption).__name__, corruption.share
    first = fields(corruption)[0].name
    if not (isinstance(share, int | float) and 0 < share < 1):
        raise OptionError(f"Expected a share between 0 and 1, got {name}({first}={share!r}).")
