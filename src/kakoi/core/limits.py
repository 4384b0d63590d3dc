"""Bounds of a field, and the field types that several objects share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from kakoi.core.ids import HEX_DIGEST, ObjectId, PartyId
from kakoi.core.text import LINE_FORM, TEXT, TEXT_FORM, TITLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Bounds of one field. Text: length in characters, and a pattern that all of it must match, with ``form`` for
    people. Bytes and tuples: length; ``unique`` refuses a repeated entry. Integers: value.
    """

    least: int = 0
    most: int
    pattern: str = ""
    form: str = ""
    unique: bool = False


Digest = Annotated[ObjectId, Limit(least=64, most=64, pattern=HEX_DIGEST.pattern, form="64 lower-case hex digits")]
PartyRef = Annotated[PartyId, Limit(least=64, most=64, pattern=HEX_DIGEST.pattern, form="64 lower-case hex digits")]
Name = Annotated[
    str,
    Limit(
        least=1,
        most=64,
        pattern=r"[A-Za-z_][A-Za-z0-9_.-]*",
        form="a name of ASCII letters, digits, '_', '.' and '-' that begins with a letter or '_'",
    ),
]
"""An identifier: tables, columns, parameters, outputs."""
Slug = Annotated[
    str,
    Limit(
        least=1,
        most=80,
        pattern=r"[a-z0-9]+(?:[.-][a-z0-9]+)*",
        form="lower-case words and digits joined by '-' or '.'",
    ),
]
"""A stable code for machines: error codes, rules, isolation layers."""
Title = Annotated[str, Limit(least=1, most=120, pattern=TITLE, form=LINE_FORM + ", no blank at either end")]
"""One line for people that cannot lie on screen. Spaces are U+0020 or U+3000, inside only."""
Prose = Annotated[str, Limit(most=4000, pattern=TEXT, form=TEXT_FORM)]
"""Lines for people."""
Seconds = Annotated[int, Limit(most=2**40)]
"""Seconds since the Unix epoch, or a span of seconds."""
Decimal = Annotated[
    str,
    Limit(
        least=1,
        most=32,
        pattern=r"(?!-0(?:\.0+)?\Z)-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?",
        form="a decimal number such as -12.50",
    ),
]
"""A number with a fraction, as text: floats have no canonical form. No exponent, no minus zero."""
