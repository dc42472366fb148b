"""The activations: what each unit makes of the sum that reaches it.

`ACTIVATIONS` holds one record per activation, with all that depends on it: its value, its
derivative for the fused training step, and where it is nearly straight, for pretraining by PCA.
`register_activation` adds another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold import registry
from twofold.registry import Registry

aten = torch.ops.aten


@dataclass(frozen=True)
class Straight:
    """Where an activation is nearly straight: its slope there, and from which input on.

    A `begin` of None says that it is straight around zero alone. `tail` is the share of the rows
    that may lie below `begin`: the softer the bend, the more, for units that bend on no row have
    still to learn where to.
    """

    slope: float
    begin: float | None
    tail: float = 0.0


@dataclass(frozen=True)
class InPlace:
    """An activation f and its derivative, both written into memory that is there.

    Parameters
    ----------
    forward : callable
        `(a, output)` writes f(a) to `output`, which is `a` itself unless `keeps_input`.
    backward : callable
        `(delta, saved)` multiplies `delta` by f'; `saved` is f(a), or `a` if `keeps_input`.
    keeps_input : bool
        If f' does not follow from f(a), as for every f that falls somewhere.
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]
    keeps_input: bool = False


@dataclass(frozen=True)
class Activation:
    """An activation f.

    Parameters
    ----------
    value : callable
        f, on tensors. Autograd differentiates it, and an export to ONNX traces it.
    in_place : InPlace, optional
        f and f' for the fused training step; without it, networks are trained with autograd.
    straight : Straight, optional
        Where f is nearly straight; without it, `pretraining="pca"` is refused.
    is_share : bool
        If all values lie between 0 and 1.
    kernel : int, optional
        Its number in the native training step; without one, that step is not used.
    """

    value: Callable[[Tensor], Tensor]
    in_place: InPlace | None = None
    straight: Straight | None = None
    is_share: bool = False
    kernel: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        return self.value(x)


def _elu_backward(alpha: float, scale: float) -> Callable[[Tensor, Tensor], object]:
    def backward(d: Tensor, h: Tensor) -> object:
        return aten.elu_backward.grad_input(d, alpha, scale, 1.0, True, h, grad_input=d)

    return backward


ACTIVATIONS: Registry[Activation] = registry.ACTIVATIONS


def register_activation(name: str, activation: Activation) -> None:
    """Add an activation, which the options `activation` and `code_activation` then know by name.

    A model that uses it can be loaded wherever it has been registered.

    Raises
    ------
    OptionError
        If the name is taken, or cannot be an option's value.
    """
    ACTIVATIONS.add(name, activation)


# Selu's two constants are from Klambauer et al., 2017, "Self-Normalizing Neural Networks", eq. 14.
_ALPHA, _SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

register_activation(
    "identity",
    Activation(
        lambda x: x,
        InPlace(lambda a, out: None, lambda d, h: None),
        straight=Straight(1.0, -math.inf),
        kernel=0,
    ),
)
register_activation(
    "relu",
    Activation(
        F.relu,
        InPlace(
            lambda a, out: a.relu_(),
            lambda d, h: aten.threshold_backward.grad_input(d, h, 0, grad_input=d),
        ),
        straight=Straight(1.0, 0.0, 0.02),
        kernel=1,
    ),
)
register_activation(
    "leaky_relu",
    Activation(
        F.leaky_relu,
        InPlace(
            lambda a, out: F.leaky_relu(a, inplace=True),
            lambda d, h: aten.leaky_relu_backward.grad_input(d, h, 0.01, True, grad_input=d),
        ),
        straight=Straight(1.0, 0.0, 0.02),
        kernel=2,
    ),
)
register_activation(
    "elu",
    Activation(
        F.elu,
        InPlace(lambda a, out: F.elu(a, inplace=True), _elu_backward(1.0, 1.0)),
        straight=Straight(1.0, 0.0, 0.05),
        kernel=3,
    ),
)
register_activation(
    "selu",
    Activation(
        F.selu,
        InPlace(lambda a, out: torch.selu_(a), _elu_backward(_ALPHA, _SCALE)),
        straight=Straight(_SCALE, 0.0, 0.15),
        kernel=4,
    ),
)
register_activation(
    "gelu",
    Activation(
        F.gelu,
        InPlace(
            lambda a, out: aten.gelu.out(a, out=out),
            lambda d, a: aten.gelu_backward.grad_input(d, a, grad_input=d),
            keeps_input=True,
        ),
        straight=Straight(1.0, 3.0, 0.2),
        kernel=7,
    ),
)
register_activation(
    "silu",
    Activation(
        F.silu,
        InPlace(
            lambda a, out: aten.silu.out(a, out=out),
            lambda d, a: aten.silu_backward.grad_input(d, a, grad_input=d),
            keeps_input=True,
        ),
        straight=Straight(1.0, 5.0, 0.2),
        kernel=8,
    ),
)
register_activation(
    "tanh",
    Activation(
        torch.tanh,
        InPlace(
            lambda a, out: a.tanh_(), lambda d, h: aten.tanh_backward.grad_input(d, h, grad_input=d)
        ),
        straight=Straight(1.0, None),
        kernel=5,
    ),
)
register_activation(
    "sigmoid",
    Activation(
        torch.sigmoid,
        InPlace(
            lambda a, out: a.sigmoid_(),
            lambda d, h: aten.sigmoid_backward.grad_input(d, h, grad_input=d),
        ),
        straight=Straight(0.25, None),
        is_share=True,
        kernel=6,
    ),
)
# softplus would need no input, but PyTorch's is linear above its threshold of 20.
register_activation(
    "softplus",
    Activation(
        F.softplus,
        InPlace(
            lambda a, out: aten.softplus.out(a, out=out),
            lambda d, a: aten.softplus_backward.grad_input(d, a, 1, 20, grad_input=d),
            keeps_input=True,
        ),
        straight=Straight(1.0, 4.0, 0.2),
        kernel=9,
    ),
)
