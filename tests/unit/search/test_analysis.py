import time
import unicodedata

import pytest

from memory_core.errors import ConfigurationError
from memory_core.records import CORE_RECORD_TYPES, RecordTypes
from memory_core.search import Analyzer, Declarations

ENGLISH = Analyzer()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Cancel my flights!", ["cancel", "my", "flight"]),
        ("cancellations cancelled", ["cancel", "cancel"]),
        ("un café, s'il vous plaît", ["un", "cafe", "s", "il", "vous", "plait"]),
        ("STRASSE Straße", ["strass", "strass"]),
        ("ﬁne ①", ["fine", "1"]),
        ("get_order", ["get", "order", "get_order"]),
        ("getOrder HTTPServer", ["get", "order", "getorder", "http", "server", "httpserver"]),
        ("#W2378156", ["w", "2378156", "w2378156"]),
        ("__init__ _ ___", ["init"]),
        ("航班", ["航", "班", "航班"]),
        ("v2航班ok", ["v", "2", "v2", "航", "班", "航班", "ok"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("", []),
        ("👍🏽 … —", []),
        ("a" * 100, ["a" * 64]),
    ],
)
def test_terms(text, terms) -> None:
    assert ENGLISH.terms(text) == terms


@pytest.mark.parametrize("text", ["café résumé Ünïcödé", "ガス を 使う", "Việt Nam", "Й ё"])
def test_a_text_has_the_same_terms_in_every_normal_form(text) -> None:
    forms = {tuple(ENGLISH.terms(unicodedata.normalize(form, text))) for form in ("NFC", "NFD")}
    assert len(forms) == 1


def test_the_places_of_words_are_those_of_the_text() -> None:
    text = "Ein Café\u0301 für 取消我的航班, getOrder ﬁn"
    words = [text[token.start : token.end] for token in ENGLISH.tokens(text)]
    assert words == ["Ein", "Café\u0301", "für", "取消我的航班", "getOrder", "ﬁn"]
    assert [term for token in ENGLISH.tokens(text) for term in token.terms] == ENGLISH.terms(text)


def test_a_question_has_each_term_once_and_pairs_of_unspaced_scripts() -> None:
    assert ENGLISH.question("flights, flight FLIGHT") == ["flight"]
    assert ENGLISH.question("取消航班") == ["取消", "消航", "航班"]
    assert ENGLISH.question("票") == ["票"]


def test_languages() -> None:
    german = Analyzer("german")
    assert german.terms("Häuser") == german.terms("Haus")
    assert Analyzer("none").terms("flights") == ["flights"]
    with pytest.raises(
        ConfigurationError, match=r"unknown language 'klingon'; known: none, .*english"
    ):
        Analyzer("klingon")


def test_an_index_is_for_one_language_and_one_version_of_its_stems(monkeypatch) -> None:
    def digest(language: str) -> bytes:
        return Declarations.of(RecordTypes(CORE_RECORD_TYPES), Analyzer(language)).digest

    before = [digest(language) for language in ("english", "german", "none")]
    assert len(set(before)) == 3
    monkeypatch.setattr("Stemmer.version", lambda: "0.0")
    later = [digest(language) for language in ("english", "german", "none")]
    assert [one == other for one, other in zip(before, later, strict=True)] == [False, False, True]


def test_the_last_word_keeps_its_ending() -> None:
    assert ENGLISH.last_word("the Flights") == "flights"
    assert ENGLISH.last_word("Cafe\u0301s…") == "cafes"
    assert ENGLISH.last_word("!") == ""


def test_a_long_text_takes_time_in_proportion() -> None:
    def seconds(text: str) -> float:
        started = time.process_time()
        ENGLISH.terms(text)
        return time.process_time() - started

    for piece in ("word ", "x", "取消我的航班", "_", "e\u0301"):
        seconds(piece * 20_000)
        short, long = seconds(piece * 20_000), seconds(piece * 200_000)
        assert long < 100 * max(short, 1e-3), piece
