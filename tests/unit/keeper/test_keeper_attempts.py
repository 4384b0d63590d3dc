"""A later attempt at a run: closes what an earlier one told, hears what owners have said, and never tells twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from kakoi.attest.policy import TokenPolicy
from kakoi.attest.report import Evidence
from kakoi.contract.model import Contract
from kakoi.contract.sign import seal
from kakoi.core import crypto
from kakoi.core.crypto import SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.enclave.keeper.drive import SILENT_ATTEMPTS, Drive, Enclave
from kakoi.hub.runs import MAX_ATTEMPTS
from kakoi.net.answers import Claim, FeedItem, FeedPage, RunState
from kakoi.net.client import HubClient
from kakoi.testing.memory_hub import MemoryHub
from kakoi.testing.world import World, seeded
from kakoi.wire.analyst_run import AnalystRun, Arrived
from kakoi.wire.enclave_run import CloseFailed, MessageArrived
from kakoi.wire.messages import Denial, RecipientKey, RunFailure, SealedResult, Session
from support.conversation import Conversation


@dataclass
class Hub(MemoryHub):
    """A hub in memory that also takes what an enclave says about its claim."""

    said: list[str] = field(default_factory=list)
    lost: bool = False

    def _take(self, action: str) -> RunState:
        if self.lost:
            raise Refused("run.claim-lost", "expected the claim that holds the run, got an expired one")
        self.said.append(action)
        return RunState(state="claimed", attempt=1)

    def renew(self, claim: Claim) -> RunState:
        return self._take("renew")

    def finish(self, claim: Claim) -> RunState:
        return self._take("done")

    def fail(self, claim: Claim) -> RunState:
        return self._take("failed")

    def put_object(self, envelope: Envelope, *, claim: str = "") -> FeedItem:
        if self.lost:
            raise Refused("hub.claim", "expected the token of the run's live claim, got another")
        return super().put_object(envelope, claim=claim)

    def feed(
        self,
        *,
        after: int = 0,
        kinds: Sequence[str] = (),
        refs: Mapping[str, str] | None = None,
        wait: int = 0,
        limit: int = 100,
    ) -> FeedPage:
        return super().feed(after=after, kinds=kinds, refs=refs, wait=0, limit=limit)


class Nothing:
    """Neither hardware nor engine: these attempts must not get so far."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AssertionError(f"the attempt asked for {name}")


@dataclass
class Attempt:
    """A claimed run on a hub that holds the contract and the request."""

    number: int
    talk: Conversation = field(default_factory=Conversation)
    hub: Hub = field(default_factory=Hub)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        bundle = self.talk.world.bundle()
        parts = (*bundle.cards, *bundle.manifests, *bundle.analyses, bundle.contract, *bundle.approvals)
        for envelope in (*parts, self.talk.request.envelope):
            self.hub.put_object(envelope)

    def drive(self, **parts: Any) -> Drive:
        enclave = Enclave(
            hub=cast(HubClient, self.hub),
            producer=cast(Any, parts.pop("producer", Nothing())),
            engine=cast(Any, Nothing()),
            missing_layers=(),
            tell=lambda run, step: self.told.append(step),
            **parts,
        )
        claim = Claim(run=self.talk.request.id, attempt=self.number, token="0" * 64)
        return Drive(enclave, claim)

    def result(self) -> Envelope:
        record = SealedResult(
            run=self.talk.request.id,
            attempt=1,
            contract=self.talk.agreement.id,
            session=self.talk.session().id,
            passport=ObjectId("1" * 64),
            blob=ObjectId("2" * 64),
            size=100,
            keys=(RecipientKey(party=self.talk.world.analyst.id, sealed=bytes(1184)),),
        )
        return seal(record, self.talk.signing)

    def failure(self) -> Envelope:
        record = RunFailure(
            run=self.talk.request.id,
            attempt=1,
            contract=self.talk.agreement.id,
            session=self.talk.session().id,
            code="engine.failed",
            message="expected an answer, got none",
            hint="",
        )
        return seal(record, self.talk.signing)


