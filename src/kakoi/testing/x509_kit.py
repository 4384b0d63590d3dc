"""A small certificate authority for tests: chains, revocation lists, and their bad twins, under a root of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kakoi.core.keys import Curve, PublicKey
from kakoi.core.x509 import Certificate, RevocationList, parse_certificate, parse_crl
from kakoi.evidence import mint

YEAR: Final = 365 * 86400
EPOCH: Final = 1_767_225_600
"""2026-01-01, when the kit's certificates begin to be valid."""
NOW: Final = EPOCH + YEAR // 2
_PSS_SHA384: Final = bytes.fromhex(
    "06092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108"
    "300d06096086480165030402020500a203020130"
)


class RsaKey:
    """An RSA key that signs with RSASSA-PSS and SHA-384, as AMD's roots do, or with PKCS #1 v1.5 and SHA-256."""

    def __init__(self, bits: int = 2048, *, pss: bool = True) -> None:
        self._key = rsa.generate_private_key(65537, bits)
        self.pss = pss
        self.public = PublicKey(self._key.public_key())
        self.algorithm = _PSS_SHA384 if pss else bytes.fromhex("06092a864886f70d01010b0500")

    def sign(self, message: bytes) -> bytes:
        """An X.509 signature value."""
        if self.pss:
            return self._key.sign(message, padding.PSS(padding.MGF1(hashes.SHA384()), 48), hashes.SHA384())
        return self._key.sign(message, padding.PKCS1v15(), hashes.SHA256())


@dataclass(kw_only=True)
class Authority:
    """A CA: its key, certificate and the serial numbers it has revoked. ``child`` and ``leaf`` mint below it."""

    key: mint.EcKey | RsaKey
    name: bytes
    der: bytes
    above: tuple[bytes, ...] = ()
    """Certificates from the issuer to the root."""
    revoked: list[int] = field(default_factory=list)
    _serial: int = 1000

    @property
    def certificate(self) -> Certificate:
        """The parsed certificate."""
        return parse_certificate(self.der)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """This certificate and those above it, root last."""
        return (self.der, *self.above)

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def child(
        self,
        common_name: str,
        *,
        key: mint.EcKey | RsaKey | None = None,
        path_length: int | None = 0,
        validity: tuple[int, int] = (EPOCH, EPOCH + 5 * YEAR),
        extensions: list[mint.ExtensionSpec] | None = None,
        name: bytes | None = None,
    ) -> Authority:
        """A CA below this one."""
        key = key or mint.EcKey.generate()
        name = name or mint.name(cn=common_name, o="Kakoi tests")
        data = mint.certificate(
            subject=name,
            key=key.public,
            issuer=self.name,
            signer=self.key,
            serial=self._next(),
            validity=validity,
            extensions=extensions or mint.ca_extensions(key.public, self.key.public, path_length),
        )
        return Authority(key=key, name=name, der=data, above=self.chain)

    def leaf(
        self,
        common_name: str,
        *,
        key: PublicKey,
        serial: int | None = None,
        validity: tuple[int, int] = (EPOCH, EPOCH + 2 * YEAR),
        extensions: list[mint.ExtensionSpec] | None = None,
        more: tuple[mint.ExtensionSpec, ...] = (),
        name: bytes | None = None,
    ) -> bytes:
        """DER of an end-entity certificate; ``more`` is appended to the usual extensions."""
        usual = mint.leaf_extensions(key, self.key.public) if extensions is None else extensions
        return mint.certificate(
            subject=name or mint.name(cn=common_name, o="Kakoi tests"),
            key=key,
            issuer=self.name,
            signer=self.key,
            serial=self._next() if serial is None else serial,
            validity=validity,
            extensions=[*usual, *more],
        )

    def crl(self, *, window: tuple[int, int] = (NOW - 86400, NOW + 30 * 86400), number: int = 1) -> bytes:
        """DER of this CA's revocation list."""
        return mint.revocation_list(
            issuer=self.name, signer=self.key, window=window, revoked=self.revoked, number=number
        )

    def parsed_crl(self) -> RevocationList:
        """The revocation list, parsed."""
        return parse_crl(self.crl())


def root(
    common_name: str = "Kakoi test root",
    *,
    key: mint.EcKey | RsaKey | None = None,
    curve: Curve = "P-256",
    path_length: int | None = 1,
    name: bytes | None = None,
) -> Authority:
    """A self-signed root."""
    key = key or mint.EcKey.generate(curve)
    name = name or mint.name(cn=common_name, o="Kakoi tests")
    data = mint.certificate(
        subject=name,
        key=key.public,
        issuer=name,
        signer=key,
        serial=1,
        validity=(EPOCH, EPOCH + 20 * YEAR),
        extensions=mint.ca_extensions(key.public, key.public, path_length),
    )
    return Authority(key=key, name=name, der=data)
