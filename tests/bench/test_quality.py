"""The bench of quality: its protocols, holes, planted errors and cache do what they say."""

# ruff: noqa: E402 - the bench is no package, and its folder has to be on the path first
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import cache
import holes
import quality
import quality_table
from methods import METHODS, corruption, family
from rows import detection, false_alarms, imputation
from trials import Rows

from twofold.nn.network import Network


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A set of 200 rows, 20 of them odd."""
    rng = np.random.RandomState(0)
    path = tmp_path / "1_set.npz"
    np.savez(path, X=rng.normal(size=(200, 4)), y=np.repeat([0, 1], [180, 20]))
    return path


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.RandomState(0)
    return pd.DataFrame(
        {
            "whole": rng.poisson(20, 300),
            "real": rng.normal(size=300),
            "text": rng.choice(["a", "b", "c"], 300),
        }
    )


@pytest.mark.parametrize("mechanism", holes.MECHANISMS)
def test_holes_have_the_stated_share(mechanism: str) -> None:
    rng = np.random.RandomState(0)
    x = rng.gamma(1.0, size=(5000, 10))
    hidden = holes.MECHANISMS[mechanism](x, 0.3, rng)
    holed = hidden.mean(axis=0)[hidden.any(axis=0)]
    assert np.allclose(holed, 0.3, atol=0.03)


def test_missing_at_random_leaves_its_causes_complete() -> None:
    rng = np.random.RandomState(0)
    hidden = holes.mar(rng.normal(size=(500, 10)), 0.3, rng)
    assert (~hidden.any(axis=0)).sum() == 3


def test_missing_not_at_random_depends_on_what_it_hides() -> None:
    rng = np.random.RandomState(0)
    x = rng.normal(size=(5000, 4))
    hidden = holes.mnar(x, 0.3, rng)
    gaps = [x[hidden[:, j], j].mean() - x[~hidden[:, j], j].mean() for j in range(4)]
    assert np.abs(gaps).min() > 0.5


def test_small_sets_are_drawn_up_to_1000_rows(labelled: Path) -> None:
    rows = detection.adbench_rows(labelled, 1)
    assert (len(rows.given["train"]), len(rows.given["test"])) == (700, 300)


def test_the_clean_protocol_holds_no_copies(labelled: Path) -> None:
    rows = detection.adbench_rows(labelled, 1, with_copies=False)
    every = np.concatenate([rows.given["train"], rows.given["test"]])
    assert len(np.unique(every, axis=0)) == 200


def test_methods_are_given_no_labels(labelled: Path) -> None:
    for rows in (detection.adbench_rows(labelled, 1), detection.odds_rows(labelled, 1)):
        assert set(rows.given) == {"train", "test"}


def test_a_fingerprint_covers_rows_and_labels() -> None:
    x, y = np.zeros((2, 2)), np.array([0, 1])
    prints = {
        Rows({"x": x}, {"y": y}).digest(),
        Rows({"x": x + 1}, {"y": y}).digest(),
        Rows({"x": x}, {"y": 1 - y}).digest(),
        Rows({"x": x.astype("f4")}, {"y": y}).digest(),
    }
    assert len(prints) == 4


def test_rmse_is_in_units_of_the_columns_range() -> None:
    complete = np.array([[0.0, 0.0], [10.0, 2.0]])
    filled = complete + np.array([[1.0, 0.0], [5.0, 0.0]])
    hidden = np.array([[True, True], [False, False]])
    assert imputation.rmse(filled, complete, hidden) == pytest.approx(np.sqrt(0.1**2 / 2))


def test_one_cell_per_row_is_corrupted(frame: pd.DataFrame) -> None:
    corrupted, columns, _ = corruption.corrupt(frame, frame, np.random.RandomState(1))
    changed = (corrupted != frame).to_numpy()
    assert (changed.sum(axis=1) == 1).all()
    assert (changed.argmax(axis=1) == columns).all()
    assert corrupted.dtypes.equals(frame.dtypes)


def test_moved_cells_keep_to_their_distance(frame: pd.DataFrame) -> None:
    known = frame["real"].to_numpy()
    low, high = np.percentile(known, [25, 75])
    rng = np.random.RandomState(0)
    far = [abs(corruption.moved(0.5, known, rng) - 0.5) for _ in range(200)]
    steps = np.array(far) / ((high - low) / 1.349)
    assert steps.min() >= 5
    assert steps.max() <= 10


def test_moved_cells_do_not_turn_negative_where_none_are(frame: pd.DataFrame) -> None:
    known = frame["whole"].to_numpy(dtype=np.float64)
    rng = np.random.RandomState(0)
    moved = np.array([corruption.moved(cell, known, rng) for cell in known])
    assert moved.min() >= 0
    assert (moved == np.round(moved)).all()


def test_a_cut_off_line_costs_the_cache_that_line_alone(tmp_path: Path) -> None:
    kept = cache.Cache(tmp_path)
    kept.add("one", {"figure": 1})
    with kept.path.open("a", encoding="utf-8") as file:
        file.write('{"key": "two", "fig')
    again = cache.Cache(tmp_path)
    again.add("three", {"figure": 3})
    read = cache.Cache(tmp_path)
    assert [read.get(name) is not None for name in ("one", "two", "three")] == [True, False, True]


def test_the_source_hash_sees_code_alone(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "top.py").write_text("from package import low\n")

    def after(text: str) -> str:
        (package / "low.py").write_text(text)
        return cache.source_hash(package, "top")

    first = after("def f():\n    return 1\n")
    assert after('"""Words."""\n\n\ndef f():\n    """More."""\n    return (1)  # one\n') == first
    assert after("def f():\n    return 2\n") != first


def test_a_source_that_changes_during_a_run_is_noticed(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    module = package / "top.py"
    module.write_text("a = 1\n")
    source = cache.Source(package, "top")
    module.write_text("a = 1  # one\n")
    assert source.unchanged()
    module.write_text("a = 10\n")
    assert not source.unchanged()


def test_a_failed_set_is_left_out_of_a_methods_means() -> None:
    entries = [
        {"set": name, "seed": seed, "method": method, "facts": {}, "seconds": 1.0, **outcome}
        for method in ("a", "b")
        for name, figure in (("x", 0.5), ("y", 0.9))
        for seed in (1, 2)
        for outcome in [
            {"failed": "no"}
            if (method, name, seed) == ("b", "y", 2)
            else {"result": {"auroc": figure, "ap": figure}}
        ]
    ]
    methods = detection.summary(entries)["methods"]
    assert methods["a"]["auroc"] == pytest.approx(0.7)
    assert (methods["b"]["auroc"], methods["b"]["n_sets"]) == (0.5, 1)
    assert methods["b"]["failed"] == {"y": "no"}


def test_failed_repetitions_are_told() -> None:
    entries = [
        {"set": "t", "facts": {"columns": 3, "train": 9, "fresh": 9}, **outcome}
        for outcome in (
            {"failed": "why"},
            {"result": {"p<=0.01": 0.01}, "seconds": 1.0},
            {"result": {"p<=0.01": 0.03}, "seconds": 1.0},
        )
    ]
    row = false_alarms.summary(entries)
    assert row["tables"]["t"]["shares"]["p<=0.01"]["mean"] == pytest.approx(0.02)
    said = quality_table.false_alarms({"rows": {"false-alarms": row}})
    assert "1 of 3 repetitions failed (why)" in said


def test_rows_that_are_measured_anew_leave_the_others_as_they_were() -> None:
    def result(day: str, processor: str, **rows: dict[str, object]) -> dict[str, object]:
        machine = {"processor": processor, "cores_used": 2}
        versions = dict.fromkeys(quality.PACKAGES, "1") | {"pyod": "3"}
        about = {"made": f"{day}T10:00:00", "machine": machine, "versions": versions}
        return {**about, "source": day, "quick": False, "rows": rows}

    before = result("2026-01-01", "old", a={"figure": 1}, b={"figure": 2})
    after = quality.updated(before, result("2026-02-02", "new", b={"figure": 3}))
    assert [after["rows"][name]["figure"] for name in "ab"] == [1, 3]
    assert after["rows"]["a"]["measured"]["made"] == "2026-01-01T10:00:00"
    assert after["rows"]["b"]["measured"] == {
        "made": "2026-02-02T10:00:00",
        "processor": "new",
        "source": "2026-02-02",
    }
    again = quality.updated(after, result("2026-03-03", "new", a={"skipped": "no data"}))
    assert again["rows"] == after["rows"]  # what could not be measured is no reason to forget
    said = quality_table.measured_on(again)
    assert "(new, 2026-02-02; old, 2026-01-01)" in said

    def of(**methods: float) -> dict[str, object]:
        figures = {name: {"auroc": [value]} for name, value in methods.items()}
        return {"sets": {"s": {"rows": 9, "methods": figures}}, "methods": {**methods}}

    before = result("2026-01-01", "old", a=of(twofold=0.8, peer=0.7), b={"figure": 2})
    own = quality.updated(before, result("2026-02-02", "new", a=of(twofold=0.9)), own=True)
    row = own["rows"]["a"]
    assert row["methods"] == {"twofold": 0.9, "peer": 0.7}
    assert row["sets"]["s"]["rows"] == 9
    assert row["sets"]["s"]["methods"]["twofold"] == {"auroc": [0.9]}
    assert row["sets"]["s"]["methods"]["peer"] == {"auroc": [0.7]}
    assert row["measured"]["made"][:10] == "2026-02-02"
    assert row["peers_measured"]["made"][:10] == "2026-01-01"
    twice = quality.updated(own, result("2026-03-03", "new", a=of(twofold=0.9)), own=True)
    assert twice["rows"]["a"]["peers_measured"] == row["peers_measured"]


@pytest.mark.parametrize("widths", [(784, 392, 196), (57, 29, 15), (16, 8, 4)])
def test_a_wider_tied_net_has_as_many_parameters_as_the_untied_one(widths: tuple[int, ...]) -> None:
    width, *hidden, n_components = widths
    untied = Network(width, hidden, n_components, tied=False)
    wide = family.wider(untied)
    tied = Network(width, wide, n_components)
    assert 0.95 * untied.n_parameters <= tied.n_parameters <= untied.n_parameters
    more = Network(width, [n + 1 for n in wide], n_components)
    assert more.n_parameters > untied.n_parameters


@pytest.mark.parametrize("alone", [True, False])
def test_the_table_of_twins_says_where_it_was_measured(alone: bool) -> None:
    figure = {"mean": 0.5, "spread": 0.01}
    nets = [f"{net}_{what}" for net in ("tied", "untied", "wider") for what in ("error", "seconds")]
    row: dict[str, Any] = {"sets": {"mnist": {"seeds": 2, **dict.fromkeys(nets, figure)}}}
    if alone:
        row["measured"] = {"processor": "new", "made": "2026-02-02T00"}
    result = {"machine": {"processor": "old"}, "made": "2026-01-01T00", "rows": {"twins": row}}
    said = quality_table.twins(result)
    assert "| MNIST | 0.5 ± 0.01 | 0.5 ± 0.01 | 0.5 ± 0.01 | 0.5 / 0.5 / 0.5 | 2 |" in said
    assert said.endswith("new, 2026-02-02." if alone else "old, 2026-01-01.")


def test_the_family_table_names_a_network_once_and_tells_what_failed() -> None:
    figures = {"logistic": 0.9825, "neighbours": 0.9879, "amount": 1.0, "seconds": 1234.5}
    found = {name: {"mean": mean, "spread": 0.01} for name, mean in figures.items()}
    sets = {"mnist": {"seeds": 5, **found}, "fashion_mnist": {"failed": "it was cold"}}
    said = quality_table.family({"rows": {"codes": {"sets": sets}}}).splitlines()
    assert said[2] == (
        "| the same, made to undo warping | MNIST | right by logistic regression | 0.9825 ± 0.01 "
        "| 5 | 1,234 |"
    )
    assert said[3].startswith("|  |  | right by five nearest neighbours | 0.9879 ± 0.01 |")
    assert "| Fashion-MNIST | failed (it was cold) |" in said[5]


def test_the_table_of_ordered_codes_shows_spreads_where_there_are_any() -> None:
    errors = {kind: {"mean": [30.0, 9.0, 3.0], "spread": None} for kind in quality_table.ORDERED}
    errors["cut"]["spread"] = [0.5, 0.1, 0.01]
    errors["own"]["spread"] = [0.5, 4e-15, 0.0]
    said = quality_table.ordered({"rows": {"ordered": {"sets": {"mnist": {"seeds": 2, **errors}}}}})
    assert "| MNIST: cut, every size taught | 30 ± 0.5 | 9 ± 0.1 | 3 ± 0.01 | 2 |" in said
    assert "| MNIST: a net for each size | 30 ± 0.5 | 9 ± 0 | 3 ± 0 | 2 |" in said
    assert "| MNIST: PCA | 30 | 9 | 3 | 2 |" in said


def test_every_method_has_its_script() -> None:
    for methods in METHODS.values():
        for method in methods.values():
            assert (ROOT / "bench" / method.script).is_file()


def test_tables_of_nothing_say_so() -> None:
    for make, _ in quality_table.TABLES.values():
        assert make({"rows": {}}) == "Not measured yet."


def test_results_are_json_with_short_lists_on_one_line() -> None:
    result = {"figures": [0.123456789, None, [1, 2]], "words": ["a", "b"]}
    text = quality.as_text(result)
    assert json.loads(text) == {"figures": [0.123457, None, [1, 2]], "words": ["a", "b"]}
    assert "[1, 2]" in text
