"""The explorer's page in a browser: it shows what Python says, by mouse, keys and touch."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.path
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from twofold import Autoencoder, datasets
from twofold.errors import DatasetUnavailable
from twofold.explorer import code_map
from twofold.explorer.source import Source

api = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
uvicorn = pytest.importorskip("uvicorn", reason="the explorer needs uvicorn")
image_files = pytest.importorskip("PIL.Image", reason="screenshots are read with Pillow")
explore = pytest.importorskip("twofold.explorer.app", reason="the explorer needs Starlette")

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
HERE = "http://127.0.0.1"
Array = NDArray[Any]
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
# Models here learn in a moment what a page can show.
pytestmark = [
    pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning"),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"there is no Chromium at {CHROMIUM}"),
]


@dataclass
class Served:
    """A model and rows, and where the explorer shows them."""

    model: Autoencoder
    rows: Any
    address: str

    @cached_property
    def own(self) -> Any:
        """The rows as the model takes them."""
        if isinstance(self.rows, pd.DataFrame):
            return self.rows[list(self.model.schema_.names)]
        return self.rows

    @cached_property
    def scores(self) -> Array:
        return np.asarray(self.model.score_samples(self.own))

    @cached_property
    def anomalies(self) -> list[int]:
        return np.flatnonzero(self.scores < self.model.offset_).tolist()

    @cached_property
    def places(self) -> Array:
        mapped = code_map.CodeMap(self.model, Source.read(self.rows, self.model.schema_))
        return np.stack([mapped.along(axis) for axis in mapped.default_axes], 1)


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., Served]]:
    """Run explorers in threads, each on a free port, and stop them in the end."""
    running = []

    def start(model: Autoencoder, rows: Any, title: str = "model") -> Served:
        app = explore.create_app(model, rows, title=title)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread, listener))
        return Served(model, rows, f"{HERE}:{listener.getsockname()[1]}")

    yield start
    for server, thread, listener in running:
        server.should_exit = True
        thread.join(30)
        listener.close()


@pytest.fixture(scope="module")
def digits(serve: Callable[..., Served]) -> Served:
    images = datasets.digits().train
    model = Autoencoder(n_components=2, hidden_layers=(32,), epochs=10, random_state=0)
    return serve(model.fit(images), images, "digits")


@pytest.fixture(scope="module")
def mnist_images(serve: Callable[..., Served]) -> Served:
    try:
        images = datasets.mnist(download=False).test[:1000]
    except DatasetUnavailable as error:
        pytest.skip(str(error))
    model = Autoencoder(n_components=16, hidden_layers=(64,), epochs=3, random_state=0)
    return serve(model.fit(images), images, "mnist")


@pytest.fixture(scope="module")
def houses(all_houses: Served, serve: Callable[..., Served]) -> Served:
    """A quarter of them: where all are drawn in software, each window takes a second."""
    return serve(all_houses.model, all_houses.rows[::4].reset_index(drop=True), "houses")


@pytest.fixture(scope="module")
def all_houses(serve: Callable[..., Served]) -> Served:
    path = Path(os.environ.get("TWOFOLD_DATA", ""), "tabular", "california_housing.csv")
    if not path.is_file():
        pytest.skip("California housing is not in TWOFOLD_DATA")
    rows = pd.read_csv(path)
    model = Autoencoder(n_components=4, epochs=3, random_state=0)
    return serve(model.fit(rows.drop(columns="median_house_value")[:4000]), rows, "houses")


@pytest.fixture(scope="module")
def hostile(serve: Callable[..., Served]) -> Served:
    """Names and cells that a careless page would run, and names without end."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "<script>window.ran = 1</script>": rng.normal(size=200),
            "<img src=x onerror='window.ran = 2'>": rng.choice(["<b>x</b>", HARM], 200),
            "long " + "name " * 60: rng.normal(size=200) * 1e9,
            "plain": rng.normal(size=200),
        }
    )
    model = Autoencoder(n_components=2, epochs=2, random_state=0).fit(rows)
    return serve(model, rows.assign(extra=[HARM] * 200), "<img src=x onerror='window.ran = 3'>")


