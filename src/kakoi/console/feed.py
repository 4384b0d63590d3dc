"""What people did at the console, as events, each once; and what was refused to somebody who came to it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from kakoi.core.errors import Malformed
from kakoi.guard.happening import Happening
from kakoi.guard.stream import Stream

PAGE: Final = 500
_KINDS: Final = {
    "signed-in": "console.sign-in",
    "signed": "console.signature",
    "card-changed": "console.card",
    "invited": "console.invite",
    "enrolled": "console.enrol",
    "recovery-asked": "console.recovery",
    "recovery-agreed": "console.recovery",
    "removed": "console.remove",
    "device-removed": "console.device-removed",
}
_IN_THE_LEDGER: Final = frozenset({"approved", "withdrew"})
_NAMES: Final = frozenset({"invited", "recovery-asked", "recovery-agreed", "removed"})
"""Whose ``about`` is a person's name; in others it may be a text that somebody typed."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_SLUG: Final = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*\Z")
_ADDRESS: Final = re.compile(r"[0-9a-f.:]{2,45}\Z")
_DOOR: Final = re.compile(r"/sign-in|/enrol/")


def people_feed(path: Path) -> Callable[[Stream], None]:
    """What brings everything new in the console's own record at ``path`` into a stream."""

    def feed(stream: Stream) -> None:
        if not path.exists():
            return
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
            if db.execute("select 1 from sqlite_master where name = 'event'").fetchone() is None:
                return
            while _page(db, stream):
                pass

    return feed


def _page(db: sqlite3.Connection, stream: Stream) -> int:
    after = stream.cursor("console.event")
    query = "select seq, at, person, what, about from event where seq > ? order by seq limit ?"
    rows = db.execute(query, (after, PAGE)).fetchall()
    found = [_happening(*row[1:]) for row in rows if row[3] not in _IN_THE_LEDGER]
    if rows:
        stream.append(*found, moved={"console.event": (after, rows[-1][0])})
    return len(rows)


def _happening(at: int, person: str, what: str, about: str) -> Happening:
    given: dict[str, Any] = {"actor": named(person), "operation": what if _SLUG.match(what) else "other"}
    if _DIGEST.match(about):
        given["subject"] = about
    elif what in _NAMES:
        given["about"] = named(about)
    kind = _KINDS.get(what, "console.action")
    return Happening(what=kind, at=at, component="console", outcome="success", **given)


def named(text: str) -> str | None:
    """A name, if it is one that an event takes."""
    if not text:
        return None
    try:
        Happening(what="console.action", at=0, component="console", outcome="other", actor=text)
    except Malformed:
        return None
    return text


def refused(*, path: str, code: str, address: str, person: str | None, now: int) -> Happening:
    """Somebody was refused something: at the door a failed authentication, else an action that was not let through."""
    door = _DOOR.match(path) is not None
    return Happening(
        what="console.sign-in" if door else "console.refused",
        at=now,
        component="console",
        outcome="failure",
        code=code,
        operation="enrol" if path.startswith("/enrol") else "sign-in" if door else "page",
        actor=named(person) if person else None,
        address=address if _ADDRESS.match(address) else None,
    )


def turned_away(status: int, address: str, now: int) -> Happening:
    """A request that did not get past the perimeter: another name for this machine, another site's form, too large."""
    return Happening(
        what="console.refused",
        at=now,
        component="console",
        outcome="failure",
        code=f"console.status-{status}",
        operation="perimeter",
        address=address if _ADDRESS.match(address) else None,
    )
