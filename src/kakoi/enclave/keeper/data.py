"""From ciphertext anywhere to plaintext in sealed memory: keys from the grants, blobs from the hub, checked chunk by chunk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from kakoi.contract.approve import Agreement
from kakoi.contract.model import SealedFile
from kakoi.contract.sign import Signed
from kakoi.core.crypto import Opener, Secret
from kakoi.core.errors import Unavailable, cannot_open
from kakoi.dataset.format import DATA_KEY_BYTES, associated_data
from kakoi.dataset.open import check_data_key, open_stream
from kakoi.enclave.keeper.secret import SecretMemory
from kakoi.wire.messages import KeyGrant, grant_info

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class BlobSource(Protocol):
    """Where ciphertext comes from. Not trusted."""

    def blob(self, blob: str, *, size: int) -> Iterable[bytes]:
        """The ciphertext's bytes in order. Raises Unavailable or Refused."""
        ...


class DataKeys:
    """Opened data keys by manifest id, in secret memory of their own. Wipe them as soon as the data are decrypted."""

    __slots__ = ("_memory", "_places")

    def __init__(self, manifests: Iterable[str]) -> None:
        self._places = {identity: DATA_KEY_BYTES * place for place, identity in enumerate(manifests)}
        self._memory = SecretMemory(DATA_KEY_BYTES * len(self._places))

    def take(self, manifest: str, key: bytes) -> None:
        """Move a key here; the caller's copy is zeroed."""
        self._memory.take(self._places[manifest], key)

    @contextmanager
    def key(self, manifest: str) -> Iterator[memoryview]:
        """One key, for use at once."""
        with self._memory.part(self._places[manifest], DATA_KEY_BYTES) as view:
            yield view

    def wipe(self) -> None:
        """Zero all."""
        self._memory.wipe()

    def __enter__(self) -> DataKeys:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedObject:
    """What a data set and sealed code have in common: how they were sealed, and into which files."""

    sealed_as: str
    version: int
    commitment: bytes
    files: tuple[SealedFile, ...]


def sealed_object(agreement: Agreement, identity: str) -> SealedObject:
    """The data set or sealed code of this manifest id."""
    if identity in agreement.code:
        code = agreement.code[identity].record
        return SealedObject(
            sealed_as=code.sealed_as, version=code.version, commitment=code.key_commitment, files=code.files
        )
    data = agreement.manifests[identity].record
    return SealedObject(sealed_as=data.dataset, version=data.version, commitment=data.key_commitment, files=data.files)


def open_keys(grants: tuple[Signed[KeyGrant], ...], agreement: Agreement, opener: Opener) -> DataKeys:
    """Data keys opened with the session's key and checked against the manifests' commitments. The caller wipes them.

    Raises the opaque ``crypto.cannot-open``.
    """
    items = [(grant.record, item) for grant in grants for item in grant.record.keys]
    keys = DataKeys(item.manifest for _, item in items)
    try:
        for grant, item in items:
            info = grant_info(
                run=grant.run,
                attempt=grant.attempt,
                contract=grant.contract,
                session=grant.session,
                owner=grant.owner,
                manifest=item.manifest,
            )
            opened = opener.open(item.sealed, info=info)
            if len(opened) != DATA_KEY_BYTES:
                raise cannot_open()
            keys.take(item.manifest, opened)
            sealed = sealed_object(agreement, item.manifest)
            with keys.key(item.manifest) as key:
                check_data_key(key, commitment=sealed.commitment, dataset=sealed.sealed_as, version=sealed.version)
    except BaseException:
        keys.wipe()
        raise
    return keys


def open_file(source: BlobSource, sealed: SealedObject, file: SealedFile, data_key: Secret) -> int:
    """One file's plaintext in a sealed memfd; returns its descriptor, positioned at 0. The caller closes it.

    Every segment is checked against the manifest before it is decrypted. Raises Refused, Unavailable.
    """
    descriptor = os.memfd_create("kakoi-data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        plaintext = open_stream(
            source.blob(file.blob, size=file.size),
            data_key=data_key,
            associated_data=associated_data(sealed.sealed_as, sealed.version, file.name),
            size=file.size,
            segment_digests=file.segment_digests,
        )
        for chunk in plaintext:
            _write_all(descriptor, chunk)
        sealed_memory(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise Unavailable(
            "enclave.memory",
            "no memory for the decrypted data",
            hint="the operator can give the enclave more memory",
        ) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sealed_memory(descriptor: int) -> None:
    """Seal a memory file against writing and resizing, for ever, and go to its beginning."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
