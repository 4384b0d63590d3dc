"""Previews that parties have stored: found, checked, and put in order for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kakoi.contract.model import PartyCard
from kakoi.contract.sign import Signed, open_signed
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.net.bundle import ObjectSource
from kakoi.sdk.released import Shown, shown
from kakoi.wire.preview import AnalysisPreview, Preview, Rehearsal


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPreview:
    """A preview that a party of the contract signed, and that party's name. A claim: nothing in it is proven."""

    preview: Preview
    by: str

    def of(self, analysis: str) -> AnalysisPreview | None:
        """The preview of one analysis; None if it was not rehearsed."""
        return next((item for item in self.preview.analyses if item.analysis == analysis), None)


def stored_previews(
    source: ObjectSource, contract: ObjectId, cards: Mapping[str, Signed[PartyCard]]
) -> tuple[StoredPreview, ...]:
    """Previews of a contract that its parties signed, newest first; of each party the last. What does not hold is left out."""
    found: dict[str, StoredPreview] = {}
    after = 0
    while True:
        page = source.feed(after=after, kinds=(Preview.KIND,), refs={"contract": contract})
        for item in page.items:
            try:
                envelope = source.get_object(item.id)
                claimed = Preview.decode(envelope.payload)
                if claimed.party in cards and claimed.contract == contract:
                    record = open_signed(Preview, envelope, cards[claimed.party]).record
                    found[record.party] = StoredPreview(preview=record, by=cards[record.party].record.name)
            except (Malformed, Refused):
                continue
        if not page.items:
            return tuple(sorted(found.values(), key=lambda item: -item.preview.made_at))
        after = page.next


def outputs_shown(rehearsal: Rehearsal) -> tuple[Shown, ...]:
    """What left in a rehearsal, as text."""
    return tuple(shown(output) for output in rehearsal.outputs)
