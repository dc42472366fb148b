"""Rows are read from JSON in the forms that people have it in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from twofold import Files
from twofold.data import json_files
from twofold.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"name": "ab"[i % 2], "at": {"lat": i / 4}, "n": i % 5, "ok": bool(i % 2)} for i in range(9)
]
FLAT = [{"name": r["name"], "at.lat": r["at"]["lat"], "n": r["n"], "ok": r["ok"]} for r in ROWS]
NAMES = [*FLAT[0]]
CELLS = [[*row.values()] for row in FLAT]
LINES = "\n".join(map(json.dumps, ROWS)).encode()

FORMS: dict[str, Any] = {
    "objects": ROWS,
    "result": {"status": "ok", "count": 9, "rows": ROWS},
    "split": {"columns": NAMES, "index": [*range(9)], "data": CELLS},
    "by row": {str(i): row for i, row in enumerate(FLAT)},
    "by column": {name: {str(i): row[name] for i, row in enumerate(FLAT)} for name in NAMES},
    "lists by column": {name: [row[name] for row in FLAT] for name in NAMES},
    "names and rows": [NAMES, *CELLS],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_forms_of_the_same_rows(form: Any) -> None:
    assert json_files.read(json.dumps(form).encode(), "x.json").to_pylist() == FLAT


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings(encoding: str) -> None:
    content = LINES.decode().encode(encoding)
    assert json_files.read(content, "x.jsonl").to_pylist() == FLAT


def test_rows_without_names_have_numbers() -> None:
    table = json_files.read(b'[["a", "b"], ["c", "d"]]', "x.json")
    assert table.column_names == ["column1", "column2"]
    assert table.num_rows == 2


def test_cells_of_several_types_are_texts() -> None:
    lines = b'{"a": 1, "b": 1, "c": {"d": 1}}\n{"a": "x", "b": 2.5, "c": 7}\n{"a": [1, "y"]}\n'
    table = json_files.read(lines, "x.jsonl")
    assert table.column("a").to_pylist() == ["1", "x", '[1, "y"]']
    assert table.column("b").to_pylist() == [1, 2.5, None]
    assert table.column("c.d").to_pylist() == [1, None, None]


@pytest.mark.parametrize("content", [b"[1, 2]", b"[]", b"[[1], [1, 2]]", b'[{"a": 1}, 2]'])
def test_lists_of_other_than_rows_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match="holds a list, but not one of objects"):
        Files(tmp_path / "x.json").open()


def test_features_of_maps_are_rows(tmp_path: Path) -> None:
    features = [
        {"type": "Feature", "properties": {"mag": i / 2}, "geometry": {"coordinates": [i, -i]}}
        for i in range(5)
    ]
    path = tmp_path / "quakes.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert "properties.mag" in Files(path).open().column_names


def test_numbers_next_to_texts_of_numbers_are_numbers() -> None:
    table = json_files.read(b'{"a": 1}\n{"a": "2.5"}\n{"a": null}\n{"b": "x"}\n', "x.jsonl")
    assert table.column("a").to_pylist() == [1, 2.5, None, None]
