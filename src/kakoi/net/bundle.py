"""Collecting a contract with everything it names. What is fetched is checked by ``contract.approve.agree``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from kakoi.contract.approve import ContractBundle, open_approval
from kakoi.contract.code import CodeReview
from kakoi.contract.model import Approval, Contract
from kakoi.contract.sign import open_card, open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId, PartyId, parse_id
from kakoi.net.answers import FeedPage


class ObjectSource(Protocol):
    """Whoever delivers objects: ``HubClient``, or something like it in a test. Not trusted."""

    def get_object(self, object_id: ObjectId) -> Envelope:
        """The object with this id. Raises Unavailable, or Refused if there is none or it is another."""
        ...

    def feed(
        self,
        *,
        after: int = 0,
        kinds: Sequence[str] = (),
        refs: Mapping[str, str] | None = None,
        wait: int = 0,
        limit: int = 100,
    ) -> FeedPage:
        """Ids of objects by kind and reference, in order of arrival."""
        ...


def fetch_bundle(source: ObjectSource, contract: ObjectId) -> ContractBundle:
    """The contract, its parties' cards, data sets, analyses and approvals, as the source delivers them.

    Anybody can post something that looks like an approval, so what does not hold is left out (a stolen party key
    cannot stand in the way of what the party's people approve); of several approvals by one party the first is taken. Raises what the source raises, or Malformed.
    """
    envelope = source.get_object(contract)
    record = Contract.decode(envelope.payload)
    cards = {party.party: source.get_object(parse_id(party.party)) for party in record.parties}
    approvals: dict[str, Envelope] = {}
    for identity in _approvals(source, contract):
        found = source.get_object(identity)
        try:
            giver = Approval.decode(found.payload).party
            if giver in cards:
                open_approval(found, open_card(cards[giver]), contract)
                approvals.setdefault(giver, found)
        except (Malformed, Refused):
            continue
    return ContractBundle(
        contract=envelope,
        cards=tuple(cards.values()),
        manifests=tuple(source.get_object(parse_id(entry.manifest)) for entry in record.data),
        analyses=tuple(source.get_object(parse_id(entry.analysis)) for entry in record.analyses),
        code=tuple(source.get_object(parse_id(entry.manifest)) for entry in record.code),
        reviews=tuple(_reviews(source, record, cards)),
        approvals=tuple(approvals.values()),
    )


def _reviews(source: ObjectSource, contract: Contract, cards: Mapping[PartyId, Envelope]) -> Iterator[Envelope]:
    """The first review of each reviewer that holds; what is missing, ``agree`` says."""
    for entry in contract.code:
        for reviewer in entry.reviewers:
            for item in source.feed(
                kinds=(CodeReview.KIND,), refs={"code": entry.manifest, "reviewer": reviewer}
            ).items:
                envelope = source.get_object(item.id)
                try:
                    open_signed(CodeReview, envelope, open_card(cards[reviewer]))
                except (Malformed, Refused):
                    continue
                yield envelope
                break


def _approvals(source: ObjectSource, contract: ObjectId) -> Iterator[ObjectId]:
    after = 0
    while True:
        page = source.feed(after=after, kinds=(Approval.KIND,), refs={"contract": contract})
        yield from (item.id for item in page.items)
        if not page.items:
            return
        after = page.next
