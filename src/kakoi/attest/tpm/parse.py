"""TPM 2.0 structures of a quote: strict bytes to frozen objects.

Source: TCG "Trusted Platform Module Library Part 2: Structures", 1.59: TPMS_ATTEST (10.12.8), TPMS_QUOTE_INFO (10.12.1),
TPML_PCR_SELECTION (10.9.7), TPMT_SIGNATURE (11.3.4), TPMT_PUBLIC (12.2.4). Big-endian. Sizes are bounded by the largest
digest (64 bytes), PCR selections by 16 banks of 4 bytes, RSA by 512 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from kakoi.core.cursor import Cursor
from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed
from kakoi.core.keys import HashName, PublicKey, ec_key, rsa_key

MAGIC: Final = 0xFF544347
TYPE_QUOTE: Final = 0x8018
MAX_BYTES: Final = 4096
MAX_DATA: Final = 66
"""TPM2B_DATA and TPM2B_NAME: a digest of up to 64 bytes and its algorithm."""
_MAX_BANKS: Final = 16
_MAX_SELECT: Final = 4
_MAX_RSA: Final = 512
_MAX_POINT: Final = 66

HASHES: Final[Mapping[int, HashName]] = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
ALGORITHMS: Final[Mapping[HashName, int]] = {name: number for number, name in HASHES.items()}
Scheme = Literal["rsassa", "ecdsa"]
_RSASSA: Final = 0x0014
_ECDSA: Final = 0x0018
_NULL: Final = 0x0010
_RSA: Final = 0x0001
_ECC: Final = 0x0023
_P256: Final = 0x0003

FIXED_TPM: Final = 1 << 1
FIXED_PARENT: Final = 1 << 4
SENSITIVE_DATA_ORIGIN: Final = 1 << 5
RESTRICTED: Final = 1 << 16
DECRYPT: Final = 1 << 17
SIGN: Final = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """PCRs of one bank. ``width`` is the number of bytes of the bit map."""

    hash_algorithm: int
    pcrs: tuple[int, ...]
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A parsed, **unverified** TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE."""

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    selections: tuple[Selection, ...]
    pcr_digest: bytes
    signed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A parsed TPMT_SIGNATURE. For ECDSA ``value`` is r‖s at the width of P-256."""

    scheme: Scheme
    hash_name: HashName
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicArea:
    """A parsed TPMT_PUBLIC of a signing key: RSA, or ECC on P-256."""

    attributes: int
    auth_policy: bytes
    key: PublicKey
    scheme: Scheme
    hash_name: HashName
    name: bytes
    """The object's Name (Part 1, 16): name algorithm and digest of the area."""


def _cursor(data: bytes, what: str) -> Cursor:
    cursor = Cursor(data, what, "big")
    if len(data) > MAX_BYTES:
        raise cursor.bad(f"at most {MAX_BYTES} bytes", f"{len(data)}")
    return cursor


def _hash(cursor: Cursor, field: str) -> HashName:
    number = cursor.number(2, field)
    if number not in HASHES:
        raise cursor.bad(f"SHA-256, SHA-384 or SHA-512 as {field}", f"algorithm {number:#06x}")
    return HASHES[number]


def _selection(cursor: Cursor) -> Selection:
    algorithm = cursor.number(2, "the hash algorithm of a bank")
    width = cursor.number(1, "the size of a selection")
    if not 1 <= width <= _MAX_SELECT:
        raise cursor.bad(f"1 to {_MAX_SELECT} bytes of PCR selection", f"{width}")
    bits = int.from_bytes(cursor.take(width, "a PCR selection"), "little")
    pcrs = tuple(index for index in range(8 * width) if bits >> index & 1)
    return Selection(hash_algorithm=algorithm, pcrs=pcrs, width=width)


def parse_quote(data: bytes) -> Quote:
    """A quote from exactly ``data``. Raises Malformed ``evidence.malformed``."""
    cursor = _cursor(data, "TPM quote")
    magic, kind = cursor.number(4, "the magic number"), cursor.number(2, "the type")
    if (magic, kind) != (MAGIC, TYPE_QUOTE):
        raise cursor.bad("TPM_GENERATED_VALUE and TPM_ST_ATTEST_QUOTE", f"{magic:#010x} and {kind:#06x}")
    signer = cursor.sized(2, MAX_DATA + 2, "the qualified signer")
    extra = cursor.sized(2, MAX_DATA, "the extra data")
    clock = cursor.number(8, "the clock")
    reset, restart = cursor.number(4, "the reset count"), cursor.number(4, "the restart count")
    safe = cursor.number(1, "the flag safe")
    if safe > 1:
        raise cursor.bad("yes or no as the flag safe", f"{safe}")
    firmware = cursor.number(8, "the firmware version")
    count = cursor.number(4, "the number of selections")
    if count > _MAX_BANKS:
        raise cursor.bad(f"at most {_MAX_BANKS} PCR selections", f"{count}")
    selections = tuple(_selection(cursor) for _ in range(count))
    digest = cursor.sized(2, 64, "the PCR digest")
    cursor.done()
    return Quote(
        qualified_signer=signer, extra_data=extra, clock=clock, reset_count=reset, restart_count=restart,
        safe=bool(safe), firmware_version=firmware, selections=selections, pcr_digest=digest, signed=data,
    )  # fmt: skip


