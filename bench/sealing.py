"""Sealing and reading a data set, as shares of the speed of AES-256-GCM alone on the same bytes in the same run.

What is compared is CPU work: 256 MB in memory, no disk. Raw AES-256-GCM encrypts and decrypts segments of 1 MiB. Sealing adds two
SHA-256 (file and segment), reading adds one (segment), and both copy.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import time
from collections.abc import Callable

from kakoi.core.crypto import AeadKey
from kakoi.dataset.format import associated_data
from kakoi.dataset.open import SealedReader, open_stream
from kakoi.dataset.seal import SealedSummary, SealingWriter, Sink

MIB = 1024 * 1024
TOTAL = 256 * MIB
WRITE = 64 * 1024
Row = tuple[str, float, str]


class _Dropped:
    """A sink that takes everything and keeps nothing: what is measured is sealing, not the allocation of a copy."""

    def write(self, data: bytes, /) -> int:
        return len(data)


def _timed(work: Callable[[], object], repeat: int = 3) -> float:
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


class _Work:
    """The same bytes, encrypted raw and sealed."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.plaintext = secrets.token_bytes(MIB) * (total // MIB)
        self.parts = [memoryview(self.plaintext)[i : i + MIB] for i in range(0, total, MIB)]
        self.key, self.associated = secrets.token_bytes(32), associated_data("0" * 32, 1, "bench")
        self.raw = AeadKey(self.key)
        self.encrypted = [self.raw.encrypt(i.to_bytes(12, "big"), part, b"") for i, part in enumerate(self.parts)]
        kept = io.BytesIO()
        self.summary = self.seal(kept)
        self.sealed = kept.getvalue()
        self.names = {
            "data_key": self.key,
            "associated_data": self.associated,
            "segment_digests": self.summary.segment_digests,
        }
        if self.read() != total or self.stream() != total:
            raise RuntimeError("the benchmark did not read what it sealed")

    def encrypt(self) -> None:
        for i, part in enumerate(self.parts):
            self.raw.encrypt(i.to_bytes(12, "big"), part, b"")

    def decrypt(self) -> None:
        for i, part in enumerate(self.encrypted):
            self.raw.decrypt(i.to_bytes(12, "big"), part, b"")

    def digest(self) -> None:
        hashlib.sha256(self.plaintext).digest()

    def seal(self, sink: Sink) -> SealedSummary:
        salt = secrets.token_bytes(32)
        with SealingWriter(
            sink, data_key=self.key, associated_data=self.associated, salt=salt, nonce_prefix=bytes(7)
        ) as writer:
            for part in self.parts:
                for i in range(0, MIB, WRITE):
                    writer.write(part[i : i + WRITE])
        return writer.summary

    def read(self) -> int:
        reader = SealedReader(io.BytesIO(self.sealed), size=len(self.sealed), **self.names)
        return sum(len(part) for part in iter(lambda: reader.read(MIB), b""))

    def stream(self) -> int:
        chunks = (self.sealed[i : i + WRITE] for i in range(0, len(self.sealed), WRITE))
        return sum(len(part) for part in open_stream(chunks, size=len(self.sealed), **self.names))


def run(total: int = TOTAL) -> list[Row]:
    """Name, speed relative to raw AES-256-GCM (1.0 is as fast), and detail."""
    work = _Work(total)
    encrypting, decrypting, hashing = _timed(work.encrypt), _timed(work.decrypt), _timed(work.digest)
    sealing, reading, streaming = _timed(lambda: work.seal(_Dropped())), _timed(work.read), _timed(work.stream)
    times = [
        ("sealing / raw AES-256-GCM", encrypting, sealing, "64 KiB writes; two SHA-256 take most of it"),
        ("reading / raw AES-256-GCM", decrypting, reading, "1 MiB reads; one SHA-256 takes most of it"),
        ("streaming / raw AES-256-GCM", decrypting, streaming, "64 KiB chunks; one SHA-256 takes most of it"),
        ("sealing / two SHA-256", 2 * hashing, sealing, "the floor of this format: file and chunk digests"),
        ("reading / one SHA-256", hashing, reading, "the floor of this format: chunk digests"),
    ]
    return [(name, base / took, f"{total / took / 1e9:.2f} GB/s, {what}") for name, base, took, what in times]


if __name__ == "__main__":
    for name, ratio, detail in run():
        print(f"{name:36} {ratio:6.3f}   {detail}")
