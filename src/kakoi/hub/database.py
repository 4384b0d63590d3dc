"""The hub's database: many readers, one writer thread, one transaction for many changes.

Every change takes the row ``head`` first, so changes of all hubs on one database happen one after another. To make that
cheap, the writer takes whatever has queued up into one transaction: under load, hundreds of objects share one sync to
disk, and nobody is told "stored" before it is.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, Executable, create_engine, event, insert, inspect, make_url, select, update
from sqlalchemy.exc import DBAPIError

from kakoi.core.errors import Fatal, KakoiError, Misuse, Unavailable
from kakoi.hub import schema
from kakoi.hub.notify import News
from kakoi.tlog.merkle import CompactRange, NodeId, compact_range, cover

T = TypeVar("T")
_MIGRATION_LOCK: Final = 0x4B616B6F69
_BATCH: Final = 256
_GATHER_SECONDS: Final = 0.002
"""Under load, wait so long for company: a transaction for eight objects costs little more than one for one."""
_READERS: Final = 4
_STRANGERS: Final = 1
"""Readers besides, for whoever takes part in no run: however much they ask, nobody else waits behind their questions."""
_SQLITE_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA busy_timeout=10000",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
)


def open_engines(url: str) -> tuple[Engine, Engine]:
    """Engines to write and to read with. Raises Misuse for another kind of database."""
    parsed = make_url(url)
    # Reads are single statements, or bounded by a head that was read first, so they need no transaction around them.
    reading: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None}
    if parsed.get_backend_name() == "sqlite":
        both: dict[str, Any] = {"max_overflow": 0, "connect_args": {"check_same_thread": False}}
    elif parsed.get_backend_name() == "postgresql":
        both = {"max_overflow": 0, "pool_pre_ping": True}
    else:
        raise Misuse("hub.database-url", "expected an SQLite or PostgreSQL URL, got another database")
    writer = create_engine(parsed, pool_size=1, **both)
    reader = create_engine(parsed, pool_size=_READERS + _STRANGERS, **both, **reading)
    if parsed.get_backend_name() == "sqlite":
        _tune_sqlite(writer)
        _tune_sqlite(reader)
        _begin_immediately(writer)
    return writer, reader


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # no BEGIN by the driver's guesses
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(pragma)


def _begin_immediately(engine: Engine) -> None:
    """Take SQLite's write lock first, so that no transaction fails half-way because another took it."""

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def begin_migration(connection: Connection) -> None:
    """Keep other hubs from making or changing tables until the transaction ends."""
    if connection.dialect.name == "postgresql":  # SQLite's own lock does the same
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")


def _prepare(engine: Engine) -> None:
    """Make the tables in an empty database; refuse one of another version."""
    with engine.begin() as connection:
        begin_migration(connection)
        if not inspect(connection).has_table(schema.version.name):
            schema.metadata.create_all(connection)
            connection.execute(insert(schema.version), {"version_num": schema.VERSION})
            connection.execute(insert(schema.head), {"id": 1, "seq": 0, "change": 0, "size": 0})
        found = connection.execute(select(schema.version.c.version_num)).scalar()
    if found != schema.VERSION:
        raise Fatal(
            "hub.schema",
            f"expected a database with tables of version {schema.VERSION}, got {found}",
            hint="an older one: make a backup, then migrate it; a newer one: use the Kakoi that wrote it",
        )


@contextmanager
def translated() -> Iterator[None]:
    """Database errors as ours."""
    try:
        yield
    except DBAPIError as error:
        raise _ours(error) from error


def _ours(error: DBAPIError) -> KakoiError:
    name = getattr(error.orig, "sqlite_errorname", "") or getattr(error.orig, "sqlstate", "") or ""
    if name in ("SQLITE_FULL", "53100"):
        return storage_full()
    if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB", "XX001", "XX002"):
        return Fatal("hub.database-damaged", "expected a sound database, got a damaged one", hint="restore a backup")
    reason = name or type(error.orig).__name__
    return Unavailable("hub.database", f"expected the database to answer, got {reason}", hint="try again")


