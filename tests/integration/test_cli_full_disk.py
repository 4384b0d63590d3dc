"""A full disk at the command line: one clear error, the exit code of its family, nothing half-written, and the same command works once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from kakoi.core.ids import PartyId
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.testing.world import with_changes
from support.command_line import Run, everything, unchanged
from support.hub_setting import Setting, make_party
from support.tree import ROOT

pytestmark = pytest.mark.usefixtures("impatient")
EXAMPLE: Final = ROOT / "examples/two-hospitals"
SCHEMA: Final = EXAMPLE / "visits.toml"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place: Path, *, leave: int) -> None:
    """Leave so many bytes free, to the page."""
    free = shutil.disk_usage(place).free
    (place / "ballast").write_bytes(bytes(max(0, free - leave)))


def test_sealing_on_a_full_disk(run: Run, full_disk: Path) -> None:
    home, key = make_party(full_disk)
    for leave in (0, 4096, 8192):
        (full_disk / "ballast").unlink(missing_ok=True)
        fill(full_disk, leave=leave)
        before = everything(home)
        ran = run("dataset", "seal", EXAMPLE / "north.csv", "--schema", SCHEMA, "--party", home, "--key-file", key)
        assert (ran.code, ran.error) == (5, "disk.full"), (leave, ran.err)
        assert everything(home) == before, leave
    (full_disk / "ballast").unlink()
    ran = run("dataset", "seal", EXAMPLE / "north.csv", "--schema", SCHEMA, "--party", home, "--key-file", key)
    assert ran.code == 0, "with space again the same command works"


def test_making_a_party_on_a_full_disk(run: Run, full_disk: Path, tmp_path: Path) -> None:
    new_key_file(tmp_path / "key")
    for leave in (0, 4096, 8192):
        (full_disk / "ballast").unlink(missing_ok=True)
        fill(full_disk, leave=leave)
        ran = run("party", "new", full_disk / "party", "--name", "X", "--key-file", tmp_path / "key")
        assert (ran.code, ran.error) == (5, "disk.full"), leave
        assert not (full_disk / "party/card.dsse").exists()
        assert not (full_disk / "party/secrets.json").exists(), "half a party could never be finished"
    (full_disk / "ballast").unlink()
    assert run("party", "new", full_disk / "party", "--name", "X", "--key-file", tmp_path / "key").code == 0


def test_approving_on_a_full_disk(run: Run, full_disk: Path, hub: Setting) -> None:
    """The owner's ledger comes first: what it cannot remember it does not say to anybody."""
    home, key = make_party(full_disk)
    card = PartyHome.load(home, Unlock(key_file=key)).card
    hub.client.put_object(card.envelope)
    world = hub.world
    world.change_contract = lambda contract: with_changes(
        contract, parties=(*contract.parties, replace(contract.parties[-1], party=PartyId(card.id), roles=("auditor",)))
    )
    contract = world.bundle()
    for envelope in (*contract.cards, *contract.manifests, *contract.analyses, contract.contract):
        hub.client.put_object(envelope)
    identity = contract.contract.payload_id
    fill(full_disk, leave=0)
    keys = ("--party", home, "--key-file", key, "--hub", hub.url)
    ran = run("contract", "sign", identity, "--yes", *keys)
    assert (ran.code, ran.error) == (5, "disk.full"), ran.err
    assert hub.client.feed(kinds=("kakoi/approval/v1",)).items == ()
    (full_disk / "ballast").unlink()
    assert run("contract", "sign", identity, "--yes", *keys).code == 0


def test_writing_files_on_a_full_disk(run: Run, full_disk: Path, tmp_path: Path) -> None:
    platform = tmp_path / "platform"
    assert run("platform", "new", platform).code == 0
    fill(full_disk, leave=0)
    with unchanged(full_disk):
        ran = run("platform", "collateral", platform, "--out", full_disk / "collateral.json")
    assert (ran.code, ran.error) == (5, "disk.full"), ran.err
    with unchanged(full_disk):
        ran = run("platform", "new", full_disk / "platform")
    assert (ran.code, ran.error) == (5, "disk.full"), ran.err
    with unchanged(full_disk):
        ran = run("enclave", "build", full_disk / "image")
    assert (ran.code, ran.error) == (5, "disk.full"), ran.err
