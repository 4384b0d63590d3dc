"""Appraisal: every rule refuses by itself, all mismatches are told at once, and nothing passes unnamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kakoi.attest.appraise import SKEW_SECONDS, appraise
from kakoi.attest.draft import draft
from kakoi.attest.nitro.verifier import NitroVerifier
from kakoi.attest.policy import AttestationPolicy, Grace, PlatformPolicy, ReferenceValue, Setting, Unchecked
from kakoi.attest.registry import HARDWARE, Verifier, judge
from kakoi.attest.report import AppraisalRefused, Check, Collateral, Component, Evidence, PlatformKind, Verdict
from kakoi.attest.sgx.verify import SgxVerifier
from kakoi.attest.tdx.verify import TdxVerifier
from kakoi.core.errors import Malformed, Misuse, Refused
from kakoi.core.ids import ObjectId
from kakoi.testing import nitro_vendor
from kakoi.testing.dcap_vendor import DAY, NOW, REPORT_DATA, Vendor, sgx_body
from kakoi.testing.dcap_vendor_corpus import verify

VENDOR = Vendor()
VENDOR.tcb_levels[0]["tcbStatus"] = "SWHardeningNeeded"
VENDOR.tcb_levels[0]["advisoryIDs"] = ["INTEL-SA-00005"]
EVIDENCE, COLLATERAL = VENDOR.evidence(), VENDOR.collateral()
VERIFIERS: dict[PlatformKind, Verifier] = {"sgx": SgxVerifier(VENDOR.roots), "tdx": TdxVerifier(VENDOR.roots)}
POLICY = draft(verify(VENDOR), collateral_max_age=2 * DAY)
REASON = Unchecked(reason="the owners decided so in writing")
Change = Callable[[PlatformPolicy], PlatformPolicy]


def decide(policy: PlatformPolicy, **more: Any) -> Verdict:
    arguments: dict[str, Any] = {"report_data": REPORT_DATA, "now": NOW, "verifiers": VERIFIERS, **more}
    return judge(EVIDENCE, COLLATERAL, AttestationPolicy(accepted=(policy,)), **arguments)


def failed(policy: PlatformPolicy, **more: Any) -> list[Check]:
    with pytest.raises(AppraisalRefused) as caught:
        decide(policy, **more)
    assert caught.value.code == "appraisal.refused"
    return list(caught.value.verdict.failed)


def names(checks: list[Check]) -> list[str]:
    return [check.name for check in checks]


def test_accepted() -> None:
    verdict = decide(POLICY)
    assert verdict.failed == ()
    assert verdict.protected_by_hardware
    assert verdict.evaluated_at == NOW
    assert verdict.collateral_issued_at == NOW - DAY
    assert [d.name for d in verdict.collateral] == [p.name for p in COLLATERAL.parts] or len(verdict.collateral) == 9
    assert {c.outcome for c in verdict.checks} == {"passed"}
    assert Verdict.decode(verdict.encode()) == verdict


def without(policy: PlatformPolicy, field: str, name: str) -> PlatformPolicy:
    kept: Any = tuple(i for i in getattr(policy, field) if i.name != name)
    return replace(policy, measurements=kept) if field == "measurements" else replace(policy, settings=kept)


def setting(policy: PlatformPolicy, name: str, *accepted: str) -> PlatformPolicy:
    rest = without(policy, "settings", name)
    return replace(rest, settings=(*rest.settings, Setting(name=name, accepted=accepted)))


RULES: list[tuple[str, Change]] = [
    ("root", lambda p: replace(p, roots=(ObjectId("0" * 64),))),
    ("product", lambda p: replace(p, refused_products=("00906ed50000",))),
    ("product", lambda p: replace(p, refused_products=("00906ED50000",))),
    ("platform-identity", lambda p: replace(p, platforms=("00" * 16,))),
    ("measurement.mrenclave", lambda p: replace(p, measurements=(ReferenceValue(name="mrenclave", accepted=("00",)), p.measurements[1]))),
    ("measurement.mrsigner", lambda p: without(p, "measurements", "mrsigner")),
    ("measurement.mrtd", lambda p: replace(p, measurements=(*p.measurements, ReferenceValue(name="mrtd", accepted=("00",))))),
    ("tcb-status", lambda p: replace(p, statuses=("UpToDate",))),
    ("advisories", lambda p: replace(p, advisories=())),
    ("advisories", lambda p: replace(p, advisories=("INTEL-SA-00006",))),
    ("minimum-tcb.pce", lambda p: replace(p, minimum_tcb=(Component(name="pce", version=14),))),
    ("minimum-tcb.sgx-07", lambda p: replace(p, minimum_tcb=(Component(name="sgx-07", version=6),))),
    ("minimum-tcb.bootloader", lambda p: replace(p, minimum_tcb=(Component(name="bootloader", version=0),))),
    ("tcb-evaluation-number", lambda p: replace(p, minimum_tcb_evaluation_number=18)),
    ("collateral-age", lambda p: replace(p, collateral_max_age=DAY - 1)),
    ("setting.smt", lambda p: setting(p, "smt", "true")),
    ("setting.smt", lambda p: without(p, "settings", "smt")),
    ("setting.vmpl", lambda p: setting(p, "vmpl", "0")),
    ("setting.second-opinion", lambda p: setting(p, "second-opinion", "tcb-info-v2")),
    ("setting.provision-key", lambda p: without(p, "settings", "provision-key")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), RULES, ids=[f"{i}-{name}" for i, (name, _) in enumerate(RULES)])
def test_each_rule_refuses_by_itself(name: str, change: Change) -> None:
    (check,) = failed(change(POLICY))
    assert check.name == name
    assert check.expected
    assert check.got


def test_every_fact_and_measurement_has_to_be_named() -> None:
    for field in ("settings", "measurements"):
        for item in getattr(POLICY, field):
            if item.name == "mrenclave":
                continue
            (check,) = failed(without(POLICY, field, item.name))
            assert (check.expected, check.mender) == ("nothing in the policy", "owner-policy")


def test_two_faults_are_told_at_once() -> None:
    policy = replace(setting(POLICY, "smt", "true"), advisories=(), collateral_max_age=1)
    checks = failed(policy, report_data=bytes(64))
    assert names(checks) == ["report-data", "setting.smt", "advisories", "collateral-age"]
    assert {c.mender for c in checks} == {"nobody", "platform-operator"}
    with pytest.raises(AppraisalRefused) as caught:
        decide(policy, report_data=bytes(64))
    for check in checks:
        assert f"{check.name}: expected {check.expected}, got {check.got} ({check.mender})" in caught.value.message
    assert "nobody can mend this" in caught.value.hint


def test_report_data_is_compared_whole() -> None:
    for at in range(64):
        other = bytearray(REPORT_DATA)
        other[at] ^= 1
        assert names(failed(POLICY, report_data=bytes(other))) == ["report-data"]
    assert names(failed(POLICY, report_data=REPORT_DATA[:32])) == ["report-data"]
    for size in (0, 16, 63, 65):
        with pytest.raises(Misuse):
            decide(POLICY, report_data=bytes(size))


def test_debug_cannot_be_accepted() -> None:
    vendor = VENDOR
    evidence = vendor.evidence(sgx_body(flags=0x7))
    verified = VERIFIERS["sgx"].verify(evidence, COLLATERAL, now=NOW)
    policy = AttestationPolicy(accepted=(draft(verified, collateral_max_age=2 * DAY),))
    with pytest.raises(AppraisalRefused) as caught:
        judge(evidence, COLLATERAL, policy, report_data=REPORT_DATA, now=NOW, verifiers=VERIFIERS)
    assert names(list(caught.value.verdict.failed)) == ["debug"]


SKIPS: list[tuple[str, Change]] = [
    ("minimum-tcb", lambda p: replace(p, minimum_tcb=REASON)),
    ("tcb-evaluation-number", lambda p: replace(p, minimum_tcb_evaluation_number=REASON)),
    ("platform-identity", lambda p: replace(p, platforms=REASON)),
    ("collateral-age", lambda p: replace(p, collateral_max_age=REASON)),
    ("measurement.mrsigner", lambda p: replace(p, measurements=(p.measurements[0], ReferenceValue(name="mrsigner", accepted=REASON)))),
    ("setting.smt", lambda p: replace(without(p, "settings", "smt"), settings=(*without(p, "settings", "smt").settings, Setting(name="smt", accepted=REASON)))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), SKIPS, ids=[name for name, _ in SKIPS])
def test_a_skipped_check_shows_with_its_reason(name: str, change: Change) -> None:
    verdict = decide(change(POLICY))
    (skipped,) = [c for c in verdict.checks if c.outcome == "skipped"]
    assert skipped.name == name
    assert REASON.reason in skipped.expected


def test_grace_ends() -> None:
    policy = replace(POLICY, statuses=("UpToDate",), grace=Grace(statuses=("SWHardeningNeeded",), until=NOW))
    decide(policy)
    late = replace(policy, grace=Grace(statuses=("SWHardeningNeeded",), until=NOW - 1))
    assert names(failed(late)) == ["tcb-status"]
    other = replace(policy, grace=Grace(statuses=("OutOfDate",), until=NOW + DAY))
    assert names(failed(other)) == ["tcb-status"]


def test_evaluation_number_never_goes_back() -> None:
    decide(POLICY, evaluation_floor=17)
    assert names(failed(POLICY, evaluation_floor=18)) == ["tcb-evaluation-number.rollback"]


def test_evaluation_numbers_are_remembered_by_product() -> None:
    fmspc = VERIFIERS["sgx"].verify(EVIDENCE, COLLATERAL, now=NOW).claims.product
    decide(POLICY, evaluation_floors={fmspc: 17, "another": 99})
    assert names(failed(POLICY, evaluation_floors={fmspc: 18})) == ["tcb-evaluation-number.rollback"]
    assert names(failed(POLICY, evaluation_floors={fmspc: 17}, evaluation_floor=18)) == [
        "tcb-evaluation-number.rollback"
    ]


def test_a_floor_that_holds_leaves_no_trace() -> None:
    """Whoever judges the passport again does not know it, and has to come to the same verdict."""
    assert decide(POLICY, evaluation_floor=17) == decide(POLICY)


ISSUED = VERIFIERS["sgx"].verify(EVIDENCE, COLLATERAL, now=NOW).collateral_issued_at or 0


@pytest.mark.parametrize(
    ("now", "ok"),
    [
        (ISSUED - SKEW_SECONDS - 1, False),
        (ISSUED - SKEW_SECONDS, True),
        (ISSUED - 1, True),
        (ISSUED, True),
        (ISSUED + 3600, True),
        (ISSUED + 3601, False),
    ],
)
def test_the_age_of_collateral_at_its_edges(now: int, ok: bool) -> None:
    """A judge whose clock is a little behind the vendor's, as with Nitro documents, is no reason to refuse."""
    verified = VERIFIERS["sgx"].verify(EVIDENCE, COLLATERAL, now=NOW)
    policy = replace(POLICY, collateral_max_age=3600)
    try:
        verdict = appraise(verified, policy, report_data=REPORT_DATA, now=now)
    except AppraisalRefused as error:
        verdict = error.verdict
    assert ("collateral-age" not in names(list(verdict.failed))) == ok


