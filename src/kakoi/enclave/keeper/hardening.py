"""What a process can ask of Linux to keep its memory to itself. Each is best effort and said aloud when it fails."""

from __future__ import annotations

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_MCL_CURRENT_AND_FUTURE: Final = 3


def harden() -> tuple[str, ...]:
    """Switch off core dumps and ptrace by equals, forbid new privileges, lock memory. Returns what could not be had."""
    libc = ctypes.CDLL(None, use_errno=True)
    missing: list[str] = []
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        missing.append("keeper.not-dumpable")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        missing.append("keeper.no-new-privileges")
    return tuple(missing)
