"""Text for people cannot lie: titles, prose and source against what terminals and browsers do with odd characters."""

from __future__ import annotations

import re
import sys
import unicodedata

import pytest

from kakoi.core.errors import Refused
from kakoi.core.limits import Decimal, Limit, Name, Slug, Title
from kakoi.core.text import LINE, TEXT, plain

BLANKS_OF_A_TITLE = {" ", "\u3000"}


def accepts(annotated: object, text: str) -> bool:
    limit = annotated.__metadata__[0]  # type: ignore[attr-defined]
    assert isinstance(limit, Limit)
    return limit.least <= len(text) <= limit.most and bool(re.fullmatch(limit.pattern, text))


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "St. Mary's Hospital (Ward 7)",
        "東京　病院",
        "Clínica São João",
        "Universitätsklinikum",
        "مستشفى",
        "가나다",
        "e\u0301",
    ],
)
def test_names_of_hospitals_are_titles(text: str) -> None:
    assert accepts(Title, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        " A",
        "A ",
        "\u3000A",
        "A\u3000",
        "A\nB",
        "A\tB",
        "A\rB",
        "A\x1b[2JB",
        "A\x00",
        "A\x85B",
        "x" * 121,
        "A\n",
    ],
)
def test_odd_titles_are_refused(text: str) -> None:
    assert not accepts(Title, text)


NAMED = {
    "left-to-right mark": "\u200e",
    "right-to-left mark": "\u200f",
    "Arabic letter mark": "\u061c",
    "override": "\u202e",
    "isolate": "\u2066",
    "pop isolate": "\u2069",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "zero-width space": "\u200b",
    "zero-width non-joiner": "\u200c",
    "zero-width joiner": "\u200d",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "grapheme joiner": "\u034f",
    "Hangul filler": "\u3164",
    "half-width Hangul filler": "\uffa0",
    "variation selector": "\ufe0f",
    "Mongolian vowel separator": "\u180e",
    "invisible times": "\u2062",
    "tag letter": "\U000e0041",
    "variation selector supplement": "\U000e0100",
    "private use": "\ue000",
    "object replacement": "\ufffc",
    "replacement": "\ufffd",
    "no character": "\uffff",
    "C1 control": "\x9b",
    "delete": "\x7f",
}


@pytest.mark.parametrize("name", NAMED)
def test_characters_that_hide_or_turn_text_are_refused_everywhere(name: str) -> None:
    text = f"a{NAMED[name]}b"
    assert not accepts(Title, text)
    assert not re.fullmatch(TEXT, text)
    assert not re.fullmatch(LINE, text)


@pytest.mark.parametrize("blank", ["\u00a0", "\u1680", "\u2003", "\u200a", "\u202f", "\u205f", "\u2800"])
def test_blanks_that_are_not_spaces_are_refused_in_titles(blank: str) -> None:
    assert not accepts(Title, f"a{blank}b")


def test_no_character_of_a_dangerous_category_is_forgotten() -> None:
    """Independent of the list in the source: ask this interpreter's Unicode database."""
    forgotten = []
    for point in range(sys.maxunicode + 1):
        char = chr(point)
        category = unicodedata.category(char)
        if (category in ("Cc", "Cs", "Co", "Zl", "Zp") and char not in "\t\n") or (
            category == "Cf" and unicodedata.bidirectional(char) not in ("AN", "L", "NSM", "AL")
        ):
            forgotten += [char] if re.fullmatch(TEXT, char) else []
        elif category == "Zs" and char not in BLANKS_OF_A_TITLE:
            forgotten += [char] if accepts(Title, f"a{char}b") else []
    assert [f"U+{ord(char):04X}" for char in forgotten] == []


def test_lines_and_texts() -> None:
    assert re.fullmatch(TEXT, "SELECT 1\n\tFROM t\n")
    assert not re.fullmatch(TEXT, "SELECT 1\r\n")
    assert not re.fullmatch(LINE, "a\nb")
    assert re.fullmatch(LINE, " a\u00a0b ")


@pytest.mark.parametrize("text", ["0", "-1", "0.0", "12.50", "-0.5", "123456789012345678901234567890.1"])
def test_decimals(text: str) -> None:
    assert accepts(Decimal, text)


@pytest.mark.parametrize(
    "text", ["", "-", "-0", "-0.00", "01", "1.", ".5", "+1", "1e5", "1_0", "１", "NaN", "1\n", "9" * 33]
)
def test_odd_decimals_are_refused(text: str) -> None:
    assert not accepts(Decimal, text)


@pytest.mark.parametrize("text", ["", "1a", "-a", ".a", "a b", "a/b", "é", "a\n", "a" * 65])
def test_odd_names_are_refused(text: str) -> None:
    assert not accepts(Name, text)


@pytest.mark.parametrize("text", ["", "A", "a_b", "a-", "-a", "a..b", "a\n"])
def test_odd_slugs_are_refused(text: str) -> None:
    assert not accepts(Slug, text)


@pytest.mark.parametrize("text", ["sandbox.landlock", "no-hardware", "a", "9"])
def test_slugs(text: str) -> None:
    assert accepts(Slug, text)


@pytest.mark.parametrize("char", [*NAMED.values(), "\x1b", "\x07", "\r", "\x00"])
def test_messages_lose_what_could_steer_a_terminal(char: str) -> None:
    assert plain(f"a{char}b") == "a?b"
    error = Refused("a.b", f"expected x, got {char}[2J", hint=f"{char}[31m")
    assert str(error) == "expected x, got ?[2J [a.b]"
    assert error.hint == "?[31m"


def test_plain_text_stays_as_it_is() -> None:
    for text in ("", "SELECT 1\n\tFROM t", "東京 – “é”", "[bold]"):
        assert plain(text) == text
        assert re.fullmatch(TEXT, text)
