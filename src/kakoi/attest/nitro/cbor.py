"""CBOR (RFC 8949), the little of it that attestation documents use, read strictly.

Accepted: integers, byte and text strings of definite length, arrays and maps of definite or indefinite length (AWS has
written both), null, true, false; heads in their shortest form (RFC 8949 §4.2.1). Refused: tags, floats, indefinite
strings, repeated or other than text and integer map keys, undefined, leftovers, deep or large structures. A general
decoder builds dates, big numbers and shared references on the sender's word; this one cannot.
"""

from __future__ import annotations

from typing import Any, Final

from kakoi.core.cursor import Cursor
from kakoi.core.errors import Malformed

MAX_BYTES: Final = 64 * 1024
_MAX_DEPTH: Final = 6
_MAX_ITEMS: Final = 512
_INDEFINITE: Final = 31
_BREAK: Final = 0xFF
_SIMPLE: Final[dict[int, object]] = {20: False, 21: True, 22: None}


class _Reader:
    __slots__ = ("_cursor", "_items")

    def __init__(self, data: bytes) -> None:
        self._cursor = Cursor(data, "CBOR", "big")
        self._items = 0

    def bad(self, expected: str, got: str) -> Malformed:
        return self._cursor.bad(expected, got)

    def done(self) -> None:
        self._cursor.done()

    def _head(self) -> tuple[int, int, int]:
        """Major type, additional information and argument, which is in its shortest form."""
        first = self._cursor.number(1, "a head")
        major, info = first >> 5, first & 31
        if info < 24 or info == _INDEFINITE:
            return major, info, info
        if info > 27:
            raise self.bad("a known head", "a reserved one")
        width = 1 << (info - 24)
        argument = self._cursor.number(width, "an argument")
        if argument < 24 or (width > 1 and argument < 1 << 4 * width):
            raise self.bad("the shortest form of a head", "a longer one")
        return major, info, argument

    def _ends(self) -> bool:
        """Whether an indefinite array or map ends here; reads its break."""
        if self._cursor.peek() != _BREAK:
            return False
        self._cursor.take(1, "a break")
        return True

    def item(self, depth: int = 0) -> Any:
        """The next data item."""
        self._items += 1
        if depth > _MAX_DEPTH or self._items > _MAX_ITEMS:
            raise self.bad(f"at most {_MAX_ITEMS} items in {_MAX_DEPTH} levels", "more")
        major, info, argument = self._head()
        if major in (4, 5):
            count = None if info == _INDEFINITE else argument
            return self._array(count, depth) if major == 4 else self._map(count, depth)
        if info == _INDEFINITE:
            raise self.bad("strings of definite length", "an indefinite one or a break")
        return self._scalar(major, info, argument)

    def _scalar(self, major: int, info: int, argument: int) -> Any:
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major == 2:
            return self._cursor.take(argument, "a byte string")
        if major == 3:
            try:
                return self._cursor.take(argument, "a text string").decode("utf-8")
            except UnicodeDecodeError:
                raise self.bad("UTF-8 in a text string", "something else") from None
        if major == 7 and info in _SIMPLE:
            return _SIMPLE[info]
        raise self.bad("no tag, float or undefined value", "one")

    def _array(self, count: int | None, depth: int) -> list[Any]:
        found: list[Any] = []
        while (len(found) < count) if count is not None else not self._ends():
            found.append(self.item(depth + 1))
        return found

    def _map(self, count: int | None, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        while (len(found) < count) if count is not None else not self._ends():
            key = self.item(depth + 1)
            if type(key) not in (int, str) or key in found:
                raise self.bad("text and integer keys, each once", "another or a repeated key")
            found[key] = self.item(depth + 1)
        return found


def loads(data: bytes) -> Any:
    """The one item that ``data`` is. Raises Malformed ``evidence.malformed``."""
    reader = _Reader(data)
    if len(data) > MAX_BYTES:
        raise reader.bad(f"at most {MAX_BYTES} bytes", f"{len(data)}")
    value = reader.item()
    reader.done()
    return value


def byte_string(data: bytes) -> bytes:
    """The encoding of a byte string, for the structure that a COSE signature covers."""
    size = len(data)
    if size < 24:
        return bytes([0x40 | size]) + data
    width = 1 if size < 1 << 8 else 2 if size < 1 << 16 else 4
    return bytes([0x58 + width.bit_length() - 1]) + size.to_bytes(width, "big") + data
