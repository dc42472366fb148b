"""Progress says how far training is: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from twofold import Autoencoder
from twofold.training.events import Event
from twofold.training.progress import Progress, _duration

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """Return what was drawn, frame after frame, without colours and cursor movements."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue()).replace("\r", "\n")
        return [line.strip() for line in text.split("\n") if line.strip()]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


def event(kind: str, epoch: int, step: int = 10, seconds: float = 0.0, epochs: int = 20) -> Event:
    losses = {"loss": 0.5 / max(epoch, 1)} if kind in ("step", "epoch") else {}
    if kind == "epoch":
        losses["validation_loss"] = 0.6 / epoch
    return Event(kind, epoch, epochs, step, 10, losses, 0.003, seconds, 41_234.5)


def run(epochs: int, seconds_per_epoch: float, last: int | None = None) -> Iterator[Event]:
    yield event("start", 0, 0, epochs=epochs)
    last = last or epochs
    for epoch in range(1, last + 1):
        yield event("step", epoch, 5, (epoch - 0.5) * seconds_per_epoch, epochs)
        yield event("epoch", epoch, 10, epoch * seconds_per_epoch, epochs)
    yield event("end", last, 0, last * seconds_per_epoch, epochs)


def shown(events: Iterator[Event], title: str = "") -> list[str]:
    stream = io.StringIO()
    with Progress(title, stream) as progress:
        for each in events:
            progress(each)
    return stream.getvalue().splitlines()


def drawn(events: Iterator[Event], title: str = "") -> Terminal:
    stream = Terminal()
    with Progress(title, stream) as progress:
        for each in events:
            progress(each)
    return stream


def test_slow_epochs_have_a_line_each() -> None:
    assert [line.split()[1] for line in shown(run(4, 5.0))] == ["1/4", "2/4", "3/4", "4/4"]


def test_line_holds_losses_speed_and_time_left() -> None:
    assert shown(run(20, 3.0))[3] == (
        "epoch 4/20  loss 0.1250  validation 0.1500  41,234 rows/s  48 s left"
    )


def test_last_line_says_how_long_it_took() -> None:
    assert shown(run(4, 5.0))[-1].endswith("41,234 rows/s  20 s in all")


def test_quick_epochs_share_a_line_a_second() -> None:
    lines = shown(run(100, 0.1))
    assert 10 <= len(lines) <= 12
    assert lines[0].startswith("epoch 1/100 ")
    assert lines[-1].startswith("epoch 100/100 ")


def test_last_epoch_of_a_training_that_stops_early_is_shown() -> None:
    lines = shown(run(100, 0.1, last=7))
    assert [line.split()[1] for line in lines[:-1]] == ["1/100", "7/100"]
    assert lines[-1] == "stopped after epoch 7 of 100"


def test_title_goes_in_front() -> None:
    assert all(line.startswith("tied: ") for line in shown(run(3, 0.1, last=2), title="tied"))


def test_no_line_where_nothing_was_trained() -> None:
    assert shown(iter([event("start", 0, 0), event("end", 0, 0)])) == [
        "stopped after epoch 0 of 20"
    ]


def test_plain_lines_hold_no_control_characters() -> None:
    assert "\x1b" not in "".join(shown(run(3, 1.0)))


def test_two_trainings_share_one_progress() -> None:
    assert len(shown(iter([*run(2, 0.01), *run(2, 0.01)]))) == 4


def test_standard_error_is_the_stream_where_none_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress() as progress:
        progress(event("epoch", 1))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("epoch 1/20  loss ")


def test_bar_tells_epoch_time_left_losses_and_speed() -> None:
    frames = [line for line in drawn(run(20, 3.0)).lines() if line.startswith("epoch  4/20")]
    assert frames[-1].endswith("48 s left    loss 0.1250  validation 0.1500  41,234 rows/s")


def test_bar_keeps_its_place_while_numbers_change() -> None:
    lines = [line for line in drawn(run(20, 3.0)).lines() if "loss" in line and "left" in line]
    assert len({line.index("loss") for line in lines}) == 1


def test_bar_leaves_out_the_speed_where_there_is_little_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = drawn(run(20, 3.0)).lines()
    assert not any("rows/s" in line or "…" in line for line in lines)


def test_bar_is_full_at_the_end() -> None:
    assert drawn(run(20, 3.0)).lines()[-1] == (
        f"epoch 20/20 {'━' * 20} done in 1 min 0 s  loss 0.02500  validation 0.03000"
    )


def test_bar_says_when_training_stopped_early() -> None:
    assert "stopped in 21 s" in drawn(run(20, 3.0, last=7)).lines()[-1]


def test_title_may_hold_brackets() -> None:
    assert drawn(run(2, 1.0), title="[red] net").lines()[-1].startswith("[red] net: epoch 2/2")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_terminal_is_left_clean_when_training_fails(error: type[BaseException]) -> None:
    terminal = Terminal()

    def train() -> None:
        with Progress(stream=terminal) as progress:
            progress(event("start", 0, 0))
            progress(event("step", 1, 5, 1.0))
            raise error

    with pytest.raises(error):
        train()
    text = terminal.getvalue()
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    assert text[: text.rindex(SHOW_CURSOR)].endswith("\n")


def test_dumb_terminal_has_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in drawn(run(2, 5.0)).getvalue()


def test_rich_is_not_needed_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert shown(run(2, 1.0))


@pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
def test_training_feeds_it(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(40, 4)) @ np.ones((4, 4))
    Autoencoder(n_components=3, epochs=3, patience=None, verbose=1, random_state=0).fit(x)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0].startswith("epoch 1/3  loss ")
    assert lines[-1].startswith("epoch 3/3  loss ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.84, "0.8 s"),
        (9.97, "10 s"),
        (59.6, "1 min 0 s"),
        (3599.7, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert _duration(seconds) == text
