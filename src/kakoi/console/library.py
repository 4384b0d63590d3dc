"""What the hub holds, as this party can believe it: every object checked by its id, every signature under the right card.

Objects never change, so those that were read once are kept in memory; lists are asked for from where the last answer ended. The
hub is trusted for none of it: an object that does not have its id is refused by the client, one that nobody entitled signed
is left out here.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar, cast

from kakoi.contract.approve import Agreement, agree, open_approval
from kakoi.contract.ask import ExceptionRequest
from kakoi.contract.code import CodeManifest, CodeReview
from kakoi.contract.model import Analysis, Approval, Contract, DatasetManifest, PartyCard, Withdrawal
from kakoi.contract.sign import Signed, open_card, open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId, PartyId, parse_id
from kakoi.net.answers import FeedItem, RunState
from kakoi.net.bundle import fetch_bundle
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome
from kakoi.sdk.ask import Asked, asked, newest_first, open_request
from kakoi.sdk.preview import StoredPreview
from kakoi.wire.messages import RunRequest
from kakoi.wire.preview import Preview

T = TypeVar("T")
_MOST_BYTES: Final = 64 * 1024 * 1024
_MOST_ITEMS: Final = 20_000
_PAGE: Final = 1000
_FRESH_SECONDS: Final = 0.5
"""For this long a list is not asked for again: one page asks for many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A contract with what it names, each signature verified. Whether everybody approved is another question."""

    id: ObjectId
    contract: Contract
    envelope: Envelope
    cards: dict[str, Signed[PartyCard]]
    manifests: dict[str, Signed[DatasetManifest]]
    analyses: dict[str, Signed[Analysis]]
    code: dict[str, Signed[CodeManifest]]
    """Sealed code by manifest id."""

    def name(self, party: str) -> str:
        """A party's name."""
        return self.cards[party].record.name

    def parties_with(self, role: str) -> tuple[PartyId, ...]:
        """Parties of a role."""
        return tuple(party.party for party in self.contract.parties if role in party.roles)


