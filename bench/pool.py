"""Runs trials: each method in a process of its own environment, several trials at a time.

Processes stay up from trial to trial, since importing takes longer than most fits. What is done
goes to the cache at once. A method that fails is told with its reason and tried anew next time.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import children
import machine
import numpy as np
from cache import Cache, Source, key
from children import OWN, Child, Failed
from methods import METHODS
from methods.method import Method, Peer
from trials import Entry, Rows, Trial

OVERTAKEN = "twofold's source changed during the run; run it again"
LONGEST = 4 * 3600.0  # seconds that one method may take for one trial


class Stopped(Exception):
    """The run was interrupted."""


@dataclass(frozen=True)
class Task:
    """One method of one trial, and the key of its result."""

    trial: Trial
    method: str
    key: str

    @property
    def uses(self) -> str:
        """The package that does the work."""
        return METHODS[self.trial.call][self.method].uses


@dataclass
class Pool:
    """What all threads share."""

    cache: Cache
    venvs: Path
    folder: Path
    jobs: int
    cores: int
    source: Source
    bases: dict[str, str]
    say: Callable[[str], None]
    failures: dict[str, Entry] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _making: threading.Lock = field(default_factory=threading.Lock)
    _pythons: dict[str, str | Failed] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _crews: list[Crew] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _done: int = 0
    _todo: int = 0

    def plan(self, trials: list[Trial]) -> list[Task]:
        """Return every task of the trials, finished or not."""
        tasks = []
        for trial in trials:
            digest = trial.make().digest()
            for name in trial.methods:
                method = METHODS[trial.call][name]
                parts = (trial.call, name, method.code(), self.bases[method.uses])
                tasks.append(
                    Task(trial, name, key(*parts, dict(trial.options), trial.seed, digest))
                )
        return tasks

    def run(self, tasks: list[Task]) -> None:
        """Run every task that is neither in the cache nor already among those before it."""
        pending: dict[str, Task] = {}
        for task in tasks:
            if self.cache.get(task.key) is None:
                pending.setdefault(task.key, task)
        self._done, self._todo = 0, len(pending)
        groups: dict[int, list[Task]] = {}
        for task in pending.values():
            groups.setdefault(id(task.trial), []).append(task)
        shared: queue.SimpleQueue[list[Task]] = queue.SimpleQueue()
        for group in groups.values():
            if not group[0].trial.alone:
                shared.put(group)
        self._share(shared, self.jobs)
        for group in groups.values():
            if group[0].trial.alone:
                for task in group:
                    self._note(task, self._run_script(task))

    def entry(self, task: Task) -> Entry:
        """Return the task's result under the name that its own row has for it."""
        found = self.cache.get(task.key) or self.failures.get(task.key) or {"failed": "not run"}
        names = {"row": task.trial.row, "set": task.trial.set, "seed": task.trial.seed}
        return {**found, **names, "method": task.method}

    def stop(self) -> None:
        """Kill every process; the threads that wait for them come to their end."""
        self._stopping.set()
        for crew in self._crews:
            crew.kill()
        for thread in self._threads:
            thread.join(10)

    def python(self, environment: str) -> str:
        """Return the environment's interpreter; what cannot be made is tried only once."""
        with self._making:
            if environment not in self._pythons:
                try:
                    found: str | Failed = children.python_of(environment, self.venvs, self.say)
                except Failed as error:
                    found = error
                self._pythons[environment] = found
        found = self._pythons[environment]
        if isinstance(found, Failed):
            raise found
        return found

    def _share(self, groups: queue.SimpleQueue[list[Task]], n: int) -> None:
        errors: list[BaseException] = []

        def work() -> None:
            crew = Crew(self)
            self._crews.append(crew)
            try:
                with contextlib.suppress(queue.Empty, Stopped):
                    while not self._stopping.is_set():
                        self._run_group(groups.get_nowait(), crew)
            except BaseException as error:
                errors.append(error)
                self._stopping.set()
            finally:
                # Children end with the thread that started them: prctl(2), PR_SET_PDEATHSIG.
                crew.end()

        self._threads = [threading.Thread(target=work, daemon=True) for _ in range(n)]
        for thread in self._threads:
            thread.start()
        while any(thread.is_alive() for thread in self._threads):
            time.sleep(0.1)  # the main thread stays free to hear of Ctrl-C
        if errors:
            raise errors[0]

    def _run_group(self, tasks: list[Task], crew: Crew) -> None:
        rows = tasks[0].trial.make()
        with _written(rows, self.folder) as given:
            for task in tasks:
                if self._stopping.is_set():
                    raise Stopped
                self._note(task, self._run_task(task, rows, given, crew))

    def _run_task(self, task: Task, rows: Rows, given: Path, crew: Crew) -> Entry:
        trial, method = task.trial, METHODS[task.trial.call][task.method]
        answer = given.with_suffix(".answer.npz")
        request = {
            "call": trial.call,
            "method": task.method,
            "seed": trial.seed,
            "options": dict(trial.options),
            "given": str(given),
            "answer": str(answer),
        }
        if isinstance(method, Peer):
            options = {"path": method.path, "options": dict(method.options)}
            request |= {**options, "seeded": method.seeded}
        try:
            said = crew.ask(method, request)
            if "failed" in said:
                return {"failed": said["failed"]}
            with np.load(answer) as found:
                result = trial.judge({name: found[name] for name in found.files}, rows)
        except (Failed, ValueError) as error:
            if self._stopping.is_set():
                raise Stopped from error
            return {"failed": str(error)}
        finally:
            answer.unlink(missing_ok=True)
        if self._overtaken(method):
            return {"failed": OVERTAKEN}
        return {"result": result, "facts": dict(rows.facts), "seconds": said["seconds"]}

    def _overtaken(self, method: Method | Peer) -> bool:
        """Whether the result may be of code other than what its key names."""
        return method.uses == "twofold" and not self.source.unchanged()

    def _run_script(self, task: Task) -> Entry:
        """Run a measure that has the machine for itself, in a process of its own."""
        trial, method = task.trial, METHODS[task.trial.call][task.method]
        settings = {
            **trial.options,
            "seed": trial.seed,
            "threads": self.cores,
            "venvs": str(self.venvs),
        }
        watch = machine.Watch()
        crew = Crew(self, threads=self.cores)
        self._crews.append(crew)
        try:
            said = crew.start(method, settings).answer(LONGEST)
        except Failed as error:
            if self._stopping.is_set():
                raise Stopped from error
            return {"failed": str(error)}
        finally:
            crew.end()
        if self._overtaken(method):
            return {"failed": OVERTAKEN}
        load = watch.stop()
        return {"result": {**said, "load": load}, "facts": {}, "seconds": said["seconds"]}

    def _note(self, task: Task, entry: Entry) -> None:
        trial = task.trial
        names = {"row": trial.row, "set": trial.set, "seed": trial.seed, "method": task.method}
        entry = {**names, **entry, "made": datetime.datetime.now(datetime.UTC).isoformat()[:19]}
        with self._lock:
            self._done += 1
            if "failed" in entry:
                self.failures[task.key] = entry
            else:
                self.cache.add(task.key, entry)
            self.say(
                f"[{self._done}/{self._todo}] {trial.row}: {trial.set}, seed {trial.seed}, "
                f"{task.method}: {_in_words(entry)}"
            )


