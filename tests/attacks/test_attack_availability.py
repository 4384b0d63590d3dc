"""The hub is trusted for availability: here it is attacked as such, and as the one place where runs are told apart."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kakoi.core.errors import Refused, Unavailable
from kakoi.hub import upkeep
from kakoi.hub.budgets import Buckets
from kakoi.hub.serve import HubServer
from kakoi.hub.settings import Limits, Settings
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from support import fencing
from support.hub_client import client_of
from unit.hub.conftest import Clock, clock, hub, server, token, world  # noqa: F401 - fixtures
from unit.hub.hubkit import Party, World, put_all
from unit.hub.test_hub_uploads import LOOPBACK, PART, code, hub_with, keeps, put

# ruff: noqa: F811 - fixtures are named as arguments


def test_an_enclave_that_slept_through_its_lease_publishes_nothing(
    hub: HubClient, token: str, world: World, clock: Clock
) -> None:
    put_all(hub, world.setup)
    fencing.check_sleeper(hub, hub, world, token, clock.forward)


def test_one_of_two_enclaves_publishes_whoever_is_faster(
    hub: HubClient, server: HubServer, token: str, world: World, clock: Clock
) -> None:
    put_all(hub, world.setup)
    with client_of(server) as other:
        fencing.check_race(hub, other, world, token, clock.forward, rounds=8)


def test_a_quota_is_kept_whoever_sends_at_once_and_comes_back_with_what_is_collected(tmp_path: Path) -> None:
    limits = Limits(part_bytes=PART, free_bytes=0, stranger_bytes=3 * PART)
    settings = Settings(directory=tmp_path / "hub", port=0, limits=limits)
    with hub_with(tmp_path / "hub", limits) as (server, hub):
        first = put(hub, os.urandom(PART))
        with pytest.raises(Refused) as caught:
            put(hub, os.urandom(2 * PART + 1))
        assert caught.value.code == "hub.quota"
        outcomes: list[str] = []

        def send() -> None:
            with client_of(server) as other:
                try:
                    put(other, os.urandom(PART))
                    outcomes.append("stored")
                except Refused as error:
                    outcomes.append(error.code)

        threads = [threading.Thread(target=send) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert sorted(outcomes) == ["hub.quota"] * 3 + ["stored"] * 2
        assert keeps(tmp_path / "hub") == {LOOPBACK: (3, 3 * PART)}
        assert code(lambda: put(hub, b"x")) == "hub.quota"
        put(hub, b"".join(hub.stream_blob(first, most=PART)))  # what is there costs nothing
        upkeep.collect(settings, now=2**40, delete=True)
        assert keeps(tmp_path / "hub") == {}
        put(hub, os.urandom(3 * PART))


def test_a_flood_of_cards_ends_and_parties_that_are_there_go_on(tmp_path: Path) -> None:
    limits = Limits(free_bytes=0, prefix_cards=0.001)
    world = World()
    with hub_with(tmp_path / "hub", limits) as (server, hub):
        put_all(hub, world.setup)
        server.hub.budgets._cards = Buckets(0.001, 2, server.hub.budgets._cards._clock)
        patient = Patience(attempts=1)
        with client_of(server, patience=patient) as eager:
            codes = [code_or(partial(eager.put_object, Party(f"Sybil {n}").card)) for n in range(4)]
        assert codes == ["", "", "hub.rate", "hub.rate"]
        put_all(hub, world.cards)  # they say hello before everything
        hub.put_object(world.approval(world.owner))


def code_or(call: Callable[[], object]) -> str:
    try:
        call()
    except Unavailable as error:
        return error.code
    return ""


def test_wrong_signatures_cost_their_network_and_nobody_else(tmp_path: Path) -> None:
    world = World()
    with hub_with(tmp_path / "hub") as (server, hub):
        put_all(hub, world.setup)
        server.hub.budgets._bad = Buckets(0.001, 3, server.hub.budgets._bad._clock)
        strangers = [Party(f"Nobody {n}") for n in range(4)]
        with client_of(server, patience=Patience(attempts=1)) as eager:
            bad = [item.sign("analysis", author=item.id) for item in strangers]
            codes = [code(partial(eager.put_object, item)) for item in bad]
            assert codes == ["hub.signer-unknown"] * 3 + ["hub.rate"]
            server.hub.budgets._bad = Buckets(0.001, 3, server.hub.budgets._bad._clock)
            eager.put_object(world.approval(world.owner))
