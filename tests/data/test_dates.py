"""Dates in people's words are read, whatever the language."""

from __future__ import annotations

from datetime import datetime

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


@pytest.mark.parametrize("language", ["", *dates.LANGUAGES])
def test_no_way_to_write_a_date_is_left_out_for_its_layout(language: str) -> None:
    days = [datetime(2021, 3, 5, 7, 8, 9), datetime(1999, 11, 12, 13, 14, 15)]
    for bare in dates.patterns(language):
        for pattern in (bare, f"%a, {bare}", f"{bare} GMT+1"):
            form = dates.strftime_pattern(pattern, language)
            cells = dates.in_words([day.strftime(form) for day in days], pattern, language, "")
            assert {dates.layout(cell or "") for cell in cells} == {dates.layout_of(pattern)}
