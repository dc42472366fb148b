"""The model file: a folder with `weights.safetensors` and `model.json`, written all or not at all.

Nothing in it is code: weights are plain tensors, everything else is JSON. The JSON holds the
weights' SHA-256 and its own, so a cut-off or altered folder is refused before any of it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from twofold import __version__
from twofold.data import addresses
from twofold.data.output import require_free_folder, write_folder
from twofold.errors import DataError, ModelFileError
from twofold.formatting import shortened

FORMAT = 2
WEIGHTS = "weights.safetensors"
DOCUMENT = "model.json"
_MOST_JSON = 256 * 2**20  # larger than the document of any model
_COPY_AGAIN = "Copy the whole folder again, or fit the model again."


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    document: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Write a model folder; an interrupted or failed write leaves what was there untouched.

    Raises
    ------
    OutputExistsError
        If `path` exists and `overwrite` is false, or exists and is not a model folder.
    ModelFileError
        If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    require_free(path, overwrite)
    blob = tensors_to_bytes({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    body = {
        "format": FORMAT,
        "weights_sha256": hashlib.sha256(blob).hexdigest(),
        "weights_bytes": len(blob),
        **document,
    }
    text = json.dumps({**body, "sha256": _digest(body)}, indent=1, allow_nan=False)
    try:
        write_folder(path, {WEIGHTS: blob, DOCUMENT: text.encode()})
    except DataError as error:
        raise ModelFileError(str(error)) from error


def require_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise OutputExistsError if a model may not be written to `path`.

    Even with `overwrite`, only another model folder gives way.
    """
    model = f"a twofold model, which is a folder with {WEIGHTS}, {DOCUMENT} and nothing else"
    require_free_folder(path, overwrite, lambda held: held == {DOCUMENT, WEIGHTS}, model)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model folder: its tensors by name, and its document.

    Raises
    ------
    ModelFileError
        If the folder is missing, cut off, altered, or of another version's format.
    """
    address, path = addresses.address_of(path), addresses.local(path)
    if address is None and not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ModelFileError(
            f"Expected a model's folder, with {WEIGHTS} and {DOCUMENT}, and {path} {what}. Give "
            f"the path of a folder that `save` wrote."
        )
    document = _read_document(path / DOCUMENT)
    blob = _read_bytes(path / WEIGHTS, document["weights_bytes"])
    if hashlib.sha256(blob).hexdigest() != document["weights_sha256"]:
        raise ModelFileError(
            f"{path / WEIGHTS} is cut off or altered: its SHA-256 is not the one in {DOCUMENT}. "
            f"{_COPY_AGAIN}"
        )
    try:
        return read_tensors(blob), document
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelFileError(
            f"{path / WEIGHTS} cannot be read as tensors: {error}. {_COPY_AGAIN}"
        ) from error


def _read_bytes(path: Path, most: int) -> bytes:
    try:
        if addresses.address_of(path):
            return addresses.parent_of(path).read(path.name)
        status = path.stat()
        # A pipe or a device, which a link may lead to, could be waited for or read without end.
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(
                f"Expected {path} to be a plain file, got a folder, a pipe or a device. "
                f"{_COPY_AGAIN}"
            )
        if status.st_size > most:
            raise ModelFileError(
                f"{path} is altered: expected at most {most:,} bytes, got {status.st_size:,}. "
                f"{_COPY_AGAIN}"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{addresses.shown(path)} cannot be read: {error.strerror or error}. A model is a "
            f"folder with {WEIGHTS} and {DOCUMENT}. {_COPY_AGAIN}"
        ) from error


def _read_document(path: Path) -> dict[str, Any]:
    raw = _read_bytes(path, _MOST_JSON)
    try:
        document = json.loads(raw)
        digest = document.pop("sha256", None) if isinstance(document, dict) else None
        actual = _digest(document)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is cut off or altered: {error}. {_COPY_AGAIN}") from error
    number = document.get("format") if isinstance(document, dict) else None
    if type(number) is not int or number < 1:
        raise ModelFileError(
            f"Expected {path} to be a model's document with its format, got none. {_COPY_AGAIN}"
        )
    if number != FORMAT:
        version = document.get("versions")
        made = version.get("twofold") if isinstance(version, dict) else None
        raise ModelFileError(
            f"{path} has format {number}, written by twofold {shortened(str(made), 20)}; expected "
            f"format {FORMAT}, which twofold {__version__} reads. Fit the model again, or install "
            f"the version that wrote it."
        )
    about_weights = document.get("weights_sha256"), document.get("weights_bytes")
    if digest != actual or tuple(map(type, about_weights)) != (str, int):
        raise ModelFileError(
            f"{path} was altered: its content does not match its own SHA-256. {_COPY_AGAIN}"
        )
    return dict(document)


def _digest(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def plain(value: Any) -> Any:
    """Return an option's value as JSON can hold it; a generator's state is not kept."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.random.RandomState):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [int(item) for item in value]
    return value


def number(value: float) -> float | int | str:
    """Return the number as JSON can hold it, which knows neither NaN nor infinity."""
    if isinstance(value, int):
        return value
    return float(value) if np.isfinite(value) else str(float(value))


def numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return an epoch of the history, or raise ValueError if it holds anything but numbers."""
    if not all(isinstance(value, int | float) for value in entry.values()):
        raise ValueError(f"expected numbers in the history, got {entry!r}")
    return dict(entry)


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
