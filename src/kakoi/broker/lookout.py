"""The lookout: does a weakness that became known touch a contract of this owner? If so its grace begins, and ends, by itself.

What is known lies in the party's directory; commands write it, and it is looked at before every decision:

    advisories.json     about packages (`kakoi advisories`)       with ``bills/*.json``: bills of the images that contracts accept
    indicators.json     of others (`kakoi intel pull`)            code and packages; keys and machines are refused without any grace
    watched.json        questions of this owner (`kakoi quarantine watch`): a vendor's advisory, a TCB, a package

The grace is the contract's (ADR 0153). A cause that is gone before its grace is over, because the operator mended it or somebody took it
back, is forgotten; afterwards only the owner's signed lift ends it. Whoever cannot see gives no keys: a damaged file refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from kakoi.attest.report import Verdict
from kakoi.broker.known import Knowledge, causes_of, read_knowledge, versions
from kakoi.broker.ledger import Ledger
from kakoi.broker.quarantine import OWNER, Entry, QuarantineLift
from kakoi.contract.model import Contract
from kakoi.contract.sign import open_signed
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.core.ids import ObjectId
from kakoi.guard.intel.index import Shelf
from kakoi.party.home import PartyHome
from kakoi.wire.messages import KeyGrant, Lease

DAY: Final = 86400
PERIOD: Final = 60
"""Seconds between two looks at all contracts while nothing in the directory changes: graces end, indicators expire."""
REMEMBERED: Final = 30 * DAY
"""For so long a machine counts among those that a contract is carried out on."""


@dataclass(slots=True)
class _Machines:
    """What this owner's own verdicts say of the machines of each contract."""

    row: int = 0
    newest: dict[str, dict[tuple[str, str], Verdict]] = field(default_factory=dict)


class Lookout:
    """One owner's. ``contract`` gets a contract by its id, and raises what a hub raises."""

    def __init__(self, *, home: PartyHome, ledger: Ledger, contract: Callable[[ObjectId], Contract]) -> None:
        self._home, self._ledger, self._contract = home, ledger, contract
        self.shelf = Shelf(home.path)
        self._records: dict[str, Contract] = {}
        self._versions: tuple[object, ...] | None = None
        self._knowledge = Knowledge()
        self._blind: Malformed | None = None
        self._told: tuple[object, ...] | None = None
        self._looked: tuple[int, tuple[object, ...], frozenset[str]] | None = None
        self._machines = _Machines()
        self._lifts: list[QuarantineLift | None] = []
        self._news: list[KakoiError] = []

    def look(self, now: int) -> None:
        """All contracts of this owner that are in force, if something changed or some time has passed."""
        contracts = self._ledger.approved() - self._ledger.withdrawn()
        state = (now, versions(self._home.path), contracts)
        if self._looked is not None and self._looked[1:] == state[1:] and 0 <= now - self._looked[0] < PERIOD:
            return
        self._looked = state
        try:
            self._read()
            for contract in sorted(contracts):
                self._one(ObjectId(contract), now)
        except Malformed as error:
            # Decisions refuse until it is mended (``quarantined``); it is told once for each state of the directory.
            if self._told != self._versions:
                self._told = self._versions
                self._news.append(error)
        for entry in self._ledger.quarantine.mark_over(now):
            self._news.append(_over(entry))

    def quarantined(self, contract: ObjectId, now: int) -> Mapping[str, str]:
        """Contracts whose grace is over, with the reason, after a look at this one. Raises Malformed for a damaged file."""
        self._read()
        self._one(contract, now)
        for entry in self._ledger.quarantine.mark_over(now):
            self._news.append(_over(entry))
        return self._ledger.quarantine.over(now)

    def news(self) -> list[KakoiError]:
        """What happened since this was asked last, each as the refusal that it leads to."""
        found, self._news = self._news, []
        return found

    def _read(self) -> None:
        present = versions(self._home.path)
        if present != self._versions:
            self._versions, self._blind = present, None
            try:
                self._knowledge = read_knowledge(self._home.path)
                self.shelf.index()
            except Malformed as error:
                self._blind = error
            except Misuse as error:
                self._blind = Malformed(
                    "quarantine.blind",
                    f"expected what is known of weaknesses in a form that can be read, got: {error.message}",
                    hint=error.hint,
                )
        if self._blind is not None:
            raise self._blind

    def _one(self, contract: ObjectId, now: int) -> None:
        """Begin and clear what concerns one contract."""
        record = self._known(contract)
        if record is None or now >= record.expires:
            return
        found = causes_of(record, self._seen(contract, now), self._knowledge, self.shelf.index(), now)
        book = self._ledger.quarantine
        for cause in found:
            if self._is_lifted(contract, cause.id, cause.seen):
                continue
            since = now + record.grace_days * DAY
            entry = Entry(contract=contract, cause=cause.id, reason=cause.reason, noticed=now, since=since)
            if book.begin(entry):
                self._news.append(_begun(entry, record.grace_days))
        present = {cause.id for cause in found}
        for entry in book.entries(contract):
            if entry.since > now and entry.cause not in present and not entry.cause.startswith(OWNER):
                book.clear(entry, now)

    def _known(self, contract: ObjectId) -> Contract | None:
        """The contract, or None if the hub has it not: then nobody can ask for a run under it either."""
        if contract not in self._records:
            try:
                self._records[contract] = self._contract(contract)
            except (Refused, Malformed):
                return None
        return self._records[contract]

    def _seen(self, contract: str, now: int) -> list[Verdict]:
        """The newest verdict of each machine that this owner gave keys to under a contract, of the last days."""
        known = self._machines
        for row, about, stage, envelope in self._ledger.accepted_since(known.row):
            record = (KeyGrant if stage == "grant" else Lease).decode(envelope.payload)
            claims = record.verdict.claims
            known.newest.setdefault(about, {})[claims.platform, claims.platform_identity] = record.verdict
            known.row = row
        verdicts = known.newest.get(contract, {}).values()
        return [verdict for verdict in verdicts if now - verdict.evaluated_at <= REMEMBERED]

    def _is_lifted(self, contract: str, cause: str, seen: int) -> bool:
        """Whether the owner has signed that this cause, as it was seen then, shall not count for this contract."""
        for envelope in self._ledger.quarantine.lifts()[len(self._lifts) :]:
            try:
                self._lifts.append(open_signed(QuarantineLift, envelope, self._home.card).record)
            except (Malformed, Refused):
                self._lifts.append(None)  # nobody's signature lifts nothing
        return any(
            lift is not None and lift.contract == contract and cause in lift.causes and lift.lifted_at >= seen
            for lift in self._lifts
        )


def _begun(entry: Entry, days: int) -> Refused:
    return Refused(
        "quarantine.begun",
        f"expected no known weakness that touches contract {entry.contract[:16]}, got: {entry.reason}",
        hint=f"the contract gives {days} days of grace, then this owner gives no more keys: kakoi quarantine list",
    )


def _over(entry: Entry) -> Refused:
    return Refused(
        "quarantine.over",
        f"expected contract {entry.contract[:16]} to be mended within its grace, got none of that: {entry.reason}",
        hint="no more keys; the parties approve a new version, or this owner lifts it: kakoi quarantine lift",
    )
