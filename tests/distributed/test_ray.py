"""Workers of a Ray cluster train as one process does, and outlive each other and their machines."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from twofold import Autoencoder, Files, load
from twofold.cli.main import app
from twofold.data import files
from twofold.distributed import batch_inference, job, launch
from twofold.distributed import ray as cluster
from twofold.errors import (
    DataError,
    DivergenceError,
    InterruptedWarning,
    MissingExtraError,
    OptionError,
    OutputExistsError,
    WorkerError,
)
from twofold.training.events import Event

ray = pytest.importorskip("ray", reason="ray is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning"),
    # Ray forgets the handles of processes that it has ended.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Of Ray Data, on its first import: whichever test comes first would fail.
    pytest.mark.filterwarnings("ignore:`use_\\w+` is deprecated:DeprecationWarning"),
]
RNG = np.random.default_rng(4)
X = RNG.normal(size=(150, 3)) @ RNG.normal(size=(3, 6)) + 0.1 * RNG.normal(size=(150, 6))
OPTIONS: dict[str, Any] = {
    "n_components": 2,
    "epochs": 4,
    "batch_size": 26,
    "random_state": 0,
    "precision": "float64",
}
MANY = RNG.normal(size=(1200, 3)) @ RNG.normal(size=(3, 6)) + 0.1 * RNG.normal(size=(1200, 6))
N_FILES, N_ROWS = 8, 2500
NAMES = [f"x{i}" for i in range(6)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A machine of one CPU, and this process on it; more of them are this one, too."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Room on a machine that has gone is waited for before Ray Train looks again; not for 60 s.
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
        folder = tmp_path_factory.mktemp("ray")  # again where tests of others came in between
        short = Path("/tmp", f"twofold-{os.getpid()}")  # paths of sockets have to be short
        short.symlink_to(folder)
        # Whatever folder Ray is given, it notes the address in this one, which may not be there.
        Path("/tmp/ray").mkdir(exist_ok=True)
        usual = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        # A machine that does not answer is given up sooner than in earnest.
        sooner = {"health_check_period_ms": 500}
        head = {**usual, "temp_dir": str(short), "_system_config": sooner}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            ray.init(made.address, log_to_driver=False, logging_level="ERROR")
            made.wait_for_nodes()
            look_for_machines_often(patch)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()
            short.unlink()


def look_for_machines_often(patch: pytest.MonkeyPatch) -> None:
    """Start what tells Ray Train which machines there are; its own looks every 20 s."""
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as coordinator

    class Often(coordinator._AutoscalingCoordinatorActor):
        TICK_INTERVAL_S = 0.5

    patch.setattr(coordinator, "_AutoscalingCoordinatorActor", Often)
    coordinator.get_or_create_autoscaling_coordinator()


def assert_same(found: Autoencoder, expected: Autoencoder) -> None:
    """The same network, to the rounding of hundreds of epochs.

    Thresholds depend on what was drawn until the interrupt, which comes in the next epoch or not.
    """
    ours, theirs = found.network_.state_dict(), expected.network_.state_dict()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-7)
    for mine, other in zip(found.history_, expected.history_, strict=False):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-6)


@pytest.mark.timeout(900)
def test_workers_come_and_go_and_make_the_same_model_as_one(
    nodes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "_RESIZE_SECONDS", 1.0)
    received, sizes, events = launch.received, [], list[Event]()

    def noted(messages: TextIO) -> Iterator[job.Message]:
        for message in received(messages):
            if "workers" in message:
                sizes.append(message["workers"])
                events.clear()
            yield message

    def happen(event: Event) -> None:
        """Once a number of workers has got to a further epoch, let the next thing happen."""
        events.append(event)
        if event.kind != "epoch" or len([e for e in events if e.kind == "epoch"]) != 3:
            return
        if sizes == [1]:
            nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
        elif sizes == [1, 2]:
            os.kill(processes("ray::RayTrainWorker")[-1], signal.SIGKILL)
        elif sizes == [1, 2, 2]:
            nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
        else:
            raise KeyboardInterrupt  # as Ctrl-C does

    def stop(event: Event, after: int = 2) -> None:
        if event.kind == "epoch" and event.epoch == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(launch, "received", noted)
    options = {**OPTIONS, "epochs": 100_000, "patience": 100_000, "schedule": "constant"}
    with pytest.warns(InterruptedWarning):
        Autoencoder(**options).fit(MANY, checkpoint=tmp_path / "run", callbacks=[stop])
    with pytest.warns() as warned:
        found = launch.fit(
            Autoencoder(**options),
            MANY,
            workers=(1, 8),
            address=nodes.address,
            callbacks=[happen],
            checkpoint=tmp_path / "run",
            resume=True,
            checkpoint_seconds=0,
        )
    assert sizes == [1, 2, 2, 1]
    said = [str(warning.message) for warning in warned]
    gone = re.compile(r"is gone.*all continue from the last checkpoint", re.DOTALL)
    assert len(list(filter(gone.search, said))) == 2
    assert any(warning.category is InterruptedWarning for warning in warned)
    assert found.n_rows == len(MANY)
    n_epochs = len(found.model.history_)
    with pytest.warns(InterruptedWarning):
        expected = Autoencoder(**options).fit(MANY, callbacks=[partial(stop, after=n_epochs)])
    assert found.model.best_epoch_ == expected.best_epoch_
    assert_same(found.model, expected)


def test_what_a_worker_cannot_do_is_raised_as_by_one_process(nodes: Any) -> None:
    model = Autoencoder(**OPTIONS, optimizer="sgd", learning_rate=1e200)
    with pytest.raises(DivergenceError, match="at epoch 1, step"):
        launch.fit(model, X, workers=1, address="auto")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files with some missing cells."""
    folder, rng = tmp_path_factory.mktemp("rows"), np.random.default_rng(1)
    for i in range(N_FILES):
        cells = rng.normal(size=(N_ROWS, 6)).astype(np.float32)
        cells[rng.random(cells.shape) < 0.01] = np.nan
        table = pa.table({name: cells[:, j] for j, name in enumerate(NAMES)})
        pq.write_table(table, folder / f"rows-{i}.parquet")
    return folder


