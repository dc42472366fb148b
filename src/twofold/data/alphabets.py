"""How likely words are in languages, which tells in which encoding they are stored.

Of each language, only the letters beyond ASCII count, in the order of their frequency; the r-th has
a probability in proportion to 1 / r (Zipf). East Asian characters are as likely as all others of
those in common use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

# The letters beyond ASCII by frequency.
_LATIN = {
    "german": "üäößé",
    "french": "éèàêçôîâûùïëœæÿü",
    "spanish": "óíáéñúü¿¡",
    "portuguese": "ãçáéíóõêâúôàü",
    "italian": "àèùòéìî",
    "dutch": "ëéïèüöóê",
    "nordic": "åäöøæéüáà",
    "icelandic": "íáðóþöéúæý",
    "polish": "łóżąęśćńź",
    "czech": "áíéěýřčžšůúťóďň",
    "slovak": "áíéčýžšúľťôóňäďŕĺ",
    "hungarian": "áéöóíőüúű",
    "romanian": "ăşţîâéșț",
    "croatian": "čšžćđ",
    "turkish": "ışğüöçİâîû",
    "lithuanian": "ėųšžįčūąę",
    "latvian": "āīšēņūļžčģķ",
    "estonian": "äüõöšž",
}
_OTHERS = {
    "russian": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё",
    "ukrainian": "оаниіетврслкдумпзгяйьбчюхцжїшщєфґ",
    "bulgarian": "аоиентрсвлдпкмъугзябчщжхцфшйюь",
    "serbian": "аоиенјрстувдкмплзгбчњжшцљхћђфџ",
    "greek": "αοιετσνηυρπκμλςωάίόέδγήθχύώφβξζψϊϋΐΰ",
    "hebrew": "יוהלאםרתבשמנדחקעפכגטצזסןךףץ",
    "arabic": "اليمنتروبهعدسفكقحةجشأصىضطخذإئزءؤغثظآ",
    "thai": "านรกเอมงทีลวดสต่ยปพิคหั้บชจะแใขไ็ำผโซธณศุูถญฟึภฉฐฮืฏษ์ๆ",
}
_WESTERN = ["german", "french", "spanish", "portuguese", "italian", "dutch", "nordic", "icelandic"]
_CENTRAL = ["polish", "czech", "slovak", "hungarian", "romanian", "croatian", "german"]
_CYRILLIC = ["russian", "ukrainian", "bulgarian", "serbian"]
_LANGUAGES: Mapping[str, Sequence[str]] = {
    "cp1252": _WESTERN,
    "cp1250": _CENTRAL,
    "cp1251": _CYRILLIC,
    "cp1253": ["greek"],
    "cp1254": ["turkish"],
    "cp1255": ["hebrew"],
    "cp1256": ["arabic"],
    "cp1257": ["lithuanian", "latvian", "estonian"],
    "cp874": ["thai"],
    "iso8859_2": _CENTRAL,
    "koi8_r": ["russian"],
    "cp866": ["russian"],
    "iso8859_7": ["greek"],
    "cp850": _WESTERN,
    "cp852": _CENTRAL,
    "mac_roman": _WESTERN,
}
# Ranges of lead bytes of characters in common use, and how many these are, by encoding.
_COMMON: Mapping[str, Sequence[tuple[int, int, int]]] = {
    "gb18030": [(0xB0, 0xD7, 3755)],
    "cp932": [(0x82, 0x83, 170), (0x88, 0x97, 2965), (0x81, 0x81, 60)],
    "cp949": [(0xB0, 0xC8, 2350)],
    "big5": [(0xA4, 0xC6, 5401)],
    "euc_jp": [(0xA4, 0xA5, 170), (0xB0, 0xCF, 2965), (0xA1, 0xA1, 60)],
}
# The logarithm of how much likelier an encoding is before the file was looked at. The first one is
# taken where several fit alike.
ENCODINGS = {
    "cp1252": 2.0,
    **dict.fromkeys(("cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"), 0.0),
    **dict.fromkeys(("cp874", "gb18030", "cp932", "cp949", "big5"), 0.0),
    **dict.fromkeys(("iso8859_2", "iso8859_7", "koi8_r", "cp866", "euc_jp"), -2.0),
    **dict.fromkeys(("cp850", "cp852", "mac_roman"), -6.0),
}
_SYMBOLS = "°€£¥¢§²³\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e«»…½¼·±×µ®©™ºª\u00a0№•"
_WITHIN_WORDS = "\u2019\u00b7\u2013"
_STRANGE = -9.0  # logarithm of the probability of a character that the language does not have
_SYMBOL = -5.0
# Of a capital after a small letter, a letter alone, or a digit or another script next to one.
_RAISED = -4.0
_CLUSTER = -2.0  # of a letter beyond ASCII next to another, in languages of Latin letters
_UNKNOWN = "\ufffd"


def log_likelihood(words: Sequence[str], encoding: str) -> float:
    """Return the logarithm of the probability of words that were decoded, in the best language."""
    if encoding in _COMMON:
        return sum(_of_characters(word, encoding) for word in words)
    words = [w for w in dict.fromkeys("|".join(words).split("|")) if not w.isascii()]
    languages = _LANGUAGES[encoding]
    each = [(name,) for name in languages]
    mixtures = [*each, tuple(languages)] if len(languages) > 1 else each
    return max(sum(_of_letters(word, names) for word in words) for names in mixtures)


@cache
def _letters(languages: tuple[str, ...]) -> Mapping[str, float]:
    """Return the logarithm of the probability of each letter beyond ASCII in the languages."""
    found: dict[str, float] = {}
    for name in languages:
        letters = _LATIN.get(name) or _OTHERS[name]
        total = sum(1 / (rank + 1) for rank in range(len(letters)))
        for rank, letter in enumerate(letters):
            share = 1 / ((rank + 1) * total * len(languages))
            found[letter] = found.get(letter, 0.0) + share
    return {letter: math.log(share) for letter, share in found.items()}


def _of_letters(word: str, languages: tuple[str, ...]) -> float:
    """Return the log-probability of a word of letters, other than those of ASCII."""
    known, is_latin = _letters(languages), languages[0] in _LATIN
    total = 0.0
    for before, letter, after in zip("\0" + word, word, word[1:] + "\0", strict=False):
        if letter.isascii():
            mixed = letter.isalpha() and not is_latin and before.isalpha() and not before.isascii()
            total += _RAISED * mixed
            total += _RAISED * (letter.isupper() and before.islower() and not before.isascii())
            continue
        lower = letter if letter in known else letter.lower()
        if lower in known:
            alone = not (before.isalpha() or after.isalpha())
            total += known[lower] + _RAISED * (alone or before.isdigit() or after.isdigit())
        elif letter in _SYMBOLS:
            within = before.isalpha() and after.isalpha() and letter not in _WITHIN_WORDS
            total += _STRANGE if within else _SYMBOL
        else:
            total += 2 * _STRANGE if letter == _UNKNOWN else _STRANGE
        if not before.isascii() or before.isalpha():
            total += _RAISED * (letter.isupper() and before.islower())
            total += _CLUSTER * (is_latin and before.isalpha() and not before.isascii())
            total += _RAISED * (not is_latin and before.isascii() and before.isalpha())
    return total


def _of_characters(word: str, encoding: str) -> float:
    """Return the log-probability of a word of East Asian characters."""
    ranges, total = _COMMON[encoding], 0.0
    for character in word:
        if character.isascii():
            continue
        if character == _UNKNOWN:
            total += 4 * _STRANGE
            continue
        stored = character.encode(encoding)
        counts = [n for low, high, n in ranges if len(stored) == 2 and low <= stored[0] <= high]
        total -= math.log(len(ranges) * counts[0]) if counts else 12.0
    return total
