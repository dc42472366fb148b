"""Anomalies are explained a few at a time, with what explaining all at once would say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from twofold import Autoencoder
from twofold.distributed import results
from twofold.distributed.results import ExplanationReport, ScoredRows, Summary
from twofold.verbs import EXPLANATION_COLUMNS, VERBS

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Rows in several chunks, with text and a missing value, and an anomaly in the middle."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 3))
    x[41] = 30.0
    table = pa.table(
        {
            "a": x[:, 0],
            "b": pa.array(x[:, 1], mask=np.arange(90) == 7),
            "c": x[:, 2],
            "name": [f"n{i}" for i in range(90)],
            "side": rng.choice(["left", "right"], 90),
        }
    )
    return pa.concat_tables([table.slice(start, 30) for start in (0, 30, 60)])


@pytest.fixture(scope="module")
def ae(rows: pa.Table) -> Autoencoder:
    return Autoencoder(epochs=2, contamination=0.2, random_state=0).fit(rows)


def test_labels_are_those_of_predict(ae: Autoencoder, rows: pa.Table) -> None:
    scored = ScoredRows(ae, rows)
    assert scored.scores.label.tolist() == ae.predict(rows).tolist()
    assert scored.scores.anomalies.tolist() == np.flatnonzero(ae.predict(rows) < 0).tolist()
    assert scored.scores.p_value.tolist() == ae.anomaly_pvalue(rows).tolist()


def test_summaries_add_up(ae: Autoencoder, rows: pa.Table) -> None:
    whole = results.apply("score", ae, rows)[1]
    total = Summary()
    for start in (0, 45):
        total.add(results.apply("score", ae, rows.slice(start, 45), start)[1])
    assert (total.n_rows, total.n_anomalies) == (90, whole.n_anomalies)
    assert total.anomaly_table() == whole.anomaly_table()


def test_imputed_cells_are_counted(ae: Autoencoder, rows: pa.Table) -> None:
    _, summary = results.apply("impute", ae, rows)
    assert (summary.n_missing, summary.n_left) == (1, 0)


@pytest.mark.parametrize("verb", sorted(results.APPLY))
def test_result_has_the_declared_columns(ae: Autoencoder, rows: pa.Table, verb: str) -> None:
    made, _ = results.apply(verb, ae, rows)
    columns = list(VERBS[verb].columns(ae))
    if verb in ("encode", "score"):  # rows keep their names: next to the number, or first
        columns.insert(int(verb == "score"), ae.schema_.id_column)
    found = made.column_names if isinstance(made, pa.Table) else made.shape[1]
    assert found == (columns if isinstance(made, pa.Table) else len(columns))


@pytest.mark.parametrize("cells", [1, 100, 10**9])
def test_parts_tell_what_the_whole_tells(
    ae: Autoencoder, rows: pa.Table, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(results, "_CELLS", cells)
    chosen = np.array([41, 7, 88, 0])
    whole = ae.explain(rows)
    parts = list(ScoredRows(ae, rows).explained(chosen))
    assert np.concatenate([part.rows for part in parts]).tolist() == chosen.tolist()
    for name in ("observed", "expected", "contribution", "base"):
        found = np.concatenate([getattr(part, name) for part in parts])
        expected = getattr(whole, name)[chosen]
        if expected.dtype == object:
            assert [[type(c) for c in r] for r in found] == [[type(c) for c in r] for r in expected]
        else:
            np.testing.assert_allclose(found, expected, atol=1e-9)


def test_only_anomalies_have_reasons(ae: Autoencoder, rows: pa.Table) -> None:
    scored = ScoredRows(ae, rows)
    named = scored.reasons()
    whole = ae.explain(rows)
    for row, reason in enumerate(named):
        assert reason == ("; ".join(whole.top(row)) if scored.scores.label[row] < 0 else None)


def test_report_holds_back_columns_that_are_ignored(ae: Autoencoder, rows: pa.Table) -> None:
    scored, report = ScoredRows(ae, rows), ExplanationReport(ae, 9)
    for part in scored.explained(np.array([7])):
        report.show(part)
        report.keep(part)
    text = report.table(scored)
    assert "  name " not in text
    assert "\n  b     (missing)" in text
    record: dict[str, list[Any]] = report.arrow().to_pydict()
    assert tuple(record) == EXPLANATION_COLUMNS
    assert sorted(record["column"]) == ["a", "b", "c", "name", "side"]
    at = record["column"].index("name")
    assert (record["observed"][at], record["expected"][at]) == ("n7", None)
    assert record["contribution"] == sorted(record["contribution"], reverse=True)


def test_arrays_are_explained_too() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    ae = Autoencoder(epochs=2, random_state=0).fit(x)
    report = ExplanationReport(ae, 1)
    scored = ScoredRows(ae, x)
    for part in scored.explained(scored.scores.most_anomalous(2)):
        report.show(part)
        report.keep(part)
    assert report.table(scored).count("\nrow ") == 2
    assert str(report.arrow().schema.field("observed").type) == "double"
