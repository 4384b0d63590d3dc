"""Several hubs on one PostgreSQL: one order, one log, one holder per run, whichever of them dies."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from kakoi.core.dsse import Envelope
from kakoi.core.errors import Fatal, KakoiError, Unavailable
from kakoi.hub.audit import Audit, audit
from kakoi.hub.log import SecretLogKey
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Settings
from kakoi.net import log as reading
from kakoi.net.caller import Patience
from support import fencing
from support.hub_client import client_at, client_of, known
from support.postgresql import Cluster, cluster
from unit.hub.conftest import Clock
from unit.hub.hubkit import HubProcess, Party, World, put_all

pytestmark = [pytest.mark.xdist_group("postgresql")]


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("postgresql")) as made:
        yield made


@pytest.fixture
def url(postgresql: Cluster) -> str:
    return postgresql.database()


def check(url: str) -> Audit:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return audit(connection)
    finally:
        engine.dispose()


def second(first: Path, tmp_path: Path) -> Path:
    """A directory for a second hub on the same database: the same log key."""
    directory = tmp_path / "second"
    directory.mkdir()
    for name in ("log-key.json", "operator.token"):
        shutil.copy(first / name, directory / name)
    return directory


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair(url: str, tmp_path: Path, clock: Clock) -> Iterator[tuple[HubServer, HubServer]]:
    first = tmp_path / "first"
    with running(Settings(directory=first, port=0, database_url=url), now=clock) as one:
        other = second(first, tmp_path)
        with running(Settings(directory=other, port=0, database_url=url), now=clock) as two:
            for server in (one, two):
                known(server.url, server.hub.settings.directory)
            yield one, two
    check(url)


def test_a_world_on_postgresql(pair: tuple[HubServer, HubServer], tmp_path: Path) -> None:
    world = World()
    with client_of(pair[0]) as one, client_of(pair[1]) as two:
        put_all(one, world.setup)
        put_all(two, world.setup)
        assert one.feed() == two.feed()
        run = two.put_object(world.request()).id
        claim = one.claim(enclave="e", seconds=60)
        assert claim is not None
        assert claim.run == run
        key, session = world.session(run)
        two.put_object(session, claim=claim.token)
        two.renew(claim)
        one.put_object(world.passport(key, run), claim=claim.token)
        two.finish(claim)
        assert one.run(run).state == "done"
        found = one.feed(refs={"run": run, "contract": world.contract.payload_id}).items
        assert {item.kind for item in found} == {"kakoi/session/v1", "kakoi/passport/v1"}
        assert one.get_object(world.contract.payload_id) == world.contract


def test_a_waiter_at_one_hub_hears_of_an_object_at_the_other(pair: tuple[HubServer, HubServer]) -> None:
    world, got = World(), []

    def wait() -> None:
        with client_of(pair[0]) as hub:
            started = time.monotonic()
            got.append((hub.feed(kinds=["kakoi/contract/v1"], wait=20), time.monotonic() - started))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    with client_of(pair[1]) as hub:
        put_all(hub, world.setup)
    thread.join(timeout=30)
    page, took = got[0]
    assert [item.id for item in page.items] == [world.contract.payload_id]
    assert took < 19


def test_writers_and_followers_on_two_hubs_lose_nothing(pair: tuple[HubServer, HubServer], tmp_path: Path) -> None:
    """The places of the feed become visible in their order, though two hubs give them out."""
    parties, each = [Party(f"PG writer {n}") for n in range(4)], 20
    total = len(parties) * (each + 1)
    key = SecretLogKey.decode((tmp_path / "first" / "log-key.json").read_bytes()).public
    seen: list[list[str]] = []
    problems: list[Exception] = []

    def follow(hub_url: str) -> None:
        with client_at(hub_url) as hub:
            mine: list[str] = []
            after, checkpoint = 0, None
            while len(mine) < total:
                page = hub.feed(after=after, wait=5, limit=7)
                mine += [item.id for item in page.items]
                after = page.next
                try:
                    checkpoint = reading.advance(hub, key, checkpoint)
                except KakoiError as error:
                    problems.append(error)
                    return
            seen.append(mine)

    def write(party: Party, hub_url: str) -> None:
        with client_at(hub_url) as hub:
            hub.put_object(party.card)
            for number in range(each):
                hub.put_object(party.sign("analysis", author=party.id, number=number))

    threads = [threading.Thread(target=follow, args=(server.url,)) for server in pair]
    threads += [threading.Thread(target=write, args=(p, pair[n % 2].url)) for n, p in enumerate(parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=90)
    assert problems == []
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == total


def test_each_run_goes_to_one_enclave_though_two_hubs_give_them_out(
    pair: tuple[HubServer, HubServer], tmp_path: Path
) -> None:
    world, got = World(), []
    with client_of(pair[0]) as hub:
        put_all(hub, world.setup)
        runs = {hub.put_object(world.request(number)).id for number in range(16)}

    def enclave(name: str, hub_url: str) -> None:
        with client_at(hub_url) as hub:
            while (mine := hub.claim(enclave=name, seconds=60)) is not None:
                got.append(mine.run)

    threads = [threading.Thread(target=enclave, args=(f"e{n}", pair[n % 2].url)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(got) == len(runs)
    assert set(got) == runs


def test_one_of_two_enclaves_at_two_hubs_publishes(
    pair: tuple[HubServer, HubServer], tmp_path: Path, clock: Clock
) -> None:
    """The claim is compared where the object is stored, whichever hub each of them talks to."""
    world = World()
    token = (tmp_path / "first" / "operator.token").read_text().strip()
    with client_of(pair[0]) as one, client_of(pair[1]) as two:
        put_all(one, world.setup)
        fencing.check_sleeper(one, two, world, token, clock.forward)
        fencing.check_race(one, two, world, token, clock.forward, rounds=8)


def test_one_of_two_hubs_is_killed_and_the_other_goes_on(url: str, tmp_path: Path) -> None:
    first = tmp_path / "first"
    with running(Settings(directory=first, port=0, database_url=url)) as survivor:
        doomed = HubProcess(second(first, tmp_path), database_url=url)
        doomed_url = doomed.start()
        parties = [Party(f"PG doomed {n}") for n in range(3)]
        confirmed: list[Envelope] = []

        def write(party: Party) -> None:
            """At the doomed hub until it is gone, then the same objects and more at the other."""
            with client_of(survivor) as other, client_at(doomed_url, patience=Patience(attempts=1)) as hub:
                client = hub
                client.put_object(party.card)
                for number in range(60):
                    envelope = party.sign("analysis", author=party.id, number=number)
                    try:
                        client.put_object(envelope)
                    except Unavailable:
                        client = other
                        client.put_object(envelope)
                    confirmed.append(envelope)

        threads = [threading.Thread(target=write, args=(party,)) for party in parties]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        doomed.kill()
        for thread in threads:
            thread.join(timeout=60)
        assert len(confirmed) == 60 * len(parties)
        with client_of(survivor) as hub:
            for envelope in confirmed:
                assert hub.get_object(envelope.payload_id) == envelope
            assert hub.log_checkpoint().splitlines()[1] == str(len(confirmed)).encode()
    assert check(url).size == len(confirmed)


def test_a_database_that_restarts_is_unavailable_and_then_there_again(
    url: str, tmp_path: Path, postgresql: Cluster
) -> None:
    world = World()
    with running(Settings(directory=tmp_path / "hub", port=0, database_url=url)) as one:
        with client_of(one, patience=Patience(attempts=1)) as hub:
            put_all(hub, world.setup[:3])
            postgresql.stop()
            try:
                for call in (hub.health, lambda: hub.put_object(world.manifest), lambda: hub.feed()):
                    with pytest.raises(Unavailable) as caught:
                        call()
                    assert caught.value.code == "hub.database"
            finally:
                postgresql.start()
        with client_of(one) as hub:
            put_all(hub, world.setup)
            assert len(hub.feed().items) == len(world.setup)
    assert check(url).objects == len(world.setup)


def test_a_hub_with_another_key_does_not_join(url: str, tmp_path: Path) -> None:
    with running(Settings(directory=tmp_path / "a", port=0, database_url=url)):
        with pytest.raises(Fatal) as caught, running(Settings(directory=tmp_path / "b", port=0, database_url=url)):
            pass
        assert caught.value.code == "log.key-differs"


def test_a_database_that_is_not_there(tmp_path: Path, postgresql: Cluster) -> None:
    missing = f"postgresql+psycopg://kakoi@127.0.0.1:{postgresql.port}/nowhere"
    with pytest.raises(Unavailable) as caught, running(Settings(directory=tmp_path, port=0, database_url=missing)):
        pass
    assert caught.value.code == "hub.database"
