"""A fitted model as one ONNX graph: scaling, network and score, from cells to cells.

The graph takes rows in their own units and gives rows in their own units, so that whoever runs it
needs neither this package nor the model's folder. PyTorch traces the arithmetic. Texts, which
PyTorch has no tensors for, are looked up by nodes in front of it and behind.
"""

from __future__ import annotations

import json
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from twofold import __version__
from twofold.data.output import require_free, write_bytes
from twofold.errors import MissingExtraError, OptionError
from twofold.nn.layers import RecurrentPair
from twofold.nn.network import Network
from twofold.nn.scorer import Scorer
from twofold.persistence.onnx.preprocessing import Cells, Inputs, holds_text
from twofold.persistence.onnx.scoring import TraceableScorer
from twofold.schema.column import Column
from twofold.schema.schema import Schema

if TYPE_CHECKING:
    from onnx import ModelProto

OUTPUTS = {
    "all": ("codes", "reconstruction", "score", "decision"),
    "encoder": ("codes",),
    "decoder": ("reconstruction",),
    "scorer": ("score", "decision"),
}
OPSET = 18
_ML_OPSET = 3  # of the domain ai.onnx.ml, which looks up texts
_MOST_BYTES = 2**31 - 2**20  # a file of one message ends at 2 GiB
_FLOAT32 = np.finfo(np.float32)
_MOST_DIGITS = 100.0  # cells so many scales off zero lose more than 3e-6 of a scale in 32 bits


class Model(Protocol):
    """What a graph is made of: a fitted estimator."""

    network_: Network
    schema_: Schema
    offset_: float
    scorer_: Scorer


def onnx(
    model: Model, path: str | os.PathLike[str], part: str = "all", overwrite: bool = False
) -> None:
    """Write a fitted model to the file `path` as one ONNX graph, as `export_onnx` says."""
    check_is_fitted(model, "network_")
    path = Path(path)
    require_free(path, overwrite)
    content = graph(model, part).SerializeToString(deterministic=True)
    write_bytes(path, content, overwrite)


def graph(model: Model, part: str = "all") -> ModelProto:
    """Return a fitted model as one ONNX graph; `onnx` says what it takes and gives."""
    if part not in OUTPUTS:
        raise OptionError(
            f"Expected part to be one of {', '.join(map(repr, OUTPUTS))}, got {part!r}. Choose one."
        )
    _require_onnx()
    layout = _Layout(model.schema_)
    body = _Body(model, part, layout)
    n_bytes = sum(tensor.nbytes for tensor in body.state_dict().values())
    if n_bytes > _MOST_BYTES:
        raise OptionError(
            f"The network has {n_bytes / 2**30:.1f} GiB of numbers, and an ONNX file ends at 2 "
            f"GiB. Fit a smaller network, or use the model's folder."
        )
    proto = _traced(body, part)
    if layout.by_column:
        _put_columns_around(proto, layout, part)
    _sign(proto, model, layout, part)
    _check(proto)
    return proto


class _Layout:
    """How rows go into the graph and come out: as one tensor, or column by column.

    One tensor holds numbers alone, so a table with texts has an input per column. Columns that the
    network ignores have a place in arrays and images, whose shape they belong to, and none else.
    """

    def __init__(self, schema: Schema) -> None:
        self.columns = tuple(c for c in schema.columns if c.width or not schema.named)
        whole = len(schema.row_shape) > 1
        self.row_shape = schema.row_shape if whole else (len(self.columns),)
        self.by_column = any(holds_text(column) for column in self.columns)
        self.wide = any(_is_wide(column) for column in self.columns)
        self.dtype = torch.float64 if self.wide else torch.float32

    def describe(self, column: Column) -> dict[str, Any]:
        """Say what a column's cells are in the graph, for its metadata."""
        said: dict[str, Any] = {"name": column.name, "kind": column.kind}
        said["likelihood"] = column.likelihood
        said["type"] = _type_of(column) if self.by_column else _FLOATS[self.wide]
        if column.kind == "time":
            said["unit"] = "seconds since 1970-01-01 00:00 UTC"
        if column.kind == "category":
            said["levels"] = list(column.levels)
        return said


