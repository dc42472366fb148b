"""How long the explorer's page takes: until the points are there, to hover, to draw a lasso.

    python bench/explorer.py            # 100,000 and 1,000,000 rows, of a table and of images
    python bench/explorer.py --quick    # 2,000 and 5,000 rows: does everything run?
    python bench/explorer.py --table    # the last results, as the table of docs/explorer.md

Rows are made up. The page is that of `twofold explore`, in headless Chromium, which draws without a
graphics card: what is measured is what the slowest machines see. Results go to
`bench/results/explorer.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RESULTS = Path(__file__).parent / "results" / "explorer.json"
TWOFOLD = Path(sys.executable).with_name("twofold")
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
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
SIZES, QUICK_SIZES = (100_000, 1_000_000), (2_000, 5_000)
ON_A_POINT = "document.querySelector('#map').dataset.hovered !== undefined"
TRAINED = 5_000  # rows that the model learns from
VISITS, HOVERS = 3, 12
# Notes when the pointer last moved, and when the card next shows another row.
WATCH_CARD = """() => {
  const seen = window.seen = { moved: 0, shown: [] };
  const card = document.getElementById("card");
  const map = document.getElementById("map");
  map.addEventListener("pointermove", () => { seen.moved = performance.now(); }, true);
  new MutationObserver(() => {
    if (card.hidden || card.dataset.row === seen.row) return;
    seen.row = card.dataset.row;
    requestAnimationFrame(() => seen.shown.push(performance.now() - seen.moved));
  }).observe(card, { attributes: true });
}"""


def table(n_rows: int, seed: int) -> Any:
    """Three clusters of rows with eleven numbers and a category, and a few rows that are odd."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    groups = np.random.default_rng(0).normal(size=(3, 4)) * 2
    which = rng.integers(0, 3, n_rows)
    hidden = groups[which] + rng.normal(size=(n_rows, 4))
    mixing = np.random.default_rng(1).normal(size=(4, 11))
    numbers = np.tanh(hidden @ mixing / 4) * 3 + 0.1 * rng.normal(size=(n_rows, 11))
    odd = rng.random(n_rows) < 0.002
    numbers[odd, rng.integers(0, 11, odd.sum())] += 8
    columns = {f"number {i}": numbers[:, i].astype(np.float32) for i in range(11)}
    columns["group"] = pa.DictionaryArray.from_arrays(which, ["north", "south", "west"])
    return pa.table(columns)


