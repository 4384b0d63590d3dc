"""The little that producers ask of an operating system, so that tests can stand in for hardware.

A ``Tree`` is a pseudo file system whose files are questions and answers (configfs-tsm, Gramine's /dev/attestation). Every read has a limit.
"""

from __future__ import annotations

import errno
import os
from typing import Final, Protocol

from kakoi.core.errors import Refused, Unavailable

MAX_ANSWER: Final = 1024 * 1024


class Tree(Protocol):
    """Directories and files by absolute path. Errors are OSError with the kernel's numbers."""

    def make(self, path: str) -> None:
        """Create a directory; its files appear by themselves."""
        ...

    def remove(self, path: str) -> None:
        """Remove a directory that ``make`` created."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write all of ``data`` in one call."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """Read a whole file of at most ``limit`` bytes; one byte more is returned if there is more."""
        ...


class KernelTree:
    """The real thing."""

    def make(self, path: str) -> None:
        """mkdir(2)."""
        os.mkdir(path, 0o700)

    def remove(self, path: str) -> None:
        """rmdir(2): configfs removes the files with it."""
        os.rmdir(path)

    def write(self, path: str, data: bytes) -> None:
        """One write(2): these files take a value whole or not at all."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, "short write")
        finally:
            os.close(descriptor)

    def read(self, path: str, limit: int) -> bytes:
        """read(2) until the end."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            out = bytearray()
            while len(out) <= limit:
                part = os.read(descriptor, min(65536, limit + 1 - len(out)))
                if not part:
                    break
                out += part
            return bytes(out)
        finally:
            os.close(descriptor)


def no_answer(what: str, error: OSError) -> Unavailable:
    """The hardware, or the kernel's driver for it, did not answer."""
    return Unavailable(
        "evidence.device",
        f"expected {what} to answer, got: {os.strerror(error.errno) if error.errno else 'no reason'}",
        hint="is this machine of that kind, is the driver loaded, and does the program run as root?",
    )


def too_long(what: str) -> Refused:
    """An answer beyond every plausible size."""
    return Refused(
        "evidence.answer-size", f"expected an answer of at most {MAX_ANSWER} bytes from {what}, got a longer one"
    )


def disturbed(what: str) -> Unavailable:
    """Somebody else asked the same device at the same time."""
    return Unavailable(
        "evidence.race",
        f"expected to be alone with {what}, but another program asked it at the same time, every time",
        hint="only the enclave's program should ask for evidence on this machine",
    )


def require_report_data(report_data: bytes) -> None:
    """Raise Refused unless it is 64 bytes, which all kinds of hardware take."""
    if len(report_data) != 64:
        raise Refused("evidence.report-data", f"expected 64 bytes of report data, got {len(report_data)}")
