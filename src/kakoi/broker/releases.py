"""The disclosure ledger: what left from an owner's data, and whose numbers they were, sealed so that only enclaves can read it.

Lies in the ledger's database and is written in its transactions. Releases are chained by hash. Whoever puts an old copy of the
database back is found out twice: by the file ``ledger.head`` beside it, and by this owner's own signed releases, which
name their place in the chain and come back through the hub and in passports.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal as Number
from pathlib import Path
from typing import Final

from kakoi.broker.decide import Spent
from kakoi.contract.rules import bounded
from kakoi.core import encoding
from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Fatal, Malformed, Refused
from kakoi.party.files import read_limited, write_private
from kakoi.wire.messages import MAX_EARLIER

SCHEMA: Final = """
create table if not exists release (seq integer primary key, run text not null, body blob not null, cohorts blob not null,
    hash blob not null);
create table if not exists released_from (seq integer not null, dataset text not null, primary key (seq, dataset));
"""
_GENESIS: Final = b"\x00" * 32
_MOST_EARLIER_BYTES: Final = 5 * 1024 * 1024
"""Of all earlier cohorts in one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One release as it is written down."""

    at: int
    run: str
    attempt: int
    contract: str
    analysis: str
    setting: str
    """Digest of analysis, parameters and the lists of opt-outs that applied (``wire.request.setting_of``)."""
    data: str
    """Which data sets stand behind it (``wire.release.data_id``)."""
    datasets: tuple[str, ...]
    """This owner's among them, in whatever version."""
    kilobytes: int
    epsilon: str
    """Privacy loss of the run; ``none`` without noise."""
    noise: str
    """What the noise belongs to; empty without."""
    cohorts: bytes

    def body(self) -> bytes:
        """Canonical JSON of everything; the sealed cohorts by their digest."""
        names = ("at", "run", "attempt", "contract", "analysis", "setting", "data", "kilobytes", "epsilon", "noise")
        value = {name: getattr(self, name) for name in names}
        return encoding.dumps({**value, "datasets": list(self.datasets), "cohorts": sha256(self.cohorts).hex()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the chain of releases ends: the number of the last one, and its hash."""

    position: int
    head: bytes

    def after(self, entry: Entry) -> Place:
        """The place of an entry behind this one."""
        return Place(position=self.position + 1, head=_link(self, entry.body()))


def _link(place: Place, body: bytes) -> bytes:
    return sha256(framed(b"kakoi/release-entry/v1", place.head, (place.position + 1).to_bytes(8, "big"), body))


def rolled_back() -> Fatal:
    """The ledger knows less than this owner has signed."""
    return Fatal(
        "ledger.rolled-back",
        "expected a ledger that knows every release this owner signed, got an earlier one",
        hint="put the newest copy back; if it is lost, withdraw the contracts over these data, seal the data anew and agree anew",
    )


class Releases:
    """The releases of one ledger. Its methods run within the ledger's transactions."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._db = database
        self._anchor = path.with_name("ledger.head")
        # The anchor first: another process may write both while this one reads.
        anchored = self._anchored()
        self._check(anchored)

    def _anchored(self) -> tuple[int, str]:
        if not self._anchor.exists():
            return 0, ""
        words = read_limited(self._anchor, limit=200).decode("ascii", "replace").split()
        if len(words) != 2 or not words[0].isdecimal():
            raise Fatal(
                "ledger.chain",
                "expected a place and a hash in ledger.head, got something else",
                hint="restore the ledger from a backup, and find out who changed it",
            )
        return int(words[0]), words[1]

    def _check(self, anchored: tuple[int, str]) -> None:
        place = Place(position=0, head=_GENESIS)
        rows = self._db.execute("select seq, body, cohorts, hash from release order by seq")
        for seq, body, cohorts, digest in rows:
            whole = isinstance(body, bytes) and isinstance(cohorts, bytes) and seq == place.position + 1
            if not whole or _link(place, body) != digest or _digest_in(body) != sha256(cohorts).hex():
                raise Fatal(
                    "ledger.chain",
                    "expected an unbroken chain of releases, got an edited or missing one",
                    hint="restore the ledger from a backup, and find out who changed it",
                )
            place = Place(position=seq, head=digest)
            if anchored[0] == seq and anchored[1] != digest.hex():
                raise rolled_back()
        if anchored[0] > place.position:
            raise rolled_back()

    def place(self) -> Place:
        """The end of the chain."""
        row = self._db.execute("select seq, hash from release order by seq desc limit 1").fetchone()
        return Place(position=row[0], head=row[1]) if row else Place(position=0, head=_GENESIS)

    def append(self, entry: Entry, place: Place) -> None:
        """Write an entry at its place. Raises Fatal if another one is there: two brokers share one ledger."""
        if self.place().after(entry) != place:
            raise Fatal("ledger.two-brokers", "expected one broker on this ledger, got two", hint="stop one of them")
        self._db.execute(
            "insert into release values (?, ?, ?, ?, ?)",
            (place.position, entry.run, entry.body(), entry.cohorts, place.head),
        )
        self._db.executemany(
            "insert into released_from values (?, ?)", [(place.position, dataset) for dataset in entry.datasets]
        )

    def anchor(self, place: Place) -> None:
        """Remember the place beside the database, after the transaction that wrote it."""
        write_private(self._anchor, f"{place.position} {place.head.hex()}\n".encode("ascii"))

    def require(self, position: int, head: str) -> None:
        """Raise Fatal unless the chain holds this release, which this owner's key has signed."""
        row = self._db.execute("select hash from release where seq = ?", (position,)).fetchone()
        if row is None or row[0].hex() != head:
            raise rolled_back()

    def entries(self) -> list[dict[str, encoding.Json]]:
        """Every release without its cohorts, oldest first."""
        return [encoding.loads(row[0]) for row in self._db.execute("select body from release order by seq")]

    def spent(self, datasets: Iterable[str], analysis: str, *, besides: str) -> Spent:
        """What other runs have used up of the budgets of these data sets; of several the most."""
        runs, kilobytes, epsilon = 0, 0, Number(0)
        noises: set[str] = set()
        for dataset in datasets:
            rows = self._db.execute(
                "select r.body from release r join released_from f on f.seq = r.seq where f.dataset = ?", (dataset,)
            )
            everything = [encoding.loads(row[0]) for row in rows]
            # Also this run's own earlier attempts: with another list of opt-outs their noise was other noise.
            told = losses(everything)
            noises |= told.keys()
            epsilon = max(epsilon, sum(told.values(), Number(0)))
            found = [item for item in everything if item["run"] != besides]
            runs = max(runs, len({item["run"] for item in found}))
            kilobytes = max(kilobytes, sum(int(item["kilobytes"]) for item in found))
        settings = {e["setting"] for e in self.entries() if e["analysis"] == analysis and e["run"] != besides}
        return Spent(
            runs=runs,
            kilobytes=kilobytes,
            epsilon=epsilon,
            noises=frozenset(noises),
            settings=frozenset(str(item) for item in settings),
        )

    def earlier(self, data: str, *, besides: str) -> tuple[bytes, ...]:
        """Sealed cohorts of other runs over the same data sets, oldest first. Raises Refused once they are too many."""
        rows = self._db.execute("select body, cohorts from release where run <> ? order by seq", (besides,))
        found = tuple(cohorts for body, cohorts in rows if encoding.loads(body)["data"] == data)
        if len(found) > MAX_EARLIER or sum(map(len, found)) > _MOST_EARLIER_BYTES:
            raise Refused(
                "ledger.full",
                "expected a ledger with room for another comparison; what left from these data earlier fills it",
                hint="the owners can agree on a new contract over newly sealed data",
            )
        return found


def losses(entries: Iterable[Mapping[str, encoding.Json]]) -> dict[str, Number]:
    """Privacy loss by noise: the same noise, drawn for the same question about the same data, tells nothing more the second time."""
    found = ((str(entry["noise"]), bounded(str(entry["epsilon"]))) for entry in entries)
    return {noise: loss for noise, loss in found if loss is not None}


def plainly(told: Mapping[str, Number]) -> str:
    """The sum of privacy losses, for people."""
    return f"{sum(told.values(), Number(0)).normalize():f}"


def _digest_in(body: bytes) -> str:
    try:
        return str(encoding.loads(body)["cohorts"])
    except (Malformed, KeyError, TypeError):
        return ""
