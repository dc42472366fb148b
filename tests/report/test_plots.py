from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from rich.console import Console

from twofold import Autoencoder
from twofold.errors import DataError
from twofold.report import plots

PNG = b"\x89PNG\r\n\x1a\n"


def pair(shape: tuple[int, ...], seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    original = rng.uniform(size=shape)
    return {"original": original, "reconstruction": original + rng.normal(0, 0.1, size=shape)}


def losses(n: int, start: float = 0.2, end: float = 0.1) -> list[dict[str, float]]:
    fall = np.geomspace(start, end, n)
    return [
        {"epoch": i + 1, "loss": float(loss), "validation_loss": float(loss) * 1.02}
        for i, loss in enumerate(fall)
    ]


def texts(figure: Figure) -> list[Text]:
    """Every text that the figure shows, once it was drawn."""
    plots.to_png(figure)
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def plain(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts(figure)]


@pytest.mark.parametrize(
    "shape",
    [(1, 8, 8), (20, 8, 8), (10, 28, 28), (3, 120, 200, 3), (2, 16, 16, 1), (2, 1, 50), (5, 64, 2)],
    ids=str,
)
def test_images_are_drawn(shape: tuple[int, ...]) -> None:
    assert plots.to_png(plots.rows(pair(shape))).startswith(PNG)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 12), (20, 5), (7, 40), (3, 3000), (2, 3, 2, 2, 2)], ids=str
)
def test_tables_are_drawn(shape: tuple[int, ...]) -> None:
    assert plots.to_png(plots.rows(pair(shape))).startswith(PNG)


@pytest.mark.parametrize("n", [1, 2, 31, 500])
def test_histories_are_drawn(n: int) -> None:
    assert plots.to_png(plots.history({"": losses(n)}, best_epoch=n)).startswith(PNG)


def test_every_image_stands_under_its_original() -> None:
    stacks = pair((4, 8, 6)) | {"PCA": np.zeros((4, 8, 6))}
    left = [image.get_extent()[0] for image in plots.rows(stacks).axes[0].images]
    assert left[:4] == left[4:8] == left[8:]
    assert left[:4] == sorted(set(left))


def test_all_images_share_one_grey_scale() -> None:
    stack = np.arange(16.0).reshape(2, 2, 4)
    images = plots.rows({"original": stack * 10, "dim": stack * 5, "over": stack * 99}).axes[0]
    shades = np.array([image.get_array() for image in images.images])
    np.testing.assert_allclose(shades[:2].ravel(), stack.ravel() * 10 / 255)
    np.testing.assert_allclose(shades[2:4].ravel(), stack.ravel() * 5 / 255)
    assert shades[4:].max() == 1.0
    assert {image.get_clim() for image in images.images} == {(0, 1)}


@pytest.mark.parametrize("value", [-3.0, 0.0, 1.0, 400.0])
def test_images_of_one_value_are_drawn(value: float) -> None:
    flat = np.full((2, 8, 8), value)
    assert plots.to_png(plots.rows({"original": flat, "reconstruction": flat}))


def test_stacks_are_named() -> None:
    assert {"original", "tied, $5"} <= set(
        words(plots.rows({"original": np.eye(4)[None], "tied, $5": np.eye(4)[None]}))
    )


def test_few_columns_are_named() -> None:
    shown = words(
        plots.rows(pair((2, 3)), names=("age", "US$ to C$", "a name much too long to show"))
    )
    assert {"age", "US$ to C$", "a name much too l…"} <= set(shown)


def test_many_columns_are_numbered_sparsely() -> None:
    names = [f"column {i}" for i in range(3000)]
    shown = words(plots.rows(pair((2, 3000)), names=names))
    assert not set(names) & set(shown)
    assert len(shown) < 40


def test_columns_of_one_magnitude_keep_their_values() -> None:
    stacks = pair((4, 5))
    line = plots.rows(stacks).axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), stacks["original"][0])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_columns_of_unlike_magnitudes_get_a_unit_each(n: int) -> None:
    stacks = {title: rows * [1, 1, 50_000] for title, rows in pair((n, 3)).items()}
    figure = plots.rows(stacks)
    assert max(np.abs(line.get_ydata()).max() for line in figure.axes[0].lines) <= 1
    assert any(word.startswith("each column") for word in words(figure))