def storage_full() -> Unavailable:
    """The one error for a full disk."""
    return Unavailable(
        "hub.storage-full", "expected free space on the hub's disk, got none", hint="its operator must act"
    )


def _full() -> Unavailable:
    return Unavailable("hub.busy", "expected room in the hub's queue, got none", hint="try again later")


class Transaction:
    """One open write transaction with the head's row locked."""

    def __init__(self, connection: Connection, now: int, tree: CompactRange) -> None:
        row = connection.execute(select(schema.head).with_for_update()).one()
        self.connection, self.now = connection, now
        self._seq, self._change, self._size = int(row.seq), int(row.change), int(row.size)
        self._before = (row.seq, row.change, row.size)
        self._tree = tree
        self.news: list[News] = []
        self.writes = 0

    def write(self, statement: Executable, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ()) -> int:
        """Carry out a change; the number of rows it touched."""
        self.writes += 1
        result = self.connection.execute(statement, rows) if rows else self.connection.execute(statement)
        return int(result.rowcount)

    def next_seq(self) -> int:
        """The next place in the feed."""
        self._seq += 1
        return self._seq

    def next_change(self) -> int:
        """The next change of a run."""
        self._change += 1
        return self._change

    def append(self, leaf: bytes, *, kind: str, digest: str) -> int:
        """Append a leaf hash to the log; its position."""
        tree = self.tree
        self._tree, stored = tree.append(leaf)
        self._size = self._tree.size
        entry = {"position": tree.size, "hash": leaf, "kind": kind, "object": digest}
        self.write(insert(schema.leaves), entry)
        self.write(insert(schema.nodes), [{"id": node_number(n), "hash": h} for n, h in stored])
        return tree.size

    @property
    def tree(self) -> CompactRange:
        """The log as it stands in this transaction."""
        if self._tree.size != self._size:  # another hub appended since this one last did
            self._tree = load_tree(self.connection, self._size)
        return self._tree

    def finish(self) -> CompactRange:
        """Write the head back; the log to start the next transaction from."""
        if (self._seq, self._change, self._size) != self._before:
            self.connection.execute(update(schema.head).values(seq=self._seq, change=self._change, size=self._size))
        return self._tree

    @property
    def places(self) -> tuple[int, int]:
        """The last place in the feed and the last change of a run."""
        return self._seq, self._change


def node_number(node: NodeId) -> int:
    """The primary key of a complete subtree: position and level in one number below 2^59."""
    return node.position << 6 | node.level


def load_nodes(connection: Connection, wanted: Sequence[NodeId]) -> dict[NodeId, bytes]:
    """Stored hashes of complete subtrees, in one query. Raises Fatal if one is missing."""
    numbers = {node_number(node): node for node in wanted}
    if not numbers:
        return {}
    query = select(schema.nodes).where(schema.nodes.c.id.in_(numbers))
    found = {numbers[row.id]: bytes(row.hash) for row in connection.execute(query)}
    if len(found) != len(numbers):
        raise Fatal("log.damaged", "expected every hash of the log, got a gap", hint="restore a backup")
    return found


