"""Two enclaves at one run: whatever they do at the same time, one of them publishes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from kakoi.core import dsse
from kakoi.core.crypto import SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import dumps
from kakoi.core.errors import KakoiError
from kakoi.core.ids import ObjectId
from kakoi.net.answers import Claim
from kakoi.net.client import HubClient
from unit.hub.hubkit import World

LEASE = 10


def said_by(world: World, key: SigningKey, run: str, attempt: int) -> list[Envelope]:
    """A passport, a result and a failure of one session."""
    parts = {"run": run, "contract": world.contract.payload_id, "attempt": attempt}
    others = [dsse.sign(dumps({"kind": f"kakoi/{kind}/v1", **parts}), key) for kind in ("result", "run-failure")]
    predicate = {"run": run, "contract": world.contract.payload_id, "attempt": attempt}
    return [world.passport(key, run, predicate=predicate), *others]


def take(hub: HubClient, token: str, enclave: str) -> Claim:
    """A claim of a few seconds of the hub's clock."""
    claim = hub.claim(enclave=enclave, seconds=LEASE)
    assert claim is not None
    return claim


def attempt_of(hub: HubClient, world: World, claim: Claim) -> list[Envelope]:
    """Store the session of a claim; what that session will want to publish."""
    key, session = world.session(claim.run, claim.attempt)
    hub.put_object(session, claim=claim.token)
    return said_by(world, key, claim.run, claim.attempt)


def code_of(call: Callable[[], object]) -> str:
    """The code of the error, or empty."""
    try:
        call()
    except KakoiError as error:
        return error.code
    return ""


def results(hub: HubClient, run: str) -> int:
    """How many endings the run has for its analyst."""
    return len(hub.feed(kinds=["kakoi/result/v1", "kakoi/run-failure/v1"], refs={"run": run}).items)


def check_sleeper(one: HubClient, two: HubClient, world: World, token: str, later: Callable[[int], None]) -> None:
    """An enclave renews, sleeps past its lease, and finds that it may say nothing: neither before nor after the other has."""
    run = one.put_object(world.request(1)).id
    first = take(one, token, "a")
    mine = attempt_of(one, world, first)
    one.renew(first)
    later(LEASE + 1)
    late = [code_of(partial(one.put_object, item, claim=first.token)) for item in mine]
    assert late == ["hub.claim"] * 3, "the lease is over, though nobody has the run yet"
    second = take(two, token, "b")
    assert (second.run, second.attempt) == (run, 2)
    theirs = attempt_of(two, world, second)
    for holder in (first.token, second.token, ""):  # not under the other's token either
        assert [code_of(partial(two.put_object, item, claim=holder)) for item in mine] == ["hub.claim"] * 3
    two.put_object(theirs[0], claim=second.token)
    two.put_object(theirs[1], claim=second.token)
    assert code_of(lambda: one.put_object(theirs[2], claim=second.token)) == "hub.run-ended"
    two.finish(second)
    assert [code_of(partial(one.put_object, item, claim=first.token)) for item in mine] == ["hub.claim"] * 3
    assert results(one, run) == results(two, run) == 1


def check_race(
    one: HubClient, two: HubClient, world: World, token: str, later: Callable[[int], None], rounds: int
) -> None:
    """At the very moment at which a lease ends one enclave publishes and another takes the run: one result each time."""
    for number in range(rounds):
        run = one.put_object(world.request(100 + number)).id
        first = take(one, token, "a")
        mine = attempt_of(one, world, first)[1]
        outcome: list[str] = []
        start = threading.Barrier(2)

        def publish(claim: Claim = first, result: Envelope = mine, start: threading.Barrier = start) -> None:
            start.wait()
            outcome.append(code_of(lambda: one.put_object(result, claim=claim.token)))  # noqa: B023 - joined below

        thread = threading.Thread(target=publish)
        thread.start()
        start.wait()
        later(LEASE + 1)
        taken = two.claim(enclave="b", seconds=LEASE)
        thread.join(timeout=60)
        assert taken is not None
        theirs = attempt_of(two, world, taken)[1]
        refused = code_of(lambda: two.put_object(theirs, claim=taken.token))  # noqa: B023 - called at once
        assert sorted([outcome[0], refused]) in (["", "hub.claim"], ["", "hub.run-ended"]), (number, outcome, refused)
        assert results(two, ObjectId(run)) == 1
        two.finish(taken)
