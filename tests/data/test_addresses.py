"""Files at addresses: read, written whole, and refused before any work if they cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile
from typer.testing import CliRunner

from twofold import Autoencoder, Files, load
from twofold.cli.main import app
from twofold.data import addresses
from twofold.data.addresses import Folder
from twofold.data.output import Writer
from twofold.errors import CheckpointError, DataError, OutputExistsError

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, 4)) + 0.1 * RNG.normal(size=(60, 4))
NAMES = ["a", "b", "c", "d"]
FLAGS = ["--n-components", "2", "--epochs", "2", "--random-state", "0", "--quiet"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket with rows in it; nothing may be written in this folder."""
    monkeypatch.chdir(tmp_path)
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    with filesystem.open("/bucket/rows.parquet", "wb") as file:
        pq.write_table(pa.table(dict(zip(NAMES, X.T, strict=True))), file)
    yield "memory://bucket"
    assert not list(tmp_path.iterdir())
    filesystem.store.clear()


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_reads_and_writes_at_addresses(store: str) -> None:
    rows, model = f"{store}/rows.parquet", f"{store}/model"
    said = run("fit", rows, "--output", model, "--checkpoint", f"{store}/run", *FLAGS)
    assert f"{model} (" in said
    assert Folder(model).names() == ["model.json", "weights.safetensors"]
    assert Folder(f"{store}/run").names() == []
    assert model in run("info", model)
    for verb, name in (("score", "scores.csv"), ("encode", "codes.npy"), ("impute", "i.parquet")):
        run(verb, model, rows, "--output", f"{store}/{name}")
    assert Files(f"{store}/scores.csv").open(stream=False).num_rows == 60
    assert "The 10 most anomalous of 60 rows" in run("explain", model, rows)


def test_a_model_at_an_address_is_the_same(store: str) -> None:
    ae = Autoencoder(n_components=2, epochs=1, random_state=0).fit(X)
    ae.save(f"{store}/model")
    np.testing.assert_array_equal(load(f"{store}/model").transform(X), ae.transform(X))
    with pytest.raises(OutputExistsError, match=f"'{store}/model' already exists"):
        ae.save(f"{store}/model")
    ae.save(f"{store}/model", overwrite=True)
    with pytest.raises(OutputExistsError, match="is not a twofold model"):
        ae.save(store, overwrite=True)


def test_training_resumes_from_an_address(store: str) -> None:
    def stop(event: Any) -> None:
        if event.kind == "epoch" and event.epoch == 1:
            raise SystemExit

    options: dict[str, Any] = {"n_components": 2, "epochs": 3, "random_state": 0}
    run_at = {"checkpoint": f"{store}/run", "checkpoint_seconds": 0}
    with pytest.raises(SystemExit):
        Autoencoder(**options).fit(X, callbacks=[stop], **run_at)
    assert all(name.startswith("checkpoint-") for name in Folder(f"{store}/run").names())
    with pytest.raises(CheckpointError, match=f"{store}/run already exists"):
        Autoencoder(**options).fit(X, **run_at)
    found = Autoencoder(**options).fit(X, resume=True, **run_at)
    expected = Autoencoder(**options).fit(X)
    np.testing.assert_array_equal(found.transform(X), expected.transform(X))


@pytest.mark.parametrize("output", ["https://127.0.0.1:1/model", "nowhere://bucket/model"])
@pytest.mark.usefixtures("store")
def test_what_cannot_be_written_is_refused_before_any_work(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Autoencoder, "fit", lambda *_, **__: pytest.fail("it began to train"))
    result = CliRunner().invoke(app, ["fit", "memory://bucket/rows.parquet", "--output", output])
    assert result.exit_code == 2
    assert "cannot be" in result.output


def test_half_a_file_is_never_at_an_address(store: str) -> None:
    def write() -> None:
        with Writer(Path(f"{store}/rows.csv")) as writer:
            writer.write(pa.table({"a": [1]}))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert Folder(store).names() == ["rows.parquet"]


def test_filesystems_of_fsspec_are_read(store: str) -> None:
    found = Files("bucket/*.parquet", filesystem=fsspec.filesystem("memory")).open(stream=False)
    assert found.column_names == NAMES


def test_a_file_address_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ae = Autoencoder(n_components=1, epochs=1, random_state=0).fit(X)
    ae.save(f"file://{tmp_path}/model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert load(f"file://{tmp_path}/model").n_components == 1
    assert addresses.local("C:\\rows") == Path("C:\\rows")


def test_drivers_errors_are_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Exception):
        pass

    def fail(_: object) -> None:
        raise Wrong("no token\nsecond line")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(DataError, match=r"thing://here cannot be reached: no token\. Check"):
        addresses.filesystem_of("thing://here")


def test_a_row_group_elsewhere_takes_one_request(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = fsspec.filesystem("memory")
    table = pa.table({f"x{i}": RNG.normal(size=2000) for i in range(50)})
    with filesystem.open("/bucket/wide.parquet", "wb") as file:
        pq.write_table(table, file, row_group_size=1000)
    source = Files(f"{store}/wide.parquet", stream=True).open()
    requests: list[Any] = []
    read = MemoryFile.read
    monkeypatch.setattr(MemoryFile, "read", lambda f, *a: (requests.append(a), read(f, *a))[1])
    assert sum(len(batch) for batch in source.batches(source.parts[1], 100)) == 1000
    assert len(requests) == 1
