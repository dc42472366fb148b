"""One update of the weights from one batch: the interface, and the step that uses autograd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from twofold.nn.cell_model import observed
from twofold.nn.corruption import Corruption
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.training.config import TrainingConfig
from twofold.training.optimizers import Optimizer
from twofold.training.process_group import SingleProcess, Workers


class Step(Protocol):
    """What turns one batch into one update of the weights.

    Attributes
    ----------
    takes_missing : bool
        Whether rows may have missing cells.
    """

    @property
    def takes_missing(self) -> bool:
        """Whether rows may have missing cells."""

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update.

        The next update may write over that loss.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next update depends on besides weights and generators."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""


@runtime_checkable
class TakesMany(Protocol):
    """A step that takes up to `n_ahead` batches in one call, with the same results."""

    n_ahead: int

    def reads(self, matrix: Tensor) -> bool:
        """Whether batches may be positions of rows in this matrix, `(n_rows, width)`."""

    def update_many(
        self,
        batches: Sequence[Tensor],
        learning_rates: Sequence[float],
        matrix: Tensor | None = None,
    ) -> Tensor:
        """Take one update after another; return the losses before each, until one is not finite.

        Batches are rows, or with a `matrix` that the step reads the positions of rows in it.
        """


class AutogradStep:
    """The plain step: autograd finds the gradient, an optimizer applies it.

    Rows may have missing cells. Corruption is drawn from the workers' own generator, or from
    `generator` in a single process.
    """

    takes_missing = True

    def __init__(
        self,
        network: Network,
        objective: Objective,
        config: TrainingConfig,
        generator: torch.Generator | None = None,
        workers: Workers = SingleProcess(),  # noqa: B008 - it is immutable
    ) -> None:
        self.network, self.objective, self.workers = network, objective, workers
        self.corruption, self.bfloat16 = config.corruption, config.bfloat16
        self.generator = workers.generator(generator or torch.Generator())
        self._optimizer = Optimizer(config, network.parameters())
        # A cell far from its histogram's mean would undo what many others have taught (Pascanu,
        # Mikolov and Bengio, 2013, "On the Difficulty of Training Recurrent Neural Networks",
        # algorithm 1). So would one sequence whose gradient grows from step to step.
        self._clips = network.is_recurrent or objective.is_clipped
        parameter = next(network.parameters())
        self._x = parameter.new_empty(config.batch_size, network.width)

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""
        if n_rows > len(self._x):
            self._x = self._x.new_empty(n_rows, self.network.width)
        return self._x[:n_rows]

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""
        gradients, loss = self._gradient(x)
        if self._clips:
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            gradients = list(torch._foreach_mul(gradients, (1 / norm).clamp_max(1.0)))
        self._optimizer.follow_parameters()
        with torch.no_grad():
            self._optimizer.apply(gradients, learning_rate)
        return loss.detach()

    def forget(self, parameter: Tensor, rows: Tensor) -> None:
        """Forget the past gradients of some rows of a parameter."""
        self._optimizer.forget(parameter, rows)

    def _gradient(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the gradient of the mean loss per cell over all workers, and that loss."""
        parameters = self._optimizer.parameters
        if not len(x):  # a worker's part of the last batch of an epoch
            nothing = [torch.zeros_like(p) for p in parameters]
            return self.workers.all_reduce_mean(nothing, x.new_zeros(()), lambda: 0.0)
        corrupted, target = corrupt(self.corruption, x, self.objective, self.generator)
        filled, seen = observed(corrupted)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            theta, penalties = self.network(filled, self.generator, seen)
        loss = self.objective.loss(theta.to(x.dtype), target, penalties)
        gradients = list(torch.autograd.grad(loss, parameters))
        return self.workers.all_reduce_mean(gradients, loss, lambda: self.objective.n_cells(target))

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next update depends on besides weights and generators."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        self._optimizer.load_state_dict(state)


def corrupt(
    corruption: Corruption | None, x: Tensor, objective: Objective, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the network's input and its target: (batch, width) each."""
    if corruption is None:
        return x, x
    corrupted = corruption(x, objective, generator)
    return corrupted, corruption.target(corrupted, x)
