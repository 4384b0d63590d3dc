"""SEV-SNP for the registry: evidence and collateral in, claims out.

Evidence of kind ``snp``: the statement is the 1184-byte report; the optional part ``certificates`` is the certificate
table that the host added (configfs-tsm ``auxblob``). Collateral: ``vcek`` or ``vlek``, ``intermediate`` (ASK or ASVK),
``root`` (ARK) and ``crl``, all DER. Whatever the collateral lacks is taken from the certificate table, except the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from kakoi.attest import parts
from kakoi.attest.identity import by_value
from kakoi.attest.policy import PlatformPolicy
from kakoi.attest.report import (
    Check,
    Claims,
    Collateral,
    Component,
    Evidence,
    Fact,
    Measurement,
    PlatformKind,
    VerifiedEvidence,
    passed,
)
from kakoi.attest.snp import parse
from kakoi.attest.snp.endorsement import ROOTS, Tcb
from kakoi.attest.snp.parse import PLATFORM_BITS, POLICY_BITS, Product, Report
from kakoi.attest.snp.verify import Endorsements, VerifiedReport, verify
from kakoi.core.errors import Malformed
from kakoi.core.ids import ObjectId
from kakoi.core.x509 import parse_pem_chain

STATUS: Final = "NotPublished"
"""AMD publishes no list of TCB statuses; the owners' minimum TCB stands in for it."""
COLLATERAL_PARTS: Final = ("vcek", "vlek", "intermediate", "root", "crl")
_NO_MIGRATION_AGENT: Final = b"\xff" * 32
_GUID_OF: Final = {
    "vcek": parse.VCEK_GUID,
    "vlek": parse.VLEK_GUID,
    "intermediate": parse.ASK_GUID,
    "root": parse.ARK_GUID,
}
# Facts and components are few and alike from one report to the next; they are immutable, so one of each will do.
_fact: Final = lru_cache(maxsize=1024)(lambda name, value: Fact(name=name, value=value))
_component: Final = lru_cache(maxsize=1024)(lambda name, version: Component(name=name, version=version))


def select(report: Report, collateral: Mapping[str, bytes], table: Mapping[str, bytes]) -> dict[str, bytes]:
    """The pieces to judge ``report`` with, by name. Raises Malformed ``evidence.parts`` for a missing one."""
    key = report.signing_key.lower()
    used = {}
    for name in (key, "intermediate", "root"):
        piece = collateral[name] if name in collateral else _der(table.get(_GUID_OF[name]))
        if piece is None:
            raise Malformed(
                "evidence.parts",
                f"SNP collateral: expected {name}, got none",
                hint="fetch it from AMD's key distribution service (kakoi collateral), or import a bundle",
            )
        used[name] = piece
    if "crl" in collateral:
        used["crl"] = collateral["crl"]
    return used


def _der(piece: bytes | None) -> bytes | None:
    """A certificate of the host's table as DER; some hosts are given PEM and hand it on."""
    if piece is None or not piece.startswith(b"-----BEGIN"):
        return piece
    return parse_pem_chain(piece, 1)[0].der


def endorsements(report: Report, used: Mapping[str, bytes]) -> Endorsements:
    """The same pieces in the form that ``verify`` takes."""
    return Endorsements(
        endorsement_key=used[report.signing_key.lower()],
        intermediate=used["intermediate"],
        root=used["root"],
        crl=used.get("crl"),
    )


def measurements(report: Report) -> tuple[Measurement, ...]:
    """What was measured or fixed at launch."""
    fields = {
        "measurement": report.measurement,
        "host-data": report.host_data,
        "family-id": report.family_id,
        "image-id": report.image_id,
        "id-key-digest": report.id_key_digest,
        "author-key-digest": report.author_key_digest,
    }
    return tuple(Measurement(name=name, value=value.hex()) for name, value in fields.items())


def _components(prefix: str, tcb: Tcb) -> list[Component]:
    return [_component(f"{prefix}.{name}", version) for name, version in tcb.items()]


def components(verified: VerifiedReport) -> tuple[Component, ...]:
    """Security versions that a policy has to give a minimum for: TCB now and at launch, firmware, guest, ABI."""
    report = verified.report
    return (
        *_components("reported", verified.reported_tcb),
        *_components("launch", verified.launch_tcb),
        _component("firmware", report.committed_firmware.number),
        _component("guest-svn", report.guest_svn),
        _component("policy-abi", report.abi.number),
    )


def _switch(value: int, bit: int) -> str:
    return "on" if value >> bit & 1 else "off"


def _vector(value: int | None) -> str:
    return "absent" if value is None else f"{value:#018x}"


