"""A thousand damaged and forged model folders: each is refused in words, or is a model that works.

Damage is what happens to files by themselves: nothing is made to match. Forgery is what somebody
does who knows how the digests are made, and makes them match.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import struct
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from twofold import Autoencoder, load
from twofold.errors import ModelFileError, TwofoldError
from twofold.persistence import folder as model_folder
from twofold.persistence.folder import DOCUMENT, WEIGHTS

SEEDS = 40  # of each kind of change, of which there are 25: a thousand folders in all
N = 80
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "height": RNG.normal(170, 8, N),
        "income": 2000 + 300 * RNG.standard_t(3, N),
        "visits": RNG.poisson(2.0, N),
        "smoker": RNG.uniform(size=N) < 0.4,
        "town": RNG.choice(["Bonn", "Kiel", "Ulm"], N),
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, N), "D"),
        "share": RNG.beta(0.3, 0.4, N) * 7 - 2,
        "key": [f"k{i}" for i in range(N)],
    }
)
OPTIONS: dict[str, Any] = {
    "n_components": 3,
    "hidden_layers": (6,),
    "likelihood": {"income": "student_t", "share": "histogram"},
    "corruption": "masking:0.2",
    "epochs": 2,
    "batch_size": 32,
    "random_state": 0,
}
Document = dict[str, Any]


class Copy:
    """A model folder in memory, to be changed."""

    def __init__(self, weights: bytes, document: bytes) -> None:
        self.weights, self.text = bytearray(weights), bytearray(document)
        self.document: Document = json.loads(document)
        self.files: dict[str, bytes] = {}

    @property
    def header(self) -> tuple[Document, bytes]:
        """The weights' table of contents, and the numbers after it."""
        length = struct.unpack("<Q", self.weights[:8])[0]
        return json.loads(self.weights[8 : 8 + length]), bytes(self.weights[8 + length :])

    def put_header(self, header: Document | bytes, data: bytes) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.weights = bytearray(struct.pack("<Q", len(text)) + text + data)

    def sign(self) -> None:
        """Make the digests match, as far as the document still can be one."""
        body = {k: v for k, v in self.document.items() if k != "sha256"}
        digest = hashlib.sha256(self.weights).hexdigest()
        body |= {"weights_sha256": digest, "weights_bytes": len(self.weights)}
        self.text = bytearray(json.dumps({**body, "sha256": model_folder._digest(body)}).encode())

    def write(self, folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        (folder / WEIGHTS).write_bytes(self.weights)
        (folder / DOCUMENT).write_bytes(self.text)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


# Damage


def flip_bits(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 1, 8])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def cut_off(rng: random.Random, content: bytearray) -> None:
    del content[rng.choice([0, 1, 7, 8, 9, rng.randrange(len(content))]) :]


def lose_a_block(rng: random.Random, content: bytearray) -> None:
    start, length = rng.randrange(len(content)), rng.choice([1, 8, 512])
    if rng.random() < 0.5:
        del content[start : start + length]
    else:
        content[start : start + length] = bytes(len(content[start : start + length]))


def gain_a_block(rng: random.Random, content: bytearray) -> None:
    start = rng.choice([0, len(content), rng.randrange(len(content))])
    content[start:start] = rng.randbytes(rng.choice([1, 8, 512]))


def change_a_digit(rng: random.Random, content: bytearray) -> None:
    places = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    content[rng.choice(places)] = ord(rng.choice("0123456789"))


DAMAGE: dict[str, Callable[[random.Random, bytearray], None]] = {
    "bits are flipped": flip_bits,
    "the end is missing": cut_off,
    "a block is lost": lose_a_block,
    "a block came in": gain_a_block,
    "a digit is another": change_a_digit,
}

# Forgery of the document

