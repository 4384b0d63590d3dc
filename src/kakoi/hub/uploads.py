"""Uploads: whole blobs in one request, large ones in parts that may come again, in any order, over several connections.

Which parts are there is what the storage says, so an upload goes on after the death of the client, of the hub, or at another
hub with the same storage. An upload belongs to who began it: nobody can put parts into another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import sha256
from typing import Final

from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import BlobId, ObjectId
from kakoi.hub.blobs import Blobs
from kakoi.hub.budgets import Identity
from kakoi.hub.quota import Quota
from kakoi.hub.settings import Limits
from kakoi.net.answers import MAX_PARTS, PartHeld, PartsHeld

_ANSWER_SECONDS: Final = 10
"""Joining may take longer: then the client is told to ask again."""


class Uploads:
    """The uploads of one hub."""

    def __init__(self, blobs: Blobs, quota: Quota, limits: Limits) -> None:
        self._blobs, self._quota, self._limits = blobs, quota, limits
        self._joining: dict[str, asyncio.Task[None]] = {}

    async def whole(self, who: Identity, blob: BlobId, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Take a blob in one piece. Raises what ``Blobs.put`` raises, and Refused beyond the sender's quota."""
        await self._quota.reserve(who, blob, size)
        stored = False
        try:
            await self._blobs.put(blob, size, chunks)
            stored = True
        finally:
            with suppress(KakoiError):  # a count that is not settled now expires
                await asyncio.shield(self._quota.settle(who, blob, stored=stored))

    async def held(self, who: Identity, blob: BlobId, size: int) -> PartsHeld:
        """Which parts are there."""
        self._check(size)
        found = await self._blobs.parts(_name(who, blob, size))
        parts = tuple(
            PartHeld(number=n, digest=ObjectId(digest)) for n, (digest, _) in sorted(found.items())[:MAX_PARTS]
        )
        return PartsHeld(part_bytes=self._limits.part_bytes, parts=parts)

    def part_length(self, size: int, number: int) -> int:
        """Bytes that a part must have. Raises Malformed if there is no such part."""
        self._check(size)
        start = number * self._limits.part_bytes
        if not 0 <= start < size:
            raise Malformed("hub.part", "expected the number of a part of this blob, got another")
        return min(self._limits.part_bytes, size - start)

    async def part(
        self, who: Identity, blob: BlobId, size: int, number: int, digest: str, data: bytes | bytearray
    ) -> None:
        """Keep one part. Raises Malformed unless it is what was announced."""
        if sha256(data).hexdigest() != digest:
            raise Malformed("hub.blob-digest", "expected bytes with the SHA-256 in the address, got others")
        await self._quota.reserve(who, blob, size)
        await self._blobs.put_part(_name(who, blob, size), number, digest, data)

    async def join(self, who: Identity, blob: BlobId, size: int) -> bool:
        """Make the blob of its parts. False: it takes a while, ask again.

        Raises Refused if parts are missing, Malformed if the whole has another digest: then the parts are gone.
        """
        self._check(size)
        name = _name(who, blob, size)
        task = self._joining.get(name)
        if task is None:
            task = self._joining[name] = asyncio.create_task(self._join(name, who, blob, size))
            task.add_done_callback(lambda done: self._joined(name, done))
        done, _ = await asyncio.wait({task}, timeout=_ANSWER_SECONDS)
        if not done:
            return False
        task.result()
        return True

    def _joined(self, name: str, task: asyncio.Task[None]) -> None:
        """Whoever asked is told; if nobody waits any more, whoever asks next finds the blob, or the same error."""
        self._joining.pop(name, None)
        if not task.cancelled():
            task.exception()

    async def _join(self, name: str, who: Identity, blob: BlobId, size: int) -> None:
        if await self._blobs.size(blob) != size:
            parts = await self._blobs.parts(name)
            last = -(-size // self._limits.part_bytes)
            if sorted(parts) != list(range(last)) or sum(length for _, length in parts.values()) != size:
                raise Refused("hub.parts-missing", "expected every part of the blob, got fewer", hint="send the rest")
            try:
                await self._blobs.join(name, blob, size, parts)
            except Malformed:  # the parts are not this blob's, so they will never become it
                await self._blobs.discard(name)
                await self._quota.settle(who, blob, stored=False)
                raise
        await self._quota.settle(who, blob, stored=True)
        await self._blobs.discard(name)

    async def close(self) -> None:
        """Stop joining; it begins anew when somebody asks."""
        tasks, self._joining = list(self._joining.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check(self, size: int) -> None:
        most = min(self._limits.blob_bytes, MAX_PARTS * self._limits.part_bytes)
        if not 0 < size <= most:
            raise Malformed("hub.too-large", f"expected a blob of 1 to {most} bytes in parts, got another size")


def _name(who: Identity, blob: BlobId, size: int) -> str:
    return sha256(f"{who.name}\n{blob}\n{size}".encode()).hexdigest()
