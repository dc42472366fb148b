"""A model with everything that is made for it; another version replaces it as a whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from twofold.errors import OptionError
from twofold.estimators.autoencoder import Autoencoder, load
from twofold.persistence import summary
from twofold.persistence.folder import DOCUMENT
from twofold.service import responses
from twofold.service.batching import Result, Verb
from twofold.service.model import ServedModel
from twofold.service.requests import Limits, Reader
from twofold.service.responses import Answer


class Deployment:
    """A model that is served, its verbs, and the reader of what is sent to it.

    Parameters
    ----------
    model : Autoencoder
    limits : Limits
    folder : Path, optional
        Where the model was loaded from.
    version : str, optional
        Which model that was.
    """

    def __init__(
        self,
        model: Autoencoder,
        limits: Limits,
        folder: Path | None = None,
        version: str | None = None,
    ) -> None:
        self.served, self.limits = ServedModel(model), limits
        self.folder, self.version = folder, version
        self.schema, served = self.served.model.schema_, self.served
        self.names = list(served.names)
        self.reader = Reader(self.schema, served.named, served.code_names, limits)
        self.document: dict[str, Any] | None = None
        most = served.most_rows
        self.verbs = {
            verb.name: verb
            for verb in (
                Verb("encode", served.encode, most, check=served.check),
                Verb("decode", served.decode, most),
                Verb("reconstruct", served.reconstruct, most, check=served.check),
                Verb("score", served.score, most, check=served.check),
                Verb("explain", served.explain, served.most_explained, check=served.check),
                Verb("impute", served.impute, most, _has_no_dictionary, served.check),
            )
        }

    @classmethod
    def of(cls, model: Autoencoder | str | os.PathLike[str], limits: Limits) -> Deployment:
        """Return the deployment of a model, or of the one in a folder."""
        if isinstance(model, Autoencoder):
            return cls(model, limits)
        folder = Path(model)
        while True:
            version = version_of(folder)
            loaded = load(folder)
            if version == version_of(folder):  # or else it was replaced in between
                return cls(loaded, limits, folder, version)

    def reloaded(self) -> Deployment:
        """Return what the folder holds now."""
        if self.folder is None:
            raise OptionError("The model came from memory. Create the application from a folder.")
        return Deployment.of(self.folder, self.limits)

    def describe(self, versions: Mapping[str, str]) -> dict[str, Any]:
        """Return what the model is, as plain data: options, layers, training, figures, versions."""
        ae = self.served.model
        network = ae.network_
        return {
            "version": self.version,
            "replaced": self.folder is not None and version_of(self.folder) != self.version,
            "options": {name: _plain(value) for name, value in ae.get_params(deep=False).items()},
            "n_columns": len(ae.schema_.columns),
            "n_components": network.n_components,
            "n_parameters": network.n_parameters,
            "layers": [asdict(layer) for layer in network.layers(ae.scorer_.link)],
            "training": {
                "epochs": len(ae.history_),
                "best_epoch": ae.best_epoch_,
                "history": ae.history_,
            },
            "comparison": asdict(ae.comparison_),
            "offset": ae.offset_,
            "summary": ae.summary(),
            "remarks": summary.remarks(ae),
            "versions": dict(versions),
        }

    def answer(self, name: str, found: Result) -> Answer:
        """Return the answer that a verb's result is."""
        if name == "encode":
            return responses.of_codes(found["codes"], self.served.code_names)
        if name == "score":
            return responses.of_scores(found, self.served.model.offset_)
        if name == "explain":
            return responses.of_explanation(found, self.names)
        rows = found["rows"]
        return responses.of_rows(rows, self._names_of(rows), self.schema.row_shape)

    def answer_of_draws(self, drawn: list[Any]) -> Answer:
        """Return the answer that several tables of the same rows are."""
        return responses.of_draws(drawn, self._names_of(drawn[0]), self.schema.row_shape)

    def _names_of(self, rows: Any) -> list[str]:
        return list(rows.column_names) if isinstance(rows, pa.Table) else self.names


def version_of(folder: Path) -> str | None:
    """Return which model is in a folder, as a short text, or None if there is none."""
    try:
        return hashlib.sha256((folder / DOCUMENT).read_bytes()).hexdigest()[:16]
    except OSError:
        return None


def _has_no_dictionary(rows: Any) -> bool:
    """Whether rows share no dictionary with others, in which an answer would show theirs."""
    return not isinstance(rows, pa.Table) or not any(map(pa.types.is_dictionary, rows.schema.types))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return repr(value)
