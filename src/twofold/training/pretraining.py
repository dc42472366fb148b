r"""Where training begins: one level after another, or at the error of PCA.

"layerwise" trains one shallow autoencoder at a time, each on the codes of the one below (Bengio,
Lamblin, Popovici and Larochelle, 2007, "Greedy Layer-Wise Training of Deep Networks"; with
corruption Vincent et al., 2010, "Stacked Denoising Autoencoders", section 3.5).

"pca" is closed form. With C the principal components of the rows, S x their scaled inputs and Q_i
random columns at right angles, the matrices

    W_1 = w_1 Q_1 C S       W_i = w_i Q_i Q_{i-1}^T       i = 2 ... L,  Q_L = identity

make the code hold the first principal components, and their transposes lead back to S C^T C S x, as
long as no activation bends. So biases move what comes to each activation to where it is straight,
and the numbers w_i make the product of all slopes one. For squared error S is the identity, and the
result is PCA's. Other likelihoods are not linear in what they are about, but nearly so near the
columns' means: there the slope of theta over the mean is S^2, and as a step along it from the means
goes too far or not far enough, one gain per likelihood is fitted, with all output biases, to
training rows (generalised linear models; McCullagh and Nelder, 1989, "Generalized Linear Models",
section 2.5).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twofold import metrics
from twofold.errors import OptionError
from twofold.nn.activations import ACTIVATIONS, Straight
from twofold.nn.cell_model import observed
from twofold.nn.layers import DensePair
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.schema.column import Column
from twofold.schema.schema import Schema
from twofold.schema.tensors import Rows
from twofold.training.batches import Selection, TrainingData, TrainingRows
from twofold.training.config import TrainingConfig
from twofold.training.trainer import Trainer, adapt, row_losses

Array = NDArray[Any]
_log = logging.getLogger(__name__)

_FEW_HELD_OUT = 1000  # rows; of more, luck does not choose
_SHARE = 0.25  # of the epochs, for each level
_MOST_CELLS, _MOST_ROWS, _LEAST_ROWS = 50_000_000, 100_000, 2_000  # that PCA is fitted to
_ROWS, _CELLS = 4_096, 1_000_000  # that biases and gains are fitted to
_TRIED_ROWS = 1_024  # that each gain is tried on
_TRIED_CELLS = 1_000_000  # of all gains that are tried at once
_STEPS, _SETTLED = 30, 1e-6  # of that at most, and what a step has to gain of the loss
_CURVE_ROWS = 64
_WIDE = 2_048  # inputs above which only as many components are sought as the code has
_BEND = 0.5  # largest activity that leaves tanh and sigmoid nearly straight
_FILL = 0.01  # size of the weights of components that nothing is left for
_ROUNDS = 5  # of settling noise and spread in turn
_GAINS, _MOST_GAIN = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0), 50.0


def require_meaning(how: str | None, network: Network) -> None:
    """Check that the network can be pretrained in this way.

    Raises
    ------
    OptionError
        If it cannot; the message says why, and what to choose.
    """
    if how is None:
        return
    if how != "pca":
        if len(network.pairs) == 1:
            raise OptionError(
                f"pretraining={how!r} trains one level at a time, and this network has a single "
                f"one, from the {network.width} inputs to the code. Set hidden_layers, or leave "
                f"pretraining out."
            )
        return
    if not network.is_dense:
        raise OptionError(
            "pretraining='pca' lays principal components out in dense layers, and convolutional "
            "and recurrent layers see parts of a row at a time. Choose 'layerwise', or dense "
            "layers."
        )
    used = {"code_activation": network.code_activation}
    if len(network.pairs) > 1:
        used["activation"] = network.activation
    for option, name in used.items():
        straight = ACTIVATIONS[name].straight
        if straight is None:
            raise OptionError(
                f"pretraining='pca' needs to know where {option}={name!r} is nearly straight, and "
                f"it was registered without that. Choose another activation, or "
                f"pretraining='layerwise'."
            )
        if network.tied and straight.begin is None:
            raise OptionError(
                f"pretraining='pca' needs a stretch on which {option}={name!r} is nearly straight, "
                f"and with tied weights what comes to it cannot be made small and large again "
                f"behind it: one matrix works both ways. Choose tied=False, an activation such as "
                f"'selu' or 'relu', or pretraining='layerwise'."
            )


def start(
    how: str | None, trainer: Trainer, data: TrainingData, options: Mapping[str, Any]
) -> bool:
    """Bring a fresh network to where training is to begin; return whether the user interrupted it.

    Parameters
    ----------
    how : None, "pca", "layerwise" or "layerwise:EPOCHS"
    trainer : Trainer
        Trains the whole afterwards. If it resumes from a checkpoint, nothing is done.
    data : TrainingData
        The rows to train on, and the held-out ones.
    options : mapping
        The estimator's, which say how each level is trained.
    """
    network, objective = trainer.network, trainer.objective
    starts_as_pca = network.shortcut is not None
    if (how is None and not starts_as_pca) or trainer.resumes:
        return False
    if how == "pca" or starts_as_pca:
        seed = int(torch.randint(2**31 - 1, (), generator=trainer.generator))
        if trainer.workers.is_main:
            rng = np.random.RandomState(seed)
            if starts_as_pca:
                _start_shortcut(network, objective, data.rows, rng)
                # A run with a checkpoint may end in another process, which has to judge alike.
                if _are_few(data.held_out) and trainer.checkpoint is None:
                    own = deepcopy(objective)
                    trainer.start_losses = _losses_of(network, own, trainer, data)
            else:
                from_pca(network, objective, data.rows, rng)
        trainer.workers.synchronize(network, objective)
        return False
    _, _, number = str(how).partition(":")
    epochs = int(number) if number else max(1, round(_SHARE * trainer.config.epochs))
    interrupted = _layerwise(trainer, data, {**options, "epochs": epochs})
    adapt(network, objective, data.rows.head(min(_ROWS, network.rows_per_pass)))
    return interrupted


def beats_pca(trainer: Trainer, data: TrainingData) -> bool:
    """Whether the network does better on the held-out rows than the PCA it began from.

    Few rows cannot tell one of many epochs from the start: what it gains per row has to be more
    than the standard error of that mean (the rule of Breiman et al., 1984, section 3.4.3).
    """
    better = True
    if trainer.workers.is_main and _are_few(data.held_out):
        before = trainer.start_losses
        if before is None:
            linear, own = deepcopy(trainer.network), deepcopy(trainer.objective)
            _close(linear)
            _start_shortcut(linear, own, data.rows, np.random.RandomState(0))
            before = _losses_of(linear, own, trainer, data)
        noise = trainer.config.corruption
        gain = before - row_losses(trainer.network, trainer.objective, data.held_out, noise)
        better = float(gain.mean()) > float(gain.std()) / math.sqrt(len(gain))
    return trainer.workers.broadcast(better)


def _are_few(held_out: Rows | None) -> TypeGuard[Rows]:
    return held_out is not None and len(held_out) <= _FEW_HELD_OUT


def _losses_of(
    network: Network, objective: Objective, trainer: Trainer, data: TrainingData
) -> Tensor:
    """Return the loss of each held-out row, with the noise that the network leaves."""
    assert data.held_out is not None
    noise = trainer.config.corruption
    rows = data.rows.head(min(_ROWS, network.rows_per_pass))
    adapt(network, objective, rows, data.held_out, noise)
    return row_losses(network, objective, data.held_out, noise)


def settle_for_pca(trainer: Trainer, data: TrainingData) -> None:
    """Fit the linear pair again where no epoch did better than it: to the held-out rows, too.

    Training began from PCA of the training rows alone, so that the held-out rows judge both.
    """
    network, objective = trainer.network, trainer.objective
    _close(network)
    if trainer.workers.is_main:
        every = Selection(data.x, torch.arange(len(data.x)))
        _start_shortcut(network, objective, every, np.random.RandomState(0))
    trainer.workers.synchronize(network, objective)


class _Level(Network):
    """One pair of a stack, between two hidden layers: a shallow autoencoder of codes."""

    output_activation = "identity"

    @property
    def decoder_activations(self) -> tuple[str, ...]:
        """Activation after `decode`: what it gives back are codes."""
        return (self.output_activation,)


class _CodedRows:
    """Rows as the levels below make codes of them, whenever they are asked for."""

    def __init__(self, rows: TrainingRows, encode: Callable[[Tensor], Tensor]) -> None:
        self._rows, self._encode, self.device = rows, encode, rows.device
        self._scratch = rows.head(1)

    def __len__(self) -> int:
        return len(self._rows)

    def batches(
        self,
        n_rows: int,
        generator: torch.Generator,
        buffer: Callable[[int], Tensor],
        skip: int = 0,
    ) -> Iterator[Tensor]:
        """Give every row once, in a new order; `TrainingRows` says how."""
        batches = self._rows.batches(n_rows, generator, self._room, skip)
        return (buffer(len(batch)).copy_(self._encode(batch)) for batch in batches)

    def head(self, n_rows: int) -> Tensor:
        """Return the codes of so many rows, the same ones at every call."""
        return self._encode(self._rows.head(n_rows))

    def share(self, rank: int, size: int) -> _CodedRows:
        """Return one worker's share; `TrainingRows` says how."""
        return _CodedRows(self._rows.share(rank, size), self._encode)

    def _room(self, n_rows: int) -> Tensor:
        if n_rows > len(self._scratch):
            self._scratch = self._scratch.new_empty(n_rows, self._scratch.shape[1])
        return self._scratch[:n_rows]


