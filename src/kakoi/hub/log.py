"""The hub's transparency log: its key, its checkpoints, its proofs.

Entries are appended with the objects they stand for (``objects.store``). A checkpoint is signed when somebody asks and the log
has grown; it is on disk, outside the database, before anybody sees it. So at every start the database must hold at
least what was last signed, with the same root: a database put back from an older copy is found out, and the hub
stops instead of signing a second history.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_bytes
from typing import Annotated, ClassVar, Final

from sqlalchemy import Connection, insert, select

from kakoi.contract.model import LogKey
from kakoi.core.crypto import ed25519_public
from kakoi.core.encoding import sha256
from kakoi.core.errors import Fatal, Malformed, Misuse, Refused
from kakoi.core.records import Limit, Record
from kakoi.hub import schema
from kakoi.hub.database import Database, Transaction, load_nodes, load_tree
from kakoi.hub.files import read_secret, write_whole
from kakoi.net.answers import Consistency, Inclusion, LogEntries, LogEntry
from kakoi.tlog import checkpoint, merkle, note
from kakoi.tlog.checkpoint import VerifiedCheckpoint

KEY_FILE: Final = "log-key.json"
CHECKPOINT_FILE: Final = "checkpoint"
_ROLLBACK_HINT: Final = (
    "the database is older than what this log has signed: restore the newest copy; never delete the checkpoint file"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretLogKey(Record):
    """The file that holds the log's identity. Copy it to every hub of one database, and to a safe place."""

    KIND: ClassVar[str] = "kakoi/log-key/v1"
    MAX_BYTES: ClassVar[int] = 4096

    origin: Annotated[str, Limit(least=1, most=120, pattern=r"[^\s+]+\Z")]
    secret: Annotated[bytes, Limit(least=32, most=32)] = field(repr=False)

    @property
    def public(self) -> LogKey:
        """What contracts name."""
        return LogKey(origin=self.origin, ed25519=ed25519_public(self.secret))


def load_key(directory: Path, origin: str, *, fresh: bool) -> SecretLogKey:
    """The log's key; a new one only for an empty log (``fresh``). Raises Fatal if the key of a log with entries is gone."""
    path = directory / KEY_FILE
    if path.exists():
        key = SecretLogKey.decode(read_secret(path, most=SecretLogKey.MAX_BYTES))
        if origin and origin != key.origin:
            raise Misuse(
                "log.origin-changed", f"expected the log's origin to stay {key.origin}, got another in the settings"
            )
        return key
    if not fresh:
        raise Fatal(
            "log.key-missing", "expected the key of a log that has entries, got none", hint=f"restore {KEY_FILE}"
        )
    secret = token_bytes(32)
    name = origin or f"log-{sha256(ed25519_public(secret)).hex()[:16]}.kakoi.invalid"
    key = SecretLogKey(origin=note.check_name(name), secret=secret)
    write_whole(path, key.encode(), mode=0o600)
    return key


