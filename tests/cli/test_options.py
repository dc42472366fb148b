"""Every option of the table is a flag, read as the table says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from twofold.cli import options
from twofold.options import OPTIONS, flag

WITH_FLAGS = [name for name in OPTIONS if flag(name)]
seen: dict[str, Any] = {}


@options.takes_options
def command(
    source: Annotated[str, typer.Argument(help="Rows.")],
    given: Mapping[str, Any],
    quiet: Annotated[bool, typer.Option(help="Say nothing.")] = False,
) -> None:
    """Keep what it was given."""
    seen.clear()
    seen.update(given, source=source, quiet=quiet)


def run(*words: str) -> dict[str, Any]:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return dict(seen)


def test_a_command_has_its_own_parameters_and_then_one_per_option() -> None:
    assert list(inspect.signature(command).parameters) == ["source", "quiet", *WITH_FLAGS]
    assert (command.__name__, command.__doc__) == ("command", "Keep what it was given.")


def test_options_that_are_not_named_are_not_given() -> None:
    assert run("rows.csv") == {"source": "rows.csv", "quiet": False}


def test_options_that_are_named_are_given_with_their_values() -> None:
    said = run("rows.csv", "--epochs", "5", "--hidden-layers", "64,32", "--untied", "--quiet")
    assert said["epochs"] == 5
    assert tuple(said["hidden_layers"]) == (64, 32)
    assert said["tied"] is False
    assert said["quiet"] is True


@pytest.mark.parametrize("name", WITH_FLAGS)
def test_every_flag_says_what_it_is_for_and_its_default(name: str) -> None:
    _, shown = get_args(inspect.signature(command).parameters[name].annotation)
    assert shown.help.endswith("]")
    assert "[default: " in shown.help
    assert not shown.help[0].islower()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "5", 5),
        ("epochs", "auto", "auto"),
        ("epochs", "2.5", 2.5),  # left for `options.check` to refuse
        ("epochs", "many", "many"),
        ("tied", True, True),
        ("learning_rate", "1e-3", 1e-3),
        ("patience", "none", None),
    ],
)
def test_text_is_read_as_the_option_is(name: str, text: str | bool, value: Any) -> None:
    assert options.read(name, text) == value


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ([], []),
        (["a,b"], ["a", "b"]),
        (["a", "b, c"], ["a", "b", "c"]),
        (['"a, b",c'], ["a, b", "c"]),
        ([""], []),
    ],
)
def test_names_are_split_at_commas(texts: list[str], names: list[str]) -> None:
    assert options.names(texts) == names
