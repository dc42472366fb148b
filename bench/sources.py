"""Where the tables of the quality bench are, and how they are read.

All live under the folder that TWOFOLD_DATA names; nothing is downloaded.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
Array = NDArray[Any]


class Missing(Exception):
    """Data or a package that is not here; says which."""


def folder(name: str) -> Path:
    """Return the folder of a collection."""
    root = os.environ.get("TWOFOLD_DATA")
    if not root:
        raise Missing("TWOFOLD_DATA names no folder with the tables")
    path = Path(root) / name
    if not path.is_dir():
        raise Missing(f"{path} is not there")
    return path


def files(name: str, pattern: str) -> list[Path]:
    """Return a collection's files, the smallest first."""
    found = sorted(folder(name).glob(pattern), key=lambda path: (path.stat().st_size, path.name))
    if not found:
        raise Missing(f"{folder(name)} holds no {pattern}")
    return found


def file(collection: str, name: str) -> Path:
    path = folder(collection) / name
    if not path.is_file():
        raise Missing(f"{path} is not there")
    return path


@lru_cache(maxsize=32)
def labelled(path: Path) -> tuple[Array, Array]:
    """Read rows and labels (1 is an anomaly) of an .npz or a .mat file."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=True) as found:
            x, y = found["X"], found["y"]
    else:
        x, y = _matlab(path)
    return np.asarray(x, dtype=np.float64), np.asarray(y).ravel().astype(np.int64)


def _matlab(path: Path) -> tuple[Array, Array]:
    from scipy.io import loadmat

    try:
        found = loadmat(path)
    except NotImplementedError:  # version 7.3 is HDF5, columns first
        try:
            import h5py
        except ImportError as error:
            raise Missing(f"{path.name} is HDF5, and h5py is not installed") from error
        with h5py.File(path) as h5:
            return np.asarray(h5["X"]).T, np.asarray(h5["y"])
    return found["X"], found["y"]


@lru_cache(maxsize=8)
def matrix(path: Path, skip: int = 0) -> Array:
    """Read a CSV file of numbers, less its first `skip` columns."""
    import pandas

    return pandas.read_csv(path).to_numpy(dtype=np.float64)[:, skip:]


def raw(path: Path) -> Array:
    """Return a file's bytes, to hand them on as they are."""
    return np.frombuffer(path.read_bytes(), dtype=np.uint8)
