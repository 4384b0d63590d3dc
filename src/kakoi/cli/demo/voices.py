"""One connection for everybody in a demo or an exercise: an object goes out under the name of the party that signed it."""

from __future__ import annotations

from kakoi.core.dsse import Envelope
from kakoi.net.answers import FeedItem
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import Identity
from kakoi.party.home import PartyHome
from kakoi.sdk.connect import connect


class Voices(HubClient):
    """A hub's client under a name of its own, which also speaks for parties whose directories it was shown."""

    def __init__(self, hub: str, identity: Identity, *, patience: Patience | None = None) -> None:
        super().__init__(hub, identity=identity, patience=patience)
        self._hub = hub
        self._parties: dict[str, HubClient] = {}

    def speak_for(self, *homes: PartyHome) -> None:
        """From now on, objects that one of ``homes`` signed are sent by it."""
        for home in homes:
            self._parties.setdefault(home.keys.signer().verifying_key.ed25519_keyid, connect(self._hub, home))

    def put_object(self, envelope: Envelope, *, claim: str = "") -> FeedItem:
        """Store an object as its signer, if that is one of the parties; else as an enclave."""
        voice = self._parties.get(envelope.signatures[0].keyid)
        return super().put_object(envelope, claim=claim) if voice is None else voice.put_object(envelope, claim=claim)

    def close(self) -> None:
        """Close all."""
        for client in self._parties.values():
            client.close()
        super().close()