class Log:
    """The log of one database, as this process serves it."""

    def __init__(self, directory: Path, database: Database, origin: str) -> None:
        """Loads or makes the key; compares the database with the last signed checkpoint, and its log with the key. Raises Fatal."""
        self._path, self._database = directory / CHECKPOINT_FILE, database
        size = database.read_now(_size)
        self._key = load_key(directory, origin, fresh=size == 0 and not self._path.exists())
        self.key = self._key.public
        self._lock = threading.Lock()
        self._last = self._load()
        database.read_now(lambda connection: self._check(connection, self._last))
        self._claim_database()

    def _load(self) -> VerifiedCheckpoint | None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return checkpoint.verify(data, self.key)
        except (Malformed, Refused):
            raise Fatal(
                "log.checkpoint-file",
                "expected this log's last checkpoint, got something else",
                hint=f"restore {CHECKPOINT_FILE} and {KEY_FILE} from one backup",
            ) from None

    @staticmethod
    def _check(connection: Connection, last: VerifiedCheckpoint | None) -> int:
        """The log's size, if it holds what was signed last. Raises Fatal."""
        size = _size(connection)
        if last is not None and size < last.size:
            raise Fatal(
                "log.rolled-back",
                "expected the log to hold all that was signed, got fewer entries",
                hint=_ROLLBACK_HINT,
            )
        if last is not None and load_tree(connection, last.size).root != last.root:
            raise Fatal("log.rewritten", "expected the entries that were signed, got others", hint=_ROLLBACK_HINT)
        return size

    def _claim_database(self) -> None:
        identity = note.verifier_key(self.key.origin, self.key.ed25519)
        query = select(schema.meta.c.value).where(schema.meta.c.name == "log")

        def claim(transaction: Transaction) -> str:
            found = transaction.connection.execute(query).scalar()
            if found is None:
                transaction.write(insert(schema.meta), {"name": "log", "value": identity})
            return found or identity

        if self._database.write_now(claim) != identity:
            raise Fatal(
                "log.key-differs",
                "expected the key of the log in this database, got another log's",
                hint=f"copy {KEY_FILE} from the hub that made the database",
            )

    async def checkpoint(self) -> bytes:
        """The newest checkpoint, signed and on disk."""
        return await self._database.read(self._sign)

    def _sign(self, connection: Connection) -> bytes:
        with self._lock:
            if self._last is None or self._last.size != _size(connection):
                size = self._check(connection, self._last)
                root = load_tree(connection, size).root
                signed = checkpoint.sign(origin=self.key.origin, size=size, root=root, secret=self._key.secret)
                write_whole(self._path, signed)
                self._last = checkpoint.verify(signed, self.key)
            return self._last.note

    async def inclusion(self, leaf: bytes, size: int, *, vital: bool = True) -> Inclusion:
        """Index and path of a leaf hash at ``size``. Raises Refused if it is not there."""
        return await self._database.read(lambda connection: _inclusion(connection, leaf, size), vital=vital)

    async def consistency(self, old: int, new: int, *, vital: bool = True) -> Consistency:
        """Path between two sizes."""

        def prove(connection: Connection) -> Consistency:
            if not 0 <= old <= new <= _size(connection):
                raise Malformed("log.range", "expected two sizes of this log in order, got others")
            return Consistency(hashes=_proof(connection, merkle.consistency_plan(old, new)))

        return await self._database.read(prove, vital=vital)

    async def entries(self, start: int, end: int, most: int, *, vital: bool = True) -> LogEntries:
        """Entries ``[start, end)``, at most ``most``."""
        if not 0 <= start < end:
            raise Malformed("log.range", "expected a range of entries, got none")
        columns = schema.leaves.c
        query = (
            select(columns.kind, columns.object)
            .where(columns.position >= start, columns.position < min(end, start + most))
            .order_by(columns.position)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all(), vital=vital)
        return LogEntries(start=start, entries=tuple(LogEntry(kind=row.kind, id=row.object) for row in rows))


def _size(connection: Connection) -> int:
    return int(connection.execute(select(schema.head.c.size)).scalar_one())


def _proof(connection: Connection, plan: merkle.Plan) -> merkle.Proof:
    nodes = load_nodes(connection, [node for part in plan for node in part])
    return merkle.build(plan, nodes.__getitem__)


def _inclusion(connection: Connection, leaf: bytes, size: int) -> Inclusion:
    if not 0 < size <= _size(connection):
        raise Malformed("log.range", "expected a size that this log has had, got another")
    query = select(schema.leaves.c.position).where(schema.leaves.c.hash == leaf)
    index = connection.execute(query).scalar()
    if index is None or index >= size:
        raise Refused("hub.not-found", "expected an entry of the log at this size, got a hash that is none")
    return Inclusion(index=index, hashes=_proof(connection, merkle.inclusion_plan(index, size)))
