"""What training tells is found again in TensorBoard's files and in MLflow's runs."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from twofold import Autoencoder
from twofold.cli.main import app
from twofold.errors import DataError, MissingExtraError, OptionError
from twofold.training import callbacks
from twofold.training.callbacks import MLflow, TensorBoard
from twofold.training.events import Event

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
