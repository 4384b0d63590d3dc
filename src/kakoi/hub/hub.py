"""One hub: everything that it keeps, opened in order, checked, and closed again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from secrets import SystemRandom, token_hex
from typing import Final

from sqlalchemy import select

from kakoi.core.errors import KakoiError, Misuse
from kakoi.hub import schema
from kakoi.hub.budgets import Budgets
from kakoi.hub.crowd import Crowd
from kakoi.hub.database import Database
from kakoi.hub.files import TEMPORARY, disk_errors, exclusively, read_secret, sweep, write_whole
from kakoi.hub.gauge import Gauge
from kakoi.hub.http import Budget
from kakoi.hub.identify import Authenticator
from kakoi.hub.log import Log
from kakoi.hub.networks import PartyNetworks
from kakoi.hub.notify import Notifier
from kakoi.hub.objects import Objects
from kakoi.hub.policy import SHIPPED, Policies, demands_of
from kakoi.hub.quota import Quota
from kakoi.hub.remote import open_blobs
from kakoi.hub.replay import NONCES_FILE, FileNonces, Nonces, SharedNonces, SteadyClock
from kakoi.hub.runs import Runs
from kakoi.hub.settings import Settings
from kakoi.hub.tickets import Tickets
from kakoi.hub.uploads import Uploads
from kakoi.hub.warned import Warned

DATABASE_FILE: Final = "hub.sqlite"
TOKEN_FILE: Final = "operator.token"  # noqa: S105 - a file's name
_TOKEN_LEAST: Final = 32
_TICK: Final = 1.0
_UPLOAD_TICKS: Final = 600
logger = logging.getLogger("kakoi.hub")


def wall_clock() -> int:
    """Seconds since the epoch. The hub is an edge: it owns a clock."""
    return int(time.time())


def database_url(settings: Settings) -> str:
    """Where the hub's database is."""
    return settings.database_url or f"sqlite:///{settings.directory / DATABASE_FILE}"


class Hub:
    """Open it with ``open_hub``; ``start`` and ``close`` it in an event loop."""

    def __init__(self, settings: Settings, stack: ExitStack, now: Callable[[], int]) -> None:
        limits = settings.limits
        self.settings, self.now = settings, now
        self._stack = ExitStack()
        self.database = Database(database_url(settings), queue_length=limits.queue, now=now)
        stack.callback(self.database.close)
        self.log = Log(settings.directory, self.database, settings.log_origin)
        self.blobs = open_blobs(settings)
        self.crowd = Crowd(limits, time.monotonic)
        self.budgets = Budgets(limits, time.monotonic, self.crowd.punish, hubs=settings.hubs)
        self.policies = Policies(settings.policies or SHIPPED, now, demands=demands_of(settings))
        self.warned = Warned(settings.directory, settings.allow, now)
        self.objects = Objects(self.database, self.budgets, limits, self.policies, self.warned)
        self.networks = PartyNetworks(self.database)
        self.quota = Quota(self.database, limits)
        self.parts = Uploads(self.blobs, self.quota, limits)
        self.runs = Runs(self.database, limits.claim_seconds)
        self.notifier = Notifier(limits.waiters, reserve=limits.reserve)
        self.database.on_news = self.notifier.publish
        self.requests = Budget(limits.requests, "requests", reserve=limits.reserve_requests)
        self.uploads = Budget(limits.uploads, "uploads", reserve=limits.reserve)
        self.downloads = Budget(limits.downloads, "downloads", reserve=limits.reserve)
        self.memory = Budget(limits.object_bytes_in_flight, "objects at the same time", reserve=limits.reserve)
        operator_token = _operator_token(settings)
        self.authenticator = self._authenticator(stack, operator_token)
        self.tickets = Tickets(operator_token, now)
        self.gauge = Gauge(limits, SystemRandom().random)
        self._tasks: list[asyncio.Task[None]] = []

    def keep(self, stack: ExitStack) -> None:
        """Take over what must be let go of at the end."""
        self._stack = stack

    def start(self) -> None:
        """Begin to write and to look after claims. Call in the event loop."""
        self.database.start()
        self._tasks = [
            asyncio.create_task(self._expire()),
            asyncio.create_task(self._watch()),
            asyncio.create_task(self.gauge.watch()),
        ]

    async def close(self) -> None:
        """Finish what was begun and let go of everything."""
        self.notifier.close()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.parts.close()
        await asyncio.to_thread(self.release)

    def release(self) -> None:
        """Let go of database and directory."""
        self._stack.close()

    def _authenticator(self, stack: ExitStack, token: bytes) -> Authenticator:
        nonces: Nonces = (
            SharedNonces(self.database)
            if self.settings.database_url.startswith("postgresql")
            else FileNonces(self.settings.directory / NONCES_FILE)
        )
        stack.callback(nonces.close)
        clock = SteadyClock(max(time.time(), nonces.latest()))
        certificates = self.settings.enclave_ca is not None
        return Authenticator(
            self.database,
            token,
            nonces,
            clock,
            self.networks,
            self.warned,
            enclaves_show_certificates=certificates,
        )

    async def health(self) -> None:
        """Raise unless the database answers."""
        await self.database.read(lambda connection: connection.execute(select(schema.head.c.seq)).scalar_one())

    async def _expire(self) -> None:
        """Once a second, claims that were not renewed go back to the queue, and the list of indicators is looked at; once in a while,
        the space of uploads comes back too.
        """
        ticks = 0
        while True:
            await asyncio.sleep(_TICK)
            try:
                await self.runs.expire()
                await self.warned.look()
                ticks += 1
                if ticks % _UPLOAD_TICKS == 1:
                    await self.quota.expire()
            except KakoiError as error:  # requests meet the same error, and stop the hub if it is Fatal
                logger.warning("%s", error)

    async def _watch(self) -> None:
        """Once a second, if anybody waits: has another hub on the same database changed anything?"""
        columns = schema.head.c
        while True:
            await asyncio.sleep(_TICK)
            if not self.notifier.waiting:
                continue
            try:
                row = await self.database.read(lambda c: c.execute(select(columns.seq, columns.change)).one())
            except KakoiError as error:
                logger.warning("%s", error)
                continue
            if (row.seq, row.change) > self.database.places or row.change > self.database.places[1]:
                self.database.places = (row.seq, row.change)
                self.notifier.wake_all()


def open_hub(settings: Settings, *, now: Callable[[], int] = wall_clock) -> Hub:
    """A hub on its directory. Raises Misuse, Unavailable or Fatal, each with what to do."""
    directory = settings.directory
    with ExitStack() as stack:
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        stack.enter_context(exclusively(directory))
        with disk_errors(directory):
            left = sweep(directory)
            if (directory / "blobs").is_dir():
                left += sweep(directory / "blobs")
        if left:
            logger.warning("deleted %d files named %s* that a crash left half-written", left, TEMPORARY)
        hub = Hub(settings, stack, now)
        hub.keep(stack.pop_all())
        return hub


def _operator_token(settings: Settings) -> bytes:
    """The operator's token from its file; made if the default file is missing."""
    path = settings.operator_token_file or settings.directory / TOKEN_FILE
    if settings.operator_token_file is None and not path.exists():
        write_whole(path, token_hex(32).encode() + b"\n", mode=0o600)
    token = read_secret(Path(path), most=4096).strip()
    if len(token) < _TOKEN_LEAST:
        raise Misuse(
            "hub.token-short", f"expected an operator's token of at least {_TOKEN_LEAST} characters, got a shorter one"
        )
    return token
