"""Each corruption corrupts what it says it does, and no more."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from twofold import Autoencoder, Conv, Recurrent, datasets, load
from twofold.data.sources import read
from twofold.data.table import Table
from twofold.errors import OptionError
from twofold.nn.corruption import (
    Binarize,
    Corruption,
    Gaussian,
    Masking,
    SaltAndPepper,
    Swap,
    Warp,
    from_json,
    resolve,
    to_json,
)
from twofold.nn.network import stack_shape
from twofold.nn.objective import Objective
from twofold.schema.schema import Schema
from twofold.training.autograd import corrupt
from twofold.training.trainer import evaluate

# Columns of three, one and two inputs.
COLUMN = torch.tensor([0, 0, 0, 1, 2, 2])


@dataclass
class Inputs:
    """What inputs are of, as an `Objective` knows."""

    column: torch.Tensor
    center: torch.Tensor
    unit: torch.Tensor
    row_shape: tuple[int, ...]


def inputs(column: torch.Tensor, *row_shape: int) -> Inputs:
    zeros = torch.zeros(len(column))
    return Inputs(column, zeros, zeros + 1, row_shape or (len(column),))


CELLS = inputs(COLUMN)
X = torch.randn(4000, 6, generator=torch.Generator().manual_seed(3))
ALL: list[Corruption] = [
    Masking(0.3),
    Masking(0.5, up_to=True, only_hidden=True),
    Swap(0.2),
    Gaussian(0.4),
    SaltAndPepper(0.2),
]
WITH_IMAGES: list[Corruption] = [*ALL, Warp(0.5)]
SHARES = [(Masking(0.3), 0.3), (Masking(0.6, up_to=True), 0.3), (Swap(0.2), 0.2)]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(corruption: Corruption, x: torch.Tensor = X) -> torch.Tensor:
    return corruption(x, CELLS, source()) != x  # NaN differs from all


@pytest.mark.parametrize(("corruption", "share"), [*SHARES, (SaltAndPepper(0.2), 0.2)])
def test_corrupts_its_share_of_the_cells(corruption: Corruption, share: float) -> None:
    cells = changed(corruption)[:, [0, 3, 4]]
    assert cells.float().mean(0).tolist() == pytest.approx([share] * 3, abs=0.03)


@pytest.mark.parametrize("corruption", [s for s, _ in SHARES], ids=repr)
def test_inputs_of_one_cell_share_its_fate(corruption: Corruption) -> None:
    corrupted = changed(corruption)
    assert torch.equal(corrupted[:, 0], corrupted[:, 1])
    assert torch.equal(corrupted[:, 0], corrupted[:, 2])
    assert torch.equal(corrupted[:, 4], corrupted[:, 5])
    assert not torch.equal(corrupted[:, 0], corrupted[:, 3])


def test_masking_up_to_hides_another_share_in_each_row() -> None:
    wide = torch.ones(500, 400)
    given = Masking(0.6, up_to=True)(wide, inputs(torch.arange(400)), source())
    shares = torch.isnan(given).float().mean(1)
    assert shares.min() < 0.05
    assert 0.55 < shares.max() < 0.7


def test_swap_takes_cells_of_the_same_column() -> None:
    x = torch.arange(6) * 1000.0 + torch.arange(900.0)[:, None]
    given = Swap(0.5)(x, CELLS, source())
    assert torch.equal(given // 1000, x // 1000)
    # All inputs of a swapped cell come from one row.
    assert torch.equal(given[:, 0] % 1000, given[:, 2] % 1000)


def test_gaussian_adds_noise_of_its_scale() -> None:
    noise = Gaussian(0.4)(X, CELLS, source()) - X
    assert noise.std(0).tolist() == pytest.approx([0.4] * 6, rel=0.05)
    assert abs(float(noise.mean())) < 0.01


def test_salt_and_pepper_sets_extremes() -> None:
    given = SaltAndPepper(0.2)(X, CELLS, source())
    corrupted = given != X
    low, high = X.amin(0).expand_as(X)[corrupted], X.amax(0).expand_as(X)[corrupted]
    salt, pepper = given[corrupted] == high, given[corrupted] == low
    assert (salt | pepper).all()
    assert 0.45 < float(salt.float().mean()) < 0.55


@pytest.mark.parametrize("corruption", ALL, ids=repr)
def test_the_generator_decides(corruption: Corruption) -> None:
    def corrupted(seed: int) -> torch.Tensor:
        return corruption(X, CELLS, source(seed)).nan_to_num(7)

    assert torch.equal(corrupted(1), corrupted(1))
    assert not torch.equal(corrupted(1), corrupted(2))


@pytest.mark.parametrize("corruption", ALL, ids=repr)
def test_the_rows_stay_as_they_are(corruption: Corruption) -> None:
    before = X.clone()
    corruption(X, CELLS, source())
    assert torch.equal(X, before)


@pytest.mark.parametrize("corruption", WITH_IMAGES, ids=repr)
def test_json_gives_it_back(corruption: Corruption) -> None:
    assert from_json(json.loads(json.dumps(to_json(corruption)))) == corruption


@pytest.mark.parametrize(
    ("text", "corruption"),
    [
        ("masking:0.3", Masking(0.3)),
        ("swap", Swap()),
        ("gaussian:2", Gaussian(2.0)),
        ("salt-and-pepper:0.05", SaltAndPepper(0.05)),
        ("warp:0.5", Warp(0.5)),
        ("warp", Warp()),
    ],
)
def test_a_word_stands_for_it(text: str, corruption: Corruption) -> None:
    assert resolve(text) == corruption


def test_an_object_and_none_stand_for_themselves() -> None:
    assert resolve(None) is None
    assert resolve(ALL[0]) is ALL[0]


@pytest.mark.parametrize("kind", [Masking, Swap, SaltAndPepper])
@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), "half"])
def test_a_share_that_means_nothing_is_refused(kind: Any, share: Any) -> None:
    with pytest.raises(OptionError, match="Expected a share between 0 and 1"):
        kind(share)


@pytest.mark.parametrize("scale", [0, -1, float("inf"), float("nan")])
def test_a_scale_that_means_nothing_is_refused(scale: float) -> None:
    with pytest.raises(OptionError, match="scale to be above 0"):
        Gaussian(scale)
    with pytest.raises(OptionError, match="amount to be above 0"):
        Warp(scale)


@pytest.mark.parametrize("text", ["dropout", "masking:", "masking:x", "masking:nan", "masking:1.5"])
def test_a_word_that_means_nothing_is_refused(text: str) -> None:
    if text == "masking:":  # no number is the default one
        assert resolve(text) == Masking()
        return
    with pytest.raises(OptionError):
        Autoencoder(corruption=text).fit(np.zeros((4, 2)))


def objective() -> Objective:
    return Objective(Schema.infer(Table(X.numpy())))


def test_the_clean_row_is_the_target() -> None:
    given, target = corrupt(Masking(0.3), X, objective(), source())
    assert torch.isnan(given).any()
    assert torch.equal(target, X)


def test_only_hidden_cells_are_the_target() -> None:
    x = X.clone()
    x[:, 2] = torch.nan
    given, target = corrupt(Masking(0.3, only_hidden=True), x, objective(), source())
    assert torch.equal(torch.isnan(target), ~torch.isnan(given) | torch.isnan(x))
    there = ~torch.isnan(target)
    assert torch.equal(target[there], x[there])


def test_without_corruption_the_row_is_input_and_target() -> None:
    given, target = corrupt(None, X, objective(), source())
    assert given is X
    assert target is X


def test_a_code_may_be_wider_than_the_input_only_with_noise_to_remove() -> None:
    assert stack_shape(4, (9,), 9, denoising=True) == ((9,), 9)
    with pytest.raises(OptionError, match="or set corruption"):
        stack_shape(4, (9,), 9)


def test_a_model_keeps_its_corruption(tmp_path: Any) -> None:
    noise = Masking(0.4, up_to=True, only_hidden=True)
    ae = Autoencoder(n_components=8, hidden_layers=(), corruption=noise, epochs=2, random_state=0)
    ae.fit(X[:200].numpy()).save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.corruption == noise
    np.testing.assert_array_equal(again.transform(X[:9].numpy()), ae.transform(X[:9].numpy()))


def test_masking_teaches_to_fill_holes() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 1)) @ np.ones((1, 5))
    ae = Autoencoder(
        n_components=8,
        hidden_layers=(16,),
        activation="gelu",
        corruption=Masking(0.5, up_to=True, only_hidden=True),
        epochs=30,
        random_state=0,
    ).fit(rows)
    holed = rows.copy()
    holed[:, 2] = np.nan
    error = np.abs(ae.impute(holed)[:, 2] - rows[:, 2]).mean()
    assert error < 0.5 * np.abs(rows).mean()


def test_digits_are_cleaned_better_than_by_any_linear_map() -> None:
    digits = datasets.digits()
    x, test = (
        images.reshape(-1, 64).astype(np.float32) / 255 for images in (digits.train, digits.test)
    )
    noisy = test + 0.5 * np.random.default_rng(0).normal(size=test.shape).astype(np.float32)
    # Wiener's filter: the best linear map, for the covariance of the training rows.
    mean, covariance = x.mean(0), np.cov(x.T)
    best = covariance @ np.linalg.inv(covariance + 0.25 * np.eye(64))
    linear = np.clip(mean + (noisy - mean) @ best.T, 0, 1)
    ae = Autoencoder(
        n_components=40,
        hidden_layers=(100,),
        activation="gelu",
        likelihood="bernoulli",
        corruption="gaussian:0.5",
        epochs=40,
        patience=None,
        random_state=0,
    ).fit(x)
    error = np.square(np.clip(ae.reconstruct(noisy), 0, 1) - test).mean()
    assert error < 0.92 * np.square(linear - test).mean()


def test_a_reconstruction_holds_what_is_imputed() -> None:
    ae = Autoencoder(corruption="masking", epochs=2, random_state=0).fit(X[:300].numpy())
    holed = X[:9].numpy().copy()
    holed[:, 2] = np.nan
    np.testing.assert_allclose(ae.reconstruct(holed)[:, 2], ae.impute(holed)[:, 2], rtol=1e-5)


def test_held_out_rows_are_corrupted_alike_at_every_call() -> None:
    ae = Autoencoder(corruption="swap", epochs=1, random_state=0).fit(X[:100].numpy())
    noise = Masking(0.5, only_hidden=True)
    first, second = (evaluate(ae.network_, ae._objective, X[:50], noise) for _ in range(2))
    assert first == second
    assert first != evaluate(ae.network_, ae._objective, X[:50])


def test_binarised_inputs_are_black_or_white_with_their_value_as_probability() -> None:
    grey = torch.tensor([0.0, 0.2, 0.7, 1.0, torch.nan, 0.5]).repeat(4000, 1)
    drawn = Binarize()(grey, CELLS, source())
    assert set(drawn[:, [0, 1, 2, 3, 5]].unique().tolist()) == {0.0, 1.0}
    assert torch.isnan(drawn[:, 4]).all()
    assert drawn.nanmean(0)[[0, 1, 2, 3, 5]].tolist() == pytest.approx(
        [0, 0.2, 0.7, 1, 0.5], abs=0.03
    )


def test_what_was_drawn_is_what_has_to_be_given_back() -> None:
    grey = torch.rand(9, 6, generator=source(4))
    given = Binarize()(grey, CELLS, source())
    assert Binarize().target(given, grey) is given


@pytest.mark.parametrize("noise", [Swap(0.2), Gaussian(0.4), SaltAndPepper(0.2), Masking(0.3)])
def test_clean_inputs_have_to_be_given_back(noise: Corruption) -> None:
    assert noise.target(noise(X, CELLS, source()), X) is X


def test_binarising_numbers_that_are_no_probabilities_is_refused() -> None:
    numbers = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(OptionError, match="got 'gaussian' as well"):
        Autoencoder(corruption="binarize").fit(numbers)
    with pytest.raises(OptionError, match="Expected corruption to be"):
        Autoencoder(corruption="binarize:0.3").fit(numbers)


# --- images that are bent


HIGH, ACROSS = 20, 24


def spot(at: tuple[float, float], channels: int = 1) -> torch.Tensor:
    """Return an image of one smooth bright spot, `(height, width, channels)`."""
    down, right = torch.meshgrid(torch.arange(HIGH), torch.arange(ACROSS), indexing="ij")
    square = (down - at[0]) ** 2 + (right - at[1]) ** 2
    return torch.exp(-square / 8).unsqueeze(2).repeat(1, 1, channels)


def warped(rows: torch.Tensor, amount: float, channels: int = 1) -> torch.Tensor:
    width = HIGH * ACROSS * channels
    cells = inputs(torch.arange(width), HIGH, ACROSS, channels)
    return Warp(amount)(rows.reshape(-1, width), cells, source()).view(rows.shape)


def middle(images: torch.Tensor) -> torch.Tensor:
    """Return where the brightness of each image lies, in pixels: (n, h, w, 1) -> (n, 2)."""
    light = images.squeeze(3) / images.sum((1, 2, 3))[:, None, None]
    down = (light.sum(2) * torch.arange(HIGH)).sum(1)
    right = (light.sum(1) * torch.arange(ACROSS)).sum(1)
    return torch.stack([down, right], 1)


def test_a_warp_of_almost_nothing_changes_almost_nothing() -> None:
    images = spot((9, 14)).repeat(5, 1, 1, 1)
    assert torch.allclose(warped(images, 1e-5), images, atol=1e-3)


def test_warps_move_what_is_in_the_middle_by_the_share_of_the_sides_that_they_say() -> None:
    # Shift and bend are independent; about the middle the linear map moves nothing.
    images = spot(((HIGH - 1) / 2, (ACROSS - 1) / 2)).repeat(4000, 1, 1, 1)
    off = middle(warped(images, 0.5)) - middle(images)
    assert off.mean(0).abs().max() < 0.1
    shift = torch.tensor([HIGH, ACROSS]) * 0.5 * 0.035
    assert (off.std(0) > 0.95 * shift).all()
    assert (off.std(0) < 1.7 * shift).all()


def test_each_image_is_warped_in_a_way_of_its_own_and_all_its_channels_alike() -> None:
    images = warped(spot((9, 14), channels=3).repeat(3, 1, 1, 1), 1.0, channels=3)
    assert torch.equal(images[..., 0], images[..., 1])
    assert torch.equal(images[..., 0], images[..., 2])
    assert (images[0] - images[1]).abs().max() > 0.05


def test_cells_are_warped_and_not_inputs_that_are_scaled_each_for_itself() -> None:
    image = spot((9, 14)).reshape(1, -1)
    cells = inputs(torch.arange(image.shape[1]), HIGH, ACROSS)
    scaled = inputs(torch.arange(image.shape[1]), HIGH, ACROSS)
    scaled.center = torch.linspace(-1, 1, image.shape[1])
    scaled.unit = torch.linspace(0.5, 2, image.shape[1])
    given = Warp()((image - scaled.center) / scaled.unit, scaled, source())
    expected = Warp()(image, cells, source())
    assert torch.allclose(given * scaled.unit + scaled.center, expected, atol=1e-5)


def test_the_edge_goes_on_beyond_the_edge() -> None:
    bright = torch.ones(50, HIGH, ACROSS, 1)
    assert torch.allclose(warped(bright, 2.0), bright)


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (np.random.default_rng(0).random((40, 12)), {}, r"bends images.*got rows of shape \(12,\)"),
        (
            np.random.default_rng(0).random((40, 6, 2)),
            {"hidden_layers": (Recurrent(3),)},
            "bends images",
        ),
        (
            np.random.default_rng(0).random((90, 3, 4)),
            {"likelihood": "histogram"},
            "one number per pixel",
        ),
    ],
)
def test_what_is_no_image_is_not_bent(rows: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Autoencoder(corruption="warp", **options).fit(rows)


def test_codes_are_neither_bent_nor_drawn() -> None:
    assert Warp().for_codes(2.0) is None
    assert Binarize().for_codes(2.0) is None
    assert Gaussian(0.5).for_codes(2.0) == Gaussian(1.0)
    assert Masking(0.2).for_codes(2.0) == Masking(0.2)


@pytest.mark.parametrize("layers", [(40,), (Conv(4, 3, stride=2),)], ids=["dense", "conv"])
def test_codes_of_bent_copies_come_together(layers: Any) -> None:
    digits = datasets.digits()

    def spread_within(corruption: str | None) -> float:
        """Return how far apart codes of one digit's copies lie, in distances between digits."""
        ae = Autoencoder(
            n_components=16,
            hidden_layers=layers,
            corruption=corruption,
            epochs=30,
            random_state=0,
        ).fit(digits.train[:700])
        x = torch.from_numpy(ae.schema_.to_matrix(read(digits.test), np.dtype(np.float32)))
        copies = [
            ae.transform(255 * corrupt(Warp(), x, ae.scorer_, source(seed))[0].view(-1, 8, 8))
            for seed in (1, 2)
        ]
        within = np.linalg.norm(copies[0] - copies[1], axis=1).mean()
        return float(within / np.linalg.norm(copies[0] - copies[0][::-1], axis=1).mean())

    assert spread_within("warp") < 0.9 * spread_within(None)
