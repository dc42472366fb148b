"""Workers that train together make the same updates as one, and outlive each other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest
import torch
import torch.distributed as dist
from typer.testing import CliRunner

from twofold import Autoencoder, load
from twofold.cli.main import app
from twofold.data import memory
from twofold.distributed import launch
from twofold.errors import (
    CheckpointError,
    DataError,
    DivergenceError,
    InterruptedWarning,
    OptionError,
    WorkerError,
    WorkerWarning,
)
from twofold.training.events import Event
from twofold.training.process_group import SingleProcess
from twofold.training.progress import Progress

pytestmark = [
    pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning"),
]
RNG = np.random.default_rng(4)
X = RNG.normal(size=(150, 3)) @ RNG.normal(size=(3, 6)) + 0.1 * RNG.normal(size=(150, 6))
HOLES = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
TABLE = pa.table({f"x{i}": column for i, column in enumerate(X.T)})
# Of 131 rows, the last batch has one: a worker's part of it is empty. Cells are missing, so parts
# of equal rows weigh differently.
OPTIONS: dict[str, Any] = {
    "n_components": 2,
    "epochs": 4,
    "batch_size": 26,
    "random_state": 0,
    "precision": "float64",
}
# Where cells are missing, a network next to a shortcut learns from hidden cells, and each worker
# hides others.
NO_SHORTCUT: dict[str, Any] = {**OPTIONS, "shortcut": False}


def assert_same(found: Autoencoder, expected: Autoencoder) -> None:
    """The same model, to rounding."""
    ours, theirs = found.network_.state_dict(), expected.network_.state_dict()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-7, atol=1e-9)
    for mine, other in zip(found.history_, expected.history_, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-9)
        assert mine["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-9)
    assert found.best_epoch_ == expected.best_epoch_
    assert found.offset_ == pytest.approx(expected.offset_, rel=1e-6)


def flags(options: dict[str, Any]) -> list[str]:
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    return " ".join(words).replace("--shortcut False", "--no-shortcut").split()


def test_two_workers_of_the_command_line_make_the_same_model_as_one_though_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    pools: list[list[subprocess.Popen[bytes]]] = []
    begin = launch.LocalWorkers.__init__

    def noted(pool: Any, *given: Any) -> None:
        begin(pool, *given)
        pools.append(pool._processes)

    def kill(_: Progress, event: Event) -> None:
        events.append(event)
        if event.epoch == 2 and len(pools) == 1:
            pools[0][1].send_signal(signal.SIGKILL)

    monkeypatch.setattr(launch.LocalWorkers, "__init__", noted)
    monkeypatch.setattr(Progress, "__call__", kill)
    np.save(tmp_path / "rows.npy", HOLES)
    words = ["fit", tmp_path / "rows.npy", "--output", tmp_path / "model", "--workers", "2"]
    often = ["--checkpoint", tmp_path / "run", "--checkpoint-seconds", "0"]
    result = CliRunner().invoke(app, [*map(str, [*words, *often]), *flags(NO_SHORTCUT)])
    assert result.exit_code == 0, result.output
    assert re.search(r"ended \(signal 9\); all\s+continue", result.stderr)
    assert [len(processes) for processes in pools] == [2, 2]
    assert {event.epoch for event in events if event.kind == "epoch"} == {1, 2, 3, 4}
    assert re.search(r"rows +150", result.stdout)
    assert_same(load(tmp_path / "model"), Autoencoder(**NO_SHORTCUT).fit(HOLES))


def test_what_a_worker_cannot_do_is_raised_as_by_one_process() -> None:
    with pytest.raises(DivergenceError, match="at epoch 1, step"):
        launch.fit(Autoencoder(**OPTIONS, optimizer="sgd", learning_rate=1e200), X, workers=2)


def test_workers_that_never_get_to_a_checkpoint_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ended before they come to anything, as by too little memory.
    monkeypatch.setattr(launch, "_CHILD", "import os, signal; os.kill(os.getpid(), 9)")
    warned = pytest.warns(WorkerWarning, match="signal 9")
    with warned, pytest.raises(WorkerError, match=r"without a new checkpoint \(signal 9\)"):
        launch.fit(Autoencoder(**OPTIONS), X, workers=2)


def _torchrun(*words: object, n_processes: int = 2) -> str:
    """Run processes by torchrun, and return what they printed."""
    meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    here = f"--nproc-per-node={n_processes}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", here, *meeting]
    process = subprocess.Popen(
        [*torchrun, *map(str, words)],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            # Workers are in sessions of their own, and would keep the pipes open.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            workers = children.read_text().split() if children.exists() else []
            for number in (*map(int, workers), process.pid):
                os.kill(number, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, err
    return out


_KILLED_ONCE = """
import atexit, os, signal, sys
from pathlib import Path
import torch.distributed as dist
from twofold.cli.main import main
from twofold.distributed import launch

folder, fit = Path(__file__).parent, launch.fit

def left():
    if not dist.is_initialized():
        (folder / f"left-{os.environ['RANK']}").touch()

def kill(event):
    if event.epoch == 2 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

def killing(*given, callbacks, **named):
    return fit(*given, callbacks=[*callbacks, kill], **named)