HARM = "<script>window.ran = 4</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Window:
    """A page of its own, which notes what went wrong in it."""

    def __init__(self, browser: Any, served: Served, where: str, **settings: Any) -> None:
        self.served = served
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **settings}
        )
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.mistakes: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.mistakes.append(f"dialog {dialog.message}"))
        self.go(where)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.mistakes.append(message.text)

    def go(self, where: str = "") -> None:
        self.page.goto(f"{self.served.address}/{where}")
        self.page.wait_for_selector("#map[data-ready]")

    def reload(self) -> None:
        self.page.reload()
        self.page.wait_for_selector("#map[data-ready]")

    def pixels(self, places: Array) -> Array:
        """Where places on the map are in the window."""
        box = self.page.locator("#map").bounding_box()
        x0, x1, y0, y1 = map(float, self.page.get_attribute("#map", "data-view").split())
        left, top, width, height = map(float, self.page.get_attribute("#map", "data-plot").split())
        px = box["x"] + left + (places[:, 0] - x0) / (x1 - x0) * width
        py = box["y"] + top + (y1 - places[:, 1]) / (y1 - y0) * height
        return np.stack([px, py], 1)

    def data(self, pixels: Array) -> Array:
        """The places on the map of pixels in the window."""
        corners = np.array([[0.0, 0.0], [1.0, 1.0]])
        (ox, oy), (ex, ey) = self.pixels(corners)
        return (pixels - [ox, oy]) / [ex - ox, ey - oy]

    def centre(self) -> tuple[float, float]:
        box = self.page.locator("#map").bounding_box()
        left, top, width, height = map(float, self.page.get_attribute("#map", "data-plot").split())
        return box["x"] + left + width / 2, box["y"] + top + height / 2

    def screenshot(self) -> Array:
        image = image_files.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        return np.asarray(image).astype(int)

    def canvas(self, selector: str) -> Array:
        """The red part of a canvas's pixels, `(height, width)`."""
        read = """canvas => {
          const {width, height} = canvas;
          const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
          return {width, height, red: Array.from(data).filter((_, i) => i % 4 === 0)};
        }"""
        found = self.page.locator(selector).first.evaluate(read)
        return np.array(found["red"]).reshape(found["height"], found["width"])

    def until(self, condition: str) -> None:
        # Asked again and again from here: the page's own policy lets nothing be evaluated in it.
        for _ in range(600):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"in vain: {condition}")

    def move(self, place: Array) -> None:
        self.page.mouse.move(float(place[0]), float(place[1]))

    def value(self, selector: str) -> float:
        return float(self.page.locator(selector).first.get_attribute("value"))


Open = Callable[..., Window]


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Open windows; in the end nothing may have gone wrong in them, nor left this machine."""
    windows: list[Window] = []

    def start(served: Served, where: str = "", **settings: Any) -> Window:
        windows.append(Window(browser, served, where, **settings))
        return windows[-1]

    yield start
    for window in windows:
        window.context.close()
        assert window.mistakes == []
        foreign = [url for url in window.asked if not url.startswith((HERE, "blob:" + HERE))]
        assert foreign == []


def lonely(places: Array, window: Window, n: int = 3) -> list[int]:
    """Rows in the view's middle whose points no other point is near."""
    pixels = window.pixels(places)
    apart = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    x, y = window.centre()
    far = np.abs(pixels - [x, y]).max(axis=1) > 230
    return np.argsort(np.where(far, 0, -apart.min(axis=1)))[:n].tolist()


def test_every_point_is_drawn(digits: Served, opened: Open) -> None:
    window = opened(digits)
    assert window.page.get_attribute("#map", "data-drawn") == "1500"
    seen = window.screenshot()
    pixels = window.pixels(digits.places).round().astype(int)
    around = np.stack([seen[y, x] for x, y in pixels])
    background = seen[pixels[:, 1].min() - 12, pixels[:, 0].min() - 12]
    assert (np.abs(around - background).sum(axis=1) > 60).mean() > 0.99


