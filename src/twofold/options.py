"""The option table: every option's default, meaning, unit and bounds, declared once as plain data.

The estimator takes its fields from here, the command line its flags, the docs their reference
table and `model.json` its checks, so that all of them say the same.
"""

from __future__ import annotations

import csv
import difflib
import math
import numbers
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from twofold.errors import OptionError
from twofold.registry import ACTIVATIONS, BOTTLENECKS, CORRUPTIONS, LIKELIHOODS, Registry

Class = TypeVar("Class")

# The words of options, for type checkers; names registered from outside are not among them.
ActivationName = Literal[
    "identity", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus"
]
Kind = Literal["auto", "real", "count", "binary", "category", "pixel", "time", "ignored"]
LikelihoodName = Literal[
    "auto", "gaussian", "student_t", "bernoulli", "categorical", "histogram", "poisson",
    "negative_binomial",
]  # fmt: skip

KIND_NAMES = ("real", "count", "binary", "category", "pixel", "time", "ignored")
_LAYER = re.compile(
    r"conv:[1-9]\d*:[1-9]\d*(:[1-9]\d*(:\d+)?)?|recurrent:[1-9]\d*(:(gru|lstm|rnn))?"
)


@dataclass(frozen=True)
class Option:
    """One option: its default, what it means, and its valid values.

    `kinds` are the types of value accepted, out of "none", "bool", "int", "float", "layers" (a
    tuple of integers and other layers), "names" (a mapping of column name to a word), "text" and
    "seed". `choices` are words taken as they are, and so are the names in `registry`. `least` and
    `most` bound a number; a bound is left out of the range where `open_least` or `open_most` says
    so.
    """

    default: Any
    help: str
    kinds: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    unit: str = ""
    least: float = -math.inf
    most: float = math.inf
    open_least: bool = False
    open_most: bool = False
    registry: Registry[Any] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The words taken as they are; reading a registry's names imports PyTorch."""
        return (*self.choices, *(self.registry or ()))

    def expected(self) -> str:
        """Describe the accepted values."""
        words = [repr(word) for word in self.words]
        unit = f" ({self.unit})" if self.unit else ""
        for kind in self.kinds:
            if kind in ("int", "float"):
                number = "an integer" if kind == "int" else "a number"
                words.append(number + self._range() + unit)
            else:
                words.append(_KIND_WORDS[kind])
        return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]

    def _range(self) -> str:
        parts = []
        if self.least > -math.inf:
            parts.append(f"{'above' if self.open_least else 'at least'} {self.least:g}")
        if self.most < math.inf:
            parts.append(f"{'below' if self.open_most else 'at most'} {self.most:g}")
        return " " + " and ".join(parts) if parts else ""

    def accepts(self, value: Any) -> bool:
        """Return whether `value` is valid."""
        if isinstance(value, str):
            known = value in self.words or "text" in self.kinds
            return (
                known
                or ("corruption" in self.kinds and _names_corruption(value))
                or ("levels" in self.kinds and _names_levels(value))
                or ("bottleneck" in self.kinds and value.partition(":")[0] in BOTTLENECKS)
            )
        return any(self._is(kind, value) for kind in self.kinds)

    def _is(self, kind: str, value: Any) -> bool:
        match kind:
            case "none":
                return value is None
            case "bool":
                # numpy calls its own bool_ before version 2; importing numpy here would be slow.
                return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
            case "int":
                return _is_integer(value) and self._within(value)
            case "float":
                return (
                    isinstance(value, numbers.Real)
                    and not isinstance(value, bool)
                    and self._within(value)
                )
            case "layers":
                return (
                    isinstance(value, Sequence)
                    and not isinstance(value, str)
                    and all(map(_is_layer, value))
                )
            case "names":
                return isinstance(value, Mapping) and all(
                    isinstance(name, str) and word in self.words for name, word in value.items()
                )
            case "share":
                return (
                    isinstance(value, numbers.Real)
                    and not isinstance(value, bool)
                    and 0 < float(value) < 1
                )
            case "bottleneck":
                return type(value) in BOTTLENECKS.values()
            case "corruption":
                return type(value) in CORRUPTIONS.values()
            case "seed":
                return type(value).__name__ == "RandomState" or (_is_integer(value) and value >= 0)
        return False

    def _within(self, value: numbers.Real) -> bool:
        try:
            number = float(value)
        except OverflowError:
            return False
        above = number > self.least if self.open_least else number >= self.least
        below = number < self.most if self.open_most else number <= self.most
        return above and below and math.isfinite(number)

    def parse(self, text: str) -> Any:
        """Read the value that a command line or a form holds as text.

        Raises ValueError if the text fits none of the kinds; `check` tests whether the value is
        within bounds.
        """
        if text in self.choices:
            return text
        if "none" in self.kinds and text.lower() == "none":
            return None
        if "bool" in self.kinds and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if "layers" in self.kinds:
            parts = [part.strip() for part in text.split(",")]
            return tuple(part if ":" in part else int(part) for part in parts if part)
        if {"corruption", "bottleneck", "levels"} & set(self.kinds):
            return text
        if "names" in self.kinds and "=" in text:
            # A name with a comma can be put in double quotes.
            return dict(map(_column_and_word, next(csv.reader([text], skipinitialspace=True))))
        if {"int", "seed"} & set(self.kinds):
            try:
                return int(text)
            except ValueError:
                if not {"float", "share"} & set(self.kinds):
                    raise
        if {"float", "share"} & set(self.kinds):
            return float(text)
        return text


