"""What a fitted model does with rows, each verb declared once.

The command line, the service and bulk inference take the name, the sentence that explains it, its
parameters and the columns of its result from here, and the tests hold the documentation to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

SCORE_COLUMNS = ("row", "score", "p_value", "label", "columns")
EXPLANATION_COLUMNS = ("row", "column", "observed", "expected", "contribution")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a verb, an integer of at least `least`."""

    name: str
    help: str
    least: int


@dataclass(frozen=True)
class Verb:
    """One verb: what it is called, what it needs, what it returns.

    Attributes
    ----------
    name : str
        Of the command and of the service's route.
    method : str
        Of the estimator.
    takes : "rows", "codes" or "nothing"
    returns : "codes", "rows", "scores" or "explanation"
    by_parts : bool
        Whether files are read, and results written, a part at a time; otherwise in memory.
    help : str
        What it does, in one sentence.
    details : str
        What else a user of the command has to know.
    parameters : tuple of Parameter
    """

    name: str
    method: str
    takes: Literal["rows", "codes", "nothing"]
    returns: Literal["codes", "rows", "scores", "explanation"]
    by_parts: bool
    help: str
    details: str = ""
    parameters: tuple[Parameter, ...] = ()

    def columns(self, model: Any) -> Sequence[str]:
        """Return the names of the result's columns, given a fitted estimator."""
        if self.returns == "codes":
            return [str(name) for name in model.get_feature_names_out()]
        if self.returns == "rows":
            names: Sequence[str] = model.schema_.names
            return names
        return SCORE_COLUMNS if self.returns == "scores" else EXPLANATION_COLUMNS


_RANDOM_STATE = Parameter("random_state", "Seed; the same seed draws the same values.", 0)

VERBS = {
    verb.name: verb
    for verb in (
        Verb("encode", "transform", "rows", "codes", True, "Write the code of each row."),
        Verb(
            "decode",
            "inverse_transform",
            "codes",
            "rows",
            False,
            "Write the row that each code stands for.",
        ),
        Verb(
            "reconstruct",
            "reconstruct",
            "rows",
            "rows",
            True,
            "Write the reconstruction of each row: encoded, and decoded again.",
        ),
        Verb(
            "score",
            "score_samples",
            "rows",
            "scores",
            True,
            "Write how normal each row is, and which rows are anomalies.",
            "The columns are row (counted from 0), score (log-density in nats: higher is more "
            "normal), p_value (the probability that a normal row is at least as anomalous), label "
            "(1 for normal rows, -1 for anomalies) and columns (of anomalies, the up to three "
            "columns that contribute most, largest first). An .npy file holds numbers only, and "
            "lacks the last.",
        ),
        Verb(
            "explain",
            "explain",
            "rows",
            "explanation",
            True,
            "Attribute the anomaly score of rows to their columns, with the value expected in "
            "each.",
            "A contribution is by how many nats a cell lowers the row's score; those of all "
            "columns add up to the difference between the row's score and that of the expected "
            "row. The file has the columns row, column, observed, expected and contribution.",
        ),
        Verb(
            "impute",
            "impute",
            "rows",
            "rows",
            True,
            "Fill missing values from the observed values of the same row, and write the rows.",
            "Other cells stay as they are. Several draws differ as much as the values are "
            "uncertain, so that what is computed from each shows how far to trust it.",
            (
                Parameter(
                    "n_draws", "Tables to fill with random draws; 1 fills in the best values.", 1
                ),
                _RANDOM_STATE,
            ),
        ),
        Verb(
            "sample",
            "sample",
            "nothing",
            "rows",
            False,
            "Draw new rows that look like the training rows.",
            parameters=(Parameter("n", "Number of rows.", 1), _RANDOM_STATE),
        ),
    )
}
