"""The first version of a contract: what can be put together from what the hub has, and the contract that was chosen.

The hub is trusted for none of it: cards, data sets and analyses are offered only with their own signatures. Whose card is whose,
people compare by telephone; that a card is there proves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kakoi.attest.policy import AttestationPolicy
from kakoi.console.drafting import under_present_card
from kakoi.console.library import Library, Whole
from kakoi.contract.code import CodeReview
from kakoi.contract.model import (
    Analysis,
    Contract,
    ContractAnalysis,
    ContractCode,
    ContractData,
    ContractParty,
    DatasetManifest,
    Limits,
    LogKey,
    PartyCard,
    Role,
)
from kakoi.contract.rules import DisclosureRules
from kakoi.contract.sign import Signed, open_signed, seal
from kakoi.core import encoding
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import ObjectId, PartyId
from kakoi.core.records import from_value
from kakoi.party.home import PartyHome

_MOST_OFFERED: Final = 200
ROLES: Final[tuple[Role, ...]] = ("analyst", "code-owner", "auditor")
"""Roles that are chosen; ``owner`` follows from the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What can be chosen."""

    cards: tuple[Signed[PartyCard], ...]
    """Each party's newest card: one's own first, then those with whom there is a contract, then strangers."""
    known: frozenset[str]
    """Ids of cards of parties that this one has a contract with, its own included."""
    data: tuple[Signed[DatasetManifest], ...]
    """Each data set's newest version under its owner's newest card."""
    analyses: tuple[Signed[Analysis], ...]
    """Each author's newest of each name."""
    machines: tuple[Whole, ...]
    """Contracts whose accepted machines and log can be taken over, newest first; each combination once."""

    def name(self, party: str) -> str:
        """A party's name; its id's beginning if it is not offered."""
        return next((card.record.name for card in self.cards if card.id == party), party[:12])


def offer(library: Library, home: PartyHome) -> Offer:
    """What the hub has, as far as it holds together."""
    contracts = library.contracts()
    keys = {card.record.verifying_key for whole in contracts for card in whole.cards.values()}
    newest: dict[object, Signed[PartyCard]] = {}
    for card in library.cards():
        newest[card.record.verifying_key] = max(
            newest.get(card.record.verifying_key, card), card, key=lambda c: (c.record.created, c.id)
        )
    newest[home.card.record.verifying_key] = home.card
    keys.add(home.card.record.verifying_key)
    ordered = sorted(
        newest.values(),
        key=lambda c: (c.id != home.card.id, c.record.verifying_key not in keys, c.record.name.lower(), c.id),
    )[:_MOST_OFFERED]
    cards: dict[str, Signed[PartyCard]] = {card.id: card for card in ordered}
    return Offer(
        cards=tuple(ordered),
        known=frozenset(card.id for card in ordered if card.record.verifying_key in keys),
        data=_data(library, cards),
        analyses=_analyses(library, home, cards),
        machines=_machines(contracts),
    )


def _data(library: Library, cards: Mapping[str, Signed[PartyCard]]) -> tuple[Signed[DatasetManifest], ...]:
    found: dict[str, Signed[DatasetManifest]] = {}
    for signed in library.manifests(cards):
        present = found.get(signed.record.dataset)
        if present is None or signed.record.version > present.record.version:
            found[signed.record.dataset] = signed
    names = {identity: card.record.name for identity, card in cards.items()}
    return tuple(sorted(found.values(), key=lambda s: (s.record.table, names[s.record.owner], s.id))[:_MOST_OFFERED])


def _analyses(
    library: Library, home: PartyHome, cards: Mapping[str, Signed[PartyCard]]
) -> tuple[Signed[Analysis], ...]:
    """Other parties' under their newest cards; one's own under any, since it can be signed anew."""
    found: dict[tuple[str, str], Signed[Analysis]] = {}
    for item in library.items(Analysis.KIND):
        try:
            envelope = library.envelope(item.id)
            author = Analysis.decode(envelope.payload).author
            own = author in home.ids
            if own or author in cards:
                signed = open_signed(Analysis, envelope, home.card if own else cards[author])
                found[home.card.id if own else author, signed.record.name] = signed
        except (Malformed, Refused):
            continue
    return tuple(list(reversed(found.values()))[:_MOST_OFFERED])


