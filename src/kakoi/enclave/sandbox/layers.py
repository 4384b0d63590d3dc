"""The walls around an engine, what each is worth, and which of them this machine lacks.

``worth`` says what an analysis could do if only that wall were missing; tests/attacks/sandbox carries those attacks out with each wall
switched off in turn. A missing wall stops every job unless the contract accepts it by name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from kakoi.core.errors import Refused
from kakoi.enclave.sandbox import cgroup, landlock, seccomp

NAMESPACES: Final = "sandbox.namespaces"
UID: Final = "sandbox.uid"
CGROUP: Final = "sandbox.cgroup"
RLIMITS: Final = "sandbox.rlimits"
SECCOMP: Final = "sandbox.seccomp"
LANDLOCK: Final = "sandbox.landlock"

WORTH: Final[Mapping[str, str]] = {
    NAMESPACES: "bubblewrap: no network, no other process, no file but the read-only image; without it seccomp and Landlock "
    "alone keep the job from the machine's network, processes and files, and it learns names and users of the machine",
    UID: "an unprivileged user per job: without it a kernel error that leaves the namespaces leaves them as root",
    CGROUP: "memory and processes of the whole sandbox counted together: without it many small mappings, tmpfs and threads can take "
    "more memory than the contract allows, up to the sum of the single limits",
    RLIMITS: "limits per process: memory, CPU time, threads, descriptors, file size, no core dump",
    SECCOMP: "about a hundred system calls with checked arguments: without it the whole kernel is there to be attacked, and shared "
    "memory, new processes and sockets are held back by other walls only",
    LANDLOCK: "a second wall around files: without it the mount namespace alone hides them",
}


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


UIDS: Final = range(64_000, 65_000)
"""Users for jobs when the keeper is root. They need no entry anywhere."""


def uid_reason(map_file: Path = Path("/proc/self/uid_map")) -> str:
    """Empty if a job can have a user without privileges, else why not."""
    if os.geteuid() != 0:
        return ""
    for line in map_file.read_text("ascii").splitlines():
        first, _, count = map(int, line.split())
        if first <= UIDS.start and UIDS.stop <= first + count:
            return ""
    return "root's own user namespace has no other users to become"


def may_mount(status_file: Path = Path("/proc/self/status")) -> bool:
    """Whether this process has CAP_SYS_ADMIN, which a container's root often lacks."""
    fields = dict(line.split(":", 1) for line in status_file.read_text("ascii").splitlines() if ":" in line)
    return bool(int(fields["CapEff"], 16) >> 21 & 1)


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
    from kakoi.enclave.sandbox.box import Box

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
