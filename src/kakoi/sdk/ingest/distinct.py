"""Which values of a whole file repeat, in memory that does not grow with the file.

A value enters as a keyed digest of 8 bytes. Beyond ``IN_MEMORY`` the digests wait in temporary files that have no name, spread
by their first bits, and at the end one such part is looked at after another. The key is random and lives for one pass, so what
is on the disk says nothing about a cell. Two different values count as one with a chance of about rows² / 2⁶⁵: one in 370,000
for 10 million rows.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Final

from kakoi.core.errors import Unavailable

IN_MEMORY: Final = 32 * 1024 * 1024
"""Bytes of digests."""
PARTS: Final = 64
_ENTRY: Final = struct.Struct(">8sQ")


class Distinct:
    """Values of one pass, each with a number of the caller's: a row, or a mark."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._parts = [bytearray() for _ in range(PARTS)]
        self._held = 0
        self._files: list[IO[bytes]] = []

    def add(self, values: Iterable[tuple[object, int]]) -> None:
        """Take values whose ``repr`` tells them apart. Raises Unavailable if there is no room for temporary files."""
        for value, number in values:
            digest = hashlib.blake2b(repr(value).encode(), digest_size=8, key=self._key).digest()
            self._parts[digest[0] % PARTS] += _ENTRY.pack(digest, number)
            self._held += _ENTRY.size
        if self._held > IN_MEMORY:
            self._spill()

    def repeated(self) -> tuple[int, int | None]:
        """How many entries have the value of an earlier one, and the smallest number of such an entry."""
        count, first = 0, None
        for part in self._each():
            seen: set[bytes] = set()
            for digest, number in part:
                if digest in seen:
                    count += 1
                    first = number if first is None else min(first, number)
                seen.add(digest)
        return count, first

    def marked(self) -> tuple[int, int]:
        """How many values there are, and how many of them came at least once with a number that is not 0."""
        values = marked = 0
        for part in self._each():
            marks: dict[bytes, bool] = {}
            for digest, number in part:
                marks[digest] = marks.get(digest, False) or number != 0
            values += len(marks)
            marked += sum(marks.values())
        return values, marked

    def close(self) -> None:
        """Give the temporary files back. Closing twice is allowed."""
        for file in self._files:
            file.close()

    def _each(self) -> Iterator[Iterator[tuple[bytes, int]]]:
        for index, held in enumerate(self._parts):
            stored = b""
            if self._files:
                try:
                    self._files[index].seek(0)
                    stored = self._files[index].read()
                except OSError as error:
                    raise _no_room(error) from None
            yield _ENTRY.iter_unpack(stored + held)

    def _spill(self) -> None:
        try:
            if not self._files:
                self._files = [tempfile.TemporaryFile() for _ in range(PARTS)]  # noqa: SIM115 - closed by close()
            for file, held in zip(self._files, self._parts, strict=True):
                file.write(held)
                file.flush()
                held.clear()
        except OSError as error:
            raise _no_room(error) from None
        self._held = 0


def _no_room(error: OSError) -> Unavailable:
    return Unavailable(
        "disk.temporary",
        f"expected room for temporary files, got: {error.strerror or 'an error'}",
        hint="free some space where temporary files go, or name another directory in TMPDIR",
    )
