"""Plots look as they did: each is drawn small and compared with a picture kept next to this file.

`python tests/report/test_pictures.py` draws the pictures again; look at them before they are kept.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from twofold.report import plots

KEPT = Path(__file__).parent / "pictures"
_ACROSS = 40  # blocks, whose mean grey is compared: other versions draw edges a pixel elsewhere
_TOLERANCE = 0.06  # of the way from black to white, in the block that differs most
# The font comes with matplotlib, so that no machine's own one is taken.
_FONT = {"font.family": "DejaVu Sans"}


def history() -> Figure:
    entries = [
        {"epoch": i + 1, "loss": 0.1 + 0.4 / (i + 1), "validation_loss": 0.12 + 0.4 / (i + 1)}
        for i in range(12)
    ]
    return plots.history({"": entries}, best_epoch=9, references={"PCA": 0.2})


def places() -> Figure:
    angle = np.linspace(0, 6, 90)
    points = np.column_stack([angle * np.cos(angle), angle * np.sin(angle)])
    return plots.places(points, np.array(["a", "b", "c"]).repeat(30), "group", ("here", "there"))


def images() -> Figure:
    image = np.add.outer(np.arange(8.0), np.arange(8.0)) / 14
    stack = np.stack([image, image.T[::-1], 1 - image])
    return plots.rows({"original": stack, "reconstruction": stack**2})


def profiles() -> Figure:
    rows = np.sin(np.arange(24.0)).reshape(4, 6)
    return plots.rows({"original": rows, "reconstruction": 0.8 * rows}, list("abcdef"))


def bars() -> Figure:
    names = ["price", "size", "a column whose name is far too long to be shown whole", "city"]
    return plots.bars(names, [7.5, 2.25, 1.0, 0.125], "mean contribution (nats)", n_bars=3)


DRAWN = (history, places, images, profiles, bars)


def picture(draw: Callable[[], Figure]) -> Image.Image:
    buffer = io.BytesIO()
    with matplotlib.rc_context(_FONT):
        draw().savefig(buffer, format="png", dpi=50)
    return Image.open(buffer).convert("L")


def blocks(drawn: Image.Image, down: int) -> np.ndarray:
    small = drawn.resize((_ACROSS, down), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255


@pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)
def test_looks_as_it_did(draw: Callable[[], Figure]) -> None:
    found, kept = picture(draw), Image.open(KEPT / f"{draw.__name__}.png")
    assert abs(np.subtract(found.size, kept.size)).max() <= 2
    down = round(_ACROSS * kept.height / kept.width)
    difference = np.abs(blocks(found, down) - blocks(kept, down))
    assert difference.max() < _TOLERANCE, f"look at {KEPT / draw.__name__}.png and draw it again"


def test_another_picture_differs_from_the_kept_one() -> None:
    def other() -> Figure:
        names = ["price", "size", "a column whose name is far too long to be shown whole", "city"]
        return plots.bars(names, [7.5, 4.0, 1.0, 0.125], "mean contribution (nats)", n_bars=3)

    kept = Image.open(KEPT / "bars.png")
    down = round(_ACROSS * kept.height / kept.width)
    assert np.abs(blocks(picture(other), down) - blocks(kept, down)).max() > _TOLERANCE


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for draw in DRAWN:
        picture(draw).save(KEPT / f"{draw.__name__}.png", optimize=True)