def _layerwise(trainer: Trainer, data: TrainingData, options: Mapping[str, Any]) -> bool:
    """Train the pairs from the first to the last, each alone; return whether it was interrupted.

    Pairs are trained where they are, so the network holds what each of them has learned.
    """
    network = trainer.network
    n_levels = len(network.pairs)
    for i in range(n_levels):
        level, objective = _level(network, i), trainer.objective
        coded, corruption = data, trainer.config.corruption
        if i > 0:
            objective = _squared_error(network, i)
            coded = _coded(network, i, data)
            if corruption is not None:
                corruption = corruption.for_codes(float(coded.rows.head(_ROWS).std(0).mean()))
        how = options
        if i < n_levels - 1:  # the bottleneck belongs to the last level
            how = {**options, "bottleneck": "plain", "n_components": None}
        config = TrainingConfig.resolve(how, len(data.rows), level.width)
        stage = f"level {i + 1} of {n_levels}"
        part = trainer.part(stage, level, objective)
        part.config = replace(config, corruption=corruption)
        history = part.fit(coded)
        if history.epochs:
            losses = history.epochs[max(history.best_epoch, 1) - 1]
            loss = losses.get("validation_loss", losses["loss"])
            _log.info("%s: loss %.6g after %d epochs", stage, loss, len(history.epochs))
        if history.is_interrupted:
            return True
    return False


