"""A secret of the data themselves: the same in every session over the same data sets, chosen by nobody alone, known to no owner alone.

It is derived from the data keys of all data sets that a run reads. Each was drawn by its owner when the data were sealed and is fixed by the
commitment in the manifest that everybody signed, so an owner cannot change its share later; each reaches the enclave anew with every
grant, so nothing has to be kept; and whoever lacks one key knows nothing about the result (HKDF, RFC 5869). Three things hang on it:
cohorts that are left in the owners' ledgers, tokens of identifiers in SQL, and the noise of differential privacy.
"""

from __future__ import annotations

import secrets
from typing import Final

from kakoi.core import crypto
from kakoi.core.encoding import framed
from kakoi.core.errors import KakoiError, Refused
from kakoi.dataset.format import DATA_KEY_BYTES
from kakoi.enclave.gate.cohorts import Cohorts
from kakoi.enclave.keeper.data import DataKeys
from kakoi.enclave.keeper.secret import SecretMemory

_BYTES: Final = 32
_NONCE: Final = 12
_LENGTH: Final = 4
_PAD: Final = 4096
"""Sealed cohorts are a multiple of this long, so that their size says little about how many they are."""


class DataSecret:
    """The secret of one run's data sets, in secret memory. Wipe it when the run ends."""

    __slots__ = ("_data", "_memory")

    def __init__(self, keys: DataKeys, manifests: tuple[str, ...], data: str) -> None:
        """``manifests``: the data sets that the run reads, whose keys are in ``keys``; ``data`` is what stands for them."""
        self._data = bytes.fromhex(data)
        self._memory = SecretMemory(_BYTES)
        ordered = sorted(manifests)
        with SecretMemory(DATA_KEY_BYTES * len(ordered)) as material:
            for place, manifest in enumerate(ordered):
                with keys.key(manifest) as key, material.part(DATA_KEY_BYTES * place, DATA_KEY_BYTES) as room:
                    room[:] = key
            with material.part(0, DATA_KEY_BYTES * len(ordered)) as whole:
                derived = crypto.hkdf_sha256(whole, salt=self._data, info=b"kakoi/data-secret/v1", length=_BYTES)
        self._memory.take(0, derived)

    @classmethod
    def drawn(cls) -> DataSecret:
        """A secret of no data, for rehearsals over invented ones."""
        made = cls.__new__(cls)
        made._data, made._memory = bytes(_BYTES), SecretMemory(_BYTES)
        made._memory.draw(0, _BYTES)
        return made

    def key(self, label: bytes, *parts: bytes) -> bytes:
        """32 bytes for one purpose. The caller wipes them."""
        with self._memory.part(0, _BYTES) as secret:
            return crypto.hkdf_sha256(secret, salt=b"", info=framed(label, *parts), length=_BYTES)

    def seal(self, cohorts: Cohorts) -> bytes:
        """Cohorts as the owners' ledgers keep them. Raises Malformed if they are too many."""
        plain = cohorts.encode()
        length = _LENGTH + len(plain)
        padded = len(plain).to_bytes(_LENGTH, "big") + plain + bytes(-length % _PAD)
        nonce = secrets.token_bytes(_NONCE)
        return nonce + crypto.aead_encrypt(self.key(b"kakoi/cohorts/v1"), nonce, padded, self._data)

    def open(self, sealed: bytes) -> Cohorts:
        """Cohorts that an enclave sealed in an earlier session. Raises Refused: what cannot be compared stops the release."""
        try:
            padded = crypto.aead_decrypt(self.key(b"kakoi/cohorts/v1"), sealed[:_NONCE], sealed[_NONCE:], self._data)
            length = int.from_bytes(padded[:_LENGTH], "big")
            return Cohorts.decode(padded[_LENGTH : _LENGTH + length])
        except KakoiError:
            raise Refused(
                "ledger.unreadable",
                "expected cohorts of earlier runs that this enclave can read, got others; nothing is released without comparing",
                hint="the owner whose ledger they come from looks into it: kakoi broker ledger",
            ) from None

    def wipe(self) -> None:
        """Zero it."""
        self._memory.wipe()