@pytest.fixture(scope="module")
def model(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "model"
    Autoencoder(n_components=2, epochs=1, random_state=0).fit(rows / "rows-0.parquet").save(folder)
    return folder


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", 1024)


def whole(path: Path) -> pa.Table:
    """A file, or all of a folder in the order of the names."""
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    return pa.concat_tables([pq.read_table(p) for p in paths]).combine_chunks()


def digest(table: pa.Table) -> str:
    """A hash of the names, the types and all cells."""
    found = hashlib.sha256(str(table.schema).encode())
    for name in table.column_names:
        found.update(np.ascontiguousarray(table[name].to_numpy()).tobytes())
    return found.hexdigest()


def by_one_process(verb: str, model: Path, rows: Path, output: Path) -> pa.Table:
    words = [verb, model, rows, "--output", output, "--stream", "--quiet"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return whole(output)


def processes(*begins: str) -> list[int]:
    """Processes below this one whose command begins so."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat, words = (entry / "stat").read_text(), (entry / "cmdline").read_text()
            except OSError:
                continue  # it has ended meanwhile
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
            names[int(entry.name)] = words
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own} - own:
        own |= more
    return sorted(pid for pid in own if names.get(pid, "").startswith(begins))


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
def test_every_row_is_encoded_once_whatever_is_killed(
    nodes: Any, model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    result, done = batch_inference._Run._result, []

    def noted(run: Any, ref: Any) -> Any:
        done.append(ref)
        if len(done) == 2:
            for pid in processes("ray::apply", "ray::IDLE"):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        return result(run, ref)

    monkeypatch.setattr(batch_inference._Run, "_result", noted)
    output = tmp_path / "codes"
    tally = batch_inference.write(load(model), "encode", rows, output, address="auto")
    assert killed
    assert tally.n_rows == N_FILES * N_ROWS
    names = sorted(path.name for path in output.iterdir())
    assert names == [f"part-{i:05d}.parquet" for i in range(len(done))]
    assert len(names) > 10
    found = whole(output)
    assert digest(found) == digest(by_one_process("encode", model, rows, tmp_path / "one.parquet"))


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files, one for each task: its process, the GPU it saw, and the model's device."""
    folder, apply = tmp_path / "notes", batch_inference.apply
    folder.mkdir()

    def noted(model: Autoencoder, *task: Any) -> Any:
        done = apply(model, *task)
        device = next(model.network_.parameters()).device.type
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        (folder / task[-2]).write_text(f"{os.getpid()} {seen or 'none'} {device} {task[-1]}")
        return done

    class Noted(batch_inference.GpuWorker):
        def apply(self, *task: Any) -> Any:
            return noted(*task)

    monkeypatch.setattr(batch_inference, "apply", noted)
    monkeypatch.setattr(batch_inference, "GpuWorker", Noted)
    return folder


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
def test_workers_have_a_gpu_each_and_their_rows_outlive_them(
    nodes: Any, model: Path, rows: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, done = batch_inference._Run._result, []

    def gpus() -> set[str]:
        words = [path.read_text().split() for path in notes.iterdir()]
        return {seen for _, seen, *_ in filter(None, words)}

    def counted(run: Any, ref: Any) -> Any:
        done.append(ref)
        # Both have a task by now: nobody gets another before the slower one, too, has done it.
        deadline = time.monotonic() + (60 if len(done) == 1 else 0)
        while not gpus() >= {"0", "1"} and time.monotonic() < deadline:
            time.sleep(0.05)
        if len(done) == 4:
            os.kill(processes("ray::Noted")[0], signal.SIGKILL)
        return result(run, ref)

    monkeypatch.setattr(batch_inference._Run, "_result", counted)
    place = notes.parent
    # Ray takes such claims at their word; the processes find no GPU and compute on CPUs.
    node = nodes.add_node(num_cpus=2, num_gpus=2, object_store_memory=80 * 2**20)
    try:
        nodes.wait_for_nodes()
        ae, codes = load(model), place / "codes"
        batch_inference.write(ae, "encode", rows, codes, address="auto", workers=2)
    finally:
        nodes.remove_node(node)
    expected = by_one_process("encode", model, rows, place / "one.parquet")
    assert digest(whole(codes)) == digest(expected)
    assert {path.name for path in notes.iterdir()} == {path.name for path in codes.iterdir()}
    workers: dict[str, set[str]] = {"on a CPU": set()}
    for path in notes.iterdir():
        pid, seen, _, device = path.read_text().split()
        workers.setdefault(pid if device == "auto" else "on a CPU", set()).add(seen)
    assert workers.pop("on a CPU") == {"none"}
    assert all(len(seen) == 1 for seen in workers.values())
    assert set.union(*workers.values()) == {"0", "1"}


@pytest.mark.usefixtures("_small_parts")
def test_gpus_are_left_alone_on_demand_and_missed_on_demand(
    nodes: Any, model: Path, rows: Path, notes: Path
) -> None:
    words = ["encode", model, rows / "rows-0.parquet", "--output", notes.parent / "codes"]
    run = partial(CliRunner().invoke, app)
    missed = run([str(w) for w in [*words, "--address", "auto", "--device", "cuda"]])
    assert missed.exit_code == 2
    assert "Expected a cluster with a free GPU" in missed.output
    node = nodes.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 * 2**20)
    try:
        nodes.wait_for_nodes()
        left = run([str(w) for w in [*words, "--address", "auto", "--device", "cpu"]])
    finally:
        nodes.remove_node(node)
    assert left.exit_code == 0, left.output
    assert {path.read_text().split()[-1] for path in notes.iterdir()} == {"cpu"}


@pytest.mark.gpu
@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("verb", ["encode", "impute", "reconstruct", "score"])
def test_a_worker_with_a_gpu_writes_what_a_cpu_does(
    nodes: Any, model: Path, rows: Path, notes: Path, verb: str
) -> None:
    place, source = notes.parent, rows / "rows-1.parquet"
    node = nodes.add_node(num_cpus=1, num_gpus=1, object_store_memory=80 * 2**20)
    try:
        nodes.wait_for_nodes()
        batch_inference.write(
            load(model), verb, source, place / "made", address="auto", workers=1, device="cuda"
        )
    finally:
        nodes.remove_node(node)
    assert {path.read_text().split()[2] for path in notes.iterdir()} == {"cuda"}
    made, expected = (
        whole(place / "made"),
        by_one_process(verb, model, source, place / "one.parquet"),
    )
    for name in expected.column_names:
        if name not in ("p_value", "label", "columns"):  # which may hang on a score's last digit
            found, wanted = (t[name].to_numpy().astype(float) for t in (made, expected))
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_a_worker_of_ray_train_with_a_gpu_makes_the_model_of_one_process(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", X)
    words = [Path(sys.executable).with_name("twofold"), "fit", "rows.npy", "--output", "model"]
    words += ["--workers", 1, "--address", "local", "--device", "cuda"]
    words += [word for k, v in OPTIONS.items() for word in (f"--{k.replace('_', '-')}", v)]
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run(list(map(str, words)), env=environment, cwd=tmp_path, check=True, timeout=300)
    assert_same(load(tmp_path / "model"), Autoencoder(**OPTIONS, device="cuda").fit(X))


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("verb", ["impute", "reconstruct", "score"])
def test_a_cluster_writes_what_one_process_does(
    nodes: Any, model: Path, rows: Path, tmp_path: Path, verb: str
) -> None:
    source, output = rows / "rows-[01].parquet", tmp_path / "results"
    words = [verb, model, source, "--output", output, "--address", "auto", "--workers", 2]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    expected = by_one_process(verb, model, source, tmp_path / "one.parquet")
    assert whole(output).equals(expected)
    assert expected.num_rows == 2 * N_ROWS


@pytest.mark.usefixtures("_small_parts")
def test_rows_that_cannot_be_used_are_told_with_their_file(
    nodes: Any, model: Path, rows: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for i in range(3):
        table = pq.read_table(rows / f"rows-{i}.parquet")
        if i == 2:
            cells = table["x3"].to_numpy().copy()
            cells[7] = np.inf
            table = table.set_column(3, "x3", pa.array(cells))
        pq.write_table(table, folder / f"rows-{i}.parquet")
    with pytest.raises(DataError, match=r"rows-\d.parquet, counted from row \d,\d\d\d: .*'x3'"):
        batch_inference.write(load(model), "encode", folder, tmp_path / "codes", address="auto")
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


@pytest.mark.usefixtures("_small_parts")
def test_parts_of_csv_files_and_arrays_are_tasks_too(
    nodes: Any, model: Path, rows: Path, tmp_path: Path
) -> None:
    table = pq.read_table(rows / "rows-0.parquet")
    pa.csv.write_csv(table, tmp_path / "rows.csv")
    batch_inference.write(
        load(model), "encode", tmp_path / "rows.csv", tmp_path / "codes", address="auto"
    )
    one = by_one_process("encode", model, tmp_path / "rows.csv", tmp_path / "one.parquet")
    assert len(list((tmp_path / "codes").iterdir())) == 3
    assert digest(whole(tmp_path / "codes")) == digest(one)


@pytest.mark.parametrize("most", [7, 300, 2500, 4000, 2**16])
@pytest.mark.parametrize("n_tasks", [1, 7, 64])
def test_pieces_hold_every_row_once(
    rows: Path, monkeypatch: pytest.MonkeyPatch, most: int, n_tasks: int
) -> None:
    if most == 7:
        rows = rows / "rows-0.parquet"
    monkeypatch.setattr(batch_inference, "_LEAST_TASKS", n_tasks)
    monkeypatch.setattr(files.OpenFiles, "chunk_rows", lambda _: most)
    source = Files(rows, stream=True).open()
    found = [chunk for piece in batch_inference._pieces(source) for chunk in source.chunks(*piece)]
    expected = list(source.chunks())
    assert [at for at, _ in found] == [at for at, _ in expected]
    assert [digest(table) for _, table in found] == [digest(table) for _, table in expected]


def test_nothing_is_overwritten_unasked(model: Path, rows: Path, tmp_path: Path) -> None:
    ae = load(model)
    (tmp_path / "note").touch()
    with pytest.raises(OutputExistsError, match="already exists"):
        batch_inference.write(ae, "encode", rows, tmp_path, address="local")
    with pytest.raises(OutputExistsError, match="so it is left alone"):
        batch_inference.write(ae, "encode", rows, tmp_path, address="local", force=True)
    with pytest.raises(DataError, match="name of a file"):
        batch_inference.write(ae, "encode", rows, tmp_path / "codes.parquet", address="local")


def test_a_local_cluster_does_not_listen_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(WorkerError, match="would listen on the network.*before it is"):
        launch.fit(Autoencoder(**OPTIONS), X, workers=2, address="local")


@pytest.mark.parametrize("address", ["", "here", "ray://host:10001", "host"])
def test_an_address_is_one_of_a_cluster(address: str) -> None:
    with pytest.raises(OptionError, match="HOST:PORT, got"):
        launch.fit(Autoencoder(**OPTIONS), X, workers=2, address=address)


def test_a_range_of_workers_is_for_a_cluster() -> None:
    with pytest.raises(OptionError, match="is for a cluster. Give its address"):
        launch.fit(Autoencoder(**OPTIONS), X, workers=(1, 2))
    with pytest.raises(OptionError, match="no larger than"):
        launch.fit(Autoencoder(**OPTIONS), X, workers=(3, 2), address="local")


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"twofold\[ray\]"):
        launch.fit(Autoencoder(**OPTIONS), X, workers=2, address="local")


def test_a_cluster_of_this_machine_ends_with_the_command(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", X)
    words = ["fit", "rows.npy", "--output", "model", "--workers", "1", "--address", "local"]
    given = {**OPTIONS, "epochs": 100_000, "patience": "none"}
    words += [word for k, v in given.items() for word in (f"--{k.replace('_', '-')}", str(v))]
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("twofold")), *words],
        env={**os.environ, "HOME": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch"):
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 130, err
    assert "Training was interrupted; the model was saved all the same" in err
    assert load(tmp_path / "model").n_iter_ >= 1
    assert out.count("parameters, tied weights") == 1
    # Ray's processes end when they see that the command has; until then its group is there.
    deadline = time.monotonic() + 30
    while _is_there(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_there(process.pid)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
