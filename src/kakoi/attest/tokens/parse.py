"""JSON web tokens in compact form (RFC 7515, 7519): strict bytes to frozen objects.

Accepted: exactly three parts of canonical base64url, a header with ``alg``, ``typ``, ``kid``, ``jku`` and ``x5c`` only, claims that
are an object. Refused before anything is looked up: ``none`` and symmetric algorithms, ``crit``, ``jwk``, ``x5u`` and any other
header member, duplicate members, fractions. ``jku`` is tolerated because services write it, and never followed.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Literal

from kakoi.attest import jose
from kakoi.attest.jose import Members
from kakoi.core.errors import Malformed

MAX_BYTES: Final = 64 * 1024
Algorithm = Literal["RS256", "PS384", "ES384"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("RS256", "PS384", "ES384")
_HEADER: Final = frozenset({"alg", "typ", "kid", "jku", "x5c"})
_MAX_CHAIN: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A parsed, **unverified** token."""

    algorithm: Algorithm
    key_id: str
    chain: tuple[bytes, ...]
    """DER certificates of the header's ``x5c``, leaf first; empty if there is none."""
    claims: Members
    signed: bytes
    """Header and claims as they stand, with the dot between them."""
    signature: bytes


def _bad(expected: str, got: str) -> Malformed:
    return jose.bad("token", expected, got)


def certificates(values: list[object]) -> tuple[bytes, ...]:
    """DER certificates of an ``x5c`` member (RFC 7515 §4.1.6: standard base64). Raises Malformed."""
    found = []
    for value in values:
        try:
            data = base64.b64decode(value.encode("ascii"), validate=True) if isinstance(value, str) else b""
        except (binascii.Error, UnicodeEncodeError):
            data = b""
        if not data or base64.b64encode(data).decode("ascii") != value:
            raise _bad("certificates in canonical base64 as x5c", "something else")
        found.append(data)
    return tuple(found)


def parse(data: bytes) -> Token:
    """The token in ``data``. Raises Malformed ``evidence.malformed``."""
    if len(data) > MAX_BYTES:
        raise _bad(f"at most {MAX_BYTES} bytes", f"{len(data)}")
    try:
        parts = data.decode("ascii").split(".")
    except UnicodeDecodeError:
        raise _bad("ASCII", "something else") from None
    if len(parts) != 3:
        raise _bad("three parts", f"{len(parts)}")
    header_bytes, claim_bytes, signature = (jose.unb64url(part, "token") for part in parts)
    header = jose.load(header_bytes, "token header")
    if not header.keys() <= _HEADER or header.get("typ", "JWT") != "JWT":
        raise _bad("a header with alg, typ JWT, kid, jku and x5c only", "another")
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise _bad("RS256, PS384 or ES384", "another algorithm")
    chain = certificates(jose.items(header, "x5c", "token header", most=_MAX_CHAIN)) if "x5c" in header else ()
    return Token(
        algorithm=algorithm,
        key_id=jose.text(header, "kid", "token header", most=256) if "kid" in header else "",
        chain=chain,
        claims=jose.load(claim_bytes, "token claims"),
        signed=data[: data.rindex(b".")],
        signature=signature,
    )
