"""Texts in pages stay texts, break where they can, and keep to their direction."""

from __future__ import annotations

from twofold.report import html


def test_long_words_may_be_broken() -> None:
    assert html.soft("total_rooms") == "total_<wbr>rooms"
    assert html.soft("x" * 30) == "<wbr>".join(["x" * 12, "x" * 12, "x" * 6])


def test_what_looks_like_markup_is_text() -> None:
    assert html.soft("<b>&") == "&lt;b&gt;&amp;"


def test_letters_of_either_direction_stay_apart() -> None:
    assert html.isolated("שלום") == "\u2068שלום\u2069"
