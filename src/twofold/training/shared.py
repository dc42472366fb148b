"""The step of several workers: each works out gradients as a single process does, at its speed.

One all-reduce adds them up, and every worker makes the same update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.training.autograd import Step
from twofold.training.config import TrainingConfig
from twofold.training.optimizers import Optimizer
from twofold.training.process_group import Workers


def of_gradients(config: TrainingConfig) -> TrainingConfig:
    """Return what lets a step leave the weights, and keep the gradient as its momentum.

    From a momentum of 0 and at a learning rate of 0, the momentum of plain gradient descent is the
    gradient, and the weights stay as they are.
    """
    return replace(config, optimizer="sgd", momentum=0.5, nesterov=False, weight_decay=0.0)


class SharedStep:
    """One update from the gradients of all workers; an `autograd.Step`.

    Parameters
    ----------
    network, objective, config
        As for other steps.
    workers : Workers
    make : callable
        Makes the step whose gradients are taken, from a config.

    Notes
    -----
    Gradients are means over cells, so each worker's counts by the number of cells that it saw.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        config: TrainingConfig,
        workers: Workers,
        make: Callable[[TrainingConfig], Step],
    ) -> None:
        self._objective, self._workers, self._width = objective, workers, network.width
        self._gradients = make(of_gradients(config))
        self._optimizer = Optimizer(config, network.parameters())

    @property
    def takes_missing(self) -> bool:
        """Whether rows may have missing cells."""
        return self._gradients.takes_missing

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""
        if n_rows == 0:  # a worker's part of the last batch of an epoch
            return self._optimizer.parameters[0].detach().new_empty(0, self._width)
        return self._gradients.buffer(n_rows)

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""
        self._optimizer.follow_parameters()
        if len(x):
            complete = not self.takes_missing
            n_cells: float | Tensor = len(x) * self._objective.cells_per_row
            n_cells = n_cells if complete else self._objective.n_cells(x)
            loss = self._gradients.update(x, 0.0)
        else:
            n_cells, loss = 0.0, x.new_zeros(())
        own = self._gradients.state_dict()
        found = [own[f"moments.0.{i}"] for i in range(len(self._optimizer.parameters))]
        gradients, mean = self._workers.all_reduce_mean(found, loss, lambda: n_cells)
        with torch.no_grad():
            torch._foreach_zero_(found)
            self._optimizer.apply(gradients, learning_rate)
        return mean

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next update depends on besides weights and generators."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        self._optimizer.load_state_dict(state)