def _names_corruption(text: str) -> bool:
    name, _, number = text.partition(":")
    kind = CORRUPTIONS.get(name)
    if kind is None or not number:
        return kind is not None
    try:
        return bool(fields(kind)) and math.isfinite(float(number))
    except ValueError:
        return False


def _is_layer(value: Any) -> bool:
    if isinstance(value, str):
        return _LAYER.fullmatch(value) is not None
    return (_is_integer(value) and value >= 1) or type(value).__module__ == "twofold.nn.layers"


def _names_levels(text: str) -> bool:
    name, _, epochs = text.partition(":")
    return name == "layerwise" and epochs.isdecimal() and int(epochs) >= 1


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _column_and_word(part: str) -> tuple[str, str]:
    column, _, word = part.rpartition("=")
    return column.strip(), word.strip()


_KIND_WORDS = {
    "none": "None",
    "bool": "True or False",
    "layers": "a tuple with an integer at least 1 for each dense layer, "
    "'conv:CHANNELS:SIZE:STRIDE', 'recurrent:UNITS:CELL' or an object of twofold.nn.layers",
    "names": "a mapping of column name to one of these words",
    "text": "a name",
    "share": "a share between 0 and 1 of the variance to keep",
    "bottleneck": "one of these with details ('sparse:topk:32', 'variational:4'), an object such "
    "as twofold.Sparse('topk')",
    "corruption": "one of these with a share, scale or amount ('masking:0.3'), an object such as "
    "twofold.Masking(0.3)",
    "levels": "'layerwise:10' (so many epochs per level)",
    "seed": "an integer at least 0, or a numpy RandomState",
}

# What Keras, PyTorch and pandas call the same things.
_ELSEWHERE = {
    "binary_crossentropy": "bernoulli", "bce": "bernoulli", "bcewithlogits": "bernoulli",
    "mse": "gaussian", "mean_squared_error": "gaussian", "squared_error": "gaussian",
    "categorical_crossentropy": "categorical", "cross_entropy": "categorical",
    "vae": "variational", "swish": "silu", "linear": "identity",
    "none": "identity", "logistic": "sigmoid", "dropout": "masking", "noise": "gaussian",
    "number": "real", "numeric": "real", "float": "real", "continuous": "real", "int": "count",
    "integer": "count", "bool": "binary", "boolean": "binary", "categorical": "category",
    "date": "time", "datetime": "time", "image": "pixel", "drop": "ignored", "1cycle": "one-cycle",
}  # fmt: skip

