"""Files that are whole or absent, and readable by their owner only."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kakoi.core.errors import Misuse, Unavailable


def write_private(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write ``data`` to ``path``: to a temporary file beside it, flushed to disk, then renamed.

    After a crash the file is the old one or the new one. Raises Unavailable when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, path) from None


def disk_error(error: OSError, path: Path) -> Unavailable | Misuse:
    """An operating system's complaint about ``path`` as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable("disk.full", f"no space left for {path.name}", hint="free some space and run it again")
    if isinstance(error, FileExistsError):
        return Misuse("file.exists", f"expected no {path.name} yet, found one", hint="choose another name")
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return Misuse(
            "file.kind",
            f"expected files and directories where they belong, got: {path} {error.strerror}",
            hint="check the path",
        )
    if isinstance(error, FileNotFoundError):
        return Misuse("file.missing", f"expected the file {path}, found none", hint="check the path")
    if isinstance(error, PermissionError):
        return Misuse("file.permission", f"no permission for {path}", hint="run as the user who owns it")
    return Unavailable("disk.error", f"could not read or write {path.name}: {error.strerror}", hint="check the disk")


def make_directory(path: Path) -> None:
    """A directory of mode 700 with its parents, if it is not there yet. Raises Misuse or Unavailable."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise disk_error(error, path) from None


@contextmanager
def whole_or_absent(directory: Path) -> Iterator[Path]:
    """If the block fails, ``directory`` and those above it that it made are removed again. What was there before stays."""
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        yield directory
    except BaseException:
        if made:
            shutil.rmtree(directory, ignore_errors=True)
        with suppress(OSError):  # somebody else has put something there
            for path in made[1:]:
                path.rmdir()
        raise


def read_limited(path: Path, *, limit: int) -> bytes:
    """The bytes of ``path``. Raises Misuse if there is no such file or it is larger than ``limit``."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise disk_error(error, path) from None
    if len(data) > limit:
        raise Misuse("file.size", f"expected at most {limit} bytes in {path.name}", hint="is this the right file?")
    return data


def require_private(path: Path) -> None:
    """Raise Misuse if anyone but the owner can read ``path``."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise disk_error(error, path) from None
    if mode & 0o077:
        raise Misuse(
            "key.permissions",
            f"expected {path.name} to be readable by its owner only, got mode {mode:03o}",
            hint=f"chmod 600 {path}; if others could read it, make a new party",
        )


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