def test_a_broker_one_second_behind_aws_does_not_refuse() -> None:
    vendor = nitro_vendor.vendor()
    evidence = Evidence(platform="nitro", statement=vendor.document(timestamp=1000 * (NOW + 1)), parts=())
    verified = NitroVerifier(vendor.roots).verify(evidence, Collateral(parts=()), now=NOW)
    assert verified.collateral_issued_at == NOW + 1
    verdict = appraise(verified, draft(verified, collateral_max_age=300), report_data=bytes(range(64)), now=NOW)
    assert verdict.failed == ()


def test_signer_identity_needs_product_and_version() -> None:
    signer = replace(POLICY, measurements=(ReferenceValue(name="mrenclave", accepted=REASON), POLICY.measurements[1]))
    decide(signer)
    assert names(failed(replace(signer, minimum_tcb=(Component(name="pce", version=1),)))) == ["sgx.identity"]
    assert names(failed(replace(signer, minimum_tcb=REASON))) == ["sgx.identity"]
    skipped = without(signer, "settings", "isv-prod-id")
    skipped = replace(skipped, settings=(*skipped.settings, Setting(name="isv-prod-id", accepted=REASON)))
    assert names(failed(skipped)) == ["sgx.identity"]
    too_old = replace(signer, minimum_tcb=(Component(name="isv-svn", version=4),))
    assert names(failed(too_old)) == ["minimum-tcb.isv-svn"]


