"""The SGX extension of a PCK certificate (Intel, "SGX PCK Certificate and CRL Profile Specification" §1.3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from kakoi.core import der
from kakoi.core.errors import Malformed
from kakoi.core.x509 import Certificate

SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"
_COMPONENTS: Final = 16
Tristate = Literal["true", "false", "undefined"]
_SGX_TYPES: Final = {0: "standard", 1: "scalable", 2: "scalable-with-integrity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PckExtension:
    """What Intel certifies about the platform."""

    ppid: bytes
    components: tuple[int, ...]
    """SVNs 1 to 16 of the platform's TCB."""
    pce_svn: int
    cpu_svn: bytes
    pce_id: bytes
    fmspc: bytes
    sgx_type: str
    platform_instance_id: bytes | None
    dynamic_platform: Tristate
    cached_keys: Tristate
    smt_enabled: Tristate


def _bad(expected: str, got: str) -> Malformed:
    return Malformed(
        "dcap.pck-extension",
        f"SGX extension of the PCK certificate: expected {expected}, got {got}",
        hint="the certificate is not one of Intel's PCK certificates",
    )


def _members(value: bytes, prefix: str) -> dict[int, tuple[int, bytes]]:
    """Last arc of each identifier → (tag, value). The identifiers all start with ``prefix``."""
    found: dict[int, tuple[int, bytes]] = {}
    for tag, item in der.items(value):
        parts = der.items(item) if tag == der.SEQUENCE else []
        if len(parts) != 2 or parts[0][0] != der.OID:
            raise _bad("pairs of identifier and value", "another form")
        parent, _, last = der.oid(parts[0][1]).rpartition(".")
        if parent != prefix or int(last) in found:
            raise _bad(f"each identifier once, below {prefix}", "another or a repeated one")
        found[int(last)] = parts[1]
    return found


def _octets(members: dict[int, tuple[int, bytes]], which: int, size: int, name: str) -> bytes:
    tag, value = members.get(which, (0, b""))
    if tag != der.OCTET_STRING or len(value) != size:
        raise _bad(f"{name} of {size} bytes", "none, or another form")
    return value


def _integer(members: dict[int, tuple[int, bytes]], which: int, most: int, name: str, tag: int = der.INTEGER) -> int:
    found, value = members.get(which, (0, b""))
    number = der.integer(value) if found == tag else -1
    if not 0 <= number <= most:
        raise _bad(f"{name} from 0 to {most}", "none, or another value")
    return number


def _tristate(members: dict[int, tuple[int, bytes]], which: int) -> Tristate:
    if which not in members:
        return "undefined"
    tag, value = members[which]
    if tag != der.BOOLEAN:
        raise _bad("true or false in the platform's configuration", "another form")
    return "true" if der.boolean(value) else "false"


def parse(leaf: Certificate) -> PckExtension:
    """The SGX extension of a PCK certificate. Raises Malformed ``dcap.pck-extension``, ``der.encoding``."""
    members = _members(der.one(leaf.extension(SGX_EXTENSION), der.SEQUENCE), SGX_EXTENSION)
    if not {1, 2, 3, 4, 5} <= members.keys() or members[2][0] != der.SEQUENCE:
        raise _bad("PPID, TCB, PCEID, FMSPC and SGX type", "fewer members")
    tcb = _members(members[2][1], f"{SGX_EXTENSION}.2")
    if set(tcb) != set(range(1, _COMPONENTS + 3)):
        raise _bad(f"{_COMPONENTS} components, PCESVN and CPUSVN", "others")
    configuration: dict[int, tuple[int, bytes]] = {}
    if 7 in members:
        if members[7][0] != der.SEQUENCE:
            raise _bad("a configuration", "another form")
        configuration = _members(members[7][1], f"{SGX_EXTENSION}.7")
    kind = _integer(members, 5, max(_SGX_TYPES), "SGX type", der.ENUMERATED)
    return PckExtension(
        ppid=_octets(members, 1, 16, "PPID"),
        components=tuple(_integer(tcb, i, 255, f"component {i}") for i in range(1, _COMPONENTS + 1)),
        pce_svn=_integer(tcb, 17, 65535, "PCESVN"),
        cpu_svn=_octets(tcb, 18, 16, "CPUSVN"),
        pce_id=_octets(members, 3, 2, "PCEID"),
        fmspc=_octets(members, 4, 6, "FMSPC"),
        sgx_type=_SGX_TYPES[kind],
        platform_instance_id=_octets(members, 6, 16, "platform instance id") if 6 in members else None,
        dynamic_platform=_tristate(configuration, 1),
        cached_keys=_tristate(configuration, 2),
        smt_enabled=_tristate(configuration, 3),
    )
