"""A party's connection to a hub: every request signed by the key of its card."""

from __future__ import annotations

from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import party_identity
from kakoi.party.home import PartyHome


def connect(hub: str, home: PartyHome, *, patience: Patience | None = None) -> HubClient:
    """A client of the hub at this address that speaks for ``home``. It introduces the party where the hub does not know it."""
    identity = party_identity(home.keys.request_signer(), home.card.envelope)
    return HubClient(hub, identity=identity, patience=patience)
