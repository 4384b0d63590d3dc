"""What an attestation service, or whoever speaks in its place, can do to owners who demand its tokens: withhold its word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.attest.report import AppraisalRefused, Part, TokenService
from kakoi.core.errors import KakoiError
from support.token_machine import Machine, demand, make, said

SERVICE: TokenService = "intel-trust-authority"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "platform")


def test_a_service_that_vouches_for_anything(machine: Machine) -> None:
    """Its token is genuine and says what the owners want to hear; the quote beside it is of other code."""
    other = machine.platform.quote(machine.bound, bytes.fromhex("aa" * 32))
    token = make(SERVICE)
    evidence = replace(other, parts=(Part(name=f"token.{SERVICE}", data=token.token),))
    with pytest.raises(AppraisalRefused) as caught:
        machine.judge_as_is(machine.policy(demand(SERVICE)), evidence, machine.given(token))
    assert "measurement.mrenclave" in {check.name for check in caught.value.verdict.failed}


def test_a_token_of_another_session_or_none(machine: Machine) -> None:
    """The operator shows the token of an honest session, or leaves it out, or shows one that nobody asked for."""
    policy = machine.policy(demand(SERVICE))
    with pytest.raises(AppraisalRefused) as caught:
        machine.judge(policy, make(SERVICE, said(SERVICE, bytes(64))))
    assert [check.name for check in caught.value.verdict.failed] == [f"token.{SERVICE}.report-data"]
    for shown, demanded in (((), policy), ((make(SERVICE),), machine.policy())):
        with pytest.raises(KakoiError) as refused:
            machine.judge(demanded, *shown)
        assert refused.value.code.startswith("appraisal.token-")
