"""The plaintext of a list of people who opted out. Needs nothing but ``core``: it is read inside the sandbox that leaves their rows out.

``docs/formats/opt-out.md`` is the human description.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from kakoi.core.errors import Malformed

HEADING: Final = b"kakoi-opt-out/v1\n"
PADDING: Final = 64 * 1024
"""A list's length is a multiple of this, so that its ciphertext does not tell how many people are on it."""
MAX_LIST_BYTES: Final = 64 * 1024 * 1024
MAX_IDENTIFIER: Final = 200
_LINE: Final = re.compile(r"[^\x00-\x1f\x7f\x85\u2028\u2029]{1,200}\Z")


def encode_list(identifiers: Iterable[str]) -> bytes:
    """The plaintext of a list: each identifier once, sorted, one a line, padded with zero bytes. Raises Malformed."""
    lines = sorted(set(identifiers))
    for line in lines:
        _require_line(line)
    body = HEADING + "".join(f"{line}\n" for line in lines).encode("utf-8")
    if len(body) > MAX_LIST_BYTES - PADDING:
        raise Malformed("opt-out.size", f"expected a list of at most {MAX_LIST_BYTES} bytes, got a longer one")
    return body + bytes(-len(body) % PADDING)


def decode_list(data: bytes) -> frozenset[str]:
    """The identifiers on a list. Raises Malformed for anything that ``encode_list`` does not write."""
    body = data.rstrip(b"\x00")
    try:
        lines = body.removeprefix(HEADING).decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise _no_list() from None
    if not body.startswith(HEADING) or lines.pop() != "":
        raise _no_list()
    try:
        same = encode_list(lines) == data and len(set(lines)) == len(lines)
    except Malformed:
        same = False
    if not same:
        raise _no_list()
    return frozenset(lines)


def _require_line(line: str) -> None:
    if not _LINE.match(line) or line != line.strip():
        raise Malformed(
            "opt-out.identifier",
            f"expected identifiers of 1 to {MAX_IDENTIFIER} characters in one line, without blanks at either end",
            hint="write them as they stand in the data set",
        )


def _no_list() -> Malformed:
    return Malformed("opt-out.list", "expected a list of people who opted out, got something else")