def test_points_are_drawn_without_webgl(digits: Served, browser: Any, opened: Open) -> None:
    window = opened(digits)
    without = """
      const get = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
        return kind === "webgl2" ? null : get.call(this, kind, ...more);
      };"""
    window.page.add_init_script(without)
    window.reload()
    seen = window.screenshot()
    pixels = window.pixels(digits.places).round().astype(int)
    background = seen[pixels[:, 1].min() - 12, pixels[:, 0].min() - 12]
    around = np.stack([seen[y, x] for x, y in pixels])
    assert (np.abs(around - background).sum(axis=1) > 60).mean() > 0.99


def test_hovering_shows_the_image_and_its_reconstruction(digits: Served, opened: Open) -> None:
    window = opened(digits)
    places = digits.places
    for row in lonely(places, window):
        window.move(window.pixels(places[row : row + 1])[0])
        window.page.wait_for_selector(f"#card[data-row='{row}']:not([hidden])")
        assert window.page.inner_text("#card strong") == f"Row {row:,}"
        shown = window.canvas("#card canvas >> nth=0")
        assert np.array_equal(shown, digits.rows[row])
        decoded = digits.model.reconstruct(digits.rows[row : row + 1])[0]
        assert np.abs(window.canvas("#card canvas >> nth=1") - decoded).max() <= 1


def test_hovering_shows_the_cells_and_their_reconstruction(houses: Served, opened: Open) -> None:
    window = opened(houses)
    x, y = window.centre()
    # The card comes a little later, when the pointer may be elsewhere: until both are at one row.
    same = (
        "document.querySelector('#card:not([hidden])')?.dataset.row === "
        "document.querySelector('#map').dataset.hovered"
    )
    for step in 20 * [*range(0, 300, 6)]:
        window.page.mouse.move(x - 150 + step, y)
        if window.page.locator("#card:not([hidden])").count() and window.page.evaluate(same):
            break
    window.until(same)
    row = int(window.page.get_attribute("#card", "data-row"))
    near = window.pixels(houses.places)[row] - [x - 150 + step, y]
    assert np.hypot(*near) < 16
    cells = window.page.locator("#card tbody tr").all_inner_texts()
    shown = {line.split("\t")[0]: line.split("\t")[1:] for line in cells}
    name = next(name for name in ("population", "total_rooms", "households") if name in shown)
    rebuilt = houses.model.reconstruct(houses.own[row : row + 1])[name].iloc[0]
    observed, other = (float(text.replace(",", "").replace("−", "-")) for text in shown[name])
    assert observed == houses.rows[name][row]
    assert other == pytest.approx(rebuilt, rel=1e-3, abs=1)


def test_a_card_comes_while_the_pointer_trembles_over_its_point(
    digits: Served, opened: Open
) -> None:
    window = opened(digits)
    row = lonely(digits.places, window)[0]
    x, y = window.pixels(digits.places[row : row + 1])[0]
    for step in range(400):
        window.page.mouse.move(float(x) + step % 2, float(y))
        if window.page.locator("#card:not([hidden])").count():
            break
    else:
        pytest.fail("no card, although the pointer never left the point")
    assert window.page.get_attribute("#card", "data-row") == str(row)


def test_a_lasso_counts_what_lies_in_it(houses: Served, opened: Open) -> None:
    window = opened(houses)
    window.page.click("[data-tool=lasso]")
    x, y = window.centre()
    turn = np.linspace(0, 2 * np.pi, 25)[:-1]
    radius = 130 + 50 * np.sin(3 * turn)
    path = np.round([x + radius * np.cos(turn), y + radius * np.sin(turn)]).T
    window.move(path[0])
    window.page.mouse.down()
    for place in path[1:]:
        window.move(place)
    window.page.mouse.up()
    window.page.wait_for_selector("#selected-count")
    truth = matplotlib.path.Path(window.data(path)).contains_points(houses.places)
    assert window.value("#selected-count") == truth.sum() > 20


def test_a_box_counts_what_lies_in_it(digits: Served, opened: Open) -> None:
    window = opened(digits)
    window.page.click("[data-tool=box]")
    x, y = window.centre()
    window.page.mouse.move(x - 120, y - 90)
    window.page.mouse.down()
    window.page.mouse.move(x + 60, y + 40, steps=4)
    window.page.mouse.up()
    window.page.wait_for_selector("#selected-count")
    (x0, y1), (x1, y0) = window.data(np.array([[x - 120, y - 90], [x + 60, y + 40]]))
    places = digits.places
    inside = (places > [x0, y0]).all(axis=1) & (places < [x1, y1]).all(axis=1)
    assert window.value("#selected-count") == inside.sum() > 20
    shown = window.canvas("#panel-selection canvas >> nth=0")
    assert np.abs(shown - digits.rows[inside].mean(axis=0)).max() <= 1


