"""The own ledger, read without changing it: what was approved, withdrawn, decided."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kakoi.broker.ledger import Ledger
from kakoi.broker.quarantine import Entry, entries_in
from kakoi.broker.releases import losses, plainly
from kakoi.core import encoding
from kakoi.party.home import PartyHome


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One line of the decision log, with its place and the hash that chains it."""

    seq: int
    hash: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What the disclosure ledger says has left from one data set."""

    runs: int
    kilobytes: int
    epsilon: str
    """Privacy loss of results with noise; empty if there were none."""


class Memory:
    """Reads the ledger of a party."""

    def __init__(self, home: PartyHome) -> None:
        self._path: Path = home.path / "ledger.sqlite"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if not self._path.exists():
            Ledger(self._path).close()
        with closing(sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as db:
            yield db

    def approved(self) -> dict[str, int]:
        """Contracts that this party approved, and when."""
        with self._open() as db:
            return dict(db.execute("select contract, at from approved").fetchall())

    def withdrawn(self) -> dict[str, int]:
        """Contracts and data sets that this party withdrew, and when."""
        with self._open() as db:
            return dict(db.execute("select object, at from withdrawn").fetchall())

    def quarantine(self) -> list[Entry]:
        """Contracts in quarantine or on the way there."""
        return entries_in(self._path)

    def decisions(self, *, run: str = "", before: int = 2**62, limit: int = 50) -> list[Decided]:
        """Decisions, newest first."""
        with self._open() as db:
            rows = db.execute("select seq, hash, body from decision where seq < ? order by seq desc", (before,))
            found: list[Decided] = []
            for seq, digest, body in rows:
                value = encoding.loads(body)
                if not run or value["run"] == run:
                    found.append(Decided(seq=seq, hash=digest.hex(), body=value))
                if len(found) >= limit:
                    break
            return found

    def left(self, dataset: str) -> Left | None:
        """What has left from a data set under all contracts; None if nothing has."""
        with self._open() as db:
            rows = db.execute(
                "select r.body from release r join released_from f on f.seq = r.seq where f.dataset = ?", (dataset,)
            )
            bodies = [encoding.loads(row[0]) for row in rows]
        if not bodies:
            return None
        told = losses(bodies)
        return Left(
            runs=len({body["run"] for body in bodies}),
            kilobytes=sum(int(body["kilobytes"]) for body in bodies),
            epsilon=plainly(told) if told else "",
        )

    def check(self) -> int:
        """How many decisions there are, after checking their whole chain. Raises Fatal if it is broken."""
        ledger = Ledger(self._path)
        try:
            return len(ledger.decisions())
        finally:
            ledger.close()
