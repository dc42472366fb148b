from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from twofold import Autoencoder
from twofold.report.checks import Finding, in_order, named, run_checks
from twofold.report.measurements import Measurements, examine

GOOD = [
    {"epoch": i + 1, "loss": loss, "validation_loss": loss + 0.001, "seconds": float(i)}
    for i, loss in enumerate([1.0, 0.5, 0.3, 0.21, 0.201, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
]


def rows(n: int = 1500, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(3, 8))
    return rng.normal(size=(n, 3)) @ mixing + 0.3 * rng.normal(size=(n, 8))


def frame(n: int = 1500, seed: int = 0) -> pd.DataFrame:
    table = pd.DataFrame(rows(n, seed), columns=[f"c{i}" for i in range(8)])
    table["city"] = np.where(table["c0"] > 0, "Oslo", "Porto")
    return table


def fitted(X: Any, **options: Any) -> Autoencoder:
    settings = {"random_state": 0, "n_components": 3, "hidden_layers": (), "epochs": 12} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # which weights are best is not the point
        ae = Autoencoder(**settings).fit(X)
    ae.history_, ae.best_epoch_ = GOOD, 6
    return ae


@pytest.fixture(scope="module")
def good() -> Autoencoder:
    return fitted(rows())


@pytest.fixture(scope="module")
def found(good: Autoencoder) -> Measurements:
    return examine(good, rows(seed=1))


@pytest.fixture(scope="module")
def mixed() -> Autoencoder:
    return fitted(frame())


def by_kind(ae: Any, found: Measurements) -> dict[str, Finding]:
    return {finding.kind: finding for finding in run_checks(ae, found)}


def with_history(ae: Autoencoder, history: Sequence[dict[str, float]], best: int) -> Autoencoder:
    other = copy.copy(ae)
    other.history_, other.best_epoch_ = list(history), best
    return other


def history(train: Sequence[float], held: Sequence[float] = ()) -> list[dict[str, float]]:
    entries = [{"epoch": i + 1, "loss": loss, "seconds": 1.0} for i, loss in enumerate(train)]
    for entry, loss in zip(entries, held, strict=False):
        entry["validation_loss"] = loss
    return entries


def test_a_good_model_on_rows_of_its_kind_calls_for_nothing(
    good: Autoencoder, found: Measurements
) -> None:
    assert run_checks(good, found) == []
    told = in_order(good, found, [])
    assert {"over-fitting", "shift since training", "components in use"} <= set(told)


def test_urgent_things_come_first(good: Autoencoder) -> None:
    X = rows(seed=1)
    X[:, 0] += 9
    X[:800, 1] = np.nan
    told = run_checks(good, examine(good, X))
    assert [finding.urgent for finding in told] == sorted((c.urgent for c in told), reverse=True)
    assert {finding.kind for finding in told} >= {"shift", "missing"}


def test_a_held_out_loss_far_above_the_other_is_over_fitting(
    good: Autoencoder, found: Measurements
) -> None:
    fine = history([1.0, 0.4, 0.3, 0.3], [0.9, 0.45, 0.40, 0.41])
    bad = history([1.0, 0.4, 0.2, 0.2], [0.9, 0.45, 0.40, 0.41])
    assert "overfitting" not in by_kind(with_history(good, fine, 3), found)
    assert "overfitting" in by_kind(with_history(good, bad, 3), found)


def test_kept_weights_whose_held_out_loss_rose_are_over_fitting(
    good: Autoencoder, found: Measurements
) -> None:
    rose = history([1.0, 0.4, 0.38, 0.37], [0.9, 0.40, 0.45, 0.5])
    finding = by_kind(with_history(good, rose, 4), found)["overfitting"]
    assert "lowest in epoch 2 (0.400) and rose to 0.500 in epoch 4" in finding.text
    assert "patience=10" in finding.advice
    assert "overfitting" not in by_kind(with_history(good, rose, 2), found)


def test_training_that_was_still_getting_better_is_unfinished(
    good: Autoencoder, found: Measurements
) -> None:
    falling = history(np.linspace(1, 0.1, 20).tolist(), np.linspace(1, 0.1, 20).tolist())
    finding = by_kind(with_history(good, falling, 20), found)["unfinished"]
    assert "after 20 epochs" in finding.text
    assert "epochs=40" in finding.advice
    stopped = [*falling, *history([0.1] * 10, [0.2] * 10)]
    assert "unfinished" not in by_kind(with_history(good, stopped, 20), found)


def test_one_epoch_is_too_early_to_tell(good: Autoencoder, found: Measurements) -> None:
    assert "unfinished" in by_kind(with_history(good, history([1.0], [1.0]), 1), found)


def test_a_model_without_an_epoch_is_untrained(good: Autoencoder, found: Measurements) -> None:
    assert "untrained" in by_kind(with_history(good, [], 0), found)


def test_losing_to_pca_is_told(good: Autoencoder, found: Measurements) -> None:
    worse = replace(found.comparison, squared_error=1.1 * found.comparison.squared_error_pca)
    finding = by_kind(good, replace(found, comparison=worse))["pca"]
    assert finding.urgent
    chance = replace(found.comparison, squared_error=1.01 * found.comparison.squared_error_pca)
    assert "pca" not in by_kind(good, replace(found, comparison=chance))


def test_losing_to_pca_is_no_alarm_where_squared_error_is_not_the_aim(
    good: Autoencoder, found: Measurements
) -> None:
    worse = replace(found.comparison, squared_error=2 * found.comparison.squared_error_pca)
    denoising = copy.copy(good)
    denoising.corruption = "masking"
    assert not by_kind(denoising, replace(found, comparison=worse))["pca"].urgent


def test_a_column_of_noise_is_not_learned() -> None:
    X = frame()
    X["noise"] = np.random.default_rng(3).normal(size=len(X))
    ae = fitted(X, n_components=3)
    finding = by_kind(ae, examine(ae, X))["not-learned"]
    assert "1 column is not learned" in finding.text
    assert "noise" in finding.text


def test_a_network_that_learned_nothing_is_told(good: Autoencoder, found: Measurements) -> None:
    nothing = replace(found.comparison, r2=0.02)
    told = by_kind(good, replace(found, comparison=nothing))
    assert "only 2 %" in told["nothing"].sentence
    assert "not-learned" not in told


def test_a_planted_shift_is_told_with_its_column(good: Autoencoder) -> None:
    X = rows(seed=1)
    X[:, 5] += 3 * X[:, 5].std()
    finding = by_kind(good, examine(good, X))["shift"]
    assert finding.urgent
    assert "score lower" in finding.text
    assert "x5" in finding.text
    assert "3.0 standard deviations higher" in finding.text
    assert "x4" not in finding.text


def test_a_shift_that_scores_do_not_see_is_no_alarm(good: Autoencoder, found: Measurements) -> None:
    moved = found.columns.is_shifted.copy()
    moved[2] = True
    columns = replace(found.columns, is_shifted=moved)
    finding = by_kind(good, replace(found, columns=columns))["shift"]
    assert not finding.urgent
    assert "x2" in finding.text


def test_changed_levels_are_a_shift(mixed: Autoencoder) -> None:
    X = frame(seed=1)
    X["city"] = "Porto"
    finding = by_kind(mixed, examine(mixed, X))["shift"]
    assert "the categories of “⁨city⁩” changed in" in finding.text


def test_rows_that_score_too_well_are_told(good: Autoencoder, found: Measurements) -> None:
    scores = replace(
        found.scores,
        rows=replace(found.scores.rows, score=found.scores.rows.score + 50),
        distance=0.9,
        p_value=0.0,
    )
    told = by_kind(good, replace(found, scores=scores))
    assert "higher" in told
    assert "shift" not in told


def test_levels_that_training_did_not_have_are_told(mixed: Autoencoder) -> None:
    X = frame(seed=1)
    assert "unseen" not in by_kind(mixed, examine(mixed, X))
    X.loc[:2, "city"] = "Bergen"
    assert "3 cells" in by_kind(mixed, examine(mixed, X))["unseen"].text


def test_columns_full_of_holes_are_told(good: Autoencoder) -> None:
    X = rows(seed=1)
    X[:300, 1] = np.nan
    assert "missing" not in by_kind(good, examine(good, X))
    X[:700, 1] = np.nan
    X[:, 4] = np.nan
    text = by_kind(good, examine(good, X))["missing"].text
    assert "In 2 columns" in text
    assert "1 of them is empty" in text


def test_planted_unused_components_are_counted() -> None:
    ae = fitted(rows(), n_components=6)
    assert "unused" not in by_kind(ae, examine(ae, rows(seed=1)))
    with torch.no_grad():
        ae.network_.pairs[-1].weight[[1, 4]] = 0
    finding = by_kind(ae, examine(ae, rows(seed=1)))["unused"]
    assert finding.text.startswith("2 of 6 components are unused")
    assert "n_components=4" in finding.advice


def test_planted_twins_are_told() -> None:
    ae = fitted(rows(), n_components=3)
    with torch.no_grad():
        ae.network_.pairs[-1].weight[0] /= 2**0.5
        ae.network_.pairs[-1].weight[2] = ae.network_.pairs[-1].weight[0]
    finding = by_kind(ae, examine(ae, rows(seed=1)))["twins"]
    assert "such as 0 and 2 (correlation 1.00)" in finding.text
    assert "n_components=2" in finding.advice


def test_constant_columns_are_told() -> None:
    X = frame().assign(country="NO", one=1.0)
    ae = fitted(X, kinds={"country": "category"})
    finding = by_kind(ae, examine(ae, X))["constant"]
    assert finding.text.startswith("2 columns held one value only in training")


def test_ignored_columns_are_told_with_the_reason() -> None:
    X = frame().assign(key=[f"k{i}" for i in range(1500)])
    ae = fitted(X)
    assert "looks like an identifier" in by_kind(ae, examine(ae, X))["ignored"].text


@pytest.mark.parametrize(("n", "urgent"), [(15, True), (50, False)])
def test_few_rows_for_the_threshold_are_told(
    good: Autoencoder, found: Measurements, n: int, urgent: bool
) -> None:
    scores = replace(found.scores, held_out=found.scores.held_out[:n])
    finding = by_kind(good, replace(found, scores=scores))["few-rows"]
    assert finding.urgent == urgent
    assert f"{n} rows" in finding.text


def test_a_chosen_share_needs_no_rows_for_its_threshold(
    good: Autoencoder, found: Measurements
) -> None:
    scores = replace(found.scores, held_out=found.scores.held_out[:15])
    chosen = copy.copy(good)
    chosen.contamination = 0.1
    assert "few-rows" not in by_kind(chosen, replace(found, scores=scores))


def test_a_threshold_of_training_rows_is_told(good: Autoencoder, found: Measurements) -> None:
    without = with_history(good, history([1.0, 0.2] + [0.1] * 10), 12)
    told = by_kind(without, found)
    assert told["calibration"].urgent
    assert "over-fitting" not in in_order(without, found, list(told.values()))


def test_few_rows_call_for_no_judgement_of_rows(good: Autoencoder) -> None:
    X = rows(9) + 100.0
    done = examine(good, X)
    assert not {"shift", "not-learned", "nothing", "pca"} & set(by_kind(good, done))
    assert "shift since training" not in in_order(good, done, [])


def test_many_columns_are_named_in_part() -> None:
    assert named([f"c{i}" for i in range(2000)], 2) == "“⁨c0⁩”, “⁨c1⁩” and 1,998 more"


def test_what_is_said_in_a_terminal_has_no_invisible_letters(good: Autoencoder) -> None:
    X = rows(seed=1)
    X[:, 1] = np.nan
    said = by_kind(good, examine(good, X))["missing"].sentence
    assert "“x1”" in said
    assert said.isprintable()


def test_what_lowers_all_scores_is_named_though_no_mean_has_moved(good: Autoencoder) -> None:
    X = rows(seed=1)
    X[:, 6] += np.where(X[:, 0] > 0, 2.5, -2.5) - 2.5 * np.sign(X[:, 0]).mean()
    found = examine(good, X)
    assert not found.columns.is_shifted.any()
    assert "What lowers them most is “x6”" in by_kind(good, found)["shift"].sentence


def test_the_training_table_is_recognised(good: Autoencoder) -> None:
    finding = by_kind(good, examine(good, rows()))["training-rows"]
    assert not finding.urgent
    assert "trained or calibrated on" in finding.text


def test_new_rows_are_not_taken_for_training_rows(good: Autoencoder, found: Measurements) -> None:
    assert "training-rows" not in by_kind(good, found)
    assert "rows that the model has not seen" in in_order(good, found, [])


def test_levels_that_share_an_input_are_named_after_ignored_columns() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=300), "key": [f"K{i}" for i in range(300)]})
    frame["name"] = [f"N{i}" for i in rng.integers(0, 140, 300)]
    ae = Autoencoder(n_components=1, epochs=1, random_state=0).fit(frame)
    told = [f.kind for f in run_checks(ae, examine(ae, frame)) if not f.urgent]
    assert told[:2] == ["ignored", "pooled"]