def test_a_table_of_zeros_is_drawn() -> None:
    zeros = np.zeros((3, 4))
    assert plots.to_png(plots.rows({"original": zeros, "reconstruction": zeros}))


@pytest.mark.parametrize(
    "stacks",
    [
        {},
        {"a": np.zeros((2, 3)), "b": np.zeros((2, 4))},
        {"a": np.zeros((0, 3))},
        {"a": np.zeros(3)},
    ],
    ids=["none", "unlike", "empty", "one row without an axis"],
)
def test_what_cannot_be_drawn_is_refused(stacks: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(DataError, match="Expected stacks of one shape|Expected at least one row"):
        plots.rows(stacks)


def test_bars_without_a_name_each_are_refused() -> None:
    with pytest.raises(DataError, match="a value for each of 2 names, got 3"):
        plots.bars(["a", "b"], [1, 2, 3], "nats")


def test_validation_loss_is_thicker_in_the_same_colour() -> None:
    thin, thick = plots.history({"": losses(5)}).axes[0].lines
    assert thin.get_color() == thick.get_color()
    assert thick.get_linewidth() >= 2 * thin.get_linewidth()


def test_every_history_has_its_colour_and_label() -> None:
    figure = plots.history({"stacked": losses(5), "tied": losses(5)})
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2
    assert {"stacked: training", "tied: validation"} <= set(words(figure))


def test_one_history_needs_no_label() -> None:
    assert {"training", "validation"} <= set(words(plots.history({"": losses(5)})))


def test_a_history_without_validation_is_drawn() -> None:
    entries = [{"epoch": 1, "loss": 0.3}, {"epoch": 2, "loss": 0.2}]
    figure = plots.history({"": entries}, best_epoch=2)
    assert {"training", "epoch 2 kept"} <= set(words(figure))
    assert "validation" not in words(figure)


def test_the_kept_epoch_is_marked() -> None:
    figure = plots.history({"": losses(9)}, best_epoch=7)
    mark = figure.axes[0].lines[-1]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (7, losses(9)[6]["validation_loss"])
    assert "epoch 7 kept" in words(figure)


def test_each_history_may_have_a_kept_epoch_of_its_own() -> None:
    figure = plots.history({"a": losses(9), "b": losses(9)}, best_epoch={"a": 3, "b": 8})
    assert {"epoch 3 kept", "epoch 8 kept"} <= set(words(figure))


def test_no_epochs_are_said_to_be_none() -> None:
    assert "no epoch was finished" in words(plots.history({"": []}, best_epoch=0))


def test_references_are_lines_with_labels() -> None:
    figure = plots.history({"": losses(5)}, references={"floor": 0.05})
    assert any(set(line.get_ydata()) == {0.05} for line in figure.axes[0].lines)
    assert "floor" in words(figure)


@pytest.mark.parametrize(("end", "scale"), [(0.1, "linear"), (0.001, "log")])
def test_a_log_scale_is_for_losses_that_fall_far(end: float, scale: str) -> None:
    assert plots.history({"": losses(40, end=end)}).axes[0].get_yscale() == scale


def test_negative_losses_stay_on_a_linear_scale() -> None:
    entries = [{"epoch": 1, "loss": 5.0}, {"epoch": 2, "loss": -0.1}]
    assert plots.history({"": entries}).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.rows(pair((3, 8, 8))),
        lambda: plots.rows(pair((3, 5)), names=list("abcde")),
        lambda: plots.rows(pair((5, 3000))),
        lambda: plots.history({"": losses(9)}, best_epoch=7, references={"floor": 0.05}),
    ],
    ids=["images", "table", "wide table", "history"],
)
def test_no_text_is_smaller_than_8_points(draw: Callable[[], Figure]) -> None:
    assert min(text.get_fontsize() for text in texts(draw())) >= 8


