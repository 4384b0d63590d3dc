"""Whom an object concerns: the parties that it names, and the parties of the contract that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Select, select

from kakoi.contract.code import CodeManifest, CodeReview
from kakoi.contract.model import Analysis, Approval, Contract, DatasetManifest, PartyCard
from kakoi.hub import schema
from kakoi.hub.kinds import KindRule
from kakoi.wire import collateral

_LISTED: Final = frozenset({PartyCard.KIND, DatasetManifest.KIND, Analysis.KIND, collateral.Bundle.KIND})
"""Drafters need them before a contract names anybody."""
_SHARED: Final = _LISTED | {Contract.KIND, Approval.KIND, CodeManifest.KIND, CodeReview.KIND}
"""Read by whoever was told the id: an auditor who has a contract's id can verify that everybody approved it, and a reviewer reads
sealed code before any contract names either."""
_SHOWN_WITH: Final = {Approval.KIND: "contract", CodeReview.KIND: "code"}
NAMES: Final = ("party", "drafter", "recipients", "owner")
"""Members under which objects name parties."""


def is_shared(rule: KindRule) -> bool:
    """True for a kind that is read by its id, whomever it concerns."""
    return rule.name in _SHARED


def is_listed(kind: str, references: Sequence[tuple[str, str]]) -> bool:
    """True for a kind that lists show to every party; approvals and reviews are shown to whoever names their contract or code."""
    return kind in _LISTED or (kind in _SHOWN_WITH and any(member == _SHOWN_WITH[kind] for member, _ in references))


def cards_of(keyid: str) -> Select[tuple[str]]:
    """Ids of the cards that a party's key is in."""
    keys = schema.keys.c
    return select(keys.object).where(keys.ed25519_keyid == keyid, keys.run.is_(None))


def contracts_of(keyid: str) -> Select[tuple[str]]:
    """Ids of the contracts that name a party, by the key of any of its cards."""
    refs = schema.refs.alias("naming")
    objects = schema.objects.alias("contracts")
    return (
        select(objects.c.id)
        .join_from(refs, objects, objects.c.seq == refs.c.seq)
        .where(refs.c.member.in_(NAMES), refs.c.value.in_(cards_of(keyid)), refs.c.kind == Contract.KIND)
    )


def concerns(connection: Connection, keyid: str, references: frozenset[tuple[str, str]]) -> bool:
    """True if an object with these references names the party, or belongs to a contract that does."""
    cards = {str(row[0]) for row in connection.execute(cards_of(keyid))}
    if any(member in NAMES and value in cards for member, value in references):
        return True
    contracts = [value for member, value in references if member == "contract"]
    if not contracts:
        return False
    return names_contract(connection, keyid, contracts)


def names_contract(connection: Connection, keyid: str, contracts: Sequence[str]) -> bool:
    """True if one of ``contracts`` names the party."""
    query = contracts_of(keyid)
    found = query.where(query.selected_columns[0].in_(contracts)).limit(1)
    return bool(contracts) and connection.execute(found).first() is not None
