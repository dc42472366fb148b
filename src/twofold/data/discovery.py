"""Which files a path, a pattern or an address stands for, and what each looked like.

A folder may have more folders in it, whose names may say what all rows below them have in common
("year=2024", as Hive and Spark write them).
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs

from twofold.data import addresses, sources
from twofold.errors import DataError

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9]\d{0,8})")
_LOOKS, _LOOK_BYTES = 16, 4096  # places of a file that are compared, and bytes of each
_TAIL_BYTES = 2**16  # where Parquet says what is in a file
_DELTA_LOG = "_delta_log"
# Of Delta tables, features with which a file still holds the table's rows and columns as they are.
_PLAIN_FEATURES = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}


class Place:
    """A file on a filesystem, and what it looked like when it was first seen.

    Attributes
    ----------
    constants : mapping of str to pyarrow.Scalar
        Columns that the names of its folders stand for.
    """

    def __init__(
        self, filesystem: Any, info: Any, shown: str, constants: Mapping[str, Any] | None = None
    ) -> None:
        self.filesystem, self.path, self.shown = filesystem, info.path, shown
        self.is_local = isinstance(filesystem, pa.fs.LocalFileSystem)
        self.size = int(info.size or 0)
        self.constants = dict(constants or {})
        self._state = self._state_of(info)
        self._content = self._look() if self.is_local else ""

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells the file from others, however often it was touched or copied."""
        return self.shown, self.size, self._content or self._state

    @property
    def suffix(self) -> str:
        """The file's ending, in small letters, without that of a compression."""
        return sources.suffix_of(self.path)

    @property
    def compression(self) -> str:
        """The ending that says how the file is compressed, or ""."""
        return sources.packing_of(self.path)

    def open(self, mapped: bool = False) -> Any:
        """Open the file to be read; raises DataError if it is no longer what it was.

        A file that was only touched, or copied over itself, is what it was. With `mapped`, a file
        on this machine is not copied into memory.
        """
        with sources.readable(self.shown):
            info = self.filesystem.get_file_info(self.path)
            if not info.is_file:
                raise DataError(
                    f"{self.shown} is gone: it was there when its rows were counted. Put it back "
                    f"and start again."
                )
            state = self._state_of(info)
            if state != self._state:
                if int(info.size or 0) != self.size or not self.is_local:
                    self._raise_changed()
                if self._look() != self._content:
                    self._raise_changed()
                self._state = state
            if mapped and self.is_local:
                return pa.memory_map(self.path)
            return self.filesystem.open_input_file(self.path)

    def _raise_changed(self) -> None:
        raise DataError(
            f"{self.shown} has changed since its rows were counted. Wait until it is written, and "
            f"start again."
        )

    def _state_of(self, info: Any) -> tuple[Any, ...]:
        """Return what is different whenever a file was written, at no more cost than a look."""
        if not self.is_local:
            return int(info.size or 0), info.mtime_ns
        try:
            found = os.stat(self.path)
        except OSError:
            return ()
        # The last one is changed by programs that set the time of writing, too.
        return found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns

    def _look(self) -> str:
        """Return a digest of the file's end and of places all over it, or of all of a small one."""
        found = hashlib.sha256()
        try:
            with open(self.path, "rb") as file:
                if self.size <= _TAIL_BYTES + _LOOKS * _LOOK_BYTES:
                    found.update(file.read())
                else:
                    for i in range(_LOOKS):
                        file.seek(i * (self.size - _TAIL_BYTES) // _LOOKS)
                        found.update(file.read(_LOOK_BYTES))
                    file.seek(self.size - _TAIL_BYTES)
                    found.update(file.read())
        except OSError:
            return ""
        return found.hexdigest()


@dataclass(frozen=True)
class ImagesPlace:
    """A folder or a pattern of images, which are read as one array; `suffix` stands for all."""

    shown: str
    suffix: str = "images"
    size: int = 0  # unknown: that of the files says little of the pixels


def places(source: Any, filesystem: Any, read: Sequence[str]) -> list[Place | ImagesPlace]:
    """List the files of the types `read`; none for those that are always read at once.

    Raises
    ------
    DataError
        If there are none, or they are of several types, or those of a table of Delta or Iceberg
        that cannot be read.
    """
    if isinstance(source, list | tuple):
        every = [place for one in source for place in places(one, filesystem, read)]
        if len(every) < len(source):
            raise DataError("Expected files that can be read together, got .npz among them.")
        sources.require_one_type("The list", [f"x{place.suffix}" for place in every])
        return every
    address = addresses.address_of(source)
    if filesystem is not None:
        return _listed(
            os.fspath(source), addresses.arrow_filesystem(filesystem), os.fspath(source), read
        )
    if address is not None:
        return _listed(address, *addresses.filesystem_of(address), read)
    path = addresses.local(source).expanduser()
    _require_utf8(path)
    if sources.is_array_of_images(path):
        return [ImagesPlace(str(path))]
    local = pa.fs.LocalFileSystem()
    if path.is_dir():
        found = _listed(os.fspath(source), local, str(path), read, lenient=True)
        folders = {Path(place.path).parent for place in found if isinstance(place, Place)}
        if folders - {path} or (path / _DELTA_LOG).is_dir():
            return found
    paths = [str(each) for each in sources.resolve(path)]
    if sources.suffix_of(paths[0]) not in read:
        return []
    return _places_of(local, local.get_file_info(paths), _fixed(str(path)))


def _require_utf8(path: Path) -> None:
    """Raise DataError if a name is not UTF-8, as Arrow wants it, or the locale cannot say it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"Expected a name that is UTF-8 in a locale that has it, got {str(path)!r}. Rename the "
            f"file, or set LC_ALL=C.UTF-8."
        ) from None


def _listed(
    source: str, filesystem: Any, path: str, read: Sequence[str], lenient: bool = False
) -> list[Place | ImagesPlace]:
    """List the files of a folder or a pattern of any filesystem, with those of folders in it.

    There may be none, or of several types, where the caller is `lenient`.
    """
    try:
        info = filesystem.get_file_info(path)
        if info.is_file:
            return [Place(filesystem, info, info.path)]
        is_folder = info.type == pa.fs.FileType.Directory
        root = path if is_folder else _fixed(path)
        selector = pa.fs.FileSelector(root, allow_not_found=True, recursive=True)
        infos = filesystem.get_file_info(selector)
    except Exception as error:  # drivers raise what they like
        raise addresses.unreachable(source, error) from error
    if is_folder:
        infos = _current(source, filesystem, root, infos)
    else:
        infos = [i for i in infos if _matches(i.path, path)]
    infos = [i for i in infos if i.is_file and _is_rows(_below(i.path, root), read)]
    infos.sort(key=lambda i: i.path)
    if lenient:
        return _places_of(filesystem, infos, root)
    if not infos:
        raise DataError(f"{source} does not exist, or holds no {', '.join(read)} file.")
    sources.require_one_type(source, [i.path for i in infos])
    return _places_of(filesystem, infos, root)


def _places_of(filesystem: Any, infos: Sequence[Any], root: str) -> list[Place | ImagesPlace]:
    """Return the places of files, with the columns that the names of their folders stand for."""
    said = [_said(_below(info.path, root)) for info in infos]
    names = dict.fromkeys(name for each in said for name in each)
    kinds = {
        name: pa.int64()
        if all(_WHOLE_NUMBER.fullmatch(each.get(name) or "0") for each in said)
        else pa.string()
        for name in names
    }
    constants = [
        {name: pa.scalar(text).cast(kinds[name]) for name, text in each.items()} for each in said
    ]
    pairs = zip(infos, constants, strict=True)
    return [Place(filesystem, info, info.path, each) for info, each in pairs]


def _below(path: str, root: str) -> str:
    """Return what of a path is below a folder."""
    return path.lstrip("/")[len(root.strip("/")) :].strip("/")


def _is_rows(path: str, read: Sequence[str]) -> bool:
    """Whether a file in a folder holds rows: others are hidden, or a description of the rows."""
    steps = path.split("/")
    suffix = sources.suffix_of(path)
    # "_day=3" is the name of a column.
    hidden = any(step.startswith((".", "_")) and "=" not in step for step in steps)
    return not hidden and suffix in read and suffix not in (".txt", ".json")


def _fixed(pattern: str) -> str:
    """Return the folder that a pattern begins with."""
    return re.split(r"[*?\[]", pattern)[0].rpartition("/")[0]


def _matches(path: str, pattern: str) -> bool:
    path, pattern = path.lstrip("/"), pattern.lstrip("/")
    if "**" in pattern:
        return fnmatch.fnmatchcase(path, pattern.replace("**/", "*"))
    steps, wanted = path.split("/"), pattern.split("/")
    return len(steps) == len(wanted) and all(
        fnmatch.fnmatchcase(a, b) for a, b in zip(steps, wanted, strict=True)
    )


def _said(path: str) -> dict[str, str | None]:
    """Return what the names of a file's folders say of its rows."""
    steps = [step.partition("=") for step in path.split("/")[:-1] if "=" in step]
    return {
        unquote(name): None if value == _NO_VALUE else unquote(value) for name, _, value in steps
    }


def _current(source: str, filesystem: Any, root: str, infos: Sequence[Any]) -> Sequence[Any]:
    """Return the files of a folder that hold its rows: of a Delta table, those its log names.

    Raises
    ------
    DataError
        If it is a table whose files alone do not say which rows it has.
    """
    paths = {_below(info.path, root): info for info in infos}
    if any(re.fullmatch(r"metadata/.*\.metadata\.json", path) for path in paths):
        raise DataError(
            f"{source} is an Iceberg table, whose files may hold rows that were deleted. Load it "
            f"with pyiceberg, and pass the table in its place."
        )
    if not any(path.split("/")[0] == _DELTA_LOG for path in paths):
        return infos
    is_local = isinstance(filesystem, pa.fs.LocalFileSystem)
    live = _delta_files(source, root if is_local else source)
    if missing := sorted(live - paths.keys()):
        raise DataError(
            f"{source} is a Delta table whose log names {len(missing)} file(s) that are not there, "
            f"such as {missing[0]}. Copy them there, or restore the table."
        )
    return [info for path, info in paths.items() if path in live]


def _delta_files(shown: str, address: str) -> set[str]:
    """Return the files of a Delta table that hold its present rows, by their path in its folder."""
    advice = (
        f"{shown} is a Delta table, whose files may hold rows that were deleted. Pass "
        f"deltalake.DeltaTable({shown!r}).to_pyarrow_dataset() in its place"
    )
    try:
        import deltalake
    except ImportError:
        raise DataError(f"{advice}, or install what reads its log: 'twofold[delta]'.") from None
    try:
        table = deltalake.DeltaTable(address)
        found = pa.table(table.get_add_actions(flatten=True))["path"].to_pylist()
        asked = table.protocol()
    except Exception as error:  # it raises what its drivers do
        raise DataError(f"{advice}: its log cannot be read ({error!s:.300}).") from error
    unknown = sorted({*(asked.reader_features or ())} - _PLAIN_FEATURES)
    if unknown or asked.min_reader_version == 2:
        what = ", ".join(unknown) or "names of columns that are not those in its files"
        raise DataError(f"{advice}, if that reads what the table uses: {what}.")
    return set(map(unquote, found))
