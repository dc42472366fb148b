r"""The training step for dense stacks, derived by hand: autograd's numbers in about half the time.

For a batch `x` of n rows and D columns the loss is the mean over all cells, and pair i maps

    encode    h_i  = f(h_{i-1} W_i^T + b_i)     h_0  = x         h_L = code
    decode    g_i  = f(g_{i+1} W_i   + c_i)     g_{L+1} = code   g_1 = theta (no activation)

    L = (1 / nD) sum over cells of l(theta, x).

Write d(.) for the gradient of L before an activation. Both likelihoods are in canonical form, so
it starts from the residual, and walks back down the same stairs:

    d(g_1)     = (mean(theta) - x) / nD         mean(theta) = theta, or sigmoid(theta)
    d(g_{i+1}) = d(g_i) W_i^T   * f'            and so d(h_L) = d(g_L) W_L^T * f'
    d(h_i)     = d(h_{i+1}) W_{i+1} * f'

A tied matrix works twice, and its gradient is the sum of what each use gives:

    d(W_i) = d(h_i)^T h_{i-1} + g_{i+1}^T d(g_i) = H_i^T V_i

with the halves stacked, `H_i = [d(h_i); g_{i+1}]` of shape (2n, n_out) and `V_i = [h_{i-1}; d(g_i)]`
of shape (2n, n_in). So every number is written once, in the half where it is needed, and **a tied
matrix costs one product**, over twice the batch; for plain gradient descent that product goes
straight into the matrix, and no gradient is ever stored. An untied pair multiplies the halves one
by one. Bias gradients are the column sums of d(h_i) and d(g_i).

f' is taken from the activation's output where that determines it, so that activations are computed
in place; for gelu, silu and softplus the input is kept as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.bottleneck import Plain
from twofold.network import DensePair, Network
from twofold.objective import Objective
from twofold.training import AutogradStep, Plan, Step

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """An activation and its derivative, both written into memory that is there.

    Attributes
    ----------
    forward : callable
        `(a, out)` writes f(a) to `out`, which is `a` itself unless `keeps_input`.
    backward : callable
        `(delta, saved)` multiplies `delta` by f', in place.
    keeps_input : bool
        `saved` is a, and not f(a).
    """

    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]
    keeps_input: bool = False


def _elu_backward(alpha: float, scale: float) -> Callable[[Tensor, Tensor], object]:
    def backward(delta: Tensor, saved: Tensor) -> object:
        return aten.elu_backward.grad_input(delta, alpha, scale, 1.0, True, saved, grad_input=delta)

    return backward


# The constants are PyTorch's: slope 0.01, alpha 1, threshold 20, and selu's two from Klambauer et
# al., 2017, "Self-Normalizing Neural Networks", eq. 14.
ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda a, out: None, lambda d, f: None),
    "relu": Activation(
        lambda a, out: a.relu_(),
        lambda d, f: aten.threshold_backward.grad_input(d, f, 0, grad_input=d),
    ),
    "leaky_relu": Activation(
        lambda a, out: F.leaky_relu(a, inplace=True),
        lambda d, f: aten.leaky_relu_backward.grad_input(d, f, 0.01, True, grad_input=d),
    ),
    "elu": Activation(lambda a, out: F.elu(a, inplace=True), _elu_backward(1.0, 1.0)),
    "selu": Activation(
        lambda a, out: torch.selu_(a),
        _elu_backward(1.6732632423543772848170429916717, 1.0507009873554804934193349852946),
    ),
    "gelu": Activation(
        lambda a, out: aten.gelu.out(a, out=out),
        lambda d, a: aten.gelu_backward.grad_input(d, a, grad_input=d),
        keeps_input=True,
    ),
    "silu": Activation(
        lambda a, out: aten.silu.out(a, out=out),
        lambda d, a: aten.silu_backward.grad_input(d, a, grad_input=d),
        keeps_input=True,
    ),
    "tanh": Activation(
        lambda a, out: a.tanh_(),
        lambda d, f: aten.tanh_backward.grad_input(d, f, grad_input=d),
    ),
    "sigmoid": Activation(
        lambda a, out: a.sigmoid_(),
        lambda d, f: aten.sigmoid_backward.grad_input(d, f, grad_input=d),
    ),
    "softplus": Activation(
        lambda a, out: aten.softplus.out(a, out=out),
        lambda d, a: aten.softplus_backward.grad_input(d, a, 1, 20, grad_input=d),
        keeps_input=True,
    ),
}


_FACTORS = 32  # probabilities that are multiplied before one logarithm is taken


class _Scratch:
    """Room for one number per cell of `x`, flat, and constants where the cells are."""

    def __init__(self, x: Tensor) -> None:
        rows = math.ceil(x.numel() / _FACTORS)
        # What follows the cells stays 1, and fills the last products up.
        self.factors = x.new_ones(_FACTORS, rows)
        self.cells = self.factors.view(-1)[: x.numel()]
        self.zero, self.one = x.new_zeros(()), x.new_ones(())


def _gaussian(theta: Tensor, x: Tensor, scratch: _Scratch) -> Tensor:
    """Turn `theta` into the residual, and return the summed loss; cells are flat."""
    theta.sub_(x)
    return torch.dot(theta, theta).mul_(0.5)


def _bernoulli(theta: Tensor, x: Tensor, scratch: _Scratch) -> Tensor:
    """Turn `theta` into the residual, and return the summed loss; cells are flat.

    The loss log(1 + e^theta) - x theta is max(theta, 0) - x theta - log q, where q = sigmoid(|theta|)
    lies in [1/2, 1]. A product of 32 such q cannot underflow, and takes one logarithm instead of 32.
    """
    cells = scratch.cells
    linear = torch.maximum(theta, scratch.zero, out=cells).sum().sub_(torch.dot(theta, x))
    p = theta.sigmoid_()
    torch.maximum(p, torch.sub(scratch.one, p, out=cells), out=cells)
    p.sub_(x)
    return linear.sub_(scratch.factors.prod(0).log_().sum())


RESIDUALS: dict[str, Callable[[Tensor, Tensor, _Scratch], Tensor]] = {
    "gaussian": _gaussian,
    "bernoulli": _bernoulli,
}


def supports(network: Network, objective: Objective) -> bool:
    """Tell whether the derivation above covers this network and objective."""
    parameters = list(network.parameters())
    return (
        type(network) is Network
        and all(type(pair) is DensePair for pair in network.pairs)
        and type(network.bottleneck) is Plain
        and {network.activation, network.code_activation} <= ACTIVATIONS.keys()
        and {name for name, _ in objective.groups} <= RESIDUALS.keys()
        and all(p.requires_grad for p in parameters)
        and {p.dtype for p in parameters} in ({torch.float32}, {torch.float64})
        and {p.device.type for p in parameters} in ({"cpu"}, {"cuda"})
    )


def make_step(network: Network, objective: Objective, plan: Plan) -> Step:
    """Return the fused step where it applies, else the plain one."""
    if supports(network, objective):
        return FusedStep(network, objective, plan)
    return AutogradStep(network, objective, plan)


class FusedStep:
    """One update of a dense stack, without autograd; a `training.Step`.

    Parameters
    ----------
    network : Network
        Dense pairs around a plain bottleneck; `supports` tells. It is updated in place.
    objective : Objective
        Gaussian and Bernoulli columns, in any mixture.
    plan : Plan
        Names the optimizer and its settings.
    """

    def __init__(self, network: Network, objective: Objective, plan: Plan) -> None:
        self.network, self.objective = network, objective
        pairs = network.pairs
        matrices = [m for p in pairs for m in (p.weight, p.decoder_weight) if m is not None]
        biases = [p.encoder_bias for p in pairs] + [p.decoder_bias for p in reversed(pairs)]
        self._rule = _Rule(plan, matrices, biases)
        self._workspaces: dict[tuple[Any, ...], _Workspace] = {}

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""
        return self._workspace(n_rows).x

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""
        work = self._workspace(len(x))
        if x.data_ptr() != work.x.data_ptr():
            work.x.copy_(x)
        with torch.inference_mode():
            return self._update(work, learning_rate)

    def _update(self, work: _Workspace, learning_rate: float) -> Tensor:
        for layer in work.layers:
            torch.addmm(layer.bias, layer.input, layer.upward, out=layer.a)
            layer.activation.forward(layer.a, layer.output)

        loss = work.start_from_residual()

        for above, below in pairwise(reversed(work.layers)):
            torch.mm(above.delta, above.downward, out=below.delta)
            below.activation.backward(below.delta, below.saved)

        # Only now, when the matrices have done their part in the deltas, may they change.
        self._rule.apply(work, learning_rate)
        return loss

    def _workspace(self, n_rows: int) -> _Workspace:
        weight = self._rule.parameters[0]
        key = (n_rows, weight.dtype, weight.device)
        work = self._workspaces.get(key)
        if work is None:
            # Two sizes take turns: full batches, and what is left at the end of an epoch.
            if len(self._workspaces) == 2:
                self._workspaces.clear()
            work = self._workspaces[key] = _Workspace(self.network, self.objective, n_rows)
            self._rule.match_parameters()
        return work

    def __getstate__(self) -> dict[str, Any]:
        # A copy lays out memory of its own: its views would not share any.
        return {**self.__dict__, "_workspaces": {}}


@dataclass(slots=True)
class _Layer:
    """One use of a matrix, up or down the stack, and where its numbers lie in the buffers."""

    matrix: nn.Parameter
    bias: nn.Parameter
    encodes: bool
    activation: Activation
    input: Tensor
    a: Tensor  # before the activation
    output: Tensor  # after it; the same memory as `a` unless the activation keeps its input
    delta: Tensor  # gradient of the loss at `a`

    @property
    def upward(self) -> Tensor:
        """What the input is multiplied by."""
        return self.matrix.t() if self.encodes else self.matrix

    @property
    def downward(self) -> Tensor:
        """What the delta is multiplied by."""
        return self.matrix if self.encodes else self.matrix.t()

    @property
    def saved(self) -> Tensor:
        """What the activation's derivative is computed from."""
        return self.a if self.activation.keeps_input else self.output


