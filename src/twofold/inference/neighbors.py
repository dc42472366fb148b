"""Looking at codes: which rows are near each other, and where they lie on a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from twofold.errors import OptionError
from twofold.options import require_integer

Array = NDArray[Any]
MAPS = ("auto", "codes", "pca", "tsne")
_LEAST_PERPLEXITY_ROWS = 4


def on_a_map(codes: Array, method: str, random_state: np.random.RandomState) -> Array:
    """Return a place in the plane for each code, `(n_rows, 2)`; `Autoencoder.code_map` says how."""
    n_rows, k = codes.shape
    if method not in MAPS:
        raise OptionError(
            f"Expected method to be one of {', '.join(MAPS)}, got {method!r}. Choose one."
        )
    if method == "codes" and k != 2:
        raise OptionError(
            f"Expected codes of 2 components, which method='codes' draws as they are, got {k}. "
            f"Choose 'pca' or 'tsne', or fit with n_components=2."
        )
    if method == "tsne":
        if n_rows < _LEAST_PERPLEXITY_ROWS:
            raise OptionError(
                f"Expected at least {_LEAST_PERPLEXITY_ROWS} rows, which method='tsne' places by "
                f"their neighbours, got {n_rows}. Choose 'pca'."
            )
        # A row's perplexity is about how many neighbours it has (van der Maaten and Hinton, 2008).
        tsne = TSNE(perplexity=min(30.0, (n_rows - 1) / 3), random_state=random_state)
        return np.asarray(tsne.fit_transform(np.ascontiguousarray(codes, dtype=np.float32)))
    if k == 2 and method != "pca":
        return codes
    n = min(2, k, n_rows)
    places = PCA(n, svd_solver="full").fit_transform(codes) if n_rows > 1 else np.zeros((n_rows, n))
    return np.pad(places, ((0, 0), (0, 2 - n))).astype(codes.dtype, copy=False)


def axis_titles(n_components: int, method: str) -> tuple[str, str]:
    """Return what the axes of `on_a_map` show."""
    if method == "tsne":
        return "t-SNE axis 1", "t-SNE axis 2"
    if n_components == 2 and method != "pca":
        return "component 0", "component 1"
    second = "principal component 2 of the codes" if n_components > 1 else ""
    return "principal component 1 of the codes", second


def nearest(codes: Array, among: Array, n: int) -> tuple[Array, NDArray[np.int64]]:
    """Return distances to the `n` nearest codes of `among`, and their positions, nearest first.

    Raises
    ------
    OptionError
        If `among` holds fewer than `n` rows.
    """
    require_integer("n", n, 1, len(among))
    distances, positions = NearestNeighbors(n_neighbors=n).fit(among).kneighbors(codes)
    return distances, positions
