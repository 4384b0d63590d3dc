"""Sentences from TOML files: one file for each language, the same keys and placeholders in each (tested).

Errors are written in English where they are raised; ``cli/messages/errors.ja.toml`` holds their Japanese, one table of
message and hint for each code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, Final, Literal

from kakoi.core.errors import KakoiError

Language = Literal["en", "ja"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "ja")
SHARED: Final = "cli/messages"
"""Folder of the sentences that every program shares, and of the errors."""


@lru_cache(maxsize=16)
def read(folder: str, name: str) -> Mapping[str, str]:
    """``<folder>/<name>.toml`` inside the package, flat: tables are joined with dots. Empty if there is none."""
    file = resources.files("kakoi").joinpath(*folder.split("/"), f"{name}.toml")
    if not file.is_file():
        return {}
    return _flat(tomllib.loads(file.read_text("utf-8")), "")


def _flat(value: dict[str, Any], prefix: str) -> dict[str, str]:
    out: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            out.update(_flat(item, f"{prefix}{key}."))
        else:
            out[prefix + key] = item
    return out


def error_text(error: KakoiError, language: Language) -> tuple[str, str]:
    """Message and hint of an error. The English detail follows where Japanese is a summary."""
    return text_of_code(error.code, error.message, error.hint, language)


def text_of_code(code: str, message: str, hint: str, language: Language) -> tuple[str, str]:
    """Message and hint for an error that arrived as a code with English text (a denial, a line of a ledger)."""
    if language == "ja":
        known = read(SHARED, "errors.ja")
        summary = known.get(f"{code}.message")
        if summary is not None:
            return f"{summary}（{message}）", known.get(f"{code}.hint") or hint
    return message, hint


def rule_text(rule: str, language: Language) -> str:
    """A rule of the gate in words; its own name if it is none of ours, as what parties store may claim anything."""
    return read(SHARED, language).get(f"rule.{rule}", rule)
