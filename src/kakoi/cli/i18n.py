"""The command line's language. ``t`` for sentences of the interface, ``error_text`` for errors.

``messages/en.toml`` and ``messages/ja.toml`` hold the same keys and placeholders (tested); ``kakoi.say`` reads them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from rich.markup import escape

from kakoi.core.errors import KakoiError
from kakoi.say import catalogue as catalogues
from kakoi.say.catalogue import SHARED, Language

_VARIABLES: Final = ("KAKOI_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def language() -> Language:
    """The user's language, from KAKOI_LANG or the locale; English for every other."""
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if value:
            return "ja" if value.lower().startswith("ja") else "en"
    return "en"


def catalogue(name: str) -> Mapping[str, str]:
    """A message file as a flat mapping; tables are joined with dots."""
    return catalogues.read(SHARED, name)


def t(key: str, **parameters: object) -> str:
    """The sentence for ``key`` in the user's language, as console markup. An unknown key is a mistake of ours: KeyError.

    Parameters are somebody else's text: whatever stands in them is shown and never obeyed.
    """
    shown = {name: value if isinstance(value, int) else escape(str(value)) for name, value in parameters.items()}
    return catalogue(language())[key].format(**shown)


def error_text(error: KakoiError) -> tuple[str, str]:
    """Message and hint of an error in the user's language."""
    return catalogues.error_text(error, language())
