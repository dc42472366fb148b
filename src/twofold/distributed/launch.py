"""Training by several workers: processes of this machine, of `torchrun`, or of a Ray cluster.

Whoever starts the workers, each runs the same `Autoencoder.fit` as part of a `WorkerGroup`. Here is
what starts them, what they send to the process that waits for them, and what happens when one of
them dies: all start again from the last checkpoint.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import pickle
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import rendezvous

from twofold import errors
from twofold.data import sources
from twofold.data.addresses import address_of
from twofold.data.files import Files, OpenFiles
from twofold.distributed import ray as cluster
from twofold.distributed.job import Message, Send, TrainingJob
from twofold.errors import OptionError, TwofoldError, WorkerError, WorkerWarning
from twofold.estimators import autoencoder, validation
from twofold.estimators.autoencoder import Autoencoder
from twofold.training import checkpoint as checkpoints
from twofold.training.events import Callback, Event
from twofold.training.process_group import (
    SingleProcess,
    WorkerGroup,
    Workers,
    current_workers,
    using,
)

_log = logging.getLogger(__name__)
_RESTARTS = 3  # without a checkpoint in between
_PREFIX = "twofold:"  # of lines that are messages; libraries may print others
_CHILD = "from twofold.distributed.launch import _child; _child()"


class Outcome(NamedTuple):
    """The fitted estimator, and the number of rows that it was fitted to."""

    model: Autoencoder
    n_rows: int


def joined() -> Workers:
    """Return the workers that `torchrun` started this process among, or this process alone.

    `torchrun` says by environment variables who they are. Each has a GPU of its own, if there are
    any.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return SingleProcess()
    if not dist.is_initialized():
        store, rank, size = next(rendezvous("env://"))
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(
                int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count()
            )
            backend = "cpu:gloo,cuda:nccl"
        apart = _apart(store, rank, size)
        dist.init_process_group(backend, store=apart, rank=rank, world_size=size)
        atexit.register(_leave)
    return WorkerGroup()


def _apart(store: Store, rank: int, size: int, within: timedelta = default_pg_timeout) -> Store:
    """Return a part of the store that only the workers of this start read and write.

    `torchrun` keeps its store when it restarts workers, and in it the addresses of those that have
    ended, at which new ones would look for each other. So the main worker makes up a name, sends it
    to whoever asks, and waits until each of the others has it. An answer is for one question alone:
    what is left of earlier ones is ignored.
    """
    name = uuid.uuid4().hex
    if rank > 0:
        store.set(f"twofold/question of {rank}", name)
        answer = f"twofold/answer to {name}"
        try:
            store.wait([answer], within)
        except dist.DistStoreError as error:
            late = f"The first of {size} workers did not come in {within}."
            raise WorkerError(late) from error
        first = store.get(answer).decode()
        store.set(f"twofold/{first} known to {rank}", "")
        return PrefixStore(first, store)
    deadline = time.monotonic() + within.total_seconds()
    others = set(range(1, size))
    while others:
        if time.monotonic() > deadline:
            raise WorkerError(f"{len(others)} of {size} workers did not come in {within}.")
        for other in sorted(others):
            question = f"twofold/question of {other}"
            if store.check([f"twofold/{name} known to {other}"]):
                others.remove(other)
            elif store.check([question]):
                store.set(f"twofold/answer to {store.get(question).decode()}", name)
        time.sleep(0.01)
    return PrefixStore(name, store)


def _leave() -> None:
    """End Gloo's threads before Python ends, which now and then aborts a process that was done."""
    if dist.is_initialized():
        dist.destroy_process_group()


