"""What a model folder holds: a fitted estimator as tensors and one document, and back."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sklearn
import torch
from torch import Tensor

from twofold import __version__, metrics
from twofold.errors import ModelFileError
from twofold.formatting import shortened
from twofold.inference.calibration import Calibration
from twofold.inference.donors import Donors, matched_columns
from twofold.inference.level_pairs import LevelPairs
from twofold.inference.sampling import TrainingCells
from twofold.nn import bottleneck, corruption, layers
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.persistence import folder
from twofold.registry import ACTIVATIONS, BOTTLENECKS, LIKELIHOODS
from twofold.schema.schema import Schema

_MOST_ROUNDS = 1000  # of imputation; more would keep the caller waiting


@dataclass(frozen=True)
class ModelState:
    """Everything that makes a fitted estimator; the attributes say what each part is."""

    options: Mapping[str, Any]
    schema: Schema
    feature_names: bool
    network: Network
    calibration: Calibration
    history: list[dict[str, float]]
    best_epoch: int


def save(path: str | os.PathLike[str], state: ModelState, overwrite: bool) -> None:
    """Write a model to the folder `path`, whole or not at all; raise as `folder.write` does."""
    tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"scorer.{k}": v for k, v in state.calibration.scorer.state_dict().items()}
    found = state.calibration
    tensors["pca.mean"] = torch.from_numpy(found.pca.mean)
    tensors["pca.components"] = torch.from_numpy(found.pca.components)
    tensors["calibration.scores"] = torch.from_numpy(found.scores)
    if found.explained_variance_ratio is not None:
        ratio = torch.from_numpy(found.explained_variance_ratio)
        tensors["calibration.explained_variance_ratio"] = ratio
    donors, pairs = found.cells.donors, found.cells.pairs
    for name in ("values", "hidden", "own"):
        tensors[f"donors.{name}"] = torch.from_numpy(getattr(donors, name))
    tensors["levels.pairs"] = torch.from_numpy(pairs.pairs)
    tensors["levels.values"] = torch.from_numpy(np.concatenate([*pairs.values, np.empty(0)]))
    document = {
        "options": plain(state.options),
        "schema": state.schema.to_json(),
        "feature_names": state.feature_names,
        "network": {
            "hidden_layers": [layers.to_json(layer) for layer in state.network.hidden_layers],
            "n_components": state.network.n_components,
            "shortcut": state.network.shortcut is not None,
            "activation": state.network.activation,
        },
        "history": state.history,
        "best_epoch": state.best_epoch,
        "calibration": {"offset": folder.number(found.offset)},
        "levels": {"columns": list(pairs.columns), "sizes": list(pairs.sizes)},
        "comparison": {k: folder.number(v) for k, v in asdict(found.comparison).items()},
        "versions": {
            "twofold": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
    }
    folder.write(path, tensors, document, overwrite)


def load(path: str | os.PathLike[str]) -> ModelState:
    """Read back what `save` wrote, without running code from it.

    Raises
    ------
    ModelFileError
        If the folder is missing, cut off, altered, or of another version's format, or the model
        uses what is not registered here.
    """
    tensors, document = folder.read(path)
    try:
        _require_registered(path, document)
        return _assemble(tensors, document)
    except ModelFileError:
        raise
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
    ) as error:
        reason = (str(error).splitlines() or [""])[0]  # PyTorch adds the frames of its own code
        raise ModelFileError(
            f"{path} does not fit together: {type(error).__name__}: {reason:.300}. It was altered; "
            f"copy the whole folder again, or fit the model again."
        ) from error


def _require_registered(path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
    """Raise ModelFileError if the model uses a record that nothing has registered here."""
    options, columns = document["options"], document["schema"]["columns"]
    used = [
        (LIKELIHOODS, column["likelihood"]) for column in columns if column["kind"] != "ignored"
    ]
    # "auto" is not a name; what it stood for is in the layout.
    activation = document["network"].get("activation", options["activation"])
    used += [(ACTIVATIONS, name) for name in (activation, options["code_activation"])]
    spec = options["bottleneck"]
    used.append((BOTTLENECKS, spec.partition(":")[0] if isinstance(spec, str) else spec["name"]))
    for records, name in used:
        if name not in records:
            raise ModelFileError(
                f"{path} uses the {records.noun} {shortened(repr(name))}, which is not registered. "
                f"Import the module that registers it, then load the model again."
            )


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON can hold them."""
    return {name: _plain(name, option) for name, option in options.items()}


def _plain(name: str, option: Any) -> Any:
    if isinstance(option, str) or option is None:
        return option
    if name == "hidden_layers":
        return [layers.to_json(layer) for layer in option]
    if name == "bottleneck":
        return bottleneck.to_json(option)
    if name == "corruption":
        return corruption.to_json(option)
    return folder.plain(option)


