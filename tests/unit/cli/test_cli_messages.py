"""The catalogues of sentences: complete, with the same placeholders, and safe with somebody else's text."""

from __future__ import annotations

import ast
import re
from string import Formatter
from typing import Final

import pytest
from rich.text import Text

from kakoi.cli.i18n import catalogue, language, t
from kakoi.sdk.run import TOLD_KINDS
from kakoi.sdk.verify import SENTENCES
from support.tree import SRC

LANGUAGES: Final = ("en", "ja")
JAPANESE: Final = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]")
VARIABLES: Final = ("KAKOI_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_sentences() -> None:
    english, japanese = (catalogue(name) for name in LANGUAGES)
    assert set(english) == set(japanese)
    assert len(english) > 100
    assert [key for key in english if placeholders(english[key]) != placeholders(japanese[key])] == []


def test_japanese_is_japanese() -> None:
    english = catalogue("en")
    same = {key for key, text in catalogue("ja").items() if not JAPANESE.search(text) and text == english[key]}
    words = {
        key for key in same if re.search(r"[A-Za-z]", re.sub(r"\{\w+\}", "", english[key])) and " " in english[key]
    }
    assert words == set(), "not translated"


def test_every_key_in_the_source_exists() -> None:
    """``t("…")`` with a literal key; keys that are put together are exercised by the demo and the walk-through."""
    known = set(catalogue("en"))
    used: set[str] = set()
    for path in (SRC / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "t":
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    used.add(first.value)
    assert len(used) > 80
    assert used - known == set()


def test_every_message_of_a_run_has_its_words() -> None:
    known = {key.removeprefix("run.message.") for key in catalogue("en") if key.startswith("run.message.")}
    assert known == {kind.split("/")[1] for kind in TOLD_KINDS}


def test_the_sdk_says_what_the_command_line_says() -> None:
    english = catalogue("en")
    proofs = {key: text for key, text in english.items() if key.startswith(("verify.proven", "verify.not-proven"))}
    assert dict(SENTENCES) == proofs


@pytest.mark.parametrize("name", LANGUAGES)
def test_sentences_are_well_formed_markup(name: str) -> None:
    for key, text in catalogue(name).items():
        filled = text.format(**dict.fromkeys(placeholders(text), "x"))
        assert Text.from_markup(filled).plain.count("x") >= len(placeholders(text)), key


@pytest.mark.parametrize("hostile", ["[conceal]gone", "[/]", "[bold red]!", "[link=http://x]y[/link]", "[0]"])
def test_foreign_text_is_shown_and_not_obeyed(hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A title in a contract must not hide or dress up what a party reads before it signs."""
    monkeypatch.setenv("KAKOI_LANG", "en")
    shown = Text.from_markup(t("contract.recipient", name=hostile))
    assert shown.plain == f"Results go to: {hostile}"
    assert shown.spans == []
    assert Text.from_markup(t("broker.waits", message=hostile, code="a.b")).plain == f"waiting: {hostile} [a.b]"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C", "KAKOI_LANG": "ja"}, "ja"),
        ({"LC_ALL": "ja_JP", "KAKOI_LANG": "en"}, "en"),
        ({"KAKOI_LANG": "", "LC_MESSAGES": "ja_JP.eucJP"}, "ja"),
    ],
)
def test_language(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert language() == expected


def test_an_unknown_key_is_our_mistake() -> None:
    with pytest.raises(KeyError):
        t("no.such.sentence")
