"""Noise put on a row's inputs while training, whose clean cells the network then has to give back.

Denoising makes the code hold what cells tell about each other (Vincent, Larochelle, Lajoie, Bengio
and Manzagol, 2010, "Stacked Denoising Autoencoders", section 3.3). Each kind is a value: a frozen
dataclass that is called with a batch and a generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from twofold.errors import OptionError


class Corruption(Protocol):
    """Something that spoils inputs: (batch, width) -> (batch, width), which may hold NaN."""

    def __call__(self, x: Tensor, column: Tensor, generator: torch.Generator) -> Tensor:
        """Return spoilt inputs; `column[i]` is the column that input i belongs to."""

    def wanted(self, given: Tensor, x: Tensor) -> Tensor:
        """Return what the network has to give back, NaN where the loss does not count."""


@dataclass(frozen=True)
class Masking:
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

    def __call__(self, x: Tensor, column: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inputs, NaN where hidden: the network sees 0, as for missing cells."""
        share: Tensor | float = self.share
        if self.up_to:
            share = self.share * torch.rand(len(x), 1, generator=generator).to(x)
        return torch.where(_chosen(x, column, share, generator), torch.nan, x)

    def wanted(self, given: Tensor, x: Tensor) -> Tensor:
        """Return the clean inputs, or those that are hidden alone."""
        return torch.where(torch.isnan(given), x, torch.nan) if self.only_hidden else x


@dataclass(frozen=True)
class Swap:
    """Replace `share` of the cells by the same column's cell of another row of the batch."""

    share: float = 0.15

    def __post_init__(self) -> None:
        _require_share(self)

    def __call__(self, x: Tensor, column: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inputs with cells swapped."""
        other = x[torch.randperm(len(x), generator=generator).to(x.device)]
        return torch.where(_chosen(x, column, self.share, generator), other, x)

    def wanted(self, given: Tensor, x: Tensor) -> Tensor:
        """Return the clean inputs."""
        return x


@dataclass(frozen=True)
class Gaussian:
    """Add normal noise of standard deviation `scale` to every input.

    Inputs are in standard deviations for real columns, and in [0, 1] for pixels and categories.
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise OptionError(f"Gaussian(scale={self.scale!r}): scale must be above 0.")

    def __call__(self, x: Tensor, column: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inputs with noise on them."""
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        return x + self.scale * noise

    def wanted(self, given: Tensor, x: Tensor) -> Tensor:
        """Return the clean inputs."""
        return x


@dataclass(frozen=True)
class SaltAndPepper:
    """Set `share` of the cells to the lowest or the highest value of their input in the batch."""

    share: float = 0.1

    def __post_init__(self) -> None:
        _require_share(self)

    def __call__(self, x: Tensor, column: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inputs with extremes among them."""
        known = torch.nan_to_num(x, nan=0.0)
        high = torch.rand(x.shape, generator=generator).to(x.device) < 0.5
        extreme = torch.where(high, known.amax(0), known.amin(0))
        return torch.where(_chosen(x, column, self.share, generator), extreme, x)

    def wanted(self, given: Tensor, x: Tensor) -> Tensor:
        """Return the clean inputs."""
        return x


@dataclass(frozen=True)
class Binarize:
    """Draw each input in [0, 1] to be 0 or 1, anew in every epoch, with its value as probability.

    The draw is what the network is given and what it has to give back, so that densities of grey
    images are those of black and white ones (Salakhutdinov and Murray, 2008, "On the Quantitative
    Analysis of Deep Belief Networks", section 5).
    """

    def __call__(self, x: Tensor, column: Tensor, generator: torch.Generator) -> Tensor:
        """Return black and white inputs; holes stay holes."""
        chance = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        return torch.where(torch.isnan(x), x, (chance < x).to(x.dtype))

    def wanted(self, given: Tensor, x: Tensor) -> Tensor:
        """Return the draw."""
        return given


CORRUPTIONS: dict[str, Callable[..., Corruption]] = {
    "masking": Masking,
    "swap": Swap,
    "gaussian": Gaussian,
    "salt-and-pepper": SaltAndPepper,
    "binarize": Binarize,
}


def to_json(corruption: Corruption) -> dict[str, Any]:
    """Return a corruption as plain data."""
    name = next(name for name, kind in CORRUPTIONS.items() if type(corruption) is kind)
    return {"name": name, **asdict(corruption)}  # type: ignore[call-overload]


def from_json(document: Mapping[str, Any]) -> Corruption:
    """Read back what `to_json` gave; raises KeyError, TypeError or OptionError where it is none."""
    values = dict(document)
    return CORRUPTIONS[values.pop("name")](**values)


def resolve(option: Corruption | str | None) -> Corruption | None:
    """Return what the option `corruption` stands for: "masking:0.3" is `Masking(0.3)`."""
    if not isinstance(option, str):
        return option
    name, _, number = option.partition(":")
    return CORRUPTIONS[name](float(number)) if number else CORRUPTIONS[name]()


def require_meaning(corruption: Corruption | None, likelihoods: Sequence[str]) -> None:
    """Refuse a corruption that has no meaning for cells under these likelihoods.

    Raises
    ------
    OptionError
        With the reason, and what to choose.
    """
    if isinstance(corruption, Binarize) and set(likelihoods) != {"bernoulli"}:
        others = sorted(set(likelihoods) - {"bernoulli"})
        raise OptionError(
            f"corruption='binarize' draws pixels and flags, whose likelihood is 'bernoulli', and "
            f"this table has {', '.join(map(repr, others))} as well. Choose 'masking' or 'swap', "
            f"or likelihood='bernoulli' for values in [0, 1]."
        )


def _chosen(x: Tensor, column: Tensor, share: float | Tensor, generator: torch.Generator) -> Tensor:
    """Return which inputs are spoilt; those of one cell share its fate."""
    n_columns = int(column[-1]) + 1
    chance = torch.rand(len(x), n_columns, generator=generator).to(x.device)
    spoilt = chance < share
    return spoilt if n_columns == x.shape[1] else spoilt[:, column]


def _require_share(corruption: Any) -> None:
    name, share = type(corruption).__name__, corruption.share
    first = fields(corruption)[0].name
    if not (isinstance(share, int | float) and 0 < share < 1):
        raise OptionError(f"{name}({first}={share!r}): share must lie between 0 and 1.")