def test_platform_that_the_contract_does_not_name() -> None:
    tdx = VENDOR.evidence(kind="td-1.5")
    with pytest.raises(Refused) as caught:
        judge(
            tdx,
            COLLATERAL,
            AttestationPolicy(accepted=(POLICY,)),
            report_data=REPORT_DATA,
            now=NOW,
            verifiers=VERIFIERS,
        )
    assert caught.value.code == "appraisal.platform-not-accepted"
    assert "new version of the contract" in caught.value.hint


def test_platform_without_verifier() -> None:
    with pytest.raises(Refused) as caught:
        decide(POLICY, verifiers={})
    assert caught.value.code == "appraisal.no-verifier"


def test_hardware_registry() -> None:
    assert "software" not in HARDWARE
    assert {"sgx", "tdx"} <= set(HARDWARE)
    with pytest.raises(TypeError):
        HARDWARE["software"] = SgxVerifier()  # type: ignore[index]


def test_policies_of_other_kinds_do_not_help() -> None:
    """The entry for the evidence's own kind decides, whatever other entries accept."""
    tdx = draft(verify(VENDOR, kind="td-1.5"), collateral_max_age=2 * DAY)
    strict = replace(POLICY, statuses=("UpToDate",))
    both = AttestationPolicy(accepted=(tdx, strict))
    with pytest.raises(AppraisalRefused):
        judge(EVIDENCE, COLLATERAL, both, report_data=REPORT_DATA, now=NOW, verifiers=VERIFIERS)


