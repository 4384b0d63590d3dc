"""The HCL report of an Azure confidential VM (TPM NV index 0x01400001): strict bytes to frozen objects.

Source: Microsoft Learn, "Azure confidential VMs: guest attestation design detail", and the headers of
openhcl/openvmm. Little-endian:

    0     header   "HCLA", version (1, 2), report size, request type (2), status (0), 12 bytes reserved
    32    hardware report, 1184 bytes: an SNP report, or a TDREPORT of 1024 bytes and zeros
    1216  runtime data: size, version (1), report type (2 SNP, 4 TDX), hash type, claims size, claims (JSON)

The report size covers all three; what follows in the NV index is zeros. The hash of the claims, exactly as they stand
here, is in the hardware report. Claims of unknown names are kept, never ignored: each becomes a fact for the policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from kakoi.attest import jose
from kakoi.core.cursor import Cursor
from kakoi.core.keys import HashName, PublicKey

MAX_BYTES: Final = 8192
HARDWARE_BYTES: Final = 1184
TDREPORT_BYTES: Final = 1024
USER_DATA_BYTES: Final = 64
_HEADER: Final = 32
_RUNTIME: Final = 20
_VERSIONS: Final = (1, 2)
_REQUEST: Final = 2
_MAX_CLAIMS: Final = 4096
_HASHES: Final[Mapping[int, HashName]] = {1: "sha256", 2: "sha384", 3: "sha512"}
_HEX_64: Final = re.compile(r"[0-9A-Fa-f]{128}")
_FACT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")
_MAX_FACTS: Final = 24

Hardware = Literal["snp", "tdx"]
_HARDWARE: Final[Mapping[int, Hardware]] = {2: "snp", 4: "tdx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """A parsed, **unverified** HCL report."""

    hardware: Hardware
    statement: bytes
    """The SNP report (1184 bytes) or TDREPORT (1024 bytes)."""
    hash_name: HashName
    claims: bytes
    """The exact bytes under the hash."""
    attestation_key: PublicKey
    """``HCLAkPub``: the virtual TPM's key that signs quotes."""
    user_data: bytes
    configuration: Mapping[str, str]
    """``vm-configuration`` as text, by member."""


def parse(data: bytes) -> HclReport:
    """The HCL report in ``data``, with or without the zeros that fill its NV index. Raises Malformed."""
    cursor = Cursor(data, "HCL report", "little")
    if len(data) > MAX_BYTES:
        raise cursor.bad(f"at most {MAX_BYTES} bytes", f"{len(data)}")
    size = _header(cursor)
    hardware_report = cursor.take(HARDWARE_BYTES, "the hardware report")
    data_size = cursor.number(4, "the size of the runtime data")
    version = cursor.number(4, "the version of the runtime data")
    kind, hash_type = cursor.number(4, "the report type"), cursor.number(4, "the hash type")
    claims = cursor.sized(4, _MAX_CLAIMS, "the claims")
    if version != 1 or kind not in _HARDWARE or hash_type not in _HASHES:
        raise cursor.bad("runtime data of version 1 for SNP or TDX with a SHA-2 hash", "another form")
    if data_size != _RUNTIME + len(claims) or size != _HEADER + HARDWARE_BYTES + data_size:
        raise cursor.bad("sizes that agree with each other", "others")
    cursor.zeros(cursor.left, "the rest of the NV index")
    hardware = _HARDWARE[kind]
    if hardware == "tdx" and any(hardware_report[TDREPORT_BYTES:]):
        raise cursor.bad("zeros after the TDREPORT", "another value")
    members = jose.load(claims, "HCL claims")
    return HclReport(
        hardware=hardware,
        statement=hardware_report[:TDREPORT_BYTES] if hardware == "tdx" else hardware_report,
        hash_name=_HASHES[hash_type],
        claims=claims,
        attestation_key=_attestation_key(members),
        user_data=_user_data(members),
        configuration=_configuration(members),
    )


def _header(cursor: Cursor) -> int:
    """The report size, after the header was found to be of a known form."""
    magic, version = cursor.take(4, "the signature"), cursor.number(4, "the version")
    size, request = cursor.number(4, "the report size"), cursor.number(4, "the request type")
    if magic != b"HCLA" or version not in _VERSIONS or request != _REQUEST:
        raise cursor.bad("HCLA, version 1 or 2, request type 2", "another header")
    cursor.zeros(16, "the status and the reserved bytes of the header")
    return size


def _attestation_key(members: Mapping[str, Any]) -> PublicKey:
    keys = [key for key in jose.items(members, "keys", "HCL claims", most=8) if isinstance(key, dict)]
    found = [key for key in keys if key.get("kid") == "HCLAkPub"]
    if len(found) != 1 or found[0].get("key_ops") != ["sign"]:
        raise jose.bad("HCL claims", "exactly one signing key HCLAkPub", "none, several, or one for another use")
    key = jose.public_key(found[0])
    if key.kind != "RSA":
        raise jose.bad("HCL claims", "an RSA key as HCLAkPub", "another kind")
    return key


def _user_data(members: Mapping[str, Any]) -> bytes:
    value = jose.text(members, "user-data", "HCL claims")
    if not _HEX_64.fullmatch(value):
        raise jose.bad("HCL claims", f"{USER_DATA_BYTES} bytes in hex as user-data", "another value")
    return bytes.fromhex(value)


def _configuration(members: Mapping[str, Any]) -> dict[str, str]:
    found = jose.member(members, "vm-configuration", "HCL claims")
    unknown = members.keys() - {"keys", "vm-configuration", "user-data"}
    if unknown or not 1 <= len(found) <= _MAX_FACTS:
        raise jose.bad("HCL claims", f"keys, user-data and 1 to {_MAX_FACTS} configuration claims", "others")
    return {name: _fact(name, value) for name, value in sorted(found.items())}


def _fact(name: str, value: object) -> str:
    """A configuration claim as text: a flag, a whole number, or a short text."""
    shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    if not _FACT.fullmatch(name) or not isinstance(value, bool | int | str) or len(shown) > 128 or not shown.isascii():
        raise jose.bad("HCL claims", "flags, numbers and short texts as configuration", "another value")
    return shown or "none"
