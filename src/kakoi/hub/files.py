"""Files that survive a crash: written whole beside their place, synced, then renamed into it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kakoi.core.errors import KakoiError, Misuse, Unavailable
from kakoi.hub.database import storage_full

TEMPORARY = ".incoming-"
"""Prefix of files that are being written; whatever has it at start-up is left over from a crash."""


def write_whole(path: Path, data: bytes | bytearray, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``: afterwards it holds the old bytes or the new ones, whatever happens."""
    with disk_errors(path.parent):
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_secret(path: Path, *, most: int) -> bytes:
    """A file that only its owner may read. Raises Misuse if others may, or if it is too large."""
    with disk_errors(path.parent), path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        data = file.read(most + 1)
    if mode & 0o077:
        raise Misuse(
            "hub.file-mode",
            f"expected {path.name} to be readable by its owner only, got mode {mode:o}",
            hint=f"chmod 600 {path.name}",
        )
    if len(data) > most:
        raise Misuse("hub.file-size", f"expected {path.name} to have at most {most} bytes, got more")
    return data


def sweep(directory: Path) -> int:
    """Delete what a crash left half-written; how many files that was."""
    left = [path for path in directory.iterdir() if path.name.startswith(TEMPORARY)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """The operating system's errors as ours, naming what stands in the way."""
    try:
        yield
    except KakoiError:
        raise
    except OSError as error:
        raise translate(error, directory) from error


def translate(error: OSError, directory: Path) -> KakoiError:
    """One operating system error as ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return storage_full()
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Misuse(
            "hub.directory",
            "expected a directory that the hub may write to, got one that it may not",
            hint=f"check owner and mode of {directory}",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return Misuse(
            "hub.directory", f"expected a file or directory, got: {error.strerror}", hint=f"look into {directory}"
        )
    return Unavailable("hub.disk", f"expected the disk to work, got: {error.strerror}", hint="its operator must act")


@contextmanager
def exclusively(directory: Path) -> Iterator[None]:
    """Hold the directory: a second hub on it is refused. Raises Misuse."""
    with disk_errors(directory):
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Misuse(
                "hub.already-running",
                "expected to be the only hub on this directory, got another one that runs",
                hint="stop the other hub, or choose another directory",
            ) from None
        yield
    finally:
        os.close(handle)
