"""How to train: every option of training with its "auto" worked out, and the learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from twofold.nn import bottleneck, corruption
from twofold.nn.corruption import Corruption

_UPDATES, _MOST_PASSES = 4_000, 600
_UPDATES_OF_MANY = 6_500  # of images, where an epoch has a thousand or more
_DECAY = 0.1  # times the learning rate, a step: more than half of a weight in a whole run
_WIDE_DECAY, _MANY_COLUMNS, _FEW_ROWS = 0.3, 12, 100  # where there are so few rows a column
_COOLDOWN, _SLOW = 0.1, 0.02  # of the epochs, and of the learning rate
_MOST_COOLDOWN = 1_000  # updates: no checkpoint is written meanwhile
_LARGE_BATCH, _WIDE = 64, 256  # below, rounding copies cost more than bfloat16 products save


@dataclass(frozen=True)
class TrainingConfig:
    """How to train: every option of training with its "auto" worked out.

    `cooldown` is the number of epochs that go on from the best weights at a small learning rate.
    """

    optimizer: str
    learning_rate: float
    momentum: float
    nesterov: bool
    schedule: str
    batch_size: int
    epochs: int
    weight_decay: float
    patience: int | None
    keeps_best: bool = False
    cooldown: int = 0
    bfloat16: bool = False
    corruption: Corruption | None = None

    @classmethod
    def resolve(
        cls,
        options: Mapping[str, Any],
        n_rows: int,
        width: int,
        fan_in: int | None = None,
        *,
        n_columns: int | None = None,
    ) -> TrainingConfig:
        """Work out what "auto" means for `n_rows` rows of `width` inputs.

        `fan_in` is the most that a unit of the network adds up (None: the inputs), and `n_columns`
        how many columns of a table the inputs are (None: they are pixels or steps of a sequence).
        """
        is_table = n_columns is not None
        values = {name: options[name] for name in cls.__dataclass_fields__ if name in options}
        values["keeps_best"] = values["patience"] is not None
        if values["patience"] == "auto":
            values["patience"] = None
        values["corruption"] = corruption.resolve(options.get("corruption"))
        if values["batch_size"] == "auto":
            values["batch_size"] = automatic_batch_size(n_rows, is_table)
        if values["epochs"] == "auto":
            noise = values["corruption"]
            fills = noise is not None and noise.hides
            values["epochs"] = automatic_epochs(n_rows, values["batch_size"], fills, is_table)
        if is_table and values["keeps_best"] and values["patience"] is None:
            steps = math.ceil(max(n_rows, 1) / values["batch_size"])
            values["cooldown"] = min(int(_COOLDOWN * values["epochs"]), _MOST_COOLDOWN // steps)
        if values["learning_rate"] == "auto":
            spec = bottleneck.resolve(
                options.get("bottleneck", "plain"), options.get("n_components")
            )
            values["learning_rate"] = automatic_learning_rate(
                values["optimizer"],
                width if values["optimizer"] == "sgd" else fan_in or width,
                spec.is_ordered,
                is_table and values["corruption"] is None,
            )
        if values["weight_decay"] == "auto":
            values["weight_decay"] = 0.0
            if n_columns is not None and values["optimizer"] == "adamw":
                values["weight_decay"] = automatic_weight_decay(n_rows, n_columns, values["epochs"])
        for name in ("learning_rate", "momentum", "weight_decay"):
            values[name] = float(values[name])  # numpy's numbers are not JSON
        bfloat16 = options["precision"] == "bfloat16" or (
            options["precision"] == "auto"
            and fast_in_bfloat16(options["device"])
            and values["batch_size"] >= _LARGE_BATCH
            and width >= _WIDE
        )
        return cls(**values, bfloat16=bfloat16)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the corruption, which is among the estimator's options."""
        values = asdict(self)
        del values["corruption"]
        return values

    def cooled_down(self) -> TrainingConfig:
        """Return how to train once the best weights are known: at a small, constant rate."""
        rate = _SLOW * self.learning_rate
        return replace(self, epochs=self.cooldown, learning_rate=rate, schedule="constant")

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of update `step` out of `steps`, counted from 0.

        One-cycle rises linearly from a 25th of the peak over the first tenth of the run and
        falls along a cosine to zero (Smith and Topin, 2019, "Super-Convergence").
        """
        if self.schedule == "constant":
            return self.learning_rate
        rise = max(1, steps // 10)
        if step < rise:
            return self.learning_rate * (0.04 + 0.96 * step / rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def fast_in_bfloat16(device: str) -> bool:
    """Whether `device` multiplies bfloat16 in hardware: AVX-512 BF16, AMX, or a recent GPU."""
    if device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def automatic_batch_size(n_rows: int, is_table: bool = False) -> int:
    """Return a power of two between 32 and 1,024 that gives some hundred updates per epoch.

    Of images it is about a thousand and a half.

    Of tables, which networks pass over more often, it is up to 128 as long as an epoch has eight.
    Images have four times as many updates in an epoch, and fewer epochs: with 4 of 32 rows instead
    of 7 of 64, 53,000 images were learned nearly as well, on validation rows, in two thirds of the
    time, and came down to the loss of the tutorial's 20 epochs in the third.
    """
    size = 2 ** math.floor(math.log2(max(n_rows, 1) / (400 if is_table else 1600)))
    if is_table:
        size = max(size, min(128, 2 ** math.floor(math.log2(max(n_rows, 1) / 8))))
    return int(min(1024, max(32, size)))


def automatic_epochs(
    n_rows: int, batch_size: int, fills: bool = False, is_table: bool = False
) -> int:
    """Return enough epochs for about 4,000 updates, at most 200.

    Of a table it is as many updates, in 10 to 600 epochs; of others, where these are less than 7
    epochs, 6,500 updates in 4 to 7.

    A network that `fills` hidden cells, and learns from those alone, learns less from an update and
    goes on learning for longer: 150 epochs, and at least 400 and at most 12,000 updates.
    """
    if fills:
        steps = math.ceil(n_rows / batch_size)
        return max(1, math.ceil(min(12_000, max(400, 150 * steps)) / steps))
    steps = math.ceil(n_rows / batch_size)
    least, most = 10, _MOST_PASSES
    if not is_table:
        least, most = min(7, max(4, math.ceil(_UPDATES_OF_MANY / steps))), 200
    return min(most, max(least, math.ceil(_UPDATES / steps)))


def automatic_weight_decay(n_rows: int, n_columns: int, epochs: int) -> float:
    """Return the weight decay of a table, which AdamW multiplies by the learning rate.

    It is larger where rows of many columns are few, and seen more than once: these are learned by
    heart soonest. A code often holds a few columns almost exactly, and more decay then costs more
    than it saves.
    """
    is_learned_by_heart = (
        n_columns >= _MANY_COLUMNS and n_rows < _FEW_ROWS * n_columns and epochs > 1
    )
    return _WIDE_DECAY if is_learned_by_heart else _DECAY


def automatic_learning_rate(
    optimizer: str, width: int, ordered: bool = False, is_whole_table: bool = False
) -> float:
    """Return a step size that suits the loss per cell.

    Adam's steps do not depend on the scale of the loss, but a unit adds up `width` of them, so
    they shrink with the square root of the width. The gradient of a mean over `width` cells shrinks
    with the width, so plain gradient descent makes up for it. An `ordered` code is many codes that
    are learned at once, and with Adam takes larger steps: on images of 196 pixels, three to seven
    times as large ones left less error at every size of the code.

    Of a table of which no cells are hidden while it trains, the wide layers next to PCA learn at a
    rate that shrinks with the width itself (Yang and others, 2021, "Tuning Large Neural Networks
    via Zero-Shot Hyperparameter Transfer"): from a width of 512 down to 128 it grows up to twice
    the usual one. With hidden cells, new rows with missing ones were then flagged more often.
    """
    if optimizer == "sgd":
        return min(1.5, max(0.05, 0.01 * width))
    rate = 0.08 / math.sqrt(width)
    if is_whole_table:
        rate = max(rate, 1.81 / width)
    usual = min(0.02, max(0.001, rate))
    return min(0.04, 3 * usual) if ordered else usual
