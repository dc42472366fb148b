"""Drawings that are part of a page: SVG that follows its colours, and small PNG images.

A drawing is 640 units wide and scales with the page. Its colours and letter sizes are the style
sheet's, by class, so that a dark page, a phone and paper each get theirs. Numbers on the axes stand
on the grid's lines, within the plot, which leaves room for the larger letters of a narrow screen.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from twofold.formatting import number

Array = NDArray[Any]
WIDTH = 640
_TOP, _BOTTOM = 24, 34  # room for the letters of the highest line, and for those of the lower axis
_SIDE = 6
_MARKED = 40  # points up to which each is marked
_WRITTEN = 8  # bars up to which each is
_LOG_SPAN = 10.0  # numbers that span more are read on a logarithmic axis
# From black over purple and orange to light yellow, evenly to the eye: anchors of "inferno" (van
# der Walt and Smith, 2015, released as CC0), every eighth of its way.
_HEAT = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    dtype=np.float64,
)


@dataclass(frozen=True)
class Axis:
    """A stretch of numbers that is laid on a stretch of the drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: Any) -> Any:
        """Return where a number, or an array of them, is in the drawing."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = np.log(value), math.log(low), math.log(high)
        span = high - low or 1.0
        return self.start + (value - low) / span * (self.end - self.start)

    def ticks(self, most: int = 6, whole: bool = False) -> list[float]:
        """Return a few round numbers on the axis."""
        if self.log:
            return _log_ticks(self.low, self.high)
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        step = 10.0 ** math.floor(math.log10(span / most))
        step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= most)
        if whole:
            step = max(1.0, math.ceil(step))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * i for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    for factors in ((1, 2, 5), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = (f * 10.0**power for power in powers for f in factors)
        ticks = [tick for tick in every if low <= tick <= high]
        if len(ticks) <= 6:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 6)]


def _label(value: float, ticks: Sequence[float]) -> str:
    """Write a tick with as many digits as tell it from its neighbours."""
    size = max(map(abs, ticks), default=0.0)
    gap = min((abs(a - b) for a, b in pairwise(ticks)), default=size) or 1.0
    if size >= 1e6 or (0 < gap < 1e-5):
        digits = max(1, math.ceil(math.log10(max(size, 1e-300) / gap)))
        return number(value, digits + 1) if abs(value) > gap / 1e6 else "0"
    decimals = max(0, -math.floor(math.log10(gap) + 1e-9))
    return f"{value:,.{decimals}f}".replace("-", "−")


@dataclass(frozen=True)
class Series:
    """A line: what it is called, its points, and the class that gives its colour."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: str


@dataclass(frozen=True)
class Mark:
    """A vertical line at a number, with what it says."""

    at: float
    label: str
    style: str = "anomaly"


def svg(name: str, title: str, text: str, height: int, content: Sequence[str]) -> Markup:
    """Return a drawing with its name for those who do not see it; `name` is its own on the page."""
    return Markup(
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {height}" '
        f'aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-text">{escape(text)}</desc>{"".join(content)}</svg>'
    )


def lines(
    name: str,
    title: str,
    text: str,
    series: Sequence[Series],
    mark: Mark | None = None,
    x_label: str = "",
) -> Markup:
    """Draw lines over whole numbers, such as losses over epochs."""
    height = 300
    every = [y for line in series for y in line.y if math.isfinite(y)] or [0.0]
    low, high = min(every), max(every)
    log = low > 0 and high > _LOG_SPAN * low
    if not log:
        pad = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        low, high = low - pad, high + pad
    xs = [x for line in series for x in line.x] or [1.0]
    x = Axis(min(xs), max(xs), _SIDE + 40, WIDTH - _SIDE - 12)
    y = Axis(low, high, height - _BOTTOM - 8, _TOP, log)
    parts = [_grid(x, y, height, x_label, whole=True)]
    if mark is not None:
        parts.append(_mark(mark, x, height))
    for line in series:
        known = [(a, b) for a, b in zip(line.x, line.y, strict=True) if math.isfinite(b)]
        at = [(float(x.at(a)), float(y.at(b))) for a, b in known]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
        parts.append(f'<polyline class="line {line.style}" points="{points}"/>')
        if len(at) <= _MARKED:
            dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in at)
            parts.append(f'<g class="dot {line.style}">{dots}</g>')
    return svg(name, title, text, height, parts)


