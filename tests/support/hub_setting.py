"""A hub with a world on it, a party at the command line, and the documented draft over what that hub has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kakoi.contract.model import Analysis, Contract
from kakoi.contract.sign import seal
from kakoi.core.ids import PartyId
from kakoi.core.records import to_value
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.testing.world import World, policy
from support.hub_client import client_of
from support.tree import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A hub with a world on it."""

    url: str
    client: HubClient
    world: World

    def publish(self) -> str:
        """The world's contract with everything, on the hub; its id."""
        bundle = self.world.bundle()
        for envelope in (*bundle.cards, *bundle.manifests, *bundle.analyses, bundle.contract, *bundle.approvals):
            self.client.put_object(envelope)
        return bundle.contract.payload_id


@contextmanager
def set_up(directory: Path) -> Iterator[Setting]:
    """A hub that runs, with nothing on it yet."""
    with running(Settings(directory=directory, port=0)) as server, client_of(server) as client:
        yield Setting(url=server.url, client=client, world=World())


def make_party(directory: Path, name: str = "North Hospital") -> tuple[Path, Path]:
    """A party and its key file."""
    key = directory / f"{name}.key"
    new_key_file(key)
    home = PartyHome.create(directory / name, name=name, unlock=Unlock(key_file=key), created=1)
    return home.path, key


def party_of(party: tuple[Path, Path]) -> tuple[object, ...]:
    home, key = party
    return ("--party", home, "--key-file", key)


def draft_text() -> str:
    """The contract of docs/formats/drafts.md."""
    page = (ROOT / "docs/formats/drafts.md").read_text("utf-8")
    return page.split("```toml contract\n")[1].split("```")[0]


def write_draft(hub: Setting, party: tuple[Path, Path], text: str, path: Path) -> Path:
    """``text`` with real ids in it, in a file: this party drafts and analyses what North has; what it names is at the hub."""
    home, key = party
    owner = hub.world.owners[0]
    drafter = PartyHome.load(home, Unlock(key_file=key))
    card = drafter.card
    hub.client.put_object(card.envelope)
    manifest = hub.world.manifest(owner)
    analysis = seal(
        replace(Analysis.decode(hub.world.analysis().payload), author=PartyId(card.id)), drafter.keys.signer()
    )
    for envelope in (owner.card.envelope, manifest, analysis):
        hub.client.put_object(envelope)
    for mark, identity in (
        ("PARTY", card.id),
        ("OWNER", owner.id),
        ("MANIFEST", manifest.payload_id),
        ("ANALYSIS", analysis.payload_id),
    ):
        text = text.replace(f'"{mark}"', f'"{identity}"')
    path.write_text(text)
    return path


def platforms(directory: Path) -> Path:
    """A policy that a contract can name."""
    path = directory / "platforms.json"
    path.write_text(json.dumps(to_value(policy())))
    return path


def log_key(directory: Path) -> Path:
    """The key of a log that a contract can name."""
    path = directory / "log.json"
    contract = Contract.decode(World().bundle().contract.payload)
    path.write_bytes(contract.log.encode())
    return path
