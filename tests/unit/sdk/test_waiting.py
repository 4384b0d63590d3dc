"""What a run waits for is read from what entitled senders signed; the analyst sees whom to telephone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from kakoi.attest.policy import TokenPolicy
from kakoi.contract.model import Contract
from kakoi.contract.sign import seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused, Unavailable
from kakoi.net.answers import FeedPage, RunState
from kakoi.net.client import HubClient
from kakoi.sdk.run import Following, await_run
from kakoi.sdk.waiting import Waiting, Waits
from kakoi.testing.memory_hub import MemoryHub
from kakoi.testing.world import NOW, World
from kakoi.wire.messages import Challenge, KeyGrant, Release, RunFailure
from support.conversation import Conversation

CLAIMED = RunState(state="claimed", attempt=1)


def waits(talk: Conversation) -> Waits:
    owners = talk.agreement.owners_of(talk.request.record.analysis)
    return Waits(agreement=talk.agreement, run=talk.request.id, owners=owners)


def what(found: Waits, state: RunState = CLAIMED) -> tuple[str, tuple[str, ...]]:
    now = found.now(state)
    return now.what, now.names


def test_each_step_of_a_run_is_waited_for_by_name() -> None:
    talk = Conversation()
    north, east, south = talk.world.owners
    seen = waits(talk)
    assert seen.now(RunState(state="queued", attempt=0)) == Waiting(what="enclave", names=(), attempt=0)
    assert what(seen) == ("owners", ("North", "East", "South"))
    seen.saw(Challenge.KIND, talk.challenge(north))
    assert what(seen) == ("owners", ("East", "South"))
    for owner in (east, south):
        seen.saw(Challenge.KIND, talk.challenge(owner))
    assert what(seen) == ("evidence", ())
    seen.saw("kakoi/session/v1", talk.session().envelope)
    assert what(seen) == ("keys", ("North", "East", "South"))
    seen.saw(KeyGrant.KIND, talk.grant(north))
    assert what(seen) == ("keys", ("East", "South"))
    for owner in (east, south):
        seen.saw(KeyGrant.KIND, talk.grant(owner))
    assert what(seen) == ("computing", ())
    seen.saw("kakoi/release-request/v1", talk.release_request())
    assert what(seen) == ("release", ("North", "East", "South"))
    for owner in (north, east, south):
        seen.saw(Release.KIND, talk.release(owner))
    assert what(seen) == ("publishing", ())


def test_a_later_attempt_begins_anew_and_noise_counts_for_nothing() -> None:
    talk = Conversation()
    north, east, south = talk.world.owners
    seen = waits(talk)
    for owner in (north, east, south):
        seen.saw(Challenge.KIND, talk.challenge(owner))
    assert what(seen, RunState(state="claimed", attempt=2)) == ("owners", ("North", "East", "South"))
    seen.saw(Challenge.KIND, talk.challenge(north, attempt=2))
    assert what(seen, RunState(state="claimed", attempt=2)) == ("owners", ("East", "South"))
    forged = replace(Challenge.decode(talk.challenge(east, attempt=2).payload), nonce=bytes(32))
    seen.saw(Challenge.KIND, seal(forged, north.signing))
    seen.saw(Challenge.KIND, talk.challenge(east, attempt=2, renewal=1))
    seen.saw(Challenge.KIND, talk.challenge(east))
    seen.saw("kakoi/key-grant/v1", talk.challenge(east, attempt=2))
    assert what(seen, RunState(state="claimed", attempt=2)) == ("owners", ("East", "South"))


def with_token() -> World:
    """A contract that demands a token beside the evidence."""

    def change(contract: Contract) -> Contract:
        claims = replace(contract.platforms.accepted[0])
        token = TokenPolicy(accompanies="software", service="intel-trust-authority", claims=claims)
        return replace(contract, platforms=replace(contract.platforms, tokens=(token,)))

    return World(change_contract=change)


def test_a_demanded_service_is_named() -> None:
    talk = Conversation(world=with_token())
    seen = waits(talk)
    for owner in talk.world.owners:
        seen.saw(Challenge.KIND, talk.challenge(owner))
    assert what(seen) == ("tokens", ("intel-trust-authority",))


@dataclass
class Hub(MemoryHub):
    """Answers with what is there, and says of the run what it is told to; ``late`` comes between two questions."""

    state: RunState = CLAIMED
    late: list[Envelope] = field(default_factory=list)

    def run(self, run: str) -> RunState:
        for envelope in self.late:
            self.put_object(envelope)
        return self.state

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


@dataclass
class Clock:
    """A second for each look."""

    time: int = NOW

    def now(self) -> int:
        self.time += 1
        return self.time


def test_an_analyst_hears_what_the_run_waits_for_and_whom_a_timeout_is_about() -> None:
    talk, hub = Conversation(), Hub()
    hub.put_object(talk.request.envelope)
    hub.put_object(talk.challenge(talk.world.owners[0]))
    heard: list[Waiting] = []
    with pytest.raises(Unavailable) as caught:
        await_run(
            cast("HubClient", hub),
            talk.agreement,
            talk.request.id,
            clock=Clock(),
            seconds=9,
            tell=lambda kind, who: None,
            waits=heard.append,
        )
    assert caught.value.code == "run.timeout"
    assert "East, South" in caught.value.message
    assert heard == [Waiting(what="owners", names=("East", "South"), attempt=1)]


def test_a_reason_that_comes_between_two_questions_is_not_missed() -> None:
    """The feed was empty, then the hub says failed: the failure is read before anybody says that there is none."""
    talk = Conversation()
    failure = RunFailure(
        run=talk.request.id,
        attempt=1,
        contract=talk.agreement.id,
        session=talk.session().id,
        code="session.token-silent",
        message="expected a token, got none",
        hint="",
    )
    said = [talk.session().envelope, seal(failure, talk.signing)]
    hub = Hub(state=RunState(state="failed", attempt=3), late=said)
    hub.put_object(talk.request.envelope)
    following = Following(cast("HubClient", hub), talk.agreement, talk.request.id)
    with pytest.raises(Refused) as caught:
        following.look(wait=0, tell=lambda kind, who: None)
    assert caught.value.code == "session.token-silent"
    silent = Hub(state=RunState(state="abandoned", attempt=5))
    silent.put_object(talk.request.envelope)
    with pytest.raises(Unavailable) as ended:
        Following(cast("HubClient", silent), talk.agreement, talk.request.id).look(wait=0, tell=lambda kind, who: None)
    assert ended.value.code == "run.ended"
    assert "North, East, South" in ended.value.message
