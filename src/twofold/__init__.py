"""Stacked autoencoders with tied weights: one weight matrix, used both ways."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twofold import datasets
    from twofold.autoencoder import Autoencoder, load
    from twofold.bottleneck import Plain
    from twofold.corruption import Gaussian, Masking, SaltAndPepper, Swap
    from twofold.errors import TwofoldError
    from twofold.imputer import Imputer

__version__ = "0.1.0"
__all__ = [
    "Autoencoder",
    "Gaussian",
    "Imputer",
    "Masking",
    "Plain",
    "SaltAndPepper",
    "Swap",
    "TwofoldError",
    "__version__",
    "datasets",
    "load",
]

_HOMES = {
    "Autoencoder": "autoencoder",
    "Gaussian": "corruption",
    "Masking": "corruption",
    "SaltAndPepper": "corruption",
    "Swap": "corruption",
    "Imputer": "imputer",
    "load": "autoencoder",
    "Plain": "bottleneck",
    "TwofoldError": "errors",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `import twofold` and `twofold --help` do not wait for torch and scikit-learn.
    if name == "datasets":
        return import_module("twofold.datasets")
    if name in _HOMES:
        return getattr(import_module(f"twofold.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'twofold' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