def _grid(
    x: Axis,
    y: Axis | None,
    height: int,
    x_label: str = "",
    whole: bool = False,
    x_text: Callable[[float], str] | None = None,
) -> str:
    floor = height - _BOTTOM
    parts = [f'<path class="axis" d="M{_SIDE} {floor}H{WIDTH - _SIDE}"/>']
    if y is not None:
        ticks = y.ticks(5)
        for tick in ticks:
            at = float(y.at(tick))
            parts.append(f'<path class="grid" d="M{_SIDE} {at:.1f}H{WIDTH - _SIDE}"/>')
            label = escape(_label(tick, ticks))
            parts.append(f'<text class="tick" x="{_SIDE}" y="{at:.1f}" dy="-.3em">{label}</text>')
    ticks = x.ticks(6, whole)
    for i, tick in enumerate(ticks):
        at = float(x.at(tick))
        anchor = "start" if at < 30 else "end" if at > WIDTH - 30 else "middle"
        label = escape(x_text(tick) if x_text else _label(tick, ticks))
        if i == len(ticks) - 1 and x_label:
            anchor, label = ("end" if at > WIDTH / 2 else anchor), Markup(f"{x_label} {label}")
        parts.append(f'<path class="axis" d="M{at:.1f} {floor}v5"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{floor + 7}" dy=".9em" '
            f'text-anchor="{anchor}">{label}</text>'
        )
    return "".join(parts)


