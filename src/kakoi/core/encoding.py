"""Canonical JSON, read strictly: one byte string per value, one value per byte string.

The accepted language is a subset of RFC 8259: UTF-8, object keys sorted by code point, no white
space, no duplicate key, no float, integers within ±(2^53-1) (RFC 7493 §2.2), bounded size and
depth. ``loads`` refuses whatever ``dumps`` would not have written, so ``dumps(loads(x)) == x``.
Numbers with a fraction travel as decimal strings.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any, Final, NoReturn

from kakoi.core.errors import Malformed

Json = Any
MAX_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 24
MAX_OBJECT_BYTES: Final = 8 * 1024 * 1024
MAX_ITEMS: Final = 1_000_000
"""Most brackets and commas in one text. A parsed item costs some hundred bytes, so this bounds the memory of a parse."""


def _bad(what: str) -> NoReturn:
    raise Malformed(
        "encoding.json",
        f"expected canonical JSON, got {what}",
        hint="the sender must encode with sorted keys, no spaces, no floats and no duplicate keys",
    )


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(items)
    if len(out) != len(items):
        _bad("a duplicate key")
    return out


def _integer(digits: str) -> int:
    """Python's own conversion is quadratic in the number of digits and has a limit that the environment can lift."""
    if len(digits) > len(str(-MAX_INTEGER)):
        _bad("an integer beyond 2^53-1")
    return int(digits)


def _check(value: object, depth: int = 0) -> None:
    """Exact types only: a subclass could print itself differently from what it holds."""
    kind = type(value)
    if depth > MAX_DEPTH:
        _bad(f"nesting deeper than {MAX_DEPTH}")
    if value is None or kind in (bool, str):
        return
    if isinstance(value, int) and kind is int:
        if abs(value) > MAX_INTEGER:
            _bad("an integer beyond 2^53-1")
    elif isinstance(value, dict) and kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                _bad("a key that is not text")
            _check(item, depth + 1)
    elif isinstance(value, (list, tuple)) and kind in (list, tuple):
        for item in value:
            _check(item, depth + 1)
    else:
        _bad(f"a value of type {kind.__name__}")


def _too_large(limit: int, size: int) -> Malformed:
    return Malformed(
        "encoding.size",
        f"expected at most {limit} bytes, got {size}",
        hint="the object is larger than its format allows",
    )


def dumps(value: Json, *, limit: int | None = None) -> bytes:
    """The canonical bytes of a JSON value. Raises Malformed for floats and other foreign values, and beyond ``limit``."""
    _check(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        _bad("text with a lone surrogate")
    if limit is not None and len(data) > limit:
        raise _too_large(limit, len(data))
    return data


def loads(data: bytes, *, limit: int = MAX_OBJECT_BYTES) -> Json:
    """The JSON value of canonical bytes of at most ``limit`` bytes. Raises Malformed otherwise."""
    if len(data) > limit:
        raise _too_large(limit, len(data))
    if sum(map(data.count, (b"[", b"{", b","))) > MAX_ITEMS:
        _bad(f"more than {MAX_ITEMS} brackets and commas")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_int=_integer,
            parse_float=lambda _: _bad("a float"),
            parse_constant=lambda _: _bad("NaN or Infinity"),
        )
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise Malformed(
            "encoding.json",
            "expected canonical JSON, got something else",
            hint="the file is cut, or was edited by hand",
        ) from None
    if dumps(value) != data:
        _bad("another spelling of the same value")
    return value


def b64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 §4), as DSSE uses it."""
    return base64.b64encode(data).decode("ascii")


def unb64(text: str) -> bytes:
    """Bytes of canonical standard base64. Raises Malformed on any other spelling."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        data = None
    if data is None or b64(data) != text:
        raise Malformed("encoding.base64", "expected canonical base64, got something else")
    return data


def sha256(*parts: bytes) -> bytes:
    """SHA-256 (FIPS 180-4) of the concatenation of ``parts``: 32 bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def framed(*parts: bytes) -> bytes:
    """An injective concatenation: each part preceded by its length as 8 bytes, big-endian.

    Used wherever several values are hashed or bound together, so that no two different lists of
    parts give the same bytes.
    """
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
