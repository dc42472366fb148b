"""A run that was ended at any moment, by whatever, goes on to the same bits as one that was not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from typer.testing import CliRunner, Result

from twofold import Autoencoder
from twofold.cli.main import app
from twofold.errors import (
    CheckpointError,
    CheckpointWarning,
    DivergenceError,
    InterruptedWarning,
    OptionError,
)
from twofold.training import events, trainer
from twofold.training.checkpoint import Checkpoint, Interruption
from twofold.training.events import Event

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
RNG = np.random.default_rng(4)
X = (RNG.normal(size=(150, 3)) @ RNG.normal(size=(3, 6)) + 0.1 * RNG.normal(size=(150, 6))).astype(
    np.float32
)
HOLES = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
FRAME = pd.DataFrame(X, columns=list("abcdef")).assign(
    town=RNG.choice(["Ulm", "Bonn", "Kiel"], len(X)), visits=RNG.poisson(2, len(X))
)
OPTIONS: dict[str, Any] = {"n_components": 2, "epochs": 4, "batch_size": 32, "random_state": 0}
# What training can be made of, each with state of its own.
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "fused adam": (X, {}),
    "fused sgd": (X, {"optimizer": "sgd"}),
    "momentum": (X, {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}),
    "untied, constant rate": (X, {"tied": False, "schedule": "constant", "optimizer": "adamw"}),
    "muon": (X, {"optimizer": "muon", "weight_decay": 0.01}),
    "64 bits": (X, {"precision": "float64"}),
    "bfloat16": (X, {"precision": "bfloat16"}),
    "holes": (HOLES, {}),
    "masking": (X, {"corruption": "masking:0.3"}),
    "swap": (HOLES, {"corruption": "swap:0.2"}),
    "gaussian": (X, {"corruption": "gaussian:0.3"}),
    "mixed table": (FRAME, {}),
    "histogram": (FRAME, {"likelihood": {"a": "histogram"}, "corruption": "masking:0.3"}),
    "variational": (FRAME, {"bottleneck": "variational"}),
    "topk": (X, {"bottleneck": "sparse:topk:1"}),
    "share of the variance": (X, {"n_components": 0.9}),
    "early stopping": (X, {"learning_rate": 0.3, "patience": 2, "epochs": 30}),
    "no held-out rows": (X, {"validation_fraction": 0.0}),
    "no patience": (X, {"patience": None}),
}


COOL_DOWN = trainer.Trainer.cool_down


class Killed(BaseException):
    """Ends a run as a kill does: nothing in the loop expects it."""


def bits(ae: Autoencoder) -> dict[str, bytes]:
    """Everything of a fitted model but the time it took, as bytes by name."""
    parts = {**ae.network_.state_dict(), **ae.scorer_.state_dict()}
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in ae.history_]
    found = {name: tensor.numpy().tobytes() for name, tensor in parts.items()}
    found |= {"scores": ae.calibration_scores_.tobytes(), "pca": ae.pca_.components.tobytes()}
    return found | {"rest": repr((history, ae.best_epoch_, ae.offset_)).encode()}


def count_updates(monkeypatch: pytest.MonkeyPatch, kill_after: int | None = None) -> list[int]:
    """Count the updates of all runs from now on, and kill the run after so many."""
    numbers: list[int] = []
    updates = trainer._Run.updates

    def counted(run: trainer._Run) -> Iterator[int]:
        done = run.n_steps
        for number in updates(run):
            numbers.extend(range(done + 1, number + 1))
            done = number
            yield number
            # After the loop has done what it does between two updates.
            if len(numbers) == kill_after:
                raise Killed

    monkeypatch.setattr(trainer._Run, "updates", counted)
    return numbers


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_again_and_again_ends_in_the_same_bits(kind: str, tmp_path: Path) -> None:
    rows, options = KINDS[kind]
    ae = Autoencoder(**{**OPTIONS, **options})
    with pytest.MonkeyPatch.context() as patch:
        updates = count_updates(patch)
        expected, total = bits(ae.fit(rows)), len(updates)
    done, found, generator = 0, None, np.random.default_rng(1)
    while found is None:
        with pytest.MonkeyPatch.context() as patch:
            updates = count_updates(patch, kill_after=int(generator.integers(2, 12)))
            with suppress(Killed):
                found = go_on(tmp_path, rows, **options)
        done += len(updates)
    assert bits(found) == expected
    assert done == total


def test_a_run_killed_while_it_cools_down_ends_in_the_same_bits(tmp_path: Path) -> None:
    turns = np.linspace(0, 6, 200)[:, None] * [1, 2, 3]
    curve, options = np.hstack([np.cos(turns), np.sin(turns)]), {"epochs": 40}
    expected = Autoencoder(**{**OPTIONS, **options}).fit(curve)
    assert expected.best_epoch_  # else there is nothing to cool down
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "cool_down", killed_after_two_epochs)
        with pytest.raises(Killed):
            go_on(tmp_path, curve, **options)
    assert bits(go_on(tmp_path, curve, **options)) == bits(expected)


def killed_after_two_epochs(cooling: trainer.Trainer, data: Any, history: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        count_updates(patch, kill_after=12)
        COOL_DOWN(cooling, data, history)


def fit(folder: Path, rows: Any = X, *, fit: dict[str, Any] | None = None, **options: Any) -> Any:
    given = {"checkpoint": folder, "checkpoint_seconds": 0, **(fit or {})}
    return Autoencoder(**{**OPTIONS, **options}).fit(rows, **given)


def at(
    kind: str, epoch: int, do: Callable[[], object] | type[BaseException]
) -> Callable[[Event], None]:
    """Do something, or raise, at an event of this kind in this epoch."""

    def on_event(event: Event) -> None:
        if (event.kind, event.epoch) == (kind, epoch):
            if isinstance(do, type):
                raise do
            do()

    return on_event


def begin(folder: Path, epoch: int = 2, rows: Any = X, **options: Any) -> None:
    """Begin a run that is killed at the end of an epoch."""
    with pytest.raises(Killed):
        fit(folder, rows, fit={"callbacks": [at("epoch", epoch, Killed)]}, **options)


def go_on(folder: Path, rows: Any = X, **options: Any) -> Autoencoder:
    ae: Autoencoder = fit(folder, rows, fit={"resume": True}, **options)
    return ae


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.safetensors"))


def plain() -> dict[str, bytes]:
    """The bits of a run without any checkpoint."""
    return bits(Autoencoder(**OPTIONS).fit(X))


def document(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["document"])
    return found


def test_checkpoints_change_nothing_of_a_run(tmp_path: Path) -> None:
    assert bits(fit(tmp_path)) == plain()


def test_where_there_is_nothing_to_resume_training_begins(tmp_path: Path) -> None:
    assert bits(go_on(tmp_path / "new" / "folder")) == plain()


def test_going_on_from_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        updates = count_updates(patch)
        found = go_on(tmp_path)
    assert (bits(found), updates) == (plain(), [])


def test_the_time_of_the_run_before_counts(tmp_path: Path) -> None:
    begin(tmp_path)
    before = document(checkpoints(tmp_path)[-1])["seconds"]
    seconds = [entry["seconds"] for entry in go_on(tmp_path).history_]
    assert seconds == sorted(seconds)
    assert seconds[-1] > before


def test_chance_without_a_seed_goes_on_too(tmp_path: Path) -> None:
    found = []
    begin(tmp_path, random_state=None)
    saved = [(path, path.read_bytes()) for path in checkpoints(tmp_path)]
    for _ in range(2):
        found.append(bits(go_on(tmp_path, random_state=None)))
        for path in checkpoints(tmp_path):
            path.unlink()
        for path, content in saved:
            path.write_bytes(content)
    assert found[0] == found[1]


def test_a_generator_is_left_as_by_a_run_that_was_not_ended(tmp_path: Path) -> None:
    begin(tmp_path, random_state=np.random.RandomState(5))
    there, here = np.random.RandomState(6), np.random.RandomState(5)
    go_on(tmp_path, random_state=there)
    Autoencoder(**{**OPTIONS, "random_state": here}).fit(X)
    assert there.randint(2**31) == here.randint(2**31)


@pytest.mark.parametrize("n", [1, 7])
def test_no_more_than_two_checkpoints_are_kept(n: int, tmp_path: Path) -> None:
    begin(tmp_path, 1, epochs=n)
    assert len(checkpoints(tmp_path)) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_holds_weights_and_moments_and_no_rows(tmp_path: Path) -> None:
    rows = np.tile(X, (40, 1))
    ae = fit(tmp_path, rows, epochs=1, batch_size=8192, hidden_layers="halving")
    parameters = sum(p.numel() * 4 for p in ae.network_.parameters())
    size = checkpoints(tmp_path)[-1].stat().st_size
    # Weights, best weights and two moments; chance, and what the schema knows of eight columns.
    assert size < 4 * parameters + 30_000 < rows.nbytes / 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"learning_rate": 0.5}, "learning_rate was 'auto' and is 0.5 now"),
        ({"epochs": 5}, "epochs was 4 and is 5 now"),
        ({"random_state": 1}, "random_state was 0 and is 1 now"),
        ({"bottleneck": "ordered"}, "bottleneck was 'plain' and is 'ordered' now"),
        ({"hidden_layers": (5, 4)}, r"hidden_layers was 'auto' and is \[5, 4\] now"),
    ],
)
def test_other_options_are_refused(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(CheckpointError, match=f"belongs to another run: {text}. Go on with"):
        go_on(tmp_path, **changes)


@pytest.mark.parametrize("changes", [{"verbose": 1}, {"device": "cpu"}])
def test_what_does_not_make_the_model_may_change(changes: dict[str, Any], tmp_path: Path) -> None:
    begin(tmp_path)
    assert bits(go_on(tmp_path, **changes)) == plain()


def one_cell_changed() -> Any:
    rows = X.copy()
    rows[77, 3] += 1e-3
    return rows


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (X[:140], "training rows was 131 and is 121 now"),
        (X[:, :5], "the columns are not the same"),
        (one_cell_changed(), "are not the same"),
        (X[::-1].copy(), "the cells are not the same"),
    ],
    ids=["fewer rows", "fewer columns", "one cell", "another order"],
)
def test_other_rows_are_refused(rows: Any, text: str, tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(CheckpointError, match=text):
        go_on(tmp_path, rows)


def test_other_held_out_rows_are_refused(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(CheckpointError, match="the cells are not the same|rows was"):
        fit(tmp_path, fit={"resume": True, "validation_data": X[:15]})


def test_a_refusal_leaves_the_checkpoints(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(CheckpointError):
        go_on(tmp_path, learning_rate=0.5)
    assert bits(go_on(tmp_path)) == plain()


def test_a_run_that_was_not_ended_is_not_overwritten_unasked(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(CheckpointError, match="already exists.*--resume"):
        fit(tmp_path)


def test_a_finished_run_gives_way(tmp_path: Path) -> None:
    fit(tmp_path, random_state=3)
    assert bits(fit(tmp_path)) == plain()


def test_resume_needs_a_folder() -> None:
    with pytest.raises(OptionError, match="Pass checkpoint=<folder>"):
        Autoencoder(**OPTIONS).fit(X, resume=True)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_time_between_checkpoints_is_at_least_nothing(seconds: float, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Expected checkpoint_seconds to be"):
        fit(tmp_path, fit={"checkpoint_seconds": seconds})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [cut, empty, alter])
def test_an_unreadable_checkpoint_gives_way_to_the_one_before(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    begin(tmp_path)
    spoil(checkpoints(tmp_path)[-1])
    with pytest.warns(CheckpointWarning, match=r"(cut off|altered).*goes on from the one before"):
        assert bits(go_on(tmp_path)) == plain()


@pytest.mark.parametrize("spoil", [cut, empty, alter])
def test_where_no_checkpoint_can_be_read_it_is_told(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    begin(tmp_path)
    for path in checkpoints(tmp_path):
        spoil(path)
    with pytest.raises(CheckpointError, match=r"(cut off|altered).*begin again"):
        go_on(tmp_path)


def test_a_checkpoint_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("twofold.training.checkpoint.FORMAT", 1)
        begin(tmp_path)
    with pytest.raises(CheckpointError, match="this version of twofold reads format 2"):
        go_on(tmp_path)


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_training_goes_on_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = at("epoch", 2, lambda: monkeypatch.setattr(os, "fsync", no_space))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ae = fit(tmp_path, fit={"callbacks": [fill]})
    assert bits(ae) == plain()
    texts = [str(w.message) for w in caught if w.category is CheckpointWarning]
    assert len(texts) == 1
    assert "No space left on device. Training goes on" in texts[0]


@pytest.mark.filterwarnings("ignore::twofold.errors.CheckpointWarning")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def on_event(event: Event) -> None:
            at("epoch", 2, lambda: patch.setattr(os, "fsync", no_space))(event)
            at("epoch", 4, Killed)(event)

        with pytest.raises(Killed):
            fit(tmp_path, fit={"callbacks": [on_event]})
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"] * 2
    assert document(checkpoints(tmp_path)[-1])["epoch"] in (2, 3)
    assert bits(go_on(tmp_path)) == plain()


def test_a_disk_that_is_full_from_the_start_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CheckpointError, match="No space left on device. Free some space"):
        fit(tmp_path)


def test_a_folder_that_cannot_be_made_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written to"):
        fit(tmp_path / "file")


def test_divergence_leaves_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError):
        fit(tmp_path, optimizer="sgd", learning_rate=1e6, epochs=20)
    with pytest.raises(DivergenceError):
        go_on(tmp_path, optimizer="sgd", learning_rate=1e6, epochs=20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("kind", "epoch"), [("start", 0), ("step", 2), ("epoch", 3)])
def test_a_signal_ends_the_run_cleanly(
    number: signal.Signals, kind: str, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_STEP_SECONDS", -1.0)
    signalled: list[bool] = []

    def send() -> None:
        if not signalled:
            signalled.append(True)
            signal.raise_signal(number)

    # Checkpoints at the end of epochs alone: the last one is from where the signal came.
    given = {"callbacks": [at(kind, epoch, send)], "checkpoint_seconds": 60}
    with pytest.warns(InterruptedWarning, match=f"To continue, resume from {tmp_path}"):
        stopped = fit(tmp_path, fit=given)
    assert len(stopped.history_) < 4
    assert bits(go_on(tmp_path)) == plain()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_interrupted_run_goes_on_from_the_very_update(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_STEP_SECONDS", -1.0)
        given = {"callbacks": [at("step", 3, lambda: signal.raise_signal(signal.SIGINT))]}
        updates = count_updates(patch)
        with pytest.warns(InterruptedWarning):
            fit(tmp_path, fit={**given, "checkpoint_seconds": 1e9})
    with pytest.MonkeyPatch.context() as patch:
        rest = count_updates(patch)
        go_on(tmp_path)
    assert len(updates) + len(rest) == 4 * 5


def test_a_second_signal_interrupts_at_once() -> None:
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_of_others_are_left_alone() -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
        assert (calls, interruption.requested) == ([signal.SIGINT], False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_between_short_epochs_writing_takes_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("twofold.training.checkpoint.time.perf_counter", lambda: now[0])
    saved = Checkpoint(tmp_path, seconds=60)
    writes = saved._write

    def slow(tensors: Any, document: Any) -> None:
        writes(tensors, document)
        now[0] += 0.5

    monkeypatch.setattr(saved, "_write", slow)
    for _ in range(1000):
        now[0] += 0.1  # an epoch
        if saved.is_due_between():
            saved.write({}, {})
    assert 1 / 25 < saved.seconds_written / (now[0] - 100) < 1 / 20


CHILD = """
import os, signal, sys, threading, time, warnings
import numpy as np
from twofold import Autoencoder
from twofold.training import events, trainer
warnings.simplefilter("ignore")
X = np.random.default_rng(0).normal(size=(400, 6)).astype("float32")
tell = events.EventEmitter.emit

