"""AWS Nitro for the registry: evidence and collateral in, claims out.

Evidence of kind ``nitro``: the statement is the attestation document (COSE_Sign1), there are no parts. Collateral: AWS's
revocation lists ``crl-root`` and ``crl-region``, DER, both or none; everything else is inside the document.
"""

from __future__ import annotations

from typing import Final

from kakoi.attest import parts
from kakoi.attest.identity import by_value
from kakoi.attest.nitro.parse import Document, parse
from kakoi.attest.nitro.verify import NO_LIST, ROOTS, SHORT_LIVED, VerifiedDocument, verify
from kakoi.attest.policy import PlatformPolicy
from kakoi.attest.report import (
    Check,
    Claims,
    Collateral,
    Evidence,
    Fact,
    Measurement,
    VerifiedEvidence,
    passed,
)
from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed
from kakoi.core.ids import ObjectId

STATUS: Final = "NotPublished"
"""AWS publishes no TCB levels: it keeps the hypervisor current by itself."""
LISTS: Final = ("crl-root", "crl-region")
_MAX_REPORT_DATA: Final = 64
_IDENTITY: Final = {"enclave": "pcr0", "nitrotpm": "pcr4"}


def _report_data(document: Document) -> bytes:
    """``user_data`` if it can be a session's report data at all; longer ones are shown by their hash only."""
    user_data = document.user_data or b""
    return user_data if len(user_data) <= _MAX_REPORT_DATA else b""


def _shown(value: bytes | None, report_data: bytes) -> str:
    """A member that the enclave chose, as a fact: it may be longer than a fact may be."""
    if value in (None, b""):
        return "none"
    return "report-data" if value == report_data else f"sha256:{sha256(value or b'').hex()}"


def facts(verified: VerifiedDocument) -> tuple[Fact, ...]:
    """What a policy has to judge beside the registers."""
    document = verified.document
    values = {
        "device": document.device,
        "region": verified.region,
        "user-data": _shown(document.user_data, _report_data(document)),
        "nonce": _shown(document.nonce, _report_data(document)),
        "public-key": _shown(document.public_key, _report_data(document)),
        "revocation": "not checked" if verified.crls_issued_at is None else "checked",
    }
    return tuple(Fact(name=name, value=value) for name, value in values.items())


def _identity(document: Document) -> str:
    """The EC2 instance, hex of its ASCII id: the part of ``module_id`` before ``-enc``."""
    return document.module_id.split("-enc", 1)[0].encode("ascii").hex()


def _claims(verified: VerifiedDocument) -> Claims:
    document = verified.document
    return Claims(
        platform="nitro",
        measurements=tuple(Measurement(name=f"pcr{i}", value=v.hex()) for i, v in document.pcrs.items()),
        report_data=_report_data(document).hex(),
        debug=verified.debug,
        tcb_status=STATUS,
        advisories=(),
        tcb=(),
        tcb_date=None,
        tcb_evaluation_number=None,
        platform_identity=_identity(document),
        product=document.device,
        root=ObjectId(verified.chain.root_spki_sha256),
        settings=facts(verified),
    )


def _checks(verified: VerifiedDocument) -> tuple[Check, ...]:
    unchecked = verified.crls_issued_at is None
    reason = f"not checked: {NO_LIST}" if unchecked else "regional and zonal CA not revoked"
    revocation = Check(
        name="nitro.revocation",
        outcome="skipped" if unchecked else "passed",
        expected=reason,
        got="see the fact revocation" if unchecked else f"not on the lists ({SHORT_LIVED})",
        mender="owner-policy" if unchecked else "vendor",
    )
    return (
        passed("nitro.chain", "ends in AWS's root for Nitro", verified.chain.root_spki_sha256, "nobody"),
        revocation,
        passed("nitro.certificate", "of this module, in its window", verified.chain.leaf.common_name, "nobody"),
        passed("nitro.signature", "signed by the module's key", verified.chain.leaf.spki_sha256, "nobody"),
    )


class NitroVerifier:
    """The registry's verifier for ``nitro``. ``roots`` is AWS's; only tests pass others."""

    def __init__(self, roots: frozenset[str] = ROOTS) -> None:
        self._roots: Final = roots

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        """Parse and verify (see ``nitro.verify``). Raises Malformed or Refused."""
        parts.named(evidence.parts, "Nitro evidence", allowed=())
        lists = parts.named(collateral.parts, "Nitro collateral", allowed=LISTS)
        if lists and lists.keys() != set(LISTS):
            raise Malformed("evidence.parts", "Nitro collateral: expected both revocation lists or none, got one")
        verified = verify(parse(evidence.statement), list(lists.values()), now=now, roots=self._roots)
        issued = verified.document.timestamp // 1000
        return VerifiedEvidence._seal(
            claims=_claims(verified),
            checks=_checks(verified),
            collateral=parts.digests(lists),
            collateral_issued_at=min(issued, verified.crls_issued_at or issued),
            protected_by_hardware=True,
            bounded=frozenset(),
        )

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        """The image has to be judged by value: PCR0 of an enclave, PCR4 of a NitroTPM guest."""
        return by_value(policy, _IDENTITY[verified.claims.product])
