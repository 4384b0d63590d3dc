"""NVIDIA devices: who signed a measurement report, and for which firmware.

``verify`` is the only way to a ``VerifiedDevice``. Its steps:

1. The device's chain (leaf, device, provisioner, product line, root) ends in the pinned key of "NVIDIA Device Identity CA";
   names, ECDSA P-384 signatures, CA flags, path lengths, key usage and windows hold at ``now``.
2. Revocation of provisioner and product line, if NVIDIA's two lists are given; otherwise the step is skipped and shows as
   such. Device and leaf certificates are judged by OCSP only, which is not done here.
3. The signature over request and response is the leaf's (ECDSA P-384, SHA-384).
4. If the report names the firmware that signed it (FWID), the leaf was issued for exactly that firmware (TCG DICE).

Not checked, and why: OCSP (needs the network at judging time; NVIDIA's responders give no answers that can be kept);
reference integrity manifests (signed XML; owners name the digests they accept instead, which is stricter: a manifest
accepts each active index from a list, a policy here names all 64); confidential-computing and debug mode (not in the
report: the driver tells, and the measurements bind the driver's state). What the report says holds at the request's
nonce, which ``appraise`` compares with the one derived from the CPU's report data.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from kakoi.attest.nvidia.parse import FWID, Report
from kakoi.attest.report import refusal
from kakoi.core import der
from kakoi.core.errors import Malformed
from kakoi.core.sealed import Sealed
from kakoi.core.x509 import (
    Certificate,
    NoRevocation,
    Revocation,
    VerifiedChain,
    parse_certificate,
    parse_crl,
    verify_chain,
)

ROOTS: Final = frozenset({"a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4"})
"""SHA-256 of the public key of "NVIDIA Device Identity CA"."""
NO_LIST: Final = "no revocation lists were given"
_CHAIN: Final = 5
_LISTED: Final = 3
_COMPOSITE_ID: Final = "2.23.133.5.4.1"
_TCB_INFO: Final = "2.23.133.5.4.1.1"
_TCB_INFO_FWIDS: Final = 0xA6
_SHA384: Final = "2.16.840.1.101.3.4.2.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDevice(metaclass=Sealed):
    """A report whose signature leads to NVIDIA's root."""

    report: Report
    chain: VerifiedChain
    model: str
    """Common name of the leaf, for instance ``GB100 A01 GSP FMC LF``."""
    device: str
    """SHA-256 of the device certificate's public key: one per chip."""
    firmware: str
    """FWID that the leaf was issued for, hex."""
    revocation_checked: bool


def verify(
    report: Report,
    chain: Sequence[bytes],
    *,
    now: int,
    crls: Collection[bytes] = (),
    roots: frozenset[str] = ROOTS,
) -> VerifiedDevice:
    """The report with what is proved about it. ``chain``: five DER certificates, leaf first, root last.

    Raises Malformed ``nvidia.chain``, ``x509.*``, ``der.*``; Refused ``x509.*``, ``nvidia.key``, ``nvidia.firmware``.
    """
    if len(chain) != _CHAIN:
        raise Malformed("nvidia.chain", f"NVIDIA chain: expected {_CHAIN} certificates, got {len(chain)}")
    certificates = [parse_certificate(data) for data in chain]
    verified = verify_chain(certificates, roots=roots, now=now, revocation=NoRevocation(reason=NO_LIST))  # step 1
    if crls:  # step 2
        lists = Revocation(lists=[parse_crl(data) for data in crls])
        verify_chain(certificates[-_LISTED:], roots=roots, now=now, revocation=lists, leaf="ca")
    leaf = verified.leaf
    if leaf.public_key.kind != "P-384":
        raise refusal("nvidia.key", "key of the device", "an ECDSA key on P-384", leaf.public_key.kind, "nobody")
    leaf.public_key.verify_ecdsa_raw(report.signature, report.signed, "the NVIDIA report", hash_name="sha384")  # step 3
    firmware = firmware_of(leaf)
    named = report.opaque.get(FWID)
    if named is not None and named != firmware:  # step 4
        raise refusal("nvidia.firmware", "firmware of the report", firmware.hex(), named.hex(), "platform-operator")
    return VerifiedDevice._seal(
        report=report,
        chain=verified,
        model=leaf.common_name,
        device=certificates[1].spki_sha256,
        firmware=firmware.hex(),
        revocation_checked=bool(crls),
    )


def firmware_of(leaf: Certificate) -> bytes:
    """The firmware id in a leaf: the first FWID of DiceTcbInfo (Blackwell), or that of a composite id (Hopper)."""
    if _TCB_INFO in leaf.extensions:
        fields = dict(der.sequence(leaf.extension(_TCB_INFO)))
        listed = der.items(fields.get(_TCB_INFO_FWIDS, b""))
        if not listed:
            raise _bad_fwid()
        return _fwid(listed[0])
    items = der.sequence(leaf.extension(_COMPOSITE_ID))
    if len(items) != 3:
        raise _bad_fwid()
    return _fwid(items[2])


def _fwid(item: tuple[int, bytes]) -> bytes:
    """FWID (TCG DICE Attestation Architecture 1.1, 6.1.1): hash algorithm and digest."""
    tag, value = item
    parts = der.items(value) if tag == der.SEQUENCE else []
    if (
        [t for t, _ in parts] != [der.OID, der.OCTET_STRING]
        or der.oid(parts[0][1]) != _SHA384
        or len(parts[1][1]) != 48
    ):
        raise _bad_fwid()
    return parts[1][1]


def _bad_fwid() -> Malformed:
    return Malformed("nvidia.chain", "NVIDIA leaf: expected a firmware id with a SHA-384 digest, got none")