class Library:
    """Reads a hub for one party. Safe to use from several threads."""

    def __init__(self, hub: HubClient, home: PartyHome) -> None:
        self.hub, self._home = hub, home
        self._lock = threading.Lock()
        self._objects: OrderedDict[str, Envelope] = OrderedDict()
        self._size = 0
        self._lists: dict[tuple[str, ...], tuple[float, int, list[FeedItem]]] = {}
        self._made: OrderedDict[tuple[str, str], object] = OrderedDict()

    # -- objects

    def envelope(self, identity: str) -> Envelope:
        """An object by id. Raises Malformed, Refused or Unavailable."""
        wanted = parse_id(identity)
        with self._lock:
            if wanted in self._objects:
                self._objects.move_to_end(wanted)
                return self._objects[wanted]
        envelope = self.hub.get_object(wanted)
        with self._lock:
            if wanted not in self._objects:
                self._objects[wanted] = envelope
                self._size += len(envelope.payload)
                while self._size > _MOST_BYTES and len(self._objects) > 1:
                    _, dropped = self._objects.popitem(last=False)
                    self._size -= len(dropped.payload)
        return envelope

    def items(self, *kinds: str, **refs: str) -> list[FeedItem]:
        """Everything of these kinds with these references, in order of arrival."""
        key = (*kinds, *(f"{name}={value}" for name, value in sorted(refs.items())))
        with self._lock:
            asked, after, known = self._lists.get(key, (0.0, 0, []))
        found = list(known)
        if time.monotonic() - asked < _FRESH_SECONDS:
            return found
        while len(found) < _MOST_ITEMS:
            page = self.hub.feed(after=after, kinds=kinds, refs=refs, limit=_PAGE)
            found += page.items
            after = page.next
            if len(page.items) < _PAGE:
                break
        with self._lock:
            self._lists[key] = (time.monotonic(), after, found)
            if len(self._lists) > 512:
                self._lists.pop(next(iter(self._lists)))
        return list(found)

    def look_again(self) -> None:
        """Ask the hub for news next time, because something was just sent."""
        with self._lock:
            self._lists = {key: (0.0, after, found) for key, (_, after, found) in self._lists.items()}

    def _once(self, what: str, identity: str, make: Callable[[], T]) -> T:
        """A value that never changes once it could be made."""
        with self._lock:
            if (what, identity) in self._made:
                return cast("T", self._made[what, identity])
        made = make()
        with self._lock:
            self._made[what, identity] = made
            while len(self._made) > 512:
                self._made.popitem(last=False)
        return made

    # -- parties

    def card(self, party: str) -> Signed[PartyCard]:
        """A party's card, signed by itself."""
        return self._once("card", party, lambda: open_card(self.envelope(party)))

    def name(self, party: str) -> str:
        """A party's name, or the beginning of its id if its card cannot be had."""
        try:
            return self.card(party).record.name
        except (Malformed, Refused):
            return party[:12]

    def cards(self) -> list[Signed[PartyCard]]:
        """All cards that the hub knows, oldest first."""
        return list(self._good(self.items(PartyCard.KIND), lambda item: self.card(item.id)))

    def manifests(self, cards: Mapping[str, Signed[PartyCard]]) -> list[Signed[DatasetManifest]]:
        """Data sets that these parties signed under these cards, oldest first."""

        def read(item: FeedItem) -> Signed[DatasetManifest]:
            envelope = self.envelope(item.id)
            owner = DatasetManifest.decode(envelope.payload).owner
            if owner not in cards:
                raise Refused("contract.unknown-party", "expected a party of the contract, got somebody else")
            return open_signed(DatasetManifest, envelope, cards[owner])

        return list(self._good(self.items(DatasetManifest.KIND), read))

    # -- contracts

    def contracts(self) -> list[Whole]:
        """Contracts that name this party, under its present or an earlier card, newest first."""
        items = [item for identity in self._home.ids for item in self.items(Contract.KIND, party=identity)]
        unique = {item.id: item for item in sorted(items, key=lambda item: item.seq)}
        return list(reversed(list(self._good(unique.values(), lambda item: self.whole(item.id)))))

    def whole(self, identity: str) -> Whole:
        """A contract with everything it names. Raises Refused if a signature is not the right party's."""
        return self._once("whole", identity, lambda: self._whole(parse_id(identity)))

    def _whole(self, identity: ObjectId) -> Whole:
        envelope = self.envelope(identity)
        draft = Contract.decode(envelope.payload)
        cards: dict[str, Signed[PartyCard]] = {party.party: self.card(party.party) for party in draft.parties}
        contract = open_signed(Contract, envelope, cards[draft.drafter]).record
        manifests: dict[str, Signed[DatasetManifest]] = {
            entry.manifest: open_signed(DatasetManifest, self.envelope(entry.manifest), cards[entry.owner])
            for entry in contract.data
        }
        analyses: dict[str, Signed[Analysis]] = {
            entry.analysis: self._analysis(entry.analysis, cards) for entry in contract.analyses
        }
        code: dict[str, Signed[CodeManifest]] = {
            entry.manifest: open_signed(CodeManifest, self.envelope(entry.manifest), cards[entry.owner])
            for entry in contract.code
        }
        if {a.record.sealed_code for a in analyses.values()} - {None} != set(code):
            raise Refused("contract.objects", "expected exactly the sealed code that the analyses name")
        return Whole(
            id=identity,
            contract=contract,
            envelope=envelope,
            cards=cards,
            manifests=manifests,
            analyses=analyses,
            code=code,
        )

    def _analysis(self, identity: str, cards: dict[str, Signed[PartyCard]]) -> Signed[Analysis]:
        envelope = self.envelope(identity)
        author = Analysis.decode(envelope.payload).author
        if author not in cards:
            raise Refused("contract.unknown-party", "expected a party of the contract, got somebody else")
        return open_signed(Analysis, envelope, cards[author])

    def approvals(self, whole: Whole) -> dict[str, Approval]:
        """Approvals that hold, by party: signed by the party, and by as many people as its card demands."""
        found: dict[str, Approval] = {}
        for item in self.items(Approval.KIND, contract=whole.id):
            try:
                approval = self._once("approval", item.id, partial(self._approval, item.id, whole)).record
            except (Malformed, Refused):
                continue
            found.setdefault(approval.party, approval)
        return found

    def _approval(self, identity: str, whole: Whole) -> Signed[Approval]:
        envelope = self.envelope(identity)
        party = Approval.decode(envelope.payload).party
        if party not in whole.cards:
            raise Refused("contract.unknown-party", "expected a party of the contract, got somebody else")
        return open_approval(envelope, whole.cards[party], whole.id)

    def reviews(self, whole: Whole, code: str) -> dict[str, CodeReview | None]:
        """The signed review of each reviewer that the contract names for this sealed code; None where there is none yet."""
        found: dict[str, CodeReview | None] = {}
        for reviewer in next(entry.reviewers for entry in whole.contract.code if entry.manifest == code):
            found[reviewer] = None
            for item in self.items(CodeReview.KIND, code=code, reviewer=reviewer):
                try:
                    found[reviewer] = open_signed(CodeReview, self.envelope(item.id), whole.cards[reviewer]).record
                    break
                except (Malformed, Refused):
                    continue
        return found

    def withdrawals(self, whole: Whole) -> list[Withdrawal]:
        """What its parties took back: the contract, or one of its data sets."""
        found: list[Withdrawal] = []
        lists = [self.items(Withdrawal.KIND, contract=whole.id)]
        lists += [self.items(Withdrawal.KIND, dataset=manifest) for manifest in (*whole.manifests, *whole.code)]
        for item in (item for part in lists for item in part):
            try:
                envelope = self.envelope(item.id)
                party = Withdrawal.decode(envelope.payload).party
                if party in whole.cards:
                    found.append(open_signed(Withdrawal, envelope, whole.cards[party]).record)
            except (Malformed, Refused):
                continue
        return found

    def previews(self, whole: Whole) -> tuple[StoredPreview, ...]:
        """Rehearsals that the contract's parties signed: of each party the last, newest first. Claims: they prove nothing."""
        found: dict[str, StoredPreview] = {}
        for item in self.items(Preview.KIND, contract=whole.id):
            try:
                made = self._once("preview", item.id, partial(self._preview, item.id, whole))
            except (Malformed, Refused):
                continue
            found[made.preview.party] = made
        return tuple(sorted(found.values(), key=lambda made: -made.preview.made_at))

    def _preview(self, identity: str, whole: Whole) -> StoredPreview:
        envelope = self.envelope(identity)
        claimed = Preview.decode(envelope.payload)
        if claimed.party not in whole.cards or claimed.contract != whole.id:
            raise Refused("contract.unknown-party", "expected a party of the contract, got somebody else")
        record = open_signed(Preview, envelope, whole.cards[claimed.party]).record
        return StoredPreview(preview=record, by=whole.name(record.party))

    def asked(self, whole: Whole) -> tuple[Asked, ...]:
        """Why parties of the contract ask for this version as an exception, newest first. Each reason is its signer's word."""
        found = []
        for item in self.items(ExceptionRequest.KIND, amendment=whole.id):
            try:
                found.append(self._once("asked", item.id, partial(self._asked, item.id, whole)))
            except (Malformed, Refused):
                continue
        return newest_first(found)

    def _asked(self, identity: str, whole: Whole) -> Asked:
        return asked(open_request(self.envelope(identity), whole.id, whole.cards).record, whole.cards)

    def agreement(self, identity: str) -> Agreement:
        """The contract with every party's approval. Raises Refused naming who has not approved."""
        with self._lock:
            kept = self._made.get(("agreement", identity))
        if isinstance(kept, Agreement):
            return kept
        made = agree(fetch_bundle(self.hub, parse_id(identity)))
        with self._lock:
            self._made["agreement", identity] = made
        return made

    # -- runs

    def runs(self, whole: Whole) -> list[Signed[RunRequest]]:
        """Runs that a contract's analysts asked for, newest first."""

        def read(item: FeedItem) -> Signed[RunRequest]:
            envelope = self.envelope(item.id)
            party = RunRequest.decode(envelope.payload).party
            if party not in whole.cards:
                raise Refused("contract.unknown-party", "expected a party of the contract, got somebody else")
            return open_signed(RunRequest, envelope, whole.cards[party])

        return list(reversed(list(self._good(self.items(RunRequest.KIND, contract=whole.id), read))))

    def kept(self, what: str, identity: str) -> object | None:
        """Something made earlier of what never changes."""
        with self._lock:
            return self._made.get((what, identity))

    def keep(self, what: str, identity: str, made: object) -> None:
        """Remember something made of what never changes."""
        self._once(what, identity, lambda: made)

    def run_state(self, run: str) -> RunState:
        """What the hub says about a run: good for nothing but showing."""
        return self.hub.run(parse_id(run))

    def _good(self, items: Iterable[FeedItem], read: Callable[[FeedItem], T]) -> Iterable[T]:
        for item in items:
            try:
                yield read(item)
            except (Malformed, Refused):
                continue
