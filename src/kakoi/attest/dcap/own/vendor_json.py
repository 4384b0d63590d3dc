"""JSON as a vendor signed it: bounded, without duplicate keys, floats or trailing text. Not our canonical JSON.

Unknown members are tolerated: the bytes are the vendor's own, and Intel adds members within a version. Every member
that is read has to have its type and form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from kakoi.core.errors import Malformed

MAX_BYTES: Final = 1024 * 1024
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})*")


def bad(what: str, expected: str, got: str) -> Malformed:
    """The error for vendor JSON of another form."""
    return Malformed(
        "dcap.vendor-json", f"{what}: expected {expected}, got {got}", hint="fetch the collateral from the vendor again"
    )


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise bad("vendor JSON", "each member once", "a repetition")
    return out


def _no(_: str) -> NoReturn:
    raise bad("vendor JSON", "whole numbers", "another number")


def load(data: bytes, what: str) -> dict[str, Any]:
    """The object in ``data``. Raises Malformed ``dcap.vendor-json``."""
    if len(data) > MAX_BYTES:
        raise bad(what, f"at most {MAX_BYTES} bytes", str(len(data)))
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_float=_no, parse_constant=_no)
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise bad(what, "JSON", "something else") from None
    if not isinstance(value, dict):
        raise bad(what, "an object", "something else")
    return value


def number(members: Mapping[str, Any], name: str, most: int) -> int:
    """A whole number from 0 to ``most``."""
    value = members.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise bad(name, f"a number from 0 to {most}", "another value or none")
    return value


def text(members: Mapping[str, Any], name: str, most: int = 64) -> str:
    """A short text."""
    value = members.get(name)
    if type(value) is not str or not 0 < len(value) <= most or not value.isprintable():
        raise bad(name, f"text of 1 to {most} characters", "another value or none")
    return value


def octets(members: Mapping[str, Any], name: str, size: int) -> bytes:
    """Exactly ``size`` bytes, written in hex of either case."""
    value = members.get(name)
    if type(value) is not str or len(value) != 2 * size or not _HEX.fullmatch(value):
        raise bad(name, f"{size} bytes in hex", "another value or none")
    return bytes.fromhex(value)


def date(members: Mapping[str, Any], name: str) -> int:
    """A UTC date in whole seconds, as seconds since the epoch."""
    value = members.get(name)
    if type(value) is str and _DATE.fullmatch(value):
        try:
            return int(datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
        except ValueError:
            pass
    raise bad(name, "a UTC date", "another value or none")


def objects(members: Mapping[str, Any], name: str, most: int) -> list[Mapping[str, Any]]:
    """A list of at most ``most`` objects."""
    value = members.get(name)
    if type(value) is not list or len(value) > most or not all(isinstance(item, dict) for item in value):
        raise bad(name, f"a list of at most {most} objects", "another value or none")
    return value


def member(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object."""
    value = members.get(name)
    if not isinstance(value, dict):
        raise bad(name, "an object", "another value or none")
    return value


def texts(members: Mapping[str, Any], name: str, most: int) -> tuple[str, ...]:
    """An optional list of short texts; missing means empty."""
    value = members.get(name, [])
    if type(value) is not list or len(value) > most:
        raise bad(name, f"a list of at most {most} texts", "another value")
    return tuple(text({name: item}, name) for item in value)
