"""The queue of runs: one holder at a time, five attempts, and nothing for strangers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from kakoi.core.errors import KakoiError, Refused
from kakoi.core.ids import ObjectId
from kakoi.hub.serve import HubServer
from kakoi.net.answers import Claim, ClaimRequest
from kakoi.net.client import HubClient
from kakoi.net.identity import enclave_identity
from support.hub_client import client_of, signed
from unit.hub.conftest import Clock
from unit.hub.hubkit import ZERO, World, put_all


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


@pytest.fixture
def run(hub: HubClient, world: World) -> ObjectId:
    put_all(hub, world.setup)
    return hub.put_object(world.request()).id


def claim(hub: HubClient, token: str, seconds: int = 60) -> Claim:
    found = hub.claim(enclave="enclave-1", seconds=seconds)
    assert found is not None
    return found


def test_a_run_from_request_to_done(hub: HubClient, token: str, run: ObjectId) -> None:
    assert (hub.run(run).state, hub.run(run).attempt) == ("queued", 0)
    mine = claim(hub, token)
    assert (mine.run, mine.attempt) == (run, 1)
    assert hub.claim(enclave="enclave-2", seconds=60) is None
    assert hub.renew(mine).state == "claimed"
    assert hub.finish(mine).state == "done"
    assert hub.finish(mine).state == "done"  # said twice, done once
    assert code(lambda: hub.fail(mine)) == "run.claim-lost"
    assert code(lambda: hub.renew(mine)) == "run.claim-lost"
    assert (hub.run(run).state, hub.run(run).attempt) == ("done", 1)
    assert hub.claim(enclave="enclave-2", seconds=60) is None


def test_a_failed_run_is_not_tried_again(hub: HubClient, token: str, run: ObjectId) -> None:
    mine = claim(hub, token)
    hub.fail(mine)
    assert hub.fail(mine).state == "failed"
    assert hub.run(run).state == "failed"
    assert hub.claim(enclave="e", seconds=60) is None


def test_tokens(hub: HubClient, server: HubServer, token: str, run: ObjectId) -> None:
    for wrong in ("", "x" * 64, token[:-1], token.upper(), "Bearer " + token):
        with HubClient(server.url, identity=enclave_identity("e", wrong)) as other:
            assert code(partial(other.claim, enclave="e", seconds=60)) == "signature.request"
    mine = claim(hub, token)
    forged = Claim(run=run, attempt=1, token="0" * 64)
    for call in (hub.renew, hub.finish, hub.fail):
        assert code(partial(call, forged)) == "run.claim-lost"
    assert code(lambda: hub.renew(Claim(run=ObjectId(ZERO), attempt=1, token=mine.token))) == "run.claim-lost"
    assert hub.run(run).state == "claimed"


def test_a_claim_that_is_not_renewed_goes_to_another_enclave(
    hub: HubClient, token: str, run: ObjectId, clock: Clock
) -> None:
    first = claim(hub, token, seconds=300)
    clock.offset += 200
    hub.renew(first)
    clock.offset += 200
    assert hub.run(run).state == "claimed"
    clock.offset += 101
    second = claim(hub, token, seconds=300)
    assert (second.run, second.attempt) == (run, 2)
    assert second.token != first.token
    for call in (hub.renew, hub.finish, hub.fail):
        assert code(partial(call, first)) == "run.claim-lost"
    assert hub.finish(second).state == "done"


def test_the_hub_itself_takes_back_a_claim_and_says_so(hub: HubClient, token: str, run: ObjectId, clock: Clock) -> None:
    claim(hub, token, seconds=300)
    after = hub.runs().next
    clock.offset += 301
    page = hub.runs(after=after, wait=10)
    assert [(item.run, item.state, item.attempt) for item in page.items] == [(run, "queued", 1)]


def test_after_five_attempts_a_run_is_abandoned(hub: HubClient, token: str, run: ObjectId, clock: Clock) -> None:
    attempts = []
    for _ in range(5):
        attempts.append(claim(hub, token, seconds=300).attempt)
        clock.offset += 301
    assert attempts == [1, 2, 3, 4, 5]
    assert hub.claim(enclave="e", seconds=300) is None
    assert (hub.run(run).state, hub.run(run).attempt) == ("abandoned", 5)


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_jumps_an_hour_delays_a_run_and_does_not_lose_it(
    hub: HubClient, token: str, run: ObjectId, clock: Clock, jump: int
) -> None:
    first = claim(hub, token, seconds=300)
    clock.offset += jump
    if jump > 0:
        assert code(lambda: hub.renew(first)) == "run.claim-lost"
        assert claim(hub, token).attempt == 2
    else:
        # Set back by an hour the claim would last an hour longer than any lease: it has ended instead.
        clock.offset -= 1
        assert code(lambda: hub.renew(first)) == "run.claim-lost"
        assert claim(hub, token).attempt == 2
    assert hub.run(run).state == "claimed"


def test_the_oldest_request_comes_first_and_each_goes_to_one_enclave(
    hub: HubClient, server: HubServer, world: World, token: str
) -> None:
    put_all(hub, world.setup)
    runs = [hub.put_object(world.request(number)).id for number in range(12)]
    got: list[str] = [claim(hub, token).run]
    assert got == runs[:1]

    def enclave(name: str) -> None:
        with client_of(server) as client:
            while (mine := client.claim(enclave=name, seconds=60)) is not None:
                got.append(mine.run)

    threads = [threading.Thread(target=enclave, args=(f"e{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(got) == sorted(runs)


def test_an_enclave_that_waits_gets_the_run_when_it_comes(
    hub: HubClient, server: HubServer, world: World, token: str
) -> None:
    put_all(hub, world.setup)
    got: list[tuple[Claim | None, float]] = []

    def wait() -> None:
        with client_of(server) as client:
            started = time.monotonic()
            got.append((client.claim(enclave="e", seconds=60, wait=20), time.monotonic() - started))

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    runs = {hub.put_object(world.request(number)).id for number in (1, 2)}
    for thread in threads:
        thread.join(timeout=60)
    assert {mine.run for mine, _ in got if mine is not None} == runs
    assert all(took < 19 for _, took in got)


def test_an_enclave_that_hung_up_gets_no_run(
    hub: HubClient, server: HubServer, world: World, token: str, run: ObjectId
) -> None:
    hub.finish(claim(hub, token))
    body = ClaimRequest(enclave="e", wait=20, seconds=60).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sock:
        head = f"POST /v1/claims HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(signed(server, head.encode() + body))
        time.sleep(0.3)
        assert server.hub.notifier.waiting == 1
    time.sleep(0.3)
    assert server.hub.notifier.waiting == 0
    later = hub.put_object(world.request(99)).id
    assert claim(hub, token).run == later


def test_runs_are_listed_once_each_by_their_latest_change(hub: HubClient, world: World, token: str) -> None:
    put_all(hub, world.setup)
    runs = [hub.put_object(world.request(number)).id for number in range(3)]
    first = hub.runs()
    assert [item.run for item in first.items] == runs
    mine = claim(hub, token)
    hub.finish(mine)
    changed = hub.runs(after=first.next)
    assert [(item.run, item.state) for item in changed.items] == [(mine.run, "done")]
    assert [item.run for item in hub.runs().items] == [*runs[1:], runs[0]]
    assert [item.run for item in hub.runs(contract=world.contract.payload_id, limit=2).items] == runs[1:]
    assert hub.runs(contract=ZERO).items == ()
    with pytest.raises(Refused):
        hub.run(ObjectId(ZERO))
