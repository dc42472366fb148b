"""The bottlenecks that change the code: sparse, variational and ordered ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.errors import OptionError
from twofold.nn.activations import ACTIVATIONS
from twofold.nn.bottleneck import (
    Bottleneck,
    BottleneckSpec,
    Decode,
    Penalties,
    Plain,
    RowScorer,
    register_bottleneck,
)
from twofold.nn.code_density import CodeDensity
from twofold.options import require_integer

_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE = -12.0, 6.0  # keeps exp within reach of 32-bit numbers
_FIRST_LOG_VARIANCE = -2.0  # training begins with codes that tell more than their noise hides
_N_CUTS = 3
_DEAD = 1e-3  # share of the most active component's activity below which one is dead
_BOUND_DRAWS = 16  # of each row's code, in the score
_DEFAULT_WEIGHTS = {"l1": 0.1, "kl": 3.0, "topk": 0.0}


@dataclass(frozen=True)
class Sparse(BottleneckSpec):
    """Let few components be active at a time, so that each stands for something of its own.

    Parameters
    ----------
    kind : "l1", "kl" or "topk"
        "l1" adds the absolute activities, times `weight`, to the loss. "kl" pulls each component's
        mean activity towards `target` (Ng, 2011, "Sparse autoencoder", section 3) and needs
        activities between 0 and 1: `code_activation="sigmoid"`. "topk" keeps the `k` activities of
        largest size in each row and sets the others to zero (Makhzani and Frey, 2014, "k-Sparse
        Autoencoders", algorithm 1).
    weight : float, optional
        Nats per row and unit of penalty; by default 0.1 for "l1" and 3 for "kl".
    target : float
        Share of the rows in which a component should be active, for "kl".
    k : int, optional
        Active components per row, for "topk"; by default a quarter of them, rounded up.
    hidden : bool
        The penalty of "l1" and "kl" holds for the hidden layers as well; "kl" then needs a sigmoid
        there too.
    """

    kind: str = "l1"
    weight: float | None = None
    target: float = 0.1
    k: int | None = None
    hidden: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _DEFAULT_WEIGHTS:
            raise OptionError(
                f"Expected Sparse('l1'), 'kl' or 'topk', got {self.kind!r}. Choose one."
            )
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise OptionError(f"Expected weight to be above 0, got Sparse(weight={self.weight!r}).")
        if not 0 < self.target < 1:
            raise OptionError(
                f"Expected target to be between 0 and 1, got Sparse(target={self.target!r})."
            )
        if self.k is not None:
            require_integer("k", self.k)
        if self.kind == "topk" and (self.hidden or self.weight is not None):
            raise OptionError(
                "Expected no penalty for Sparse('topk'), got one. Leave out weight and hidden."
            )
        if self.kind != "topk" and self.k is not None:
            raise OptionError(
                f"Expected k with 'topk' only, got {self.kind!r} and k={self.k}. Leave it out."
            )

    def module(self, n_components: int, n_below: int) -> SparseCode:
        """Make the module for a code of this size above a layer of `n_below` outputs."""
        if self.k is not None and self.k > n_components:
            raise OptionError(
                f"Expected k of at most n_components={n_components}, got Sparse(k={self.k}). "
                f"Choose a smaller k or more components."
            )
        return SparseCode(self, n_components)

    @classmethod
    def parse(cls, *details: str) -> Self:
        """Read "l1:WEIGHT", "kl:TARGET" or "topk:K", or the first word alone."""
        match details:
            case ():
                return cls()
            case (kind,):
                return cls(kind)
            case "l1", weight:
                return cls("l1", weight=float(weight))
            case "kl", target:
                return cls("kl", target=float(target))
            case "topk", k:
                return cls("topk", k=int(k))
        raise ValueError(details)

    def check(self, activation: str, code_activation: str) -> None:
        """Raise OptionError if "kl" is given activities beyond 0 and 1."""
        if self.kind != "kl":
            return
        if not ACTIVATIONS[code_activation].is_share:
            raise OptionError(
                f"Sparse('kl') compares mean activities with a share. Expected a code_activation "
                f"between 0 and 1, got {code_activation!r}. Choose code_activation='sigmoid', or "
                f"Sparse('l1')."
            )
        if self.hidden and not ACTIVATIONS[activation].is_share:
            raise OptionError(
                f"Sparse('kl', hidden=True) compares mean activities of hidden layers with a "
                f"share. Expected an activation between 0 and 1, got {activation!r}. Choose "
                f"activation='sigmoid'."
            )


@dataclass(frozen=True)
class Variational(BottleneckSpec):
    """Make the code a random draw about the encoder's output, kept near a standard normal density.

    The loss is minus the evidence lower bound (Kingma and Welling, 2014, "Auto-Encoding Variational
    Bayes", eq. 10), so codes drawn from a standard normal density decode to rows like those of
    training.

    Parameters
    ----------
    beta : float
        Weight of the divergence from the prior (Higgins et al., 2017, "beta-VAE", eq. 4).
    n_samples : int
        Codes drawn per row while training. More than one tightens the bound by importance weights
        (Burda, Grosse and Salakhutdinov, 2016, "Importance Weighted Autoencoders", eq. 8).
    """

    beta: float = 1.0
    n_samples: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise OptionError(f"Expected beta to be above 0, got Variational(beta={self.beta!r}).")
        require_integer("n_samples", self.n_samples)

    def module(self, n_components: int, n_below: int) -> VariationalCode:
        """Make the module for a code of this size above a layer of `n_below` outputs."""
        return VariationalCode(self, n_components, n_below)

    @classmethod
    def parse(cls, *details: str) -> Self:
        """Read "BETA", or nothing."""
        (beta,) = details or (1.0,)
        return cls(beta=float(beta))

    def check(self, activation: str, code_activation: str) -> None:
        """Raise OptionError if the code is bent: the mean of a normal code has no bounds."""
        if code_activation != "identity":
            raise OptionError(
                f"Variational codes are normal, with means of any size. Expected "
                f"code_activation='identity', got {code_activation!r}. Leave it out."
            )


@dataclass(frozen=True)
class Ordered(BottleneckSpec):
    """Order the components by what they tell, as in PCA, by dropping the last ones while training.

    The first k components are then the best code of size k that the network knows (Rippel, Gelbart
    and Adams, 2014, "Learning Ordered Representations with Nested Dropout", section 3).

    Parameters
    ----------
    n_cuts : int
        Sizes at which each row's code is cut off at every update: more make an update slower, for
        the decoder works on each, and teach all sizes more.
    sizes : sequence of int, optional
        The sizes at which codes will be cut off, where they are known: each row's code is cut at
        all of them at every update, and whole once more (Kusupati et al., 2022, "Matryoshka
        Representation Learning", eq. 1). These do better then, and others are not taught at all.
        By default every size is, and `n_cuts` of them are drawn.
    """

    n_cuts: int = _N_CUTS
    sizes: tuple[int, ...] | None = None
    is_ordered: ClassVar[bool] = True
    takes_shortcut: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integer("n_cuts", self.n_cuts)
        if self.sizes is None:
            return
        sizes = tuple(self.sizes) if isinstance(self.sizes, Iterable) else ()
        if not sizes or not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise OptionError(
                f"Expected sizes to be a sequence of integers of at least 1, got "
                f"{self.sizes!r}. Write them as in Ordered(sizes=(2, 10))."
            )
        if self.n_cuts != _N_CUTS:
            raise OptionError("Expected n_cuts or sizes, got both. Leave one out.")
        object.__setattr__(self, "sizes", tuple(sorted(set(sizes))))

    def module(self, n_components: int, n_below: int) -> OrderedCode:
        """Make the module for a code of this size above a layer of `n_below` outputs."""
        if self.sizes is not None and self.sizes[-1] > n_components:
            raise OptionError(
                f"Expected sizes of at most n_components={n_components}, got {self.sizes}. "
                f"Choose smaller sizes or more components."
            )
        return OrderedCode(self, n_components)

    def for_share(self, n_components: float) -> BottleneckSpec:
        """Return itself, if all sizes are taught."""
        if self.sizes is not None:
            raise OptionError(
                f"n_components={n_components!r} looks for the smallest of all sizes, and "
                f"{self!r} teaches a few. Give the number of components, or no sizes."
            )
        return self

    @classmethod
    def parse(cls, *details: str) -> Self:
        """Read "N_CUTS" or "SIZE,SIZE", or nothing."""
        if not details:
            return cls()
        (numbers,) = details
        if "," in numbers:
            return cls(sizes=tuple(int(size) for size in numbers.split(",") if size.strip()))
        return cls(n_cuts=int(numbers))


class SparseCode(Bottleneck):
    """Keeps activities small or few; `Sparse` says how."""

    can_die = True

    def __init__(self, how: Sparse, n_components: int) -> None:
        super().__init__(n_components, CodeDensity(n_components))
        self.how = how
        if how.kind == "topk":  # smaller ones are never among the largest
            self.revival_size = 1.0
        self.k = how.k or math.ceil(n_components / 4)
        self.weight = _DEFAULT_WEIGHTS[how.kind] if how.weight is None else how.weight

    def forward(
        self, code: Tensor, path: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Penalties]:
        """Return the code, whose largest parts alone are left for "topk", and its penalty."""
        if self.how.kind == "topk":
            return self._largest(code), {}
        layers = [code, *(path[1:] if self.how.hidden else ())]
        return code, {"sparsity": self.weight * sum(map(self._penalty, layers), code.new_zeros(()))}

    def _largest(self, code: Tensor) -> Tensor:
        chosen = code.abs().topk(self.k, dim=1).indices
        return torch.zeros_like(code).scatter(1, chosen, code.gather(1, chosen))

    def _penalty(self, activity: Tensor) -> Tensor:
        """Return each row's penalty: (batch, n) -> (batch,)."""
        if self.how.kind == "l1":
            return activity.abs().sum(1)
        target, mean = self.how.target, activity.mean(0).clamp(1e-6, 1 - 1e-6)
        divergence = target * (target / mean).log()
        divergence = divergence + (1 - target) * ((1 - target) / (1 - mean)).log()
        return divergence.sum().expand(activity.shape[0])

    def sample(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Draw codes from the density of training codes, as sparse as those."""
        codes = super().sample(n_rows, generator)
        return self._largest(codes) if self.how.kind == "topk" else codes

    def dead(self, codes: Tensor) -> Tensor:
        """Return which components are hardly ever active."""
        activity = codes.abs().mean(0)
        return activity <= _DEAD * activity.max()

    def of_hidden(self) -> BottleneckSpec:
        """Return the same penalty where it holds for hidden layers as well."""
        return replace(self.how, hidden=False) if self.how.hidden else Plain()

    def cut(self, n_components: int) -> None:
        """Keep the first components alone."""
        super().cut(n_components)
        self.k = min(self.k, n_components)


class VariationalCode(Bottleneck):
    """Draws the code about the encoder's output; how far, a head of its own says for each row."""

    has_posterior = True

    def __init__(self, how: Variational, n_components: int, n_below: int) -> None:
        super().__init__(n_components)
        self.how, self._noise = how, _paired_noise(n_components)
        # Only the mean goes both ways; the spread has no counterpart in the decoder to be tied to.
        self.weight = nn.Parameter(torch.zeros(n_components, n_below))
        self.bias = nn.Parameter(torch.full((n_components,), _FIRST_LOG_VARIANCE))
        # A matrix that is used both ways gives codes the scale of the rows, and the prior wants
        # them to vary by one. What is between is learned: one number per component.
        self.log_gain = nn.Parameter(torch.zeros(n_components))

    def forward(
        self, code: Tensor, path: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Penalties]:
        """Return a draw, or without generator its mean, and the divergence from the prior.

        With `how.n_samples > 1` while training, so many draws per row come below one another, and
        the penalty is the log-ratio of their densities under the encoder and under the prior.
        """
        log_variance = self.log_variance(path)
        n = self.how.n_samples
        if generator is None or n == 1:
            divergence = _divergence(code, log_variance).sum(1)
            penalties = {"kl": self.how.beta * divergence}
            if generator is None:
                return code, penalties
            return code + (0.5 * log_variance).exp() * _normal(code, generator), penalties
        mean, log_variance = code.repeat(n, 1), log_variance.repeat(n, 1)
        noise = _normal(mean, generator)
        draw = mean + (0.5 * log_variance).exp() * noise
        ratio = 0.5 * (draw**2 - noise**2 - log_variance).sum(1)
        return draw, {"kl": self.how.beta * ratio}

    def widen(self, code: Tensor) -> Tensor:
        """Return the code in the scale that the decoder works in."""
        return code * self.log_gain.exp()

    def log_variance(self, path: Sequence[Tensor]) -> Tensor:
        """Return the log-variance of each row's code: (batch, n_below) -> (batch, n_components)."""
        below = F.linear(path[-1], self.weight, self.bias)
        return below.clamp(_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE)

    def log_density(
        self, code: Tensor, path: Sequence[Tensor], decode: Decode, scorer: RowScorer, x: Tensor
    ) -> Tensor:
        """Return the evidence lower bound, with the same draws for every row."""
        *below, mean = path
        log_variance = self.log_variance(below)
        divergence = _divergence(mean, log_variance).sum(1)
        noise, n = self._noise.to(mean), len(self._noise)
        if torch.compiler.is_compiling():  # all at once, for a graph would repeat what is repeated
            spread = (0.5 * log_variance).exp()
            codes = mean[:, None] + spread[:, None] * noise  # (batch, draws, n_components)
            every = x[:, None].expand(-1, n, -1).flatten(0, 1)
            cells = scorer.log_prob(decode(codes.flatten(0, 1)), every).sum(1)
            expected: Tensor = cells.unflatten(0, (-1, n)).mean(1)
            return expected - divergence
        expected = torch.zeros_like(divergence)
        for one in noise:
            theta = decode(mean + (0.5 * log_variance).exp() * one)
            expected = expected + scorer.log_prob(theta, x).sum(1)
        return expected / n - divergence

    def draws(
        self, path: Sequence[Tensor], n: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw each row's code n times from its posterior."""
        *below, mean = path
        scale = (0.5 * self.log_variance(below)).exp()
        for _ in range(n):
            noise = _normal(mean, generator)
            code = mean + scale * noise
            yield code, (0.5 * (noise**2 - code**2) + scale.log()).sum(1)

    def divergence(self, path: Sequence[Tensor]) -> Tensor:
        """Return each component's divergence from the prior."""
        return _divergence(path[-1], self.log_variance(path[:-1]))

    def sample(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Draw codes from the prior."""
        return _normal(self.bias.new_empty(n_rows, self.n_components), generator)

    def rescale(self, factor: Tensor) -> None:
        """Let the decoder start from codes times `factor`."""
        self.log_gain.data += factor.log()

    def set_posterior(self, variance: Tensor) -> None:
        """Let all rows' posteriors have this variance."""
        self.weight.data.zero_()
        self.bias.data.copy_(variance.log())

    def cut(self, n_components: int) -> None:
        """Keep the first components alone."""
        super().cut(n_components)
        self._noise = _paired_noise(n_components)
        for name in ("weight", "bias", "log_gain"):
            setattr(self, name, nn.Parameter(getattr(self, name).data[:n_components].clone()))


class OrderedCode(Bottleneck):
    """Keeps only the first components of each row while training; `Ordered` says how many."""

    is_ordered = True

    def __init__(self, how: Ordered, n_components: int) -> None:
        super().__init__(n_components, CodeDensity(n_components))
        self.how = how

    def forward(
        self, code: Tensor, path: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Penalties]:
        """Return the code and no penalty; with a generator, each row's code cut at several sizes.

        (batch, n_components) -> (several * batch, n_components), below one another.
        """
        if generator is None:
            return code, {}
        last = self._drawn(len(code), generator) if self.sizes is None else self._named(len(code))
        kept = torch.arange(self.n_components) <= last.reshape(-1, 1)
        several = code.repeat(len(last), 1)
        return torch.where(kept.to(code.device), several, 0.0), {}

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """The sizes that are taught, the whole code among them; None: all of them."""
        if self.how.sizes is None:
            return None
        return tuple(sorted({*self.how.sizes, self.n_components}))

    def _named(self, n: int) -> Tensor:
        """Return the last component that is kept, at every size: (n_sizes, n)."""
        return torch.tensor(self.sizes)[:, None].expand(-1, n) - 1

    def _drawn(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw the last component that is kept: (n_cuts, n)."""
        k, m = self.n_components, self.how.n_cuts
        # Evenly spread over the rows, which come in random order, and over the cuts of each: less
        # noise than independent draws.
        row, cut = torch.arange(n, dtype=torch.float64), torch.arange(m)[:, None]
        share = ((row + torch.rand((), generator=generator)) / n + cut / m) % 1
        # A third of the cuts each: even in the logarithm, so that short codes are as good as they
        # can be; even in the number, so that the last components learn too; and the whole code,
        # whose error is small next to that of short ones and would count too little.
        third = (row + cut) % 3
        last = torch.where(third == 0, torch.expm1(share * math.log(k + 1)), share * k)
        return torch.where(third == 2, float(k), last).floor()


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the divergence of normal densities from the standard normal one, per component."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)


def _paired_noise(n_components: int) -> Tensor:
    """Return the noise that every row's code gets in its score, in pairs that cancel out."""
    generator, shape = torch.Generator().manual_seed(0), (_BOUND_DRAWS // 2, n_components)
    half = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    return torch.cat([half, -half])


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    # On the processor, where the generator is: a seed means the same wherever the network is.
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


register_bottleneck("sparse", Sparse)
register_bottleneck("variational", Variational)
register_bottleneck("ordered", Ordered)
