"""Checkpoints: files from which a run that was ended goes on, to the bits of one that was not.

A file holds weights and what else the next update depends on, as tensors and one JSON document, and
no data. It is written to a temporary name and renamed once it is complete, and the one before it
stays until then, so that one whole file is always there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as bytes_to_tensors
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from twofold.data.addresses import Folder
from twofold.errors import CheckpointError, CheckpointWarning, OptionError

FORMAT = 2
_NAME, _DIGITS = "checkpoint-{:08d}.safetensors", 8
_PATTERN = re.compile(r"checkpoint-\d{8}\.safetensors")
_KEPT = 2  # the newest one, and one more should it turn out to be unreadable
_LEAST_SHARE = 20  # at an epoch's end, training for so many times as long as writing took
_log = logging.getLogger(__name__)


class Checkpoint:
    """The checkpoints of one run, in a folder of their own.

    Parameters
    ----------
    folder : path-like
        Made where it is missing. It may be at an address, such as "s3://bucket/run".
    resume : bool
        Go on from the newest readable checkpoint in it; where there is none, from the beginning.
    seconds : float
        Time between two checkpoints within an epoch. There is one at the end of every epoch too,
        unless epochs are so short that writing would take more than a twentieth of the time.

    Attributes
    ----------
    found : tuple of tensors and document, or None
        The checkpoint to go on from.
    n_written, seconds_written
        How many checkpoints were written, and how long that took.

    Raises
    ------
    CheckpointError
        Where the folder holds the checkpoints of a run that was not ended, and `resume` is false;
        where none of them can be read; and where the folder cannot be written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, resume: bool = False, seconds: float = 60.0
    ) -> None:
        self.folder, self.seconds = Folder(folder), seconds
        self.n_written, self.seconds_written = 0, 0.0
        self._warned = False
        self._identity: dict[str, Any] = {}
        self._rng: np.random.RandomState | None = None
        self._begin: tuple[Tensor, list[Any]] | None = None
        self._last, self._cost = time.perf_counter(), 0.0
        self.found: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._make_folder()
        if resume:
            self.found = self._newest()
        else:
            self._require_no_other_run()

    def claim(self, part: str, identity: Mapping[str, Any]) -> None:
        """Say what the run is of, under the name `part`; the run to go on with has to be the same.

        Raises
        ------
        CheckpointError
            With what is different.
        """
        self._identity[part] = json.loads(json.dumps(identity))
        if self.found is None:
            return
        then, now = self.found[1]["identity"].get(part, {}), self._identity[part]
        different = [
            _difference(k, then, now) for k in {**then, **now} if then.get(k) != now.get(k)
        ]
        if different:
            raise CheckpointError(
                f"The checkpoint in {self.folder} belongs to another run: {'; '.join(different)}. "
                f"Go on with the {part} that it was begun with, or choose another folder."
            )

    def follow(self, rng: np.random.RandomState) -> None:
        """Let `rng` start where it did when the run began, so that its draws are the same."""
        if self.found is not None:
            _set_state(rng, "rng.begin", *self.found)
        self._rng, self._begin = rng, _state(rng)

    def take(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what the run resumes from, its generators restored, and start the clock."""
        assert self.found is not None
        if self._rng is not None:
            _set_state(self._rng, "rng.now", *self.found)
        self._last = time.perf_counter()
        return self.found

    def is_due(self) -> bool:
        """Whether the last checkpoint is `seconds` old."""
        return time.perf_counter() - self._last >= self.seconds

    def is_due_between(self) -> bool:
        """Whether it may be written at the end of an epoch, without taking much of the time."""
        return time.perf_counter() - self._last >= min(self.seconds, _LEAST_SHARE * self._cost)

    def write(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Write a checkpoint; where that fails, warn once and let training go on.

        The first one has to succeed: a run that nothing is kept of is not what was asked for.

        Raises
        ------
        CheckpointError
            Where the first one cannot be written.
        """
        started = time.perf_counter()
        try:
            self._write(tensors, document)
            self.n_written += 1
        except OSError as error:
            text = (
                f"The checkpoint could not be written to {self.folder}: {error.strerror or error}."
            )
            if not self.n_written and self.found is None:
                raise CheckpointError(
                    f"{text} Free some space or choose another folder."
                ) from error
            if not self._warned:
                warnings.warn(
                    f"{text} Training goes on, and the checkpoint before it is still there; further"
                    f" ones are tried without another warning.",
                    CheckpointWarning,
                    stacklevel=2,
                )
            self._warned = True
        self._last = time.perf_counter()
        self._cost = self._last - started
        self.seconds_written += self._cost
        _log.debug("checkpoint %d took %.3f s", self.n_written, self._cost)

    def _write(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        held = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        body = {"format": FORMAT, "identity": self._identity, **document}
        if self._rng is not None and self._begin is not None:
            held["rng.begin"], body["rng.begin"] = self._begin
            held["rng.now"], body["rng.now"] = _state(self._rng)
        text = json.dumps(body, allow_nan=False)
        blob = tensors_to_bytes(held, {"document": text, "sha256": _digest(text, held)})
        numbers = [_number(name) for name in _files(self.folder)]
        self.folder.write(_NAME.format(1 + max(numbers, default=0)), blob)
        for old in _files(self.folder)[:-_KEPT]:
            self.folder.remove(old)

    def _make_folder(self) -> None:
        try:
            self.folder.make()
            # What a process that was killed left half-written.
            for name in self.folder.names():
                if name.startswith(f".{_NAME[:11]}"):
                    self.folder.remove(name)
        except OSError as error:
            raise CheckpointError(
                f"Checkpoints cannot be written to {self.folder}: {error.strerror or error}. "
                f"Choose another folder."
            ) from error

    def _newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        failures: list[str] = []
        for name in reversed(_files(self.folder)):
            try:
                found = _read(self.folder, name)
            except CheckpointError as error:
                failures.append(str(error))
                continue
            if failures:
                warnings.warn(
                    f"{failures[0]} Training goes on from the one before it, {name}.",
                    CheckpointWarning,
                    stacklevel=4,
                )
            return found
        if failures:
            raise CheckpointError(
                f"{failures[0]} No other one is there to go on from: remove {self.folder} and "
                f"begin again."
            )
        return None

    def _require_no_other_run(self) -> None:
        files = _files(self.folder)
        if not files:
            return
        try:
            if _read(self.folder, files[-1])[1].get("finished"):
                return
        except CheckpointError:
            pass  # cut off, and so of a run that did not come to its end
        raise CheckpointError(
            f"{self.folder} already exists and holds checkpoints of an unfinished run. Continue it "
            f"with resume=True (--resume on the command line), or choose another folder."
        )


class Interruption:
    """Turns Ctrl-C or SIGTERM into a flag, `requested`, that is checked between two updates.

    So nothing is left half-updated. A second Ctrl-C interrupts at once. Handlers are set in the
    main thread alone, in place of Python's own ones, and restored at the end; none if `catches` is
    false.
    """

    def __init__(self, catches: bool = True) -> None:
        self.requested, self._catches = False, catches
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if self._catches and threading.current_thread() is threading.main_thread():
            usual = {
                signal.SIGINT: signal.default_int_handler,
                signal.SIGTERM: signal.SIG_DFL,
            }
            for number, handler in usual.items():
                if signal.getsignal(number) is handler:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def open_run(
    folder: str | os.PathLike[str] | None,
    resume: bool,
    seconds: float,
    options: Mapping[str, Any],
) -> Checkpoint | None:
    """Open a folder for the checkpoints of a run with these options; None without a folder.

    Raises
    ------
    CheckpointError
        If the folder cannot be used, or holds checkpoints of other options.
    OptionError
        If `resume` has no folder, or `seconds` is negative.
    """
    if folder is None:
        if resume:
            raise OptionError(
                "Expected a folder for resume=True, got none. Pass checkpoint=<folder>."
            )
        return None
    if not seconds >= 0:
        raise OptionError(f"Expected checkpoint_seconds to be at least 0, got {seconds!r}.")
    saved = Checkpoint(folder, resume=resume, seconds=seconds)
    # Where a model is trained, and what is shown of it, does not change it.
    model = {name: v for name, v in options.items() if name not in ("device", "verbose")}
    saved.claim("options", model)
    return saved


def newest(folder: str | os.PathLike[str]) -> str | None:
    """Return the name of the newest checkpoint in a folder."""
    return next(reversed(_files(Folder(folder))), None)


def clear(folder: str | os.PathLike[str]) -> None:
    """Remove the checkpoints in a folder."""
    there = Folder(folder)
    for name in _files(there):
        there.remove(name)


def remove(folder: str | os.PathLike[str]) -> None:
    """Remove the checkpoints in a folder, and the folder where nothing else is in it."""
    clear(folder)
    Folder(folder).remove_if_empty()


def digest(*parts: Tensor | str) -> str:
    """Return the SHA-256 of texts and tensors, in hexadecimal."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode())
            continue
        part = part.detach().cpu().contiguous()
        found.update(f"{part.dtype}{tuple(part.shape)}".encode())
        # A view as bytes takes any type and no memory.
        found.update(part.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    named = [part for name in sorted(tensors) for part in (name, tensors[name])]
    return digest(text, *named)


def _files(folder: Folder) -> list[str]:
    """List the checkpoints, the newest one last."""
    names = [name for name in folder.names() if _PATTERN.fullmatch(name)]
    return sorted(names, key=_number)


def _read(folder: Folder, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint, and make sure that it is as it was written."""
    path = f"{folder}/{name}"
    try:
        blob = folder.read(name)
        tensors = bytes_to_tensors(blob)
        about = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
        text = about["document"]
        if about["sha256"] != _digest(text, tensors):
            raise CheckpointError(f"{path} is altered: it does not match its own SHA-256.")
        document = json.loads(text)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is cut off or altered: {error}.") from error
    if document["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {document['format']}; this version of twofold reads "
            f"format {FORMAT}. Train again, or use the version that wrote it."
        )
    return tensors, document


def _difference(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = then.get(name), now.get(name)
    if isinstance(before, str) and len(before) == 64:  # a digest says nothing to a reader
        return f"{name} are not the same"
    return f"{name} was {before!r} and is {after!r} now"


def _number(name: str) -> int:
    return int(name.removesuffix(".safetensors")[-_DIGITS:])


def _state(rng: np.random.RandomState) -> tuple[Tensor, list[Any]]:
    state = rng.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        raise CheckpointError(
            f"random_state draws from {state['bit_generator']}, which checkpoints do not hold. "
            f"Give a whole number instead."
        )
    keys = torch.from_numpy(state["state"]["key"].astype(np.int64))
    return keys, [state["state"]["pos"], state["has_gauss"], state["gauss"]]


def _set_state(
    rng: np.random.RandomState,
    name: str,
    tensors: Mapping[str, Tensor],
    document: Mapping[str, Any],
) -> None:
    keys = tensors[name].numpy().astype(np.uint32)
    rng.set_state(("MT19937", keys, *document[name]))
