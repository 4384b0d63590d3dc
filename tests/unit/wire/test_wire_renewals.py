"""Renewed leases: as many as the owners want, the shortest counts, and every contradiction ends the run."""

from __future__ import annotations

import pytest

from kakoi.contract.model import Limits
from kakoi.contract.sign import seal
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import object_id
from kakoi.testing.world import NOW, TestParty, with_changes
from kakoi.wire.broker_run import (
    Answered,
    BrokerRun,
    ChallengeIssued,
    IssueChallenge,
    JudgeRenewal,
    LeaseGiven,
    RenewalArrived,
    RenewalWanted,
    RunDenied,
)
from kakoi.wire.enclave_run import (
    CloseFailed,
    EnclaveRun,
    ExtendLease,
    Instruction,
    MessageArrived,
    RenewalMade,
    RenewSession,
)
from kakoi.wire.messages import Challenge, Denial, Lease, SessionRenewal, leases_digest, renewal_report_data
from kakoi.wire.renewal import open_renewal
from support.conversation import Conversation
from unit.wire.test_wire_enclave_run import arrived, challenge, grant, in_state


def asked(talk: Conversation, run: EnclaveRun, number: int) -> list[Instruction]:
    """All owners ask for this renewal."""
    return [said for owner in talk.world.owners for said in run.handle(challenge(talk, owner, renewal=number))]


def renewed(talk: Conversation, run: EnclaveRun, number: int) -> list[Instruction]:
    """One whole renewal; what was said at its end."""
    asked(talk, run, number)
    run.handle(RenewalMade(renewal=number, statement=talk.renewal(number).envelope))
    return [said for owner in talk.world.owners for said in run.handle(arrived(talk.lease(owner, number), Lease.KIND))]


def test_a_renewal_asks_all_and_extends_by_the_shortest() -> None:
    talk = Conversation()
    run = in_state(talk, "computing")
    challenges = tuple(sorted(talk.challenge(owner, renewal=1).payload_id for owner in talk.world.owners))
    assert asked(talk, run, 1) == [RenewSession(renewal=1, challenges=challenges)]
    assert run.handle(RenewalMade(renewal=1, statement=talk.renewal().envelope)) == []
    first, second, third = talk.world.owners
    assert run.handle(arrived(talk.lease(first, lease_until=NOW + 40), Lease.KIND)) == []
    assert run.handle(arrived(talk.lease(second), Lease.KIND)) == []
    assert run.handle(arrived(talk.lease(third), Lease.KIND)) == [ExtendLease(renewal=1, lease_seconds=40)]
    (note,) = run.renewals.done
    assert (note.renewal, note.evidence) == (1, talk.renewal().id)
    given = [talk.lease(first, lease_until=NOW + 40), talk.lease(second), talk.lease(third)]
    assert note.leases == leases_digest(envelope.payload_id for envelope in given)
    assert run.renewals.last is not None
    assert run.renewals.last.whole.leases == tuple(given)


def test_renewals_follow_one_another() -> None:
    talk = Conversation()
    run = in_state(talk, "computing")
    for number in (1, 2, 3):
        assert renewed(talk, run, number) == [ExtendLease(renewal=number, lease_seconds=300)]
    assert [note.renewal for note in run.renewals.done] == [1, 2, 3]


def test_messages_delivered_twice_do_nothing_twice() -> None:
    talk = Conversation()
    run = in_state(talk, "computing")
    renewed(talk, run, 1)
    assert asked(talk, run, 1) == []
    for owner in talk.world.owners:
        assert run.handle(arrived(talk.lease(owner), Lease.KIND)) == []
    assert len(run.renewals.done) == 1


def test_an_owner_may_ask_before_the_others_have_granted() -> None:
    """Its lease began earlier. What it asked is kept until the run computes."""
    talk = Conversation()
    run = in_state(talk, "waiting")
    first, *others = talk.world.owners
    run.handle(grant(talk, first))
    assert run.handle(challenge(talk, first, renewal=1)) == []
    for owner in others:
        run.handle(grant(talk, owner))
    said = [instruction for owner in others for instruction in run.handle(challenge(talk, owner, renewal=1))]
    assert [type(instruction) for instruction in said] == [RenewSession]