def _is_wide(column: Column) -> bool:
    """Whether 32 bits lose what a column's cells say: timestamps, years, amounts to the cent."""
    if not column.width:
        return False
    if column.kind == "category":
        cells = [] if holds_text(column) else [float(level) for level in column.levels]
        return any(np.float32(cell) != cell for cell in cells)
    if column.kind == "count" and not column.knots:
        return False
    largest = max(map(abs, (column.center, *column.knots)))
    finest = min([column.scale, *np.diff(column.knots)])
    in_range = _FLOAT32.tiny < finest < 1 / _FLOAT32.tiny
    return column.kind == "time" or largest > _MOST_DIGITS * finest or not in_range


_FLOATS = {False: "float", True: "double"}


def _type_of(column: Column) -> str:
    return "string" if holds_text(column) else _FLOATS[_is_wide(column)]


class _Body(nn.Module):
    """The arithmetic of the graph: (batch, columns) or codes in, the part's outputs out."""

    def __init__(self, model: Model, part: str, layout: _Layout) -> None:
        super().__init__()
        # Copies on the processor, in 32 bits and without gradients.
        self.network = deepcopy(model.network_).cpu().float().requires_grad_(False)
        for pair in self.network.pairs:
            if isinstance(pair, RecurrentPair):
                torch.compiler.allow_in_graph(_unrolled)  # a loop is traced in another way
                setattr(pair, "_unroll", partial(_unrolled, pair.cell))  # noqa: B010
        scorer = deepcopy(model.scorer_).cpu().float()
        self.scorer = TraceableScorer(scorer)
        self.inputs, self.cells = Inputs(layout.columns), Cells(layout.columns)
        self.part, self.wide = part, layout.wide
        self.row_shape, self.dtype = layout.row_shape, layout.dtype
        self.rounds, self.offset = int(scorer.rounds), float(model.offset_)

    def forward(self, given: Tensor) -> tuple[Tensor, ...]:
        """Return what `OUTPUTS` lists, in its order."""
        if self.part == "decoder":
            return (self._reconstruction(self.scorer.mean(self.network.decode(given))),)
        rows = given.flatten(1)
        x = self.inputs(rows)
        filled = self._filled(x)
        network, bottleneck = self.network, self.network.bottleneck
        path = network.path(filled, network.seen(x))
        codes = bottleneck.code(path)
        if self.part == "encoder":
            return (codes,)
        theta = network.decode(codes)

        def decode(code: Tensor) -> Tensor:
            return theta if code is codes else network.decode(code)

        score = bottleneck.log_density(codes, path, decode, self.scorer, x)
        judged = score.float(), (score - self.offset).float()
        if self.part == "scorer":
            return judged
        return (codes, self._reconstruction(self.scorer.mean(theta), rows), *judged)

    def example(self) -> Tensor:
        """Return something that the body takes."""
        if self.part == "decoder":
            return torch.zeros(3, self.network.n_components)
        return torch.zeros(3, *self.row_shape, dtype=self.dtype)

    def _filled(self, x: Tensor) -> Tensor:
        """Fill missing cells as `inference.complete` does, but in all rows together."""
        seen = ~torch.isnan(x)
        filled = torch.where(seen, x, 0.0)
        if self.rounds == 1:
            return filled

        def goes_on(left: Tensor, part: Tensor, seen: Tensor) -> Tensor:
            return left > 0

        def step(left: Tensor, part: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
            code = self.network.encode(part, seen=seen)[0]
            x_hat = self.scorer.mean(self.network.decode(code))
            return left - 1, torch.where(seen, part, x_hat), seen.clone()

        rounds = torch.where(seen.all(), 0, self.rounds - 1)  # none in complete rows
        ended: tuple[Tensor, ...] = torch.while_loop(goes_on, step, (rounds, filled, seen))
        return ended[1]

    def _reconstruction(self, x_hat: Tensor, own: Tensor | None = None) -> Tensor:
        cells: Tensor = self.cells(x_hat, own)
        if not self.wide:
            cells = cells.clamp(float(_FLOAT32.min), float(_FLOAT32.max)).float()
        return cells.unflatten(1, self.row_shape) if len(self.row_shape) > 1 else cells


# ONNX's name of each cell, and the order in which it has the gates that PyTorch counts 0, 1, 2, ...
_CELLS = {"gru": ("GRU", (1, 0, 2)), "lstm": ("LSTM", (0, 3, 1, 2)), "rnn": ("RNN", (0,))}


def _unrolled(
    cell: str, steps: Tensor, start: Tensor, matrix: Tensor, recurrent: Tensor, bias: Tensor
) -> Tensor:
    """Do as `RecurrentPair` does, by ONNX's own operation: PyTorch's has no way into a graph."""
    name, order = _CELLS[cell]
    n_rows, n_steps, _ = steps.shape
    units = start.shape[1]

    def gates(x: Tensor) -> Tensor:
        return torch.cat([x.narrow(0, gate * units, units) for gate in order]).unsqueeze(0)

    state = start.unsqueeze(0)
    second = torch.zeros_like(bias)  # there are two biases
    biases = torch.cat([gates(bias), second.unsqueeze(0)], 1)
    inputs = [steps.transpose(0, 1), gates(matrix), gates(recurrent), biases, None, state]
    attributes: dict[str, Any] = {"hidden_size": units}
    if cell == "gru":
        attributes["linear_before_reset"] = 1
    if cell == "lstm":
        inputs.append(state)
    states = torch.onnx.ops.symbolic(
        name,
        inputs,
        attributes,
        dtype=steps.dtype,
        shape=(n_steps, 1, n_rows, units),
        version=OPSET,
    )
    return states.squeeze(1).transpose(0, 1)


def _traced(body: _Body, part: str) -> ModelProto:
    """Trace the body into a graph that takes any number of rows."""
    try:
        with torch.no_grad(), _quiet():
            exported = torch.onnx.export(
                body.eval(),
                (body.example(),),
                input_names=["codes" if part == "decoder" else "rows"],
                output_names=list(OUTPUTS[part]),
                dynamic_shapes=({0: torch.export.Dim("n_rows")},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise OptionError(
            f"PyTorch {torch.__version__} cannot make a graph of this network: {reason}"
        ) from error
    assert exported is not None
    proto = exported.model_proto
    _tidy(proto.graph)
    del proto.metadata_props[:]
    return proto


def _tidy(graph: Any) -> None:
    """Name the first axis, and drop what nobody needs: traces of the sources, spare constants."""
    used = {output.name for output in graph.output}
    for node in _nodes(graph):
        used |= set(node.input)
        # Where in the sources a node came from is half of a small file.
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            used |= {output.name for output in attribute.g.output}
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
        value.type.tensor_type.shape.dim[0].dim_param = "n_rows"
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    del graph.value_info[:], graph.metadata_props[:]


def _nodes(graph: Any) -> Iterator[Any]:
    """Give all nodes of a graph, those of its branches and loops as well."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _put_columns_around(proto: ModelProto, layout: _Layout, part: str) -> None:
    """Put an input per column in front of the rows, and an output behind the reconstruction."""
    from onnx import helper

    whole = helper.np_dtype_to_tensor_dtype(np.dtype(_NUMPY[_FLOATS[layout.wide]]))
    if part != "decoder":
        inputs, nodes, parts = [], [], []
        for i, column in enumerate(layout.columns):
            name, kind = f"rows.{column.name}", _element_type(column)
            inputs.append(helper.make_tensor_value_info(name, kind, ["n_rows"]))
            cells = f"rows/{i}"
            if holds_text(column):
                nodes.append(_places(column, name, f"{cells}/place"))
                name, kind = f"{cells}/place", _element_type(None)
            if kind != whole:
                nodes.append(helper.make_node("Cast", [name], [f"{cells}/number"], to=whole))
                name = f"{cells}/number"
            nodes.append(helper.make_node("Unsqueeze", [name, "rows/axis"], [cells]))
            parts.append(cells)
        nodes.append(helper.make_node("Concat", parts, ["rows"], axis=1))
        _constant(proto, "rows/axis", [1])
        _replace(proto.graph.input, inputs)
        _replace(proto.graph.node, [*nodes, *proto.graph.node])
    if "reconstruction" in OUTPUTS[part]:
        outputs = [value for value in proto.graph.output if value.name != "reconstruction"]
        nodes = []
        for i, column in enumerate(layout.columns):
            name, kind = f"reconstruction.{column.name}", _element_type(column)
            outputs.append(helper.make_tensor_value_info(name, kind, ["n_rows"]))
            _constant(proto, f"reconstruction/{i}/column", i)
            cells = f"reconstruction/{i}"
            given = ["reconstruction", f"{cells}/column"]
            nodes.append(helper.make_node("Gather", given, [cells], axis=1))
            if holds_text(column):
                nodes.append(helper.make_node("Cast", [cells], [f"{cells}/place"], to=_INT64))
                nodes.append(_texts(column, f"{cells}/place", name))
            else:
                nodes.append(helper.make_node("Cast", [cells], [name], to=kind))
        _replace(proto.graph.output, outputs)
        proto.graph.node.extend(nodes)
    domain = helper.make_opsetid("ai.onnx.ml", _ML_OPSET)
    if domain.domain not in {opset.domain for opset in proto.opset_import}:
        proto.opset_import.append(domain)


_NUMPY = {"float": "float32", "double": "float64"}
_INT64 = 7  # TensorProto.INT64


def _element_type(column: Column | None) -> int:
    from onnx import TensorProto

    types = {"float": TensorProto.FLOAT, "double": TensorProto.DOUBLE, "string": TensorProto.STRING}
    return int(types["float" if column is None else _type_of(column)])


def _places(column: Column, given: str, result: str) -> Any:
    """Look up which input a text has: a missing one, the empty text, has NaN."""
    from onnx import helper

    levels = [column.levels[i] for i in column.kept]
    place = {level: float(i) for i, level in enumerate(levels) if isinstance(level, str)}
    if "" not in column.levels:
        place[""] = math.nan
    return helper.make_node(
        "LabelEncoder",
        [given],
        [result],
        domain="ai.onnx.ml",
        keys_strings=list(place),
        values_floats=list(place.values()),
        default_float=float(len(column.kept)),
    )


def _texts(column: Column, given: str, result: str) -> Any:
    """Look up the texts of levels, by their positions."""
    from onnx import helper

    return helper.make_node(
        "LabelEncoder",
        [given],
        [result],
        domain="ai.onnx.ml",
        keys_int64s=list(range(len(column.levels))),
        values_strings=[str(level) for level in column.levels],
        default_string="",
    )


def _constant(proto: ModelProto, name: str, value: Any) -> None:
    from onnx import numpy_helper

    proto.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))


def _replace(field: Any, values: Any) -> None:
    """Put other values into a repeated field."""
    fresh = list(values)
    del field[:]
    field.extend(fresh)


def _sign(proto: ModelProto, model: Model, layout: _Layout, part: str) -> None:
    """Say in the graph what it is: version, part, columns and threshold."""
    from onnx import helper

    proto.producer_name, proto.producer_version = "twofold", __version__
    proto.graph.name = f"twofold_{part}"
    about = {
        "twofold.version": __version__,
        "twofold.part": part,
        "twofold.columns": json.dumps([layout.describe(column) for column in layout.columns]),
        "twofold.offset": repr(float(model.offset_)),
    }
    helper.set_model_props(proto, about)


def _check(proto: ModelProto) -> None:
    from onnx import checker

    checker.check_model(proto, full_check=True)


def _require_onnx() -> None:
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise MissingExtraError(
            "Exporting needs onnx and onnxscript, and they are not installed. Install "
            "'twofold[onnx]'."
        ) from error
    del onnx, onnxscript


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what PyTorch's exporter says of itself and of a package that has no part in this."""

    def is_news(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(is_news)
    try:
        with warnings.catch_warnings():
            # PyTorch warns of its own way of copying what it has traced.
            warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        logger.removeFilter(is_news)
