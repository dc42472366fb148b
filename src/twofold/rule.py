"""How gradients change the weights: gradient descent, Adam and AdamW, by PyTorch's fused kernels.

The kernels are called directly: the first optimizer of `torch.optim` in a process loads PyTorch's
compiler, which takes longer than training on a small table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Rule:
    """One update rule over all parameters, with its memory of past gradients.

    Parameters
    ----------
    optimizer : "sgd", "adam" or "adamw"
    momentum, nesterov :
        Of plain gradient descent (Sutskever et al., 2013, in PyTorch's form).
    weight_decay : float
        Holds for matrices alone: an L2 penalty, decoupled with "adamw" (Loshchilov and Hutter,
        2019).
    matrices, biases : sequence of Tensor
        The parameters; gradients come in this order, matrices first.
    """

    def __init__(
        self,
        optimizer: str,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        matrices: Sequence[Tensor],
        biases: Sequence[Tensor],
    ) -> None:
        self.optimizer, self.momentum, self.nesterov = optimizer, momentum, nesterov
        self.weight_decay = weight_decay
        self.parameters = [*matrices, *biases]
        n_moments = int(momentum > 0) if optimizer == "sgd" else 2
        self.moments = [
            [torch.zeros_like(p.data) for p in self.parameters] for _ in range(n_moments)
        ]
        # Of 32 bits, as PyTorch's kernels read it on a GPU.
        self._n_updates = torch.zeros((), dtype=torch.float32, device=matrices[0].device)
        k, decay = len(matrices), weight_decay
        self._spans = [(slice(k), decay), (slice(k, None), 0.0)] if decay else [(slice(None), 0.0)]

    def follow_parameters(self) -> None:
        """Be where the parameters are, and as precise."""
        first = self.parameters[0]
        if all(m[0].dtype == first.dtype and m[0].device == first.device for m in self.moments):
            self._n_updates = self._n_updates.to(first.device)
            return
        for moments in self.moments:
            moments[:] = [m.to(p) for m, p in zip(moments, self.parameters, strict=True)]
        self._n_updates = self._n_updates.to(self.parameters[0].device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the memory of past gradients by name."""
        named = {
            f"moments.{i}.{j}": moment
            for i, moments in enumerate(self.moments)
            for j, moment in enumerate(moments)
        }
        return {"n_updates": self._n_updates, **named}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the memory that `state_dict` returned."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])

    def forget(self, parameter: Tensor, rows: Tensor) -> None:
        """Forget the past gradients of some rows of a parameter."""
        at = next(i for i, own in enumerate(self.parameters) if own is parameter)
        for moments in self.moments:
            moments[at][rows] = 0

    def apply(self, gradients: Sequence[Tensor], learning_rate: float | Tensor) -> None:
        """Update the parameters; a rate in a tensor is read when the kernels run."""
        self._n_updates.add_(1)
        for span, weight_decay in self._spans:
            self._run_kernel(span, list(gradients[span]), weight_decay, learning_rate)

    def _run_kernel(
        self,
        span: slice,
        gradients: list[Tensor],
        weight_decay: float,
        learning_rate: float | Tensor,
    ) -> None:
        parameters, moments = self.parameters[span], [m[span] for m in self.moments]
        if self.optimizer == "sgd":
            torch._fused_sgd_(
                parameters,
                gradients,
                moments[0] if moments else [],
                weight_decay=weight_decay,
                momentum=self.momentum,
                lr=learning_rate,
                dampening=0.0,
                nesterov=self.nesterov,
                maximize=False,
                is_first_step=False,
            )
            return
        kernel = torch._fused_adamw_ if self.optimizer == "adamw" else torch._fused_adam_
        kernel(
            parameters,
            gradients,
            moments[0],
            moments[1],
            [],
            [self._n_updates] * len(parameters),
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
