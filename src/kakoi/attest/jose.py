"""JSON, base64url and keys as other vendors write them (RFC 8259, 4648 §5, 7517), read strictly.

Not our canonical JSON: the bytes are another's, and members may come in any order. Refused are duplicate members,
fractions, infinities, text that is not UTF-8, more than 256 KiB, and any second spelling of base64url.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from kakoi.core.errors import Malformed
from kakoi.core.keys import Curve, PublicKey, ec_key, rsa_key

MAX_JSON_BYTES: Final = 256 * 1024
_MAX_DIGITS: Final = 16
_MAX_ITEMS: Final = 20_000
_CURVES: Final[Mapping[str, Curve]] = {"P-256": "P-256", "P-384": "P-384", "P-521": "P-521"}

Members = Mapping[str, Any]


def bad(what: str, expected: str, got: str) -> Malformed:
    """The error for vendor JSON, base64url or a key of another form. ``got`` never quotes the input."""
    return Malformed(
        "evidence.malformed",
        f"{what}: expected {expected}, got {got}",
        hint="the bytes were cut or changed on the way, or are of another format",
    )


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise bad("JSON", "each member once", "a repetition")
    return found


def _no(_: str) -> NoReturn:
    raise bad("JSON", "whole numbers", "another number")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise bad("JSON", f"numbers of at most {_MAX_DIGITS} digits", "a longer one")
    return int(digits)


def load(data: bytes, what: str) -> dict[str, Any]:
    """The object in ``data``. Raises Malformed ``evidence.malformed``."""
    if len(data) > MAX_JSON_BYTES or sum(map(data.count, (b"[", b"{", b","))) > _MAX_ITEMS:
        raise bad(what, f"JSON of at most {MAX_JSON_BYTES} bytes and {_MAX_ITEMS} items", "more")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_pairs, parse_int=_integer, parse_float=_no, parse_constant=_no
        )
    except (ValueError, RecursionError):
        raise bad(what, "JSON", "something else") from None
    if not isinstance(value, dict):
        raise bad(what, "an object", "something else")
    return value


def text(members: Members, name: str, what: str, *, most: int = 4096) -> str:
    """A text member of 1 to ``most`` characters."""
    value = members.get(name)
    if type(value) is not str or not 1 <= len(value) <= most:
        raise bad(what, f"text of at most {most} characters as {name}", "another value or none")
    return value


def number(members: Members, name: str, what: str) -> int:
    """A member that is a whole number from 0 to 2^40, such as a NumericDate (RFC 7519 §2)."""
    value = members.get(name)
    if type(value) is not int or not 0 <= value <= 2**40:
        raise bad(what, f"a whole number as {name}", "another value or none")
    return value


def member(members: Members, name: str, what: str) -> Members:
    """A member that is an object."""
    value = members.get(name)
    if not isinstance(value, dict):
        raise bad(what, f"an object as {name}", "another value or none")
    return value


def items(members: Members, name: str, what: str, *, most: int) -> list[Any]:
    """A member that is a list of 1 to ``most`` entries."""
    value = members.get(name)
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise bad(what, f"a list of 1 to {most} entries as {name}", "another value or none")
    return value


def unb64url(value: str, what: str) -> bytes:
    """Bytes of unpadded base64url in its one canonical spelling. Raises Malformed."""
    try:
        data = base64.b64decode(value.encode("ascii") + b"=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        data = None
    if data is None or b64url(data) != value:
        raise bad(what, "base64url without padding", "another spelling")
    return data


def b64url(data: bytes) -> str:
    """Unpadded base64url (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unsigned(key: Members, name: str) -> int:
    data = unb64url(text(key, name, "JSON web key"), "JSON web key")
    if data[:1] == b"\0":
        raise bad("JSON web key", f"{name} without leading zeros", "some")
    return int.from_bytes(data, "big")


def public_key(key: Members) -> PublicKey:
    """The RSA or elliptic-curve key of a JSON web key (RFC 7518 §6.2, 6.3). Raises Malformed, also for private keys."""
    kind = text(key, "kty", "JSON web key", most=8)
    if "d" in key:
        raise bad("JSON web key", "a public key", "a private one")
    if kind == "RSA":
        return rsa_key(_unsigned(key, "n"), _unsigned(key, "e"))
    curve = text(key, "crv", "JSON web key", most=8)
    if kind != "EC" or curve not in _CURVES:
        raise bad("JSON web key", "RSA or EC on P-256, P-384 or P-521", "another kind")
    x, y = (unb64url(text(key, name, "JSON web key"), "JSON web key") for name in "xy")
    return ec_key(_CURVES[curve], x + y)
