"""A graph gives what Python gives, in any runtime: for all sorts of tables, layers and parts."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from twofold import Autoencoder, Conv, Recurrent, Sparse, Variational
from twofold.cli.main import app
from twofold.errors import DataError, MissingExtraError, OptionError, OutputExistsError
from twofold.estimators import validation
from twofold.inference import apply as inference
from twofold.nn.activations import ACTIVATIONS
from twofold.persistence.onnx import export
from twofold.schema.schema import Schema

pytest.importorskip("onnxscript", reason="onnxscript is not installed")

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

N = 120
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(N, 2))
NUMBERS = (Z @ RNG.normal(size=(2, 8)) * 4 + 20 + RNG.normal(size=(N, 8))).astype(np.float32)
COUNTS = RNG.poisson(np.exp(0.6 * Z @ RNG.normal(size=(2, 5)))).astype(np.float32)
FLAGS = (RNG.uniform(size=(N, 3)) < 1 / (1 + np.exp(-3 * Z[:, [0] * 3]))).astype(np.float32)
IMAGES = RNG.integers(0, 256, (N, 8, 7)).astype(np.uint8)
GREY = RNG.uniform(size=(N, 5, 4, 2)).astype(np.float32)
SEQUENCES = np.cumsum(RNG.normal(size=(N, 6, 2)), axis=1).astype(np.float32)
YEARS = np.column_stack([RNG.integers(1990, 2030, N), 1e9 + RNG.normal(size=N), Z]).astype(float)
WHOLE = np.column_stack([COUNTS % 3, COUNTS, FLAGS, np.round(Z), NUMBERS[:, :2]]).astype(np.float32)
FRAME = pd.DataFrame(
    {
        "height": 170 + 8 * Z[:, 0],
        "smoker": Z[:, 1] > 0.3,
        "visits": RNG.poisson(np.exp(0.6 + 0.5 * Z[:, 0])),
        "town": np.array(["Bonn", "Kiel, Ost", "Ülm"])[
            np.clip(np.rint(Z[:, 1] + 1), 0, 2).astype(int)
        ],
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 30_000, N), "h"),
        "share": RNG.beta(0.3, 0.4, N) * 7 - 2,
        "key": [f"k{i}" for i in range(N)],
    }
)
HOLES = FRAME.astype({"visits": "Int64", "smoker": "boolean"}).mask(
    RNG.uniform(size=FRAME.shape) < 0.1
)
# Every activation, likelihood, layer, bottleneck and container at least once, and as much of it in
# one graph as goes together: tracing takes seconds.
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "numbers": (NUMBERS, {"hidden_layers": (5,)}),
    "bytes": (
        IMAGES,
        {"activation": "tanh", "code_activation": "sigmoid", "bottleneck": Sparse("kl")},
    ),
    "grey": (
        GREY,
        {
            "activation": "elu",
            "code_activation": "softplus",
            "likelihood": "gaussian",
            "hidden_layers": (Conv(3, 3, stride=2), 6),
        },
    ),
    "numbers far from zero": (
        YEARS,
        {
            "precision": "float64",
            "tied": False,
            "activation": "leaky_relu",
            "code_activation": "relu",
            "likelihood": {"x0": "student_t", "x2": "student_t"},
        },
    ),
    "whole numbers": (
        WHOLE,
        {
            "kinds": {"x0": "category", "x1": "category", "x13": "category", "x6": "count"},
            "likelihood": {"x6": "poisson", "x10": "bernoulli", "x11": "bernoulli"},
            "activation": "gelu",
            "code_activation": "silu",
            "tied": False,
            "hidden_layers": (4, 3),
            "bottleneck": Sparse("topk", k=2),
        },
    ),
    "mixed": (
        HOLES,
        {
            "kinds": {"visits": "count"},
            "likelihood": {"share": "histogram"},
            "hidden_layers": (6,),
        },
    ),
    "variational": (
        NUMBERS,
        {"bottleneck": Variational(), "hidden_layers": (4,), "activation": "identity"},
    ),
    "sequences": (
        SEQUENCES,
        {"hidden_layers": (Recurrent(4), Recurrent(4, "lstm"), Recurrent(3, "rnn"))},
    ),
}


ROUNDS = {"mixed": 2, "sequences": 3}  # so often are missing cells filled; else once


@cache
def fitted(name: str) -> Autoencoder:
    rows, options = CASES[name]
    ae = Autoencoder(
        **{"n_components": 3, "epochs": 3, "random_state": 0, "batch_size": 32, **options}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ae.fit(rows)
    ae.scorer_.rounds.fill_(ROUNDS.get(name, 1))
    if name == "bytes":  # so sure of two pixels that their probabilities round to 0 and 1
        with torch.no_grad():
            ae.network_.pairs[0].decoder_bias[:2] = torch.tensor([200.0, -200.0])
    return ae


@dataclass
class Graph:
    """An exported model and a session that runs it."""

    proto: Any
    session: Any

    def __call__(self, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, feed), strict=True))

    @property
    def types(self) -> dict[str, str]:
        return {i.name: i.type for i in self.session.get_inputs()}


@cache
def exported(name: str, part: str = "all") -> Graph:
    proto = export.graph(fitted(name), part)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = proto.SerializeToString()
    return Graph(proto, ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]))


def some(rows: Any, n: int, holes: bool = True) -> Any:
    """`n` of the rows, again and again, with a few cells missing."""
    at = np.arange(n) % len(rows)
    if isinstance(rows, pd.DataFrame):
        return rows.iloc[at].reset_index(drop=True)
    chosen = rows[at].astype(rows.dtype if rows.dtype.kind == "f" else np.float32)
    if holes:
        flat = chosen.reshape(n, -1)
        flat[np.random.default_rng(n).uniform(size=flat.shape) < 0.1] = np.nan
    return chosen


def feed(graph: Graph, rows: Any) -> dict[str, NDArray[Any]]:
    """What the graph takes of these rows."""
    floats = {"tensor(float)": np.float32, "tensor(double)": np.float64}
    if not isinstance(rows, pd.DataFrame):
        return {"rows": rows.astype(floats[graph.types["rows"]])}
    given: dict[str, NDArray[Any]] = {}
    for name, kind in graph.types.items():
        cells = rows[name.removeprefix("rows.")]
        if kind == "tensor(string)":
            given[name] = cells.fillna("").to_numpy(dtype=object)
            continue
        if cells.dtype.kind == "M":
            cells = (cells - pd.Timestamp(0)) / pd.Timedelta("1s")
        given[name] = cells.to_numpy(floats[kind], na_value=np.nan)
    return given


def cells(ae: Autoencoder, rows: Any) -> NDArray[Any]:
    """What Python reconstructs, as numbers: texts as positions among the levels."""
    x_hat = ae._run(inference.reconstruct, ae.read(rows))
    return ae.schema_.from_matrix(x_hat)


def agree(ours: NDArray[Any], expected: NDArray[Any]) -> None:
    scale = np.maximum(np.abs(expected).max(axis=0), 1.0)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours / scale, expected / scale, rtol=0, atol=1e-5)


def agree_in_all(name: str, n: int) -> None:
    ae, graph = fitted(name), exported(name)
    rows = some(CASES[name][0], n, holes=ae.schema_.is_image is False or n > 1)
    given = graph(feed(graph, rows))
    agree(given["codes"], ae.transform(rows))
    agree(given["score"], ae.score_samples(rows))
    agree(given["decision"] + ae.offset_, ae.score_samples(rows))
    expected = cells(ae, rows)
    if "reconstruction" in given:
        agree(given["reconstruction"].reshape(n, -1), expected)
        return
    for i, column in enumerate(ae.schema_.columns):
        if not column.width:
            assert f"reconstruction.{column.name}" not in given
            continue
        ours = given[f"reconstruction.{column.name}"]
        if column.levels:
            assert ours.tolist() == [column.levels[int(place)] for place in expected[:, i]]
        else:
            agree(ours, expected[:, i])


@pytest.mark.parametrize("n", [1, 7, 1000])
@pytest.mark.parametrize("name", CASES)
def test_a_graph_gives_what_python_gives(name: str, n: int) -> None:
    agree_in_all(name, n)


def test_the_cases_leave_nothing_out() -> None:
    used = {CASES[name][1].get("activation", "selu") for name in CASES}
    used |= {CASES[name][1].get("code_activation", "identity") for name in CASES}
    assert used == set(ACTIVATIONS)
    likelihoods = {c.likelihood for name in CASES for c in fitted(name).schema_.columns}
    wanted = "gaussian student_t bernoulli categorical histogram poisson negative_binomial none"
    assert likelihoods == set(wanted.split())


PARTS = [("numbers", "encoder"), ("numbers", "decoder"), ("numbers", "scorer")]
PARTS += [("mixed", "decoder")]


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Require that nothing is printed or logged."""
    with caplog.at_level(logging.WARNING):
        yield
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(("name", "part"), PARTS)
def test_a_part_is_made_silently_and_gives_what_the_whole_gives(name: str, part: str) -> None:
    whole, graph = exported(name), exported(name, part)
    rows = some(CASES[name][0], 7)
    expected = whole(feed(whole, rows))
    given = {"codes": expected["codes"]} if part == "decoder" else feed(graph, rows)
    ours = graph(given)
    wanted = {k for k in expected if k.partition(".")[0] in export.OUTPUTS[part]}
    assert set(ours) == wanted
    for key in wanted:
        if ours[key].dtype == object:
            assert ours[key].tolist() == expected[key].tolist()
        else:
            agree(ours[key], expected[key])