def test_a_selection_is_saved(digits: Served, opened: Open, tmp_path: Path) -> None:
    window = opened(digits)
    window.page.click("#select-anomalies")
    window.page.wait_for_selector("#selected-count")
    with window.page.expect_download() as download:
        window.page.click("text=Save as CSV")
    download.value.save_as(tmp_path / "selection.csv")
    assert pd.read_csv(tmp_path / "selection.csv")["row"].tolist() == digits.anomalies
    assert window.value("#selected-count") == len(digits.anomalies)


def test_nothing_selected_says_so(digits: Served, opened: Open) -> None:
    window = opened(digits)
    window.page.click("#tab-selection")
    assert "Drag a box or a lasso" in window.page.inner_text("#panel-selection")
    window.page.click("#select-anomalies")
    window.page.click("#panel-selection >> text=Clear")
    window.page.wait_for_selector("#panel-selection >> text=Drag a box")


def decoded_from(window: Window) -> list[float]:
    return json.loads(window.page.get_attribute(".output", "data-code"))


@pytest.mark.parametrize("which", ["digits", "mnist_images"])
def test_a_slider_decodes_what_python_decodes(
    which: str, opened: Open, request: pytest.FixtureRequest
) -> None:
    served: Served = request.getfixturevalue(which)
    window = opened(served, "#panel=decoder&row=5")
    window.page.wait_for_selector("#decoded")
    start = served.model.transform(served.rows[5:6])[0]
    assert np.allclose(decoded_from(window), start, atol=1e-4)
    slider = window.page.locator(".sliders input").nth(1)
    position = int(slider.get_attribute("id").removeprefix("slider-"))
    for _ in range(8):
        slider.press("ArrowRight")
    code = start.copy()
    code[position] = float(slider.input_value())
    assert code[position] != pytest.approx(start[position], abs=0.05)
    window.until(
        f"JSON.parse(document.querySelector('.output').dataset.code)[{position}] "
        f"=== Number(document.querySelectorAll('.sliders input')[1].value)"
    )
    expected = served.model.inverse_transform(np.array([decoded_from(window)], np.float32))[0]
    assert np.allclose(decoded_from(window), code, atol=1e-4)
    assert np.abs(window.canvas("#decoded") - expected).max() <= 1


def test_a_slider_decodes_cells(houses: Served, opened: Open) -> None:
    window = opened(houses, "#panel=decoder&row=5")
    window.page.wait_for_selector("#decoded td")
    slider = window.page.locator(".sliders input").first
    slider.press("Home")
    window.until(
        "Object.values(JSON.parse(document.querySelector('.output').dataset.code))"
        ".includes(Number(document.querySelector('.sliders input').value))"
    )
    expected = houses.model.inverse_transform(np.array([decoded_from(window)]))
    line = window.page.locator("#decoded tr", has_text="median_income").locator("td").first
    shown = float(line.inner_text().replace("−", "-"))
    assert shown == pytest.approx(expected["median_income"].iloc[0], rel=1e-3)


def test_twelve_sliders_first_and_the_rest_on_demand(mnist_images: Served, opened: Open) -> None:
    window = opened(mnist_images, "#panel=decoder")
    assert window.page.locator(".sliders input").count() == 12
    window.page.click("text=Show 4 more")
    assert window.page.locator(".sliders input").count() == 16