VALUES: list[Any] = [
    None,
    True,
    "",
    "x" * 10_000,
    "NaN",
    "inf",
    "../../etc/passwd",
    "__import__('os').system('true')",
    "\ud800",
    -1,
    0,
    1,
    2,
    1.5,
    1e308,
    -1e-320,
    10**30,
    -(2**63),
    [],
    {},
    [[]],
    [1, 2],
    ["a", None],
    {"name": "conv", "channels": 10**9, "size": 1},
    {"kind": "real"},
]


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, from the outside in."""
    if path:
        yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*path, key))
    elif isinstance(document, list):
        for i, value in enumerate(document):
            yield from places(value, (*path, i))


def home(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path[:-1]:
        document = document[step]
    return document


def leaves(document: Any) -> list[tuple[Any, ...]]:
    """Places to change; histories and versions are dull, and there are many of them."""
    every = [p for p in places(document) if p[0] not in ("history", "versions", "format")]
    return [p for p in every if not p[0].endswith(("sha256", "bytes"))]


def replace_a_value(rng: random.Random, copy: Copy) -> None:
    path = rng.choice(leaves(copy.document))
    home(copy.document, path)[path[-1]] = rng.choice(VALUES)


def replace_an_option(rng: random.Random, copy: Copy) -> None:
    options = copy.document["options"]
    options[rng.choice(list(options))] = rng.choice(VALUES)


def replace_a_field_of_a_column(rng: random.Random, copy: Copy) -> None:
    column = rng.choice(copy.document["schema"]["columns"])
    fields = [*column, "levels", "kept", "rest", "cycles", "knots", "shares", "between", "format"]
    column[rng.choice(fields)] = rng.choice(VALUES)


def lose_a_key(rng: random.Random, copy: Copy) -> None:
    path = rng.choice(leaves(copy.document))
    del home(copy.document, path)[path[-1]]


def swap_two_values(rng: random.Random, copy: Copy) -> None:
    a, b = (rng.choice(leaves(copy.document)) for _ in range(2))
    first, second = home(copy.document, a), home(copy.document, b)
    one, other = first[a[-1]], second[b[-1]]
    if one is not first and other is not first and one is not second and other is not second:
        first[a[-1]], second[b[-1]] = json.loads(json.dumps(other)), json.loads(json.dumps(one))


def add_a_key(rng: random.Random, copy: Copy) -> None:
    path = rng.choice(
        [p for p in leaves(copy.document) if isinstance(home(copy.document, p), dict)]
    )
    name = rng.choice(["__class__", "__reduce__", "py/object", "x", ""])
    home(copy.document, path)[name] = rng.choice(VALUES)


def nest_deeply(rng: random.Random, copy: Copy) -> None:
    path = rng.choice(leaves(copy.document))
    value: Any = 1
    for _ in range(rng.choice([50, 400])):
        value = [value] if rng.random() < 0.5 else {"a": value}
    home(copy.document, path)[path[-1]] = value


def grow_a_list(rng: random.Random, copy: Copy) -> None:
    lists = [p for p in leaves(copy.document) if isinstance(home(copy.document, p), list)]
    grown = home(copy.document, rng.choice(lists))
    grown.extend(rng.choice([grown, [rng.choice(VALUES)]]) * rng.choice([1, 300]))


def say_another_size(rng: random.Random, copy: Copy) -> None:
    network = copy.document["network"]
    size = rng.choice([0, -1, 1, 4, 10**6, 10**12, 2**63, 1.5, "3"])
    if rng.random() < 0.3:
        network["n_components"] = size
    elif rng.random() < 0.5:
        network["hidden_layers"] = [size]
    else:
        network["hidden_layers"] = [6] * rng.choice([0, 2, 1000])


# Forgery of the weights


def change_the_header(
    change: Callable[[random.Random, Document, str], None],
) -> Callable[[random.Random, Copy], None]:
    def forge(rng: random.Random, copy: Copy) -> None:
        header, data = copy.header
        change(rng, header, rng.choice([name for name in header if name != "__metadata__"]))
        copy.put_header(header, data)

    return forge


def reshape(rng: random.Random, header: Document, name: str) -> None:
    shapes: list[Any] = [[2**62], [2**40, 2**40], [-1], [0], [], [1.5], "6", None, [[6]]]
    header[name]["shape"] = rng.choice([*shapes, header[name]["shape"][::-1]])


def retype(rng: random.Random, header: Document, name: str) -> None:
    header[name]["dtype"] = rng.choice(["F64", "F16", "I64", "U8", "BOOL", "F8_E4M3", "object", 3])


def move(rng: random.Random, header: Document, name: str) -> None:
    places: list[Any] = [[0, 0], [0, 2**62], [-8, 8], [8, 0], [0], "0", None, [0, 1, 2]]
    header[name]["data_offsets"] = rng.choice(places)


def rename(rng: random.Random, header: Document, name: str) -> None:
    names = ["../../weights", "/etc/passwd", "", "a" * 10_000, "network.__class__", "\ud800", "\0"]
    header[rng.choice(names)] = header.pop(name)


def mix_up(rng: random.Random, header: Document, name: str) -> None:
    other = rng.choice([key for key in header if key != "__metadata__"])
    header[name], header[other] = header[other], header[name]


def leave_out(rng: random.Random, header: Document, name: str) -> None:
    del header[name]


def write_a_header_of_another_sort(rng: random.Random, copy: Copy) -> None:
    header, data = copy.header
    text = json.dumps(header)
    first = next(iter(header))
    forms = [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        text.replace('"F32"', "NaN").encode(),
        f"{{{json.dumps(first)}: {json.dumps(header[first])}, {text[1:]}".encode(),
        text.replace("[", "[" + "9" * 400 + ", ", 1).encode(),
        json.dumps({**header, "__metadata__": {"a": 3}}).encode(),
    ]
    copy.put_header(rng.choice(forms), data)


def say_another_length(rng: random.Random, copy: Copy) -> None:
    length = rng.choice([0, 1, 2**63, 2**64 - 1, len(copy.weights), len(copy.weights) - 8, 10**8])
    copy.weights[:8] = struct.pack("<Q", length)


def write_odd_numbers(rng: random.Random, copy: Copy) -> None:
    header, data = copy.header
    floats = {n: t for n, t in header.items() if t.get("dtype") in ("F32", "F64")}
    name = rng.choice([n for n, t in floats.items() if t["data_offsets"][0] < t["data_offsets"][1]])
    start, stop = header[name]["data_offsets"]
    kind = np.float64 if header[name]["dtype"] == "F64" else np.float32
    numbers = np.frombuffer(data[start:stop], kind).copy()
    odd = rng.choice([np.nan, np.inf, -np.inf, 1e38, -1e38, 0.0, 1e-45])
    numbers[rng.randrange(len(numbers)) if rng.random() < 0.5 else slice(None)] = odd
    copy.put_header(header, data[:start] + numbers.tobytes() + data[stop:])


def flip_bits_of_the_weights(rng: random.Random, copy: Copy) -> None:
    flip_bits(rng, copy.weights)


def flip_bits_of_the_header(rng: random.Random, copy: Copy) -> None:
    length = struct.unpack("<Q", copy.weights[:8])[0]
    copy.weights[rng.randrange(8 + length)] ^= 1 << rng.randrange(8)


FORGERY: dict[str, Callable[[random.Random, Copy], None]] = {
    "a value is another": replace_a_value,
    "an option is another": replace_an_option,
    "a column is another": replace_a_field_of_a_column,
    "a key is missing": lose_a_key,
    "two values are swapped": swap_two_values,
    "a key too many": add_a_key,
    "a value is nested deeply": nest_deeply,
    "a list is longer": grow_a_list,
    "another network": say_another_size,
    "a tensor has another shape": change_the_header(reshape),
    "a tensor has another type": change_the_header(retype),
    "a tensor lies elsewhere": change_the_header(move),
    "a tensor has another name": change_the_header(rename),
    "tensors are swapped": change_the_header(mix_up),
    "a tensor is missing": change_the_header(leave_out),
    "the header is another": write_a_header_of_another_sort,
    "the header is longer": say_another_length,
    "numbers are none": write_odd_numbers,
    "bits of the weights are flipped": flip_bits_of_the_weights,
    "bits of the header are flipped": flip_bits_of_the_header,
}

# What is watched


FORBIDDEN = (
    "os.system os.exec os.spawn os.posix_spawn os.fork os.remove os.rename os.rmdir os.mkdir "
    "subprocess socket shutil marshal pickle.find_class ctypes.dlopen"
)


class Watch:
    """Notes what reading a file has no business with."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[tuple[str, object]] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, details: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and bool(set("wax+") & set(str(details[1])))
        # What is imported late is compiled from its file; text has no source when it is compiled.
        compiles = event == "compile" and details[0] is not None
        if writes or compiles or event.startswith(tuple(FORBIDDEN.split())):
            self.seen.append((event, details))