def test_an_owner_may_ask_for_the_next_renewal_while_another_is_late() -> None:
    talk = Conversation()
    run = in_state(talk, "computing")
    first, *others = talk.world.owners
    asked(talk, run, 1)
    run.handle(RenewalMade(renewal=1, statement=talk.renewal().envelope))
    run.handle(arrived(talk.lease(first), Lease.KIND))
    assert run.handle(challenge(talk, first, renewal=2)) == []
    assert run.handle(challenge(talk, first, renewal=3)) == [], "two ahead is not kept"
    for owner in others:
        run.handle(arrived(talk.lease(owner), Lease.KIND))
    said = [instruction for owner in others for instruction in run.handle(challenge(talk, owner, renewal=2))]
    assert [(type(i), i.renewal) for i in said if isinstance(i, RenewSession)] == [(RenewSession, 2)]


def test_who_is_silent_is_known() -> None:
    talk = Conversation()
    run = in_state(talk, "computing")
    first, second, third = talk.world.owners
    assert run.renewals.silent == tuple(owner.id for owner in talk.world.owners)
    run.handle(challenge(talk, second, renewal=1))
    assert run.renewals.silent == (first.id, third.id)
    for owner in (first, third):
        run.handle(challenge(talk, owner, renewal=1))
    run.handle(RenewalMade(renewal=1, statement=talk.renewal().envelope))
    run.handle(arrived(talk.lease(third), Lease.KIND))
    assert run.renewals.silent == (first.id, second.id)


def failure(run: EnclaveRun, event: MessageArrived) -> str:
    said = run.handle(event)
    assert run.state == "failed"
    (close,) = said
    assert isinstance(close, CloseFailed)
    return close.error.code


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("session.grant", {"evidence": object_id(b"other")}),
        ("session.grant", {"session": object_id(b"other")}),
        ("session.grant", {"contract": object_id(b"other")}),
        ("session.lease", {"lease_until": NOW + 301}),
        ("session.lease", {"lease_until": NOW}),
        ("session.clock-back", {"issued_at": NOW - 1, "lease_until": NOW + 10}),
        ("contract.expired", {"issued_at": NOW + 100_000, "lease_until": NOW + 100_010}),
    ],
)
def test_leases_that_contradict_end_the_run(code: str, changes: dict[str, object]) -> None:
    talk = Conversation()
    run = in_state(talk, "renewing")
    assert failure(run, arrived(talk.lease(talk.world.owners[-1], 1, **changes), Lease.KIND)) == code


def test_two_leases_or_challenges_of_one_owner_end_the_run() -> None:
    talk = Conversation()
    again = arrived(talk.lease(talk.world.owners[0], lease_until=NOW + 10), Lease.KIND)
    assert failure(in_state(talk, "renewing"), again) == "session.conflict"
    other = challenge(talk, talk.world.owners[0], renewal=1, nonce="other")
    assert failure(in_state(talk, "asked"), other) == "session.conflict"


@pytest.mark.parametrize("changes", [{"attempt": 2}, {"run": object_id(b"x")}, {"renewal": 2}])
def test_leases_for_something_else_are_ignored(changes: dict[str, object]) -> None:
    talk = Conversation()
    run = in_state(talk, "renewing")
    assert run.handle(arrived(talk.lease(talk.world.owners[-1], 1, **changes), Lease.KIND)) == []
    assert run.state == "computing"


def test_a_stranger_renews_nothing() -> None:
    talk = Conversation()
    run = in_state(talk, "renewing")
    analyst = talk.world.analyst
    fake = TestParty(name="South", signing=analyst.signing, sealing=analyst.sealing, card=talk.world.owners[-1].card)
    assert run.handle(arrived(talk.lease(fake), Lease.KIND)) == []
    assert run.handle(arrived(talk.denial(fake), Denial.KIND)) == []
    assert run.state == "computing"


def test_a_denial_while_it_computes_ends_the_run_and_says_whose() -> None:
    talk = Conversation()
    for state in ("computing", "asked", "renewing"):
        said = in_state(talk, state).handle(arrived(talk.denial(talk.world.owners[1]), Denial.KIND))
        assert isinstance(said[0], CloseFailed)
        assert said[0].said_by == talk.world.owners[1].id


def test_evidence_that_nobody_asked_for_is_our_own_mistake() -> None:
    talk = Conversation()
    run = in_state(talk, "computing")
    with pytest.raises(RuntimeError):
        run.handle(RenewalMade(renewal=1, statement=talk.renewal().envelope))
    asked(talk, run, 1)
    with pytest.raises(RuntimeError):
        run.handle(RenewalMade(renewal=2, statement=talk.renewal(2).envelope))