def test_a_dark_style_of_the_caller_hides_nothing() -> None:
    light = {"text.color": "w", "axes.labelcolor": "w", "xtick.color": "w", "ytick.color": "w"}
    with matplotlib.rc_context({**light, "axes.facecolor": "k", "figure.facecolor": "k"}):
        for figure in (
            plots.rows(pair((2, 8, 8))),
            plots.rows(pair((2, 5))),
            plots.rows(pair((2, 50))),
            plots.history({"a": losses(9)}, best_epoch=3, references={"floor": 0.05}),
            plots.history({"": []}),
        ):
            shown = {to_hex(text.get_color()) for text in texts(figure)}
            assert shown <= {"#1a1a1a", "#6b6b6b"}
            assert {axes.get_facecolor() for axes in figure.axes} == {(1, 1, 1, 1)}
            assert figure.get_facecolor() == (1, 1, 1, 1)


def test_a_notebook_can_show_a_figure() -> None:
    assert plots.history({"": losses(2)})._repr_png_().startswith(PNG)


def test_pyplot_and_settings_are_left_alone() -> None:
    code = (
        "import sys, numpy, matplotlib; from twofold.report import plots; "
        "before = dict(matplotlib.rcParams); "
        "plots.to_png(plots.rows({'a': numpy.eye(9)[None]})); "
        "plots.to_png(plots.history({'': []})); "
        "assert 'matplotlib.pyplot' not in sys.modules; "
        "assert dict(matplotlib.rcParams) == before"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("shape", [(40, 6), (40, 5, 4)], ids=["table", "images"])
def test_a_fitted_model_draws_its_rows(shape: tuple[int, ...]) -> None:
    X = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    ae = Autoencoder(
        n_components=2, shortcut=False, epochs=1, contamination=0.1, patience=10, random_state=0
    )
    with pytest.warns(UserWarning, match="PCA"):
        ae.fit(X)
    assert {"original", "reconstruction"} <= set(words(ae.plot_reconstructions(X, n_rows=3)))
    assert "epoch 1 kept" in words(ae.plot_history())


def test_images_in_the_terminal_fit_its_width() -> None:
    images = np.full((8, 28, 28), 255, dtype=np.uint8)
    lines = plots.terminal_images(images, plain(width=50)).plain.splitlines()
    assert [len(line) for line in lines] == [3 * 14 + 2] * 7


def test_images_in_the_terminal_lose_a_margin_they_share() -> None:
    images = np.zeros((2, 12, 12), dtype=np.uint8)
    images[0, 4:6, 3:5] = 255
    images[1, 6:8, 5:7] = 255
    assert plots.terminal_images(images, plain()).plain == "██       \n       ██"


def test_black_images_in_the_terminal_are_black() -> None:
    assert not plots.terminal_images(np.zeros((1, 4, 4), dtype=np.uint8), plain()).plain.strip()


def test_a_terminal_without_blocks_gets_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    images = np.array([[[255, 0, 255], [255, 255, 0]]], dtype=np.uint8)
    assert plots.terminal_images(images, Console(file=stream, width=80)).plain == "#.'"


def test_a_colour_terminal_gets_grey_levels() -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="truecolor", _environ={}
    )
    text = plots.terminal_images(np.array([[[200], [9]]], dtype=np.uint8), console)
    assert text.plain == "▀"
    assert text.spans[0].style == "rgb(200,200,200) on rgb(9,9,9)"


@pytest.mark.parametrize("title", ["component 0", "a name as long as they come"])
def test_labels_of_images_are_not_clipped(title: str) -> None:
    figure = plots.rows({title: np.zeros((10, 8, 8)), "b": np.zeros((10, 8, 8))})
    figure.draw_without_rendering()
    (axes,) = figure.axes
    edges = [label.get_window_extent().x0 for label in axes.get_yticklabels()]
    assert min(edges) >= 0


def test_axes_of_a_map_have_names() -> None:
    figure = plots.places(np.zeros((3, 2)), np.arange(3.0), "score (nats)", ("first", "second"))
    assert {"first", "second", "score (nats)"} <= set(words(figure))


def test_values_of_rows_have_a_name() -> None:
    assert "value" in words(plots.rows(pair((2, 5))))
