"""Files as people have them go through every verb, and come back with nothing invented."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.cli.running import fail
from tests.integration.everyday import Everyday, tables
from twofold import Autoencoder, Files
from twofold.data.output import write
from twofold.distributed import results
from twofold.errors import OptionError
from twofold.estimators import validation

FILES = {file.name: file for file in tables()}
READ = [file for file in FILES.values() if not file.refusal]
TINY = {"epochs": 1, "n_components": 2, "hidden_layers": (4,), "random_state": 0}


def fitted(path: Path) -> Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Autoencoder(**TINY).fit(path)
        except OptionError:  # a single column
            return Autoencoder(**{**TINY, "n_components": 1, "corruption": "masking"}).fit(path)


def cells(rows: Any, path: Path) -> list[list[str]]:
    """Write rows as a CSV file, and return its cells as text."""
    write(rows, path, overwrite=True)
    text = path.read_text(encoding="utf-8")
    separator = (rows.schema.metadata or {}).get(b"twofold.delimiter", b",").decode()
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return [row or [""] for row in lines][1:]


def form(cell: str) -> str:
    """Return what a cell looks like, whatever its digits and its sign."""
    return re.sub(r"[-+()]", "", re.sub(r"\d+", "9", cell))


def require_possible(file: Everyday, made: Sequence[Sequence[str]], model: Autoencoder) -> None:
    """Require that all cells are levels of their columns, or numbers and times written alike."""
    for i, column in enumerate(model.schema_.columns):
        known = [row[i] for row in file.rows if not is_missing(row[i], file)]
        forms = set(map(form, known))
        if column.kind == "real":  # 516.0 may be written as 516
            forms |= {shape.removesuffix(".9") for shape in forms}
        new = {row[i] for row in made} - set(known) - {""}
        if column.kind in ("category", "ignored", "binary"):
            assert not new - file.missing, (column.name, new)
            continue
        assert set(map(form, new)) <= forms, (column.name, new, known[:5])
        written = column.format and column.format.notation
        if written is not None and new:
            read = [numbers_of(cells, written) for cells in (known, sorted(new))]
            ends = [column_ends(cells) for cells in read]
            assert ends[0][0] <= ends[1][0], (column.name, new)
            assert ends[1][1] <= ends[0][1], (column.name, new)


def column_ends(cells: Sequence[Any]) -> tuple[Any, Any]:
    """Return the least and the greatest cell, of numbers as precisely as 64 bits hold them."""
    exact = [float(cell) if isinstance(cell, int) else cell for cell in cells]
    return min(exact), max(exact)


def numbers_of(texts: Sequence[str], written: Any) -> list[Any]:
    return list(written.read(pa.chunked_array([texts])).to_pylist())


def is_missing(cell: str, file: Everyday) -> bool:
    return cell in file.missing or cell.strip() in file.missing


@cache
def model_of(name: str, folder: Path) -> Autoencoder:
    return fitted(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("everyday")
    for file in FILES.values():
        (folder / file.name).write_bytes(file.content)
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("file", READ, ids=lambda file: file.name)
def test_a_file_goes_through_every_verb(file: Everyday, folder: Path, tmp_path: Path) -> None:
    model = model_of(file.name, folder)
    assert list(model.schema_.names) == list(file.names)
    kinds = {column.name: column.kind for column in model.schema_.columns}
    assert {name: kinds[name] for name in file.kinds} == file.kinds
    source, out = Files(folder / file.name), tmp_path / "out.csv"
    rows = validation.open_rows(model, source, as_written=True)
    filled = cells(results.apply("impute", model, rows)[0], out)
    assert len(filled) == len(file.rows)
    if out.name and "json" not in file.name:
        for before, after in zip(file.rows, filled, strict=True):
            for old, new in zip(before, after, strict=True):
                assert old == new or is_missing(old, file)
    require_possible(file, filled, model)
    require_possible(file, cells(results.apply("reconstruct", model, rows)[0], out), model)
    model.schema_ = model.schema_.with_container("arrow")
    drawn = model.sample(25, random_state=0)
    require_possible(file, cells(drawn, out), model)
    require_possible(file, cells(model.interpolate(drawn[:1], drawn[1:2], 3), out), model)
    scored = results.apply("score", model, rows)[0]
    assert len(scored) == len(file.rows)


@pytest.mark.parametrize(
    "file", [file for file in FILES.values() if file.refusal], ids=lambda file: file.name
)
def test_a_file_that_is_refused_says_why(file: Everyday, folder: Path) -> None:
    assert file.refusal in fail("fit", folder / file.name, "-o", folder / "none", "-q")


def test_every_trait_is_in_two_files() -> None:
    seen = [trait for file in FILES.values() for trait in file.traits]
    once = {trait for trait in seen if seen.count(trait) == 1}
    assert len(FILES) >= 30
    assert once <= {
        *("sep= line", "bar", "short line", "long line", "one row", "header only", "telephones"),
        *("footer", "spreadsheet", "JSON lines", "spaces after commas", "no final newline"),
    }
