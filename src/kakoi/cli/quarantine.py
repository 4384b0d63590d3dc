"""``kakoi quarantine``: contracts that a known weakness touches, and that get no key from this owner once their grace is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from kakoi.broker import known
from kakoi.broker.ledger import Ledger
from kakoi.broker.quarantine import OWNER, Entry, QuarantineLift
from kakoi.cli.contract import Party
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, errors_as_exit_codes, open_party, out, plain, require_party
from kakoi.contract.sign import open_signed, seal
from kakoi.core.errors import Misuse
from kakoi.core.ids import PartyId, parse_id
from kakoi.guard.intel.indicator import stamp

app = typer.Typer(no_args_is_help=True, help=t("help.quarantine"))
_DAY: Final = 86400
ContractId = Annotated[str, typer.Argument(help=t("help.contract-id"))]


@contextmanager
def _ledger(party: Path) -> Iterator[Ledger]:
    require_party(party)
    with closing(Ledger(party / "ledger.sqlite")) as ledger:
        yield ledger


@app.command("add", help=t("help.quarantine-add"))
def add(
    party: Party,
    contract: ContractId,
    reason: Annotated[str, typer.Option("--reason", help=t("help.quarantine-reason"))],
    grace_days: Annotated[int, typer.Option("--grace-days", min=0, max=365, help=t("help.quarantine-grace"))],
) -> None:
    """From the end of the grace on, give no key under a contract."""
    with errors_as_exit_codes(), _ledger(party) as ledger:
        identity, now, said = parse_id(contract), SystemClock().now(), reason[:180]
        entry = Entry(
            contract=identity, cause=f"{OWNER}{said}", reason=said, noticed=now, since=now + grace_days * _DAY
        )
        ledger.quarantine.begin(entry)
        since = next(e.since for e in ledger.quarantine.entries(identity) if e.cause == entry.cause)
        out.print(t("quarantine.added", contract=identity[:16], since=stamp(since)[:10]))


@app.command("lift", help=t("help.quarantine-lift"))
def lift(
    party: Party,
    contract: ContractId,
    reason: Annotated[str, typer.Option("--reason", help=t("help.quarantine-lift-reason"))],
    key_file: KeyFile = None,
) -> None:
    """Take a contract out again, for what is known of it now. Signed by the party."""
    with errors_as_exit_codes(), _ledger(party) as ledger:
        home, identity = open_party(party, key_file), parse_id(contract)
        entries = ledger.quarantine.entries(identity)
        if not entries:
            raise Misuse("quarantine.none", "expected a contract in quarantine, got one that is not")
        record = QuarantineLift(
            party=PartyId(home.card.id),
            contract=identity,
            causes=tuple(entry.cause for entry in entries),
            reason=reason,
            lifted_at=SystemClock().now(),
        )
        ledger.quarantine.lift(open_signed(QuarantineLift, seal(record, home.keys.signer()), home.card))
        out.print(t("quarantine.lifted", contract=identity[:16]))
        for entry in entries:
            out.print(f"  {plain(entry.reason)}")


@app.command("watch", help=t("help.quarantine-watch"))
def watch(
    party: Party,
    asked: Annotated[list[str] | None, typer.Argument(metavar="QUESTION", help=t("help.quarantine-question"))] = None,
    forget: Annotated[list[str] | None, typer.Option("--forget", help=t("help.quarantine-forget"))] = None,
) -> None:
    """Have the broker ask a question of its contracts again and again; without one, list them."""
    with errors_as_exit_codes():
        from kakoi.guard.weakness.exposure import question

        require_party(party)
        knowledge = known.read_knowledge(party)
        for text in asked or ():
            question(text, bills=tuple(knowledge.bills.values()), advisories=knowledge.advisories)
        questions = {*known.watched(party), *(asked or ())} - set(forget or ())
        if asked or forget:
            known.watch(party, sorted(questions))
        for text in sorted(questions):
            out.print(plain(text))


@app.command("list", help=t("help.quarantine-list"))
def in_quarantine(party: Party) -> None:
    """Show what is in quarantine or on the way there, and from when on."""
    with errors_as_exit_codes(), _ledger(party) as ledger:
        now = SystemClock().now()
        table = Table(box=None, pad_edge=False)
        for heading in ("contract", "state", "since", "reason"):
            table.add_column(t(f"quarantine.column.{heading}"), overflow="fold")
        for entry in ledger.quarantine.entries():
            state = "over" if entry.since <= now else "grace"
            table.add_row(
                entry.contract[:16],
                t(f"quarantine.state.{state}"),
                stamp(entry.since)[:16].replace("T", " "),
                plain(entry.reason),
            )
        out.print(table)
