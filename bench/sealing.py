"""Sealing and reading a data set, as shares of the speed of AES-256-GCM alone on the same bytes in the same run.

What is compared is CPU work: 256 MB in memory, no disk. Raw AES-256-GCM encrypts and decrypts segments of 1 MiB. Sealing adds two
SHA-256 (file and segment), reading adds one (segment), and both copy. Ingest is a whole CSV of 1 GB, validated and sealed, against
the time that pyarrow alone takes to read its cells, and its peak memory against 300 MB.
"""

from __future__ import annotations

import hashlib
import io
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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


_SCHEMA = """
table = "encounters"
title = "Encounters"
person_column = "pid"
[columns]
pid = { type = "string" }
day = { type = "date" }
at = { type = "datetime" }
age = { type = "integer", unit = "a", min = 0, max = 120 }
sex = { type = "string", codes = ["M", "F"] }
icd = { type = "string" }
sbp = { type = "number", unit = "mm[Hg]", min = 0, max = 400 }
hba1c = { type = "number", unit = "%", missing = ["", "NA"] }
note = { type = "string" }
"""
_INGEST = """
import sys, time
from pathlib import Path
from kakoi.sdk.ingest.schema import parse_schema
from kakoi.sdk.ingest.seal import seal_dataset
schema, start = parse_schema(sys.argv[3]), time.perf_counter()
seal_dataset(Path(sys.argv[1]), schema, Path(sys.argv[2]), owner="a" * 64, data_key=bytes(32), dataset="0" * 32, version=1,
    created=0, publish_rows=False)
print(time.perf_counter() - start)
"""
_PLAIN = """
import sys, time
import pyarrow, pyarrow.csv
start = time.perf_counter()
options = pyarrow.csv.ConvertOptions(column_types={n: pyarrow.string() for n in sys.argv[2].split(",")})
for _ in pyarrow.csv.open_csv(sys.argv[1], pyarrow.csv.ReadOptions(use_threads=False), convert_options=options):
    pass
print(time.perf_counter() - start)
"""
_PEAK = """
# Not ru_maxrss: Linux carries the parent's peak over into it.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
_HEADER = "pid,day,at,age,sex,icd,sbp,hba1c,note"


def _generate(path: Path, total: int) -> None:
    """A CSV of about ``total`` bytes: 20,000 different rows, repeated."""
    pick = random.Random(1)
    rows = [
        f"P{pick.randrange(10**7):07d},20{pick.randrange(10, 25)}-{pick.randrange(1, 13):02d}-{pick.randrange(1, 29):02d},"
        f"2024-01-{pick.randrange(1, 29):02d} 1{pick.randrange(10)}:30,{pick.randrange(100)},{pick.choice('MF')},"
        f"{pick.choice(['E11.9', 'I10', 'J45.0'])},{pick.gauss(120, 20):.1f},{pick.choice(['', 'NA', '6.5'])},"
        f'"note, number {pick.randrange(10**9)} with ""quotes"""\n'
        for _ in range(20_000)
    ]
    block = "".join(rows).encode()
    with path.open("wb") as file:
        file.write(f"{_HEADER}\n".encode())
        for _ in range(total // len(block) + 1):
            file.write(block)


def _child(program: str, *arguments: str) -> tuple[float, int]:
    """Seconds and peak bytes that ``program`` reports from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program + _PEAK, *arguments], capture_output=True, text=True, check=True
    )
    seconds, kibibytes = done.stdout.split()
    return float(seconds), int(kibibytes) * 1024


def ingest(total: int = 10**9) -> list[Row]:
    """CSV of ``total`` bytes to sealed Parquet: rate against reading alone, peak memory against 300 MB."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "encounters.csv"
        _generate(path, total)
        reading, _ = _child(_PLAIN, str(path), _HEADER)
        took, peak = _child(_INGEST, str(path), str(Path(place) / "out"), _SCHEMA)
        size = path.stat().st_size
    rate = f"{size / took / 1e6:.0f} MB/s of {size / 1e9:.2f} GB CSV to sealed Parquet"
    return [
        ("ingest / reading cells with pyarrow", reading / took, rate),
        ("ingest peak memory / 300 MB", peak / 300e6, f"{peak / 1e6:.0f} MB at the highest; must stay below 1"),
    ]


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
    rows = [(name, base / took, f"{total / took / 1e9:.2f} GB/s, {what}") for name, base, took, what in times]
    return rows + ingest()


if __name__ == "__main__":
    for name, ratio, detail in run():
        print(f"{name:36} {ratio:6.3f}   {detail}")
