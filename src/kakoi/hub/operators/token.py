"""Judging an ID token (OpenID Connect Core 1.0 §3.1.3.7; RFC 8725). Pure but for the library that verifies the signature.

``verify`` is the only way from a token to an operator. Its steps:

1. Form: three parts of base64url, at most 16 KiB; the header has nothing but ``alg``, ``kid``, ``typ`` (JWT), ``x5t``, ``x5t#S256``:
   keys and addresses in a token (``jwk``, ``jku``, ``x5u``) and ``crit`` are refused, not ignored.
2. Algorithm: one of ``ALGORITHMS``, all of them public-key signatures. ``none`` and HMAC are not among them, whatever key there is
   (CVE-2015-9235, CVE-2024-33663).
3. Key: the issuer's own, by ``kid``, of the kind and curve that the algorithm has, meant for signatures.
4. Signature: over header and claims as they stand.
5. ``iss`` is the issuer; ``aud`` is this client and nobody else; ``azp``, if there, is this client.
6. Time, by the hub's clock: not expired, not from the future, issued in the last ten minutes; signed in at the issuer not longer
   ago than was asked for (``auth_time``).
7. ``nonce`` is that of the sign-in that this browser began.
8. Factors: ``acr`` is one of those required; ``amr`` holds one of the required sets of methods.
9. ``sub`` is an operator.

Considered and not done: ``at_hash`` (§3.1.3.6), because the access token is never used; ``c_hash``, because no code came through the browser
beside the token; UserInfo, because what decides stands in the signed token.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.hub.operators.settings import Operator, OperatorSettings

ALGORITHMS: Final[Mapping[str, tuple[str, str]]] = {
    "RS256": ("RSA", ""),
    "PS256": ("RSA", ""),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Kind of key, and curve, that each algorithm has."""
SKEW: Final = 30
LONGEST_AGE: Final = 600
_MOST_BYTES: Final = 16 * 1024
_MOST_KEYS: Final = 64
_LEAST_MODULUS: Final = 342
"""Characters of base64url: 2048 bits."""
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\Z")
_HEADER: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A public key of an issuer, for one algorithm or for all that its kind has."""

    kind: str
    curve: str
    algorithm: str
    """Empty: not named."""
    members: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What one sign-in must lead to."""

    nonce: str
    max_age: int
    """Seconds since the operator signed in at the issuer."""


def read_keys(document: Mapping[str, Any]) -> dict[str, Key]:
    """Keys of a JSON Web Key Set (RFC 7517) by ``kid``: public, for signatures, large enough. Others are left out; two with one ``kid`` too."""
    found: dict[str, Key] = {}
    twice: set[str] = set()
    entries = document.get("keys")
    for entry in entries[:_MOST_KEYS] if isinstance(entries, list) else ():
        key, kid = _key(entry), entry.get("kid") if isinstance(entry, dict) else None
        if key is not None and isinstance(kid, str):
            twice |= {kid} & found.keys()
            found[kid] = key
    return {kid: key for kid, key in found.items() if kid not in twice}


