"""Sentences of the interface: both languages have the same, and every sentence that is used exists."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.cli import i18n
from kakoi.core.errors import Refused
from kakoi.say import catalogue as catalogues
from support.tree import SRC, parsed, relative, sources

VARIABLES = ("KAKOI_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def _placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_sentences() -> None:
    assert set(i18n.catalogue("en")) == set(i18n.catalogue("ja"))
    assert len(i18n.catalogue("en")) > 50


@pytest.mark.parametrize("key", sorted(i18n.catalogue("en")))
def test_both_languages_show_the_same_values(key: str) -> None:
    english, japanese = i18n.catalogue("en")[key], i18n.catalogue("ja")[key]
    assert _placeholders(english) == _placeholders(japanese)
    assert english.strip()
    assert japanese.strip()


def _used() -> Iterator[tuple[str, str, set[str] | None]]:
    """Place, key and parameters of every call ``t("key", …)``; parameters None where they are computed."""
    for path in sources():
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "t":
                continue
            given = {word.arg for word in node.keywords}
            names = None if None in given else {name for name in given if name is not None}
            keys = [node.args[0]]
            while keys:
                key = keys.pop()
                if isinstance(key, ast.IfExp):
                    keys += [key.body, key.orelse]
                elif isinstance(key, ast.Constant):
                    yield f"{relative(path)}:{node.lineno}", str(key.value), names


def test_every_sentence_that_is_used_exists_and_gets_its_values() -> None:
    wrong = []
    for place, key, given in _used():
        text = i18n.catalogue("en").get(key)
        if text is None or (given is not None and not _placeholders(text) <= given):
            wrong.append(f"{place} {key}")
    assert not wrong


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "ja_JP.UTF-8", "KAKOI_LANG": "en"}, "en"),
        ({"LANG": "C", "KAKOI_LANG": "ja"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "KAKOI_LANG": ""}, "ja"),
    ],
)
def test_the_language_is_the_users(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert i18n.language() == expected


def test_errors_are_shown_in_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    error = Refused("contract.expired", "expected a contract in force, got one that has expired", hint="amend it")
    monkeypatch.setenv("KAKOI_LANG", "en")
    assert i18n.error_text(error) == (error.message, error.hint)
    monkeypatch.setenv("KAKOI_LANG", "ja")
    message, hint = i18n.error_text(error)
    assert message.startswith("契約の期限が切れています")
    assert error.message in message
    assert hint == "当事者は、期限を延ばした新しい版を承認できます"


def test_an_error_without_japanese_stays_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAKOI_LANG", "ja")
    error = Refused("hub.status-418", "expected success, got HTTP status 418")
    assert i18n.error_text(error) == (error.message, error.hint)


CATALOGUES = sorted(path.parent for path in SRC.rglob("messages/en.toml"))


@pytest.mark.parametrize("folder", CATALOGUES, ids=relative)
def test_every_folder_of_sentences_has_both_languages(folder: Path) -> None:
    name = folder.relative_to(SRC).as_posix()
    english, japanese = catalogues.read(name, "en"), catalogues.read(name, "ja")
    assert set(english) == set(japanese)
    assert not [key for key in english if _placeholders(english[key]) != _placeholders(japanese[key])]
