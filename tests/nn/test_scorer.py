"""Scores count missing cells as their columns do on average, in any precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tests.nn.test_cell_model import everything as inputs
from twofold.nn.scorer import Scorer
from twofold.schema.schema import Schema


def everything(holes: float = 0.0) -> tuple[Schema, Scorer, Tensor, Tensor]:
    """A table of every likelihood, with a scorer."""
    schema, _, x, theta = inputs(holes)
    return schema, Scorer(schema).double(), x, theta


def test_a_missing_cell_counts_what_its_column_counts_on_average() -> None:
    schema, scorer, x, theta = everything(holes=0.3)
    scorer.fit_typical(theta, x)
    cells = scorer.log_prob(theta, x)
    there = ~torch.stack(
        [x[:, at.start].isnan() if at.stop > at.start else x[:, 0] < -1e9 for at in schema.inputs],
        dim=1,
    )
    for i, column in enumerate(schema.columns):
        if column.width:
            typical = cells[there[:, i], i].mean()
            torch.testing.assert_close(
                cells[~there[:, i], i], typical.expand(int((~there[:, i]).sum()))
            )


def test_ignored_columns_count_nothing() -> None:
    schema, scorer, x, theta = everything(holes=0.3)
    scorer.fit_typical(theta, x)
    assert not scorer.log_prob(theta, x)[:, schema.names.index("key")].any()


def test_a_copy_in_another_precision_gives_the_same_densities() -> None:
    _, scorer, x, theta = everything(holes=0.2)
    scorer.fit_spread(theta, x)
    scorer.fit_typical(theta, x)
    narrow = copy.deepcopy(scorer).float()
    expected = scorer.log_prob(theta, x).float()
    found = narrow.log_prob(theta.float(), x.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_a_score_is_the_density_of_the_row_and_of_what_is_not_in_it(holes: float) -> None:
    _, scorer, x, theta = everything(holes)
    scorer.fit_spread(theta, x)
    scorer.fit_typical(theta, x)
    scorer.fit_density(theta, x, torch.Generator().manual_seed(0))
    others = torch.where(scorer._others, scorer.log_prob(theta, x), -scorer.log_unit).sum(1)
    filled = x.nan_to_num(0.0)
    seen = None if not holes else ~x.isnan()
    density = scorer.density.log_prob(scorer.mean(theta), filled, seen)
    torch.testing.assert_close(scorer.row_log_prob(theta, x), others + density)


def test_what_is_fitted_is_saved() -> None:
    _, scorer, *_ = everything()
    kept = set(scorer.state_dict())
    assert kept >= {"spread", "typical", "rounds", "mode", "density.numbers.mean"}
    assert not kept & {"log_unit", "center", "unit", "column"}  # which the schema says
