"""A bottleneck is a value and a module: text and plain data stand for it, the module answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from twofold import Ordered, Plain, Sparse, Variational
from twofold.errors import OptionError
from twofold.nn import bottleneck
from twofold.nn.bottleneck import BOTTLENECKS, Bottleneck, BottleneckSpec, Penalties, PlainCode
from twofold.nn.code_density import CodeDensity

X = torch.randn(9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CODE = torch.randn(9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Halved(Bottleneck):
    """The least that a bottleneck has to say."""

    def forward(
        self, code: Tensor, path: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Penalties]:
        return code / 2, {}


@dataclass(frozen=True)
class Halve(BottleneckSpec):
    times: int = 1

    def module(self, n_components: int, n_below: int) -> Halved:
        return Halved(n_components)


class Scorer:
    """Scores rows by what the decoder says of them."""

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        return -((x - theta) ** 2)

    def row_log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        return self.log_prob(theta, x).sum(1) - 1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- values


def test_names_stand_for_values() -> None:
    assert bottleneck.resolve("sparse:topk:3") == Sparse("topk", k=3)
    assert bottleneck.resolve("variational:2") == Variational(beta=2.0)
    assert bottleneck.resolve("plain", 0.9) == Ordered()
    assert bottleneck.resolve("ordered:5", 0.9) == Ordered(n_cuts=5)
    assert bottleneck.resolve("ordered:10,2") == Ordered(sizes=(2, 10))
    assert bottleneck.resolve("ordered:10,") == Ordered(sizes=(10,))


@pytest.mark.parametrize("text", ["plain:1", "none", "", "sparse:l1:x", "variational:1:2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="Expected bottleneck to be one of 'plain', 'sparse'"):
        bottleneck.resolve(text)


def test_a_registered_value_goes_to_plain_data_and_back() -> None:
    bottleneck.register_bottleneck("halve", Halve)
    document = bottleneck.to_json(Halve(3))
    assert document == {"name": "halve", "times": 3}
    assert bottleneck.from_json(document) == Halve(3)
    BOTTLENECKS.remove("halve")
    with pytest.raises(OptionError, match=r"got 'halve'\. Import the module"):
        bottleneck.from_json(document)


def test_a_value_takes_no_details_unless_it_says_so() -> None:
    assert Halve.parse() == Halve()
    with pytest.raises(ValueError, match="2"):
        Halve.parse("2")


def test_a_value_without_an_order_is_refused_for_a_share() -> None:
    with pytest.raises(OptionError, match="has no order"):
        bottleneck.resolve(Halve(), 0.9)


def test_any_activation_suits_a_value_that_does_not_say_which() -> None:
    Halve().check("relu", "tanh")
    Plain().check("relu", "tanh")


# --- modules


def test_the_score_is_that_of_the_code() -> None:
    module, path = Halved(3), [X, CODE]
    decode = torch.nn.Linear(3, 6).double()
    found = module.log_density(module.code(path), path, decode, Scorer(), X)
    expected = Scorer().row_log_prob(decode(CODE / 2), X)
    torch.testing.assert_close(found, expected)


def test_without_a_posterior_every_draw_is_the_code() -> None:
    module = Halved(3)
    assert not module.has_posterior
    draws = list(module.draws([X, CODE], 3, generator()))
    assert len(draws) == 3
    for code, ratio in draws:
        assert torch.equal(code, CODE / 2)
        assert not ratio.any()
    assert module.divergence([X, CODE]) is None


def test_no_component_is_dead_unless_it_says_so() -> None:
    assert not Halved(3).dead(torch.zeros(9, 3)).any()


def test_codes_are_drawn_from_a_standard_normal_density_or_the_fitted_one() -> None:
    codes = Halved(3).sample(20_000, generator())
    assert float(codes.mean(0).abs().max()) < 0.03
    assert float((codes.std(0) - 1).abs().max()) < 0.03
    density = CodeDensity(3)
    density.fit(torch.randn(500, 3, generator=generator()) + 7)
    assert float(Bottleneck.sample(PlainCode(3), 9, generator()).mean().abs()) < 2
    assert float(Halved(3, density).sample(500, generator()).mean()) == pytest.approx(7, abs=0.2)


def test_a_code_that_is_cut_has_another_density() -> None:
    module = PlainCode(3)
    module.cut(2)
    assert module.sample(5, generator()).shape == (5, 2)


def test_what_has_no_posterior_cannot_be_given_one() -> None:
    with pytest.raises(OptionError, match="Expected Halved to have the method set_posterior"):
        Halved(3).set_posterior(torch.ones(3))
    with pytest.raises(OptionError, match="Expected Halved to have the method rescale"):
        Halved(3).rescale(torch.ones(3))


def test_only_the_plain_code_is_plain() -> None:
    made = {name: spec().module(4, 5) for name, spec in BOTTLENECKS.items()}
    assert [name for name, module in made.items() if module.is_plain] == ["plain"]
    assert [name for name, module in made.items() if module.is_ordered] == ["ordered"]
    assert [name for name, module in made.items() if module.has_posterior] == ["variational"]
    assert [name for name, module in made.items() if module.can_die] == ["sparse"]