OPTIONS: dict[str, Option] = {
    "n_components": Option(
        None,
        "size of the code; None is, of a table, what PCA needs to keep four fifths of the "
        "variance, at most one component per column, and of pixels and sequences a quarter of the "
        "inputs; a share between 0 and 1 is the smallest ordered code that keeps that share of "
        "the held-out rows' variance",
        kinds=("none", "int", "share"),
        unit="components",
        least=1,
    ),
    "hidden_layers": Option(
        "auto",
        "the encoder's hidden layers, mirrored in the decoder: widths of dense ones, convolutional "
        "ones for images and recurrent ones for sequences; 'wide' are two that are wider than most "
        "tables, 'halving' halves the width until the code; 'auto' is 'wide' for tables, else "
        "'halving'",
        kinds=("layers",),
        choices=("auto", "wide", "halving"),
    ),
    "shortcut": Option(
        "auto",
        "a linear pair next to the stack, from the rows to the code and back, which starts as PCA: "
        "the network then begins where PCA ends; 'auto' has one for tables, if the code is plain "
        "or ordered; where cells are missing, as many more are then hidden while training",
        kinds=("bool",),
        choices=("auto",),
    ),
    "tied": Option(
        True,
        "the decoder reuses the encoder's weights, transposed, with biases of its own",
        kinds=("bool",),
    ),
    "activation": Option(
        "auto",
        "activation of the hidden layers, both ways: 'identity', 'relu', 'leaky_relu', 'elu', "
        "'selu', 'gelu', 'silu', 'tanh', 'sigmoid' or 'softplus'; 'auto' is 'relu' for tables, "
        "else 'selu'",
        choices=("auto",),
        registry=ACTIVATIONS,
    ),
    "code_activation": Option(
        "identity", "activation of the code, one of the same names", registry=ACTIVATIONS
    ),
    "kinds": Option(
        "auto",
        "what columns are; 'auto' decides from their types and cells, a mapping sets some by "
        "name, and 'ignored' leaves a column out",
        kinds=("names",),
        choices=("auto", *KIND_NAMES),
    ),
    "likelihood": Option(
        "auto",
        "how cells are modelled: 'gaussian' is squared error on standardised columns, 'student_t' "
        "the same with heavy tails, 'bernoulli' binary cross-entropy on values in [0, 1], "
        "'categorical' cross-entropy over categories, 'histogram' cross-entropy over up to 16 "
        "knots on a number's axis (densities of any shape, at 16 inputs per column), 'poisson' and "
        "'negative_binomial' are for counts; 'auto' decides per column from its kind",
        kinds=("names",),
        choices=("auto",),
        registry=LIKELIHOODS,
    ),
    "bottleneck": Option(
        "plain",
        "what is done to the code: 'sparse' lets few components be active (an 'l1' penalty, 'kl' "
        "divergence from a target, or the 'topk' largest), 'variational' draws it near a normal "
        "density, 'ordered' orders the components by the variance they explain, as in PCA",
        kinds=("bottleneck",),
        registry=BOTTLENECKS,
    ),
    "corruption": Option(
        None,
        "noise on the inputs while training; the network learns to reconstruct clean cells "
        "(denoising): 'masking' hides cells, 'swap' takes them from other rows, 'gaussian' adds "
        "noise, 'salt-and-pepper' sets extremes, 'binarize' draws black or white pixels, 'warp' "
        "rotates, shifts and bends images",
        kinds=("none", "corruption"),
        registry=CORRUPTIONS,
    ),
    "pretraining": Option(
        None,
        "initial weights: 'pca' starts at the error of PCA, in closed form; 'layerwise' trains one "
        "level at a time, for a quarter of the epochs each or as many as given, before all "
        "together; None starts from random weights",
        kinds=("none", "levels"),
        choices=("pca", "layerwise"),
    ),
    "optimizer": Option(
        "adamw",
        "how weights are updated; with 'muon' an epoch of a wide network lowers the loss more, and "
        "takes longer",
        choices=("sgd", "adam", "adamw", "muon"),
    ),
    "learning_rate": Option(
        "auto",
        "step size; with the one-cycle schedule, its peak",
        kinds=("float",),
        choices=("auto",),
        least=0,
        open_least=True,
    ),
    "momentum": Option(
        0.0,
        "share of the last update that is kept (optimizer='sgd' only)",
        kinds=("float",),
        least=0,
        most=1,
        open_most=True,
    ),
    "nesterov": Option(
        False, "Nesterov's momentum (optimizer='sgd' with momentum only)", kinds=("bool",)
    ),
    "schedule": Option(
        "one-cycle",
        "learning rate over the run: 'constant', or 'one-cycle' (a rise, then a decay to zero)",
        choices=("constant", "one-cycle"),
    ),
    "batch_size": Option(
        "auto",
        "rows per update; 'auto' depends on the number of rows",
        kinds=("int",),
        choices=("auto",),
        unit="rows",
        least=1,
    ),
    "epochs": Option(
        "auto",
        "passes over the training rows; 'auto' depends on the number of rows",
        kinds=("int",),
        choices=("auto",),
        unit="passes",
        least=1,
    ),
    "weight_decay": Option(
        "auto",
        "pull of the weight matrices towards zero, per update (an L2 penalty; decoupled with "
        "'adamw' and 'muon'); biases are not decayed; 'auto' is 0.1 with 'adamw' and a "
        "shortcut (0.3 from 12 columns on where training rows are under 100 for each), else 0",
        kinds=("float",),
        choices=("auto",),
        least=0,
    ),
    "validation_fraction": Option(
        0.1,
        "share of the rows held out for early stopping and calibration (at least 19 rows, or a "
        "quarter of a small table); 0 trains on every row",
        kinds=("float",),
        least=0,
        most=1,
        open_most=True,
    ),
    "patience": Option(
        "auto",
        "epochs without a better validation loss before training stops, and the best weights are "
        "kept; 'auto' trains all epochs and keeps the best weights, with a shortcut cooled down "
        "for a tenth as many epochs at a 50th of the rate; None trains all and keeps the last ones",
        kinds=("none", "int"),
        choices=("auto",),
        unit="epochs",
        least=1,
    ),
    "donors": Option(
        1000,
        "training rows whose numbers and times the model keeps, so that draws of impute and sample "
        "take values that exist; 0 keeps none",
        kinds=("int",),
        unit="rows",
        least=0,
    ),
    "contamination": Option(
        "auto",
        "'auto' flags a normal row with probability at most 5 %, calibrated on the held-out rows; "
        "a number is the share of the training rows to flag",
        kinds=("float",),
        choices=("auto",),
        least=0,
        most=0.5,
        open_least=True,
    ),
    "device": Option(
        "auto",
        "where to compute: 'auto' (a GPU if there is one), 'cpu', 'cuda', 'cuda:1'",
        kinds=("text",),
    ),
    "precision": Option(
        "float32",
        "number format while training: 'bfloat16' multiplies with 8 significant bits and keeps the "
        "weights in float32; 'auto' does so where the processor has the instructions and the "
        "batches are large enough",
        choices=("float32", "bfloat16", "float64", "auto"),
    ),
    "random_state": Option(
        None, "seed; the same seed gives the same model", kinds=("none", "seed")
    ),
    "warm_start": Option(
        False,
        "True lets a further fit continue from the present weights, whatever options of the "
        "network are set by then; False starts from new ones",
        kinds=("bool",),
    ),
    "verbose": Option(0, "1 shows training progress, 0 does not", kinds=("int", "bool"), least=0),
}


