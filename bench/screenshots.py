"""Photographs report and explorer for the documentation, in headless Chromium.

    python bench/screenshots.py            explorer-*.png and report-*.png in docs/images
    python bench/screenshots.py report     those of the report

The report is that of docs/report.md; the explorer shows MNIST's test images and California housing.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pictures import DOCS, PYTHON
from playwright.sync_api import sync_playwright

from twofold import Autoencoder, datasets
from twofold.explorer.app import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SHOWN = DOCS / "images"


@contextmanager
def served(ae: Autoencoder, source: Path, title: str) -> Iterator[str]:
    """Serve the explorer in a thread, and give its address."""
    import uvicorn

    app = create_app(ae, source, title=title, source_title=source.name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(30)


def opened(browser: Browser, address: str, width: int, height: int, scale: float) -> Page:
    size = {"width": width, "height": height}
    page = browser.new_page(viewport=size, device_scale_factor=scale, color_scheme="light")
    page.goto(address)
    page.wait_for_load_state("networkidle")
    return page


def mnist(browser: Browser, folder: Path) -> None:
    images = datasets.mnist()
    recipe: dict[str, Any] = {"n_components": 2, "hidden_layers": (256, 64), "activation": "gelu"}
    ae = Autoencoder(**recipe, epochs=10, random_state=0).fit(images.train[:20_000])
    np.savez(folder / "mnist.npz", X=images.test, digit=images.test_labels)
    with served(ae, folder / "mnist.npz", "mnist-model") as address:
        page = opened(browser, address, 1280, 800, 1.5)
        page.select_option("#color", label="digit")
        page.click("#tab-decoder")
        for end, row in (("a", 7), ("b", 18)):
            page.fill(f"#end-{end}", str(row))
            page.press(f"#end-{end}", "Enter")
        page.fill("#way", "0.5")
        box = page.locator("#map").bounding_box()
        assert box is not None
        for across in np.linspace(0.5, 0.6, 40):  # to the next point under the pointer
            page.mouse.move(box["x"] + across * box["width"], box["y"] + 0.4 * box["height"])
            page.wait_for_timeout(200)
            if page.locator("#card").is_visible():
                break
        page.screenshot(path=SHOWN / "explorer-mnist.png")


def california(browser: Browser, folder: Path) -> None:
    place = Path(os.environ["TWOFOLD_DATA"]) / "tabular" / "california_housing.csv"
    houses = pd.read_csv(place)
    ae = Autoencoder(n_components=4, epochs=60, random_state=0).fit(houses)
    with served(ae, place, "california-model") as address:
        page = opened(browser, address, 1280, 800, 1.5)
        page.click("#tab-anomalies")
        page.click("[role=option] >> nth=1")
        page.wait_for_selector(".detail table")
        page.wait_for_timeout(1_000)
        page.screenshot(path=SHOWN / "explorer-california.png")


def report(browser: Browser, folder: Path) -> None:
    code = PYTHON.findall((DOCS / "report.md").read_text(encoding="utf-8"))[0]
    os.chdir(folder)
    exec(compile(code, "report.md", "exec"), {})
    page = opened(browser, (folder / "report.html").as_uri(), 860, 945, 1.6)
    page.screenshot(path=SHOWN / "report-summary.png")
    heading = page.get_by_role("heading", name="The most anomalous rows, and why")
    heading.evaluate("heading => heading.scrollIntoView()")
    page.set_viewport_size({"width": 860, "height": 760})
    heading.evaluate("heading => heading.scrollIntoView()")
    page.screenshot(path=SHOWN / "report-anomalies.png")


def main() -> None:
    every: dict[str, Callable[[Browser, Path], None]]
    every = {"report": report, "california": california, "mnist": mnist}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", choices=[*every, []], help="pictures of these alone")
    names = parser.parse_args().names or every
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name in names:
            every[name](browser, Path(folder))
        browser.close()


if __name__ == "__main__":
    main()
