"""Dead units of a sparse code: they are counted, and revived."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.nn.cell_model import observed
from twofold.nn.layers import DensePair
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.training.batches import TrainingRows

_ROWS = 4096


@runtime_checkable
class Remembers(Protocol):
    """A step with a memory of past gradients."""

    def forget(self, parameter: Tensor, rows: Tensor) -> None:
        """Forget the past gradients of some rows of a parameter."""


@torch.no_grad()
def revive_dead_units(
    step: object,
    network: Network,
    objective: Objective,
    rows: TrainingRows,
    revives: bool,
    generator: torch.Generator,
) -> dict[str, float]:
    """Count the components that are never active and, if `revives`, give them new weights.

    A dead component gets the direction of a row that is reconstructed badly, so that it has
    something to explain (Bricken et al., 2023, "Towards Monosemanticity", section "Neuron
    Resampling"): rows are drawn by their squared losses, seen from the mean of what comes to the
    code. Of "topk" it starts as large as the living ones, for smaller ones are never among the
    largest.

    Returns
    -------
    dict
        For the history: `dead_units`, before any revival; empty if a component at rest is not a
        dead one.
    """
    code = network.bottleneck
    if not code.can_die:
        return {}
    x = rows.head(min(_ROWS, network.rows_per_pass))
    filled, seen = observed(x)
    path = network.path(filled, seen)
    activity = code.code(path)
    dead = code.dead(activity)
    n_dead = int(dead.sum())
    if n_dead and revives:
        loss = -objective.cell_log_prob(network.decode(activity), x).sum(1)
        _revive(step, network, path[-2], loss, dead, generator)
    return {"dead_units": n_dead}


def _revive(
    step: object,
    network: Network,
    below: Tensor,
    loss: Tensor,
    dead: Tensor,
    generator: torch.Generator,
) -> None:
    """Give dead components directions of rows, drawn by their squared losses."""
    pair, code = network.pairs[-1], network.bottleneck
    assert isinstance(pair, DensePair)
    n_dead = int(dead.sum())
    weight = ((loss - loss.min()) ** 2).nan_to_num(0.0).double().cpu() + 1e-12
    chosen = torch.multinomial(weight, n_dead, n_dead > len(weight), generator=generator)
    centre = below.mean(0)
    direction = F.normalize(below[chosen.to(below.device)] - centre)
    pair.weight[dead] = code.revival_size * _mean_norm(pair.weight, dead) * direction
    pair.encoder_bias[dead] = -(pair.weight[dead] @ centre)
    changed = [pair.weight, pair.encoder_bias]
    if pair.decoder_weight is not None:
        pair.decoder_weight[dead] = _mean_norm(pair.decoder_weight, dead) * direction
        changed.append(pair.decoder_weight)
    if isinstance(step, Remembers):
        for parameter in changed:
            step.forget(parameter, dead)


def _mean_norm(matrix: Tensor, dead: Tensor) -> Tensor:
    """Return how large the weights of living components are; 1 where none lives."""
    living = matrix[~dead]
    return living.norm(dim=1).mean() if len(living) else matrix.new_ones(())
