"""Ids said aloud, dates and numbers by language, errors in two languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import Malformed
from kakoi.core.ids import ObjectId
from kakoi.say import aloud, locale
from kakoi.say.catalogue import text_of_code

IDS = st.binary(min_size=32, max_size=32).map(bytes.hex)


def test_known_words() -> None:
    """The example of the paper: 127.0.0.1 is lusab-babad, 63.84.220.193 is gutih-tugad."""
    identity = ObjectId("7f000001" + "3f54dcc1" + "0" * 48)
    assert aloud.words(identity)[:4] == ("lusab", "babad", "gutih", "tugad")
    assert aloud.words(ObjectId("0" * 64), "ja") == ("アアアア",) * 6 + ("アア",)


@given(IDS, IDS)
def test_words_differ_where_the_first_half_differs(one: str, other: str) -> None:
    for language in ("en", "ja"):
        same = aloud.words(one, language) == aloud.words(other, language)
        assert same == (one[:32] == other[:32])
    assert len(aloud.words(one)) == 8
    assert len("".join(aloud.words(one, "ja"))) == 26


def test_what_is_no_id_has_no_words() -> None:
    with pytest.raises(Malformed):
        aloud.words("lusab")


def test_times_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert locale.time(1_800_000_000, "en") == "15 Jan 2027 17:00 JST"
        assert locale.time(1_800_000_000, "ja") == "2027年1月15日 17:00 JST"
        assert locale.clock(1_800_000_000) == "17:00:00"
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert [locale.number(text) for text in ("1234567.25", "-1000", "007", "1e9", "", "=1+1")] == [
        "1,234,567.25",
        "-1,000",
        "7",
        "1e9",
        "",
        "=1+1",
    ]
    assert [locale.size(count) for count in (0, 999, 1000, 12_345_678)] == ["0 B", "999 B", "1.0 kB", "12.3 MB"]


def test_errors_that_arrive_as_codes_are_said_in_japanese_too() -> None:
    message, hint = text_of_code("decision.withdrawn", "expected a contract", "ask the owner", "ja")
    assert message.endswith("（expected a contract）")
    assert hint != "ask the owner"
    assert text_of_code("decision.withdrawn", "m", "h", "en") == ("m", "h")
    assert text_of_code("nobody.raises-this", "m", "h", "ja") == ("m", "h")
