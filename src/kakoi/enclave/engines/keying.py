"""Identifiers become tokens before any engine sees them: HMAC-SHA256 (RFC 2104) under a key of this run alone.

Equal identifiers have equal tokens within a run, across owners and tables, so engines can join by them and count people. The key ends with
the run: a token tells nobody anything afterwards. This runs in a sandbox of its own, for each owner's part in another one, and no
analyst's code ever runs there. What is written anew has the declared columns and no other.

An identifier's text is its one spelling: an integer without leading zeros, a date as ISO 8601, text as it stands.

Rows of people who opted out are left out in the same pass, before anything else is done with them. The rows that stay keep the numbers that
they have in the owner's file, in a column of their own: else a growing list would move rows, and cohorts of earlier runs could not be
compared with later ones, just when somebody has opted out in between.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from kakoi.core.errors import Malformed
from kakoi.dataset.opt_out import MAX_LIST_BYTES, decode_list
from kakoi.enclave.engines.frames import admits, arrow_types
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import KEYING_CHUNK, KEYING_KEY, PLACE_COLUMN, KeyingColumn, KeyingJob

TOKEN_BYTES: Final = 16
"""Of the HMAC: a collision among 2^40 identifiers has a chance of 2^-49."""
_BATCH_ROWS: Final = 1 << 17
_TAG: Final = b"kakoi/join-token/v1\x00"


def token(key: bytes, text: str) -> str:
    """The token of one identifier: 32 hex digits."""
    return hmac.digest(key, _TAG + text.encode("utf-8"), "sha256")[:TOKEN_BYTES].hex()


def tokens(column: Any, key: bytes) -> Any:
    """An Arrow array's values as tokens, computed once for each different value; missing stays missing."""
    import pyarrow as pa

    found = column.dictionary_encode()
    values = [None if value is None else token(key, _text(value)) for value in found.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(found.indices, pa.array(values, pa.string())).cast(pa.string())


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class _Chunks:
    """A file for a Parquet writer; what is written leaves as chunks behind their lengths."""

    closed = False
    mode = "wb"

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write, self._pending, self._position = write, bytearray(), 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pending += piece
        self._position += len(piece)
        while len(self._pending) >= KEYING_CHUNK:
            self._send(KEYING_CHUNK)
        return len(piece)

    def _send(self, count: int) -> None:
        piece, self._pending = bytes(self._pending[:count]), self._pending[count:]
        self._write(len(piece).to_bytes(4, "big") + piece)

    def finish(self) -> None:
        """The rest, and the empty chunk that ends the file."""
        if self._pending:
            self._send(len(self._pending))
        self._write(bytes(4))

    def tell(self) -> int:
        return self._position

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        """Chunks leave when they are full."""

    def close(self) -> None:
        """``finish`` ends the file."""


def run(job: KeyingJob, descriptors: Sequence[int], write: Callable[[bytes], None]) -> None:
    """Write each file anew. The first descriptor holds the key. Raises Stopped (``engine.part``, ``engine.failed``)."""
    import pyarrow as pa

    key = os.pread(descriptors[0], KEYING_KEY + 1, 0)
    if len(key) != KEYING_KEY or len(descriptors) != job.files + (1 if job.left_out is None else 2):
        raise Stopped("engine.failed")
    gone = None if job.left_out is None else OptedOut(job.left_out, _listed(descriptors[1]))
    for descriptor in descriptors[-job.files :]:
        try:
            _file(job, descriptor, key, gone, write)
        except (pa.ArrowMemoryError, MemoryError):
            raise Stopped("engine.failed") from None
        except (pa.ArrowException, OSError):
            raise Stopped("engine.part", job.table) from None
    if gone is not None:
        write(len(gone.count).to_bytes(4, "big") + gone.count)


def _listed(descriptor: int) -> frozenset[str]:
    try:
        return decode_list(os.pread(descriptor, MAX_LIST_BYTES + 1, 0))
    except Malformed:
        raise Stopped("engine.list") from None


class OptedOut:
    """People on a list: their rows are taken out of batches, and those found are counted once."""

    def __init__(self, column: KeyingColumn, listed: frozenset[str]) -> None:
        self.column = column
        self._listed = listed
        self._found: set[str] = set()

    def kept(self, batch: Any, kind: Any) -> Any:
        """The batch without their rows. A row that names nobody stays: it is nobody's who opted out."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = batch.column(self.column.name).cast(kind).dictionary_encode()
        texts = [None if value is None else _text(value) for value in found.dictionary.to_pylist()]
        here = [text for text in texts if text in self._listed]
        if not here:
            return batch
        self._found.update(text for text in here if text is not None)
        gone = pa.array([text in self._listed for text in texts], pa.bool_()).take(found.indices)
        return batch.filter(pc.invert(pc.fill_null(gone, False)))

    @property
    def count(self) -> bytes:
        """How many of them had rows, in 8 bytes."""
        return len(self._found).to_bytes(8, "big")


def _file(job: KeyingJob, descriptor: int, key: bytes, gone: OptedOut | None, write: Callable[[bytes], None]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = arrow_types()
    shown = {column.name: pa.string() if column.keyed else types[column.type] for column in job.columns}
    shown |= {} if gone is None else {PLACE_COLUMN: pa.int64()}
    out = _Chunks(write)
    with open(descriptor, "rb", buffering=0, closefd=False) as source, pq.ParquetFile(source) as file:
        schema = file.schema_arrow
        needed = {c.name: c for c in (*job.columns, *([gone.column] if gone is not None else []))}
        for column in needed.values():
            place = schema.get_field_index(column.name)
            if place < 0 or not admits(column.type, schema.field(place).type):
                raise Stopped("engine.part", f"{job.table}.{column.name}")
        with pq.ParquetWriter(out, pa.schema(list(shown.items())), compression="lz4") as writer:
            read = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(needed)):
                height, places = batch.num_rows, {}
                if gone is not None:
                    numbered = batch.append_column(PLACE_COLUMN, pa.arange(read, read + height))
                    batch = gone.kept(numbered, types[gone.column.type])
                    places = {PLACE_COLUMN: batch.column(PLACE_COLUMN)}
                read += height
                columns = {c.name: batch.column(c.name).cast(types[c.type]) for c in job.columns}
                keyed = {c.name: tokens(columns[c.name], key) for c in job.columns if c.keyed}
                writer.write_table(pa.table(columns | keyed | places))
    out.finish()