def _note(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text class="halo" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _mark(mark: Mark, x: Axis, height: int) -> str:
    at = float(x.at(mark.at))
    right = at > 0.6 * WIDTH
    return (
        f'<path class="mark {mark.style}" d="M{at:.1f} {_TOP - 8}V{height - _BOTTOM}"/>'
        f'<text class="note {mark.style}" x="{at + (-6 if right else 6):.1f}" y="{_TOP - 8}" '
        f'dy=".4em" text-anchor="{"end" if right else "start"}">{escape(mark.label)}</text>'
    )


def histogram(
    name: str,
    title: str,
    text: str,
    edges: Array,
    bars: Array,
    outline: Array | None = None,
    mark: Mark | None = None,
    x_text: Callable[[float], str] | None = None,
    first: str = "",
    level: float | None = None,
) -> Markup:
    """Draw bars from edge to edge, and over them the outline of a second histogram.

    What lies below a mark has the mark's colour. `first` stands over the first bar, and `level` is
    the height of a line across all of them.
    """
    height = 260
    top = max(float(np.max(v, initial=0)) for v in (bars, outline, level) if v is not None)
    x = Axis(float(edges[0]), float(edges[-1]), _SIDE + 4, WIDTH - _SIDE - 4)
    y = Axis(0, top or 1.0, height - _BOTTOM, _TOP + 10)
    parts = [_grid(x, None, height, x_text=x_text)]
    at = np.asarray(x.at(edges), dtype=np.float64)
    for i, bar in enumerate(bars):
        if bar > 0:
            below = mark is not None and edges[i + 1] <= mark.at + 1e-9 * abs(mark.at)
            start = float(y.at(float(bar)))
            parts.append(
                f'<rect class="{"anomaly" if below else "net"}" x="{at[i] + 0.5:.1f}" '
                f'y="{start:.1f}" width="{max(at[i + 1] - at[i] - 1, 0.5):.1f}" '
                f'height="{height - _BOTTOM - start:.1f}"/>'
            )
    if outline is not None:
        steps = [f"M{at[0]:.1f} {height - _BOTTOM}"]
        for i, bar in enumerate(outline):
            steps.append(f"V{float(y.at(float(bar))):.1f}H{at[i + 1]:.1f}")
        parts.append(f'<path class="outline" d="{"".join(steps)}V{height - _BOTTOM}"/>')
    if level is not None:
        parts.append(
            f'<path class="outline" d="M{_SIDE} {float(y.at(level)):.1f}H{WIDTH - _SIDE}"/>'
        )
    if first:
        at_bar = float(y.at(float(max(bars[0], 0 if outline is None else outline[0]))))
        parts.append(_note(_SIDE + 4, at_bar - 8, first, "start"))
    if mark is not None:
        parts.append(_mark(mark, x, height))
    return svg(name, title, text, height, parts)


def spikes(
    name: str,
    title: str,
    text: str,
    values: Array,
    marked: Sequence[int],
    write: Callable[[float], str],
) -> Markup:
    """Draw one bar per number, in order; those at the positions `marked` have a cross below.

    Where they are few, each is written over its bar.
    """
    height, floor = 200, 200 - _BOTTOM
    n = len(values)
    x = Axis(-0.5, n - 0.5, _SIDE, WIDTH - _SIDE)
    y = Axis(0, float(np.max(values, initial=0)) or 1.0, floor, _TOP)
    step = (WIDTH - 2 * _SIDE) / n
    wide = max(min(0.75 * step, 44.0), 0.6)
    shapes = [
        f"M{float(x.at(i)) - wide / 2:.1f} {floor}v{float(y.at(float(v))) - floor:.1f}h{wide:.1f}"
        f"V{floor}z"
        for i, v in enumerate(values)
        if v > 0
    ]
    parts = [
        _grid(Axis(0, n - 1, float(x.at(0)), float(x.at(n - 1))), None, height, whole=True),
        f'<path class="net" d="{"".join(shapes)}"/>',
    ]
    if n <= _WRITTEN:
        for i, value in enumerate(values):
            at = float(y.at(float(value)))
            parts.append(_note(float(x.at(i)), at - 6, write(float(value)), "middle"))
    if marked:
        crosses = "".join(f"M{float(x.at(i)) - 4:.1f} {floor + 6}l8 8m0-8l-8 8" for i in marked)
        parts.append(f'<path class="cross anomaly" d="{crosses}"/>')
    return svg(name, title, text, height, parts)


def scatter(
    name: str,
    title: str,
    text: str,
    groups: Sequence[tuple[str, Array]],
    marks: Sequence[tuple[str, Array]] = (),
) -> Markup:
    """Draw points `(n, 2)` of several classes, all in one frame, and labelled rings over them.

    The frame holds all but the outermost of the points, which stand at its edge.
    """
    height = 460
    every = np.concatenate([points for _, points in groups] + [np.zeros((0, 2))])
    frame = _frame(every)
    x = Axis(*frame[0], 14, WIDTH - 14)
    y = Axis(*frame[1], height - 14, 14)
    parts = [f'<rect class="frame" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="4"/>']
    for style, points in groups:
        if len(points):
            across, down = _placed(points, frame, x, y)
            # A line of no length with round ends is a dot, in a tenth of a circle's letters.
            dots = "".join(f"M{a} {b}h0" for a, b in zip(across, down, strict=True))
            parts.append(f'<path class="dots {style}" transform="scale(.1)" d="{dots}"/>')
    taken: list[tuple[float, float]] = []
    for label, point in marks:
        across, down = _placed(point[None], frame, x, y)
        a, b = across[0] / 10, down[0] / 10
        parts.append(f'<circle class="ring anomaly" cx="{a:.1f}" cy="{b:.1f}" r="6"/>')
        for side, anchor in ((18, "start"), (-18, "end")):
            near = (max(abs(a + side - c) / 26, abs(b - d) / 20) < 1 for c, d in taken)
            if 12 < a + side < WIDTH - 12 and not any(near):
                taken.append((a + side, b))
                parts.append(
                    f'<text class="note anomaly halo" x="{a + side / 2:.1f}" y="{b:.1f}" '
                    f'dy=".35em" text-anchor="{anchor}">{escape(label)}</text>'
                )
                break
    return svg(name, title, text, height, parts)


def beyond(points: Array) -> int:
    """Count the points that `scatter` draws at the edge of its frame."""
    (left, right), (low, high) = _frame(points)
    x, y = points.T
    return int(((x < left) | (x > right) | (y < low) | (y > high)).sum())


def _frame(points: Array) -> list[tuple[float, float]]:
    frame = []
    for values in points.T:
        known = values[np.isfinite(values)]
        if len(known) == 0:
            frame.append((-1.0, 1.0))
            continue
        low, high = (float(v) for v in np.quantile(known, [0.002, 0.998]))
        span = high - low or abs(high) or 1.0
        least, most = (float(v) for v in (known.min() - 0.04 * span, known.max() + 0.04 * span))
        frame.append((max(low - 0.25 * span, least), min(high + 0.25 * span, most)))
    return frame


def _placed(
    points: Array, frame: list[tuple[float, float]], x: Axis, y: Axis
) -> tuple[list[int], list[int]]:
    inside = [np.clip(np.nan_to_num(points[:, i]), *frame[i]) for i in (0, 1)]
    at = (
        np.rint(10 * axis.at(v)).astype(int).tolist()
        for axis, v in zip((x, y), inside, strict=True)
    )
    across, down = at
    return across, down


def bar(share: float, style: str = "net", other: float | None = None) -> Markup:
    """Draw a number from 0 to 1 as a bar, for a cell of a table, and a second as a tick over it."""
    width = 100 * min(max(share if math.isfinite(share) else 0.0, 0.0), 1.0)
    tick = ""
    if other is not None and math.isfinite(other):
        at = 99 * min(max(other, 0.0), 1.0)
        tick = f'<rect class="pca" x="{at:.1f}" width="1.2" height="12"/>'
    return Markup(
        f'<svg class="bar" aria-hidden="true" viewBox="0 0 100 12" preserveAspectRatio="none">'
        f'<rect class="track" y="3" width="100" height="6"/>'
        f'<rect class="{style}" y="3" width="{width:.1f}" height="6"/>{tick}</svg>'
    )


def heat(values: Array, top: float) -> Array:
    """Return the colours `(height, width, 3)` of numbers from 0 (black) to `top` (yellow)."""
    share = np.clip(np.nan_to_num(values) / (top or 1.0), 0, 1)
    place = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(share, place, _HEAT[:, i]) for i in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def shades(image: Array, low: float, high: float) -> Array:
    """Return a picture's bytes: grey `(height, width)` or colour `(height, width, 3)`."""
    scaled = (np.nan_to_num(image.astype(np.float64), nan=low) - low) / ((high - low) or 1.0)
    return np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def shrunk(image: Array, most: int = 128) -> Array:
    """Return an image of at most `most` pixels each way, by averaging squares of pixels."""
    factor = math.ceil(max(image.shape[:2]) / most)
    if factor == 1:
        return image
    pads = [(0, -size % factor) for size in image.shape[:2]] + [(0, 0)] * (image.ndim - 2)
    padded = np.pad(image.astype(np.float64), pads, mode="edge")
    height, width = (size // factor for size in padded.shape[:2])
    squares = padded.reshape(height, factor, width, factor, *image.shape[2:])
    return np.asarray(squares.mean(axis=(1, 3)))


def png(pixels: Array) -> bytes:
    """Return a PNG file of bytes `(height, width)` or `(height, width, 3)`."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "png", optimize=True)
    return file.getvalue()


def data_uri(pixels: Array) -> str:
    """Return an image as an address that holds all of it."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
