"""What workers are asked to do, and what they report: plain data between processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = dict[str, Any]  # from a worker to whoever waits for it
Send = Callable[[Message], None]


@dataclass(frozen=True)
class TrainingJob:
    """What every worker trains, on which rows, and where it keeps what.

    `rows` and `validation` are what `Autoencoder.fit` takes; `folder` is for checkpoints, of which
    there is one every `seconds`, and `output` for the model.
    """

    options: Mapping[str, Any]
    rows: Any
    validation: Any
    folder: Path
    seconds: float
    output: Path


# A worker's part of a job, in the current group of workers; `send` takes its messages.
Work = Callable[[TrainingJob, Send], None]
