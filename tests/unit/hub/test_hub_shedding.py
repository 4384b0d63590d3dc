"""Who goes first when there is not room for all: tickets, reserves, connections, lateness."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError, Unavailable
from kakoi.hub.budgets import Budgets, Identity, Later
from kakoi.hub.crowd import Crowd
from kakoi.hub.door import Door
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


def test_strangers_are_sent_away_only_if_the_hub_is_late_again_and_again_because_of_many() -> None:
    gauge = Gauge(Limits(late_seconds=0.1, late_requests=50), lambda: 0.5)

    def tick(*lates: float, strangers: int) -> bool:
        for late in lates:
            gauge._arrived = strangers
            gauge.tick(late)
        return gauge.overloaded

    assert not tick(*[5.0] * 10, strangers=2), "late, but hardly anybody came: the machine is busy with something else"
    assert not tick(*[0.01] * 30, strangers=100), "many, and time for all of them"
    assert not tick(9.0, strangers=100), "one hiccup, however long"
    assert not tick(0.01, 0.01, 0.01, 9.0, strangers=100), "nor another one a while after it"
    gauge.stranger()
    assert tick(0.2, 0.2, strangers=100)
    with pytest.raises(Later) as caught:
        gauge.stranger()
    assert (caught.value.code, caught.value.after) == ("hub.busy", 2.5)
    assert tick(*[0.2] * 100, strangers=100)
    assert not tick(*[0.01] * 6, strangers=100), "a third of a second later"


def test_lateness_is_noticed_and_forgotten() -> None:
    gauge = Gauge(Limits(), lambda: 0)

    async def busy() -> tuple[float, float]:
        task = asyncio.create_task(gauge.watch())
        await asyncio.sleep(0)
        for _ in range(2):
            time.sleep(0.4)
            await asyncio.sleep(0.06)
        late = gauge._late
        deadline = time.monotonic() + 30
        while gauge._late > 0.1 and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        task.cancel()
        return late, gauge._late

    late, after = asyncio.run(busy())
    assert late >= 1
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


def test_connections_that_come_too_fast_are_not_admitted() -> None:
    crowd = Crowd(Limits(prefix_connections_new=1), lambda: 7.0)
    assert [crowd.admits("a") for _ in range(22)] == [True] * 20 + [False] * 2
    assert crowd.admits("b"), "another network"


def test_a_network_that_is_full_is_not_admitted() -> None:
    crowd = Crowd(Limits(prefix_connections=2, prefix_connections_new=1000), lambda: 7.0)
    assert crowd.admits("a")
    assert crowd.enter("a")
    assert crowd.admits("a")
    assert crowd.enter("a")
    assert not crowd.admits("a")


def test_whoever_is_not_admitted_is_hung_up_on_before_anything_is_made(tmp_path: Path) -> None:
    """The event loop never hears of them, and does other things between them."""
    with closing(Door(socket.AF_INET, socket.SOCK_STREAM)) as door:
        door.bind(("127.0.0.1", 0))
        door.listen(200)
        door.setblocking(False)
        asked: list[str] = []

        def admits(prefix: str) -> bool:
            asked.append(prefix)
            return len(asked) > 70

        door.admits = admits
        with ExitStack() as stack:
            senders = [stack.enter_context(socket.create_connection(door.getsockname())) for _ in range(71)]
            with pytest.raises(BlockingIOError):
                door.accept()
            assert asked == ["127.0.0.0/24"] * 64, "a turn"
            connection, _ = door.accept()
            stack.enter_context(connection)
            with pytest.raises(BlockingIOError):
                door.accept()
            for sender in senders[:70]:
                with pytest.raises(ConnectionResetError):
                    sender.recv(1)
            connection.sendall(b"x")
            assert senders[70].recv(1) == b"x"


def test_connections_that_come_and_go_are_not_all_made(tmp_path: Path) -> None:
    limits = Limits(prefix_connections_new=0.001, free_bytes=0)  # so one, and no other for a quarter of an hour
    with running(Settings(directory=tmp_path / "hub", port=0, limits=limits)) as one, client_of(one) as hub:
        hub.health()
        with client_of(one, patience=Patience(attempts=1)) as second:
            assert code(second.health) == "hub.cut"
        assert one.hub.crowd.total == 1
        hub.health()  # on the connection that it has


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


def test_what_a_client_sends_without_waiting_is_not_all_kept(tmp_path: Path) -> None:
    """Pipelined requests stay in the kernel, and the client's own memory, until it is their turn."""
    one = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"x" * 10_000 + b"\r\n\r\n"
    count, most, answers = 600, 0, b""
    with running(Settings(directory=tmp_path / "hub", port=0, limits=Limits(free_bytes=0, late_seconds=60))) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as sock:
            sender = threading.Thread(target=sock.sendall, args=(one * count,), daemon=True)
            sender.start()
            sock.settimeout(60)
            while answers.count(b"HTTP/1.1 200") < count and (more := sock.recv(4096)):
                answers += more
                for connection in list(server.server_state.connections):
                    most = max(most, len(connection.conn._receive_buffer))  # type: ignore[union-attr]
            sender.join(timeout=60)
    assert answers.count(b"HTTP/1.1 200") == count, "all of them are answered"
    assert 0 < most < 600_000, "of six million bytes"


def test_several_hubs_together_give_what_one_would() -> None:
    limits = Limits(prefix_requests=10, prefix_cards=1)
    whole, part = Budgets(limits, lambda: 7.0), Budgets(limits, lambda: 7.0, hubs=4)
    who = Identity(prefix="192.0.2.0/24")

    def given(spend: Callable[[Identity], None]) -> int:
        for count in range(1000):
            try:
                spend(who)
            except Later:
                return count
        return 1000

    assert (given(whole.request), given(part.request)) == (200, 50)
    assert (given(whole.card), given(part.card)) == (100, 25)
