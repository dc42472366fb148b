"""The option table means what it says: bounds, words, text forms, and no option without effect."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twofold import Autoencoder, Sparse, Variational, load, options
from twofold.errors import OptionError
from twofold.nn.activations import ACTIVATIONS
from twofold.nn.likelihoods import LIKELIHOODS
from twofold.options import (
    OPTIONS,
    check,
)


def test_the_table_is_the_estimators_fields_in_order() -> None:
    assert [field.name for field in dataclasses.fields(Autoencoder)] == list(OPTIONS)


def test_the_estimators_defaults_are_those_of_the_table() -> None:
    assert Autoencoder().get_params() == {name: o.default for name, o in OPTIONS.items()}


def test_the_docstring_states_every_default() -> None:
    parameters = (Autoencoder.__doc__ or "").partition("Attributes\n")[0]
    said: dict[str, str] = {}
    for names, defaults in re.findall(r"^    ([\w, ]+) : .*default=(.+)$", parameters, re.M):
        parts = names.split(", ")
        values = defaults.split(" and ") if len(parts) > 1 else [defaults]
        said |= dict(zip(parts, values, strict=True))
    assert said == {name: _quoted(o.default) for name, o in OPTIONS.items()}


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def test_the_help_of_activation_names_every_one() -> None:
    assert all(f"'{name}'" in OPTIONS["activation"].help for name in ACTIVATIONS)


def test_the_help_of_likelihood_names_every_one() -> None:
    assert all(f"'{name}'" in OPTIONS["likelihood"].help for name in LIKELIHOODS)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_default_is_accepted(name: str) -> None:
    assert OPTIONS[name].default is None or OPTIONS[name].accepts(OPTIONS[name].default)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_a_meaning_and_values(name: str) -> None:
    assert OPTIONS[name].help
    assert OPTIONS[name].kinds or OPTIONS[name].words


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", None),
        ("n_components", np.int64(3)),
        ("n_components", 0.95),
        ("hidden_layers", ()),
        ("hidden_layers", [64, np.int32(32)]),
        ("hidden_layers", "halving"),
        ("hidden_layers", "wide"),
        ("tied", False),
        ("tied", np.False_),
        ("likelihood", {"age": "gaussian", "smoker": "auto"}),
        ("kinds", {"age": "real", "name": "ignored"}),
        ("bottleneck", "sparse:topk:32"),
        ("bottleneck", Variational(beta=4.0)),
        ("pretraining", "layerwise:10"),
        ("corruption", "masking"),
        ("corruption", "salt-and-pepper:0.2"),
        ("corruption", None),
        ("learning_rate", 1),
        ("learning_rate", np.float32(0.5)),
        ("momentum", 0),
        ("weight_decay", 0.0),
        ("validation_fraction", 0),
        ("patience", None),
        ("contamination", 0.5),
        ("device", "cuda:1"),
        ("random_state", np.random.RandomState(0)),
        ("random_state", 0),
        ("verbose", True),
    ],
)
def test_accepts(name: str, value: Any) -> None:
    check({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", 0),
        ("n_components", 2.0),
        ("n_components", True),
        ("n_components", "all"),
        ("hidden_layers", None),
        ("hidden_layers", 64),
        ("hidden_layers", (64, 0)),
        ("hidden_layers", (64, 1.5)),
        ("tied", 1),
        ("tied", "yes"),
        ("activation", "Selu"),
        ("activation", None),
        ("code_activation", ""),
        ("likelihood", "cauchy"),
        ("likelihood", {"age": "cauchy"}),
        ("kinds", "number"),
        ("kinds", {"age": "gaussian"}),
        ("n_components", 1.5),
        ("bottleneck", "sparce"),
        ("bottleneck", None),
        ("bottleneck", Sparse),
        ("pretraining", "layerwise:0"),
        ("corruption", "noise"),
        ("corruption", "masking:much"),
        ("corruption", 0.3),
        ("likelihood", {3: "gaussian"}),
        ("optimizer", "rmsprop"),
        ("learning_rate", 0),
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", 10**400),
        ("learning_rate", None),
        ("momentum", 1),
        ("nesterov", None),
        ("schedule", "cosine"),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("epochs", 0),
        ("weight_decay", -1e-9),
        ("validation_fraction", 1),
        ("patience", 0),
        ("contamination", 0),
        ("contamination", 0.51),
        ("device", None),
        ("precision", "float16"),
        ("random_state", -1),
        ("random_state", 1.0),
        ("verbose", -1),
    ],
)
def test_refuses_and_names_the_option(name: str, value: Any) -> None:
    with pytest.raises(
        OptionError, match=rf"^Expected {name} to be .*, got .*\. (Did you|Leave it|Write) "
    ):
        check({name: value})


@pytest.mark.parametrize("name", OPTIONS)
def test_no_option_takes_an_object_of_no_meaning(name: str) -> None:
    with pytest.raises(
        OptionError, match=rf"^Expected {name} to be .*, got .*\. (Did you|Leave it|Write) "
    ):
        check({name: object()})


def test_every_mistake_is_listed_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        Autoencoder(epochs=-1, optimizer="rms", learning_rate=-1, nesterov=True).fit([[1.0], [2.0]])
    started = {line.removeprefix("Expected ").split()[0] for line in str(caught.value).splitlines()}
    assert started == {"epochs", "optimizer", "learning_rate", "nesterov=True"}


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("activation", "rellu", "Did you mean 'relu'?"),
        ("optimizer", "SGD", "Did you mean 'sgd'?"),
        ("likelihood", "binary_crossentropy", "Did you mean 'bernoulli'?"),
        ("likelihood", "mse", "Did you mean 'gaussian'?"),
        ("likelihood", {"age": "mean_squared_error"}, "Did you mean 'gaussian'?"),
        ("kinds", {"age": "number"}, "Did you mean 'real'?"),
        ("bottleneck", "vae", "Did you mean 'variational'?"),
        ("hidden_layers", 32, "Write (32,) for a single layer."),
        ("epochs", 0, "Leave it out for 'auto'."),
    ],
)
def test_a_word_from_elsewhere_leads_to_ours(name: str, value: Any, advice: str) -> None:
    with pytest.raises(OptionError) as caught:
        check({name: value})
    assert str(caught.value).endswith(advice)


def test_a_misspelt_option_is_told_its_nearest_name() -> None:
    with pytest.raises(
        OptionError, match=r"Unknown option n_component\. Did you mean n_components\?"
    ):
        check({"n_component": 2})


def test_an_option_unlike_any_other_gets_no_guess() -> None:
    with pytest.raises(OptionError, match=r"^Unknown option zzz\.$"):
        check({"zzz": 2})


def test_a_long_value_does_not_flood_the_message() -> None:
    with pytest.raises(OptionError) as caught:
        check({"hidden_layers": ("x",) * 10_000})
    assert len(str(caught.value)) < 350


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"momentum": 0.9}, "momentum=0.9 needs optimizer='sgd'"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov=True needs momentum above 0"),
    ],
)
def test_refuses_an_option_that_others_leave_without_meaning(
    values: Mapping[str, Any], text: str
) -> None:
    with pytest.raises(OptionError, match=text):
        check(values)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "n_components",
            "None, an integer at least 1 (components) or a share between 0 and 1 of the "
            "variance to keep",
        ),
        ("tied", "True or False"),
        ("optimizer", "'sgd', 'adam', 'adamw' or 'muon'"),
        ("learning_rate", "'auto' or a number above 0"),
        ("momentum", "a number at least 0 and below 1"),
        ("contamination", "'auto' or a number above 0 and at most 0.5"),
        ("device", "a name"),
    ],
)
def test_expected_says_the_range_in_words(name: str, text: str) -> None:
    assert OPTIONS[name].expected() == text


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_components", "8", 8),
        ("n_components", "none", None),
        ("n_components", "0.95", 0.95),
        ("bottleneck", "sparse:kl:0.1", "sparse:kl:0.1"),
        ("hidden_layers", "64,32", (64, 32)),
        ("hidden_layers", "64, 32,", (64, 32)),
        ("hidden_layers", "", ()),
        ("hidden_layers", "halving", "halving"),
        ("tied", "True", True),
        ("tied", "false", False),
        ("activation", "tanh", "tanh"),
        ("likelihood", "gaussian", "gaussian"),
        ("likelihood", "a=gaussian, b=bernoulli", {"a": "gaussian", "b": "bernoulli"}),
        ("likelihood", "x=y=gaussian", {"x=y": "gaussian"}),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", "auto", "auto"),
        ("batch_size", "32", 32),
        ("patience", "None", None),
        ("contamination", "0.1", 0.1),
        ("device", "cuda:1", "cuda:1"),
        ("random_state", "7", 7),
        ("verbose", "1", 1),
    ],
)
def test_parses_text(name: str, text: str, value: Any) -> None:
    parsed = OPTIONS[name].parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (options.ActivationName, "code_activation"),
        (options.Kind, "kinds"),
        (options.LikelihoodName, "likelihood"),
    ],
    ids=str,
)
def test_type_checkers_know_the_words(words: Any, option: str) -> None:
    assert typing.get_args(words) == OPTIONS[option].words


@pytest.mark.parametrize("name", ["optimizer", "schedule", "precision", "shortcut", "activation"])
def test_fields_name_the_words(name: str) -> None:
    hint = typing.get_type_hints(Autoencoder)[name]
    parts = [hint, *typing.get_args(hint)]
    found = [word for part in parts for word in typing.get_args(part)] + list(typing.get_args(hint))
    assert {word for word in found if isinstance(word, str)} == set(OPTIONS[name].words)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_parsed_default_is_the_default(name: str) -> None:
    assert OPTIONS[name].parse(str(OPTIONS[name].default)) == OPTIONS[name].default


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n_components", "three"),
        ("hidden_layers", "64;32"),
        ("learning_rate", "fast"),
        ("epochs", "1.5"),
        ("random_state", "x"),
    ],
)
def test_text_that_is_no_value_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        OPTIONS[name].parse(text)


ROWS = np.random.default_rng(3).normal(size=(60, 8)) @ np.random.default_rng(4).normal(size=(8, 8))
BASE: dict[str, Any] = {"n_components": 3, "epochs": 4, "batch_size": 16, "random_state": 0}
# For each option the values to compare, and the other options under which they mean something.
ALTERNATIVES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "n_components": ((None, 1, 3, 0.5), {}),
    "hidden_layers": (("auto", "halving", (), (5,), (6, 4)), {}),
    "shortcut": ((True, False), {"hidden_layers": (5,)}),
    "tied": ((True, False), {}),
    "activation": (tuple(ACTIVATIONS), {}),
    "code_activation": (tuple(ACTIVATIONS), {}),
    "likelihood": (("gaussian", "bernoulli", {"x0": "bernoulli"}), {"scale_to_unit": True}),
    "kinds": (("auto", {"x0": "ignored"}, {"x0": "category"}), {}),
    "bottleneck": (
        (
            "plain",
            "sparse",
            "sparse:l1:1",
            "sparse:topk",
            "sparse:topk:2",
            "variational",
            "variational:4",
            "ordered",
        ),
        {},
    ),
    "corruption": ((None, "masking", "masking:0.5", "swap", "gaussian", "salt-and-pepper"), {}),
    "pretraining": ((None, "pca", "layerwise", "layerwise:2"), {}),
    "optimizer": (("sgd", "adam", "adamw", "muon"), {"weight_decay": 0.1, "learning_rate": 0.01}),
    "learning_rate": (("auto", 0.01), {}),
    "momentum": ((0.0, 0.9), {"optimizer": "sgd"}),
    "nesterov": ((False, True), {"optimizer": "sgd", "momentum": 0.9}),
    "schedule": (("one-cycle", "constant"), {}),
    "batch_size": (("auto", 8, 60), {"batch_size": 16}),
    "epochs": ((3, 4), {}),
    "weight_decay": ((0.0, 0.1), {}),
    "validation_fraction": ((0.0, 0.1, 0.3), {}),
    # So large a step that the loss on the held-out rows soon goes up.
    "patience": (
        (1, 3, "auto", None),
        {"learning_rate": 0.5, "epochs": 10, "schedule": "constant"},
    ),
    "donors": ((0, 5, 1000), {}),
    "contamination": (("auto", 0.1, 0.3), {}),
    "precision": (("float32", "float64"), {}),
    "random_state": ((0, 1), {}),
}


def _fingerprint(options: Mapping[str, Any]) -> tuple[object, ...]:
    options = {**BASE, **options}
    rows = ROWS
    if options.pop("scale_to_unit", False):
        rows = (ROWS - ROWS.min()) / (np.ptp(ROWS) + 1)
    ae = Autoencoder(**options).fit(rows)
    weights = tuple(p.detach().numpy().tobytes() for p in ae.network_.parameters())
    losses = tuple(entry["loss"] for entry in ae.history_)
    draws = ae.sample(3, random_state=0).tobytes()
    return weights, losses, ae.offset_, rows.size, draws


@pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
@pytest.mark.parametrize(
    "name", [n for n in OPTIONS if n not in ("device", "warm_start", "verbose")]
)
def test_no_dead_knob(name: str) -> None:
    values, others = ALTERNATIVES[name]
    found = [_fingerprint({**others, name: value}) for value in values]
    assert len(set(found)) == len(values)


@pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
@pytest.mark.parametrize(("warm_start", "epochs"), [(False, 3), (True, 6)])
def test_warm_start_continues_from_the_present_weights(
    warm_start: bool, epochs: int, tmp_path: Path
) -> None:
    options = {**BASE, "epochs": 3, "warm_start": warm_start, "pretraining": "pca"}
    ae = Autoencoder(**options, patience=None).fit(ROWS)
    network = ae.network_
    ae.set_params(n_components=1).fit(ROWS)
    assert len(ae.history_) == epochs
    assert (ae.network_ is network) == warm_start
    assert ae.network_.n_components == (BASE["n_components"] if warm_start else 1)
    ae.save(tmp_path / "model")
    assert len(load(tmp_path / "model").history_) == epochs


def test_device_is_asked_for() -> None:
    with pytest.raises(OptionError, match="got device='meta'"):
        Autoencoder(**BASE, device="meta").fit(ROWS)


@pytest.mark.filterwarnings("ignore::twofold.errors.LosesToPCAWarning")
@pytest.mark.parametrize("verbose", [0, 1])
def test_verbose_shows_training(verbose: int, capfd: pytest.CaptureFixture[str]) -> None:
    Autoencoder(**BASE, verbose=verbose).fit(ROWS)
    assert bool("".join(capfd.readouterr())) == bool(verbose)