def test_the_way_between_two_rows(digits: Served, opened: Open) -> None:
    window = opened(digits, "#panel=decoder&a=3&b=8")
    window.page.wait_for_selector(".strip canvas >> nth=8")
    ends = digits.model.transform(digits.rows[[3, 8]])
    middle = digits.model.inverse_transform(ends.mean(axis=0, keepdims=True))[0]
    assert np.abs(window.canvas(".strip canvas >> nth=4") - middle).max() <= 1
    window.page.click(".strip button >> nth=8")
    last = digits.model.inverse_transform(ends[1:])[0]
    window.until("document.querySelector('#way').value === '1'")
    ending = json.dumps(ends[1].astype(float).tolist())
    window.until(
        "JSON.parse(document.querySelector('.output').dataset.code)"
        f".every((value, i) => Math.abs(value - {ending}[i]) < 1e-4)"
    )
    assert np.abs(window.canvas("#decoded") - last).max() <= 1


def test_the_way_plays_to_its_end(digits: Served, opened: Open) -> None:
    window = opened(digits, "#panel=decoder&a=3&b=8")
    window.page.wait_for_selector(".strip canvas >> nth=8")
    window.page.locator("#way").evaluate("way => { way.value = 0.9; }")
    window.page.click("text=Play")
    window.until("document.querySelector('#way').value === '1'")
    window.page.wait_for_selector(".way >> text=Play")
    assert "between row 3 and row 8" in window.page.inner_text("#panel-decoder")


@pytest.mark.parametrize("which", ["houses", "digits"])
def test_the_oddest_row_is_explained(
    which: str, opened: Open, request: pytest.FixtureRequest
) -> None:
    served: Served = request.getfixturevalue(which)
    window = opened(served, "#panel=anomalies")
    window.page.click("[role=option] >> nth=0")
    window.page.wait_for_selector("#panel-anomalies .detail .total")
    row = int(served.scores.argmin())
    assert window.page.get_attribute("[role=option] >> nth=0", "id") == f"anomaly-{row}"
    base, columns, total = (
        window.value(f".detail .{part}") for part in ("base", "columns", "total")
    )
    assert base + columns == pytest.approx(total, rel=1e-4)
    assert total == pytest.approx(-served.scores[row], rel=1e-4)
    if which == "houses":
        told = served.model.explain(served.own[row : row + 1])
        first = window.page.inner_text(".detail tbody th >> nth=0")
        assert first == told.top(0, 1)[0]


def test_anomalies_are_sorted_as_asked(digits: Served, opened: Open) -> None:
    window = opened(digits, "#panel=anomalies")
    window.page.select_option("#panel-anomalies select", "row")
    window.page.wait_for_selector(f"[role=option]:first-child#anomaly-{digits.anomalies[0]}")
    assert "order=row" in window.page.url


def test_the_row_panel_shows_and_explains_a_row(houses: Served, opened: Open) -> None:
    window = opened(houses, "#row=17")
    window.page.wait_for_selector("#panel-row .total")
    text = window.page.inner_text("#panel-row")
    assert "Row 17" in text
    assert f"{houses.rows['median_house_value'][17]:,.0f}" in text
    assert window.value("#panel-row .total") == pytest.approx(-houses.scores[17], rel=1e-4)


def test_keys_alone_are_enough(digits: Served, opened: Open) -> None:
    window = opened(digits, "#panel=row")
    keyboard = window.page.keyboard

    def focused() -> str:
        return str(
            window.page.evaluate("document.activeElement.id || document.activeElement.className")
        )

    seen = []
    for _ in range(30):
        keyboard.press("Tab")
        seen.append(focused())
        if seen[-1] == "tab-row":
            break
    assert {"color", "x", "y", "zoom-in", "select-view", "map", "tab-row"} <= set(seen)
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert window.page.evaluate(outline) == "solid"
    keyboard.press("ArrowRight")
    assert focused() == "tab-anomalies"
    window.page.wait_for_selector("[role=option] >> nth=3")
    for _ in range(4):
        keyboard.press("Tab")
        if focused() == "list":
            break
    keyboard.press("ArrowDown")
    keyboard.press("ArrowDown")
    window.page.wait_for_selector("[role=option][aria-selected=true]")
    second = int(np.argsort(digits.scores)[1])
    window.page.wait_for_selector(f"#anomaly-{second}[aria-selected=true]")
    assert f"row={second}" in window.page.url


