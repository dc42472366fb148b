"""Pictures for reports and notebooks: rows over their reconstructions, and the loss per epoch.

Figures are plain `matplotlib.figure.Figure` objects: no window, no backend and no state of pyplot
is touched. Every colour is set here, so a dark style of the caller's cannot hide text on white.
In a terminal, images are drawn as text.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twofold.errors import DataError
from twofold.formatting import counted
from twofold.schema.column import white

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from rich.console import Console
    from rich.text import Text

    from twofold.schema.schema import Schema

Array = NDArray[Any]

# Colours that stay apart for every kind of colour vision (Okabe and Ito, 2008, "Color Universal
# Design"), the ones with good contrast on white first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MANY_COLOURS = (*COLOURS, "#7A5195", "#8C564B", "#5A5A5A", "#A6A400", "#00A6A6", "#B22222")
_MOST_COLOURS = len(_MANY_COLOURS)
_INK, _GREY, _FAINT = "#1a1a1a", "#6b6b6b", "#d4d4d4"
_POINTS = 9  # of all text; smaller marks have 8
_DPI = 144

_FEW_COLUMNS = 12  # up to here each column is named under its point
_MARKED_COLUMNS = 40  # up to here each column has a point
_DENSE_COLUMNS = 200  # above this a panel needs the whole width
_MARKED_EPOCHS = 30
_UNEQUAL = 20.0  # columns whose magnitudes differ more than this do not share an axis
_LOG_SPAN = 10.0  # a loss that falls further than this is read on a logarithmic axis


def rows(stacks: Mapping[str, ArrayLike], names: Sequence[str] | None = None) -> Figure:
    """Draw rows over their reconstructions: images as a grid, rows of a table as profiles.

    Parameters
    ----------
    stacks : mapping of title to array
        The original first, then one or more reconstructions, all of one shape: `(n, height,
        width)` or `(n, height, width, channels)` for images, `(n, n_columns)` for tables.
    names : sequence of str, optional
        Column names, for tables.

    Raises
    ------
    DataError
        If there is nothing to draw, or the stacks have different shapes.
    """
    arrays = {title: np.asarray(stack) for title, stack in stacks.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1:
        listed = ", ".join(f"{title!r} {array.shape}" for title, array in arrays.items())
        raise DataError(f"Expected stacks of one shape, got {listed or 'none'}. Cut them alike.")
    shape = shapes.pop()
    if len(shape) < 2 or 0 in shape:
        raise DataError(f"Expected at least one row to draw, got the shape {shape}.")
    if len(shape) in (3, 4):
        return _images(arrays)
    return _profiles({k: a.reshape(shape[0], -1) for k, a in arrays.items()}, names)


def matrices(schema: Schema, stacks: Mapping[str, Array]) -> Figure:
    """Draw rows as the network sees them, in the units and the shape of the training table."""
    drawn = {title: schema.drawn(matrix) for title, matrix in stacks.items()}
    return rows(drawn, names=[schema.names[i] for i in schema.shown])


def history(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    best_epoch: int | Mapping[str, int] | None = None,
    references: Mapping[str, float] | None = None,
    width: float = 7.0,
) -> Figure:
    """Draw the loss per epoch: thin on training rows, thick on validation rows.

    Parameters
    ----------
    histories : mapping of label to list of dict
        `history_` of one or more fitted models; a label may be empty where there is one only.
    best_epoch : int or mapping of label to int, optional
        The epoch whose weights were kept, counted from 1; it is marked.
    references : mapping of label to float, optional
        Losses to draw as horizontal lines.
    width : float
        Of the figure, in inches.
    """
    figure = _figure(width, 3.6)
    axes = figure.subplots()
    handles: list[Line2D] = []
    longest = max((len(entries) for entries in histories.values()), default=0)
    for number, (label, entries) in enumerate(histories.items()):
        colour = COLOURS[number % len(COLOURS)]
        for key, name, line in (("loss", "training", 1.0), ("validation_loss", "validation", 2.4)):
            known = [(entry["epoch"], entry[key]) for entry in entries if key in entry]
            if known:
                handles += axes.plot(
                    *zip(*known, strict=True),
                    color=colour,
                    linewidth=line,
                    marker="o" if longest <= _MARKED_EPOCHS else "",
                    markersize=2 + line,
                    label=f"{label}: {name}" if label else name,
                    zorder=3,
                )
        best = best_epoch.get(label) if isinstance(best_epoch, Mapping) else best_epoch
        _mark_best(axes, entries, best, colour, longest)
    losses = [float(y) for line in handles for y in np.asarray(line.get_ydata())]
    _epoch_axes(axes, longest, losses, references or {})
    if handles:
        _legend(figure, handles, columns=2 if len(histories) > 1 else len(handles))
    return figure


def places(
    points: Array, shades: Array, title: str = "", axis_titles: Sequence[str] = ("", "")
) -> Figure:
    """Draw rows at their places on a map, `(n, 2)`, coloured by a number or a word each.

    `title` names the colours, and `axis_titles` the axes.

    Raises
    ------
    DataError
        If there is not one number or word for each place.
    """
    if len(points) != len(shades) or len(points) == 0:
        raise DataError(f"Expected a colour for each of {len(points)} rows, got {len(shades)}.")
    figure = _figure(6.0, 4.6)
    axes = figure.subplots()
    # Many points lie over one another: they are smaller, and what is below shines through.
    size = float(np.clip(10_000 / len(points), 1.5, 20.0))
    style: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.8}
    words, which = np.unique(shades, return_inverse=True)
    if shades.dtype.kind in "OUSb" or (shades.dtype.kind in "iu" and len(words) <= _MOST_COLOURS):
        for number, word in enumerate(words[:_MOST_COLOURS]):
            colour = _MANY_COLOURS[number]
            axes.scatter(*points[which == number].T, color=colour, label=str(word), **style)
        rest = which >= _MOST_COLOURS
        if rest.any():
            axes.scatter(*points[rest].T, color=_FAINT, label="others", **style)
        legend = figure.legend(
            loc="outside right upper",
            frameon=False,
            fontsize=_POINTS,
            labelcolor=_INK,
            title=title or None,
            title_fontsize=_POINTS,
            markerscale=max(1.0, 5 / size**0.5),
        )
        _plain_text(legend.get_texts())
    else:
        low, high = np.nanpercentile(shades.astype(np.float64), [1, 99])
        drawn = axes.scatter(
            points[:, 0], points[:, 1], c=shades, cmap="viridis", vmin=low, vmax=high, **style
        )
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
        bar.ax.tick_params(labelsize=8, labelcolor=_INK, color=_GREY)
        bar.outline.set_visible(False)
        bar.set_label(title, fontsize=_POINTS, color=_INK, parse_math=False)
    _style(axes)
    axes.grid(visible=True, axis="both", color=_FAINT, linewidth=0.6)
    axes.set_xlabel(axis_titles[0], fontsize=_POINTS, color=_INK)
    axes.set_ylabel(axis_titles[1], fontsize=_POINTS, color=_INK)
    return figure


def bars(names: Sequence[str], values: ArrayLike, title: str, n_bars: int = 10) -> Figure:
    """Draw the largest of some values as bars, one for each name; `title` names their axis.

    A last bar is the sum of those that are left out.

    Raises
    ------
    DataError
        If there is not one name for each value.
    """
    heights = np.asarray(values, dtype=np.float64)
    if len(names) != len(heights) or len(heights) == 0:
        raise DataError(f"Expected a value for each of {len(names)} names, got {len(heights)}.")
    order = np.argsort(-heights, kind="stable")
    kept, rest = order[:n_bars], order[n_bars:]
    labels = [_short(str(names[i]), 40) for i in kept]
    drawn = [*heights[kept], *([heights[rest].sum()] if len(rest) else [])]
    if len(rest):
        labels.append(f"{counted(len(rest), 'other column')}")
    figure = _figure(6.0, 0.8 + 0.28 * len(drawn))
    axes = figure.subplots()
    colours = [COLOURS[0]] * len(kept) + [_GREY] * bool(len(rest))
    found = axes.barh(range(len(drawn)), drawn, color=colours, height=0.7)
    axes.bar_label(found, [f"{value:.3g}" for value in drawn], padding=3, fontsize=8, color=_INK)
    _style(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=_FAINT, linewidth=0.6)
    axes.set_yticks(range(len(drawn)), labels)
    _plain_text(axes.get_yticklabels())
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel(title, fontsize=_POINTS, color=_INK)
    return figure


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG file, cut to what is drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.1)
    return buffer.getvalue()


def terminal_images(images: Array, console: Console) -> Text:
    """Return grey images `(n, height, width)`, 0 to 255, side by side as text.

    Two pixels share a character, one above the other. A margin that all images leave black is cut
    off, images larger than 14 pixels across are shrunk by averaging, and as many are shown as fit.
    In a colour terminal the characters carry grey levels, elsewhere they are blocks, or plain ASCII
    where the encoding has no blocks.
    """
    from rich.text import Text

    images = _without_margin(images)
    factor = math.ceil(images.shape[2] / 14)
    shown = max(1, (console.width + 1) // (math.ceil(images.shape[2] / factor) + 1))
    small = [_shrunk(image, factor) for image in images[:shown]]
    gap = np.full((len(small[0]), 1), np.nan)
    strip = np.hstack([part for image in small for part in (image, gap)][:-1])
    in_grey = console.is_terminal and console.color_system in ("256", "truecolor")
    blocks = " ▀▄█" if console.encoding.lower().startswith("utf") else " '.#"
    text = Text(no_wrap=True)
    for top, bottom in zip(strip[::2], strip[1::2], strict=True):
        for upper, lower in zip(top, bottom, strict=True):
            if np.isnan(upper):
                text.append(" ")
            elif in_grey and not console.no_color and blocks[1] == "▀":
                text.append("▀", f"{_rgb(upper)} on {_rgb(lower)}")
            else:
                text.append(blocks[int(upper > 96) + 2 * int(lower > 96)])
        text.append("\n")
    text.rstrip()
    return text


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    # Notebooks draw a figure only where pyplot taught them to; this is how an object tells them.
    figure._repr_png_ = partial(to_png, figure)  # type: ignore[attr-defined]
    return figure


def _images(arrays: Mapping[str, Array]) -> Figure:
    from matplotlib.patches import Rectangle

    first = next(iter(arrays.values()))
    n, height, width = first.shape[:3]
    # Very long or flat images are squeezed into a frame of at most 4 to 1.
    ratio = min(4.0, max(0.25, height / width))
    cell = min(1.4, max(0.45, 6.8 / n))
    gap = 0.07
    letters = max(len(line) for title in arrays for line in title.splitlines() or [""])
    step = ratio + gap
    figure = _figure(0.8 + 0.1 * letters + cell * n * (1 + gap), 0.2 + cell * len(arrays) * step)
    axes = figure.subplots()
    low, high = _grey_range(first)
    for line, stack in enumerate(arrays.values()):
        for column, image in enumerate(stack):
            left, top = column * (1 + gap), line * step
            axes.imshow(
                _shades(image, low, high),
                cmap="gray",
                vmin=0,
                vmax=1,
                extent=(left, left + 1, top + ratio, top),
            )
            axes.add_patch(
                Rectangle((left, top), 1, ratio, fill=False, edgecolor=_FAINT, linewidth=0.6)
            )
    axes.set(
        xlim=(-0.01, n * (1 + gap) - gap + 0.01),
        ylim=(len(arrays) * step - gap + 0.01, -0.01),
        aspect="equal",
        anchor="E",  # what width is left over is the labels'
        xticks=[],
    )
    axes.set_yticks([line * step + ratio / 2 for line in range(len(arrays))], list(arrays))
    axes.tick_params(length=0, labelsize=_POINTS, labelcolor=_INK)
    _plain_text(axes.get_yticklabels())
    axes.spines[:].set_visible(False)
    axes.set_facecolor("white")
    return figure


def _grey_range(first: Array) -> tuple[float, float]:
    """Return what is black and what is white: by the format where it is known, or by the data."""
    low, high = float(np.nanmin(first)), float(np.nanmax(first))
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and high <= 255:
        return 0.0, white(math.ceil(high))
    return low, high if high > low else low + 1


def _shades(image: Array, low: float, high: float) -> Array:
    """Return a grey or colour image from 0 (black) to 1 (white), `(height, width[, 3])`."""
    shades = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
    if shades.ndim == 3 and shades.shape[2] != 3:
        shades = shades.mean(axis=2)
    return np.asarray(shades)


def _profiles(arrays: Mapping[str, Array], names: Sequence[str] | None) -> Figure:
    first = next(iter(arrays.values()))
    n, width = first.shape
    drawn, unit = _on_one_axis(list(arrays.values()))
    across = 2 if n > 3 and width <= _DENSE_COLUMNS else 1
    down = math.ceil(n / across)
    figure = _figure(9.0, 0.9 + 1.25 * down)
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    panels = list(grid.flat)
    for row, panel in enumerate(panels[:n]):
        for number, (title, values) in enumerate(zip(arrays, drawn, strict=True)):
            original = number == 0
            panel.plot(
                np.arange(width),
                values[row],
                color=_GREY if original else COLOURS[(number - 1) % len(COLOURS)],
                linewidth=2.2 if original else 1.0 if width <= _DENSE_COLUMNS else 0.6,
                alpha=0.7 if original else 1.0,
                marker="o" if width <= _MARKED_COLUMNS else "",
                markersize=5.0 if original else 3.0,
                label=title,
            )
        _style(panel)
        panel.set_title(f"row {row}", loc="left", fontsize=_POINTS, color=_INK, pad=3)
    for panel in panels[n:]:
        panel.set_axis_off()
    for panel in panels[max(0, n - across) : n]:
        _column_ticks(panel, names, width)
    if width > _FEW_COLUMNS:
        figure.supxlabel("column", fontsize=_POINTS, color=_INK)
    figure.supylabel("scaled value" if unit else "value", fontsize=_POINTS, color=_INK)
    _legend(figure, list(panels[0].get_lines()), columns=len(arrays), title=unit)
    return figure


def _on_one_axis(stacks: list[Array]) -> tuple[list[Array], str]:
    """Return the stacks as they are, or each column in units of its own where they would not fit.

    Metres and grams on one axis would show the grams alone.
    """
    stacks = [stack.astype(np.float64) for stack in stacks]
    every = np.concatenate(stacks)
    magnitude = np.nanmax(np.abs(every), axis=0)
    if not (magnitude > 0).any():
        return stacks, ""
    # The median tells a few such columns from coincidence: of a thousand, some are always small.
    small, middle, large = np.quantile(magnitude[magnitude > 0], [0.1, 0.5, 1.0])
    if large <= _UNEQUAL * middle and middle <= _UNEQUAL * small:
        return stacks, ""
    if len(stacks[0]) < 3:
        safe = np.where(magnitude > 0, magnitude, 1.0)
        return [stack / safe for stack in stacks], "each column as a share of its largest value"
    low, high = np.nanmin(every, axis=0), np.nanmax(every, axis=0)
    span = np.where(high > low, high - low, 1.0)
    scaled = [(stack - low) / span for stack in stacks]
    return scaled, "each column from its least (0) to its largest (1) value in these rows"


def _column_ticks(panel: Axes, names: Sequence[str] | None, width: int) -> None:
    # Panels share their columns, but an odd number of them leaves a lowest one in each column.
    panel.tick_params(labelbottom=True)
    if width > _FEW_COLUMNS:
        panel.set_xlim(-0.01 * width - 0.5, 1.01 * width - 0.5)
        return
    labels = [str(i) for i in range(width)] if names is None else [str(name) for name in names]
    short = [_short(label, 18) for label in labels]
    upright = max(map(len, short)) * width > 60
    panel.set_xticks(
        range(width),
        short,
        rotation=40 if upright else 0,
        ha="right" if upright else "center",
        rotation_mode="anchor" if upright else "default",
    )
    panel.set_xlim(-0.4, width - 0.6)
    _plain_text(panel.get_xticklabels())


def _short(label: str, most: int) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"


def _mark_best(
    axes: Axes,
    entries: Sequence[Mapping[str, float]],
    best: int | None,
    colour: str,
    longest: int,
) -> None:
    chosen = [entry for entry in entries if entry["epoch"] == best]
    if not chosen:
        return
    epoch = int(chosen[0]["epoch"])
    loss = chosen[0].get("validation_loss", chosen[0]["loss"])
    axes.plot(
        [epoch],
        [loss],
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.6,
        linestyle="",
        zorder=4,
    )
    axes.annotate(
        f"epoch {epoch} kept",
        (epoch, loss),
        xytext=(0, 11),
        textcoords="offset points",
        ha="right" if epoch > 0.6 * longest else "left",
        va="bottom",
        fontsize=8,
        color=_INK,
        zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def _epoch_axes(
    axes: Axes, longest: int, losses: Sequence[float], references: Mapping[str, float]
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    _style(axes)
    for label, loss in references.items():
        axes.axhline(loss, color=_GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
        axes.annotate(
            label,
            (1, loss),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color=_GREY,
            parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )
    every = [*losses, *references.values()]
    if every and min(every) > 0 and max(every) > _LOG_SPAN * min(every):
        axes.set_yscale("log")
        few = max(every) < 300 * min(every)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(*((0.5, max(longest, 1) + 0.5) if longest <= _MARKED_EPOCHS else (0, longest)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", fontsize=_POINTS, color=_INK)
    axes.set_ylabel("loss (nats per cell)", fontsize=_POINTS, color=_INK)
    if not losses:
        axes.text(
            0.5,
            0.5,
            "no epoch was finished",
            transform=axes.transAxes,
            ha="center",
            fontsize=_POINTS,
            color=_GREY,
        )


def _style(axes: Axes) -> None:
    axes.set_facecolor("white")
    axes.grid(visible=True, axis="y", color=_FAINT, linewidth=0.6)
    axes.grid(visible=False, axis="x")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(which="both", labelsize=8, labelcolor=_INK, color=_GREY)


def _legend(figure: Figure, handles: list[Line2D], columns: int, title: str = "") -> None:
    legend = figure.legend(
        handles,
        [str(handle.get_label()) for handle in handles],
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        fontsize=_POINTS,
        labelcolor=_INK,
        title=title or None,
        title_fontsize=_POINTS,
        alignment="left",
    )
    legend.get_title().set_color(_INK)
    _plain_text(legend.get_texts())


def _plain_text(texts: Iterable[Any]) -> None:
    # A column called "US$ to C$" is a name, not a formula.
    for text in texts:
        text.set_parse_math(False)


def _without_margin(images: Array) -> Array:
    _, down, across = np.nonzero(images)
    if len(down) == 0:
        return images
    return images[:, down.min() : down.max() + 1, across.min() : across.max() + 1]


def _shrunk(image: Array, factor: int) -> Array:
    """Return the means of squares of `factor` pixels; the height of the result is even."""
    height, width = (math.ceil(size / factor) for size in image.shape)
    height += height % 2
    padded = np.zeros((height * factor, width * factor))
    padded[: image.shape[0], : image.shape[1]] = image
    squares = padded.reshape(height, factor, width, factor)
    return np.asarray(squares.mean(axis=(1, 3)))


def _rgb(level: float) -> str:
    return f"rgb({level:.0f},{level:.0f},{level:.0f})"
