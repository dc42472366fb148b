"""Experiment tracking: TensorBoard and MLflow, as callbacks of training.

    with TensorBoard("runs/first", ae) as log:
        ae.fit(X, callbacks=[log])

Per epoch go the losses, the learning rate and the rows per second; of a model that is given, its
options at the start, and at the end what came of it.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from twofold.errors import DataError, MissingExtraError, OptionError
from twofold.training.events import Event

if TYPE_CHECKING:
    from twofold.estimators.autoencoder import Autoencoder

_MOST_TEXT = 500  # characters of an option's value: MLflow's servers refuse long ones


def figures(model: Autoencoder) -> dict[str, float]:
    """Return what came of a training, by name; numbers that are none are left out."""
    best = model.history_[model.best_epoch_ - 1] if model.best_epoch_ else {}
    found = {
        "best_epoch": float(model.best_epoch_),
        "best_loss": best.get("loss", math.nan),
        "best_validation_loss": best.get("validation_loss", math.nan),
        "offset": model.offset_,
        "parameters": float(model.network_.n_parameters),
        "squared_error_beside_pca": model.comparison_.ratio,
        **{name: float(value) for name, value in asdict(model.comparison_).items()},
    }
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


class _Log(ABC):
    """What logs have in common: epochs go on over several trainings, and an end comes last."""

    def __init__(self, model: Autoencoder | None) -> None:
        self.model = model
        self._past = self._epoch = 0
        self._begun = False

    def __call__(self, event: Event) -> None:
        """Take one event of training."""
        if not self._begun:
            self._begin({} if self.model is None else _texts(self.model.get_params(deep=False)))
            self._begun = True
        if event.kind == "start":
            self._past = self._epoch
        elif event.kind == "epoch":
            self._epoch = self._past + event.epoch
            figures = {**event.losses, "learning_rate": event.learning_rate}
            self._write({**figures, "rows_per_second": event.rows_per_second}, self._epoch)
        elif event.kind == "end":
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(failed=error is not None)

    def close(self, failed: bool = False) -> None:
        """Write what came of the model, unless the training failed, and end."""
        if not self._begun:
            return
        self._begun = False
        if not failed and self.model is not None and hasattr(self.model, "comparison_"):
            self._conclude(figures(self.model), self._epoch)
        self._end(failed)

    @abstractmethod
    def _begin(self, options: Mapping[str, str]) -> None: ...

    @abstractmethod
    def _write(self, numbers: Mapping[str, float], epoch: int) -> None: ...

    @abstractmethod
    def _conclude(self, numbers: Mapping[str, float], epoch: int) -> None: ...

    @abstractmethod
    def _flush(self) -> None: ...

    @abstractmethod
    def _end(self, failed: bool) -> None: ...


class TensorBoard(_Log):
    """Writes a training for TensorBoard: `tensorboard --logdir FOLDER` then shows it.

    Parameters
    ----------
    folder : path-like
        Where the run is written; a folder of its own for every run.
    model : Autoencoder, optional
        What is trained: its options and what came of it are written, too.

    Raises
    ------
    MissingExtraError
        Where `tensorboard` is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(30, 4))
    >>> ae = Autoencoder(n_components=2, epochs=2, random_state=0)
    >>> with TensorBoard("runs/first", ae) as log:
    ...     ae = ae.fit(X, callbacks=[log])
    """

    def __init__(self, folder: str | os.PathLike[str], model: Autoencoder | None = None) -> None:
        super().__init__(model)
        try:
            from torch.utils.tensorboard import SummaryWriter, summary
        except ImportError as error:
            raise MissingExtraError(
                "TensorBoard is not installed. Install 'twofold[tracking]'."
            ) from error
        self.folder = folder
        self._open, self._summary = SummaryWriter, summary
        self._options: dict[str, str] = {}

    def _begin(self, options: Mapping[str, str]) -> None:
        try:
            os.makedirs(self.folder, exist_ok=True)
            self._writer = self._open(os.fspath(self.folder))
        except OSError as error:
            raise DataError(
                f"{self.folder} cannot be written: {error.strerror or error}. Choose another "
                f"folder."
            ) from error
        self._options = dict(options)
        if options:
            rows = [f"| {name} | {_cell(text)} |" for name, text in options.items()]
            self._writer.add_text("options", "\n".join(["| option | value |", "|---|---|", *rows]))

    def _write(self, numbers: Mapping[str, float], epoch: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)

    def _conclude(self, numbers: Mapping[str, float], epoch: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"result/{name}", value, epoch)
        # Into the run's own file: the writer's own verb would make another run of it.
        named = {f"result/{name}": value for name, value in numbers.items()}
        for part in self._summary.hparams(self._options, named):
            assert self._writer.file_writer is not None
            self._writer.file_writer.add_summary(part)

    def _flush(self) -> None:
        self._writer.flush()

    def _end(self, failed: bool) -> None:
        self._writer.close()


class MLflow(_Log):
    """Writes a training to MLflow, as one run.

    Parameters
    ----------
    experiment : str
        The experiment that the run belongs to; it is made where there is none.
    model : Autoencoder, optional
        What is trained: its options and what came of it are written, too.
    run_name : str, optional
        What the run is called; by default MLflow finds a name.
    tracking_uri : str, optional
        Where MLflow keeps runs: a server's address, "sqlite:///runs.db" (with the whole of MLflow
        installed) or a folder (which MLflow no longer takes unless MLFLOW_ALLOW_FILE_STORE is
        "true"). By default what MLflow is set to.

    Attributes
    ----------
    run_id : str
        What MLflow calls the run; empty until training begins.

    Raises
    ------
    MissingExtraError
        Where `mlflow` is not installed.
    OptionError
        When training begins, if MLflow cannot keep a run there. What it refuses later becomes a
        warning, for it is not worth a training.
    """

    def __init__(
        self,
        experiment: str,
        model: Autoencoder | None = None,
        *,
        run_name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        super().__init__(model)
        try:
            import mlflow
        except ImportError as error:
            raise MissingExtraError(
                "MLflow is not installed. Install 'twofold[tracking]'."
            ) from error
        self._mlflow = mlflow
        self.experiment, self.run_name, self.tracking_uri = experiment, run_name, tracking_uri
        self.run_id = ""
        self._refused = False

    def _begin(self, options: Mapping[str, str]) -> None:
        try:
            self._client = self._mlflow.MlflowClient(self.tracking_uri)
            found = self._client.get_experiment_by_name(self.experiment)
            if found is None:
                number = self._client.create_experiment(self.experiment)
            else:
                number = found.experiment_id
            run = self._client.create_run(number, run_name=self.run_name)
            self.run_id = run.info.run_id
            self._client.log_batch(self.run_id, params=self._params(options))
        except (self._mlflow.MlflowException, OSError, ImportError) as error:
            where = "" if self.tracking_uri is None else f" at {self.tracking_uri}"
            raise OptionError(
                f"MLflow cannot keep a run{where}: {_reason(error)}. Give the address of a server, "
                f"'sqlite:///runs.db' with the whole of MLflow installed, or a folder with "
                f"MLFLOW_ALLOW_FILE_STORE=true in the environment."
            ) from error

    def _params(self, options: Mapping[str, str]) -> Sequence[Any]:
        from mlflow.entities import Param

        return [Param(name, text) for name, text in options.items()]

    def _write(self, numbers: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._try(
            lambda: self._client.log_batch(
                self.run_id, metrics=[Metric(name, x, now, epoch) for name, x in numbers.items()]
            )
        )

    def _conclude(self, numbers: Mapping[str, float], epoch: int) -> None:
        self._write({f"result.{name}": value for name, value in numbers.items()}, epoch)

    def _flush(self) -> None:
        pass

    def _end(self, failed: bool) -> None:
        status = "FAILED" if failed else "FINISHED"
        self._try(lambda: self._client.set_terminated(self.run_id, status))

    def _try(self, request: Callable[[], object]) -> None:
        """Ask MLflow for something, until it refuses once."""
        if self._refused:
            return
        try:
            request()
        except (self._mlflow.MlflowException, OSError) as error:
            self._refused = True
            warnings.warn(
                f"MLflow refused what was logged, and is left alone from here on: "
                f"{_reason(error)}.",
                UserWarning,
                stacklevel=2,
            )


def _texts(options: Mapping[str, Any]) -> dict[str, str]:
    """Return options as short texts."""
    texts = {name: str(value) for name, value in options.items()}
    return {
        name: text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 3]}..."
        for name, text in texts.items()
    }


def _cell(text: str) -> str:
    """Return a text as a cell of a table in Markdown."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _reason(error: BaseException) -> str:
    """Return the first sentence of what went wrong."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0].rstrip(".")
