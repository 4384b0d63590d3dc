"""The enclave's state machine: every event in every state, then the lies. Renewals: ``test_wire_renewals``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId
from kakoi.testing.world import NOW, TestParty
from kakoi.wire.enclave_run import (
    AskRelease,
    CloseFailed,
    CompareEarlier,
    Compute,
    EnclaveRun,
    Event,
    ExtendLease,
    Instruction,
    MakeSession,
    MessageArrived,
    OutputJudged,
    OutputReleased,
    PublishResult,
    ReleaseAsked,
    RenewalMade,
    RenewSession,
    SessionMade,
    StepFailed,
)
from kakoi.wire.messages import Challenge, Denial, KeyGrant, Lease, Release
from support.conversation import Conversation

STATES = ("claimed", "attesting", "waiting", "computing", "asked", "renewing", "judged", "releasing", "done", "failed")
"""``judged``: the gate has judged; ``releasing``: the owners were asked, all but the last said yes. ``asked`` and ``renewing`` are within computing: all but the last owner asked for a renewal; its evidence was published."""


def arrived(envelope: Envelope, kind: str) -> MessageArrived:
    return MessageArrived(kind=kind, envelope=envelope)


def challenge(talk: Conversation, owner: TestParty, **change: int | str) -> MessageArrived:
    return arrived(talk.challenge(owner, **change), Challenge.KIND)  # type: ignore[arg-type]


def grant(talk: Conversation, owner: TestParty, **change: int | str) -> MessageArrived:
    return arrived(talk.grant(owner, **change), KeyGrant.KIND)  # type: ignore[arg-type]


def in_state(talk: Conversation, state: str) -> EnclaveRun:
    """A machine led to ``state`` by the events that lead there."""
    run = talk.run()
    if state == "claimed":
        return run
    if state == "failed":
        run.handle(StepFailed(error=Refused("test.made-up", "made up")))
        return run
    for owner in talk.world.owners:
        run.handle(challenge(talk, owner))
    if state == "attesting":
        return run
    run.handle(SessionMade(session=talk.session().id))
    if state == "waiting":
        return run
    for owner in talk.world.owners:
        run.handle(grant(talk, owner))
    if state in ("judged", "releasing", "done"):
        to_release(talk, run, state)
    if state in ("asked", "renewing"):
        ask_again(talk, run, whole=state == "renewing")
    return run


def to_release(talk: Conversation, run: EnclaveRun, state: str) -> None:
    """From computing on: the gate judges; the owners are asked and all but the last say yes; the last does."""
    run.handle(OutputJudged())
    if state == "judged":
        return
    run.handle(ReleaseAsked(request=talk.release_request().payload_id))
    *others, last = talk.world.owners
    for owner in others:
        run.handle(arrived(talk.release(owner), Release.KIND))
    if state == "done":
        run.handle(arrived(talk.release(last), Release.KIND))
        run.handle(OutputReleased())


def ask_again(talk: Conversation, run: EnclaveRun, *, whole: bool) -> None:
    """All but the last owner ask for a renewal; if ``whole``, all do, and all but the last answer its evidence."""
    *others, last = talk.world.owners
    for owner in others:
        run.handle(challenge(talk, owner, renewal=1))
    if whole:
        run.handle(challenge(talk, last, renewal=1))
        run.handle(RenewalMade(renewal=1, statement=talk.renewal().envelope))
        for owner in others:
            run.handle(arrived(talk.lease(owner), Lease.KIND))


def shown(state: str) -> str:
    """The machine's own word for a state."""
    return "computing" if state in ("asked", "renewing", "judged", "releasing") else state


@pytest.mark.parametrize("state", STATES)
def test_the_way_to_each_state(state: str) -> None:
    assert in_state(Conversation(), state).state == shown(state)


def test_one_whole_run() -> None:
    talk = Conversation()
    run = talk.run()
    said: list[Instruction] = []
    for owner in talk.world.owners:
        said += run.handle(challenge(talk, owner))
    assert said == [MakeSession(challenges=tuple(sorted(talk.challenge(o).payload_id for o in talk.world.owners)))]
    assert run.handle(SessionMade(session=talk.session().id)) == []
    said = [instruction for owner in talk.world.owners for instruction in run.handle(grant(talk, owner))]
    assert isinstance(said[0], Compute)
    assert said[0].lease_seconds == 300
    assert len(said[0].grants) == 3
    assert run.handle(OutputJudged()) == [AskRelease()]
    assert run.handle(ReleaseAsked(request=talk.release_request().payload_id)) == []
    said = [i for owner in talk.world.owners for i in run.handle(arrived(talk.release(owner), Release.KIND))]
    assert isinstance(said[0], CompareEarlier)
    assert len(said) == 1
    assert len(said[0].releases) == 3
    assert run.handle(OutputReleased()) == [PublishResult()]


