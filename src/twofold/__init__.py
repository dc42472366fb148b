"""Stacked autoencoders with tied weights: one weight matrix, used both ways."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twofold import datasets, images
    from twofold.autoencoder import Autoencoder, load
    from twofold.bottleneck import Ordered, Plain, Sparse, Variational
    from twofold.corruption import Binarize, Gaussian, Masking, SaltAndPepper, Swap, Warp
    from twofold.errors import TwofoldError
    from twofold.files import Files
    from twofold.imputer import Imputer
    from twofold.layers import Conv, Recurrent

__version__ = "0.1.0"
__all__ = [
    "Autoencoder",
    "Binarize",
    "Conv",
    "Files",
    "Gaussian",
    "Imputer",
    "Masking",
    "Ordered",
    "Plain",
    "Recurrent",
    "SaltAndPepper",
    "Sparse",
    "Swap",
    "TwofoldError",
    "Variational",
    "Warp",
    "__version__",
    "datasets",
    "images",
    "load",
]

_HOMES = {
    "Autoencoder": "autoencoder",
    "Binarize": "corruption",
    "Files": "files",
    "Gaussian": "corruption",
    "Masking": "corruption",
    "SaltAndPepper": "corruption",
    "Swap": "corruption",
    "Conv": "layers",
    "Imputer": "imputer",
    "load": "autoencoder",
    "Ordered": "bottleneck",
    "Plain": "bottleneck",
    "Recurrent": "layers",
    "Sparse": "bottleneck",
    "Variational": "bottleneck",
    "Warp": "corruption",
    "TwofoldError": "errors",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `import twofold` and `twofold --help` do not wait for torch and scikit-learn.
    if name in ("datasets", "images"):
        return import_module(f"twofold.{name}")
    if name in _HOMES:
        return getattr(import_module(f"twofold.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'twofold' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
