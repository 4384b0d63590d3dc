"""The hub's log: what goes in, what can be proven, and a hub that stops instead of rewriting history."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from kakoi.contract.model import LogKey
from kakoi.core import dsse
from kakoi.core.encoding import dumps
from kakoi.core.errors import Fatal, KakoiError, Misuse, Refused
from kakoi.core.ids import ObjectId
from kakoi.hub.log import SecretLogKey
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Settings
from kakoi.net import log as reading
from kakoi.net.answers import Inclusion
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.tlog import checkpoint, leaf, merkle, proof
from kakoi.tlog.checkpoint import VerifiedCheckpoint
from support.hub_client import client_of
from unit.hub.hubkit import World, audit_file, put_all


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def key_of(directory: Path) -> LogKey:
    return SecretLogKey.decode((directory / "log-key.json").read_bytes()).public


def test_only_what_others_rely_on_is_logged_and_once(hub: HubClient, world: World, token: str) -> None:
    put_all(hub, world.setup)
    run = hub.put_object(world.request()).id
    claim = hub.claim(enclave="e", seconds=60)
    assert claim is not None
    key, session = world.session(run)
    approval, passport = world.approval(world.owner), world.passport(key, run)
    hub.put_object(session, claim=claim.token)
    put_all(hub, [world.answer("challenge", run), approval])
    hub.put_object(passport, claim=claim.token)
    put_all(hub, [approval, passport])
    result = dsse.sign(dumps({"kind": "kakoi/result/v1", "run": run, "contract": world.contract.payload_id}), key)
    hub.put_object(result, claim=claim.token)
    expected = [
        ("kakoi/dataset-manifest/v1", world.manifest),
        ("kakoi/analysis/v1", world.analysis),
        ("kakoi/contract/v1", world.contract),
        ("kakoi/approval/v1", approval),
        (leaf.PASSPORT_KIND, passport),
    ]
    entries = hub.log_entries(0, 100)
    assert [(entry.kind, entry.id) for entry in entries] == [(kind, item.payload_id) for kind, item in expected]
    assert hub.log_entries(2, 4) == entries[2:4]
    assert hub.log_entries(7, 9) == ()


def test_every_entry_is_proven_at_every_size(hub: HubClient, world: World, tmp_path: Path) -> None:
    key = key_of(tmp_path / "hub")
    put_all(hub, world.cards)
    seen: VerifiedCheckpoint | None = None
    checkpoints: list[VerifiedCheckpoint] = []
    for number in range(9):
        hub.put_object(world.analyst.sign("analysis", author=world.analyst.id, number=number))
        seen = reading.advance(hub, key, seen)
        checkpoints.append(seen)
        assert seen.size == number + 1
    entries = hub.log_entries(0, 100)
    for newest in checkpoints:
        for index, entry in enumerate(entries[: newest.size]):
            digest = leaf.leaf_hash(entry.kind, entry.id)
            found = hub.log_inclusion(digest, newest.size)
            assert found.index == index
            newest.includes(leaf=digest, index=index, proof=found.hashes)
        for older in checkpoints[: newest.size]:
            checkpoint.advance(older, newest, hub.log_consistency(older.size, newest.size))
    last = entries[-1]
    made, newest = reading.prove(hub, key, kind=last.kind, digest=last.id, seen=seen)
    assert proof.verify(proof.decode(made.encode()), key, leaf=leaf.leaf_hash(last.kind, last.id)).size == newest.size


def test_what_is_not_there_is_not_proven(hub: HubClient, world: World, tmp_path: Path) -> None:
    key = key_of(tmp_path / "hub")
    put_all(hub, world.setup)
    assert code(lambda: reading.prove(hub, key, kind="kakoi/contract/v1", digest="0" * 64, seen=None)) == "log.missing"
    contract = leaf.leaf_hash("kakoi/contract/v1", world.contract.payload_id)
    assert hub.log_inclusion(contract, 3).index == 2
    assert code(lambda: hub.log_inclusion(contract, 2)) == "hub.not-found"  # it was not there yet
    for size in (0, 4):
        assert code(partial(hub.log_inclusion, contract, size)) == "log.range"
    assert code(lambda: hub.log_consistency(3, 2)) == "log.range"
    assert code(lambda: hub.log_consistency(1, 4)) == "log.range"
    assert code(lambda: hub.log_entries(5, 5)) == "log.range"


class Liar:
    """A hub that serves another log for some questions."""

    def __init__(self, honest: HubClient, note: bytes, path: tuple[bytes, ...] = ()) -> None:
        self._honest, self._note, self._path = honest, note, path

    def log_checkpoint(self) -> bytes:
        return self._note

    def log_inclusion(self, leaf: bytes, size: int) -> Inclusion:
        return self._honest.log_inclusion(leaf, size)

    def log_consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        return self._path


def test_a_client_refuses_a_log_that_goes_back_forks_or_is_anothers(
    hub: HubClient, world: World, tmp_path: Path
) -> None:
    secret = SecretLogKey.decode((tmp_path / "hub" / "log-key.json").read_bytes())
    key = secret.public
    put_all(hub, world.setup[:5])
    small = hub.log_checkpoint()
    hub.put_object(world.contract)
    seen = reading.advance(hub, key, None)

    def forged(size: int) -> bytes:
        root = merkle.leaf_hash(b"another history")
        return checkpoint.sign(origin=key.origin, size=size, root=root, secret=secret.secret)

    def refused(note: bytes) -> str:
        return code(lambda: reading.advance(Liar(hub, note), key, seen))

    assert refused(small) == "log.rollback"
    assert refused(forged(seen.size)) == "log.fork"
    assert refused(forged(seen.size + 1)) == "log.inconsistent"
    assert refused(checkpoint.sign(origin="other", size=9, root=seen.root, secret=secret.secret)) == "note.signer"
    honest = reading.advance(hub, key, seen)
    assert honest == seen


def test_a_checkpoint_is_signed_once_per_size_and_kept_outside_the_database(
    hub: HubClient, world: World, tmp_path: Path
) -> None:
    kept = tmp_path / "hub" / "checkpoint"
    assert not kept.exists()
    put_all(hub, world.setup)
    assert hub.log_checkpoint() == hub.log_checkpoint() == kept.read_bytes()
    assert (tmp_path / "hub" / "log-key.json").stat().st_mode & 0o777 == 0o600


# -- restarts


@contextmanager
def hub_at(directory: Path) -> Iterator[tuple[HubServer, HubClient]]:
    settings, patience = Settings(directory=directory, port=0), Patience(attempts=1)
    with running(settings) as one, client_of(one, patience=patience) as client:
        yield one, client


@pytest.fixture
def grown(tmp_path: Path, world: World) -> Path:
    """A hub's directory with six objects, three log entries and a signed checkpoint; not running. Beside it, ``old``
    is a copy from before the last object."""
    directory = tmp_path / "hub"
    with hub_at(directory) as (_, client):
        put_all(client, world.setup[:5])
        client.log_checkpoint()
    shutil.copytree(directory, tmp_path / "old")
    with hub_at(directory) as (_, client):
        client.put_object(world.contract)
        client.log_checkpoint()
    return directory


def start_fails(directory: Path) -> KakoiError:
    with pytest.raises(KakoiError) as caught, hub_at(directory):
        pass
    return caught.value


def test_a_restart_keeps_everything(grown: Path, world: World) -> None:
    key = key_of(grown)
    with hub_at(grown) as (_, client):
        assert reading.advance(client, key, None).size == 3
        client.put_object(world.approval(world.owner))
        assert reading.advance(client, key, None).size == 4
    assert audit_file(grown).size == 4


def test_a_database_from_an_older_copy_stops_the_hub(grown: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "old" / "hub.sqlite", grown / "hub.sqlite")
    error = start_fails(grown)
    assert isinstance(error, Fatal)
    assert error.code == "log.rolled-back"


def test_a_database_with_another_history_stops_the_hub(grown: Path, tmp_path: Path, world: World) -> None:
    """Rolled back and then grown past the last checkpoint again, the size is no evidence any more; the root is."""
    other = tmp_path / "old"
    (other / "checkpoint").unlink()
    with hub_at(other) as (_, client):
        put_all(client, [world.analyst.sign("analysis", author=world.analyst.id, number=n) for n in range(5)])
    shutil.copy(other / "hub.sqlite", grown / "hub.sqlite")
    assert start_fails(grown).code == "log.rewritten"


def test_an_empty_database_beside_a_signed_checkpoint_stops_the_hub(grown: Path) -> None:
    (grown / "hub.sqlite").unlink()
    assert start_fails(grown).code == "log.rolled-back"


def test_a_lost_or_foreign_key_stops_the_hub(grown: Path, tmp_path: Path) -> None:
    (grown / "log-key.json").rename(tmp_path / "kept")
    assert start_fails(grown).code == "log.key-missing"
    foreign = tmp_path / "foreign"
    with hub_at(foreign):
        pass
    shutil.copy(foreign / "log-key.json", grown / "log-key.json")
    assert start_fails(grown).code == "log.checkpoint-file"
    (grown / "checkpoint").unlink()
    assert start_fails(grown).code == "log.key-differs"


def test_a_damaged_checkpoint_file_stops_the_hub(grown: Path) -> None:
    path = grown / "checkpoint"
    path.write_bytes(path.read_bytes()[:-3])
    assert start_fails(grown).code == "log.checkpoint-file"


def test_a_readable_key_is_not_used(grown: Path) -> None:
    (grown / "log-key.json").chmod(0o644)
    error = start_fails(grown)
    assert isinstance(error, Misuse)
    assert error.code == "hub.file-mode"


def test_a_hub_whose_log_is_cut_while_it_runs_signs_nothing_and_stops(tmp_path: Path, world: World) -> None:
    directory = tmp_path / "hub"

    def cut() -> None:
        with hub_at(directory) as (server, client):
            put_all(client, world.setup)
            client.log_checkpoint()
            with closing(sqlite3.connect(directory / "hub.sqlite")) as database:
                database.execute("update head set size = 1")
                database.commit()
            assert code(client.log_checkpoint) == "log.rolled-back"
            assert server.ended.wait(20)

    with pytest.raises(Fatal):
        cut()
    assert (directory / "checkpoint").read_bytes().splitlines()[1] == b"3"


def test_the_origin_can_be_chosen_once(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path / "hub", port=0, log_origin="log.example/kakoi")
    with running(settings) as one, client_of(one) as client:
        assert client.log_checkpoint().startswith(b"log.example/kakoi\n0\n")
    changed = Settings(directory=tmp_path / "hub", port=0, log_origin="log.example/other")
    with pytest.raises(Misuse) as caught, running(changed):
        pass
    assert caught.value.code == "log.origin-changed"
    with pytest.raises(KakoiError), running(Settings(directory=tmp_path / "b", port=0, log_origin="two words")):
        pass


# -- the audit can fail


@pytest.mark.parametrize(
    "damage",
    [
        "delete from objects where seq = 4",
        "update objects set kind = 'kakoi/analysis/v1' where seq = 4",
        "update objects set id = '" + "0" * 64 + "' where seq = 4",
        "update objects set envelope = x'00' where seq = 4",
        "delete from refs where seq = 6 and member = 'drafter'",
        "update refs set seq = 99 where seq = 6 and member = 'drafter'",
        "delete from leaves where position = 2",
        "update leaves set position = 7 where position = 2",
        "update leaves set hash = x'00' where position = 1",
        "delete from nodes where id = 1",
        "update nodes set hash = x'00' where id = 1",
        "insert into nodes values (999, x'00')",
        "update head set size = 2",
        "update head set seq = 5",
        "insert into runs values ('a','b',1,1,'queued',0,'',x'',0,0)",
    ],
)
def test_the_audit_finds_each_kind_of_damage(grown: Path, damage: str) -> None:
    assert audit_file(grown).objects == 6
    with closing(sqlite3.connect(grown / "hub.sqlite")) as database:
        assert database.execute(damage).rowcount == 1
        database.commit()
    with pytest.raises(Fatal):
        audit_file(grown)


def test_a_missing_object_is_not_found_by_an_id_that_is_none(hub: HubClient) -> None:
    with pytest.raises(Refused):
        hub.get_object(ObjectId("0" * 64))
