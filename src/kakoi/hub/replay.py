"""No signed request is taken twice: every nonce is remembered until its signature has expired.

A hub with its own directory keeps them in a small SQLite file beside its database, without waiting for the disk: what a
power failure loses has expired before the machine is back. Several hubs on one PostgreSQL share a table there, which
is not logged either. Both are bounded, and full means that requests are refused, not that nonces are forgotten.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import text

from kakoi.core.encoding import sha256
from kakoi.core.errors import Fatal, Refused, Unavailable
from kakoi.hub.database import Database

NONCES_FILE: Final = "nonces.sqlite"
MOST_NONCES: Final = 2_000_000
_PRUNE_SECONDS: Final = 10
_SHARED_MARGIN: Final = 600
"""Hubs on one database may disagree about the time by so many seconds."""
_FILE_TABLES: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=OFF",
    "CREATE TABLE IF NOT EXISTS nonces (id BLOB PRIMARY KEY, expires INTEGER, at INTEGER) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER)",
    "INSERT OR IGNORE INTO clock VALUES (1, 0)",
)
_SHARED_TABLE: Final = (
    "CREATE UNLOGGED TABLE IF NOT EXISTS hub_nonces (id bytea PRIMARY KEY, expires bigint NOT NULL, at bigint NOT NULL)"
)
_SHARED_INSERT: Final = text(
    "INSERT INTO hub_nonces SELECT unnest(CAST(:ids AS bytea[])), unnest(CAST(:expires AS bigint[])), :at"
    " ON CONFLICT DO NOTHING RETURNING id"
)


class SteadyClock:
    """The time by which signatures are judged, in seconds since the epoch: it starts at the machine's, and then only advances.

    If it could go back, a signature that had expired, and whose nonce was forgotten, would be good again.
    """

    def __init__(self, start: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._start, self._begun, self._monotonic = start, monotonic(), monotonic

    def __call__(self) -> int:
        """Seconds since the epoch."""
        return int(self._start + self._monotonic() - self._begun)


class Nonces(Protocol):
    """Where nonces are remembered."""

    async def use(self, keyid: str, nonce: str, *, expires: int, now: int) -> None:
        """Remember a nonce of this key. Raises Refused ``hub.replay`` if it was used, Unavailable if there is no room."""
        ...

    def latest(self) -> int:
        """The latest ``now`` that anybody used: a clock must not start before it."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def _identity(keyid: str, nonce: str) -> bytes:
    return sha256(keyid.encode(), b"\0", nonce.encode())[:16]


def _replayed() -> Refused:
    return Refused(
        "hub.replay",
        "expected a request that was not sent before, got one whose nonce was used",
        hint="a client signs every request anew; somebody may be repeating what they overheard",
    )


def _full() -> Unavailable:
    return Unavailable("hub.busy", "expected room to remember one more request, got none", hint="try again later")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
            raise Fatal(
                "hub.nonces-damaged",
                f"expected a sound file {NONCES_FILE}, got a damaged one",
                hint="stop the hub, wait five minutes, delete the file, start again",
            ) from error
        raise Unavailable("hub.database", f"expected to remember a request, got {name}", hint="try again") from error


class FileNonces:
    """Nonces of the one hub that holds a directory."""

    def __init__(self, path: Path, *, most: int = MOST_NONCES) -> None:
        self._most, self._prune_at = most, 0
        self._overflow: dict[bytes, int] = {}
        """Nonces that the full disk has no room for: a restart forgets them, which is better than a hub that answers nobody."""
        with _translated():
            self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for statement in _FILE_TABLES:
                self._file.execute(statement)
            self._count = int(self._file.execute("SELECT count(*) FROM nonces").fetchone()[0])

    async def use(self, keyid: str, nonce: str, *, expires: int, now: int) -> None:
        """Some 20 microseconds: not worth a thread."""
        identity = _identity(keyid, nonce)
        with _translated():
            if now >= self._prune_at:
                self._prune(now)
            if self._count + len(self._overflow) >= self._most:
                raise _full()
            if identity in self._overflow or not self._insert(identity, expires, now):
                raise _replayed()

    def _insert(self, identity: bytes, expires: int, now: int) -> int:
        """1 if it is new, else 0."""
        try:
            done = self._file.execute("INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)", (identity, expires, now))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_FULL":
                raise
            if self._file.execute("SELECT 1 FROM nonces WHERE id = ?", (identity,)).fetchone() is not None:
                return 0
            self._overflow[identity] = expires
            return 1
        self._count += done.rowcount
        return done.rowcount

    def _prune(self, now: int) -> None:
        self._prune_at = now + _PRUNE_SECONDS
        self._overflow = {identity: expires for identity, expires in self._overflow.items() if expires > now}
        try:
            self._forget(now)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_FULL":
                raise

    def _forget(self, now: int) -> None:
        self._file.execute("UPDATE clock SET at = max(at, ?)", (now,))
        self._count -= self._file.execute("DELETE FROM nonces WHERE expires <= ?", (now,)).rowcount

    def latest(self) -> int:
        """From the rows, and from the clock that outlives them."""
        with _translated():
            query = "SELECT max(at) FROM (SELECT at FROM nonces UNION ALL SELECT at FROM clock)"
            return int(self._file.execute(query).fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):
            self._file.close()


class SharedNonces:
    """Nonces of all hubs on one PostgreSQL. What arrives while a statement is under way goes together into the next."""

    def __init__(self, database: Database, *, most: int = MOST_NONCES) -> None:
        self._database, self._most, self._prune_at, self._count = database, most, 0, 0
        self._waiting: dict[bytes, tuple[int, asyncio.Future[bool]]] = {}
        self._task: asyncio.Task[None] | None = None
        database.write_now(
            lambda transaction: transaction.connection.exec_driver_sql(_SHARED_TABLE)
        )  # one hub at a time

    async def use(self, keyid: str, nonce: str, *, expires: int, now: int) -> None:
        """One of many in a statement."""
        identity = _identity(keyid, nonce)
        if identity in self._waiting:
            raise _replayed()
        if self._count >= self._most:
            raise _full()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[identity] = (expires, future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush(now))
        if not await future:
            raise _replayed()

    async def _flush(self, now: int) -> None:
        while batch := dict(self._waiting):
            ids = {"ids": list(batch), "expires": [expires for expires, _ in batch.values()], "at": now}
            try:
                new = await self._database.read(
                    lambda connection, ids=ids: {bytes(row.id) for row in connection.execute(_SHARED_INSERT, ids)}  # type: ignore[misc]
                )
                self._count += len(new)
                if now >= self._prune_at:
                    await self._prune(now)
                outcomes: dict[bytes, bool | Exception] = {identity: identity in new for identity in batch}
            except Exception as error:  # whatever it was, it goes to whoever asked
                outcomes = dict.fromkeys(batch, error)
            for identity, (_, future) in batch.items():
                del self._waiting[identity]
                _settle(future, outcomes[identity])

    async def _prune(self, now: int) -> None:
        self._prune_at = now + _PRUNE_SECONDS
        delete = text("DELETE FROM hub_nonces WHERE expires <= :before")
        before = {"before": now - _SHARED_MARGIN}
        await self._database.read(lambda connection: connection.execute(delete, before) and None)
        count = text("SELECT count(*) FROM hub_nonces")
        self._count = int(await self._database.read(lambda connection: connection.execute(count).scalar_one()))

    def latest(self) -> int:
        """Hubs on one database each go by their own clock; their margin covers the difference."""
        return 0

    def close(self) -> None:
        """The database is closed by its owner."""


def _settle(future: asyncio.Future[bool], outcome: bool | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
