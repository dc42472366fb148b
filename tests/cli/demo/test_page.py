from __future__ import annotations

import copy
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from twofold.cli.demo import page as demo_page
from twofold.errors import OutputExistsError

SUBSTITUTE = "scikit-learn's digits (8x8), because MNIST could not be had"
SUMMARIES = {"stacked": "64 -> 32 -> 16", "tied": "64 -> 32 -> 16, tied weights"}
NUMBERS: dict[str, Any] = {
    "dataset": {
        "name": "digits",
        "requested": "digits",
        "title": "scikit-learn's digits (8x8)",
        "source": "scikit-learn's embedded digits",
        "image": [8, 8],
        "train": 1325,
        "validation": 175,
        "test": 297,
        "least_loss": 0.1875,
    },
    "recipe": {"n_components": 16, "hidden_layers": [32], "activation": "selu"},
    "rows": {
        "stacked": {
            "parameters": 5264,
            "epochs": 2,
            "epochs_asked": 2,
            "interrupted": False,
            "seconds": 0.5,
            "seconds_per_epoch": 0.25,
            "loss": 0.3,
            "validation_loss": 0.32,
            "overfitting": 0.02,
            "squared_error_validation": 4.5,
            "squared_error_test": 4.75,
            "bytes": 28_400,
        },
        "tied": {
            "parameters": 2704,
            "epochs": 2,
            "epochs_asked": 2,
            "interrupted": False,
            "seconds": 12.25,
            "seconds_per_epoch": 6.125,
            "loss": 0.25,
            "validation_loss": 0.24,
            "overfitting": -0.01,
            "squared_error_validation": 3.0,
            "squared_error_test": 3.25,
            "bytes": 18_200,
        },
        "PCA": {
            "parameters": 1088,
            "seconds": 0.004,
            "squared_error_validation": 2.0,
            "squared_error_test": 2.25,
            "bytes": 4352,
        },
    },
    "classifier": {
        "labelled": 100,
        "test": 297,
        "sizes": {"pixels": 64, "codes of the tied network": 16},
        "accuracy": {"pixels": 0.9, "codes of the tied network": 0.95},
    },
    "machine": {
        "system": "Linux",
        "processor": "a processor",
        "cores": 2,
        "threads": 1,
        "device": "cpu",
    },
    "versions": {"twofold": "0.1.0", "python": "3.12.1", "torch": "2.6.0"},
    "date": "2025-01-31",
}