def last_challenge(talk: Conversation) -> Event:
    return challenge(talk, talk.world.owners[-1])


def first_grant(talk: Conversation) -> Event:
    return grant(talk, talk.world.owners[0])


def a_denial(talk: Conversation) -> Event:
    return arrived(talk.denial(talk.world.owners[1]), Denial.KIND)


EVENTS: dict[str, Callable[[Conversation], Event]] = {
    "challenge": last_challenge,
    "grant": first_grant,
    "denial": a_denial,
    "foreign kind": lambda talk: arrived(talk.denial(talk.world.owners[1]), "kakoi/other/v1"),
    "renewal challenge": lambda talk: challenge(talk, talk.world.owners[-1], renewal=1),
    "lease": lambda talk: arrived(talk.lease(talk.world.owners[-1]), Lease.KIND),
    "session made": lambda talk: SessionMade(session=talk.session().id),
    "renewal made": lambda talk: RenewalMade(renewal=1, statement=talk.renewal().envelope),
    "judged": lambda talk: OutputJudged(),
    "release asked": lambda talk: ReleaseAsked(request=talk.release_request().payload_id),
    "last release": lambda talk: arrived(talk.release(talk.world.owners[-1]), Release.KIND),
    "output": lambda talk: OutputReleased(),
    "failure": lambda talk: StepFailed(error=Refused("test.made-up", "made up")),
}
SAME = "same"
RUNNING = STATES[:-2]
EXPECTED: dict[str, dict[str, str]] = {
    # event: {state before: state after}; "RuntimeError" where only a mistake of ours leads there
    "challenge": {"claimed": "claimed"},
    "grant": {},
    "denial": dict.fromkeys(RUNNING, "failed"),
    "foreign kind": {},
    "renewal challenge": {},
    "lease": {},
    "session made": dict.fromkeys(RUNNING, "RuntimeError") | {"attesting": "waiting"},
    "renewal made": dict.fromkeys(RUNNING, "RuntimeError"),
    "judged": dict.fromkeys(RUNNING, "RuntimeError") | dict.fromkeys(("computing", "asked", "renewing"), "computing"),
    "release asked": dict.fromkeys(RUNNING, "RuntimeError") | {"judged": "computing"},
    "last release": {},
    "output": dict.fromkeys(RUNNING, "RuntimeError"),
    "failure": dict.fromkeys(RUNNING, "failed"),
}
SAID: dict[tuple[str, str], type[Instruction]] = {
    ("renewal challenge", "asked"): RenewSession,
    ("lease", "renewing"): ExtendLease,
    ("judged", "computing"): AskRelease,
    ("judged", "asked"): AskRelease,
    ("judged", "renewing"): AskRelease,
    ("last release", "releasing"): CompareEarlier,
}
"""What is said where the state does not tell it."""


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_event_in_every_state(state: str, event: str) -> None:
    talk = Conversation()
    run = in_state(talk, state)
    expected = EXPECTED[event].get(state, SAME)  # done and failed: nothing changes any more
    if expected == "RuntimeError":
        with pytest.raises(RuntimeError):
            run.handle(EVENTS[event](talk))
        return
    said = run.handle(EVENTS[event](talk))
    assert run.state == (shown(state) if expected == SAME else expected)
    if state in ("done", "failed"):
        assert said == []
    elif run.state == "failed":
        assert [type(instruction) for instruction in said] == [CloseFailed]
    else:
        assert [type(instruction) for instruction in said] == ([SAID[event, state]] if (event, state) in SAID else [])


def test_a_message_delivered_twice_does_nothing_twice() -> None:
    talk = Conversation()
    run = talk.run()
    for owner in talk.world.owners[:2]:
        run.handle(challenge(talk, owner))
        assert run.handle(challenge(talk, owner)) == []
    run.handle(challenge(talk, talk.world.owners[2]))
    assert run.handle(challenge(talk, talk.world.owners[2])) == []
    run.handle(SessionMade(session=talk.session().id))
    for owner in talk.world.owners:
        run.handle(grant(talk, owner))
    assert run.state == "computing"
    assert run.handle(grant(talk, talk.world.owners[0])) == []


def failure_of(run: EnclaveRun, event: Event) -> str:
    said = run.handle(event)
    assert run.state == "failed"
    assert isinstance(said[0], CloseFailed)
    return said[0].error.code


