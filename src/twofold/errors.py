"""What can go wrong, as one small family: every message says what came, where, and what to do."""

from __future__ import annotations


class TwofoldError(ValueError):
    """Something twofold was asked for cannot be done; the message says why and what to do."""


class OptionError(TwofoldError):
    """An option of the estimator has a value that means nothing; every mistake is listed."""


class DataError(TwofoldError):
    """A source cannot be read, or its rows cannot be used as they are."""


class DatasetUnavailable(TwofoldError):
    """No source of a public data set answered."""


class ModelFileError(TwofoldError):
    """A model folder is missing, cut off, altered or from an unknown version."""


class OutputExistsError(TwofoldError):
    """A file or folder would be overwritten; nothing is, unless asked for."""


class DivergenceError(TwofoldError):
    """Training left the finite numbers; the message names epoch, step and likely cause."""


class MissingExtraError(TwofoldError, ImportError):
    """An optional package is needed; the message names the extra to install."""


class LosesToPCAWarning(UserWarning):
    """The fitted network reconstructs held-out rows worse than PCA of the same code size."""


class InterruptedWarning(UserWarning):
    """Training was interrupted; the model holds the best weights seen until then."""
