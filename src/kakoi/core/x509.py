"""X.509 certificates and revocation lists (RFC 5280), read strictly and judged at a given time.

Own reading of the to-be-signed part, for three reasons: AMD's chip certificates have serial number 0, which the common
library is about to reject; only the algorithms that hardware vendors use are accepted, by their exact encoding; and
no byte may be left unread. Signatures are checked by ``core.keys``.

``verify_chain`` is the only way to a ``VerifiedChain``.

Not done on purpose: name constraints, certificate policies and subject alternative names (no attestation chain has
critical ones; an unknown critical extension refuses the certificate), RFC 5280 name folding (names are compared byte
for byte, which can only refuse more), delta and indirect CRLs (refused as unknown critical extensions).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Literal

from kakoi.core import der
from kakoi.core import x509_fields as fields
from kakoi.core.encoding import sha256
from kakoi.core.errors import Refused
from kakoi.core.keys import PublicKey, from_spki
from kakoi.core.sealed import Sealed
from kakoi.core.x509_fields import Extension

MAX_CERTIFICATE_BYTES: Final = 16 * 1024
MAX_CRL_BYTES: Final = 4 * 1024 * 1024
MAX_CHAIN: Final = 16

_UNDERSTOOD: Final = frozenset({fields.BASIC_CONSTRAINTS, fields.KEY_USAGE})
_KEY_CERT_SIGN: Final = 5
_CRL_SIGN: Final = 6
_DIGITAL_SIGNATURE: Final = 0
_CRL_NUMBER: Final = "2.5.29.20"
_FORGED: Final = "nobody can mend this: the chain is not one that the vendor made"
_WRONG_LIST: Final = "whoever fetches collateral can mend this: send the lists of this chain's issuers, and no others"
_STALE: Final = "whoever fetches collateral can mend this: fetch it anew from the vendor; and check the clock"
_VENDOR: Final = "only the vendor can mend this: replace the machine, or ask for a new certificate"


def _refuse(code: str, message: str, hint: str) -> Refused:
    return Refused(f"x509.{code}", message, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A parsed, **unverified** certificate. Times are seconds since the epoch."""

    der: bytes
    signed: bytes
    algorithm: bytes
    signature: bytes
    serial: int
    issuer: bytes
    subject: bytes
    common_name: str
    """Subject common name; empty if there is none or more than one."""
    not_before: int
    not_after: int
    public_key: PublicKey
    extensions: Mapping[str, Extension]
    is_ca: bool
    path_length: int | None
    key_usage: frozenset[int] | None
    """Set bits of KeyUsage (RFC 5280 §4.2.1.3), None if the extension is missing."""

    @property
    def spki_sha256(self) -> str:
        """Hex SHA-256 of the public key."""
        return self.public_key.spki_sha256

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the whole certificate."""
        return sha256(self.der).hex()

    def extension(self, oid: str) -> bytes:
        """The DER value of an extension. Raises Malformed if it is missing."""
        if oid not in self.extensions:
            raise fields.bad(f"certificate {self.common_name!r}", f"an extension {oid}", "none")
        return self.extensions[oid].value

    def signed_by(self, issuer: Certificate) -> None:
        """Raise Refused unless this certificate's signature and issuer name are ``issuer``'s."""
        what = f"certificate {self.common_name!r}"
        if self.issuer != issuer.subject:
            raise _refuse("issuer", f"{what}: expected issuer {issuer.common_name!r}, got another", _FORGED)
        _check_signature(issuer.public_key, self.algorithm, self.signature, self.signed, what)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A parsed, **unverified** CRL."""

    der: bytes
    signed: bytes
    algorithm: bytes
    signature: bytes
    issuer: bytes
    this_update: int
    next_update: int
    revoked: frozenset[int]
    number: int | None

    def verify(self, issuer: Certificate, now: int) -> None:
        """Raise Refused unless this list is ``issuer``'s and in its window at ``now``."""
        what = f"revocation list of {issuer.common_name!r}"
        if self.issuer != issuer.subject:
            raise _refuse("crl-issuer", f"{what}: expected to be issued by it, got another issuer", _WRONG_LIST)
        if issuer.key_usage is not None and _CRL_SIGN not in issuer.key_usage:
            raise _refuse("key-usage", f"{what}: expected an issuer that may sign lists", _FORGED)
        _check_signature(issuer.public_key, self.algorithm, self.signature, self.signed, what)
        _in_window(what, "crl-window", self.this_update, self.next_update, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """The lists against which a chain is judged. Every certificate but the root must be covered by one.

    ``uncovered_leaf`` is the reason why the leaf's issuer publishes no list; empty means that the leaf needs one.
    """

    lists: Sequence[RevocationList]
    uncovered_leaf: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRevocation:
    """The vendor publishes no revocation list for this kind of chain, or policy leaves it out; says why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChain(metaclass=Sealed):
    """A chain that ``verify_chain`` accepted. Leaf first, pinned root last."""

    certificates: tuple[Certificate, ...]
    verified_at: int
    valid_from: int
    """First second at which every certificate and list used is in its window."""
    valid_until: int
    """Last such second."""
    unchecked: str
    """Why revocation was not checked, wholly or for the leaf; empty if it was."""

    @property
    def leaf(self) -> Certificate:
        """The certificate whose key signs evidence or collateral."""
        return self.certificates[0]

    @property
    def root_spki_sha256(self) -> str:
        """Which pinned root the chain ends in."""
        return self.certificates[-1].spki_sha256


def _check_signature(key: PublicKey, algorithm: bytes, signature: bytes, signed: bytes, what: str) -> None:
    scheme, hash_name = fields.ALGORITHMS[algorithm]
    if scheme == "ecdsa":
        key.verify_ecdsa(signature, signed, hash_name, what)
    elif scheme == "rsa-pss":
        key.verify_rsa_pss(signature, signed, hash_name, what)
    else:
        key.verify_rsa_pkcs1(signature, signed, hash_name, what)


def _in_window(what: str, code: str, start: int, end: int, now: int) -> None:
    if not start <= now <= end:
        when = "not yet valid" if now < start else "expired"
        raise _refuse(
            code,
            f"{what}: expected to be valid at {utc(now)}, got {when} (valid {utc(start)} to {utc(end)})",
            _STALE,
        )


def utc(seconds: int) -> str:
    """Seconds since the epoch as RFC 3339 text, for messages."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


# --- parsing ---------------------------------------------------------------------------------------------------------


def parse_certificate(data: bytes) -> Certificate:
    """A certificate from exactly ``data`` (DER). Raises Malformed ``x509.malformed``, ``der.encoding``."""
    what = "certificate"
    signed, items, algorithm, signature = fields.envelope(data, MAX_CERTIFICATE_BYTES, what)
    if [tag for tag, _ in items] != [fields.TAG_0, der.INTEGER, *[der.SEQUENCE] * 5, fields.TAG_3]:
        raise fields.bad(what, "version 3 with extensions and no unique identifiers", "another form")
    version, serial, inner, issuer, validity, subject, spki, extra = (value for _, value in items)
    if der.one(version, der.INTEGER) != b"\x02" or inner != algorithm:
        raise fields.bad(what, "version 3 and the same algorithm inside and outside", "another")
    dates = der.items(validity)
    if len(dates) != 2:
        raise fields.bad(what, "two dates", str(len(dates)))
    extensions = fields.extensions(extra, what)
    is_ca, path_length = fields.basic_constraints(extensions)
    return Certificate(
        der=data, signed=signed, algorithm=algorithm, signature=signature, serial=der.integer(serial), issuer=issuer,
        subject=subject, common_name=fields.common_name(subject), not_before=fields.time(*dates[0]), not_after=fields.time(*dates[1]),
        public_key=from_spki(der.write(der.SEQUENCE, spki)), extensions=MappingProxyType(extensions), is_ca=is_ca,
        path_length=path_length, key_usage=fields.key_usage(extensions),
    )  # fmt: skip


def parse_crl(data: bytes) -> RevocationList:
    """A version-2 revocation list from exactly ``data`` (DER, at most 4 MiB). Raises Malformed."""
    what = "revocation list"
    signed, items, algorithm, signature = fields.envelope(data, MAX_CRL_BYTES, what)
    if items and items[-1][0] == fields.TAG_0:
        extensions = fields.extensions(items.pop()[1], what)
    else:
        raise fields.bad(what, "a version-2 list with extensions", "none")
    has_entries = bool(items) and items[-1][0] == der.SEQUENCE and len(items) == 6
    entries = der.items(items.pop()[1]) if has_entries else []
    times = (fields.UTC_TIME, fields.GENERALIZED_TIME)
    tags = [tag for tag, _ in items]
    if tags[:3] != [der.INTEGER, der.SEQUENCE, der.SEQUENCE] or len(tags) != 5 or not all(t in times for t in tags[3:]):
        raise fields.bad(what, "version, algorithm, issuer and both dates", "another form")
    if items[0][1] != b"\x01" or items[1][1] != algorithm:
        raise fields.bad(what, "version 2 and the same algorithm inside and outside", "another")
    if any(extension.critical for extension in extensions.values()):
        raise fields.bad(what, "no critical extension", "one, such as a delta or partial list")
    number = extensions.get(_CRL_NUMBER)
    return RevocationList(
        der=data, signed=signed, algorithm=algorithm, signature=signature, issuer=items[2][1],
        this_update=fields.time(*items[3]), next_update=fields.time(*items[4]), revoked=_revoked(entries),
        number=der.integer(der.one(number.value, der.INTEGER)) if number else None,
    )  # fmt: skip


def _revoked(entries: list[tuple[int, bytes]]) -> frozenset[int]:
    serials = set()
    for tag, entry in entries:
        parts = der.items(entry) if tag == der.SEQUENCE else []
        if len(parts) not in (2, 3) or parts[0][0] != der.INTEGER:
            raise fields.bad("revocation list", "entries with a serial and a date", "another form")
        fields.time(*parts[1])
        if len(parts) == 3 and any(
            e.critical for e in fields.extensions(der.write(*parts[2]), "revocation entry").values()
        ):
            raise fields.bad("revocation list", "no critical entry extension", "one")
        serials.add(der.integer(parts[0][1]))
    return frozenset(serials)


def parse_pem_chain(data: bytes, count: int) -> tuple[Certificate, ...]:
    """Exactly ``count`` PEM certificates and nothing else but line ends. Raises Malformed."""
    return tuple(parse_certificate(body) for body in fields.pem_bodies(data, count, MAX_CERTIFICATE_BYTES))


# --- judging ---------------------------------------------------------------------------------------------------------


def verify_chain(
    chain: Sequence[Certificate],
    *,
    roots: Collection[str],
    now: int,
    revocation: Revocation | NoRevocation,
    leaf: Literal["end-entity", "ca"] = "end-entity",
) -> VerifiedChain:
    """A chain (leaf first, self-signed root last) that is good at ``now`` and ends in a pinned root.

    1. The last certificate's public key is one of ``roots`` (hex SHA-256 of SubjectPublicKeyInfo) and signs itself.
    2. Each certificate is signed by the next and names it as issuer (RFC 5280 §6.1.3 a).
    3. Each is in its validity window.
    4. Issuers are CAs, within their path length, and may sign certificates (§6.1.4 k-n); the leaf is no
       CA, unless the caller asks for the chain of a CA (``leaf="ca"``, for the issuer of a list).
    5. No certificate has a critical extension that is not understood (§6.1.4 o).
    6. Every certificate but the root is covered by a list that its issuer signed, in its window, and is not on it.

    Raises Refused ``x509.root``, ``.issuer``, ``.signature``, ``.window``, ``.ca``, ``.path-length``, ``.key-usage``,
    ``.critical-extension``, ``.crl-*``, ``.revoked``; Malformed for an empty or too long chain.
    """
    if not 1 < len(chain) <= MAX_CHAIN:
        raise fields.bad("certificate chain", f"2 to {MAX_CHAIN} certificates", str(len(chain)))
    root = chain[-1]
    if root.spki_sha256 not in roots:
        raise _refuse(
            "root",
            f"root of the chain: expected a pinned key, got {root.spki_sha256} ({root.common_name!r})",
            "the evidence comes from another vendor, or from a test root",
        )
    for certificate, issuer in zip(chain, [*chain[1:], root], strict=True):
        certificate.signed_by(issuer)
        what = f"certificate {certificate.common_name!r}"
        _in_window(what, "window", certificate.not_before, certificate.not_after, now)
        unknown = [oid for oid, e in certificate.extensions.items() if e.critical and oid not in _UNDERSTOOD]
        if unknown:
            raise _refuse("critical-extension", f"{what}: unknown critical extension {unknown[0]}", _VENDOR)
    if leaf == "end-entity":
        _leaf(chain[0])
    for depth, issuer in enumerate(chain[1:] if leaf == "end-entity" else chain):
        _issuer(issuer, depth)
    starts = [certificate.not_before for certificate in chain]
    ends = [certificate.not_after for certificate in chain]
    if isinstance(revocation, NoRevocation):
        unchecked = revocation.reason
    else:
        used = _revocation(chain, revocation, now)
        starts += [crl.this_update for crl in used]
        ends += [crl.next_update for crl in used]
        unchecked = revocation.uncovered_leaf
    return VerifiedChain._seal(
        certificates=tuple(chain), verified_at=now, valid_from=max(starts), valid_until=min(ends), unchecked=unchecked
    )


def _leaf(leaf: Certificate) -> None:
    what = f"certificate {leaf.common_name!r}"
    if leaf.is_ca:
        raise _refuse("ca", f"{what}: expected no CA as leaf, got one", _FORGED)
    if leaf.key_usage is not None and _DIGITAL_SIGNATURE not in leaf.key_usage:
        raise _refuse("key-usage", f"{what}: expected a key for digital signatures, got another", _FORGED)


def _issuer(issuer: Certificate, below: int) -> None:
    """``below``: number of CA certificates between this issuer and the leaf."""
    what = f"certificate {issuer.common_name!r}"
    if not issuer.is_ca:
        raise _refuse("ca", f"{what}: expected a CA, got none", _FORGED)
    if issuer.path_length is not None and below > issuer.path_length:
        raise _refuse("path-length", f"{what}: expected at most {issuer.path_length} CAs below, got {below}", _FORGED)
    if issuer.key_usage is None or _KEY_CERT_SIGN not in issuer.key_usage:
        raise _refuse("key-usage", f"{what}: expected a key that may sign certificates, got another", _FORGED)


def _revocation(chain: Sequence[Certificate], revocation: Revocation, now: int) -> list[RevocationList]:
    """The lists used."""
    used: list[RevocationList] = []
    exempt = chain[0] if revocation.uncovered_leaf else None
    for certificate, issuer in pairwise(chain):
        what = f"certificate {certificate.common_name!r}"
        lists = [crl for crl in revocation.lists if crl.issuer == issuer.subject]
        if not lists and certificate is not exempt:
            raise _refuse("crl-missing", f"{what}: expected a revocation list of its issuer, got none", _WRONG_LIST)
        for crl in lists:
            crl.verify(issuer, now)
            if certificate.serial in crl.revoked:
                raise _refuse("revoked", f"{what}: expected not to be revoked, got revoked by the vendor", _VENDOR)
            used.append(crl)
    if any(crl not in used for crl in revocation.lists):
        raise _refuse(
            "crl-issuer", "revocation lists: expected only lists of this chain's issuers, got another", _WRONG_LIST
        )
    return used
