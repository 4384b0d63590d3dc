"""The walls around an engine, what each is worth, and which of them this machine lacks.

``worth`` says what an analysis could do if only that wall were missing; tests/attacks/sandbox carries those attacks out with each wall
switched off in turn. A missing wall stops every job unless the contract accepts it by name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from kakoi.core.errors import Refused
from kakoi.enclave.sandbox import cgroup, landlock, seccomp
from kakoi.enclave.sandbox.box import Box
from kakoi.enclave.sandbox.walls import (
    CGROUP,
    LANDLOCK,
    NAMESPACES,
    RLIMITS,
    SECCOMP,
    UID,
    UIDS,
    WORTH,
    may_mount,
    uid_reason,
)

__all__ = [
    "CGROUP",
    "LANDLOCK",
    "NAMESPACES",
    "RLIMITS",
    "SECCOMP",
    "UID",
    "UIDS",
    "WORTH",
    "Layer",
    "layers",
    "may_mount",
    "missing",
    "require",
    "uid_reason",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One wall: whether it stands here, why not, and what it is worth."""

    name: str
    missing: str
    """Empty if present, else the reason."""
    worth: str

    @property
    def present(self) -> bool:
        """Whether it stands."""
        return not self.missing


@lru_cache(maxsize=1)
def layers() -> tuple[Layer, ...]:
    """Every wall, tried on this machine once per process."""
    reasons = {
        UID: uid_reason(),
        CGROUP: cgroup.missing_reason(),
        RLIMITS: "",
        SECCOMP: seccomp.available(),
        LANDLOCK: "" if landlock.version() else "the kernel has no Landlock",
    }
    reasons[NAMESPACES] = _namespaces_reason(frozenset(name for name, reason in reasons.items() if reason))
    return tuple(Layer(name=name, missing=reasons[name], worth=WORTH[name]) for name in WORTH)


def _namespaces_reason(missing: frozenset[str]) -> str:
    """Start a real sandbox: nothing less shows whether bubblewrap works here."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (apt-get install bubblewrap)"
    box = Box(engine="sql", preload=(), without=missing)
    try:
        return box.wait_ready(20)
    finally:
        box.close()


def missing() -> tuple[str, ...]:
    """Names of the walls that this machine lacks, sorted."""
    return tuple(sorted(layer.name for layer in layers() if layer.missing))


def require(accepted: Iterable[str]) -> frozenset[str]:
    """The missing walls, all of them accepted by name. Raises Refused (``sandbox.layer-missing``) otherwise."""
    lacking = [layer for layer in layers() if layer.missing]
    refused = [layer for layer in lacking if layer.name not in set(accepted)]
    if refused:
        first = refused[0]
        names = ", ".join(layer.name for layer in refused)
        raise Refused(
            "sandbox.layer-missing",
            f"expected every isolation layer or a contract that accepts its absence, this machine lacks {names}: {first.missing}",
            hint="mend the machine (kakoi doctor says how), or let all parties accept the names as accepted_weaknesses",
        )
    return frozenset(layer.name for layer in lacking)
