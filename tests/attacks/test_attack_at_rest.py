"""Attacks on what lies on an owner's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from kakoi.broker.ledger import Ledger
from kakoi.core.crypto import key_commitment
from kakoi.core.errors import Fatal, Misuse, Refused
from kakoi.dataset.open import check_data_key
from kakoi.party.home import PartyHome
from kakoi.party.keystore import SecretsFile, Unlock, new_key_file
from kakoi.testing.world import NOW, World
from support.broker_setting import Setting


def made(path: Path, unlock: Unlock) -> PartyHome:
    return PartyHome.create(path / "party", name="North", unlock=unlock, created=NOW)


def test_stolen_directory(tmp_path: Path) -> None:
    """T17: the whole directory, without the passphrase or key file, gives no key; and no secret lies in it in clear."""
    new_key_file(tmp_path / "key")
    home = made(tmp_path, Unlock(key_file=tmp_path / "key"))
    home.store_dataset(_manifest(home), bytes(range(32)))
    new_key_file(tmp_path / "guess")
    with pytest.raises(Refused) as caught:
        PartyHome.load(tmp_path / "party", Unlock(key_file=tmp_path / "guess"))
    assert caught.value.code == "crypto.cannot-open"
    everything = b"".join(path.read_bytes() for path in (tmp_path / "party").rglob("*") if path.is_file())
    assert bytes(range(32)) not in everything
    assert (tmp_path / "key").read_bytes() not in everything


def _manifest(home: PartyHome):  # type: ignore[no-untyped-def]
    from kakoi.contract.model import DatasetManifest
    from kakoi.core.ids import PartyId

    world = World()
    record = DatasetManifest.decode(world.manifest(world.owners[0]).payload)
    fields = {name: getattr(record, name) for name in record.__slots__}
    return DatasetManifest(**fields | {"owner": PartyId(home.card.id)})


def test_wrong_passphrase_and_damage_are_one_error(tmp_path: Path) -> None:
    """T17: nobody learns whether the passphrase was nearly right."""
    made(tmp_path, Unlock(passphrase="correct horse"))
    secrets = tmp_path / "party" / "secrets.json"
    seen = set()
    for passphrase in ("wrong", "correct horse "):
        with pytest.raises(Refused) as caught:
            PartyHome.load(tmp_path / "party", Unlock(passphrase=passphrase))
        seen.add(str(caught.value))
    record = SecretsFile.decode(secrets.read_bytes())
    fields = {name: getattr(record, name) for name in record.__slots__}
    damaged = bytes([record.ciphertext[0] ^ 1]) + record.ciphertext[1:]
    secrets.write_bytes(SecretsFile(**fields | {"ciphertext": damaged}).encode())
    with pytest.raises(Refused) as caught:
        PartyHome.load(tmp_path / "party", Unlock(passphrase="correct horse"))
    assert {*seen, str(caught.value)} == seen
    assert len(seen) == 1


def test_weakened_derivation_is_refused(tmp_path: Path) -> None:
    """T17: whoever can write the file must not make the next guess cheap."""
    made(tmp_path, Unlock(passphrase="correct horse"))
    secrets = tmp_path / "party" / "secrets.json"
    record = SecretsFile.decode(secrets.read_bytes())
    fields = {name: getattr(record, name) for name in record.__slots__}
    secrets.write_bytes(SecretsFile(**fields | {"scrypt_n": 2**10}).encode())
    with pytest.raises(Refused) as caught:
        PartyHome.load(tmp_path / "party", Unlock(passphrase="correct horse"))
    assert caught.value.code == "key.weak-derivation"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_keys_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    """T17: a key file or secrets file with loose permissions."""
    new_key_file(tmp_path / "key")
    made(tmp_path, Unlock(key_file=tmp_path / "key"))
    for path in (tmp_path / "key", tmp_path / "party" / "secrets.json"):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(Misuse) as caught:
            PartyHome.load(tmp_path / "party", Unlock(key_file=tmp_path / "key"))
        assert caught.value.code == "key.permissions"
        path.chmod(before)


def test_edited_ledger(setting: Setting) -> None:
    """T18: a decision is rewritten in the database."""
    agreement = setting.publish()
    setting.hub.put_object(setting.world.request(agreement))
    setting.broker().step(wait=0)
    ledger = Ledger(setting.path / "ledger.sqlite")
    ledger._db.execute("update decision set body = cast(replace(body, '\"yes\"', '\"no\"') as blob)")
    ledger.close()
    with pytest.raises(Fatal) as caught:
        Ledger(setting.path / "ledger.sqlite")
    assert caught.value.code == "ledger.chain"


def test_foreign_data_key() -> None:
    """T22: a key that opens something, but is not the one the manifest committed to."""
    world = World()
    owner = world.owners[0]
    from kakoi.contract.model import DatasetManifest

    manifest = DatasetManifest.decode(world.manifest(owner).payload)
    known = {"dataset": manifest.dataset, "version": manifest.version}
    check_data_key(world.data_key(owner), commitment=manifest.key_commitment, **known)  # type: ignore[arg-type]
    for key, commitment in (
        (world.data_key(world.owners[1]), manifest.key_commitment),
        (world.data_key(owner), key_commitment(world.data_key(owner), context=b"")),
    ):
        with pytest.raises(Refused) as caught:
            check_data_key(key, commitment=commitment, **known)  # type: ignore[arg-type]
        assert caught.value.code == "crypto.cannot-open"