@pytest.mark.parametrize("name", ROUNDS)
def test_the_rounds_of_filling_holes_are_a_loop(name: str) -> None:
    kinds = [node.op_type for node in exported(name).proto.graph.node]
    assert kinds.count("Loop") == 1
    assert kinds.count("Gemm") < 10


def test_rows_without_any_cell_have_a_code_and_a_score() -> None:
    rows = np.full((2, 8), np.nan, np.float32)
    ours = exported("numbers")({"rows": rows})
    agree(ours["codes"], fitted("numbers").transform(rows))
    agree(ours["score"], fitted("numbers").score_samples(rows))


def test_far_cells_are_as_odd_as_in_python() -> None:
    rows = some(NUMBERS, 4, holes=False)
    rows[0, 0], rows[1, 2], rows[2] = 1e5, -1e8, 1e30
    agree(exported("numbers")({"rows": rows})["score"], fitted("numbers").score_samples(rows))


def test_levels_of_the_future_are_all_others() -> None:
    rows = some(HOLES, 3).assign(town=["Paris", "", "Bonn"])
    graph, ae = exported("mixed"), fitted("mixed")
    given = feed(graph, rows)
    rows["town"] = ["Paris", None, "Bonn"]  # in the graph, the empty text is a missing one
    agree(graph(given)["score"], ae.score_samples(rows))


