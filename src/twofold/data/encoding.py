"""How the letters of a text file are stored."""

from __future__ import annotations

import codecs
import math
import re
from typing import Any

from twofold.data import alphabets

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = "twofold-cp1252"  # what reads bytes that are not UTF-8
_BETWEEN = re.compile(rb"[\x00-\x2f\x3a-\x3f]+")  # bytes that are part of no letter
_MOST_WORDS = 300


def encoding_of(head: bytes, is_whole: bool = False) -> str:
    """Return the encoding of bytes: by their mark, as UTF-8 if they are, else the likeliest."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    if b"\x00" in head[:200]:
        first, second = (head[i:2000:2].count(0) for i in (0, 1))  # bytes of each pair
        if second > 0.3 * len(head[:2000]) / 2:
            return "utf-16-le"
        if first > 0.3 * len(head[:2000]) / 2:
            return "utf-16-be"
    try:
        decode(head, "utf-8", is_whole)
    except UnicodeDecodeError:
        letters = [c for c in head.decode("utf-8", errors="replace") if not c.isascii()]
        n_bad = letters.count("\ufffd")
        return "utf-8-cp1252" if len(letters) > 4 * n_bad else _eight_bit(head)
    return "utf-8"


def _eight_bit(head: bytes) -> str:
    """Return the 8-bit or East Asian encoding in which the words of a file are likeliest."""
    words = list(dict.fromkeys(w for w in _BETWEEN.split(head) if not w.isascii()))[:_MOST_WORDS]
    best, most = "cp1252", -math.inf
    for encoding, prior in alphabets.ENCODINGS.items():
        read = [_decoded(word, encoding) for word in words]
        score = prior + alphabets.log_likelihood(read, encoding)
        if score > most:
            best, most = encoding, score
    return best


def _decoded(word: bytes, encoding: str) -> str:
    """Return a word as text, with marks in place of bytes that the encoding does not know."""
    return word.decode(encoding, errors="replace")


class _Mixed(codecs.BufferedIncrementalDecoder):
    """Decodes UTF-8 in which some letters are stored as those of western Europe are."""

    def _buffer_decode(self, content: Any, errors: str, final: bool) -> tuple[str, int]:
        return codecs.utf_8_decode(content, _WESTERN, final)


def _as_western(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    part = error.object[error.start : error.end]
    return part.decode("cp1252", errors="replace"), error.end


def _codec(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != "utf-8-cp1252":
        return None
    return codecs.CodecInfo(
        codecs.utf_8_encode,
        lambda content, errors="strict": codecs.utf_8_decode(content, _WESTERN, True),
        incrementaldecoder=_Mixed,
        name="utf-8-cp1252",
    )


codecs.register_error(_WESTERN, _as_western)
codecs.register(_codec)


def decode(content: bytes, encoding: str, is_whole: bool = True) -> str:
    """Return bytes as text; of a part, a letter that is cut off at the end is left out."""
    decoder = codecs.getincrementaldecoder(encoding)()
    return decoder.decode(content, final=is_whole)