def test_report_data_of_a_renewal_binds_everything() -> None:
    talk = Conversation()
    record = talk.renewal().record
    base = {
        "run": record.run,
        "attempt": 1,
        "renewal": 1,
        "contract": record.contract,
        "session": record.session,
        "challenges": record.challenges,
    }
    changes = {
        "run": object_id(b"1"),
        "attempt": 2,
        "renewal": 2,
        "contract": object_id(b"2"),
        "session": object_id(b"3"),
        "challenges": record.challenges[1:],
    }
    original = renewal_report_data(**base)  # type: ignore[arg-type]
    assert original == record.report_data
    assert len(original) == 64
    others = {renewal_report_data(**{**base, name: value}) for name, value in changes.items()}  # type: ignore[arg-type]
    assert len(others) == len(changes)
    assert original not in others
    assert talk.session().record.report_data not in others | {original}


def test_a_renewal_is_signed_by_its_session_and_names_it() -> None:
    talk = Conversation()
    good = talk.renewal()
    forged = seal(good.record, talk.world.analyst.signing)
    with pytest.raises(Refused) as caught:
        open_renewal(forged, talk.session())
    assert caught.value.code == "signature.signer"
    moved = SessionRenewal(**{n: getattr(good.record, n) for n in good.record.__slots__} | {"session": object_id(b"x")})
    with pytest.raises(Refused) as caught:
        open_renewal(seal(moved, talk.signing), talk.session())
    assert caught.value.code == "session.replayed"


def granted(talk: Conversation) -> BrokerRun:
    run = BrokerRun(run=talk.request.id)
    run.handle(ChallengeIssued(attempt=1, challenge=talk.challenge(talk.world.owners[0]).payload_id))
    run.handle(Answered(attempt=1, session=talk.session().id))
    return run


def renewal_asked(talk: Conversation) -> BrokerRun:
    run = granted(talk)
    identity = talk.challenge(talk.world.owners[0], renewal=1).payload_id
    run.handle(ChallengeIssued(attempt=1, renewal=1, challenge=identity))
    return run


def test_a_broker_asks_once_for_each_renewal_and_only_who_has_its_key() -> None:
    talk = Conversation()
    assert BrokerRun(run=talk.request.id).handle(RenewalWanted(attempt=1)) == []
    run = granted(talk)
    assert run.handle(RenewalWanted(attempt=1)) == [IssueChallenge(attempt=1, renewal=1)]
    assert run.handle(RenewalWanted(attempt=2)) == []
    run = renewal_asked(talk)
    assert run.handle(RenewalWanted(attempt=1)) == []
    run.handle(LeaseGiven(attempt=1, renewal=1, evidence=talk.renewal().id))
    assert run.handle(RenewalWanted(attempt=1)) == [IssueChallenge(attempt=1, renewal=2)]


def test_a_broker_judges_each_renewal_once() -> None:
    talk = Conversation()
    run, renewal = renewal_asked(talk), talk.renewal()
    assert run.handle(RenewalArrived(renewal=renewal)) == [JudgeRenewal(renewal=renewal)]
    run.handle(LeaseGiven(attempt=1, renewal=1, evidence=talk.renewal().id))
    assert run.handle(RenewalArrived(renewal=talk.renewal())) == []
    run.handle(RunDenied())
    assert run.handle(RenewalWanted(attempt=1)) == []
    assert run.handle(RenewalArrived(renewal=talk.renewal(2))) == []


def test_a_broker_refuses_renewals_that_are_not_its_own() -> None:
    talk = Conversation()
    cases = [
        (BrokerRun(run=talk.request.id), "session.replayed"),
        (granted(talk), "session.challenge"),
        (BrokerRun(run="00" * 32), "session.replayed"),
    ]
    second = renewal_asked(talk)
    second.handle(LeaseGiven(attempt=1, renewal=1, evidence="another"))
    cases.append((second, "session.second"))
    for run, code in cases:
        with pytest.raises(Refused) as caught:
            run.handle(RenewalArrived(renewal=talk.renewal()))
        assert caught.value.code == code


def test_leases_must_be_long_enough_to_be_renewed_all_the_time() -> None:
    good = Limits(wall_seconds=7 * 86400, memory_megabytes=64, lease_seconds=600, grain_milliseconds=100)
    with pytest.raises(Malformed) as caught:
        with_changes(good, lease_seconds=300)  # type: ignore[arg-type]
    assert caught.value.code == "limits.lease"
    assert Challenge.KIND != Lease.KIND