# The file


def dimensions(proto: Any) -> list[list[int]]:
    return [list(tensor.dims) for tensor in proto.graph.initializer]


@pytest.mark.parametrize(("name", "copies"), [("numbers", 1), ("numbers far from zero", 2)])
def test_a_tied_matrix_is_stored_once(name: str, copies: int) -> None:
    shape = list(fitted(name).network_.pairs[0].weight.shape)
    assert dimensions(exported(name).proto).count(shape) == copies
    assert shape[::-1] not in dimensions(exported(name).proto)


def test_tied_filters_are_stored_once() -> None:
    assert dimensions(exported("grey").proto).count([3, 2, 3, 3]) == 1


def test_a_file_is_little_more_than_its_numbers() -> None:
    ae = fitted("bytes")
    density = ae.scorer_.density.mean.numel() * 3  # squares, products, and their sums
    n_bytes = 4 * (ae.network_.n_parameters + density)
    assert n_bytes < len(exported("bytes").proto.SerializeToString()) < 1.1 * n_bytes + 20_000


def test_the_first_axis_is_the_number_of_rows() -> None:
    values = [*exported("bytes").proto.graph.input, *exported("bytes").proto.graph.output]
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in values
    }
    assert shapes == {
        "rows": ["n_rows", 8, 7],
        "codes": ["n_rows", 3],
        "reconstruction": ["n_rows", 8, 7],
        "score": ["n_rows"],
        "decision": ["n_rows"],
    }


def test_columns_are_inputs_of_their_own_where_there_are_texts() -> None:
    assert exported("mixed").types == {
        "rows.height": "tensor(float)",
        "rows.smoker": "tensor(float)",
        "rows.visits": "tensor(float)",
        "rows.town": "tensor(string)",
        "rows.since": "tensor(double)",
        "rows.share": "tensor(double)",
    }


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        (pd.DataFrame({"id": range(N), "x": Z[:, 0], "y": Z[:, 1]}), (2,)),
        (np.column_stack([np.full(N, np.nan), Z]), (3,)),
        (IMAGES, (8, 7)),
    ],
    ids=["frame", "array", "images"],
)
def test_ignored_columns_have_a_place_in_arrays_alone(rows: Any, shape: tuple[int, ...]) -> None:
    schema = Schema.infer(validation.table(Autoencoder(), rows, reset=True))
    assert export._Layout(schema).row_shape == shape


def test_numbers_far_from_zero_are_taken_in_64_bits() -> None:
    assert exported("numbers far from zero").types == {"rows": "tensor(double)"}
    assert exported("numbers").types == {"rows": "tensor(float)"}


def test_a_graph_says_what_it_is() -> None:
    proto = exported("mixed").proto
    about = {entry.key: entry.value for entry in proto.metadata_props}
    columns = json.loads(about["twofold.columns"])
    assert proto.producer_name == "twofold"
    assert about["twofold.part"] == "all"
    assert float(about["twofold.offset"]) == fitted("mixed").offset_
    assert [c["name"] for c in columns] == [*FRAME.columns.drop("key")]
    assert columns[3]["levels"] == list(fitted("mixed").schema_.columns[3].levels)
    assert columns[4]["unit"] == "seconds since 1970-01-01 00:00 UTC"


