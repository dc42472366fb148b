"""The compiled library: found, checked and called through ctypes.

It is built into the package where a C compiler was at hand (`hatch_build.py`). The environment
variable `TWOFOLD_NATIVE` chooses an instruction set by name, or "off".
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from ctypes import POINTER, Structure, c_char_p, c_double, c_int64, c_void_p
from dataclasses import dataclass

from twofold.nn.native.build import path

logger = logging.getLogger(__name__)

VARIABLE = "TWOFOLD_NATIVE"


class Parameter(Structure):
    """A parameter and what its optimizer remembers of past gradients."""

    _fields_ = [("data", c_void_p), ("first", c_void_p), ("second", c_void_p)]


class Pair(Structure):
    """One level of the stack."""

    _fields_ = [
        ("n_in", c_int64),
        ("n_out", c_int64),
        ("encoder_activation", c_int64),
        ("decoder_activation", c_int64),
        ("weight", Parameter),
        ("decoder_weight", Parameter),
        ("encoder_bias", Parameter),
        ("decoder_bias", Parameter),
    ]


class Stack(Structure):
    """A dense stack, and what computes with it."""

    _fields_ = [
        ("n_pairs", c_int64),
        ("pairs", POINTER(Pair)),
        ("shortcut", POINTER(Pair)),
        ("encoder_gate", Parameter),
        ("decoder_gate", Parameter),
        ("n_threads", c_int64),
        ("isa", c_int64),
    ]


class Inputs(Structure):
    """The likelihood of each input, and how its loss counts."""

    _fields_ = [
        ("likelihood", c_void_p),
        ("scale", c_void_p),
        ("offset", c_void_p),
        ("counts", c_void_p),
        ("center", c_void_p),
        ("unit", c_void_p),
        ("spread", c_void_p),
        ("log_share", c_void_p),
    ]


class Update(Structure):
    """What the optimizer does."""

    _fields_ = [
        ("kind", c_int64),
        ("nesterov", c_int64),
        ("clips", c_int64),
        ("momentum", c_double),
        ("weight_decay", c_double),
        ("n_updates", c_int64),
    ]


class Batches(Structure):
    """The batches of one call."""

    _fields_ = [
        ("n_steps", c_int64),
        ("stride", c_int64),
        ("masked", c_int64),
        ("given", c_void_p),
        ("target", c_void_p),
        ("rows", c_void_p),
        ("sizes", c_void_p),
        ("rates", c_void_p),
        ("losses", c_void_p),
    ]


@dataclass(frozen=True)
class Found:
    """What there is of the library: itself, or the reason why it is not used."""

    library: ctypes.CDLL | None
    reason: str
    isa: int = -1


def find(choice: str | None = None) -> Found:
    """Load the library for the instruction set `choice`, by default what the environment says."""
    return _find(os.environ.get(VARIABLE, "") if choice is None else choice)


@functools.cache
def _find(choice: str) -> Found:
    found = _load(choice.strip().lower())
    logger.info("native step: %s", found.reason)
    return found


def forget() -> None:
    """Look again at the next call: the library has been compiled, or the environment is another."""
    _find.cache_clear()


def _load(choice: str) -> Found:
    if choice == "off":
        return Found(None, f"switched off by {VARIABLE}=off")
    file = path()
    if not file.exists():
        return Found(None, "the package was installed without the compiled library")
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:
        return Found(None, f"the compiled library cannot be loaded: {error}")
    _declare(library)
    names = _names(library)
    available = [name for i, name in enumerate(names) if library.twofold_isa_available(i)]
    name = choice or available[-1]
    if name not in names:
        return Found(None, f"{VARIABLE}={choice} is none of {', '.join([*names, 'off'])}")
    if name not in available:
        return Found(None, f"this processor has no {choice} ({VARIABLE}={choice})")
    return Found(library, f"compiled for {name}", names.index(name))


def instruction_sets() -> list[str]:
    """Name the instruction sets that the library and this processor have, from the least up."""
    library = find("").library
    if library is None:
        return []
    return [n for i, n in enumerate(_names(library)) if library.twofold_isa_available(i)]


def _names(library: ctypes.CDLL) -> list[str]:
    names: list[str] = []
    while (name := library.twofold_isa_name(len(names))) is not None:
        names.append(name.decode())
    return names


def _declare(library: ctypes.CDLL) -> None:
    signatures = {
        "twofold_isa_name": (c_char_p, [c_int64]),
        "twofold_isa_available": (c_int64, [c_int64]),
        "twofold_train_bytes": (c_int64, [POINTER(Stack), POINTER(Update), c_int64]),
        "twofold_train": (
            c_int64,
            [POINTER(Stack), POINTER(Inputs), POINTER(Update), POINTER(Batches), c_void_p],
        ),
        "twofold_apply_bytes": (c_int64, [POINTER(Stack)]),
        "twofold_apply": (
            None,
            [POINTER(Stack), c_int64, c_void_p, c_void_p, c_void_p, c_void_p],
        ),
        "twofold_peak": (c_double, [c_int64, c_double]),
        "twofold_kernel_speed": (c_double, [c_int64, c_int64, c_int64, c_double]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
