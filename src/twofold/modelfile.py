"""What a model folder holds: a fitted estimator's parts as tensors and one document, and back."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from torch import Tensor

from twofold import __version__, bundle, corruption, metrics
from twofold.errors import ModelFileError
from twofold.network import Network
from twofold.objective import Objective
from twofold.schema import Schema

_MOST_ROUNDS = 1000  # of filling holes; more would keep the caller waiting


@dataclass(frozen=True)
class Parts:
    """Everything that makes a fitted estimator; its attributes say what each part is."""

    options: Mapping[str, Any]
    schema: Schema
    feature_names: bool
    network: Network
    objective: Objective
    pca: metrics.PCA
    comparison: metrics.Comparison
    offset: float
    calibration_scores: NDArray[np.float64]
    history: list[dict[str, float]]
    best_epoch: int


def save(path: str | os.PathLike[str], parts: Parts, overwrite: bool) -> None:
    """Write the parts to the folder `path`, whole or not at all; raises as `bundle.write` does."""
    tensors = {f"network.{k}": v for k, v in parts.network.state_dict().items()}
    tensors |= {f"objective.{k}": v for k, v in parts.objective.state_dict().items()}
    tensors["pca.mean"] = torch.from_numpy(parts.pca.mean)
    tensors["pca.components"] = torch.from_numpy(parts.pca.components)
    tensors["calibration.scores"] = torch.from_numpy(parts.calibration_scores)
    shape = [pair.n_out for pair in parts.network.pairs]
    document = {
        "options": {k: _plain(v) for k, v in parts.options.items()},
        "schema": parts.schema.to_json(),
        "feature_names": parts.feature_names,
        "network": {"hidden_layers": shape[:-1], "n_components": shape[-1]},
        "history": parts.history,
        "best_epoch": parts.best_epoch,
        "calibration": {"offset": bundle.number(parts.offset)},
        "comparison": {k: bundle.number(v) for k, v in asdict(parts.comparison).items()},
        "versions": {
            "twofold": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
    }
    bundle.write(path, tensors, document, overwrite)


def load(path: str | os.PathLike[str]) -> Parts:
    """Read back what `save` wrote, without running code from it.

    Raises
    ------
    ModelFileError
        Where the folder is missing, cut off, altered, or written by a newer version.
    """
    tensors, document = bundle.read(path)
    try:
        return _assemble(tensors, document)
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise ModelFileError(
            f"{path} does not fit together: {type(error).__name__}: {error}. It was altered; copy "
            f"the whole folder again, or fit the model anew."
        ) from error


def _plain(option: Any) -> Any:
    if type(option).__module__ == corruption.__name__:
        return corruption.to_json(option)
    return bundle.plain(option)


def _assemble(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> Parts:
    options = {**document["options"]}
    if isinstance(options.get("hidden_layers"), list):
        options["hidden_layers"] = tuple(options["hidden_layers"])
    if isinstance(options.get("corruption"), dict):
        options["corruption"] = corruption.from_json(options["corruption"])
    schema = Schema.from_json(document["schema"])
    network = _network(tensors, document["network"], options, schema)
    objective = Objective(schema).to(next(network.parameters()).dtype)
    objective.load_state_dict(bundle.part(tensors, "objective."))
    if not (1 <= int(objective.rounds) <= _MOST_ROUNDS and objective.noise > 0):
        raise ValueError("what it has learned of missing cells and of noise cannot be")
    if not (torch.isfinite(objective.spread) & (objective.spread >= 0)).all():
        raise ValueError("the spreads in it are none")
    pca = metrics.PCA(tensors["pca.mean"].numpy(), tensors["pca.components"].numpy())
    if pca.mean.shape + pca.components.shape[1:] != (schema.width,) * 2:
        raise ValueError("the PCA in it belongs to another table")
    scores = tensors["calibration.scores"].numpy()
    if scores.ndim != 1 or scores.dtype != np.float64:
        raise ValueError("the held-out scores in it are none")
    return Parts(
        options=options,
        schema=schema,
        feature_names=bool(document["feature_names"]),
        network=network,
        objective=objective,
        pca=pca,
        comparison=metrics.Comparison.from_json(document["comparison"]),
        offset=float(document["calibration"]["offset"]),
        calibration_scores=scores,
        history=[bundle.numbers(entry) for entry in document["history"]],
        best_epoch=int(document["best_epoch"]),
    )


def _network(
    tensors: Mapping[str, Tensor],
    layout: Mapping[str, Any],
    options: Mapping[str, Any],
    schema: Schema,
) -> Network:
    if f"network.levels.{len(layout['hidden_layers'])}.weight" not in tensors:
        raise ValueError("the layers in the document are not those of the weights")
    # Built without memory, then given the tensors: a hostile layout cannot claim more of it than
    # the file holds.
    with torch.device("meta"):
        network = Network(
            schema.width,
            layout["hidden_layers"],
            layout["n_components"],
            tied=options["tied"],
            activation=options["activation"],
            code_activation=options["code_activation"],
        )
    network.load_state_dict(bundle.part(tensors, "network."), assign=True)
    return network.to(torch.float64 if options["precision"] == "float64" else torch.float32)