def test_two_different_challenges_of_one_owner() -> None:
    talk = Conversation()
    run = talk.run()
    run.handle(challenge(talk, talk.world.owners[0]))
    assert failure_of(run, challenge(talk, talk.world.owners[0], nonce="2")) == "session.conflict"


def test_owners_clocks_that_differ() -> None:
    talk = Conversation()
    run = talk.run()
    run.handle(challenge(talk, talk.world.owners[0]))
    assert failure_of(run, challenge(talk, talk.world.owners[1], at=NOW + 301)) == "session.clock-skew"


@pytest.mark.parametrize(("at", "code"), [(NOW + 100_001, "contract.expired"), (NOW - 1001, "contract.not-yet")])
def test_contract_dates_by_the_owners_time(at: int, code: str) -> None:
    talk = Conversation()
    assert failure_of(talk.run(), challenge(talk, talk.world.owners[0], at=at)) == code


def test_grant_for_another_session() -> None:
    talk = Conversation()
    run = in_state(talk, "waiting")
    assert failure_of(run, grant(talk, talk.world.owners[0], session="00" * 32)) == "session.grant"


@pytest.mark.parametrize("lease", [0, 301])
def test_lease_outside_the_contract(lease: int) -> None:
    talk = Conversation()
    run = in_state(talk, "waiting")
    assert failure_of(run, grant(talk, talk.world.owners[0], lease=lease)) == "session.lease"


def test_denial_says_who() -> None:
    talk = Conversation()
    said = talk.run().handle(a_denial(talk))
    assert isinstance(said[0], CloseFailed)
    assert (said[0].error.code, said[0].said_by) == ("decision.budget", talk.world.owners[1].id)


def test_noise_is_ignored() -> None:
    """Signed by a stranger in an owner's name, by a party that is no owner, or for another attempt: nothing happens."""
    talk = Conversation()
    run = talk.run()
    forged = talk.challenge(
        TestParty(
            name="North",
            signing=talk.world.analyst.signing,
            sealing=talk.world.analyst.sealing,
            card=talk.world.owners[0].card,
        )
    )
    assert run.handle(arrived(forged, Challenge.KIND)) == []
    assert run.handle(challenge(talk, talk.world.analyst)) == []
    assert run.handle(challenge(talk, talk.world.owners[0], attempt=2)) == []
    assert (run.state, run.challenges) == ("claimed", {})


def test_grants_are_verified_not_believed() -> None:
    talk = Conversation()
    run = in_state(talk, "waiting")
    forged = talk.grant(talk.world.owners[0])
    broken = Envelope(
        payload=forged.payload, payloadType=forged.payloadType, signatures=talk.denial(talk.world.owners[0]).signatures
    )
    assert run.handle(arrived(broken, KeyGrant.KIND)) == []
    assert run.grants == {}
    assert isinstance(ObjectId(run.session), str)


@pytest.mark.parametrize("change", [{"session": "00" * 32}, {"request": "00" * 32}, {"contract": "00" * 32}])
def test_a_release_of_something_else_ends_the_run(change: dict[str, str]) -> None:
    talk = Conversation()
    run = in_state(talk, "releasing")
    event = arrived(talk.release(talk.world.owners[-1], **change), Release.KIND)
    assert failure_of(run, event) == "session.release"


def test_no_release_counts_before_it_was_asked_for() -> None:
    """An owner cannot say yes to what it has not seen: early, forged and repeated releases change nothing."""
    talk = Conversation()
    run = in_state(talk, "judged")
    first = arrived(talk.release(talk.world.owners[0]), Release.KIND)
    assert run.handle(first) == []
    assert run.releases == {}
    run.handle(ReleaseAsked(request=talk.release_request().payload_id))
    assert run.handle(first) == run.handle(first) == []
    forged = TestParty(
        name="East",
        signing=talk.world.analyst.signing,
        sealing=talk.world.analyst.sealing,
        card=talk.world.owners[1].card,
    )
    assert run.handle(arrived(talk.release(forged), Release.KIND)) == []
    assert list(run.releases) == [talk.world.owners[0].id]
    with pytest.raises(RuntimeError):
        run.handle(OutputReleased())


def test_leases_go_on_while_owners_are_asked_for_the_release() -> None:
    talk = Conversation()
    run = in_state(talk, "releasing")
    said = [i for owner in talk.world.owners for i in run.handle(challenge(talk, owner, renewal=1))]
    assert [type(i) for i in said] == [RenewSession]


def test_an_owner_may_deny_the_release() -> None:
    talk = Conversation()
    said = in_state(talk, "releasing").handle(a_denial(talk))
    assert isinstance(said[0], CloseFailed)
