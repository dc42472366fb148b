"""What workers are asked to do, and what they report: plain data between processes.

The main worker, which is on the machine of the process that waits for it, appends what happens to a
file; where another file appears next to it, all workers stop after the next update.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from twofold.data.files import Files, OpenFiles
from twofold.estimators import validation
from twofold.estimators.autoencoder import Autoencoder
from twofold.training.events import Event
from twofold.training.process_group import WorkerGroup, current_workers

Message = dict[str, Any]  # from a worker to whoever waits for it


@dataclass(frozen=True)
class TrainingJob:
    """What every worker trains, on which rows, and where it keeps what.

    `rows` and `validation` are what `Autoencoder.fit` takes; `folder` is for checkpoints, of which
    there is one every `seconds`, and `output` for the model and for messages.
    """

    options: Mapping[str, Any]
    rows: Any
    validation: Any
    folder: Path
    seconds: float
    output: Path

    @property
    def model(self) -> Path:
        """Where the main worker saves the model."""
        return self.output / "model"

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether checkpoints are anywhere else than what is removed at the end."""
        return not self.folder.is_relative_to(self.output)

    @property
    def messages(self) -> Path:
        """Where the main worker reports."""
        return self.output / "messages"

    @property
    def stop(self) -> Path:
        """What is there once the workers are to stop."""
        return self.output / "stop"

    def send(self, message: Message) -> None:
        """Report to whoever waits; an error means that nobody does any more."""
        with self.messages.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(message)}\n")


def received(messages: TextIO) -> Iterator[Message]:
    """Give the messages of a job's workers that have come and were not given yet, in order."""
    while True:
        at, line = messages.tell(), messages.readline()
        if not line.endswith("\n"):
            messages.seek(at)
            return
        # A worker that was killed may have left half a line.
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


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


def count(rows: Any) -> int:
    """Return the number of rows of a source."""
    return len(rows) if hasattr(rows, "__len__") else int(rows.shape[0])


def work(job: TrainingJob, group: WorkerGroup) -> None:
    """Do one worker's part of the job; the main worker sends its events, warnings and rows."""
    model = Autoencoder(**job.options)
    if group.is_main:
        job.send({"workers": group.size})
    rows = opened(job.rows, model) if isinstance(job.rows, Files) else job.rows

    def report(event: Event) -> None:
        job.send({"event": {**asdict(event), "losses": dict(event.losses)}})
        if job.stop.exists():
            group.request_stop()

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
    if group.is_main:
        model.save(job.model)
        for warning in caught:
            name, text = getattr(warning.category, "__name__", "UserWarning"), str(warning.message)
            if not job.keeps_checkpoints:
                text = text.removesuffix(f" To continue, resume from {job.folder}.")
            job.send({"warning": [name, text]})
        job.send({"rows": count(rows)})
