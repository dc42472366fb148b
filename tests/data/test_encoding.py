"""How letters are stored shows in the bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.data import files
from twofold.data.encoding import decode, encoding_of


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Zoë, Łódź", "utf-8"), ("grün, weiß", "cp1252"), ("Zoë", "utf-16"), ("plain", "ascii")],
)
def test_encoding_of_bytes(text: str, encoding: str) -> None:
    found = encoding_of(text.encode(encoding), True)
    assert decode(text.encode(encoding), found).lstrip("\ufeff") == text
    assert found in (encoding, "utf-8")


@pytest.mark.parametrize("encoding", ["gb18030", "cp932", "cp1251"])
def test_letters_of_other_alphabets_are_no_utf8_with_mistakes(encoding: str) -> None:
    words = {"gb18030": "北京,上海,广州", "cp932": "東京,大阪,京都", "cp1251": "Москва,Казань,Омск"}
    assert encoding_of("\n".join([words[encoding]] * 40).encode(encoding), True) != "utf-8-cp1252"


def test_a_few_letters_in_another_encoding_change_no_others(tmp_path: Path) -> None:
    rows = "".join(f"{name},{i}\n" for i, name in enumerate(["José", "Zoë", "Łódź"] * 9))
    path = tmp_path / "x.csv"
    path.write_bytes(("name,n\n" + rows).encode() + b"Caf\xe9,3\n")
    found = files.load(path)
    assert found.column("name").to_pylist()[-4:] == ["José", "Zoë", "Łódź", "Café"]
    assert "encoding utf-8-cp1252" in found.schema.metadata[b"twofold.understood"].decode()