def test_a_result_that_is_there_is_not_computed_again() -> None:
    attempt = Attempt(2)
    attempt.hub.put_object(attempt.result())
    attempt.drive().carry_out()
    assert attempt.hub.said == ["done"]
    assert attempt.told == ["has a result already"]


def test_a_failure_that_was_told_stays_a_failure() -> None:
    """The analyst has read it; a result after it would be believed by some and not by others."""
    attempt = Attempt(2)
    attempt.hub.put_object(attempt.failure())
    attempt.drive().carry_out()
    assert attempt.hub.said == ["failed"]
    attempt.hub.put_object(attempt.result())
    attempt.drive().carry_out()
    assert attempt.hub.said == ["failed", "done"], "what the analyst can open counts more"


def test_another_runs_result_settles_nothing() -> None:
    attempt = Attempt(2)
    other = SealedResult.decode(attempt.result().payload)
    fields = {name: getattr(other, name) for name in other.__slots__} | {"run": "9" * 64}
    attempt.hub.put_object(seal(SealedResult(**fields), attempt.talk.signing))
    attempt.hub.put_object(attempt.talk.denial(attempt.talk.world.owners[0]))
    attempt.drive().carry_out()
    assert "has a result already" not in attempt.told


def test_an_owner_that_denied_an_earlier_attempt_is_not_waited_for() -> None:
    """It says nothing more about the run: without hearing its denial an enclave would wait five minutes, for nothing."""
    attempt = Attempt(2)
    attempt.hub.put_object(attempt.talk.denial(attempt.talk.world.owners[1]))
    attempt.drive().carry_out()
    assert attempt.hub.said == ["failed"]
    assert attempt.told == ["ends without a result: decision.budget"]


def test_a_denial_of_an_attempt_to_come_is_noise() -> None:
    talk = Conversation()
    run = talk.run()
    owner = talk.world.owners[0]
    record = Denial.decode(talk.denial(owner).payload)
    fields = {name: getattr(record, name) for name in record.__slots__}
    later = seal(Denial(**fields | {"attempt": 2}), owner.signing)
    assert run.handle(MessageArrived(kind=Denial.KIND, envelope=later)) == []
    (said,) = run.handle(MessageArrived(kind=Denial.KIND, envelope=talk.denial(owner)))
    assert isinstance(said, CloseFailed)


def test_a_strangers_denial_of_an_earlier_attempt_is_noise() -> None:
    attempt = Attempt(2)
    owner = attempt.talk.world.owners[0]
    forged = Denial.decode(attempt.talk.denial(owner).payload)
    envelope = seal(forged, SigningKey(seeded("stranger", crypto.SIGNING_SECRET)))
    run = attempt.talk.run()
    assert run.handle(MessageArrived(kind=Denial.KIND, envelope=envelope)) == []
    assert run.state == "claimed"


def test_who_lost_the_claim_tells_nothing() -> None:
    attempt = Attempt(1)
    drive = attempt.drive()
    attempt.hub.lost = True
    with pytest.raises(Unavailable) as caught:
        drive._still_ours()
    assert caught.value.code == "run.given-away"
    attempt.hub.lost = False
    drive._still_ours()
    assert attempt.hub.said == ["renew"]


def test_who_loses_the_claim_while_publishing_stops_and_lets_the_other_attempt_tell() -> None:
    """The hub refuses in the transaction that would have stored it: this is no failure of the run."""
    attempt = Attempt(1)
    drive, said = attempt.drive(), attempt.failure()
    attempt.hub.lost = True
    with pytest.raises(Unavailable) as caught:
        drive._put(said)
    assert caught.value.code == "run.given-away"
    attempt.hub.lost = False
    drive._put(said)
    assert attempt.hub.of_kind(RunFailure.KIND) == [said]


