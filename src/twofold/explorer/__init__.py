"""The explorer: a page on a model and the rows of a source, and the server behind it."""

from twofold.explorer.app import create_app

__all__ = ["create_app"]
