"""Callbacks change what they say, and what they log is found again in files and runs."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from twofold import Autoencoder
from twofold.cli.main import app
from twofold.errors import DataError, MissingExtraError, OptionError
from twofold.training import callbacks
from twofold.training.callbacks import (
    EarlyStopping,
    LearningRateFinder,
    MLflow,
    ModelCheckpoint,
    TensorBoard,
)
from twofold.training.events import Event, StopTraining

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
X = np.random.default_rng(0).normal(size=(60, 4))


def unfitted(**options: Any) -> Autoencoder:
    return Autoencoder(**{"n_components": 2, "epochs": 3, "random_state": 0, **options})


def event(kind: str, epoch: int = 0, **losses: float) -> Event:
    return Event(kind, epoch, 2, 0, 10, losses, 0.01, 1.0, 500.0)


def fail_within(log: TensorBoard | MLflow) -> None:
    """Let something go wrong while a log is open."""

    def fail() -> None:
        with log:
            raise KeyError

    with pytest.raises(KeyError):
        fail()


# Several at once


def test_every_callback_gets_every_event_in_order() -> None:
    seen: list[tuple[str, str]] = []
    callbacks = [lambda e, name=name: seen.append((name, e.kind)) for name in ("first", "second")]
    unfitted(epochs=1).fit(X, callbacks=callbacks)
    assert seen[:2] == [("first", "start"), ("second", "start")]
    assert seen[-2:] == [("first", "end"), ("second", "end")]


def test_a_callback_may_end_training() -> None:
    def stop(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            raise StopTraining("seen enough")

    kinds: list[str] = []
    ae = unfitted(epochs=9).fit(X, callbacks=[stop, lambda event: kinds.append(event.kind)])
    assert ae.n_iter_ == 2
    assert kinds[-2:] == ["epoch", "end"]  # others see all of it
    assert np.isfinite(ae.score(X))


# Early stopping


def losses_of(stop: EarlyStopping, losses: list[float]) -> int:
    """After how many of these losses training is ended, 0 if it is not."""
    for number, loss in enumerate(losses, 1):
        try:
            stop(event("epoch", number, loss=loss))
        except StopTraining:
            return number
    return 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"patience": 1}, 3),
        ({"patience": 2}, 6),
        ({"patience": 3}, 7),
        ({"patience": 4}, 0),
        ({"patience": 2, "min_delta": 0.6}, 4),
    ],
    ids=str,
)
def test_early_stopping_waits(settings: dict[str, Any], expected: int) -> None:
    losses = [3.0, 2.0, 2.5, 1.9, 2.0, 2.0, 2.0]
    assert losses_of(EarlyStopping(monitor="loss", **settings), losses) == expected


def test_early_stopping_watches_what_it_is_asked_to() -> None:
    stop = EarlyStopping(monitor="validation_loss", patience=1)
    stop(event("epoch", 1, loss=1.0, validation_loss=1.0))
    with pytest.raises(StopTraining, match="validation_loss not smaller for 1 epochs"):
        stop(event("epoch", 2, loss=0.5, validation_loss=1.0))


def test_early_stopping_asks_for_a_loss_that_is_measured() -> None:
    with pytest.raises(OptionError, match="monitor='val_loss' is not measured.* which has 'loss'"):
        unfitted(validation_fraction=0).fit(X, callbacks=[EarlyStopping("val_loss")])


def test_early_stopping_begins_again_in_another_fit() -> None:
    stop = EarlyStopping(monitor="loss", patience=1, min_delta=1e3)
    fits = [unfitted(epochs=5).fit(X, callbacks=[stop]).n_iter_ for _ in range(2)]
    assert fits == [2, 2]


# Checkpoints of weights


def test_model_checkpoint_writes_weights_that_can_be_put_back(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "w-{epoch:02d}.safetensors", best_only=False)
    ae = unfitted(patience=None).fit(X, callbacks=[keep])
    assert [path.name for path in keep.written] == [f"w-0{i}.safetensors" for i in (1, 2, 3)]
    codes = ae.transform(X)
    ae.network_.load_state_dict(safetensors.torch.load_file(keep.written[0]))
    assert not np.allclose(ae.transform(X), codes)
    ae.network_.load_state_dict(safetensors.torch.load_file(keep.written[-1]))
    np.testing.assert_array_equal(ae.transform(X), codes)


def test_model_checkpoint_keeps_the_best_alone(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "{epoch}", monitor="loss")
    keep._network = torch.nn.Linear(1, 1)
    for number, loss in enumerate([3.0, 4.0, 2.0], 1):
        keep(event("epoch", number, loss=loss))
    assert [path.name for path in keep.written] == ["1", "3"]


# The learning rate


def test_learning_rate_finder_sets_the_rate_and_nothing_else() -> None:
    finder, rates = LearningRateFinder(), list[float]()
    options = {"schedule": "constant", "epochs": 1, "shortcut": False}
    ae = unfitted(**options).fit(
        X, callbacks=[finder, lambda event: rates.append(event.learning_rate)]
    )
    assert finder.suggestion in finder.learning_rates
    assert rates[1] == finder.suggestion
    by_hand = unfitted(**options, learning_rate=finder.suggestion).fit(X)
    np.testing.assert_array_equal(ae.transform(X), by_hand.transform(X))


def test_learning_rate_finder_stops_where_the_loss_explodes() -> None:
    finder = LearningRateFinder(least=1e-3, most=1e9)
    unfitted(epochs=1, optimizer="sgd", validation_fraction=0).fit(X, callbacks=[finder])
    assert len(finder.losses) == len(finder.learning_rates)
    assert finder.suggestion is not None
    assert finder.suggestion < 10


def test_learning_rate_finder_leaves_the_rate_where_none_helps() -> None:
    finder, rates = LearningRateFinder(least=1e6, most=1e7), list[float]()
    unfitted(epochs=1, schedule="constant", learning_rate=0.01).fit(
        X, callbacks=[finder, lambda event: rates.append(event.learning_rate)]
    )
    assert finder.suggestion is None
    assert set(rates[1:-1]) == {0.01}


@pytest.mark.parametrize("settings", [{"least": 0}, {"least": 2.0}, {"steps": 2}], ids=str)
def test_learning_rate_finder_needs_a_range(settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="Expected 0 < least < most and at least 10 steps"):
        LearningRateFinder(**settings)


# TensorBoard


def board(folder: Path) -> Any:
    """What TensorBoard reads in a folder."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = module.EventAccumulator(str(folder))
    found.Reload()
    return found


