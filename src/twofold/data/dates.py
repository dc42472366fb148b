"""How people write dates: the order of their parts, and the names of months in several languages.

Dates are read as `strptime` reads those of the C locale. Cells in other words are turned into it
first: names of months and weekdays become the English ones, and dots and ordinals are left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

COMPACT_DAY = "%Y%m%d"
COMPACT_MONTH = "%Y%m"
# Months, their abbreviations, weekdays from Monday, and theirs; months stand as dates have them.
_NAMES = {
    "en": (
        "January February March April May June July August September October November December",
        "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec",
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "Mon Tue Wed Thu Fri Sat Sun",
    ),
    "de": (
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "Jan Feb Mär Apr Mai Jun Jul Aug Sep Okt Nov Dez",
        "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
        "Mo Di Mi Do Fr Sa So",
    ),
    "fr": (
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "janv févr mars avr mai juin juil août sept oct nov déc",
        "lundi mardi mercredi jeudi vendredi samedi dimanche",
        "lun mar mer jeu ven sam dim",
    ),
    "es": (
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "ene feb mar abr may jun jul ago sep oct nov dic",
        "lunes martes miércoles jueves viernes sábado domingo",
        "lun mar mié jue vie sáb dom",
    ),
    "it": (
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
        "dicembre",
        "gen feb mar apr mag giu lug ago set ott nov dic",
        "lunedì martedì mercoledì giovedì venerdì sabato domenica",
        "lun mar mer gio ven sab dom",
    ),
    "pt": (
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "jan fev mar abr mai jun jul ago set out nov dez",
        "segunda terça quarta quinta sexta sábado domingo",
        "seg ter qua qui sex sáb dom",
    ),
    "nl": (
        "januari februari maart april mei juni juli augustus september oktober november december",
        "jan feb mrt apr mei jun jul aug sep okt nov dec",
        "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
        "ma di wo do vr za zo",
    ),
    "sv": (
        "januari februari mars april maj juni juli augusti september oktober november december",
        "jan feb mar apr maj jun jul aug sep okt nov dec",
        "måndag tisdag onsdag torsdag fredag lördag söndag",
        "mån tis ons tors fre lör sön",
    ),
    "da": (
        "januar februar marts april maj juni juli august september oktober november december",
        "jan feb mar apr maj jun jul aug sep okt nov dec",
        "mandag tirsdag onsdag torsdag fredag lørdag søndag",
        "man tir ons tor fre lør søn",
    ),
    "nb": (
        "januar februar mars april mai juni juli august september oktober november desember",
        "jan feb mar apr mai jun jul aug sep okt nov des",
        "mandag tirsdag onsdag torsdag fredag lørdag søndag",
        "man tir ons tor fre lør søn",
    ),
    "pl": (
        "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października "
        "listopada grudnia",
        "sty lut mar kwi maj cze lip sie wrz paź lis gru",
        "poniedziałek wtorek środa czwartek piątek sobota niedziela",
        "pon wt śr czw pt sob niedz",
    ),
    "ru": (
        "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
        "янв фев мар апр май июн июл авг сен окт ноя дек",
        "понедельник вторник среда четверг пятница суббота воскресенье",
        "пн вт ср чт пт сб вс",
    ),
    "tr": (
        "Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık",
        "Oca Şub Mar Nis May Haz Tem Ağu Eyl Eki Kas Ara",
        "Pazartesi Salı Çarşamba Perşembe Cuma Cumartesi Pazar",
        "Pzt Sal Çar Per Cum Cmt Paz",
    ),
}
_VARIANTS = {
    "en": {"sep": "sept", "tues": "tue", "wednes": "wed", "thur": "thu", "thurs": "thu"},
    "de": {"janner": "januar", "mrz": "mar", "maerz": "marz", "sept": "sep"},
    "es": {"setiembre": "septiembre", "sept": "sep", "set": "sep"},
    "nl": {"maa": "mrt"},
    "ru": {"мая": "май", "сент": "сен", "нояб": "ноя", "февр": "фев"},
}
LANGUAGES = tuple(_NAMES)
_WORD = re.compile(r"[^\W\d_]+\.?")
_ORDINAL = re.compile(r"(?<=\d)(st|nd|rd|th|er|º)\b", re.IGNORECASE)
_START = re.compile(r"([^\W\d_]{2,13}\.?)(,? )(?=\d|[^\W\d_]{3,}\.? ?\d)")
_TAIL = re.compile(
    r"\d(?: ?[AaPp][Mm])?( (?:UTC|GMT|[A-Z]{3,4})(?:[+-]\d{1,2}(?::?\d\d)?)?| ?[+-]\d{4})$"
)
_LOOKED_AT = 200  # cells
_LETTERS_ALONE, _WITH_DIGIT = re.compile(r"[^\W\d_]+"), re.compile(r"[x\d]*\d[x\d]*")
_ANY_WORD, _ORDINAL_DAY = r"[^\W\d_]{3,12}\.?", "(?:st|nd|rd|th|er|º)?"
_BETWEEN = r"[/.\- ,]+(?:de |of )?"
_DATE_LIKE = re.compile(
    rf"\s*(?:(?:[^\W\d_]{{2,13}}\.?,? )?"
    rf"(?:\d{{1,4}}{_ORDINAL_DAY}|{_ANY_WORD}){_BETWEEN}"
    rf"(?:\d{{1,2}}{_ORDINAL_DAY}|{_ANY_WORD}){_BETWEEN}\d{{1,4}}(?:\b|г)"
    r"|\d{4}[年년] ?\d{1,2}[月월] ?\d{1,2}[日일]\s*$"
    rf"|(?:{_ANY_WORD}[-, ]{{1,2}}(?:\d\d|\d{{4}})"
    rf"|\d{{4}}-(?:0[1-9]|1[0-2])|\d{{4}} {_ANY_WORD})\s*$)"
)
_MARK = "\x01"  # where an ordinal's letters go
_LETTERS = r"\pL+"  # repeated so and so often, it is compiled in milliseconds
_TOKENS = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%m": r"\d{1,2}",
    "%d": r"\d{1,2}",
    "%H": r"\d{1,2}",
    "%I": r"\d{1,2}",
    "%M": r"\d{2}",
    "%S": r"\d{2}",
    "%b": r"[A-Za-z]{3}",
    "%B": r"[A-Za-z]{3,9}",
    "%p": r"[AaPp][Mm]",
    "%P": r"[AaPp][Mm]",
    "%a": r"[A-Za-z]{3}",
    "%A": r"[A-Za-z]{6,9}",
}
_TOKENS_OF_LANGUAGES = {
    **_TOKENS,
    "%b.": rf"{_LETTERS}\.?",
    "%b": _LETTERS,
    "%B": _LETTERS,
    "%a": r"\pL{2,5}",
    "%A": r"\pL{4,12}",
    "%o": r"(st|nd|rd|th|er|º)?",
}


def patterns(language: str = "", clocked: bool = True) -> Sequence[str]:
    """Return the ways in which people write dates, the likelier first; `clocked` with hours, too.

    In a language, those with the name of a month; `%o` stands for the letters of an ordinal, as in
    5th.
    """
    days = ["%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%Y.%m.%d"]
    days += ["%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y"]
    days += ["%b %d %Y", "%b %d, %Y", "%B %d, %Y", "%B %d %Y", "%d. %b %Y", "%d. %B %Y"]
    days += ["%b-%d-%Y", "%Y-%b-%d", "%d/%b/%Y", "%Y年%m月%d日", "%Y년 %m월 %d일"]
    months = ["%b-%y", "%b %Y", "%B %Y", "%b-%Y", "%b %y", "%B, %Y", "%b, %Y", "%Y-%m", "%Y %b"]
    days += months
    if language:
        days = [day for day in days if "%b" in day or "%B" in day]
        days += [day.replace("%b", "%b.") for day in days if "%b" in day]
        days += [day.replace("%d", "%d%o") for day in days]
        days += ["%d de %B de %Y", "%d de %b de %Y", "%d de %b. de %Y", "%d%o of %B %Y"]
        days += ["%d%o of %B, %Y", "%d-%b.-%y", "%d. %B %y", "%d %B %Yг."]
    clocks = ["", " %H:%M:%S", " %H:%M", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", "T%H:%M:%S"]
    clocks += [":%H:%M:%S"]  # of web servers
    return [f"{day}{clock}" for day in days for clock in clocks[: 1 + 9 * clocked]]


def shape_of(pattern: str, language: str = "") -> str:
    """Return the regular expression of dates that are written so."""
    tokens = _TOKENS_OF_LANGUAGES if language else _TOKENS
    parts = re.split(r"(%b\.|%[A-Za-z])" if language else r"(%[A-Za-z])", pattern)
    return "".join(tokens.get(part) or re.escape(part) for part in parts)


def layout(text: str) -> str:
    """Return a date with x for its words, 0 for its numbers, and no points, which may end a word.

    Where the layouts of a cell and of a pattern differ, the pattern does not fit the cell.
    """
    words = _LETTERS_ALONE.sub("x", text.strip().replace(".", ""))
    return _WITH_DIGIT.sub("0", words)  # 5th, 2021年 and T12 are numbers, too


def layout_of(pattern: str) -> str:
    """Return the layout of dates that are written so."""
    return layout(re.sub("%[A-Za-z]", "0", re.sub("%[aAbBpP]", "x", pattern)))


def language_of(cells: Sequence[str]) -> str:
    """Return the language whose names of months nearly all dates have; "" for none."""
    words = [{_folded(word) for word in _WORD.findall(_ORDINAL.sub("", cell))} for cell in cells]
    best, most = "", (0.9 * len(words), 0)
    for language in _NAMES:
        known = {**_english(language, True), **_english(language, False)}
        n = sum(any(known.get(word, "") in _MONTHS for word in found) for found in words)
        of_all = sum(word in known for found in words for word in found)
        if n > 0.9 * len(words) and (n, of_all) > most:
            best, most = language, (n, of_all)
    return best


def in_english(cells: Sequence[str | None], pattern: str, language: str) -> list[str | None]:
    """Return dates with the abbreviated English names of months and weekdays, and no ordinals."""
    names, others = (_english(language, in_full == ("%B" in pattern)) for in_full in (True, False))
    if "%b." in pattern:
        names = {**others, **names}

    first = pattern.startswith(("%a", "%A"))  # "mar" is a day and a month in Italian
    days = _english_days(language)

    def one(word: re.Match[str]) -> str:
        folded = _folded(word[0])
        name = (days if first and word.start() == 0 else names).get(folded)
        if name is None:  # what `strptime` would take for the one that was meant
            return "?" if folded in others or folded[:3].title() in _MONTHS else word[0]
        return name + "." * (word[0].endswith(".") and "%b." not in pattern)

    return [None if c is None else _WORD.sub(one, _ORDINAL.sub("", c)) for c in cells]


def strptime_pattern(pattern: str, language: str) -> str:
    """Return the pattern of dates that `in_english` gave."""
    if language:
        pattern = pattern.replace("%b.", "%b").replace("%B", "%b").replace("%A", "%a")
    return pattern.replace("%o", "").replace("%P", "%p")


def strftime_pattern(pattern: str, language: str) -> str:
    """Return the pattern of what `in_words` turns into dates in a language."""
    return strptime_pattern(pattern.replace("%o", _MARK), language)


def in_words(
    cells: Sequence[str | None], pattern: str, language: str, case: str
) -> list[str | None]:
    """Return dates with English abbreviations in the language and the letters of the column."""
    by_letters: Callable[[str], str] = {
        "upper": str.upper,
        "lower": str.lower,
        "title": str.title,
    }.get(case, str)
    names = dict(zip(_MONTHS, _MONTHS, strict=True))
    if language:
        months, short, days, short_days = (text.split() for text in _NAMES[language])
        dotted = [s if s == m else f"{s}." for s, m in zip(short, months, strict=True)]
        own = months if "%B" in pattern else dotted if "%b." in pattern else short
        names = dict(zip(_MONTHS, own, strict=True))
        names |= dict(zip(_DAYS, days if "%A" in pattern else short_days, strict=True))

    def one(word: re.Match[str]) -> str:
        if word[0] in ("AM", "PM"):
            return word[0].lower() if "%P" in pattern else word[0]
        return by_letters(names.get(word[0], word[0])) if word[0] in names else word[0]

    def written(cell: str) -> str:
        cell = re.sub(r"[^\W\d_]+", one, cell)
        return re.sub(rf"(\d+){_MARK}", lambda d: d[1] + _ordinal(int(d[1]), language), cell)

    return [None if cell is None else written(cell) for cell in cells]


def case_of(cells: Sequence[str], pattern: str, language: str) -> str:
    """Return how names of months and weekdays are written, if not as usual: "upper", say."""
    if not re.search("%[aAbB]", pattern):
        return ""
    words = [w.strip(".") for cell in cells for w in _WORD.findall(_ORDINAL.sub("", cell))]
    words = [w for w in words if len(w) > 2 and w.lower() not in ("utc", "gmt")]
    usual = "title" if not language or _NAMES[language][0].istitle() else "lower"
    for case, has in (("upper", str.isupper), ("lower", str.islower), ("title", str.istitle)):
        if words and all(map(has, words)):
            return "" if case == usual else case
    return ""


def with_case(pattern: str, cells: Sequence[str]) -> str:
    """Return a pattern that says whether am and pm are in lower case."""
    lower = "%p" in pattern and all(cell.rstrip()[-2:].islower() for cell in cells)
    return pattern.replace("%p", "%P") if lower else pattern


def has_words(cell: str) -> bool:
    """Whether a cell has letters that could be the name of a month."""
    return bool(re.search(r"[^\W\d_]{3}", cell))


def look_like_dates(sample: Any) -> bool:
    """Whether most cells have digits, and something that dates have between them."""
    cells = sample[:: max(1, len(sample) // _LOOKED_AT)].to_pylist()
    seasons = (c[:4].isdigit() and c[4:] == f"-{(int(c[:4]) + 1) % 100:02d}" for c in cells)
    if all(seasons):
        return False  # such as 2010-11
    return 2 * sum(bool(_DATE_LIKE.match(cell)) for cell in cells) >= len(cells)


def around(cells: Sequence[str], language: str) -> tuple[str, str]:
    """Return what dates have before and after them: a weekday's name, and a zone that all have."""
    starts = [_START.match(cell.strip()) for cell in cells]
    weekday, tongue = "", language or "en"
    if starts and all(starts) and starts[0] is not None:
        first, between = _folded(starts[0][1]), starts[0][2]
        full, short = (list(map(_folded, _NAMES[tongue][i].split())) for i in (2, 3))
        variants = _VARIANTS.get(tongue, {}) if language else {}
        if variants.get(first, first) in (*full, *short):
            weekday = f"{'%A' if first in full else '%a'}{between}"
    ends = {found[1] if (found := _TAIL.search(cell.strip())) else "" for cell in cells}
    return weekday, ends.pop() if len(ends) == 1 else ""