def _coded(network: Network, i: int, data: TrainingData) -> TrainingData:
    """Return rows as codes of the first `i` pairs, which have no missing cells."""
    encode, held_out = _below(network, i), data.held_out
    if held_out is not None:
        held_out = torch.cat([encode(part) for part in held_out.split(network.rows_per_pass)])
    return replace(data, rows=_CodedRows(data.rows, encode), held_out=held_out, complete=True)


def _level(network: Network, i: int) -> Network:
    """Return pair `i` of the network as a shallow autoencoder, which shares its weights."""
    pair, last = network.pairs[i], i == len(network.pairs) - 1
    code = network.bottleneck
    kind = Network if i == 0 else _Level
    with torch.device("meta"):  # without memory or random numbers: its pair and its code are given
        level = kind(
            pair.n_in,
            (),
            pair.n_out,
            tied=network.tied,
            code_activation=network.encoder_activations[i],
        )
    level.levels = nn.ModuleList([pair])
    # No density of these codes is ever asked for, so that one number is large enough for it.
    level.bottleneck = code if last else code.of_hidden().module(1, 1).to(pair.weight)
    if isinstance(level, _Level):
        # What the pair gives back goes through this activation in the whole network, too.
        level.output_activation = network.decoder_activations[-1 - i]
    return level


