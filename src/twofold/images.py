"""Folders of images as arrays: PNG and JPEG files of one size, in the order of their names."""

from __future__ import annotations

import glob
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twofold.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")  # no decoder of other formats is let near the files
_BLOCK = 256  # files between two looks at whether one of them is broken
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
    MissingExtraError
        Where Pillow is not installed.

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
    if size is not None and not (len(size) == 2 and min(size) >= 1):
        raise DataError(f"size={size!r} must be height and width in pixels.")
    found = paths(source)
    if not found:
        raise DataError(f"{source} holds no image; images end in {', '.join(SUFFIXES)}.")
    heads = [_head(path) for path in found]
    if size is None:
        size = _one_size(found, heads, source)
    if grey is None:
        grey = all(head.grey for head in heads)
    pixels = np.empty((len(found), *size, *(() if grey else (3,))), np.uint8)
    pixel_size, is_grey = size, grey

    def fill(i: int) -> None:
        pixels[i] = _pixels(found[i], pixel_size, is_grey)

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(found), _BLOCK):
            list(pool.map(fill, range(start, min(start + _BLOCK, len(found)))))
    return pixels


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


def _one_size(
    found: Sequence[Path], heads: Sequence[_Head], source: str | os.PathLike[str]
) -> tuple[int, int]:
    """Return the size that all images have, or raise DataError with those that have another."""
    size, n = Counter(head.size for head in heads).most_common(1)[0]
    if n == len(heads):
        return size
    odd = [
        f"{path.name} is {head.size[0]} x {head.size[1]}"
        for path, head in zip(found, heads, strict=True)
        if head.size != size
    ]
    more = f" and {len(odd) - _SHOWN:,} more are of other sizes" if len(odd) > _SHOWN else ""
    raise DataError(
        f"Images must have one size. In {source}, {n:,} are {size[0]} x {size[1]} pixels, "
        f"{', '.join(odd[:_SHOWN])}{more}. Remove them, or bring all to one size: "
        f"twofold.images.read({str(source)!r}, size={size})."
    )


def _pixels(path: Path, size: tuple[int, int], grey: bool) -> NDArray[np.uint8]:
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
            image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
        return np.asarray(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image, and turn what its decoder raises at a broken one into a DataError."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError(
            "Images are read by Pillow, which is not installed. Install 'twofold[images]'."
        ) from error
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
