"""A party's connection to a hub: every request signed by the key of its card."""

from __future__ import annotations

from kakoi.net.client import HubClient
from kakoi.net.identity import party_identity
from kakoi.party.home import PartyHome


def connect(hub: str, home: PartyHome) -> HubClient:
    """A client of the hub at this address that speaks for ``home``. It introduces the party where the hub does not know it."""
    return HubClient(hub, identity=party_identity(home.keys.request_signer(), home.card.envelope))
