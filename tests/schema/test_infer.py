"""What columns are taken for: by their types, by their values, and by what the caller says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.preprocessing import MinMaxScaler

from twofold.data import sources
from twofold.data import table as table_module
from twofold.data.table import Table
from twofold.errors import DataError
from twofold.schema.column import Column
from twofold.schema.schema import Schema

RNG = np.random.default_rng(5)
REAL = RNG.normal(3.0, 2.0, size=(40, 4))
GREY = RNG.integers(0, 256, size=(30, 5, 6), dtype=np.uint8)
COUNTS = RNG.poisson(2.0, size=(200, 2)).astype(float)


def table(values: Any, names: tuple[str, ...] | None = None) -> Table:
    array = np.asarray(values)
    return Table(array.reshape(len(array), -1), names, array.shape[1:])


def kinds(values: Any, **options: Any) -> set[tuple[str, str]]:
    return {(c.kind, c.likelihood) for c in Schema.infer(table(values), **options).columns}


def min_max(values: NDArray[Any]) -> NDArray[Any]:
    return (values - values.min(0)) / np.ptp(values, axis=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(REAL, ("real", "gaussian"), id="numbers of any range"),
        pytest.param(RNG.uniform(0, 1, (40, 16)), ("real", "gaussian"), id="unit range"),
        pytest.param(
            min_max(RNG.integers(0, 90, (99, 16)))[:50],
            ("real", "gaussian"),
            id="scaled, then split",
        ),
        pytest.param((GREY / 255).reshape(30, 30), ("pixel", "bernoulli"), id="flat grey values"),
        pytest.param(
            (GREY / 255).reshape(30, 30).astype(np.float32),
            ("pixel", "bernoulli"),
            id="flat grey values of 32 bits",
        ),
        pytest.param(RNG.uniform(0.1, 0.9, (40, 4)), ("real", "gaussian"), id="a few shares"),
        pytest.param(RNG.uniform(0, 1, (40, 4)) > 0.5, ("binary", "gaussian"), id="flags"),
        pytest.param(min_max(REAL), ("real", "gaussian"), id="min-max scaled"),
        pytest.param(min_max(REAL[:12]), ("real", "gaussian"), id="min-max scaled, few rows"),
        pytest.param(
            min_max(load_digits().data[:, 2:4]), ("real", "gaussian"), id="min-max, few levels"
        ),
        pytest.param(GREY, ("pixel", "bernoulli"), id="byte images"),
        pytest.param(GREY.reshape(30, 30), ("pixel", "bernoulli"), id="flat byte images"),
        pytest.param(GREY.astype(float), ("pixel", "bernoulli"), id="images of whole numbers"),
        pytest.param(GREY / 255, ("pixel", "bernoulli"), id="images in unit range"),
        pytest.param(GREY / 999, ("pixel", "bernoulli"), id="dim images in unit range"),
        pytest.param(RNG.uniform(0, 1e-3, (40, 4)), ("real", "gaussian"), id="small numbers"),
        pytest.param(GREY.astype(float) - 128, ("real", "gaussian"), id="centred images"),
        pytest.param(GREY * 3.3, ("real", "gaussian"), id="images of other numbers"),
        pytest.param(GREY * 9.0, ("real", "gaussian"), id="images of more levels than 256"),
        pytest.param(REAL.astype(int) - 9, ("real", "gaussian"), id="whole numbers below 0"),
        pytest.param(COUNTS, ("real", "gaussian"), id="counts"),
        pytest.param(COUNTS + 20, ("real", "gaussian"), id="whole numbers far from 0"),
        pytest.param(COUNTS * 9, ("real", "gaussian"), id="whole numbers around a large mean"),
        pytest.param(COUNTS + 0.5, ("real", "gaussian"), id="halves"),
        pytest.param(
            RNG.integers(1, 4, (90, 2)), ("real", "gaussian"), id="whole numbers alike, as ranks"
        ),
        pytest.param(REAL[:, :1], ("real", "gaussian"), id="one column"),
        pytest.param(np.full((9, 3), 7.0), ("real", "gaussian"), id="nothing varies"),
        pytest.param(np.full((9, 3), 0.5), ("real", "gaussian"), id="nothing varies in unit range"),
    ],
)
def test_kind_and_likelihood_follow_from_the_values(
    values: NDArray[Any], expected: tuple[str, str]
) -> None:
    assert kinds(values) == {expected}


@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_a_min_max_scaler_does_not_make_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = MinMaxScaler().fit_transform(rng.normal(7, 3, size=(200, 6)))
    assert kinds(values) == {("real", "gaussian")}


def test_flags_among_numbers_are_binary() -> None:
    values = np.column_stack([REAL, np.arange(40) % 2])
    assert [c.kind for c in Schema.infer(table(values)).columns] == ["real"] * 4 + ["binary"]


def test_a_flag_that_never_varies_is_not_binary() -> None:
    values = np.column_stack([REAL, np.ones(40)])
    assert Schema.infer(table(values)).columns[-1].kind == "real"


def test_white_is_255_in_byte_images() -> None:
    assert {c.scale for c in Schema.infer(table(GREY)).columns} == {255.0}


def test_white_is_1_in_masks_of_bytes() -> None:
    assert {c.scale for c in Schema.infer(table(GREY % 2)).columns} == {1.0}


def test_dark_byte_images_are_still_out_of_255() -> None:
    assert {c.scale for c in Schema.infer(table(GREY // 8)).columns} == {255.0}


def test_likelihood_by_name_leaves_other_columns_automatic() -> None:
    values = np.column_stack([REAL[:, 0], np.arange(40) % 2, np.arange(40) % 2])
    named = table(values, ("a", "b", "c"))
    columns = Schema.infer(named, {"b": "bernoulli", "a": "auto"}).columns
    assert [c.likelihood for c in columns] == ["gaussian", "bernoulli", "gaussian"]


def test_a_likelihood_for_no_column_is_refused_with_the_columns_there_are() -> None:
    with pytest.raises(DataError, match=r"'hieght', and the table has no such .* 'height', 'age'"):
        Schema.infer(table(REAL[:, :2], ("height", "age")), {"hieght": "gaussian"})


def test_bernoulli_outside_the_unit_range_is_refused_with_the_range() -> None:
    values = np.column_stack([np.arange(9.0), np.linspace(-0.5, 3, 9)])
    with pytest.raises(DataError, match=r"column 'b' runs from -0\.5 to 3"):
        Schema.infer(table(values, ("a", "b")), {"b": "bernoulli"})


def test_a_range_too_wide_for_64_bits_is_refused_by_name() -> None:
    values = np.column_stack([REAL[:, 0], np.clip(REAL[:, 1], -5, 5) * 3e307])
    with pytest.raises(DataError, match="Column 'b' spans too wide a range"):
        Schema.infer(table(values, ("a", "b")))


def test_statistics_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Schema.infer(table(REAL))
    monkeypatch.setattr(table_module, "_CHUNK_CELLS", 12)
    for cut, uncut in zip(Schema.infer(table(REAL)).columns, whole.columns, strict=True):
        assert cut.center == pytest.approx(uncut.center, rel=1e-14)
        assert cut.scale == pytest.approx(uncut.scale, rel=1e-14)


# --- holes


def holed(values: NDArray[Any], share: float = 0.1) -> NDArray[np.float64]:
    hidden = np.random.default_rng(8).uniform(size=values.shape) < share
    return np.where(hidden, np.nan, values)


@pytest.mark.parametrize(
    "values",
    [REAL, GREY / 255, GREY.astype(float), COUNTS, RNG.uniform(size=(40, 4)) > 0.5],
    ids=["real", "unit range", "grey", "counts", "flags"],
)
def test_missing_cells_do_not_change_the_kind(values: NDArray[Any]) -> None:
    assert kinds(holed(values)) == kinds(values)


@pytest.mark.parametrize(
    "values", [GREY.astype(float), GREY / 255, GREY % 2], ids=["grey", "unit range", "masks"]
)
def test_a_column_without_cells_does_not_change_what_others_are(values: NDArray[Any]) -> None:
    empty = values.astype(float)
    empty[:, 0, 0] = np.nan
    assert kinds(empty) == kinds(values) | {("ignored", "none")}


def test_center_and_scale_are_those_of_the_cells_there_are() -> None:
    values = holed(REAL)
    columns = Schema.infer(table(values)).columns
    np.testing.assert_allclose([c.center for c in columns], np.nanmean(values, axis=0), rtol=1e-12)
    np.testing.assert_allclose([c.scale for c in columns], np.nanstd(values, axis=0), rtol=1e-12)


def test_a_column_without_cells_is_ignored_with_a_reason() -> None:
    values = np.column_stack([REAL, np.full(40, np.nan)])
    ignored = Schema.infer(table(values)).ignored_columns()
    assert ignored == {"x4": "holds no cell that is not missing"}


def test_a_table_without_cells_is_refused_with_the_reasons() -> None:
    with pytest.raises(DataError, match="No column is left to learn from: 'x0' holds no cell"):
        Schema.infer(table(REAL * np.nan))


# --- heavy tails


def far_out(cell: float, n: int = 1) -> Column:
    values = np.random.default_rng(3).normal(5.0, 2.0, size=(400, 1))
    values[:n] = cell
    return Schema.infer(table(values)).columns[0]


def test_no_cell_counts_for_more_than_the_fence() -> None:
    # The fences lie 10 interquartile ranges, here about 27, beyond the quartiles.
    beyond, further = far_out(100.0), far_out(1e12)
    assert (further.center, further.scale) == (beyond.center, beyond.scale)


@pytest.mark.parametrize("cell", [1e12, -1e300])
def test_one_absurd_cell_hardly_moves_center_and_scale(cell: float) -> None:
    column = far_out(cell)
    assert column.center == pytest.approx(5.0, abs=0.3)
    assert column.scale == pytest.approx(2.0, rel=0.35)


def test_cells_within_the_fences_count_in_full() -> None:
    values = np.random.default_rng(3).normal(size=(400, 1))
    values[0] = 9.0  # beyond 6 scales, within 10 interquartile ranges
    column = Schema.infer(table(values)).columns[0]
    assert (column.center, column.scale) == pytest.approx((values.mean(), values.std()), rel=1e-12)


def test_a_column_that_is_mostly_one_value_has_no_fences() -> None:
    values = np.zeros((400, 1))
    values[:40, 0] = np.linspace(-500, 700, 40)
    column = Schema.infer(table(values)).columns[0]
    assert (column.center, column.scale) == pytest.approx((values.mean(), values.std()), rel=1e-12)


# --- types of cells


N = 200
TEXTS = np.array(["Bonn", "Kiel", "Ulm"])


def frame(**columns: Any) -> pd.DataFrame:
    """A frame of the given columns beside one of real numbers."""
    return pd.DataFrame({"size": np.random.default_rng(0).normal(size=N), **columns})


def column(cells: Any, **options: Any) -> Column:
    """What a column of these cells is taken for beside real numbers."""
    return Schema.infer(sources.read(frame(it=cells)), **options).columns[1]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        pytest.param(TEXTS[np.arange(N) % 3], "category", id="text"),
        pytest.param(pd.Categorical(TEXTS[np.arange(N) % 3]), "category", id="categories"),
        pytest.param(pd.Categorical(np.arange(N) % 3), "category", id="numbers as categories"),
        pytest.param(np.full(N, "Bonn"), "category", id="one text"),
        pytest.param(np.arange(N) % 2 == 0, "binary", id="booleans"),
        pytest.param(pd.array([True, None] * 90 + [False] * 20), "binary", id="booleans, missing"),
        pytest.param(np.ones(N, dtype=bool), "real", id="one boolean"),
        pytest.param(pd.date_range("2020-01-01", periods=N), "time", id="moments"),
        pytest.param(np.arange(N)[::-1] * 3, "real", id="whole numbers"),
        pytest.param(np.arange(N) + 17, "ignored", id="row numbers"),
        pytest.param(np.arange(N) + 17.0, "real", id="numbers that go up by one"),
        pytest.param([f"k{i}" for i in range(N)], "ignored", id="identifiers"),
        pytest.param([f"k{i // 2}" for i in range(N)], "category", id="texts in pairs"),
        pytest.param([f"k{i * 2 // 3}" for i in range(N)], "ignored", id="nearly identifiers"),
        pytest.param(np.full(N, np.nan), "ignored", id="nothing"),
        pytest.param(np.full(N, None), "ignored", id="no objects"),
    ],
)
def test_kind_follows_from_the_type_of_cells(cells: Any, kind: str) -> None:
    assert column(cells).kind == kind


def test_a_few_texts_that_differ_in_every_row_are_identifiers() -> None:
    few = pd.DataFrame({"size": [1.0, 2.5, 3.0], "it": ["a", "b", "c"]})
    assert Schema.infer(sources.read(few)).columns[1].kind == "ignored"


@pytest.mark.parametrize(
    "order",
    [np.arange(N), np.arange(N)[::-1], np.random.default_rng(0).permutation(N)],
    ids=["sorted", "reversed", "shuffled"],
)
def test_numbers_of_rows_are_identifiers_in_any_order(order: Any) -> None:
    customers = order + 5000
    assert column(customers).kind == "ignored"
    some = np.delete(customers, [7, 70, 170])
    rows = pd.DataFrame({"size": np.random.default_rng(0).normal(size=len(some)), "it": some})
    assert Schema.infer(sources.read(rows)).columns[1].kind == "ignored"


def test_whole_numbers_that_repeat_or_lie_far_apart_are_numbers() -> None:
    rng = np.random.default_rng(0)
    assert column(np.append(np.arange(N - 1), 7)).kind != "ignored"
    assert column(rng.choice(10**6, N, replace=False)).kind == "real"


def test_row_numbers_in_an_array_are_numbers() -> None:
    values = np.column_stack([REAL, np.arange(40)])
    assert Schema.infer(table(values)).columns[-1].kind == "real"


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (
            [f"k{i}" for i in range(N)],
            "looks like an identifier: 200 different texts in 200 cells, such as 'k0', each once",
        ),
        (
            np.arange(N) + 50,
            "looks like an identifier: 200 whole numbers from 50 to 249, each once",
        ),
        (np.full(N, np.nan), "holds no cell that is not missing"),
    ],
)
def test_what_is_ignored_says_why(cells: Any, reason: str) -> None:
    assert column(cells).note == reason


def test_a_category_keeps_what_is_common_the_commonest_first() -> None:
    cells = np.repeat(["rare", "common", "single", "usual"], [20, 120, 1, 59])
    found = column(cells)
    assert [found.levels[i] for i in found.kept] == ["common", "usual", "rare"]
    assert [found.levels[i] for i in found.pooled] == ["single"]
    assert found.note == "1 rare level, 'single', shares one input with unseen ones"


def test_rare_levels_are_named_by_number_and_example() -> None:
    cells = np.concatenate([np.repeat(["usual", "common"], [60, 137]), ["one", "two", "three"]])
    found = column(cells)
    assert found.note.startswith("3 rare levels, such as 'one', share one input with unseen ones")
    assert found.counts == tuple((cells == level).sum() for level in found.levels)


def test_a_category_has_at_most_65_inputs() -> None:
    cells = [f"k{i}" for i in np.arange(4000) % 1000]
    found = Schema.infer(sources.read(pd.DataFrame({"it": cells}))).columns[0]
    assert (found.kind, found.width, len(found.levels)) == ("category", 65, 1000)


def test_levels_that_no_row_holds_have_no_input() -> None:
    cells = pd.Categorical(TEXTS[np.arange(N) % 2], categories=["Paris", *TEXTS])
    found = column(cells)
    assert {found.levels[i] for i in found.kept} == {"Bonn", "Kiel"}
    assert not found.pooled


@pytest.mark.parametrize(
    ("freq", "cycles"),
    [
        ("h", ("day",)),
        ("9h", ("day", "week")),
        ("7D", ("year",)),
        ("31h", ("day", "week")),
        ("100D", ("week", "year")),
    ],
)
def test_times_turn_by_what_they_go_through_more_than_twice(
    freq: str, cycles: tuple[str, ...]
) -> None:
    moments = pd.date_range("2020-01-01", periods=N, freq=freq)
    assert column(moments).cycles == cycles


# --- what the caller says


@pytest.mark.parametrize(
    ("cells", "kind", "likelihood"),
    [
        (COUNTS[:, 0], "real", "gaussian"),
        (COUNTS[:, 0], "category", "categorical"),
        (np.arange(N) % 2, "count", "negative_binomial"),
        (np.arange(N) % 2, "real", "gaussian"),
        (np.arange(N) % 2 == 0, "category", "categorical"),
        (np.ones(N), "binary", "gaussian"),
        (np.linspace(0, 1, N), "pixel", "bernoulli"),
        ([f"k{i}" for i in range(N)], "category", "categorical"),
        (np.arange(N), "real", "gaussian"),
        (pd.date_range("2020-01-01", periods=N), "real", "gaussian"),
        (TEXTS[np.arange(N) % 3], "ignored", "none"),
    ],
)
def test_a_kind_that_is_said_holds(cells: Any, kind: str, likelihood: str) -> None:
    found = column(cells, kinds={"it": kind})
    assert (found.kind, found.likelihood) == (kind, likelihood)


def test_one_kind_may_be_said_for_all() -> None:
    columns = Schema.infer(table(np.column_stack([COUNTS[:40], REAL])), kinds="real").columns
    assert {c.kind for c in columns} == {"real"}


@pytest.mark.parametrize(
    ("cells", "kind", "mistake"),
    [
        (REAL[:, 0].repeat(5), "binary", "it holds more than 0 and 1"),
        (REAL[:, 0].repeat(5), "count", "not all cells are whole numbers from 0"),
        (np.arange(N) - 3, "count", "not all cells are whole numbers from 0"),
        (np.arange(N), "time", "its cells are of type number"),
        (TEXTS[np.arange(N) % 3], "real", "its cells are text"),
        (TEXTS[np.arange(N) % 3], "time", "its cells are of type text"),
        (pd.date_range("2020-01-01", periods=N), "category", "its cells are of type time"),
        (np.full(N, np.nan), "real", "all its cells are missing"),
        (np.arange(N), "colour", "kinds are real, count, binary, category, pixel, time, ignored"),
    ],
)
def test_a_kind_that_cannot_be_is_refused(cells: Any, kind: str, mistake: str) -> None:
    with pytest.raises(DataError, match=f"Column 'it' cannot be '{kind}'.*{mistake}"):
        column(cells, kinds={"it": kind})


def test_pixels_beyond_the_unit_range_are_refused() -> None:
    with pytest.raises(DataError, match=r"column 'it' runs from 0 to 255"):
        column(np.arange(N) % 256 / 199 * 255, kinds={"it": "pixel"})


def test_a_kind_for_no_column_is_refused_with_the_columns_there_are() -> None:
    with pytest.raises(DataError, match=r"kinds names 'its', and .* no such .* are 'size', 'it'"):
        column(COUNTS[:, 0], kinds={"its": "real"})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(DataError, match=r"(?s)'x0' cannot be 'binary'.*'x2' cannot be 'count'"):
        Schema.infer(table(REAL), kinds={"x0": "binary", "x2": "count"})


def test_nothing_left_to_learn_from_is_refused() -> None:
    with pytest.raises(DataError, match="No column is left to learn from: 'x0' left out as asked"):
        Schema.infer(table(REAL), kinds="ignored")


@pytest.mark.parametrize(
    ("cells", "likelihood", "kind"),
    [
        (COUNTS[:, 0], "poisson", "count"),
        (COUNTS[:, 0], "gaussian", "real"),
        (COUNTS[:, 0], "student_t", "real"),
        (np.arange(N) % 2, "poisson", "count"),
        (np.arange(N) % 2, "gaussian", "binary"),
        (np.arange(N)[::-1] * 3, "negative_binomial", "count"),
        (np.linspace(0, 1, N), "bernoulli", "real"),
        (pd.date_range("2020-01-01", periods=N), "student_t", "time"),
    ],
)
def test_a_likelihood_that_is_said_holds(cells: Any, likelihood: str, kind: str) -> None:
    found = column(cells, likelihood={"it": likelihood})
    assert (found.likelihood, found.kind) == (likelihood, kind)


@pytest.mark.parametrize(
    ("cells", "likelihood", "mistake"),
    [
        (REAL[:, 0].repeat(5), "poisson", "column 'it' runs from"),
        (np.linspace(0, 50, N), "negative_binomial", "column 'it' runs from 0 to 50"),
        (REAL[:, 0].repeat(5), "categorical", "kind is 'real'; 'gaussian' or"),
        (np.arange(N) % 2, "categorical", "kind is 'binary'; 'gaussian' or .* Settle another"),
        (TEXTS[np.arange(N) % 3], "gaussian", "kind is 'category'; 'categorical' does"),
        (pd.date_range("2020-01-01", periods=N), "bernoulli", "kind is 'time'; 'gaussian' or"),
    ],
)
def test_a_likelihood_that_cannot_be_is_refused(cells: Any, likelihood: str, mistake: str) -> None:
    with pytest.raises(DataError, match=f"likelihood='{likelihood}' .*{mistake}"):
        column(cells, likelihood={"it": likelihood})


def test_a_likelihood_against_a_kind_is_refused() -> None:
    with pytest.raises(DataError, match="likelihood='gaussian' .* 'it', whose kind is 'count'"):
        column(COUNTS[:, 0], kinds={"it": "count"}, likelihood={"it": "gaussian"})


def likelihoods(columns: Sequence[Column]) -> list[str]:
    return [c.likelihood for c in columns]


def test_one_likelihood_for_all_spares_columns_that_cannot_have_it() -> None:
    rows = sources.read(
        frame(
            town=TEXTS[np.arange(N) % 3],
            day=pd.date_range("2020-01-01", periods=N),
            visits=COUNTS[:, 0],
            owner=np.arange(N) % 2 == 0,
        )
    )
    columns = Schema.infer(rows, "student_t").columns
    assert likelihoods(columns) == ["student_t", "categorical", *["student_t"] * 3]


def test_one_likelihood_for_all_spares_columns_of_a_kind_that_is_said() -> None:
    columns = Schema.infer(table(COUNTS), "gaussian", {"x0": "count"}).columns
    assert likelihoods(columns) == ["negative_binomial", "gaussian"]


def test_pixels_share_the_scale_of_pixels_alone() -> None:
    grey = np.random.default_rng(1).uniform(0, 1, size=(N, 2))
    rows = frame(a=grey[:, 0], b=grey[:, 1], day=pd.date_range("2020-01-01", periods=N))
    names = dict.fromkeys("ab")
    columns = Schema.infer(
        sources.read(rows), dict.fromkeys(names, "gaussian"), dict.fromkeys(names, "pixel")
    ).columns
    assert [c.scale for c in columns[1:3]] == pytest.approx([np.sqrt(grey.var(0).mean())] * 2)


def test_times_and_amounts_that_a_frame_holds_as_text_are_named() -> None:
    days = pd.Series(pd.date_range("2021-01-01", periods=30))
    frame = pd.DataFrame({"day": days.dt.strftime("%d.%m.%Y"), "x": np.arange(30.0) % 7})
    frame["paid"] = [f"${v:,.2f}" for v in np.arange(30) * 99.5]
    frame["code"] = [f"{v:04d}" for v in range(30)]
    schema = Schema.infer(sources.read(frame))
    notes = [c.note for c in schema.columns]
    assert notes[0].startswith("holds times as text, such as '01.01.2021'")
    assert notes[2].startswith("holds numbers as text")
    assert schema.id_column == "code"


@pytest.mark.parametrize("weight", [3, 2])
def test_numbers_with_check_digits_are_identifiers(weight: int) -> None:
    rng = np.random.default_rng(0)
    digits = rng.integers(0, 10, (30, 11))
    counted = digits * np.where(np.arange(11) % 2, 1, weight)
    counted -= 9 * (counted > 9) * (weight == 2)
    codes = 10**12 + digits @ 10 ** np.arange(1, 12)
    codes += (-counted.sum(1) - 1) % 10  # the first digit, 1, counts once
    frame = pd.DataFrame({"ean": codes, "price": rng.random(30)})
    column = Schema.infer(sources.read(frame)).columns[0]
    assert column.note.startswith("looks like an identifier: 30 numbers whose last digit is a che")
    frame["ean"] += np.arange(30) % 2
    assert Schema.infer(sources.read(frame)).columns[0].kind == "real"


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["<0.5", ">7"], "holds numbers as text, some with a mark, such as '<0.5'"),
        (["1,204.5"] * 3, "holds numbers as text, such as '0.1'"),
        (["unbekannt"], "holds numbers as text, such as '0.1'"),
        (["closed", "DNF"], "holds numbers as text, but for some, such as 'DNF'"),
    ],
)
def test_numbers_next_to_other_texts_in_a_frame_are_named(others: list[str], said: str) -> None:
    frame = pd.DataFrame({"x": [*(f"{i / 10:.1f}" for i in range(1, 31)), *others]})
    frame["y"] = np.arange(len(frame)) % 7
    assert said in Schema.infer(sources.read(frame)).columns[0].note


@pytest.mark.parametrize("cell", ["x", 1.0, True], ids=["text", "number", "flag"])
def test_a_box_that_is_ticked_in_few_rows_is_not_filled(cell: Any) -> None:
    frame = pd.DataFrame({"y": np.arange(30) % 7, "ticked": pd.Series([cell, None, None] * 10)})
    schema = Schema.infer(sources.read(frame))
    assert schema.columns[1].kind == "ignored"
    assert "in 10 of 30 rows, and nothing in the others" in schema.columns[1].note
    frame.loc[:19, "ticked"] = cell
    assert Schema.infer(sources.read(frame)).columns[1].constant


def test_what_names_rows_is_in_nearly_all_of_them() -> None:
    frame = pd.DataFrame({"y": np.arange(30) % 7, "group": [*"abc", *[None] * 27]})
    schema = Schema.infer(sources.read(frame))
    assert schema.id_column is None
    assert schema.columns[1].note.endswith("in 3 cells, such as 'a' of 30 rows")
    frame["group"] = [*(f"row {i}" for i in range(28)), None, None]
    assert Schema.infer(sources.read(frame)).id_column == "group"