class Page(HTMLParser):
    """The elements of a page, each with its attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.source, self.text = html, ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(numbers: dict[str, Any]) -> Page:
    return Page(demo_page.page(numbers, b"a picture", stacks(), SUMMARIES))


def stacks() -> dict[str, dict[str, Any]]:
    images = np.linspace(0, 1, 128).reshape(2, 8, 8)
    return {
        "reconstructions": {"original": images, "tied": images},
        "generated": {"new images": images},
        "interpolated": {"from class 0 to class 1": images},
    }


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def write_all(folder: Path) -> None:
    history = [{"epoch": 1, "loss": 0.3, "validation_loss": 0.32}]
    demo_page.write_all(
        folder,
        NUMBERS,
        stacks=stacks(),
        histories={"tied": history},
        summaries=SUMMARIES,
    )


@pytest.fixture
def done() -> Page:
    return page(NUMBERS)


@pytest.fixture
def interrupted() -> dict[str, Any]:
    """The numbers of a run whose tied network was interrupted."""
    numbers = copy.deepcopy(NUMBERS)
    numbers["rows"]["tied"] |= {"interrupted": True, "epochs": 1}
    return numbers


@pytest.fixture
def substituted() -> dict[str, Any]:
    """The numbers of a run that asked for MNIST where no source has it."""
    numbers = copy.deepcopy(NUMBERS)
    numbers["dataset"] |= {"requested": "mnist", "title": SUBSTITUTE}
    return numbers


def test_the_page_asks_no_other_server(done: Page) -> None:
    for _, attributes in done.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not done.all("script")
    assert not re.search(r"url\(|@import", done.source)


def test_the_page_forbids_requests(done: Page) -> None:
    policies = [m["content"] for m in done.all("meta") if "http-equiv" in m]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_image_of_the_page_says_what_it_shows(done: Page) -> None:
    images = done.all("img")
    assert len(images) == 5
    assert all(len(image["alt"] or "") > 60 for image in images)


def test_the_page_is_named_and_made_for_phones(done: Page) -> None:
    assert done.all("html") == [{"lang": "en"}]
    assert "<title>twofold demo: scikit-learn&#39;s digits (8x8)</title>" in done.source
    assert any(m.get("name") == "viewport" for m in done.all("meta"))


def test_wide_parts_of_the_page_can_be_scrolled_by_keyboard(done: Page) -> None:
    boxes = [box for box in done.all("div") if box.get("class") == "scroll"]
    assert len(boxes) == 5
    titles = {attributes.get("id") for _, attributes in done.elements}
    for box in boxes:
        assert (box["role"], box["tabindex"]) == ("region", "0")
        assert box["aria-labelledby"] in titles


def test_the_page_names_the_layers_there_and_back(done: Page) -> None:
    assert "64-32-16-32-64" in done.text


def test_the_page_shows_the_networks_and_the_call_that_makes_one(done: Page) -> None:
    for text in (*SUMMARIES.values(), *demo_page.SHARING.values()):
        assert text in done.text
    assert '    hidden_layers=(32,),\n    activation="selu",\n    epochs=2,\n)' in done.text


def test_the_page_names_a_substitute_wherever_its_numbers_are(substituted: dict[str, Any]) -> None:
    made = page(substituted)
    assert made.text.count(SUBSTITUTE) >= 5
    assert all(SUBSTITUTE in (image["alt"] or "") for image in made.all("img"))
    assert any(p.get("role") == "note" for p in made.all("p"))


def test_the_page_names_what_was_asked_for_only_with_the_reason(
    substituted: dict[str, Any],
) -> None:
    assert "MNIST" not in page(substituted).text.replace(SUBSTITUTE, "")


def test_a_page_without_a_substitute_has_no_note(done: Page) -> None:
    assert not any(p.get("role") == "note" for p in done.all("p"))


def test_the_readme_table_is_made_of_the_numbers() -> None:
    lines = demo_page.readme_table(NUMBERS).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {5}
    assert "| parameters | 5,264 | 2,704 | 1,088 |" in table
    assert "| training time, s | 0.50 | 12.2 | 0.00 |" in table
    assert "| validation loss | 0.3200 | 0.2400 | - |" in table


def test_the_readme_table_says_where_it_was_measured() -> None:
    assert demo_page.readme_table(NUMBERS).splitlines()[-1] == (
        "scikit-learn's digits (8x8): 2 epochs. Measured on 2025-01-31 with twofold 0.1.0, "
        "PyTorch 2.6.0 and 1 thread on a processor."
    )


def test_the_readme_table_marks_an_interrupted_network(interrupted: dict[str, Any]) -> None:
    head = demo_page.readme_table(interrupted).splitlines()[0]
    assert "| tied, interrupted after 1 of 2 epochs |" in head


def test_the_terminal_is_told_what_the_table_shows() -> None:
    terminal = console()
    demo_page.conclude(NUMBERS, terminal)
    text = said(terminal)
    assert "validation loss is 25.0 % lower than that of the stacked one." in text
    assert "It over-fits by -0.0100, the stacked one by 0.0200." in text
    assert "50.0 % higher than that of PCA with a code of the same size." in text
    assert "An epoch takes 24.50 times as long as the stacked one's." in text
    assert "classify test images correctly in 90.0 % by 64 numbers (pixels) and 95.0 %" in text
    assert text.index("What this shows") < text.index("51.4 %")
    assert "can get below 0.1875" in text


def test_the_page_has_new_images_and_steps_between_two(done: Page) -> None:
    for title in ("New images", "From one image to another", "from class 0 to class 1"):
        assert title in done.text
    shown = [image for image in done.all("img") if str(image["src"]).startswith("data:image/png")]
    assert len(shown) == 2 + 1 + 1 + 1


def test_the_page_has_a_headed_conclusion(done: Page) -> None:
    assert "conclusion" in [heading.get("id") for heading in done.all("h2")]
    assert "The tied network has 51.4 % of the stacked one's parameters." in done.text


def test_a_line_is_said_as_it_is() -> None:
    terminal = console(width=10)
    demo_page.say(terminal, "[bold]a long line[/bold] of 12 words")
    assert said(terminal) == "[bold]a long line[/bold] of 12 words\n"


def test_pictures_numbers_and_page_are_written(tmp_path: Path) -> None:
    write_all(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(demo_page.FILES)
    assert json.loads((tmp_path / "figures.json").read_text("utf-8")) == NUMBERS


def test_what_cannot_be_written_leaves_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / "history.png").mkdir()
    with pytest.raises(OutputExistsError, match=r"history\.png is a folder"):
        write_all(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"reconstructions.png", "history.png"}


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    demo_page.make_writable(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())
