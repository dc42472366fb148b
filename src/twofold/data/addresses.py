"""Addresses such as "s3://bucket/rows": what filesystem they are of, and folders on any of them.

Arrow's own filesystems come first (S3, Google Cloud Storage, Azure, HDFS), then those of fsspec
(Hugging Face, HTTP, and what other packages add to it).
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs

from twofold.errors import DataError

# A scheme has at least two letters, which drives of Windows do not have. `Path` makes one slash of
# two.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_PROBE = ".twofold-probe"
_STORES = ("s3", "gcs", "abfs")  # which know no folders


def address_of(path: str | os.PathLike[str]) -> str | None:
    """Return what a path is as an address, None if it is one of this machine.

    Examples
    --------
    >>> address_of(Path("s3://bucket/model")), address_of("rows.csv")
    ('s3://bucket/model', None)
    """
    found = _ADDRESS.fullmatch(os.fspath(path))
    if found is None or found[1] == "file":
        return None
    return f"{found[1]}://{found[2]}"


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path or an address as the user wrote it."""
    return address_of(path) or os.fspath(path)


def local(path: str | os.PathLike[str]) -> Path:
    """Return a path of this machine, which may be written as an address ("file:///rows")."""
    found = _ADDRESS.fullmatch(os.fspath(path))
    return Path(path) if found is None or found[1] != "file" else Path("/", found[2])


def arrow_filesystem(filesystem: Any) -> Any:
    """Return a filesystem of Arrow or of fsspec as one of Arrow."""
    if isinstance(filesystem, pa.fs.FileSystem):
        return filesystem
    return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(filesystem))


def filesystem_of(address: str) -> tuple[Any, str]:
    """Return the filesystem of an address, and its path there.

    Raises
    ------
    DataError
        If no filesystem of this kind is known or installed, or it cannot be reached.
    """
    try:
        found: tuple[Any, str] = pa.fs.FileSystem.from_uri(address)
        return found
    except Exception as error:  # drivers raise what they like
        if not isinstance(error, pa.ArrowInvalid | ImportError):
            raise unreachable(address, error) from error
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except Exception as error:
        raise unreachable(address, error) from error
    return arrow_filesystem(filesystem), path


def unreachable(address: str, error: Exception) -> DataError:
    """Return the error that says why an address cannot be reached."""
    return DataError(
        f"{address} cannot be reached: {_first_line(error)}. Check the address, your credentials, "
        f"and that the package for its filesystem is installed."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(". ")


class Folder:
    """A folder at a path of this machine or at an address, whose files are written whole.

    Where several files belong together, the one that is written last speaks for all: no reader
    takes the others without it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.address = address_of(path)
        self.path = Path(path) if self.address else local(path)
        if self.address is not None:
            self._filesystem, self._place = filesystem_of(self.address.rstrip("/"))

    def __str__(self) -> str:
        return self.address or str(self.path)

    def make(self) -> None:
        """Make the folder if it is not there, and make sure that files can be written to it.

        Raises
        ------
        OSError
            If they cannot.
        """
        if self.address is None:
            self.path.mkdir(parents=True, exist_ok=True)
            return
        with _as_os_error():
            if self._filesystem.type_name not in _STORES:
                self._filesystem.create_dir(self._place, recursive=True)
            with self._filesystem.open_output_stream(f"{self._place}/{_PROBE}") as stream:
                stream.write(b"")
        self.remove(_PROBE)

    def names(self) -> list[str]:
        """List the names of what is in the folder, none if it is not there."""
        if self.address is None:
            return sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
        selector = pa.fs.FileSelector(self._place, allow_not_found=True)
        with _as_os_error():
            return sorted(info.base_name for info in self._filesystem.get_file_info(selector))

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each of its files, by name."""
        if self.address is None:
            return {p.name: p.stat().st_size for p in sorted(self.path.iterdir()) if p.is_file()}
        selector = pa.fs.FileSelector(self._place, allow_not_found=True)
        with _as_os_error():
            infos = self._filesystem.get_file_info(selector)
        return {info.base_name: int(info.size or 0) for info in infos if info.is_file}

    def read(self, name: str) -> bytes:
        """Return the content of a file; raises OSError if it cannot be read."""
        if self.address is None:
            return (self.path / name).read_bytes()
        with _as_os_error(), self._filesystem.open_input_stream(f"{self._place}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; raises OSError if it cannot be written."""
        if self.address is None:
            _replace(self.path / name, content)
            return
        # What stores keep appears when its stream is closed.
        with _as_os_error(), self._filesystem.open_output_stream(f"{self._place}/{name}") as file:
            file.write(content)

    def remove(self, name: str) -> None:
        """Remove a file, which need not be there."""
        if self.address is None:
            (self.path / name).unlink(missing_ok=True)
            return
        try:
            with _as_os_error():
                self._filesystem.delete_file(f"{self._place}/{name}")
        except FileNotFoundError:
            pass

    def remove_if_empty(self) -> None:
        """Remove the folder if nothing is in it; stores keep no empty ones."""
        if self.address is None and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()


def parent_of(path: str | os.PathLike[str]) -> Folder:
    """Return the folder that a file at an address is in."""
    return Folder((address_of(path) or "").rpartition("/")[0])


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise what drivers of filesystems raise as an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error) or type(error).__name__) from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file of this machine under another name, and rename it once it is on the disk."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # Opened in the ordinary way, so that the user's umask decides who may read it.
        with open(fresh, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make sure that a new name outlives a power failure, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def upload(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Give a file to write, whose content is at an address once all of it is written."""
    address = address_of(path) or ""
    filesystem, place = filesystem_of(address)
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        with _as_os_error(), filesystem.open_output_stream(place) as stream:
            while block := file.read(8 * 2**20):
                stream.write(block)


def size_of(path: str | os.PathLike[str]) -> int:
    """Return how many bytes a file, or the files of a folder, take."""
    if address_of(path) is None:
        place = local(path)
        return sum(Folder(place).sizes().values()) if place.is_dir() else place.stat().st_size
    filesystem, place_there = filesystem_of(address_of(path) or "")
    info = filesystem.get_file_info(place_there)
    return int(info.size) if info.is_file else sum(Folder(path).sizes().values())


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise DataError if nothing can be written next to an address."""
    folder = parent_of(path)
    try:
        folder.make()
    except OSError as error:
        raise DataError(
            f"{address_of(path)} cannot be written: {_first_line(error)}. Check the address and "
            f"your rights, or write to a folder of this machine."
        ) from error


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether a file or a folder is at an address.

    Raises
    ------
    DataError
        If the address cannot be reached.
    """
    address = address_of(path) or ""
    filesystem, place = filesystem_of(address)
    try:
        with _as_os_error():
            return bool(filesystem.get_file_info(place).type != pa.fs.FileType.NotFound)
    except OSError as error:
        raise unreachable(address, error) from error