def images(rows: NDArray[np.uint8], seed: int) -> None:
    """Fill `(n, 28, 28)` with blurred strokes of ten sorts, shifted and of varying strength."""
    rng = np.random.default_rng(seed)
    sorts = np.random.default_rng(0).random((10, 7, 7)) > 0.6
    blocks = np.kron(sorts, np.ones((4, 4))).astype(np.float32)
    soft = sum(np.roll(blocks, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    for start in range(0, len(rows), 10_000):
        part = rows[start : start + 10_000]
        n = len(part)
        first, second = soft[rng.integers(0, 10, (2, n))]
        share = rng.random((n, 1, 1), dtype=np.float32) ** 2
        strength = rng.uniform(0.5, 1, (n, 1, 1)).astype(np.float32)
        drawn = strength * ((1 - share) * first + share * second)
        drawn += 0.05 * rng.standard_normal(drawn.shape, dtype=np.float32)
        part[:] = (drawn.clip(0, 1) * 255).astype(np.uint8)


def prepare(kind: str, n_rows: int, folder: Path) -> tuple[Path, Path]:
    """Fit a model, and write the rows; return where both are."""
    model, source = folder / f"{kind}-model", write(kind, n_rows, 1, folder)
    if not model.exists():
        sample = write(kind, TRAINED, 0, folder)
        command = [TWOFOLD, "fit", sample, "--output", model, "--n-components", "8"]
        # One thread, for several wait for each other where other programs are at work.
        subprocess.run(
            [*command, "--epochs", "5", "--random-state", "0", "--quiet"],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    return model, source


def write(kind: str, n_rows: int, seed: int, folder: Path) -> Path:
    """Make rows up, and return the file that holds them."""
    import pyarrow.parquet

    path = folder / f"{kind}-{n_rows}-{seed}.{'parquet' if kind == 'table' else 'npy'}"
    if kind == "table":
        pyarrow.parquet.write_table(table(n_rows, seed), path)
    else:
        rows = np.lib.format.open_memmap(path, "w+", np.uint8, (n_rows, 28, 28))
        images(rows, seed)
        rows.flush()
    return path


@contextmanager
def served(model: Path, source: Path) -> Iterator[tuple[str, float, subprocess.Popen[str]]]:
    """Run `twofold explore`; give its address, and how long it took until it answered."""
    command = [TWOFOLD, "explore", model, source]
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--port", "0", "--no-browser", "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            if found is None:
                raise RuntimeError(f"twofold explore did not start: {line}")
            yield found[0], time.perf_counter() - started, process
        finally:
            process.terminate()
            process.wait(30)


def memory(process: subprocess.Popen[str]) -> float:
    """Megabytes that a process had at most, without the files that are mapped into it."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    sizes = {name: text for name, _, text in (line.partition(":") for line in lines)}
    return round(int(sizes["RssAnon"].split()[0]) / 1000)


@contextmanager
def visit(browser: Browser, address: str) -> Iterator[Page]:
    """Open the page in a window of its own, without what another one has kept."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("#map[data-ready]", timeout=120_000)
        yield page
    finally:
        context.close()


def first_draw(browser: Browser, address: str) -> list[float]:
    """Seconds from navigation until the points were drawn."""
    found = []
    for _ in range(VISITS):
        with visit(browser, address) as page:
            mark = "performance.getEntriesByName('first-draw')[0].startTime"
            found.append(page.evaluate(mark) / 1000)
    return found


def hover(page: Page) -> list[float]:
    """Seconds from the pointer's move until the row and its reconstruction were shown."""
    left, top, width, height = plot(page)
    page.evaluate(WATCH_CARD)
    rng = np.random.default_rng(0)
    for _ in range(40 * HOVERS):
        n = page.evaluate("window.seen.shown.length")
        if n >= HOVERS:
            break
        x, y = rng.uniform(0.25, 0.75, 2)
        page.mouse.move(left + x * width, top + y * height)
        for _ in range(100):
            # Asked from here, for the page's policy lets nothing be evaluated in it.
            if page.evaluate("window.seen.shown.length") > n or not page.evaluate(ON_A_POINT):
                break
            page.wait_for_timeout(20)
    return [ms / 1000 for ms in page.evaluate("window.seen.shown")]


def lasso(page: Page) -> tuple[float, int]:
    """Seconds from letting go of a lasso until its rows were counted and compared; how many."""
    left, top, width, height = plot(page)
    page.click("[data-tool=lasso]")
    turn = np.linspace(0, 2 * np.pi, 60)
    for k, (x, y) in enumerate(
        zip(0.5 + 0.3 * np.cos(turn), 0.5 + 0.3 * np.sin(turn), strict=True)
    ):
        page.mouse.move(left + x * width, top + y * height)
        if k == 0:
            page.mouse.down()
    started = time.perf_counter()
    page.mouse.up()
    page.wait_for_selector("#selected-count", timeout=120_000)
    return time.perf_counter() - started, int(page.get_attribute("#selected-count", "value") or 0)


def plot(page: Page) -> tuple[float, float, float, float]:
    """The plot's place in the window."""
    box = page.locator("#map").bounding_box()
    assert box is not None
    left, top, width, height = map(float, (page.get_attribute("#map", "data-plot") or "").split())
    return box["x"] + left, box["y"] + top, width, height


def measure(browser: Browser, model: Path, source: Path) -> dict[str, Any]:
    """Measure one source."""
    watch = machine.Watch()
    with served(model, source) as (address, seconds, process):
        entry: dict[str, Any] = {"seconds_until_it_answers": seconds}
        for points in ("sample", "all"):
            where = f"{address}/#points={points}"
            draws = first_draw(browser, where)
            with visit(browser, where) as page:
                drawn = int(page.get_attribute("#map", "data-drawn") or 0)
                hovers = hover(page)
                picked, count = lasso(page)
            entry[points] = {
                "points": drawn,
                "first_draw_seconds": statistics.median(draws),
                "first_draws": draws,
                "hover_seconds": statistics.median(hovers) if hovers else None,
                "hovers": hovers,
                "lasso_seconds": picked,
                "lasso_rows": count,
            }
        entry["server_megabytes"] = memory(process)
    return {**entry, "load": watch.stop()}


def markdown(results: dict[str, Any]) -> str:
    """Return the table of docs/explorer.md."""
    lines = [
        "| rows | until the page answers | points drawn | first draw | hover | lasso | server |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, entry in results["rows"].items():
        kind, n_rows = name.split()
        what = "28 × 28 images" if kind == "images" else "12 columns"
        for points in ("sample", "all"):
            found = entry[points]
            if points == "all" and found["points"] == entry["sample"]["points"]:
                continue  # few enough to be their own sample
            first = points == "sample"
            cells = [
                f"{int(n_rows):,}, {what}" if first else "",
                f"{entry['seconds_until_it_answers']:.1f} s" if first else "",
                f"{found['points']:,}",
                f"{found['first_draw_seconds']:.1f} s",
                f"{found['hover_seconds']:.2f} s",
                f"{found['lasso_seconds']:.1f} s",
                f"{entry['server_megabytes']:,} MB" if first else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    where, versions = results["machine"], results["versions"]
    busy = machine.verdict([entry["load"] for entry in results["rows"].values()])["words"]
    lines += [
        "",
        f"Medians of {VISITS} visits and {HOVERS} hovers, {results['date']}, on "
        f"{where['cores_used']} cores of {where['processor']}, without a graphics card; Chromium "
        f"{versions['chromium']}. Meanwhile {busy}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rows, to a temporary file")
    parser.add_argument("--output", type=Path, help="where results go")
    parser.add_argument("--table", action="store_true", help="show the last results")
    given = parser.parse_args()
    if given.table:
        print(markdown(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return
    from playwright.sync_api import sync_playwright

    results: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.describe(sorted(os.sched_getaffinity(0))),
        "versions": {name: metadata.version(name) for name in ("twofold", "torch", "playwright")},
        "rows": {},
    }
    with tempfile.TemporaryDirectory(prefix="twofold-explorer-") as name, sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        results["versions"]["chromium"] = browser.version
        for kind in ("table", "images"):
            for n_rows in QUICK_SIZES if given.quick else SIZES:
                model, source = prepare(kind, n_rows, Path(name))
                entry = measure(browser, model, source)
                source.unlink()
                results["rows"][f"{kind} {n_rows}"] = entry
                shown = {
                    points: entry[points]["first_draw_seconds"] for points in ("sample", "all")
                }
                hovers = {points: entry[points]["hover_seconds"] for points in ("sample", "all")}
                print(f"{kind}, {n_rows:,} rows: first draw {shown}, hover {hovers}", flush=True)
        browser.close()
    output = given.output or (Path(tempfile.gettempdir(), RESULTS.name) if given.quick else RESULTS)
    fresh = output.with_suffix(".tmp")
    fresh.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, output)
    print(f"results: {output}")


if __name__ == "__main__":
    main()
