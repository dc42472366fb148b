"""The option table as flags of a command: what they are called, what they say, how they are read.

A command that trains has one flag per option of the estimator. They are made from the table, so
that names, choices, defaults and help are written once.
"""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from twofold.cli.common import TextFlags
from twofold.errors import OptionError
from twofold.options import OPTIONS, Option, flag


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag per option in place of its parameter `given`.

    `given` becomes the options that were named, with their values: `{"epochs": 50}`. Values are
    read but not checked, for some are refused only together.
    """

    def with_flags(**values: Any) -> None:
        texts = {name: values.pop(name) for name in flags}
        given = {name: read(name, text) for name, text in texts.items() if text is not None}
        command(**values, given=given)

    flags = [name for name in OPTIONS if flag(name)]
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [_keyword(p.name, p.annotation, p.default) for p in own if p.name != "given"]
    parameters += [_keyword(name, _annotation(name), None) for name in flags]
    return _with_signature(with_flags, parameters, command)


def spread(name: str, record: type[Any], command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an argument or a flag per field of a dataclass in place of a parameter."""
    own = inspect.signature(command, eval_str=True).parameters
    fields = inspect.signature(record, eval_str=True).parameters.values() if name in own else ()
    names = {field.name for field in fields}

    def with_fields(**values: Any) -> None:
        given = {key: values.pop(key) for key in names}
        command(**values, **({name: record(**given)} if name in own else {}))

    mine = [p for p in own.values() if p.name != name]
    every = [_keyword(p.name, p.annotation, p.default) for p in (*fields, *mine)]
    return _with_signature(with_fields, every, command)


def text_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags about text files in place of its parameter `text`."""
    return spread("text", TextFlags, command)


def _with_signature(
    function: Callable[..., None], parameters: Sequence[inspect.Parameter], like: Any
) -> Callable[..., None]:
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    function.__name__, function.__doc__ = like.__name__, like.__doc__
    return function


def read(name: str, text: str | bool) -> Any:
    """Read an option's text; what cannot be read is left for `check` to refuse with its reasons."""
    if isinstance(text, bool):
        return text
    try:
        return OPTIONS[name].parse(text)
    except ValueError:
        pass
    try:
        return float(text)  # a number all the same, though not of the right sort
    except ValueError:
        return text


def workers(text: str) -> int | tuple[int, int]:
    """Read how many workers there are to be, or how many at least and at most."""
    try:
        numbers = [int(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 2:
        return numbers[0], numbers[1]
    raise OptionError(f"workers={text!r} must be a whole number, or two such as 2:8.")


def names(texts: Sequence[str]) -> list[str]:
    """Split lists of names at commas; a name with a comma can be put in double quotes."""
    return [name for text in texts for name in next(csv.reader([text], skipinitialspace=True), [])]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


def _annotation(name: str) -> Any:
    entry, said = OPTIONS[name], flag(name)
    switch = "/" in said
    shown = typer.Option(
        said,
        metavar=None if switch else _metavar(entry),
        help=_help(entry),
        show_default=False,
        # Apart from each other, for the second name of a switch takes width from every line.
        rich_help_panel="Switches of the model" if switch else "Options of the model",
    )
    return Annotated[bool | None if switch else str | None, shown]


def _metavar(entry: Option) -> str:
    words = {"int": "N", "float": "X", "layers": "N,N", "seed": "N", "none": "none"}
    words |= {"names": "NAME|COLUMN=NAME", "corruption": "NAME:X"}
    parts = [] if _choices_in_help(entry) else list(entry.choices)
    return "|".join(parts + [words[kind] for kind in entry.kinds if kind in words]) or "NAME"


def _choices_in_help(entry: Option) -> bool:
    return len("|".join(entry.choices)) > 16


def _help(entry: Option) -> str:
    default = "none" if entry.default is None else str(entry.default)
    if isinstance(entry.default, bool):
        default = "yes" if entry.default else "no"
    listed = [choice for choice in entry.choices if f"'{choice}'" not in entry.help]
    text = entry.help[0].upper() + entry.help[1:]
    if listed and _choices_in_help(entry):
        text += f": {', '.join(listed)}"
    return f"{text}. [default: {default}]"
