"""What a process can ask of Linux to keep its memory to itself. Each is a layer with a name, said aloud when it is missing."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kakoi.enclave.keeper import secret

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

NOT_DUMPABLE: Final = "keeper.not-dumpable"
NO_NEW_PRIVILEGES: Final = "keeper.no-new-privileges"
SECRET_MEMORY: Final = "keeper.secret-memory"  # noqa: S105 - the name of a layer
LOCKED_MEMORY: Final = "keeper.locked-memory"
NO_SWAP: Final = "keeper.no-swap"

WORTH: Final[Mapping[str, str]] = {
    SECRET_MEMORY: "memfd_secret: the session's root keys lie in pages that no other process can read, root's neither; without it they lie in "
    "ordinary locked memory, which root inside the enclave's machine reads",
    LOCKED_MEMORY: "mlock: root keys are never written to a swap device; without it they can be, and stay there",
    NO_SWAP: "no swap device: decrypted data and the libraries' short-lived copies of keys are never written to a disk",
    NOT_DUMPABLE: "no core dump of the keeper, and no tracing by other processes of its user",
    NO_NEW_PRIVILEGES: "no program that the keeper starts can gain privileges from its file",
}
"""What each layer of the keeper is worth."""


def missing(swaps: Path = Path("/proc/swaps")) -> tuple[str, ...]:
    """Layers that depend on this machine and are not here, sorted. Changes nothing."""
    kind = secret.kind_here()
    lacking = [SECRET_MEMORY] if kind != "memfd_secret" else []
    lacking += [LOCKED_MEMORY] if kind == "ordinary" else []
    lacking += [NO_SWAP] if _swaps(swaps) else []
    return tuple(sorted(lacking))


def _swaps(table: Path) -> bool:
    """Whether a swap device is in use. A machine that does not say counts as one that has."""
    try:
        return len(table.read_text("ascii", "replace").splitlines()) > 1
    except OSError:
        return True


def harden() -> tuple[str, ...]:
    """Switch off core dumps and tracing by equals, forbid new privileges. Returns every layer that could not be had, sorted."""
    libc = ctypes.CDLL(None, use_errno=True)
    lacking = list(missing())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        lacking.append(NOT_DUMPABLE)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        lacking.append(NO_NEW_PRIVILEGES)
    return tuple(sorted(lacking))
