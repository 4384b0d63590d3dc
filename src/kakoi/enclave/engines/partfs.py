"""DuckDB's whole world: a file system of this job's parts, each a memory file that is already open. There is no other file.

DuckDB reads foreign file systems through fsspec's interface and checks the class by name. We need that interface, not the
library (which knows how to reach a hundred kinds of storage), so a module with its one class stands in for it.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import types
from collections.abc import Sequence
from typing import Any, Final

PROTOCOL: Final = "kakoi"


def path_of(index: int) -> str:
    """How the part at this place of the job is called."""
    return f"{PROTOCOL}://{index}"


class _Handle:
    """A position in one part. Each thread of DuckDB has its own."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size, self._position = descriptor, size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int = -1) -> bytes:
        wanted = self._size - self._position if count < 0 else count
        data = os.pread(self._descriptor, max(0, wanted), self._position)
        self._position += len(data)
        return data

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """The descriptor belongs to the job."""


def _interface() -> type:
    if "fsspec" not in sys.modules:
        module = types.ModuleType("fsspec")
        module.AbstractFileSystem = type("AbstractFileSystem", (), {})  # type: ignore[attr-defined]
        sys.modules["fsspec"] = module
    found: type = sys.modules["fsspec"].AbstractFileSystem
    return found


class _Parts:
    """The methods that DuckDB calls."""

    protocol = (PROTOCOL,)

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = tuple(descriptors)
        self._sizes = tuple(os.fstat(descriptor).st_size for descriptor in descriptors)

    def _index(self, path: str) -> int:
        name = path.removeprefix(f"{PROTOCOL}://")
        if not name.isdecimal() or int(name) >= len(self._descriptors):
            raise FileNotFoundError
        return int(name)

    def unstrip_protocol(self, name: str) -> str:
        return path_of(self._index(name))

    def open(self, path: str, mode: str = "rb", **_: object) -> _Handle:
        if mode != "rb":
            raise PermissionError
        index = self._index(path)
        return _Handle(self._descriptors[index], self._sizes[index])

    def info(self, path: str, **_: object) -> dict[str, object]:
        return {"name": path, "size": self.size(path), "type": "file"}

    def exists(self, path: str, **_: object) -> bool:
        self._index(path)
        return True

    def glob(self, path: str, **_: object) -> list[str]:
        return [path_of(self._index(path))]

    def isfile(self, path: str) -> bool:
        return self.exists(path)

    def isdir(self, _: str) -> bool:
        return False

    def modified(self, _: str) -> dt.datetime:
        return dt.datetime.fromtimestamp(0, dt.UTC)

    def size(self, path: str) -> int:
        return self._sizes[self._index(path)]


def part_file_system(descriptors: Sequence[int]) -> Any:
    """A read-only file system with ``path_of(i)`` for each descriptor. Every other name does not exist."""
    return type("PartFileSystem", (_Parts, _interface()), {})(descriptors)
