"""Codes are looked at: neighbours, maps and traversals say what the codes say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from twofold import Autoencoder
from twofold.errors import DataError, OptionError
from twofold.inference import neighbors
from twofold.report.plots import places, to_png

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return load_digits().images[:300].astype(np.float32)


@pytest.fixture(scope="module")
def fitted(digits: np.ndarray) -> Autoencoder:
    return Autoencoder(n_components=6, epochs=80, random_state=0).fit(digits)


def test_the_nearest_row_is_the_row_itself(fitted: Autoencoder, digits: np.ndarray) -> None:
    distances, positions = fitted.nearest(digits[10:14], digits, n=3)
    assert positions[:, 0].tolist() == [10, 11, 12, 13]
    np.testing.assert_allclose(distances[:, 0], 0, atol=1e-2)
    assert (np.diff(distances, axis=1) >= 0).all()


def test_more_neighbours_than_rows_are_refused(fitted: Autoencoder, digits: np.ndarray) -> None:
    with pytest.raises(OptionError, match="Expected n to be an integer from 1 to 4, got 5"):
        fitted.nearest(digits[:1], digits[:4])


def test_codes_of_two_components_are_their_own_map() -> None:
    pairs = RNG.normal(size=(9, 2))
    assert neighbors.on_a_map(pairs, "auto", np.random.RandomState(0)) is pairs


def test_longer_codes_lie_in_the_plane_of_largest_variance() -> None:
    wide = RNG.normal(size=(200, 5)) * np.array([5, 0.1, 3, 0.1, 0.1])
    placed = neighbors.on_a_map(wide, "auto", np.random.RandomState(0))
    centred = wide - wide.mean(0)
    assert abs(np.corrcoef(placed[:, 0], centred[:, 0])[0, 1]) > 0.99
    assert abs(np.corrcoef(placed[:, 1], centred[:, 2])[0, 1]) > 0.99


@pytest.mark.parametrize("shape", [(1, 5), (2, 1), (7, 1)])
def test_few_rows_and_components_have_a_map(shape: tuple[int, int]) -> None:
    placed = neighbors.on_a_map(RNG.normal(size=shape), "pca", np.random.RandomState(0))
    assert placed.shape == (shape[0], 2)
    assert np.isfinite(placed).all()


def test_neighbours_stay_together_in_tsne() -> None:
    clusters = np.repeat([[0.0] * 8, [9.0] * 8], 30, axis=0) + RNG.normal(size=(60, 8))
    placed = neighbors.on_a_map(clusters, "tsne", np.random.RandomState(0))
    _, positions = neighbors.nearest(placed, placed, 4)
    assert ((positions < 30) == (np.arange(60) < 30)[:, None]).mean() > 0.95


@pytest.mark.parametrize(
    ("method", "said"),
    [("umap", "got 'umap'"), ("codes", "Expected codes of 2 components, .*got 6")],
)
def test_maps_that_cannot_be_are_refused(
    fitted: Autoencoder, digits: np.ndarray, method: str, said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        fitted.code_map(digits, method)


def test_three_rows_are_too_few_for_tsne() -> None:
    with pytest.raises(OptionError, match="Expected at least 4 rows"):
        neighbors.on_a_map(RNG.normal(size=(3, 4)), "tsne", np.random.RandomState(0))


def test_a_traversal_moves_one_component_alone(fitted: Autoencoder, digits: np.ndarray) -> None:
    values, moved = fitted.traverse(digits[:1], 2, steps=5)
    code = np.repeat(fitted.transform(digits[:1]), 5, axis=0)
    code[:, 2] = values
    assert moved.shape == (5, 8, 8)
    np.testing.assert_array_equal(moved, fitted.inverse_transform(code))


def test_a_traversal_reaches_as_far_as_training_codes_do(
    fitted: Autoencoder, digits: np.ndarray
) -> None:
    values, _ = fitted.traverse(digits[:1], 0, steps=3)
    of_all = fitted.transform(digits)[:, 0]
    assert values[1] == pytest.approx(float(of_all.mean()), abs=0.2 * float(of_all.std()))
    assert values[2] - values[0] == pytest.approx(4 * float(of_all.std()), rel=0.2)


def test_a_traversal_says_which_component_is_not_there(
    fitted: Autoencoder, digits: np.ndarray
) -> None:
    with pytest.raises(OptionError, match="from 0 to 5, got 6"):
        fitted.traverse(digits[:1], 6)
    with pytest.raises(OptionError, match="got 2 rows"):
        fitted.traverse(digits[:2], 0)


def test_codes_and_traversals_are_drawn(fitted: Autoencoder, digits: np.ndarray) -> None:
    assert len(to_png(fitted.plot_codes(digits))) > 5_000
    assert len(to_png(fitted.plot_codes(digits, color=load_digits().target[:300]))) > 5_000
    assert len(to_png(fitted.plot_traversals(digits[:1]))) > 5_000


def test_a_map_needs_a_colour_for_each_row() -> None:
    with pytest.raises(DataError, match="Expected a colour for each of 3 rows, got 2"):
        places(np.zeros((3, 2)), np.zeros(2))


def test_words_beyond_the_colours_there_are_share_one() -> None:
    words = np.array([f"word {i}" for i in range(30)])
    figure = places(RNG.normal(size=(30, 2)), words, "US$ to C$")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == 13
    assert texts[-1] == "others"
