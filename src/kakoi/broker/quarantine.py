"""Contracts in quarantine, in the ledger: what touches them, since when, until when the grace lasts, and who lifted what.

An entry is one cause for one contract. It begins by itself (``lookout``) or by the owner's command, and never gets more time by beginning
again. Once its grace is over only a lift ends it: a record that the owner signs, and that names the causes it is about, so that the
next weakness begins anew. What others should hear goes into a table of happenings, which becomes events (``feed``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final

from kakoi.contract.sign import Signed
from kakoi.core.dsse import Envelope
from kakoi.core.records import Digest, Limit, PartyRef, Prose, Record, Seconds
from kakoi.core.text import LINE, LINE_FORM

SCHEMA: Final = """
create table if not exists quarantine (contract text not null, cause text not null, reason text not null, at integer not null,
    since integer not null, over integer not null default 0, primary key (contract, cause));
create table if not exists lift (number integer primary key, envelope blob not null);
create table if not exists quarantine_event (number integer primary key, contract text not null, what text not null, at integer not null);
"""
OWNER: Final = "owner:"
"""Before a cause that the owner itself named: nothing but a lift ends it."""
Cause = Annotated[str, Limit(least=1, most=200, pattern=LINE, form=LINE_FORM)]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineLift(Record):
    """An owner takes a contract out of quarantine, for these causes as they were known then. Signed by the owner."""

    KIND: ClassVar[str] = "kakoi/quarantine-lift/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    party: PartyRef
    contract: Digest
    causes: Annotated[tuple[Cause, ...], Limit(least=1, most=256, unique=True)]
    reason: Prose
    lifted_at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One cause for one contract. Times in seconds since the epoch, UTC."""

    contract: str
    cause: str
    reason: str
    noticed: int
    since: int
    """When the grace ends: until then the operator can mend it."""


def entries_in(path: Path) -> list[Entry]:
    """What is in quarantine by the ledger at ``path``, which is only read: its broker need not be stopped. Nothing without a ledger."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
        known = db.execute("select 1 from sqlite_master where name = 'quarantine'").fetchone()
        return Quarantine(db).entries() if known is not None else []


class Quarantine:
    """The quarantine of one ledger."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def entries(self, contract: str | None = None) -> list[Entry]:
        """What is in quarantine or on the way there, oldest first."""
        query = "select contract, cause, reason, at, since from quarantine"
        where, values = (" where contract = ?", (contract,)) if contract is not None else ("", ())
        rows = self._db.execute(f"{query}{where} order by at, contract, cause", values).fetchall()
        return [Entry(contract=c, cause=i, reason=r, noticed=int(a), since=int(s)) for c, i, r, a, s in rows]

    def over(self, now: int) -> dict[str, str]:
        """Contracts whose grace is over, with the reason; of several the one that was over first."""
        found: dict[str, str] = {}
        for entry in sorted(self.entries(), key=lambda item: (item.since, item.cause)):
            if entry.since <= now:
                found.setdefault(entry.contract, entry.reason)
        return found

    def begin(self, entry: Entry) -> bool:
        """Note a cause. One that is known already gets an earlier end of its grace, never a later one. True if it is new."""
        row = self._db.execute(
            "select since from quarantine where contract = ? and cause = ?", (entry.contract, entry.cause)
        ).fetchone()
        if row is not None:
            self._db.execute(
                "update quarantine set since = min(since, ?) where contract = ? and cause = ?",
                (entry.since, entry.contract, entry.cause),
            )
            return False
        self._db.execute(
            "insert into quarantine (contract, cause, reason, at, since) values (?, ?, ?, ?, ?)",
            (entry.contract, entry.cause, entry.reason, entry.noticed, entry.since),
        )
        self._happened(entry.contract, "begun", entry.noticed)
        return True

    def clear(self, entry: Entry, now: int) -> None:
        """The cause is gone before the grace was over."""
        self._remove(entry.contract, [entry.cause])
        self._happened(entry.contract, "cleared", now)

    def mark_over(self, now: int) -> list[Entry]:
        """Entries whose grace ended since this was asked last."""
        rows = self._db.execute(
            "select contract, cause from quarantine where over = 0 and since <= ?", (now,)
        ).fetchall()
        for contract, cause in rows:
            self._db.execute("update quarantine set over = 1 where contract = ? and cause = ?", (contract, cause))
            self._happened(contract, "over", now)
        return [entry for entry in self.entries() if (entry.contract, entry.cause) in set(rows)]

    def lift(self, signed: Signed[QuarantineLift]) -> None:
        """End what a lift names."""
        record = signed.record
        self._db.execute("insert into lift (envelope) values (?)", (signed.envelope.encode(),))
        self._remove(record.contract, record.causes)
        self._happened(record.contract, "lifted", record.lifted_at)

    def lifts(self) -> list[Envelope]:
        """Every lift, as signed, oldest first. Whoever obeys one verifies it."""
        return [Envelope.decode(row[0]) for row in self._db.execute("select envelope from lift order by number")]

    def _remove(self, contract: str, causes: Iterable[str]) -> None:
        self._db.executemany(
            "delete from quarantine where contract = ? and cause = ?", [(contract, cause) for cause in causes]
        )

    def _happened(self, contract: str, what: str, at: int) -> None:
        self._db.execute("insert into quarantine_event (contract, what, at) values (?, ?, ?)", (contract, what, at))