def fit(folder, seconds):
    def kill():
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    def begin(watch, kind, *rest):
        # Not before training begins, so that some of it is done in the time there is.
        if kind == "start" and seconds:
            threading.Thread(target=kill, daemon=True).start()
        tell(watch, kind, *rest)

    events.EventEmitter.emit = begin
    how = {"epochs": 100, "patience": None, "batch_size": 8, "corruption": "masking"}
    ae = Autoencoder(n_components=2, random_state=0, **how)
    ae.fit(X, checkpoint=folder, resume=True, checkpoint_seconds=0.01)
    np.savez(os.path.join(folder, "weights.npz"), **ae.network_.state_dict())
    os._exit(0)

for folder, *moments in [argument.split(",") for argument in sys.argv[1:]]:
    for seconds in [*map(float, moments), 0.0]:
        child = os.fork()
        if not child:
            fit(folder, seconds)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    moments = np.random.default_rng(7).uniform(0.02, 0.4, 4)
    killed, never = tmp_path / "killed", tmp_path / "never"
    runs = [",".join([str(killed), *map(str, moments)]), str(never)]
    command = [sys.executable, "-c", CHILD, *runs]
    told = subprocess.run(command, timeout=120, check=True, capture_output=True, text=True).stdout
    codes = [int(line) for line in told.split()]
    assert codes[0] == -signal.SIGKILL
    assert codes[-2:] == [0, 0]
    with np.load(killed / "weights.npz") as found, np.load(never / "weights.npz") as expected:
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