def fit(
    model: Autoencoder,
    X: Any,
    *,
    workers: int | tuple[int, int] = 1,
    address: str | None = None,
    validation_data: Any = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
) -> Outcome:
    """Fit an estimator's options to the rows of X with several processes, here or on a cluster.

    Each update is that of one process, to rounding: `batch_size` counts the rows of all workers.
    What is drawn for single rows, such as noise, is another draw. If a worker is killed, all
    continue from the last checkpoint. A process that is a worker already (`using(joined())`) does
    its part, and starts no others.

    Parameters
    ----------
    model : Autoencoder
        Its options count. With one worker it is the one that is fitted.
    X : as in `Autoencoder.fit`
        Every worker gets all rows, unless they are streamed from files: a path or `Files` is best.
        On a cluster, files have to be there on all of its machines.
    workers : int or (int, int)
        Number of processes. On a cluster, two numbers are the least and the most of them: all that
        there is room for when training starts, or starts again.
    address : str, optional
        That of a Ray cluster: "auto" for the one that this machine is part of, "HOST:PORT", or
        "local" for one that is started here and ends with the training. Without it, workers are
        processes of this machine, and Ray is not needed.
    validation_data, callbacks, checkpoint, resume, checkpoint_seconds
        As in `Autoencoder.fit`. Without a checkpoint folder, checkpoints are kept until the end of
        the training.

    Returns
    -------
    Outcome
        With the fitted `model` and the number of rows, `n_rows`.

    Raises
    ------
    WorkerError
        If workers are killed again and again, or cannot be started.
    MissingExtraError
        If an address is given, and Ray is not installed.
    """
    X = Files(X) if sources.is_path(X) else X
    least, most = _least_and_most(workers)
    if least < most and address is None:
        raise OptionError(f"workers={workers!r} is for a cluster. Give its address.")
    if current_workers().size > 1 and (most > 1 or address is not None):
        raise OptionError("torchrun has started the workers. Leave out workers and address.")
    if address is not None:
        cluster.require_address(address)
    elif most == 1:
        rows = opened(X, model) if isinstance(X, Files) else X
        model.fit(
            rows,
            validation_data=validation_data,
            callbacks=callbacks,
            checkpoint=checkpoint,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
        )
        return Outcome(model, _count(rows))
    scratch = Path(tempfile.mkdtemp(prefix="twofold-workers-"))
    try:
        folder = scratch / "checkpoints" if checkpoint is None else Path(checkpoint)
        _prepare(folder, resume)
        output, options = scratch / "model", model.get_params(deep=False)
        job = TrainingJob(options, X, validation_data, folder, checkpoint_seconds, output)
        if address is None:

            def start() -> WorkerPool:
                return LocalWorkers(job, most, Path(tempfile.mkdtemp(dir=scratch)))

            report = _run_until_done(start, folder, callbacks)
        else:
            report = _run_on_cluster(job, (least, most), address, callbacks)
        return Outcome(autoencoder.load(job.output), int(report["rows"]))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _least_and_most(workers: int | tuple[int, int]) -> tuple[int, int]:
    least, most = (workers, workers) if isinstance(workers, int) else workers
    if not 1 <= least <= most:
        both = "" if isinstance(workers, int) else ", the first of two no larger than the second"
        raise OptionError(f"workers must be an integer of at least 1{both}, got {workers!r}.")
    return least, most


def _prepare(folder: Path, resume: bool) -> None:
    """Prepare the folder so that workers can continue from whatever is in it."""
    checkpoints.Checkpoint(folder, resume=resume)
    if not resume:
        checkpoints.clear(folder)


def opened(files: Files, model: Autoencoder) -> Any:
    """Open the files as the main worker does: whether rows are streamed depends on its memory."""
    workers, wanted = current_workers(), validation.wanted_types(model.kinds)
    rows = files.open(wanted=wanted) if workers.is_main else None
    if isinstance(rows, OpenFiles) and workers.size > 1:
        _ = rows.parts  # which are looked for once
    streams = workers.broadcast(isinstance(rows, OpenFiles))
    if streams:
        return workers.broadcast(rows)
    return rows if workers.is_main else files.open(stream=False, wanted=wanted)


def work(job: TrainingJob, send: Send) -> None:
    """Do one worker's part of the job; the main worker sends its events, warnings and rows."""
    model = Autoencoder(**job.options)
    rows = opened(job.rows, model) if isinstance(job.rows, Files) else job.rows
    is_main = current_workers().is_main

    def report(event: Event) -> None:
        send({"event": {**asdict(event), "losses": dict(event.losses)}})

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model.fit(
            rows,
            validation_data=job.validation,
            callbacks=[report],
            checkpoint=job.folder,
            resume=True,
            checkpoint_seconds=job.seconds,
        )
    if is_main:
        model.save(job.output)
        for warning in caught:
            name = getattr(warning.category, "__name__", "UserWarning")
            send({"warning": [name, str(warning.message)]})
        send({"rows": _count(rows)})


def _count(rows: Any) -> int:
    return len(rows) if hasattr(rows, "__len__") else int(rows.shape[0])


class WorkerPool(Protocol):
    """The workers of one attempt."""

    def wait(self, receive: Send) -> str | None:
        """Wait for all to end; return None if all succeeded, else how a worker ended.

        `receive` gets their messages, and what one of them could not do is raised.
        """

    def kill(self) -> None:
        """End what still runs."""


def _run_on_cluster(
    job: TrainingJob, workers: tuple[int, int], address: str, callbacks: Sequence[Callback]
) -> Message:
    """Run a job as `_run_until_done` does, with workers on a cluster."""
    # The working folder of workers is another one.
    job = job if address_of(job.folder) else replace(job, folder=job.folder.absolute())
    with cluster.connected(address, workers[1]) as ray:
        # Rows in memory travel once, not to every worker at every attempt.
        held = [
            rows if rows is None or isinstance(rows, Files) else ray.put(rows)
            for rows in (_everywhere(job.rows), _everywhere(job.validation))
        ]
        bare = replace(job, rows=None, validation=None)

        def start() -> WorkerPool:
            return cluster.RayWorkers(ray, work, bare, held[0], held[1], workers)

        return _run_until_done(start, job.folder, callbacks)


def _everywhere(rows: Any) -> Any:
    """Return rows, or the files that hold them by a name that means the same in any folder."""
    if sources.is_path(rows):
        rows = Files(rows)
    if not isinstance(rows, Files):
        return rows
    source = os.fspath(rows.source)
    here = rows.filesystem is None and "://" not in source
    return replace(rows, source=os.path.abspath(source)) if here else rows


