"""The next version of a contract: everything as before, but with parties' present cards, their newest data, and what was changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kakoi.console.library import Library, Whole
from kakoi.contract.model import (
    Analysis,
    Contract,
    ContractAnalysis,
    ContractCode,
    ContractData,
    ContractParty,
    DatasetManifest,
    PartyCard,
)
from kakoi.contract.rules import DisclosureRules
from kakoi.contract.sign import Signed, open_signed, seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId, PartyId
from kakoi.party.home import PartyHome


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the drafter wants otherwise."""

    title: str
    purpose: str
    expires: int
    analyses: Sequence[tuple[str, int]]
    """Ids of analyses with how often each may run."""
    rules: DisclosureRules | None
    """The drafter's own data under these rules; None: as before."""


def successors(library: Library, whole: Whole) -> dict[str, Signed[PartyCard]]:
    """For each party of a contract its newest card: the same keys, made latest. Signed by those keys, so by the party."""
    cards = library.cards()
    found: dict[str, Signed[PartyCard]] = {}
    for identity, card in whole.cards.items():
        same = [c for c in (*cards, card) if c.record.verifying_key == card.record.verifying_key]
        found[identity] = max(same, key=lambda c: (c.record.created, c.id != card.id))
    return found


def newest_data(library: Library, whole: Whole, cards: dict[str, Signed[PartyCard]]) -> dict[str, ObjectId]:
    """For each data set of a contract its newest version under its owner's newest card.

    Raises Refused if the owner has not signed it anew under that card.
    """
    found: dict[str, ObjectId] = {}
    for entry in whole.contract.data:
        card, manifest = cards[entry.owner], whole.manifests[entry.manifest].record
        best: Signed[DatasetManifest] | None = None
        for item in library.items(DatasetManifest.KIND, owner=card.id):
            try:
                signed = open_signed(DatasetManifest, library.envelope(item.id), card)
            except (Malformed, Refused):
                continue
            newer = best is None or signed.record.version > best.record.version
            if signed.record.dataset == manifest.dataset and newer:
                best = signed
        if best is None:
            raise Refused(
                "draft.data",
                f"expected the data set of {card.record.name} under its present card, found none",
                hint="its console publishes it (Data sets) when its card changes",
            )
        found[entry.manifest] = best.id
    return found


def next_version(library: Library, home: PartyHome, whole: Whole, wishes: Wishes, *, now: int) -> Envelope:
    """The next version, signed by this party as its drafter. Approves nothing. Raises Malformed or Refused."""
    cards = successors(library, whole)
    ids: dict[str, PartyId] = {old: PartyId(card.id) for old, card in cards.items()}
    me = home.id_in(whole.contract)
    ids[me] = home.ids[0]
    data = newest_data(library, whole, {**cards, me: home.card})
    sealed = {Analysis.decode(library.envelope(identity).payload).sealed_code for identity, _ in wishes.analyses}
    contract = Contract(
        title=wishes.title,
        purpose=wishes.purpose,
        version=whole.contract.version + 1,
        supersedes=whole.id,
        drafter=home.ids[0],
        parties=tuple(ContractParty(party=ids[p.party], roles=p.roles) for p in whole.contract.parties),
        data=tuple(
            ContractData(
                manifest=data[entry.manifest],
                owner=ids[entry.owner],
                rules=wishes.rules if wishes.rules is not None and entry.owner == me else entry.rules,
            )
            for entry in whole.contract.data
        ),
        analyses=tuple(
            ContractAnalysis(analysis=under_present_card(library, home, identity, ids), max_runs=runs)
            for identity, runs in wishes.analyses
        ),
        code=tuple(_code(entry, ids) for entry in whole.contract.code if entry.manifest in sealed),
        recipients=tuple(ids[party] for party in whole.contract.recipients),
        platforms=whole.contract.platforms,
        accepted_weaknesses=whole.contract.accepted_weaknesses,
        limits=whole.contract.limits,
        grace_days=whole.contract.grace_days,
        log=whole.contract.log,
        not_before=now - 60,
        expires=wishes.expires,
    )
    return seal(contract, home.keys.signer())


def _code(entry: ContractCode, ids: dict[str, PartyId]) -> ContractCode:
    """Sealed code as it is. Its owner's and reviewers' signatures are under their cards, so these must be the same."""
    if any(ids.get(party, party) != party for party in (entry.owner, *entry.reviewers)):
        raise Refused(
            "draft.code-card",
            "expected the owner and the reviewers of sealed code under their present cards, got an earlier card",
            hint="the owner uploads the code again, the reviewers sign again, and a new draft names the new ids",
        )
    return entry


def under_present_card(library: Library, home: PartyHome, identity: str, ids: dict[str, PartyId]) -> ObjectId:
    """An analysis under its author's present card. One's own is signed anew; another's must have been."""
    envelope = library.envelope(identity)
    analysis = Analysis.decode(envelope.payload)
    present = home.ids[0] if analysis.author in home.ids else ids.get(analysis.author, analysis.author)
    if present == analysis.author:
        return envelope.payload_id
    if present == home.ids[0]:
        again = seal(replace(analysis, author=present), home.keys.signer())
        library.hub.put_object(again)
        return again.payload_id
    for item in reversed(library.items(Analysis.KIND, author=present)):
        other = Analysis.decode(library.envelope(item.id).payload)
        if replace(other, author=analysis.author) == analysis:
            return item.id
    raise Refused(
        "draft.analysis",
        f"expected the analysis “{analysis.title}” under its author's present card, found none",
        hint="its author can publish it again",
    )


def published(library: Library, home: PartyHome) -> list[tuple[ObjectId, Analysis]]:
    """Analyses that this party published, newest first; each name once."""
    found: dict[str, tuple[ObjectId, Analysis]] = {}
    for identity in home.ids:
        for item in library.items(Analysis.KIND, author=identity):
            try:
                signed = open_signed(Analysis, library.envelope(item.id), home.card)
            except (Malformed, Refused):
                continue
            found[signed.record.name] = (item.id, signed.record)
    return list(reversed(found.values()))