def test_a_graph_does_not_tell_where_it_was_made() -> None:
    content = exported("numbers").proto.SerializeToString()
    assert b".py" not in content
    assert os.fsencode(Path.cwd()) not in content


def test_a_graph_needs_no_more_than_the_oldest_opset_it_names() -> None:
    opsets = {opset.domain: opset.version for opset in exported("mixed").proto.opset_import}
    assert opsets == {"": export.OPSET, "ai.onnx.ml": 3}


# Writing it


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the encoder that is there already, for making one takes seconds."""
    encoder = exported("numbers", "encoder").proto
    monkeypatch.setattr(export, "graph", lambda *_: encoder)


@pytest.mark.usefixtures("made")
def test_a_file_is_written_and_holds_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "new" / "encoder.onnx"
    export.onnx(fitted("numbers"), path, part="encoder")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    agree(session.run(None, {"rows": NUMBERS})[0], fitted("numbers").transform(NUMBERS))
    assert os.listdir(path.parent) == ["encoder.onnx"]


@pytest.mark.usefixtures("made")
def test_a_file_is_overwritten_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="already exists"):
        export.onnx(fitted("numbers"), path)
    assert path.read_bytes() == b"mine"
    export.onnx(fitted("numbers"), path, "encoder", overwrite=True)
    assert len(path.read_bytes()) > 1000


def test_a_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="is a folder"):
        export.onnx(fitted("numbers"), tmp_path, overwrite=True)


@pytest.mark.usefixtures("made")
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "model.onnx"
    path.write_bytes(b"mine")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device. Nothing there was changed"):
        export.onnx(fitted("numbers"), path, "encoder", overwrite=True)
    assert path.read_bytes() == b"mine"
    assert os.listdir(tmp_path) == ["model.onnx"]


# On the command line


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    fitted("numbers").save(tmp_path / "model")
    return tmp_path


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, words)])


@pytest.mark.usefixtures("made")
def test_the_command_writes_the_graph(saved: Path) -> None:
    said = command(saved / "model", "--output", saved / "model.onnx", "--part", "encoder")
    assert said.exit_code == 0, said.output
    path = saved / "model.onnx"
    assert said.stdout.startswith(f"{path}: a graph that gives codes, ")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    agree(session.run(None, {"rows": NUMBERS})[0], fitted("numbers").transform(NUMBERS))


@pytest.mark.usefixtures("made")
def test_the_command_overwrites_only_with_force(saved: Path) -> None:
    path = saved / "model.onnx"
    path.write_bytes(b"mine")
    words = (saved / "model", "--output", path, "--part", "encoder")
    said = command(*words)
    assert (said.exit_code, path.read_bytes()) == (2, b"mine")
    assert "already exists" in said.stderr
    assert command(*words, "--force").exit_code == 0


def test_the_command_looks_at_its_place_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = command(tmp_path / "nowhere", "--output", tmp_path / "file" / "model.onnx")
    assert said.exit_code == 2
    assert "is not a folder" in said.stderr


def test_the_command_refuses_an_unknown_part(saved: Path) -> None:
    said = command(saved / "model", "--output", saved / "model.onnx", "--part", "half")
    assert said.exit_code == 2
    assert said.stderr.startswith("Error: Expected part to be one of 'all'")


# What cannot be


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(
        OptionError, match="Expected part to be one of 'all', 'encoder'.*got 'half'"
    ):
        export.graph(fitted("numbers"), "half")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"Install 'twofold\[onnx\]'"):
        export.graph(fitted("numbers"))


def test_exporting_leaves_the_model_as_it_was() -> None:
    ae = fitted("numbers far from zero")
    before = ae.score_samples(YEARS)
    exported("numbers far from zero")
    np.testing.assert_array_equal(ae.score_samples(YEARS), before)
    assert all(p.requires_grad for p in ae.network_.parameters())


def test_a_graph_runs_where_twofold_is_not(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", NUMBERS)
    (tmp_path / "model.onnx").write_bytes(exported("numbers").proto.SerializeToString())
    code = (
        "import sys, numpy as np, onnxruntime as ort\n"
        "s = ort.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])\n"
        "np.save('codes.npy', s.run(['codes'], {'rows': np.load('rows.npy')})[0])\n"
        "assert not {'twofold', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    agree(np.load(tmp_path / "codes.npy"), fitted("numbers").transform(NUMBERS))
