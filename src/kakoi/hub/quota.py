"""How much each party keeps here. The space of a blob is counted before its first byte is taken, in one transaction, so that
many uploads at once cannot pass a limit that each of them alone would keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update

from kakoi.core.errors import Refused
from kakoi.core.ids import BlobId
from kakoi.hub import schema
from kakoi.hub.budgets import Identity
from kakoi.hub.database import Database, Transaction
from kakoi.hub.settings import Limits

_PENDING_SECONDS: Final = 2 * 86400
"""An upload that rests for so long gives its space back; its parts are collected later (``upkeep.collect``)."""
_RENEW_SECONDS: Final = 3600
_usage = schema.usage.c
_blobs = schema.blobs.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one identity keeps, and what it may (bytes of blobs)."""

    identity: str
    blobs: int
    blob_bytes: int
    objects: int
    object_bytes: int
    most_bytes: int


class Quota:
    """The usage of all."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database, self._limits = database, limits

    async def reserve(self, who: Identity, blob: BlobId, size: int) -> None:
        """Count a blob that is about to arrive. Raises Refused if it is too much."""
        row = await self._database.read(lambda c: _row(c, who.name, blob))
        if (
            row is not None
            and not row.stored
            and row.size == size
            and row.since + _RENEW_SECONDS > self._database.now()
        ):
            return
        await self._database.write(lambda transaction: self._reserve(transaction, who, blob, size))

    def _reserve(self, transaction: Transaction, who: Identity, blob: BlobId, size: int) -> None:
        connection, row = transaction.connection, _row(transaction.connection, who.name, blob)
        before = 0 if row is None else int(row.size)
        usage = usage_of(connection, who.name, self._limits)
        if (
            usage.blob_bytes - before + size > usage.most_bytes
            or usage.blobs + (row is None) > self._limits.quota_blobs
        ):
            raise _too_much("blobs", usage.most_bytes)
        if not who.party and _strangers(connection) - before + size > self._limits.strangers_bytes:
            raise _too_much("blobs of all that do not sign their requests", self._limits.strangers_bytes)
        if row is not None:
            transaction.write(delete(schema.blobs).where(_is(who.name, blob)))
        values = {"blob": blob, "identity": who.name, "size": size, "stored": 0, "since": transaction.now}
        transaction.write(insert(schema.blobs), values)
        add(transaction, who.name, blobs=int(row is None), blob_bytes=size - before)

    async def settle(self, who: Identity, blob: BlobId, *, stored: bool) -> None:
        """The blob is stored, or will not be."""
        await self._database.write(lambda transaction: _settle(transaction, who.name, blob, stored))

    async def expire(self) -> None:
        """Give back what was counted for uploads that nobody goes on with."""
        late = and_(_blobs.stored == 0, _blobs.since < self._database.now() - _PENDING_SECONDS)
        query = select(_blobs.blob, _blobs.identity).where(late).limit(100)
        for row in await self._database.read(lambda connection: connection.execute(query).all()):
            await self._database.write(
                lambda transaction, row=row: _settle(transaction, row.identity, row.blob, False)  # type: ignore[misc]
            )


def usage_of(connection: Connection, identity: str, limits: Limits) -> Usage:
    """What somebody keeps here; zero for whoever never came."""
    row = connection.execute(select(schema.usage).where(_usage.identity == identity)).first()
    usual = limits.quota_bytes if identity.startswith("party:") else limits.stranger_bytes
    if row is None:
        return Usage(identity=identity, blobs=0, blob_bytes=0, objects=0, object_bytes=0, most_bytes=usual)
    return _of(row, usual)


def _of(row: Any, usual: int) -> Usage:
    return Usage(
        identity=row.identity,
        blobs=row.blobs,
        blob_bytes=row.blob_bytes,
        objects=row.objects,
        object_bytes=row.object_bytes,
        most_bytes=usual if row.most_bytes is None else row.most_bytes,
    )


def all_usage(connection: Connection, limits: Limits, most: int = 1000) -> list[Usage]:
    """Those who keep most come first."""
    order = (_usage.blob_bytes + _usage.object_bytes).desc()
    rows = connection.execute(select(schema.usage).order_by(order, _usage.identity).limit(most))
    return [
        _of(row, limits.quota_bytes if row.identity.startswith("party:") else limits.stranger_bytes) for row in rows
    ]


def count_object(transaction: Transaction, identity: str, size: int, limits: Limits) -> None:
    """Count an object that is about to be stored. Raises Refused if it is too much."""
    usage = usage_of(transaction.connection, identity, limits)
    if usage.objects + 1 > limits.quota_objects or usage.object_bytes + size > limits.quota_object_bytes:
        raise _too_much("objects", limits.quota_object_bytes)
    add(transaction, identity, objects=1, object_bytes=size)


def allow(connection: Connection, identity: str, most_bytes: int | None) -> None:
    """The operator's word on how much somebody may keep; None: the usual again. For a connection in a transaction."""
    if _touch(connection, identity, {"most_bytes": most_bytes}) == 0:
        connection.execute(insert(schema.usage), {**_nothing(identity), "most_bytes": most_bytes})