class Crew:
    """The processes of one thread, one per script, started when first needed."""

    def __init__(self, pool: Pool, threads: int = 1) -> None:
        self._pool, self._threads = pool, threads
        self._children: dict[str, Child] = {}

    def start(self, method: Method | Peer, settings: dict[str, Any]) -> Child:
        python = self._pool.python("pyod" if isinstance(method, Peer) else OWN)
        fd, log = tempfile.mkstemp(suffix=".log", dir=self._pool.folder)
        os.close(fd)
        variables = children.thread_settings(self._threads)
        child = Child(python, method.script, settings, Path(log), variables)
        self._children[method.script] = child
        return child

    def ask(self, method: Method | Peer, request: dict[str, Any]) -> dict[str, Any]:
        child = self._children.get(method.script)
        if child is None:
            child = self.start(method, {"threads": self._threads})
        try:
            return child.ask(request, LONGEST)
        except Failed:
            # It ended, or its answer may still come and would be taken for the next one's.
            self._children.pop(method.script, None)
            child.end()
            raise

    def kill(self) -> None:
        for child in list(self._children.values()):
            child.kill()

    def end(self) -> None:
        while self._children:
            self._children.popitem()[1].end()


def bases(root: Path, source: Source) -> dict[str, str]:
    """Return, per package that methods use, what their results depend on."""
    from importlib import metadata

    numpy, sklearn, torch = (metadata.version(n) for n in ("numpy", "scikit-learn", "torch"))
    constraints = (root / "bench" / "constraints-pyod.txt").read_text(encoding="utf-8")
    pins = [line for line in constraints.splitlines() if not line.startswith("#")]
    return {
        "twofold": key(source.hash, torch, numpy),
        "scikit-learn": key(sklearn, numpy),
        "pyod": key(sorted(pins)),
    }


@contextlib.contextmanager
def _written(rows: Rows, folder: Path) -> Iterator[Path]:
    """Write what methods are given to a file for as long as they need it."""
    fd, name = tempfile.mkstemp(suffix=".npz", dir=folder)
    os.close(fd)
    np.savez(name, **rows.given)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _in_words(entry: Entry) -> str:
    if "failed" in entry:
        return f"failed ({entry['failed']})"
    figures = [
        f"{name} {value:.4g}"
        for name, value in entry["result"].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return ", ".join([*figures[:3], f"{entry['seconds']:.1f} s"])
