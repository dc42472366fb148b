"""Random tables, written in random dialects: what is observed stays, what is new is possible."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from twofold import Autoencoder, Files
from twofold.data.output import write
from twofold.distributed import results
from twofold.estimators import validation

Rows = list[list[str]]
N = 60
DAY = datetime(2019, 3, 1)
EXAMPLES = 8


@dataclass(frozen=True)
class Style:
    """How a program writes a file."""

    sep: str = ","
    decimal: str = "."
    thousands: str = ""
    date: str = "%Y-%m-%d"
    encoding: str = "utf-8"
    end: str = "\n"
    quoting: int = csv.QUOTE_MINIMAL
    gap: str = ""
    above: str = ""
    last: bool = True

    def write(self, names: Sequence[str], rows: Rows, path: Path) -> Path:
        stream = io.StringIO()
        writer = csv.writer(
            stream, delimiter=self.sep, lineterminator=self.end, quoting=self.quoting
        )
        writer.writerow(names)
        writer.writerows(rows)
        text = self.above + stream.getvalue()
        path.write_bytes((text if self.last else text.removesuffix(self.end)).encode(self.encoding))
        return path

    def number(self, value: float, form: str = "{:,.2f}") -> str:
        marks = {",": self.thousands, ".": self.decimal}
        return "".join(marks.get(letter, letter) for letter in form.format(value))


Draw = Callable[[np.random.Generator, Style], list[str]]


def numbers(form: str, low: float, high: float) -> Draw:
    return lambda rng, style: [style.number(v, form) for v in rng.uniform(low, high, N)]


def wholes(form: str, low: int, high: int) -> Draw:
    return lambda rng, style: [style.number(int(v), form) for v in rng.integers(low, high, N)]


def levels(*words: str) -> Draw:
    return lambda rng, style: [str(v) for v in rng.choice(words, N)]


def times(form: str = "", days: int = 900) -> Draw:
    def draw(rng: np.random.Generator, style: Style) -> list[str]:
        ats = [DAY + timedelta(seconds=int(s)) for s in rng.integers(0, days * 86_400, N)]
        return [at.strftime(form or style.date) for at in ats]

    return draw


def dated(form: str) -> Draw:
    def draw(rng: np.random.Generator, style: Style) -> list[str]:
        return times(style.date + form)(rng, style)

    return draw


def each(form: str) -> Draw:
    return lambda rng, style: [form.format(i) for i in rng.permutation(N)]


def prose(rng: np.random.Generator, style: Style) -> list[str]:
    words = (
        "good",
        'the "best"',
        "late,",
        "again\nand",
        "never;",
        "a|b",
        "it's",
        "5/5",
        "tab\tbed",
    )
    return [" ".join(rng.choice(words, rng.integers(2, 9))) + f" #{i}" for i in range(N)]


COLUMNS: dict[str, Draw] = {
    "amount": numbers("{:,.2f}", 0, 9000),
    "small": numbers("{:,.3f}", -1, 1),
    "float": numbers("{}", -50, 50),
    "signed": numbers("{:+,.1f}", -900, 900),
    "percent": numbers("{:.1f}%", 0, 99),
    "euro": numbers("{:,.2f} €", 0, 5000),
    "dollar": numbers("${:,.2f}", 0, 5000),
    "tiny": numbers("{:.3e}", 1e-9, 9e-8),
    "count": wholes("{:,}", 0, 40),
    "big": wholes("{:,}", 1000, 90_000_000),
    "negative": wholes("{:,}", -9000, 9000),
    "year": wholes("{}", 1960, 2024),
    "flag": wholes("{}", 0, 2),
    "kg": wholes("{} kg", 3, 400),
    "bool": levels("true", "false"),
    "BOOL": levels("TRUE", "FALSE"),
    "yesno": levels("yes", "no"),
    "maybe": levels("yes", "no", "unknown"),
    "color": levels("red", "green", "blue"),
    "padded": levels(" red", "green ", "blue"),
    "code": levels("0501", "0502", "0777"),
    "version": levels("1.0", "1.1", "2.0", "2.0b"),
    "mixed": levels("1", "2", "x"),
    "sizes": levels("1-2", "3-4", "5/6"),
    "quoted": levels('6" pipe', "a, b", "c; d"),
    "case": levels("Yes", "yes", "NO", "no"),
    "country": levels("NA", "US", "DE", "FR"),
    "date": times(),
    "stamp": dated(" %H:%M:%S"),
    "minute": dated(" %H:%M"),
    "iso": times("%Y-%m-%dT%H:%M:%SZ"),
    "zoned": times("%Y-%m-%d %H:%M:%S+02:00"),
    "clock": times("%H:%M"),
    "month": times("%Y-%m"),
    "compact": times("%Y%m%d"),
    "mail": times("%a, %d %b %Y %H:%M:%S +0000"),
    "form": times("%m/%d/%Y %I:%M:%S %p GMT+1"),
    "hex": levels("0x1A", "0x2B", "0x07"),
    "key": each("K{:04d}"),
    "number": each("{}"),
    "long": each("89490{:015d}"),
    "phone": each("+4930{:07d}"),
    "constant": levels("only"),
    "one": levels("1"),
    "prose": prose,
    "name": levels(
        *(f"{a} {b}" for a in ("Ann", "Bob", "Cy", "Di") for b in ("Ito", "Cruz", "Ek"))
    ),
}
DATES = ("%Y-%m-%d", "%m/%d/%Y", "%d.%m.%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%b-%Y", "%d.%m.%y")


def styles() -> st.SearchStrategy[Style]:
    marks = [(".", ""), (".", ","), (",", ""), (",", "."), (",", " "), (".", "'"), (",", "\u00a0")]
    return st.builds(
        lambda marks, **given: Style(decimal=marks[0], thousands=marks[1], **given),
        st.sampled_from(marks),
        sep=st.sampled_from([",", ";", "\t", "|"]),
        date=st.sampled_from(DATES),
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]),
        end=st.sampled_from(["\n", "\r\n"]),
        quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        gap=st.sampled_from(["", "", "NA", "N/A", "-", "?", "null", " ", "NULL", "#N/A"]),
        above=st.sampled_from(["", "", "", "# exported\n", "Report of sales\n\n"]),
        last=st.booleans(),
    )


def form(cell: str) -> str:
    """Return what a cell looks like, whatever its digits, its sign and its month."""
    digits = re.sub(r"\d+", "9", re.sub(r"[A-Z][a-z]{2}\b|AM|PM", "9", cell))
    return re.sub(r"[-+]", "", re.sub(r"9(\W9)+", "9", digits))


def decimals(cell: str, style: Style) -> int:
    return len(re.sub(r"\D", "", cell.rpartition(style.decimal)[2])) if style.decimal in cell else 0


def value(cell: str, kind: str, style: Style) -> Any:
    """Return what a cell of a number or a time means."""
    if kind in TIMES:
        return datetime.strptime(cell, TIMES[kind] or style.date)
    if kind in ("stamp", "minute"):
        return datetime.strptime(
            cell, style.date + {"stamp": " %H:%M:%S", "minute": " %H:%M"}[kind]
        )
    bare = re.sub(r"[€$%kg]", "", cell).replace(style.thousands or "\0", "")
    return float(bare.replace(style.decimal, ".").replace(" ", ""))


TIMES = {
    "date": "",
    "iso": "%Y-%m-%dT%H:%M:%SZ",
    "zoned": "%Y-%m-%d %H:%M:%S+02:00",
    "clock": "%H:%M",
    "compact": "%Y%m%d",
    "mail": "%a, %d %b %Y %H:%M:%S +0000",
    "form": "%m/%d/%Y %I:%M:%S %p GMT+1",
}
NUMBERS = (
    *("amount", "small", "float", "signed", "percent", "euro", "dollar", "tiny", "count", "big"),
    *("negative", "year", "flag", "kg"),
)


@dataclass(frozen=True)
class Case:
    kinds: tuple[str, ...]
    style: Style
    names: tuple[str, ...]
    rows: Rows

    @classmethod
    def of(cls, kinds: Sequence[str], style: Style, seed: int, share: float) -> Case:
        rng = np.random.default_rng(seed)
        names = [f"{kind} {i}" for i, kind in enumerate(kinds)]
        drawn = [COLUMNS[kind](rng, style) for kind in kinds]
        rows = [list(row) for row in zip(*drawn, strict=True)]
        for row in rows:
            for i in range(len(row)):
                if rng.random() < share:
                    row[i] = style.gap
        return cls(tuple(kinds), style, tuple(names), rows)

    def is_missing(self, cell: str) -> bool:
        return cell in ("", self.style.gap)

    def require_possible(self, made: Rows) -> None:
        """Require that cells are observed levels, or numbers and times in range, written alike."""
        for i, kind in enumerate(self.kinds):
            known = {row[i] for row in self.rows if not self.is_missing(row[i])}
            new = {row[i] for row in made} - known - {"", self.style.gap, self.style.gap.strip()}
            if not new:
                continue
            assert kind in (*NUMBERS, *TIMES, "stamp", "minute", "number"), (kind, new)
            if kind == "number":
                assert new <= {str(i) for i in range(N)}
                continue
            ends = [sorted(value(c, kind, self.style) for c in cells) for cells in (known, new)]
            assert ends[0][0] <= ends[1][0], (kind, new, sorted(known)[:5])
            assert ends[1][-1] <= ends[0][-1], (kind, new)
            if kind == "float":
                continue
            if kind in NUMBERS:
                places = [{decimals(c, self.style) for c in cells} for cells in (known, new)]
                assert places[1] <= places[0], (kind, new)
            forms = [{form(cell) for cell in cells} for cells in (known, new)]
            assert forms[1] <= forms[0], (kind, new, sorted(known)[:5])


def made(rows: Any, path: Path) -> Rows:
    write(rows, path, overwrite=True)
    separator = (rows.schema.metadata or {}).get(b"twofold.delimiter", b",").decode()
    text = io.StringIO(path.read_text(encoding="utf-8"), newline="")
    return [row or [""] for row in csv.reader(text, delimiter=separator)][1:]


def scores(model: Autoencoder, path: Any, **how: Any) -> Any:
    return np.asarray(model.score_samples(Files(path, **how)))


def check_case(case: Case, folder: Path) -> None:
    path = case.style.write(case.names, case.rows, folder / "rows.csv")
    model = Autoencoder(epochs=1, n_components=1, hidden_layers=(4,), random_state=0).fit(path)
    assert model.schema_.names == case.names
    source = Files(path)
    rows = validation.open_rows(model, source, as_written=True)
    filled = made(results.apply("impute", model, rows)[0], folder / "out.csv")
    assert len(filled) == len(case.rows)
    for before, after in zip(case.rows, filled, strict=True):
        for kind, old, new in zip(case.kinds, before, after, strict=True):
            assert old == new or case.is_missing(old), (kind, old, new)
    case.require_possible(filled)
    case.require_possible(made(results.apply("reconstruct", model, rows)[0], folder / "out.csv"))
    check_scores(case, model, path, folder)


def check_scores(case: Case, model: Autoencoder, path: Path, folder: Path) -> None:
    whole = scores(model, path)
    assert len(whole) == N
    close = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(scores(model, path, stream=True), whole, **close)
    order = np.random.default_rng(0).permutation(N)
    shuffled = case.style.write(case.names, [case.rows[i] for i in order], folder / "again.csv")
    np.testing.assert_allclose(scores(model, shuffled), whole[order], **close)
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    for k, rows in enumerate((case.rows[:7], case.rows[7:8], case.rows[8:])):
        case.style.write(case.names, rows, parts / f"{k}.csv")
    np.testing.assert_allclose(scores(model, parts), whole, **close)
    for k in (3, 17):
        alone = case.style.write(case.names, [case.rows[k]], folder / "alone.csv")
        np.testing.assert_allclose(scores(model, alone), whole[k : k + 1], **close)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # each example trains a model: to shrink one takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kinds=st.lists(st.sampled_from(sorted(COLUMNS)), min_size=2, max_size=7),
    style=styles(),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.08, 0.25]),
)
def test_what_is_observed_stays_and_what_is_new_is_possible(
    folder: Path, kinds: list[str], style: Style, seed: int, share: float
) -> None:
    check_case(Case.of([*kinds, "small", "count"], style, seed, share), folder)