def curve(found: Any, name: str) -> list[tuple[int, float]]:
    return [(entry.step, entry.value) for entry in found.Scalars(name)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Autoencoder, Any]:
    """A training that was written for TensorBoard, and what is read back."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    folder, ae = tmp_path_factory.mktemp("runs") / "first", unfitted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with TensorBoard(folder, ae) as log:
            ae.fit(X, callbacks=[log])
    return ae, board(folder)


@pytest.mark.parametrize("name", ["loss", "validation_loss", "learning_rate"])
def test_the_curves_are_those_of_the_history(name: str, run: tuple[Autoencoder, Any]) -> None:
    ae, found = run
    expected = [(entry["epoch"], pytest.approx(entry[name], rel=1e-6)) for entry in ae.history_]
    assert curve(found, name) == expected


def test_the_speed_is_written(run: tuple[Autoencoder, Any]) -> None:
    assert all(value > 0 for _, value in curve(run[1], "rows_per_second"))


def test_what_came_of_the_model_is_written_last(run: tuple[Autoencoder, Any]) -> None:
    ae, found = run
    for name, value in callbacks.figures(ae).items():
        assert curve(found, f"result/{name}") == [(3, pytest.approx(value, rel=1e-6))]


def test_options_are_a_table(run: tuple[Autoencoder, Any]) -> None:
    content = run[1].Tensors("options/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| n_components | 2 |" in content
    assert "| activation | auto |" in content


def test_options_are_hyperparameters(run: tuple[Autoencoder, Any]) -> None:
    assert "_hparams_/session_start_info" in run[1].summary_metadata


def test_a_second_training_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    log = TensorBoard(tmp_path)
    for _ in range(2):
        for told in (event("start"), event("epoch", 1, loss=2), event("epoch", 2, loss=1)):
            log(told)
        log(event("end", 2))
    log.close()
    assert [step for step, _ in curve(board(tmp_path), "loss")] == [1, 2, 3, 4]


def test_a_training_that_failed_has_no_results(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    ae = unfitted().fit(X)
    log = TensorBoard(tmp_path, ae)
    log(event("epoch", 1, loss=2))
    fail_within(log)
    assert board(tmp_path).Tags()["scalars"] == ["loss", "learning_rate", "rows_per_second"]


def test_a_cell_of_the_table_keeps_its_bars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    ae = unfitted(kinds={"a|b\n": "real"})
    with TensorBoard(tmp_path, ae) as log:
        log(event("start"))
    content = board(tmp_path).Tensors("options/text_summary")[0].tensor_proto.string_val[0]
    assert rb"| kinds | {'a\|b\\n': 'real'} |" in content


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(DataError, match="taken cannot be written: File exists"):
        unfitted().fit(X, callbacks=[TensorBoard(tmp_path / "taken")])


def test_nothing_is_written_where_nothing_is_trained(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    with TensorBoard(tmp_path / "run", unfitted()):
        pass
    assert not os.listdir(tmp_path)


def test_the_command_writes_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    np.save(tmp_path / "rows.npy", X)
    words = ["fit", tmp_path / "rows.npy", "--output", tmp_path / "model", "--epochs", 2]
    words += ["--n-components", 2, "--tensorboard", tmp_path / "run", "--quiet"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    found = board(tmp_path / "run")
    assert [step for step, _ in curve(found, "loss")] == [1, 2]
    assert curve(found, "result/best_epoch")


# MLflow


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of runs, which MLflow has to be told to take; and no word home."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    return str(tmp_path / "runs")


def client(store: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(store)


def test_a_run_holds_the_training(store: str) -> None:
    ae = unfitted()
    with MLflow("pumps", ae, run_name="first", tracking_uri=store) as log:
        ae.fit(X, callbacks=[log])
    found = client(store).get_run(log.run_id)
    assert found.info.run_name == "first"
    assert found.info.status == "FINISHED"
    assert found.data.params["n_components"] == "2"
    assert found.data.metrics["result.offset"] == pytest.approx(ae.offset_)
    losses = client(store).get_metric_history(log.run_id, "validation_loss")
    assert [(m.step, m.value) for m in losses] == [
        (entry["epoch"], pytest.approx(entry["validation_loss"])) for entry in ae.history_
    ]


def test_runs_of_one_experiment_are_together(store: str) -> None:
    for _ in range(2):
        with MLflow("pumps", tracking_uri=store) as log:
            log(event("start"))
    experiment = client(store).get_experiment_by_name("pumps")
    assert len(client(store).search_runs([experiment.experiment_id])) == 2


def test_a_run_that_failed_says_so(store: str) -> None:
    log = MLflow("pumps", tracking_uri=store)
    log(event("start"))
    fail_within(log)
    assert client(store).get_run(log.run_id).info.status == "FAILED"


def test_what_is_refused_later_does_not_end_the_training(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    def refuse(*args: object, **kwargs: object) -> None:
        raise mlflow.MlflowException("The server is gone. It may come back.")

    ae = unfitted()
    log = MLflow("pumps", tracking_uri=store)
    log(event("start"))
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ae.fit(X, callbacks=[log])
        log.close()
    texts = [str(warning.message) for warning in told if "MLflow" in str(warning.message)]
    assert len(texts) == 1
    assert texts[0].endswith("left alone from here on: The server is gone.")
    assert len(ae.history_) == 3


def test_a_long_option_is_cut(store: str) -> None:
    ae = unfitted(kinds={f"column {i}": "real" for i in range(1000)})
    with MLflow("pumps", ae, tracking_uri=store) as log:
        log(event("start"))
    assert len(client(store).get_run(log.run_id).data.params["kinds"]) == 500


def test_a_folder_that_mlflow_does_not_take_is_told(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    log = MLflow("pumps", tracking_uri=store)
    try:
        log(event("start"))
    except OptionError as error:
        told = str(error)
    else:
        pytest.skip("this version of MLflow takes folders")
    assert "maintenance mode" in told
    assert "MLFLOW_ALLOW_FILE_STORE=true" in told
    log.close()  # a run that has not begun has no end


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"Install 'twofold\[tracking\]'"):
        TensorBoard("runs") if name == "tensorboard" else MLflow("pumps")


def test_figures_that_are_no_numbers_are_left_out() -> None:
    ae = unfitted().fit(np.ones((30, 4)))
    assert "r2" not in callbacks.figures(ae)
    assert callbacks.figures(ae)["best_epoch"] == ae.best_epoch_
