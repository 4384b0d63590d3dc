"""What people read, in their language. ``t`` for sentences of the interface, ``error_text`` for errors.

``messages/en.toml`` and ``messages/ja.toml`` hold the same keys and placeholders (tested). Errors are written in English where
they are raised; ``messages/errors.ja.toml`` holds their Japanese, one table of message and hint for each code.
"""

from __future__ import annotations

import os
import tomllib
from functools import lru_cache
from importlib import resources
from typing import Any, Final, Literal

from kakoi.core.errors import KakoiError

Language = Literal["en", "ja"]
_VARIABLES: Final = ("KAKOI_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def language() -> Language:
    """The user's language, from KAKOI_LANG or the locale; English for every other."""
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if value:
            return "ja" if value.lower().startswith("ja") else "en"
    return "en"


@lru_cache(maxsize=4)
def catalogue(name: str) -> dict[str, str]:
    """A message file as a flat mapping; tables are joined with dots."""
    text = resources.files("kakoi.cli").joinpath("messages", f"{name}.toml").read_text("utf-8")
    return _flat(tomllib.loads(text), "")


def _flat(value: dict[str, Any], prefix: str) -> dict[str, str]:
    out: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            out.update(_flat(item, f"{prefix}{key}."))
        else:
            out[prefix + key] = item
    return out


def t(key: str, **parameters: object) -> str:
    """The sentence for ``key`` in the user's language. An unknown key is a mistake of ours: KeyError."""
    return catalogue(language())[key].format(**parameters)


def error_text(error: KakoiError) -> tuple[str, str]:
    """Message and hint of an error in the user's language. English detail follows where Japanese is a summary."""
    if language() == "ja":
        known = catalogue("errors.ja")
        message = known.get(f"{error.code}.message")
        if message is not None:
            return f"{message}（{error.message}）", known.get(f"{error.code}.hint") or error.hint
    return error.message, error.hint