def facts(verified: VerifiedReport) -> tuple[Fact, ...]:
    """Everything else that a policy has to judge, as text."""
    report = verified.report
    provisional = (report.current_tcb, report.current_firmware) != (report.committed_tcb, report.committed_firmware)
    agent = "none" if report.report_id_ma == _NO_MIGRATION_AGENT else report.report_id_ma.hex()
    values = {
        "report-version": str(report.version),
        "vmpl": "host" if report.vmpl == parse.HOST_REQUEST else str(report.vmpl),
        "signing-key": report.signing_key,
        "csp-id": verified.endorsement.csp_id or "none",
        "chip-id": "masked" if verified.chip_id_masked else "shown",
        "mask-chip-key": "on" if report.mask_chip_key else "off",
        "author-key": "on" if report.author_key_en else "off",
        "provisional-firmware": "yes" if provisional else "no",
        "migration-agent": agent,
        "mitigations.launch": _vector(report.launch_mitigations),
        "mitigations.current": _vector(report.current_mitigations),
        "revocation": "not checked" if verified.crl_issued_at is None else "checked",
    }
    values.update(
        {f"policy.{name}": _switch(report.policy, bit) for name, bit in POLICY_BITS.items() if name != "debug"}
    )
    values.update({f"platform.{name}": _switch(report.platform_info, bit) for name, bit in PLATFORM_BITS.items()})
    return tuple(_fact(name, value) for name, value in values.items())


def claims(verified: VerifiedReport, platform: PlatformKind, report_data: bytes) -> Claims:
    """Common claims of a report; ``report_data`` is what the enclave chose, which on Azure is not the report's."""
    report = verified.report
    return Claims(
        platform=platform,
        measurements=measurements(report),
        report_data=report_data.hex(),
        debug=bool(report.policy >> POLICY_BITS["debug"] & 1),
        tcb_status=STATUS,
        advisories=(),
        tcb=components(verified),
        tcb_date=None,
        tcb_evaluation_number=None,
        platform_identity="" if verified.chip_id_masked else report.chip_id.hex(),
        product=verified.product,
        root=ObjectId(verified.chain.root_spki_sha256),
        settings=facts(verified),
    )


def checks(verified: VerifiedReport) -> tuple[Check, ...]:
    """What verification proved, by name."""
    report, endorsed = verified.report, verified.endorsement
    revocation = (
        Check(name="snp.revocation", outcome="skipped", expected=f"not checked: {verified.chain.unchecked}",
              got="see the fact revocation", mender="owner-policy")
        if verified.crl_issued_at is None
        else passed("snp.revocation", "intermediate not revoked", "not on the list", "vendor")
    )  # fmt: skip
    return (
        passed("snp.chain", f"ends in AMD's root for {verified.product}", verified.chain.root_spki_sha256, "nobody"),
        revocation,
        passed("snp.signature", f"signed by the {report.signing_key}", verified.chain.leaf.spki_sha256, "nobody"),
        passed("snp.product", verified.product, endorsed.product_name, "nobody"),
        passed("snp.certificate-tcb", "REPORTED_TCB", ", ".join(map(str, endorsed.tcb.values())), "nobody"),
        passed("snp.certificate-chip", "CHIP_ID", "masked" if verified.chip_id_masked else "equal", "nobody"),
        passed("snp.tcb-order", "reported and committed at most current", "so", "platform-operator"),
    )


class SnpVerifier:
    """The registry's verifier for ``snp``. ``roots`` are AMD's; only tests pass others."""

    def __init__(self, roots: Mapping[str, Product] = ROOTS) -> None:
        self._roots: Final = roots

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        """Parse and verify (see ``snp.verify``). Raises Malformed or Refused."""
        given = parts.named(evidence.parts, "SNP evidence", allowed=("certificates",))
        pieces = parts.named(collateral.parts, "SNP collateral", allowed=COLLATERAL_PARTS)
        report = parse.parse(evidence.statement)
        table = parse.parse_certificate_table(given["certificates"]) if "certificates" in given else {}
        used = select(report, pieces, table)
        verified = verify(report, endorsements(report, used), now=now, roots=self._roots)
        found = claims(verified, "snp", report.report_data)
        return VerifiedEvidence._seal(
            claims=found,
            checks=checks(verified),
            collateral=parts.digests(used),
            collateral_issued_at=verified.crl_issued_at,
            protected_by_hardware=True,
            bounded=frozenset(component.name for component in found.tcb),
        )

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        """A guest is its launch measurement: it has to be judged by value."""
        return by_value(policy, "measurement")
