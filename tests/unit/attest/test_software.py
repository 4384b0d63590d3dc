"""The software platform: genuine format, own root, judged by the same verifier, and never mistaken for hardware."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import dcap_qvl
import pytest

from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.registry import HARDWARE, judge
from kakoi.attest.report import AppraisalRefused, Collateral, Evidence, Verdict
from kakoi.attest.sgx.verify import SgxVerifier
from kakoi.attest.software.verify import SoftwareVerifier, reference_policy, verifier
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.evidence.software import HOUR, SoftwarePlatform, create

NOW = 1_790_000_000
REPORT_DATA = bytes(range(64))
MRENCLAVE = bytes(range(100, 132))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> SoftwarePlatform:
    return create(tmp_path_factory.mktemp("software") / "platform")


@pytest.fixture(scope="module")
def evidence(platform: SoftwarePlatform) -> Evidence:
    return platform.quote(REPORT_DATA, MRENCLAVE)


def policy(platform: SoftwarePlatform, mrenclave: bytes = MRENCLAVE) -> AttestationPolicy:
    return AttestationPolicy(accepted=(reference_policy(mrenclave=mrenclave.hex(), root=platform.root_spki_sha256),))


def decide(
    platform: SoftwarePlatform,
    evidence: Evidence,
    *,
    collateral: Collateral | None = None,
    report_data: bytes = REPORT_DATA,
    now: int = NOW,
) -> Verdict:
    return judge(
        evidence,
        collateral or platform.collateral(NOW),
        policy(platform),
        report_data=report_data,
        now=now,
        verifiers={"software": verifier(platform.root_spki_sha256)},
    )


def test_accepted_and_labelled(platform: SoftwarePlatform, evidence: Evidence) -> None:
    verdict = decide(platform, evidence)
    assert verdict.claims.measurements[0].value == MRENCLAVE.hex()
    assert not verdict.protected_by_hardware
    label = next(c for c in verdict.checks if c.name == "hardware")
    assert (label.outcome, label.got) == ("skipped", "NOT PROTECTED BY HARDWARE")
    assert any(c.name == "dcap.second-opinion" and c.outcome == "passed" for c in verdict.checks)
    assert Verdict.decode(verdict.encode()) == verdict


def test_hardware_registry_never_holds_it(platform: SoftwarePlatform, evidence: Evidence) -> None:
    assert "software" not in HARDWARE
    assert not any(isinstance(v, SoftwareVerifier) for v in HARDWARE.values())
    with pytest.raises(Refused) as caught:
        judge(evidence, platform.collateral(NOW), policy(platform), report_data=REPORT_DATA, now=NOW)
    assert caught.value.code == "appraisal.no-verifier"


def test_intel_root_refuses_it(platform: SoftwarePlatform, evidence: Evidence) -> None:
    sgx = Evidence(platform="sgx", statement=evidence.statement, parts=())
    with pytest.raises(Refused) as caught:
        SgxVerifier().verify(sgx, platform.collateral(NOW), now=NOW)
    assert caught.value.code == "x509.root"


def test_dcap_qvl_alone_accepts_it_under_its_root_only(platform: SoftwarePlatform, evidence: Evidence) -> None:
    parts = {p.name: p.data for p in platform.collateral(NOW).parts}
    text = {k: v.decode() for k, v in parts.items() if "chain" in k or k in ("tcb_info", "qe_identity")}
    collateral = dcap_qvl.QuoteCollateralV3(**{**parts, **text})
    report = dcap_qvl.verify_with_root_ca(evidence.statement, collateral, platform.root, NOW)
    assert (report.status, bytes(report.ppid)) == ("UpToDate", platform.ppid)
    with pytest.raises(ValueError, match=r"."):
        dcap_qvl.verify(evidence.statement, collateral, NOW)


def test_other_software_platform_is_refused(platform: SoftwarePlatform, evidence: Evidence, tmp_path: Path) -> None:
    other = create(tmp_path / "other")
    with pytest.raises(Refused) as caught:
        decide(platform, other.quote(REPORT_DATA, MRENCLAVE), collateral=other.collateral(NOW))
    assert caught.value.code == "x509.root"
    with pytest.raises(Refused):
        decide(platform, evidence, collateral=other.collateral(NOW))
    with pytest.raises(Refused):
        decide(platform, other.quote(REPORT_DATA, MRENCLAVE))


def test_replay_and_other_enclave(platform: SoftwarePlatform, evidence: Evidence) -> None:
    with pytest.raises(AppraisalRefused) as caught:
        decide(platform, evidence, report_data=REPORT_DATA[:-1] + b"\0")
    assert [c.name for c in caught.value.verdict.failed] == ["report-data"]
    with pytest.raises(AppraisalRefused) as caught:
        decide(platform, platform.quote(REPORT_DATA, bytes(32)))
    assert [c.name for c in caught.value.verdict.failed] == ["measurement.mrenclave"]
    assert caught.value.verdict.failed[0].mender == "enclave-author"


@pytest.mark.parametrize("late", [-2 * HOUR, 8 * 24 * HOUR])
def test_stale_or_early_collateral(platform: SoftwarePlatform, evidence: Evidence, late: int) -> None:
    with pytest.raises(KakoiError) as caught:
        decide(platform, evidence, now=NOW + late)
    assert caught.value.code in ("x509.crl-window", "dcap.collateral-window")


def test_evidence_of_another_kind_or_with_parts(platform: SoftwarePlatform, evidence: Evidence) -> None:
    from kakoi.attest.report import Part

    tagged = Evidence(platform="software", statement=evidence.statement, parts=(Part(name="x", data=b""),))
    with pytest.raises(Malformed):
        decide(platform, tagged)
    with pytest.raises(Refused) as caught:
        verifier(platform.root_spki_sha256).verify(
            Evidence(platform="sgx", statement=evidence.statement, parts=()), platform.collateral(NOW), now=NOW
        )
    assert caught.value.code == "software.kind"


def test_a_vendor_root_is_no_software_root() -> None:
    from kakoi.attest.dcap.roots import INTEL

    for roots in ((), tuple(INTEL)):
        with pytest.raises(Misuse):
            verifier(*roots)


def test_files(tmp_path: Path) -> None:
    made = create(tmp_path / "p")
    files = sorted(f.name for f in (tmp_path / "p").iterdir())
    assert files == ["pck-ca.key", "pck.key", "ppid", "root.key", "tcb-signer.key"]
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in (tmp_path / "p").iterdir())
    loaded = SoftwarePlatform.load(tmp_path / "p")
    assert (loaded.root, loaded.pck, loaded.ppid) == (made.root, made.pck, made.ppid)
    with pytest.raises(Misuse):
        create(tmp_path / "p")
    with pytest.raises(Misuse):
        SoftwarePlatform.load(tmp_path / "none")
    (tmp_path / "p" / "pck.key").write_bytes(b"x")
    with pytest.raises(Malformed):
        SoftwarePlatform.load(tmp_path / "p")


def test_collateral_is_the_same_within_an_hour(platform: SoftwarePlatform) -> None:
    start = NOW - NOW % HOUR
    assert platform.collateral(start) == platform.collateral(start + HOUR - 1)
    assert platform.collateral(start) != platform.collateral(start + HOUR)


def test_wrong_sizes(platform: SoftwarePlatform) -> None:
    for report_data, mrenclave in ((bytes(63), bytes(32)), (bytes(64), bytes(48))):
        with pytest.raises(Misuse):
            platform.quote(report_data, mrenclave)


def test_the_producer_reaches_no_verifier() -> None:
    """What runs in the enclave to make evidence loads nothing that judges it."""
    program = "import kakoi.evidence.software, sys; print(*sorted(m for m in sys.modules if m.startswith(('kakoi.attest', 'dcap_qvl'))))"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["kakoi.attest", "kakoi.attest.report"]
