"""Collecting a contract with everything it names. What is fetched is checked by ``contract.approve.agree``."""

from __future__ import annotations

from typing import Protocol

from kakoi.contract.approve import ContractBundle
from kakoi.contract.model import Approval, Contract
from kakoi.contract.sign import open_card, open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId, parse_id


class ObjectSource(Protocol):
    """Whoever delivers objects by id. Not trusted: ids are recomputed from the bytes."""

    def object(self, identity: ObjectId) -> Envelope:
        """The object with this id. Raises Unavailable, or Refused if there is none or it is another."""
        ...

    def approvals(self, contract: ObjectId) -> tuple[ObjectId, ...]:
        """Ids of the approvals of a contract."""
        ...


def fetch_bundle(source: ObjectSource, contract: ObjectId) -> ContractBundle:
    """The contract, its parties' cards, data sets, analyses and approvals, as the source delivers them.

    Anybody can post something that looks like an approval, so what no party of the contract signed is left out; of
    several approvals by one party the first is taken. Raises what the source raises, or Malformed.
    """
    envelope = source.object(contract)
    record = Contract.decode(envelope.payload)
    cards = {party.party: source.object(parse_id(party.party)) for party in record.parties}
    approvals: dict[str, Envelope] = {}
    for identity in source.approvals(contract):
        found = source.object(identity)
        try:
            giver = Approval.decode(found.payload).party
            if giver in cards:
                open_signed(Approval, found, open_card(cards[giver]))
                approvals.setdefault(giver, found)
        except (Malformed, Refused):
            continue
    return ContractBundle(
        contract=envelope,
        cards=tuple(cards.values()),
        manifests=tuple(source.object(parse_id(entry.manifest)) for entry in record.data),
        analyses=tuple(source.object(parse_id(entry.analysis)) for entry in record.analyses),
        approvals=tuple(approvals.values()),
    )
