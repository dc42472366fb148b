"""One fitted model over HTTP, a route per verb."""

from __future__ import annotations

from importlib.util import find_spec

import lazy_loader

from twofold.errors import MissingExtraError

if not all(map(find_spec, ("starlette", "uvicorn", "prometheus_client", "pydantic_core"))):
    raise MissingExtraError(
        "The service needs Starlette, uvicorn and prometheus-client, which are not installed. "
        "Install 'twofold[service]'."
    )
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
