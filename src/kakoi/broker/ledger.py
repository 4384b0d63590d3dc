"""What a broker must never forget: approvals, withdrawals, runs, answers and every decision. SQLite in WAL mode.

An answer (challenge, grant, denial) and the decision that led to it are written in one transaction before anything is sent,
so a crash at any point leaves either nothing or something that can be sent again unchanged. Decisions are chained by
hash: a row that was edited or removed shows when the ledger is opened.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kakoi.broker import quarantine, releases
from kakoi.broker.quarantine import Quarantine
from kakoi.broker.releases import Entry, Place, Releases
from kakoi.core import encoding
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Fatal
from kakoi.party.files import disk_error

_SCHEMA: Final = """
create table if not exists approved (contract text primary key, at integer not null);
create table if not exists withdrawn (object text primary key, at integer not null);
create table if not exists run (run text primary key, contract text not null, analysis text not null,
    envelope blob not null, closed integer not null default 0);
create table if not exists answer (run text not null, attempt integer not null, stage text not null,
    about text not null, object text not null, envelope blob not null, sent integer not null default 0,
    primary key (run, attempt, stage));
create table if not exists decision (seq integer primary key, at integer not null, body blob not null, hash blob not null);
create table if not exists waiting (session text primary key, envelope blob not null);
create table if not exists evaluation (platform text not null, product text not null, number integer not null,
    primary key (platform, product));