def is_unpadded(cell: str) -> bool:
    """Whether a day or a month below 10 has no leading 0."""
    parts = re.split(r"[-/., 年月日년월일]+", _ORDINAL.sub("", cell))
    return any(len(part) == 1 and part.isdigit() for part in parts)


def _ordinal(day: int, language: str) -> str:
    if language != "en":
        return {"fr": "er", "es": "º"}.get(language, "") * (day == 1)
    return "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _folded(word: str) -> str:
    """Return a word in lower case, without its accents and a dot at its end."""
    letters = unicodedata.normalize("NFKD", word.rstrip(".").lower().replace("ı", "i"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


@cache
def _english(language: str, in_full: bool) -> dict[str, str]:
    """Return the English abbreviations of a language's names of months and weekdays."""
    months, short = (map(_folded, text.split()) for text in _NAMES[language][:2])
    found = {
        **_english_days(language),
        **dict(zip(months if in_full else short, _MONTHS, strict=True)),
    }
    variants = _VARIANTS.get(language, {})
    return found | {word: found[usual] for word, usual in variants.items() if usual in found}


def _english_days(language: str) -> dict[str, str]:
    names = [list(map(_folded, text.split())) for text in _NAMES[language][2:]]
    return {day: english for own in names for day, english in zip(own, _DAYS, strict=True)}


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
