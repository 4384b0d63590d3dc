"""The parts that certificates and revocation lists share: dates, names, extensions, algorithms, PEM (RFC 5280, RFC 7468)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from kakoi.core import der
from kakoi.core.errors import Malformed
from kakoi.core.keys import HashName

BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"
COMMON_NAME: Final = "2.5.4.3"
BIT_STRING: Final = 0x03
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
TAG_0: Final = 0xA0
TAG_3: Final = 0xA3
MAX_PATH_LENGTH: Final = 16

# AlgorithmIdentifier, exact content → (scheme, hash). RSASSA-PSS as AMD writes it, without and with the default trailer.
_PSS_SHA384: Final = (
    "a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
)
ALGORITHMS: Final[Mapping[bytes, tuple[Literal["ecdsa", "rsa-pkcs1", "rsa-pss"], HashName]]] = {
    bytes.fromhex("06082a8648ce3d040302"): ("ecdsa", "sha256"),
    bytes.fromhex("06082a8648ce3d040303"): ("ecdsa", "sha384"),
    bytes.fromhex("06082a8648ce3d040304"): ("ecdsa", "sha512"),
    bytes.fromhex("06092a864886f70d01010b0500"): ("rsa-pkcs1", "sha256"),
    bytes.fromhex("06092a864886f70d01010c0500"): ("rsa-pkcs1", "sha384"),
    bytes.fromhex("06092a864886f70d01010d0500"): ("rsa-pkcs1", "sha512"),
    bytes.fromhex("06092a864886f70d01010a3034" + _PSS_SHA384): ("rsa-pss", "sha384"),
    bytes.fromhex("06092a864886f70d01010a3039" + _PSS_SHA384 + "a303020101"): ("rsa-pss", "sha384"),
}


def bad(what: str, expected: str, got: str) -> Malformed:
    """The error for bytes that are no certificate or list."""
    return Malformed(
        "x509.malformed", f"{what}: expected {expected}, got {got}", hint="ask the sender for the original"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """One extension: its DER value (the content of the OCTET STRING)."""

    critical: bool
    value: bytes


def time(tag: int, value: bytes) -> int:
    """UTCTime or GeneralizedTime in the only forms RFC 5280 §4.1.2.5 allows."""
    text = value.decode("ascii", "replace")
    if tag == UTC_TIME and re.fullmatch(r"[0-9]{12}Z", text):
        text = ("19" if text[:2] >= "50" else "20") + text
    elif not (tag == GENERALIZED_TIME and re.fullmatch(r"[0-9]{14}Z", text)):
        raise bad("a date", "UTCTime or GeneralizedTime in UTC", "another form")
    try:
        parts = [int(text[i:j]) for i, j in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))]
        return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]
    except (ValueError, OverflowError):
        raise bad("a date", "a day of the calendar", "none") from None


def bits(value: bytes, what: str) -> bytes:
    """The bytes of a BIT STRING without unused bits."""
    if not value or value[0] != 0:
        raise bad(what, "a bit string of whole bytes", "another")
    return value[1:]


def envelope(data: bytes, limit: int, what: str) -> tuple[bytes, list[tuple[int, bytes]], bytes, bytes]:
    """Signed bytes, their items, signature algorithm and signature of a SIGNED structure."""
    if len(data) > limit:
        raise bad(what, f"at most {limit} bytes", str(len(data)))
    outer = der.sequence(data)
    if [tag for tag, _ in outer] != [der.SEQUENCE, der.SEQUENCE, BIT_STRING]:
        raise bad(what, "signed data, algorithm and signature", "other items")
    algorithm = outer[1][1]
    if algorithm not in ALGORITHMS:
        raise bad(what, "ECDSA, RSASSA-PSS or RSA PKCS#1 with SHA-2", "another signature algorithm")
    return der.write(der.SEQUENCE, outer[0][1]), der.items(outer[0][1]), algorithm, bits(outer[2][1], what)


def extensions(value: bytes, what: str) -> dict[str, Extension]:
    """Extensions by identifier, each once."""
    found: dict[str, Extension] = {}
    for tag, item in der.sequence(value):
        if tag != der.SEQUENCE:
            raise bad(what, "a list of extensions", "another item")
        parts = der.items(item)
        critical = len(parts) == 3
        if [t for t, _ in parts] != (
            [der.OID, der.BOOLEAN, der.OCTET_STRING] if critical else [der.OID, der.OCTET_STRING]
        ):
            raise bad(what, "extensions with an identifier and a value", "another form")
        if critical and not der.boolean(parts[1][1]):
            raise bad(what, "DER, where false is left out", "an explicit false")
        oid = der.oid(parts[0][1])
        if oid in found:
            raise bad(what, "each extension once", "a repetition")
        found[oid] = Extension(critical=critical, value=parts[-1][1])
    return found


def common_name(name: bytes) -> str:
    """The common name of a Name; empty if there is none or more than one."""
    found = []
    for _, relative in der.items(name):
        for _, attribute in der.items(relative):
            parts = der.items(attribute)
            if len(parts) == 2 and parts[0][0] == der.OID and der.oid(parts[0][1]) == COMMON_NAME:
                found.append(parts[1][1].decode("utf-8", "replace"))
    return found[0] if len(found) == 1 else ""


def basic_constraints(extensions: Mapping[str, Extension]) -> tuple[bool, int | None]:
    """Whether the certificate is a CA, and its path length (RFC 5280 §4.2.1.9)."""
    if BASIC_CONSTRAINTS not in extensions:
        return False, None
    parts = der.sequence(extensions[BASIC_CONSTRAINTS].value)
    tags = [tag for tag, _ in parts]
    if tags not in ([], [der.BOOLEAN], [der.BOOLEAN, der.INTEGER]) or (parts and not der.boolean(parts[0][1])):
        raise bad("basic constraints", "CA and an optional path length", "another form")
    length = der.integer(parts[1][1]) if len(parts) == 2 else None
    if length is not None and not 0 <= length < MAX_PATH_LENGTH:
        raise bad("basic constraints", f"a path length below {MAX_PATH_LENGTH}", "another")
    return bool(parts), length


def key_usage(extensions: Mapping[str, Extension]) -> frozenset[int] | None:
    """The set bits of KeyUsage (§4.2.1.3); None if the extension is missing."""
    if KEY_USAGE not in extensions:
        return None
    value = der.one(extensions[KEY_USAGE].value, BIT_STRING)
    if not 2 <= len(value) <= 3 or value[0] > 7:
        raise bad("key usage", "one or two bytes of bits", "another length")
    bits = int.from_bytes(value[1:], "big")
    width = 8 * (len(value) - 1)
    return frozenset(i for i in range(width) if bits >> (width - 1 - i) & 1)


_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+?)-----END CERTIFICATE-----(?:\r?\n)*")


def pem_bodies(data: bytes, count: int, limit: int) -> list[bytes]:
    """DER of exactly ``count`` PEM certificates of at most ``limit`` bytes, and nothing else but line ends."""
    if len(data) > count * 2 * limit:
        raise bad("certificate chain", f"at most {count * 2 * limit} bytes", str(len(data)))
    found: list[bytes] = []
    at = 0
    while at < len(data) and len(found) <= count:
        match = _PEM.match(data, at)
        if match is None:
            raise bad("certificate chain", "PEM certificates and nothing between them", "something else")
        found.append(_pem_body(match.group(1)))
        at = match.end()
    if len(found) != count:
        raise bad("certificate chain", f"exactly {count} certificates", str(len(found)))
    return found


def _pem_body(text: bytes) -> bytes:
    packed = text.translate(None, b"\r\n")
    try:
        body = base64.b64decode(packed, validate=True)
    except binascii.Error:
        raise bad("certificate chain", "base64", "something else") from None
    if base64.b64encode(body) != packed:
        raise bad("certificate chain", "canonical base64", "another spelling")
    return body


def to_pem(*certificates: bytes) -> bytes:
    """PEM of DER certificates, in lines of 64 characters that end in a single line feed (RFC 7468 §3)."""
    out = []
    for data in certificates:
        text = base64.b64encode(data).decode("ascii")
        lines = [text[i : i + 64] for i in range(0, len(text), 64)]
        out.append("\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]))
    return "".join(out).encode("ascii")
