"""Rows from any source, in memory or on disk, and back in the caller's container."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
