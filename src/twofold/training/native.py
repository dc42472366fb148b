"""The training step in C: the derivation of `fused`, without PyTorch in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold.nn.native import library, stack
from twofold.nn.native.library import Batches, Inputs, Update
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.training.autograd import corrupt
from twofold.training.config import TrainingConfig
from twofold.training.optimizers import Optimizer

# As numbered in native.h.
OPTIMIZERS = {"sgd": 0, "adam": 1, "adamw": 2}
_CALL_WORK = 2e9  # multiplications per call: about 20 ms, for Ctrl-C and progress


def obstacle(network: Network, objective: Objective, config: TrainingConfig) -> str:
    """Say what keeps the native step from training this, nothing if nothing does."""
    if lacks := stack.obstacle(network):
        return lacks
    for likelihood, _ in objective.groups:
        if likelihood.kernel is None:
            return f"likelihood {type(likelihood).__name__}"
    if config.optimizer not in OPTIMIZERS:
        return f"optimizer {config.optimizer}"
    if config.bfloat16:
        return "bfloat16"
    if not all(parameter.requires_grad for parameter in network.parameters()):
        return "frozen parameters"
    return ""


class NativeStep:
    """Updates of a dense stack in C; an `autograd.Step`.

    Parameters
    ----------
    network : Network
        Updated in place; `obstacle` says which ones are taken.
    objective : Objective
        Columns of the likelihoods that have a `kernel`, in any mixture.
    config : TrainingConfig
        Names the optimizer and its settings, and the corruption.
    generator : torch.Generator, optional
        Draws the corruption.
    complete : bool
        Whether no cell that counts is ever missing.
    instruction_set : str, optional
        By default what `library.find` chooses.

    Attributes
    ----------
    n_ahead : int
        How many batches one call takes at most, about 20 milliseconds of work: `buffer` gives room
        for so many, one after another, and `update_many` takes them.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        config: TrainingConfig,
        generator: torch.Generator | None = None,
        *,
        complete: bool = True,
        instruction_set: str | None = None,
    ) -> None:
        self.network, self.objective = network, objective
        self.corruption, self.generator = config.corruption, generator or torch.Generator()
        self.takes_missing = not complete
        multiplications = 6 * network.work(config.batch_size)
        self.n_ahead = int(min(50, max(1, _CALL_WORK / max(1.0, multiplications))))
        self._config, self._instruction_set = config, instruction_set
        self._optimizer = Optimizer(config, network.parameters())
        self._inputs = _InputTable(objective)
        self._forget_memory()

    def _forget_memory(self) -> None:
        optimizer = self._optimizer
        moments = list(zip(optimizer.parameters, optimizer.moments, strict=True))
        self._stack = stack.NetworkStack(self.network, moments)
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._x = self._given = torch.empty(0, self.network.width)
        self._n_filled = 0

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""
        start, end = self._n_filled, self._n_filled + n_rows
        if end > len(self._x):
            # Batches that were given out stay where they are, as long as their caller has them.
            start, end = 0, n_rows
            if n_rows * self.n_ahead > len(self._x):
                self._x = torch.empty(n_rows * self.n_ahead, self.network.width)
        self._n_filled = end
        return self._x[start:end]

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""
        return self.update_many([x], [learning_rate])[0]

    def reads(self, matrix: Tensor) -> bool:
        """Whether batches may be positions of rows in this matrix, `(n_rows, width)`."""
        return (
            self.corruption is None
            and matrix.dtype == torch.float32
            and matrix.device.type == "cpu"
            and matrix.stride(1) == 1
        )

    def update_many(
        self,
        batches: Sequence[Tensor],
        learning_rates: Sequence[float],
        matrix: Tensor | None = None,
    ) -> Tensor:
        """Take one update after another; return the losses before each, until one is not finite.

        Batches are rows, or with a `matrix` that the step reads the positions of rows in it.
        """
        rows, target = _in_a_row(batches), None
        given = rows if matrix is None else matrix
        if self.corruption is not None:
            pairs = [corrupt(self.corruption, x, self.objective, self.generator) for x in batches]
            given = torch.cat([corrupted for corrupted, _ in pairs])
            target = torch.cat([each for _, each in pairs])
        self._n_filled = 0
        sizes = np.array([x.shape[0] for x in batches], np.int64)
        places = None if matrix is None else rows
        return self._train(given, target, places, sizes, np.array(learning_rates, np.float64))

    def _train(
        self,
        given: Tensor,
        target: Tensor | None,
        places: Tensor | None,
        sizes: NDArray[np.int64],
        rates: NDArray[np.float64],
    ) -> Tensor:
        found = library.find(self._instruction_set)
        assert found.library is not None
        own = self._stack.now(found.isa)
        config, losses = self._config, torch.empty(len(sizes), dtype=torch.float64)
        update = Update(
            OPTIMIZERS[config.optimizer],
            config.nesterov,
            self.objective.is_clipped,
            config.momentum,
            config.weight_decay,
            self._optimizer.n_updates,
        )
        n_bytes = found.library.twofold_train_bytes(own, update, int(sizes.max()))
        if n_bytes > len(self._scratch):
            self._scratch = torch.zeros(n_bytes, dtype=torch.uint8)
        batches = Batches(
            len(sizes),
            given.stride(0),
            self.takes_missing,
            given.data_ptr(),
            None if target is None else target.data_ptr(),
            None if places is None else places.data_ptr(),
            sizes.ctypes.data,
            rates.ctypes.data,
            losses.data_ptr(),
        )
        n_done = found.library.twofold_train(
            own, self._inputs.now(), update, batches, self._scratch.data_ptr()
        )
        self._optimizer.n_updates += n_done
        return losses[:n_done].to(given.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next update depends on besides the network and the objective."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        self._optimizer.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stack": None, "_scratch": None, "_x": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_memory()


def _in_a_row(batches: Sequence[Tensor]) -> Tensor:
    """Return the batches one after another: where they are, if that is how they lie."""
    first, *others = batches
    end = first.data_ptr() + first.nbytes
    for x in others:
        if x.data_ptr() != end or not x.is_contiguous():
            return torch.cat(list(batches))
        end += x.nbytes
    n_rows = sum(x.shape[0] for x in batches)
    if not first.is_contiguous():
        return torch.cat(list(batches))
    return first.as_strided((n_rows, *first.shape[1:]), first.stride())


class _InputTable:
    """Each input's likelihood and how its loss counts, as the objective has them now."""

    def __init__(self, objective: Objective) -> None:
        self._objective, width = objective, objective.width
        self._likelihood = np.zeros(width, np.int32)
        self._adaptive = np.zeros(width, bool)
        for likelihood, at in objective.groups:
            inputs = at if isinstance(at, slice) else at.numpy()
            if likelihood.kernel is not None:
                self._likelihood[inputs] = likelihood.kernel
            self._adaptive[inputs] = likelihood.shares_noise and objective.adapts
        owner = objective.column.numpy()
        self._counts = np.ones(width, np.float32)
        self._counts[1:] = owner[1:] != owner[:-1]
        self._center = objective.center.numpy().astype(np.float32)
        self._unit = objective.unit.numpy().astype(np.float32)
        self._scale = np.ones(width, np.float32)
        self._offset, self._spread, self._log_share = np.zeros((3, width), np.float32)
        self._learned = torch.empty(0)

    def now(self) -> Inputs:
        """Return the table, with the spreads and the noise that have been learned."""
        objective = self._objective
        learned = torch.cat([objective.spread, objective.noise.reshape(1)])
        if not torch.equal(learned, self._learned):
            self._learned = learned
            for likelihood, at in objective.groups:
                inputs = at if isinstance(at, slice) else at.numpy()
                self._spread[inputs], self._log_share[inputs], self._offset[inputs] = (
                    term.numpy() for term in likelihood.kernel_terms(*objective.about(at))
                )
            noise = float(objective.noise)
            self._scale[self._adaptive] = 1 / noise**2
            self._offset[self._adaptive] = np.log(noise)
        parts = (
            self._likelihood,
            self._scale,
            self._offset,
            self._counts,
            self._center,
            self._unit,
            self._spread,
            self._log_share,
        )
        return Inputs(*(part.ctypes.data for part in parts))
