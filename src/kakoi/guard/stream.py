"""One party's stream of events on its own disk. SQLite in WAL mode: several programs of the party write into it.

Events and the cursors of whoever reads something else into the stream are stored in one transaction, so that a decision in the
ledger becomes an event once, whatever crashes when. Opening checks the whole chain; a break is itself an event, and writing
goes on behind it: a broker must not stop because somebody cut its log.

*Trusted*: who can write this file and has the party's keys can write another history. Who has only the file can cut events off behind the last head;
what was exported shows it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kakoi.core import encoding
from kakoi.core.crypto import Signer, VerifyingKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Fatal, Malformed, Refused, Unavailable
from kakoi.guard.chain import GENESIS, EventHead, VerifiedStream, link, open_head, sign_head, verify_stream
from kakoi.guard.happening import Component, Happening, ocsf

FILE: Final = "events.sqlite"
HEAD_EVENTS: Final = 64
"""After so many events a head is signed, whatever the time."""
HEAD_SECONDS: Final = 30
"""After so many seconds the events since the last head get one."""
_SCHEMA: Final = """
create table if not exists event (seq integer primary key, at integer not null, what text not null, line blob not null,
    hash blob not null);
create table if not exists head (size integer primary key, at integer not null, envelope blob not null);
create table if not exists cursor (name text primary key, value integer not null);
create table if not exists once (name text primary key);
create table if not exists seen (measurement text primary key);
"""


@contextmanager
def _as_ours(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable(
            "event.disk", f"could not read or write {path.name}: {error}", hint="check disk and permissions"
        ) from None
    except sqlite3.DatabaseError:
        raise Fatal(
            "event.file",
            f"expected a stream of events in {path.name}, got another file or a damaged one",
            hint="keep the file for whoever looks into it, move it away, and start again",
        ) from None


class Stream:
    """A party's stream. Without a ``signer`` (a program that has no keys) it is written and read, and gets no heads."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        component: Component,
        version: str = "",
        signer: Signer | None = None,
        now: int,
        late: bool = False,
        look: bool = True,
    ) -> None:
        """``late``: there is a history already that such a stream should have seen. Without ``look`` nothing is checked or
        written when it is opened: for those who only read.
        """
        self._path, self._name, self._component, self._version = path, name, component, version
        self._signer = signer
        self._stream = signer.verifying_key.ed25519_keyid if signer is not None else ""
        self._lock = threading.RLock()
        with _as_ours(path):
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
            try:
                self._db.executescript("pragma journal_mode=wal; pragma synchronous=normal;" + _SCHEMA)
                path.chmod(0o600)
                if look:
                    self._look(now, late=late)
            except BaseException:
                self._db.close()
                raise

    def _look(self, now: int, *, late: bool) -> None:
        """Check the chain, and say what is wrong with it; begin a stream that is empty."""
        bad = self._first_break()
        if bad:
            broken = self._happening("stream.broken", now, outcome="failure", code="event.altered")
            self.append(replace(broken, attempt=min(bad, 2**31)), once=f"broken:{bad}")
        elif self.size == 0:
            marks = ("late",) if late else ()
            self.append(replace(self._happening("stream.begun", now), marks=marks), once="begun")

    def _happening(self, what: str, now: int, **more: Any) -> Happening:
        return Happening(what=what, at=now, component=self._component, **{"outcome": "success", **more})

    def _first_break(self) -> int:
        """The number of the first event that does not follow from the one before; 0 if all do."""
        digest, number = GENESIS, 0
        rows = self._db.execute("select seq, line, hash from event order by seq")
        for number, (seq, line, stored) in enumerate(rows, start=1):
            whole = isinstance(line, bytes) and seq == number
            if not whole or link(digest, line) != stored or f'"previous":"{digest.hex()}"'.encode() not in line:
                return number
            digest = stored
        return self._first_against_heads(number)

    def _first_against_heads(self, size: int) -> int:
        """Where the events stop being those that the newest head names: whoever has the file can chain others, not sign them."""
        row = self._db.execute("select size, envelope from head order by size desc limit 1").fetchone()
        if row is None:
            # A party signs at the 64th event; a long stream without any head has lost them.
            return 1 if self._signer is not None and size > 4 * HEAD_EVENTS else 0
        try:
            envelope = Envelope.decode(bytes(row[1]))
            key = self._signer.verifying_key if self._signer is not None else None
            head = open_head(envelope, key) if key is not None else EventHead.decode(envelope.payload)
        except (Malformed, Refused):
            return int(row[0])
        if head.size > size:
            return size + 1
        stored = self._db.execute("select hash from event where seq = ?", (head.size,)).fetchone()
        return 0 if stored is not None and bytes(stored[0]).hex() == head.digest else head.size

    # -- writing

    def append(
        self, *happenings: Happening, moved: Mapping[str, tuple[int, int]] | None = None, once: str = ""
    ) -> bool:
        """Store events and move cursors together. False, and nothing stored, if ``once`` was stored before or a cursor
        (``moved``: name to old and new value) is no longer where the caller read from: somebody else was faster.
        """
        with self._lock, _as_ours(self._path):
            self._db.execute("begin immediate")
            try:
                fresh = all(self.cursor(name) == old for name, (old, _) in (moved or {}).items()) and self._fresh(once)
                if fresh:
                    self._write(happenings)
                    for name, (_, value) in (moved or {}).items():
                        self._db.execute("insert or replace into cursor values (?, ?)", (name, value))
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
        return fresh

    def _fresh(self, once: str) -> bool:
        return not once or self._db.execute("insert or ignore into once values (?)", (once,)).rowcount == 1

    def _write(self, happenings: Sequence[Happening]) -> None:
        # Another program of this party may have written since this one last did.
        row = self._db.execute("select seq, hash from event order by seq desc limit 1").fetchone()
        number, digest = (int(row[0]), bytes(row[1])) if row else (0, GENESIS)
        for happening in happenings:
            number += 1
            event = ocsf(
                self._enriched(happening),
                stream=self._stream,
                log_name=self._name,
                sequence=number,
                previous=digest.hex(),
                version=self._version,
            )
            line = encoding.dumps(event)
            digest = link(digest, line)
            self._db.execute(
                "insert into event values (?, ?, ?, ?, ?)", (number, happening.at, happening.what, line, digest)
            )

    def _enriched(self, happening: Happening) -> Happening:
        if happening.measurement is None:
            return happening
        known = self._db.execute("insert or ignore into seen values (?)", (happening.measurement,)).rowcount == 0
        return happening if known else replace(happening, marks=(*happening.marks, "first-seen"))

    def sign(self, now: int, *, at_once: bool = False) -> None:
        """Sign a head if there are enough events, or old enough ones, behind the last; or any, ``at_once``."""
        if self._signer is None:
            return
        with self._lock, _as_ours(self._path):
            row = self._db.execute("select seq, at, hash from event order by seq desc limit 1").fetchone()
            last = self._db.execute("select coalesce(max(size), 0), coalesce(max(at), 0) from head").fetchone()
            if row is None or row[0] <= last[0]:
                return
            if not at_once and row[0] - last[0] < HEAD_EVENTS and now - last[1] < HEAD_SECONDS:
                return
            envelope = sign_head(stream=self._stream, size=row[0], digest=row[2], at=now, signer=self._signer)
            self._db.execute("insert or ignore into head values (?, ?, ?)", (row[0], now, envelope.encode()))

    def move(self, name: str, value: int) -> None:
        """Remember how far something was read."""
        with self._lock, _as_ours(self._path):
            self._db.execute("insert or replace into cursor values (?, ?)", (name, value))

    # -- reading

    @property
    def size(self) -> int:
        """How many events there are."""
        with self._lock, _as_ours(self._path):
            return int(self._db.execute("select coalesce(max(seq), 0) from event").fetchone()[0])

    def cursor(self, name: str) -> int:
        """How far something was read; 0 at the beginning."""
        with self._lock, _as_ours(self._path):
            row = self._db.execute("select value from cursor where name = ?", (name,)).fetchone()
            return int(row[0]) if row else 0

    def lines(self, *, after: int = 0, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Events behind a number, oldest first."""
        with self._lock, _as_ours(self._path):
            query = "select seq, line from event where seq > ? order by seq limit ?"
            return [(int(seq), bytes(line)) for seq, line in self._db.execute(query, (after, limit))]

    def newest(self, *, before: int = 2**62, limit: int = 50, what: str = "") -> list[Any]:
        """Events before a number, newest first, of one kind if named."""
        with self._lock, _as_ours(self._path):
            query = "select line from event where seq < ? and (? = '' or what = ?) order by seq desc limit ?"
            rows = self._db.execute(query, (before, what, what, limit)).fetchall()
        return [encoding.loads(bytes(row[0])) for row in rows]

    def since(self, at: int) -> list[Any]:
        """Events from a time on, oldest first."""
        with self._lock, _as_ours(self._path):
            rows = self._db.execute("select line from event where at >= ? order by seq", (at,)).fetchall()
        return [encoding.loads(bytes(row[0])) for row in rows]

    def before(self, number: int, *, seconds: int) -> int:
        """The newest event that is more than ``seconds`` older than event ``number``; 0 if there is none."""
        query = (
            "select coalesce(max(seq), 0) from event where at < (select at from event where seq = ?) - ? and seq < ?"
        )
        with self._lock, _as_ours(self._path):
            return int(self._db.execute(query, (number, seconds, number)).fetchone()[0])

    def counts(self) -> dict[tuple[str, int], int]:
        """How many events of each kind and status there are."""
        query = "select what, json_extract(cast(line as text), '$.status_id'), count(*) from event group by 1, 2"
        with self._lock, _as_ours(self._path):
            return {(str(what), int(status)): int(count) for what, status, count in self._db.execute(query)}

    def alert_counts(self) -> dict[tuple[str, int], int]:
        """How many alerts there are by rule and severity."""
        query = (
            "select json_extract(cast(line as text), '$.finding_info.analytic.uid'), "
            "json_extract(cast(line as text), '$.severity_id'), count(*) from event where what = 'guard.alert' group by 1, 2"
        )
        with self._lock, _as_ours(self._path):
            return {(str(rule), int(level)): int(count) for rule, level, count in self._db.execute(query)}

    def head_lines(self, *, after: int = 0) -> list[tuple[int, bytes]]:
        """Sizes and envelopes of signed heads of more than ``after`` events, oldest first."""
        with self._lock, _as_ours(self._path):
            rows = self._db.execute("select size, envelope from head where size > ? order by size", (after,)).fetchall()
        return [(int(size), bytes(data)) for size, data in rows]

    def heads(self) -> list[Envelope]:
        """Signed heads, oldest first."""
        return [Envelope.decode(data) for _, data in self.head_lines()]

    def last_head(self) -> tuple[int, int]:
        """Size and time of the newest head; zeros if there is none."""
        with self._lock, _as_ours(self._path):
            row = self._db.execute("select size, at from head order by size desc limit 1").fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def verify(self, key: VerifyingKey) -> VerifiedStream:
        """The whole stream, checked under the party's key. Raises Malformed or Refused."""
        return verify_stream((line for _, line in self.everything()), self.heads(), key)

    def everything(self) -> Iterator[tuple[int, bytes]]:
        """All events, oldest first."""
        after = 0
        while page := self.lines(after=after, limit=5000):
            yield from page
            after = page[-1][0]

    def close(self, now: int | None = None) -> None:
        """Sign what has no head yet (if the time is given), and let go of the file."""
        if now is not None:
            self.sign(now, at_once=True)
        with self._lock:
            self._db.close()