class _Workspace:
    """The memory that a batch of `n` rows needs, cut into views once.

    Attributes
    ----------
    x : Tensor
        The batch, `(n, width)`.
    layers : list
        In the order of the forward pass.
    products : list of (matrix, left, right)
        Once all deltas are known, the matrix's gradient is `left @ right`.
    """

    def __init__(self, network: Network, objective: Objective, n: int) -> None:
        pairs = network.pairs
        new = pairs[0].weight.data.new_empty
        v = [new(2 * n, pair.n_in) for pair in pairs]
        h = [new(2 * n, pair.n_out) for pair in pairs]
        self.x, self._theta = v[0][:n], v[0][n:]

        def layer(
            pair: DensePair, encodes: bool, name: str, input: Tensor, output: Tensor, delta: Tensor
        ) -> _Layer:
            matrix = pair.weight
            if not encodes and pair.decoder_weight is not None:
                matrix = pair.decoder_weight
            bias = pair.encoder_bias if encodes else pair.decoder_bias
            activation = ACTIVATIONS[name]
            a = torch.empty_like(output) if activation.keeps_input else output
            return _Layer(matrix, bias, encodes, activation, input, a, output, delta)

        last = len(pairs) - 1
        up = [
            layer(pair, True, name, v[i][:n], h[i][n:] if i == last else v[i + 1][:n], h[i][:n])
            for i, (pair, name) in enumerate(zip(pairs, network.encoder_activations, strict=True))
        ]
        names = reversed(network.decoder_activations)
        down = [
            layer(pair, False, name, h[i][n:], v[0][n:] if i == 0 else h[i - 1][n:], v[i][n:])
            for i, (pair, name) in enumerate(zip(pairs, names, strict=True))
        ]
        self.layers = up + down[::-1]

        self.products: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        for pair, v_i, h_i in zip(pairs, v, h, strict=True):
            if pair.decoder_weight is None:
                self.products.append((pair.weight, h_i.t(), v_i))
            else:
                self.products.append((pair.weight, h_i[:n].t(), v_i[:n]))
                self.products.append((pair.decoder_weight, h_i[n:].t(), v_i[n:]))

        self._groups = [_Group(name, at, self.x, self._theta) for name, at in objective.groups]
        self._scale = torch.tensor(1 / self.x.numel()).to(self.x)

    def start_from_residual(self) -> Tensor:
        """Turn theta into its delta, and return the loss."""
        loss = self._groups[0].residual()
        for group in self._groups[1:]:
            loss.add_(group.residual())
        self._theta.mul_(self._scale)
        return loss.mul_(self._scale)


