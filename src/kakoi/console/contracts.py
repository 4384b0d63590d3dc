"""Where a contract stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kakoi.console.assent import Progress
from kakoi.console.library import Whole
from kakoi.console.memory import Memory
from kakoi.console.visit import Console
from kakoi.contract.model import Approval, Withdrawal
from kakoi.core.errors import Malformed, Refused

Status = Literal["waiting", "in-force", "expired", "withdrawn", "replaced", "not-yet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A contract with what its parties said about it."""

    whole: Whole
    status: Status
    approvals: dict[str, Approval]
    withdrawals: tuple[Withdrawal, ...]
    mine: str
    """This party's id in the contract."""
    present_card: bool
    """Whether the contract names this party's present card: only then can it be approved."""
    approved_here: bool
    """Whether the own ledger says so; that, and not what the hub shows, is what the broker obeys."""
    withdrawn_here: bool
    progress: Progress
    replaced_by: str

    @property
    def open(self) -> bool:
        """Whether this party can still approve it."""
        return (
            self.present_card
            and not self.approved_here
            and not self.withdrawals
            and not self.withdrawn_here
            and self.status in ("waiting", "not-yet")
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the parties that have not approved."""
        return tuple(
            self.whole.name(party.party) for party in self.whole.contract.parties if party.party not in self.approvals
        )


def standing(console: Console, whole: Whole, *, replaced_by: str = "") -> Standing:
    """Where one contract stands."""
    memory = Memory(console.home)
    approved_here, gone = set(memory.approved()), set(memory.withdrawn())
    mine = console.home.id_in(whole.contract)
    approvals = console.library.approvals(whole)
    withdrawals = tuple(console.library.withdrawals(whole))
    own = {whole.id, *(entry.manifest for entry in whole.contract.data if entry.owner == mine)}
    return Standing(
        whole=whole,
        status=_status(whole, approvals, bool(withdrawals) or bool(gone & own), replaced_by, console.clock.now()),
        approvals=approvals,
        withdrawals=withdrawals,
        mine=mine,
        present_card=mine == console.home.ids[0] and mine in whole.cards,
        approved_here=whole.id in approved_here,
        withdrawn_here=bool(gone & own),
        progress=console.assent.contract_progress(whole.id),
        replaced_by=replaced_by,
    )


def _status(whole: Whole, approvals: dict[str, Approval], withdrawn: bool, replaced_by: str, now: int) -> Status:
    if withdrawn:
        return "withdrawn"
    if now >= whole.contract.expires:
        return "expired"
    if replaced_by:
        return "replaced"
    if set(approvals) != {party.party for party in whole.contract.parties}:
        return "waiting"
    return "in-force" if now >= whole.contract.not_before else "not-yet"


def all_standings(console: Console) -> list[Standing]:
    """Every contract that names this party, newest first. One that was replaced by a version in force says so."""
    wholes = console.library.contracts()
    plain = [standing(console, whole) for whole in wholes]
    newer = {
        item.whole.contract.supersedes: item.whole.id
        for item in plain
        if item.whole.contract.supersedes and item.status == "in-force"
    }
    return [_replaced(item, newer[item.whole.id]) if item.whole.id in newer else item for item in plain]


def _replaced(item: Standing, by: str) -> Standing:
    ended = item.status in ("withdrawn", "expired")
    return replace(item, replaced_by=by, status=item.status if ended else "replaced")


def earlier_versions(console: Console, whole: Whole) -> list[Whole]:
    """Versions before this one that the party approved and has not withdrawn, newest first."""
    memory = Memory(console.home)
    approved, gone = memory.approved(), memory.withdrawn()
    found, seen = [], {whole.id}
    while whole.contract.supersedes and whole.contract.supersedes not in seen:
        try:
            whole = console.library.whole(whole.contract.supersedes)
        except (Malformed, Refused):
            break
        seen.add(whole.id)
        if whole.id in approved and whole.id not in gone:
            found.append(whole)
    return found
