"""What waits for a person of this party: the home page shows it, and notifications say that there is something."""

from __future__ import annotations

from dataclasses import dataclass

from kakoi.console import runs
from kakoi.console.contracts import Standing
from kakoi.console.people import Invitation
from kakoi.console.runs import RunView
from kakoi.console.visit import Console
from kakoi.contract.model import Withdrawal

_TOLD_SECONDS = 7 * 24 * 3600
"""For this long the home page tells of others' withdrawals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Everything that waits for one person."""

    approve: tuple[Standing, ...]
    card: str
    """The next card's id; empty if it does not wait for this person."""
    recoveries: tuple[Invitation, ...]
    results: tuple[RunView, ...]
    withdrawn: tuple[tuple[Standing, Withdrawal], ...]
    """Contracts that this party had approved, and what another party took back of late."""

    @property
    def things(self) -> frozenset[str]:
        """Each thing by a name that stays the same, so that nobody is told of it twice."""
        return frozenset(
            (
                *(f"approve {item.whole.id}" for item in self.approve),
                *(f"card {self.card}" for _ in range(bool(self.card))),
                *(f"recovery {item.id}" for item in self.recoveries),
                *(f"result {run.id}" for run in self.results),
                *(f"withdrawal {withdrawal.id}" for _, withdrawal in self.withdrawn),
            )
        )


def recent_runs(console: Console) -> list[RunView]:
    """The latest runs of the latest contracts, newest first."""
    found = [
        runs.view(console.library, request.id)
        for whole in console.library.contracts()[:5]
        for request in console.library.runs(whole)[:5]
    ]
    return sorted(found, key=lambda run: run.request.requested_at, reverse=True)


def waits_for(console: Console, name: str, standings: list[Standing], recent: list[RunView]) -> Waits:
    """What waits for the person of this name."""
    proposed = console.assent.proposed_card()
    card = proposed[0] if proposed and name not in proposed[2].people and not proposed[2].complete else ""
    seen = {row[0] for row in console.store.rows("select run from seen")}
    since = console.clock.now() - _TOLD_SECONDS
    return Waits(
        approve=tuple(item for item in standings if item.open and name not in item.progress.people),
        card=card,
        recoveries=tuple(
            item for item in console.people.waiting_recoveries() if name not in (item.by, item.person.name)
        ),
        results=tuple(
            run for run in recent if run.state == "done" and run.id not in seen and console.results.may_open(run.whole)
        ),
        withdrawn=tuple(
            (item, withdrawal)
            for item in standings
            if item.approved_here
            for withdrawal in item.withdrawals
            if withdrawal.party != item.mine and withdrawal.withdrawn_at > since
        ),
    )
