"""Callbacks of training: early stopping, checkpoints of weights, learning rates, tracking.

    ae.fit(X, callbacks=[EarlyStopping(patience=5), TensorBoard("runs/first", ae)])

A callback is anything that can be called with an `Event`. It may raise `StopTraining` to end
training after the epoch; one with a method `prepare(trainer, data)` is called before training too.
"""

from __future__ import annotations

import copy
import math
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import safetensors.torch
import torch

from twofold.data.output import atomic_write
from twofold.errors import DataError, MissingExtraError, OptionError
from twofold.options import require_integer
from twofold.training.events import Event, StopTraining
from twofold.training.step import make_step

if TYPE_CHECKING:
    from twofold.estimators.autoencoder import Autoencoder
    from twofold.training.batches import TrainingData
    from twofold.training.trainer import Trainer

_SMOOTHING = 0.9  # share of the average that a further loss leaves
_MOST_TEXT = 500  # characters of an option's value: MLflow's servers refuse long ones


class EarlyStopping:
    """Ends training once a loss has not become smaller for some epochs.

    The option `patience` watches the loss on the held-out rows and keeps the best weights; this
    callback watches any loss of the history. Which weights are kept is still what `patience` says.

    Parameters
    ----------
    monitor : str, default="validation_loss"
        The loss to watch: "loss" or "validation_loss".
    patience : int, default=10
        Epochs without a smaller loss before training ends.
    min_delta : float, default=0.0
        By how many nats per cell a loss has to be smaller to count.

    Attributes
    ----------
    stopped_epoch : int or None
        Epoch after which training was ended, counted from 1.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> stop = EarlyStopping(monitor="loss", patience=1, min_delta=100.0)
    >>> ae = Autoencoder(epochs=50, random_state=0).fit(X, callbacks=[stop])
    >>> ae.n_iter_, stop.stopped_epoch
    (2, 2)
    """

    def __init__(
        self, monitor: str = "validation_loss", patience: int = 10, min_delta: float = 0.0
    ) -> None:
        self.patience = require_integer("patience", patience)
        self.monitor, self.min_delta = monitor, min_delta
        self.stopped_epoch: int | None = None
        self._best, self._waited = math.inf, 0

    def prepare(self, trainer: Trainer, data: TrainingData) -> None:
        """Begin to count, from where an interrupted run was."""
        self._best, self._waited, self.stopped_epoch = math.inf, 0, None
        saved = trainer.checkpoint
        for entry in [] if saved is None or saved.found is None else saved.found[1]["history"]:
            self._count(monitored(entry, self.monitor))

    def __call__(self, event: Event) -> None:
        """Take one event of training."""
        if event.kind != "epoch" or event.stage:
            return
        self._count(monitored(event.losses, self.monitor))
        if self._waited >= self.patience:
            self.stopped_epoch = event.epoch
            raise StopTraining(f"{self.monitor} not smaller for {self.patience} epochs")

    def _count(self, loss: float) -> None:
        smaller = loss < self._best - self.min_delta
        self._best, self._waited = (loss, 0) if smaller else (self._best, self._waited + 1)


