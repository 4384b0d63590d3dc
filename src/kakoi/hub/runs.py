"""The queue of runs. An enclave claims a run for some seconds, renews while it works, and says how it ended.

A claim that is not renewed in time goes back to the queue; after five attempts the run is abandoned. Times are the hub's wall
clock. If that jumps, claims end early or late by as much, never later than the longest lease: a claim whose end
lies further away than any lease could put it has ended.
"""

from __future__ import annotations

from hmac import compare_digest
from secrets import token_hex
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, or_, select, update

from kakoi.core.encoding import sha256
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId
from kakoi.hub import schema
from kakoi.hub.concern import contracts_of, names_contract
from kakoi.hub.database import Database, Transaction
from kakoi.hub.notify import RunNews
from kakoi.net.answers import Claim, ClaimRequest, ClaimUpdate, RunItem, RunPage, RunState

MAX_ATTEMPTS: Final = 5
_ENDINGS: Final = {"done": "done", "failed": "failed"}
_runs = schema.runs.c


class Runs:
    """The hub's runs."""

    def __init__(self, database: Database, longest_lease: int) -> None:
        self._database, self._longest = database, longest_lease

    async def claim(self, request: ClaimRequest) -> Claim | None:
        """The run whose turn it is, for this enclave; None if there is none."""
        return await self._database.write(lambda transaction: self._claim(transaction, request))

    async def update(self, run: ObjectId, change: ClaimUpdate) -> RunState:
        """Renew or end a claim. Raises Refused if it is not the claim that holds the run."""
        return await self._database.write(lambda transaction: self._update(transaction, run, change))

    async def expire(self) -> None:
        """Take back what was not renewed in time."""
        if await self._database.read(lambda connection: self._late(connection, self._database.now())):
            await self._database.write(self._expire)

    async def state(self, run: ObjectId) -> RunState:
        """State and attempt. Raises Refused if there is no such run."""
        query = select(_runs.state, _runs.attempt).where(_runs.run == run)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise Refused("hub.not-found", "expected the id of a run that is here, got another")
        return RunState(state=row.state, attempt=row.attempt)

    async def page(self, *, after: int, contract: str, limit: int, reader: str = "", vital: bool = True) -> RunPage:
        """Runs whose latest change lies behind ``after``, in order of it; those that concern ``reader``, if there is one."""
        return await self._database.read(
            lambda connection: _page(connection, after, contract, limit, reader), vital=vital
        )

    def _ended(self, now: int) -> ColumnElement[bool]:
        late = or_(_runs.lease_until <= now, _runs.lease_until > now + self._longest)
        return and_(_runs.state == "claimed", late)

    def _late(self, connection: Connection, now: int) -> bool:
        return connection.execute(select(_runs.run).where(self._ended(now)).limit(1)).first() is not None

    def _expire(self, transaction: Transaction) -> None:
        rows = transaction.connection.execute(select(schema.runs).where(self._ended(transaction.now))).all()
        for row in rows:
            _change(
                transaction, row, state="queued" if row.attempt < MAX_ATTEMPTS else "abandoned", token=b"", enclave=""
            )

    def _claim(self, transaction: Transaction, request: ClaimRequest) -> Claim | None:
        self._expire(transaction)
        place = transaction.connection.execute(_next_place()).scalar()
        if place is None:
            return None
        row = transaction.connection.execute(
            select(schema.runs).where(_runs.state == "queued", _runs.seq == place)
        ).one()
        token, seconds = token_hex(32), min(request.seconds, self._longest)
        _change(
            transaction,
            row,
            state="claimed",
            attempt=row.attempt + 1,
            enclave=request.enclave,
            token=sha256(token.encode()),
            lease_seconds=seconds,
            lease_until=transaction.now + seconds,
        )
        return Claim(run=row.run, attempt=row.attempt + 1, token=token)

    def _update(self, transaction: Transaction, run: ObjectId, change: ClaimUpdate) -> RunState:
        row = transaction.connection.execute(select(schema.runs).where(_runs.run == run)).first()
        if row is None or not compare_digest(sha256(change.token.encode()), bytes(row.token)):
            raise _lost()
        ending = _ENDINGS.get(change.action)
        if ending is not None and row.state == ending:
            return RunState(state=row.state, attempt=row.attempt)  # said before
        if row.state != "claimed" or not transaction.now < row.lease_until <= transaction.now + self._longest:
            raise _lost()
        if ending is None:
            transaction.write(
                update(schema.runs).where(_runs.run == run).values(lease_until=transaction.now + row.lease_seconds)
            )
            return RunState(state="claimed", attempt=row.attempt)
        _change(transaction, row, state=ending)
        return RunState(state="done" if ending == "done" else "failed", attempt=row.attempt)


def _next_place() -> Select[tuple[int]]:
    """The place of the run whose turn it is: fair shares for contracts, and within a contract the oldest.

    First comes the contract with the fewest jobs at work, then the one whose runs were touched longest ago, then the oldest
    request: who asks for a hundred runs delays others by one job of the machine's, not by a hundred (ADR 0161).
    """
    waiting = (
        select(_runs.contract, func.min(_runs.seq).label("seq"))
        .where(_runs.state == "queued")
        .group_by(_runs.contract)
        .subquery()
    )
    at_work, served = schema.runs.alias(), schema.runs.alias()
    jobs = (
        select(func.count())
        .select_from(at_work)
        .where(at_work.c.contract == waiting.c.contract, at_work.c.state == "claimed")
        .scalar_subquery()
    )
    last = (
        select(func.coalesce(func.max(served.c.change), 0))
        .where(served.c.contract == waiting.c.contract, served.c.attempt > 0)
        .scalar_subquery()
    )
    return select(waiting.c.seq).order_by(jobs, last, waiting.c.seq).limit(1)


def _change(transaction: Transaction, row: Row[Any], *, state: str, **values: object) -> None:
    number = transaction.next_change()
    transaction.write(update(schema.runs).where(_runs.run == row.run).values(state=state, change=number, **values))
    transaction.news.append(RunNews(contract=row.contract, queued=state == "queued"))


def _lost() -> Refused:
    return Refused(
        "run.claim-lost",
        "expected the token of the claim that holds the run, got another or an expired one",
        hint="stop: another enclave may carry out this run by now",
    )


def _page(connection: Connection, after: int, contract: str, limit: int, reader: str) -> RunPage:
    last = int(connection.execute(select(schema.head.c.change)).scalar_one())
    if last <= after:
        return RunPage(items=(), next=after)
    query = select(schema.runs).where(_runs.change > after, _runs.change <= last).order_by(_runs.change).limit(limit)
    if contract:
        if reader and not names_contract(connection, reader, (contract,)):
            return RunPage(items=(), next=last)
        query = query.where(_runs.contract == contract)
    elif reader:
        query = query.where(_runs.contract.in_(contracts_of(reader)))
    items = tuple(
        RunItem(change=row.change, run=row.run, contract=row.contract, state=row.state, attempt=row.attempt)
        for row in connection.execute(query)
    )
    return RunPage(items=items, next=items[-1].change if len(items) == limit else last)
