"""A model folder is written whole or not at all, and a bad one is told from a good one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import resource
import shutil
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from twofold import Autoencoder, load
from twofold.errors import ModelFileError, OutputExistsError
from twofold.persistence import folder as model_folder
from twofold.persistence.folder import DOCUMENT, WEIGHTS

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
ROWS = np.random.default_rng(1).normal(size=(40, 6)) * 3 + 10
OPTIONS: dict[str, Any] = {"n_components": 2, "epochs": 2, "batch_size": 16, "random_state": 0}


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    return Autoencoder(**OPTIONS).fit(ROWS)


@pytest.fixture
def folder(model: Autoencoder, tmp_path: Path) -> Path:
    """A saved model, alone in its parent folder."""
    path = tmp_path / "models" / "small"
    model.save(path)
    return path


def same(a: Autoencoder, b: Autoencoder) -> bool:
    """Whether two fitted models hold the same bits."""
    first, second = a.network_.state_dict(), b.network_.state_dict()
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
        and all(
            torch.equal(tensor, b.scorer_.state_dict()[name])
            for name, tensor in a.scorer_.state_dict().items()
        )
        and (a.schema_, a.offset_, a.history_) == (b.schema_, b.offset_, b.history_)
    )


def test_a_loaded_model_holds_the_same_bits(model: Autoencoder, folder: Path) -> None:
    assert same(load(folder), model)


@pytest.mark.parametrize(
    "verb", ["transform", "reconstruct", "score_samples", "decision_function", "predict"]
)
def test_a_loaded_model_gives_the_same_answers(verb: str, model: Autoencoder, folder: Path) -> None:
    np.testing.assert_array_equal(getattr(load(folder), verb)(ROWS), getattr(model, verb)(ROWS))


def test_a_loaded_model_inverts_codes_alike(model: Autoencoder, folder: Path) -> None:
    codes = model.transform(ROWS)
    expected = model.inverse_transform(codes)
    np.testing.assert_array_equal(load(folder).inverse_transform(codes), expected)


def test_a_loaded_model_compares_with_the_same_pca(model: Autoencoder, folder: Path) -> None:
    assert load(folder).compare_pca(ROWS) == model.compare_pca(ROWS)


def test_a_loaded_model_has_the_same_fitted_attributes(model: Autoencoder, folder: Path) -> None:
    def public(ae: Autoencoder) -> set[str]:
        return {name for name in vars(ae) if name.endswith("_")}

    assert public(load(folder)) == public(model)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_layers": (5, 4)},
        {"hidden_layers": [5]},
        {"hidden_layers": ()},
        {"tied": False},
        {"tied": np.False_},
        {"likelihood": {"x0": "gaussian"}},
        {"likelihood": types.MappingProxyType({"x0": "gaussian"})},
        {"learning_rate": np.float32(0.25)},
        {"precision": "float64"},
        {"contamination": 0.25},
        {"validation_fraction": 0.0, "patience": None},
    ],
    ids=str,
)
def test_options_survive_saving(options: dict[str, Any], tmp_path: Path) -> None:
    ae = Autoencoder(**OPTIONS | options).fit(ROWS)
    ae.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    expected = ae.get_params() | {"hidden_layers": loaded.hidden_layers}
    assert loaded.get_params() == expected
    assert same(loaded, ae)


def test_a_random_state_object_is_not_kept(tmp_path: Path) -> None:
    ae = Autoencoder(**OPTIONS | {"random_state": np.random.RandomState(0)}).fit(ROWS)
    ae.save(tmp_path / "model")
    assert load(tmp_path / "model").random_state is None


def test_a_table_where_nothing_varies_can_be_saved(tmp_path: Path) -> None:
    ae = Autoencoder(**OPTIONS).fit(np.ones((20, 4)))
    ae.save(tmp_path / "model")
    assert np.isnan(load(tmp_path / "model").reconstruction_r2_)


def test_refitting_a_loaded_model_gives_the_same_bits(model: Autoencoder, folder: Path) -> None:
    refitted = load(folder).fit(ROWS)
    first, second = model.network_.state_dict(), refitted.network_.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_loaded_model_knows_the_names_of_its_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=list("abcdef"))
    Autoencoder(**OPTIONS).fit(frame).save(tmp_path / "model")
    assert list(load(tmp_path / "model").feature_names_in_) == list("abcdef")


def test_columns_without_names_have_none_after_loading(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)  # its columns are called 0, 1, ... which is no text
    ae = Autoencoder(**OPTIONS).fit(frame)
    ae.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").transform(frame), ae.transform(frame))


def test_a_folder_holds_two_files_and_nothing_else(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [DOCUMENT, WEIGHTS]


def test_the_folder_can_be_read_by_others(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_tied_matrix_is_stored_once(folder: Path) -> None:
    matrices = [name for name in load_file(folder / WEIGHTS) if name.endswith(".weight")]
    assert matrices == [
        *(f"network.levels.{i}.weight" for i in range(3)),
        "network.shortcut.weight",
    ]


def test_the_document_is_json_that_says_what_the_model_is(folder: Path) -> None:
    document = json.loads((folder / DOCUMENT).read_text())
    assert document["network"] == {
        "hidden_layers": [128, 64],
        "n_components": 2,
        "shortcut": True,
        "activation": "relu",
    }
    assert document["options"]["n_components"] == 2
    assert [column["kind"] for column in document["schema"]["columns"]] == ["real"] * 6


def test_loading_unpickles_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pickle was opened")

    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(module, name, refuse)
    load(folder)


def test_missing_parents_are_made(model: Autoencoder, tmp_path: Path) -> None:
    model.save(tmp_path / "a" / "b" / "model")
    load(tmp_path / "a" / "b" / "model")


def test_a_path_may_be_text_and_relative(
    model: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model.save("model")
    load("model")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its place."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_existing_model_is_not_overwritten_unasked(model: Autoencoder, folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(OutputExistsError, match=r"already exists"):
        model.save(folder)
    assert contents(folder) == before


def test_an_existing_model_gives_way_where_asked(folder: Path) -> None:
    other = Autoencoder(**OPTIONS | {"random_state": 1}).fit(ROWS)
    other.save(folder, overwrite=True)
    assert same(load(folder), other)
    assert os.listdir(folder.parent) == ["small"]


@pytest.mark.parametrize(
    "place",
    [
        lambda path: path.write_text("thesis"),
        lambda path: path.mkdir(),
        lambda path: (path.mkdir(), (path / DOCUMENT).write_text("{}")),
        lambda path: (path.mkdir(), (path / "thesis.txt").write_text("...")),
        lambda path: path.symlink_to(path.parent / "nowhere"),
    ],
    ids=["file", "empty folder", "another model.json", "folder", "dangling link"],
)
def test_only_a_model_folder_gives_way(
    place: Callable[[Path], object], model: Autoencoder, tmp_path: Path
) -> None:
    path = tmp_path / "taken"
    place(path)
    before = contents(tmp_path)
    with pytest.raises(OutputExistsError, match="exists and is not a twofold model"):
        model.save(path, overwrite=True)
    assert contents(tmp_path) == before


def test_a_model_folder_with_someones_file_in_it_does_not_give_way(
    model: Autoencoder, folder: Path
) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="nothing else, so it is left alone"):
        model.save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_link_to_a_model_gives_way_and_its_target_stays(model: Autoencoder, folder: Path) -> None:
    link = folder.parent / "latest"
    link.symlink_to(folder)
    model.save(link, overwrite=True)
    assert same(load(folder), model)
    assert same(load(link), model)


def fail_at(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, error: BaseException
) -> None:
    """Make the call of that number, counted from 1, raise `error`."""
    original, calls = getattr(owner, name), []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == number:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


POINTS = [
    pytest.param(os, "fsync", 1, id="weights"),
    pytest.param(os, "fsync", 2, id="document"),
    pytest.param(tempfile, "mkdtemp", 1, id="new folder"),
    pytest.param(Path, "chmod", 1, id="mode"),
    pytest.param(Path, "rename", 1, id="first rename"),
]
LATER = [
    pytest.param(tempfile, "mkdtemp", 2, id="folder for the old"),
    pytest.param(Path, "rename", 2, id="second rename"),
]
ERRORS = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=["full disk", "interrupted"])
@pytest.mark.parametrize(("owner", "name", "number"), POINTS)
def test_a_failed_save_leaves_nothing(
    owner: Any,
    name: str,
    number: int,
    error: BaseException,
    model: Autoencoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_at(monkeypatch, owner, name, number, error)
    with pytest.raises((ModelFileError, KeyboardInterrupt)):
        model.save(tmp_path / "model")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error", ERRORS, ids=["full disk", "interrupted"])
@pytest.mark.parametrize(("owner", "name", "number"), POINTS + LATER)
def test_a_failed_save_leaves_the_old_model(
    owner: Any,
    name: str,
    number: int,
    error: BaseException,
    model: Autoencoder,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = contents(folder.parent)
    other = Autoencoder(**OPTIONS | {"random_state": 1}).fit(ROWS)
    fail_at(monkeypatch, owner, name, number, error)
    with pytest.raises((ModelFileError, KeyboardInterrupt)):
        other.save(folder, overwrite=True)
    assert contents(folder.parent) == before
    assert same(load(folder), model)


def test_a_full_disk_is_told_in_words(
    model: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, os, "fsync", 1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(
        ModelFileError, match=r"model could not be written: No space left on device\. Noth"
    ):
        model.save(tmp_path / "model")


def test_a_path_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nowhere does not exist"):
        load(tmp_path / "nowhere")


def test_a_file_is_no_model(folder: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is a file"):
        load(folder / DOCUMENT)


@pytest.mark.parametrize("name", [DOCUMENT, WEIGHTS])
def test_a_missing_file_is_told_by_name(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=f"{name} cannot be read: No such file"):
        load(folder)


@pytest.mark.parametrize("name", [DOCUMENT, WEIGHTS])
@pytest.mark.parametrize("kind", ["folder", "pipe", "endless device", "loop"])
def test_what_is_no_plain_file_is_not_read(kind: str, name: str, folder: Path) -> None:
    path = folder / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "endless device" else path)
    with pytest.raises(ModelFileError, match=r"to be a plain file|cannot be read"):
        load(folder)


def test_files_may_be_links_to_plain_files(
    model: Autoencoder, folder: Path, tmp_path: Path
) -> None:
    for name in (DOCUMENT, WEIGHTS):
        shutil.move(folder / name, tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    assert same(load(folder), model)


@pytest.mark.parametrize("name", [DOCUMENT, WEIGHTS])
def test_a_file_of_another_size_is_not_even_read(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "_MOST_JSON", 50_000)
    os.truncate(folder / name, 10**12)  # a sparse file: it takes no room on the disk
    with pytest.raises(ModelFileError, match=r"expected at most .* bytes, got 1,000,000,000,000"):
        load(folder)


@pytest.mark.parametrize("name", [DOCUMENT, WEIGHTS])
def test_a_file_cut_off_anywhere_is_told(name: str, folder: Path) -> None:
    whole = (folder / name).read_bytes()
    for length in [0, 1, 7, 8, 9, *np.linspace(10, len(whole) - 1, 20, dtype=int)]:
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            load(folder)


@pytest.mark.parametrize("name", [DOCUMENT, WEIGHTS])
def test_a_flipped_bit_anywhere_is_told_or_changes_nothing(
    name: str, model: Autoencoder, folder: Path
) -> None:
    whole = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    told = 0
    for place in np.linspace(0, len(whole) - 1, 150, dtype=int):
        altered = bytearray(whole)
        altered[place] ^= 1 << rng.integers(8)
        (folder / name).write_bytes(altered)
        try:
            assert same(load(folder), model)
        except ModelFileError:
            told += 1
    assert told > 100  # most of a document's bytes, and each of the weights', matter


def test_the_document_of_another_model_is_told(folder: Path) -> None:
    other = Autoencoder(**OPTIONS | {"random_state": 1}).fit(ROWS)
    other.save(folder.parent / "other")
    shutil.copy(folder.parent / "other" / DOCUMENT, folder / DOCUMENT)
    with pytest.raises(ModelFileError, match="its SHA-256 is not the one in|bytes belong"):
        load(folder)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the document as someone would who knows how its digest is made."""
    document = json.loads((folder / DOCUMENT).read_text())
    del document["sha256"]
    change(document)
    document["sha256"] = model_folder._digest(document)
    (folder / DOCUMENT).write_text(json.dumps(document))