def test_the_map_follows_keys(digits: Served, opened: Open) -> None:
    window = opened(digits)
    window.page.focus("#map")
    start = window.page.get_attribute("#map", "data-view")
    for key in ("+", "ArrowLeft"):
        before = window.page.get_attribute("#map", "data-view")
        window.page.keyboard.press(key)
        window.until(f"document.querySelector('#map').dataset.view !== '{before}'")
    window.page.keyboard.press("0")
    window.until(f"document.querySelector('#map').dataset.view === '{start}'")
    window.page.keyboard.press("n")
    window.until("location.hash.includes('row=0')")


def test_the_wheel_zooms_where_the_pointer_is(digits: Served, opened: Open) -> None:
    window = opened(digits)
    x, y = window.centre()
    place = np.round([[x - 60, y + 40]])
    before, view = window.data(place), window.page.get_attribute("#map", "data-view")
    window.move(place[0])
    window.page.mouse.wheel(0, -400)
    window.until(f"document.querySelector('#map').dataset.view !== '{view}'")
    assert np.allclose(window.data(place), before, atol=1e-3)


def test_the_address_restores_the_view(houses: Served, opened: Open) -> None:
    window = opened(houses, "#panel=row")
    window.page.select_option("#color", label="ocean_proximity")
    window.page.select_option("#x", "c2")
    window.page.click("#tab-anomalies")
    window.page.click("[role=option] >> nth=1")
    window.until("location.hash.includes('row=')")
    row = window.page.url.partition("row=")[2].partition("&")[0]
    window.reload()
    assert window.page.locator("#x").input_value() == "c2"
    assert window.page.locator("#color option:checked").inner_text() == "ocean_proximity"
    assert window.page.get_attribute("#tab-anomalies", "aria-selected") == "true"
    window.page.wait_for_selector(f"#panel-anomalies .detail >> text=Row {int(row):,}")
    window.page.go_back()
    window.until("!location.hash.includes('row=')")
    window.page.go_back()
    window.page.wait_for_selector("#tab-row[aria-selected=true]")
    window.page.go_back()
    window.until("document.querySelector('#x').value === 'pc1'")


def test_it_opens_on_anomalies_where_there_are_some(digits: Served, opened: Open) -> None:
    window = opened(digits)
    assert digits.anomalies
    assert window.page.get_attribute("#tab-anomalies", "aria-selected") == "true"
    window.page.wait_for_selector("[role=option] >> nth=0")
    window.page.click("#tab-model")
    assert "weights" in window.page.inner_text("#panel-model")
    window.page.click("#facts a")
    assert window.page.get_attribute("#tab-anomalies", "aria-selected") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme: str, houses: Served, opened: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    window = opened(houses, "#panel=row&row=5", color_scheme=scheme)
    window.page.wait_for_selector("#panel-row .total")
    serious = []
    for panel in ("row", "anomalies", "decoder", "model"):
        window.page.click(f"#tab-{panel}")
        for one in axe.Axe().run(window.page).response["violations"]:
            if one["impact"] in ("serious", "critical"):
                serious.append((panel, one["id"], one["nodes"][0]["html"][:200]))
    assert not serious


def test_an_address_that_means_nothing_is_the_start(digits: Served, opened: Open) -> None:
    window = opened(digits)
    wrong = ("#row=99999999", "#row=x&color=nothing&panel=none&x=c99", "#=&&%")
    for visit, where in enumerate(wrong):
        window.go(f"?{visit}{where}")
        assert window.page.locator("#color").input_value() == "score"
        assert window.page.get_attribute("#tab-row", "aria-selected") == "true"
        assert window.page.locator("#alert").is_hidden()


def test_either_axis_of_the_neighbor_map_brings_the_other(
    houses: Served, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_map, "_LANDMARKS", 60)
    window = opened(houses, "#row=5")
    window.page.select_option("#y", "tsne2")
    window.until("document.getElementById('note').textContent.startsWith('t-SNE')")
    assert window.page.locator("#x").input_value() == "tsne1"
    assert window.page.locator("#alert").is_hidden()
    window.page.select_option("#x", "c0")
    window.until("!document.getElementById('note').textContent.includes('t-SNE')")
    assert window.page.locator("#y").input_value() == "pc2"