def parse_signature(data: bytes) -> Signature:
    """An RSASSA or ECDSA (P-256) signature from exactly ``data``. Raises Malformed ``evidence.malformed``."""
    cursor = _cursor(data, "TPM signature")
    scheme = cursor.number(2, "the scheme")
    if scheme not in (_RSASSA, _ECDSA):
        raise cursor.bad("RSASSA or ECDSA", f"scheme {scheme:#06x}")
    hash_name = _hash(cursor, "the hash algorithm")
    if scheme == _RSASSA:
        value = cursor.sized(2, _MAX_RSA, "the RSA signature")
    else:
        parts = [cursor.sized(2, _MAX_POINT, f"the signature part {name}") for name in "rs"]
        if any(len(part) > 32 for part in parts):
            raise cursor.bad("signature parts of P-256", "longer ones")
        value = b"".join(part.rjust(32, b"\0") for part in parts)
    cursor.done()
    return Signature(scheme="rsassa" if scheme == _RSASSA else "ecdsa", hash_name=hash_name, value=value)


def _signing_scheme(cursor: Cursor) -> tuple[int, HashName]:
    """Symmetric must be null, and the scheme fixed: a key that lets its user choose is no attestation key."""
    if cursor.number(2, "the symmetric algorithm") != _NULL:
        raise cursor.bad("no symmetric algorithm in a signing key", "one")
    scheme = cursor.number(2, "the scheme")
    if scheme not in (_RSASSA, _ECDSA):
        raise cursor.bad("a key bound to RSASSA or ECDSA", f"scheme {scheme:#06x}")
    return scheme, _hash(cursor, "the hash algorithm of the scheme")


def _rsa(cursor: Cursor) -> tuple[PublicKey, int, HashName]:
    scheme, hash_name = _signing_scheme(cursor)
    bits = cursor.number(2, "the key size")
    exponent = cursor.number(4, "the exponent") or 65537
    modulus = cursor.sized(2, _MAX_RSA, "the modulus")
    if len(modulus) * 8 != bits or scheme != _RSASSA:
        raise cursor.bad(f"an RSASSA key of {bits} bits", f"a modulus of {len(modulus)} bytes or another scheme")
    return rsa_key(int.from_bytes(modulus, "big"), exponent), scheme, hash_name


def _ecc(cursor: Cursor) -> tuple[PublicKey, int, HashName]:
    scheme, hash_name = _signing_scheme(cursor)
    curve, kdf = cursor.number(2, "the curve"), cursor.number(2, "the key derivation")
    point = [cursor.sized(2, _MAX_POINT, f"the coordinate {name}") for name in "xy"]
    if curve != _P256 or kdf != _NULL or scheme != _ECDSA or any(len(part) > 32 for part in point):
        raise cursor.bad("an ECDSA key on P-256", "another key")
    return ec_key("P-256", b"".join(part.rjust(32, b"\0") for part in point)), scheme, hash_name


def parse_public(data: bytes) -> PublicArea:
    """The public area of a signing key from exactly ``data``. Raises Malformed ``evidence.malformed``, ``x509.public-key``."""
    cursor = _cursor(data, "TPM public area")
    kind = cursor.number(2, "the type")
    if kind not in (_RSA, _ECC):
        raise cursor.bad("an RSA or ECC key", f"type {kind:#06x}")
    if _hash(cursor, "the name algorithm") != "sha256":
        raise cursor.bad("SHA-256 as name algorithm", "another")
    attributes = cursor.number(4, "the attributes")
    policy = cursor.sized(2, 64, "the policy")
    key, scheme, hash_name = _rsa(cursor) if kind == _RSA else _ecc(cursor)
    cursor.done()
    return PublicArea(
        attributes=attributes,
        auth_policy=policy,
        key=key,
        scheme="rsassa" if scheme == _RSASSA else "ecdsa",
        hash_name=hash_name,
        name=data[2:4] + sha256(data),
    )


def check_attestation_key(area: PublicArea) -> PublicKey:
    """The key of ``area`` if it can sign only what the TPM itself made (Part 1, 25.1.5). Raises Malformed ``tpm.key``.

    Restricted, signing, not decrypting, made inside this TPM and unable to leave it.
    """
    wanted = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN
    if area.attributes & wanted != wanted or area.attributes & DECRYPT:
        raise Malformed(
            "tpm.key",
            "attestation key: expected fixedTPM, fixedParent, sensitiveDataOrigin, restricted, sign and not decrypt, "
            f"got attributes {area.attributes:#010x}",
            hint="make the attestation key with the template of docs/formats/evidence-tpm.md",
        )
    return area.key
