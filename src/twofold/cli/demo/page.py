"""What the demo says of its numbers: a table, sentences on it, and a self-contained page.

Everything here is made of `figures.json`, so the page can be made again without training anything.
"""

from __future__ import annotations

import base64
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from twofold.data.output import not_written, write_bytes
from twofold.formatting import counted, percent, table
from twofold.report import charts, plots
from twofold.report.html import render

Array = NDArray[Any]
Figures = dict[str, Any]  # what figures.json holds

FILES = ("reconstructions.png", "history.png", "figures.json", "index.html")
SHARING = {
    "stacked": "encoder and decoder have matrices of their own",
    "tied": "the decoder reuses the encoder's matrices, transposed",
}


def say(console: Console, line: str, style: str | None = None) -> None:
    """Print a line as it is: no markup, no colouring of numbers; in a log it stays one line."""
    unbroken = not console.is_terminal
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=unbroken)


class _Measure(NamedTuple):
    """One line of the table: its title, its key in figures.json and how its numbers are written."""

    title: str
    key: str
    text: Callable[[float], str]


def _seconds(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


_MEASURES = (
    _Measure("parameters", "parameters", "{:,}".format),
    _Measure("training time, s", "seconds", _seconds),
    _Measure("time per epoch, s", "seconds_per_epoch", _seconds),
    _Measure("training loss", "loss", "{:.4f}".format),
    _Measure("validation loss", "validation_loss", "{:.4f}".format),
    _Measure("over-fitting (validation - training)", "overfitting", "{:.4f}".format),
    _Measure("squared error, validation", "squared_error_validation", "{:.3f}".format),
    _Measure("squared error, test", "squared_error_test", "{:.3f}".format),
    _Measure("weights on disk, kB", "bytes", lambda value: f"{value / 1000:,.0f}"),
)


CONCLUSION = "What this shows"
_SHOWS = {
    "reconstructions": "test images or their reconstructions, of",
    "generated": "decoded from random codes of a network trained on",
    "interpolated": "steps between the codes of two test images of",
}


def _cells(numbers: Figures) -> tuple[list[str], list[list[str]]]:
    """Return the table as text: the heads of its columns, and its lines."""
    rows = numbers["rows"]
    heads = ["", *(_head(name, row) for name, row in rows.items())]
    lines = []
    for title, key, text in _MEASURES:
        values = [row.get(key) for row in rows.values()]
        lines.append([title, *("-" if value is None else text(value) for value in values)])
    return heads, lines


def _head(name: str, row: Mapping[str, Any]) -> str:
    if not row.get("interrupted"):
        return name
    return f"{name}, interrupted after {row['epochs']} of {counted(row['epochs_asked'], 'epoch')}"


def _conclusions(numbers: Figures) -> list[str]:
    """Say what the table shows, in sentences that its numbers decide."""
    stacked, tied, pca = (numbers["rows"][name] for name in ("stacked", "tied", "PCA"))
    share = tied["parameters"] / stacked["parameters"]
    loss = tied["validation_loss"] / stacked["validation_loss"]
    error = tied["squared_error_validation"] / pca["squared_error_validation"]
    found = [
        f"The tied network has {percent(share)} of the stacked one's parameters.".replace(
            "\u00a0", " "
        ),
        f"Its validation loss is {_relation(loss, 'that of the stacked one')}. It over-fits by "
        f"{tied['overfitting']:.4f}, the stacked one by {stacked['overfitting']:.4f}.",
        f"Its squared error on the validation images is "
        f"{_relation(error, 'that of PCA with a code of the same size')}.",
    ]
    if tied["seconds_per_epoch"] and stacked["seconds_per_epoch"]:
        time = tied["seconds_per_epoch"] / stacked["seconds_per_epoch"]
        found.append(f"An epoch takes {time:.2f} times as long as the stacked one's.")
    if classifier := numbers.get("classifier"):
        accuracy, sizes = classifier["accuracy"], classifier["sizes"]
        parts = [
            f"{100 * accuracy[name]:.1f} % by {sizes[name]:,} numbers ({name})" for name in accuracy
        ]
        found.append(
            f"With {classifier['labelled']:,} labelled images, their 3 nearest neighbours classify "
            f"test images correctly in {', '.join(parts[:-1])} and {parts[-1]}."
        )
    return found


def _relation(ratio: float, other: str) -> str:
    if ratio >= 2:
        return f"{ratio:.1f} times {other}"
    return f"{100 * abs(ratio - 1):.1f} % {'lower' if ratio < 1 else 'higher'} than {other}"


def _explanations(numbers: Figures) -> list[str]:
    return [
        f"Losses are binary cross-entropies in nats per pixel, measured after training; no "
        f"reconstruction of these validation images can get below "
        f"{numbers['dataset']['least_loss']:.4f}, the entropy of their grey levels.",
        "Squared errors are sums over the pixels of an image, from 0 to 1, averaged over images.",
        "A network's file also holds its PCA baseline and the density of its codes, which anomaly "
        "scores need; PCA's size is that of its components and mean.",
    ]


def _heading(numbers: Figures) -> str:
    epochs = max(row.get("epochs", 0) for row in numbers["rows"].values())
    return f"{numbers['dataset']['title']}: {counted(epochs, 'epoch')}"


def conclude(numbers: Figures, console: Console) -> None:
    """Print the table, and below it what it shows."""
    heads, lines = _cells(numbers)
    console.print()
    say(console, _heading(numbers), style="bold")
    right = range(1, len(heads))
    for line in table(heads, lines, right, width=console.width).split("\n"):
        say(console, line)
    console.print()
    say(console, CONCLUSION, style="bold")
    for sentence in [*_conclusions(numbers), *_explanations(numbers)]:
        say(console, sentence)
    console.print()


def readme_table(numbers: Figures) -> str:
    """Return the table of a `figures.json` in Markdown, with a line on where it was measured.

    Parameters
    ----------
    numbers : dict
        What `figures.json` holds.
    """
    heads, lines = _cells(numbers)
    marks = [":--", *["--:"] * (len(heads) - 1)]
    markdown = [
        f"| {' | '.join(line)} |" for line in ([heads[0] or " ", *heads[1:]], marks, *lines)
    ]
    return "\n".join([*markdown, "", f"{_heading(numbers)}. {_circumstances(numbers)}"])


def _circumstances(numbers: Figures) -> str:
    machine, versions = numbers["machine"], numbers["versions"]
    return (
        f"Measured on {numbers['date']} with twofold {versions['twofold']}, PyTorch "
        f"{versions['torch']} and {counted(machine['threads'], 'thread')} on {machine['processor']}"
        f"{'' if machine['device'] == 'cpu' else ' and ' + machine['device']}."
    )


def write_all(
    output: Path,
    numbers: Figures,
    stacks: Mapping[str, Mapping[str, Array]],
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    summaries: Mapping[str, str],
) -> None:
    """Write the pictures, the numbers and, last of all, the page that holds them.

    Parameters
    ----------
    output : Path
        A folder that exists.
    numbers : dict
        What `figures.json` is to hold.
    stacks : mapping of section to mapping of title to array
        Images in rows: "reconstructions", test images of each class over each model's
        reconstruction of them, and what else the page shows.
    histories : mapping of name to list of dict
        `history_` of each network.
    summaries : mapping of name to str
        The layer table of each network.

    Raises
    ------
    DataError
        If a file cannot be written.
    """
    least = numbers["dataset"]["least_loss"]
    references = {f"lowest possible on the validation images: {least:.4f}": least}
    pictures = {
        "reconstructions": plots.to_png(plots.rows(stacks["reconstructions"])),
        "history": plots.to_png(plots.history(histories, references=references)),
    }
    for name, png in pictures.items():
        write_bytes(output / f"{name}.png", png)
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(output / "figures.json", f"{text}\n".encode())
    narrow = plots.to_png(plots.history(histories, references=references, width=4.2))
    text = page(numbers, pictures["history"], stacks, summaries, narrow)
    write_bytes(output / "index.html", text.encode())


def page(
    numbers: Figures,
    history: bytes,
    stacks: Mapping[str, Mapping[str, Array]],
    summaries: Mapping[str, str],
    narrow: bytes = b"",
) -> str:
    """Return `index.html`, with the pictures in it; `narrow` is the history for phones."""
    heads, lines = _cells(numbers)
    dataset, recipe = numbers["dataset"], numbers["recipe"]
    sizes = [math.prod(dataset["image"]), *recipe["hidden_layers"], recipe["n_components"]]
    return render(
        "cli/demo/demo.html.j2",
        dataset=dataset,
        is_substitute=dataset["requested"] != dataset["name"],
        shape="-".join(str(size) for size in [*sizes, *sizes[-2::-1]]),
        sharing=SHARING,
        summaries=summaries,
        heading=_heading(numbers),
        heads=heads,
        lines=lines,
        conclusions=_conclusions(numbers),
        explanations=_explanations(numbers),
        circumstances=_circumstances(numbers),
        code=_code(numbers),
        conclusion=CONCLUSION,
        history=base64.b64encode(history).decode(),
        narrow=base64.b64encode(narrow).decode(),
        strips={name: _strips(dataset["title"], name, rows) for name, rows in stacks.items()},
        alternatives=_alternatives(numbers),
        machine=numbers["machine"],
        versions=numbers["versions"],
        date=numbers["date"],
    )


def _strips(dataset: str, section: str, rows: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Return each row of images as one picture, which scales with the page."""
    found = []
    for title, images in rows.items():
        gap = np.zeros((images.shape[1], 1))
        strip = np.hstack([part for image in images for part in (image, gap)][:-1])
        pixels = charts.shades(strip, 0.0, 1.0)
        found.append(
            {
                "title": title,
                "uri": charts.data_uri(pixels),
                "width": pixels.shape[1],
                "height": pixels.shape[0],
                "alt": f"{len(images)} images side by side, {_SHOWS[section]} {dataset}: {title}",
            }
        )
    return found


def _code(numbers: Figures) -> str:
    """Return a script that trains the tied network, ready to be pasted."""
    settings = {
        "tied": True,
        **numbers["recipe"],
        "epochs": numbers["rows"]["tied"]["epochs_asked"],
    }
    dataset = numbers["dataset"]
    return "\n".join(
        [
            "from twofold import Autoencoder, datasets",
            "",
            f"images = datasets.load({_literal(dataset['name'])})",
            'pixels = images.train.astype("float32") / 255',
            f"train, validation = pixels[:{dataset['train']}], pixels[{dataset['train']}:]",
            'test = images.test.astype("float32") / 255',
            "",
            "autoencoder = Autoencoder(",
            *(f"    {name}={_literal(value)}," for name, value in settings.items()),
            ").fit(train, validation_data=validation)",
            "",
            "print(autoencoder.compare_pca(test))",
            "codes = autoencoder.transform(test)",
            "new = autoencoder.sample(10, random_state=0)",
        ]
    )


def _literal(value: Any) -> str:
    if isinstance(value, list):
        value = tuple(value)
    return repr(value).replace("'", '"') if isinstance(value, str) else repr(value)


def _alternatives(numbers: Figures) -> dict[str, str]:
    """Say in words what the pictures show."""
    rows, title = numbers["rows"], numbers["dataset"]["title"]
    ends = ", ".join(
        f"{name} ends at {rows[name]['loss']:.4f} in training and "
        f"{rows[name]['validation_loss']:.4f} in validation"
        for name in SHARING
    )
    errors = ", ".join(f"{name} {row['squared_error_test']:.3f}" for name, row in rows.items())
    return {
        "reconstructions": f"Mean squared error per test image: {errors}.",
        "history": f"The loss per epoch on {title}, as lines: {ends}.",
    }


def make_writable(output: Path) -> None:
    """Make the folder, and write to it once: better to fail now than after the training."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        raise not_written(output, error) from error
