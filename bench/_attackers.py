"""Attackers on loopback, in a process of their own: ``python -m bench._attackers URL SECONDS KIND… < ammunition``.

Each kind is some connections that do one thing as fast, or as slowly, as they can. They come from many address prefixes
(127.66.x.0/24), as a botnet would. At the end one line of JSON says how often each kind did its thing.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

PREFIXES: Final = 16
PIPELINED: Final = 20
ZERO: Final = "0" * 64


@dataclass(slots=True)
class Field:
    """Where, how long, and with what."""

    host: str
    port: int
    until: float
    ready: dict[str, list[bytes]]
    """Requests that are signed already, by kind of attack."""
    done: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)

    @property
    def going(self) -> bool:
        return time.monotonic() < self.until

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        source = f"127.66.{random.randrange(PREFIXES)}.{random.randrange(1, 250)}"
        return await asyncio.wait_for(
            asyncio.open_connection(self.host, self.port, local_addr=(source, 0), limit=4096), timeout=5
        )

    def next(self, kind: str) -> bytes:
        """The next request of its kind; they come round again when all are used."""
        row = self.ready[kind]
        self.used[kind] += 1
        return row[self.used[kind] % len(row)]


async def drain(reader: asyncio.StreamReader) -> None:
    """Throw answers away, until the end."""
    while await reader.read(65536):
        pass


async def send_all(place: Field, kind: str, make: Callable[[], bytes], each: int) -> None:
    """One connection after another, each sending whatever is made as fast as the hub takes it."""
    while place.going:
        with suppress(OSError, TimeoutError):
            reader, writer = await place.connect()
            reading = asyncio.create_task(drain(reader))
            try:
                while place.going and not reading.done():
                    writer.write(make())
                    await asyncio.wait_for(writer.drain(), timeout=5)
                    place.done[kind] += each
                    await asyncio.sleep(0)
            finally:
                reading.cancel()
                writer.transport.abort()
        await asyncio.sleep(0.001)


async def flood(place: Field) -> None:
    """Half signed, half not, many in one breath."""
    open_to_all = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"

    def many() -> bytes:
        return b"".join(place.next("flood") if n % 2 else open_to_all for n in range(PIPELINED))

    await send_all(place, "flood", many, PIPELINED)


async def signatures(place: Field) -> None:
    await send_all(place, "signatures", lambda: place.next("signatures"), 1)


async def log(place: Field) -> None:
    await send_all(place, "log", lambda: place.next("log"), 1)


async def keys(place: Field) -> None:
    """Names and values that all look alike, as many as fit: in queries, in heads, in bodies."""
    heads = "".join(f"X-{n}: {n << 61}\r\n" for n in range(1, 200))
    head = f"GET /v1/feed HTTP/1.1\r\nHost: x\r\n{heads}\r\n".encode()
    await send_all(place, "keys", lambda: random.choice((head, place.next("keys"))), 1)


async def bodies(place: Field) -> None:
    """Large bodies, announced and begun, and never finished."""
    while place.going:
        with suppress(OSError, TimeoutError):
            reader, writer = await place.connect()
            reading = asyncio.create_task(drain(reader))
            try:
                writer.write(place.next("bodies"))
                for _ in range(20):
                    if reading.done() or not place.going:
                        break
                    writer.write(bytes(256 * 1024))
                    await asyncio.wait_for(writer.drain(), timeout=5)
                    place.done["bodies"] += 1
                await asyncio.sleep(1)
            finally:
                reading.cancel()
                writer.transport.abort()
        await asyncio.sleep(0.01)


async def slowloris(place: Field) -> None:
    """A head that never ends."""
    while place.going:
        with suppress(OSError, TimeoutError):
            reader, writer = await place.connect()
            place.done["slowloris"] += 1
            reading = asyncio.create_task(drain(reader))
            try:
                writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n")
                while place.going and not reading.done():
                    writer.write(b"X-a: b\r\n")
                    await asyncio.sleep(1)
            finally:
                reading.cancel()
                writer.transport.abort()
        await asyncio.sleep(0.05)


async def slowread(place: Field) -> None:
    """A large answer, taken away byte by byte."""
    while place.going:
        with suppress(OSError, TimeoutError):
            reader, writer = await place.connect()
            place.done["slowread"] += 1
            try:
                writer.write(place.next("slowread"))
                while place.going and await asyncio.wait_for(reader.read(512), 5) != b"":
                    await asyncio.sleep(1)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.05)


async def churn(place: Field) -> None:
    """Connections that come and go."""
    while place.going:
        with suppress(OSError, TimeoutError):
            _, writer = await place.connect()
            writer.transport.abort()
            place.done["churn"] += 1


KINDS: Final[dict[str, tuple[Callable[[Field], Coroutine[Any, Any, None]], int]]] = {
    "flood": (flood, 64),
    "slowloris": (slowloris, 600),
    "slowread": (slowread, 150),
    "bodies": (bodies, 32),
    "signatures": (signatures, 32),
    "log": (log, 32),
    "keys": (keys, 16),
    "churn": (churn, 32),
}
"""What each attack does, and on how many connections at a time."""


async def attack(place: Field, kinds: Sequence[str]) -> None:
    """All of them until the time is over."""
    tasks = [asyncio.create_task(KINDS[kind][0](place)) for kind in kinds for _ in range(KINDS[kind][1])]
    await asyncio.wait(tasks, timeout=max(0, place.until - time.monotonic()) + 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    os.nice(10)  # elsewhere they would not take the hub's processor from it
    url, seconds, *kinds = sys.argv[1:]
    parts = urlsplit(url)
    given = json.loads(sys.stdin.read())
    ready = {kind: [item.encode("latin-1") for item in row] for kind, row in given.items()}
    until = time.monotonic() + float(seconds)
    place = Field(parts.hostname or "", parts.port or 0, until, ready)
    asyncio.run(attack(place, kinds))
    print(json.dumps(place.done))


if __name__ == "__main__":
    main()
