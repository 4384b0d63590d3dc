"""Devices that answer like the kernel's, so that producers can be tested without the hardware.

``Configfs`` keeps the rules of Linux' tsm-report (drivers/virt/coco/guest/report.c): attributes appear with mkdir, each accepted write
counts ``generation`` up, ``outblob`` needs an ``inblob`` of 1 to 64 bytes, a name can be taken once. ``between`` is called in the
middle of a conversation and may disturb it, as another program would.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field

Quote = Callable[[bytes], bytes]
"""Report data in, the hardware's statement out."""


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class _Entry:
    generation: int = 0
    inblob: bytes = b""
    level: int | None = None


@dataclass
class Configfs:
    """configfs-tsm with one provider."""

    quote: Quote
    provider: str = "sev_guest"
    auxiliary: bytes | None = None
    root: str = "/sys/kernel/config/tsm/report"
    between: Callable[[Configfs, str], None] = lambda tree, path: None
    entries: dict[str, _Entry] = field(default_factory=dict)
    levels: list[int] = field(default_factory=list)
    made: list[str] = field(default_factory=list)

    def make(self, path: str) -> None:
        """mkdir."""
        parent, _, name = path.rpartition("/")
        if parent != self.root or not name:
            raise _error(errno.ENOENT)
        if path in self.entries:
            raise _error(errno.EEXIST)
        self.entries[path] = _Entry()
        self.made.append(name)

    def remove(self, path: str) -> None:
        """rmdir."""
        if self.entries.pop(path, None) is None:
            raise _error(errno.ENOENT)

    def write(self, path: str, data: bytes) -> None:
        """Write an attribute."""
        entry, name = self._find(path)
        if name == "inblob":
            if not 1 <= len(data) <= 64:
                raise _error(errno.EINVAL)
            entry.inblob = data
        elif name == "privlevel":
            if not data.isdigit() or int(data) > 3:
                raise _error(errno.EINVAL)
            entry.level = int(data)
            self.levels.append(entry.level)
        else:
            raise _error(errno.EACCES)
        entry.generation += 1

    def read(self, path: str, limit: int) -> bytes:
        """Read an attribute."""
        entry, name = self._find(path)
        if name == "generation":
            return b"%d\n" % entry.generation
        if name == "provider":
            return self.provider.encode() + b"\n"
        if name == "outblob":
            if not entry.inblob:
                raise _error(errno.EINVAL)
            self.between(self, path.rpartition("/")[0])
            return self.quote(entry.inblob)[: limit + 1]
        if name == "auxblob":
            if self.auxiliary is None:
                raise _error(errno.ENOENT)
            return self.auxiliary[: limit + 1]
        raise _error(errno.ENOENT)

    def _find(self, path: str) -> tuple[_Entry, str]:
        directory, _, name = path.rpartition("/")
        if directory not in self.entries:
            raise _error(errno.ENOENT)
        return self.entries[directory], name


@dataclass
class GramineFiles:
    """/dev/attestation of one enclave process."""

    quote: Quote
    kind: bytes = b"dcap"
    root: str = "/dev/attestation"
    between: Callable[[GramineFiles], None] = lambda tree: None
    report_data: bytes = bytes(64)

    def make(self, path: str) -> None:
        """No directories can be made there."""
        raise _error(errno.EPERM)

    def remove(self, path: str) -> None:
        """Nor removed."""
        raise _error(errno.EPERM)

    def write(self, path: str, data: bytes) -> None:
        """Only ``user_report_data`` takes a value, of exactly 64 bytes."""
        if path != f"{self.root}/user_report_data":
            raise _error(errno.EACCES)
        if len(data) != 64:
            raise _error(errno.EINVAL)
        self.report_data = data

    def read(self, path: str, limit: int) -> bytes:
        """``attestation_type`` and ``quote``."""
        if path == f"{self.root}/attestation_type":
            return self.kind
        if path == f"{self.root}/quote":
            if self.kind != b"dcap":
                raise _error(errno.ENOENT)
            self.between(self)
            return self.quote(self.report_data)[: limit + 1]
        raise _error(errno.ENOENT)
