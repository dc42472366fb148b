"""Workers on a Ray cluster: how it is reached or started, and the workers that train on it.

A worker is an actor with one CPU. The first one is on this machine, so that checkpoints and the
model are written here, and wherever the others are, gradients travel between them by gloo, as they
do between processes of one machine.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from twofold.distributed.job import TrainingJob
from twofold.errors import MissingExtraError, OptionError, TwofoldError, WorkerError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

AUTO, LOCAL = "auto", "local"
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: this machine alone, on any system
_ADDRESS = re.compile(r"(?!\w+://)\S+:\d+")
_ANSWER_SECONDS = 10.0  # for a cluster to be reached
_START_SECONDS = 300.0  # for as many workers to start as are needed: machines may be on their way
_RESIZE_SECONDS = 60.0  # between two looks at whether there is room for more workers
_IPV4_OF_INTERFACE = 0x8915  # SIOCGIFADDR of Linux, see man 7 netdevice
_log = logging.getLogger(__name__)


def require_address(address: str) -> None:
    """Raise OptionError if the address is invalid."""
    if address not in (AUTO, LOCAL) and not _ADDRESS.fullmatch(address):
        raise OptionError(
            f"address must be 'auto' (the cluster that this machine is part of), 'local' (one of "
            f"this machine alone, for the time of the command) or HOST:PORT, got {address!r}."
        )


@contextmanager
def connected(address: str, n_cpus: int) -> Iterator[Any]:
    """Give the module `ray`, connected to a cluster; a local one ends with it.

    A process that is connected already stays so.

    Parameters
    ----------
    address : str
        "auto", "local" or "HOST:PORT".
    n_cpus : int
        How many workers a local cluster can have at a time.

    Raises
    ------
    MissingExtraError
        Where Ray is not installed.
    WorkerError
        Where no cluster answers.
    """
    if address == LOCAL:
        _stay_on_this_machine()
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "An address is one of a Ray cluster, and Ray is not installed. Install 'twofold[ray]'."
        ) from error
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    # Paths of sockets are at most about 100 bytes long, which other places may come near to.
    place = "/tmp" if Path("/tmp").is_dir() else None
    folder = tempfile.TemporaryDirectory("", "twofold-ray-", place, ignore_cleanup_errors=True)
    with _own_signals(), folder as name:
        try:
            if address == LOCAL:
                ray.init("local", num_cpus=n_cpus, include_dashboard=False, _temp_dir=name, **quiet)
            else:
                _join(ray, address, quiet)
            yield ray
        finally:
            ray.shutdown()


def _stay_on_this_machine() -> None:
    """Keep a local cluster from listening where others reach it, and from reporting its use.

    The first of these variables is read on Ray's import alone.
    """
    if sys.modules.get("ray") is None:
        os.environ.setdefault(_CLUSTERS, "0")
    elif os.environ.get(_CLUSTERS) != "0" and not sys.modules["ray"].is_initialized():
        raise WorkerError(
            f"A local cluster would listen on the network, because Ray was imported before. Set "
            f"the environment variable {_CLUSTERS} to 0 before it is, or leave its import out."
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _join(ray: Any, address: str, quiet: Mapping[str, Any]) -> None:
    try:
        if address != AUTO:  # which Ray would try for a minute
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        ray.init(address, **quiet)
    # Ray has no class of its own for a cluster that it cannot join.
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise WorkerError(
            f"No Ray cluster can be joined at address {address!r}: {_first_line(error)}. This "
            f"machine has to be part of it (`ray start --address=HOST:PORT`, or `ray start --head` "
            f"for the first one)."
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the handler that Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


class RayWorkers:
    """The workers of one attempt, which Ray Train starts, watches and, within limits, adds to.

    The first of them is on this machine.

    Parameters
    ----------
    ray : module
        Connected to a cluster.
    job : TrainingJob
        Its rows may be references to what the cluster holds.
    workers : tuple of int
        How many at least, and at most. Where the two differ, all begin again from the last
        checkpoint where there is room for more of them.
    """

    def __init__(self, ray: Any, job: TrainingJob, workers: tuple[int, int]) -> None:
        from ray.train.backend import Backend
        from ray.train.torch import TorchConfig, TorchTrainer

        class Bare(TorchConfig):
            """Leaves the process group to the workers: one that others do not reach."""

            backend_cls = property(lambda self: Backend)

        train = importlib.import_module("ray.train")
        (least, most), node = workers, ray.get_runtime_context().get_node_id()
        here: dict[str, str] = {"ray.io/node-id": node}
        trainer = TorchTrainer(
            # As a config, the job would be read by Ray's controller, too, which imports all this.
            partial(_train, job),
            torch_config=Bare(),
            scaling_config=train.ScalingConfig(
                num_workers=most if least == most else workers,
                use_gpu=job.options["device"] != "cpu"
                and ray.cluster_resources().get("GPU", 0) > 0,
                label_selector=[here, *({} for _ in range(most - 1))],
                elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
            ),
            run_config=train.RunConfig(
                storage_path=str(job.output / "ray"),
                logging_config=train.LoggingConfig("CRITICAL"),
            ),
        )
        self._ray, self._train, self._workers = ray, train, workers
        self._begun, self._started = job.messages, time.monotonic()
        self._size = self._begun.stat().st_size
        self._result: list[BaseException | None] = []

        def run() -> None:
            try:
                trainer.fit()
                self._result.append(None)
            except BaseException as error:
                self._result.append(error)

        # Ray Train catches Ctrl-C in the main thread.
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def ended(self) -> str | None:
        """Return None while they run, "" if all succeeded, else how one of them has ended."""
        if not self._result:
            late = time.monotonic() - self._started > _START_SECONDS
            if late and self._begun.stat().st_size == self._size:
                raise WorkerError(
                    f"Could not schedule {self._workers[0]} workers within {_START_SECONDS:.0f} s. "
                    f"Each takes a CPU, the first one a CPU of this machine; the cluster has "
                    f"{self._ray.cluster_resources().get('CPU', 0):.0f} in all."
                )
            return None
        error = self._result[0]
        if error is None:
            return ""
        if not isinstance(error, self._train.WorkerGroupError):
            raise WorkerError(f"Workers cannot start: {_first_line(error)}.") from error
        failures = dict(sorted(error.worker_failures.items()))
        # Where one has gone, others may have failed for that alone.
        for rank, failure in failures.items():
            cause = getattr(failure, "health_check_failure", failure)
            if isinstance(cause, self._ray.exceptions.RayError):
                return f"worker {rank} is gone"
        known = [failure for failure in failures.values() if isinstance(failure, TwofoldError)]
        if known:
            raise known[0]
        rank, failure = next(iter(failures.items()))
        if isinstance(failure, RuntimeError):  # of gloo, which notices an end before Ray does
            return f"to worker {rank} another one is gone: {_first_line(failure)}"
        raise WorkerError(f"A worker failed: {type(failure).__name__}: {failure}") from error


def _train(job: TrainingJob) -> None:
    """Be one of the workers."""
    import ray
    import ray.train as train
    from ray.train.collective import broadcast_from_rank_zero

    from twofold.distributed.job import work
    from twofold.training.process_group import INTERFACE, WorkerGroup, take_gpu, using

    context = train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    name = _interface(host)
    if name is not None:
        # Or gloo would take what the machine's name stands for, which may be itself alone.
        for variable in INTERFACE:
            os.environ.setdefault(variable, name)
    store = _store(host) if rank == 0 else None
    place: tuple[str, int] = broadcast_from_rank_zero((host, store.port if store else 0))
    store = store or TCPStore(*place, is_master=False)
    backend = take_gpu(0, 1, job.options["device"])  # Ray lets a worker see its own GPU alone
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    rows, validation = (
        ray.get(held) if isinstance(held, ray.ObjectRef) else held
        for held in (job.rows, job.validation)
    )
    group = WorkerGroup()
    with using(group):
        work(replace(job, rows=rows, validation=validation), group)


def _store(host: str) -> TCPStore:
    """Open the place where workers find each other, at the address of the node alone."""
    listener = socket.create_server((host, 0))
    return TCPStore(
        host,
        int(listener.getsockname()[1]),
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def _interface(address: str) -> str | None:
    """Return the name of the network interface with an IPv4 address, where the system tells."""
    if fcntl is None or not hasattr(socket, "if_nameindex"):
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no such address, or the system is none of Linux
                request = struct.pack("256s", name.encode()[:15])
                found = fcntl.ioctl(asked, _IPV4_OF_INTERFACE, request)
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(". ")
