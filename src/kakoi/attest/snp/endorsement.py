"""AMD's endorsement certificates (VCEK, VLEK) and what their extensions say about chip and firmware.

Source: AMD "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (publication 57230),
and AMD 56860 for TCB_VERSION. Everything here is form and comparison; signatures are checked in ``verify``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kakoi.attest.report import refusal
from kakoi.attest.snp.parse import Product, Report, SigningKey
from kakoi.core import der
from kakoi.core.errors import Malformed
from kakoi.core.x509 import Certificate

ROOTS: Final[Mapping[str, Product]] = {
    "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "Milan",
    "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "Genoa",
    "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "Turin",
}
"""SHA-256 of the public keys of AMD's product roots (ARK-Milan, ARK-Genoa, ARK-Turin), as published by AMD's KDS."""

_AMD: Final = "1.3.6.1.4.1.3704.1."
_STRUCT_VERSION: Final = _AMD + "1"
_PRODUCT_NAME: Final = _AMD + "2"
_HWID: Final = _AMD + "4"
_CSP_ID: Final = _AMD + "5"
_SPL: Final[Mapping[str, str]] = {
    "boot-loader": _AMD + "3.1",
    "tee": _AMD + "3.2",
    "snp": _AMD + "3.3",
    "microcode": _AMD + "3.8",
    "fmc": _AMD + "3.9",
}
_SPL_UNUSED: Final = tuple(f"{_AMD}3.{n}" for n in (4, 5, 6, 7))
_NAME_OIDS: Final[Mapping[str, str]] = {
    "2.5.4.6": "US",
    "2.5.4.7": "Santa Clara",
    "2.5.4.8": "CA",
    "2.5.4.10": "Advanced Micro Devices",
    "2.5.4.11": "Engineering",
}
_COMMON_NAME: Final = "2.5.4.3"
_HWID_BYTES: Final[Mapping[Product, int]] = {"Milan": 64, "Genoa": 64, "Turin": 8}

_CLASSIC: Final = {"boot-loader": 0, "tee": 1, "snp": 6, "microcode": 7}
_TURIN: Final = {"fmc": 0, "boot-loader": 1, "tee": 2, "snp": 3, "microcode": 7}
TCB_LAYOUT: Final[Mapping[Product, Mapping[str, int]]] = {"Milan": _CLASSIC, "Genoa": _CLASSIC, "Turin": _TURIN}

Tcb = Mapping[str, int]
"""Component name → security version number, 0 to 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """What a parsed, **unverified** VCEK or VLEK certificate says."""

    kind: SigningKey
    product_name: str
    tcb: Tcb
    hwid: bytes
    """Chip id of a VCEK; empty for a VLEK."""
    csp_id: str
    """Cloud provider of a VLEK; empty for a VCEK."""


def _bad(expected: str, got: str) -> Malformed:
    return Malformed(
        "snp.endorsement",
        f"AMD endorsement certificate: expected {expected}, got {got}",
        hint="fetch the certificate again from AMD's key distribution service",
    )


def split_tcb(raw: bytes, product: Product, what: str) -> Tcb:
    """The components of a TCB_VERSION in ``product``'s layout. Malformed if another byte is not zero."""
    layout = TCB_LAYOUT[product]
    if any(value for i, value in enumerate(raw) if i not in layout.values()):
        raise _bad(f"zeros in the reserved bytes of {what} for {product}", "another value")
    return {name: raw[index] for name, index in layout.items()}


def names(name: bytes) -> dict[str, str]:
    """Attributes of a distinguished name by object identifier. Malformed for repeated or multi-valued ones."""
    found: dict[str, str] = {}
    for _, relative in der.items(name):
        attributes = der.items(relative)
        parts = der.items(attributes[0][1]) if len(attributes) == 1 else []
        if len(parts) != 2 or parts[0][0] != der.OID or der.oid(parts[0][1]) in found:
            raise _bad("a name with single, distinct attributes", "another form")
        found[der.oid(parts[0][1])] = parts[1][1].decode("utf-8", "replace")
    return found


