"""Workers on a Ray cluster: how it is reached or started, and the workers that train on it.

A worker is an actor with one CPU. The first one is on this machine, so that checkpoints and the
model are written here, and wherever the others are, gradients travel between them by gloo, as they
do between processes of one machine.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import shutil
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
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from twofold import errors
from twofold.distributed.job import Message, Send, TrainingJob, Work
from twofold.errors import MissingExtraError, OptionError, TwofoldError, WorkerError
from twofold.training.process_group import WorkerGroup, using

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

AUTO, LOCAL = "auto", "local"
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: this machine alone, on any system
_ADDRESS = re.compile(r"(?!\w+://)\S+:\d+")
_ANSWER_SECONDS = 10.0  # for a cluster to be reached, and for a worker that lives to say so
_START_SECONDS = 300.0  # for as many workers to start as are needed: machines may be on their way
_QUIET_SECONDS = 20.0  # without one more that starts, the rest is not waited for
_LISTEN_SECONDS = 1.0
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
    require_address(address)
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
    with _own_signals():
        try:
            if address == LOCAL:
                with _local(ray, n_cpus):
                    yield ray
            else:
                _join(ray, address)
                yield ray
        finally:
            ray.shutdown()


def _stay_on_this_machine() -> None:
    """Keep a local cluster from listening where others reach it; Ray reads this on import alone."""
    if sys.modules.get("ray") is None:
        os.environ.setdefault(_CLUSTERS, "0")
    elif os.environ.get(_CLUSTERS) != "0" and not sys.modules["ray"].is_initialized():
        raise WorkerError(
            f"A local cluster would listen on the network, because Ray was imported before. Set "
            f"the environment variable {_CLUSTERS} to 0 before it is, or leave its import out."
        )


def _join(ray: Any, address: str) -> None:
    try:
        if address != AUTO:  # which Ray would try for a minute
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    # Ray has no class of its own for a cluster that it cannot join.
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise WorkerError(
            f"No Ray cluster can be joined at address {address!r}: {_first_line(error)}. This "
            f"machine has to be part of it (`ray start --address=HOST:PORT`, or `ray start --head` "
            f"for the first one)."
        ) from error


@contextmanager
def _local(ray: Any, n_cpus: int) -> Iterator[None]:
    """Start a cluster of this machine alone, which others cannot reach."""
    # Paths of sockets are at most about 100 bytes long, which other places may come near to.
    place = "/tmp" if Path("/tmp").is_dir() else None
    folder = tempfile.mkdtemp(prefix="twofold-ray-", dir=place)
    try:
        with _environment({"RAY_USAGE_STATS_ENABLED": "0"}):
            ray.init(
                address="local",
                num_cpus=n_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
        yield
        ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(names: Mapping[str, str]) -> Iterator[None]:
    """Set variables for what is started now."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the handler that Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


