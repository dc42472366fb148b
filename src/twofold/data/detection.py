"""What the cells of a text file are: settled for a column from all its cells, in all files.

Cells are looked at part by part, so what is settled does not depend on the order of the rows or on
how they are spread over files. Plain numbers, the usual case, are only cast; else a sample of the
cells chooses the notations that are worth a test of all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from twofold.data import dates
from twofold.data import notation as notations
from twofold.data.candidates import (
    NUMBER,
    Hints,
    candidates,
    compact_of,
    dated,
    is_of_clocks,
)
from twofold.data.notation import MISSING, MISSING_IN_TEXT, Notation

_SAMPLE = 2000  # cells
_LEAST_SHARE = 0.5  # of the sampled cells: notations that read fewer are not worth a test
_WORTH_A_NOTE = 0.5  # share of a text column's cells that are numbers or times
_MOST_MORE = 100  # cells that are looked at besides the sample
_MOST_OTHERS = 1000  # different cells that are kept
_FEWEST_NUMBERS = 10  # different ones, for those with a mark to be numbers as well
_LONGEST_WHOLE = 18  # digits that 64 bits hold in any case
_LONGEST_PHONE = 6  # digits after a plus sign
_MOST_WHOLE = 10**18
_LONG_CODE = r"^[+-]?\d{19,}$"
_NO_ZERO = re.compile(r"[-+]?[^\d.,]*[.,]\d")
_THOUSANDS = re.compile(r"[-+]?(\d{1,3}|[1-9]\d{0,2}(\.\d{3})+)")
_WORDED = r"\pL|[<>≤≥]"  # in what stands next to a number
_EXPONENT = re.compile(r"[-+]?\d(?:[.,](\d+))?([eE])[-+]?\d+")
_CLOCKED = re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d(:\d\d)?([.,]\d+)?(Z|[+-]\d\d(:?\d\d)?)?")
_CLOCK_UNPADDED = re.compile(r"\s*[-+]?\d ?[:h]")
_CLASS = re.compile(r"\s*\d+\s?[-+]\s*")
_CLOCK_PADDED = re.compile(r"\s*[-+]?0\d ?[:h]")
_WITH_UNIT = re.compile(
    r"(?:([^\w\s.,+-]|[A-Z]{3}) ?)?[-+]?\d[\d.,]*(\s?[^\W\d_]{2,8}|\s[^\W\d_]| ?[^\w\s.,])?"
)
_VERSION = re.compile(r"\d+\.\d+")
_VERSION_NAME = re.compile(r"(?i)(.*[\W_])?(ver|version|firmware|release)s?")
_FRACTION = re.compile(r":\d\d[.,](\d+)\s*$")
_INDIAN = re.compile(r"\D*[1-9]\d?(,\d\d)+,\d{3}")
_HOUR_UNPADDED = re.compile(r"(?:^|[ T,])\d:\d\d")


@dataclass
class _Candidate:
    """A notation, and how many cells it reads so far."""

    notation: Notation
    n_read: int = 0
    n_others: int = 0
    others: dict[str, int] = field(default_factory=dict)  # other cells, and the row of each
    has_point: bool = False
    has_group: bool = False
    is_wide: bool = False  # whether cells are too long for 64-bit integers
    unmarked: _Candidate | None = None  # the same one that takes no marks
    n_read_before: int = 0  # the last cells
    n_marked: int = 0
    n_worded: int = 0  # the marked cells whose mark has a letter, or is a limit
    words: set[str] = field(default_factory=set)  # these marks
    n_bare: int = 0  # cells without the sign or unit of the others
    examples: dict[str, str] = field(default_factory=dict)


class Detector:
    """Settles the notation of one column from its cells."""

    def __init__(self, name: str, hints: Hints | None = None) -> None:
        self._name = name
        self._hints = hints or Hints()
        self._words = frozenset(self._hints.missing or ()) if self._hints.missing else MISSING
        self.n_rows = self.n_empty = 0
        self._plain: str = "int64"  # what all cells have been cast to; "" once one could not be
        self._candidates: list[_Candidate] | None = None
        self._seen: set[str] = set()  # words for missing values
        self._n_words = 0
        self._first: tuple[str, int] | None = None
        self._sample: list[str] = []
        self._code: tuple[str, int] | None = None  # a number that is written as codes are
        self._digits = ""  # as in `Notation`
        self._signed = [0, 0]  # cells with a plus sign, and without
        self._times = {"clock": False, "fraction": False}
        # How all whole numbers are days, 20210131, or months; None if they are not.
        self._compact: Notation | None = None
        self._may_be_compact = True

    def add(self, cells: Any) -> Any:
        """Look at the next cells, a chunked array of text in which empty cells are null.

        Plain numbers are returned as such, for what is read need not be read again.
        """
        first, n = self.n_rows, len(cells)
        self.n_rows += n
        self.n_empty += cells.null_count
        if cells.null_count == n:
            return None
        if len(self._sample) < _SAMPLE:
            step = max(1, n // _SAMPLE)
            some = cells.take(pa.array(np.arange(0, n, step))).drop_null()
            self._sample += some.to_pylist()[: 2 * _SAMPLE]
        plain = self._plain and self._hints.missing is None and not self._hints.date_format
        if plain and not self._could_be_thousands():
            numbers = self._cast(cells, first)
            if numbers is not None:
                return numbers
        self._test(cells, first)
        return None

    def _could_be_thousands(self) -> bool:
        """Whether points could stand between thousands, which a cast would take for decimals."""
        known, cells = self._hints.known, self._sample
        commas = self._hints.commas or self._hints.decimal == ","
        commas = commas or (known is not None and known.decimal == ",")
        return commas and all(_THOUSANDS.fullmatch(cell) for cell in cells)

    def _cast(self, cells: Any, first: int) -> Any:
        """Return cells as plain numbers, None if they are not."""
        kinds = ("int64", "double") if self._plain == "int64" else ("double",)
        if self._plain == "int64" and any("." in c for c in self._sample[:50]):
            kinds = ("double",)
        for kind in kinds:
            try:
                numbers = cells.cast(notations.Notation("number", kind).kind)
            except pa.ArrowInvalid:
                continue
            self._plain = kind
            self._look_for_days(cells, kind)
            self._look_for_codes(cells, first)
            ends = pc.min_max(numbers)
            if max(abs(ends["min"].as_py() or 0), abs(ends["max"].as_py() or 0)) >= _MOST_WHOLE:
                self._find_code(cells, _LONG_CODE, first)
            if self._first is None:
                self._first = self._found(pc.is_valid(cells), cells, first)
            return numbers
        return None

    def _look_for_days(self, cells: Any, kind: str) -> None:
        """Find out whether all whole numbers are days, as in 20210131."""
        self._compact = compact_of(self._sample[:50]) if self._may_be_compact else None
        if kind != "int64" or self._compact is None:
            self._compact, self._may_be_compact = None, False
            return
        read = self._compact.matches(cells)
        if pc.sum(read).as_py() != len(cells) - cells.null_count:
            self._compact, self._may_be_compact = None, False

    def _look_for_codes(self, cells: Any, first: int) -> None:
        """Find whole numbers with leading zeros, or long ones with a plus: codes and telephones."""
        if self._code is not None:
            return
        if self._plain != "double":
            long = pc.greater(pc.binary_length(cells), 1)
            if pc.any(pc.and_(pc.starts_with(cells, "0"), long)).as_py():
                self._find_code(cells, r"^0(\d+|[xX][0-9A-Fa-f]+)$", first)
        if pc.any(pc.starts_with(cells, "+")).as_py():
            plus = pc.starts_with(cells, "+")
            n_plus = pc.sum(plus).as_py()
            self._signed[0] += n_plus
            self._signed[1] += len(cells) - cells.null_count - n_plus
            if self._signed[1] == 0:
                self._find_code(cells, rf"^\+\d{{{_LONGEST_PHONE},}}$", first)

    def _find_code(self, cells: Any, regex: str, first: int) -> None:
        if self._code is None:
            self._code = self._found(pc.match_substring_regex(cells, regex), cells, first)

    @staticmethod
    def _found(mask: Any, cells: Any, first: int) -> tuple[str, int] | None:
        row = pc.index(mask, True).as_py()
        return None if row < 0 else (cells[row].as_py(), first + row)

    def _test(self, cells: Any, first: int) -> None:
        """Test which candidates read the cells."""
        if self._candidates is None:
            self._digits = notations.numerals(self._sample[:_SAMPLE])
            some = pa.array(self._sample, pa.string())
            self._sample = notations.in_ascii(some, self._digits).to_pylist()
        cells = notations.in_ascii(cells, self._digits)
        trimmed = pc.utf8_trim_whitespace(cells)
        words = pc.is_in(trimmed, pa.array(["", *sorted(self._words)], pa.string()))
        words = pc.and_(words, pc.is_valid(cells))
        n_words = pc.sum(words).as_py() or 0
        if n_words:
            self._seen |= set(pc.unique(trimmed.filter(words)).to_pylist())
            self._n_words += n_words
        rest = pc.if_else(words, None, cells)
        if rest.null_count == len(rest):
            return
        if self._candidates is None:
            before = self.n_rows - len(cells) - self.n_empty + cells.null_count
            self._choose(before, rest)
            self._plain_before, self._plain = self._plain, ""
        if self._candidates:
            self._look_for_codes(rest, first)
            if is_long := pc.any(pc.greater(pc.binary_length(rest), _LONGEST_WHOLE)).as_py():
                self._find_code(rest, _LONG_CODE, first)
            for candidate in self._candidates:
                candidate.is_wide |= is_long
        for candidate in self._candidates or ():
            plain, n = candidate.unmarked, len(rest) - rest.null_count
            has_affix = candidate.notation.prefix or candidate.notation.suffix
            if plain is not None and not has_affix and plain.n_read == plain.n_read_before + n:
                candidate.n_read += n
                candidate.has_point, candidate.has_group = plain.has_point, plain.has_group
            else:
                candidate.n_read_before = candidate.n_read
                self._count(candidate, rest, first)

    def _choose(self, before: int, cells: Any) -> None:
        """Choose the candidates by the sample; `before` cells were plain numbers.

        Some of the cells that are not plain numbers are looked at in any case.
        """
        others = cells.filter(pc.invert(NUMBER.matches(cells)))[:_MOST_MORE].to_pylist()
        sample = pa.array(sorted({*self._known_cells(), *others}), pa.string())
        self._candidates = []
        for notation in candidates(sample, self._hints):
            n = pc.sum(notation.matches(sample)).as_py() or 0
            if n >= max(1, _LEAST_SHARE * len(sample)):
                candidate = _Candidate(notation)
                of_numbers = notation.type == "number" and not is_of_clocks(notation)
                if before and of_numbers and (self._plain == "int64" or notation.decimal == "."):
                    candidate.n_read = before
                    candidate.has_point = self._plain == "double"
                elif before and notation == self._compact:
                    candidate.n_read = before
                elif before and self._first is not None:
                    candidate.n_others = before
                    candidate.others[self._first[0]] = self._first[1]
                if notation.marked:
                    plain = replace(notation, marked=False)
                    same = (c for c in self._candidates if c.notation == plain)
                    candidate.unmarked = next(same, None)
                self._candidates.append(candidate)

    def _count(self, candidate: _Candidate, cells: Any, first: int) -> None:
        notation = candidate.notation
        if notation.marked:
            written, cells = cells, pc.utf8_trim_whitespace(cells)
            bare = pc.replace_substring_regex(cells, notations.MARKS, "")
            marks = pc.not_equal(bare, cells)
            notation, cells = replace(notation, marked=False), bare
        if notation.type == "time":  # whose reading is slow, and whose cells repeat
            encoded = cells.combine_chunks().dictionary_encode()
            read = notation.matches(encoded.dictionary).take(encoded.indices)
        else:
            read = notation.matches(cells)
        n_read = pc.sum(read).as_py() or 0
        candidate.n_read += n_read
        n_others = len(cells) - cells.null_count - n_read
        if notation.type == "number" and n_read and not candidate.has_point:
            form = pc.match_substring_regex(cells, rf"[{re.escape(notation.decimal)}eE]")
            candidate.has_point = bool(pc.any(pc.and_(form, read)).as_py())
        if candidate.notation.marked:
            marks, cells = pc.and_(marks, read), written
            candidate.n_marked += pc.sum(marks).as_py() or 0
            worded = cells.filter(pc.and_(marks, pc.match_substring_regex(cells, _WORDED)))
            candidate.n_worded += len(worded)
            words = pc.unique(pc.replace_substring_regex(worded, r"[-\d.,\s]", ""))
            candidate.words.update(words[:_MOST_MORE].to_pylist())
            self._keep_example(candidate, "marked", marks, cells)
        for affix in filter(None, (notation.prefix.strip(), notation.suffix.strip())):
            bare = pc.and_(pc.invert(pc.match_substring(cells, affix)), read)
            candidate.n_bare += pc.sum(bare).as_py() or 0
            self._keep_example(candidate, affix, bare, cells)
        if notation.group and n_read and not candidate.has_group:
            spaced = notation.group in notations.SPACES
            mark = f"\\d[{notations.SPACES}]\\d" if spaced else re.escape(notation.group)
            form = pc.match_substring_regex(cells, mark)
            candidate.has_group = bool(pc.any(pc.and_(form, read)).as_py())
        if notation.type == "time" and not notation.pattern:
            self._look_at_times(cells.filter(pc.fill_null(read, False)))
        if n_others:
            candidate.n_others += n_others
            others = np.asarray(pc.fill_null(pc.invert(read), False))
            for row in np.flatnonzero(others)[: 20 * _MOST_OTHERS].tolist():
                if len(candidate.others) >= _MOST_OTHERS:
                    break
                candidate.others.setdefault(cells[row].as_py(), first + row)

    @staticmethod
    def _keep_example(candidate: _Candidate, of: str, mask: Any, cells: Any) -> None:
        row = -1 if of in candidate.examples else pc.index(mask, True).as_py()
        if row >= 0:
            candidate.examples[of] = cells[row].as_py().strip()

    def _look_at_times(self, cells: Any) -> None:
        found, text = self._times, pc.utf8_trim_whitespace(cells)
        found["clock"] |= bool(pc.any(pc.greater(pc.utf8_length(text), 10)).as_py())
        found["fraction"] |= bool(pc.any(pc.match_substring_regex(text, r"[.,]\d")).as_py())

    @property
    def decimal(self) -> str:
        """The decimal mark that the cells leave no doubt about, or ""."""
        if self._plain == "double" and self._candidates is None:
            pointed = (c for c in self._sample if "." in c)
            return "." if any(not _THOUSANDS.fullmatch(c) for c in pointed) else ""
        clean = {c.notation.decimal for c in self._clean() if c.has_point}
        return clean.pop() if len(clean) == 1 and not self._is_ambiguous() else ""

    def _clean(self) -> list[_Candidate]:
        return [
            c
            for c in self._candidates or ()
            if c.n_read and not c.n_others and c.notation.type == "number"
        ]

    def _is_ambiguous(self) -> bool:
        """Whether a mark could stand before decimals as well as between thousands."""
        clean = self._clean()
        points = {c.notation.decimal for c in clean if c.has_point}
        return bool(points & {c.notation.group for c in clean if c.has_group})

    def settle(self, decimal: str = "") -> Notation:
        """Return the notation of the column; `decimal` is the mark that other columns have."""
        settled = self._settled(decimal)
        return settled if settled.type == "text" else replace(settled, digits=self._digits)

    def _settled(self, decimal: str) -> Notation:
        hints, known = self._hints, self._hints.known
        if known is not None and known.type == "number":
            self._code = None
            decimal = known.decimal if known.decimal != "." else decimal
        if self._plain and self._candidates is None:
            if self._first is None:
                return Notation("number", "null")
            if self._code is not None:
                return self._text(
                    f"numbers written as codes (row {self._code[1]}: {self._code[0]!r})"
                )
            if self._compact and "number" not in (hints.wanted, known.type if known else ""):
                return replace(self._compact, arrow="date32[day]")
            if known is None and self._are_versions():
                return self._text("versions, and not numbers")
            return _written_alike(replace(NUMBER, arrow=self._plain), self._known_cells())
        words = tuple(sorted(self._seen - {""}))
        chosen = self._best(decimal or hints.decimal or "")
        if chosen is None:
            if not self._candidates and self._n_words + self.n_empty == self.n_rows:
                return Notation("number", "null", missing=words)
            return self._text(self._why())
        notation = chosen.notation
        if notation.type == "number" and notation.is_plain and self._code is not None:
            return self._text(f"numbers written as codes (row {self._code[1]}: {self._code[0]!r})")
        others = tuple(sorted(chosen.others)) if chosen.n_others else ()
        if self._are_classes(notation):
            return self._text("classes, and not numbers")
        typed = self._typed(chosen, decimal)
        note = typed.note
        if others:
            note = f"{chosen.n_others:,} other cells, such as {others[0]!r}, are taken as missing"
        return replace(typed, missing=tuple(sorted({*words, *map(str.strip, others)})), note=note)

    def _best(self, decimal: str) -> _Candidate | None:
        wanted = self._hints.wanted
        every = self._candidates or []
        clean = [c for c in every if c.n_read and (not c.n_others or wanted == c.notation.type)]
        if not wanted and not self._has_many_numbers():  # "3+", "unknown" can be levels
            doubted = self._seen & notations.MISSING_AMONG_MANY
            clean = [c for c in clean if not c.n_marked and not doubted]
        if not wanted:  # what most cells have is not a mark: "30 s" and "2 d" have units
            clean = [c for c in clean if 2 * c.n_worded <= c.n_read or len(c.words) < 2]
        if wanted:
            clean = [c for c in clean if c.notation.type == wanted] or clean
            clean = sorted(clean, key=lambda c: c.n_others)
        if (
            self._seen - MISSING_IN_TEXT - {""}
        ):  # next to true and false, "unknown" is a third level
            clean = [c for c in clean if c.notation.type != "boolean"]
        if not clean or clean[0].n_others:
            return clean[0] if clean else None
        if decimal and clean[0].notation.type != "time":
            fitting = [
                c for c in clean if c.notation.decimal == decimal and c.notation.type == "number"
            ]
            if fitting and not (clean[0].notation.is_plain and not clean[0].has_point):
                return fitting[0]
        return clean[0]

    def _has_many_numbers(self) -> bool:
        """Whether there are enough different numbers, or times, whatever their marks."""
        bare = (re.sub(notations.MARKS, "", c.strip()) for c in self._known_cells())
        return len(set(bare)) >= _FEWEST_NUMBERS

    def _are_classes(self, notation: Notation) -> bool:
        """Whether cells are "50-", "60-" or "50+", "60+": from there on, and not below 0."""
        asked = self._hints.wanted or self._hints.known is not None
        if asked or notation.type != "number" or notation.pattern:
            return False
        cells = self._known_cells()
        return bool(cells) and all(map(_CLASS.fullmatch, cells))

    def _are_versions(self) -> bool:
        """Whether cells of a column named so are like 1.9 and 1.10, which is the later one."""
        cells = self._known_cells()
        places = {len(cell.partition(".")[2]) for cell in cells}
        named = bool(_VERSION_NAME.fullmatch(self._name)) and len(places) > 1
        return named and all(map(_VERSION.fullmatch, cells))

    def _typed(self, chosen: _Candidate, decimal: str) -> Notation:
        """Return the chosen notation with the type of its cells, and what to say about it."""
        notation = chosen.notation
        if is_of_clocks(notation):
            return self._clocked(notation)
        if notation.type == "number":
            note = ""
            if self._is_ambiguous() and not decimal and not self._hints.decimal:
                other = "," if notation.decimal == "." else "."
                mark = notation.decimal if chosen.has_point else notation.group
                name = {",": "comma", ".": "point"}.get(mark, mark)
                meant = f"{name}s between thousands" if chosen.has_point else f"a decimal {name}"
                note = f"{self._example(mark)!r} could have {meant}; set decimal={other!r} if so"
            note = "; ".join(filter(None, (*self._marks_of(chosen), note)))
            notation = replace(
                notation,
                arrow="double" if chosen.has_point or chosen.is_wide else "int64",
                group=self._space(notation.group) if chosen.has_group else "",
                indian=notation.group == "," and any(map(_INDIAN.match, self._known_cells())),
                note=note,
            )
            return _written_alike(notation, self._known_cells())
        if notation.type != "time":
            return notation
        if notation.pattern:
            cells = self._known_cells()
            padded = not any(dates.is_unpadded(cell) for cell in self._sample)
            note = ""
            other = notation.pattern.replace("%m", "%_").replace("%d", "%m").replace("%_", "%d")
            clean = [
                c.notation.pattern for c in self._candidates or () if not c.n_others and c.n_read
            ]
            if other != notation.pattern and other in clean and not self._hints.date_format:
                note = (
                    f"{self._sample[0]!r} is read as {notation.pattern} and could be {other}; set "
                    f"date_format={other!r} if so"
                )
            clock = "%H" in notation.pattern or "%I" in notation.pattern
            kind = "timestamp[s]" if clock else "date32[day]"
            hours = not any(_HOUR_UNPADDED.search(cell) for cell in self._sample)
            return replace(
                notation,
                arrow=kind,
                pattern=dates.with_case(notation.pattern, cells),
                case=dates.case_of(cells, notation.pattern, notation.language),
                padded=padded,
                hours_padded=hours,
                note=note,
            )
        if not self._times["clock"]:
            return replace(notation, arrow="date32[day]")
        arrow = notation.arrow if self._times["fraction"] else notation.arrow.replace("[ns", "[s")
        return replace(notation, arrow=arrow, style=_iso_style(self._known_cells()))

    def _marks_of(self, chosen: _Candidate) -> list[str]:
        """Say which cells have a mark besides the number, and which lack the unit of the others."""
        said, examples = [], chosen.examples
        if chosen.n_marked:
            said.append(
                f"{chosen.n_marked:,} of {chosen.n_read:,} cells have a mark, such as "
                f"{examples['marked']!r}, and are read as the number alone"
            )
        affix = next((affix for affix in examples if affix != "marked"), "")
        if affix:
            said.append(
                f"{chosen.n_bare:,} of {chosen.n_read:,} cells, such as {examples[affix]!r}, lack "
                f"the {affix!r} of the others, and are read as if they had it"
            )
        return said

    def _clocked(self, notation: Notation) -> Notation:
        """Return the notation of times of day or durations with what new cells need."""
        cells = self._known_cells()
        places = [len(found[1]) for cell in cells if (found := _FRACTION.search(cell))]
        return replace(
            notation,
            pattern=dates.with_case(notation.pattern, cells),
            padded=not any(map(_CLOCK_UNPADDED.match, cells))
            and ("%m" not in notation.pattern or any(map(_CLOCK_PADDED.match, cells))),
            decimals=max(places, default=-1),
            plus=notation.is_duration and _has_plus(cells),
        )

    def _space(self, group: str) -> str:
        """Return which space it is that stands between thousands."""
        spaces = (c for cell in self._sample for c in cell.strip() if c in notations.SPACES)
        return next(spaces, group) if group in notations.SPACES else group

    def _known_cells(self) -> list[str]:
        return [c for c in self._sample if c.strip() and c.strip() not in self._words]

    def _example(self, letter: str) -> str:
        return next((cell for cell in self._sample if letter in cell), "")

    def _text(self, note: str = "") -> Notation:
        """Return the notation of text, and which words stand for missing values in it."""
        if self._hints.missing is not None:
            return Notation(missing=tuple(sorted(self._seen)), note=note)
        words = self._seen & (MISSING_IN_TEXT | {""})
        if words & {"NA", "na"}:
            others = {c.strip() for c in self._sample} - MISSING - {""}
            codes = [c for c in others if len(c) == 2 and c.isalpha() and c.isupper()]
            if len(codes) > 0.6 * len(others):
                words = words - {"NA", "na"}
        return Notation(missing=tuple(sorted(words)), note=note)

    def _dates_of_several_forms(self) -> str:
        """Say that cells are dates, if they are and their forms differ; "" if they are none."""
        sample = pa.array(sorted(set(self._known_cells()))[:_SAMPLE], pa.string())
        if not len(sample) or not dates.look_like_dates(sample):
            return ""
        left, examples = sample, []
        iso = [Notation("time", kind) for kind in ("timestamp[ns]", "timestamp[ns, tz=UTC]")]
        for notation in (
            *iso,
            *dated(sample.to_pylist()),
        ):
            read = pc.fill_null(notation.matches(left), False)
            if pc.any(read).as_py():
                examples.append(left.filter(read)[0].as_py())
                left = left.filter(pc.invert(read))
            if not len(left):
                break
        if len(left) > (1 - _LEAST_SHARE) * len(sample) or len(examples) < 2:
            return ""
        shown = ", ".join(map(repr, examples[:3]))
        return f"holds dates written in several ways, such as {shown}; write them in one"

    def _numbers_of_several_units(self) -> str:
        """Say that cells are numbers whose currencies or units differ; "" if they are not."""
        cells = self._known_cells()
        found = [_WITH_UNIT.fullmatch(cell.strip()) for cell in cells]
        units = {form[1] or form[2]: form[0] for form in found if form is not None}
        if len(units) < 2 or len(set(cells)) < _FEWEST_NUMBERS or None in found:
            return ""
        shown = ", ".join(map(repr, list(units.values())[:3]))
        return f"holds numbers in several units, such as {shown}; write them in one"

    def _why(self) -> str:
        """Say why a column of mostly numbers or times is text; "" if it is not one."""
        mixture = self.mixture()
        if mixture is None:
            if self._code is not None:
                return ""
            return self._dates_of_several_forms() or self._numbers_of_several_units()
        what, n_read, n, cell, row = mixture
        if n - n_read == 1 and cell == self._name:
            return f"row {row:,} holds the header again; remove that line"
        kind = "time" if what == "times" else "real"
        return (
            f"{n_read:,} of {n:,} cells are {what}; row {row:,} holds {cell!r}. Add it to "
            f"missing=, or set kinds={{{self._name!r}: {kind!r}}}"
        )

    def mixture(self) -> tuple[str, int, int, str, int] | None:
        """Return what most cells are and some are not: the word for it, their number and all.

        Then come the first cell that is none, and its row.
        """
        some = [c for c in self._candidates or () if c.n_read and c.n_others]
        best = max(some, key=lambda c: c.n_read, default=None)
        if best is None or self._code is not None:
            return None
        n = best.n_read + best.n_others
        if best.n_read < _WORTH_A_NOTE * n:
            return None
        what = {"number": "numbers", "time": "times"}.get(best.notation.type, "booleans")
        if is_of_clocks(best.notation):
            what = "times of day" if best.notation.is_clock else "durations"
        return what, best.n_read, n, *min(best.others.items(), key=lambda item: item[1])


def _written_alike(notation: Notation, cells: Sequence[str]) -> Notation:
    """Return the notation of numbers with what new cells need to be written like these."""
    if notation.marked:
        cells = [re.sub(notations.MARKS, "", cell.strip()) for cell in cells]
    if notation.powers:
        cells = [cell.strip(f" {notation.powers}") for cell in cells]
    forms = [_EXPONENT.fullmatch(cell.strip()) for cell in cells]
    powers = [form for form in forms if form is not None]
    if powers and len(powers) == len(forms) and not (notation.prefix or notation.suffix):
        places = {len(form[1] or "") for form in powers}
        return replace(
            notation,
            decimals=max(places),
            exponent=powers[0][2],
            padded=len(places) == 1,
            plus=_has_plus(cells),
        )
    decimals = _decimals(cells, notation.decimal)
    if any(cell.lstrip().startswith("−") for cell in cells):
        notation = replace(notation, minus="−1")
    zero = not any(_NO_ZERO.match(cell) for cell in cells)
    return replace(notation, decimals=decimals, plus=_has_plus(cells), zero=zero)


def _iso_style(cells: Sequence[str]) -> str:
    """Return how most of the times are written, "" for the usual way."""
    found = [_CLOCKED.fullmatch(cell.strip()) for cell in cells]
    forms = Counter(
        f"%Y-%m-%d{form[1]}%H:%M{'%S' if form[2] else ''}{_places(form[3])}{form[4] or ''}"
        for form in found
        if form is not None
    )
    style = max(forms, key=lambda form: forms[form], default="").replace("%M%S", "%M:%S")
    return "" if style in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%SZ") else style


def _places(fraction: str | None) -> str:
    """Return how many decimals seconds have: none, 3, 6 or 9."""
    return "" if fraction is None else f"{fraction[0]}{3 * ((len(fraction) + 1) // 3)}"


def _has_plus(sample: Sequence[str]) -> bool:
    """Whether all numbers above 0 have a plus sign."""
    return any(c.startswith("+") for c in sample) and all(
        c.strip(" 0.,")[:1] in "+-" for c in sample
    )


def _decimals(sample: Sequence[str], decimal: str) -> int:
    """Return how many decimals all cells have, -1 if not all have as many."""
    found = set()
    for cell in sample:
        digits = cell.rpartition(decimal)[2] if decimal in cell else ""
        digits = re.sub(r"\D+$", "", digits)
        if digits.isdigit() or decimal not in cell:
            found.add(len(digits))
        elif cell.strip():
            return -1
        if len(found) > 1:
            return -1
    return found.pop() if found and max(found) > 0 else -1
