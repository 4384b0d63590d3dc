"""Attacks on a running deployment, each carried out with the means its attacker has: who refuses, by which rule, with which code."""

from __future__ import annotations

from typing import Any

import pytest

from kakoi.broker.feed import ledger_feed
from kakoi.cli.alerts import judged_again
from kakoi.cli.demo import attacks
from kakoi.cli.demo.attacks import Attack, Refusal
from kakoi.cli.watch import reading
from kakoi.core.ids import ObjectId
from kakoi.enclave import image
from kakoi.guard.sigma.rules import shipped
from kakoi.wire.messages import Denial, KeyGrant, RunFailure, SealedResult
from support.deployment import Deployment, on_deployment

pytestmark = on_deployment
OWNERS = {"North Hospital", "East Hospital", "South Hospital"}


def carried_out(deployment: Deployment, attack: Attack) -> tuple[Refusal, ObjectId]:
    """What the attack met, and the one run it made."""
    before = set(deployment.runs())
    refusal = attack(deployment.scene)
    (run,) = set(deployment.runs()) - before
    return refusal, run


def released(deployment: Deployment, run: ObjectId) -> list[str]:
    """Kinds of what the hub got about the run that gives anything away."""
    page = deployment.client.feed(kinds=(KeyGrant.KIND, SealedResult.KIND), refs={"run": run})
    return [item.kind for item in page.items]


def refused_by_owner(deployment: Deployment, run: ObjectId, refusal: Refusal, step: str) -> dict[str, Any]:
    """The line of the owner's decision log that holds the refusal; no owner gave anything."""
    assert refusal.who in OWNERS
    assert released(deployment, run) == []
    log = deployment.decisions(refusal.who, run)
    (line,) = [entry for entry in log if entry["outcome"] == "no"]
    assert (line["code"], line["step"]) == (refusal.code, "denial")
    assert [entry["step"] for entry in log if entry["outcome"] == "yes"] == ([] if step == "request" else ["challenge"])
    for owner in OWNERS:
        assert "grant" not in {entry["step"] for entry in deployment.decisions(owner, run)}
    return line


def failed(line: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Failed checks of a decision by name."""
    return {check["name"]: check for check in line["checks"] if check["outcome"] == "failed"}


@pytest.fixture
def without_enclave(deployment: Deployment) -> Deployment:
    """An honest session was recorded; now the attacker is in the enclave's place."""
    assert deployment.honest.opened.verified.protected_by_hardware is False
    deployment.enclave(running=False)
    return deployment


@pytest.fixture
def with_enclave(deployment: Deployment) -> Deployment:
    deployment.enclave(running=True)
    return deployment


def test_changed_code(without_enclave: Deployment) -> None:
    """T01: one byte of a comment differs, and no owner gives a key."""
    refusal, run = carried_out(without_enclave, attacks.changed_code)
    assert refusal.code == "appraisal.refused"
    assert refusal.rule.startswith("measurement.mrenclave: ")
    line = refused_by_owner(without_enclave, run, refusal, "session")
    assert set(failed(line)) == {"measurement.mrenclave"}
    check = failed(line)["measurement.mrenclave"]
    accepted = image.measure(without_enclave.cast.image).hex()
    assert accepted in check["expected"]
    assert accepted not in check["got"]
    assert "Measurement never seen before, refused" in alerts_at(without_enclave, refusal.who)


def alerts_at(deployment: Deployment, owner: str) -> list[str]:
    """What the detection rules find in an owner's own stream of events, once its broker has written down all of its ledger."""
    home = next(home for home in deployment.cast.hospitals if home.card.record.name == owner)
    with reading(home.path) as found:
        ledger_feed(home.path / "ledger.sqlite", None)(found.stream)
        return [alert["title"] for alert in judged_again(found.stream, shipped())]


def test_no_evidence(without_enclave: Deployment) -> None:
    """T02: the operator's token gets a claim, not a key."""
    refusal, run = carried_out(without_enclave, attacks.no_evidence)
    assert refusal.code == "dcap.quote"
    assert refusal.rule.startswith("quote: expected a header of 48 bytes")
    line = refused_by_owner(without_enclave, run, refusal, "session")
    assert line["message"] == refusal.rule


def test_replayed_evidence(without_enclave: Deployment) -> None:
    """T03: genuine evidence, the attacker's keys."""
    refusal, run = carried_out(without_enclave, attacks.replayed_evidence)
    assert refusal.code == "appraisal.refused"
    assert refusal.rule.startswith("report-data: ")
    line = refused_by_owner(without_enclave, run, refusal, "session")
    assert set(failed(line)) == {"report-data"}, "the evidence is genuine in every other respect"


def test_missing_signature(without_enclave: Deployment) -> None:
    """T06: one hospital has not signed; the analyst asks anyway."""
    silent = without_enclave.cast.hospitals[-1].card.record.name
    refusal, run = carried_out(without_enclave, attacks.missing_signature)
    assert refusal.code == "contract.approval-missing"
    assert f"{silent} has not approved" in refusal.rule
    refused_by_owner(without_enclave, run, refusal, "request")
    without_enclave.client.fail(without_enclave.scene.claim(run))  # nobody else is there to take it from the queue


def failure_of(deployment: Deployment, run: ObjectId) -> RunFailure:
    """What the enclave said about the run's failure."""
    (item,) = deployment.client.feed(kinds=(RunFailure.KIND,), refs={"run": run}).items
    return RunFailure.decode(deployment.client.get_object(item.id).payload)


def test_swapped_chunk(with_enclave: Deployment) -> None:
    """T05: the storage serves the same owner's older ciphertext of the same length."""
    refusal, run = carried_out(with_enclave, attacks.swapped_chunk)
    assert (refusal.who, refusal.code) == ("enclave", "dataset.segment-digest")
    assert refusal.rule == "segment 0 of 1: expected the digest in the manifest, got other bytes"
    assert failure_of(with_enclave, run).code == refusal.code
    assert SealedResult.KIND not in released(with_enclave, run)
    assert with_enclave.client.feed(kinds=(Denial.KIND,), refs={"run": run}).items == ()
    for owner in OWNERS:  # the owners had nothing to object to: the enclave found out, before it decrypted
        steps = [(entry["step"], entry["outcome"]) for entry in with_enclave.decisions(owner, run)]
        assert steps == [("challenge", "yes"), ("grant", "yes")]


def test_small_cell(with_enclave: Deployment) -> None:
    """T10: a parameter within the contract that leaves hardly anybody: the numbers stay inside."""
    refusal, run = carried_out(with_enclave, attacks.small_cell)
    assert (refusal.who, refusal.code) == ("enclave", "gate.suppressed")
    assert refusal.rule == "rows of too few people are not in the table"
    assert not any(digit in refusal.rule for digit in "0123456789")
    for owner in OWNERS:
        steps = [(entry["step"], entry["outcome"]) for entry in with_enclave.decisions(owner, run)]
        assert steps == [("challenge", "yes"), ("grant", "yes"), ("release", "yes")]
