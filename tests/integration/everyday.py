"""Small files after those that people have: drawn from a seed, with traits of real ones."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from xml.sax.saxutils import escape

import numpy as np

Cells = Sequence[object]
_DAYS = datetime(2019, 1, 1)
_CITIES = ("Köln", "Zürich", "Málaga", "Århus", "Łódź", "Besançon")
_FIRST = ("Ann", "Bob", "Chloë", "Dai", "Eve", "Fay", "Gil", "Hal", "Ida", "Jo", "Kai", "Lea")
_LAST = ("Abel", "Boro", "Cruz", "Dahl", "Eck", "Fuchs", "Gray", "Hope", "Ito", "Jung", "Kern")


@dataclass(frozen=True)
class Everyday:
    """A file, and what is in it.

    Attributes
    ----------
    name : str
        Of the file.
    content : bytes
    names : sequence of str
        What the columns are called once they are read.
    rows : list of sequence of str
        The cells, as they are written.
    traits : tuple of str
    missing : frozenset of str
        What stands for a missing value.
    kinds : dict of str to str
        The kinds of the columns that leave no doubt.
    refusal : str
        What a refusal says, where the file is to be refused.
    """

    name: str
    content: bytes
    names: Sequence[str]
    rows: list[Sequence[str]]
    traits: tuple[str, ...]
    missing: frozenset[str] = frozenset([""])
    kinds: dict[str, str] = field(default_factory=dict)
    refusal: str = ""
    sep: str = ","


Draw = Callable[[np.random.Generator, int], list[str]]


def file(
    name: str,
    columns: dict[str, Draw],
    *traits: str,
    n: int = 70,
    sep: str = ",",
    encoding: str = "utf-8",
    end: str = "\n",
    above: str = "",
    below: str = "",
    also: Sequence[Sequence[str]] = (),
    header: bool = True,
    names: Sequence[str] | None = None,
    last: bool = True,
    quoting: int = csv.QUOTE_MINIMAL,
    missing: Sequence[str] = (),
    kinds: dict[str, str] | None = None,
    share: float = 0.0,
    gap: str = "",
    refusal: str = "",
    pack: Callable[[bytes], bytes] = bytes,
) -> Everyday:
    """Draw a file of delimited text; a `share` of the cells is missing, written as `gap`."""
    rng = np.random.default_rng(len(name) * 131 + sum(map(ord, name)))
    drawn = [draw(rng, n) for draw in columns.values()]
    rows = [list(row) for row in zip(*drawn, strict=True)]
    for row in rows:
        for i in range(1, len(row)):
            if rng.random() < share:
                row[i] = gap
    rows += [list(row) for row in also]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=sep, lineterminator=end, quoting=quoting)
    if header:
        writer.writerow(columns if names is None else names)
    writer.writerows(rows)
    text = above + stream.getvalue() + below
    if not last:
        text = text.removesuffix(end)
    titles = list(columns) if header else [f"column{i + 1}" for i in range(len(columns))]
    return Everyday(
        name,
        pack(text.encode(encoding)),
        titles,
        rows,
        traits,
        frozenset(["", *missing, gap.strip(), gap]),
        kinds or {},
        refusal,
        sep,
    )


def real(low: float = 0, high: float = 100, form: str = "{:.2f}") -> Draw:
    return lambda rng, n: [form.format(v) for v in rng.uniform(low, high, n)]


def money(form: str = "${:,.2f}", typical: float = 2000) -> Draw:
    return lambda rng, n: [form.format(v) for v in rng.gamma(2, typical / 2, n)]


def comma(form: str, low: float = 0, high: float = 5000) -> Draw:
    """Numbers as in most of Europe: 1.234,50."""

    def draw(rng: np.random.Generator, n: int) -> list[str]:
        swap = str.maketrans(",.", ".,")
        return [form.format(v).translate(swap) for v in rng.uniform(low, high, n)]

    return draw


def whole(low: int, high: int, form: str = "{}") -> Draw:
    return lambda rng, n: [form.format(v) for v in rng.integers(low, high, n)]


def level(*levels: str) -> Draw:
    weights = np.arange(len(levels), 0, -1) / sum(range(len(levels) + 1))
    return lambda rng, n: [str(v) for v in rng.choice(levels, n, p=weights)]


def each(form: str, start: int = 1) -> Draw:
    return lambda rng, n: [form.format(i) for i in range(start, start + n)]


def name(rng: np.random.Generator, n: int) -> list[str]:
    return [f"{rng.choice(_FIRST)} {rng.choice(_LAST)}" for _ in range(n)]


def when(form: str, days: int = 900, seconds: bool = False) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> list[str]:
        found = []
        for day in rng.integers(0, days, n):
            at = _DAYS + timedelta(days=int(day), seconds=int(rng.integers(86_400)) * seconds)
            found.append(at.strftime(form))
        return found

    return draw


def constant(text: str) -> Draw:
    return lambda rng, n: [text] * n


def swapped(draw: Draw, at: dict[int, str]) -> Draw:
    """The same cells, but for some."""

    def swap(rng: np.random.Generator, n: int) -> list[str]:
        cells = draw(rng, n)
        for i, cell in at.items():
            cells[i] = cell
        return cells

    return swap


def sentence(rng: np.random.Generator, n: int) -> list[str]:
    words = ("good", 'the "best"', "late,", "again\nand", "never;", "ok", "it's", "ärger", "5/5")
    return [" ".join(rng.choice(words, rng.integers(3, 9))) + f" #{i}" for i in range(n)]


def clock(form: str = "{:02d}:{:02d}") -> Draw:
    return lambda rng, n: [form.format(rng.integers(24), rng.integers(60)) for _ in range(n)]


def _utf16(text: bytes) -> bytes:
    return codecs.BOM_UTF16_LE + text.decode().encode("utf-16-le")


def sheet(rows: Sequence[Cells], merged: Sequence[str] = ()) -> bytes:
    """Return a workbook of one sheet; cells such as those of "A1:B1" are `merged`."""
    return workbook({"Tabelle1": rows}, merged)


def workbook(
    sheets: Mapping[str, Sequence[Cells]], merged: Sequence[str] = (), hidden: Sequence[str] = ()
) -> bytes:
    """Return a workbook, with as little XML as Excel reads."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    content = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    types = listed = related = ""
    files = {}
    spans = "".join(f'<mergeCell ref="{span}"/>' for span in merged)
    for n, (name, rows) in enumerate(sheets.items()):
        types += f'<Override PartName="/xl/s{n}.xml" ContentType="{content}.worksheet+xml"/>'
        state = ' state="hidden"' * (name in hidden)
        listed += f'<sheet name="{name}" sheetId="{n + 1}"{state} r:id="s{n}"/>'
        related += f'<Relationship Id="s{n}" Type="{office}/worksheet" Target="s{n}.xml"/>'
        body = f"<sheetData>{_body(rows)}</sheetData>"
        body += f"<mergeCells>{spans}</mergeCells>" * bool(merged)
        files[f"xl/s{n}.xml"] = f'<worksheet xmlns="{main}">{body}</worksheet>'
    files |= {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{content}.sheet.main+xml"/>'
        f'<Override PartName="/xl/styles.xml" ContentType="{content}.styles+xml"/>'
        f"{types}</Types>",
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{listed}</sheets>'
        "</workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">{related}'
        f'<Relationship Id="t" Type="{office}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{main}"><cellXfs count="2"><xf numFmtId="0"/>'
        '<xf numFmtId="22"/></cellXfs></styleSheet>',
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, '<?xml version="1.0" encoding="UTF-8"?>' + text)
    return stream.getvalue()


