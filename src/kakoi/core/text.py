"""Text that people read is a way to deceive them.

A control character moves the cursor or rewrites the screen, a bidirectional override turns a line around (CVE-2021-42574),
an invisible character makes two names look equal. The patterns here refuse them by explicit code points, so that what is
accepted never depends on the Unicode version of the interpreter. They do not refuse letters that merely look alike:
nothing is ever decided by comparing two texts for people.
"""

from __future__ import annotations

import re
from typing import Final

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
TITLE: Final = (
    rf"[^{_CONTROLS}{_INVISIBLE}{_BLANKS}\t\n \u3000](?:[^{_CONTROLS}{_INVISIBLE}{_BLANKS}\t\n]*"
    rf"[^{_CONTROLS}{_INVISIBLE}{_BLANKS}\t\n \u3000])?"
)
"""Pattern: a name for people. Begins and ends with something visible; the only blanks are U+0020 and U+3000."""

_UNSAFE: Final = re.compile(f"[{_CONTROLS}{_INVISIBLE}]")


def plain(text: str) -> str:
    """``text`` with ``?`` in the place of every character that ``TEXT`` refuses. For messages with foreign parts."""
    return _UNSAFE.sub("?", text)
