from __future__ import annotations

import io
import re
from xml.etree import ElementTree as Tree

import numpy as np
import pytest
from PIL import Image

from twofold.report import charts
from twofold.report.charts import Axis, Mark, Series

LINES = [
    Series("training", [1, 2, 3], [0.5, 0.3, 0.2], "thin"),
    Series("held-out", [1, 2, 3], [0.6, float("nan"), 0.3], ""),
]


def drawn(markup: str) -> Tree.Element:
    """A drawing as a tree, which only well-formed ones have."""
    return Tree.fromstring(str(markup))


def texts(markup: str) -> list[str]:
    return ["".join(t.itertext()) for t in drawn(markup).iter("text")]


def histogram(**more: object) -> str:
    edges = np.array([-2.0, -1.0, 0.0, 1.0])
    bars = np.array([1.0, 4.0, 2.0])
    return charts.histogram("h", "Scores", "Of rows.", edges, bars, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "markup",
    [
        charts.lines("a", "Loss & more", "<fell>", LINES, Mark(2, "epoch 2 kept"), "epoch"),
        charts.lines("a", "Loss", "", [Series("one", [1], [0.1], "")]),
        charts.lines("a", "Loss", "", []),
        histogram(mark=Mark(-1, "threshold"), outline=np.ones(3), first="3 lower", level=2.0),
        charts.spikes("a", "Spread", "", np.arange(500.0), [3], str),
        charts.spikes("a", "Spread", "", np.zeros(1), [0], str),
        charts.scatter("a", "Map", "", [("p1", np.eye(2)), ("anomaly", np.zeros((0, 2)))]),
        charts.scatter("a", "Map", "", [("p1", np.full((9, 2), np.nan))]),
    ],
)
def test_drawings_are_well_formed_and_named(markup: str) -> None:
    tree = drawn(markup)
    assert (tree.get("role"), tree.get("class")) == ("img", "chart")
    named = (tree.get("aria-labelledby") or "").split()
    assert [child.get("id") for child in tree][:2] == named
    assert not re.search(r"\bnan\b|\binf\b", str(markup))


def test_losses_of_one_order_are_on_a_straight_axis() -> None:
    assert {"0.2", "0.4", "0.6"} <= set(texts(charts.lines("a", "Loss", "", LINES)))


def test_losses_of_several_orders_are_on_a_logarithmic_axis() -> None:
    fall = Series("loss", [1, 2, 3], [10.0, 1.0, 0.01], "")
    assert {"10.00", "1.00", "0.10", "0.01"} <= set(texts(charts.lines("a", "Loss", "", [fall])))


def test_epochs_are_whole() -> None:
    two = Series("loss", [1, 2], [2.0, 1.0], "")
    shown = texts(charts.lines("a", "Loss", "", [two], x_label="epoch"))
    assert shown[-2:] == ["1", "epoch 2"]


def test_bars_below_the_mark_have_its_colour() -> None:
    bars = drawn(histogram(mark=Mark(-1, "threshold"))).iter("rect")
    assert [bar.get("class") for bar in bars] == ["anomaly", "net", "net"]


def test_bars_are_as_high_as_their_numbers() -> None:
    heights = [float(bar.get("height") or 0) for bar in drawn(histogram()).iter("rect")]
    np.testing.assert_allclose(np.array(heights) / heights[1], [0.25, 1, 0.5], atol=0.01)


def test_few_spikes_are_written_over_and_marked_ones_crossed() -> None:
    markup = charts.spikes("a", "Spread", "", np.array([1.0, 0.0, 3.0]), [1], "{:.0f}!".format)
    assert {"1!", "0!", "3!"} <= set(texts(markup))
    crosses = [p for p in drawn(markup).iter("path") if p.get("class") == "cross anomaly"]
    assert len(crosses) == 1


def test_every_point_is_a_dot() -> None:
    points = np.random.default_rng(0).normal(size=(1000, 2))
    markup = charts.scatter("a", "Map", "", [("p1", points)])
    assert [(p.get("d") or "").count("M") for p in drawn(markup).iter("path")] == [1000]
    assert len(markup) < 16_000


def test_points_far_out_stand_at_the_edge_of_the_frame() -> None:
    points = np.vstack([np.random.default_rng(0).normal(size=(1000, 2)), [[1e6, -1e6]]])
    assert charts.beyond(points) == 1
    dots = drawn(charts.scatter("a", "Map", "", [("p1", points)])).find("path")
    assert dots is not None
    places = re.findall(r"M(-?\d+) (-?\d+)h0", dots.get("d") or "")
    assert max(int(a) for a, _ in places) <= 10 * charts.WIDTH
    assert max(int(b) for _, b in places) <= 4600


def test_labels_that_would_cover_each_other_are_left_out() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2))
    here = np.zeros(2)
    marks = [(str(i), here) for i in range(9)]
    tree = drawn(charts.scatter("a", "Map", "", [("p1", points)], marks))
    assert len(list(tree.iter("circle"))) == 9
    assert len(list(tree.iter("text"))) == 2


@pytest.mark.parametrize("share", [-3.0, 0.5, 7.0, float("nan")])
def test_bars_of_cells_stay_in_their_track(share: float) -> None:
    widths = [
        float(r.get("width") or 0) for r in drawn(charts.bar(share, other=share)).iter("rect")
    ]
    assert all(0 <= width <= 100 for width in widths)


@pytest.mark.parametrize(
    ("low", "high", "whole"), [(0.0, 1.0, False), (-1e9, 1e-9, False), (1.0, 3.0, True)]
)
def test_ticks_are_few_and_inside(low: float, high: float, whole: bool) -> None:
    ticks = Axis(low, high, 0, 100).ticks(6, whole)
    assert 1 <= len(ticks) <= 7
    assert min(ticks) >= low - 1e-9 * abs(low)
    assert max(ticks) <= high + 1e-9 * abs(high)


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (6, 4, 3)], ids=str)
def test_a_png_holds_the_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=shape).astype(np.uint8)
    with Image.open(io.BytesIO(charts.png(pixels))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_heat_runs_from_black_to_yellow() -> None:
    colours = charts.heat(np.array([[0.0, 2.0, 9.0, np.nan]]), 2.0)[0]
    assert colours.tolist() == [[0, 0, 4], [252, 255, 164], [252, 255, 164], [0, 0, 4]]


def test_shades_run_from_black_to_white() -> None:
    image = np.array([[0.0, 5.0, 10.0, 99.0, np.nan]])
    assert charts.shades(image, 0, 10).tolist() == [[0, 128, 255, 255, 0]]


def test_large_images_are_shrunk_by_averaging() -> None:
    image = np.arange(16.0).reshape(4, 4)
    assert charts.shrunk(image, 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert charts.shrunk(image, 4) is image
    assert charts.shrunk(np.ones((300, 20, 3))).shape == (100, 7, 3)
