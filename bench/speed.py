"""How fast twofold is, against its peers and against the machine, in one run.

    python bench/speed.py                       everything, to bench/results/speed.json
    python bench/speed.py --quick               a few batches of each, to a temporary file
    python bench/speed.py --table --write README.md

bench/README.md says what each row means.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import children
import figure
import machine
import table
from children import OWN, Child, Failed

HERE = Path(__file__).parent
TARGET_LOSS = 0.0675  # validation loss of the tutorial's tied net after its 20 epochs
TUTORIAL_EPOCHS = 20
BUSY = (0, 1, 3)  # other processes on the cores
ROWS = ("epoch", "steps", "tying", "tables", "to-loss", "transform", "busy", "start", "growth")
TABLES = ((1000, 20), (10_000, 50))


@dataclass(frozen=True)
class Peer:
    """Someone to compare with: name, environment, script, and what differs from the tutorial."""

    title: str
    environment: str
    script: str
    cases: tuple[str, ...] = ("tied", "untied")
    settings: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    differs: str = ""


def _keras(title: str, environment: str, backend: str) -> Peer:
    variables = {"KERAS_BACKEND": backend}
    return Peer(title, environment, "peers/keras_fit.py", variables=variables)


CASES: dict[str, dict[str, Any]] = {
    "tied": {"tied": True, "batch_size": 32},
    "untied": {"tied": False, "batch_size": 32},
    "tied-1024": {"tied": True, "batch_size": 1024},
}
PEERS = {
    "twofold": Peer("twofold", OWN, "peers/twofold_fit.py", tuple(CASES)),
    # 1e-38 is lost in every sum, so all bits are the same, but nothing is blank.
    "twofold-nothing-blank": Peer(
        "twofold, blank inputs computed too",
        OWN,
        "peers/twofold_fit.py",
        settings={"nothing": 1e-38},
    ),
    "twofold-fused": Peer(
        "twofold without its native step",
        OWN,
        "peers/twofold_fit.py",
        tuple(CASES),
        variables={"TWOFOLD_NATIVE": "off"},
    ),
    "keras-tensorflow": _keras("Keras on TensorFlow", "keras-tensorflow", "tensorflow"),
    "keras-jax": _keras("Keras on JAX", "jax", "jax"),
    "keras-torch": _keras("Keras on PyTorch", "keras-torch", "torch"),
    "torch": Peer("PyTorch, plain loop", OWN, "peers/torch_loop.py"),
    "torch-compile": Peer(
        "PyTorch, torch.compile", OWN, "peers/torch_loop.py", settings={"compile": True}
    ),
    "jax": Peer("JAX, epoch in one jitted scan", "jax", "peers/jax_scan.py"),
    "pyod": Peer(
        "PyOD's AutoEncoder",
        "pyod",
        "peers/pyod_fit.py",
        ("untied",),
        differs="elu, squared error, drops the short last batch",
    ),
    "sklearn": Peer(
        "scikit-learn's MLPRegressor",
        OWN,
        "peers/sklearn_fit.py",
        ("untied",),
        differs="relu, squared error",
    ),
    "products": Peer("the matrix products alone", OWN, "peers/gemm.py", ("all",)),
}


@dataclass
class Bench:
    """One run: its settings, its data, and the load of the machine during each measure."""

    rounds: int
    quick: bool
    full: bool
    peers: list[str]
    venvs: Path
    folder: Path
    cores: list[int]
    n_rows: int = 0
    loads: list[dict[str, float]] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    environments: dict[str, str | Failed] = field(default_factory=dict)

    def python(self, environment: str) -> str:
        """Return the environment's interpreter; what cannot be made is tried only once."""
        if environment not in self.environments:
            try:
                found: str | Failed = children.python_of(environment, self.venvs, say)
            except Failed as error:
                found = error
                say(f"  {environment}: {error}")
            self.environments[environment] = found
        found = self.environments[environment]
        if isinstance(found, Failed):
            raise found
        return found

    @property
    def threads(self) -> int:
        return len(self.cores)

    def child(self, name: str, settings: Mapping[str, Any], script: str = "") -> Child:
        """Start a process of the peer `name`, in its own environment."""
        peer = PEERS[name]
        number = len(list(self.folder.glob("*.log")))
        log = self.folder / f"{name}-{number}.log"
        return Child(
            self.python(peer.environment),
            script or peer.script,
            {
                "threads": self.threads,
                "train": str(self.folder / "train.npy"),
                "validation": str(self.folder / "validation.npy"),
                "n_rows": self.n_rows,
                **peer.settings,
                **settings,
            },
            log,
            {
                **children.thread_settings(settings.get("threads", self.threads)),
                "KERAS_HOME": str(self.folder / "keras"),
                "TORCHINDUCTOR_CACHE_DIR": str(self.folder / f"inductor-{number}"),
                **peer.variables,
            },
        )

    def started(self, name: str, settings: Mapping[str, Any]) -> tuple[Child, dict[str, Any]]:
        """Start a peer and let it do its first epoch, which compiles and warms up."""
        child = self.child(name, settings)
        try:
            self.versions[name] = child.answer(children.START_SECONDS)["versions"]
            child.pause()
            return child, self.watched(child.epoch)
        except BaseException:
            child.end()
            raise

    def watched(self, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measure something, and note what else kept the cores busy meanwhile."""
        watch = machine.Watch()
        result = measure()
        load = watch.stop()
        self.loads.append(load)
        return {**result, "load": load}

    def alone(self, script: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Run one script of twofold's own measures to its only answer."""
        with self.child("twofold", settings, script) as child:
            return self.watched(child.answer)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- rows ---------------------------------------------------------------------------------------


def epoch_row(bench: Bench) -> dict[str, Any]:
    """Time the tutorial's epoch for every peer in turn, round after round."""
    result: dict[str, Any] = {"rows": bench.n_rows, "peers": {}}
    running: dict[tuple[str, str], Child] = {}
    with ExitStack() as stack:
        for name in bench.peers:
            peer = PEERS[name]
            entry = result["peers"][name] = {"title": peer.title, "differs": peer.differs}
            for case in peer.cases:
                settings = {"cases": CASES} if case == "all" else CASES[case]
                try:
                    child, first = bench.started(name, settings)
                except Failed as error:
                    entry[case] = {"failed": str(error)}
                    say(f"  {peer.title}, {case}: {error}")
                    continue
                stack.callback(child.end)
                running[name, case] = child
                seconds = first.get("first_epoch_seconds", first["seconds"])
                entry[case] = {"first_epoch_seconds": seconds, "rounds": []}
                say(f"  {peer.title}, {case}: first epoch {seconds:.2f} s")
        for number in range(1, bench.rounds + 1):
            for (name, case), child in list(running.items()):
                entry = result["peers"][name][case]
                try:
                    entry["rounds"].append(bench.watched(child.epoch))
                except Failed as error:
                    result["peers"][name][case] = {"failed": str(error)}
                    del running[name, case]
            say(f"  round {number} of {bench.rounds} done")
    _spread_products(result["peers"])
    _summarise_epochs(result)
    return result


def _spread_products(peers: dict[str, Any]) -> None:
    """Turn the answers about products into one entry per case, like every other peer's."""
    entry = peers.get("products")
    if entry is None:
        return
    found = entry.pop("all")
    for case in CASES:
        if "failed" in found:
            entry[case] = found
            continue
        rounds = [
            {"seconds": answer["bounds"][case], "load": answer["load"]}
            for answer in found["rounds"]
        ]
        entry[case] = {"rounds": rounds}
    if found.get("rounds"):
        entry["ways"] = found["rounds"][-1]["ways"]


def _summarise_epochs(result: dict[str, Any]) -> None:
    """Add medians, and medians of the ratios to twofold within each round."""
    peers = result["peers"]
    for entry in peers.values():
        for case in CASES:
            found = entry.get(case, {})
            if not found.get("rounds"):
                continue
            seconds = [answer["seconds"] for answer in found["rounds"]]
            found["median_seconds"] = statistics.median(seconds)
            ours = peers.get("twofold", {}).get(case, {}).get("rounds") or []
            if len(ours) == len(seconds):
                ratios = [a / b["seconds"] for a, b in zip(seconds, ours, strict=True)]
                found["ratios_to_twofold"] = ratios
                found["median_ratio"] = statistics.median(ratios)
    ours = peers.get("twofold", {})
    tied, untied = (ours.get(case, {}).get("rounds") or [] for case in ("tied", "untied"))
    if tied and len(tied) == len(untied):
        ratios = [a["seconds"] / b["seconds"] for a, b in zip(tied, untied, strict=True)]
        result["tied_to_untied"] = {"ratios": ratios, "median": statistics.median(ratios)}


def to_loss_row(bench: Bench, epochs: dict[str, Any] | None) -> dict[str, Any]:
    """Time twofold's defaults, and the tutorial's script, until the tutorial's final loss."""
    target = 0.2 if bench.quick else TARGET_LOSS
    seeds = list(range(2 if bench.quick else 3))
    settings = {"target": target, "seeds": seeds, "epochs": 2 if bench.quick else "auto"}
    answer = bench.alone("measures/to_loss.py", settings)
    result: dict[str, Any] = {"target": target, **answer}
    medians = {}
    for precision in ("float32", "auto"):
        seconds = [run["seconds"] for run in answer[precision]]
        # A seed that never gets there is as slow as can be.
        medians[precision] = statistics.median(math.inf if s is None else s for s in seconds)
    if bench.full:
        result["tutorial"] = _tutorial(bench, target)
    elif epochs and (found := epochs["peers"].get("keras-tensorflow", {}).get("tied", {})):
        if "median_seconds" in found:
            result["tutorial"] = {
                "seconds": TUTORIAL_EPOCHS * found["median_seconds"],
                "how": f"{TUTORIAL_EPOCHS} times its median epoch above, no validation counted",
            }
        else:
            result["tutorial"] = {"failed": found.get("failed", "not measured")}
    if "seconds" in result.get("tutorial", {}):
        seconds = result["tutorial"]["seconds"]
        result["ratios"] = {precision: seconds / found for precision, found in medians.items()}
    return result


def _tutorial(bench: Bench, target: float) -> dict[str, Any]:
    """Run the tutorial's script with its validation rows until the loss, or for its 20 epochs."""
    epochs: list[dict[str, float]] = []
    try:
        with bench.child("keras-tensorflow", {**CASES["tied"], "validate": True}) as child:
            child.answer(children.START_SECONDS)
            for number in range(1, TUTORIAL_EPOCHS + 1):
                answer = bench.watched(child.epoch)
                epochs.append({k: answer[k] for k in ("seconds", "loss", "validation_loss")})
                say(f"  tutorial, epoch {number}: {answer['validation_loss']:.4f}")
                if answer["validation_loss"] <= target:
                    break
    except Failed as error:
        return {"failed": str(error), "epochs": epochs}
    reached = epochs[-1]["validation_loss"] <= target
    how = f"reached in epoch {len(epochs)}" if reached else "not reached in its 20 epochs"
    seconds = sum(entry["seconds"] for entry in epochs)
    return {"seconds": seconds, "how": how, "reached": reached, "epochs": epochs}


def tables_row(bench: Bench) -> dict[str, Any]:
    """Time fits of small tables with all defaults, on one thread, next to other libraries."""
    result: dict[str, Any] = {}
    whos = {"twofold": "twofold", "pca": "sklearn", "mlp": "sklearn", "pyod": "pyod"}
    for n_rows, n_columns in TABLES[:1] if bench.quick else TABLES:
        entry = result[f"{n_rows:,} × {n_columns}"] = {}
        with ExitStack() as stack:
            running = {}
            for who, name in whos.items():
                settings = {"who": who, "n_rows": n_rows, "n_columns": n_columns, "threads": 1}
                try:
                    child = bench.child(name, settings, "peers/table_fit.py")
                    stack.callback(child.end)
                    child.answer(children.START_SECONDS)
                except Failed as error:
                    entry[who] = {"failed": str(error)}
                    continue
                child.pause()
                running[who], entry[who] = child, {"seconds": []}
            for _ in range(min(bench.rounds, 3)):
                for who, child in running.items():
                    entry[who]["seconds"].append(bench.watched(child.epoch)["seconds"])
        for who in running:
            entry[who]["median"] = statistics.median(entry[who]["seconds"])
    return result


def transform_row(bench: Bench) -> dict[str, Any]:
    """Encode a large table."""
    settings = {"n_rows": 100_000 if bench.quick else 1_000_000, "rounds": min(bench.rounds, 3)}
    result = bench.alone("measures/transform.py", settings)
    seconds = statistics.median(result["seconds"])
    bound = statistics.median(result["bound_seconds"])
    result["rows_per_second"] = result["n_rows"] / seconds
    result["share_of_bound"] = bound / seconds
    result["most_extra_bytes"] = max(result["extra_bytes"])
    return result


def busy_row(bench: Bench) -> dict[str, Any]:
    """Train while one and while three other processes keep the cores busy, and while none does."""
    result: dict[str, Any] = {"rows": bench.n_rows // 6}
    ways = {
        "twofold": ("twofold", {}),
        "twofold, one thread": ("twofold", {"threads": 1}),
        "torch": ("torch", {}),
    }
    for title, (name, settings) in ways.items():
        rounds: dict[int, list[dict[str, Any]]] = {n: [] for n in BUSY}
        try:
            child, _ = bench.started(name, {**CASES["tied"], "n_rows": result["rows"], **settings})
            with child:
                for _ in range(min(bench.rounds, 3)):
                    for n in BUSY:
                        with _busy(n, bench.cores):
                            rounds[n].append(bench.watched(child.epoch))
        except Failed as error:
            result[title] = {"failed": str(error)}
            continue
        seconds = {n: [answer["seconds"] for answer in answers] for n, answers in rounds.items()}
        result[title] = {
            "seconds": seconds,
            "median_ratio": {
                str(n): statistics.median(
                    a / b for a, b in zip(seconds[n], seconds[0], strict=True)
                )
                for n in BUSY
            },
        }
    return result


@contextlib.contextmanager
def _busy(n: int, cores: list[int]) -> Iterator[None]:
    """Keep the first core busy with one process that only spins, or all of them with several."""
    code = "import os\nos.sched_setaffinity(0, {})\nwhile True:\n    pass"
    wanted = cores[:1] if n == 1 else cores
    processes = [
        subprocess.Popen([sys.executable, "-c", code.format(set(wanted))]) for _ in range(n)
    ]
    try:
        time.sleep(0.3)  # until they spin
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def start_row(bench: Bench) -> dict[str, Any]:
    """Time how long a user waits for `import twofold` and for `twofold --help`."""
    commands = {
        "bare python": [sys.executable, "-c", "pass"],
        "import twofold": [sys.executable, "-c", "import twofold"],
        "twofold --help": [str(Path(sys.executable).with_name("twofold")), "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    failed: dict[str, str] = {}

    def measure() -> dict[str, Any]:
        for _ in range(2 if bench.quick else 11):
            for name, command in commands.items():
                start = time.perf_counter()
                try:
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                except OSError as error:
                    failed[name] = str(error)
                    continue
                seconds[name].append(time.perf_counter() - start)
                if done.returncode:
                    failed[name] = (done.stderr.strip().splitlines() or ["?"])[-1]
        return {}

    load = bench.watched(measure)["load"]
    result: dict[str, Any] = {"load": load}
    for name, values in seconds.items():
        # The first time of each reads files from disk and writes byte code.
        timed = values[1:]
        result[name] = (
            {"failed": failed[name]}
            if name in failed
            else {"least": min(timed), "median": statistics.median(timed), "seconds": timed}
        )
    return result


def growth_row(bench: Bench) -> dict[str, Any]:
    """Measure how time and memory of fit and transform grow with rows and with columns."""
    by_rows = [10_000, 30_000, 100_000, 300_000, 1_000_000]
    by_columns = [100, 300, 1000, 3000, 10_000]
    fixed_rows, seconds = 10_000, 3.0
    if bench.quick:
        by_rows, by_columns, fixed_rows, seconds = [1000, 10_000], [100, 1000], 1000, 0.5
    shapes = {"rows": [(n, 100) for n in by_rows], "columns": [(fixed_rows, d) for d in by_columns]}
    result: dict[str, Any] = {}
    for kind, sizes in shapes.items():
        points = result[kind] = []
        for n_rows, n_columns in sizes:
            settings = {"n_rows": n_rows, "n_columns": n_columns, "seconds": seconds}
            try:
                points.append(bench.alone("measures/growth.py", settings))
            except Failed as error:
                result.setdefault("failed", []).append(f"{n_rows} x {n_columns}: {error}")
                say(f"  {n_rows} x {n_columns}: {error}")
    return result


# --- the run ------------------------------------------------------------------------------------


def run(bench: Bench, rows: list[str]) -> dict[str, Any]:
    """Measure the rows asked for; one that fails is reported and does not stop the others."""
    result: dict[str, Any] = {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": bench.quick,
        "full": bench.full,
        "rounds": bench.rounds,
        "threads": bench.threads,
        "machine": machine.describe(bench.cores),
    }
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "epoch": lambda: epoch_row(bench),
        "steps": lambda: bench.alone("measures/steps.py", {"rounds": 3 * bench.rounds}),
        "tying": lambda: bench.alone("measures/tying.py", {"rounds": 2 * bench.rounds - 1}),
        "tables": lambda: tables_row(bench),
        "to-loss": lambda: to_loss_row(bench, result.get("epoch")),
        "transform": lambda: transform_row(bench),
        "busy": lambda: busy_row(bench),
        "start": lambda: start_row(bench),
        "growth": lambda: growth_row(bench),
    }
    for name in rows:
        say(f"{name} ...")
        start, before = time.perf_counter(), len(bench.loads)
        try:
            result[name] = measures[name]()
        except Exception as error:  # whatever it is, it must not cost the rows already measured
            result[name] = {"failed": f"{type(error).__name__}: {error}"}
            traceback.print_exc()
        result[name]["took_seconds"] = round(time.perf_counter() - start, 1)
        result[name]["quiet"] = machine.verdict(bench.loads[before:])
        say(f"  {result[name]['took_seconds']} s; {result[name]['quiet']['words']}")
    own = {name: metadata.version(name) for name in ("twofold", "torch", "numpy", "scikit-learn")}
    result["versions"] = {"twofold": own} | bench.versions
    result["quiet"] = machine.verdict(bench.loads)
    return result


def prepare(bench: Bench) -> None:
    """Write MNIST, scaled to [0, 1], where all peers read it, and make the environments."""
    import numpy as np

    from twofold import datasets

    images = datasets.mnist(on_progress=say).train.reshape(-1, 784).astype(np.float32) / 255
    np.save(bench.folder / "train.npy", images[:-7000])
    np.save(bench.folder / "validation.npy", images[-7000:])
    for name in bench.peers:
        with contextlib.suppress(Failed):  # each peer of it will say so
            bench.python(PEERS[name].environment)
    bench.n_rows = 1608 if bench.quick else len(images) - 7000


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"no {unknown[0]!r}; choose from {', '.join(known)}")
        return [name for name in known if name in names]

    return parse


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="turns of every peer (default 5)")
    add("--only", type=_names(ROWS), help=f"rows to measure, of {', '.join(ROWS)}")
    add("--peers", type=_names(tuple(PEERS)), help=f"peers, of {', '.join(PEERS)}")
    add("--quick", action="store_true", help="a few batches, to see that everything runs")
    add("--full", action="store_true", help="run the tutorial's 20 epochs instead of reckoning")
    add("--venvs", type=Path, help="where peers' environments are kept (default .venv-bench)")
    add("--output", type=Path, help="the JSON file; a part of the bench goes to a temporary one")
    add("--table", action="store_true", help="measure nothing; print the table of the results")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    complete = not (arguments.quick or arguments.only or arguments.peers)
    kept = HERE / "results" / "speed.json"
    if arguments.table:
        result = json.loads((arguments.output or kept).read_text(encoding="utf-8"))
        print(table.markdown(result))
        return

    with tempfile.TemporaryDirectory(prefix="twofold-bench-") as folder:
        bench = Bench(
            rounds=2 if arguments.quick else max(1, arguments.rounds),
            quick=arguments.quick,
            full=arguments.full,
            peers=arguments.peers or list(PEERS),
            venvs=(arguments.venvs or HERE.parent / ".venv-bench").absolute(),
            folder=Path(folder),
            cores=sorted(os.sched_getaffinity(0))[:2],
        )
        # Every process of the bench inherits this.
        os.sched_setaffinity(0, bench.cores)
        bench.venvs.mkdir(parents=True, exist_ok=True)
        prepare(bench)
        result = run(bench, arguments.only or list(ROWS))

    output = arguments.output
    if output is None and complete:
        output = kept
    elif output is None:
        output = Path(tempfile.gettempdir()) / "twofold-bench" / "speed.json"
    write_atomically(output, json.dumps(result, indent=1) + "\n")
    if "rows" in result.get("growth", {}):
        figure.growth(result["growth"], output.with_name("growth.png"))
    if "points" in result.get("tying", {}):
        shown = HERE.parent / "docs" / "images" if output == kept else output.parent
        figure.tying(result["tying"]["points"], shown / "tying.png")
    say(f"wrote {output}")
    print(table.markdown(result))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was written")