def test_no_number_or_name_of_an_explanation_is_cut(houses: Served, opened: Open) -> None:
    window = opened(houses, "#panel=row&row=5")
    window.page.wait_for_selector("#panel-row .total")
    cut = """nodes => nodes.filter(node => node.scrollWidth > node.clientWidth + 1
        || node.scrollHeight > node.clientHeight + 1).map(node => node.textContent)"""
    for width in (390, 768, 1280):
        window.page.set_viewport_size({"width": width, "height": 900})
        cells = window.page.locator("#panel-row .reasons :is(td, th .name)")
        assert not cells.evaluate_all(cut), width


def test_levels_can_be_hidden(houses: Served, opened: Open) -> None:
    window = opened(houses)
    window.page.select_option("#color", label="ocean_proximity")
    window.page.wait_for_selector(".level >> nth=4")
    shown = window.page.locator(".level").all_inner_texts()
    counts = houses.rows["ocean_proximity"].value_counts()
    assert [text.split("\n")[0].strip() for text in shown] == counts.index.tolist()
    before = window.screenshot()
    window.page.click(".level >> nth=0")
    assert window.page.get_attribute(".level >> nth=0", "aria-pressed") == "false"
    window.page.wait_for_timeout(200)
    assert (window.screenshot() != before).any(axis=2).sum() > 2000


def test_roles_and_names(houses: Served, opened: Open) -> None:
    window = opened(houses, "#panel=anomalies")
    window.page.wait_for_selector("[role=option]")
    tree = window.page.locator("body").aria_snapshot()
    for line in (
        'heading "twofold houses" [level=1]',
        'region "Map of the codes"',
        'application "Map of the codes"',
        'combobox "Colour"',
        'radio "Move" [checked]',
        'tablist "Details"',
        'tab "Anomalies" [selected]',
        'tabpanel "Anomalies"',
        'listbox "Anomalies"',
        'option "Row ',
    ):
        assert line in tree, f"{line} is not in\n{tree}"


def test_every_control_has_a_name(digits: Served, opened: Open) -> None:
    window = opened(digits, "#row=3&a=3&b=5")
    controls = "button, input, select, [role=img], [tabindex]"
    nameless = f"""() => [...document.querySelectorAll("{controls}")].filter(node =>
      node.checkVisibility() && !(node.ariaLabel || node.getAttribute("aria-labelledby")
        || node.labels?.length || node.innerText?.trim()
        || node.closest("[role=option], button[aria-label]"))).map(node => node.outerHTML)"""
    for panel in ("row", "anomalies", "selection", "decoder", "model"):
        window.page.click(f"#tab-{panel}")
        window.page.wait_for_timeout(200)
        assert window.page.evaluate(nameless) == []


def test_names_and_cells_run_nothing(hostile: Served, opened: Open) -> None:
    window = opened(hostile, "#row=3")
    window.page.wait_for_selector("#panel-row .total")
    assert HARM in window.page.inner_text("#panel-row")
    assert "<img src=x" in window.page.inner_text("h1")
    for panel in ("anomalies", "decoder", "model"):
        window.page.click(f"#tab-{panel}")
        window.page.wait_for_timeout(150)
    window.page.select_option("#color", "column1")
    window.page.click("#select-view")
    window.page.wait_for_selector("#selected-count")
    assert window.page.evaluate("window.ran") is None
    assert window.page.evaluate("document.querySelectorAll('img, script:not([src])').length") == 0


@pytest.mark.parametrize("which", ["hostile", "digits"])
def test_nothing_is_wider_than_a_phone(
    which: str, opened: Open, request: pytest.FixtureRequest
) -> None:
    served: Served = request.getfixturevalue(which)
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    window = opened(served, "#row=3&a=3&b=5", **phone)
    for panel in ("row", "anomalies", "decoder", "model"):
        window.page.click(f"#tab-{panel}")
        window.page.wait_for_timeout(200)
        assert window.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert window.page.locator("#map").bounding_box()["height"] >= 240


def test_a_tap_chooses_a_row(digits: Served, opened: Open) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    window = opened(digits, **phone)
    places = digits.places
    row = lonely(places, window, 1)[0]
    x, y = window.pixels(places[row : row + 1])[0].tolist()
    window.page.touchscreen.tap(x, y)
    window.until(f"location.hash.includes('row={row}')")


