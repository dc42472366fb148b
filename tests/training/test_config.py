"""Options of training with "auto" worked out, and learning rates that follow their schedule."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from twofold import Autoencoder
from twofold.nn.corruption import Masking
from twofold.training.config import (
    TrainingConfig,
    automatic_batch_size,
    automatic_epochs,
)

PLAN = TrainingConfig(
    optimizer="sgd",
    learning_rate=0.05,
    momentum=0.0,
    nesterov=False,
    schedule="constant",
    batch_size=8,
    epochs=3,
    weight_decay=0.0,
    patience=None,
)


def rates(steps: int, **changes: Any) -> list[float]:
    plan = replace(PLAN, schedule="one-cycle", **changes)
    return [plan.learning_rate_at(step, steps) for step in range(steps)]


def test_a_constant_schedule_stays() -> None:
    assert {PLAN.learning_rate_at(step, 100) for step in range(100)} == {0.05}


@pytest.mark.parametrize("steps", [10, 100, 1001])
def test_one_cycle_starts_at_a_25th_of_the_peak(steps: int) -> None:
    assert rates(steps)[0] == pytest.approx(0.05 / 25)


@pytest.mark.parametrize("steps", [10, 100, 1001])
def test_one_cycle_peaks_at_the_learning_rate_after_a_tenth(steps: int) -> None:
    found = rates(steps)
    assert found[steps // 10] == max(found) == pytest.approx(0.05)


def test_one_cycle_rises_in_a_straight_line() -> None:
    assert np.diff(rates(100)[:11], n=2) == pytest.approx(0, abs=1e-12)


def test_one_cycle_only_falls_after_the_peak() -> None:
    assert (np.diff(rates(100)[25:]) < 0).all()


def test_one_cycle_ends_near_zero() -> None:
    assert rates(1000)[-1] < 1e-5 * 0.05


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_a_few_steps_is_positive(steps: int) -> None:
    assert min(rates(steps)) > 0


def resolve(n_rows: int = 1000, width: int = 20, **options: Any) -> TrainingConfig:
    settings = Autoencoder(**options).get_params(deep=False)
    return TrainingConfig.resolve(settings, n_rows, width)


@pytest.mark.parametrize(
    ("optimizer", "n_columns", "expected"),
    [("adamw", 5, 0.1), ("adamw", None, 0.0), ("adam", 5, 0.0), ("sgd", 5, 0.0)],
)
def test_the_automatic_weight_decay_is_of_tables(
    optimizer: str, n_columns: int | None, expected: float
) -> None:
    settings = Autoencoder(optimizer=optimizer).get_params(deep=False)
    plan = TrainingConfig.resolve(settings, 1000, 20, n_columns=n_columns)
    assert plan.weight_decay == expected


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "epochs", "expected"),
    [
        (1199, 12, "auto", 0.3),
        (1200, 12, "auto", 0.1),
        (1000, 11, "auto", 0.1),
        (10_000, 200, "auto", 0.3),
        (1000, 12, 1, 0.1),
    ],
)
def test_weights_decay_more_where_rows_of_many_columns_are_few(
    n_rows: int, n_columns: int, epochs: int | str, expected: float
) -> None:
    settings = Autoencoder(epochs=epochs).get_params(deep=False)
    plan = TrainingConfig.resolve(settings, n_rows, 20, n_columns=n_columns)
    assert plan.weight_decay == expected


@pytest.mark.parametrize(
    ("options", "n_columns", "expected"),
    [
        ({}, 5, 25),
        ({"epochs": 35}, 5, 3),
        ({"epochs": 9}, 5, 0),
        ({"epochs": 9_000}, 5, 62),
        ({"epochs": 90, "batch_size": 1}, 5, 1),
        ({"patience": 20}, 5, 0),
        ({"patience": None}, 5, 0),
        ({}, None, 0),
    ],
)
def test_a_table_cools_down_for_a_tenth_of_the_epochs_after_the_best_of_them(
    options: dict[str, Any], n_columns: int | None, expected: int
) -> None:
    settings = Autoencoder(**options).get_params(deep=False)
    plan = TrainingConfig.resolve(settings, 1000, 20, n_columns=n_columns)
    assert plan.cooldown == expected
    assert plan.cooled_down().learning_rate_at(7, 9) == pytest.approx(plan.learning_rate / 50)


def test_given_options_are_kept() -> None:
    plan = resolve(batch_size=7, epochs=5, learning_rate=0.3, weight_decay=0.02)
    assert (plan.batch_size, plan.epochs, plan.learning_rate) == (7, 5, 0.3)
    assert plan.weight_decay == 0.02


@pytest.mark.parametrize("n_rows", [1, 2, 50, 1000, 60_000, 10**7])
def test_the_automatic_batch_is_a_power_of_two_between_32_and_1024(n_rows: int) -> None:
    assert resolve(n_rows).batch_size in (32, 64, 128, 256, 512, 1024)


def test_the_automatic_batch_never_shrinks_as_rows_are_added() -> None:
    sizes = [resolve(n_rows).batch_size for n_rows in (1, 100, 5000, 20_000, 60_000, 10**6)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("n_rows", [1, 50, 1000, 60_000, 10**7])
def test_the_automatic_number_of_epochs_is_between_4_and_200(n_rows: int) -> None:
    assert 4 <= resolve(n_rows).epochs <= 200


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
@pytest.mark.parametrize("width", [1, 20, 784, 10**6])
def test_the_automatic_learning_rate_is_a_step_size(optimizer: str, width: int) -> None:
    assert 0 < resolve(width=width, optimizer=optimizer).learning_rate <= 1.5


@pytest.mark.parametrize(
    ("fan_in", "usual"), [(128, 0.00707), (256, 0.005), (512, 0.00354), (800, 0.00283)]
)
def test_narrower_tables_are_learned_at_up_to_twice_the_rate(fan_in: int, usual: float) -> None:
    settings = Autoencoder().get_params(deep=False)
    plans = [TrainingConfig.resolve(settings, 1000, 16, fan_in, n_columns=n) for n in (None, 16)]
    rates = [plan.learning_rate for plan in plans]
    times = max(1.0, 2 / math.sqrt(fan_in / 128))
    assert rates == pytest.approx([usual, usual * times], rel=2e-3)


def test_where_cells_are_hidden_tables_are_learned_at_the_usual_rate() -> None:
    settings = Autoencoder(corruption=Masking(0.1)).get_params(deep=False)
    plan = TrainingConfig.resolve(settings, 1000, 16, 128, n_columns=16)
    assert plan.learning_rate == pytest.approx(0.00707, rel=2e-3)


@pytest.mark.parametrize(
    ("precision", "fast", "batch_size", "width", "expected"),
    [
        ("bfloat16", False, 8, 8, True),
        ("float32", True, 512, 784, False),
        ("float64", True, 512, 784, False),
        ("auto", True, 512, 784, True),
        ("auto", False, 512, 784, False),
        ("auto", True, 32, 784, False),
        ("auto", True, 512, 20, False),
    ],
)
def test_bfloat16_where_it_is_asked_for_or_pays(
    precision: str,
    fast: bool,
    batch_size: int,
    width: int,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("twofold.training.config.fast_in_bfloat16", lambda device: fast)
    plan = resolve(width=width, precision=precision, batch_size=batch_size)
    assert plan.bfloat16 is expected


@pytest.mark.parametrize(
    ("n_rows", "is_table", "batch_size", "epochs"),
    [
        (53_000, False, 32, 4),
        (30_000, False, 32, 7),
        (20_000, False, 32, 7),
        (2_000, False, 32, 64),
        (10_000_000, False, 1024, 4),
        (53_000, True, 128, 10),
        (1_000, True, 64, 250),
        (100, True, 32, 600),
    ],
)
def test_batches_and_epochs_that_suit_the_number_of_rows(
    n_rows: int, is_table: bool, batch_size: int, epochs: int
) -> None:
    assert automatic_batch_size(n_rows, is_table) == batch_size
    assert automatic_epochs(n_rows, batch_size, is_table=is_table) == epochs


def test_a_network_that_fills_cells_trains_for_longer() -> None:
    assert automatic_epochs(10_000, 64, fills=True) > automatic_epochs(10_000, 64)
