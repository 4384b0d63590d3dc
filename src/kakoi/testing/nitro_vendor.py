"""A pretend AWS Nitro: root, regional, zonal and instance CAs, enclaves, and documents of any form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from kakoi.attest.nitro import cbor
from kakoi.attest.nitro.parse import PROTECTED
from kakoi.core.encoding import sha256
from kakoi.evidence import mint
from kakoi.testing import x509_kit as kit

REGION: Final = "eu-central-1"
MODULE: Final = "i-0123456789abcdef0-enc0123456789abcdef"
TIMESTAMP: Final = 1000 * (kit.NOW - 5) + 250
HOUR: Final = 3600


def encode(value: Any, *, indefinite: bool = False) -> bytes:
    """CBOR in shortest form; ``indefinite`` writes the outermost map as AWS has done at times."""
    if isinstance(value, dict):
        body = b"".join(encode(key) + encode(item) for key, item in value.items())
        return b"\xbf" + body + b"\xff" if indefinite else head(5, len(value)) + body
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, bytes):
        return cbor.byte_string(value)
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    return head(0, value) if value >= 0 else head(1, -1 - value)


def head(major: int, argument: int) -> bytes:
    """A head in shortest form."""
    if argument < 24:
        return bytes([major << 5 | argument])
    width = next(w for w in (1, 2, 4, 8) if argument < 1 << 8 * w)
    return bytes([major << 5 | 23 + width.bit_length()]) + argument.to_bytes(width, "big")


def signed_bytes(payload: bytes, protected: bytes = PROTECTED, context: str = "Signature1") -> bytes:
    """Sig_structure."""
    return encode([context, protected, b"", payload])


@dataclass(kw_only=True)
class NitroVendor:
    """The CAs above one instance, and the key of one enclave."""

    root: kit.Authority
    regional: kit.Authority
    zonal: kit.Authority
    instance: kit.Authority
    key: mint.EcKey = field(default_factory=lambda: mint.EcKey.generate("P-384"))

    @property
    def roots(self) -> frozenset[str]:
        """What a verifier must pin to accept this vendor."""
        return frozenset({self.root.certificate.spki_sha256})

    def lists(self) -> dict[str, bytes]:
        """Collateral: both revocation lists."""
        return {"crl-root": self.root.crl(), "crl-region": self.regional.crl()}

    def leaf(self, name: str = f"{MODULE}.{REGION}.aws", **changes: Any) -> bytes:
        """The certificate of the enclave, three hours around now."""
        validity = (kit.NOW - HOUR, kit.NOW + 2 * HOUR)
        return self.instance.leaf(name, **{"key": self.key.public, "validity": validity, **changes})

    def members(self, **changes: Any) -> dict[Any, Any]:
        """A good payload; ``changes`` replace members, ``...`` removes one."""
        found: dict[Any, Any] = {
            "module_id": MODULE,
            "digest": "SHA384",
            "timestamp": TIMESTAMP,
            "pcrs": {i: (sha256(b"pcr", bytes([i])) * 2)[:48] if i < 5 else bytes(48) for i in range(16)},
            "certificate": self.leaf(),
            "cabundle": [ca.der for ca in (self.root, self.regional, self.zonal, self.instance)],
            "public_key": None,
            "user_data": bytes(range(64)),
            "nonce": None,
            **changes,
        }
        return {name: value for name, value in found.items() if value is not ...}

    def sign(
        self, payload: bytes, *, tag: bool = False, unprotected: Any = None, protected: bytes = PROTECTED
    ) -> bytes:
        """COSE_Sign1 of any payload."""
        signature = self.key.sign_raw(signed_bytes(payload, protected))
        return b"\xd2" * tag + encode([protected, unprotected or {}, payload, signature])

    def document(self, *, tag: bool = False, indefinite: bool = False, **changes: Any) -> bytes:
        """A document with some members changed, signed by the enclave."""
        return self.sign(encode(self.members(**changes), indefinite=indefinite), tag=tag)


@lru_cache(maxsize=4)
def vendor(which: int = 0) -> NitroVendor:
    """The pretend AWS number ``which``."""

    def key() -> mint.EcKey:
        return mint.EcKey.generate("P-384")

    root = kit.root(key=key(), path_length=None, name=_name("aws.nitro-enclaves"))
    regional = root.child("", key=key(), path_length=2, name=_name(f"0123.{REGION}.aws.nitro-enclaves"))
    zonal = regional.child("", key=key(), path_length=1, name=_name(f"4567.zonal.{REGION}.aws.nitro-enclaves"))
    instance = zonal.child("", key=key(), path_length=0, name=_name(f"i-0123456789abcdef0.{REGION}.aws.nitro-enclaves"))
    return NitroVendor(root=root, regional=regional, zonal=zonal, instance=instance)


def _name(common_name: str) -> bytes:
    return mint.name(c="US", o="Amazon", ou="AWS", cn=common_name)


def reordered(bundle: Sequence[bytes], *order: int) -> list[bytes]:
    """The certificates of a bundle in another order."""
    return [bundle[i] for i in order]