def documented(cls: type[Class]) -> type[Class]:
    """Put the options into a class's docstring, in place of the line `{options}`."""
    lines = []
    for name, one in OPTIONS.items():
        default = f'"{one.default}"' if isinstance(one.default, str) else repr(one.default)
        lines.append(f"{name} : {one.expected()}, default={default}")
        text = f"{one.help[0].upper()}{one.help[1:]}."
        lines += textwrap.wrap(text, 96, initial_indent="    ", subsequent_indent="    ")
    if cls.__doc__:  # which `python -OO` leaves out
        cls.__doc__ = cls.__doc__.replace(
            "{options}", textwrap.indent("\n".join(lines), "    ").strip()
        )
    return cls


def option(name: str) -> Any:
    """Make the dataclass field of the option `name`."""
    entry = OPTIONS[name]
    return field(default=entry.default, metadata={"option": entry})


def check(values: Mapping[str, Any]) -> None:
    """Raise one OptionError that lists every invalid value, and why."""
    mistakes = []
    for name, value in values.items():
        entry = OPTIONS.get(name)
        if entry is None:
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            mistakes.append(f"Unknown option {name}.{hint}")
        elif not entry.accepts(value):
            mistakes.append(
                f"Expected {name} to be {entry.expected()}, got {_short(value)}. "
                f"{_advice(entry, value)}"
            )
    mistakes += _conflicts(values)
    if mistakes:
        raise OptionError("\n".join(mistakes))