create table if not exists cursor (name text primary key, value integer not null);
"""
_GENESIS: Final = b"\x00" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Something this broker said: ``stage`` is challenge, grant, earlier, release or denial; ``about`` is the session, if any."""

    run: str
    attempt: int
    stage: str
    about: str
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One line of the decision log."""

    at: int
    run: str
    attempt: int
    step: str
    outcome: str
    code: str
    message: str
    hint: str
    checks: tuple[dict[str, str], ...] = ()

    def body(self) -> bytes:
        """Canonical JSON."""
        value = {name: getattr(self, name) for name in self.__slots__}
        return encoding.dumps({**value, "checks": list(self.checks)})


class _Connection(sqlite3.Connection):
    """SQLite whose complaints about the disk are errors of ours."""

    place = Path()

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """As in ``sqlite3``. Raises Unavailable (disk) or Fatal (no database)."""
        with _as_ours(self.place):
            return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        """As in ``sqlite3``. Raises Unavailable (disk) or Fatal (no database)."""
        with _as_ours(self.place):
            return super().executemany(*arguments)

    def executescript(self, sql_script: str) -> sqlite3.Cursor:
        """As in ``sqlite3``. Raises Unavailable (disk) or Fatal (no database)."""
        with _as_ours(self.place):
            return super().executescript(sql_script)

    def undo(self) -> None:
        """Roll back, unless SQLite has done so already, as it does when the disk is full."""
        if self.in_transaction:
            super().execute("rollback")


@contextmanager
def _as_ours(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
        raise disk_error(OSError(errno.ENOSPC if full else 0, str(error)), path) from None
    except sqlite3.DatabaseError:
        raise Fatal(
            "ledger.file",
            f"expected a ledger in {path.name}, got another file or a damaged one",
            hint="restore the ledger from a backup, and find out who changed it",
        ) from None


def _connect(path: Path) -> _Connection:
    with _as_ours(path):
        connection = sqlite3.connect(path, isolation_level=None, timeout=30, factory=_Connection)
    connection.place = path
    return connection


class Ledger:
    """One broker's memory."""

    def __init__(self, path: Path) -> None:
        self._db = _connect(path)
        try:
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.executescript(_SCHEMA + releases.SCHEMA + quarantine.SCHEMA)
            path.chmod(0o600)
            self.releases = Releases(self._db, path)
            self.quarantine = Quarantine(self._db)
            self._head = self._check_chain()
        except BaseException:
            self._db.close()
            raise

    def _check_chain(self) -> bytes:
        head = _GENESIS
        for number, (seq, at, body, digest) in enumerate(
            self._db.execute("select seq, at, body, hash from decision order by seq"), start=1
        ):
            # SQLite lets an editor change the type of a cell, too.
            whole = isinstance(body, bytes) and isinstance(at, int) and at >= 0
            head = _link(head, at, body) if whole else _GENESIS
            if not whole or digest != head or seq != number:
                raise Fatal(
                    "ledger.chain",
                    "expected an unbroken chain of decisions, got an edited or missing one",
                    hint="restore the ledger from a backup, and find out who changed it",
                )
        return head

    def approve(self, contract: str, at: int) -> None:
        """Remember that this owner approved a contract."""
        self._db.execute("insert or ignore into approved values (?, ?)", (contract, at))

    def withdraw(self, identity: str, at: int) -> None:
        """Remember that this owner withdrew a contract or a data set."""
        self._db.execute("insert or ignore into withdrawn values (?, ?)", (identity, at))

    def approved(self) -> frozenset[str]:
        """Contracts this owner approved."""
        return frozenset(row[0] for row in self._db.execute("select contract from approved"))

    def withdrawn(self) -> frozenset[str]:
        """Contracts and manifests this owner withdrew."""
        return frozenset(row[0] for row in self._db.execute("select object from withdrawn"))

    def granted_runs(self, contract: str, analysis: str, *, besides: str) -> int:
        """Runs of an analysis under a contract that got a key, not counting ``besides``."""
        row = self._db.execute(
            "select count(distinct r.run) from run r join answer a on a.run = r.run and a.stage = 'grant' "
            "where r.contract = ? and r.analysis = ? and r.run <> ?",
            (contract, analysis, besides),
        ).fetchone()
        return int(row[0])

    def runs_of(self, contract: str) -> list[str]:
        """Runs of a contract that were asked for, oldest first."""
        rows = self._db.execute("select run from run where contract = ? order by rowid", (contract,)).fetchall()
        return [str(row[0]) for row in rows]

    def open_run(self, run: str, contract: str, analysis: str, envelope: Envelope) -> None:
        """Remember a run request; a second time changes nothing."""
        self._db.execute(
            "insert or ignore into run values (?, ?, ?, ?, 0)", (run, contract, analysis, envelope.encode())
        )

    def close_run(self, run: str) -> None:
        """Nothing more is to be said about this run."""
        self._db.execute("update run set closed = 1 where run = ?", (run,))

    def open_runs(self) -> list[tuple[str, str, Envelope]]:
        """Runs that may still need an answer: run, contract, request envelope."""
        rows = self._db.execute("select run, contract, envelope from run where closed = 0").fetchall()
        return [(run, contract, Envelope.decode(envelope)) for run, contract, envelope in rows]

    def accepted_since(self, after: int) -> list[tuple[int, str, str, Envelope]]:
        """Keys and leases that were given, behind row ``after``: row, contract, stage, envelope."""
        rows = self._db.execute(
            "select a.rowid, r.contract, a.stage, a.envelope from answer a join run r on r.run = a.run "
            "where a.rowid > ? and (a.stage = 'grant' or a.stage like 'lease.%') order by a.rowid",
            (after,),
        ).fetchall()
        return [(int(row), contract, stage, Envelope.decode(envelope)) for row, contract, stage, envelope in rows]

    def is_known(self, run: str) -> bool:
        """Whether the run request was seen."""
        return self._db.execute("select 1 from run where run = ?", (run,)).fetchone() is not None

    def answers(self, run: str) -> list[Answer]:
        """What was said about a run, oldest first."""
        rows = self._db.execute(
            "select attempt, stage, about, envelope from answer where run = ? order by rowid", (run,)
        ).fetchall()
        return [Answer(run=run, attempt=a, stage=s, about=o, envelope=Envelope.decode(e)) for a, s, o, e in rows]

    def say(self, answer: Answer, decision: Decision) -> None:
        """Store an answer and its decision together. A second answer for the same run, attempt and stage is dropped."""
        self._say((answer,), decision, None)

    def release(self, answers: tuple[Answer, Answer], decision: Decision, entry: Entry, place: Place) -> None:
        """Store a release with its entry in the disclosure ledger: both or neither. A second one for an attempt is dropped."""
        self._say(answers, decision, (entry, place))
        self.releases.anchor(self.releases.place())

    def _say(self, answers: tuple[Answer, ...], decision: Decision, entry: tuple[Entry, Place] | None) -> None:
        self._db.execute("begin immediate")
        try:
            new = [self._store(answer) for answer in answers]
            head = self._append(decision) if all(new) else self._head
            if entry is not None and all(new):
                self.releases.append(*entry)
            self._db.execute("commit")
        except BaseException:
            self._db.undo()
            raise
        self._head = head

    def _store(self, answer: Answer) -> bool:
        cursor = self._db.execute(
            "insert or ignore into answer values (?, ?, ?, ?, ?, ?, 0)",
            (
                answer.run,
                answer.attempt,
                answer.stage,
                answer.about,
                answer.envelope.payload_id,
                answer.envelope.encode(),
            ),
        )
        return cursor.rowcount > 0

    def note(self, decision: Decision) -> None:
        """Store a decision that has no answer, such as a refusal to answer at all."""
        self._db.execute("begin immediate")
        try:
            head = self._append(decision)
            self._db.execute("commit")
        except BaseException:
            self._db.undo()
            raise
        self._head = head

    def _append(self, decision: Decision) -> bytes:
        # Another process (the command line) may have appended since this one last looked.
        row = self._db.execute("select hash from decision order by seq desc limit 1").fetchone()
        body = decision.body()
        head = _link(row[0] if row else _GENESIS, decision.at, body)
        self._db.execute(
            "insert into decision select coalesce(max(seq), 0) + 1, ?, ?, ? from decision", (decision.at, body, head)
        )
        return head

    def decisions(self) -> list[dict[str, encoding.Json]]:
        """The decision log, oldest first."""
        return [encoding.loads(row[0]) for row in self._db.execute("select body from decision order by seq")]

    def decision_bodies(self) -> list[tuple[int, bytes]]:
        """Time and canonical JSON of every decision, oldest first: what the chain and inclusion proofs are made of."""
        return self._db.execute("select at, body from decision order by seq").fetchall()

    def unsent(self) -> list[Answer]:
        """Answers the hub has not confirmed."""
        rows = self._db.execute("select run, attempt, stage, about, envelope from answer where sent = 0 order by rowid")
        return [
            Answer(run=r, attempt=a, stage=s, about=o, envelope=Envelope.decode(e)) for r, a, s, o, e in rows.fetchall()
        ]

    def sent(self, answer: Answer) -> None:
        """The hub confirmed it."""
        self._db.execute(
            "update answer set sent = 1 where run = ? and attempt = ? and stage = ?",
            (answer.run, answer.attempt, answer.stage),
        )

    def wait(self, session: Envelope) -> bool:
        """Remember a session that cannot be judged yet. False if it was remembered already."""
        cursor = self._db.execute("insert or ignore into waiting values (?, ?)", (session.payload_id, session.encode()))
        return cursor.rowcount > 0

    def waiting(self) -> list[Envelope]:
        """Sessions that could not be judged yet, oldest first."""
        rows = self._db.execute("select envelope from waiting order by rowid").fetchall()
        return [Envelope.decode(row[0]) for row in rows]

    def stop_waiting(self, session: str) -> None:
        """The session was judged, or its run has ended."""
        self._db.execute("delete from waiting where session = ?", (session,))

    def raise_floor(self, platform: str, product: str, number: int) -> None:
        """Remember that a TCB evaluation number was accepted for a product of a kind of platform. Never goes down."""
        self._db.execute(
            "insert into evaluation values (?, ?, ?) on conflict (platform, product) "
            "do update set number = max(number, excluded.number)",
            (platform, product, number),
        )

    def floors(self, platform: str) -> dict[str, int]:
        """The highest TCB evaluation number accepted so far, by product."""
        rows = self._db.execute("select product, number from evaluation where platform = ?", (platform,))
        return {str(product): int(number) for product, number in rows.fetchall()}

    def cursor(self, name: str) -> int:
        """How far a feed was read."""
        row = self._db.execute("select value from cursor where name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def move_cursor(self, name: str, value: int) -> None:
        """Remember how far a feed was read."""
        self._db.execute(
            "insert into cursor values (?, ?) on conflict (name) do update set value = excluded.value", (name, value)
        )

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _link(previous: bytes, at: int, body: bytes) -> bytes:
    return sha256(framed(b"kakoi/decision/v1", previous, at.to_bytes(8, "big"), body))
