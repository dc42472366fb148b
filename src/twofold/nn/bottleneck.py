"""What sits in the middle of the stack: it takes the encoder's output and hands on the code.

A bottleneck is a value, a frozen dataclass that derives from `BottleneckSpec`, and makes the module
of a network, which derives from `Bottleneck` and answers every question about its codes: how rows
score, what is drawn, which components are dead. `BOTTLENECKS` holds the values' classes by name,
and `register_bottleneck` adds another one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, Self, TypeGuard

import torch
from torch import Tensor, nn

from twofold import registry
from twofold.errors import OptionError
from twofold.nn.code_density import CodeDensity
from twofold.registry import Registry

Penalties = dict[str, Tensor]
_REVIVAL_SIZE = 0.2  # of the mean weights of living components


class BottleneckSpec(ABC):
    """What is done to the code, as a value: a frozen dataclass whose fields JSON can hold.

    Attributes
    ----------
    is_ordered : bool
        If the first components alone are a code, so that the last ones can be cut off.
    takes_shortcut : bool
        If codes may be those of a linear pair next to the stack, which starts as PCA.
    """

    is_ordered: ClassVar[bool] = False
    takes_shortcut: ClassVar[bool] = False

    @abstractmethod
    def module(self, n_components: int, n_below: int) -> Bottleneck:
        """Make the module for a code of this size above a layer of `n_below` outputs."""

    @classmethod
    def parse(cls, *details: str) -> Self:
        """Make the value from what follows its name in text: "sparse:topk:32" gives two details.

        Raises
        ------
        ValueError
            If these are not details of it.
        """
        if details:
            raise ValueError(details)
        return cls()

    def check(self, activation: str, code_activation: str) -> None:
        """Raise OptionError if it cannot work with these activations; by default it can."""
        return

    def for_share(self, n_components: float) -> BottleneckSpec:
        """Return what makes the ordered code that is cut off at a share of the variance.

        Raises
        ------
        OptionError
            If its codes have no order.
        """
        raise OptionError(
            f"n_components={n_components!r} cuts an ordered code off. Expected "
            f"bottleneck='ordered', got {self!r}, which has no order. Give the number of "
            f"components."
        )


@dataclass(frozen=True)
class Plain(BottleneckSpec):
    """Hand the code on as it is."""

    takes_shortcut: ClassVar[bool] = True

    def module(self, n_components: int, n_below: int) -> PlainCode:
        """Make the module for a code of this size above a layer of `n_below` outputs."""
        return PlainCode(n_components)

    def for_share(self, n_components: float) -> BottleneckSpec:
        """Return an ordered bottleneck."""
        return BOTTLENECKS["ordered"]()


class RowScorer(Protocol):
    """What scores rows, given the decoder's output: `theta` and `x` are `(batch, width)`."""

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return log-densities in nats, `(batch, n)`, whose sum is that of a row's cells."""

    def row_log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return each row's log-density in nats, `(batch,)`."""


Decode = Callable[[Tensor], Tensor]


