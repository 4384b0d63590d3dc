"""T186: a run that ends after too much silence must not become a way for outsiders to end runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.core import dsse
from kakoi.core.crypto import SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError
from kakoi.core.ids import ObjectId
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.net.client import HubClient
from kakoi.net.identity import enclave_identity, party_identity
from kakoi.wire.messages import RunFailure
from support.hub_client import client_of
from unit.hub.hubkit import World, put_all


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    with running(Settings(directory=tmp_path / "hub", port=0, limits=Limits(free_bytes=0))) as one:
        yield one


def failure(world: World, key: SigningKey, run: ObjectId, session: Envelope, attempt: int) -> Envelope:
    """What the enclave says of a service that stayed silent, in a session of whoever wants to say it."""
    record = RunFailure(
        run=run,
        attempt=attempt,
        contract=world.contract.payload_id,
        session=session.payload_id,
        code="session.token-silent",
        message="expected an attestation service to answer with a token, got no answer",
        hint="",
    )
    return dsse.sign(record.encode(), key)


def codes(client: HubClient, *envelopes: Envelope, claim: str = "") -> set[str]:
    found = set()
    for envelope in envelopes:
        with pytest.raises(KakoiError) as caught:
            client.put_object(envelope, claim=claim)
        found.add(caught.value.code)
    return found


def test_nobody_without_the_runs_claim_tells_that_it_failed(server: HubServer) -> None:
    """Strangers, parties of the contract, an enclave that holds another run, and one that held this run before."""
    world = World()
    with client_of(server) as hub:
        put_all(hub, world.setup)
        run = hub.put_object(world.request()).id
        key, session = world.session(run)
        said = failure(world, key, run, session, 1)
        for party in (world.stranger, world.owner, world.analyst):
            with HubClient(server.url, identity=party_identity(party.key, party.card)) as outsider:
                codes(outsider, session, said)
        with HubClient(server.url, identity=enclave_identity("e", "x" * 64)) as pretender:
            codes(pretender, session, said)
            with pytest.raises(KakoiError):
                pretender.claim(enclave="e", seconds=60)
        assert (hub.run(run).state, hub.run(run).attempt) == ("queued", 0)
        first = hub.claim(enclave="one", seconds=60)
        assert first is not None
        assert codes(hub, session, claim="0" * 64) == {"hub.claim"}
        other = hub.put_object(world.request(1)).id
        second = hub.claim(enclave="two", seconds=60)
        assert second is not None
        assert second.run == other
        assert codes(hub, session, claim=second.token) == {"hub.claim"}
        hub.put_object(session, claim=first.token)
        assert codes(hub, said, claim=second.token) == {"hub.claim"}
        for party in (world.stranger, world.owner, world.analyst):
            with HubClient(server.url, identity=party_identity(party.key, party.card)) as outsider:
                codes(outsider, said)
                for end in (outsider.fail, outsider.finish, outsider.renew):
                    with pytest.raises(KakoiError):
                        end(second)
        assert not hub.feed(kinds=(RunFailure.KIND,)).items
        assert (hub.run(run).state, hub.run(run).attempt) == ("claimed", 1)
        hub.put_object(said, claim=first.token)
        assert [item.kind for item in hub.feed(kinds=(RunFailure.KIND,)).items] == [RunFailure.KIND]


def test_tries_are_used_up_by_enclaves_only(server: HubServer) -> None:
    """Whoever cannot claim cannot bring a run nearer to its last attempt, however often it asks."""
    world = World()
    with client_of(server) as hub:
        put_all(hub, world.setup)
        run = hub.put_object(world.request()).id
        for party in (world.owner, world.analyst, world.stranger):
            with HubClient(server.url, identity=party_identity(party.key, party.card)) as outsider:
                for _ in range(6):
                    with pytest.raises(KakoiError):
                        outsider.claim(enclave="e", seconds=1)
        assert (hub.run(run).state, hub.run(run).attempt) == ("queued", 0)
