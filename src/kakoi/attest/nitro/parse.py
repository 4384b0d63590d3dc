"""Nitro attestation documents: COSE_Sign1 around a CBOR map; strict bytes to frozen objects.

Source: AWS "nitro-enclaves-nsm-api", docs/attestation_process.md (3.1, 3.2.2), for enclaves; "NitroTPM Attestation Document"
(EC2 user guide) for NitroTPM, whose registers stand under another name. COSE_Sign1 is RFC 9052 §4.2, with or without its
tag 18. The protected header is exactly {1: -35} (ES384), the unprotected one is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from kakoi.attest.nitro import cbor
from kakoi.core.errors import Malformed

MAX_BYTES: Final = 16 * 1024
SIGNATURE_BYTES: Final = 96
PROTECTED: Final = bytes.fromhex("a1013822")
_TAG: Final = b"\xd2"
_MAX_CERTIFICATES: Final = 8
_MAX_CERTIFICATE: Final = 1024
_MAX_PUBLIC_KEY: Final = 1024
_MAX_DATA: Final = 512
_MAX_PCRS: Final = 32
_PCR_BYTES: Final = 48
_MAX_TIMESTAMP: Final = 2**53
_SIGNED: Final = b"\x84\x6aSignature1" + cbor.byte_string(PROTECTED) + b"\x40"
_REQUIRED: Final = frozenset({"module_id", "digest", "timestamp", "certificate", "cabundle"})
_OPTIONAL: Final = frozenset({"public_key", "user_data", "nonce"})

Device = Literal["enclave", "nitrotpm"]
_REGISTERS: Final[Mapping[str, Device]] = {"pcrs": "enclave", "nitrotpm_pcrs": "nitrotpm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed, **unverified** attestation document."""

    device: Device
    module_id: str
    timestamp: int
    """Milliseconds since the epoch, by the hypervisor's clock."""
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    """DER, root first, issuer of ``certificate`` last."""
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    signed: bytes
    """Sig_structure (RFC 9052 §4.4) with context Signature1."""
    signature: bytes


def _bad(expected: str, got: str) -> Malformed:
    return Malformed(
        "nitro.malformed",
        f"Nitro document: expected {expected}, got {got}",
        hint="the document was cut or changed on the way, or comes from another device",
    )


def parse(data: bytes) -> Document:
    """The document in ``data``. Raises Malformed ``nitro.malformed``, ``evidence.malformed``."""
    if len(data) > MAX_BYTES:
        raise _bad(f"at most {MAX_BYTES} bytes", f"{len(data)}")
    outer = cbor.loads(data.removeprefix(_TAG))
    if not isinstance(outer, list) or [type(item) for item in outer] != [bytes, dict, bytes, bytes]:
        raise _bad("COSE_Sign1: headers, payload and signature", "another structure")
    protected, unprotected, payload, signature = outer
    if protected != PROTECTED or unprotected:
        raise _bad("the headers {1: -35} and {}", "others")
    if len(signature) != SIGNATURE_BYTES:
        raise _bad(f"a signature of {SIGNATURE_BYTES} bytes", f"{len(signature)}")
    members = cbor.loads(payload)
    if not isinstance(members, dict):
        raise _bad("a map as payload", "something else")
    registers = _check_members(members)
    return Document(
        device=_REGISTERS[registers],
        module_id=_module(members["module_id"]),
        timestamp=_timestamp(members["timestamp"]),
        pcrs=_pcrs(members[registers]),
        certificate=_sized(members["certificate"], "certificate", _MAX_CERTIFICATE),
        cabundle=_bundle(members["cabundle"]),
        public_key=_optional(members, "public_key", _MAX_PUBLIC_KEY),
        user_data=_optional(members, "user_data", _MAX_DATA),
        nonce=_optional(members, "nonce", _MAX_DATA),
        signed=_SIGNED + cbor.byte_string(payload),
        signature=signature,
    )


def _check_members(members: Mapping[Any, Any]) -> str:
    """The name of the registers, after all names were found to be known and none is missing."""
    found = [name for name in _REGISTERS if name in members]
    unknown = members.keys() - _REQUIRED - _OPTIONAL - _REGISTERS.keys()
    if len(found) != 1 or unknown or not members.keys() >= _REQUIRED:
        raise _bad("the members of an enclave's or a NitroTPM's document", "others, or too few")
    if members["digest"] != "SHA384":
        raise _bad("digest SHA384", "another")
    return found[0]


def _module(value: object) -> str:
    if type(value) is not str or not 1 <= len(value) <= 128 or not value.isascii() or not value.isprintable():
        raise _bad("module_id as short ASCII text", "another value")
    return value


def _timestamp(value: object) -> int:
    if type(value) is not int or not 0 < value <= _MAX_TIMESTAMP:
        raise _bad("timestamp as a positive number of milliseconds", "another value")
    return value


def _sized(value: object, name: str, most: int) -> bytes:
    if type(value) is not bytes or not 1 <= len(value) <= most:
        raise _bad(f"{name} of 1 to {most} bytes", "another value")
    return value


def _optional(members: Mapping[Any, Any], name: str, most: int) -> bytes | None:
    value = members.get(name)
    if value is None or value == b"":
        return value
    return _sized(value, name, most)


def _bundle(value: object) -> tuple[bytes, ...]:
    if type(value) is not list or not 1 <= len(value) <= _MAX_CERTIFICATES:
        raise _bad(f"cabundle with 1 to {_MAX_CERTIFICATES} certificates", "another value")
    return tuple(_sized(item, "certificates in cabundle", _MAX_CERTIFICATE) for item in value)


def _pcrs(value: object) -> dict[int, bytes]:
    if type(value) is not dict or not 1 <= len(value) <= _MAX_PCRS:
        raise _bad(f"1 to {_MAX_PCRS} registers", "another value")
    if any(type(index) is not int or not 0 <= index < _MAX_PCRS for index in value):
        raise _bad(f"register numbers below {_MAX_PCRS}", "another")
    if any(type(register) is not bytes or len(register) != _PCR_BYTES for register in value.values()):
        raise _bad(f"registers of {_PCR_BYTES} bytes, as the digest is SHA384", "another size")
    return dict(sorted(value.items()))
