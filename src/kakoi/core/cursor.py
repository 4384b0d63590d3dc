"""A strict reader over bytes for binary vendor formats: exact lengths, no leftovers.

Every read past the end, and every byte left when ``done`` is called, is ``Malformed`` with the name of the structure.
"""

from __future__ import annotations

from typing import Final, Literal

from kakoi.core.errors import Malformed

ByteOrder = Literal["little", "big"]


class Cursor:
    """Reads ``data`` from its start. ``what`` names the structure in messages; ``order`` is its byte order."""

    __slots__ = ("_at", "_data", "_order", "_what")

    def __init__(self, data: bytes, what: str, order: ByteOrder) -> None:
        self._data: Final = data
        self._what: Final = what
        self._order: Final[ByteOrder] = order
        self._at = 0

    def bad(self, expected: str, got: str) -> Malformed:
        """An error about this structure, for the caller to raise."""
        return Malformed(
            "evidence.malformed",
            f"{self._what}: expected {expected}, got {got}",
            hint="the bytes were cut or changed on the way, or are of another format",
        )

    @property
    def at(self) -> int:
        """Bytes read so far."""
        return self._at

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def peek(self) -> int | None:
        """The next byte without reading it; None at the end."""
        return self._data[self._at] if self.left else None

    def take(self, count: int, field: str) -> bytes:
        """The next ``count`` bytes."""
        if count < 0 or count > self.left:
            raise self.bad(f"{count} bytes of {field}", f"{self.left}")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, width: int, field: str) -> int:
        """The next ``width`` bytes as an unsigned integer."""
        return int.from_bytes(self.take(width, field), self._order)

    def sized(self, width: int, most: int, field: str) -> bytes:
        """A length of ``width`` bytes, then that many bytes, at most ``most``."""
        length = self.number(width, f"the length of {field}")
        if length > most:
            raise self.bad(f"at most {most} bytes of {field}", f"{length}")
        return self.take(length, field)

    def zeros(self, count: int, field: str) -> None:
        """``count`` reserved bytes, which must be zero."""
        if any(self.take(count, field)):
            raise self.bad(f"zeros in {field}", "another value")

    def done(self) -> None:
        """Refuse leftovers."""
        if self.left:
            raise self.bad("no more bytes", f"{self.left} left over")
