"""How gradients change the weights: gradient descent, Adam, AdamW and Muon.

PyTorch's fused kernels are called directly: the first optimizer of `torch.optim` in a process loads
PyTorch's compiler, which takes longer than training on a small table (PyTorch 2.13 on two cores: 2
to 3 s before the first step of `torch.optim.Adam`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from twofold.training.config import TrainingConfig

_KEPT = 0.95  # share of the last step's direction that Muon keeps
# Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural networks".
_QUINTIC, _N_ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Optimizer:
    """One optimizer over all parameters, with its memory of past gradients.

    Parameters
    ----------
    config : TrainingConfig
        With the optimizer "muon" matrices move by `orthogonal` steps, and biases as with Adam.
        Momentum is that of plain gradient descent (Sutskever et al., 2013, in PyTorch's form).
        Weight decay holds for matrices alone: an L2 penalty, decoupled with "adamw" (Loshchilov and
        Hutter, 2019) and "muon".
    parameters : iterable of Tensor

    Attributes
    ----------
    parameters : list of Tensor
        Matrices, then biases: the order of the gradients.
    moments : list of list of Tensor
        For each parameter what is remembered of its gradients: nothing, their mean, or that and the
        mean of their squares.
    """

    def __init__(self, config: TrainingConfig, parameters: Iterable[Tensor]) -> None:
        self.optimizer, self.momentum, self.nesterov = (
            config.optimizer,
            config.momentum,
            config.nesterov,
        )
        self.weight_decay, self._bfloat16 = config.weight_decay, config.bfloat16
        every = list(parameters)
        matrices = [p for p in every if p.ndim > 1]
        biases = [p for p in every if p.ndim <= 1]
        self.parameters = [*matrices, *biases]
        optimizer, momentum = config.optimizer, config.momentum
        k, usual = len(matrices), int(momentum > 0) if optimizer == "sgd" else 2
        counts = [1 if optimizer == "muon" else usual] * k + [usual] * len(biases)
        self.moments = [
            [torch.zeros_like(p.data) for _ in range(n)]
            for p, n in zip(self.parameters, counts, strict=True)
        ]
        # Of 32 bits, as PyTorch's kernels read it on a GPU.
        self._n_updates = torch.zeros((), dtype=torch.float32, device=matrices[0].device)
        split = config.weight_decay > 0 or optimizer == "muon"
        self._spans = [slice(k), slice(k, None)] if split else [slice(None)]

    @property
    def remembers(self) -> bool:
        """Whether an update depends on past gradients."""
        return any(self.moments)

    @property
    def n_updates(self) -> int:
        """How many updates there were."""
        return int(self._n_updates)

    @n_updates.setter
    def n_updates(self, count: int) -> None:
        self._n_updates.fill_(count)

    def follow_parameters(self) -> None:
        """Be where the parameters are, and as precise."""
        for parameter, moments in zip(self.parameters, self.moments, strict=True):
            moments[:] = [moment.to(parameter) for moment in moments]
        self._n_updates = self._n_updates.to(self.parameters[0].device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the memory of past gradients by name."""
        named = {
            f"moments.{i}.{j}": moment
            for j, moments in enumerate(self.moments)
            for i, moment in enumerate(moments)
        }
        return {"n_updates": self._n_updates, **named}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the memory that `state_dict` returned."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])

    def forget(self, parameter: Tensor, rows: Tensor) -> None:
        """Forget the past gradients of some rows of a parameter."""
        at = next(i for i, own in enumerate(self.parameters) if own is parameter)
        for moment in self.moments[at]:
            moment[rows] = 0

    def apply(self, gradients: Sequence[Tensor], learning_rate: float | Tensor) -> None:
        """Update the parameters; a rate in a tensor is read when the kernels run."""
        self._n_updates.add_(1)
        for number, span in enumerate(self._spans):
            parameters, moments = self.parameters[span], self.moments[span]
            own, decay = list(gradients[span]), self.weight_decay if number == 0 else 0.0
            if self.optimizer == "sgd":
                self._sgd(parameters, own, moments, decay, learning_rate)
            elif self.optimizer == "muon" and number == 0:
                self._muon(parameters, own, moments, decay, learning_rate)
            else:
                self._adam(parameters, own, moments, decay, learning_rate)

    def _sgd(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        moments: list[list[Tensor]],
        weight_decay: float,
        learning_rate: float | Tensor,
    ) -> None:
        torch._fused_sgd_(
            parameters,
            gradients,
            [moment for own in moments for moment in own],
            weight_decay=weight_decay,
            momentum=self.momentum,
            lr=learning_rate,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
            is_first_step=False,
        )

    def _adam(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        moments: list[list[Tensor]],
        weight_decay: float,
        learning_rate: float | Tensor,
    ) -> None:
        kernel = torch._fused_adamw_ if self.optimizer == "adamw" else torch._fused_adam_
        kernel(
            parameters,
            gradients,
            [mean for mean, _ in moments],
            [squares for _, squares in moments],
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

    def _muon(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        moments: list[list[Tensor]],
        weight_decay: float,
        learning_rate: float | Tensor,
    ) -> None:
        """Nesterov's step, made orthogonal, and as long as Adam's usually are.

        The length is eq. 4 of Liu et al., 2025, "Muon is Scalable for LLM Training". Matrices of
        convolutions are flat to their kernels.
        """
        for parameter, gradient, (mean,) in zip(parameters, gradients, moments, strict=True):
            mean.lerp_(gradient, 1 - _KEPT)
            ahead = gradient.lerp(mean, _KEPT).flatten(1)
            step = orthogonal(ahead, self._bfloat16).mul_(0.2 * max(ahead.shape) ** 0.5)
            if weight_decay:
                parameter.mul_(1 - learning_rate * weight_decay)
            parameter.sub_(step.view_as(parameter).mul_(learning_rate))


def orthogonal(matrix: Tensor, bfloat16: bool = False) -> Tensor:
    """Return U V^T, nearly, for a matrix U S V^T: the same directions, all of one size.

    Five steps of Newton and Schulz, whose quintic brings singular values from anywhere in (0, 1] to
    between 0.7 and 1.2 (Jordan et al., 2024).

    Examples
    --------
    >>> rows = orthogonal(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.1, 0.0]]))
    >>> rows.shape, bool(((rows @ rows.T).diagonal() > 0.4).all())
    (torch.Size([2, 3]), True)
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.t() if tall else matrix
    x = x / x.norm().clamp_min(1e-7)
    if bfloat16:
        x = x.bfloat16()
    a, b, c = _QUINTIC
    for _ in range(_N_ITERATIONS):
        gram = x @ x.t()
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.t() if tall else x).to(matrix.dtype, copy=True)