def _body(rows: Sequence[Cells]) -> str:
    body = ""
    for r, row in enumerate(rows, 1):
        body += f'<row r="{r}">'
        for c, cell in enumerate(row):
            place = f"{chr(65 + c)}{r}"
            if isinstance(cell, bool):
                body += f'<c r="{place}" t="b"><v>{int(cell)}</v></c>'
            elif isinstance(cell, datetime):
                days = (cell - datetime(1899, 12, 30)).total_seconds() / 86_400
                body += f'<c r="{place}" s="1"><v>{days}</v></c>'
            elif isinstance(cell, int | float):
                body += f'<c r="{place}"><v>{cell!r}</v></c>'
            elif cell is not None:
                text = escape(str(cell))
                body += f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'
        body += "</row>"
    return body


def _workbook() -> Everyday:
    rng = np.random.default_rng(5)
    names = ["Datum", "Filiale", "Umsatz", "Kunden", "aktiv"]
    rows: list[list[object]] = []
    for i in range(80):
        day = datetime(2021, 1, 1) + timedelta(days=i)
        city = str(rng.choice(_CITIES))
        amount = None if i % 9 == 4 else round(float(rng.gamma(2, 300)), 2)
        rows.append([day, city, amount, int(rng.integers(5, 90)), bool(i % 3)])
    cells = [[_cell(cell) for cell in row] for row in rows]
    return Everyday(
        "umsatz.xlsx",
        sheet([["Umsätze 2021"], names, *rows]),
        names,
        cells,
        ("spreadsheet", "title lines"),
        kinds={"Datum": "time", "Umsatz": "real"},
    )