def test_malformed_evidence_is_not_a_policy_question() -> None:
    with pytest.raises(Malformed):
        judge(
            replace(EVIDENCE, statement=b"x"),
            COLLATERAL,
            AttestationPolicy(accepted=(POLICY,)),
            report_data=REPORT_DATA,
            now=NOW,
            verifiers=VERIFIERS,
        )


def test_recommended_settings_name_each_fact() -> None:
    """A policy with the recommended settings judges every fact, and accepts a good platform."""
    from kakoi.attest.sgx.settings import RECOMMENDED as SGX
    from kakoi.attest.tdx.settings import RECOMMENDED as TDX

    for kind, recommended in (("sgx", SGX), ("td-1.0", TDX), ("td-1.5", TDX)):
        verified = verify(VENDOR, kind=kind)  # type: ignore[arg-type]
        assert [f.name for f in verified.claims.settings] == [s.name for s in recommended]
        policy = replace(draft(verified, collateral_max_age=2 * DAY), settings=recommended)
        judge(
            VENDOR.evidence(kind=kind),  # type: ignore[arg-type]
            VENDOR.collateral(kind),  # type: ignore[arg-type]
            AttestationPolicy(accepted=(policy,)),
            report_data=REPORT_DATA,
            now=NOW,
            verifiers=VERIFIERS,
        )


def test_the_page_of_the_kind_names_each_setting_measurement_and_part() -> None:
    from pathlib import Path

    from kakoi.attest.dcap.own.collateral import PARTS

    page = (Path(__file__).parents[3] / "docs/formats/evidence-dcap.md").read_text("utf-8")
    for kind in ("sgx", "td-1.0", "td-1.5", "td-1.5ex"):
        claims = verify(VENDOR, kind=kind).claims
        for name in [f.name for f in claims.settings] + [m.name for m in claims.measurements if m.name[:4] != "rtmr"]:
            assert f"`{name}`" in page
    for name in PARTS:
        assert f"`{name}`" in page


def test_a_product_can_be_pinned() -> None:
    """By a setting that evidence need not have among its facts; without it any product passes that is not refused."""
    product = decide(POLICY).claims.product
    assert decide(setting(POLICY, "product", product, "000000000000")).failed == ()
    with pytest.raises(AppraisalRefused) as caught:
        decide(setting(POLICY, "product", "000000000000"))
    assert [check.name for check in caught.value.verdict.failed] == ["setting.product"]
