"""Convolutional and recurrent pairs: tied for real, shaped right, and at work in the estimator."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twofold import Autoencoder, Conv, Masking, Recurrent, datasets, load
from twofold.data.table import Table
from twofold.errors import DataError, ModelFileError, OptionError
from twofold.nn import layers, threads
from twofold.nn.layers import ConvPair, RecurrentPair
from twofold.nn.network import Network
from twofold.nn.objective import Objective
from twofold.options import OPTIONS, check
from twofold.schema.schema import Schema
from twofold.training.fused import supports

pytestmark = pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
CELLS = ("gru", "lstm", "rnn")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def with_biases(module: nn.Module) -> Any:
    """The module in 64 bits, with biases that are not zero, so that nothing hides behind them."""
    module.double()
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            if parameter.ndim == 1:
                parameter.add_(normal(len(parameter), seed=i))
    return module


def without_biases(module: nn.Module) -> Any:
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    return module


def sines(n: int, steps: int = 20, noise: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """Sines of all phases and of many frequencies: (n, steps, 1)."""
    rng = np.random.default_rng(seed)
    turns, phase = rng.uniform(0.5, 2.5, (n, 1)), rng.uniform(0, 1, (n, 1))
    time = np.linspace(0, 1, steps)
    clean = np.sin(2 * np.pi * (turns * time + phase))
    return (clean + noise * rng.normal(size=(n, steps))).astype(np.float32)[:, :, None]


# What a layer is, as a value


LAYERS: list[Any] = [64, Conv(16, 3), Conv(8, 4, 2), Conv(8, 5, 2, 0), Recurrent(64), "conv:4:3"]
LAYERS += [Recurrent(5, "lstm")]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_survives_json(layer: Any) -> None:
    assert layers.from_json(json.loads(json.dumps(layers.to_json(layer)))) == layer


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layers_text_says_the_layer(layer: Any) -> None:
    (parsed,) = OPTIONS["hidden_layers"].parse(str(layer))
    assert layers.resolve(parsed) == layers.resolve(layer)


def test_the_command_line_takes_layers_of_all_sorts() -> None:
    text = "conv:16:3:2, conv:8:3:2,64"
    assert OPTIONS["hidden_layers"].parse(text) == ("conv:16:3:2", "conv:8:3:2", 64)


def test_numbers_of_numpy_become_plain_ones() -> None:
    json.dumps(layers.to_json(Conv(np.int64(16), np.int32(3))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "layer", ["conv", "conv:16", "conv:0:3", "conv:4:3:0", "recurrent:8:foo", "dense:3", 0, 2.5]
)
def test_what_is_no_layer_is_refused(layer: Any) -> None:
    with pytest.raises(OptionError, match="Expected hidden_layers to be"):
        check({"hidden_layers": (layer,)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv(0, 3), "channels to be an integer of at least 1"),
        (lambda: Conv(4, 2.5), "size to be an integer"),  # type: ignore[arg-type]
        (lambda: Conv(4, 3, 0), "stride to be an integer of at least 1"),
        (lambda: Conv(4, 3, padding=-1), "padding to be an integer of at least 0"),
        (lambda: Conv(4, 3, padding=3), "Expected padding below size"),
        (lambda: Recurrent(True), "units to be an integer"),
        (lambda: Recurrent(4, "gated"), "Expected the cell 'gru', 'lstm' or 'rnn'"),
        (lambda: layers.resolve("conv:4"), "'conv:4' is not a layer. Write a width"),
        (lambda: layers.resolve("pool:2:2"), "'pool:2:2' is not a layer"),
    ],
)
def test_a_layer_that_means_nothing_is_refused(make: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


# Convolution


SHAPES = [(27, 27, 1), (28, 28, 1), (9, 12, 3), (5, 5, 2), (3, 8, 1)]
FILTERS = [Conv(4, 3), Conv(4, 3, 2), Conv(3, 2, 2), Conv(2, 3, 3), Conv(2, 1, 2)]
FILTERS += [Conv(3, 3, 2, padding=0), Conv(3, 3, 1, padding=2), Conv(2, 2, 1)]


@pytest.mark.parametrize("layer", FILTERS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_images_come_back_in_their_size(shape: tuple[int, int, int], layer: Conv) -> None:
    pair = ConvPair(shape, layer, generator=generator())
    x = torch.zeros(2, pair.n_in)
    assert pair.decode(pair.encode(x)).shape == x.shape


@pytest.mark.parametrize("layer", FILTERS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_is_the_adjoint_of_encode(shape: tuple[int, int, int], layer: Conv) -> None:
    pair = ConvPair(shape, layer, generator=generator()).double()
    x, h = normal(3, pair.n_in), normal(3, pair.n_out, seed=2)
    torch.testing.assert_close((pair.encode(x) * h).sum(), (x * pair.decode(h)).sum())


def test_decode_is_not_the_adjoint_in_an_untied_pair() -> None:
    pair = ConvPair((8, 8, 1), Conv(4, 3), tied=False, generator=generator()).double()
    x, h = normal(3, pair.n_in), normal(3, pair.n_out, seed=2)
    assert not torch.isclose((pair.encode(x) * h).sum(), (x * pair.decode(h)).sum(), rtol=0.01)


def test_filters_slide_over_rows_that_are_flat_images() -> None:
    pair = with_biases(ConvPair((5, 6, 2), Conv(3, 3, 2), generator=generator()))
    images = normal(4, 5, 6, 2)
    maps = pair.encode(images.flatten(1)).reshape(4, 3, 3, 3)
    patch = images[:, 1:4, 3:6]  # below the place in row 1 and column 2 of the map, with padding 1
    by_hand = torch.einsum("bijc,ocij->bo", patch, pair.weight) + pair.encoder_bias
    torch.testing.assert_close(maps[:, 1, 2], by_hand)


def test_the_gradient_of_tied_filters_is_the_sum_of_both_uses() -> None:
    tied = ConvPair((6, 6, 1), Conv(3, 3, 2), generator=generator())
    untied = ConvPair((6, 6, 1), Conv(3, 3, 2), tied=False)
    untied.load_state_dict(tied.state_dict() | {"decoder_weight": tied.weight.detach().clone()})
    x = normal(5, 36).float()
    for pair in (tied, untied):
        ((x - pair.decode(torch.tanh(pair.encode(x)))) ** 2).sum().backward()
    assert untied.decoder_weight is not None
    both = untied.weight.grad + untied.decoder_weight.grad  # type: ignore[operator]
    torch.testing.assert_close(tied.weight.grad, both)


def test_filters_that_are_larger_than_the_image_are_refused() -> None:
    with pytest.raises(OptionError, match="filters of 9 x 9 pixels.* only 8 x 8 pixels"):
        ConvPair((8, 8, 1), Conv(4, 9, padding=0))


# Recurrence


def by_hand(pair: RecurrentPair, x: Tensor, h: Tensor, side: str) -> Tensor:
    """The states after each step, by the cells' equations, without PyTorch's kernels."""
    n = pair.units
    if side == "encoder":
        gates = pair.weight.new_empty(0, x.shape[2]) if pair.cell == "rnn" else pair.encoder_gates
        assert gates is not None
        w = torch.cat([gates[: 2 * n], pair.weight, gates[2 * n :]])
        u, b = pair.encoder_recurrent, pair.encoder_bias
    else:
        w, u, b = pair.decoder_input, pair.decoder_recurrent, pair.decoder_cell_bias
    c, states = h, []
    for step in x.unbind(1):
        i, r = (step @ w.T + b).split(n, 1), (h @ u.T).split(n, 1)
        if pair.cell == "rnn":
            h = torch.tanh(i[0] + r[0])
        elif pair.cell == "gru":
            keep = torch.sigmoid(i[1] + r[1])
            offer = torch.tanh(i[2] + torch.sigmoid(i[0] + r[0]) * r[2])
            h = keep * h + (1 - keep) * offer
        else:
            a = [x + y for x, y in zip(i, r, strict=True)]
            c = torch.sigmoid(a[1]) * c + torch.sigmoid(a[0]) * torch.tanh(a[2])
            h = torch.sigmoid(a[3]) * torch.tanh(c)
        states.append(h)
    return torch.stack(states, 1)


def recurrent(cell: str, whole: bool = False, steps: int = 7, tied: bool = True) -> RecurrentPair:
    pair = RecurrentPair((steps, 2), Recurrent(5, cell), whole, tied, generator())
    module: RecurrentPair = with_biases(pair)
    return module


@pytest.mark.parametrize("cell", CELLS)
def test_the_encoder_follows_the_cells_equations(cell: str) -> None:
    x, zero = normal(3, 7, 2), torch.zeros(3, 5, dtype=torch.float64)
    states = by_hand(recurrent(cell), x, zero, "encoder")
    torch.testing.assert_close(recurrent(cell).encode(x.flatten(1)), states[:, -1])
    torch.testing.assert_close(recurrent(cell, True).encode(x.flatten(1)), states.flatten(1))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_the_decoder_starts_from_the_state_and_reads_steps_out_by_the_matrix(
    cell: str, tied: bool
) -> None:
    pair, h = recurrent(cell, tied=tied), normal(3, 5)
    states = by_hand(pair, h[:, None].expand(-1, 7, -1), h, "decoder")
    matrix = pair.weight if pair.decoder_weight is None else pair.decoder_weight
    steps = states @ matrix + pair.decoder_bias
    torch.testing.assert_close(pair.decode(h), steps.flatten(1))


@pytest.mark.parametrize("cell", CELLS)
def test_a_decoder_of_all_states_reads_them_one_by_one(cell: str) -> None:
    pair, h = recurrent(cell, whole=True), normal(3, 7, 5)
    states = by_hand(pair, h, torch.zeros(3, 5, dtype=torch.float64), "decoder")
    steps = states @ pair.weight + pair.decoder_bias
    torch.testing.assert_close(pair.decode(h.flatten(1)), steps.flatten(1))


@pytest.mark.parametrize("cell", CELLS)
def test_the_input_projection_and_the_read_out_are_one_matrix(cell: str) -> None:
    pair, x, h = recurrent(cell), normal(3, 14), normal(3, 5)
    before = pair.encode(x), pair.decode(h)
    with torch.no_grad():
        pair.weight += 0.1
    assert not torch.allclose(pair.encode(x), before[0])
    assert not torch.allclose(pair.decode(h), before[1])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_a_code_does_not_depend_on_how_much_is_missing_after_the_end(
    cell: str, whole: bool
) -> None:
    short, long = recurrent(cell, whole, steps=7), recurrent(cell, whole, steps=12)
    long.load_state_dict(short.state_dict())
    x = normal(3, 14)
    padded = torch.cat([x, 100 * normal(3, 10, seed=5)], 1)
    seen = torch.arange(24).expand(3, -1) < 14
    states = long.encode(padded, seen)
    torch.testing.assert_close(states[:, : short.n_out], short.encode(x))
    assert not states[:, short.n_out :].any()


def test_each_sequence_has_an_end_of_its_own() -> None:
    pair, x = recurrent("gru"), normal(4, 14)
    lengths = torch.tensor([7, 3, 1, 0])
    seen = (torch.arange(7) < lengths[:, None]).repeat_interleave(2, 1)
    states = pair.encode(x, seen)
    for row, length in enumerate([7, 3, 1]):
        short = recurrent("gru", steps=length)
        torch.testing.assert_close(states[row], short.encode(x[None, row, : 2 * length])[0])
    assert not states[3].any()


def test_a_hole_before_the_end_is_read_as_what_fills_it() -> None:
    pair, x = recurrent("gru"), normal(3, 14)
    seen = torch.ones(3, 14, dtype=torch.bool)
    seen[:, 4:8] = False
    torch.testing.assert_close(pair.encode(x, seen), pair.encode(x))


def test_the_layer_above_is_told_where_sequences_end() -> None:
    seen = torch.tensor([[True, False, False, True, False, False]])
    pair = RecurrentPair((3, 2), Recurrent(2), whole=True)
    above = pair.seen_above(seen)
    assert above is not None
    assert above.tolist() == [[True, True, True, True, False, False]]


def test_matrices_from_state_to_state_start_orthogonal() -> None:
    for matrix in RecurrentPair((4, 1), Recurrent(6), generator=generator()).encoder_recurrent:
        assert matrix.norm().item() == pytest.approx(1, abs=1e-5)


def test_forget_gates_start_open() -> None:
    pair = RecurrentPair((4, 1), Recurrent(2, "lstm"))
    assert pair.encoder_bias.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


# Stacks


IMAGES = {"width": 81, "hidden_layers": (Conv(4, 3, 2), Conv(3, 2, 2), 7), "row_shape": (9, 9)}
SEQUENCES = {"width": 8, "hidden_layers": (Recurrent(4), Recurrent(3, "lstm")), "row_shape": (4, 2)}


def network(which: dict[str, Any], **options: Any) -> Network:
    return Network(**which, n_components=2, generator=generator(), **options)


def test_images_of_mnist_have_1562_parameters_in_filters() -> None:
    net = Network(784, (Conv(16, 3, 2), Conv(8, 3, 2)), 49, row_shape=(28, 28))
    filters = (16 * 9 + 16 + 1) + (8 * 16 * 9 + 8 + 16)
    assert net.n_parameters == filters + (392 * 49 + 49 + 392)


@pytest.mark.parametrize("hidden_layers", [(Conv(4, 3, 2), Conv(3, 2, 2), 7), (7,)])
def test_a_tied_stack_has_half_of_the_weights(hidden_layers: Any) -> None:
    n_weights = {}
    for tied in (True, False):
        net = Network(81, hidden_layers, 2, tied=tied, row_shape=(9, 9))
        n_weights[tied] = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    assert n_weights[False] == 2 * n_weights[True]


def test_tying_a_recurrent_pair_saves_its_read_out() -> None:
    tied, untied = (RecurrentPair((4, 3), Recurrent(5), tied=t) for t in (True, False))
    saved = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters())
    assert saved == 3 * 5


def test_decode_is_the_adjoint_of_encode_through_a_linear_stack_of_filters() -> None:
    net = without_biases(network(IMAGES, activation="identity").double())
    x, code = normal(5, 81), normal(5, 2, seed=2)
    torch.testing.assert_close((net.encode(x)[0] * code).sum(), (x * net.decode(code)).sum())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("which", [IMAGES, SEQUENCES], ids=["images", "sequences"])
def test_the_layer_table_counts_every_parameter(which: dict[str, Any], tied: bool) -> None:
    net = network(which, tied=tied)
    assert sum(layer.n_parameters for layer in net.layers()) == net.n_parameters


def test_the_summary_names_shapes_and_whose_tensor_is_shared() -> None:
    net = Network(784, (Conv(16, 3, 2), Conv(8, 3, 2)), 49, row_shape=(28, 28))
    rows = [line.split("  ") for line in net.summary("sigmoid").splitlines()[2:-2]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["input", "-", "28 x 28 x 1", "0", "-"],
        ["encoder 1", "selu", "14 x 14 x 16", "160", "W1"],
        ["encoder 2", "selu", "7 x 7 x 8", "1,160", "W2"],
        ["code", "identity", "49", "19,257", "W3"],
        ["decoder 1", "selu", "7 x 7 x 8", "392", "W3 transposed (shared)"],
        ["decoder 2", "selu", "14 x 14 x 16", "16", "W2 transposed (shared)"],
        ["output", "sigmoid", "28 x 28 x 1", "1", "W1 transposed (shared)"],
    ]


def test_the_summary_names_cells() -> None:
    layers = network(SEQUENCES).layers()
    assert [(layer.activation, layer.shape) for layer in layers] == [
        ("", (4, 2)),
        ("gru", (4, 4)),
        ("lstm", (3,)),
        ("identity", (2,)),
        ("tanh", (3,)),
        ("lstm, tanh", (4, 4)),
        ("gru, identity", (4, 2)),
    ]


@pytest.mark.parametrize("which", [IMAGES, SEQUENCES], ids=["images", "sequences"])
@pytest.mark.parametrize("how", ["deepcopy", "double", "assigned state dict"])
def test_a_copy_is_still_tied(which: dict[str, Any], how: str) -> None:
    net = copy.deepcopy(network(which))
    if how == "double":
        net = net.double()
    elif how == "assigned state dict":
        with torch.device("meta"):
            fresh = network(which)
        fresh.load_state_dict(net.state_dict(), assign=True)
        net = fresh
    code = normal(3, 2).to(net.pairs[0].weight.dtype)
    before, n_tensors = net.decode(code), len(net.state_dict())
    with torch.no_grad():
        net.pairs[0].weight += 0.1
    assert not torch.allclose(net.decode(code), before)
    assert n_tensors == len(network(which).state_dict())


@pytest.mark.parametrize("which", [IMAGES, SEQUENCES], ids=["images", "sequences"])
def test_building_draws_from_the_generator_alone(
    which: dict[str, Any], untouched_random_state: None
) -> None:
    network(which, tied=False)


@pytest.mark.parametrize(
    ("shape", "hidden_layers", "message"),
    [
        ((64,), (Conv(4, 3),), "was given flat rows of shape \\(64,\\).*X.reshape\\(-1, height"),
        ((8, 8), (32, Conv(4, 3)), "a dense layer leaves none. Put convolutional layers first"),
        ((8, 8), (Recurrent(4), Conv(4, 3)), "Recurrent\\(units=4, cell='gru'\\) leaves none"),
        ((2, 2, 4, 4), (Conv(4, 3),), "was given rows of shape \\(2, 2, 4, 4\\)"),
        ((8, 8), (32, Recurrent(4)), "a dense layer leaves none. Put recurrent layers first"),
        ((8, 8), (Conv(1, 3), Recurrent(4)), "reads sequences, and Conv"),
        ((64,), (Recurrent(4),), "reads sequences.*X\\[:, :, None\\]"),
        ((4, 4, 4), (Recurrent(4),), "was given rows of shape \\(4, 4, 4\\)"),
    ],
)
def test_a_layer_that_cannot_read_what_comes_to_it_is_refused(
    shape: tuple[int, ...], hidden_layers: Any, message: str
) -> None:
    X = np.random.default_rng(0).normal(size=(20, *shape))
    with pytest.raises(OptionError, match=message):
        Autoencoder(hidden_layers=hidden_layers, n_components=2).fit(X)


def test_filters_need_one_number_per_pixel() -> None:
    X = np.random.default_rng(0).normal(size=(20, 8, 8))
    ae = Autoencoder(hidden_layers=(Conv(4, 3),), n_components=2, likelihood="histogram")
    with pytest.raises(OptionError, match="reads one number per pixel.* are 1,024 inputs"):
        ae.fit(X)


def test_the_fused_step_takes_dense_stacks_alone() -> None:
    schema = Schema.infer(Table(np.zeros((3, 81)), row_shape=(9, 9)))
    assert supports(Network(81, (7,), 2), Objective(schema))
    assert not supports(network(IMAGES), Objective(schema))


def test_dense_stacks_are_not_asked_what_is_there() -> None:
    x = torch.tensor([[1.0, torch.nan]])
    assert Network(2, (2,), 1).seen(x) is None
    asked = Network(2, (Recurrent(2),), 1, row_shape=(2, 1)).seen(x)
    assert asked is not None
    assert asked.tolist() == [[True, False]]


def test_threads_stay_as_they_are_where_products_do_not_tell_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "granted", lambda: 2)
    net = network(IMAGES)
    crew = threads.Threads(net.products(4096), net.pairs[0].weight, net.is_dense)
    assert crew.count == 2
    with crew:
        for _ in range(200):
            crew.after_steps()
        assert torch.get_num_threads() == 2


def test_steps_of_sequences_are_too_small_for_threads() -> None:
    assert network(SEQUENCES).products(4096) == []


def test_wide_maps_pass_in_fewer_rows() -> None:
    dense = Network(64 * 64 * 3, (100,), 10)
    wide = Network(64 * 64 * 3, (Conv(32, 3),), 10, row_shape=(64, 64, 3))
    assert dense.rows_per_pass > wide.rows_per_pass == 2**26 // (64 * 64 * 32)


# Channels of sequences


def test_a_channel_has_one_scale_over_all_steps() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(5, 2, (100, 4)) + np.arange(4), rng.poisson(1, (100, 4))], 2)
    schema = Schema.infer(Table(values.reshape(100, -1), row_shape=(4, 2)), sequences=True)
    assert [column.kind for column in schema.columns] == ["real", "real"] * 4
    assert schema.columns[0].center == pytest.approx(values[:, :, 0].mean())
    assert schema.columns[0].scale == pytest.approx(values[:, :, 0].std())
    for name in ("center", "scale"):
        assert len({getattr(column, name) for column in schema.columns[::2]}) == 1


def test_columns_of_sequences_are_named_by_channel_and_step() -> None:
    table = Table(np.random.default_rng(0).normal(size=(9, 4)), row_shape=(2, 2))
    schema = Schema.infer(table, {"x1": "student_t"}, sequences=True)
    assert schema.names == ("x0[0]", "x1[0]", "x0[1]", "x1[1]")
    assert [column.likelihood for column in schema.columns] == ["gaussian", "student_t"] * 2


def test_steps_that_are_always_missing_keep_their_place() -> None:
    values = np.random.default_rng(0).normal(size=(9, 4))
    values[:, 2:] = np.nan
    schema = Schema.infer(Table(values, row_shape=(4, 1)), sequences=True)
    assert schema.width == 4


def test_figures_show_one_channel_after_another() -> None:
    table = Table(np.arange(24.0).reshape(4, 6), row_shape=(3, 2))
    schema = Schema.infer(table, sequences=True)
    assert [schema.names[i] for i in schema.shown] == [
        *("x0[0]", "x0[1]", "x0[2]"),
        *("x1[0]", "x1[1]", "x1[2]"),
    ]
    assert not schema.is_image


def test_a_schema_of_sequences_survives_json() -> None:
    table = Table(np.random.default_rng(0).normal(size=(9, 4)), row_shape=(2, 2))
    schema = Schema.infer(table, sequences=True)
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


# The estimator


@cache
def fitted(which: str, tied: bool = True) -> Autoencoder:
    """A small model of images or of sequences; no test changes it."""
    if which == "images":
        return Autoencoder(
            hidden_layers=(Conv(8, 3, 2), "conv:8:3:2"),
            n_components=4,
            epochs=2,
            tied=tied,
            random_state=0,
        ).fit(datasets.digits().train[:300])
    return Autoencoder(
        hidden_layers=(Recurrent(8), Recurrent(6, "lstm")),
        n_components=3,
        epochs=2,
        tied=tied,
        random_state=0,
    ).fit(ragged())


def ragged() -> NDArray[np.float32]:
    """Sequences of two channels that end after 3 to 12 steps."""
    rows = np.concatenate([sines(200, 12), sines(200, 12, seed=1)], 2)
    lengths = np.random.default_rng(2).integers(3, 13, 200)
    rows[np.arange(12) >= lengths[:, None]] = np.nan
    return rows


def rows(which: str) -> NDArray[Any]:
    return datasets.digits().test[:20] if which == "images" else ragged()[:20]


WHICH = pytest.mark.parametrize("which", ["images", "sequences"])


@WHICH
def test_rows_come_back_in_their_shape(which: str) -> None:
    ae, X = fitted(which), rows(which)
    assert ae.transform(X).shape == (20, ae.network_.n_components)
    assert ae.reconstruct(X).shape == ae.inverse_transform(ae.transform(X)).shape == X.shape
    assert ae.sample(3, random_state=0).shape == (3, *X.shape[1:])
    assert not np.isnan(ae.impute(X)).any()


@WHICH
def test_contributions_add_up_to_the_score(which: str) -> None:
    ae, X = fitted(which), rows(which).astype(np.float64)
    why = ae.explain(X)
    total = why.base + why.contribution.sum(axis=1)
    np.testing.assert_allclose(total, -ae.score_samples(X), rtol=1e-9)


@WHICH
def test_one_row_at_a_time_is_all_at_once(which: str) -> None:
    ae, X = fitted(which), rows(which)
    one_by_one = np.concatenate([ae.score_samples(X[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one_by_one, ae.score_samples(X[:5]), rtol=1e-4)


@WHICH
def test_a_saved_model_comes_back_bit_by_bit_and_tied(which: str, tmp_path: Path) -> None:
    ae, X = fitted(which), rows(which)
    ae.save(tmp_path / "model")
    back = load(tmp_path / "model")
    assert back.hidden_layers == ae.hidden_layers
    assert back.network_.n_parameters == ae.network_.n_parameters
    np.testing.assert_array_equal(back.transform(X), ae.transform(X))
    np.testing.assert_array_equal(back.score_samples(X), ae.score_samples(X))
    assert back.summary() == ae.summary()


def test_a_model_of_untied_layers_comes_back(tmp_path: Path) -> None:
    ae = fitted("images", tied=False)
    ae.save(tmp_path / "model")
    X = rows("images")
    np.testing.assert_array_equal(load(tmp_path / "model").transform(X), ae.transform(X))


def test_layers_that_are_not_those_of_the_weights_are_refused(tmp_path: Path) -> None:
    from twofold.persistence.folder import read, write

    fitted("images").save(tmp_path / "model")
    tensors, document = read(tmp_path / "model")
    document["network"]["hidden_layers"][0]["stride"] = 1
    for name in ("format", "weights_sha256", "weights_bytes"):
        del document[name]
    write(tmp_path / "other", tensors, document)
    with pytest.raises(ModelFileError, match="does not fit together"):
        load(tmp_path / "other")


@WHICH
def test_partial_fit_leaves_it_tied(which: str) -> None:
    ae = copy.deepcopy(fitted(which))
    before = ae.network_.pairs[0].weight.detach().clone()
    ae.partial_fit(rows(which))
    assert not torch.equal(ae.network_.pairs[0].weight, before)
    assert all(pair.decoder_weight is None for pair in ae.network_.pairs)
    assert ae.network_.n_parameters == fitted(which).network_.n_parameters


@WHICH
def test_the_same_seed_gives_the_same_weights(which: str) -> None:
    X = datasets.digits().train[:300] if which == "images" else ragged()
    first, again = fitted(which), copy.deepcopy(fitted(which)).fit(X)
    for name, tensor in first.network_.state_dict().items():
        assert torch.equal(tensor, again.network_.state_dict()[name]), name


@pytest.mark.parametrize("bottleneck", ["sparse:topk:2", "variational", "ordered"])
@WHICH
def test_every_bottleneck_goes_with_every_layer(which: str, bottleneck: str) -> None:
    X = rows(which)
    ae = Autoencoder(
        hidden_layers=("conv:3:3:2",) if which == "images" else ("recurrent:4",),
        n_components=3,
        bottleneck=bottleneck,
        corruption="masking:0.2",
        epochs=1,
        random_state=0,
    ).fit(X)
    assert np.isfinite(ae.score_samples(X)).all()


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
@WHICH
def test_every_precision_goes_with_every_layer(which: str, precision: str) -> None:
    ae = Autoencoder(
        hidden_layers=("conv:3:3:2",) if which == "images" else ("recurrent:4",),
        n_components=3,
        precision=precision,
        epochs=1,
        random_state=0,
    ).fit(rows(which))
    assert np.isfinite(ae.history_[0]["loss"])


def test_colours_are_channels() -> None:
    X = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    ae = Autoencoder(hidden_layers=(Conv(4, 3, 2),), n_components=3, epochs=1, random_state=0)
    assert ae.fit(X).network_.layers()[0].shape == (6, 5, 3)
    assert ae.reconstruct(X).shape == X.shape


def test_axes_in_another_order_than_in_training_are_refused() -> None:
    with pytest.raises(DataError, match="shape \\(12, 2\\) in training and have \\(2, 12\\) here"):
        fitted("sequences").transform(ragged().transpose(0, 2, 1))


def test_what_fills_up_a_sequence_does_not_change_its_code() -> None:
    ae, X = copy.deepcopy(fitted("sequences")), ragged()[:20]
    codes = ae.transform(X)
    ae.scorer_.rounds.fill_(5)
    np.testing.assert_array_equal(ae.transform(X), codes)


def test_missing_channels_of_a_step_are_filled_in_rounds() -> None:
    ae, X = copy.deepcopy(fitted("sequences")), ragged()[:5]
    X[:, 1, 0] = np.nan
    filled = []
    for n_rounds in (1, 4):
        ae.scorer_.rounds.fill_(n_rounds)
        filled.append(ae.impute(X)[:, 1, 0])
    assert not np.array_equal(*filled)


def test_a_step_of_a_sequence_is_odd_where_its_cells_are() -> None:
    ae, X = fitted("sequences"), ragged()[:40]
    X = X[~np.isnan(X[:, 8, 0])][:3]
    X[:, 8] += 6
    why = ae.explain(X)
    per_step = why.contribution.reshape(len(X), 12, 2).sum(axis=2)
    assert (per_step.argmax(axis=1) == 8).all()


def test_filters_beat_pca_on_digits() -> None:
    images = datasets.digits()
    ae = Autoencoder(
        hidden_layers=(Conv(16, 3, 2), 64),
        n_components=8,
        epochs=12,
        batch_size=64,
        random_state=0,
    ).fit(images.train)
    assert ae.compare_pca(images.test).ratio < 0.9


@cache
def of_sines() -> Autoencoder:
    return Autoencoder(
        hidden_layers=(Recurrent(24, "lstm"),),
        n_components=3,
        epochs=12,
        corruption=Masking(0.4, up_to=True),
        random_state=0,
    ).fit(sines(1000, noise=0.3))


def test_a_recurrent_stack_beats_pca_on_noisy_sines() -> None:
    assert of_sines().compare_pca(sines(300, noise=0.3, seed=1)).ratio < 0.8


def test_a_recurrent_stack_removes_noise() -> None:
    clean, noisy = sines(300, seed=1), sines(300, noise=0.3, seed=1)
    left = ((of_sines().reconstruct(noisy) - clean) ** 2).mean()
    assert left < 0.6 * ((noisy - clean) ** 2).mean()


def test_missing_steps_are_filled_by_what_the_others_let_expect() -> None:
    clean = sines(300, seed=1)
    hidden = np.random.default_rng(3).random(clean.shape) < 0.3
    filled = of_sines().impute(np.where(hidden, np.float32(np.nan), clean))
    assert ((filled - clean)[hidden] ** 2).mean() < 0.4 * clean.var()