def load_tree(connection: Connection, size: int) -> CompactRange:
    """The log's tree at ``size`` from its stored hashes."""
    return compact_range(size, load_nodes(connection, cover(0, size)).__getitem__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    work: Callable[[Transaction], Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What became of a batch: for each job its value or error, what is new, and where the head stands."""

    outcomes: Sequence[tuple[_Job, Any, BaseException | None]]
    news: Sequence[News]
    places: tuple[int, int]


class Database:
    """Readers and the writer, for use from one event loop."""

    def __init__(self, url: str, *, queue_length: int, now: Callable[[], int]) -> None:
        self._writer_engine, self._reader_engine = open_engines(url)
        with translated():
            _prepare(self._writer_engine)
        self.now = now
        self._jobs: queue.Queue[_Job | None] = queue.Queue(queue_length)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="hub-read")
        self._strangers = ThreadPoolExecutor(_STRANGERS, thread_name_prefix="hub-read-strangers")
        self._tree = CompactRange()
        self._thread: threading.Thread | None = None
        self.on_news: Callable[[Sequence[News]], None] = lambda _: None
        self.places = (0, 0)
        """Last place in the feed and last change of a run that this process has told about."""

    def start(self) -> None:
        """Start the writer. Call in the event loop that will use it."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_for, args=(loop,), name="hub-write", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what was asked for, then let go of the database."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        self._readers.shutdown(wait=True)
        self._strangers.shutdown(wait=True)
        self._reader_engine.dispose()
        self._writer_engine.dispose()

    async def read(self, work: Callable[[Connection], T], *, vital: bool = True) -> T:
        """What ``work`` finds in one read transaction. What is not ``vital`` waits for its like, and nothing else waits for it."""
        readers = self._readers if vital else self._strangers
        return await asyncio.get_running_loop().run_in_executor(readers, self.read_now, work)

    def read_now(self, work: Callable[[Connection], T]) -> T:
        """The same, in the caller's thread."""
        with translated(), self._reader_engine.connect() as connection:
            return work(connection)

    def write_now(self, work: Callable[[Transaction], T]) -> T:
        """One change in the caller's thread, before the writer was started."""
        with translated(), self._writer_engine.begin() as connection:
            transaction = Transaction(connection, self.now(), self._tree)
            result = work(transaction)
            self._tree = transaction.finish()
        return result

    async def write(self, work: Callable[[Transaction], T], *, vital: bool = True) -> T:
        """What ``work`` returns, once its changes are on disk. ``work`` must refuse before it changes anything.

        Three quarters of the queue are for everybody, the rest for what is ``vital``.
        """
        if not vital and self._jobs.qsize() > 0.75 * self._jobs.maxsize:
            raise _full()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._jobs.put_nowait(_Job(work=work, future=future))
        except queue.Full:
            raise _full() from None
        return await future

    # -- writer thread

    def _write_for(self, loop: asyncio.AbstractEventLoop) -> None:
        busy, last = False, False
        while not last and (job := self._jobs.get()) is not None:
            batch = [job]
            if busy:
                time.sleep(_GATHER_SECONDS)
            while len(batch) < _BATCH and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    last = True
                    break
                batch.append(following)
            for done in self._run(batch):
                try:
                    loop.call_soon_threadsafe(self._deliver, done)
                except RuntimeError:
                    return  # the loop is gone, and with it everybody who waited
            busy = len(batch) > 1

    def _run(self, batch: list[_Job]) -> Iterator[_Done]:
        try:
            yield self._commit(batch)
            return
        except Exception as error:  # whatever it was, it goes to whoever asked
            if len(batch) == 1:
                yield _Done(outcomes=[(batch[0], None, error)], news=(), places=self.places)
                return
        for job in batch:
            yield from self._run([job])

    def _commit(self, batch: list[_Job]) -> _Done:
        outcomes: list[tuple[_Job, Any, BaseException | None]] = []
        with translated(), self._writer_engine.begin() as connection:
            transaction = Transaction(connection, self.now(), self._tree)
            for job in batch:
                before = transaction.writes
                try:
                    outcomes.append((job, job.work(transaction), None))
                except KakoiError as error:
                    if transaction.writes != before:
                        raise  # half a change: undo all of the batch, and do the others alone
                    outcomes.append((job, None, error))
            tree = transaction.finish()
        self._tree = tree
        return _Done(outcomes=outcomes, news=transaction.news, places=transaction.places)

    def _deliver(self, done: _Done) -> None:
        for job, value, error in done.outcomes:
            if job.future.done():
                continue
            if error is None:
                job.future.set_result(value)
            else:
                job.future.set_exception(error)
        self.places = max(self.places, done.places)
        if done.news:
            self.on_news(done.news)