launch.fit = killing
atexit.register(left)  # what is registered first is called last
main()
"""


def test_processes_of_torchrun_are_workers_and_go_on_where_it_starts_them_again(
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "rows.npy", X)
    script = tmp_path / "train.py"
    script.write_text(_KILLED_ONCE, encoding="utf-8")
    fit = ["fit", tmp_path / "rows.npy", "--output", tmp_path / "model", *flags(OPTIONS)]
    again = ["--checkpoint", tmp_path / "run", "--resume", "--checkpoint-seconds", 0]
    out = _torchrun("--max-restarts=1", script, *fit, *again)
    assert (tmp_path / "killed").exists()
    assert {path.name for path in tmp_path.glob("left-*")} == {"left-0", "left-1"}
    assert out.count("parameters, tied weights") == 1
    assert_same(load(tmp_path / "model"), Autoencoder(**OPTIONS).fit(X))


def assert_same_training(found: Autoencoder, expected: Autoencoder) -> None:
    """The same losses, to the rounding of sums that a GPU makes in any order."""
    for mine, other in zip(found.history_, expected.history_, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert mine["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-6)


@pytest.mark.gpu
def test_a_worker_with_a_gpu_makes_the_updates_of_one_process(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", X)
    fit = ["fit", tmp_path / "rows.npy", "--output", tmp_path / "model", *flags(OPTIONS)]
    command = Path(sys.executable).with_name("twofold")
    _torchrun("--no-python", command, *fit, "--device", "cuda", n_processes=1)
    assert_same_training(load(tmp_path / "model"), Autoencoder(**OPTIONS, device="cuda").fit(X))


@pytest.mark.gpu
@pytest.mark.parametrize("n_gpus", [1, 2])
def test_two_workers_with_gpus_make_the_updates_of_one_process(
    monkeypatch: pytest.MonkeyPatch, n_gpus: int
) -> None:
    if torch.cuda.device_count() < n_gpus:
        pytest.skip("needs two GPUs")
    expected = Autoencoder(**OPTIONS, device="cuda").fit(X)
    # Of one GPU they both take a half, and their gradients travel by gloo; of two, by NCCL.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n_gpus))))
    found = launch.fit(Autoencoder(**OPTIONS, device="cuda"), X, workers=2)
    assert_same_training(found.model, expected)


def test_workers_meet_none_of_an_earlier_start() -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            parts = list(pool.map(lambda rank: launch._apart(store, rank, 3), range(3)))
            assert not parts[0].check(["address"])
            parts[0].set("address", "")
            assert all(part.check(["address"]) for part in parts)
    soon = timedelta(milliseconds=30)
    with pytest.raises(WorkerError, match=r"The 3 workers did not all come in 0:00:00\.03"):
        launch._apart(store, 1, 3, soon)


def test_outside_of_torchrun_this_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert launch.joined() == SingleProcess()


@pytest.mark.parametrize("workers", [0, -1])
def test_there_is_at_least_one_worker(workers: int) -> None:
    with pytest.raises(OptionError, match="workers must be"):
        launch.fit(Autoencoder(**OPTIONS), X, workers=workers)


def test_one_worker_is_this_process() -> None:
    model = Autoencoder(**OPTIONS)
    assert launch.fit(model, X) == (model, 150)


STREAMS = {
    "reader": lambda table: table.to_reader(),
    "data set": lambda table: pa.dataset.dataset(table),
    "lazy frame": lambda table: pl.from_arrow(table).lazy(),
}


@pytest.mark.parametrize("name", STREAMS)
def test_one_worker_takes_streams_of_rows(name: str) -> None:
    found = launch.fit(Autoencoder(**OPTIONS), STREAMS[name](TABLE), workers=1)
    assert found.n_rows == len(X)
    assert_same(found.model, Autoencoder(**OPTIONS).fit(TABLE))


def test_two_workers_take_a_stream_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000.0)  # so that it goes to files
    found = launch.fit(Autoencoder(**OPTIONS), TABLE.to_reader(), workers=2)
    assert found.n_rows == len(X)
    assert list(found.model.schema_.names) == TABLE.schema.names


def test_an_interrupted_run_names_no_folder_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(memory, "available", lambda: 1000.0)  # so that the stream goes to files
    model = Autoencoder(**OPTIONS | {"epochs": 100_000, "patience": None})
    with pytest.warns(InterruptedWarning) as caught:
        found = launch.fit(model, TABLE.to_reader(), workers=2, callbacks=[interrupt])
    (said,) = [str(w.message) for w in caught if w.category is InterruptedWarning]
    assert 0 < len(found.model.history_) < 100_000
    assert "interrupted after" in said
    assert said.endswith("the model holds the best weights until then.")


def test_a_cluster_takes_no_stream_larger_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000.0)
    with pytest.raises(DataError, match="fit into memory, or files"):
        launch.fit(Autoencoder(**OPTIONS), TABLE.to_reader(), workers=2, address="local")


def test_workers_do_not_overwrite_a_run_unasked(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.kind == "epoch":
            raise SystemExit

    with pytest.raises(SystemExit):
        Autoencoder(**OPTIONS).fit(X, checkpoint=tmp_path, callbacks=[stop], checkpoint_seconds=0)
    for rows in (X, reader := TABLE.to_reader()):
        with pytest.raises(CheckpointError, match="already exists"):
            launch.fit(Autoencoder(**OPTIONS), rows, workers=2, checkpoint=tmp_path)
    assert reader.read_all() == TABLE  # nothing of it was taken


def test_another_number_of_workers_goes_on(tmp_path: Path) -> None:
    # One process, which takes another step than workers do; then two; then one again.
    expected = Autoencoder(**OPTIONS).fit(X)
    for workers, last in ((1, 1), (2, 3), (1, 4)):

        def stop(event: Event, last: int = last) -> None:
            if event.kind == "epoch" and event.epoch == last < 4:
                raise SystemExit

        try:
            found = launch.fit(
                Autoencoder(**OPTIONS),
                X,
                workers=workers,
                checkpoint=tmp_path,
                resume=True,
                checkpoint_seconds=0,
                callbacks=[stop],
            )
        except SystemExit:
            continue
    assert_same(found.model, expected)
