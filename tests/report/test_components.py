from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from twofold.report import components
from twofold.report.components import Components, row_errors, study

Array = NDArray[Any]
RNG = np.random.default_rng(0)
CODES = RNG.normal(size=(500, 4)) * [3.0, 2.0, 1.0, 0.5]
DECODER = np.linalg.qr(RNG.normal(size=(6, 6)))[0][:4]


def studied(codes: Array = CODES, decoder: Array = DECODER, noise: float = 0.01) -> Components:
    x = codes @ decoder + noise * np.random.default_rng(1).normal(size=(len(codes), 6))
    scores = np.arange(len(codes), dtype=np.float64)
    marked = codes[:2], scores[:2]
    return study(codes, x, x.mean(0), scores, marked, lambda c: c @ decoder, decoder.size)


def test_importance_is_the_variance_that_goes() -> None:
    importance = studied().importance
    np.testing.assert_allclose(importance, CODES.var(0) / CODES.var(0).sum(), atol=0.02)


def test_spread_is_the_standard_deviation() -> None:
    np.testing.assert_allclose(studied().spread, CODES.std(0))


def test_components_that_are_all_needed_are_used() -> None:
    done = studied()
    assert done.unused == ()
    assert done.directions == 4
    assert done.n_rows == 500


def test_a_component_that_never_varies_is_unused() -> None:
    codes = CODES.copy()
    codes[:, 1] = 7.0
    assert studied(codes).unused == (1,)


def test_a_component_that_the_decoder_overlooks_is_unused() -> None:
    decoder = DECODER.copy()
    decoder[[0, 3]] = 0
    done = studied(decoder=decoder)
    assert done.unused == (0, 3)
    assert done.importance[0] == pytest.approx(0)


def test_a_code_that_brings_nothing_tells_nothing_of_its_parts() -> None:
    done = studied(noise=1e3)
    assert done.unused == ()
    assert done.directions is None


@pytest.mark.parametrize("sign", [1, -1])
def test_components_that_say_the_same_are_twins(sign: int) -> None:
    codes = CODES.copy()
    codes[:, 3] = sign * 0.5 * codes[:, 0] + 0.01 * RNG.normal(size=500)
    done = studied(codes)
    assert [pair[:2] for pair in done.twins] == [(0, 3)]
    assert done.twins[0][2] == pytest.approx(sign, abs=0.01)
    assert done.directions == 3


def test_unused_components_are_no_twins() -> None:
    codes = CODES.copy()
    codes[:, 3] = codes[:, 0]
    decoder = DECODER.copy()
    decoder[3] = 0
    done = studied(codes, decoder)
    assert (done.unused, done.twins) == ((3,), ())


def test_what_fewer_directions_cost_is_told() -> None:
    codes = CODES.copy()
    codes[:, 3] *= 0.001
    done = studied(codes)
    assert done.directions == 3
    assert 0 <= done.cost <= 0.05


def test_few_rows_show_nothing() -> None:
    done = studied(CODES[:19])
    assert (done.n_rows, done.unused, done.twins, done.directions) == (0, (), (), None)


def test_many_components_take_many_rows() -> None:
    codes = np.repeat(CODES[:30, :1], 10, axis=1)
    decoder = np.repeat(DECODER[:1], 10, axis=0)
    done = studied(codes, decoder)
    assert done.n_rows == 30
    assert (done.twins, done.directions) == ((), None)


def test_wide_decoders_are_tried_on_fewer_rows_and_components(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(components, "_PRODUCTS", 4 * DECODER.size * 100)
    monkeypatch.setattr(components, "_MOST_PRODUCTS", 3 * DECODER.size * 100)
    done = studied()
    assert done.n_rows == 100
    assert np.flatnonzero(np.isnan(done.importance)).tolist() == [0]


def test_the_map_of_a_short_code_is_the_code() -> None:
    done = studied(CODES[:, :2], DECODER[:2])
    np.testing.assert_array_equal(done.places, CODES[:, :2])
    np.testing.assert_array_equal(done.marked, CODES[:2, :2])
    assert done.shares == ()


def test_the_map_of_one_number_has_the_score_for_its_height() -> None:
    done = studied(CODES[:, :1], DECODER[:1])
    np.testing.assert_array_equal(done.places, np.column_stack([CODES[:, 0], np.arange(500)]))


def test_the_map_of_a_long_code_is_its_first_principal_plane() -> None:
    done = studied()
    values = np.linalg.eigvalsh(np.cov(CODES.T))[::-1]
    np.testing.assert_allclose(done.shares, values[:2] / values.sum())
    np.testing.assert_allclose(done.places.var(0), values[:2] * 499 / 500)
    np.testing.assert_allclose(done.marked, done.places[:2])


def test_a_row_with_holes_counts_as_if_it_had_none() -> None:
    squares = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0], [np.nan] * 3])
    assert row_errors(squares).tolist() == [6.0, 6.0, 0.0]
