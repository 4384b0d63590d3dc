"""Whole runs in which the enclave presents recorded evidence of real hardware, and bad twins of it.

The enclave is a test build (``support.replay``): its producer replays a recording, and the brokers' verifiers take the
session's report data from a part that says so. Everything else is the product: hub and enclave are its programs, the
brokers its code, the verdicts those of its verifiers on the recorded bytes, with the recorded endorsements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, ReferenceValue, Unchecked
from kakoi.attest.registry import judge
from kakoi.attest.report import Check, Part
from kakoi.attest.software.admit import with_software
from kakoi.broker.ledger import Ledger
from kakoi.cli.ui import SystemClock
from kakoi.core.errors import KakoiError, Malformed
from kakoi.core.ids import ObjectId
from kakoi.evidence.software import SoftwarePlatform
from kakoi.sdk.run import RunDenied
from kakoi.sdk.verify import verify_result
from kakoi.testing.dcap_vendor_corpus import EVIDENCE
from support.replay import DAY, Recording, ReplayWorld, replaying
from support.replaying_producers import OVERRIDE

pytestmark = [
    pytest.mark.skipif(not EVIDENCE.is_dir(), reason="recorded evidence is not here (KAKOI_SHARED)"),
    pytest.mark.xdist_group("real-evidence"),
]
FILES = {
    "sgx": "dcap/azsamples_enclave.info.release.quote.quote",
    "tdx": "dcap/gotdx_quote_v5.quote",
    "snp": "snp/dstack_report.bin",
}
DEBUG = "dcap/azsamples_enclave.info.debug.quote.quote"


@pytest.fixture(scope="module")
def recordings() -> dict[str, Recording]:
    return {kind: Recording.load(file) for kind, file in FILES.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplayWorld]:
    with replaying(tmp_path_factory.mktemp("replay")) as running:
        yield running


@pytest.fixture(scope="module")
def contract(world: ReplayWorld, recordings: dict[str, Recording]) -> ObjectId:
    """One contract that accepts four kinds of platform."""
    return world.contract(*(recording.policy for recording in recordings.values()))


@pytest.mark.parametrize("kind", FILES)
def test_a_run_on_recorded_hardware_ends_with_a_passport_that_names_it(
    world: ReplayWorld, recordings: dict[str, Recording], contract: ObjectId, kind: str
) -> None:
    world.replay(recordings[kind])
    opened, file = world.result(contract, world.ask(contract))
    verified = opened.verified
    assert verified.passport.protected_by_hardware
    assert [verdict.claims.platform for verdict in verified.verdicts] == [kind, kind]
    evidence = next(said for said in verified.proven if said.key == "verify.proven.evidence")
    assert evidence.parameters["platforms"] == kind
    assert {entry.platform for entry in verified.agreement.contract.platforms.accepted} == {"software", *FILES}
    assert verified.verdicts[0].claims.platform_identity
    # Nobody but the test build is taken in by the recording.
    with pytest.raises(KakoiError) as caught:
        verify_result(file, verifiers=with_software)
    assert caught.value.code in ("dcap.parts", "evidence.parts")


def test_production_refuses_the_test_builds_evidence(recordings: dict[str, Recording]) -> None:
    for recording in recordings.values():
        evidence = replace(recording.evidence, parts=(Part(name=OVERRIDE, data=bytes(64)),))
        policy = AttestationPolicy(accepted=(recording.policy,))
        with pytest.raises(Malformed):
            judge(evidence, recording.collateral, policy, report_data=bytes(64), now=recording.at)


# --- bad twins -------------------------------------------------------------------------------------------------------


def refused(world: ReplayWorld, contract: ObjectId) -> tuple[str, tuple[Check, ...]]:
    """The code and the failed checks with which a run was denied, after finding them in a broker's decision log."""
    run = world.ask(contract)
    with pytest.raises(RunDenied) as caught:
        world.result(contract, run)
    denial = caught.value.denial
    said = [decision for log in world.log(run) for decision in log if decision.outcome == "no"]
    assert said
    assert all(decision.code == denial.code and decision.step == "denial" for decision in said)
    logged = {check["name"] for decision in said for check in decision.checks if check["outcome"] == "failed"}
    assert logged == {check.name for check in denial.checks}
    if not denial.checks:
        assert all(decision.message == denial.message for decision in said)
    assert not any(decision.step == "grant" for log in world.log(run) for decision in log)
    return denial.code, denial.checks


def flipped(recording: Recording, at: int) -> Recording:
    statement = bytearray(recording.evidence.statement)
    statement[at] ^= 1
    return replace(recording, evidence=replace(recording.evidence, statement=bytes(statement)))


