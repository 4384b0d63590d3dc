"""Collateral bundles as objects of the hub, for brokers that reach nothing else.

The hub can withhold a bundle or show an old one; it can make none up, and what a bundle holds is checked against the vendors'
pinned roots as if it had been fetched. Whose bundles are read is the owner's choice: nobody's, unless told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from kakoi.attest.report import Collateral, Evidence
from kakoi.broker.collateral import KeptPieces, Source, Tell
from kakoi.broker.collateral_bundle import import_bundle
from kakoi.broker.collateral_pieces import DAY, PINNED, Anchors
from kakoi.contract.model import PartyCard
from kakoi.contract.sign import Signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.net.answers import FeedPage
from kakoi.wire.collateral import Bundle

MAX_AGE: Final = 30 * DAY
"""Bundles that were made longer ago are passed over without a word: their lists have left their windows."""
_AT_ONCE: Final = 20
"""Bundles that are read in one go. The rest follows in the next round."""


class BundleHub(Protocol):
    """What is needed of a hub: ``net.client.HubClient`` is one."""

    def feed(
        self, *, after: int = 0, kinds: Sequence[str] = (), refs: Mapping[str, str] | None = None, limit: int = 100
    ) -> FeedPage:
        """What the hub received after ``after``."""
        ...

    def get_object(self, object_id: ObjectId) -> Envelope:
        """An object by its id."""
        ...


class HubBundles:
    """Keeps the pieces of new bundles of these parties, then answers from another source, which reads what is kept."""

    def __init__(
        self,
        inner: Source,
        kept: KeptPieces,
        hub: BundleHub,
        cards: Sequence[Signed[PartyCard]],
        *,
        tell: Tell,
        anchors: Anchors = PINNED,
    ) -> None:
        self._inner, self._kept, self._hub = inner, kept, hub
        self._cards = {card.id: card for card in cards}
        self._tell, self._anchors = tell, anchors
        self._read: dict[str, int] = {}
        """By party: how far its bundles were read. A new process reads them from the beginning; that changes nothing."""

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        """Endorsements for this evidence, after a look at the hub. Raises what the source raises, and Unavailable of the hub."""
        self.refresh(now)
        return self._inner.collateral(evidence, now)

    def refresh(self, now: int) -> tuple[str, ...]:
        """Take what is new at the hub; the questions that were answered. A bad bundle is told of and passed over.

        Raises Unavailable when the hub does not answer.
        """
        taken: list[str] = []
        for party, card in self._cards.items():
            after = self._read.get(party, 0)
            page = self._hub.feed(after=after, kinds=(Bundle.KIND,), refs={"party": party}, limit=_AT_ONCE)
            for item in page.items:
                taken += self._take(item.id, card, now)
            self._read[party] = page.next
        return tuple(taken)

    def _take(self, identity: ObjectId, card: Signed[PartyCard], now: int) -> tuple[str, ...]:
        try:
            envelope = self._hub.get_object(identity)
            if Bundle.decode(envelope.payload).made_at < now - MAX_AGE:
                return ()
            taken, _ = import_bundle(envelope.encode(), card, self._kept, now=now, anchors=self._anchors)
        except (Malformed, Refused) as error:
            self._tell(error)
            return ()
        return taken
