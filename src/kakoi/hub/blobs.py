"""Blobs of ciphertext, named by their SHA-256, in an object store: on disk (here) or at a cloud's (``hub.remote``).

A blob arrives beside its place, is hashed on the way, and gets its name in one step, after its digest was found right. So a
blob that can be read is whole, and was right when it came. Zero bytes are no blob.

A large blob may come in parts, in any order and over several connections; each part is checked by a digest of its own,
kept under ``.uploads/``, and all of them are hashed again when they are joined.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore

from kakoi.core.errors import KakoiError, Malformed, Refused, Unavailable
from kakoi.core.ids import BlobId
from kakoi.hub.database import storage_full
from kakoi.hub.files import TEMPORARY, disk_errors, sync_directory, translate, write_whole

_BLOCK: Final = 1024 * 1024
_RENEW_SECONDS: Final = 3600
_PLACE: Final = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})\Z")
_PART: Final = re.compile(r"([0-9]{1,6})-([0-9a-f]{64})\Z")
UPLOADS: Final = ".uploads"
MISSING: Final = (FileNotFoundError, NotFoundError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Something that takes up space: a blob, or (``blob`` is empty) what is left of an upload."""

    path: str
    blob: str
    size: int
    used: float
    """When it came or was last asked for; seconds since the epoch."""


def place(blob: BlobId) -> str:
    """Where a blob is in its store."""
    return f"{blob[:2]}/{blob}"