FLIPS = [
    ("snp", 0x90, "x509.signature"),  # MEASUREMENT
    ("sgx", 48 + 64, "x509.signature"),  # MRENCLAVE
    ("tdx", 54 + 136, "x509.signature"),  # MRTD
]


@pytest.mark.parametrize(("kind", "at", "code"), FLIPS)
def test_one_bit_of_the_measurement(
    world: ReplayWorld, recordings: dict[str, Recording], contract: ObjectId, kind: str, at: int, code: str
) -> None:
    world.replay(flipped(recordings[kind], at))
    assert refused(world, contract) == (code, ())


def test_software_evidence_relabelled_as_hardware(
    world: ReplayWorld, recordings: dict[str, Recording], contract: ObjectId
) -> None:
    """The operator holds the software platform, whose quotes have the genuine form, and calls it SGX."""
    platform, now = SoftwarePlatform.load(world.cast.platform), SystemClock().now()
    quote = platform.quote(bytes(64), bytes.fromhex("ab" * 32))
    evidence = replace(quote, platform="sgx")
    world.replay(replace(recordings["sgx"], evidence=evidence, collateral=platform.collateral(now), at=now))
    assert refused(world, contract) == ("x509.root", ())


def changed(policy: PlatformPolicy, name: str) -> PlatformPolicy:
    """The policy with another accepted value for one measurement."""
    values = tuple(
        ReferenceValue(name=m.name, accepted=("00" * (len(m.accepted[0]) // 2),))
        if m.name == name and not isinstance(m.accepted, Unchecked)
        else m
        for m in policy.measurements
    )
    return replace(policy, measurements=values)


@pytest.fixture(scope="module")
def strict(world: ReplayWorld, recordings: dict[str, Recording]) -> ObjectId:
    """A contract that would accept a debug enclave if anybody could, another TD, and firmware of tomorrow."""
    debug = Recording.load(DEBUG).policy
    tdx = changed(recordings["tdx"].policy, "mrtd")
    snp = recordings["snp"].policy
    assert isinstance(snp.minimum_tcb, tuple)
    higher = tuple(replace(c, version=c.version + 1) if c.name == "reported.snp" else c for c in snp.minimum_tcb)
    return world.contract(debug, tdx, replace(snp, minimum_tcb=higher), software=False)


def test_a_debug_enclave_though_the_contract_names_it(world: ReplayWorld, strict: ObjectId) -> None:
    world.replay(Recording.load(DEBUG))
    code, checks = refused(world, strict)
    assert code == "appraisal.refused"
    assert [(check.name, check.mender) for check in checks] == [("debug", "enclave-author")]


def test_another_measurement(world: ReplayWorld, recordings: dict[str, Recording], strict: ObjectId) -> None:
    world.replay(recordings["tdx"])
    code, checks = refused(world, strict)
    assert code == "appraisal.refused"
    assert [check.name for check in checks] == ["measurement.mrtd"]


def test_firmware_below_the_floor(world: ReplayWorld, recordings: dict[str, Recording], strict: ObjectId) -> None:
    world.replay(recordings["snp"])
    code, checks = refused(world, strict)
    assert code == "appraisal.refused"
    assert [(check.name, check.mender) for check in checks] == [("minimum-tcb.reported.snp", "platform-operator")]


def test_stale_endorsements_and_a_platform_that_is_not_named(
    world: ReplayWorld, recordings: dict[str, Recording]
) -> None:
    fresh = world.contract(replace(recordings["sgx"].policy, collateral_max_age=30 * DAY), software=False)
    world.replay(recordings["sgx"])
    code, checks = refused(world, fresh)
    assert code == "appraisal.refused"
    assert [check.name for check in checks] == ["collateral-age"]
    world.replay(recordings["snp"])
    assert refused(world, fresh) == ("appraisal.platform-not-accepted", ())


def test_an_evaluation_number_that_goes_back(
    world: ReplayWorld, recordings: dict[str, Recording], contract: ObjectId
) -> None:
    """A broker that has seen a newer number of this FMSPC refuses the older endorsements, though the contract would not."""
    world.replay(recordings["sgx"])
    fmspc = "00906ed50000"
    for home in world.cast.hospitals:
        ledger = Ledger(home.path / "ledger.sqlite")
        ledger.raise_floor("sgx", fmspc, 1000)
        ledger.close()
    code, checks = refused(world, contract)
    assert code == "appraisal.refused"
    assert [check.name for check in checks] == ["tcb-evaluation-number.rollback"]


def test_the_same_contract_runs_on_the_software_platform_and_says_so(world: ReplayWorld, contract: ObjectId) -> None:
    world.software()
    opened, _ = world.result(contract, world.ask(contract))
    assert not opened.verified.passport.protected_by_hardware
    assert opened.verified.verdicts[0].claims.platform == "software"
