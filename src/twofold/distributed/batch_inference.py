"""What a model makes of many rows, on a cluster: each part of the files is one task of its own.

A task reads its rows, applies the model, and writes one Parquet file under a name that depends on
the part alone. So a task that is run again, because its machine has gone, writes the same file
again, and every row is there once. The folder of all files gets its name when it is whole; until
then it has one that depends on model and rows, so that the same command goes on with it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from twofold import errors
from twofold.data import output as outputs
from twofold.data.addresses import address_of, shown
from twofold.data.convert import to_arrow
from twofold.data.files import Files, OpenFiles
from twofold.data.output import Pace
from twofold.distributed import ray as cluster
from twofold.distributed import results
from twofold.distributed.results import APPLY, Progress, Summary
from twofold.errors import DataError, OptionError, TwofoldError, WorkerError
from twofold.estimators import fitting, validation
from twofold.estimators.autoencoder import Autoencoder
from twofold.inference.apply import find_device
from twofold.training.checkpoint import digest
from twofold.verbs import VERBS

DEVICES = ("auto", "cpu", "cuda")
_LEAST_TASKS, _MOST_CHUNKS = 64, 8  # tasks that all rows make at least; chunks in each at most
_RETRIES = 5  # of a task whose process has ended
_AHEAD = 2  # tasks per CPU that wait or run: their number bounds what is held
_SUFFIX, _DONE = ".parquet", ".json"  # of a file, and of its summary while others are written


class Piece(NamedTuple):
    """Rows of one task."""

    first_row: int
    n_rows: int
    n_chunk: int  # rows that the model is applied to at a time


_Task = tuple[Piece, str]  # and the name of its file


class Done(NamedTuple):
    """What comes back from a task: a summary, or what is wrong with the rows; and warnings."""

    summary: Summary | None
    error: tuple[str, str]
    warned: list[tuple[str, str]]


def _table(rows: Any, names: Sequence[str]) -> Any:
    if isinstance(rows, np.ndarray):
        return to_arrow(rows.reshape(len(rows), len(names)), names)
    return rows


def write(
    model: Autoencoder,
    verb: str,
    source: str | os.PathLike[str] | Files,
    output: str | os.PathLike[str],
    *,
    address: str,
    workers: int | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Write what the model makes of every row to a folder of Parquet files, by a Ray cluster.

    Their names are in the order of the rows, and their columns are those that the command of this
    name writes. All machines have to see the files and the folder under the same names.

    Parameters
    ----------
    model : Autoencoder
        A fitted one.
    verb : str
        "encode", "impute", "reconstruct" or "score".
    source : path-like or Files
        Parquet or CSV files, or one `.npy` file.
    output : path-like
        The folder; it is there once all of it is.
    address : str
        "auto", "local" or "HOST:PORT".
    workers : int, optional
        How many tasks run at a time; as many as there are CPUs, unless said.
    device : str, default="auto"
        "auto" gives a GPU of its own to as many processes as there are free GPUs, and the other
        tasks to CPUs; "cpu" gives all of them to CPUs; "cuda" is an error without a free GPU.
    force : bool, default=False
        Whether a folder of such files is overwritten.
    progress : callable, optional
        Called with a line about the progress now and then.

    Raises
    ------
    DataError
        If rows cannot be used, or the folder cannot be written to.
    OutputExistsError
        If the folder exists and `force` is false, or holds something else.
    WorkerError
        If processes end again and again.
    """
    if verb not in APPLY:
        raise OptionError(f"verb={verb!r} must be one of {', '.join(APPLY)}.")
    if workers is not None and workers < 1:
        raise OptionError(f"workers={workers!r} must be an integer of at least 1.")
    if device not in DEVICES:
        raise OptionError(
            f"device={device!r} must be one of {', '.join(DEVICES)}: which of the GPUs it is, the "
            f"cluster decides."
        )
    cluster.require_address(address)
    if address_of(output):
        raise DataError(
            f"Expected a folder that all machines share, got the address {shown(output)}. Write to "
            f"such a folder, and copy it from there."
        )
    place = Path(output).absolute()
    require_free(place, force)
    rows = validation.open_rows(model, source, stream=True)
    if not isinstance(rows, OpenFiles):
        raise DataError(
            f"{source.source if isinstance(source, Files) else source} is read at once, and not in "
            f"parts, so a cluster is of no use for it. Leave out the address (--address)."
        )
    pieces = list(_pieces(rows))
    if not pieces:
        raise DataError("The table has no rows (0 sample(s)); a minimum of 1 is required.")
    place.parent.mkdir(parents=True, exist_ok=True)
    # Of the same work: whoever repeats a command that was killed finds what was done already.
    same = digest(
        verb, repr(pieces), rows.identity(), *model.network_.state_dict().values(),
        *model.scorer_.state_dict().values(),
    )  # fmt: skip
    fresh = place.parent / f".{place.name}.{same[:16]}"
    fresh.mkdir(exist_ok=True)
    try:
        with cluster.connected(address, workers or os.cpu_count() or 1) as ray:
            run = _Run(ray, model, verb, rows, pieces, fresh, workers, device)
            summary = run.until_done(Pace(rows.n_rows, progress))
        for path in fresh.glob(".*"):  # what processes that ended had begun
            path.unlink()
            summary.n_restarted += 1
        for path in fresh.glob(f"*{_DONE}"):
            path.unlink()
        require_free(place, force)
        outputs.put_in_place(fresh, place)
    except OSError as error:
        raise outputs.not_written(place, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return summary


def require_free(path: Path, force: bool) -> None:
    """Raise OutputExistsError where no folder of results may be written to `path`.

    Even with `force`, only another such folder gives way.
    """
    if path.suffix.lower() in outputs.SUFFIXES:
        raise DataError(
            f"{path} is the name of a file, and a cluster writes a folder of Parquet files. Give "
            f"the name of a folder."
        )
    outputs.require_writable(path)
    results = f"a folder of part-*{_SUFFIX} files and nothing else"
    outputs.require_free_folder(path, force, _are_results, results)


def _are_results(held: set[str]) -> bool:
    return all(name.startswith("part-") and name.endswith(_SUFFIX) for name in held)


def _pieces(source: OpenFiles) -> Iterator[Piece]:
    """Cut the rows into tasks, between two of the chunks that `OpenFiles.chunks` gives.

    A model's results may differ in the last bit by which rows it is applied to together; so they
    are those of a single process.
    """
    most = source.chunk_rows()
    wanted = min(max(1, source.n_rows // _LEAST_TASKS), _MOST_CHUNKS * most)
    first, chunk = 0, 0
    for start, part in zip(source.first_rows, source.parts, strict=True):
        for skip in range(0, part.n_rows, most):
            n = min(most, part.n_rows - skip)
            if chunk and chunk + n > most:
                chunk = 0
                n_rows = start + skip - first
                # Rows of a part that are skipped are read all the same.
                if n_rows >= (4 * wanted if skip else wanted):
                    yield Piece(first, n_rows, most)
                    first += n_rows
            chunk += n
    if source.n_rows > first:
        yield Piece(first, source.n_rows - first, most)


def apply(
    model: Autoencoder,
    source: OpenFiles,
    verb: str,
    piece: Piece,
    folder: Path,
    name: str,
    device: str = "cpu",
) -> Done:
    """Do one task; what is wrong with the rows comes back, for another try would not help."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        summary, error = None, ("", "")
        try:
            place = find_device(device)
            model.network_.to(place)
            model.scorer_.to(place)
            summary = _written(model, source, verb, piece, folder, name)
        except TwofoldError as failure:
            error = type(failure).__name__, str(failure)
        except OSError as failure:
            text = f"{folder / name} could not be written: {failure.strerror or failure}."
            error = DataError.__name__, text
    warned = [(getattr(w.category, "__name__", "UserWarning"), str(w.message)) for w in caught]
    return Done(summary, error, warned)


def _written(
    model: Autoencoder, source: OpenFiles, verb: str, piece: Piece, folder: Path, name: str
) -> Summary:
    if not folder.is_dir():
        raise DataError(
            f"{folder.parent} is not the same folder on all machines of the cluster. Write to one "
            f"that they share."
        )
    summary = Summary()
    fresh = folder / f".{name}.{secrets.token_hex(4)}"
    with fresh.open("wb") as file:
        writer: Any = None
        try:
            for first, rows in source.chunks(*piece):
                try:
                    made, found = results.apply(verb, model, rows, first)
                except DataError as error:
                    part = source.parts[bisect_right(source.first_rows, first) - 1]
                    where = source.name_of(part)
                    raise DataError(f"{where}, counted from row {first:,}: {error}") from error
                table = _table(made, VERBS[verb].columns(model))
                if writer is None:
                    writer = pq.ParquetWriter(file, table.schema)
                writer.write_table(table.cast(writer.schema))
                summary.add(found)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        finally:
            if writer is not None:
                writer.close()
        file.flush()
        os.fsync(file.fileno())
    (folder / name).with_suffix(_DONE).write_text(json.dumps(asdict(summary)), encoding="utf-8")
    os.replace(fresh, folder / name)
    return summary


def _done(path: Path) -> Summary | None:
    """Return the summary of a file that was written already, None if it is not there."""
    if not path.is_file():
        return None
    noted = json.loads(path.with_suffix(_DONE).read_text(encoding="utf-8"))
    lines = [(score, tuple(cells)) for score, cells in noted.pop("most_anomalous")]
    return Summary(**noted, most_anomalous=lines)


class GpuWorker:
    """A process that has a GPU of its own from task to task: one for a task alone ends with it."""

    def apply(self, *task: Any) -> Done:
        """Do one task."""
        return apply(*task)


def _on_cpu(model: Autoencoder) -> Autoencoder:
    """Return the model as it is when it is loaded, which any machine can read."""
    state = fitting.state_of(model)
    network, scorer = deepcopy((state.network, state.calibration.scorer))
    calibration = replace(state.calibration, scorer=scorer.cpu())
    there = replace(state, network=network.cpu(), calibration=calibration)
    return fitting.from_state(Autoencoder, there)


class _Run:
    """The tasks of all pieces, some of which run at a time."""

    def __init__(
        self,
        ray: Any,
        model: Autoencoder,
        verb: str,
        source: OpenFiles,
        pieces: list[Piece],
        folder: Path,
        workers: int | None,
        device: str,
    ) -> None:
        self._ray, self._verb, self._folder, self._workers = ray, verb, folder, workers
        digits = max(5, len(str(len(pieces) - 1)))
        names = (f"part-{i:0{digits}d}{_SUFFIX}" for i in range(len(pieces)))
        self._tasks = list(zip(pieces, names, strict=True))
        n_gpus = 0 if device == "cpu" else int(ray.available_resources().get("GPU", 0))
        if device == "cuda" and not n_gpus:
            raise OptionError(
                "Expected a cluster with a free GPU for device='cuda', got none. Wait for one, or "
                "take device='auto'."
            )
        self._held, self._device = (ray.put(_on_cpu(model)), ray.put(source)), device
        anywhere: dict[str, Any] = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
        self._task = ray.remote(max_retries=_RETRIES, **anywhere)(apply)
        worker = ray.remote(num_gpus=1, max_restarts=-1, **anywhere)(GpuWorker)
        n_gpus = n_gpus if workers is None else min(n_gpus, workers)
        self._gpu_workers = [worker.remote() for _ in range(n_gpus)]
        self._idle = list(self._gpu_workers)
        # What is awaited: the worker with a GPU, or None, and its task, or None while it starts.
        self._running: dict[Any, tuple[Any, _Task | None]] = {}

    def until_done(self, pace: Pace) -> Summary:
        """Run all tasks, and wait for their end."""
        ray, running = self._ray, self._running
        waiting: list[_Task] = []
        summary, warned = Summary(), set[tuple[str, str]]()
        for piece, name in reversed(self._tasks):
            if (there := _done(self._folder / name)) is None:
                waiting.append((piece, name))
            else:
                summary.add(there)
                pace.add(there.n_rows)
        try:
            while waiting or self._n_tasks():
                while waiting and self._n_tasks() < self._at_a_time():
                    self._begin(waiting.pop(), self._idle.pop() if self._idle else None)
                (ref,), _ = ray.wait(list(running))
                done = self._result(ref)
                if done is None:
                    continue
                warned.update(done.warned)
                if done.summary is None:
                    name, text = done.error
                    raise getattr(errors, name, DataError)(text)
                summary.add(done.summary)
                pace.add(done.summary.n_rows)
        finally:
            for worker in self._gpu_workers:
                ray.kill(worker)
            for ref, (worker, _) in running.items():
                if worker is None:
                    ray.cancel(ref, force=True)
            if running:  # or they would go on to write into the folder
                ray.wait(list(running), num_returns=len(running), timeout=10)
        for name, text in sorted(warned):
            warnings.warn(text, getattr(errors, name, UserWarning), stacklevel=3)
        lost = [name for _, name in self._tasks if not (self._folder / name).is_file()]
        if lost:
            raise DataError(
                f"{len(lost):,} of {len(self._tasks):,} files were written where this machine does "
                f"not see them. Write to a folder that all machines share."
            )
        return summary

    def _n_tasks(self) -> int:
        return sum(task is not None for _, task in self._running.values())

    def _at_a_time(self) -> int:
        if self._workers is not None:
            return self._workers
        return _AHEAD * max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _begin(self, task: _Task, worker: Any) -> None:
        """Give a task to a worker with a GPU, or to a CPU."""
        (piece, name), run = task, self._task if worker is None else worker.apply
        device = "cpu" if worker is None else self._device
        ref = run.remote(*self._held, self._verb, piece, self._folder, name, device)
        self._running[ref] = worker, task

    def _result(self, ref: Any) -> Done | None:
        """Return what a task has done, None where it is to be done again or a worker is back."""
        worker, task = self._running.pop(ref)
        try:
            done: Done = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise WorkerError(
                f"A task failed: {type(error.cause).__name__}: {error.cause}"
            ) from error
        except self._ray.exceptions.RayError as error:
            if worker is None or task is None:
                raise WorkerError(
                    f"A task was tried {_RETRIES + 1} times, and its process ended each time. Too "
                    f"little memory is a likely cause: let fewer run at a time (--workers)."
                ) from error
            # Ray starts the worker again where there is a GPU for it; its task does not wait.
            back = worker.__ray_ready__.options(max_task_retries=-1).remote()
            self._running[back] = worker, None
            self._begin(task, None)
            return None
        if worker is not None:
            self._idle.append(worker)
        return done if task is not None else None
