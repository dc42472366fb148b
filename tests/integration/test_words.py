"""The words of the field are used, and those that a reader would have to translate are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".pyi", ".md", ".j2", ".js", ".html", ".css"}
# What is not written -> what is written instead.
WORDS = {
    r"teams?|crews?": "worker group, worker pool",
    r"spoil(s|t|ed|ing)?": "corrupt, corrupted",
    r"holes?": "missing value, missing cell",
    r"chances?": "generator, randomness, probability",
    r"odd(?! number)|odder|oddest|oddness": "anomalous, anomaly score",
    r"moments?": "timestamp",
    r"told|anew|beside": "said or reported, again, next to or compared with",
    r"tend|heed(s|ed|ing)?": "revive dead units, watch",
    r"Lottery|Survey|Tally": "RowSampler, scan, Summary",
    r"(mean|means|meant) nothing": "is invalid",
    r"(?<![Tt]here )(is|are|was|were) no (?!(more|fewer|longer|less|larger|smaller|higher)\b)": (
        "is not a"
    ),
}
# Estimates of moments are the field's words where gradients and densities are meant.
ALLOWED = {
    r"moments?": ("src/twofold/training/", "src/twofold/inference/", "src/twofold/nn/"),
}
PATTERNS = {
    words: re.compile(rf"\b(?:{words})\b" if words[-1] != ")" else rf"\b(?:{words})")
    for words in WORDS
}
GENERATED = re.compile(r"<!-- [\w ]+ table: begin -->.*?<!-- [\w ]+ table: end -->", re.DOTALL)


def pages() -> list[Path]:
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for folder in ("src/twofold", "docs"):
        found += [p for p in (ROOT / folder).rglob("*") if p.suffix in TEXT and p.is_file()]
    return sorted(found)


def foreign_words(path: Path) -> Iterator[str]:
    place = path.relative_to(ROOT).as_posix()
    # Measured tables quote what was measured.
    text = GENERATED.sub(lambda m: "\n" * m[0].count("\n"), path.read_text(encoding="utf-8"))
    for number, line in enumerate(text.splitlines(), 1):
        for words, pattern in PATTERNS.items():
            match = pattern.search(line)
            if match and not place.startswith(ALLOWED.get(words, ("-",))):
                yield f"{place}:{number}: {match[0]!r}; write {WORDS[words]}"


@pytest.mark.parametrize("folder", sorted({p.parent.relative_to(ROOT).as_posix() for p in pages()}))
def test_words_are_those_of_the_field(folder: str) -> None:
    here = [path for path in pages() if path.parent == ROOT / folder]
    found = [line for path in here for line in foreign_words(path)]
    assert not found, "\n".join(found)