def _machines(contracts: Sequence[Whole]) -> tuple[Whole, ...]:
    found: dict[object, Whole] = {}
    for whole in contracts:
        made = whole.contract
        found.setdefault((made.platforms, made.accepted_weaknesses, made.log), whole)
    return tuple(found.values())[:20]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Where it may run, and into which log the passports go."""

    platforms: AttestationPolicy
    weaknesses: tuple[str, ...]
    log: LogKey


def machines_of(whole: Whole) -> Machines:
    """As in another contract."""
    made = whole.contract
    return Machines(platforms=made.platforms, weaknesses=made.accepted_weaknesses, log=made.log)


def machines_from(policy: str, log: str, weaknesses: Sequence[str]) -> Machines:
    """From JSON, as ``kakoi enclave policy`` and ``kakoi hub log-key`` write it. Raises Malformed."""
    return Machines(
        platforms=from_value(AttestationPolicy, _json(policy, "platform policy"), "platforms"),
        weaknesses=tuple(weaknesses),
        log=from_value(LogKey, _json(log, "key of the log"), "log"),
    )


def _json(text: str, what: str) -> encoding.Json:
    try:
        return encoding.loads(encoding.dumps(json.loads(text)))
    except (ValueError, RecursionError, KakoiError):
        raise Malformed(
            "draft.json",
            f"expected the {what} as JSON, got something else",
            hint="kakoi enclave policy and kakoi hub log-key write it",
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the drafter chose."""

    title: str
    purpose: str
    roles: Mapping[str, tuple[Role, ...]]
    """By card id; ``owner`` and an author's role are added."""
    recipients: tuple[str, ...]
    data: Mapping[str, DisclosureRules]
    """Rules by manifest id."""
    analyses: Mapping[str, int]
    """How often each may run, by id."""
    limits: Limits
    grace_days: int
    machines: Machines
    not_before: int
    expires: int


def first_version(library: Library, home: PartyHome, offered: Offer, choice: Choice) -> Envelope:
    """The contract, signed by this party as its drafter. Approves nothing. Raises Malformed or Refused."""
    manifests = {signed.id: signed.record for signed in offered.data if signed.id in choice.data}
    analyses = {signed.id: signed.record for signed in offered.analyses if signed.id in choice.analyses}
    cards = {card.id for card in offered.cards}
    if (
        len(manifests) != len(choice.data)
        or len(analyses) != len(choice.analyses)
        or not {*choice.roles, *choice.recipients} <= cards
    ):
        raise Refused(
            "draft.gone",
            "expected parties, data sets and analyses that are offered now, got one that is not",
            hint="somebody published a newer one meanwhile: choose again",
        )
    roles: dict[str, tuple[Role, ...]] = {party: given for party, given in choice.roles.items() if given}
    for manifest in manifests.values():
        roles[manifest.owner] = tuple(dict.fromkeys(("owner", *roles.get(manifest.owner, ()))))
    for analysis in analyses.values():
        author = home.card.id if analysis.author in home.ids else analysis.author
        if analysis.sealed_code is not None:
            roles[author] = tuple(dict.fromkeys((*roles.get(author, ()), "code-owner")))
        roles.setdefault(author, ("code-owner",))
    _check(home, roles, choice)
    order = [card.id for card in offered.cards if card.id in roles]
    contract = Contract(
        title=choice.title,
        purpose=choice.purpose,
        version=1,
        supersedes=None,
        drafter=home.ids[0],
        parties=tuple(ContractParty(party=PartyId(ObjectId(party)), roles=roles[party]) for party in order),
        data=tuple(
            ContractData(
                manifest=ObjectId(identity), owner=PartyId(ObjectId(manifest.owner)), rules=choice.data[identity]
            )
            for identity, manifest in manifests.items()
        ),
        analyses=tuple(
            ContractAnalysis(analysis=under_present_card(library, home, identity, {}), max_runs=runs)
            for identity, runs in choice.analyses.items()
        ),
        code=tuple(_code(library, analyses.values(), roles)),
        recipients=tuple(PartyId(ObjectId(party)) for party in order if party in choice.recipients),
        platforms=choice.machines.platforms,
        accepted_weaknesses=choice.machines.weaknesses,
        limits=choice.limits,
        grace_days=choice.grace_days,
        log=choice.machines.log,
        not_before=choice.not_before,
        expires=choice.expires,
    )
    return seal(contract, home.keys.signer())


def _code(
    library: Library, analyses: Iterable[Analysis], roles: Mapping[str, Sequence[Role]]
) -> Iterator[ContractCode]:
    """Sealed code with its authors, and as reviewers those auditors of the contract who have signed a review of it."""
    sealed = {a.sealed_code: a.author for a in analyses if a.sealed_code is not None}
    for code, author in sealed.items():
        reviewers = [
            party
            for party, given in roles.items()
            if "auditor" in given and library.items(CodeReview.KIND, code=code, reviewer=party)
        ]
        yield ContractCode(
            manifest=code, owner=author, reviewers=tuple(PartyId(ObjectId(party)) for party in reviewers)
        )


def _check(home: PartyHome, roles: Mapping[str, Sequence[Role]], choice: Choice) -> None:
    """Raise Refused for what a person forgets; everything else is the contract's own check."""
    wanting: tuple[tuple[bool, str, str], ...] = (
        (not choice.data, "at least one data set", "choose what is given"),
        (not choice.analyses, "at least one analysis", "write one under Analysis, or choose one that was published"),
        (not choice.recipients, "at least one party that gets the results", "choose who gets the results"),
        (home.card.id not in roles, "a part for your own party", "choose a role for it, or one of its data sets"),
        (len(roles) < 2, "at least two parties", "choose roles or data sets of another party"),
        (not set(choice.recipients) <= set(roles), "a role for everybody who gets results", "auditor, for instance"),
    )
    for is_wanting, what, hint in wanting:
        if is_wanting:
            raise Refused("draft.incomplete", f"expected {what} in the contract, got none", hint=hint)
