"""Errors and warnings: every message says what was expected, what came, where, and what to do."""

from __future__ import annotations


class TwofoldError(ValueError):
    """A request that cannot be carried out; the message says why and what to do."""


class OptionError(TwofoldError):
    """An option of the estimator has an invalid value; every mistake is listed."""


class DataError(TwofoldError):
    """A source cannot be read, or its rows cannot be used as they are."""


class DatasetUnavailable(TwofoldError):
    """No source of a public data set answered."""


class ModelFileError(TwofoldError):
    """A model folder is missing, cut off, altered or from an unknown version."""


class OutputExistsError(TwofoldError):
    """A file or folder exists and would be overwritten."""


class DivergenceError(TwofoldError):
    """The loss became infinite or not a number; the message names epoch, step and likely cause."""


class CheckpointError(TwofoldError):
    """Training cannot resume from a checkpoint, or none can be written; the message says why."""


class WorkerError(TwofoldError):
    """A worker of a group has failed, or workers failed too many times."""


class MissingExtraError(TwofoldError, ImportError):
    """An optional package is needed; the message names the extra to install."""


class LosesToPCAWarning(UserWarning):
    """The fitted network reconstructs held-out rows worse than PCA of the same code size."""


class InterruptedWarning(UserWarning):
    """Training was interrupted; the model holds the best weights seen until then."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written or read; training goes on without it."""


class WorkerWarning(UserWarning):
    """A worker ended unexpectedly; all resume from the last checkpoint."""


class CollapsedCodeWarning(UserWarning):
    """No component of a variational code depends on the row."""


class TooFewComponentsWarning(UserWarning):
    """All components of an ordered code together keep less variance than requested."""


class UnfilledWarning(UserWarning):
    """Missing cells stay missing, since which of several rare levels they hold is unknown."""


class DetectedWarning(UserWarning):
    """Something about a text file was detected that could be otherwise; the message says how."""


class IgnoredColumnsWarning(UserWarning):
    """Columns of numbers or times are ignored, since a few of their cells are neither."""


class SkippedFilesWarning(UserWarning):
    """Files of a source could not be used and were skipped, as requested."""
