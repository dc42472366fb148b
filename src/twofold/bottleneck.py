"""What sits in the middle of the stack: it takes the encoder's output and hands on the code.

A bottleneck also knows how likely a code is, which joins the likelihood of the cells in a row's
score. It returns the code together with its penalties, by name, in nats per row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

Penalties = dict[str, Tensor]


class Plain(nn.Module):
    """Hand the code on as it is, and model trained codes by one multivariate normal density.

    Parameters
    ----------
    n_components : int
        Size of the code.

    Notes
    -----
    With a linear, tied stack and Gaussian columns the score this gives is the one of probabilistic
    PCA up to its noise model (Tipping and Bishop, 1999, "Probabilistic Principal Component
    Analysis").
    """

    mean: Tensor
    whitener: Tensor

    def __init__(self, n_components: int) -> None:
        super().__init__()
        self.n_components = n_components
        # Buffers, so that they are saved, moved and cast with the weights.
        self.register_buffer("mean", torch.zeros(n_components))
        self.register_buffer("whitener", torch.eye(n_components))

    def forward(self, code: Tensor) -> tuple[Tensor, Penalties]:
        """Return the code `(n_rows, n_components)` and no penalty."""
        return code, {}

    def fit_density(self, codes: Tensor) -> None:
        """Fit the density to the codes of training rows, `(n_rows, n_components)`.

        The covariance is shrunk towards a multiple of the identity by the oracle-approximating
        weight (Chen, Wiesel, Eldar and Hero, 2010, eq. 23), so it can be inverted whatever the
        number of rows.
        """
        codes = codes.cpu().double()  # not every accelerator knows 64-bit numbers
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
        shrunk = (1 - weight) * covariance + (weight + 1e-6) * scale * eye
        whitener = torch.linalg.inv(torch.linalg.cholesky(shrunk))
        self.mean.copy_(codes.mean(0))
        self.whitener.copy_(whitener)

    def log_prob(self, code: Tensor) -> Tensor:
        """Return each code's log-density in nats, `(n_rows,)`."""
        white = (code - self.mean) @ self.whitener.T
        log_det = self.whitener.diagonal().log().sum()
        return log_det - 0.5 * (white**2).sum(1) - 0.5 * self.n_components * math.log(2 * math.pi)
