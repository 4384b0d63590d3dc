"""The broker's and the analyst's state machines, and what a request may ask."""

from __future__ import annotations

import pytest

from kakoi.contract.sign import seal
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId, object_id
from kakoi.testing.world import TestParty, World
from kakoi.wire.analyst_run import AnalystRun, Arrived
from kakoi.wire.broker_run import (
    Answered,
    AttemptWanted,
    BrokerRun,
    ChallengeIssued,
    IssueChallenge,
    JudgeSession,
    RunDenied,
    SessionArrived,
)
from kakoi.wire.messages import Denial, RecipientKey, RunFailure, SealedResult, Session, report_data
from kakoi.wire.request import open_request
from support.conversation import Conversation


def broker(talk: Conversation) -> BrokerRun:
    return BrokerRun(run=talk.request.id)


def challenged(talk: Conversation) -> BrokerRun:
    run = broker(talk)
    run.handle(ChallengeIssued(attempt=1, challenge=talk.challenge(talk.world.owners[0]).payload_id))
    return run


def test_broker_challenges_each_attempt_once() -> None:
    run = broker(Conversation())
    assert run.handle(AttemptWanted(attempt=1)) == [IssueChallenge(attempt=1)]
    run.handle(ChallengeIssued(attempt=1, challenge="a"))
    assert run.handle(AttemptWanted(attempt=1)) == []
    assert run.handle(AttemptWanted(attempt=2)) == [IssueChallenge(attempt=2)]


@pytest.mark.parametrize("attempt", [0, 6, 10**9])
def test_broker_bounds_attempts(attempt: int) -> None:
    assert broker(Conversation()).handle(AttemptWanted(attempt=attempt)) == []


def test_broker_judges_a_session_once() -> None:
    talk = Conversation()
    run = challenged(talk)
    session = talk.session()
    assert run.handle(SessionArrived(session=session)) == [JudgeSession(session=session)]
    run.handle(Answered(attempt=1, session=session.id))
    assert run.handle(SessionArrived(session=session)) == []


def test_broker_says_nothing_after_a_denial() -> None:
    talk = Conversation()
    run = challenged(talk)
    run.handle(RunDenied())
    assert run.handle(AttemptWanted(attempt=2)) == []
    assert run.handle(SessionArrived(session=talk.session())) == []


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("session.challenge", lambda talk: (broker(talk), talk.session())),
        ("session.challenge", lambda talk: (challenged(talk), talk.session((object_id(b"other"),)))),
        ("session.replayed", lambda talk: (challenged(talk), talk.session(run="00" * 32))),
    ],
)
def test_broker_refuses_sessions(code: str, make: object) -> None:
    run, session = make(Conversation())  # type: ignore[operator]
    with pytest.raises(Refused) as caught:
        run.handle(SessionArrived(session=session))
    assert caught.value.code == code


def test_broker_refuses_a_second_session() -> None:
    talk = Conversation()
    run = challenged(talk)
    run.handle(Answered(attempt=1, session="another"))
    with pytest.raises(Refused) as caught:
        run.handle(SessionArrived(session=talk.session()))
    assert caught.value.code == "session.second"


def analyst(talk: Conversation) -> AnalystRun:
    return AnalystRun(agreement=talk.agreement, run=talk.request.id, owners=talk.agreement.owners, sessions={})


def result(talk: Conversation) -> Arrived:
    record = SealedResult(
        run=talk.request.id,
        attempt=1,
        contract=talk.agreement.id,
        session=talk.session().id,
        passport=object_id(b"p"),
        blob=object_id(b"b"),
        size=100,
        keys=(RecipientKey(party=talk.world.analyst.id, sealed=bytes(1200)),),
    )
    return Arrived(kind=SealedResult.KIND, envelope=seal(record, talk.signing))


def failure(talk: Conversation) -> Arrived:
    record = RunFailure(
        run=talk.request.id,
        attempt=1,
        contract=talk.agreement.id,
        session=talk.session().id,
        code="engine.failed",
        message="m",
        hint="h",
    )
    return Arrived(kind=RunFailure.KIND, envelope=seal(record, talk.signing))


def the_session(talk: Conversation) -> Arrived:
    return Arrived(kind=Session.KIND, envelope=talk.session().envelope)


@pytest.mark.parametrize(("make", "state"), [(result, "result"), (failure, "failed")])
def test_analyst_learns_the_outcome_of_a_known_session(make: object, state: str) -> None:
    talk = Conversation()
    run = analyst(talk)
    assert run.handle(make(talk)) is None  # type: ignore[operator]
    assert run.handle(the_session(talk)) is None
    outcome = run.handle(make(talk))  # type: ignore[operator]
    assert outcome is not None
    assert outcome.state == state
    assert run.handle(Arrived(kind=Denial.KIND, envelope=talk.denial(talk.world.owners[0]))) is outcome


def test_analyst_believes_denials_of_owners_only() -> None:
    talk = Conversation()
    run = analyst(talk)
    analyst_party = talk.world.analyst
    assert run.handle(Arrived(kind=Denial.KIND, envelope=talk.denial(analyst_party))) is None
    imposter = TestParty(
        name="North",
        signing=analyst_party.signing,
        sealing=analyst_party.sealing,
        card=talk.world.owners[0].card,
    )
    assert run.handle(Arrived(kind=Denial.KIND, envelope=talk.denial(imposter))) is None
    outcome = run.handle(Arrived(kind=Denial.KIND, envelope=talk.denial(talk.world.owners[2])))
    assert outcome is not None
    assert outcome.state == "denied"


@pytest.mark.parametrize(
    ("minimum_age", "code"),
    [(-1, "request.parameter-range"), (121, "request.parameter-range"), ("40", "request.parameter-range")],
)
def test_parameters_outside_the_contract(minimum_age: int | str, code: str) -> None:
    world = World()
    agreement = world.agreement()
    with pytest.raises(Refused) as caught:
        open_request(world.request(agreement, minimum_age=minimum_age), agreement)
    assert caught.value.code == code


def test_request_of_a_party_that_is_no_analyst() -> None:
    world = World()
    agreement = world.agreement()
    world.analyst = world.owners[0]
    with pytest.raises(Refused) as caught:
        open_request(world.request(agreement), agreement)
    assert caught.value.code == "request.role"


def test_report_data_binds_everything() -> None:
    """Change any part of a session and the 64 bytes are others."""
    talk = Conversation()
    record = talk.session().record
    base = {
        "run": record.run,
        "attempt": record.attempt,
        "contract": record.contract,
        "challenges": record.challenges,
        "signing": record.verifying_key,
        "sealing": record.sealing,
        "missing_layers": (),
    }
    changes = {
        "run": object_id(b"1"),
        "attempt": 2,
        "contract": object_id(b"2"),
        "challenges": record.challenges[:-1],
        "signing": talk.world.analyst.signing.verifying_key,
        "sealing": talk.world.analyst.sealing.sealing_public,
        "missing_layers": ("sandbox.cgroup",),
    }
    original = report_data(**base)  # type: ignore[arg-type]
    assert len(original) == 64
    assert original == record.report_data
    others = {report_data(**{**base, name: value}) for name, value in changes.items()}  # type: ignore[arg-type]
    assert len(others) == len(changes)
    assert original not in others
    assert ObjectId(record.run)