def _cell(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.strftime("%Y-%m-%d")
    return str(cell).upper() if isinstance(cell, bool) else str(cell)


def _json_cell(cell: object) -> str:
    """Return a cell as CSV files of booleans and times have it."""
    text = str(cell).lower() if isinstance(cell, bool) else str(cell or "")
    return text.replace("T", " ")


def _json_lines() -> Everyday:
    rng = np.random.default_rng(8)
    rows, lines = [], []
    for i in range(80):
        record = {
            "id": f"u-{i:05d}",
            "country": str(rng.choice(("NA", "US", "DE"))),
            "spent": round(float(rng.gamma(2, 30)), 2),
            "active": bool(rng.integers(2)),
            "at": (_DAYS + timedelta(minutes=int(rng.integers(90_000)))).isoformat(),
        }
        if i % 8 == 3:
            record["spent"] = None  # type: ignore[assignment]
        lines.append(json.dumps(record))
        rows.append([_json_cell(v) for v in record.values()])
    return Everyday(
        "events.jsonl",
        "\n".join(lines).encode(),
        ["id", "country", "spent", "active", "at"],
        rows,
        ("JSON lines", "country code NA"),
        kinds={"spent": "real", "country": "category"},
    )


def _nested() -> Everyday:
    rng = np.random.default_rng(9)
    rows, records = [], []
    for i in range(60):
        name, lat, n = str(rng.choice(_FIRST)), round(float(rng.uniform(0, 9)), 3), i % 7
        tags = ["a", "b"][: i % 3]
        records.append({"user": {"name": name, "geo": {"lat": lat}}, "n": n, "tags": tags})
        rows.append([name, str(lat), str(n), json.dumps(tags)])
    names = ["user.name", "user.geo.lat", "n", "tags"]
    content = json.dumps({"status": "ok", "data": records}).encode()
    return Everyday("nested.json", content, names, rows, ("JSON lines",))


def tables() -> list[Everyday]:
    """Draw all files."""
    german = {"sep": ";", "encoding": "cp1252", "end": "\r\n"}
    swiss = comma("{:,.2f} €")
    # fmt: off
    return [
        file('umsätze.csv', {'Kunde': each('K{:05d}'), 'Datum': when('%d.%m.%Y'),
            'Stadt': level('Köln', 'Zürich'), 'Größe': comma('{:.1f}', 0, 90), 'Preis': swiss},
            'semicolon', 'cp1252', 'decimal comma', 'd.m.Y', 'currency', 'CRLF', 'id',
            share=0.08, kinds={'Kunde': 'ignored', 'Datum': 'time', 'Größe': 'real',
            'Preis': 'real', 'Stadt': 'category'}, **german),
        file('kontoauszug.csv', {'Buchungstag': when('%d.%m.%Y', 300), 'Valuta': when('%d.%m.%y',
            300), 'Verwendungszweck': sentence, 'Betrag': comma('{:+,.2f}', -900, 900),
            'Währung': constant('EUR'), 'Saldo': comma('{:,.2f}', 100, 9000)}, 'semicolon',
            'cp1252', 'title lines', 'plus sign', 'free text', 'constant', 'd.m.Y', 'CRLF',
            above='"Kontoauszug"\r\n"Inhaber:";"Eva Müller"\r\n\r\n',
            kinds={'Buchungstag': 'time', 'Valuta': 'time', 'Betrag': 'real', 'Saldo': 'real'},
            quoting=csv.QUOTE_ALL, **german),
        file('sales.csv', {'Order': each('{}', 100001), 'Date': when('%m/%d/%Y'),
            'Region': level('East', 'West'), 'Revenue': money(), 'Units': whole(1000, 90000,
            '{:,}'), 'Margin': real(0, 60, '{:.1f}%')}, 'currency', 'thousands', 'percent',
            'm/d/Y', 'id', share=0.06, gap='N/A', kinds={'Date': 'time', 'Revenue': 'real',
            'Units': 'real', 'Margin': 'real'}),
        file('ledger.csv', {'account': whole(1000, 1010), 'debit': money('{:,.2f}'),
            'net': swapped(money('{:,.2f}'), {3: '(1,204.50)', 9: '(88.00)', 40: '(2.75)'}),
            'change': swapped(money('{:.2f}', 90), {4: '12.50-', 11: '3.00-', 50: '0.25-'})},
            'negative in parentheses', 'trailing minus', 'thousands', kinds={'net': 'real',
            'change': 'real', 'debit': 'real'}),
        file('balance.csv', {'unit': level('north', 'south', 'east'),
            'profit': swapped(money('${:,.0f}'), {1: '($1,200)', 7: '$(340)', 30: '-$75'}),
            'delta': swapped(money('{:,.1f}', 50), {2: '7.5-', 8: '11.0-'})},
            'negative in parentheses', 'trailing minus', 'currency', kinds={'profit': 'real',
            'delta': 'real'}),
        file('births.csv', {'': each('{}', 0), 'year': whole(1969, 1989), 'month': whole(1, 13),
            'day': swapped(whole(1, 32), {5: 'null', 60: 'null'}), 'gender': level('F', 'M'),
            'births': whole(3000, 5500)}, 'nameless index', 'word for missing', missing=['null'],
            n=100),
        file('zips.csv', {'zip': whole(501, 99950, '{:05d}'), 'lat': real(25, 49, '{:.6f}'),
            'lng': real(-124, -67, '{:.6f}'), 'state': level('NY', 'CA', 'TX', 'MA'),
            'county': whole(1, 300, '{:03d}'), 'population': whole(10, 90000)}, 'leading zeros',
            'no final newline', 'blank cells', share=0.05, gap=' ', last=False,
            kinds={'lat': 'real',
            'population': 'real', 'state': 'category'}),
        file('products.csv', {'ean': each('40066{:015d}'), 'plu': whole(1, 60, '{:04d}'),
            'name': sentence, 'price': real(0.5, 20), 'stock': whole(0, 40),
            'vegan': level('TRUE', 'FALSE')}, '20-digit ids', 'leading zeros', 'free text',
            'TRUE', 'BOM', encoding='utf-8-sig', share=0.06, kinds={'ean': 'ignored',
            'price': 'real', 'vegan': 'binary'}),
        file('sim_cards.csv', {'iccid': each('8949{:016d}'), 'phone': whole(10 ** 8, 10 ** 9,
            '+49{}'), 'active': level('true', 'false'), 'offset': real(-9, 9, '{:+.1f}'),
            'minutes': whole(0, 500)}, '20-digit ids', 'plus sign', 'true', 'telephones',
            share=0.05, kinds={'offset': 'real', 'minutes': 'real', 'active': 'binary'}),
        file('movies.csv', {'Title': each('Movie No. {}'), 'US Gross': whole(1000, 90000000),
            'Release Date': when('%b %d %Y', 6000), 'MPAA Rating': level('R', 'PG-13', 'G'),
            'Director': name, 'IMDB Rating': real(1, 10, '{:.1f}'), 'Votes': whole(10, 90000)},
            'Jan 5 1999', 'names', share=0.1, n=100, kinds={'Release Date': 'time',
            'IMDB Rating': 'real'}),
        file('telco_churn.csv', {'customerID': each('{:04d}-VHVEG'), 'gender': level('Female',
            'Male'), 'SeniorCitizen': whole(0, 2), 'tenure': whole(0, 72),
            'Contract': level('Month-to-month', 'One year', 'Two year'),
            'MonthlyCharges': real(18, 118), 'TotalCharges': swapped(real(18, 8000), {5: ' ',
            44: ' '}), 'Churn': level('No', 'Yes')}, 'blank cells', 'id', n=100, missing=[' '],
            kinds={'customerID': 'ignored', 'TotalCharges': 'real'}),
        file('planets.csv', {'rowid': each('{}'), 'pl_name': each('Kepler-{} b'),
            'discoverymethod': level('Transit', 'Radial Velocity', 'Imaging'),
            'pl_orbper': real(0.1, 900, '{:.8f}'), 'pl_bmassj': real(0, 9, '{:.5f}'),
            'disc_year': whole(1995, 2023), 'loc_rowupdate': when('%Y-%m-%d')}, 'comment lines',
            'id', share=0.12,
            above='# Produced by an archive\n# COLUMN pl_name: Planet Name, a text\n#\n',
            kinds={'pl_orbper': 'real', 'loc_rowupdate': 'time'}),
        file('titanic.csv', {'PassengerId': each('{}'), 'Survived': whole(0, 2),
            'Pclass': whole(1, 4), 'Name': lambda rng, n: [f'{a}, Mr. {i}' for i,
            a in enumerate(name(rng, n))], 'Sex': level('male', 'female'),
            'Age': swapped(whole(1, 80), {3: '0.42', 9: '28.5'}), 'Ticket': whole(1000, 399999),
            'Fare': real(4, 512, '{:.4f}'), 'Cabin': level('', 'C85', 'B28', 'E46'),
            'Embarked': level('S', 'C', 'Q')}, 'id', 'names', share=0.08, n=100,
            kinds={'Fare': 'real', 'Age': 'real'}),
        file('abalone.data.csv', {'sex': level('M', 'F', 'I'), 'length': real(0, 0.8, '{:.3f}'),
            'weight': real(0, 2.8, '{:.4f}'), 'rings': whole(1, 29)}, 'no header', header=False),
        file('adult.csv', {'age': whole(17, 90), 'workclass': level(' Private', ' ?',
            ' State-gov'), 'fnlwgt': whole(12285, 1484705), 'education': level(' HS-grad',
            ' Bachelors'), 'gain': swapped(constant('0'), {4: '2174', 40: '14084', 60: '99999'}),
            'native': level(' United-States', ' ?', ' Mexico'), 'class': level(' <=50K',
            ' >50K')}, 'no header', 'word for missing', 'spaces after commas', header=False,
            missing=['?', ' ?']),
        file('countries.csv', {'code': level('US', 'NA', 'DE', 'FR'), 'continent': level('EU',
            'AS', 'NA', 'AF'), 'gdp': money('{:.1f}', 40000), 'inflation': real(-1, 12,
            '{:.2f}%')}, 'country code NA', 'percent', share=0.0, n=120,
            kinds={'code': 'category', 'continent': 'category', 'gdp': 'real',
            'inflation': 'real'}),
        file('log.csv', {'time': when('%Y-%m-%dT%H:%M:%S+02:00', 30, True), 'ip': lambda rng,
            n: [f'10.0.{rng.integers(3)}.{rng.integers(255)}' for _ in range(n)],
            'method': level('GET', 'POST'), 'status': level('200', '404', '500'),
            'bytes': whole(0, 2 ** 31), 'took': real(0, 3, '{:.6f}'), 'agent': sentence},
            'time zones', 'free text', 'huge numbers', kinds={'time': 'time', 'took': 'real'}),
        file('sensor.tsv', {'stamp': when('%Y-%m-%d %H:%M:%SZ', 9, True), 'at': clock(),
            'temp': real(-20, 40), 'pressure': real(90000.0, 110000.0, '{:.1f}'),
            'flag': constant('OK'), 'gone': constant(''), 'leak': real(1e-13, 9e-12, '{:.3e}')},
            'tab', 'time zones', '13:08', 'constant', 'all missing', 'tiny numbers', sep='\t',
            share=0.05, gap='NaN', kinds={'temp': 'real', 'at': 'real', 'stamp': 'time'}),
        file('trains.csv', {'train': level('ICE 1', 'RE 5', 'S 3'), 'planned': clock(),
            'actual': clock('{}:{:02d}'), 'delay': whole(-3, 60),
            'seconds': clock('12:{:02d}:{:02d}')}, '13:08', share=0.05, gap='-',
            kinds={'planned': 'real', 'delay': 'real'}),
        file('survey.csv', {'Timestamp': when('%m/%d/%Y %H:%M:%S', 300, True),
            'Do you agree?': level('yes', 'Yes', 'no', 'YES', 'No'), 'Age group': level('18-25',
            '26-35', '36-50'), 'Rating': level('1', '2', '3', '4', '5'), 'Rating.': whole(1, 6),
            'Comment': sentence}, 'mixed-case levels', 'free text', 'm/d/Y', share=0.1,
            kinds={'Do you agree?': 'category', 'Age group': 'category', 'Timestamp': 'time'}),
        file('stores.csv', {'Store': level('a', 'A', 'b', 'B'), 'Opened': when('%Y/%m/%d'),
            'Closed': when('%d %b %Y'), 'Sales': swapped(money('{:.2f}'), {50: 'closed'}),
            'm2': swapped(whole(100, 900), {20: 'ca. 300'})}, 'Jan 5 1999', 'mixed-case levels',
            'one other cell', kinds={'Opened': 'time', 'Closed': 'time'}),
        file('mixed_dates.csv', {'order': each('o{:03d}'), 'ordered': lambda rng,
            n: [when(('%Y-%m-%d', '%d/%m/%Y', '%b %d, %Y')[i % 3])(rng, 1)[0] for i in range(n)],
            'qty': whole(1, 9), 'price': real(1, 9)}, 'dates in three formats'),
        file('dates_again.csv', {'start': lambda rng, n: [when(('%Y-%m-%d %H:%M', '%m/%d/%Y',
            '%d.%m.%Y')[i % 3])(rng, 1)[0] for i in range(n)], 'x': real(), 'y': real()},
            'dates in three formats'),
        file('export_utf16.csv', {'Name': name, 'Größe': whole(150, 200),
            'Stadt': level(*_CITIES), 'Gewicht': real(50, 99, '{:.1f}')}, 'UTF-16', 'tab',
            sep='\t', end='\r\n', pack=_utf16, share=0.04),
        file('unicode.txt.tsv', {'Stadt': level(*_CITIES), 'a': real(), 'b': whole(1, 50)},
            'UTF-16', 'tab', sep='\t', pack=lambda text: text.decode().encode('utf-16')),
        file('archive.csv.gz', {'user': each('{:06d}'), 'visits': whole(0, 30),
            'spent': money('{:.2f}', 40), 'tier': level('free', 'pro'), 'paid': level('true',
            'false')}, 'gz', 'true', 'leading zeros',
            pack=gzip.compress, share=0.06),
        file('week.tsv.gz', {'day': level('Mo', 'Tu', 'We'), 'hours': real(0, 9, '{:.1f}'),
            'cost': whole(0, 99)}, 'gz', 'tab', sep='\t', pack=gzip.compress, share=0.06),
        file('physics.csv', {'mass_kg': real(1e+24, 9e+27, '{:.4e}'), 'charge': real(1e-19, 9e-19,
            '{:.3e}'), 'eps': real(1e-12, 9e-12, '{}'), 'n': whole(10 ** 15, 10 ** 17),
            'sign': level('-1', '1')}, 'huge numbers', 'tiny numbers', share=0.05,
            kinds={'mass_kg': 'real', 'charge': 'real', 'eps': 'real'}),
        file('totals.csv', {'Month': level('Jan', 'Feb', 'Mar'), 'Rent': money('{:,.2f}'),
            'Food': money('{:,.2f}'), 'Note': constant('')}, 'totals row', 'all missing',
            'thousands', also=[['Total', '123,456.00', '99,000.10', '']]),
        file('footer.csv', {'Station': level('A1', 'B2', 'C3'), 'Mean': real(), 'Max': real(100,
            200)}, 'totals row', 'footer', below='\nSource: weather office\n'),
        file('report_export.csv', {'Page': each('/p/{}'), 'Views': whole(1, 9999, '{:,}'),
            'Bounce': real(0, 99, '{:.2f}%'), 'Avg. time': lambda rng,
            n: [f'00:{rng.integers(9):02d}:{rng.integers(60):02d}' for _ in range(n)]},
            'title lines', 'comment lines', 'percent', 'thousands',
            above='# -----\n# Pages\n# 20240101-20240131\n# -----\n\n'),
        file('repeated.csv', {'x': real(), 'x.1': real(), 'name': level('u', 'v'),
            'name.1': level('p', 'q')}, 'repeated names', names=['x', 'x', 'name', 'name'],
            share=0.05),
        file('joined.csv', {'id': each('{}'), 'value': real(), 'id.1': whole(1, 9),
            'value.1': whole(1, 60)}, 'repeated names', 'id', names=['id', 'value', 'id',
            'value']),
        file('indexed.csv', {'Unnamed: 0': each('{}', 0), 'height': real(150, 200),
            'weight': real(50, 99)}, 'nameless index', names=['Unnamed: 0', 'height', 'weight']),
        file('one_column.csv', {'reading': real()}, 'single column'),
        file('words.csv', {'word': level('red', 'green', 'blue')}, 'single column', 'BOM',
            encoding='utf-8-sig'),
        file('sepline.csv', {'a': real(), 'b': whole(0, 9), 'c': level('x', 'y')}, 'sep= line',
            sep=';', above='sep=;\n'),
        file('bars.csv', {'a': real(), 'b': level('x,1', 'y,2'), 'c': whole(0, 9)}, 'bar',
            sep='|', share=0.05, gap='NULL'),
        file('short.csv', {'a': real(), 'b': real(), 'c': real()}, 'short line',
            below='1.5,2.5\n', refusal='line 72'),
        file('long.csv', {'a': real(), 'b': real(), 'c': real()}, 'long line',
            below='1.5,2.5,7,8,9\n', refusal='line 72'),
        file('one_row.csv', {'a': real(), 'b': real()}, 'one row', n=1, refusal='row'),
        file('header_only.csv', {'a': real(), 'b': real()}, 'header only', n=0,
            refusal="holds a header, 'a', 'b', and nothing below it"),
        file('wide.csv', {'id': each('s{}'), **{f'g{i}': real() for i in range(60)}}, 'wide',
            'id', n=40, share=0.03),
        file('genes.csv', {'': each('sample{}'), **{f'p{i}': whole(0, 900) for i in range(50)}},
            'wide', 'nameless index', n=40),
        file('all_gone.csv', {'a': real(), 'b': real(), 'none': constant(''),
            'NA': constant('NA'), 'c': real()}, 'all missing', share=0.1, gap='NA'),
        file('with_units.csv', {'width': swapped(real(), {30: '12 mm'}), 'y': real(),
            'z': swapped(whole(1, 9), {50: 'x'})}, 'one other cell'),
        file('amounts_de.csv', {'betrag': comma('{:,.2f}', 1000, 90000),
            'anteil': comma('{:.1f} %', 0, 99), 'stück': comma('{:,.0f}', 1000, 99000),
            'bar': comma('{:.2f}-', 1, 50)}, 'semicolon', 'decimal comma', 'thousands',
            'percent', 'trailing minus', **german),
        file('classes.csv', {'Class': constant('only'), 'k': constant('3'), 'x': real(),
            'y': real(), 'flag': level('True', 'False')}, 'constant', 'TRUE', end='\r\n'),
        file('water.csv', {'Station': level('A', 'B', 'C'), 'Sampled': when('%Y-%m-%d'),
            'Nitrate': swapped(real(0.01, 9), {3: '<0.01', 9: '< 0.01', 50: '<0.01'}),
            'Coliform': swapped(whole(1, 2000), {5: '>2419', 40: '>2419'}),
            'pH': swapped(real(6, 9, '{:.1f}'), {7: 'ND', 30: 'not reported'})}, 'marks',
            'word for missing', share=0.05, missing=['ND', 'not reported'],
            kinds={'Nitrate': 'real', 'Coliform': 'real', 'pH': 'real'}),
        file('resident.csv', {'Region': each('Region {}'), '2019': swapped(whole(1000, 90000,
            '{:,}'), {4: '34,563r', 11: '24,002 p'}), '2020': whole(1000, 90000, '{:,}'),
            '2021': swapped(whole(1000, 90000, '{:,}'), {8: '12,004*'})}, 'marks', 'footer',
            'title lines', 'thousands', above='Table 3.1: Residents\nNumber of persons\n\n',
            below='\nr = revised\nSource: The office, 2022\n(1) Provisional.\n',
            kinds={'2019': 'real', '2021': 'real'}),
        file('compte.csv', {'Date': when('%d/%m/%Y'), 'Libellé': level('CB', 'VIREMENT'),
            'Débit': comma('-{:.2f}', 1, 900), 'Crédit': comma('{:,.2f}', 1000, 9000)},
            'semicolon', 'title lines', 'decimal comma', 'cp1252', share=0.2,
            above='Compte 017;;;\r\nSolde au 31/12/2021;1 234,56 €;;\r\n;;;\r\n',
            kinds={'Débit': 'real', 'Crédit': 'real'}, **german),
        file('merged.csv', {'Region': level('North', 'South'), 'Shop': level('a', 'b', 'c'),
            'Q1 Sales': whole(10, 99), 'Q1 Cost': whole(10, 99), 'Q2 Sales': whole(10, 99)},
            'two headers', names=['Region', 'Shop', 'Sales', 'Cost', 'Sales'], share=0.06,
            above=',,Q1,,Q2\n', kinds={'Q1 Sales': 'real'}),
        file('answers.csv', {'StartDate': when('%Y-%m-%d %H:%M:%S', 90, True), 'Progress': level(
            '100', '50'), 'Q1': whole(18, 90), 'Q2': level('good', 'bad', 'neither')},
            'two headers', 'one other cell', names=['Start Date', 'Progress', 'How old\nare you?',
            'How was it, in a word?'], above='StartDate,Progress,Q1,Q2\n', share=0.06,
            kinds={'StartDate': 'time', 'Q1': 'real', 'Q2': 'category'}),
        file('urikake.csv', {'店': level('東京', '大阪'), '日付': when('%Y年%m月%d日'),
            '売上': whole(1000, 90000, '{:,}円'), '数量': lambda rng, n: [
            str(v).translate({48 + d: 0xFF10 + d for d in range(10)})
            for v in rng.integers(10, 99, n)]}, 'other scripts', 'thousands', 'currency',
            share=0.06, kinds={'日付': 'time', '売上': 'real', '数量': 'real'}),
        file('medina.csv', {'مدينة': level('القاهرة', 'دبي'), 'عدد': lambda rng, n: [
            str(v).translate({48 + d: 0x660 + d for d in range(10)})
            for v in rng.integers(10, 999, n)], 'x': real()}, 'other scripts', share=0.06,
            kinds={'عدد': 'real'}),
        file('budgets.csv', {'film': each('Film {}'), 'budget': real(1, 99, '${:.1f} million'),
            'gross': real(1, 99, '${:.2f}M'), 'pays': lambda rng, n: [
            f'{v:,}'.replace(',', '\u2009') for v in rng.integers(1000, 999999, n)]}, 'currency',
            'thousands', share=0.06, kinds={'budget': 'real', 'gross': 'real', 'pays': 'real'}),
        file('app_log.csv', {'@timestamp': lambda rng, n: [
            f'2021-03-04 10:{i % 60:02d}:{rng.integers(60):02d},{rng.integers(1000):03d}'
            for i in range(n)], 'level': level('INFO', 'WARN'), 'took': whole(1, 900)},
            'fractions of seconds', kinds={'@timestamp': 'time'}),
        file('sprints.csv', {'lane': level('1', '2', '3'), 'time': lambda rng, n: [
            f'1:{v - 60:05.2f}' if v >= 60 else f'{v:.2f}' for v in rng.uniform(51, 69, n)],
            'start': clock('9:{:02d} a.m.')}, 'fractions of seconds', share=0.05,
            kinds={'time': 'real'}),
        _json_lines(),
        _nested(),
        _workbook(),
    ]
    # fmt: on
