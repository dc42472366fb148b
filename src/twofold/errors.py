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


class CheckpointError(TwofoldError):
    """Training cannot go on from a checkpoint, or none can be written; the message says why."""


class WorkerError(TwofoldError):
    """One of several workers that train together has failed, or they end again and again."""


class MissingExtraError(TwofoldError, ImportError):
    """An optional package is needed; the message names the extra to install."""


class LosesToPCAWarning(UserWarning):
    """The fitted network reconstructs held-out rows worse than PCA of the same code size."""


class InterruptedWarning(UserWarning):
    """Training was interrupted; the model holds the best weights seen until then."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written or read; training goes on without it."""


class WorkerWarning(UserWarning):
    """A worker has ended before its time; all go on from the last checkpoint."""


class CollapsedCodeWarning(UserWarning):
    """No component of a variational code tells rows apart."""


class TooFewComponentsWarning(UserWarning):
    """All components of an ordered code together keep less variance than was asked for."""


class SkippedFilesWarning(UserWarning):
    """Files of a source could not be used, and were left out as asked."""
