"""Landlock: the process gives up every path but the image, and every TCP port and scope the kernel can take.

Source: Linux ``Documentation/userspace-api/landlock.rst``. It is a second wall behind the mount namespace, and it must be
put up before any thread exists, because it binds the calling thread and its future children only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from typing import Final

from kakoi.core.errors import Fatal

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REGULAR = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_FIRST_ABI: Final = (1 << 13) - 1
READ: Final = _READ_FILE | _READ_DIR
WRITE: Final = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REGULAR | _TRUNCATE | _REFER
_ON_FILES: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE
_PR_SET_NO_NEW_PRIVS: Final = 38


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The kernel's Landlock ABI, 0 if it has none."""
    return max(0, int(ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, 0, _VERSION_FLAG)))


def _handled(abi: int) -> tuple[_Ruleset, int]:
    rights = _FIRST_ABI
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        rights |= right if abi >= since else 0
    ruleset = _Ruleset(fs=rights, net=3 if abi >= 4 else 0, scoped=3 if abi >= 6 else 0)
    return ruleset, 8 if abi < 4 else 16 if abi < 6 else 24


def restrict(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Leave this thread, and those it will start, only these files and directories. Nothing can be executed.

    Raises Fatal if the kernel refuses. A path that does not exist is left out.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    ruleset, size = _handled(version())
    descriptor = libc.syscall(_CREATE, ctypes.byref(ruleset), size, 0)
    if descriptor < 0:
        raise Fatal("sandbox.landlock", "expected the kernel to make a Landlock ruleset, got a refusal")
    for paths, rights in ((readable, READ), (writable, WRITE)):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                _add(libc, descriptor, path, rights & ruleset.fs)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_RESTRICT, descriptor, 0):
        raise Fatal("sandbox.landlock", "expected the kernel to apply the Landlock ruleset, got a refusal")
    os.close(descriptor)


def _add(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(rights if os.path.isdir(path) else rights & _ON_FILES, parent)
        if libc.syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0):
            raise Fatal("sandbox.landlock", "expected the kernel to accept a Landlock rule, got a refusal")
    finally:
        os.close(parent)
