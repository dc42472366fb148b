"""Rows that stay on disk give the same models and results as rows in memory, in little memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from twofold import Autoencoder, Files, load
from twofold.cli.main import app
from twofold.data import files, formats, memory, sources
from twofold.data.files import OpenFiles
from twofold.data.output import Pace, Writer
from twofold.errors import (
    DataError,
    LosesToPCAWarning,
    OptionError,
    OutputExistsError,
    SkippedFilesWarning,
)
from twofold.estimators import fitting
from twofold.schema import batches as schema_batches
from twofold.schema import scan
from twofold.schema.scan import RowSampler
from twofold.schema.schema import Schema
from twofold.training.streaming import Stream, StreamedRows

RNG = np.random.default_rng(3)
N = 2_000
CPU = torch.device("cpu")


def mixed() -> pd.DataFrame:
    """A table of all sorts of columns, with holes; its texts differ from place to place."""
    height = RNG.normal(170, 10, N)
    towns = np.where(np.arange(N) < N // 2, "north", "south")
    towns = np.where(RNG.random(N) < 0.3, RNG.choice(["Bern", "Ulm", "Graz"], N), towns)
    frame = pd.DataFrame(
        {
            "height": height,
            "weight": 0.9 * height - 90 + RNG.normal(0, 5, N),
            "town": towns,
            "visits": RNG.poisson(2, N),
            "member": RNG.random(N) < 0.3,
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 999, N), "D"),
            "id": [f"p{i:05}" for i in range(N)],
            "number": np.arange(N),
        }
    )
    frame.loc[::7, "weight"] = np.nan
    frame.loc[::11, "town"] = None
    return frame


FRAME = mixed()
PLAIN = (RNG.normal(size=(N, 3)) @ RNG.normal(size=(3, 8)) + 0.2 * RNG.normal(size=(N, 8))).astype(
    np.float32
)
NAMES = [f"c{i}" for i in range(8)]


def write_parquet(folder: Path, table: pa.Table, n_files: int = 5, group: int = 300) -> Path:
    folder.mkdir(exist_ok=True)
    step = -(-len(table) // n_files)
    for i in range(n_files):
        part = table.slice(i * step, step)
        pq.write_table(part, folder / f"part-{i:03}.parquet", row_group_size=group)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain numbers as a Parquet folder, a CSV file and an array."""
    folder = tmp_path_factory.mktemp("plain")
    table = pa.table(dict(zip(NAMES, PLAIN.T, strict=True)))
    write_parquet(folder / "parquet", table)
    pc.write_csv(table, folder / "rows.csv")
    np.save(folder / "rows.npy", PLAIN)
    return folder


@pytest.fixture(scope="module")
def various(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mixed table as a Parquet folder and as CSV files."""
    folder = tmp_path_factory.mktemp("various")
    table = pa.Table.from_pandas(FRAME, preserve_index=False)
    write_parquet(folder / "parquet", table)
    (folder / "csv").mkdir()
    for i in range(4):
        FRAME[i * 500 : (i + 1) * 500].to_csv(folder / "csv" / f"{i}.csv", index=False)
    return folder


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small files have many parts, and small sources several chunks."""
    monkeypatch.setattr(formats, "PART_BYTES", 20_000)
    monkeypatch.setattr(files, "CHUNK_ROWS", 350)


def fit(source: Any, **given: Any) -> Autoencoder:
    options = {"n_components": 3, "epochs": 2, "batch_size": 64, "random_state": 0, **given}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LosesToPCAWarning)
        return Autoencoder(**options).fit(source)


def streamed(path: Path | str, **given: Any) -> Files:
    return Files(path, stream=True, **given)


def opened(path: Path | str, **given: Any) -> OpenFiles:
    found = streamed(path, **given).open()
    assert isinstance(found, OpenFiles)
    return found


def schema_of(path: Path | str) -> tuple[Schema, Stream]:
    stream = Stream(opened(path), seed=0, fraction=0.0)
    return Schema.infer(stream.sample, statistics=stream.statistics), stream


def to_train_on(path: Path | str, fraction: float = 0.0) -> StreamedRows:
    stream = Stream(opened(path), seed=0, fraction=fraction)
    schema = Schema.infer(stream.sample, statistics=stream.statistics)
    rows = stream.draw(schema, torch.float32, CPU).rows
    assert isinstance(rows, StreamedRows)
    return rows