def _advice(entry: Option, value: Any) -> str:
    """Say what to give instead of an invalid value: a near word, or the default."""
    if "layers" in entry.kinds and _is_layer(value):
        return f"Write ({value!r},) for a single layer."
    given = value.values() if isinstance(value, Mapping) else [value]
    for word in [str(word) for word in given if isinstance(word, str) and word not in entry.words]:
        known = {near: near for near in entry.words} | {
            other: ours for other, ours in _ELSEWHERE.items() if ours in entry.words
        }
        near = difflib.get_close_matches(word.lower().replace(" ", "_"), known, n=1)
        if near:
            return f"Did you mean {known[near[0]]!r}?"
    return f"Leave it out for {entry.default!r}."


def require_integer(name: str, value: Any, least: int = 1, most: float = math.inf) -> int:
    """Return a whole number within bounds, or raise OptionError that names the parameter.

    Examples
    --------
    >>> require_integer("n_draws", 3)
    3
    """
    if _is_integer(value) and least <= value <= most:
        return int(value)
    bounds = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
    raise OptionError(f"Expected {name} to be an integer {bounds}, got {_short(value)}.")


def _conflicts(values: Mapping[str, Any]) -> list[str]:
    merged = {name: entry.default for name, entry in OPTIONS.items()} | dict(values)
    mistakes = []
    if merged["optimizer"] != "sgd" and merged["momentum"]:
        mistakes.append(
            f"momentum={merged['momentum']!r} needs optimizer='sgd', got {merged['optimizer']!r}, "
            f"which has its own. Leave momentum at 0."
        )
    if merged["nesterov"] and not merged["momentum"]:
        mistakes.append("nesterov=True needs momentum above 0. Try momentum=0.9.")
    return mistakes


def changed(values: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the options that differ from their defaults: name, value and default.

    Values are written as the command line takes them.

    Examples
    --------
    >>> changed({"epochs": 5, "tied": True, "hidden_layers": (64, 32)})
    [('epochs', '5', 'auto'), ('hidden_layers', '64,32', 'auto')]
    """
    defaults = {name: OPTIONS[name].default for name in values}
    return [
        (name, _as_text(value), _as_text(defaults[name]))
        for name, value in values.items()
        if value != defaults[name]
    ]


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_layer_as_text, value)) or "no hidden layer"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={word}" for name, word in value.items())
    return "none" if value is None else str(value)


def _layer_as_text(layer: Any) -> str:
    parts = layer.values() if isinstance(layer, Mapping) else [layer]
    return ":".join(str(part) for part in parts if part is not None)


def flag(name: str) -> str:
    """Return the flag of the option `name` on the command line, "" if it has none.

    Examples
    --------
    >>> flag("batch_size"), flag("tied"), flag("nesterov")
    ('--batch-size', '--tied/--untied', '--nesterov/--no-nesterov')
    """
    # The command line shows progress unless --quiet is given, and each of its models is a new one.
    if name in ("verbose", "warm_start"):
        return ""
    words = name.replace("_", "-")
    if OPTIONS[name].kinds != ("bool",):
        return f"--{words}"
    return "--tied/--untied" if name == "tied" else f"--{words}/--no-{words}"


def reference() -> str:
    """Return the reference page of all options, `docs/options.md`, as Markdown."""
    rows = []
    for name, entry in OPTIONS.items():
        flags = " or ".join(f"`{part}`" for part in flag(name).split("/") if part)
        cells = (f"`{name}`", f"`{entry.default!r}`", entry.help, entry.expected(), flags or "-")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return _REFERENCE_HEAD + "".join(rows)


_REFERENCE_HEAD = """\
# Options

What `Autoencoder(...)` takes and what `twofold fit` takes are the same options, from one table in
the code; this page is made from it by `python -m twofold.options > docs/options.md`. All
invalid values are listed at once, before any work is done, with the same message in Python and on
the command line.

In Python, options are keyword arguments. On the command line they are flags, where layers are
separated by commas (`--hidden-layers 64,32`, `--hidden-layers conv:16:3:2,conv:8:3:2`), a mapping
is written as pairs (`--likelihood "age=gaussian,smoker=bernoulli"`), and `none` stands for `None`.

```python
from twofold import Autoencoder

ae = Autoencoder(n_components=8, hidden_layers=(64, 32), patience=None)
```

| option | default | meaning | values | command line |
|---|---|---|---|---|
"""

if __name__ == "__main__":
    sys.stdout.write(reference())
