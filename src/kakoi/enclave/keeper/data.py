"""From ciphertext anywhere to plaintext in sealed memory: keys from the grants, blobs from the hub, checked chunk by chunk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from kakoi.contract.approve import Agreement
from kakoi.contract.model import DatasetManifest, SealedFile
from kakoi.contract.sign import Signed
from kakoi.core.crypto import SealingKey
from kakoi.core.errors import Unavailable
from kakoi.dataset.format import associated_data
from kakoi.dataset.open import check_data_key, open_stream
from kakoi.wire.messages import KeyGrant, grant_info

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class BlobSource(Protocol):
    """Where ciphertext comes from. Not trusted."""

    def blob(self, blob: str, *, size: int) -> Iterable[bytes]:
        """The ciphertext's bytes in order. Raises Unavailable or Refused."""
        ...


def open_keys(grants: tuple[Signed[KeyGrant], ...], agreement: Agreement, key: SealingKey) -> Mapping[str, bytes]:
    """Data keys by manifest id, opened with the session's key and checked against the manifests' commitments.

    Raises the opaque ``crypto.cannot-open``.
    """
    keys: dict[str, bytes] = {}
    for grant in (signed.record for signed in grants):
        for item in grant.keys:
            info = grant_info(
                run=grant.run,
                attempt=grant.attempt,
                contract=grant.contract,
                session=grant.session,
                owner=grant.owner,
                manifest=item.manifest,
            )
            data_key = key.open(item.sealed, info=info)
            manifest = agreement.manifests[item.manifest].record
            check_data_key(
                data_key, commitment=manifest.key_commitment, dataset=manifest.dataset, version=manifest.version
            )
            keys[item.manifest] = data_key
    return keys


def open_file(source: BlobSource, manifest: DatasetManifest, file: SealedFile, data_key: bytes) -> int:
    """One file's plaintext in a sealed memfd; returns its descriptor, positioned at 0. The caller closes it.

    Every segment is checked against the manifest before it is decrypted. Raises Refused, Unavailable.
    """
    descriptor = os.memfd_create("kakoi-data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        plaintext = open_stream(
            source.blob(file.blob, size=file.size),
            data_key=data_key,
            associated_data=associated_data(manifest.dataset, manifest.version, file.name),
            size=file.size,
            segment_digests=file.segment_digests,
        )
        for chunk in plaintext:
            _write_all(descriptor, chunk)
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
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


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
