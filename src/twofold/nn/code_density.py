"""How the codes of trained rows are distributed: a mixture of normal densities to draw from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

_CANDIDATES = (2, 4, 8, 16)  # components that are tried besides one
_ROWS_PER_NUMBER = 5  # rows that each number of a component's mean must have to go by
_STEP_PRODUCTS = 2e8  # work of one step of the mixture's fit: a tenth of a second
_HELD_OUT = 0.2
_TOLERANCE = 0.05  # nats per row: what later steps gain is less, and each takes as long


class CodeDensity(nn.Module):
    """A mixture of normal densities, fitted to the codes of training rows.

    Parameters
    ----------
    n_components : int
        Size of the code.

    Notes
    -----
    There are as many normal densities as make codes of held-out rows clearly more likely. A single
    density has its covariance shrunk towards a multiple of the identity by the
    oracle-approximating weight (Chen, Wiesel, Eldar and Hero, 2010, eq. 23), so that it can be
    inverted whatever the number of rows.
    """

    log_weight: Tensor
    mean: Tensor
    whitener: Tensor

    def __init__(self, n_components: int) -> None:
        super().__init__()
        self.n_components = k = n_components
        # Buffers, so that they are saved, moved and cast with the weights: one row per density.
        self.register_buffer("log_weight", torch.zeros(1))
        self.register_buffer("mean", torch.zeros(1, k))
        self.register_buffer("whitener", torch.zeros(1, k, k))
        # On the meta device, where models are loaded, torch.eye imports all of torch._dynamo.
        self.whitener.diagonal(dim1=1, dim2=2).fill_(1)

    def fit(self, codes: Tensor, seed: int = 0) -> None:
        """Fit the density to the codes of training rows, `(n_rows, n_components)`."""
        codes = codes.detach().cpu().double()  # not every accelerator knows 64-bit numbers
        n_held = int(_HELD_OUT * len(codes))
        held, rest = codes[:n_held], codes[n_held:]
        best, best_count = torch.full((n_held,), -math.inf), 1
        parts = found = _fit(rest, 1, seed)
        for count in (1, *_CANDIDATES):
            if count > 1:
                few = rest[: self._most_rows(count)]
                if len(few) < _ROWS_PER_NUMBER * count * self.n_components:
                    break
                found = _fit(few, count, seed)
            self._set(*found)
            likelihood = self.log_prob(held.to(self.mean)).double().cpu()
            gain = likelihood - best
            # More densities must be better by more than luck: one standard error. Where two are
            # not, more of them may be: codes of whole numbers lie in a lattice.
            if count == 1 or float(gain.mean()) > float(gain.std()) / math.sqrt(n_held):
                best, best_count, parts = likelihood, count, found
        limit = len(codes) if best_count == 1 else self._most_rows(best_count)
        if limit > len(rest):  # held-out rows too can be learned from, now that the choice is made
            parts = _fit(codes[:limit], best_count, seed)
        self._set(*parts)

    def _most_rows(self, count: int) -> int:
        """Return how many rows a mixture of `count` densities is fitted to."""
        return int(_STEP_PRODUCTS / (count * self.n_components**2))

    def _set(self, weight: Tensor, mean: Tensor, covariance: Tensor) -> None:
        # The factor is triangular, and is inverted as such: PyTorch's general inverse of a batch of
        # two matrices of 196 rows fails on two threads ("Pivots given to lu_solve must be ...").
        factor = torch.linalg.cholesky(covariance)
        eye = torch.eye(self.n_components, dtype=factor.dtype).expand_as(factor)
        whitener = torch.linalg.solve_triangular(factor, eye, upper=False)
        like = self.mean
        self.log_weight, self.mean = weight.log().to(like), mean.to(like)
        # Row by row, as it is read back from a file: the same bits come out.
        self.whitener = whitener.to(like).contiguous()

    def sample(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Draw codes from the density, `(n_rows, n_components)`."""
        weight = self.log_weight.exp().cpu()
        which = torch.multinomial(weight, n_rows, replacement=True, generator=generator)
        shape = n_rows, self.n_components
        white = torch.randn(shape, generator=generator, dtype=self.mean.dtype).to(self.mean.device)
        codes = torch.empty_like(white)
        for component in which.unique().tolist():
            rows = which == component
            whitener = self.whitener[component]
            spread = torch.linalg.solve_triangular(whitener, white[rows].T, upper=False).T
            codes[rows] = self.mean[component] + spread
        return codes

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return each component's mean and standard deviation, `(n_components,)` each."""
        weight = self.log_weight.exp()[:, None]
        eye = torch.eye(self.n_components).to(self.whitener).expand_as(self.whitener)
        factor = torch.linalg.solve_triangular(self.whitener, eye, upper=False)
        squares = (factor**2).sum(-1) + self.mean**2
        mean = (weight * self.mean).sum(0)
        return mean, ((weight * squares).sum(0) - mean**2).clamp_min(0).sqrt()

    def log_prob(self, code: Tensor) -> Tensor:
        """Return each code's log-density in nats, `(n_rows,)`."""
        parts = []
        for weight, mean, whitener in zip(self.log_weight, self.mean, self.whitener, strict=True):
            white = (code - mean) @ whitener.T
            parts.append(weight + whitener.diagonal().log().sum() - 0.5 * (white**2).sum(1))
        constant = 0.5 * self.n_components * math.log(2 * math.pi)
        return torch.stack(parts).logsumexp(0) - constant

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        # The number of densities is known only now.
        weight = state_dict.get(f"{prefix}log_weight")
        if isinstance(weight, Tensor) and weight.ndim == 1:
            k, count = self.n_components, len(weight)
            self.log_weight = self.log_weight.new_empty(count)
            self.mean = self.mean.new_empty(count, k)
            self.whitener = self.whitener.new_empty(count, k, k)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _fit(codes: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights, means and covariances of a mixture of `count` normal densities."""
    if count == 1:
        mean, covariance = _shrunk(codes)
        return torch.ones(1), mean.unsqueeze(0), covariance.unsqueeze(0)
    floor = 1e-4 * float(codes.var(0).mean()) + 1e-12
    mixture = GaussianMixture(
        count, reg_covar=floor, tol=_TOLERANCE, max_iter=30, random_state=seed
    )
    with warnings.catch_warnings():
        # What matters is how likely held-out codes are, not whether the last digit stands.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(codes.numpy())
    parts = (mixture.weights_, mixture.means_, mixture.covariances_)
    weight, mean, covariance = (torch.from_numpy(part) for part in parts)
    return weight, mean, covariance


def _shrunk(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the shrunk covariance of codes, `(n_rows, n_components)`."""
    n, k = codes.shape
    centred = codes - codes.mean(0)
    covariance = centred.T @ centred / n
    # Codes that never vary still differ by the rounding of 32-bit numbers.
    rounding = 1e-6 * (1 + codes.mean(0).abs().max())
    scale = covariance.diagonal().mean().clamp_min(rounding**2)
    spread = (covariance**2).mean()
    numerator = spread + scale**2
    denominator = (n + 1) * (spread - scale**2 / k)
    weight = 1.0 if denominator <= 0 else min(1.0, float(numerator / denominator))
    eye = torch.eye(k, dtype=codes.dtype)
    # The floor keeps codes that never vary from making the density a spike.
    return codes.mean(0), (1 - weight) * covariance + (weight + 1e-6) * scale * eye
