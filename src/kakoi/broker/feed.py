"""The ledger's decisions, approvals and withdrawals as events, each once, whatever crashes when.

The ledger is what counts; the stream is derived from it. So nothing that decides knows of events, and a broker killed between a
decision and its event writes the event when it is started again.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kakoi.core import encoding
from kakoi.guard.happening import Happening
from kakoi.guard.hours import Hours
from kakoi.guard.stream import Stream

PAGE: Final = 500
_ANSWERS: Final = frozenset({"challenge", "grant", "lease", "denial"})
_HEX: Final = re.compile(r"(?:[0-9a-f]{2}){1,256}\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}\Z")
_PREFERRED: Final = (
    "measurement.mrenclave",
    "measurement.mrtd",
    "measurement.measurement",
    "measurement.launch-digest",
)
"""Which of a platform's measurements names the code; else the first."""


def ledger_feed(path: Path, hours: Hours | None) -> Callable[[Stream], None]:
    """What brings everything new in the ledger at ``path`` into a stream."""

    def feed(stream: Stream) -> None:
        if not path.exists():
            return
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
            for table, what in (("approved", "contract.approved"), ("withdrawn", "contract.withdrawn")):
                _consents(db, stream, table, what)
            _quarantine(db, stream)
            while _decisions(db, stream, hours):
                pass

    return feed


def has_history(path: Path) -> bool:
    """Whether a ledger holds decisions already."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
        known = db.execute("select 1 from sqlite_master where name = 'decision'").fetchone()
        return known is not None and db.execute("select 1 from decision limit 1").fetchone() is not None


def _consents(db: sqlite3.Connection, stream: Stream, table: str, what: str) -> None:
    column = {"approved": "contract", "withdrawn": "object"}[table]
    after = stream.cursor(f"ledger.{table}")
    query = f"select rowid, {column}, at from {table} where rowid > ? order by rowid"  # noqa: S608 - names of our own
    rows = db.execute(query, (after,)).fetchall()
    found = [
        Happening(what=what, at=at, component="broker", outcome="success", subject=subject) for _, subject, at in rows
    ]
    if found:
        stream.append(*found, moved={f"ledger.{table}": (after, rows[-1][0])})


def _quarantine(db: sqlite3.Connection, stream: Stream) -> None:
    if db.execute("select 1 from sqlite_master where name = 'quarantine_event'").fetchone() is None:
        return  # a ledger of an earlier version that no broker has opened yet
    after = stream.cursor("ledger.quarantine")
    query = "select number, contract, what, at from quarantine_event where number > ? order by number"
    rows = db.execute(query, (after,)).fetchall()
    found = [
        Happening(
            what="contract.quarantine",
            at=at,
            component="broker",
            outcome="success" if what in ("cleared", "lifted") else "failure",
            operation=what,
            code=f"quarantine.{what}",
            contract=contract,
        )
        for _, contract, what, at in rows
    ]
    if found:
        stream.append(*found, moved={"ledger.quarantine": (after, rows[-1][0])})


def _decisions(db: sqlite3.Connection, stream: Stream, hours: Hours | None) -> int:
    after = stream.cursor("ledger.decision")
    rows = db.execute(
        "select d.seq, d.body from decision d where d.seq > ? order by d.seq limit ?", (after, PAGE)
    ).fetchall()
    found = []
    for _, body in rows:
        decision = encoding.loads(body)
        row = db.execute("select contract from run where run = ?", (decision["run"],)).fetchone()
        found.append(happening_of(decision, contract=row[0] if row else None, hours=hours))
    if found:
        stream.append(*found, moved={"ledger.decision": (after, rows[-1][0])})
    return len(rows)


def happening_of(decision: Any, *, contract: str | None = None, hours: Hours | None = None) -> Happening:
    """A line of the decision log as a happening: its ids, code and step. No message, and nothing of the checks but what was measured."""
    base = decision["step"].partition(".")[0]
    checks = {check["name"]: check for check in decision["checks"]}
    marks = ["not-protected-by-hardware"] if "hardware" in checks else []
    if base == "grant" and hours is not None and not hours.inside(decision["at"]):
        marks.append("outside-hours")
    made = Happening(
        what=f"broker.{base}" if base in _ANSWERS else "broker.note",
        at=decision["at"],
        component="broker",
        outcome="success" if decision["outcome"] == "yes" else "failure",
        operation=base,
        code=decision["code"] or None,
        attempt=decision["attempt"],
        measurement=_measured(checks),
        failed=tuple(
            dict.fromkeys(name for name, c in checks.items() if c["outcome"] == "failed" and _NAME.match(name))
        )[:64],
        marks=tuple(marks),
    )
    run = decision["run"]
    return replace(made, run=run or None, contract=contract)  # type: ignore[arg-type]


def _measured(checks: dict[str, Any]) -> str | None:
    names = [name for name in checks if name.startswith("measurement.")]
    chosen = next((name for name in _PREFERRED if name in checks), names[0] if names else "")
    got = checks[chosen]["got"] if chosen else ""
    return got if _HEX.match(got) else None
