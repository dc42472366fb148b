from __future__ import annotations

import os
import re
import warnings
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from twofold import Autoencoder
from twofold.cli.main import app
from twofold.data.files import Files
from twofold.errors import DataError, OutputExistsError
from twofold.report import document as report
from twofold.report import measurements

VOID = {"meta", "link", "img", "br", "wbr"}
BLOCKS = {"td", "th", "dd", "dt", "li", "p", "h1", "h2", "h3", "h4", "figcaption", "text"}
DRAWN_ALONE = {"path", "rect", "circle", "polyline"}
ABSURD = (
    "<script>alert(1)</script>",
    "a" * 10_000,
    "😀 emoji",
    "שלום עולם",
    "\u202eturned round",
    "new\nline & \"quotes\" 'x'",
)


class Page(HTMLParser):
    """The elements of a page, its text, and what is wrong with its tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.text = source, ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.mistakes: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        self.mistakes += [f"<{tag}> stays open" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in DRAWN_ALONE:
            self.mistakes.append(f"<{tag}/> at {self.getpos()}")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.mistakes.append(f"</{tag}> at {self.getpos()}")
        if tag in BLOCKS:
            self.text += " "

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def findings(self) -> list[str]:
        return [str(a["data-kind"]) for a in self.all("li") if "data-kind" in a]

    @property
    def words(self) -> str:
        """The text, with every space a plain one and none twice."""
        return " ".join(self.text.split())


def fitted(X: Any, **options: Any) -> Autoencoder:
    settings = {"epochs": 2, "random_state": 0} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # so short a training loses to PCA
        return Autoencoder(**settings).fit(X)


def rows(n: int = 300, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(2, 6))
    return rng.normal(size=(n, 2)) @ mixing + 0.1 * rng.normal(size=(n, 6))


def frame(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rows(n), columns=list(ABSURD))
    table["text <b>"] = rng.choice(["<img src=x onerror=1>", "b" * 10_000, "", "שלום"], n)
    moments = rng.integers(0, 10**8, n)
    table["when"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(moments, unit="s")
    table["flag"] = rng.random(n) < 0.3
    table["count"] = rng.poisson(2, n)
    table.iloc[::5, 0] = np.nan
    return table


def written(ae: Autoencoder, X: Any, folder: Path) -> Page:
    path = folder / "report.html"
    report.write(ae, X, path, overwrite=True)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def plain() -> Autoencoder:
    return fitted(rows(), n_components=2)


@pytest.fixture(scope="module")
def mixed() -> Autoencoder:
    return fitted(frame())


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    down, across = np.mgrid[0:8, 0:8]
    rng = np.random.default_rng(0)
    places = rng.uniform(1, 6, size=(200, 2, 1, 1))
    blots = np.exp(-((down - places[:, 0]) ** 2 + (across - places[:, 1]) ** 2) / 4)
    return blots.astype(np.float32)


@pytest.fixture(scope="module")
def seeing(images: NDArray[np.float32]) -> Autoencoder:
    return fitted(images, n_components=3)


@pytest.fixture(scope="module")
def pages(
    plain: Autoencoder,
    mixed: Autoencoder,
    seeing: Autoencoder,
    images: NDArray[np.float32],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Page]:
    folder = tmp_path_factory.mktemp("pages")
    sources = {"plain": (plain, rows()), "mixed": (mixed, frame()), "images": (seeing, images)}
    return {name: written(*pair, folder) for name, pair in sources.items()}


@pytest.fixture(params=["plain", "mixed", "images"])
def made(request: pytest.FixtureRequest, pages: dict[str, Page]) -> Page:
    return pages[request.param]


def test_the_page_asks_no_other_server(made: Page) -> None:
    for _, attributes in made.elements:
        for name in ("src", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert re.match(r"data:|#", attributes.get("href") or "#")
    assert not made.all("script")
    assert not re.search(r"https?://|url\(|@import", made.source)


def test_the_page_forbids_requests(made: Page) -> None:
    policies = [m["content"] for m in made.all("meta") if "http-equiv" in m]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_tags_are_closed_in_order(made: Page) -> None:
    assert made.mistakes == []
    assert made.source.startswith("<!doctype html>")


def test_names_of_elements_are_unique_and_known(made: Page) -> None:
    names = [attributes["id"] for _, attributes in made.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in made.elements:
        wanted = (attributes.get("aria-labelledby") or "").split()
        href = attributes.get("href") or ""
        assert set(wanted) <= set(names)
        assert not href.startswith("#") or href[1:] in names


def test_headings_go_down_one_level_at_a_time(made: Page) -> None:
    levels = [int(tag[1]) for tag, _ in made.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_the_page_says_its_language_and_is_made_for_phones(made: Page) -> None:
    assert made.all("html") == [{"lang": "en"}]
    assert any(m.get("name") == "viewport" for m in made.all("meta"))


def test_every_drawing_has_a_name_or_is_decoration(made: Page) -> None:
    for drawing in made.all("svg"):
        named = drawing.get("role") == "img" and drawing.get("aria-labelledby")
        assert named or drawing.get("aria-hidden") == "true" or "viewbox" in drawing
    charts = [drawing for drawing in made.all("svg") if drawing.get("class") == "chart"]
    assert len(charts) >= 4
    assert len(made.all("title")) == len(charts) + 1
    assert len(made.all("desc")) == len(charts)


def test_every_picture_says_what_it_shows(pages: dict[str, Page]) -> None:
    pictures = pages["images"].all("img")
    assert len(pictures) > 40
    assert all(picture["alt"] for picture in pictures)


def test_tables_scroll_in_boxes_that_the_keyboard_reaches(made: Page) -> None:
    boxes = [box for box in made.all("div") if box.get("class") == "scroll"]
    assert len(boxes) == len(made.all("table"))
    assert all((box["role"], box["tabindex"]) == ("region", "0") for box in boxes)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(a: str, b: str) -> float:
    """The contrast of two colours (WCAG 2.1, definitions of contrast ratio and luminance)."""
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "accent", "anomaly", "net", "pca"])
@pytest.mark.parametrize("ground", ["page", "soft"])
def test_letters_stand_out_from_their_ground(
    pages: dict[str, Page], scheme: int, ink: str, ground: str
) -> None:
    found = re.findall(r"--(\w+): (#[0-9a-f]{6})", pages["plain"].source)
    colours = [[value for name, value in found if name == wanted] for wanted in (ink, ground)]
    assert contrast(colours[0][scheme], colours[1][scheme]) >= 4.5


def test_the_page_counts_anomalies_as_predict_does(
    pages: dict[str, Page], plain: Autoencoder
) -> None:
    n = int((plain.predict(rows()) == -1).sum())
    assert f"{n} of 300 rows" in pages["plain"].words


def test_the_page_tells_the_variance_that_compare_pca_tells(
    pages: dict[str, Page], plain: Autoencoder
) -> None:
    both = plain.compare_pca(rows())
    assert f"keep {100 * both.r2:.1f} % of the variance" in pages["plain"].words
    assert f"keep {100 * both.r2_pca:.1f} %" in pages["plain"].words


def test_the_page_counts_what_the_model_has(pages: dict[str, Page], mixed: Autoencoder) -> None:
    words = pages["mixed"].words
    assert f"{mixed.network_.n_parameters:,} parameters, tied weights" in words
    assert f"{len(mixed.calibration_scores_)} held-out rows" in words
    assert f"10 columns, of which the network sees {mixed.schema_.width} inputs" in words
    assert "2 epochs took" in words


def test_the_page_lists_options_that_differ(pages: dict[str, Page]) -> None:
    words = pages["plain"].words
    assert "epochs 2 auto" in words
    assert "n_components 2 none" in words
    assert "learning_rate" not in words.partition("Options that differ")[2]


def test_the_page_names_the_oddest_row_and_its_columns(plain: Autoencoder, tmp_path: Path) -> None:
    X = rows()
    X[41, 3] += 30
    words = written(plain, X, tmp_path).words
    first = words.partition("1 · row ")[2]
    assert first.startswith("41 score")
    assert first.partition("anomaly ")[2].startswith("x3")


def test_absurd_names_and_cells_are_text(pages: dict[str, Page]) -> None:
    page = pages["mixed"]
    assert "<script" not in page.source
    assert "<img src=x" not in page.source
    for name in ("<script>alert(1)</script>", "😀 emoji", "שלום עולם", "turned round"):
        assert name in page.text
    assert "\u202e" not in page.source


def test_long_names_and_cells_are_cut(pages: dict[str, Page]) -> None:
    assert re.search(r"a{30}…", pages["mixed"].text)
    assert not re.search(r"[ab]{61}", pages["mixed"].text)


def test_names_of_any_direction_are_kept_apart(pages: dict[str, Page]) -> None:
    assert "<bdi>שלום" in pages["mixed"].source


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_few_rows_are_enough(
    plain: Autoencoder, mixed: Autoencoder, n: int, tmp_path: Path
) -> None:
    for ae, X in ((plain, rows()[:n]), (mixed, frame()[:n])):
        page = written(ae, X, tmp_path)
        assert page.mistakes == []
        assert not {"shift", "pca", "not-learned", "unused", "twins"} & set(page.findings)


def test_one_image_is_enough(
    seeing: Autoencoder, images: NDArray[np.float32], tmp_path: Path
) -> None:
    assert written(seeing, images[:1], tmp_path).mistakes == []


@pytest.mark.parametrize("n", [1, 300])
def test_a_column_may_be_empty(plain: Autoencoder, n: int, tmp_path: Path) -> None:
    X = rows(n)
    X[:, 2] = np.nan
    page = written(plain, X, tmp_path)
    assert "missing" in page.findings
    assert "“⁨x2⁩”" in page.text


def test_all_cells_may_be_missing(plain: Autoencoder, tmp_path: Path) -> None:
    assert written(plain, np.full((30, 6), np.nan), tmp_path).mistakes == []


def test_a_cell_may_be_far_out(plain: Autoencoder, tmp_path: Path) -> None:
    X = rows()
    X[3, 1] = 1e15
    words = written(plain, X, tmp_path).words
    assert "1 · row 3 " in words
    assert " nan" not in words.lower()


@pytest.mark.parametrize("container", [list, np.asarray, torch.from_numpy, np.ma.masked_invalid])
def test_rows_may_come_as_any_array(plain: Autoencoder, container: Any, tmp_path: Path) -> None:
    X = rows()
    same = written(plain, X, tmp_path)
    page = written(plain, X.tolist() if container is list else container(X), tmp_path)
    assert page.words.partition("About this page")[0] == same.words.partition("About this page")[0]


@pytest.mark.parametrize("container", [pl.from_pandas, pa.Table.from_pandas])
def test_rows_may_come_as_any_frame(mixed: Autoencoder, container: Any, tmp_path: Path) -> None:
    page = written(mixed, container(frame()), tmp_path)
    assert page.mistakes == []
    assert "of 300 rows" in page.words


@pytest.mark.parametrize("stream", [False, True])
def test_rows_may_come_from_a_file(plain: Autoencoder, stream: bool, tmp_path: Path) -> None:
    ae = fitted(pd.DataFrame(rows(), columns=list("abcdef")), n_components=2)
    pd.DataFrame(rows(), columns=list("abcdef")).to_csv(tmp_path / "my rows.csv", index=False)
    page = written(ae, Files(tmp_path / "my rows.csv", stream=stream), tmp_path)
    assert "300 rows of my rows.csv" in page.words
    same = written(ae, tmp_path / "my rows.csv", tmp_path)
    assert page.words.partition("Made")[0] == same.words.partition("Made")[0]


def test_a_source_that_cannot_be_used_is_refused_as_elsewhere(
    plain: Autoencoder, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="6 features"):
        report.write(plain, rows()[:, :5], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_no_rows_are_refused(plain: Autoencoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 sample"):
        report.write(plain, np.empty((0, 6)), tmp_path / "report.html")


def test_the_code_may_be_one_number(tmp_path: Path) -> None:
    page = written(fitted(rows(), n_components=1), rows(), tmp_path)
    assert page.mistakes == []
    assert "The code is one number" in page.words


def test_codes_may_come_as_frames(tmp_path: Path) -> None:
    ae = fitted(rows(), n_components=2).set_output(transform="pandas")
    assert written(ae, rows(), tmp_path).mistakes == []


def test_images_in_colour_are_shown(tmp_path: Path) -> None:
    X = np.random.default_rng(0).integers(0, 256, size=(60, 10, 12, 3)).astype(np.uint8)
    page = written(fitted(X, n_components=3, epochs=1), X, tmp_path)
    assert "A model of images of 10 × 12 × 3 pixels" in page.words
    assert len(page.all("img")) > 40


def test_sequences_are_no_images(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(60, 20, 2))
    page = written(fitted(X, n_components=3, epochs=1), X, tmp_path)
    assert page.all("img") == []
    assert "A model of 40 columns" in page.words


def test_flat_images_are_told_how_to_be_shown(images: NDArray[np.float32], tmp_path: Path) -> None:
    flat = np.rint(255 * images.reshape(len(images), -1)) / 255
    words = written(fitted(flat, n_components=3, epochs=1), flat, tmp_path).words
    assert "pass them as (n, 8, 8)" in words


def test_of_many_columns_the_worst_and_the_best_are_listed(tmp_path: Path) -> None:
    X = np.hstack([rows() for _ in range(9)])
    page = written(fitted(X, n_components=2, epochs=1), X, tmp_path)
    assert "The 12 worst of 54 columns" in page.words
    assert "The 12 best of 54 columns" in page.words


def test_of_many_rows_a_sample_is_measured_and_all_are_scored(
    plain: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "SAMPLE_ROWS", 100)
    words = written(plain, rows(), tmp_path).words
    assert "All 300 rows are scored. Errors, columns, components and the map are of 100" in words
    assert "100 rows drawn, chosen at random out of 300" in words
    n = int((plain.predict(rows()) == -1).sum())
    assert f"{n} of 300 rows" in words


def test_a_table_of_many_rows_makes_a_light_page(plain: Autoencoder, tmp_path: Path) -> None:
    written(plain, rows(21_000), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_images_make_a_light_page(tmp_path: Path) -> None:
    X = np.random.default_rng(0).integers(0, 256, size=(40, 132, 34)).astype(np.uint8)
    ae = fitted(X, n_components=2, hidden_layers=(), epochs=1)
    page = written(ae, X, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 500_000
    assert all(int(picture["width"] or 0) <= 128 for picture in page.all("img"))


def test_what_it_takes_is_told_now_and_then(
    plain: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "_PROGRESS_SECONDS", 0.0)
    told: list[str] = []
    report.write(plain, rows(), tmp_path / "report.html", progress=told.append)
    assert told[0] == "scored 300 of 300 rows"
    assert told[-1] == "explaining 10 rows"


def test_what_is_quick_is_not_told(plain: Autoencoder, tmp_path: Path) -> None:
    told: list[str] = []
    report.write(plain, rows(40), tmp_path / "report.html", progress=told.append)
    assert told == []


def test_nothing_is_overwritten_unasked(plain: Autoencoder, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        report.write(plain, rows(), path)
    assert path.read_text() == "mine"


def test_a_folder_is_left_alone(plain: Autoencoder, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="is a folder"):
        report.write(plain, rows(), tmp_path, overwrite=True)


def test_what_cannot_be_written_leaves_the_old_page(
    plain: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")

    def full(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="could not be written: No space left"):
        report.write(plain, rows(), path, overwrite=True)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_above_the_page_are_made(plain: Autoencoder, tmp_path: Path) -> None:
    report.write(plain, rows(40), tmp_path / "a" / "b" / "report.html")
    assert (tmp_path / "a" / "b" / "report.html").exists()


@pytest.mark.usefixtures("untouched_random_state")
def test_no_global_random_state_is_touched(plain: Autoencoder, tmp_path: Path) -> None:
    written(plain, rows(), tmp_path)


def test_the_model_and_the_rows_stay_as_they_are(mixed: Autoencoder, tmp_path: Path) -> None:
    X, before = frame(), mixed.score_samples(frame())
    written(mixed, X, tmp_path)
    pd.testing.assert_frame_equal(X, frame())
    np.testing.assert_array_equal(mixed.score_samples(frame()), before)


def test_the_same_rows_give_the_same_page(plain: Autoencoder, tmp_path: Path) -> None:
    first, second = (written(plain, rows(), tmp_path).source for _ in range(2))
    assert first.partition("<dt>Made</dt>")[0] == second.partition("<dt>Made</dt>")[0]


def test_a_loaded_model_gives_the_same_page(plain: Autoencoder, tmp_path: Path) -> None:
    from twofold import load

    plain.save(tmp_path / "model")
    first = written(plain, rows(), tmp_path).source
    second = written(load(tmp_path / "model"), rows(), tmp_path).source
    assert first.partition("<dt>Made</dt>")[0] == second.partition("<dt>Made</dt>")[0]


def test_seconds_of_several_runs_are_added() -> None:
    runs = [1.0, 2.0, 3.0, 0.5, 1.5]
    assert report.seconds([{"seconds": seconds} for seconds in runs]) == 4.5


def test_the_command_writes_the_page(plain: Autoencoder, tmp_path: Path) -> None:
    plain.save(tmp_path / "model")
    np.save(tmp_path / "rows.npy", rows())
    arguments = ["report", str(tmp_path / "model"), str(tmp_path / "rows.npy")]
    arguments += ["--output", str(tmp_path / "report.html")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "report.html: a page with" in done.output
    assert Page((tmp_path / "report.html").read_text("utf-8")).mistakes == []

    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "--force" in again.output
    assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 0
