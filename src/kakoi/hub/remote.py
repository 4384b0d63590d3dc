"""Blobs in an object store of a cloud: S3 and what speaks like it, Azure Blob Storage, Google Cloud Storage.

Bytes go there as they come, hashed on the way, in a multipart upload that is completed only after their digest was found
right, and aborted otherwise: a blob is there whole, or not at all. Nothing passes through the hub's disk.

The store is trusted for availability only, as the hub itself: who changes it makes downloads fail, and every receiver notices.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from kakoi.core.errors import Misuse, Unavailable
from kakoi.core.ids import BlobId
from kakoi.hub.blobs import MISSING, Blobs, Checked, LocalBlobs, Stored, place, unavailable
from kakoi.hub.files import disk_errors, write_whole
from kakoi.hub.settings import LOOPBACK, Settings

_MIB: Final = 1024 * 1024
_CHUNK: Final = 5 * _MIB
"""The least that S3 takes as a part of a multipart upload."""
_MOST_CHUNKS: Final = 9000
_AT_ONCE: Final = 2
_USED: Final = ".used"
"""Where empty objects say when a blob was last asked for: their own age. Stores cannot change an object's age itself."""
URL_FILE: Final = "blobs.url"
_ENDPOINTS: Final = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
}
"""Schemes, and what in the environment names another endpoint for each."""
_RETRIES: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}


class RemoteBlobs(Blobs):
    """Blobs behind a URL. The credentials are those of the environment, as the cloud's own tools take them."""

    def __init__(self, url: str, *, timeout_seconds: float = 30) -> None:
        options: Any = {
            "timeout": timedelta(seconds=timeout_seconds),
            "connect_timeout": timedelta(seconds=min(timeout_seconds, 5)),
            "allow_http": _all_loopback(urlsplit(url).scheme),
        }
        try:
            store = from_url(url, client_options=options, retry_config=_RETRIES)
        except (BaseError, ValueError) as error:
            raise Misuse(
                "hub.blobs-url",
                f"expected the address of an object store and credentials for it, got {type(error).__name__}",
                hint="s3://bucket/prefix, az://container/prefix or gs://bucket/prefix",
            ) from None
        super().__init__(store)

    def require_space(self, length: int) -> None:
        """Clouds do not tell, and grow: what bounds a party is its quota."""

    async def put(self, blob: BlobId, length: int, chunks: AsyncIterator[bytes]) -> None:
        """Straight into the store. An error after it was stored is looked into: what is there whole is stored."""
        checked = Checked(blob, length)

        async def verified() -> AsyncIterator[bytes]:
            async for chunk in chunks:
                checked.count(len(chunk))
                checked.hash(chunk)
                yield chunk
            checked.finish()

        size = max(_CHUNK, -(-length // _MOST_CHUNKS))
        try:
            await obstore.put_async(
                self._store, place(blob), verified(), use_multipart=True, chunk_size=size, max_concurrency=_AT_ONCE
            )
        except BaseError as error:
            if await self.size(blob) != length:
                raise unavailable(error) from error
        if await self.size(blob) != length:
            await self._drop(place(blob))
            raise Unavailable("hub.storage", "expected the storage to keep all of a blob, got less", hint="try again")

    async def _drop(self, path: str) -> None:
        try:
            await obstore.delete_async(self._store, path)
        except (*MISSING, BaseError):
            return

    async def _keep(self, path: str, data: bytes | bytearray) -> None:
        try:
            await obstore.put_async(self._store, path, bytes(data), use_multipart=False)
        except BaseError as error:
            raise unavailable(error) from error

    async def _renew(self, blob: BlobId) -> None:
        await self._keep(f"{_USED}/{blob}", b"")

    def stored(self) -> Iterator[Stored]:
        """With the times at which blobs were asked for."""
        used: dict[str, float] = {}
        for page in obstore.list(self._store, _USED):
            for item in page:
                used[item["path"].rpartition("/")[2]] = item["last_modified"].timestamp()
        for found in super().stored():
            last = max(found.used, used.get(found.blob, 0))
            yield Stored(path=found.path, blob=found.blob, size=found.size, used=last)

    def delete(self, stored: Stored) -> None:
        """With the note of when it was asked for."""
        super().delete(stored)
        if stored.blob:
            try:
                obstore.delete(self._store, f"{_USED}/{stored.blob}")
            except MISSING:
                return


def _all_loopback(scheme: str) -> bool:
    """True if the environment names endpoints for this scheme, all on this machine (emulators): only those may go without TLS."""
    names = _ENDPOINTS.get(scheme, ())
    named = [urlsplit(os.environ[name]).hostname for name in names if os.environ.get(name)]
    return bool(named) and all(host in LOOPBACK for host in named)


def blobs_url(settings: Settings) -> str:
    """Where a hub's blobs are: what its directory remembers, or what the settings say; empty for the directory itself.

    Raises Misuse if the two differ: blobs do not move by themselves.
    """
    path = settings.directory / URL_FILE
    with disk_errors(settings.directory):
        kept = path.read_text().strip() if path.exists() else ""
    local = settings.directory / "blobs"
    if settings.blobs and settings.blobs != kept and (kept or (local.is_dir() and any(local.glob("??/*")))):
        raise Misuse(
            "hub.blobs-moved",
            "expected the blobs to stay where this hub keeps them, got another address",
            hint=f"copy them first, then change {URL_FILE} in the hub's directory",
        )
    return settings.blobs or kept


def open_blobs(settings: Settings) -> Blobs:
    """The blobs of a hub. Raises Misuse."""
    url = blobs_url(settings)
    if not url:
        return LocalBlobs(settings.directory / "blobs", keep_free=settings.limits.free_bytes)
    if urlsplit(url).scheme not in _ENDPOINTS:
        raise Misuse(
            "hub.blobs-url",
            "expected the address of an object store, got another",
            hint="s3://bucket/prefix, az://container/prefix or gs://bucket/prefix",
        )
    made = RemoteBlobs(url)
    remember(settings.directory, url)
    return made


def remember(directory: Path, url: str) -> None:
    """Upkeep, and the next start, find the blobs without being told."""
    if not (directory / URL_FILE).exists():
        write_whole(directory / URL_FILE, url.encode() + b"\n")
