"""Tokens of attestation services: who issued one, and whether it is in its time.

``verify`` is the only way to a ``VerifiedToken``. Its steps (RFC 7519 §7.2; RFC 8725; RFC 7515 §4.1.6):

1. The algorithm is the service's own: RS256 (Azure, Google), PS384 (Intel). One service, one algorithm: a token cannot
   choose another key's meaning (RFC 8725 §3.1).
2. The key is found out of band: in a given key set by ``kid``, exactly once, or, for Google, in the header's ``x5c``.
   Addresses in the token (``jku``) are never followed, keys in it (``jwk``) never taken.
3. The key is anchored. Either its own SHA-256 (SubjectPublicKeyInfo) is one of the anchors, or a certificate chain (of the
   key set or the header) certifies exactly this key and ends in an anchor; signatures, CA flags, path lengths and
   windows hold at ``now``.
4. The signature is this key's over header and claims as they stand.
5. ``iss`` is one of the service. ``exp``, ``iat`` and, if present, ``nbf`` are whole seconds: issued and not before at most
   60 seconds ahead of ``now``, not expired, and living at most a day. The token's age is judged by the policy.

A token replaces the verifier: whoever accepts one adds Microsoft, Google or Intel to the trusted base, in place of looking
at the hardware's evidence. It is therefore an addition to raw evidence, never instead, unless a contract says so.

Not checked, and why: revocation of issuer certificates (Azure's and Google's key services publish none for attesters;
leaf certificates of Google live two months, tokens an hour); ``jti`` (the challenge inside the token is the
freshness); Intel's ``verifier_nonce`` signature (its own service's matter). Tokens of NVIDIA's remote attestation service
are not accepted: devices are judged by their own reports (``attest.nvidia``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from kakoi.attest import jose
from kakoi.attest.jose import Members
from kakoi.attest.report import TokenService, refusal
from kakoi.attest.tokens.parse import Algorithm, Token, certificates
from kakoi.core.errors import Malformed
from kakoi.core.keys import PublicKey
from kakoi.core.sealed import Sealed
from kakoi.core.x509 import NoRevocation, parse_certificate, utc, verify_chain

Service = TokenService
SKEW: Final = 60
MAX_LIFETIME: Final = 86400
GOOGLE_ROOT: Final = "40b464f4d4ff947572c6b23869a7bccae3f69ba9c81ade6c09d035e4657e40c4"
"""SHA-256 of the public key of "Confidential Space Root CA", for policies to name."""
UNREVOKED: Final = "attestation services publish no revocation lists for their token keys"
_MAX_KEYS: Final = 64
_MAX_CHAIN: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    algorithm: Algorithm
    issuer: re.Pattern[str]
    header_chain: bool


_RULES: Final[Mapping[Service, _Rules]] = {
    "azure-maa": _Rules(
        algorithm="RS256",
        issuer=re.compile(r"https://[a-z0-9-]{1,64}(?:\.[a-z0-9-]{1,32})?\.attest\.azure\.net"),
        header_chain=False,
    ),
    "google-confidential-space": _Rules(
        algorithm="RS256", issuer=re.compile(r"https://confidentialcomputing\.googleapis\.com"), header_chain=True
    ),
    "intel-trust-authority": _Rules(
        algorithm="PS384",
        issuer=re.compile(r"Intel Trust Authority|https://[a-z.]{0,40}trustauthority\.intel\.com"),
        header_chain=False,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken(metaclass=Sealed):
    """A token that an anchored key signed, in its time."""

    service: Service
    issuer: str
    issued_at: int
    expires_at: int
    anchor: str
    """SHA-256 of the anchored public key: the signing key itself, or the root of its chain."""
    claims: Members


def verify(token: Token, service: Service, keys: bytes | None, *, anchors: Collection[str], now: int) -> VerifiedToken:
    """The token with what is proved about it, after the numbered steps of this module.

    ``keys``: the service's key set (JSON, RFC 7517 §5), fetched by whoever keeps collateral; ``anchors``: SHA-256 of
    accepted keys. Raises Malformed; Refused ``token.algorithm``, ``token.key``, ``token.anchor``, ``token.issuer``,
    ``token.time``, ``x509.*``.
    """
    rules = _RULES[service]
    if token.algorithm != rules.algorithm:  # step 1
        raise refusal("token.algorithm", "algorithm of the token", rules.algorithm, token.algorithm, "nobody")
    if token.chain and rules.header_chain:  # steps 2, 3
        key, anchor = _certified(token.chain, anchors, now)
    elif token.chain:
        raise refusal("token.key", "key of the token", "one of the key set", "a certificate in the token", "nobody")
    else:
        key, anchor = _from_set(token, keys, anchors, now)
    _check_signature(token, key)  # step 4
    issuer, issued, expires = _check_claims(token.claims, rules, now)  # step 5
    return VerifiedToken._seal(
        service=service, issuer=issuer, issued_at=issued, expires_at=expires, anchor=anchor, claims=token.claims
    )


def _certified(chain: tuple[bytes, ...], anchors: Collection[str], now: int) -> tuple[PublicKey, str]:
    """The key of the leaf of a chain that ends in an anchor, and that anchor."""
    parsed = [parse_certificate(der) for der in chain]
    verified = verify_chain(parsed, roots=anchors, now=now, revocation=NoRevocation(reason=UNREVOKED))
    return verified.leaf.public_key, verified.root_spki_sha256


def _from_set(token: Token, keys: bytes | None, anchors: Collection[str], now: int) -> tuple[PublicKey, str]:
    if keys is None:
        raise refusal("token.key", "key of the token", "a key set as collateral", "none", "owner-policy")
    entries = jose.items(jose.load(keys, "key set"), "keys", "key set", most=_MAX_KEYS)
    found = [entry for entry in entries if isinstance(entry, dict) and entry.get("kid") == token.key_id]
    if not token.key_id or len(found) != 1:
        got = "no key id" if not token.key_id else f"{len(found)} of them"
        raise refusal(
            "token.key", "key of the token", "exactly one key with its id in the key set", got, "platform-operator"
        )
    entry = found[0]
    if entry.get("use", "sig") != "sig" or entry.get("alg", token.algorithm) != token.algorithm:
        raise refusal(
            "token.key", "key of the token", f"a key for {token.algorithm}", "a key for another use", "nobody"
        )
    return _anchored(entry, anchors, now)


def _anchored(entry: Members, anchors: Collection[str], now: int) -> tuple[PublicKey, str]:
    """Step 3 for an entry of a key set."""
    if "n" not in entry and "x" not in entry and "x5c" in entry:  # Azure publishes certificates only
        leaf = parse_certificate(certificates(jose.items(entry, "x5c", "key set", most=_MAX_CHAIN))[0])
        key = leaf.public_key
    else:
        key = jose.public_key(entry)
    if key.spki_sha256 in anchors:
        return key, key.spki_sha256
    if "x5c" not in entry:
        raise refusal("token.anchor", "key of the token", "one of the anchors", key.spki_sha256, "owner-policy")
    certified, anchor = _certified(certificates(jose.items(entry, "x5c", "key set", most=_MAX_CHAIN)), anchors, now)
    if certified.spki != key.spki:
        raise refusal(
            "token.anchor", "certificate of the token's key", key.spki_sha256, certified.spki_sha256, "nobody"
        )
    return key, anchor


def _check_signature(token: Token, key: PublicKey) -> None:
    if token.algorithm == "RS256":
        key.verify_rsa_pkcs1(token.signature, token.signed, "sha256", "the token")
    elif token.algorithm == "PS384":
        key.verify_rsa_pss(token.signature, token.signed, "sha384", "the token")
    elif key.kind == "P-384":
        key.verify_ecdsa_raw(token.signature, token.signed, "the token", hash_name="sha384")
    else:
        raise refusal("token.key", "key of the token", "an ECDSA key on P-384", key.kind, "nobody")


def _check_claims(claims: Members, rules: _Rules, now: int) -> tuple[str, int, int]:
    """Issuer, issue time and expiry, after they were found to be in order."""
    issuer = jose.text(claims, "iss", "token claims", most=128)
    if not rules.issuer.fullmatch(issuer):
        raise refusal("token.issuer", "issuer of the token", "one of this service", repr(issuer), "owner-policy")
    issued, expires = (jose.number(claims, name, "token claims") for name in ("iat", "exp"))
    begins = jose.number(claims, "nbf", "token claims") if "nbf" in claims else issued
    if not 0 < expires - issued <= MAX_LIFETIME:
        raise Malformed("evidence.malformed", f"token: expected a lifetime of at most {MAX_LIFETIME} s, got another")
    if max(issued, begins) > now + SKEW or expires <= now:
        window = f"{utc(max(issued, begins))} to {utc(expires)}"
        raise refusal("token.time", "time of the token", f"valid at {utc(now)}", f"valid {window}", "platform-operator")
    return issuer, issued, expires