class Bottleneck(nn.Module, ABC):
    """The module that makes the code; `path` holds the row and the layers' outputs, in order.

    Its last entry is what becomes the code. A subclass has to say what `forward` does.

    Parameters
    ----------
    n_components : int
        Size of the code.
    density : CodeDensity, optional
        What is fitted to the codes of training rows, to draw new ones from; without it, `sample`
        draws from a standard normal density.

    Attributes
    ----------
    is_plain : bool
        If the code is handed on as it is, at no cost: the fused and native training steps then
        apply.
    is_ordered : bool
        If the first components alone are a code.
    has_posterior : bool
        If codes are drawn from a density of each row's own. The score is then a lower bound, and
        the loss weighs a divergence against the noise of the cells, which is learned.
    can_die : bool
        If a component that is never active is dead, and can be revived.
    revival_size : float
        Size of a revived component's weights, as a share of the living ones'.
    """

    is_plain: bool = False
    is_ordered: bool = False
    has_posterior: bool = False
    can_die: bool = False
    revival_size: float = _REVIVAL_SIZE

    def __init__(self, n_components: int, density: CodeDensity | None = None) -> None:
        super().__init__()
        self.n_components, self.density = n_components, density

    @abstractmethod
    def forward(
        self, code: Tensor, path: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Penalties]:
        """Return the code that is handed on and its penalties by name, `(n_rows,)` in nats each.

        `path` here ends below the code. While training there is a `generator` to draw from, and
        there may be several codes of each row, below one another; without one, the same rows give
        the same codes.
        """

    def widen(self, code: Tensor) -> Tensor:
        """Return what the decoder starts from."""
        return code

    def code(self, path: Sequence[Tensor]) -> Tensor:
        """Return the rows' codes without randomness: (batch, n_components)."""
        code: Tensor = self(path[-1], path[:-1])[0]
        return code

    def log_density(
        self, code: Tensor, path: Sequence[Tensor], decode: Decode, scorer: RowScorer, x: Tensor
    ) -> Tensor:
        """Return the log-density of the rows `x` in nats, `(batch,)`, from their `code` and path.

        While PyTorch traces it for an export, it must not look at values.
        """
        return scorer.row_log_prob(decode(code), x)

    def draws(
        self, path: Sequence[Tensor], n: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw each row's code n times, with the log-ratio of its prior and posterior density.

        Without a posterior every draw is the code itself.
        """
        code = self.code(path)
        for _ in range(n):
            yield code, code.new_zeros(len(code))

    def divergence(self, path: Sequence[Tensor]) -> Tensor | None:
        """Return each component's divergence from the prior, `(batch, n_components)` in nats."""
        return None

    def sample(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Draw new codes: (n_rows, n_components)."""
        if self.density is not None:
            return self.density.sample(n_rows, generator)
        return torch.randn(n_rows, self.n_components, generator=generator)

    def dead(self, codes: Tensor) -> Tensor:
        """Return which components are never active in these codes: (n_components,)."""
        return torch.zeros(self.n_components, dtype=torch.bool, device=codes.device)

    def cut(self, n_components: int) -> None:
        """Keep the first components alone."""
        self.n_components = n_components
        if self.density is not None:
            self.density = CodeDensity(n_components).to(self.density.mean)

    def rescale(self, factor: Tensor) -> None:
        """Let the decoder start from codes times `factor`, `(n_components,)`."""
        raise self._lacks("rescale")

    def set_posterior(self, variance: Tensor) -> None:
        """Let all rows' posteriors have this variance, `(n_components,)`."""
        raise self._lacks("set_posterior")

    def _lacks(self, method: str) -> OptionError:
        return OptionError(
            f"Expected {type(self).__name__} to have the method {method}, got a bottleneck without "
            f"it. Define it, or leave pretraining='pca' out."
        )

    def of_hidden(self) -> BottleneckSpec:
        """Return what is done to a hidden layer's output where that is trained as a code."""
        return Plain()

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """The sizes of code that are taught; None if there is no choice of them."""
        return None


class PlainCode(Bottleneck):
    """Hands the code on as it is."""

    is_plain = True

    def __init__(self, n_components: int) -> None:
        super().__init__(n_components, CodeDensity(n_components))

    def forward(
        self, code: Tensor, path: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Penalties]:
        """Return the code and no penalty."""
        return code, {}


BOTTLENECKS: Registry[type[BottleneckSpec]] = registry.BOTTLENECKS


def register_bottleneck(name: str, spec: type[BottleneckSpec]) -> None:
    """Add a bottleneck, which the option `bottleneck` then knows by name and takes as a value.

    A model that uses it can be loaded wherever it has been registered.

    Raises
    ------
    OptionError
        If the name is taken, or cannot be an option's value.
    """
    BOTTLENECKS.add(name, spec)


register_bottleneck("plain", Plain)


def to_json(spec: BottleneckSpec) -> dict[str, Any]:
    """Return a bottleneck's value as plain data."""
    name = next(name for name, kind in BOTTLENECKS.items() if type(spec) is kind)
    return {"name": name, **asdict(spec)}  # type: ignore[call-overload]


def from_json(document: Mapping[str, Any]) -> BottleneckSpec:
    """Read back what `to_json` gave.

    Raises
    ------
    OptionError
        If the bottleneck is not registered here, or has other fields' values.
    TypeError
        If it has other fields.
    """
    values = dict(document)
    name = values.pop("name")
    if name not in BOTTLENECKS:
        raise OptionError(
            f"Expected a bottleneck out of {', '.join(BOTTLENECKS)}, got {name!r}. Import the "
            f"module that registers it first."
        )
    return BOTTLENECKS[name](**values)


def resolve(option: BottleneckSpec | str, n_components: float | None = None) -> BottleneckSpec:
    """Return what the option `bottleneck` stands for: "sparse:topk:32" is `Sparse("topk", k=32)`.

    A share as `n_components` needs an ordered code, which can be cut off.

    Raises
    ------
    OptionError
        If the text cannot be read, or the code has no order that a share needs.

    Examples
    --------
    >>> resolve("variational:4")
    Variational(beta=4.0, n_samples=1)
    """
    spec = _parsed(option) if isinstance(option, str) else option
    return spec.for_share(n_components) if is_share(n_components) else spec


def _parsed(option: str) -> BottleneckSpec:
    name, *details = option.split(":")
    try:
        return BOTTLENECKS[name].parse(*details)
    except OptionError:
        raise
    except (KeyError, ValueError) as error:
        raise OptionError(
            f"Expected bottleneck to be one of {', '.join(map(repr, BOTTLENECKS))}, or one of "
            f"these with details, got {option!r}. Write 'sparse:l1:0.1', 'sparse:kl:0.1', "
            f"'sparse:topk:32', 'variational:1' or 'ordered'."
        ) from error


def is_share(n_components: float | None) -> TypeGuard[float]:
    """Tell whether this is a share of the variance, and not a number of components."""
    return n_components is not None and 0 < n_components < 1