def _below(network: Network, i: int) -> Callable[[Tensor], Tensor]:
    """Return the function that makes codes of rows by the first `i` pairs."""

    @torch.no_grad()
    def encode(x: Tensor) -> Tensor:
        filled, _ = observed(x)
        seen, h = network.seen(x), filled
        activations = network.encoder_activations
        for pair, activation in zip(network.pairs[:i], activations, strict=False):
            h = ACTIVATIONS[activation](pair.encode(h, seen))
            seen = pair.seen_above(seen)
        return h

    return encode


def _squared_error(network: Network, i: int) -> Objective:
    """Return the objective of a level above the first: half the squared error of codes."""
    n = network.pairs[i].n_in
    columns = tuple(Column(f"component {j}", "real", "gaussian") for j in range(n))
    last = i == len(network.pairs) - 1
    adapts = last and network.bottleneck.has_posterior
    objective = Objective(Schema(columns, (n,)), adapts)
    parameter = next(network.parameters())
    return objective.to(device=parameter.device, dtype=parameter.dtype)


def from_pca(
    network: Network, objective: Objective, rows: TrainingRows, rng: np.random.RandomState
) -> None:
    """Give a dense network the weights with which it reconstructs as PCA does."""
    width = network.width
    x = rows.head(_enough_for(width)).detach().cpu()
    few = x[: max(256, min(_ROWS, _CELLS // width))].double()
    own = deepcopy(objective).cpu().double()  # what is settled here is settled in 64 bits
    mean = torch.nanmean(x, 0).nan_to_num(0.0).double()
    k, first = network.n_components, min(width, network.pairs[0].n_out)
    most = first if width <= _WIDE else min(first, 2 * k)
    linear = _linear(own, (k, max(most, min(k, width))), x, few, mean, rng)
    _lay_out(network, linear, rng)
    net = deepcopy(network).cpu().double()
    _place_biases(net, observed(few)[0])
    exact = all(likelihood.mean_is_theta for likelihood, _ in own.groups)
    if not exact:
        (found,), _ = _fit_output(own, few, _through(net, few)[None], linear.bias, has_gain=False)
        net.pairs[0].decoder_bias.data += found
    if net.bottleneck.has_posterior:
        _settle_posterior(net, own, few)
    network.load_state_dict(net.state_dict())
    if exact:
        _centre(network, x)
    adapt(network, objective, rows.head(min(_ROWS, network.rows_per_pass)))


def _close(network: Network) -> None:
    """Let nothing through but the linear pair."""
    with torch.no_grad():
        network.encoder_gate.zero_()
        network.decoder_gate.zero_()


def _start_shortcut(
    network: Network, objective: Objective, rows: TrainingRows, rng: np.random.RandomState
) -> None:
    """Give the linear pair next to a stack the weights with which it reconstructs as PCA does."""
    pair, width, k = network.shortcut, network.width, network.n_components
    assert pair is not None
    n = _enough_for(width)
    x = rows.head(n).detach().cpu()
    order = torch.from_numpy(rng.permutation(len(x)))
    few = x[order[: max(256, min(_ROWS, _CELLS // width))]].double()
    own = deepcopy(objective).cpu().double()
    mean = torch.nanmean(x, 0).nan_to_num(0.0).double()
    linear = _linear(own, (k, min(k, width)), x, few, mean, rng)
    found = linear.components * linear.scale
    matrix, bias = torch.zeros(k, width).double(), linear.bias
    matrix[: len(found)] = found
    if not all(likelihood.mean_is_theta for likelihood, _ in own.groups):
        signal = torch.nan_to_num(few - mean) @ matrix.T @ matrix
        (bias,), _ = _fit_output(own, few, signal[None], bias, has_gain=False)
    with torch.no_grad():
        pair.weight.copy_(matrix)
        if pair.decoder_weight is not None:
            pair.decoder_weight.copy_(matrix)
        pair.encoder_bias.copy_(-(matrix @ mean))
        pair.decoder_bias.copy_(bias)
    adapt(network, objective, rows.head(min(_ROWS, network.rows_per_pass)))


def _enough_for(width: int) -> int:
    """Return how many rows are enough for PCA."""
    return min(_MOST_ROWS, max(_LEAST_ROWS, _MOST_CELLS // width))


@dataclass(frozen=True)
class _Linear:
    """The linear map to be built: scales `(width,)`, components `(m, width)`, biases `(width,)`."""

    scale: Tensor
    components: Tensor
    bias: Tensor


def _linear(
    objective: Objective,
    sizes: tuple[int, int],
    x: Tensor,
    few: Tensor,
    mean: Tensor,
    rng: np.random.RandomState,
) -> _Linear:
    """Find scales and components with which `S C^T C S (x - mean)`, and biases, explain the rows.

    `sizes` are how many components `C` holds there, and how many are returned.
    """
    k, most = sizes
    scale, bias = torch.ones_like(mean), torch.zeros_like(mean)
    steep = torch.zeros_like(mean, dtype=torch.bool)
    for likelihood, at in objective.groups:
        share, spread = objective.center[at], objective.unit[at]
        scale[at] = likelihood.slope(mean[at], share, spread).sqrt()
        bias[at] = likelihood.theta_at(mean[at])
        steep[at] = likelihood.has_gain

    def components(of: Tensor, scale: Tensor, most: int) -> Tensor:
        centred = torch.nan_to_num((of - mean.to(of.dtype)) * scale.to(of.dtype))
        return torch.from_numpy(metrics.fit_pca(centred.numpy(), most, rng).components).double()

    def signal(of: Tensor, scale: Tensor, found: Tensor) -> Tensor:
        return torch.nan_to_num((of - mean) * scale) @ found.T @ found * scale

    if steep.all() and len(objective.groups) == 1:
        theta = signal(few, scale, components(few, scale, k))
        (bias,), (gain,) = _fit_output(objective, few, theta[None], bias)
        scale = scale * math.sqrt(gain)
    elif steep.any():
        # The larger their gain, the more of the code is about these columns: try and see.
        some = few[:_TRIED_ROWS]
        scales = [torch.where(steep, math.sqrt(gain) * scale, scale) for gain in _GAINS]
        best, at_once = math.inf, max(1, _TRIED_CELLS // some.numel())
        for first in range(0, len(scales), at_once):
            tried = scales[first : first + at_once]
            signals = torch.stack([signal(some, of, components(some, of, k)) for of in tried])
            found, _ = _fit_output(objective, some, signals, bias, has_gain=False)
            for of, theta, own in zip(tried, signals + found[:, None], found, strict=True):
                objective.adapt(theta, some)
                loss = float(objective.reconstruction(theta, some))
                if loss < best:
                    best, scale, bias = loss, of, own
    return _Linear(scale, components(x, scale, most), bias)


def _fit_output(
    objective: Objective, x: Tensor, signals: Tensor, bias: Tensor, has_gain: bool = True
) -> tuple[Tensor, Tensor]:
    """Fit output biases and gains of signals to the rows `x`; without `has_gain` these stay 1.

    (n_signals, n_rows, width) -> (n_signals, width) and (n_signals,). Signals are fitted at the
    same time, each by itself, for of few rows a step takes as long as of many.
    """
    from scipy.optimize import minimize

    n, _, width = signals.shape
    # Once for all steps: which cells are missing, and how many are not.
    (cells, seen), n_cells = observed(x), objective.n_cells(x)
    cells, seen = cells.repeat(n, 1), None if seen is None else seen.repeat(n, 1)

    def loss(values: Array) -> tuple[float, Array]:
        leaf = torch.tensor(values, requires_grad=True)
        parts = leaf.view(n, -1)
        theta = signals * parts[:, None, width:].exp() if has_gain else signals
        theta = (theta + parts[:, None, :width]).flatten(0, 1)
        # The loss is a mean over cells, and a bias moves few of them.
        total = objective.total(theta, cells, seen) / n_cells * width
        (gradient,) = torch.autograd.grad(total, leaf)
        return float(total.detach()), gradient.numpy()

    begin = np.append(bias.numpy(), [0.0] if has_gain else [])
    bounds: list[tuple[float | None, float | None]] = [(None, None)] * width
    bounds += [(math.log(_GAINS[0]), math.log(_MOST_GAIN))] if has_gain else []
    found = minimize(
        loss,
        np.tile(begin, n),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds * n,
        options={"maxiter": _STEPS, "ftol": _SETTLED},
    )
    values = torch.from_numpy(np.asarray(found.x)).view(n, -1)
    return values[:, :width], values[:, width].exp() if has_gain else torch.ones(n)


def _lay_out(network: Network, linear: _Linear, rng: np.random.RandomState) -> None:
    """Put the matrices of the linear map into the pairs; biases are for `_place_biases`."""
    below = linear.components * linear.scale  # from inputs to scores
    m, up = len(below), None
    n_pairs = len(network.pairs)
    for i, pair in enumerate(network.pairs):
        assert isinstance(pair, DensePair)
        kept = min(m, pair.n_out)
        if i == n_pairs - 1:
            turn = np.eye(pair.n_out, kept)  # components in their order, each for itself
        else:
            turn, _ = np.linalg.qr(rng.standard_normal((pair.n_out, kept)))
        matrix = turn @ (below.numpy()[:kept] if up is None else up[:, :kept].T)
        if kept < pair.n_out and i == n_pairs - 1:
            rest = rng.standard_normal((pair.n_out - kept, pair.n_in))
            matrix[kept:] = _FILL * rest / math.sqrt(pair.n_in)
        m, up = kept, turn
        pair.weight.data.copy_(torch.from_numpy(matrix))
        if pair.decoder_weight is not None:
            pair.decoder_weight.data.copy_(torch.from_numpy(matrix))


@torch.no_grad()
def _place_biases(network: Network, x: Tensor) -> None:
    """Set biases and scales so that activations are straight on the rows `x`, and slopes cancel."""
    pairs = network.pairs
    outer, inner = network.encoder_activations, network.decoder_activations
    h, size = x, 1.0  # what comes in, and how many times as large as it should be its changes are
    for i, pair in enumerate(pairs):
        assert isinstance(pair, DensePair)
        straight = _straight(outer[i])
        slope = straight.slope
        a = h @ pair.weight.T
        factor = 1 / (size * slope)
        if network.tied:
            # Once on the way up and once down: hidden slopes count twice, that of the code once.
            factor = slope**-0.5 if i == len(pairs) - 1 else 1 / slope
        elif straight.begin is None:
            factor = _BEND / max(float((a - a.mean(0)).abs().max()), 1e-12)
        pair.weight.data *= factor
        a = a * factor
        pair.encoder_bias.data.copy_(_shift(a, straight))
        h = ACTIVATIONS[outer[i]](a + pair.encoder_bias)
        size *= factor * slope
    h = network.bottleneck.widen(h)
    for i in reversed(range(len(pairs))):
        pair = pairs[i]
        assert isinstance(pair, DensePair)
        matrix = pair.weight if pair.decoder_weight is None else pair.decoder_weight
        name = inner[len(pairs) - 1 - i]
        straight = _straight(name)
        a = h @ matrix
        if pair.decoder_weight is not None:
            factor = 1 / (size * straight.slope)
            if straight.begin is None:
                factor = _BEND / max(float((a - a.mean(0)).abs().max()), 1e-12)
            pair.decoder_weight.data *= factor
            a = a * factor
            size *= factor * straight.slope
        pair.decoder_bias.data.copy_(_shift(a, straight))
        h = ACTIVATIONS[name](a + pair.decoder_bias)


def _straight(activation: str) -> Straight:
    found = ACTIVATIONS[activation].straight
    assert found is not None  # `require_meaning` has made sure of it
    return found


def _shift(a: Tensor, straight: Straight) -> Tensor:
    """Return the biases that bring activities to where their activation is straight."""
    if straight.begin is None or straight.begin == -math.inf:
        return -a.mean(0)
    lowest = a.kthvalue(1 + int(straight.tail * len(a)), dim=0).values
    return straight.begin - lowest


@torch.no_grad()
def _through(network: Network, x: Tensor) -> Tensor:
    """Return what the network makes of rows, from their codes without noise."""
    return network.decode(network.path(observed(x)[0])[-1])


@torch.no_grad()
def _centre(network: Network, x: Tensor) -> None:
    """Give the output the biases that leave no cell of the rows `x` too high or low on average."""
    bias = network.pairs[0].decoder_bias
    total, count = torch.zeros(network.width).double(), torch.zeros(network.width)
    for part in x.split(network.rows_per_pass):
        off = (part - _through(network, part.to(bias.device)).cpu()).double()
        total, count = total + off.nansum(0), count + (~torch.isnan(off)).sum(0)
    bias.add_((total / count.clamp_min(1)).to(bias))


@torch.no_grad()
def _settle_posterior(network: Network, objective: Objective, x: Tensor) -> None:
    """Set scales and spreads of a variational code so that the bound is tight at the start.

    Where all is linear and normal these are the posteriors of probabilistic PCA (Tipping and
    Bishop, 1999, "Probabilistic Principal Component Analysis", eq. 7): with components that vary by
    one, the variance left over is one over the loss's curvature.
    """
    code, pair = network.bottleneck, network.pairs[-1]
    spread = network.path(observed(x)[0])[-1].std(0)
    spread = spread.clamp_min(1e-3 * float(spread.max()) + 1e-12)

    def scale_up(factor: Tensor, back: Tensor) -> None:
        """Multiply codes by one number per component, and what comes back by another."""
        pair.weight.data *= factor[:, None]
        pair.encoder_bias.data *= factor
        # A tied matrix has multiplied the way back already.
        code.rescale(back / factor if network.tied else back)

    scale_up(1 / spread, spread)
    theta, known = _through(network, x), torch.ones_like(spread)
    for _ in range(_ROUNDS if objective.adapts else 1):
        # The noise of the cells settles how far codes spread, and is settled by that in turn.
        if objective.adapts:
            objective.adapt(theta, x)
        scale_up(1 / known, 1 / known)
        left = 1 / _curvature(network, objective, x[:_CURVE_ROWS]).clamp_min(1.0)
        known = (1 - left).clamp_min(0.01).sqrt()
        scale_up(known, known)
        code.set_posterior(left)
        theta, _ = network(observed(x)[0], torch.Generator().manual_seed(0))
        theta = theta[: len(x)]


def _curvature(network: Network, objective: Objective, x: Tensor) -> Tensor:
    """Return the second derivatives of a row's loss by its code's components, `(n_components,)`."""
    code, step = network.path(observed(x)[0])[-1], 0.1

    def loss(at: Tensor) -> float:
        return float(objective.loss(network.decode(at), x, {}) * objective.n_cells(x)) / len(x)

    here, found = loss(code), []
    for j in range(code.shape[1]):
        aside = torch.zeros_like(code)
        aside[:, j] = step
        found.append((loss(code + aside) + loss(code - aside) - 2 * here) / step**2)
    return torch.tensor(found, dtype=code.dtype)
