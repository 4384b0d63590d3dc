"""Who goes first when there is not room for all: tickets, reserves, connections, lateness."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError, Unavailable
from kakoi.hub.budgets import Later
from kakoi.hub.crowd import Crowd
from kakoi.hub.gauge import Gauge
from kakoi.hub.http import Budget
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.hub.tickets import Tickets
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from support.hub_client import client_of
from unit.hub.hubkit import World, put_all


class Now:
    value = 1000

    def __call__(self) -> int:
        return self.value


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def test_a_ticket_says_whose_it_is_for_a_while_and_where_it_was_given() -> None:
    now = Now()
    tickets = Tickets(b"t" * 32, now)
    ticket = tickets.give("a" * 64, "192.0.2.0/24")
    assert tickets.holder(ticket, "192.0.2.0/24") == "a" * 64
    assert tickets.holder(ticket, "198.51.100.0/24") == ""
    assert Tickets(b"u" * 32, now).holder(ticket, "192.0.2.0/24") == ""
    assert Tickets(b"t" * 32, now).holder(ticket, "192.0.2.0/24") == "a" * 64, "of another hub with the same token"
    assert tickets.renewed(ticket, "a" * 64, "192.0.2.0/24") == ""
    now.value += 500
    later = tickets.renewed(ticket, "a" * 64, "192.0.2.0/24")
    now.value += 500
    assert tickets.holder(ticket, "192.0.2.0/24") == ""
    assert tickets.holder(later, "192.0.2.0/24") == "a" * 64
    now.value -= 10_000
    assert tickets.holder(later, "192.0.2.0/24") == "", "a clock set back makes none that last longer"


@given(st.text(max_size=300), st.integers(min_value=0, max_value=120))
def test_no_text_is_a_ticket_but_those_that_were_given(text: str, place: int) -> None:
    tickets = Tickets(b"t" * 32, Now())
    assert tickets.holder(text, "local") == ""
    good = tickets.give("enclave", "local")
    at = place % len(good)
    twin = good[:at] + chr(ord(good[at]) ^ 1) + good[at + 1 :]
    assert tickets.holder(twin, "local") == ""


def test_a_reserve_is_for_those_who_take_part() -> None:
    budget = Budget(8, "places", reserve=0.25)
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(budget.take(vital=False))
        with pytest.raises(Unavailable):
            stack.enter_context(budget.take(vital=False))
        for _ in range(2):
            stack.enter_context(budget.take(vital=True))
        with pytest.raises(Unavailable):
            stack.enter_context(budget.take(vital=True))
    with budget.take(6, vital=False):
        pass


def test_strangers_are_sent_away_only_if_the_hub_is_late_because_of_many() -> None:
    gauge = Gauge(Limits(late_seconds=0.1, late_requests=50), lambda: 0.5)
    gauge._late = 5
    for _ in range(10):
        gauge.stranger()  # late, but hardly anybody came: the machine is busy with something else
    gauge._rate = 1000
    with pytest.raises(Later) as caught:
        gauge.stranger()
    assert (caught.value.code, caught.value.after) == ("hub.busy", 2.5)
    gauge._late = 0.05
    gauge.stranger()


def test_lateness_is_noticed_and_forgotten() -> None:
    gauge = Gauge(Limits(), lambda: 0)

    async def busy() -> tuple[float, float]:
        task = asyncio.create_task(gauge.watch())
        await asyncio.sleep(0)
        time.sleep(0.4)
        await asyncio.sleep(0.01)
        late = gauge._late
        deadline = time.monotonic() + 30
        while gauge._late > 0.1 and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        task.cancel()
        return late, gauge._late

    late, after = asyncio.run(busy())
    assert late > 0.3
    assert after <= 0.1


def test_connections_of_one_network_are_bounded_and_fewer_after_a_flood() -> None:
    crowd = Crowd(Limits(prefix_connections=32, prefix_connections_new=1000, connections=40), lambda: 7.0)
    assert all(crowd.enter("a") for _ in range(32))
    assert not crowd.enter("a")
    assert crowd.enter("b")
    assert crowd.pressed
    for _ in range(33):
        crowd.leave("a")
    assert (crowd.total, crowd.pressed) == (1, False)
    crowd.punish("a")
    assert [crowd.enter("a") for _ in range(3)] == [True, True, False]
    assert crowd.enter("b"), "others are not punished"


def test_connections_that_come_too_fast_are_cut() -> None:
    crowd = Crowd(Limits(prefix_connections_new=1), lambda: 7.0)
    outcomes = []
    for _ in range(12):
        outcomes.append(crowd.enter("a"))
        crowd.leave("a")
    assert outcomes == [True] * 10 + [False] * 2


def test_a_network_with_too_many_connections_keeps_those_it_has(tmp_path: Path) -> None:
    limits = Limits(prefix_connections=4, free_bytes=0)
    with running(Settings(directory=tmp_path / "hub", port=0, limits=limits)) as one, client_of(one) as hub:
        hub.health()
        host, port = one.url.removeprefix("http://").split(":")
        with ExitStack() as stack:
            socks = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(6)]
            deadline = time.monotonic() + 30
            while one.hub.crowd.total != 4 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert one.hub.crowd.total == 4
            hub.health()  # on the connection that it had
            assert len(socks) == 6
        while one.hub.crowd.total > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert one.hub.crowd.total == 1


def test_whoever_helps_a_run_along_gets_a_ticket_and_is_served_when_strangers_are_not(
    server: HubServer, hub: HubClient, world: World, token: str
) -> None:
    with client_of(server, patience=Patience(attempts=1)) as broker:
        put_all(broker, world.setup)
        run = broker.put_object(world.request()).id
        broker.put_object(world.answer("challenge", run))
        assert broker._caller._ticket == {}, "nobody works on it yet"
        claim = hub.claim(enclave="e", seconds=60)
        assert claim is not None
        assert hub._caller._ticket, "an enclave"
        broker.put_object(world.answer("key-grant", run))
        assert world.owner.id in broker._caller._ticket["Kakoi-Ticket"]
        server.hub.gauge.stranger = overloaded  # type: ignore[method-assign]
        with client_of(server, patience=Patience(attempts=1)) as stranger:
            for call in (stranger.health, stranger.feed, partial(stranger.put_object, world.stranger.card)):
                assert code(call) == "hub.busy"
        hub.put_object(world.session(run)[1], claim=claim.token)
        assert len(broker.feed(refs={"run": run}).items) == 3
        broker.put_object(world.answer("lease", run))
        hub.finish(claim)


def overloaded() -> None:
    raise Later(Unavailable("hub.busy", "expected time for more requests, got none"), 1)


def test_an_analyst_whose_contract_was_worked_for_is_known(
    hub: HubClient, world: World, token: str, server: HubServer
) -> None:
    with client_of(server) as analyst:
        put_all(analyst, world.setup)
        analyst.put_object(world.request(1))
        assert analyst._caller._ticket == {}
        claim = hub.claim(enclave="e", seconds=60)
        assert claim is not None
        analyst.put_object(world.request(2))
        assert world.analyst.id in analyst._caller._ticket["Kakoi-Ticket"]