class _Group:
    """The columns of one likelihood, gathered where they are not all there are."""

    def __init__(self, name: str, at: slice | Tensor, x: Tensor, theta: Tensor) -> None:
        self._compute, self._x, self._theta = RESIDUALS[name], x, theta
        self._columns = at.to(x.device) if isinstance(at, Tensor) else None
        if self._columns is not None:
            x = x.new_empty(len(x), len(self._columns))
            theta = torch.empty_like(x)
        self._own_x, self._own_theta = x, theta
        self._flat = theta.view(-1), x.view(-1), _Scratch(x)

    def residual(self) -> Tensor:
        """Turn this group's cells of theta into residuals, and return their summed loss."""
        if self._columns is None:
            return self._compute(*self._flat)
        torch.index_select(self._x, 1, self._columns, out=self._own_x)
        torch.index_select(self._theta, 1, self._columns, out=self._own_theta)
        loss = self._compute(*self._flat)
        self._theta.index_copy_(1, self._columns, self._own_theta)
        return loss


class _Rule:
    """Gradient descent, Adam or AdamW over all parameters, by PyTorch's own kernels.

    Weight decay holds for matrices alone, as in `training.AutogradStep`. The parameters stand in
    the order of `_Workspace.products` and then of `_Workspace.layers`.
    """

    def __init__(
        self, plan: Plan, matrices: list[nn.Parameter], biases: list[nn.Parameter]
    ) -> None:
        self.plan = plan
        self.parameters = matrices + biases
        n_moments = int(plan.momentum > 0) if plan.optimizer == "sgd" else 2
        self._moments = [
            [torch.zeros_like(p.data) for p in self.parameters] for _ in range(n_moments)
        ]
        self._count = torch.zeros((), device=matrices[0].device)
        self._gradients: list[Tensor] = []
        k = len(matrices)
        self._spans = [(slice(None), 0.0)]
        if plan.weight_decay:
            self._spans = [(slice(k), plan.weight_decay), (slice(k, None), 0.0)]

    def match_parameters(self) -> None:
        """Follow the parameters to another precision or device, should they have gone there."""
        for moments in self._moments:
            moments[:] = [m.to(p) for m, p in zip(moments, self.parameters, strict=True)]
        self._count = self._count.to(self.parameters[0].device)
        if self._moments:
            self._gradients = [torch.empty_like(p.data) for p in self.parameters]

    def apply(self, work: _Workspace, learning_rate: float) -> None:
        """Update the parameters from the deltas in `work`."""
        if not self._moments:
            # beta is decay: W - lr (gradient + decay W), in the product's own pass over W.
            beta = 1 - learning_rate * self.plan.weight_decay
            for matrix, left, right in work.products:
                matrix.addmm_(left, right, beta=beta, alpha=-learning_rate)
            for layer in work.layers:
                layer.bias.sub_(layer.delta.sum(0), alpha=learning_rate)
            return
        outputs = iter(self._gradients)
        for (_, left, right), gradient in zip(work.products, outputs):
            torch.mm(left, right, out=gradient)
        for layer, gradient in zip(work.layers, outputs):
            torch.sum(layer.delta, 0, out=gradient)
        self._count.add_(1)
        for span, decay in self._spans:
            self._run_kernel(span, decay, learning_rate)

    def _run_kernel(self, span: slice, weight_decay: float, learning_rate: float) -> None:
        parameters, gradients = self.parameters[span], self._gradients[span]
        moments = [m[span] for m in self._moments]
        if self.plan.optimizer == "sgd":
            torch._fused_sgd_(
                parameters,
                gradients,
                *moments,
                weight_decay=weight_decay,
                momentum=self.plan.momentum,
                lr=learning_rate,
                dampening=0.0,
                nesterov=self.plan.nesterov,
                maximize=False,
                is_first_step=False,
            )
            return
        kernel = torch._fused_adamw_ if self.plan.optimizer == "adamw" else torch._fused_adam_
        kernel(
            parameters,
            gradients,
            *moments,
            [],
            [self._count] * len(parameters),
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_gradients": []}
