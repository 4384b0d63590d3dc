"""Bounds of a field, and the field types that several objects share.

Text that people read is a way to deceive them: a control character moves the cursor, a bidirectional override turns
a line around (CVE-2021-42574), an invisible character makes two names look equal. The patterns below refuse them
by explicit code points, so that what is accepted never depends on the Unicode version of the interpreter. They do not
refuse letters that merely look alike: nothing is ever decided by comparing two texts for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from kakoi.core.ids import HEX_DIGEST, ObjectId, PartyId


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


_CONTROLS: Final = r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 but for tab and new line
_INVISIBLE: Final = (
    # Unicode's Default_Ignorable_Code_Point: soft hyphen, joiners, bidirectional controls, variation selectors, tags …
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # line and paragraph separators, annotations and replacements, private use, surrogates
    r"\u2028\u2029\ufff0-\uffff\ue000-\uf8ff\U000f0000-\U0010ffff\ud800-\udfff"
)
_BLANKS: Final = r"\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800"  # look like a space and are none

TEXT: Final = f"[^{_CONTROLS}{_INVISIBLE}]*"
"""Pattern: lines for people, or source code. Tab and new line are allowed."""
TEXT_FORM: Final = "text without control, bidirectional or invisible characters"
LINE: Final = rf"[^{_CONTROLS}{_INVISIBLE}\t\n]*"
"""Pattern: part of one line."""
LINE_FORM: Final = "one line without control, bidirectional or invisible characters"
_TITLE: Final = (
    rf"[^{_CONTROLS}{_INVISIBLE}{_BLANKS}\t\n \u3000](?:[^{_CONTROLS}{_INVISIBLE}{_BLANKS}\t\n]*"
    rf"[^{_CONTROLS}{_INVISIBLE}{_BLANKS}\t\n \u3000])?"
)

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
Title = Annotated[str, Limit(least=1, most=120, pattern=_TITLE, form=LINE_FORM + ", no blank at either end")]
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
