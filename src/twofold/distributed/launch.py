"""Training by several workers: processes of this machine, of `torchrun`, or of a Ray cluster.

Whoever starts the workers, each runs the same `Autoencoder.fit` as part of a `WorkerGroup`. Here is
what starts them, and what happens when one of them dies: all start again from the last checkpoint.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import rendezvous

from twofold import errors
from twofold.data import sources
from twofold.data.addresses import address_of
from twofold.data.files import Files
from twofold.data.rows import at_hand
from twofold.distributed import ray as cluster
from twofold.distributed.job import TrainingJob, count, opened, received, work
from twofold.errors import DataError, OptionError, TwofoldError, WorkerError, WorkerWarning
from twofold.estimators import autoencoder
from twofold.estimators.autoencoder import Autoencoder
from twofold.training import checkpoint as checkpoints
from twofold.training.events import Callback, Event
from twofold.training.process_group import (
    INTERFACE,
    SingleProcess,
    WorkerGroup,
    Workers,
    current_workers,
    take_gpu,
    using,
)

_log = logging.getLogger(__name__)
_RESTARTS = 3  # without a checkpoint in between
_LISTEN_SECONDS = 0.02
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
        number, n_here = (
            int(os.environ.get(name, default))
            for name, default in (("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", size))
        )
        backend = take_gpu(number, n_here)
        apart = _apart(store, rank, size)
        dist.init_process_group(backend, store=apart, rank=rank, world_size=size)
        atexit.register(_leave)
    return WorkerGroup()


def _apart(store: Store, rank: int, size: int, within: timedelta = default_pg_timeout) -> Store:
    """Return a part of the store that only the workers of this start read and write.

    `torchrun` keeps its store when it restarts workers, and in it the addresses of those that have
    ended, at which new ones would look for each other. So each worker makes up a name, reads those
    of all, and notes what it has read. Where all have noted the same, with its own name in it, each
    name is one of this start: none who ended before has read it.
    """
    names, notes = ([f"twofold/{what} {r}" for r in range(size)] for what in ("name of", "read by"))
    store.set(names[rank], uuid.uuid4().hex)
    deadline = time.monotonic() + within.total_seconds()
    while time.monotonic() < deadline:
        if store.check(names):
            read = hashlib.sha256(b"".join(store.multi_get(names))).hexdigest()
            store.set(notes[rank], read)
            if store.check(notes) and set(store.multi_get(notes)) == {read.encode()}:
                return PrefixStore(read, store)
        time.sleep(0.01 * size)  # whose workers ask for as many names each
    raise WorkerError(f"The {size} workers did not all come in {within}.")


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
    DataError
        If a cluster gets a stream of more rows than fit into memory.
    MissingExtraError
        If an address is given, and Ray is not installed.
    """
    least, most = _least_and_most(workers)
    if least < most and address is None:
        raise OptionError(f"workers={workers!r} is for a cluster. Give its address.")
    if current_workers().size > 1 and (most > 1 or address is not None):
        raise OptionError("torchrun has started the workers. Leave out workers and address.")
    if address is not None:
        cluster.require_address(address)
    alone = address is None and most == 1
    if checkpoint is not None and current_workers().is_main and not (alone and resume):
        # Refuses what is not to be overwritten, before a stream is read.
        checkpoints.Checkpoint(checkpoint, resume=resume)
    (X, kept), (validation_data, also) = (
        at_hand(Files(given) if sources.is_path(given) else given) for given in (X, validation_data)
    )
    if address is not None and (kept or also):
        raise DataError(
            "Expected rows that fit into memory, or files, got a stream of more. Write it to "
            "Parquet files where all machines read them, and pass their folder."
        )
    if alone:
        rows = opened(X, model) if isinstance(X, Files) else X
        model.fit(
            rows,
            validation_data=validation_data,
            callbacks=callbacks,
            checkpoint=checkpoint,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
        )
        return Outcome(model, count(rows))
    scratch = Path(tempfile.mkdtemp(prefix="twofold-workers-"))
    try:
        folder = scratch / "checkpoints" if checkpoint is None else Path(checkpoint)
        if checkpoint is None:
            folder.mkdir()
        elif not resume:
            checkpoints.clear(folder)  # workers continue from whatever is in it
        options = model.get_params(deep=False)
        job = TrainingJob(options, X, validation_data, folder, checkpoint_seconds, scratch)
        if address is None:
            return _run_until_done(lambda: closing(LocalWorkers(job, most)), job, callbacks)
        with cluster.connected(address, most) as ray:
            # Rows in memory travel once, not to every worker at every attempt.
            rows, validation = (
                given if given is None or isinstance(given, Files) else ray.put(given)
                for given in (_everywhere(X), _everywhere(validation_data))
            )
            # The working folder of workers is another one.
            folder = folder if address_of(folder) else folder.absolute()
            job = replace(job, rows=rows, validation=validation, folder=folder)
            # They end by themselves where what they report is not taken.
            return _run_until_done(
                lambda: nullcontext(cluster.RayWorkers(ray, job, (least, most))), job, callbacks
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _least_and_most(workers: int | tuple[int, int]) -> tuple[int, int]:
    least, most = (workers, workers) if isinstance(workers, int) else workers
    if not 1 <= least <= most:
        both = "" if isinstance(workers, int) else ", the first of two no larger than the second"
        raise OptionError(f"workers must be an integer of at least 1{both}, got {workers!r}.")
    return least, most


def _everywhere(rows: Any) -> Any:
    """Return rows, or the files that hold them by a name that means the same in any folder."""
    if not isinstance(rows, Files):
        return rows
    source = os.fspath(rows.source)
    here = rows.filesystem is None and "://" not in source
    return replace(rows, source=os.path.abspath(source)) if here else rows


def _run_until_done(
    start: Callable[[], AbstractContextManager[Pool]],
    job: TrainingJob,
    callbacks: Sequence[Callback],
) -> Outcome:
    """Start the workers, and restart them if one was killed."""
    left, newest = _RESTARTS, checkpoints.newest(job.folder)
    job.messages.touch()
    with job.messages.open(encoding="utf-8") as messages:
        while True:
            with start() as pool:
                ended, n_rows = _wait(pool, job, messages, callbacks)
            if not ended:
                return Outcome(autoencoder.load(job.model), n_rows)
            # Counted from the last checkpoint: a long run may lose many workers, one by one.
            left = _RESTARTS if checkpoints.newest(job.folder) != newest else left - 1
            newest = checkpoints.newest(job.folder)
            if left < 0:
                raise WorkerError(
                    f"Training failed after {_RESTARTS} restarts without a new checkpoint "
                    f"({ended}). A likely cause is too little memory: use fewer workers, or a "
                    f"smaller batch_size."
                )
            warnings.warn(
                f"A worker has ended ({ended}); all continue from the last checkpoint.",
                WorkerWarning,
                stacklevel=3,
            )


def _wait(
    pool: Pool, job: TrainingJob, messages: TextIO, callbacks: Sequence[Callback]
) -> tuple[str, int]:
    """Pass on what workers report until all have ended; return how, and the number of rows."""
    n_rows, interrupted = 0, False
    while True:
        try:
            ended = pool.ended()
            for message in received(messages):
                if "event" in message:
                    for callback in callbacks:
                        callback(Event(**message["event"]))
                if "warning" in message:
                    name, text = message["warning"]
                    warnings.warn(text, getattr(errors, name, UserWarning), stacklevel=4)
                n_rows = message.get("rows", n_rows)
            if ended and interrupted:
                raise KeyboardInterrupt
            if ended is not None:
                return ended, n_rows
            time.sleep(_LISTEN_SECONDS)
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            job.stop.touch()


class LocalWorkers:
    """Processes of this machine."""

    def __init__(self, job: TrainingJob, workers: int) -> None:
        known = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}
        if sys.platform == "linux":
            known |= dict.fromkeys(INTERFACE, "lo")  # all are on this machine, so nothing leaves it
        self._place = Path(tempfile.mkdtemp(dir=job.output))
        self._processes: list[subprocess.Popen[bytes]] = []
        sent = pickle.dumps(job)
        for _ in range(workers):
            command, environment = [sys.executable, "-c", _CHILD], {**known, **os.environ}
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
            )
        for rank, process in enumerate(self._processes):
            assert process.stdin is not None
            # The pipe stays open: its end means to a worker that nobody waits for it any more.
            with suppress(BrokenPipeError):  # how a reader ended is found out elsewhere
                pickle.dump((self._place, rank, workers, sent), process.stdin)
                process.stdin.flush()

    def ended(self) -> str | None:
        """Return None while they run, "" if all succeeded, else how one of them has ended."""
        codes = [process.poll() for process in self._processes]
        failed = [code for code in codes if code]
        if not failed:
            return None if None in codes else ""
        # Others fail because one was killed, and maybe were quicker to say so.
        for path in sorted(self._place.glob("error-*")) if min(failed) > 0 else ():
            name, text = json.loads(path.read_text(encoding="utf-8"))
            raise getattr(errors, name, WorkerError)(text)
        return f"signal {-min(failed)}" if min(failed) < 0 else f"exit status {failed[0]}"

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()


Pool = LocalWorkers | cluster.RayWorkers  # the workers of one attempt


def _child() -> None:
    """Be one of the local workers."""
    place, rank, size, sent = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = 1
    try:
        job = pickle.loads(sent)
        meeting = f"file://{place / 'meeting'}"
        backend = take_gpu(rank, size, job.options["device"])
        dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size)
        group = WorkerGroup()
        with using(group):
            work(job, group)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        known = isinstance(error, TwofoldError)
        text = str(error) if known else f"A worker failed: {type(error).__name__}: {error}"
        if not known:
            _log.exception("worker %d", rank)
        said = json.dumps([type(error).__name__, text])
        (place / f"error-{rank:06d}").write_text(said, encoding="utf-8")
    # The thread that waits for the parent's end holds standard input, so that Python cannot close
    # it in order.
    sys.stderr.flush()
    os._exit(code)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