def test_a_dark_page_is_dark(digits: Served, opened: Open) -> None:
    light, dark = (
        opened(digits, color_scheme=scheme).screenshot().mean() for scheme in ("light", "dark")
    )
    assert light > 200
    assert dark < 60


def test_failures_are_said_in_words(digits: Served, opened: Open) -> None:
    window = opened(digits, "#panel=row")
    body = json.dumps({"error": "The rows are gone.", "column": None, "fix": "Bring them back."})
    window.page.route("**/rows/5", lambda route: route.fulfill(status=422, body=body))
    window.page.fill("#row-number", "5")
    window.page.press("#row-number", "Enter")
    window.page.wait_for_selector("#alert >> text=The rows are gone. Bring them back.")
    window.page.route("**/rows/6", lambda route: route.abort())
    window.page.fill("#row-number", "6")
    window.page.press("#row-number", "Enter")
    window.page.wait_for_selector("#alert >> text=Is `twofold explore` still running?")
    window.page.click("#alert-close")
    assert window.page.locator("#alert").is_hidden()
    # The browser itself notes such answers.
    window.mistakes[:] = [text for text in window.mistakes if "Failed to load" not in text]


def test_a_row_that_cannot_be_explained_is_shown(digits: Served, opened: Open) -> None:
    window = opened(digits, "#panel=row")
    body = json.dumps({"error": "There is no time for that.", "column": None, "fix": "Wait."})
    window.page.route("**/explain", lambda route: route.fulfill(status=503, body=body))
    window.page.fill("#row-number", "5")
    window.page.press("#row-number", "Enter")
    window.page.wait_for_selector("#panel-row canvas >> nth=1")
    window.page.wait_for_selector("#alert >> text=There is no time for that. Wait.")
    window.mistakes[:] = [text for text in window.mistakes if "Failed to load" not in text]


def test_a_row_that_does_not_exist_is_said(digits: Served, opened: Open) -> None:
    window = opened(digits, "#panel=row")
    window.page.fill("#row-number", "1500")
    window.page.press("#row-number", "Enter")
    window.page.wait_for_selector("#alert >> text=Expected a row from 0 to")


def test_a_sample_says_so_and_gives_way_to_all(
    digits: Served, serve: Callable[..., Served], opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_map, "SAMPLE", 300)
    monkeypatch.setattr(code_map, "_LEAST_NORMAL", 100)
    served = serve(digits.model, digits.rows)
    window = opened(served)
    assert window.page.get_attribute("#map", "data-drawn") == "300"
    assert "A sample of 300 of 1,500 rows" in window.page.inner_text("#note")
    window.page.click("#select-view")
    window.page.wait_for_selector("#selected-count")
    assert window.value("#selected-count") > 1400  # of all rows, not of those that are drawn
    window.page.select_option("#points", "all")
    window.page.wait_for_selector("#map[data-drawn='1500']")
    assert "sample" not in window.page.inner_text("#note")
    assert "points=all" in window.page.url


def test_learning_curves_and_layers(digits: Served, opened: Open) -> None:
    window = opened(digits, "#panel=model")
    points = window.page.get_attribute("polyline.loss", "points")
    assert len(points.split()) == len(digits.model.history_)
    assert "encoder 1" in window.page.inner_text("#panel-model pre")
    assert f"{digits.model.network_.n_parameters:,}" in window.page.inner_text(".facts")


def test_the_first_draw_is_soon(all_houses: Served, opened: Open) -> None:
    window = opened(all_houses)
    drawn = "performance.getEntriesByName('first-draw')[0].startTime"
    assert window.page.get_attribute("#map", "data-drawn") == str(len(all_houses.rows))
    assert window.page.evaluate(drawn) < 10_000  # a fraction of that where nothing else runs


def test_hovering_answers_soon(all_houses: Served, opened: Open) -> None:
    window = opened(all_houses)
    x, y = window.centre()
    started = time.perf_counter()
    for step in range(0, 300, 6):
        window.page.mouse.move(x - 150 + step, y - 40)
        if window.page.locator("#card:not([hidden])").count():
            break
    window.page.wait_for_selector("#card:not([hidden])")
    assert time.perf_counter() - started < 10
