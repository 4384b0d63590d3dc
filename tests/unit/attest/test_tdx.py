"""TDX guests: attributes, bodies of every age, and what a policy has to say about them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kakoi.attest.dcap.parse import BodyKind
from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, Unchecked
from kakoi.attest.registry import judge
from kakoi.attest.report import AppraisalRefused, Verdict, VerifiedEvidence
from kakoi.attest.tdx.verify import TdxVerifier
from kakoi.testing.dcap_vendor import DAY, NOW, REPORT_DATA, Vendor, td_body
from kakoi.testing.dcap_vendor_corpus import refused, verify

VENDOR = Vendor()
SEPT = 1 << 28


def verified(kind: BodyKind = "td-1.5", **fields: object) -> VerifiedEvidence:
    body = td_body(kind, **fields)  # type: ignore[arg-type]
    return verify(VENDOR, kind=kind, evidence=VENDOR.evidence(body, kind=kind))


def decide(policy: PlatformPolicy, kind: BodyKind = "td-1.5", **fields: object) -> Verdict:
    body = td_body(kind, **fields)  # type: ignore[arg-type]
    return judge(
        VENDOR.evidence(body, kind=kind),
        VENDOR.collateral(kind),
        AttestationPolicy(accepted=(policy,)),
        report_data=REPORT_DATA,
        now=NOW,
        verifiers={"tdx": TdxVerifier(VENDOR.roots)},
    )


def facts(evidence: VerifiedEvidence) -> dict[str, str]:
    return {fact.name: fact.value for fact in evidence.claims.settings}


@pytest.mark.parametrize("kind", ["td-1.0", "td-1.5", "td-1.5ex"])
def test_bodies(kind: BodyKind) -> None:
    claims = verified(kind).claims
    names = [m.name for m in claims.measurements]
    assert names[:9] == ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam"]
    assert "mrservicetd" in names
    assert ("td-id" in facts(verified(kind))) == (kind == "td-1.5ex")
    assert facts(verified(kind))["td-body"] == kind.removeprefix("td-")
    assert [c.name for c in claims.tcb][-16:] == [f"tdx-{i:02d}" for i in range(1, 17)]
    decide(draft(verified(kind), collateral_max_age=2 * DAY), kind)


@pytest.mark.parametrize("bit", range(8))
def test_every_debug_bit_is_debug(bit: int) -> None:
    evidence = verified(attributes=SEPT | 1 << bit)
    assert evidence.claims.debug
    with pytest.raises(AppraisalRefused) as caught:
        decide(draft(evidence, collateral_max_age=2 * DAY), attributes=SEPT | 1 << bit)
    assert [c.name for c in caught.value.verdict.failed] == ["debug"]


ATTRIBUTES = {
    16: ("icssd", True),
    17: ("service-td-ext", False),
    18: ("newer-attributes", True),
    22: ("newer-attributes", True),
    27: ("lass", True),
    28: ("sept-ve-disable", False),
    29: ("migratable", False),
    30: ("pks", True),
    31: ("key-locker", True),
    62: ("tpa", True),
    63: ("perfmon", True),
}


@pytest.mark.parametrize("bit", ATTRIBUTES)
def test_an_attribute_counts(bit: int) -> None:
    """Accepted only by a policy that names it; where dcap-qvl has a fixed rule, also as judged by one verifier."""
    name, judged_by_both = ATTRIBUTES[bit]
    changed = SEPT ^ 1 << bit
    with pytest.raises(AppraisalRefused) as caught:
        decide(draft(verified(), collateral_max_age=2 * DAY), attributes=changed)
    second = [] if judged_by_both else ["setting.second-opinion"]
    assert [c.name for c in caught.value.verdict.failed] == [f"setting.{name}", *second]
    assert caught.value.verdict.failed[0].mender == "enclave-author"
    evidence = verified(attributes=changed)
    assert facts(evidence)["second-opinion"] == ("agrees" if judged_by_both else name)
    decide(draft(evidence, collateral_max_age=2 * DAY), attributes=changed)


@pytest.mark.parametrize("bit", [*range(8, 16), *range(23, 27), *range(32, 62)])
def test_a_reserved_attribute_refuses(bit: int) -> None:
    evidence = VENDOR.evidence(td_body(attributes=SEPT | 1 << bit), kind="td-1.5")
    assert refused(verify, VENDOR, kind="td-1.5", evidence=evidence) == "dcap.second-opinion"


def test_guest_without_sept_ve_disable_needs_two_acts() -> None:
    """The setting itself, and that only one verifier could judge the quote."""
    policy = draft(verified(), collateral_max_age=2 * DAY)
    with pytest.raises(AppraisalRefused) as caught:
        decide(policy, attributes=0)
    assert [c.name for c in caught.value.verdict.failed] == ["setting.sept-ve-disable", "setting.second-opinion"]


def test_service_td() -> None:
    policy = draft(verified(), collateral_max_age=2 * DAY)
    with pytest.raises(AppraisalRefused) as caught:
        decide(policy, mr_service_td=b"\x01" * 48)
    assert [c.name for c in caught.value.verdict.failed] == ["measurement.mrservicetd", "setting.second-opinion"]


@pytest.mark.parametrize("name", ["mrtd", "rtmr1", "rtmr2"])
def test_firmware_and_kernel_have_to_be_judged(name: str) -> None:
    """MRTD alone is the firmware: under it, anybody's system boots."""
    policy = draft(verified(), collateral_max_age=2 * DAY)
    reason = Unchecked(reason="the other measurements are enough")
    skipped = tuple(replace(m, accepted=reason) if m.name == name else m for m in policy.measurements)
    with pytest.raises(AppraisalRefused) as caught:
        decide(replace(policy, measurements=skipped))
    assert [c.name for c in caught.value.verdict.failed] == [f"identity.{name}"]


@pytest.mark.parametrize("register", range(4))
def test_each_runtime_measurement_counts(register: int) -> None:
    policy = draft(verified(), collateral_max_age=2 * DAY)
    body = bytearray(td_body())
    body[328 + 48 * register] ^= 1
    with pytest.raises(AppraisalRefused) as caught:
        judge(
            VENDOR.evidence(bytes(body), kind="td-1.5"),
            VENDOR.collateral("td-1.5"),
            AttestationPolicy(accepted=(policy,)),
            report_data=REPORT_DATA,
            now=NOW,
            verifiers={"tdx": TdxVerifier(VENDOR.roots)},
        )
    assert [c.name for c in caught.value.verdict.failed] == [f"measurement.rtmr{register}"]
