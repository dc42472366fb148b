"""Sections say in words what their numbers decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.report.test_document import fitted, rows
from twofold import Autoencoder, metrics
from twofold.report import sections
from twofold.report.measurements import Measurements, examine


@pytest.fixture(scope="module")
def ae() -> Autoencoder:
    return fitted(rows(), n_components=2)


@pytest.fixture(scope="module")
def found(ae: Autoencoder) -> Measurements:
    return examine(ae, rows(seed=1))


def with_anomalies(found: Measurements, n: int) -> Measurements:
    score = np.where(np.arange(found.n_rows) < n, -1e3, 1e3)
    compared = found.scores
    fresh = metrics.Scores.of(score, compared.held_out, compared.threshold)
    return replace(found, scores=replace(compared, rows=fresh))


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (0, "0 of 300 rows are flagged as anomalies"),
        (1, "1 of 300 rows is flagged as an anomaly"),
        (150, "times as many as expected."),
        (13, "the difference is within sampling error."),
    ],
)
def test_flagged_rows_are_compared_with_what_was_expected(
    found: Measurements, n: int, words: str
) -> None:
    assert words in sections.flagged_in_words(with_anomalies(found, n))


def test_every_column_has_its_line(ae: Autoencoder, found: Measurements) -> None:
    (table,) = sections.fit(ae, found)["tables"]
    assert sorted(line["name"] for line in table["lines"]) == sorted(ae.schema_.names)


def test_the_map_draws_every_row_of_few(ae: Autoencoder, found: Measurements) -> None:
    shown: dict[str, Any] = sections.code_map(ae, found)
    assert shown["caption"].startswith("300 rows drawn")


def test_components_in_use_are_said_to_be(ae: Autoencoder, found: Measurements) -> None:
    (first, *_) = sections.components(ae, found)["sentences"]
    assert first.startswith("None of the 2 components is unused")
