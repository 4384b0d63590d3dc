"""A party's directory: made whole, opened only by what closed it, and each sealed version keeps its key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.cli.dataset import seal_file
from kakoi.contract.model import DatasetManifest
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.core.ids import PartyId
from kakoi.party.files import write_private
from kakoi.party.home import PartyHome
from kakoi.party.keystore import SecretsFile, Unlock, new_key_file
from kakoi.testing.world import NOW, World
from support.tree import ROOT

EXAMPLE = ROOT / "examples/two-hospitals"


@pytest.fixture
def unlock(tmp_path: Path) -> Unlock:
    new_key_file(tmp_path / "key")
    return Unlock(key_file=tmp_path / "key")


def make(path: Path, unlock: Unlock, name: str = "North Hospital") -> PartyHome:
    return PartyHome.create(path, name=name, unlock=unlock, created=NOW)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def test_made_and_opened_again(tmp_path: Path, unlock: Unlock) -> None:
    made = make(tmp_path / "party", unlock)
    assert made.card.record.name == "North Hospital"
    again = PartyHome.load(tmp_path / "party", unlock)
    assert again.id == made.id
    assert again.keys.signer().verifying_key == made.keys.signer().verifying_key
    assert again.keys.opener().sealing_public == made.keys.opener().sealing_public == made.card.record.sealing
    assert (tmp_path / "party").stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "party").iterdir()}
    assert modes == {"card.dsse": 0o644, "secrets.json": 0o600}


def test_keys_are_never_overwritten(tmp_path: Path, unlock: Unlock) -> None:
    made = make(tmp_path / "party", unlock)
    for missing in ("", "card.dsse", "secrets.json"):
        if missing:
            kept = (tmp_path / "party" / missing).read_bytes()
            (tmp_path / "party" / missing).unlink()
        assert code(lambda: make(tmp_path / "party", unlock, "Other")) == "key.exists"
        if missing:
            (tmp_path / "party" / missing).write_bytes(kept)
            (tmp_path / "party" / missing).chmod(0o600)
    assert PartyHome.load(tmp_path / "party", unlock).id == made.id


@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_leaves_no_half_party(
    failing: int, tmp_path: Path, unlock: Unlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def write(path: Path, data: bytes, *, mode: int = 0o600) -> None:
        calls.append(path.name)
        if len(calls) == failing:
            raise Unavailable("disk.full", "no space left")
        write_private(path, data, mode=mode)

    monkeypatch.setattr("kakoi.party.home.write_private", write)
    assert code(lambda: make(tmp_path / "party", unlock)) == "disk.full"
    assert calls[-1] == ["card.dsse", "secrets.json"][failing - 1], "the keys come last"
    assert not (tmp_path / "party").exists()
    monkeypatch.undo()
    make(tmp_path / "party", unlock)


def test_a_passphrase_and_a_key_file_are_told_apart_before_anything_is_tried(tmp_path: Path, unlock: Unlock) -> None:
    make(tmp_path / "by-file", unlock)
    make(tmp_path / "by-word", Unlock(passphrase="correct horse"))
    assert code(lambda: PartyHome.load(tmp_path / "by-file", Unlock(passphrase="x"))) == "key.unlock"
    assert code(lambda: PartyHome.load(tmp_path / "by-word", unlock)) == "key.unlock"
    assert code(lambda: PartyHome.load(tmp_path / "by-word", Unlock(passphrase=""))) == "key.passphrase-empty"
    for bad in (Unlock(), Unlock(passphrase="x", key_file=tmp_path / "key")):
        assert code(lambda bad=bad: make(tmp_path / "neither", bad)) == "key.unlock"  # type: ignore[misc]
    assert not (tmp_path / "neither").exists()


def test_card_and_keys_of_two_parties_do_not_go_together(tmp_path: Path, unlock: Unlock) -> None:
    make(tmp_path / "one", unlock)
    make(tmp_path / "two", unlock)
    (tmp_path / "one/card.dsse").write_bytes((tmp_path / "two/card.dsse").read_bytes())
    assert code(lambda: PartyHome.load(tmp_path / "one", unlock)) == "party.mismatch"


def test_damaged_files_are_refused_by_name(tmp_path: Path, unlock: Unlock) -> None:
    make(tmp_path / "party", unlock)
    for name in ("card.dsse", "secrets.json"):
        path = tmp_path / "party" / name
        kept = path.read_bytes()
        for bad in (b"", kept[:-1], kept + b" ", b"{}"):
            path.write_bytes(bad)
            with pytest.raises((Malformed, Refused)):
                PartyHome.load(tmp_path / "party", unlock)
        path.write_bytes(kept)
    assert code(lambda: PartyHome.load(tmp_path / "nobody", unlock)) == "party.missing"


def test_scrypt_is_not_made_cheap_or_endless_by_the_file(tmp_path: Path) -> None:
    word = Unlock(passphrase="correct horse")
    make(tmp_path / "party", word)
    path = tmp_path / "party/secrets.json"
    record = SecretsFile.decode(path.read_bytes())
    assert (record.protection, record.scrypt_n) == ("passphrase", 2**17)
    for n in (0, 2**10, 2**16):
        path.write_bytes(replace(record, scrypt_n=n).encode())
        assert code(lambda: PartyHome.load(tmp_path / "party", word)) == "key.weak-derivation"
    with pytest.raises(Malformed):
        replace(record, scrypt_n=2**21)


def sealed_by(home: PartyHome) -> DatasetManifest:
    world = World()
    record = DatasetManifest.decode(world.manifest(world.owners[0]).payload)
    return replace(record, owner=PartyId(home.card.id))


def test_data_keys_open_only_as_what_they_were_wrapped_for(tmp_path: Path, unlock: Unlock) -> None:
    home = make(tmp_path / "party", unlock)
    one = sealed_by(home)
    two = replace(one, version=2)
    home.store_dataset(one, bytes(32))
    home.store_dataset(two, bytes([1]) * 32)
    assert home.data_key(one) == bytes(32)
    assert home.data_key(two) == bytes([1]) * 32
    paths = [home.dataset_directory(item.dataset, item.version) / "key.wrapped" for item in (one, two)]
    paths[1].write_bytes(paths[0].read_bytes())
    assert code(lambda: home.data_key(two)) == "crypto.cannot-open", "an old key does not become the new version's"


def test_manifests_that_this_party_did_not_sign_are_not_its_own(tmp_path: Path, unlock: Unlock) -> None:
    home = make(tmp_path / "party", unlock)
    home.store_dataset(sealed_by(home), bytes(32))
    (path,) = (tmp_path / "party").glob("datasets/*/manifest.dsse")
    world = World()
    path.write_bytes(world.manifest(world.owners[0]).encode())
    assert code(home.datasets) == "signature.signer"


def test_every_sealed_version_keeps_its_key(tmp_path: Path, unlock: Unlock) -> None:
    """Replacing one and the same version twice gives two new versions: the first new one's key is not lost."""
    home = make(tmp_path / "party", unlock)

    def sealed(replaces: str = "") -> Envelope:
        return seal_file(home, EXAMPLE / "north.csv", EXAMPLE / "visits.toml", quiet=True, replaces=replaces)

    first = sealed()
    made = [first, sealed(first.payload_id), sealed(first.payload_id), sealed()]
    records = [DatasetManifest.decode(envelope.payload) for envelope in made]
    assert [record.version for record in records] == [1, 2, 3, 1]
    assert records[0].dataset == records[1].dataset == records[2].dataset != records[3].dataset
    assert set(home.datasets()) == {envelope.payload_id for envelope in made}
    assert len({home.data_key(record) for record in records}) == 4
    with pytest.raises(Misuse) as caught:
        sealed("0" * 64)
    assert caught.value.code == "dataset.unknown"
