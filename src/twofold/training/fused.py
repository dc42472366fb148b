r"""The training step for dense stacks, derived by hand: autograd's numbers in less time.

For a batch `x` of n rows and C columns, with `f` the activations,

    encode     h_0 = x           h_i = f(h_{i-1} W_i^T + b_i)     i = 1 ... L
    decode     g_{L+1} = h_L     g_i = f(g_{i+1} W_i + c_i)       i = L ... 1
    loss       (1 / nC) sum over inputs of l(theta, x)            theta = g_1, without f

Let d(.) be the loss's gradient *before* an activation. Likelihoods in canonical form (`is_fused`)
let d start as a residual, and then walks back down the stairs that the batch came up:

    d(g_1)     = (mean(theta) - x) / nC                           mean = identity or sigmoid
    d(g_{i+1}) = d(g_i) W_i^T * f'                                d(h_L) likewise, from d(g_L)
    d(h_{i-1}) = d(h_i) W_i * f'

A tied matrix works twice, so its gradient is the sum of two products; with the factors stacked,

    H_i = [d(h_i); g_{i+1}]  (2n, n_out)         V_i = [h_{i-1}; d(g_i)]  (2n, n_in)

    d(W_i) = d(h_i)^T h_{i-1} + g_{i+1}^T d(g_i) = H_i^T V_i

it is **one product over twice the batch**. Every number above is therefore computed right where it
is needed, in one half of an H or a V, and with plain gradient descent the product is added to the
matrix as it is made: no gradient is ever stored. An untied pair multiplies the halves one by one.
Gradients of biases are the column sums of d(h_i) and d(g_i).

A shortcut, the linear pair P next to the stack, with its gates a and b, adds to the code and to
theta:

    z = P h_0 + p + a h_L                                theta = P^T z + q + b g_1
    d(g_1) = b d(theta)          d(b) = <d(theta), g_1>
    d(h_L) = a d(z)              d(a) = <d(z), h_L>      d(z) = d(theta) P^T + d(g_L) W_L^T

z takes the place of h_L as what is decoded. For H = [z; d(z)] and V = [d(theta); x] the gradient of
P is again H^T V, and both lie next to those of the stack, with which they share z and x.

On a GPU the launch of these kernels costs more than most of them. There the gradients are stored,
so that one kernel updates all parameters, and the step is recorded and replayed (`graphs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from twofold.nn.activations import ACTIVATIONS, InPlace
from twofold.nn.layers import DensePair
from twofold.nn.likelihoods import Likelihood, Scratch
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.training.autograd import corrupt
from twofold.training.config import TrainingConfig
from twofold.training.cuda_graph import Recording, can_record
from twofold.training.optimizers import Optimizer


def supports(network: Network, objective: Objective, complete: bool = True) -> bool:
    """Tell whether the derivation above covers this network and objective.

    If rows are not `complete`, a missing cell takes the value that the decoder gives it, which is
    without error for squared error, and is not a level of a category.
    """
    parameters = list(network.parameters())
    used = [likelihood for likelihood, _ in objective.groups]
    return (
        (complete or all(one.mean_is_theta or one.cells == "levels" for one in used))
        and type(network) is Network
        and all(type(pair) is DensePair for pair in network.pairs)
        and network.bottleneck.is_plain
        and ACTIVATIONS[network.activation].in_place is not None
        and ACTIVATIONS[network.code_activation].in_place is not None
        and all(one.is_fused for one in used)
        and all(p.requires_grad for p in parameters)
        and {p.dtype for p in parameters} in ({torch.float32}, {torch.float64})
        and {p.device.type for p in parameters} in ({"cpu"}, {"cuda"})
    )


class FusedStep:
    """One update of a dense stack, without autograd; an `autograd.Step`.

    Parameters
    ----------
    network : Network
        Updated in place; `supports` tells which ones are taken.
    objective : Objective
        Gaussian and Bernoulli columns, in any mixture.
    config : TrainingConfig
        Names the optimizer and its settings, and the corruption.
    generator : torch.Generator, optional
        Draws the corruption.
    complete : bool
        No cell of the rows is missing.
    capturable : bool
        Compute as a step on a GPU always does: with the learning rate in a tensor, so that a
        recorded step takes a new one.

    Notes
    -----
    On a GPU, 32-bit products keep their 24 binary digits unless the program says otherwise. TF32
    would drop 13 of them for speed, but PyTorch switches it on for the whole process
    (`torch.backends.cuda.matmul`), which is not for a step to do. `config.bfloat16` is fast.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        config: TrainingConfig,
        generator: torch.Generator | None = None,
        *,
        complete: bool = True,
        capturable: bool = False,
    ) -> None:
        self.network, self.objective = network, objective
        self.corruption, self.generator = config.corruption, generator or torch.Generator()
        self._capturable = capturable
        self.takes_missing = not complete
        self._updates = _Updates(config, network)
        self._low = torch.bfloat16 if config.bfloat16 else None
        self._place: tuple[torch.dtype, torch.device] | None = None  # of the parameters
        self._rate: Tensor | None = None  # in the capturable mode
        self._workspaces: dict[int, _Workspace] = {}

    def buffer(self, n_rows: int) -> Tensor:
        """Return where the caller puts the next batch, `(n_rows, width)`."""
        return self._workspace(n_rows).x

    def update(self, x: Tensor, learning_rate: float) -> Tensor:
        """Update the weights from the batch in `x`; return its loss before the update."""
        work = self._workspace(len(x))
        if x.data_ptr() != work.x.data_ptr():
            work.x.copy_(x)
        with torch.inference_mode():
            if self.corruption is not None:
                corrupted, target = corrupt(self.corruption, work.x, self.objective, self.generator)
                work.input.copy_(corrupted.nan_to_num(0.0))  # as `observed` fills missing cells
                if target is not work.x:
                    work.x.copy_(target)
            if self.takes_missing:
                work.find_missing(self.objective, fills=self.corruption is None)
            if self._rate is None:
                return self._update(work, learning_rate)
            rate = self._rate.fill_(learning_rate)
            if work.recording is None:
                return self._update(work, rate)
            return work.recording.run(lambda: self._update(work, rate), self._updates.parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next update depends on besides the network and the objective."""
        return self._updates.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        self._updates.optimizer.load_state_dict(state)

    def _update(self, work: _Workspace, learning_rate: float | Tensor) -> Tensor:
        for rounded, exact in work.roundings:
            rounded.copy_(exact)
        shortcut = work.shortcut
        for layer in work.up:
            layer.forward()
        if shortcut is not None:
            shortcut.add_to_code()
        for layer in work.down:
            layer.forward()
        if shortcut is not None:
            shortcut.add_to_theta()

        loss = work.start_from_residual()

        if shortcut is not None:
            shortcut.give_back_theta()
        for above, below in pairwise(reversed(work.layers)):
            torch.mm(above.delta, above.back, out=below.delta)
            if shortcut is not None and above is work.down[0]:
                shortcut.give_back_code()
            below.activation.backward(below.delta, below.saved)

        # Not before: until here the deltas needed the matrices as they were.
        self._updates.apply(work, learning_rate)
        return loss

    def _workspace(self, n_rows: int) -> _Workspace:
        weight = self._updates.parameters[0]
        place = weight.dtype, weight.device
        if place != self._place:
            self._settle(*place)
        work = self._workspaces.get(n_rows)
        if work is None:
            # Two sizes take turns: full batches, and what is left at the end of an epoch.
            if len(self._workspaces) == 2:
                self._workspaces.clear()
            apart = self.corruption is not None or self.takes_missing
            work = _Workspace(
                self.network, self.objective, n_rows, self._low, apart, self.takes_missing
            )
            self._workspaces[n_rows] = work
        return work

    def _settle(self, dtype: torch.dtype, device: torch.device) -> None:
        """Be where the parameters are, and forget whatever was elsewhere."""
        self._workspaces.clear()
        capturable = self._capturable or can_record(device)
        # On a GPU, PyTorch's kernels read a rate of 32 bits whatever the parameters have.
        rate = torch.float64 if device.type == "cpu" else torch.float32
        self._rate = torch.zeros((), dtype=rate, device=device) if capturable else None
        self._updates.follow_parameters(with_gradients=capturable)
        self._place = dtype, device

    def __getstate__(self) -> dict[str, Any]:
        # Copied or pickled one by one, views would no longer share memory: they are made again.
        return {**self.__dict__, "_workspaces": {}, "_rate": None, "_place": None}


@dataclass(slots=True)
class _Layer:
    """One use of a matrix, and where its numbers lie in the stacked halves."""

    matrix: Tensor
    bias: Tensor
    encodes: bool
    activation: InPlace
    input: Tensor
    output: Tensor
    delta: Tensor
    a: Tensor = field(init=False)  # before the activation, which overwrites it where it can

    def __post_init__(self) -> None:
        self.a = torch.empty_like(self.output) if self.activation.keeps_input else self.output

    def forward(self) -> None:
        """Work out the output from the input."""
        torch.addmm(self.bias, self.input, self.forth, out=self.a)
        self.activation.forward(self.a, self.output)

    @property
    def forth(self) -> Tensor:
        """What the input is multiplied by."""
        return self.matrix.t() if self.encodes else self.matrix

    @property
    def back(self) -> Tensor:
        """What the delta is multiplied by."""
        return self.matrix if self.encodes else self.matrix.t()

    @property
    def saved(self) -> Tensor:
        """What the activation's derivative is computed from."""
        return self.a if self.activation.keeps_input else self.output


def _in_place(activation: str) -> InPlace:
    found = ACTIVATIONS[activation].in_place
    assert found is not None  # `supports` has made sure of it
    return found


@dataclass(slots=True)
class _Shortcut:
    """The linear pair next to a stack: what it adds, and what it gives back.

    `encode` and `decode` are its two uses, from the rows to the code and back to theta. `top` and
    `bottom` are what the stack adds to either, times the gates, and `top_delta` and `bottom_delta`
    where the deltas of these go; `bottom_delta` is `bottom` itself, which is not needed after that.
    """

    encode: _Layer
    decode: _Layer
    encoder_gate: Tensor
    decoder_gate: Tensor
    top: Tensor
    top_delta: Tensor
    bottom: Tensor
    gate_gradients: Tensor

    def add_to_code(self) -> None:
        """Make the code: that of the pair, and its share of what the stack gives."""
        self.encode.forward()
        self.encode.output.addcmul_(self.top, self.encoder_gate)

    def add_to_theta(self) -> None:
        """Make theta likewise."""
        self.decode.forward()
        self.decode.output.addcmul_(self.bottom, self.decoder_gate)

    def give_back_theta(self) -> None:
        """Hand theta's delta to the stack, and to the gate that it came through."""
        delta = self.decode.delta
        self.gate_gradients[1] = torch.dot(delta.flatten(), self.bottom.flatten())
        torch.mul(delta, self.decoder_gate, out=self.bottom)

    def give_back_code(self) -> None:
        """Add theta's delta to the code's, where the stack's is already, and hand that up."""
        delta = self.encode.delta
        torch.addmm(self.top_delta, self.decode.delta, self.decode.back, out=delta)
        self.gate_gradients[0] = torch.dot(delta.flatten(), self.top.flatten())
        torch.mul(delta, self.encoder_gate, out=self.top_delta)


class _Workspace:
    """The memory that a batch of n rows needs, cut into views once.

    Attributes
    ----------
    x, input : Tensor
        The batch, `(n, width)`, and the network's input: corrupted, or with missing cells filled.
    up, down : list of _Layer
        From the batch to the code, and from there to theta.
    shortcut : _Shortcut or None
        What is added to them.
    products : list of (matrix, left, right)
        Once all deltas are known, `left @ right` is the matrix's gradient.
    sums : list of (bias, delta)
        And the sum over the rows of `delta` the bias's.
    roundings : list of (rounded, exact)
        What a step in less precision copies before it starts.
    recording : Recording or None
        The step on this memory, where it can be recorded.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        n: int,
        low: torch.dtype | None,
        apart: bool,
        has_missing: bool,
    ) -> None:
        pairs = network.pairs
        self.roundings: list[tuple[Tensor, Tensor]] = []
        like = pairs[0].weight.data if low is None else pairs[0].weight.data.to(low)
        v = [like.new_empty(2 * n, pair.n_in) for pair in pairs]
        h = [like.new_empty(2 * n, pair.n_out) for pair in pairs]
        shortcut = network.shortcut
        if shortcut is not None:
            outer, inner = (like.new_empty(3 * n, m) for m in (shortcut.n_in, shortcut.n_out))
            v[0], h[-1] = outer[n:], inner[: 2 * n]
        # The code goes where the last decode reads it; every other result to the next pair.
        encoded = [*(v_i[:n] for v_i in v[1:]), h[-1][n:]]
        decoded = [v[0][n:], *(h_i[n:] for h_i in h[:-1])]
        if shortcut is not None:
            encoded[-1] = like.new_empty(n, shortcut.n_out)
        up, down = [], []
        self.products: list[tuple[Tensor, Tensor, Tensor]] = []
        for i, pair in enumerate(pairs):
            weight = self._usable(pair.weight, low)
            back = pair.decoder_weight
            up.append(
                _Layer(
                    matrix=weight,
                    bias=self._usable(pair.encoder_bias, low),
                    encodes=True,
                    activation=_in_place(network.encoder_activations[i]),
                    input=v[i][:n],
                    output=encoded[i],
                    delta=h[i][:n],
                )
            )
            down.append(
                _Layer(
                    matrix=weight if back is None else self._usable(back, low),
                    bias=self._usable(pair.decoder_bias, low),
                    encodes=False,
                    activation=_in_place(network.decoder_activations[-1 - i]),
                    input=h[i][n:],
                    output=decoded[i],
                    delta=v[i][n:],
                )
            )
            if back is None:
                self.products.append((pair.weight, h[i].t(), v[i]))
            else:
                self.products.append((pair.weight, h[i][:n].t(), v[i][:n]))
                self.products.append((back, h[i][n:].t(), v[i][n:]))
        self.up, self.down = up, down[::-1]
        self.layers = self.up + self.down
        biases = [pair.encoder_bias for pair in pairs]
        biases += [pair.decoder_bias for pair in reversed(pairs)]
        self.sums = [(b, layer.delta) for b, layer in zip(biases, self.layers, strict=True)]
        self.x = self.input = v[0][:n]
        self._theta = self._start = v[0][n:]
        self.shortcut = None
        if shortcut is not None:
            self.shortcut = self._beside(network, outer, inner, encoded[-1], low)
            self._theta = self._start = outer[:n]
        if apart or low is not None:
            self.x = pairs[0].weight.data.new_empty(n, network.width)
        if low is not None:
            self._theta = torch.empty_like(self.x)
            if not apart:
                self.roundings.append((self.input, self.x))
        self._groups = [
            _Group(likelihood, at, self.x, self._theta, objective, has_missing)
            for likelihood, at in objective.groups
        ]
        self._scale = self.x.new_full((), 1 / (n * objective.cells_per_row))
        self.recording = Recording(like.device) if can_record(like.device) else None

    def _beside(
        self, network: Network, outer: Tensor, inner: Tensor, top: Tensor, low: torch.dtype | None
    ) -> _Shortcut:
        """Lay out the shortcut: `outer` is theta's delta, x and d(g_1), `inner` d(h_L), z, d(z)."""
        pair, n = network.shortcut, len(top)
        assert pair is not None
        weight, back = self._usable(pair.weight, low), pair.decoder_weight
        straight = _in_place("identity")
        encode = _Layer(
            weight, self._usable(pair.encoder_bias, low), True, straight,
            input=outer[n : 2 * n], output=inner[n : 2 * n], delta=inner[2 * n :],
        )  # fmt: skip
        decode = _Layer(
            weight if back is None else self._usable(back, low),
            self._usable(pair.decoder_bias, low), False, straight,
            input=encode.output, output=outer[:n], delta=outer[:n],
        )  # fmt: skip
        if back is None:
            self.products.append((pair.weight, inner[n:].t(), outer[: 2 * n]))
        else:
            self.products.append((pair.weight, encode.delta.t(), encode.input))
            self.products.append((back, encode.output.t(), decode.delta))
        self.sums += [(pair.encoder_bias, encode.delta), (pair.decoder_bias, decode.delta)]
        return _Shortcut(
            encode,
            decode,
            self._usable(network.encoder_gate, low),
            self._usable(network.decoder_gate, low),
            top=top,
            top_delta=inner[:n],
            bottom=outer[2 * n :],
            gate_gradients=pair.weight.data.new_empty(2),
        )

    def _usable(self, parameter: Tensor, low: torch.dtype | None) -> Tensor:
        """Return what stands for a parameter in this step's products: itself, or a rounded copy."""
        if low is None:
            return parameter
        rounded = torch.empty_like(parameter.data, dtype=low)
        self.roundings.append((rounded, parameter))
        return rounded

    def find_missing(self, objective: Objective, fills: bool) -> None:
        """Count the cells that are there, and give the network zeros for the others."""
        self._scale.fill_(1.0).div_(objective.n_cells(self.x))
        if fills:
            self.input.copy_(self.x.nan_to_num(0.0))

    def start_from_residual(self) -> Tensor:
        """Turn theta into its delta, and return the loss."""
        if self._theta is not self._start:
            self._theta.copy_(self._start)
        loss = self._groups[0].residual()
        for group in self._groups[1:]:
            loss.add_(group.residual())
        torch.mul(self._theta, self._scale, out=self._start)
        return loss.mul_(self._scale)


class _Group:
    """The columns of one likelihood, gathered where they are not all there are."""

    def __init__(
        self,
        likelihood: Likelihood,
        at: slice | Tensor,
        x: Tensor,
        theta: Tensor,
        objective: Objective,
        has_missing: bool,
    ) -> None:
        self._has_missing = has_missing
        self._likelihood, self._all_x, self._all_theta = likelihood, x, theta
        shares = likelihood.shares_noise and objective.adapts
        self._noise = objective.noise if shares else None
        self._columns = at.flatten().to(x.device) if isinstance(at, Tensor) else None
        if self._columns is not None:
            x = x.new_empty(len(x), len(self._columns))
            theta = torch.empty_like(x)
        self._x, self._theta = x, theta
        shape = (len(x), *at.shape) if likelihood.is_joint and isinstance(at, Tensor) else (-1,)
        self._shaped = theta.view(shape), x.view(shape), Scratch(x)

    def residual(self) -> Tensor:
        """Turn this group's cells of theta into residuals, and return their summed loss."""
        if self._columns is None:
            return self._of_cells()
        torch.index_select(self._all_x, 1, self._columns, out=self._x)
        torch.index_select(self._all_theta, 1, self._columns, out=self._theta)
        loss = self._of_cells()
        self._all_theta.index_copy_(1, self._columns, self._theta)
        return loss

    def _of_cells(self) -> Tensor:
        if self._has_missing:
            # What is missing is as the decoder says, or has no level.
            cells = 0.0 if self._likelihood.is_joint else self._theta
            self._x.copy_(torch.where(self._x.isnan(), cells, self._x))
        return self._weighed(self._likelihood.residual(*self._shaped))

    def _weighed(self, loss: Tensor) -> Tensor:
        """Weigh the residuals by the noise that Gaussian columns share in mixed tables."""
        if self._noise is None:
            return loss
        variance = self._noise.to(self._theta.dtype) ** 2
        self._theta.div_(variance)
        return loss / variance + 0.5 * self._theta.numel() * variance.log()


class _Updates:
    """Turns the deltas of a workspace into updates.

    `_gradients` are in the order of the optimizer's parameters, `_order` says which of them belong
    to the workspace's products and then to its sums.
    """

    def __init__(self, config: TrainingConfig, network: Network) -> None:
        self.optimizer = Optimizer(config, network.parameters())
        self.parameters = self.optimizer.parameters
        pairs = network.pairs
        matrices = [m for p in pairs for m in (p.weight, p.decoder_weight) if m is not None]
        biases = [p.encoder_bias for p in pairs] + [p.decoder_bias for p in reversed(pairs)]
        self.gates: list[Tensor] = []
        if (shortcut := network.shortcut) is not None:
            matrices += [m for m in (shortcut.weight, shortcut.decoder_weight) if m is not None]
            biases += [shortcut.encoder_bias, shortcut.decoder_bias]
            self.gates = [network.encoder_gate, network.decoder_gate]
        at = {id(parameter): i for i, parameter in enumerate(self.parameters)}
        self._order = [at[id(parameter)] for parameter in [*matrices, *biases, *self.gates]]
        self._gradients: list[Tensor] = []

    def follow_parameters(self, with_gradients: bool) -> None:
        """Be where the parameters are, and as precise."""
        self.optimizer.follow_parameters()
        if self.optimizer.remembers or with_gradients:
            self._gradients = [torch.empty_like(p.data) for p in self.parameters]

    def apply(self, work: _Workspace, learning_rate: float | Tensor) -> None:
        """Update the parameters from the deltas in `work`."""
        if not self.optimizer.remembers and not isinstance(learning_rate, Tensor):
            # W - rate (left right + decay W), in the one pass over W that the product makes.
            beta = 1 - learning_rate * self.optimizer.weight_decay
            for matrix, left, right in work.products:
                if left.dtype == matrix.dtype:
                    matrix.addmm_(left, right, beta=beta, alpha=-learning_rate)
                else:
                    if beta != 1:
                        matrix.mul_(beta)
                    matrix.sub_(torch.mm(left, right), alpha=learning_rate)
            for bias, delta in work.sums:
                bias.sub_(delta.sum(0, dtype=bias.dtype), alpha=learning_rate)
            for i, gate in enumerate(self.gates):
                assert work.shortcut is not None
                gate.sub_(work.shortcut.gate_gradients[i], alpha=learning_rate)
            return
        k, gradients = len(work.products), [self._gradients[i] for i in self._order]
        for (_, left, right), gradient in zip(work.products, gradients[:k], strict=True):
            if left.dtype == gradient.dtype:
                torch.mm(left, right, out=gradient)
            else:
                gradient.copy_(torch.mm(left, right))
        for (_, delta), gradient in zip(work.sums, gradients[k:], strict=False):
            torch.sum(delta, 0, dtype=gradient.dtype, out=gradient)
        if work.shortcut is not None:
            for gradient, found in zip(gradients[-2:], work.shortcut.gate_gradients, strict=True):
                gradient.copy_(found)
        self.optimizer.apply(self._gradients, learning_rate)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_gradients": []}