class ModelCheckpoint:
    """Writes the network's weights after epochs, as safetensors.

    `fit(checkpoint=...)` keeps all that an interrupted training continues from; this callback keeps
    the weights of single epochs, for a look back at how the network came to be:
    `ae.network_.load_state_dict(safetensors.torch.load_file(path))`.

    Parameters
    ----------
    path : path-like
        Where to write. "{epoch}" in it becomes the epoch, as in "weights-{epoch:03d}.safetensors";
        without, the file always holds the latest weights.
    monitor : str, default="validation_loss"
        The loss that says which weights are best.
    best_only : bool, default=True
        Write only weights that are better than all before.

    Attributes
    ----------
    written : list of Path
        The files, in order.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> keep = ModelCheckpoint("weights-{epoch}.safetensors", best_only=False)
    >>> ae = Autoencoder(epochs=2, random_state=0).fit(X, callbacks=[keep])
    >>> [path.name for path in keep.written]
    ['weights-1.safetensors', 'weights-2.safetensors']
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "validation_loss",
        best_only: bool = True,
    ) -> None:
        self.path, self.monitor, self.best_only = os.fspath(path), monitor, best_only
        self.written: list[Path] = []
        self._best = math.inf
        self._network: torch.nn.Module | None = None

    def prepare(self, trainer: Trainer, data: TrainingData) -> None:
        """Note which network is trained."""
        self._network, self._best, self.written = trainer.network, math.inf, []

    def __call__(self, event: Event) -> None:
        """Take one event of training."""
        if event.kind != "epoch" or event.stage or self._network is None:
            return
        if self.best_only:
            loss = monitored(event.losses, self.monitor)
            if not loss < self._best:
                return
            self._best = loss
        path = Path(self.path.format(epoch=event.epoch))
        tensors = {name: t.detach().cpu() for name, t in self._network.state_dict().items()}
        with atomic_write(path) as file:
            file.write(safetensors.torch.save(tensors))
        if path not in self.written:
            self.written.append(path)


class LearningRateFinder:
    """Tries growing learning rates before training, and trains with the one it suggests.

    From the weights that training starts with, a copy of the network takes one step after another
    with a learning rate that grows from `least` to `most` (Smith, 2017, "Cyclical Learning Rates
    for Training Neural Networks", section 3.3). Suggested is the rate at which the smoothed loss
    falls most steeply. It stands in for the option `learning_rate`.

    Parameters
    ----------
    least, most : float
        The first and the last learning rate to try.
    steps : int, default=100
        How many to try.

    Attributes
    ----------
    learning_rates, losses : list of float
        What was tried, and the loss (nats per cell) that each step found.
    suggestion : float or None
        The learning rate that training goes on with; None if no rate made the loss smaller, as
        where training starts at its optimum. The option's rate then stays.

    Examples
    --------
    >>> import numpy as np
    >>> from twofold import Autoencoder
    >>> t = np.linspace(-3, 3, 300)
    >>> X = np.column_stack([np.sin(t), np.cos(t), np.tanh(t)])
    >>> finder = LearningRateFinder()
    >>> ae = Autoencoder(n_components=1, hidden_layers=(16,), shortcut=False, random_state=0)
    >>> ae = ae.fit(X, callbacks=[finder])
    >>> 1e-5 < finder.suggestion < 1.0
    True
    """

    def __init__(self, least: float = 1e-5, most: float = 1.0, steps: int = 100) -> None:
        if not (0 < least < most and steps >= 10):
            raise OptionError(
                f"Expected 0 < least < most and at least 10 steps, got least={least!r}, "
                f"most={most!r}, steps={steps!r}."
            )
        self.least, self.most, self.steps = least, most, steps
        self.learning_rates: list[float] = []
        self.losses: list[float] = []
        self.suggestion: float | None = None

    def prepare(self, trainer: Trainer, data: TrainingData) -> None:
        """Try learning rates on a copy of the network, and set the trainer's."""
        network, objective = copy.deepcopy(trainer.network), copy.deepcopy(trainer.objective)
        generator = torch.Generator()
        generator.set_state(trainer.generator.get_state())
        step = make_step(
            network, objective, trainer.config, complete=data.complete, generator=generator
        )
        ratio = (self.most / self.least) ** (1 / (self.steps - 1))
        self.learning_rates, self.losses = [], []
        while len(self.losses) < self.steps:
            for x in data.rows.batches(trainer.config.batch_size, generator, step.buffer):
                rate = self.least * ratio ** len(self.losses)
                loss = float(step.update(x, rate))
                if not math.isfinite(loss) or len(self.losses) >= self.steps:
                    return self._suggest(trainer)
                self.learning_rates.append(rate)
                self.losses.append(loss)
        return self._suggest(trainer)

    def __call__(self, event: Event) -> None:
        """Take one event of training; there is nothing to do."""

    def _suggest(self, trainer: Trainer) -> None:
        smooth, average = list[float](), 0.0
        for n, loss in enumerate(self.losses, 1):
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            smooth.append(average / (1 - _SMOOTHING**n))
        # Beyond the least loss, steps have become too large.
        end = smooth.index(min(smooth)) if smooth else 0
        falls = [smooth[i] - smooth[i + 1] for i in range(end)]
        self.suggestion = self.learning_rates[falls.index(max(falls))] if falls else None
        if self.suggestion is not None:
            trainer.config = replace(trainer.config, learning_rate=self.suggestion)


def monitored(losses: Mapping[str, float], name: str) -> float:
    """Return one of an epoch's losses; raise OptionError if there is none of that name."""
    if name not in losses:
        names = ", ".join(repr(one) for one in ("loss", "validation_loss") if one in losses)
        raise OptionError(
            f"monitor={name!r} is not measured in this training, which has {names}. Name one of "
            f"these, or hold rows out with validation_fraction or validation_data."
        )
    return losses[name]


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