def test_a_contract_that_does_not_hold_ends_the_run_before_any_session() -> None:
    attempt = Attempt(1)
    attempt.hub.objects = [item for item in attempt.hub.objects if item[0] != "kakoi/approval/v1"]
    attempt.drive().carry_out()
    assert attempt.hub.said == ["failed"]
    assert attempt.told == ["refused before a session: contract.approval-missing"]


class Hardware:
    """Answers with a statement that nobody judges here."""

    def evidence(self, report_data: bytes) -> Evidence:
        return Evidence(platform="software", statement=report_data, parts=())


class Silent:
    """An attestation service, or a device, that does not answer. ``code``: what is said of it."""

    def __init__(self, code: str = "evidence.token") -> None:
        self._error = Unavailable(code, "expected an answer, got none", hint="is it reachable?")

    def token(self, evidence: Evidence, report_data: bytes) -> bytes:
        raise self._error

    def evidence(self, report_data: bytes) -> Evidence:
        raise self._error


def demanding() -> Conversation:
    """A contract that demands a token beside the evidence."""

    def change(contract: Contract) -> Contract:
        claims = contract.platforms.accepted[0]
        token = TokenPolicy(accompanies="software", service="intel-trust-authority", claims=claims)
        return replace(contract, platforms=replace(contract.platforms, tokens=(token,)))

    return Conversation(world=World(change_contract=change))


def asked(number: int) -> Attempt:
    """An attempt whose owners have all challenged it."""
    attempt = Attempt(number, talk=demanding())
    for owner in attempt.talk.world.owners:
        attempt.hub.put_object(attempt.talk.challenge(owner, attempt=number))
    return attempt


@pytest.mark.parametrize("number", range(1, SILENT_ATTEMPTS))
def test_a_silent_service_is_asked_again_in_the_next_attempt(number: int) -> None:
    attempt = asked(number)
    drive = attempt.drive(producer=Hardware(), token_clients={"intel-trust-authority": Silent()})
    with pytest.raises(Unavailable) as caught:
        drive.carry_out()
    assert caught.value.code == "evidence.token"
    assert not attempt.hub.of_kind(Session.KIND)
    assert "failed" not in attempt.hub.said


def test_the_last_attempt_tells_the_analyst_and_shows_evidence_without_the_token() -> None:
    """Signed by a session that no owner gives a key, because it lacks what the contract demands."""
    attempt = asked(SILENT_ATTEMPTS)
    attempt.drive(producer=Hardware(), token_clients={"intel-trust-authority": Silent()}).carry_out()
    (session,) = attempt.hub.of_kind(Session.KIND)
    assert Session.decode(session.payload).evidence.parts == ()
    (failure,) = attempt.hub.of_kind(RunFailure.KIND)
    said = RunFailure.decode(failure.payload)
    assert (said.code, said.session, said.attempt) == ("session.token-silent", session.payload_id, SILENT_ATTEMPTS)
    assert "failed" in attempt.hub.said
    analyst = AnalystRun(
        agreement=attempt.talk.agreement,
        run=attempt.talk.request.id,
        owners=attempt.talk.agreement.owners_of(attempt.talk.request.record.analysis),
        sessions={},
    )
    analyst.handle(Arrived(kind=Session.KIND, envelope=session))
    outcome = analyst.handle(Arrived(kind=RunFailure.KIND, envelope=failure))
    assert outcome is not None
    assert outcome.failure == said


def test_other_silence_is_not_blamed_on_a_service() -> None:
    """Hardware that does not answer can sign nothing: the attempt ends, and the hub's limit of attempts with it."""
    for number in (1, SILENT_ATTEMPTS, 5):
        attempt = asked(number)
        with pytest.raises(Unavailable) as caught:
            attempt.drive(producer=Silent("evidence.device"), token_clients={}).carry_out()
        assert caught.value.code == "evidence.device"
        assert not attempt.hub.of_kind(RunFailure.KIND)


def test_the_enclave_gives_a_reason_before_the_hub_gives_up() -> None:
    assert SILENT_ATTEMPTS < MAX_ATTEMPTS