WATCH = Watch()


@contextmanager
def watched() -> Iterator[None]:
    WATCH.seen.clear()
    WATCH.on = True
    try:
        yield
    finally:
        WATCH.on = False
    assert not WATCH.seen, WATCH.seen


@contextmanager
def little_memory(n_bytes: int) -> Iterator[None]:
    """Let this process take hold of no more than so many bytes beyond what it has."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("/proc is not there to tell how much memory is in use")
    used = int(status.read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("safety") / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ae = Autoencoder(**OPTIONS).fit(FRAME)
    ae.save(folder)
    ae = load(folder)  # all that is imported late is imported now
    ae.score_samples(FRAME), ae.sample(2)
    return folder


@pytest.fixture(scope="module")
def codes(saved: Path) -> np.ndarray:
    return load(saved).transform(FRAME)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


def original(saved: Path) -> Copy:
    return Copy((saved / WEIGHTS).read_bytes(), (saved / DOCUMENT).read_bytes())


def outcome(folder: Path, what: str) -> Autoencoder | None:
    """The model that the folder holds, or None where it is refused in words."""
    n_bytes = sum(path.stat().st_size for path in folder.iterdir())
    refusal = ""
    try:
        with watched(), little_memory(10 * n_bytes + 200 * 2**20):
            return load(folder)
    except ModelFileError as error:
        refusal = str(error)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert 20 < len(refusal) < 3000, f"{what}: {refusal}"
    assert "frame #" not in refusal, f"{what}: {refusal}"
    assert "allocate" not in refusal, f"{what}: {refusal}"
    return None


@pytest.mark.parametrize("name", [WEIGHTS, DOCUMENT])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_or_changes_nothing(
    kind: str, name: str, saved: Path, folder: Path, codes: np.ndarray
) -> None:
    told = 0
    for seed in range(SEEDS // 2):
        copy = original(saved)
        content = copy.weights if name == WEIGHTS else copy.text
        DAMAGE[kind](random.Random(f"{kind} {name} {seed}"), content)
        copy.write(folder)
        ae = outcome(folder, f"{kind}, {name}, {seed}")
        told += ae is None
        if ae is not None:
            np.testing.assert_array_equal(ae.transform(FRAME), codes)
    assert told >= SEEDS // 4  # a digit may be the same digit again


@pytest.mark.parametrize("kind", FORGERY)
def test_a_forgery_is_refused_or_works(kind: str, saved: Path, folder: Path) -> None:
    for seed in range(SEEDS):
        what = f"{kind}, {seed}"
        copy = original(saved)
        FORGERY[kind](random.Random(what), copy)
        try:
            copy.sign()
        except (ValueError, RecursionError):
            continue
        copy.write(folder)
        ae = outcome(folder, what)
        if ae is None:
            continue
        for verb in ("transform", "score_samples", "reconstruct"):
            works(what, lambda ae=ae, verb=verb: getattr(ae, verb)(FRAME[:5]))
        works(what, lambda ae=ae: ae.sample(3, random_state=0))


def works(what: str, verb: Callable[[], object]) -> None:
    """What a forged model does is its own affair, as long as it does it or says why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            with watched():
                verb()
        except TwofoldError:
            pass
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("name", ["../evil", "weights.pkl", "model.py", "__init__.py", "x" * 200])
def test_other_files_are_not_looked_at(
    name: str, saved: Path, folder: Path, codes: np.ndarray
) -> None:
    copy = original(saved)
    copy.files[name] = b"import os; os.system('true')"
    copy.write(folder)
    ae = outcome(folder, name)
    assert ae is not None
    np.testing.assert_array_equal(ae.transform(FRAME), codes)


def test_a_link_out_of_the_folder_is_no_way_to_other_files(saved: Path, folder: Path) -> None:
    original(saved).write(folder)
    secret = folder.parent / "secret.txt"
    secret.write_text("do not tell")
    (folder / DOCUMENT).unlink()
    (folder / DOCUMENT).symlink_to(secret)
    with pytest.raises(ModelFileError) as told:
        load(folder)
    assert "do not tell" not in str(told.value)


@pytest.mark.parametrize("kind", FORGERY)
def test_refusing_takes_little_memory(kind: str, saved: Path, folder: Path) -> None:
    copy = original(saved)
    FORGERY[kind](random.Random(f"memory {kind}"), copy)
    try:
        copy.sign()
    except (ValueError, RecursionError):
        return
    copy.write(folder)
    n_bytes = sum(path.stat().st_size for path in folder.iterdir())
    tracemalloc.start()
    try:
        outcome(folder, kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * n_bytes + 20 * 2**20


def test_nothing_is_written_where_a_folder_is_read(saved: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in saved.iterdir()}
    os.chmod(saved, 0o555)
    try:
        load(saved)
    finally:
        os.chmod(saved, 0o755)
    assert {path.name: path.stat().st_mtime_ns for path in saved.iterdir()} == before
