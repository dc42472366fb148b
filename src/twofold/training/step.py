"""Which step trains a network: in C, derived by hand in PyTorch, or by autograd.

All three give the same numbers, to rounding, behind the interface `autograd.Step`. The first that
covers the case is taken, and of several workers each takes it for its own gradients.
"""

from __future__ import annotations

import logging

import torch

from twofold.nn.native import library
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.training import fused
from twofold.training.autograd import AutogradStep, Step
from twofold.training.config import TrainingConfig
from twofold.training.fused import FusedStep
from twofold.training.native import NativeStep, obstacle
from twofold.training.process_group import SingleProcess, Workers
from twofold.training.shared import SharedStep, of_gradients

logger = logging.getLogger(__name__)


def make_step(
    network: Network,
    objective: Objective,
    config: TrainingConfig,
    *,
    complete: bool = True,
    generator: torch.Generator | None = None,
    workers: Workers = SingleProcess(),  # noqa: B008 - it is immutable
) -> Step:
    """Return the fastest step that covers the case.

    Parameters
    ----------
    complete : bool
        No cell of the rows is missing.
    """
    kind, reason = choose(network, objective, config, complete, workers)
    logger.info("training with the %s step: %s", kind, reason)
    if workers.size > 1 and kind != "autograd":
        own = workers.generator(generator or torch.Generator())

        def gradients(config: TrainingConfig) -> Step:
            return make_step(network, objective, config, complete=complete, generator=own)

        return SharedStep(network, objective, config, workers, gradients)
    if kind == "native":
        complete = complete and not _hides_cells(config)
        return NativeStep(network, objective, config, generator, complete=complete)
    if kind == "fused":
        return FusedStep(network, objective, config, generator, complete=complete)
    return AutogradStep(network, objective, config, generator, workers)


def choose(
    network: Network,
    objective: Objective,
    config: TrainingConfig,
    complete: bool = True,
    workers: Workers = SingleProcess(),  # noqa: B008 - it is immutable
) -> tuple[str, str]:
    """Name the step for a case, "native", "fused" or "autograd", and say why."""
    if workers.size > 1:
        if _hides_cells(config):
            return "autograd", "workers count hidden cells alone"
        if objective.is_clipped:
            return "autograd", "workers clip what they have together"
        config = of_gradients(config)
    lacks = obstacle(network, objective, config)
    if not lacks:
        return "native", library.find().reason
    if _hides_cells(config):
        return "autograd", f"only hidden cells count, and nothing native: {lacks}"
    if fused.supports(network, objective, complete):
        return "fused", f"nothing native: {lacks}"
    return "autograd", f"neither native nor fused: {lacks}"


def describe() -> str:
    """Say which step trains dense stacks on this machine's processors, and why."""
    found = library.find()
    if found.library is None:
        return f"fused, in PyTorch (nothing native: {found.reason})"
    return f"native, {found.reason}; fused or autograd for what it does not cover"


def _hides_cells(config: TrainingConfig) -> bool:
    """Whether the loss counts hidden cells alone, so that all others are missing to it."""
    return config.corruption is not None and config.corruption.hides
