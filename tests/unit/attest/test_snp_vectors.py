"""Recorded SEV-SNP evidence comes out as its sources document; the bad twin of each good vector does not."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kakoi.attest.policy import Setting
from kakoi.attest.registry import judge
from kakoi.attest.report import AppraisalRefused, Collateral, Verdict
from kakoi.attest.snp import parse
from kakoi.attest.snp.verifier import SnpVerifier
from kakoi.core.errors import KakoiError, Refused
from kakoi.testing import amd_vendor, attest_kit, recorded

FOLDER = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"
VECTORS = recorded.load(FOLDER, "snp")
pytestmark = pytest.mark.skipif(not VECTORS, reason="recorded evidence is not here (KAKOI_SHARED)")
VERIFIER = SnpVerifier()
GOOD = [v for v in VECTORS if not v.expect["verdict"].startswith("reject:")]


def by_name(vector: recorded.Recorded) -> str:
    return vector.name


def verdict(vector: recorded.Recorded, *, vmpl: str = "") -> Verdict:
    """The verdict of the narrowest policy, which accepts this VMPL where one is given."""
    evidence, collateral = recorded.snp(vector)
    verified = VERIFIER.verify(evidence, collateral, now=vector.at)
    policy = attest_kit.echo(verified)
    if vmpl:
        others = tuple(s for s in policy.settings if s.name != "vmpl")
        policy = replace(policy, settings=(*others, Setting(name="vmpl", accepted=(vmpl,))))
    report_data = bytes.fromhex(verified.claims.report_data)
    return judge(
        evidence,
        collateral,
        attest_kit.only(policy),
        report_data=report_data,
        now=vector.at,
        verifiers={"snp": VERIFIER},
    )


@pytest.mark.parametrize("vector", VECTORS, ids=by_name)
def test_as_expected(vector: recorded.Recorded) -> None:
    expect = vector.expect
    report = parse.parse(vector.read("evidence"))
    assert (report.version, report.vmpl) == (expect["version"], expect["vmpl"])
    assert (hex(report.policy), str(report.current_firmware)) == (expect["policy"], expect["fw"])
    assert report.reported_tcb.hex() == expect["reported_tcb"]
    assert (report.signing_key, report.measurement.hex()) == (expect["signing_key"], expect["measurement"])
    assert amd_vendor.encode(report) == vector.read("evidence")
    if expect["verdict"] == "reject: leaf not issued by ASK":
        with pytest.raises(Refused) as caught:
            verdict(vector)
        assert caught.value.code == "x509.signature"
        return
    claims = verdict(vector).claims
    assert claims.product.lower() == expect["product"]
    assert claims.debug == bool(expect["debug"])
    if expect["verdict"] == "reject unless VMPL 1 allowed":
        with pytest.raises(AppraisalRefused) as refused:
            verdict(vector, vmpl="0")
        assert [check.name for check in refused.value.verdict.failed] == ["setting.vmpl"]
    else:
        assert expect["verdict"] == "accept"
        verdict(vector, vmpl="0")


def accepted(vector: recorded.Recorded, statement: bytes, pieces: dict[str, bytes]) -> bool:
    evidence, _ = recorded.snp(vector)
    collateral = Collateral(parts=attest_kit.pieces(pieces))
    try:
        VERIFIER.verify(replace(evidence, statement=statement), collateral, now=vector.at)
    except KakoiError:
        return False
    return True


@pytest.mark.parametrize("vector", GOOD, ids=by_name)
def test_bad_twins(vector: recorded.Recorded) -> None:
    evidence, collateral = recorded.snp(vector)
    pieces = {part.name: part.data for part in collateral.parts}
    judge_twin = partial(accepted, vector)
    assert judge_twin(evidence.statement, pieces)
    flips = attest_kit.flips(evidence.statement, step=3)
    assert [at for at, twin in flips if judge_twin(twin, pieces)] == []
    assert [len(twin) for twin in attest_kit.cuts(evidence.statement, step=97) if judge_twin(twin, pieces)] == []
    for name, data in pieces.items():
        flips = attest_kit.flips(data, step=29)
        assert [at for at, twin in flips if judge_twin(evidence.statement, {**pieces, name: twin})] == []


@pytest.mark.slow
@pytest.mark.parametrize("vector", GOOD, ids=by_name)
def test_every_byte(vector: recorded.Recorded) -> None:
    evidence, collateral = recorded.snp(vector)
    pieces = {part.name: part.data for part in collateral.parts}
    assert [at for at, twin in attest_kit.flips(evidence.statement) if accepted(vector, twin, pieces)] == []
    for name, data in pieces.items():
        flips = attest_kit.flips(data)
        assert [at for at, twin in flips if accepted(vector, evidence.statement, {**pieces, name: twin})] == []


@pytest.mark.parametrize("vector", GOOD, ids=by_name)
def test_foreign_collateral(vector: recorded.Recorded) -> None:
    """Each piece of every other vector in the place of its own; what is byte for byte the same is left out."""
    evidence, collateral = recorded.snp(vector)
    pieces = {part.name: part.data for part in collateral.parts}
    for other in VECTORS:
        for part in recorded.snp(other)[1].parts:
            if part.name in pieces and part.data != pieces[part.name]:
                assert not accepted(vector, evidence.statement, {**pieces, part.name: part.data}), other.name


@pytest.mark.parametrize("vector", GOOD, ids=by_name)
def test_outside_its_window(vector: recorded.Recorded) -> None:
    evidence, collateral = recorded.snp(vector)
    for now in (0, vector.at - 30 * recorded.YEAR, vector.at + 30 * recorded.YEAR):
        with pytest.raises(Refused) as caught:
            VERIFIER.verify(evidence, collateral, now=now)
        assert caught.value.code == "x509.window"