class Worker:
    """One worker, as an actor: it trains in one thread, and answers in others."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._group: WorkerGroup | None = None
        self._stops = False
        self._store: Any = None

    def place(self) -> tuple[str, int]:
        """Return the address of the worker's node, and its process id."""
        import ray

        return str(ray.util.get_node_ip_address()), os.getpid()  # type: ignore[no-untyped-call]

    def meet(self) -> tuple[str, int]:
        """Open the place where workers find each other, at the address of the node alone."""
        host, _ = self.place()
        listener = socket.create_server((host, 0))
        port = int(listener.getsockname()[1])
        self._store = TCPStore(
            host,
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
        return host, port

    def run(
        self,
        work: Work,
        job: TrainingJob,
        rows: Any,
        validation: Any,
        meeting: tuple[str, int],
        rank: int,
        size: int,
    ) -> Message | None:
        """Do a worker's part of the job; return what went wrong."""
        try:
            name = _interface(self.place()[0])
            if name is not None:
                # Or gloo would take what the machine's name stands for, which may be itself alone.
                os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            store = self._store or TCPStore(*meeting, is_master=False)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
            self._group = WorkerGroup()
            if self._stops:
                self._group.request_stop()
            with using(self._group):
                work(replace(job, rows=rows, validation=validation), self._messages.put)
        except TwofoldError as error:
            return {"error": [type(error).__name__, str(error)]}
        except Exception as error:
            _log.exception("worker %d", rank)
            text = f"A worker failed: {type(error).__name__}: {error}"
            return {"error": ["WorkerError", text]}
        return None

    def messages(self, seconds: float = _LISTEN_SECONDS) -> list[Message]:
        """Return the messages there are, after waiting for the first one."""
        found: list[Message] = []
        with suppress(queue.Empty):
            found.append(
                self._messages.get(timeout=seconds) if seconds else self._messages.get_nowait()
            )
            while True:
                found.append(self._messages.get_nowait())
        return found

    def stop(self) -> None:
        """End after the next update."""
        self._stops = True
        if self._group is not None:
            self._group.request_stop()


class RayWorkers:
    """The workers of one attempt.

    Parameters
    ----------
    ray : module
        Connected to a cluster.
    work : callable
        What each of them does; importable on all nodes.
    job, rows, validation
        The job, and its rows: as they are, or references to what the cluster holds.
    workers : tuple of int
        How many at least, and at most.

    Attributes
    ----------
    places : list of (address, process id)

    Raises
    ------
    WorkerError
        Where not enough workers can be started.
    """

    def __init__(
        self,
        ray: Any,
        work: Work,
        job: TrainingJob,
        rows: Any,
        validation: Any,
        workers: tuple[int, int],
    ) -> None:
        self._ray = ray
        self._workers: list[Any] = []
        self._running: dict[Any, int] = {}
        self._failures: list[str] = []
        try:
            self.places = self._gather(*workers)
            size, first = len(self._workers), self._workers[0]
            meeting = ray.get(first.meet.remote())
            for rank, worker in enumerate(self._workers):
                given = (work, job, rows, validation, meeting, rank, size)
                self._running[worker.run.remote(*given)] = rank
        except BaseException as error:
            self.kill()
            if isinstance(error, ray.exceptions.RayError):
                raise WorkerError(f"Workers cannot start: {_first_line(error)}.") from error
            raise
        _log.info("training with %d workers: %s", size, self.places)

    def wait(self, receive: Send) -> str | None:
        """Wait for all to end; return None if all succeeded, else how a worker ended."""
        ray, running, interrupted = self._ray, dict(self._running), False
        first = self._workers[0]
        heard = first.messages.remote()
        while True:
            try:
                if not running:
                    # What it said last may have come after it was last listened to.
                    for message in [*ray.get(heard), *ray.get(first.messages.remote(0))]:
                        receive(message)
                    return None
                for ref in ray.wait([heard, *running])[0]:
                    found = ray.get(ref)
                    if ref not in running:
                        for message in found:
                            receive(message)
                        heard = first.messages.remote()
                        continue
                    del running[ref]
                    if found is None:
                        continue
                    name, text = found["error"]
                    # Where another one has gone, this one may have failed for that alone.
                    gone = self._gone() if name == WorkerError.__name__ else None
                    if gone is None:
                        raise getattr(errors, name, WorkerError)(text)
                    if interrupted:
                        raise KeyboardInterrupt
                    return gone
            except ray.exceptions.RayError as error:
                if interrupted:
                    raise KeyboardInterrupt from error
                return self._gone() or _first_line(error)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                for worker in self._workers:
                    worker.stop.remote()

    def kill(self) -> None:
        """End all that are there, and wait until they have ended: they may write checkpoints."""
        for worker in self._workers:
            self._ray.kill(worker)
        refs = list(self._running)
        if refs:
            self._ray.wait(refs, num_returns=len(refs), timeout=_ANSWER_SECONDS)

    def _gone(self) -> str | None:
        """Say which worker has gone."""
        pings = [worker.place.remote() for worker in self._workers]
        self._ray.wait(pings, num_returns=len(pings), timeout=_ANSWER_SECONDS)
        for (host, pid), ping in zip(self.places, pings, strict=True):
            try:
                self._ray.get(ping, timeout=0)
            except self._ray.exceptions.RayError:
                return f"process {pid} on {host} is gone"
        return None

    def _gather(self, least: int, most: int) -> list[tuple[str, int]]:
        """Start as many workers as there is room for now; return where they are."""
        ray = self._ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=1, max_concurrency=4, max_restarts=0)(Worker)
        deadline = time.monotonic() + _START_SECONDS
        self._workers = [actor.options(scheduling_strategy=here).remote()]
        self._workers += [actor.remote() for _ in range(most - 1)]
        there = self._arrived(least, most, deadline)
        if there and 0 not in there:  # others may have taken the room that the first one needs
            for worker in self._workers[1:]:
                ray.kill(worker)
            self._workers[1:] = []
            there = self._arrived(1, 1, deadline)
            self._workers += [actor.remote() for _ in range(most - 1)]
            there = self._arrived(least, most, deadline) if there else {}
        late = [worker for i, worker in enumerate(self._workers) if i not in there]
        if 0 not in there or len(there) < least:
            raise WorkerError(
                f"Could not schedule {least} workers within {_START_SECONDS:.0f} s ({len(there)} "
                f"started). Each takes a CPU, the first one a CPU of this machine; the cluster has "
                f"{_cpus(ray)} in all." + "".join(f" {f}." for f in self._failures)
            )
        self._workers = [self._workers[i] for i in sorted(there)]
        for worker in late:
            ray.kill(worker)
        return [there[i] for i in sorted(there)]

    def _arrived(self, least: int, most: int, deadline: float) -> dict[int, tuple[str, int]]:
        """Wait for workers to start; return those that have, by their numbers."""
        ray = self._ray
        there: dict[int, tuple[str, int]] = {}
        waiting = {worker.place.remote(): i for i, worker in enumerate(self._workers)}
        changed = time.monotonic()
        while waiting:
            for ref in ray.wait(list(waiting), timeout=_LISTEN_SECONDS)[0]:
                number = waiting.pop(ref)
                try:
                    there[number] = ray.get(ref)
                    changed = time.monotonic()
                except ray.exceptions.RayError as error:  # its node has gone, say
                    self._failures.append(_first_line(error))
            now, quiet = time.monotonic(), time.monotonic() - changed
            full = len(there) >= min(most, _cpus(ray)) or quiet > _QUIET_SECONDS
            enough = 0 in there and len(there) >= least
            stuck = there and 0 not in there and quiet > _QUIET_SECONDS
            if now > deadline or stuck or (enough and full):
                break
        return there


def _cpus(ray: Any) -> int:
    """Return how many CPUs the nodes that live have in all."""
    living = (node for node in ray.nodes() if node["Alive"])
    return int(sum(node["Resources"].get("CPU", 0) for node in living))


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