class Blobs(ABC):
    """The blobs of a hub in ``store``. How bytes get there for good is the subclass's."""

    def __init__(self, store: Any) -> None:
        self._store = store

    @abstractmethod
    def require_space(self, length: int) -> None:
        """Raise Unavailable unless ``length`` bytes leave enough free."""

    @abstractmethod
    async def put(self, blob: BlobId, length: int, chunks: AsyncIterator[bytes]) -> None:
        """Take ``length`` bytes and store them if their SHA-256 is ``blob``. Memory: a few megabytes.

        Raises Malformed if length or digest differ, Unavailable if the storage fails or is full.
        """

    @abstractmethod
    async def _keep(self, path: str, data: bytes | bytearray) -> None:
        """Store a few megabytes whole, or not at all."""

    @abstractmethod
    async def _renew(self, blob: BlobId) -> None:
        """Note that somebody asked for a blob."""

    async def size(self, blob: BlobId, *, renew: bool = False) -> int | None:
        """Bytes of a blob; None if it is not here. ``renew`` keeps it from being collected (``upkeep.collect``)."""
        try:
            found = await obstore.head_async(self._store, place(blob))
            if renew and time.time() - found["last_modified"].timestamp() > _RENEW_SECONDS:
                await self._renew(blob)
            return int(found["size"])
        except MISSING:
            return None
        except BaseError as error:
            raise unavailable(error) from error

    async def open(self, blob: BlobId, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes ``[start, end)`` of a blob, in blocks. The storage has answered when this returns; later it may still
        fail, or give fewer bytes than it has: then the iterator raises Unavailable.
        """
        try:
            result = await obstore.get_async(self._store, place(blob), options={"range": (start, end)})
        except MISSING:
            raise not_found() from None
        except BaseError as error:
            raise unavailable(error) from error
        return _blocks(result, end - start)

    # -- parts

    async def parts(self, upload: str) -> dict[int, tuple[str, int]]:
        """Digest and size of each part of an upload that is here."""
        found: dict[int, tuple[str, int]] = {}
        try:
            async for page in obstore.list(self._store, f"{UPLOADS}/{upload}"):
                for item in page:
                    match = _PART.match(item["path"].rpartition("/")[2])
                    if match is not None:
                        found[int(match[1])] = (match[2], int(item["size"]))
        except MISSING:
            return {}
        except BaseError as error:
            raise unavailable(error) from error
        return found

    async def put_part(self, upload: str, number: int, digest: str, data: bytes | bytearray) -> None:
        """Keep one part whose SHA-256 was found to be ``digest``."""
        await asyncio.to_thread(self.require_space, len(data))
        await self._keep(_part(upload, number, digest), data)

    async def join(self, upload: str, blob: BlobId, length: int, parts: Mapping[int, tuple[str, int]]) -> None:
        """Make the blob of all its parts, in order. Raises what ``put`` raises; the parts stay until ``discard``."""
        await self.put(blob, length, self._joined(upload, parts))

    async def _joined(self, upload: str, parts: Mapping[int, tuple[str, int]]) -> AsyncIterator[bytes]:
        for number, (digest, size) in sorted(parts.items()):
            try:
                result = await obstore.get_async(self._store, _part(upload, number, digest))
            except MISSING:
                raise Unavailable(
                    "hub.storage", "expected every part of the upload, got fewer", hint="send it again"
                ) from None
            except BaseError as error:
                raise unavailable(error) from error
            async for block in _blocks(result, size):
                yield block

    async def discard(self, upload: str) -> None:
        """Forget an upload's parts."""
        try:
            async for page in obstore.list(self._store, f"{UPLOADS}/{upload}"):
                for item in page:
                    await obstore.delete_async(self._store, item["path"])
        except (*MISSING, BaseError):
            return  # ``upkeep.collect`` will find them

    # -- upkeep, in the caller's thread

    def stored(self) -> Iterator[Stored]:
        """Everything that takes up space."""
        for page in obstore.list(self._store):
            for item in page:
                path = item["path"]
                match = _PLACE.match(path)
                if match is None and not path.startswith(f"{UPLOADS}/"):
                    continue
                used = item["last_modified"].timestamp()
                yield Stored(path=path, blob=match[2] if match else "", size=int(item["size"]), used=used)

    def delete(self, stored: Stored) -> None:
        """Give its space back."""
        try:
            obstore.delete(self._store, stored.path)
        except MISSING:
            return

    def digest(self, blob: str) -> str:
        """SHA-256 of what is stored under ``blob``. Raises Unavailable."""
        digest = hashlib.sha256()
        try:
            for block in obstore.get(self._store, place(BlobId(blob))).stream(min_chunk_size=_BLOCK):
                digest.update(block)
        except BaseError as error:
            raise unavailable(error) from error
        return digest.hexdigest()


def _part(upload: str, number: int, digest: str) -> str:
    return f"{UPLOADS}/{upload}/{number}-{digest}"


async def _blocks(result: Any, length: int) -> AsyncIterator[bytes]:
    left = length
    try:
        async for block in result.stream(min_chunk_size=_BLOCK // 4):
            data = bytes(block)[:left]
            left -= len(data)
            yield data
    except BaseError as error:
        raise unavailable(error) from error
    if left:
        raise Unavailable("hub.storage", "expected the storage to give all of a blob, got less", hint="try again")


class Checked:
    """Bytes on their way in: counted and hashed. ``finish`` says whether they are the blob that was announced."""

    def __init__(self, blob: BlobId, length: int) -> None:
        self._blob, self._length, self._received, self._digest = blob, length, 0, hashlib.sha256()

    def count(self, size: int) -> None:
        """Before anything is done with them. Raises Malformed."""
        self._received += size
        if self._received > self._length:
            raise Malformed("hub.blob-length", "expected as many bytes as announced, got more")

    def hash(self, block: bytes) -> None:
        """In order."""
        self._digest.update(block)

    def finish(self) -> None:
        """Raise Malformed unless length and digest are as announced."""
        if self._received != self._length:
            raise Malformed("hub.blob-length", "expected as many bytes as announced, got fewer")
        if self._digest.hexdigest() != self._blob:
            raise Malformed("hub.blob-digest", "expected bytes with the SHA-256 in the address, got others")


class LocalBlobs(Blobs):
    """Blobs in a directory: synced to disk before anybody hears that they are stored."""

    def __init__(self, directory: Path, *, keep_free: int) -> None:
        self._directory, self._keep_free = directory, keep_free
        with disk_errors(directory):
            directory.mkdir(exist_ok=True)
        super().__init__(LocalStore(directory))

    async def _renew(self, blob: BlobId) -> None:
        await asyncio.to_thread(os.utime, self._directory / place(blob))

    async def _keep(self, path: str, data: bytes | bytearray) -> None:
        def write() -> None:
            whole = self._directory / path
            with disk_errors(self._directory):
                whole.parent.mkdir(parents=True, exist_ok=True)
                write_whole(whole, data)

        await asyncio.to_thread(write)

    async def put(self, blob: BlobId, length: int, chunks: AsyncIterator[bytes]) -> None:
        """Into a file beside the store, then to its place."""
        await asyncio.to_thread(self.require_space, length)
        name = f"{TEMPORARY}{uuid4().hex}"
        path = self._directory / name
        try:
            await self._receive(path, Checked(blob, length), chunks)
            await obstore.rename_async(self._store, name, place(blob))
            await asyncio.to_thread(sync_directory, (self._directory / place(blob)).parent)
        except BaseError as error:
            raise unavailable(error) from error
        except OSError as error:
            raise translate(error, self._directory) from error
        finally:
            path.unlink(missing_ok=True)

    def require_space(self, length: int) -> None:
        """As the file system says."""
        with disk_errors(self._directory):
            if shutil.disk_usage(self._directory).free < length + self._keep_free:
                raise storage_full()

    async def _receive(self, path: Path, checked: Checked, chunks: AsyncIterator[bytes]) -> None:
        pending = bytearray()
        with await asyncio.to_thread(path.open, "xb") as file:

            def flush(block: bytes) -> None:
                checked.hash(block)
                file.write(block)

            async for chunk in chunks:
                checked.count(len(chunk))
                pending += chunk
                if len(pending) >= _BLOCK:
                    await asyncio.to_thread(flush, bytes(pending))
                    pending.clear()
            await asyncio.to_thread(flush, bytes(pending))
            checked.finish()
            await asyncio.to_thread(_sync, file)

    def delete(self, stored: Stored) -> None:
        """The last part takes its upload's directory with it."""
        super().delete(stored)
        if not stored.blob:
            try:
                (self._directory / stored.path).parent.rmdir()
            except OSError:
                return


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def not_found() -> Refused:
    """The one error for a blob that is not here."""
    return Refused("hub.not-found", "expected the digest of a blob that is here, got another")


@contextmanager
def storage_errors() -> Iterator[None]:
    """Errors of the storage as ours."""
    try:
        yield
    except BaseError as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> KakoiError:
    """A storage's error as ours. Its text stays out: it names addresses, and some clouds put secrets there."""
    if "no space" in str(error).lower():
        return storage_full()
    return Unavailable(
        "hub.storage", f"expected the blob storage to work, got {type(error).__name__}", hint="try again"
    )
