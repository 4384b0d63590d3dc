"""Certificates, revocation lists and elliptic-curve keys of the ``software`` platform's own root (RFC 5280).

Writes exactly what the callers ask for, also what a verifier must refuse: the test kit mints its bad twins with it.
Nothing here judges anything. Signatures are deterministic (RFC 6979), so the same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kakoi.core import der
from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed
from kakoi.core.keys import COORDINATE, CURVES, HASHES, Curve, HashName, PublicKey

AUTHORITY_KEY: Final = "2.5.29.35"
SUBJECT_KEY: Final = "2.5.29.14"
BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"
CRL_NUMBER: Final = "2.5.29.20"
CERT_SIGN_AND_CRL_SIGN: Final = b"\x03\x02\x01\x06"
DIGITAL_SIGNATURE: Final = b"\x03\x02\x06\xc0"
_UTF8: Final = 0x0C
_ECDSA_OID: Final[dict[HashName, str]] = {
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
}
_HASH: Final[dict[str, HashName]] = {"P-256": "sha256", "P-384": "sha384", "P-521": "sha512"}

ExtensionSpec = tuple[str, bool, bytes]
"""Object identifier, critical, DER value."""


class Issuer(Protocol):
    """Whoever can sign a certificate."""

    @property
    def algorithm(self) -> bytes:
        """Content of the AlgorithmIdentifier."""
        ...

    @property
    def public(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature value for an X.509 BIT STRING."""
        ...


class EcKey:
    """An ECDSA key in memory."""

    __slots__ = ("_key", "algorithm", "public")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())
        self.algorithm = der.write_oid(_ECDSA_OID[_HASH[self.public.kind]])

    @classmethod
    def generate(cls, curve: Curve = "P-256") -> EcKey:
        """A fresh key from the operating system's randomness."""
        return cls(ec.generate_private_key(CURVES[curve]))

    @classmethod
    def load(cls, pkcs8: bytes) -> EcKey:
        """A key from unencrypted PKCS #8 DER. Raises Malformed."""
        try:
            key = serialization.load_der_private_key(pkcs8, None)
        except (ValueError, TypeError):
            raise Malformed("mint.key", "expected a PKCS #8 private key, got something else") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Malformed("mint.key", "expected an elliptic-curve private key, got another kind")
        return cls(key)

    def pkcs8(self) -> bytes:
        """Unencrypted PKCS #8 DER."""
        return self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """A DER signature, with the hash of the curve's size."""
        return self._key.sign(message, ec.ECDSA(HASHES[_HASH[self.public.kind]], deterministic_signing=True))

    def sign_raw(self, message: bytes) -> bytes:
        """r‖s, both big-endian at full width, as quotes carry it."""
        width = COORDINATE[self.public.kind]
        return b"".join(n.to_bytes(width, "big") for n in decode_dss_signature(self.sign(message)))


def name(**attributes: str) -> bytes:
    """Content of a Name: ``cn``, ``o``, ``l``, ``st``, ``c``, ``ou``, in the order given, as UTF8String."""
    oids = {"cn": "2.5.4.3", "o": "2.5.4.10", "l": "2.5.4.7", "st": "2.5.4.8", "c": "2.5.4.6", "ou": "2.5.4.11"}
    parts = (
        der.write(0x31, der.write(der.SEQUENCE, der.write_oid(oids[key]), der.write(_UTF8, value.encode())))
        for key, value in attributes.items()
    )
    return b"".join(parts)


def _date(seconds: int) -> bytes:
    when = datetime.fromtimestamp(seconds, UTC)
    if 1950 <= when.year < 2050:
        return der.write(0x17, when.strftime("%y%m%d%H%M%SZ").encode())
    return der.write(0x18, when.strftime("%Y%m%d%H%M%SZ").encode())


def _extensions(extensions: Sequence[ExtensionSpec]) -> bytes:
    return der.write(
        der.SEQUENCE,
        *(
            der.write(
                der.SEQUENCE,
                der.write_oid(oid),
                der.write(der.BOOLEAN, b"\xff") if critical else b"",
                der.write(der.OCTET_STRING, value),
            )
            for oid, critical, value in extensions
        ),
    )


def _signed(body: bytes, signer: Issuer) -> bytes:
    algorithm = der.write(der.SEQUENCE, signer.algorithm)
    return der.write(der.SEQUENCE, body, algorithm, der.write(0x03, b"\x00", signer.sign(body)))


def key_id(key: PublicKey) -> bytes:
    """A subject key identifier: the first 20 bytes of the key's SHA-256."""
    return sha256(key.spki)[:20]


def ca_extensions(key: PublicKey, issuer: PublicKey, path_length: int | None) -> list[ExtensionSpec]:
    """The extensions of a CA certificate."""
    length = b"" if path_length is None else der.write_integer(path_length)
    return [
        (AUTHORITY_KEY, False, der.write(der.SEQUENCE, der.write(0x80, key_id(issuer)))),
        (SUBJECT_KEY, False, der.write(der.OCTET_STRING, key_id(key))),
        (KEY_USAGE, True, CERT_SIGN_AND_CRL_SIGN),
        (BASIC_CONSTRAINTS, True, der.write(der.SEQUENCE, der.write(der.BOOLEAN, b"\xff"), length)),
    ]


def leaf_extensions(key: PublicKey, issuer: PublicKey) -> list[ExtensionSpec]:
    """The extensions of an end-entity certificate."""
    return [
        (AUTHORITY_KEY, False, der.write(der.SEQUENCE, der.write(0x80, key_id(issuer)))),
        (SUBJECT_KEY, False, der.write(der.OCTET_STRING, key_id(key))),
        (KEY_USAGE, True, DIGITAL_SIGNATURE),
        (BASIC_CONSTRAINTS, True, der.write(der.SEQUENCE)),
    ]


def certificate(
    *,
    subject: bytes,
    key: PublicKey,
    issuer: bytes,
    signer: Issuer,
    serial: int,
    validity: tuple[int, int],
    extensions: Sequence[ExtensionSpec],
) -> bytes:
    """DER of a version-3 certificate. ``subject`` and ``issuer`` come from ``name``; ``validity`` in seconds."""
    body = der.write(
        der.SEQUENCE,
        der.write(0xA0, der.write_integer(2)),
        der.write_integer(serial),
        der.write(der.SEQUENCE, signer.algorithm),
        der.write(der.SEQUENCE, issuer),
        der.write(der.SEQUENCE, _date(validity[0]), _date(validity[1])),
        der.write(der.SEQUENCE, subject),
        key.spki,
        der.write(0xA3, _extensions(extensions)),
    )
    return _signed(body, signer)


def revocation_list(
    *, issuer: bytes, signer: Issuer, window: tuple[int, int], revoked: Sequence[int] = (), number: int = 1
) -> bytes:
    """DER of a version-2 revocation list of these serial numbers. ``window``: this and next update, in seconds."""
    entries = [der.write(der.SEQUENCE, der.write_integer(serial), _date(window[0])) for serial in revoked]
    body = der.write(
        der.SEQUENCE,
        der.write_integer(1),
        der.write(der.SEQUENCE, signer.algorithm),
        der.write(der.SEQUENCE, issuer),
        _date(window[0]),
        _date(window[1]),
        der.write(der.SEQUENCE, *entries) if entries else b"",
        der.write(
            0xA0,
            _extensions(
                [
                    (CRL_NUMBER, False, der.write_integer(number)),
                    (AUTHORITY_KEY, False, der.write(der.SEQUENCE, der.write(0x80, key_id(signer.public)))),
                ]
            ),
        ),
    )
    return _signed(body, signer)