FLAGS = ("--n-components", "2", "--epochs", "4", "--batch-size", "32", "--random-state", "0")


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "rows.npy"
    np.save(path, X)
    return str(path)


def command_line(*words: object) -> Result:
    return CliRunner().invoke(app, ["fit", *map(str, words), *FLAGS])


def weights(model: Path) -> bytes:
    return (model / "weights.safetensors").read_bytes()


def test_on_the_command_line_ctrl_c_says_how_to_go_on(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = tmp_path / "run", tmp_path / "model"
    with monkeypatch.context() as patch:
        stop = at("epoch", 2, lambda: signal.raise_signal(signal.SIGINT))
        patch.setattr(
            "twofold.training.progress.Progress.__call__", lambda self, event: stop(event)
        )
        stopped = command_line(source, "--output", model, "--checkpoint", folder)
    assert stopped.exit_code == 130
    assert "The same command with --resume --force goes on." in stopped.stderr
    went_on = command_line(
        source, "--output", model, "--checkpoint", folder, "--resume", "--force", "--quiet"
    )
    assert went_on.exit_code == 0, went_on.output
    command_line(source, "--output", tmp_path / "never ended", "--quiet")
    assert weights(model) == weights(tmp_path / "never ended")


def test_once_the_model_is_saved_its_checkpoints_are_removed(source: str, tmp_path: Path) -> None:
    result = command_line(source, "-o", tmp_path / "model", "--checkpoint", tmp_path / "run", "-q")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows.npy"]


def test_files_of_others_stay_beside_checkpoints(source: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    command_line(source, "-o", tmp_path / "model", "--checkpoint", tmp_path / "run", "-q")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_the_command_line_refuses_as_python_does(source: str, tmp_path: Path) -> None:
    begin(tmp_path / "run")
    result = command_line(source, "-o", tmp_path / "model", "--checkpoint", tmp_path / "run")
    assert result.exit_code == 2
    assert "already exists" in result.stderr
