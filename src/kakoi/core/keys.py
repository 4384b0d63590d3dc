"""Public keys of hardware vendors, and the three signature schemes they use. Failure raises; nothing returns bool.

A ``PublicKey`` exists only for a key that is well-formed: an ECDSA point on P-256, P-384 or P-521, or an RSA modulus of
2048 to 8192 bits with an odd public exponent above 2.
"""

from __future__ import annotations

from typing import Final, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed, Refused

HashName = Literal["sha256", "sha384", "sha512"]
Curve = Literal["P-256", "P-384", "P-521"]
KeyKind = Literal["P-256", "P-384", "P-521", "RSA"]

HASHES: Final[dict[HashName, hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
CURVES: Final[dict[str, ec.EllipticCurve]] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
COORDINATE: Final[dict[str, int]] = {"P-256": 32, "P-384": 48, "P-521": 66}
_KIND_OF_CURVE: Final[dict[str, Curve]] = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_ECDSA: Final = {name: ec.ECDSA(algorithm) for name, algorithm in HASHES.items()}
_RSA_BITS: Final = (2048, 8192)


def _bad_key(what: str) -> Malformed:
    return Malformed("x509.public-key", f"expected a public key on P-256, P-384 or P-521 or RSA, got {what}")


def _not_signed(what: str) -> Refused:
    return Refused(
        "x509.signature",
        f"expected a valid signature over {what}, got one that does not verify",
        hint="the object was changed after signing, or signed with another key",
    )


class PublicKey:
    """A verified-well-formed public key. Immutable."""

    __slots__ = ("_key", "bits", "kind", "spki", "spki_sha256")

    def __init__(self, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> None:
        if isinstance(key, rsa.RSAPublicKey):
            if not _RSA_BITS[0] <= key.key_size <= _RSA_BITS[1]:
                raise _bad_key(f"an RSA key of {key.key_size} bits")
            self.kind: KeyKind = "RSA"
        else:
            if key.curve.name not in _KIND_OF_CURVE:
                raise _bad_key("another curve")
            self.kind = _KIND_OF_CURVE[key.curve.name]
        self._key: Final = key
        self.bits: Final[int] = key.key_size
        self.spki: Final[bytes] = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.spki_sha256: Final[str] = sha256(self.spki).hex()
        """Hex SHA-256 of the SubjectPublicKeyInfo: how roots are pinned."""

    @property
    def point(self) -> bytes:
        """x‖y of an elliptic-curve key, big-endian, both at full width. Malformed for RSA."""
        if isinstance(self._key, rsa.RSAPublicKey):
            raise _bad_key("RSA where an elliptic-curve key is needed")
        return self._key.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        ).removeprefix(b"\x04")

    def rsa_numbers(self) -> tuple[int, int]:
        """Modulus and public exponent. Malformed for elliptic curves."""
        if not isinstance(self._key, rsa.RSAPublicKey):
            raise _bad_key("an elliptic-curve key where RSA is needed")
        numbers = self._key.public_numbers()
        return numbers.n, numbers.e

    def verify_ecdsa(self, signature: bytes, message: bytes, hash_name: HashName, what: str) -> None:
        """ECDSA with a DER signature (X.509 form). Raises Refused ``x509.signature``."""
        if isinstance(self._key, rsa.RSAPublicKey):
            raise _not_signed(f"{what} (ECDSA)")
        try:
            self._key.verify(signature, message, _ECDSA[hash_name])
        except InvalidSignature:
            raise _not_signed(what) from None

    def verify_ecdsa_raw(
        self, signature: bytes, message: bytes, what: str, *, hash_name: HashName | None = None
    ) -> None:
        """ECDSA with r‖s, both big-endian at the curve's width, as quotes, COSE and JWS carry it.

        The hash defaults to the one of the curve's size: SHA-256, SHA-384, SHA-512. Raises Refused ``x509.signature``.
        """
        if self.kind == "RSA":
            raise _not_signed(f"{what} (ECDSA)")
        width = COORDINATE[self.kind]
        if len(signature) != 2 * width:
            raise _not_signed(f"{what} ({2 * width} bytes of r‖s)")
        der = encode_dss_signature(int.from_bytes(signature[:width], "big"), int.from_bytes(signature[width:], "big"))
        self.verify_ecdsa(der, message, hash_name or _DEFAULT_HASH[self.kind], what)

    def verify_rsa_pss(self, signature: bytes, message: bytes, hash_name: HashName, what: str) -> None:
        """RSASSA-PSS (RFC 8017 §8.1), MGF1 with the same hash, salt as long as the hash. Raises Refused."""
        algorithm = HASHES[hash_name]
        self._verify_rsa(
            signature, message, padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), hash_name, what
        )

    def verify_rsa_pkcs1(self, signature: bytes, message: bytes, hash_name: HashName, what: str) -> None:
        """RSASSA-PKCS1-v1_5 (RFC 8017 §8.2). Raises Refused ``x509.signature``."""
        self._verify_rsa(signature, message, padding.PKCS1v15(), hash_name, what)

    def _verify_rsa(
        self, signature: bytes, message: bytes, pad: padding.AsymmetricPadding, hash_name: HashName, what: str
    ) -> None:
        if not isinstance(self._key, rsa.RSAPublicKey):
            raise _not_signed(f"{what} (RSA)")
        try:
            self._key.verify(signature, message, pad, HASHES[hash_name])
        except InvalidSignature:
            raise _not_signed(what) from None


_DEFAULT_HASH: Final[dict[str, HashName]] = {"P-256": "sha256", "P-384": "sha384", "P-521": "sha512"}


def from_spki(spki: bytes) -> PublicKey:
    """A public key from the DER of a SubjectPublicKeyInfo, in its one canonical spelling. Raises Malformed."""
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm, TypeError):
        raise _bad_key("bytes that are none") from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise _bad_key("a key of another kind")
    public = PublicKey(key)
    if public.spki != spki:
        raise _bad_key("another spelling of one")
    return public


def ec_key(curve: Curve, point: bytes) -> PublicKey:
    """A public key from x‖y (big-endian, full width), as quotes, JWK and TPM structures carry it. Raises Malformed."""
    if len(point) != 2 * COORDINATE[curve]:
        raise _bad_key(f"{len(point)} bytes for a point on {curve}")
    try:
        return PublicKey(ec.EllipticCurvePublicKey.from_encoded_point(CURVES[curve], b"\x04" + point))
    except ValueError:
        raise _bad_key(f"a point that is not on {curve}") from None


def rsa_key(modulus: int, exponent: int) -> PublicKey:
    """A public key from an RSA modulus and exponent (JWK, TPM public area). Raises Malformed."""
    try:
        return PublicKey(rsa.RSAPublicNumbers(exponent, modulus).public_key())
    except (ValueError, OverflowError):
        raise _bad_key("numbers that are no RSA key") from None
