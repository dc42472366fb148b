"""Folders of images as arrays: PNG and JPEG files of one size, in the order of their names."""

from __future__ import annotations

import glob
import os
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twofold.data.threads import in_threads
from twofold.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")  # no decoder of other formats is let near the files
_MOST_THREADS = 8
_SHOWN = 3  # files that a message names
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values for a quarter turn


def paths(source: str | os.PathLike[str]) -> list[Path]:
    """List the images of a folder, or that match a pattern such as "photos/**/*.jpg", by name.

    The rows of `read` come in this order. Hidden files are left out, and so are subfolders.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return sorted(p for p in path.iterdir() if _is_image(p))
    if path.exists():
        return [path]
    return [p for p in map(Path, sorted(glob.glob(str(path), recursive=True))) if _is_image(p)]


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def are_images(source: Any) -> bool:
    """Whether a path names images: a file, a pattern, or a folder that holds some."""
    path = Path(source).expanduser()
    if path.is_dir():
        return any(map(_is_image, path.iterdir()))
    return path.suffix.lower() in SUFFIXES


def read(
    source: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    grey: bool | None = None,
) -> NDArray[np.uint8]:
    """Read images into one array: `(n, height, width)` of grey ones, else `(n, height, width, 3)`.

    Transparent places are white. Photographs stand as their camera says (EXIF).

    Parameters
    ----------
    source : path-like or str
        A folder, one file, or a pattern such as "photos/**/*.jpg".
    size : (int, int), optional
        Height and width in pixels to bring all images to; without it, all must have one size.
    grey : bool, optional
        Turn colours into greys (True) or greys into colours (False); by default images are grey
        where all of them are.

    Raises
    ------
    DataError
        Where there are no images, they are of different sizes, or one cannot be read; the message
        names the file.

    Examples
    --------
    >>> import numpy as np
    >>> from PIL import Image
    >>> from twofold import images
    >>> for name in ("a.png", "b.png"):
    ...     Image.fromarray(np.zeros((28, 28), dtype="uint8")).save(name)
    >>> images.read("*.png").shape
    (2, 28, 28)
    """
    return look(source, size, grey).read()


@dataclass(frozen=True)
class Images:
    """Images that were looked at and go together: one file is one row of an array of bytes."""

    paths: tuple[Path, ...]
    size: tuple[int, int]
    grey: bool
    resizes: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array: `(n, height, width)`, and 3 for colours."""
        return (len(self.paths), *self.size, *(() if self.grey else (3,)))

    def read(self, rows: slice = slice(None)) -> NDArray[np.uint8]:
        """Return the pixels of some rows; raises DataError at a file that cannot be read."""
        chosen = self.paths[rows]
        pixels = np.empty((len(chosen), *self.shape[1:]), np.uint8)

        def fill(i: int) -> None:
            pixels[i] = self.pixels(chosen[i])

        in_threads(fill, range(len(chosen)), min(_MOST_THREADS, os.cpu_count() or 1))
        return pixels

    def pixels(self, path: Path) -> NDArray[np.uint8]:
        """Return the pixels of one file."""
        return _pixels(path, self.size, self.grey, self.resizes)

    def without(self, paths: Collection[Path]) -> Images:
        """Return the same without some files."""
        return replace(self, paths=tuple(path for path in self.paths if path not in paths))


def look(
    source: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    grey: bool | None = None,
    mistakes: list[str] | None = None,
) -> Images:
    """Look at the first bytes of images, and settle their size and whether they are grey.

    Parameters are those of `read`. What is wrong with files is added to `mistakes`, where there is
    such a list, and they are left out; without one it is raised.
    """
    if size is not None and not (len(size) == 2 and min(size) >= 1):
        raise DataError(f"size={size!r} must be height and width in pixels.")
    found = paths(source)
    if not found:
        raise DataError(f"{source} holds no image; images end in {', '.join(SUFFIXES)}.")
    heads: dict[Path, _Head] = {}
    for path in found:
        try:
            heads[path] = _head(path)
        except DataError as error:
            if mistakes is None:
                raise
            mistakes.append(str(error))
    if not heads:
        raise DataError(f"None of the {len(found):,} images of {source} can be read.")
    resizes = size is not None
    if size is None:
        size = Counter(head.size for head in heads.values()).most_common(1)[0][0]
        others = {path: head.size for path, head in heads.items() if head.size != size}
        if others and mistakes is None:
            raise DataError(_of_other_sizes(others, len(heads) - len(others), size, source))
        for path, other in others.items():
            del heads[path]
            if mistakes is not None:
                text = f"{path} is {_by(other)} pixels, and others are {_by(size)}."
                mistakes.append(text)
    if grey is None:
        grey = all(head.grey for head in heads.values())
    return Images(tuple(heads), size, grey, resizes)


@dataclass(frozen=True)
class _Head:
    """What the first bytes of a file say: height and width, and whether it is grey."""

    size: tuple[int, int]
    grey: bool


def _head(path: Path) -> _Head:
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION) in _TURNED
        size = (width, height) if turned else (height, width)
        return _Head(size, image.mode in ("1", "L", "LA") or image.mode.startswith("I"))


def _of_other_sizes(
    others: Mapping[Path, tuple[int, int]],
    n: int,
    size: tuple[int, int],
    source: str | os.PathLike[str],
) -> str:
    named = [f"{path.name} is {_by(other)}" for path, other in others.items()]
    more = f" and {len(others) - _SHOWN:,} more are of other sizes" if len(others) > _SHOWN else ""
    return (
        f"Images must have one size. In {source}, {n:,} are {_by(size)} pixels, "
        f"{', '.join(named[:_SHOWN])}{more}. Remove them, or bring all to one size: "
        f"twofold.data.images.read({str(source)!r}, size={size})."
    )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _pixels(path: Path, size: tuple[int, int], grey: bool, resizes: bool) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    with _opened(path) as opened:
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits per grey value
            values = np.asarray(image).astype(np.int64).clip(0, 2**16 - 1)
            image = Image.fromarray((values >> 8).astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        image = image.convert("L" if grey else "RGB")
        if image.size != (size[1], size[0]):
            if not resizes:
                raise DataError(
                    f"{path} has changed since it was looked at: it is {_by(image.size[::-1])} "
                    f"pixels and was {_by(size)}. Start again."
                )
            image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
        return np.asarray(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image, and turn what its decoder raises at a broken one into a DataError."""
    from PIL import Image

    broken = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except (*broken, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"{path} cannot be read as an image: {str(reason).rstrip('. ')}. Remove it, or save it "
            f"again as PNG or JPEG."
        ) from error
