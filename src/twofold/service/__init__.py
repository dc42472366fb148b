"""The service: one fitted model over HTTP, a route per verb."""

from twofold.service.app import create_app

__all__ = ["create_app"]