def put(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], object]:
    """Set what lies under the keys."""

    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


HOSTILE = {
    "huge code": put("network", "n_components", value=10**12),
    "code beyond 64 bits": put("network", "n_components", value=10**40),
    "negative code": put("network", "n_components", value=-2),
    "code of text": put("network", "n_components", value="2"),
    "fractional code": put("network", "n_components", value=2.5),
    "huge layer": put("network", "hidden_layers", value=[10**12]),
    "a million layers": put("network", "hidden_layers", value=[3] * 1_000_000),
    "another layer": put("network", "hidden_layers", value=[3, 3]),
    "one layer less": put("network", "hidden_layers", value=[]),
    "layers of text": put("network", "hidden_layers", value="3"),
    "no layers": put("network", "hidden_layers", value=None),
    "no network": put("network", value=None),
    "unknown option": put("options", "tide", value=True),
    "option of no meaning": put("options", "activation", value="__import__"),
    "untied": put("options", "tied", value=False),
    "options of a list": put("options", value=[1]),
    "no schema": put("schema", value={}),
    "column kind": put("schema", "columns", 2, "kind", value="os.system"),
    "fewer columns": lambda document: document["schema"]["columns"].pop(),
    "no columns": put("schema", "columns", value=[]),
    "row shape": put("schema", "row_shape", value=[10**9, 10**9]),
    "column scale": put("schema", "columns", 5, "scale", value=0),
    "columns of text": put("schema", "columns", value="x0"),
    "column of none": put("schema", "columns", 0, value=None),
    "offset of text": put("calibration", "offset", value="low"),
    "offset beyond floats": put("calibration", "offset", value=10**400),
    "no calibration": put("calibration", value=None),
    "history of a number": put("history", value=5),
    "history of text": put("history", value="long"),
    "best epoch of text": put("best_epoch", value="last"),
    "history of other things": put("history", value=[{"loss": "low"}]),
    "format of the future": put("format", value=3),
    "format of text": put("format", value="1"),
    "format of none": put("format", value=0),
    "digest of weights": put("weights_sha256", value=5),
    "size of weights": put("weights_bytes", value="many"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_in_little_memory(name: str, folder: Path) -> None:
    rewrite(folder, HOSTILE[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelFileError):
        load(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize("number", [1, 7])
def test_another_format_is_refused_in_one_sentence(number: int, folder: Path) -> None:
    rewrite(folder, put("format", value=number))
    said = rf"has format {number}, written by twofold [\d.]+; expected format 2, .* Fit the model"
    with pytest.raises(ModelFileError, match=said):
        load(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "NaN",
        '{"format": 1}',
        '{"format": 1, "sha256": NaN}',
        '{"format": 1, "offset": NaN}',
        '{"format": 1, "offset": 1e999}',
        '{"format": true}',
        '{"format": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"a":' * 100_000,
        '"\\ud800"',
        "\ufeff{}",
        "\x00",
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_document_that_is_none_is_refused(text: str, folder: Path) -> None:
    (folder / DOCUMENT).write_text(text)
    with pytest.raises(ModelFileError):
        load(folder)


def test_a_document_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / DOCUMENT).write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ModelFileError):
        load(folder)


def resign(folder: Path) -> None:
    """Make the document vouch for whatever weights there are."""
    blob = (folder / WEIGHTS).read_bytes()
    digest = hashlib.sha256(blob).hexdigest()
    rewrite(folder, lambda d: d.update(weights_sha256=digest, weights_bytes=len(blob)))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 8 + b"{}",
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (62).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4]}}  '
        + b"0000",
        pickle.dumps({"a": 1}),
    ],
    ids=["empty", "zeros", "endless header", "long header", "no tensors", "overlong", "pickle"],
)
def test_weights_that_are_none_are_refused(blob: bytes, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(blob)
    resign(folder)
    with pytest.raises(ModelFileError):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("network.levels.0.weight"),
        lambda t: t.pop("scorer.spread"),
        lambda t: t.pop("pca.mean"),
        lambda t: t.update({"network.levels.9.weight": torch.zeros(2, 2)}),
        lambda t: t.update({"network.levels.0.weight": torch.zeros(6, 3)}),
        lambda t: t.update({"network.levels.0.weight": torch.zeros(3, 6, dtype=torch.int64)}),
        lambda t: t.update({"network.bottleneck.density.mean": torch.zeros(1, 3)}),
        lambda t: t.update({"pca.mean": torch.zeros(5)}),
        lambda t: t.update({"pca.components": torch.zeros(2, 5)}),
        lambda t: t.update({"pca.components": torch.zeros(6)}),
    ],
    ids=[
        "no matrix",
        "no spread",
        "no pca",
        "another matrix",
        "transposed",
        "whole numbers",
        "wide density",
        "short pca",
        "narrow components",
        "one component",
    ],
)
def test_weights_of_another_network_are_refused(
    change: Callable[[dict[str, torch.Tensor]], object], folder: Path
) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    resign(folder)
    with pytest.raises(ModelFileError, match="does not fit together"):
        load(folder)


def test_a_document_without_its_digest_is_refused(folder: Path) -> None:
    document = json.loads((folder / DOCUMENT).read_text())
    del document["sha256"]
    (folder / DOCUMENT).write_text(json.dumps(document))
    with pytest.raises(ModelFileError, match="does not match its own SHA-256"):
        load(folder)


def test_a_document_written_in_another_style_is_the_same(model: Autoencoder, folder: Path) -> None:
    document = json.loads((folder / DOCUMENT).read_text())
    (folder / DOCUMENT).write_text(json.dumps(dict(reversed(document.items()))))
    assert same(load(folder), model)
