"""The training step in C: the fused step's derivation, without PyTorch in between."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twofold.bottleneck import PlainCode
from twofold.corruption import Corruption
from twofold.layers import DensePair
from twofold.network import Network
from twofold.objective import Objective
from twofold.plan import Plan
from twofold.rule import Rule
from twofold.training import spoil
from nativelib import library
from nativelib.library import Batches, Inputs, Pair, Parameter, Stack, Update

# As numbered in native.h.
ACTIVATIONS = {
    name: i
    for i, name in enumerate(("identity", "relu", "leaky_relu", "elu", "selu", "tanh", "sigmoid"))
}
LIKELIHOODS = {"gaussian": 0, "bernoulli": 1}
OPTIMIZERS = {"sgd": 0, "adam": 1, "adamw": 2}
_MOST_PAIRS = 64


def obstacle(network: Network, objective: Objective, plan: Plan) -> str:
    """Say what keeps the native step from training this, nothing if nothing does."""
    found = library.find()
    if found.library is None:
        return found.reason
    if type(network) is not Network or not network.is_dense or len(network.pairs) > _MOST_PAIRS:
        return "not a dense stack"
    if type(network.bottleneck) is not PlainCode:
        return "a bottleneck"
    for activation in (network.activation, network.code_activation):
        if activation not in ACTIVATIONS:
            return f"activation {activation}"
    for name, _ in objective.groups:
        if name not in LIKELIHOODS:
            return f"likelihood {name}"
    if plan.optimizer not in OPTIMIZERS:
        return f"optimizer {plan.optimizer}"
    if plan.bfloat16:
        return "bfloat16"
    for parameter in network.parameters():
        if parameter.device.type != "cpu":
            return f"device {parameter.device.type}"
        if parameter.dtype != torch.float32:
            return str(parameter.dtype).removeprefix("torch.")
        if not parameter.requires_grad or not parameter.is_contiguous():
            return "frozen parameters"
    return ""


class NativeStep:
    """One update of a dense stack in C; a `training.Step`."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        plan: Plan,
        corruption: Corruption | None = None,
        generator: torch.Generator | None = None,
        *,
        complete: bool = True,
        isa: str | None = None,
    ) -> None:
        self.network, self.objective = network, objective
        self.corruption, self.generator = corruption, generator or torch.Generator()
        self._plan, self._complete, self._isa = plan, complete, isa
        self._rule = plan.rule(network.parameters())
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._x = torch.empty(0, network.width)
        self._inputs = _Inputs(objective)

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""
        if n_rows > len(self._x):
            self._x = torch.empty(n_rows, self.network.width)
        return self._x[:n_rows]

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""
        given, target = spoil(self.corruption, x, self.objective, self.generator)
        given = given.contiguous()
        target = None if target is given else target.contiguous()
        losses = self._train(given, target, None, np.array([len(x)]), np.array([learning_rate]))
        return torch.tensor(losses[0], dtype=torch.float32)

    def _train(
        self,
        given: Tensor,
        target: Tensor | None,
        rows: Tensor | None,
        sizes: np.ndarray,
        rates: np.ndarray,
    ) -> np.ndarray:
        found = library.find(self._isa)
        assert found.library is not None
        pairs = pairs_of(self.network, self._rule)
        stack = Stack(len(pairs), pairs, torch.get_num_threads(), found.isa)
        n_bytes = found.library.twofold_train_bytes(stack, int(sizes.max()))
        if n_bytes > len(self._scratch):
            self._scratch = torch.empty(n_bytes, dtype=torch.uint8)
        plan = self._plan
        update = Update(
            OPTIMIZERS[plan.optimizer],
            plan.nesterov,
            plan.momentum,
            plan.weight_decay,
            int(self._rule._n_updates),
        )
        sizes, rates = sizes.astype(np.int64), rates.astype(np.float64)
        losses = np.zeros(len(sizes))
        batches = Batches(
            len(sizes),
            given.stride(0),
            not self._complete,
            given.data_ptr(),
            None if target is None else target.data_ptr(),
            None if rows is None else rows.data_ptr(),
            sizes.ctypes.data,
            rates.ctypes.data,
            losses.ctypes.data,
        )
        done = found.library.twofold_train(
            stack, self._inputs.now(), update, batches, self._scratch.data_ptr()
        )
        self._rule._n_updates.add_(done)
        return losses[:done]

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next update depends on beside the network and the objective."""
        return self._rule.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        self._rule.load_state_dict(state)


class _Inputs:
    """Each input's likelihood and how its loss counts, as the objective has them now."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._likelihood = np.zeros(objective.width, np.int32)
        self._adaptive = np.zeros(objective.width, bool)
        for name, at in objective.groups:
            at = at if isinstance(at, slice) else at.numpy()
            self._likelihood[at] = LIKELIHOODS[name]
            self._adaptive[at] = name == "gaussian" and objective.adapts
        owner = objective.column.numpy()
        self._counts = np.ones(objective.width, np.float32)
        self._counts[1:] = owner[1:] != owner[:-1]
        self._noise = 0.0
        self._scale = np.ones(objective.width, np.float32)
        self._offset = np.zeros(objective.width, np.float32)

    def now(self) -> Inputs:
        noise = float(self._objective.noise)
        if noise != self._noise:
            self._noise = noise
            self._scale[self._adaptive] = 1 / noise**2
            self._offset[self._adaptive] = np.log(noise)
        parts = (self._likelihood, self._scale, self._offset, self._counts)
        return Inputs(*(part.ctypes.data for part in parts))


def pairs_of(network: Network, rule: Rule | None = None) -> Any:
    moments = {}
    if rule is not None:
        for p, own in zip(rule.parameters, rule.moments, strict=True):
            moments[id(p)] = [m.data_ptr() for m in own]

    def parameter(tensor: Tensor | None) -> Parameter:
        if tensor is None:
            return Parameter()
        return Parameter(tensor.data_ptr(), *moments.get(id(tensor), ()))

    pairs, down = network.pairs, network.decoder_activations[::-1]
    array = (Pair * len(pairs))()
    for i, pair in enumerate(pairs):
        array[i] = Pair(
            pair.n_in,
            pair.n_out,
            ACTIVATIONS[network.encoder_activations[i]],
            ACTIVATIONS[down[i]],
            parameter(pair.weight),
            parameter(pair.decoder_weight),
            parameter(pair.encoder_bias),
            parameter(pair.decoder_bias),
        )
    return array
