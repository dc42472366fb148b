"""Which step trains a network: in C, derived by hand in PyTorch, or by autograd.

All three give the same numbers, to rounding, behind the interface `loop.Step`. The first that
covers the case is taken.
"""

from __future__ import annotations

import logging

import torch

from twofold.nn.corruption import Corruption, Masking
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.training import fused
from twofold.training.config import Plan
from twofold.training.fused import FusedStep
from twofold.training.loop import AutogradStep, Step
from twofold.training.native import library
from twofold.training.native.step import NativeStep, obstacle
from twofold.training.process_group import Team

logger = logging.getLogger(__name__)


def make_step(
    network: Network,
    objective: Objective,
    plan: Plan,
    *,
    complete: bool = True,
    corruption: Corruption | None = None,
    generator: torch.Generator | None = None,
    team: Team | None = None,
) -> Step:
    """Return the fastest step that covers the case.

    Parameters
    ----------
    complete : bool
        No cell of the rows is missing.
    """
    kind, reason = choose(network, objective, plan, complete, corruption, team)
    logger.info("training with the %s step: %s", kind, reason)
    if kind == "native":
        hides = isinstance(corruption, Masking) and corruption.only_hidden
        return NativeStep(
            network, objective, plan, corruption, generator, complete=complete and not hides
        )
    if kind == "fused":
        return FusedStep(network, objective, plan, corruption, generator)
    return AutogradStep(network, objective, plan, corruption, generator, team)


def choose(
    network: Network,
    objective: Objective,
    plan: Plan,
    complete: bool = True,
    corruption: Corruption | None = None,
    team: Team | None = None,
) -> tuple[str, str]:
    """Name the step for a case, "native", "fused" or "autograd", and say why."""
    if team is not None:
        return "autograd", "several workers add their gradients up"
    lacks = obstacle(network, objective, plan)
    if not lacks:
        return "native", library.find().reason
    if not complete or (isinstance(corruption, Masking) and corruption.only_hidden):
        return "autograd", f"missing cells, and nothing native: {lacks}"
    if fused.supports(network, objective):
        return "fused", f"nothing native: {lacks}"
    return "autograd", f"neither native nor fused: {lacks}"


def describe() -> str:
    """Say which step trains dense stacks on this machine's processors, and why."""
    found = library.find()
    if found.library is None:
        return f"fused, in PyTorch (nothing native: {found.reason})"
    return f"native, {found.reason}; fused or autograd for what it does not cover"
