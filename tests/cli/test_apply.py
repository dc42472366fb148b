"""Commands that apply a model give what Python gives, with the same error texts."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.running import (
    ANOMALOUS_ROW,
    FITTING,
    WRITING,
    fail,
    mixed_frame,
    succeed,
    types_of,
    values,
    write_csv,
)
from twofold import Autoencoder, load
from twofold.data import files, sources
from twofold.data import output as writing


def test_codes_of_another_width_are_refused(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.ones((3, 7)))
    said = fail("decode", folder / "model", tmp_path / "codes.npy", "-o", tmp_path / "x.csv")
    assert "Expected codes with 2 components" in said


def test_error_of_the_system_is_one_plain_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr("twofold.estimators.autoencoder.load", refuse)
    said = fail("encode", folder / "model", folder / "rows.csv", "-o", tmp_path / "x.csv")
    assert said == "Error: /secret: Permission denied.\n"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_encode_writes_pythons_codes(folder: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"codes{suffix}"
    succeed("encode", folder / "model", folder / "rows.csv", "--output", output)
    ae = load(folder / "model")
    np.testing.assert_array_equal(values(output), ae.transform(folder / "rows.csv"))
    if suffix != ".npy":
        assert files.load(output).column_names == list(ae.get_feature_names_out())


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_reconstruct_writes_pythons_rows(folder: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"rows{suffix}"
    succeed("reconstruct", folder / "model", folder / "rows.csv", "--output", output)
    expected = sources.read(load(folder / "model").reconstruct(folder / "rows.csv"))
    np.testing.assert_array_equal(values(output), expected.values)
    if suffix != ".npy":
        assert tuple(files.load(output).column_names) == expected.names


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_decoded_codes_are_the_reconstruction(folder: Path, tmp_path: Path, suffix: str) -> None:
    codes, rows = tmp_path / f"codes{suffix}", tmp_path / f"rows{suffix}"
    succeed("encode", folder / "model", folder / "rows.csv", "--output", codes)
    succeed("decode", folder / "model", codes, "--output", rows)
    expected = sources.read(load(folder / "model").reconstruct(folder / "rows.csv"))
    np.testing.assert_allclose(values(rows), expected.values, rtol=1e-12)
    if suffix != ".npy":
        assert tuple(files.load(rows).column_names) == expected.names


def test_decode_finds_the_codes_by_name(folder: Path, tmp_path: Path) -> None:
    succeed("encode", folder / "model", folder / "rows.csv", "-o", tmp_path / "codes.csv")
    codes = pd.read_csv(tmp_path / "codes.csv")
    codes.iloc[:, ::-1].assign(note="n").to_csv(tmp_path / "mixed.csv", index=False)
    for name in ("codes", "mixed"):
        succeed(
            "decode", folder / "model", tmp_path / f"{name}.csv", "-o", tmp_path / f"{name}.npy"
        )
    np.testing.assert_array_equal(values(tmp_path / "codes.npy"), values(tmp_path / "mixed.npy"))


def test_score_writes_pythons_scores_and_labels(folder: Path, tmp_path: Path) -> None:
    result = succeed("score", folder / "model", folder / "rows.csv", "-o", tmp_path / "s.parquet")
    ae = load(folder / "model")
    table = files.load(tmp_path / "s.parquet").to_pydict()
    assert table["row"] == list(range(60))
    assert table["score"] == ae.score_samples(folder / "rows.csv").tolist()
    assert table["label"] == ae.predict(folder / "rows.csv").tolist()
    odd = table["label"].count(-1)
    assert re.search(
        rf"^{odd} of 60 rows (is an anomaly|are anomalies) \(score below -?\d", result.stdout
    )


def test_rows_may_come_in_another_format_than_in_training(folder: Path, tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.parquet"):
        succeed("score", folder / "model", folder / name, "-o", tmp_path / f"{name}.npy")
    first, second = (values(tmp_path / f"{n}.npy") for n in ("rows.csv", "rows.parquet"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("command", WRITING)
def test_result_is_overwritten_only_when_asked(folder: Path, tmp_path: Path, command: str) -> None:
    source = folder / "rows.csv"
    if command == "decode":
        source = tmp_path / "codes.csv"
        succeed("encode", folder / "model", folder / "rows.csv", "-o", source)
    output = tmp_path / "out.csv"
    output.write_text("mine", encoding="utf-8")
    fail(command, folder / "model", source, "-o", output)
    assert output.read_text(encoding="utf-8") == "mine"
    succeed(command, folder / "model", source, "-o", output, "--force")
    # Ten rows are explained, with a line for each of their five columns.
    assert len(values(output)) == (50 if command == "explain" else 60)


def test_images_stay_images_in_an_npy_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 3, 4), dtype=np.float32)
    np.save(tmp_path / "x.npy", images)
    succeed("fit", tmp_path / "x.npy", "-o", tmp_path / "m", *FITTING)
    succeed("encode", tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "c.npy")
    succeed("decode", tmp_path / "m", tmp_path / "c.npy", "-o", tmp_path / "d.npy")
    succeed("reconstruct", tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "r.npy")
    decoded, rows = np.load(tmp_path / "d.npy"), np.load(tmp_path / "r.npy")
    assert decoded.shape == rows.shape == images.shape
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, rows, rtol=1e-5)
    succeed("decode", tmp_path / "m", tmp_path / "c.npy", "-o", tmp_path / "d.csv")
    assert files.load(tmp_path / "d.csv").num_columns == 12


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_score_says_why(mixed: Path, tmp_path: Path, name: str) -> None:
    source = mixed / name
    result = succeed("score", mixed / "model", source, "-o", tmp_path / "s.parquet")
    ae = load(mixed / "model")
    table = pq.read_table(tmp_path / "s.parquet").to_pydict()
    assert list(table) == ["row", "id", "score", "p_value", "label", "columns"]
    assert table["score"] == ae.score_samples(source).tolist()
    assert table["p_value"] == ae.anomaly_pvalue(source).tolist()
    assert table["label"] == ae.predict(source).tolist()
    explanation = ae.explain(source)
    for row, label in enumerate(table["label"]):
        expected = "; ".join(explanation.top(row)) if label < 0 else None
        assert table["columns"][row] == expected
    assert table["columns"][ANOMALOUS_ROW] is not None
    assert table["columns"][ANOMALOUS_ROW].split("; ")[0] == "age"
    first = result.stdout.split("\n\n")[1].splitlines()[2]
    assert re.match(rf"^ *{ANOMALOUS_ROW} \(k011\) +-[\d.]+ +0\.\d+ +age; ", first)


def test_score_without_anomalies_shows_none(mixed: Path, tmp_path: Path) -> None:
    frame = mixed_frame().drop(index=ANOMALOUS_ROW)
    ae = load(mixed / "model")
    normal = frame[ae.predict(write_csv(frame, tmp_path / "x.csv")) == 1]
    source = write_csv(normal, tmp_path / "x.csv")
    text = succeed("score", mixed / "model", source, "-o", tmp_path / "s.csv").stdout
    assert re.fullmatch(r"0 of \d+ rows are anomalies .*\n", text)
    assert set(pd.read_csv(tmp_path / "s.csv")["columns"].isna()) == {True}


def test_score_as_an_array_holds_the_numbers(mixed: Path, tmp_path: Path) -> None:
    succeed("score", mixed / "model", mixed / "rows.csv", "-o", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").shape == (60, 4)


def test_explain_shows_the_most_anomalous_rows_and_their_columns(mixed: Path) -> None:
    text = succeed("explain", mixed / "model", mixed / "rows.csv", "--top", 2).stdout
    scores = load(mixed / "model").score_samples(mixed / "rows.csv")
    shown = [int(row) for row in re.findall(r"^row (\d+) \(k\d+\): score", text, re.M)]
    assert shown == np.argsort(scores)[:2].tolist()
    assert text.startswith("The 2 most anomalous of 60 rows; a score below ")
    assert re.search(
        rf"^row {ANOMALOUS_ROW} \(k011\): score {scores[ANOMALOUS_ROW]:.6g}, "
        r"p-value 0\.\d+\n  age +400.0 +\d\d\.\d+ +\d",
        text,
        re.M,
    )
    assert len(re.findall("^  ", text, re.M)) == 2 * 3


def test_explain_reads_text_as_the_flags_say(mixed: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "x.csv"
    mixed_frame()[:9].to_csv(foreign, sep="!", index=False, encoding="utf-16")
    words = ("--delimiter", "!", "--encoding", "utf-16")
    shown = succeed("explain", mixed / "model", foreign, *words).stdout
    assert "most anomalous of 9 rows" in shown


def test_explain_shows_ten_rows_if_there_are_so_many(mixed: Path, tmp_path: Path) -> None:
    text = succeed("explain", mixed / "model", mixed / "rows.csv").stdout
    assert text.count("\nrow ") == 10
    few = write_csv(mixed_frame()[:2], tmp_path / "x.csv")
    assert succeed("explain", mixed / "model", few).stdout.count("\nrow ") == 2


def test_explain_shows_one_row_as_a_reader_knows_it(mixed: Path) -> None:
    words = ("--row", 3, "--columns", 99)
    text = succeed("explain", mixed / "model", mixed / "rows.csv", *words).stdout
    frame = mixed_frame()
    assert text.startswith("Row 3 of 60 rows; ")
    assert re.search(r"^  age +\(missing\) +\d+\.\d+ +0\.00$", text, re.M)
    assert re.search(r"^  城市 +\(missing\) +(Zürich|Bern|New York)", text, re.M)
    assert re.search(rf"^  zip +{frame['zip'][3]} +800\d +", text, re.M)
    assert re.search(
        rf"^  joined +{frame['joined'][3]} +\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d ", text, re.M
    )
    assert "  id " not in text  # which the network does not see


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_explain_writes_every_column(mixed: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"e{suffix}"
    words = ("--top", 4, "--columns", 1, "-o", output)
    succeed("explain", mixed / "model", mixed / "rows.csv", *words)
    ae = load(mixed / "model")
    lowest = np.argsort(ae.score_samples(mixed / "rows.csv"))[:4]
    expected = ae.explain(mixed / "rows.csv").to_frame()
    expected = pd.concat([expected[expected["row"] == row] for row in lowest])
    table = (pd.read_csv if suffix == ".csv" else pd.read_parquet)(output)
    assert list(table) == ["row", "column", "observed", "expected", "contribution"]
    assert table["row"].tolist() == expected["row"].tolist()
    np.testing.assert_allclose(table["contribution"], expected["contribution"], atol=1e-8)
    cells = table[table["row"] == ANOMALOUS_ROW].set_index("column")
    assert cells["observed"]["age"] == "400.0"
    assert cells["observed"]["城市"] == mixed_frame()["城市"][ANOMALOUS_ROW]
    assert cells["observed"]["joined"] == str(mixed_frame()["joined"][ANOMALOUS_ROW])
    assert pd.isna(cells["expected"]["id"])


def test_explained_numbers_stay_numbers(folder: Path, tmp_path: Path) -> None:
    succeed("explain", folder / "model", folder / "rows.csv", "-o", tmp_path / "e.parquet")
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "e.parquet")}
    assert (types["observed"], types["expected"]) == ("double", "double")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--row 60", "from 0 to 59, got --row 60: "),
        ("--row -1", "has 60 rows"),
        ("--top 0", "Expected --top to be an integer of at least 1, got 0."),
        ("--columns 0", "Expected --columns to be an integer of at least 1, got 0."),
        ("--top 3 --row 3", "Expected --top or --row, got both"),
        ("--output x.npy", "Write .csv or .parquet."),
        ("--output x.txt", "outputs are .csv, .parquet, .npy"),
    ],
)
def test_explain_refuses_what_cannot_be(mixed: Path, words: str, reason: str) -> None:
    assert reason in fail("explain", mixed / "model", mixed / "rows.csv", *words.split())


@pytest.mark.parametrize(("flag", "value"), [("--workers", "2"), ("--device", "cuda")])
def test_what_a_cluster_is_told_needs_its_address(
    folder: Path, tmp_path: Path, flag: str, value: str
) -> None:
    words = "encode", folder / "model", folder / "rows.csv", "-o", tmp_path / "x.csv"
    assert f"{flag} needs a cluster. Add its --address" in fail(*words, flag, value)


@pytest.mark.parametrize("command", ["encode", "reconstruct", "score", "explain", "impute"])
def test_numbers_that_became_text_are_named(mixed: Path, tmp_path: Path, command: str) -> None:
    frame = mixed_frame().astype({"age": object})
    frame.loc[17, "age"] = "n/a?"
    source = write_csv(frame, tmp_path / "x.csv")
    said = fail(command, mixed / "model", source, "-o", tmp_path / "out.csv")
    assert "Column 'age' held numbers in training and holds text here (row 17: 'n/a?')" in said
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("command", ["score", "explain", "impute"])
def test_missing_column_is_named(mixed: Path, tmp_path: Path, command: str) -> None:
    source = write_csv(mixed_frame().drop(columns="visits"), tmp_path / "x.csv")
    said = fail(command, mixed / "model", source, "-o", tmp_path / "out.csv")
    assert "has no column 'visits'" in said


def test_other_columns_and_another_order_change_nothing(mixed: Path, tmp_path: Path) -> None:
    frame = mixed_frame().iloc[:, ::-1]
    source = write_csv(frame.assign(comment="a,b\n"), tmp_path / "x.csv")
    for name, path in (("a", mixed / "rows.csv"), ("b", source)):
        succeed("score", mixed / "model", path, "-o", tmp_path / f"{name}.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_unseen_categories_and_commands_to_the_terminal_are_cells(
    mixed: Path, tmp_path: Path
) -> None:
    source = write_csv(mixed_frame().assign(城市="Atlantis\x1b[31m\nII"), tmp_path / "x.csv")
    text = succeed("explain", mixed / "model", source, "--row", 0, "--columns", 9).stdout
    assert re.search(r"^  城市 +Atlantis\\x1b\[31m\\nII +\w", text, re.M)
    output = tmp_path / "i.csv"
    succeed("impute", mixed / "model", source, "-o", output)
    assert set(pd.read_csv(output)["城市"]) == {"Atlantis\x1b[31m\nII"}


@pytest.mark.parametrize("command", ["score", "explain", "impute"])
def test_one_row_is_a_table(mixed: Path, tmp_path: Path, command: str) -> None:
    source = write_csv(mixed_frame()[:1], tmp_path / "x.csv")
    succeed(command, mixed / "model", source, "-o", tmp_path / "out.csv")
    assert "1 row" in succeed("explain", mixed / "model", source).stdout


@pytest.mark.parametrize("command", ["score", "explain", "impute"])
def test_no_row_is_no_table(mixed: Path, tmp_path: Path, command: str) -> None:
    source = write_csv(mixed_frame()[:0], tmp_path / "x.csv")
    said = fail(command, mixed / "model", source, "-o", tmp_path / "out.csv")
    assert "The table has no rows" in said


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_impute_fills_the_holes_only(mixed: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    text = succeed("impute", mixed / "typed", mixed / name, "-o", output).stdout
    assert "60 rows, 3 missing values filled" in text
    before, after = files.load(mixed / name), files.load(output)
    assert after.schema.remove_metadata() == before.schema.remove_metadata()
    for old, new in zip(before.columns, after.columns, strict=True):
        pairs = zip(old.to_pylist(), new.to_pylist(), strict=True)
        assert all(b is not None and (a is None or a == b) for a, b in pairs)


def test_impute_counts_what_stays_missing(mixed: Path, tmp_path: Path) -> None:
    frame = mixed_frame()
    frame.loc[8, "id"] = None
    source = write_csv(frame, tmp_path / "x.csv")
    text = succeed("impute", mixed / "model", source, "-o", tmp_path / "i.csv").stdout
    assert "3 missing values filled, 1 left missing" in text


def test_impute_writes_a_file_per_draw(mixed: Path, tmp_path: Path) -> None:
    words = ("--n-draws", 3, "--random-state", 5)
    succeed("impute", mixed / "model", mixed / "rows.csv", "-o", tmp_path / "i.csv", *words)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i-1.csv", "i-2.csv", "i-3.csv"]
    drawn = load(mixed / "model").impute(mixed / "rows.csv", 3, random_state=5)
    ages = [table.column("age")[3].as_py() for table in drawn]
    assert [pd.read_csv(tmp_path / f"i-{i}.csv")["age"][3] for i in (1, 2, 3)] == ages
    assert len(set(ages)) == 3


def test_draws_overwrite_all_files_or_none(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "i-2.csv").write_text("mine", encoding="utf-8")
    words = ("impute", mixed / "model", mixed / "rows.csv", "-o", tmp_path / "i.csv")
    assert "i-2.csv' already exists" in fail(*words, "--n-draws", 3)
    assert [p.name for p in tmp_path.iterdir()] == ["i-2.csv"]
    succeed(*words, "--n-draws", 3, "--force")
    assert len(list(tmp_path.iterdir())) == 3
    assert len(values(tmp_path / "i-2.csv")) == 60


def test_draws_that_cannot_all_be_written_leave_nothing(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(sink: Any, table: Any) -> None:
        written.append(sink)
        if len(written) == 3:
            raise OSError(28, "No space left on device", "i-3.csv")

    monkeypatch.setattr(writing._Csv, "write", full)
    words = ("--n-draws", 3, "-o", tmp_path / "i.csv")
    assert "No space left" in fail("impute", mixed / "model", mixed / "rows.csv", *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [0, -2])
def test_impute_refuses_no_draws(mixed: Path, tmp_path: Path, n: int) -> None:
    words = ("--n-draws", n, "-o", tmp_path / "i.csv")
    said = fail("impute", mixed / "model", mixed / "rows.csv", *words)
    assert said == f"Error: Expected n_draws to be an integer of at least 1, got {n}.\n"


def test_impute_needs_a_file_name(mixed: Path) -> None:
    words = ("--n-draws", 2, "-o", ".")
    assert "ends in nothing" in fail("impute", mixed / "model", mixed / "rows.csv", *words)


def test_rows_from_codes_have_their_types_again(mixed: Path, tmp_path: Path) -> None:
    source = mixed / "rows.parquet"
    succeed("encode", mixed / "typed", source, "-o", tmp_path / "c.parquet")
    succeed("decode", mixed / "typed", tmp_path / "c.parquet", "-o", tmp_path / "d.parquet")
    succeed("reconstruct", mixed / "typed", source, "-o", tmp_path / "r.parquet")
    succeed("sample", mixed / "typed", "--rows", 9, "-o", tmp_path / "s.parquet")
    for name in ("d", "r", "s"):
        assert types_of(tmp_path / f"{name}.parquet") == types_of(source)
    assert types_of(source)["城市"].startswith("dictionary")
    assert types_of(source)["joined"].startswith("timestamp")


def test_decoded_cells_are_the_reconstruction(mixed: Path, tmp_path: Path) -> None:
    source = mixed / "rows.csv"
    succeed("encode", mixed / "model", source, "-o", tmp_path / "c.csv")
    succeed("decode", mixed / "model", tmp_path / "c.csv", "-o", tmp_path / "d.csv")
    succeed("reconstruct", mixed / "model", source, "-o", tmp_path / "r.csv")
    decoded, rows = pd.read_csv(tmp_path / "d.csv"), pd.read_csv(tmp_path / "r.csv")
    assert list(decoded) == list(mixed_frame())
    columns = ["城市", "visits", "zip", "smoker"]
    pd.testing.assert_frame_equal(decoded[columns], rows[columns])


@pytest.mark.parametrize("trained_on", ["pandas", "polars"])
def test_model_of_a_frame_writes_files_with_types(tmp_path: Path, trained_on: str) -> None:
    import polars

    frame: Any = mixed_frame().drop(columns="id")
    frame = polars.from_pandas(frame) if trained_on == "polars" else frame
    Autoencoder(epochs=2, random_state=0).fit(frame).save(tmp_path / "m")
    succeed("sample", tmp_path / "m", "--rows", 4, "-o", tmp_path / "s.parquet")
    types = types_of(tmp_path / "s.parquet")
    assert (types["visits"], types["smoker"]) == ("int64", "bool")
    assert types["joined"].startswith("timestamp")
    assert "string" in types["城市"]


def test_sample_draws_what_python_draws(mixed: Path, tmp_path: Path) -> None:
    words = ("--rows", 7, "--random-state", 4, "-o")
    for name in ("a", "b"):
        succeed("sample", mixed / "model", *words, tmp_path / f"{name}.parquet")
    first, second = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    expected = load(mixed / "model").sample(7, random_state=4)
    assert first.drop_columns("joined").equals(expected.drop_columns("joined"))
    assert first.equals(second)
    cells = pd.read_parquet(tmp_path / "a.parquet")
    assert set(cells["城市"]) <= set(mixed_frame()["城市"].dropna())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--rows 0", "Expected n to be an integer of at least 1, got 0"),
        ("--rows 3 --random-state -1", "Expected random_state to be None"),
        (
            "--rows 3 --random-state 4294967296",
            "Expected random_state to be a seed, got 4294967296",
        ),
    ],
)
def test_sample_refuses_what_cannot_be(
    mixed: Path, tmp_path: Path, words: str, reason: str
) -> None:
    output = tmp_path / "s.csv"
    assert reason in fail("sample", mixed / "model", "-o", output, *words.split())
    assert not output.exists()


def test_sample_overwrites_only_when_asked(mixed: Path, tmp_path: Path) -> None:
    words = ("sample", mixed / "model", "--rows", 3, "-o", tmp_path / "s.csv")
    succeed(*words)
    assert "already exists" in fail(*words)
    succeed(*words, "--force")


def test_images_are_completed_and_drawn_as_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 3, 4))
    np.save(tmp_path / "x.npy", images)
    succeed("fit", tmp_path / "x.npy", "-o", tmp_path / "m", *FITTING)
    images[2, 1, 1] = np.nan
    np.save(tmp_path / "y.npy", images)
    text = succeed("impute", tmp_path / "m", tmp_path / "y.npy", "-o", tmp_path / "i.npy").stdout
    assert "40 rows, 1 missing value filled" in text
    succeed("sample", tmp_path / "m", "--rows", 5, "-o", tmp_path / "s.npy")
    assert np.load(tmp_path / "i.npy").shape == images.shape
    assert np.load(tmp_path / "s.npy").shape == (5, 3, 4)
    assert (
        "  x5 "
        in succeed(
            "explain", tmp_path / "m", tmp_path / "y.npy", "--row", 2, "--columns", 12
        ).stdout
    )


def test_explaining_tells_how_far_it_got(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofold.distributed.results._CELLS", 1)
    monkeypatch.setattr("twofold.distributed.results._PROGRESS_SECONDS", -1.0)
    words = ("explain", mixed / "model", mixed / "rows.csv", "--top", 3)
    lines = succeed(*words).stderr.splitlines()
    assert [line.partition(" rows")[0] for line in lines] == [
        "explained 1 of 3",
        "explained 2 of 3",
    ]
    assert succeed(*words, "--quiet").stderr == ""


def test_times_of_day_and_zones_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    start = datetime.datetime(2024, 5, 1)
    moments = [start + datetime.timedelta(hours=int(h)) for h in rng.integers(0, 900, 50)]
    table = pa.table(
        {
            "day": pa.array([moment.date() for moment in moments]),
            "hour": pa.array([moment.time() for moment in moments], pa.time32("ms")),
            "moment": pa.array(moments, pa.timestamp("us", tz="Europe/Zurich")),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    succeed("fit", tmp_path / "x.parquet", "-o", tmp_path / "m", "--epochs", 2, "--quiet")
    text = succeed("explain", tmp_path / "m", tmp_path / "x.parquet", "--row", 4).stdout
    assert re.search(rf"^  day +{moments[4]:%Y-%m-%d} +\d{{4}}-\d\d-\d\d ", text, re.M)
    assert re.search(rf"^  hour +{moments[4]:%H:%M:%S} +\d\d:\d\d:\d\d ", text, re.M)
    assert re.search(rf"^  moment +{moments[4]:%Y-%m-%d %H:%M:%S}Z +\d.*Z ", text, re.M)


def test_new_rows_are_written_as_the_training_file_was(tmp_path: Path) -> None:
    rows = [f"{i % 7},5;{i % 28 + 1}. März 2021;{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "x.csv").write_text("\n".join(["n;day;t", *rows, ""]), encoding="utf-8")
    Autoencoder(epochs=1, random_state=0).fit(tmp_path / "x.csv").save(tmp_path / "m")
    succeed("sample", tmp_path / "m", "--rows", 3, "-o", tmp_path / "s.csv")
    first, *new = (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()
    assert (first, len(new)) == ("n;day;t", 3)
    assert all(re.fullmatch(r"\d,5;\d{1,2}\. März 2021;[ab]", row) for row in new)