def batches(rows: StreamedRows, seed: int, n_rows: int = 64, skip: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    width = rows.head(1).shape[1]
    made = rows.batches(n_rows, generator, lambda n: torch.empty(n, width), skip)
    return [batch.clone() for batch in made]


# The schema


def test_schema_is_that_of_the_table_in_memory(various: Path) -> None:
    ours, _ = schema_of(various / "parquet")
    theirs = Schema.infer(sources.read(files.load(various / "parquet")))
    for a, b in zip(ours.columns, theirs.columns, strict=True):
        assert (a.name, a.kind, a.likelihood, a.levels, a.kept) == (
            b.name,
            b.kind,
            b.likelihood,
            b.levels,
            b.kept,
        )
        assert (a.counts, a.note, a.format) == (b.counts, b.note, b.format)
        assert a.center == pytest.approx(b.center, rel=1e-9)
        assert a.scale == pytest.approx(b.scale, rel=1e-9)


@pytest.mark.usefixtures("small_parts")
def test_schema_of_csv_files_is_that_in_memory(various: Path) -> None:
    ours, _ = schema_of(various / "csv")
    theirs = Schema.infer(sources.read(files.load(various / "csv")))
    assert [(c.kind, c.levels, c.format) for c in ours.columns] == [
        (c.kind, c.levels, c.format) for c in theirs.columns
    ]


def test_figures_are_of_all_rows_and_the_sample_is_small(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_MOST_ROWS", 500)
    schema, stream = schema_of(plain / "parquet")
    assert stream.sample.n_rows == 500
    np.testing.assert_allclose(schema.center, PLAIN.mean(0, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(schema.scale, PLAIN.std(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_array_equal(stream.statistics.low, PLAIN.min(0))
    np.testing.assert_array_equal(stream.statistics.high, PLAIN.max(0))


def test_missing_cells_are_counted_exactly(various: Path) -> None:
    _, stream = schema_of(various / "parquet")
    np.testing.assert_array_equal(stream.statistics.n, FRAME.notna().sum())


def test_levels_are_united_and_counted_across_files(various: Path) -> None:
    schema, stream = schema_of(various / "parquet")
    column = schema.columns[2]
    counts = FRAME["town"].value_counts()
    assert column.levels == ("Bern", "Graz", "Ulm", "north", "south")
    assert stream.statistics.counts[2].tolist() == [*(counts[t] for t in column.levels), 0]


def test_too_many_different_texts_are_no_category(
    various: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_batches, "_MOST_TEXTS", 3)
    schema, _ = schema_of(various / "parquet")
    assert schema.columns[2].kind == "ignored"
    assert schema.columns[2].note == "holds more than 3 different texts"


def test_category_that_was_asked_for_keeps_the_first_texts(
    various: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_batches, "_MOST_TEXTS", 3)
    ae = fit(streamed(various / "parquet"), kinds={"town": "category"}, epochs=1)
    column = ae.schema_.columns[2]
    assert len(column.levels) == 3
    assert set(column.levels) < set(FRAME["town"].dropna())


# Training


def test_training_is_as_good_as_in_memory(plain: Path) -> None:
    ours, theirs = fit(streamed(plain / "parquet"), epochs=20), fit(PLAIN, epochs=20)
    a, b = (ae.history_[ae.best_epoch_ - 1]["validation_loss"] for ae in (ours, theirs))
    assert a == pytest.approx(b, rel=0.25)  # in another order, and of other held-out rows
    x = PLAIN[:500]
    frame = pd.DataFrame(x, columns=NAMES)
    errors = [np.square(ours.reconstruct(frame) - x), np.square(theirs.reconstruct(x) - x)]
    r2 = [1 - float(np.sum(np.asarray(e))) / x.var(0).sum() / 500 for e in errors]
    assert r2[0] == pytest.approx(r2[1], abs=0.01)
    assert len(ours.calibration_scores_) == len(theirs.calibration_scores_) == N // 10


def test_mixed_tables_with_holes_are_trained_on(various: Path) -> None:
    ours = fit(streamed(various / "parquet"), batch_size=256)
    theirs = fit(various / "parquet", batch_size=256)
    a, b = (ae.history_[-1]["loss"] for ae in (ours, theirs))
    assert a == pytest.approx(b, rel=0.05)
    assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", ["rows.csv", "rows.npy", "parquet"])
def test_same_seed_gives_the_same_model(plain: Path, name: str) -> None:
    a, b = (fit(streamed(plain / name), epochs=2).network_.state_dict() for _ in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_epoch_passes_every_row_once(plain: Path) -> None:
    rows = to_train_on(plain / "parquet")
    seen = torch.cat(batches(rows, seed=1))
    assert len(rows) == len(seen) == N
    whole = rows._schema.to_matrix(sources.read(PLAIN), np.float32)
    order = np.lexsort(whole.T), np.lexsort(seen.numpy().T)
    np.testing.assert_allclose(seen.numpy()[order[1]], whole[order[0]], atol=1e-6)


def test_batches_are_full_but_for_the_last(plain: Path) -> None:
    sizes = [len(batch) for batch in batches(to_train_on(plain / "parquet"), 0, n_rows=150)]
    assert sizes == [150] * 13 + [50]


def test_order_is_a_matter_of_the_seed(plain: Path) -> None:
    rows = to_train_on(plain / "parquet")
    first, again, other = (torch.cat(batches(rows, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("skip", [1, 7, 30, 31])
def test_skipped_batches_change_nothing_after_them(
    plain: Path, monkeypatch: pytest.MonkeyPatch, skip: int
) -> None:
    monkeypatch.setattr("twofold.training.streaming._WINDOW_ROWS", 500)
    rows = to_train_on(plain / "parquet")
    whole, rest = batches(rows, 5), batches(rows, 5, skip=skip)
    assert len(rest) == len(whole) - skip
    assert all(torch.equal(a, b) for a, b in zip(whole[skip:], rest, strict=True))


def test_workers_share_each_batch_of_the_same_order(plain: Path) -> None:
    rows = to_train_on(plain / "parquet")
    whole = batches(rows, 4, n_rows=130)
    shares = [batches(rows.share(rank, 3), 4, n_rows=130) for rank in range(3)]
    for batch, *own in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat(own), batch)
        assert [len(part) for part in own] == [len(p) for p in batch.tensor_split(3)]


def test_rows_of_several_files_are_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofold.training.streaming._WINDOW_ROWS", 2_000)
    table = pa.table({"file": np.repeat(np.arange(10.0), 1000), "cell": RNG.normal(size=10_000)})
    write_parquet(tmp_path / "sorted", table, n_files=10, group=1000)
    rows = to_train_on(tmp_path / "sorted")
    distinct = [len(np.unique(b[:, 0])) for b in batches(rows, 0, n_rows=256)]
    assert min(distinct[:-4]) >= 5


def test_held_out_rows_are_never_trained_on(plain: Path) -> None:
    stream = Stream(opened(plain / "parquet"), seed=0, fraction=0.25)
    schema = Schema.infer(stream.sample, statistics=stream.statistics)
    drawn = stream.draw(schema, torch.float32, CPU)
    assert isinstance(drawn.rows, StreamedRows)
    trained = {tuple(row) for batch in batches(drawn.rows, 0) for row in batch.tolist()}
    assert drawn.held_out is not None
    held_out = {tuple(row) for row in drawn.held_out[:].tolist()}
    assert len(held_out) == N // 4
    assert len(trained) == len(drawn.rows) == N - N // 4
    assert not trained & held_out


def test_share_of_anomalies_is_that_of_all_rows(plain: Path) -> None:
    ae = fit(streamed(plain / "parquet"), contamination=0.1)
    assert (ae.predict(plain / "parquet") < 0).mean() == pytest.approx(0.1, abs=1e-3)


def test_ended_training_goes_on_to_the_same_model(plain: Path, tmp_path: Path) -> None:
    source = streamed(plain / "parquet")
    whole = fit(source, epochs=3)
    seen = []

    def interrupt(event: Any) -> None:
        seen.append(event)
        if event.kind == "epoch" and event.epoch == 2:
            raise KeyboardInterrupt

    options = {"n_components": 3, "epochs": 3, "batch_size": 64, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = Autoencoder(**options)
        cut.fit(source, checkpoint=tmp_path / "run", callbacks=[interrupt])
        rest = Autoencoder(**options).fit(source, checkpoint=tmp_path / "run", resume=True)
    a, b = whole.network_.state_dict(), rest.network_.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_partial_fit_takes_files(plain: Path) -> None:
    # From a random start: the linear rows of these files leave nothing to gain on PCA's.
    options = {"shortcut": False, "pretraining": None, "batch_size": 64, "random_state": 0}
    ae = Autoencoder(n_components=3, **options)
    ae.partial_fit(streamed(plain / "parquet")).partial_fit(streamed(plain / "parquet"))
    assert ae.n_iter_ == 2
    assert ae.history_[1]["loss"] < ae.history_[0]["loss"]


def test_global_random_state_is_left_alone(plain: Path, untouched_random_state: None) -> None:
    fit(streamed(plain / "parquet"), epochs=1)


# When rows are streamed


def test_large_sources_are_streamed_unasked(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(Files(plain / "parquet").open(), pa.Table)
    monkeypatch.setattr(memory, "available", lambda: 100_000)
    assert isinstance(Files(plain / "parquet").open(), OpenFiles)
    assert isinstance(Files(plain / "parquet", stream=False).open(), pa.Table)


def test_paths_are_streamed_by_every_method(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 100_000)
    monkeypatch.setattr(OpenFiles, "load", lambda _: pytest.fail("all rows were read"))
    path = str(plain / "parquet")
    ae = fit(path, epochs=1)
    assert ae.transform(path).shape == (N, 3)
    assert len(ae.score_samples(path)) == len(ae.predict(path)) == N
    assert ae.reconstruct(path).num_rows == ae.impute(path).num_rows == N


def test_limit_of_the_process_counts(tmp_path: Path) -> None:
    code = (
        "import resource, sys; sys.modules['x'] = None\n"
        "from twofold.data import memory\n"
        "free = memory.available()\n"
        "size = memory._figures(memory.Path('/proc/self/status'))['VmSize']\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 50_000_000,) * 2)\n"
        "assert free > 2 * 50_000_000 > 0 and memory.available() <= 50_000_000\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_limit_of_a_container_counts(tmp_path: Path) -> None:
    group = tmp_path / "group" / "a" / "b"
    group.mkdir(parents=True)
    (group.parent / "memory.max").write_text("1000000\n")
    (group.parent / "memory.current").write_text("700000\n")
    (group.parent / "memory.stat").write_text("anon 5\ninactive_file 100000\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("10\n")
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert memory._left_by_groups(tmp_path / "group", own) == [400_000]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stream": "yes"}, "stream must be True, False or 'auto'; got 'yes'"),
        ({"on_bad_file": "ignore"}, "on_bad_file must be 'error' or 'skip'; got 'ignore'"),
    ],
)
def test_options_of_files_are_checked(given: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Files("rows", **given)


# Results


@pytest.fixture(scope="module")
def model(various: Path) -> Autoencoder:
    return fit(various / "parquet", epochs=2)


def alike(a: pa.Table, b: pa.Table) -> None:
    """Require the same rows, to the rounding of products of other sizes."""
    assert a.schema.equals(b.schema)
    for name in a.column_names:
        ours, theirs = a[name].to_pandas(), b[name].to_pandas()
        if pd.api.types.is_datetime64_any_dtype(ours):
            ours, theirs = (x.astype("datetime64[s]").astype("int64") for x in (ours, theirs))
        pd.testing.assert_series_equal(ours, theirs, rtol=1e-4)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", ["parquet", "csv"])
def test_results_of_a_streamed_path_are_those_in_memory(
    various: Path, model: Autoencoder, name: str
) -> None:
    path, whole = streamed(various / name), files.load(various / name)
    np.testing.assert_allclose(model.transform(path), model.transform(whole), atol=1e-5)
    np.testing.assert_allclose(model.score_samples(path), model.score_samples(whole), rtol=1e-4)
    alike(model.impute(path), model.impute(whole))
    alike(model.reconstruct(path), model.reconstruct(whole))


@pytest.mark.usefixtures("small_parts")
def test_draws_of_streamed_rows_differ_from_part_to_part(various: Path, model: Autoencoder) -> None:
    path = streamed(various / "parquet")
    first, second = model.impute(path, n_draws=2, random_state=0)
    again, _ = model.impute(path, n_draws=2, random_state=0)
    assert first.equals(again)
    holes = FRAME["weight"].isna().to_numpy()
    a, b = (t["weight"].to_numpy()[holes] for t in (first, second))
    assert (a != b).mean() > 0.6
    assert len(np.unique(a)) > 0.5 * holes.sum()


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def succeed(*words: str | Path) -> Any:
    result = run(*words)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="module")
def saved(plain: Path) -> Path:
    """A model of the plain numbers, in its folder."""
    fit(plain / "parquet", epochs=1).save(plain / "model")
    return plain / "model"


@pytest.mark.usefixtures("small_parts")
# What a command computes and how a file is written know nothing of each other.
@pytest.mark.parametrize(
    ("command", "suffix"),
    [("encode", ".csv"), ("score", ".parquet"), ("reconstruct", ".npy"), ("impute", ".csv")],
)
def test_command_writes_the_same_rows_either_way(
    plain: Path, saved: Path, tmp_path: Path, command: str, suffix: str
) -> None:
    for flag in ("--stream", "--no-stream"):
        output = tmp_path / f"out{flag}{suffix}"
        result = succeed(command, saved, plain / "parquet", "-o", output, flag)
        assert f"{N:,}" in result.stdout
    a, b = (files.load(tmp_path / f"out{flag}{suffix}") for flag in ("--stream", "--no-stream"))
    a, b = (pd.DataFrame(x) if suffix == ".npy" else x.to_pandas() for x in (a, b))
    if command == "score":
        assert_ranks_agree(a.pop(a.columns[2]), b.pop(b.columns[2]), load(saved))
    pd.testing.assert_frame_equal(a, b, rtol=1e-4, atol=1e-5)
    assert len(list(tmp_path.iterdir())) == 2  # nothing else is left


def assert_ranks_agree(ours: pd.Series, theirs: pd.Series, model: Autoencoder) -> None:
    """Where scores differ by rounding, ranks among the held-out rows may differ by one."""
    n = len(model.calibration_scores_)
    assert np.abs(ours - theirs).max() <= 1.001 / (n + 1)


@pytest.mark.usefixtures("small_parts")
def test_score_numbers_rows_and_names_columns_across_parts(
    various: Path, tmp_path: Path, model: Autoencoder
) -> None:
    model.save(tmp_path / "m")
    shown = []
    for flag in ("--stream", "--no-stream"):
        output = tmp_path / f"{flag}.csv"
        result = succeed("score", tmp_path / "m", various / "parquet", "-o", output, flag, "-q")
        shown.append(result.stdout.replace(flag, ""))
    ours, theirs = (pd.read_csv(tmp_path / f"{f}.csv") for f in ("--stream", "--no-stream"))
    assert ours["row"].tolist() == list(range(N))
    assert_ranks_agree(ours.pop("p_value"), theirs.pop("p_value"), model)
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4)
    assert ours["columns"].notna().sum() == (ours["label"] < 0).sum() > 0
    assert shown[0] == shown[1]


def test_fit_command_streams_and_drops(various: Path, tmp_path: Path) -> None:
    words = ("--drop", "id,number", "--epochs", 1, "--stream", "-q")
    result = succeed("fit", various / "parquet", "-o", tmp_path / "m", *map(str, words))
    assert f"{N:,}" in result.stdout
    from twofold import load

    assert load(tmp_path / "m").schema_.names == tuple(FRAME.columns[:6])


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_half_a_file_is_never_left(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_text("old")

    def interrupted() -> None:
        with Writer(path, NAMES, force=True) as writer:
            writer.write(PLAIN[:100])
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_parts_of_a_file_are_one_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    with Writer(path, NAMES) as writer:
        for start in range(0, N, 900):
            writer.write(PLAIN[start : start + 900])
    np.testing.assert_allclose(sources.read(files.load(path)).values, PLAIN, rtol=1e-6)


def test_file_that_came_up_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"

    def write() -> None:
        with Writer(path) as writer:
            writer.write(PLAIN)
            path.write_text("mine")

    with pytest.raises(OutputExistsError):
        write()
    assert path.read_text() == "mine"


def test_images_are_written_as_images(tmp_path: Path) -> None:
    with Writer(tmp_path / "x.npy") as writer:
        writer.write(np.zeros((2, 3, 4), np.uint8))
        writer.write(np.ones((5, 3, 4), np.uint8))
    assert np.load(tmp_path / "x.npy").shape == (7, 3, 4)


def test_pace_tells_rows_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 6.0, 12.0, 13.0])
    monkeypatch.setattr("twofold.data.output.time.perf_counter", lambda: next(clock))
    told: list[str] = []
    pace = Pace(100_000, told.append)
    for n_rows in (10_000, 20_000, 30_000, 40_000):
        pace.add(n_rows)
    assert told == [
        "30,000 of 100,000 rows  5,000 rows/s  14 s left",
        "60,000 of 100,000 rows  5,000 rows/s  8 s left",
    ]


def test_ctrl_c_leaves_no_half_file(
    plain: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, whole = [], Autoencoder.transform

    def interrupted(self: Autoencoder, X: Any) -> Any:
        if not isinstance(X, files.OpenFiles):
            parts.append(len(X))
            if len(parts) == 3:
                signal.raise_signal(signal.SIGINT)
        return whole(self, X)

    monkeypatch.setattr(files, "CHUNK_ROWS", 400)
    monkeypatch.setattr(Autoencoder, "transform", interrupted)
    words = ["encode", saved, plain / "parquet", "-o", tmp_path / "c.csv", "--stream"]
    ended = CliRunner().invoke(app, [str(word) for word in words])
    assert len(parts) == 3
    assert ended.exit_code == 130
    assert "Interrupted; nothing was written." in ended.stderr
    assert list(tmp_path.iterdir()) == []


# Files that are broken, or do not fit together


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    """A hundred small files, four of which are bad in their own way."""
    table = pa.table(dict(zip(NAMES, PLAIN.T, strict=True)))
    folder = write_parquet(tmp_path / "hundred", table, n_files=100, group=10)
    name = "part-{:03}.parquet".format
    whole = (folder / name(17)).read_bytes()
    (folder / name(17)).write_bytes(whole[: len(whole) // 2])
    (folder / name(30)).write_bytes(b"")
    part = table.slice(0, 20)
    pq.write_table(part.rename_columns([*NAMES[:-1], "other"]), folder / name(44))
    text = pa.array(["n/a"] * 20)
    pq.write_table(part.set_column(2, "c2", text), folder / name(71))
    return folder


@pytest.mark.parametrize("stream", [True, False])
def test_all_bad_files_are_told_before_any_work(
    hundred: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(fitting, "build", lambda *_: pytest.fail("worked first"))
    with pytest.raises(DataError) as caught:
        fit(Files(hundred, stream=stream))
    text = str(caught.value)
    assert text.startswith("4 of 100 files cannot be used:\n")
    assert "part-017.parquet cannot be read as PARQUET" in text
    assert "part-030.parquet is empty" in text
    assert "part-044.parquet: it has no column 'c7', and has 'other', which others have not" in text
    assert "part-071.parquet: column 'c2' holds text (string), and numbers in other files" in text
    assert "on_bad_file='skip'" in text


@pytest.mark.parametrize("stream", [True, False])
def test_bad_files_are_left_out_when_asked(hundred: Path, stream: bool) -> None:
    with pytest.warns(SkippedFilesWarning, match="4 of 100 files were left out"):
        rows = Files(hundred, stream=stream, on_bad_file="skip").open()
    assert len(rows) == N - 4 * 20
    with pytest.warns(SkippedFilesWarning):
        ae = fit(Files(hundred, stream=stream, on_bad_file="skip"), epochs=1)
    assert len(ae.schema_.columns) == 8


def test_command_counts_what_it_left_out(hundred: Path, tmp_path: Path) -> None:
    words = ("fit", hundred, "-o", tmp_path / "m", "--epochs", "1", "-q")
    assert "part-071.parquet: column 'c2'" in run(*words).stderr
    result = succeed(*words, "--on-bad-file", "skip")
    assert "warning: 4 of 100 files were left out" in result.stderr


def test_first_file_may_be_the_bad_one(tmp_path: Path) -> None:
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0]})
    write_parquet(tmp_path / "x", table, n_files=4)
    pq.write_table(pa.table({"a": ["text"]}), tmp_path / "x" / "part-000.parquet")
    with pytest.raises(DataError, match=r"1 of 4 files .*\n- .*part-000.parquet: column 'a' holds"):
        Files(tmp_path / "x").open()


@pytest.mark.skip(reason="bytes of a page that are zeroed may still decode")
def test_cells_that_cannot_be_decoded_are_found_before_training(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x"
    table = pa.table({"a": RNG.normal(size=3000), "b": RNG.normal(size=3000)})
    write_parquet(folder, table, n_files=3, group=1000)
    bad = folder / "part-001.parquet"
    content = bytearray(bad.read_bytes())
    content[100:4000] = bytes(3900)
    bad.write_bytes(content)
    monkeypatch.setattr(Autoencoder, "_train", lambda *_: pytest.fail("trained"))
    with pytest.raises(DataError, match="part-001.parquet cannot be read as PARQUET"):
        fit(streamed(folder), n_components=1)
    monkeypatch.undo()
    with pytest.warns(SkippedFilesWarning, match="part-001.parquet"):
        ae = fit(streamed(folder, on_bad_file="skip"), n_components=1, epochs=1)
    assert len(ae.calibration_scores_) == 200


def test_infinite_cell_is_named_with_its_file_and_row(tmp_path: Path) -> None:
    cells = RNG.normal(size=400)
    cells[350] = np.inf
    write_parquet(tmp_path / "x", pa.table({"a": RNG.normal(size=400), "b": cells}), n_files=2)
    words = r"part-001.parquet: .*column 'b' holds infinity in row 150"
    with pytest.raises(DataError, match=words):
        fit(streamed(tmp_path / "x"))


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_file_that_changes_while_training_is_told(tmp_path: Path, what: str) -> None:
    table = pa.table(dict(zip(NAMES, PLAIN.T, strict=True)))
    folder = write_parquet(tmp_path / "x", table)
    path = folder / "part-002.parquet"

    def disturb(event: Any) -> None:
        if event.kind == "epoch" and event.epoch == 1:
            path.unlink()
            if what == "changed":
                pq.write_table(table, path)

    words = "part-002.parquet (has changed since|is gone)"
    with pytest.raises(DataError, match=words):
        Autoencoder(n_components=2, epochs=3, random_state=0).fit(
            streamed(folder), callbacks=[disturb]
        )


def test_csv_line_of_another_length_is_told_with_its_file(various: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("x,y\n1,2\n3,4\n")
    with (tmp_path / "b.csv").open("a") as file:
        file.write("5,6,7\n")
    with pytest.raises(DataError, match=r"b.csv: line 4 has 3 cells and the header 2: '5,6,7'"):
        fit(streamed(tmp_path))


def test_types_of_files_are_united(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    pq.write_table(pa.table({"a": [1, 2, 3], "b": pa.nulls(3)}), folder / "1.parquet")
    pq.write_table(pa.table({"a": [0.5, 1.5], "b": ["x", "y"]}), folder / "2.parquet")
    pq.write_table(pa.table({"a": pa.array([], pa.int8()), "b": []}), folder / "3.parquet")
    found = opened(folder)
    assert found.schema.types == [pa.float64(), pa.string()]
    (rows,) = [chunk for _, chunk in found.chunks()]
    assert rows.to_pydict() == {"a": [1, 2, 3, 0.5, 1.5], "b": [None] * 3 + ["x", "y"]}


# Sorts of sources


@pytest.mark.usefixtures("small_parts")
def test_csv_column_is_settled_by_all_its_cells(tmp_path: Path) -> None:
    lines = [f"{i},{i},2020-01-0{i % 9 + 1},u{i % 3}" for i in range(4000)]
    lines[3900] = '0.5,odd,2020-01-01 10:00:00,"quoted, with\na line end"'
    (tmp_path / "x.csv").write_text("\n".join(["a,b,c,d", *lines]) + "\n")
    found = opened(tmp_path / "x.csv")
    rows = pa.concat_tables(chunk for _, chunk in found.chunks())
    assert len(found.parts) > 3
    assert found.schema.types == [pa.float64(), pa.string(), pa.timestamp("s"), pa.string()]
    assert rows["b"][3899:3902].to_pylist() == ["3899", "odd", "3901"]
    assert rows["d"][3900].as_py() == "quoted, with\na line end"
    assert len(rows) == 4000


@pytest.mark.parametrize("end", ["\n", ""])
def test_csv_without_rows_or_last_line_end(tmp_path: Path, end: str) -> None:
    (tmp_path / "x.csv").write_text(f"a,b\n1,2\n3,4{end}")
    (tmp_path / "y.csv").write_text(f"a,b{end}")
    assert opened(tmp_path / "x.csv").n_rows == 2
    with pytest.raises(DataError, match="no rows"):
        fit(streamed(tmp_path / "y.csv"))


@pytest.mark.usefixtures("small_parts")
def test_images_in_an_array_stay_on_disk(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (600, 6, 5), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    ae = fit(streamed(tmp_path / "x.npy"), epochs=1)
    assert ae.schema_.row_shape == (6, 5)
    assert ae.schema_.columns[0].scale == 255
    assert ae.reconstruct(streamed(tmp_path / "x.npy")).shape == (600, 6, 5)


def test_cut_off_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", PLAIN)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:-40])
    with pytest.raises(DataError, match="cut off"):
        opened(tmp_path / "x.npy")


def test_array_in_columns_is_read_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(PLAIN))
    np.testing.assert_array_equal(streamed(tmp_path / "x.npy").open(), PLAIN)


def test_other_filesystems_are_read(plain: Path) -> None:
    inside = pa.fs.SubTreeFileSystem(str(plain), pa.fs.LocalFileSystem())
    for source in ("parquet", "parquet/*.parquet", "par*/part-*"):
        found = streamed(source, filesystem=inside).open()
        assert found.n_rows == N
    whole = Files("rows.csv", filesystem=inside).open()
    assert whole.num_rows == N


def test_address_names_its_filesystem(plain: Path) -> None:
    found = streamed((plain / "parquet").as_uri()).open()
    assert found.n_rows == N


def test_address_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        streamed((tmp_path / "none").as_uri()).open()
    with pytest.raises(DataError, match="cannot be reached"):
        streamed("nowhere://bucket/rows").open()


def test_categories_declared_by_their_type_keep_their_order(tmp_path: Path) -> None:
    sizes = pd.Categorical(RNG.choice(["s", "m", "l"], 300), ["s", "m", "l", "xl"], ordered=True)
    frame = pd.DataFrame({"size": sizes, "x": RNG.normal(size=300)})
    write_parquet(tmp_path / "x", pa.Table.from_pandas(frame, preserve_index=False), 3)
    ours, _ = schema_of(tmp_path / "x")
    theirs = Schema.infer(sources.read(files.load(tmp_path / "x")))
    assert ours.columns[0] == theirs.columns[0]


# The machinery


def test_sampler_draws_as_many_as_are_asked_for() -> None:
    sampler = RowSampler.of(7, 10_000, 1_000, 500)
    numbers = sampler.numbers(0, 10_000)
    assert (~sampler.trains(numbers)).sum() == 1_000
    assert sampler.in_sample(numbers).sum() == 500


def test_sampler_knows_a_row_wherever_it_starts() -> None:
    sampler = RowSampler(7, 0, 0)
    np.testing.assert_array_equal(sampler.numbers(0, 100)[40:], sampler.numbers(40, 60))


def test_sampler_of_many_rows_draws_about_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_EXACT_ROWS", 100)
    sampler = RowSampler.of(7, 100_000, 10_000, 0)
    assert (~sampler.trains(sampler.numbers(0, 100_000))).sum() == pytest.approx(10_000, rel=0.03)


def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_MOST_ROWS", 1_000)
    monkeypatch.setattr(scan, "_EXACT_ROWS", 10_000)
    monkeypatch.setattr("twofold.training.streaming._WINDOW_ROWS", 2_000)
    peaks = []
    for n_rows in (20_000, 100_000):
        table = pa.table({f"c{i}": RNG.normal(size=n_rows).astype(np.float32) for i in range(16)})
        folder = write_parquet(tmp_path / str(n_rows), table, n_rows // 5_000, group=1_000)
        del table
        fit(streamed(folder), epochs=1, batch_size=512)  # imports, and what is kept for good
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        fit(streamed(folder), epochs=1, batch_size=512)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pa.total_allocated_bytes() - before < 2**20
    assert peaks[1] < 1.4 * peaks[0]  # five times the rows
