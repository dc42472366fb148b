"""Says whether models are still the same, bit by bit, after code was moved or rewritten.

    python bench/bits.py --output before.json     fit every case, and write a hash of what it gives
    python bench/bits.py --against before.json    fit them again, and say which hashes differ
    python bench/bits.py --only topk,sequence     cases whose names contain one of these

Many small models are fitted, of every kind of rows and with every option, through the public
surface alone, so that the script runs whatever modules there are and whatever parameters are
called. Hashes hold for one machine and its versions of PyTorch and NumPy, with one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from threadpoolctl import threadpool_limits

from twofold import (
    Autoencoder,
    Binarize,
    Conv,
    Files,
    Gaussian,
    Imputer,
    Masking,
    Ordered,
    Plain,
    Recurrent,
    SaltAndPepper,
    Sparse,
    Swap,
    Variational,
    Warp,
    load,
)

N_ROWS, N_PROBED = 200, 60
OPTIONS = {
    "n_components": 3,
    "hidden_layers": (8,),
    "epochs": 3,
    "batch_size": 32,
    "random_state": 0,
}
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus")
CONV = (Conv(4, 3, stride=2), Conv(4, 3))


class Killed(BaseException):
    """Ends a run as a signal would."""


def real() -> Any:
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(N_ROWS, 3))
    x = causes @ rng.normal(size=(3, 7)) + 0.3 * rng.normal(size=(N_ROWS, 7))
    return np.column_stack([x, np.exp(x[:, 0]), 100 + 5 * x[:, 1]])


def real32() -> Any:
    return real().astype(np.float32)


def gaps() -> Any:
    x = real()
    x[np.random.default_rng(1).random(x.shape) < 0.15] = np.nan
    return x


def counts() -> Any:
    rng = np.random.default_rng(2)
    return rng.poisson(np.exp(rng.normal(size=(N_ROWS, 1)) + rng.normal(size=6))).astype(np.int64)


def flags() -> Any:
    rng = np.random.default_rng(3)
    return (rng.normal(size=(N_ROWS, 1)) + rng.normal(size=(N_ROWS, 8)) > 0).astype(np.int64)


def mixed() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    age = rng.normal(50, 12, N_ROWS)
    days = rng.integers(0, 700, N_ROWS).astype("timedelta64[D]").astype("timedelta64[ns]")
    frame = pd.DataFrame(
        {
            "age": age,
            "weight": (0.5 * age + rng.normal(40, 5, N_ROWS)).astype(np.float32),
            "visits": rng.poisson(age / 10),
            "smoker": rng.random(N_ROWS) < 0.3,
            "town": rng.choice(["Ulm", "Jena", "Kiel"], N_ROWS),
            "size": pd.Categorical(rng.choice(["S", "M", "L"], N_ROWS), ["S", "M", "L"]),
            "since": np.datetime64("2024-01-01T08:30:00", "ns") + days,
        }
    )
    for name in ("age", "town", "size", "since"):
        frame.loc[rng.random(N_ROWS) < 0.1, name] = None
    return frame


def whole() -> pd.DataFrame:
    return mixed().dropna().reset_index(drop=True)


def plain_columns() -> pd.DataFrame:
    return mixed().drop(columns=["size"])


def dates() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    start = np.datetime64("2023-03-01", "ns")
    hours = np.sort(rng.integers(0, 9000, N_ROWS)).astype("timedelta64[h]")
    frame = pd.DataFrame({"at": start + hours, "paid": start + 2 * hours})
    frame["load"] = np.sin(frame["at"].dt.hour / 24 * 2 * np.pi) + rng.normal(0, 0.1, N_ROWS)
    return frame


def images() -> Any:
    rng = np.random.default_rng(6)
    across = np.linspace(-1, 1, 9)
    centre = rng.uniform(-0.6, 0.6, (N_ROWS, 2, 1, 1))
    distance = (across[:, None] - centre[:, 0]) ** 2 + (across - centre[:, 1]) ** 2
    return np.round(255 * np.exp(-4 * distance)).astype(np.uint8)


def large_images() -> Any:
    return np.kron(images(), np.ones((3, 3), np.uint8))


def colours() -> Any:
    return np.stack([images(), images()[::-1]], axis=-1)[:, :8, :7]


def gapped_images() -> Any:
    x = images() / 255.0
    x[np.random.default_rng(7).random(x.shape) < 0.1] = np.nan
    return x


def sequences() -> Any:
    rng = np.random.default_rng(8)
    phase, steps = rng.uniform(0, 6, (N_ROWS, 1)), np.arange(6)
    waves = [np.sin(phase + steps), np.cos(phase + 0.5 * steps)]
    return np.stack(waves, axis=-1) + rng.normal(0, 0.05, (N_ROWS, 6, 2))


def gapped_sequences() -> Any:
    x = sequences()
    x[np.random.default_rng(9).random(x.shape) < 0.1] = np.nan
    return x


def csv_path() -> Path:
    plain_columns().to_csv("rows.csv", index=False)
    return Path("rows.csv")


def npy_path() -> Path:
    np.save("rows.npy", real32())
    return Path("rows.npy")


def _parts() -> Path:
    folder = Path("parts")
    folder.mkdir(exist_ok=True)
    table = pa.Table.from_pandas(plain_columns(), preserve_index=False)
    for i in range(4):
        pq.write_table(table[50 * i : 50 * (i + 1)], folder / f"{i}.parquet", row_group_size=20)
    return folder


def parquet_folder() -> Path:
    return _parts()


def streamed() -> Files:
    return Files(_parts(), stream=True)


def streamed_csv() -> Files:
    folder = Path("lines")
    folder.mkdir(exist_ok=True)
    for i in range(3):
        pd.DataFrame(real()[60 * i : 60 * (i + 1)]).to_csv(folder / f"{i}.csv", index=False)
    return Files(folder, stream=True, drop=("3",))


def streamed_npy() -> Files:
    return Files(npy_path(), stream=True)


def arrow() -> pa.Table:
    return pa.Table.from_pandas(plain_columns(), preserve_index=False)


def polars() -> pl.DataFrame:
    return pl.from_arrow(arrow())


def tensor() -> torch.Tensor:
    return torch.from_numpy(real32())


ROWS: dict[str, Callable[[], Any]] = {
    made.__name__: made
    for made in (
        real, real32, gaps, counts, flags, mixed, whole, dates, images, large_images,
        colours, gapped_images,
        sequences, gapped_sequences, csv_path, npy_path, parquet_folder, streamed, streamed_csv,
        streamed_npy, arrow, polars, tensor,
    )
}  # fmt: skip
INCOMPLETE = {"gaps", "mixed", "gapped_images", "gapped_sequences", "csv_path", "parquet_folder",
              "streamed", "arrow", "polars"}  # fmt: skip


def fit(rows: Any, options: Mapping[str, Any]) -> Autoencoder:
    return Autoencoder(**options).fit(rows)


def fit_with_validation(rows: Any, options: Mapping[str, Any]) -> Autoencoder:
    return Autoencoder(**options).fit(rows[:140], validation_data=rows[140:])


def fit_twice(rows: Any, options: Mapping[str, Any]) -> Autoencoder:
    ae = Autoencoder(**options)
    return ae.fit(rows[:100]).fit(rows)


def fit_in_parts(rows: Any, options: Mapping[str, Any]) -> Autoencoder:
    return Autoencoder(**options).partial_fit(rows[:120]).partial_fit(rows[120:])


def fit_further(rows: Any, options: Mapping[str, Any]) -> Autoencoder:
    return fit(rows, options).partial_fit(rows)


def fit_killed(rows: Any, options: Mapping[str, Any]) -> Autoencoder:
    """Kill a run after its second epoch and go on from its checkpoint."""

    def kill(event: Any) -> None:
        if (event.kind, event.stage, event.epoch) == ("epoch", "", 2):
            raise Killed

    with tempfile.TemporaryDirectory() as folder:
        try:
            Autoencoder(**options).fit(rows, checkpoint=folder, callbacks=[kill])
        except Killed:
            pass
        else:
            raise RuntimeError("The run was not killed, so nothing was resumed.")
        return Autoencoder(**options).fit(rows, checkpoint=folder, resume=True)


def fit_imputer(rows: Any, options: Mapping[str, Any]) -> Autoencoder:
    return Imputer(Autoencoder(**options)).fit(rows).autoencoder_


@dataclass(frozen=True)
class Case:
    """One model: the rows it is fitted to, its options, and how it is fitted."""

    rows: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fit: Callable[[Any, Mapping[str, Any]], Autoencoder] = fit


def grid() -> dict[str, Case]:
    cases = {f"rows {name}": Case(name) for name in ROWS}
    cases["rows images by convolution"] = Case("images", {"hidden_layers": CONV})
    for case in list(cases):
        cases[f"{case}, untied"] = dataclasses.replace(
            cases[case], options={**cases[case].options, "tied": False}
        )

    def add(name: str, rows: str, how: Callable[..., Autoencoder] = fit, **options: Any) -> None:
        assert name not in cases, name
        cases[name] = Case(rows, options, how)

    for cell in ("gru", "lstm", "rnn"):
        for tied in (True, False):
            add(f"recurrent {cell}, tied {tied}", "sequences", tied=tied,
                hidden_layers=(Recurrent(6, cell=cell),))  # fmt: skip
    add("recurrent, two layers", "sequences", hidden_layers=(Recurrent(6), Recurrent(5), 4))
    add("recurrent, missing cells", "gapped_sequences", hidden_layers=(Recurrent(6),))
    for rows in ("colours", "gapped_images"):
        for tied in (True, False):
            add(f"convolution {rows}, tied {tied}", rows, hidden_layers=(*CONV, 6), tied=tied)
    add("halving", "real", hidden_layers="halving", n_components=None)
    add("no hidden layer", "real", hidden_layers=())
    add("three hidden layers", "real", hidden_layers=(12, 8, 6))

    for activation in ACTIVATIONS:
        add(f"activation {activation}", "real", activation=activation, code_activation=activation)
    add("activation identity", "real", activation="identity")
    add("activation tanh, float64, untied", "flags", activation="tanh", tied=False,
        precision="float64")  # fmt: skip

    bottlenecks = {
        "plain": Plain(),
        "sparse l1": Sparse("l1", weight=0.5),
        "sparse l1 hidden": Sparse("l1", hidden=True),
        "sparse kl": Sparse("kl"),
        "sparse kl hidden": Sparse("kl", hidden=True),
        "sparse topk": Sparse("topk", k=2),
        "variational": Variational(),
        "variational beta": Variational(beta=4.0),
        "variational importance": Variational(n_samples=3),
        "ordered": Ordered(),
        "ordered cuts": Ordered(n_cuts=5),
        "ordered sizes": Ordered(sizes=(1, 3)),
    }
    for name, bottleneck in bottlenecks.items():
        sigmoid = {"code_activation": "sigmoid"} if "kl" in name else {}
        if name.endswith("kl hidden"):
            sigmoid["activation"] = "sigmoid"
        for rows in ("real", "mixed"):
            add(f"bottleneck {name}, {rows}", rows, bottleneck=bottleneck, n_components=5,
                **sigmoid)  # fmt: skip
    add("bottleneck dead units", "images", bottleneck="sparse:topk:1", n_components=24, epochs=8,
        code_activation="relu")  # fmt: skip
    add("bottleneck topk, untied, convolution", "images", bottleneck="sparse:topk:2",
        n_components=6, tied=False, hidden_layers=CONV)  # fmt: skip
    add("bottleneck variational, untied, images", "images", bottleneck="variational:2",
        tied=False)  # fmt: skip
    add("bottleneck ordered, sequences", "sequences", bottleneck="ordered",
        hidden_layers=(Recurrent(6),))  # fmt: skip

    corruptions = {
        "masking": ("real", Masking(0.3)),
        "masking up to": ("mixed", Masking(0.5, up_to=True)),
        "masking only hidden": ("gaps", Masking(0.5, up_to=True, only_hidden=True)),
        "swap": ("mixed", Swap(0.2)),
        "swap real": ("real", Swap(0.2)),
        "gaussian": ("real", Gaussian(0.4)),
        "gaussian mixed": ("mixed", Gaussian(0.4)),
        "salt and pepper": ("images", SaltAndPepper(0.2)),
        "binarize": ("images", Binarize()),
        "warp": ("images", Warp(0.8)),
    }
    for name, (rows, noise) in corruptions.items():
        for tied in (True, False):
            add(f"corruption {name}, tied {tied}", rows, corruption=noise, tied=tied)
    add("corruption warp, convolution", "images", corruption="warp", hidden_layers=CONV)
    add("corruption masking, variational", "mixed", corruption="masking:0.3",
        bottleneck="variational")  # fmt: skip
    add("corruption gaussian, topk", "real", corruption="gaussian", bottleneck="sparse:topk:2")

    for rows in ("real", "mixed", "images", "counts"):
        for tied in (True, False):
            add(f"pretraining pca, {rows}, tied {tied}", rows, pretraining="pca", tied=tied)
            add(f"pretraining layerwise, {rows}, tied {tied}", rows, pretraining="layerwise:2",
                hidden_layers=(8, 6), tied=tied)  # fmt: skip
    add("pretraining layerwise, corruption", "real", pretraining="layerwise",
        corruption=Gaussian(0.3), hidden_layers=(8, 6))  # fmt: skip
    add("pretraining layerwise, topk", "images", pretraining="layerwise",
        bottleneck=Sparse("topk", k=2), hidden_layers=(8,))  # fmt: skip
    add("pretraining layerwise, variational", "real", pretraining="layerwise",
        bottleneck="variational")  # fmt: skip
    add("pretraining layerwise, convolution", "images", pretraining="layerwise",
        hidden_layers=CONV)  # fmt: skip
    add("pretraining layerwise, streamed", "streamed", pretraining="layerwise")
    add("pretraining pca, streamed", "streamed", pretraining="pca")

    for optimizer in ("sgd", "adam", "adamw", "muon"):
        for schedule in ("constant", "one-cycle"):
            add(f"optimizer {optimizer}, {schedule}", "real", optimizer=optimizer,
                schedule=schedule, weight_decay=0.01)  # fmt: skip
        add(f"optimizer {optimizer}, mixed, untied", "mixed", optimizer=optimizer, tied=False,
            weight_decay=0.01)  # fmt: skip
    add("optimizer momentum", "images", optimizer="sgd", momentum=0.9, learning_rate=0.1)
    add("optimizer nesterov", "images", optimizer="sgd", momentum=0.9, nesterov=True,
        learning_rate=0.1, weight_decay=1e-4, tied=False)  # fmt: skip

    for likelihood in ("gaussian", "student_t", "histogram"):
        for rows in ("real", "gaps"):
            add(f"likelihood {likelihood}, {rows}", rows, likelihood=likelihood)
    for likelihood in ("poisson", "negative_binomial", "gaussian"):
        add(f"likelihood {likelihood}, counts", "counts", likelihood=likelihood)
        add(f"likelihood {likelihood}, counts, variational", "counts", likelihood=likelihood,
            bottleneck="variational")  # fmt: skip
    add("likelihood bernoulli, images", "images", likelihood="bernoulli")
    add("likelihood gaussian, images", "images", likelihood="gaussian")
    add("likelihood bernoulli, flags, float64", "flags", likelihood="bernoulli",
        precision="float64")  # fmt: skip
    add("likelihood student_t, variational", "real", likelihood="student_t",
        bottleneck="variational")  # fmt: skip
    per_column = {"age": "student_t", "weight": "histogram", "visits": "negative_binomial"}
    add("likelihood of columns", "mixed", likelihood=per_column)
    add("kinds of columns", "mixed",
        kinds={"visits": "category", "since": "ignored", "age": "real"})  # fmt: skip

    for precision in ("float64", "bfloat16", "auto"):
        for rows in ("real", "mixed", "images"):
            add(f"precision {precision}, {rows}", rows, precision=precision)
    add("precision float64, convolution", "images", precision="float64", hidden_layers=CONV)
    for patience in (None, 1, 4):
        add(f"patience {patience}", "real", patience=patience, epochs=20, learning_rate=0.05,
            schedule="constant")  # fmt: skip
    add("no validation rows", "mixed", validation_fraction=0)
    add("half the rows held out", "real", validation_fraction=0.5)
    add("contamination", "real", contamination=0.1)
    add("contamination, mixed", "mixed", contamination=0.2)
    add("share of the variance", "real", n_components=0.8)
    add("share of the variance, missing cells", "gaps", n_components=0.7)
    add("automatic batches and epochs", "flags", batch_size="auto", epochs="auto",
        n_components=2, hidden_layers=(4,))  # fmt: skip
    add("one row a batch", "counts", batch_size=1, epochs=1)
    add("all rows a batch", "real", batch_size=1000)
    add("the tutorial's recipe", "images", n_components=6, hidden_layers=(12,),
        activation="selu", code_activation="selu", likelihood="bernoulli", optimizer="sgd",
        learning_rate=1.5, schedule="constant", patience=None)  # fmt: skip

    for tied in (True, False):
        add(f"wide layers, tied {tied}", "large_images", hidden_layers=(392,), n_components=196,
            batch_size=64, epochs=1, tied=tied)  # fmt: skip

    for rows in ("real", "mixed", "images"):
        add(f"validation data, {rows}", rows, fit_with_validation)
        add(f"partial fit, {rows}", rows, fit_in_parts)
        add(f"fit, then partial fit, {rows}", rows, fit_further)
        add(f"killed and resumed, {rows}", rows, fit_killed)
    add("fitted twice", "real", fit_twice)
    add("partial fit, sgd momentum", "real", fit_in_parts, optimizer="sgd", momentum=0.9)
    add("partial fit, variational", "mixed", fit_in_parts, bottleneck="variational")
    add("killed and resumed, muon, corruption", "mixed", fit_killed, optimizer="muon",
        corruption="masking")  # fmt: skip
    add("killed and resumed, topk", "images", fit_killed, bottleneck="sparse:topk:2")
    add("killed and resumed, streamed", "streamed", fit_killed)
    add("killed and resumed, pretraining", "real", fit_killed, pretraining="layerwise")
    add("imputer", "gaps", fit_imputer)
    add("imputer as by default", "mixed", fit_imputer, hidden_layers=(16, 16), n_components=16,
        activation="gelu", code_activation="gelu", likelihood="histogram",
        corruption=Masking(0.5, up_to=True, only_hidden=True), learning_rate=3e-3,
        batch_size=256, validation_fraction=0, patience=None, epochs=5)  # fmt: skip
    return cases


def hashes(case: Case) -> dict[str, str]:
    """Fit the case's model, and return a hash of everything that it gives."""
    rows = ROWS[case.rows]()
    ae = case.fit(rows, {**OPTIONS, **case.options})
    probe = rows if isinstance(rows, Path | Files) else rows[:N_PROBED]
    weights = sorted(map(digest, ae.network_.state_dict().values()))
    found = {
        "weights": weights,
        "history": [
            {name: value for name, value in entry.items() if name != "seconds"}
            for entry in ae.history_
        ],
        "offset": float(ae.offset_),
        "scores": ae.score_samples(probe),
        "codes": ae.transform(probe),
        "reconstruction": ae.reconstruct(probe),
        "p-values": ae.anomaly_pvalue(probe),
        "pca": ae.reconstruction_r2_,
        "samples": ae.sample(20, random_state=0),
    }
    if not isinstance(probe, Path | Files):
        explanation = ae.explain(probe[:5])
        found["explanation"] = [explanation.contribution, explanation.base]
    if case.rows in INCOMPLETE:
        found["imputation"] = ae.impute(probe)
        found["draws"] = ae.impute(probe, n_draws=2, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        ae.save(Path(folder, "model"))
        found["scores after loading"] = load(Path(folder, "model")).score_samples(probe)
    return {name: digest(value) for name, value in found.items()}


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's bits."""
    state = hashlib.sha256()
    for part in _bits(value):
        state.update(part)
    return state.hexdigest()


def _bits(value: Any) -> Iterable[bytes]:
    """Take a container apart; names of columns and types of cells are part of what it holds."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        yield from _bits(value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy())
    elif isinstance(value, pl.DataFrame):
        yield from _bits(value.to_dict(as_series=False))
    elif isinstance(value, pa.Table):
        yield from _bits(value.to_pydict())
    elif isinstance(value, pd.DataFrame):
        for name, column in value.items():
            yield f"{name}:{column.dtype};".encode()
            yield from _bits(column.to_numpy())
    elif isinstance(value, Mapping):
        for name in value:
            yield f"{name};".encode()
            yield from _bits(value[name])
    elif isinstance(value, list | tuple):
        yield f"[{len(value)}]".encode()
        for item in value:
            yield from _bits(item)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape};".encode()
        if value.dtype == object:
            yield from _bits(value.tolist())
        elif value.dtype.kind == "f":  # one NaN is as good as another
            yield np.where(np.isnan(value), value.dtype.type("nan"), value).tobytes()
        else:
            yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, float | np.floating):
        yield float(value).hex().encode() + b";"
    else:
        yield f"{value!r};".encode()


def run(cases: Mapping[str, Case]) -> dict[str, dict[str, str]]:
    """Return each case's hashes, or the error that it ended with."""
    found = {}
    for name, case in cases.items():
        start = time.perf_counter()
        try:
            found[name] = hashes(case)
        except Exception as error:  # whatever one case does, the others are to be seen
            traceback.print_exc()
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        print(f"{time.perf_counter() - start:6.2f} s  {name}", flush=True)
    return found


def environment() -> dict[str, str]:
    cpu = torch.backends.cpu.get_cpu_capability()
    machine = f"{platform.machine()} {cpu}"
    return {"torch": torch.__version__, "numpy": np.__version__, "processor": machine}


def differences(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Say, a line per case, what differs."""
    lines = []
    for name in {**before, **after}:
        if name not in before or name not in after:
            lines.append(f"{name}: only {'after' if name in after else 'before'}")
            continue
        old, new = before[name], after[name]
        parts = [part for part in {**old, **new} if old.get(part) != new.get(part)]
        if "error" in new:
            lines.append(f"{name}: {new['error']}")
        elif parts:
            lines.append(f"{name}: {', '.join(parts)}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where hashes go")
    parser.add_argument("--against", type=Path, help="hashes to compare with")
    parser.add_argument("--only", default="", help="cases whose names contain one of these")
    given = parser.parse_args()
    output = given.output and given.output.resolve()
    recorded = json.loads(given.against.read_text(encoding="utf-8")) if given.against else None
    wanted = given.only.split(",")
    cases = {n: case for n, case in grid().items() if any(part in n for part in wanted)}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start, home = time.perf_counter(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        os.chdir(folder)  # files have the same paths in every run
        try:
            found = run(cases)
        finally:
            os.chdir(home)
    print(f"{len(found)} cases in {time.perf_counter() - start:.0f} s")
    failed = [name for name, entry in found.items() if "error" in entry]
    if output:
        document = {"environment": environment(), "cases": found}
        output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if recorded is None:
        for name in failed:
            print(f"{name}: {found[name]['error']}")
        return int(bool(failed))
    if recorded["environment"] != environment():
        print(f"Recorded with {recorded['environment']}, and this is {environment()}.")
    before = {n: entry for n, entry in recorded["cases"].items() if n in cases or not given.only}
    lines = differences(before, found)
    print("\n".join(lines) or "All are the same, bit by bit.")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
