"""Both languages say the same; every sentence that a page uses exists, and every one that exists is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kakoi.say.catalogue import SHARED, read
from support.tree import SRC

ENGLISH, JAPANESE = read("console/messages", "en"), read("console/messages", "ja")
TEMPLATES = sorted((SRC / "console/templates").glob("*.html"))
USED = re.compile(r"""\bt\(\s*["']([a-z0-9._-]+)["']\s*[,)]""")
BUILT = re.compile(r"""\bt\(\s*["']([a-z0-9._-]+\.)["']\s*~""")
LETTERS = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]")


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def test_both_languages_have_the_same_sentences() -> None:
    assert set(ENGLISH) == set(JAPANESE)
    assert len(ENGLISH) > 350
    for key, text in ENGLISH.items():
        assert placeholders(text) == placeholders(JAPANESE[key]), key


def test_japanese_is_japanese() -> None:
    plain = {key for key, text in JAPANESE.items() if not LETTERS.search(text)}
    assert plain == {"review.engine.sql", "review.engine.python", "settings.tls-on"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_sentence_of_a_page_exists(path: Path) -> None:
    known = {*ENGLISH, *read(SHARED, "en")}
    assert set(USED.findall(path.read_text("utf-8"))) <= known


def test_every_sentence_is_used() -> None:
    text = "\n".join(path.read_text("utf-8") for path in TEMPLATES)
    source = "\n".join(path.read_text("utf-8") for path in (SRC / "console").glob("*.py"))
    built = {*BUILT.findall(text), "change.", "warning.", "review.", "decision.step."}
    unused = {
        key
        for key in ENGLISH
        if key not in USED.findall(text)
        and not any(key.startswith(start) for start in built)
        and f'"{key}"' not in source + text
    }
    assert not unused


def test_every_event_and_change_of_the_source_has_a_sentence() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (SRC / "console").glob("*.py"))
    events = set(re.findall(r'\.note\(.*?, "([a-z-]+)"[,)]', source))
    assert {"invited", "signed", "withdrew"} <= events
    assert {f"event.{name}" for name in events} <= set(ENGLISH)
    changes = set(re.findall(r"""_change\(\s*"([a-z-]+)\"""", source)) | set(
        re.findall(r'key="change\.([a-z-]+)"', source)
    )
    assert len(changes) > 10
    assert {f"change.{name}" for name in changes} <= set(ENGLISH)
    warnings = set(re.findall(r'key="(warning\.[a-z-]+)"', source))
    assert len(warnings) > 12
    assert warnings <= set(ENGLISH)
