"""Blobs of ciphertext, named by their SHA-256, in an object store.

A blob arrives in a file of its own beside the store, is hashed on the way, synced, and then moved to its place in one step. So a
blob that can be read is whole, and its digest was right when it came. Zero bytes are no blob.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore

from kakoi.core.errors import KakoiError, Malformed, Refused, Unavailable
from kakoi.core.ids import BlobId
from kakoi.hub.database import storage_full
from kakoi.hub.files import TEMPORARY, disk_errors, sync_directory, translate

_BLOCK: Final = 1024 * 1024
_RENEW_SECONDS: Final = 3600


def _place(blob: BlobId) -> str:
    return f"{blob[:2]}/{blob}"


class Blobs:
    """The hub's blobs, in ``directory``."""

    def __init__(self, directory: Path, *, keep_free: int) -> None:
        self._directory, self._keep_free = directory, keep_free
        with disk_errors(directory):
            directory.mkdir(exist_ok=True)
        self._store = LocalStore(directory)

    async def size(self, blob: BlobId, *, renew: bool = False) -> int | None:
        """Bytes of a blob; None if it is not here. ``renew`` keeps it from being collected (``upkeep.collect``)."""
        try:
            found = await obstore.head_async(self._store, _place(blob))
            if renew and time.time() - found["last_modified"].timestamp() > _RENEW_SECONDS:
                await asyncio.to_thread(os.utime, self._directory / _place(blob))
            return int(found["size"])
        except (FileNotFoundError, NotFoundError):
            return None
        except BaseError as error:
            raise _unavailable(error) from error

    async def put(self, blob: BlobId, length: int, chunks: AsyncIterator[bytes]) -> None:
        """Take ``length`` bytes and store them if their SHA-256 is ``blob``. Memory: a megabyte or two.

        Raises Malformed if length or digest differ, Unavailable if the disk is full.
        """
        await asyncio.to_thread(self.require_space, length)
        name = f"{TEMPORARY}{uuid4().hex}"
        path = self._directory / name
        try:
            await self._receive(path, blob, length, chunks)
            await obstore.rename_async(self._store, name, _place(blob))
            await asyncio.to_thread(sync_directory, (self._directory / _place(blob)).parent)
        except BaseError as error:
            raise _unavailable(error) from error
        except OSError as error:
            raise translate(error, self._directory) from error
        finally:
            path.unlink(missing_ok=True)

    def require_space(self, length: int) -> None:
        """Raise Unavailable unless ``length`` bytes leave enough free."""
        with disk_errors(self._directory):
            if shutil.disk_usage(self._directory).free < length + self._keep_free:
                raise storage_full()

    async def _receive(self, path: Path, blob: BlobId, length: int, chunks: AsyncIterator[bytes]) -> None:
        digest, received, pending = hashlib.sha256(), 0, bytearray()
        with await asyncio.to_thread(path.open, "xb") as file:

            def flush(block: bytes) -> None:
                digest.update(block)
                file.write(block)

            async for chunk in chunks:
                received += len(chunk)
                if received > length:
                    raise Malformed("hub.blob-length", "expected as many bytes as announced, got more")
                pending += chunk
                if len(pending) >= _BLOCK:
                    await asyncio.to_thread(flush, bytes(pending))
                    pending.clear()
            await asyncio.to_thread(flush, bytes(pending))
            if received != length:
                raise Malformed("hub.blob-length", "expected as many bytes as announced, got fewer")
            if digest.hexdigest() != blob:
                raise Malformed("hub.blob-digest", "expected bytes with the SHA-256 in the address, got others")
            await asyncio.to_thread(_sync, file)

    async def read(self, blob: BlobId, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``[start, end)`` of a blob, in blocks."""
        try:
            result = await obstore.get_async(self._store, _place(blob), options={"range": (start, end)})
            async for block in result.stream(min_chunk_size=_BLOCK // 4):
                yield bytes(block)
        except (FileNotFoundError, NotFoundError):
            raise not_found() from None
        except BaseError as error:
            raise _unavailable(error) from error


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def not_found() -> Refused:
    """The one error for a blob that is not here."""
    return Refused("hub.not-found", "expected the digest of a blob that is here, got another")


def _unavailable(error: Exception) -> KakoiError:
    if "no space" in str(error).lower():
        return storage_full()
    return Unavailable(
        "hub.storage", f"expected the blob storage to work, got {type(error).__name__}", hint="try again"
    )
