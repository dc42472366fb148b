"""How well the decoder's output explains the cells: one likelihood per column.

`LIKELIHOODS` is the one source of truth for what a likelihood is. Everything is in nats. The loss
that training lowers is the mean over all cells, so that a learning rate means the same for a table
of ten columns and for an image, and reads like the loss other libraries print.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.schema import Schema

# Residuals smaller than this share of a column's spread are not told apart from rounding.
_LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class Likelihood:
    """A model of a cell, given one number `theta` from the decoder.

    Attributes
    ----------
    loss : callable
        `(theta, x)` to nats per cell, the form that training lowers.
    mean : callable
        `theta` to the expected cell, what a reconstruction holds.
    log_prob : callable
        `(theta, x, scale)` to log-density per cell in nats; `scale` is the spread of the
        residuals, fitted after training.
    has_scale : bool
        Whether `scale` means anything.
    link : str
        The activation that `mean` amounts to, for the layer table.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    mean: Callable[[Tensor], Tensor]
    log_prob: Callable[[Tensor, Tensor, Tensor], Tensor]
    has_scale: bool
    link: str


def _gaussian_loss(theta: Tensor, x: Tensor) -> Tensor:
    # Minus the log-density of a unit normal, without the constant: half the squared error.
    return 0.5 * (x - theta) ** 2


def _gaussian_log_prob(theta: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((x - theta) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)


def _bernoulli_loss(theta: Tensor, x: Tensor) -> Tensor:
    # theta is the log-odds, so cells near 0 and 1 lose no digits.
    return F.binary_cross_entropy_with_logits(theta, x, reduction="none")


LIKELIHOODS: dict[str, Likelihood] = {
    "gaussian": Likelihood(
        _gaussian_loss, lambda theta: theta, _gaussian_log_prob, True, "identity"
    ),
    "bernoulli": Likelihood(
        _bernoulli_loss,
        torch.sigmoid,
        lambda theta, x, scale: -_bernoulli_loss(theta, x),
        False,
        "sigmoid",
    ),
}


class Objective(nn.Module):
    """What training lowers and what a row's score is made of: each column under its likelihood.

    Parameters
    ----------
    schema : Schema
        Says which columns each likelihood models.
    """

    scale: Tensor
    log_unit: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.groups = [
            (name, _selector(p, schema.width)) for name, p in schema.likelihoods().items()
        ]
        self.register_buffer("scale", torch.ones(schema.width))
        # A density per centimetre is not one per standard deviation: this is the change of unit.
        has_unit = [LIKELIHOODS[column.likelihood].has_scale for column in schema.columns]
        unit = torch.from_numpy(schema.scale).log().where(torch.tensor(has_unit), 0.0)
        self.register_buffer("log_unit", unit, persistent=False)

    def reconstruction(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return the mean loss over all cells, in nats: (batch, width) twice -> scalar."""
        if len(self.groups) == 1:
            return LIKELIHOODS[self.groups[0][0]].loss(theta, x).mean()
        total = torch.zeros((), dtype=theta.dtype, device=theta.device)
        for name, at in self.groups:
            total = total + LIKELIHOODS[name].loss(theta[:, at], x[:, at]).sum()
        return total / theta.numel()

    def mean(self, theta: Tensor) -> Tensor:
        """Return the expected cells, `(batch, width)`: what a reconstruction holds."""
        if len(self.groups) == 1:
            return LIKELIHOODS[self.groups[0][0]].mean(theta)
        x_hat = torch.empty_like(theta)
        for name, at in self.groups:
            x_hat[:, at] = LIKELIHOODS[name].mean(theta[:, at])
        return x_hat

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Return each cell's log-density in nats and in the column's own unit, `(batch, width)`."""
        result = torch.empty_like(theta)
        for name, at in self.groups:
            result[:, at] = LIKELIHOODS[name].log_prob(theta[:, at], x[:, at], self.scale[at])
        return result - self.log_unit.to(result.dtype)

    @property
    def link(self) -> str:
        """The output layer's activation in words, for the layer table."""
        return " | ".join(LIKELIHOODS[name].link for name, _ in self.groups)

    def fit_scale(self, squared_error: Tensor) -> None:
        """Set each column's residual spread from its mean squared error on training rows.

        This is the maximum-likelihood spread of a normal residual, `(width,)` in squared spreads.
        """
        self.scale.copy_(squared_error.sqrt().clamp_min(_LEAST_SCALE))


def _selector(positions: list[int], width: int) -> slice | Tensor:
    """Return a slice where the columns are all there are, so that nothing is gathered."""
    return slice(None) if len(positions) == width else torch.tensor(positions)
