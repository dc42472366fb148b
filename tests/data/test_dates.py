"""Dates in people's words are read, whatever the language."""

from __future__ import annotations

import pyarrow as pa
import pytest

from twofold.data import dates

MARCH = {
    "de": ["1. März 2021", "12. Mai 2020"],
    "fr": ["1er mars 2021", "12 août 2020"],
    "es": ["1 de marzo de 2021", "12 de agosto de 2020"],
    "pt": ["1 de março de 2021", "12 de agosto de 2020"],
    "it": ["1 marzo 2021", "12 maggio 2020"],
    "nl": ["1 maart 2021", "12 mei 2020"],
    "pl": ["1 marca 2021", "12 maja 2020"],
    "ru": ["1 марта 2021", "12 мая 2020"],
    "tr": ["1 Mart 2021", "12 Mayıs 2020"],
    "en": ["March 1st, 2021", "Sept. 12, 2020"],
}


@pytest.mark.parametrize("language", MARCH)
def test_the_language_of_months_is_found(language: str) -> None:
    assert dates.language_of(MARCH[language]) == language
    assert dates.look_like_dates(pa.array(MARCH[language]))


@pytest.mark.parametrize("language", dates.LANGUAGES)
@pytest.mark.parametrize("pattern", ["%d %B %Y", "%d %b %Y"])
def test_every_month_comes_back(language: str, pattern: str) -> None:
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep")
    english = [f"01 {month} 2021" for month in months]
    own = dates.in_words(english, pattern, language, "")
    assert dates.in_english(own, pattern, language) == english


def test_no_language_has_other_words() -> None:
    assert dates.language_of(["Room 12", "Hall 13"]) == ""
