"""A copy that was restored and checked leaves a proof that posture reads; a copy that is damaged, or somebody else's, leaves none."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kakoi.cli.posture import gather
from kakoi.core.dsse import Envelope
from kakoi.guard.restored import FILE, RestoreProof
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.testing.world import NOW
from support.broker_setting import Setting
from support.command_line import runner
from support.hub_client import client_of
from unit.hub.hubkit import World


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub that holds something, and has stopped."""
    directory = tmp_path / "hub"
    with running(Settings(directory=directory, port=0)) as server, client_of(server) as client:
        for one in (World().owner, World().analyst):
            client.put_object(one.card)
    return directory


def test_a_restored_copy_of_a_hub_is_proven(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, copy = runner(capsys), tmp_path / "copy"
    assert gather(hub, None, NOW).restored_at is None
    assert run("hub", "backup", "--directory", hub, copy).code == 0
    done = run("hub", "check-backup", "--directory", hub, copy)
    assert done.code == 0, done.err
    proof = RestoreProof.decode(Envelope.decode((hub / FILE).read_bytes()).payload)
    assert gather(hub, None, NOW).restored_at == proof.restored_at
    assert (proof.of, proof.behind) == ("hub", 0)


def _damage_database(copy: Path) -> None:
    with closing(sqlite3.connect(copy / "hub.sqlite")) as db:
        db.execute("update objects set envelope = zeroblob(100)")
        db.commit()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_damage_database, 6),
        (lambda copy: (copy / "hub.sqlite").unlink(), 2),
        (lambda copy: (copy / "log-key.json").write_bytes(b"{}"), 4),
        (shutil.rmtree, 2),
    ],
)
def test_a_copy_that_cannot_be_restored_is_no_proof(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], Any], code: int
) -> None:
    run, copy = runner(capsys), tmp_path / "copy"
    assert run("hub", "backup", "--directory", hub, copy).code == 0
    spoil(copy)
    assert run("hub", "check-backup", "--directory", hub, copy).code == code
    assert not (hub / FILE).exists()


def test_a_partys_copy_and_a_proof_that_somebody_else_signed(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, key, copy = runner(capsys), tmp_path / "key", tmp_path / "copy"
    agreement = setting.publish()
    setting.hub.put_object(setting.world.request(agreement))
    setting.broker().step(wait=0)
    shutil.copytree(setting.path, copy)
    done = run("party", "check-backup", "--party", setting.path, copy, "--key-file", key)
    assert done.code == 0, done.err
    assert gather(setting.path, None, NOW).restored_at is not None
    other = tmp_path / "other"
    assert run("party", "new", other, "--name", "Other", "--key-file", key).code == 0
    shutil.copy(setting.path / FILE, other / FILE)
    assert gather(other, None, NOW).restored_at is None
    assert run("party", "check-backup", "--party", setting.path, other, "--key-file", key).code == 4
    (copy / "ledger.sqlite").write_bytes(b"no ledger")
    assert run("party", "check-backup", "--party", setting.path, copy, "--key-file", key).code == 6
