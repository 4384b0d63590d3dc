"""A contract with everything it names, signatures checked, whether or not anybody has approved it yet."""

from __future__ import annotations

from dataclasses import dataclass

from kakoi.contract.model import Analysis, Contract, DatasetManifest, PartyCard
from kakoi.contract.sign import Signed, open_card, open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId, parse_id
from kakoi.net.bundle import ObjectSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the parties would agree to. Says nothing about who has."""

    id: ObjectId
    contract: Contract
    cards: dict[str, Signed[PartyCard]]
    manifests: dict[str, Signed[DatasetManifest]]
    analyses: dict[str, Signed[Analysis]]

    def name(self, party: str) -> str:
        """A party's name, as its card says."""
        return self.cards[party].record.name


def fetch_terms(source: ObjectSource, contract: ObjectId) -> Terms:
    """The contract, its parties' cards, its data sets and analyses. Raises Malformed, Refused, and what the source raises."""
    return terms_of(source, source.get_object(contract))


def terms_of(source: ObjectSource, envelope: Envelope) -> Terms:
    """The same of a contract that the source need not have yet."""
    draft = Contract.decode(envelope.payload)
    cards = _cards(source, draft)
    record = open_signed(Contract, envelope, cards[draft.drafter]).record
    return _gathered(source, record, cards)


def draft_terms(source: ObjectSource, draft: Contract) -> Terms:
    """The same of a contract that nobody has signed, not even its drafter: for a rehearsal, and for nothing else."""
    return _gathered(source, draft, _cards(source, draft))


def _cards(source: ObjectSource, draft: Contract) -> dict[str, Signed[PartyCard]]:
    return {party.party: open_card(source.get_object(parse_id(party.party))) for party in draft.parties}


def _gathered(source: ObjectSource, record: Contract, cards: dict[str, Signed[PartyCard]]) -> Terms:
    manifests: dict[str, Signed[DatasetManifest]] = {
        entry.manifest: open_signed(DatasetManifest, source.get_object(entry.manifest), cards[entry.owner])
        for entry in record.data
    }
    analyses: dict[str, Signed[Analysis]] = {}
    for item in record.analyses:
        found = source.get_object(item.analysis)
        author = Analysis.decode(found.payload).author
        if author not in cards:
            raise Refused("contract.unknown-party", "expected a party of the contract, got somebody else")
        analyses[item.analysis] = open_signed(Analysis, found, cards[author])
    return Terms(id=record.id, contract=record, cards=cards, manifests=manifests, analyses=analyses)
