"""Progress of training: one live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from twofold.errors import OptionError
from twofold.training.events import Callback, Event
from twofold.training.process_group import current_workers

if TYPE_CHECKING:
    import rich.progress

_LINE_SECONDS = 1.0  # least time between two plain lines
_BAR_WIDTH = 20
_WIDE = 95  # columns of a terminal that also has room for the speed


class Stream(Protocol):
    """Where progress goes: anything that text can be written to."""

    def write(self, text: str, /) -> object:
        """Take some text."""

    def flush(self) -> None:
        """Let it be seen."""


class Progress:
    """Shows training events while they happen: `with Progress() as progress: ... progress(event)`.

    On a terminal it is one bar over all updates with the losses, the speed and the time left.
    Elsewhere it is a line per epoch, at most about one a second, the first and the last always.
    Several trainings, one after the other, can share one.

    Parameters
    ----------
    title : str
        What is trained, put in front.
    stream : text stream, optional
        Where to write; standard error where none is given.

    Examples
    --------
    >>> from twofold.training import Event
    >>> with Progress(stream=sys.stdout) as progress:
    ...     progress(Event("epoch", 3, 20, 40, 40, {"loss": 0.08124}, 0.003, 2.1, 41_200.0))
    epoch 3/20  loss 0.08124  41,200 rows/s  12 s left
    """

    def __init__(self, title: str = "", stream: Stream | None = None) -> None:
        self.title, self.stream = title, stream
        self._display: _Bar | _Lines | None = None

    def __enter__(self) -> Self:
        # Looked up now and not in __init__: standard error may have been redirected since.
        stream = sys.stderr if self.stream is None else self.stream
        isatty = getattr(stream, "isatty", None)
        on_terminal = isatty is not None and isatty()
        self._display = _Bar(self.title, stream) if on_terminal else _Lines(self.title, stream)
        return self

    def __call__(self, event: Event) -> None:
        """Show one event."""
        assert self._display is not None, "enter the progress first: with Progress() as progress"
        self._display.show(event)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._display is not None
        self._display.close()
        self._display = None


@contextmanager
def shown(callbacks: Sequence[Callback], verbose: int) -> Iterator[Sequence[Callback]]:
    """Give the callbacks; if there are none, and `verbose` asks for it, a progress bar instead.

    Raises
    ------
    OptionError
        If they are a single callback.
    """
    if callable(callbacks):
        raise OptionError("Expected a sequence of callbacks, got one. Write callbacks=[...].")
    if callbacks or not verbose or not current_workers().is_main:
        yield callbacks
        return
    with Progress() as progress:
        yield (progress,)


class _Lines:
    """A plain line per epoch, at most about one a second, the first and the last always."""

    def __init__(self, title: str, stream: Stream) -> None:
        self._title, self._stream = title, stream
        self._next, self._stage = 0.0, ""
        self._waiting: Event | None = None

    def show(self, event: Event) -> None:
        self._stage = event.stage
        if event.kind == "start":
            self._next, self._waiting = 0.0, None
        elif event.kind == "epoch":
            if event.seconds >= self._next or event.epoch in (1, event.epochs):
                self._write(event)
            else:
                self._waiting = event
        elif event.kind == "end":
            if self._waiting is not None:
                self._write(self._waiting)
            if event.epoch < event.epochs:
                self._say(f"stopped after {event.unit} {event.epoch} of {event.epochs}")

    def _write(self, event: Event) -> None:
        self._next, self._waiting = event.seconds + _LINE_SECONDS, None
        parts = [
            f"{event.unit} {event.epoch}/{event.epochs}",
            *_losses(event.losses),
            _speed(event),
            _left(event),
        ]
        self._say("  ".join(part for part in parts if part))

    def _say(self, text: str) -> None:
        names = [name for name in (self._title, self._stage) if name]
        self._stream.write(": ".join([*names, text]) + "\n")
        self._stream.flush()

    def close(self) -> None:
        pass


class _Bar:
    """One live bar over all updates."""

    def __init__(self, title: str, stream: Stream) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(file=stream)  # type: ignore[arg-type]
        self._title, self._wide = title, console.width >= _WIDE
        # Drawn when an event comes, and by no thread of its own: nothing is left half-drawn by an
        # interrupt. Redrawing is cheap, since step events come ten times a second at most.
        self._bars: rich.progress.Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            auto_refresh=False,
        )
        self._bars.start()
        self._task: rich.progress.TaskID | None = None
        self._losses: dict[str, float] = {}

    def show(self, event: Event) -> None:
        epoch = f"{event.unit} {event.epoch:>{len(str(event.epochs))}}/{event.epochs}"
        names = [name for name in (self._title, event.stage) if name]
        description = ": ".join([*names, epoch])
        if event.kind == "start" or self._task is None:
            self._losses = {}
            total = event.epochs * event.steps
            self._task = self._bars.add_task(description, total=total, figures="")
        self._losses |= event.losses
        done = (max(event.epoch, 1) - 1) * event.steps + event.step
        if event.kind == "end":
            done = event.epoch * event.steps
            ended = "stopped" if event.epoch < event.epochs else "done"
            figures = [f"{ended} in {_duration(event.seconds)}", *_losses(self._losses)]
        else:
            speed = _speed(event) if self._wide else ""
            figures = [f"{_left(event):<11}", *_losses(self._losses), speed]
        text = "  ".join(figure for figure in figures if figure)
        self._bars.update(
            self._task, completed=done, description=description, figures=text, refresh=True
        )

    def close(self) -> None:
        self._bars.stop()


def _losses(losses: Mapping[str, float]) -> list[str]:
    words = {"loss": "loss", "validation_loss": "validation"}
    # "#" keeps zeros at the end, so that a number does not jump about while it changes.
    return [
        f"{word} {losses[name]:#.4g}".rstrip(".") for name, word in words.items() if name in losses
    ]


def _speed(event: Event) -> str:
    return f"{event.rows_per_second:,.0f} rows/s" if event.rows_per_second else ""


def _left(event: Event) -> str:
    """Say how long the rest takes at the speed so far, should no epoch be spared."""
    done = (event.epoch - 1) * event.steps + event.step
    left = event.epochs * event.steps - done
    if done <= 0:
        return ""
    if left == 0:
        return f"{_duration(event.seconds)} in all"
    return f"{_roughly(event.seconds * left / done)} left"


def _roughly(seconds: float) -> str:
    """Write a guessed duration, in one unit."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else _duration(seconds)
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _duration(seconds: float) -> str:
    """Write a duration with two units at most.

    Examples
    --------
    >>> _duration(0.84), _duration(75), _duration(4000)
    ('0.8 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
