"""The hub is trusted for availability: here it is attacked as such, and as the one place where runs are told apart."""

from __future__ import annotations

from kakoi.hub.serve import HubServer
from kakoi.net.client import HubClient
from support import fencing
from unit.hub.conftest import Clock, clock, hub, server, token, world  # noqa: F401 - fixtures
from unit.hub.hubkit import World, put_all

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
    with HubClient(server.url) as other:
        fencing.check_race(hub, other, world, token, clock.forward, rounds=8)