def _run_until_done(
    start: Callable[[], WorkerPool], folder: Path, callbacks: Sequence[Callback]
) -> Message:
    """Start the workers, and restart them if one was killed; return the main worker's report."""
    left, newest = _RESTARTS, checkpoints.newest(folder)
    while True:
        report: Message = {}
        pool = start()
        try:
            ended = pool.wait(partial(_receive, report, callbacks))
        finally:
            pool.kill()
        if ended is None:
            return report
        # Counted from the last checkpoint: a long run may lose many workers, one by one.
        left = _RESTARTS if checkpoints.newest(folder) != newest else left - 1
        newest = checkpoints.newest(folder)
        if left < 0:
            raise WorkerError(
                f"Training failed after {_RESTARTS} restarts without a new checkpoint ({ended}). A "
                f"likely cause is too little memory: use fewer workers, or a smaller batch_size."
            )
        warnings.warn(
            f"A worker has ended ({ended}); all continue from the last checkpoint.",
            WorkerWarning,
            stacklevel=3,
        )


def _receive(report: Message, callbacks: Sequence[Callback], message: Message) -> None:
    """Pass on a worker's message, and note it in the report."""
    if "event" in message:
        event = Event(**message["event"])
        for callback in callbacks:
            callback(event)
    if "warning" in message:
        name, text = message["warning"]
        warnings.warn(text, getattr(errors, name, UserWarning), stacklevel=5)
    report |= message


class LocalWorkers:
    """Processes of this machine."""

    def __init__(self, job: TrainingJob, workers: int, scratch: Path) -> None:
        n_threads = max(1, (os.cpu_count() or 1) // workers)
        known = {"OMP_NUM_THREADS": str(n_threads)}
        if sys.platform == "linux":
            known["GLOO_SOCKET_IFNAME"] = "lo"  # all are on this machine, so nothing leaves it
        environment = {**known, **os.environ}
        sent = pickle.dumps(job)
        self._lines: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
        self._errors: dict[int, TwofoldError] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        for rank in range(workers):
            process = subprocess.Popen(
                [sys.executable, "-c", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            self._processes.append(process)
            threading.Thread(target=self._listen, args=[rank], daemon=True).start()
        for rank, process in enumerate(self._processes):
            place = (str(scratch / "meeting"), rank, workers)
            assert process.stdin is not None
            # The pipe stays open: its end means to a worker that nobody waits for it any more.
            with suppress(BrokenPipeError):  # how a reader ended is found out elsewhere
                pickle.dump((place, sent), process.stdin)
                process.stdin.flush()

    def wait(self, receive: Send) -> str | None:
        """Wait for all to end; return None if all succeeded, else how a worker ended."""
        running, interrupted = set(range(len(self._processes))), False
        while running:
            try:
                rank, line = self._lines.get()
                if line is not None:
                    self._parse(rank, line, receive)
                    continue
                running.discard(rank)
                code = self._processes[rank].wait()
                if code == 0:
                    continue
                if interrupted:
                    raise KeyboardInterrupt
                # Others fail because it has gone, and maybe were quicker to say so.
                codes = [process.poll() for process in self._processes]
                killed = [c for c in codes if c is not None and c < 0]
                if not killed and self._errors:
                    raise self._errors[min(self._errors)]
                return f"signal {-killed[0]}" if killed else f"exit status {code}"
            except KeyboardInterrupt:
                # Ctrl-C reaches the workers too, who end after the next update and save the model.
                if interrupted:
                    raise
                interrupted = True
        return None

    def kill(self) -> None:
        """End what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()

    def _listen(self, rank: int) -> None:
        stdout = self._processes[rank].stdout
        assert stdout is not None
        for line in stdout:
            self._lines.put((rank, line.decode(errors="replace")))
        stdout.close()
        self._lines.put((rank, None))

    def _parse(self, rank: int, line: str, receive: Send) -> None:
        if not line.startswith(_PREFIX):
            return
        message = json.loads(line[len(_PREFIX) :])
        if "error" in message:
            name, text = message["error"]
            self._errors[rank] = getattr(errors, name, WorkerError)(text)
        else:
            receive(message)


def _child() -> None:
    """Be one of the local workers."""
    (meeting, rank, size), sent = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job: TrainingJob = pickle.loads(sent)

    def send(message: Message) -> None:
        sys.stdout.write(f"{_PREFIX}{json.dumps(message)}\n")
        sys.stdout.flush()

    code = 1
    try:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
        with using(WorkerGroup()):
            work(job, send)
        code = 0
    except TwofoldError as error:
        send({"error": [type(error).__name__, str(error)]})
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        _log.exception("worker %d", rank)
        send({"error": ["WorkerError", f"A worker failed: {type(error).__name__}: {error}"]})
    # The thread that waits for the parent's end holds standard input, so that Python cannot close
    # it in order.
    sys.stderr.flush()
    os._exit(code)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
