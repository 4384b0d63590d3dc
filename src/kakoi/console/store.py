"""The console's memory: people, devices, invitations, sessions, what they signed so far, what they were told.
SQLite in WAL mode.

*Trusted*: whoever can write this file can sign in as anybody here. Such a person still approves nothing: a party's card, which
the others hold, says whose passkeys count.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kakoi.party.files import disk_error

_SCHEMA: Final = """
create table if not exists person (id text primary key, name text not null unique, role text not null,
    created integer not null, removed integer);
create table if not exists device (credential blob primary key, person text not null references person,
    label text not null, public_key blob not null, counter integer not null, created integer not null,
    used integer, backed_up integer not null, removed integer);
create table if not exists invitation (id text primary key, token text unique, person text not null references person,
    purpose text not null, by text not null, seconded text, created integer not null, expires integer not null, used integer);
create table if not exists session (token text primary key, person text not null references person,
    credential blob not null references device, created integer not null, seen integer not null, agent text not null);
create table if not exists ceremony (challenge blob primary key, purpose text not null, about text not null,
    session text not null, expires integer not null);
create table if not exists vouched (subject text not null, credential blob not null, person text not null,
    assertion blob not null, at integer not null, primary key (subject, credential));
create table if not exists pending (subject text primary key, kind text not null, body blob not null, by text not null,
    created integer not null, done integer);
create table if not exists event (seq integer primary key, at integer not null, person text not null, what text not null,
    about text not null);
create table if not exists seen (run text primary key, at integer not null);
create table if not exists mailbox (person text primary key references person, address text not null, language text not null);
create table if not exists told (person text not null, thing text not null, at integer not null, primary key (person, thing));
create table if not exists outbox (id text primary key, person text not null, created integer not null,
    attempts integer not null, due integer not null);
"""


class Store:
    """One console's database. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
            self._db.executescript(
                "pragma journal_mode=wal; pragma synchronous=full; pragma foreign_keys=on;" + _SCHEMA
            )
        except sqlite3.OperationalError as error:
            raise disk_error(OSError(0, str(error)), path) from None
        path.chmod(0o600)
        self._lock = threading.RLock()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """The first row of a query."""
        with self._lock:
            found: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
            return found

    def run(self, query: str, *values: object) -> int:
        """Carry out one statement; how many rows it touched."""
        with self._lock:
            return self._db.execute(query, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens, or nothing."""
        with self._lock:
            self._db.execute("begin immediate")
            try:
                yield
                self._db.execute("commit")
            except BaseException:
                self._db.execute("rollback")
                raise

    def note(self, at: int, person: str, what: str, about: str = "") -> None:
        """Write down who did what."""
        self.run("insert into event (at, person, what, about) values (?, ?, ?, ?)", at, person, what, about)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()
