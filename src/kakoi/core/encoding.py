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
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from kakoi.core.errors import Malformed

Json = Any
MAX_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 24
MAX_OBJECT_BYTES: Final = 8 * 1024 * 1024


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


def _check(value: object, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        _bad(f"nesting deeper than {MAX_DEPTH}")
    if value is None or isinstance(value, (bool, str)):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            _bad("an integer beyond 2^53-1")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                _bad("a key that is not text")
            _check(item, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        for item in value:
            _check(item, depth + 1)
    else:
        _bad(f"a value of type {type(value).__name__}")


def dumps(value: Json) -> bytes:
    """The canonical bytes of a JSON value. Raises Malformed for floats and other foreign values."""
    _check(value)
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
            "utf-8"
        )
    except UnicodeEncodeError:
        _bad("text with a lone surrogate")


def loads(data: bytes, *, limit: int = MAX_OBJECT_BYTES) -> Json:
    """The JSON value of canonical bytes of at most ``limit`` bytes. Raises Malformed otherwise."""
    if len(data) > limit:
        raise Malformed(
            "encoding.size",
            f"expected at most {limit} bytes, got {len(data)}",
            hint="the object is larger than its format allows",
        )
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_float=lambda _: _bad("a float"),
            parse_constant=lambda _: _bad("NaN or Infinity"),
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, Malformed):
            raise
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