def check_name(name: bytes, common_name: str, what: str) -> None:
    """Raise Refused ``snp.name`` unless ``name`` is AMD's, with this common name and nothing more."""
    expected = {**_NAME_OIDS, _COMMON_NAME: common_name}
    found = names(name)
    if found != expected:
        got = f"{found.get(_COMMON_NAME, 'none')!r} with other attributes"
        raise refusal("snp.name", f"name of {what}", f"AMD's name with common name {common_name!r}", got, "nobody")


def _text(certificate: Certificate, oid: str) -> str:
    value = der.one(certificate.extension(oid), der.IA5_STRING)
    if not value.isascii() or not 1 <= len(value) <= 100:
        raise _bad("1 to 100 ASCII characters", "another text")
    return value.decode("ascii")


def _number(certificate: Certificate, oid: str) -> int:
    value = der.integer(der.one(certificate.extension(oid), der.INTEGER))
    if not 0 <= value <= 255:
        raise _bad("security version numbers from 0 to 255", str(value))
    return value


def _hwid(certificate: Certificate, size: int) -> bytes:
    """The chip id: bare bytes as AMD writes them, or wrapped in an OCTET STRING as early certificates did."""
    value = certificate.extension(_HWID)
    if len(value) == size + 2 and value[:2] == bytes([der.OCTET_STRING, size]):
        value = value[2:]
    if len(value) != size:
        raise _bad(f"a chip id of {size} bytes", f"{len(value)}")
    return value


def read(certificate: Certificate, kind: SigningKey, product: Product) -> Endorsement:
    """What ``certificate`` says as a ``kind`` for ``product``. Raises Malformed for any missing or foreign field."""
    foreign = _CSP_ID if kind == "VCEK" else _HWID
    if foreign in certificate.extensions:
        raise _bad(f"no extension {foreign} in a {kind}", "one")
    known = {_STRUCT_VERSION, _PRODUCT_NAME, _HWID, _CSP_ID, *_SPL.values(), *_SPL_UNUSED}
    strange = [oid for oid in certificate.extensions if oid.startswith(_AMD) and oid not in known]
    if strange or _number(certificate, _STRUCT_VERSION) > 1:
        raise _bad("the extensions of structure version 0 or 1", "others")
    if any(_number(certificate, oid) for oid in _SPL_UNUSED if oid in certificate.extensions):
        raise _bad("zero in the reserved security version numbers", "another value")
    layout = TCB_LAYOUT[product]
    if any(oid in certificate.extensions for name, oid in _SPL.items() if name not in layout):
        raise _bad(f"only the components of {product}", "another one")
    return Endorsement(
        kind=kind,
        product_name=_text(certificate, _PRODUCT_NAME),
        tcb={name: _number(certificate, _SPL[name]) for name in layout},
        hwid=_hwid(certificate, _HWID_BYTES[product]) if kind == "VCEK" else b"",
        csp_id=_text(certificate, _CSP_ID) if kind == "VLEK" else "",
    )


def product_of_cpuid(report: Report) -> Product | None:
    """The product line that the report's CPUID fields name; None before version 3.

    Family 19h: models 00h-0Fh Milan, 10h-1Fh Genoa, A0h-AFh Bergamo and Siena, which are Genoa's line. Family 1Ah:
    models 00h-1Fh Turin (AMD 57230, table of product names). Raises Refused for any other.
    """
    if report.cpuid is None:
        return None
    family, model, _ = report.cpuid
    if family == 0x19 and model <= 0x0F:
        return "Milan"
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return "Genoa"
    if family == 0x1A and model <= 0x1F:
        return "Turin"
    got = f"family {family:#04x}, model {model:#04x}"
    raise refusal("snp.product", "CPUID of the report", "Milan, Genoa or Turin", got, "owner-policy")
