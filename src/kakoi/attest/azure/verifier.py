"""Azure confidential VMs for the registry, on SNP and on TDX.

Evidence of kind ``azure-snp`` or ``azure-tdx``: the statement is the HCL report; parts are ``tpm-quote`` (TPMS_ATTEST),
``tpm-signature`` (TPMT_SIGNATURE), ``pcrs`` (24 values of the SHA-256 bank), optionally ``event-log``, and for TDX
``td-quote``, for SNP optionally ``vcek``, ``intermediate`` and ``root`` as THIM gives them. Collateral is that of
``snp`` or ``tdx``. Report data of the session is the quote's extraData.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Protocol

from kakoi.attest import parts
from kakoi.attest.azure import verify as azure
from kakoi.attest.azure.parse import HclReport, parse
from kakoi.attest.azure.verify import Presented, VerifiedGuest
from kakoi.attest.identity import by_value
from kakoi.attest.policy import PlatformPolicy
from kakoi.attest.report import (
    Check,
    Claims,
    Collateral,
    Evidence,
    Measurement,
    PlatformKind,
    VerifiedEvidence,
    passed,
    refusal,
)
from kakoi.attest.snp import parse as snp_parse
from kakoi.attest.snp import verifier as snp
from kakoi.attest.snp import verify as snp_verify
from kakoi.attest.snp.endorsement import ROOTS
from kakoi.attest.snp.parse import Product

_TPM_PARTS: Final = ("tpm-quote", "tpm-signature", "pcrs")
_SNP_PARTS: Final = ("event-log", "vcek", "intermediate", "root")
_CHECKS: Final = (
    passed("azure.claims", "hash of the HCL claims in the hardware report", "equal", "nobody"),
    passed("azure.tpm-signature", "signed by HCLAkPub of the claims", "so", "nobody"),
    passed("azure.pcr-selection", "exactly sha256:0-23", "so", "nobody"),
    passed("azure.pcr-digest", "digest of the PCR values", "equal", "nobody"),
)
_BOOT: Final = "pcr4"
"""The boot loader or unified kernel image: without it, the guest is any guest."""


class TdVerifier(Protocol):
    """Whoever verifies TD quotes: the registry passes its verifier of ``tdx``."""

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        """A genuine TD quote."""
        ...


def _presented(pieces: Mapping[str, bytes]) -> Presented:
    return Presented(
        quote=pieces["tpm-quote"],
        signature=pieces["tpm-signature"],
        pcrs=pieces["pcrs"],
        event_log=pieces.get("event-log"),
    )


def _expect(evidence: Evidence, platform: PlatformKind) -> HclReport:
    """Step 1."""
    hcl = parse(evidence.statement)
    wanted = platform.removeprefix("azure-")
    if evidence.platform != platform or hcl.hardware != wanted:
        raise refusal(
            "azure.kind", "hardware report", wanted, f"{hcl.hardware} as {evidence.platform}", "enclave-author"
        )
    return hcl


def _claims(claims: Claims, guest: VerifiedGuest, platform: PlatformKind) -> Claims:
    pcrs = tuple(Measurement(name=f"pcr{i}", value=value.hex()) for i, value in guest.quote.pcrs.items())
    return replace(
        claims,
        platform=platform,
        measurements=(*claims.measurements, *pcrs),
        report_data=guest.quote.quote.extra_data.hex(),
        settings=(*claims.settings, *azure.facts(guest)),
    )


def _checks(guest: VerifiedGuest) -> tuple[Check, ...]:
    log = (passed("azure.event-log", "replays to PCR 0-7", "so", "nobody"),) if guest.replayed else ()
    return (*_CHECKS, *log)


class AzureSnpVerifier:
    """The registry's verifier for ``azure-snp``. ``roots`` are AMD's; only tests pass others."""

    def __init__(self, roots: Mapping[str, Product] = ROOTS) -> None:
        self._roots: Final = roots

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        """Parse and verify (see ``azure.verify``, ``snp.verify``). Raises Malformed or Refused."""
        pieces = parts.named(evidence.parts, "Azure evidence", allowed=_SNP_PARTS, required=_TPM_PARTS)
        given = parts.named(collateral.parts, "SNP collateral", allowed=snp.COLLATERAL_PARTS)
        hcl = _expect(evidence, "azure-snp")
        report = snp_parse.parse(hcl.statement)
        presented = {name: data for name, data in pieces.items() if name in snp.COLLATERAL_PARTS}
        used = snp.select(report, {**presented, **given}, {})
        verified = snp_verify.verify(report, snp.endorsements(report, used), now=now, roots=self._roots)
        if report.vmpl != 0:  # step 3
            raise refusal("azure.vmpl", "VMPL of the paravisor's report", "0", str(report.vmpl), "nobody")
        guest = azure.verify(hcl, _presented(pieces), signed_report_data=report.report_data)
        claims = snp.claims(verified, "azure-snp", report.report_data)
        return VerifiedEvidence._seal(
            claims=_claims(claims, guest, "azure-snp"),
            checks=(*snp.checks(verified), *_checks(guest)),
            collateral=parts.digests(used),
            collateral_issued_at=verified.crl_issued_at,
            protected_by_hardware=True,
            bounded=frozenset(component.name for component in claims.tcb),
        )

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        """The paravisor and the guest's boot loader have to be judged by value."""
        return by_value(policy, "measurement", _BOOT)


class AzureTdxVerifier:
    """The registry's verifier for ``azure-tdx``; the TD quote is judged by ``td``."""

    def __init__(self, td: TdVerifier) -> None:
        self._td: Final = td

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        """Parse and verify (see ``azure.verify``). Raises Malformed or Refused, also those of ``td``."""
        pieces = parts.named(
            evidence.parts, "Azure evidence", allowed=("event-log",), required=(*_TPM_PARTS, "td-quote")
        )
        hcl = _expect(evidence, "azure-tdx")
        copy = azure.parse_td_report(hcl.statement)
        quote = Evidence(platform="tdx", statement=pieces["td-quote"], parts=())
        td = self._td.verify(quote, collateral, now=now)
        quoted = {m.name: m.value for m in td.claims.measurements}
        azure.check_td_report(copy, quoted, td.claims.report_data)  # step 3
        signed = bytes.fromhex(td.claims.report_data)
        guest = azure.verify(hcl, _presented(pieces), signed_report_data=signed)
        return VerifiedEvidence._seal(
            claims=_claims(td.claims, guest, "azure-tdx"),
            checks=(*td.checks, *_checks(guest)),
            collateral=td.collateral,
            collateral_issued_at=td.collateral_issued_at,
            protected_by_hardware=td.protected_by_hardware,
            bounded=td.bounded,
        )

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        """The paravisor and the guest's boot loader have to be judged by value."""
        return by_value(policy, "mrtd", _BOOT)