def forget(connection: Connection, blob: str) -> None:
    """A blob was collected: nobody keeps it any more. For a connection in a transaction."""
    for row in connection.execute(select(schema.blobs).where(_blobs.blob == blob)).all():
        connection.execute(delete(schema.blobs).where(_is(row.identity, blob)))
        changes = {"blobs": _usage.blobs - 1, "blob_bytes": _usage.blob_bytes - row.size}
        _touch(connection, row.identity, changes)


def add(transaction: Transaction, identity: str, **amounts: int) -> None:
    """Add to somebody's usage."""
    changes = {name: schema.usage.c[name] + amount for name, amount in amounts.items()}
    statement = update(schema.usage).where(_usage.identity == identity).values(changes)
    if transaction.write(statement) == 0:
        transaction.write(insert(schema.usage), {**_nothing(identity), **amounts})


def _touch(connection: Connection, identity: str, changes: Mapping[str, Any]) -> int:
    statement = update(schema.usage).where(_usage.identity == identity).values(changes)
    return int(connection.execute(statement).rowcount)


def _nothing(identity: str) -> dict[str, Any]:
    zero = dict.fromkeys(("blobs", "blob_bytes", "objects", "object_bytes"), 0)
    return {"identity": identity, **zero, "most_bytes": None}


def _settle(transaction: Transaction, identity: str, blob: str, stored: bool) -> None:
    row = _row(transaction.connection, identity, blob)
    if row is None or row.stored:
        return
    if stored:
        transaction.write(update(schema.blobs).where(_is(identity, blob)).values(stored=1, since=transaction.now))
    else:
        transaction.write(delete(schema.blobs).where(_is(identity, blob)))
        add(transaction, identity, blobs=-1, blob_bytes=-int(row.size))


def _row(connection: Connection, identity: str, blob: str) -> Any:
    return connection.execute(select(schema.blobs).where(_is(identity, blob))).first()


def _is(identity: str, blob: str) -> ColumnElement[bool]:
    return and_(_blobs.blob == blob, _blobs.identity == identity)


def _strangers(connection: Connection) -> int:
    total = select(func.coalesce(func.sum(_usage.blob_bytes), 0)).where(
        _usage.identity >= "prefix:", _usage.identity < "prefix;"
    )
    return int(connection.execute(total).scalar_one())


def _too_much(what: str, most: int) -> Refused:
    return Refused(
        "hub.quota",
        f"expected {what} of at most {most} bytes in all, and no more of them than the hub's limits say, got more",
        hint="the hub's operator can allow more (kakoi hub quota), or collect what nobody names (kakoi hub gc)",
    )