def _assemble(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> ModelState:
    _require_numbers(tensors)
    options = {**document["options"]}
    if isinstance(options.get("hidden_layers"), list):
        options["hidden_layers"] = tuple(map(layers.from_json, options["hidden_layers"]))
    if isinstance(options.get("corruption"), dict):
        options["corruption"] = corruption.from_json(options["corruption"])
    if isinstance(options.get("bottleneck"), dict):
        options["bottleneck"] = bottleneck.from_json(options["bottleneck"])
    schema = Schema.from_json(document["schema"])
    network = _network(tensors, document["network"], options, schema)
    scorer = Scorer(schema).to(next(network.parameters()).dtype)
    for prefix, module in (("network.", network), ("scorer.", scorer)):
        for name, own in module.state_dict().items():
            if (got := tensors[prefix + name].dtype) != own.dtype:
                raise ValueError(f"expected {own.dtype} in {prefix}{name}, got {got}")
    scorer.load_state_dict(folder.part(tensors, "scorer."))
    if not scorer.density.is_consistent:
        raise ValueError("the levels in it belong to another table")
    if not 1 <= int(scorer.rounds) <= _MOST_ROUNDS:
        raise ValueError(f"expected 1 to {_MOST_ROUNDS} rounds of imputation")
    if not (torch.isfinite(scorer.spread) & (scorer.spread >= 0)).all():
        raise ValueError("expected finite spreads of at least 0")
    pca = metrics.PCA(tensors["pca.mean"].numpy(), tensors["pca.components"].numpy())
    if pca.mean.shape + pca.components.shape[1:] != (schema.width,) * 2:
        raise ValueError("the PCA in it belongs to another table")
    scores = tensors["calibration.scores"].numpy()
    if scores.ndim != 1 or scores.dtype != np.float64:
        raise ValueError("expected one 64-bit number for each held-out score")
    ratio = tensors.get("calibration.explained_variance_ratio")
    if ratio is not None and ratio.shape != (network.n_components,):
        raise ValueError("the shares of variance in it belong to another code")
    return ModelState(
        options=options,
        schema=schema,
        feature_names=bool(document["feature_names"]),
        network=network,
        calibration=Calibration(
            scorer,
            pca,
            metrics.Comparison.from_json(document["comparison"]),
            float(document["calibration"]["offset"]),
            scores,
            None if ratio is None else ratio.double().numpy(),
            TrainingCells(_donors(tensors, schema), _level_pairs(tensors, document, schema)),
        ),
        history=[folder.numbers(entry) for entry in document["history"]],
        best_epoch=_count(document["best_epoch"], "best epoch", 0),
    )


def _count(value: Any, what: str, least: int) -> int:
    if type(value) is not int or not least <= value < 2**31:
        raise ValueError(f"expected a {what} of at least {least}, got {value!r:.100}")
    return value


def _donors(tensors: Mapping[str, Tensor], schema: Schema) -> Donors:
    columns = matched_columns(schema)
    parts = [tensors[f"donors.{name}"].double().numpy() for name in ("values", "hidden", "own")]
    if any(part.shape != (len(parts[0]), len(columns)) for part in parts):
        raise ValueError("the donors in it belong to another table")
    if not all(np.isfinite(part).all() for part in parts[1:]) or np.isinf(parts[0]).any():
        raise ValueError("the donors in it hold NaN or infinity")
    return Donors(columns, *parts)


def _level_pairs(
    tensors: Mapping[str, Tensor], document: Mapping[str, Any], schema: Schema
) -> LevelPairs:
    columns, sizes = (tuple(map(int, document["levels"][key])) for key in ("columns", "sizes"))
    values, parts = tensors["levels.values"].double().numpy(), []
    for i, size in zip(columns, sizes, strict=True):
        column = schema.columns[i]
        n = 0 if column.kind == "category" else size
        own, values = values[:n], values[n:]
        if len(own) < n or i < 0 or size < 1 or size != (n or column.width):
            raise ValueError("the categories in it belong to another table")
        parts.append(own)
    pairs = tensors["levels.pairs"].numpy()
    if pairs.dtype != np.uint8 or pairs.shape != (sum(sizes),) * 2:
        raise ValueError("the pairs of categories in it belong to another table")
    return LevelPairs(columns, tuple(parts), sizes, pairs)


def _require_numbers(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a tensor that is computed with holds NaN or infinity.

    The exception is a cluster that a density does not have: the logarithm of its weight is minus
    infinity. A density of no numbers has none.
    """
    for name, tensor in tensors.items():
        is_real = tensor.is_floating_point()
        if name.startswith(("pca.", "donors.", "calibration.", "levels.values")) and not is_real:
            raise ValueError(f"expected floating-point numbers in {name}, got {tensor.dtype}")
        if name.startswith(("calibration.", "donors.")) or not is_real:
            continue
        if name.endswith(".log_weight") and tensor.ndim:
            mean = tensors.get(name.removesuffix("log_weight") + "mean")
            if mean is not None and mean.ndim and mean.shape[-1] == 0:
                continue
            if not (tensor.double().logsumexp(-1).abs() < 0.01).all():
                raise ValueError(f"the weights in {name} do not sum to 1")
        elif not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity")


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
            [layers.resolve(layers.from_json(layer)) for layer in layout["hidden_layers"]],
            _count(layout["n_components"], "code of a size", 1),
            tied=options["tied"],
            activation=layout.get("activation", options["activation"]),
            code_activation=options["code_activation"],
            bottleneck=bottleneck.resolve(options["bottleneck"], options["n_components"]),
            row_shape=schema.row_shape,
            shortcut=bool(layout.get("shortcut", False)),
        )
    network.load_state_dict(folder.part(tensors, "network."), assign=True)
    return network.to(torch.float64 if options["precision"] == "float64" else torch.float32)
