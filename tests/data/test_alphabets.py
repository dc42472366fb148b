"""Words tell in which language, and so in which encoding, they are written."""

from __future__ import annotations

import pytest

from twofold.data import alphabets
from twofold.data.encoding import decode, encoding_of

WORDS = {
    "cp1252": [
        "München Größe Straße Müller Käse",
        "Besançon Nîmes Hélène forêt août",
        "Málaga Peña Muñoz niño León",
        "São ações Conceição avó não",
        "Malmö Århus København Næstved rød",
        "Þórshöfn Guðrún Ísafjörður maður",
        "Müller José Zoë François Sørensen Peña São",
        "20°C 5µg m² £12.50 3½ it’s “ok” 1º",
    ],
    "cp1250": [
        "Győr Kőszeg Szűcs tűz híd",
        "Łódź Gdańsk Poznań Świdnica mężczyzna",
        "Plzeň Třebíč Děčín Dvořák kůň",
        "Braşov Iaşi Timişoara Bacău Piteşti",
        "Šibenik Čakovec Đakovo Kovačević riječ",
    ],
    "cp1251": ["Москва Пермь Город Сумма женщина", "Київ Львів Харків жінка", "Београд Љубица Ниш"],
    "koi8_r": ["Москва Пермь Город Сумма женщина"],
    "cp866": ["Москва Пермь Город Сумма женщина"],
    "cp1253": ["Αθήνα Θεσσαλονίκη Πάτρα άνδρας γυναίκα"],
    "cp1254": ["İstanbul Eskişehir Muğla Diyarbakır Kadın"],
    "cp1255": ["תל ירושלים חיפה זכר נקבה כהן"],
    "cp1256": ["القاهرة دبي الرياض ذكر أنثى مدينة"],
    "cp1257": ["Šiauliai Panevėžys Ąžuolas vyrų", "Rīga Liepāja Jūrmala Bērziņš Ķegums"],
    "cp874": ["กรุงเทพ เชียงใหม่ ภูเก็ต ชาย หญิง"],
    "gb18030": ["北京 上海 广州 深圳 女 价格"],
    "big5": ["臺北 高雄 臺中 陳怡君 城市"],
    "cp932": ["東京 大阪 カテゴリ りんご 田中"],
    "cp949": ["서울 부산 대구 남자 여자 김철수"],
    "cp850": ["München Größe Straße Müller Käse"],
    "mac_roman": ["München Größe Straße Müller Käse"],
}
CASES = [(encoding, words) for encoding, texts in WORDS.items() for words in texts]


@pytest.mark.parametrize(("encoding", "words"), CASES)
def test_encoding_of_a_few_words_among_numbers(encoding: str, words: str) -> None:
    text = "".join(f"{word};{i};{i / 7:.2f}\n" for i, word in enumerate(words.split() * 9))
    content = text.encode(encoding)
    assert decode(content, encoding_of(content, True)) == text


def test_letters_that_fit_alike_are_western() -> None:
    for text in ("é;1\n", "ü;1\n", "£;1\n", "5 €;1\n"):
        assert encoding_of(text.encode("cp1252"), True) == "cp1252"


@pytest.mark.parametrize("encoding", alphabets.ENCODINGS)
def test_words_of_letters_that_a_language_lacks_are_unlikely(encoding: str) -> None:
    common = next((w for e, w in CASES if e == encoding), "a")
    likely = alphabets.log_likelihood(common.split(), encoding)
    assert likely > alphabets.log_likelihood(["\ufffd" * len(w) for w in common.split()], encoding)


def test_a_capital_within_a_word_and_a_digit_next_to_a_letter_are_unlikely() -> None:
    def likely(word: str) -> float:
        return alphabets.log_likelihood([word], "cp1250")

    assert likely("Łódź") > likely("łÓdŹ")
    assert likely("Łódź") > likely("Łódź1")


@pytest.mark.parametrize("sign", "€£°µ§½²®")
@pytest.mark.parametrize("form", ["{}{}", "{1}{0}", "{1} {0}", "{1} {0}|x"])
def test_signs_next_to_many_numbers_are_no_letters(sign: str, form: str) -> None:
    text = "".join(form.format(sign, i) + "\n" for i in range(40))
    assert encoding_of(text.encode("cp1252"), True) == "cp1252"
