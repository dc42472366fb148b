"""Likelihoods, activations and bottlenecks from outside the package work like its own ones."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twofold import Autoencoder, load
from twofold.errors import ModelFileError, OptionError
from twofold.nn import (
    Activation,
    Bottleneck,
    BottleneckSpec,
    Likelihood,
    register_activation,
    register_bottleneck,
    register_likelihood,
)
from twofold.registry import ACTIVATIONS, BOTTLENECKS, LIKELIHOODS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "twofold"
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(200, 2)) @ RNG.normal(size=(2, 6)) + 0.3 * RNG.laplace(size=(200, 6))
HOLES = np.where(RNG.uniform(size=(9, 6)) < 0.2, np.nan, ROWS[:9])
QUICK: dict[str, Any] = {"n_components": 2, "epochs": 3, "random_state": 0, "patience": None}
Unit = tuple[Tensor, Tensor, Tensor]


class Laplace(Likelihood):
    kinds = ("real", "time")
    has_unit = mean_is_theta = True

    def mean(self, theta: Tensor, unit: Unit) -> Tensor:
        return theta

    def log_prob(self, theta: Tensor, x: Tensor, spread: Tensor, unit: Unit) -> Tensor:
        return -(x - theta).abs() / spread - (2 * spread).log()

    def draw(self, theta: Tensor, spread: Tensor, unit: Unit, generator: torch.Generator) -> Tensor:
        u = torch.rand(theta.shape, generator=generator, dtype=theta.dtype) - 0.5
        return theta - spread * u.sign() * torch.log1p(-2 * u.abs())

    def fit_spread(self, theta: Tensor, x: Tensor, seen: Tensor, unit: Unit) -> Tensor:
        errors = torch.where(seen, (x - theta).abs(), 0.0)
        return (errors.sum(0) / seen.sum(0).clamp_min(1)).clamp_min(1e-3)


class RoundedCode(Bottleneck):
    def __init__(self, n_components: int, step: float) -> None:
        super().__init__(n_components)
        self.step = step

    def forward(
        self, code: Tensor, path: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rounded = torch.round(code / self.step) * self.step
        return code + (rounded - code).detach(), {"size": 1e-3 * code.abs().sum(1)}


@dataclass(frozen=True)
class Rounded(BottleneckSpec):
    step: float = 0.25

    def module(self, n_components: int, n_below: int) -> RoundedCode:
        return RoundedCode(n_components, self.step)

    @classmethod
    def parse(cls, *details: str) -> Rounded:
        return cls(*map(float, details))


OWN: dict[str, dict[str, Any]] = {
    "likelihood": {"likelihood": "own_laplace"},
    "activation": {"activation": "own_softsign", "code_activation": "own_softsign"},
    "bottleneck": {"bottleneck": "own_rounded:0.5"},
    "bottleneck as a value": {"bottleneck": Rounded(0.5)},
    "all": {
        "likelihood": {"x0": "own_laplace"},
        "activation": "own_softsign",
        "bottleneck": "own_rounded",
    },
}


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    register_likelihood("own_laplace", Laplace())
    register_activation("own_softsign", Activation(F.softsign))
    register_bottleneck("own_rounded", Rounded)
    yield
    LIKELIHOODS.remove("own_laplace")
    ACTIVATIONS.remove("own_softsign")
    BOTTLENECKS.remove("own_rounded")


@pytest.fixture(scope="module", params=OWN)
def fitted(request: pytest.FixtureRequest, registered: None) -> Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Autoencoder(**QUICK, **OWN[request.param]).fit(ROWS)


def test_rows_score(fitted: Autoencoder) -> None:
    scores = fitted.score_samples(ROWS)
    assert np.isfinite(scores).all()
    assert scores.mean() > fitted.score_samples(ROWS + 30).max()


def test_explanations_add_up(fitted: Autoencoder) -> None:
    found = fitted.explain(ROWS[:5])
    total = found.base + found.contribution.sum(axis=1)
    np.testing.assert_allclose(total, -fitted.score_samples(ROWS[:5]), rtol=1e-4)


def test_rows_are_drawn_and_filled(fitted: Autoencoder) -> None:
    assert np.isfinite(fitted.sample(20, random_state=0)).all()
    filled = fitted.impute(HOLES)
    there = ~np.isnan(HOLES)
    assert np.isfinite(filled).all()
    assert np.array_equal(filled[there], HOLES[there])


def test_a_saved_model_is_the_same(fitted: Autoencoder, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.score_samples(ROWS).tobytes() == fitted.score_samples(ROWS).tobytes()
    assert again.partial_fit(ROWS).get_params().keys() == fitted.get_params().keys()


def test_an_exported_graph_gives_the_same(registered: None, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    # All of them at once: tracing takes seconds.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = Autoencoder(**QUICK, **OWN["all"]).fit(ROWS)
        fitted.export_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    codes, x_hat, score, _ = session.run(None, {"rows": HOLES.astype(np.float32)})
    rows = HOLES.astype(np.float32)
    np.testing.assert_allclose(codes, fitted.transform(rows), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(x_hat, fitted.reconstruct(rows), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(score, fitted.score_samples(rows), rtol=1e-3, atol=1e-3)


def test_an_activation_without_a_straight_stretch_is_refused_by_pca() -> None:
    with pytest.raises(OptionError, match="registered without that"):
        Autoencoder(**QUICK, activation="own_softsign", pretraining="pca").fit(ROWS)


def test_a_bottleneck_without_an_order_is_refused_for_a_share() -> None:
    with pytest.raises(OptionError, match="has no order"):
        Autoencoder(**{**QUICK, "n_components": 0.9}, bottleneck=Rounded()).fit(ROWS)


def test_the_registered_names_are_in_the_messages_about_options() -> None:
    with pytest.raises(OptionError, match="own_laplace"):
        Autoencoder(likelihood="laplac").fit(ROWS)
    with pytest.raises(OptionError, match="own_softsign"):
        Autoencoder(activation="softsing").fit(ROWS)
    with pytest.raises(OptionError, match="own_rounded"):
        Autoencoder(bottleneck="round").fit(ROWS)


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (LIKELIHOODS, "own_laplace"),
        (ACTIVATIONS, "own_softsign"),
        (BOTTLENECKS, "own_rounded"),
    ],
)
def test_a_model_whose_parts_are_not_registered_is_refused(
    registry: Any, name: str, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Autoencoder(**QUICK, **OWN["all"]).fit(ROWS).save(tmp_path / "model")
    record = registry[name]
    registry.remove(name)
    try:
        with pytest.raises(ModelFileError, match=f"{name}.*not registered"):
            load(tmp_path / "model")
    finally:
        registry.add(name, record)


# --- nobody outside `nn` asks which one it is

MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] != "nn")


OWN_NAMES = {name for registry in (LIKELIHOODS, ACTIVATIONS, BOTTLENECKS) for name in registry}
ROOMS = ("activations", "bottleneck", "bottlenecks", "likelihoods")


def _words(node: ast.AST) -> set[str]:
    """Every name and attribute in an expression."""
    parts = list(ast.walk(node))
    return {n.id for n in parts if isinstance(n, ast.Name)} | {
        n.attr for n in parts if isinstance(n, ast.Attribute)
    }


def _texts(node: ast.AST) -> set[str]:
    """Every text in an expression."""
    return {
        n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


def _questions(tree: ast.Module) -> Iterator[str]:
    """Every place that asks which likelihood, activation or bottleneck something is."""
    modules = {f"twofold.nn.{room}" for room in ROOMS}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    kinds = {alias.name for node in imports if node.module in modules for alias in node.names}
    whole = {alias.name for node in imports if node.module == "twofold.nn" for alias in node.names}
    kinds |= {word for word in whole if word[0].isupper()} | (whole & set(ROOMS))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass" | "type")):
                asks = bool(set().union(*map(_words, node.args[1:])) & kinds)
            case ast.Compare():
                about = any(
                    "likelihood" in w or "activation" in w or "bottleneck" in w
                    for w in _words(node)
                )
                asks = (about and bool(_texts(node) & OWN_NAMES)) or (
                    "type" in _words(node) and bool(_words(node) & kinds)
                )
            case ast.Dict():
                keys = {k.value for k in node.keys if isinstance(k, ast.Constant)}
                asks = len(keys & OWN_NAMES) > 1
            case ast.MatchValue() | ast.MatchClass():
                asks = bool(_texts(node) & OWN_NAMES or _words(node) & kinds)
            case _:
                asks = False
        if asks:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nobody_outside_nn_asks_which_one_it_is(path: Path) -> None:
    found = list(_questions(ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, f"let the record answer itself: {found}"


@pytest.mark.parametrize(
    "code",
    [
        "from twofold.nn.bottlenecks import Sparse\nisinstance(spec, Sparse)",
        "from twofold.nn import Sparse\nisinstance(spec, int | Sparse)",
        "from twofold.nn.bottleneck import PlainCode\ntype(network.bottleneck) is PlainCode",
        "from twofold.nn import bottleneck\nisinstance(spec, bottleneck.Plain)",
        "column.likelihood == 'bernoulli'",
        "network.activation in ('tanh', 'sigmoid')",
        "RANGES = {'poisson': 0, 'bernoulli': 1}",
    ],
)
def test_such_a_question_is_found(code: str) -> None:
    assert list(_questions(ast.parse(code)))