def _key(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry or "k" in entry:
        return None
    if "verify" not in entry.get("key_ops", ["verify"]):
        return None
    kind, curve, algorithm = entry.get("kty"), entry.get("crv", ""), entry.get("alg", "")
    if kind == "RSA" and len(str(entry.get("n", ""))) < _LEAST_MODULUS:
        return None
    if (kind, curve) not in ALGORITHMS.values() or algorithm not in ("", *ALGORITHMS):
        return None
    return Key(kind=str(kind), curve=str(curve), algorithm=str(algorithm), members=entry)


def header_of(token: str) -> tuple[str, str]:
    """Algorithm and ``kid`` of a token that nothing is known of yet (steps 1 and 2). Raises Malformed or Refused."""
    if len(token) > _MOST_BYTES or not _FORM.match(token):
        raise _malformed("a signed token of at most 16 KiB")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise _malformed("a token with a header") from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if set(header) - _HEADER or str(header.get("typ", "JWT")).upper() != "JWT" or not isinstance(kid, str):
        raise _malformed("a header with alg, kid and typ JWT, and no key or address in it")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Refused("operators.algorithm", f"expected a token signed by one of {', '.join(ALGORITHMS)}, got another")
    return algorithm, kid


def verify(token: str, key: Key, settings: OperatorSettings, expected: Expected, now: int) -> Operator:
    """The operator for whom the issuer vouches. Raises Malformed or Refused; the module's docstring has the steps."""
    algorithm, _ = header_of(token)
    claims = _signed(token, key, algorithm)
    _check_audience(claims, settings)
    _check_time(claims, expected, now)
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(sha256(nonce.encode()), sha256(expected.nonce.encode())):
        raise Refused("operators.nonce", "expected the answer to the sign-in that this browser began, got another's")
    _check_factors(claims, settings)
    operator = settings.operators.get(str(claims.get("sub")))
    if operator is None:
        raise Refused(
            "operators.stranger",
            "expected somebody who is an operator of this hub, got another person",
            hint="operators are named by their subject in operators.toml",
        )
    return operator


def _signed(token: str, key: Key, algorithm: str) -> dict[str, Any]:
    if ALGORITHMS[algorithm] != (key.kind, key.curve) or key.algorithm not in ("", algorithm):
        raise Refused("operators.key", "expected a key that the token's algorithm can have, got one of another kind")
    try:
        public = jwt.PyJWK(dict(key.members), algorithm=algorithm)
        payload = jwt.PyJWS().decode_complete(token, public, algorithms=[algorithm])["payload"]
        claims = json.loads(payload, object_pairs_hook=_once)
    except jwt.PyJWTError:
        raise Refused("operators.signature", "expected a token signed by its issuer, got another") from None
    except KakoiError:
        raise
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise _malformed("claims as a JSON object")
    return claims


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _malformed("each claim once")
    return found


def _check_audience(claims: Mapping[str, Any], settings: OperatorSettings) -> None:
    if claims.get("iss") != settings.issuer:
        raise Refused("operators.issuer", "expected a token of the configured issuer, got another's")
    if claims.get("aud") not in (settings.client_id, [settings.client_id]):
        raise Refused("operators.audience", "expected a token for this hub and nobody else, got one for others")
    if claims.get("azp", settings.client_id) != settings.client_id:
        raise Refused("operators.audience", "expected a token given to this hub, got one given to another party")


def _check_time(claims: Mapping[str, Any], expected: Expected, now: int) -> None:
    issued, expires = _seconds(claims, "iat"), _seconds(claims, "exp")
    begins = _seconds(claims, "nbf") if "nbf" in claims else issued
    if not (now - LONGEST_AGE <= issued <= now + SKEW and begins <= now + SKEW and now - SKEW < expires):
        raise Refused(
            "operators.expired",
            "expected a token of this moment, got one that is old or from the future",
            hint="sign in again; do the clocks of hub and issuer agree?",
        )
    if not now - expected.max_age - SKEW <= _seconds(claims, "auth_time") <= now + SKEW:
        raise Refused("operators.expired", "expected somebody who has just signed in, got somebody who did so long ago")


def _seconds(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise _malformed(f"seconds as {name}")
    return int(value)


def _check_factors(claims: Mapping[str, Any], settings: OperatorSettings) -> None:
    methods = claims.get("amr", [])
    used = {item for item in methods if isinstance(item, str)} if isinstance(methods, list) else set()
    acr_fits = not settings.acr or claims.get("acr") in settings.acr
    amr_fits = not settings.amr or any(wanted <= used for wanted in settings.amr)
    if not acr_fits or not amr_fits:
        raise Refused(
            "operators.factors",
            "expected a sign-in with the factors that this hub asks for, got one with fewer",
            hint="sign in at the issuer with a second factor",
        )


def _malformed(what: str) -> Malformed:
    return Malformed("operators.token", f"expected {what}, got something else")
