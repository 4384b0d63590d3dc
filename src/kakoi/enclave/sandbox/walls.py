"""The walls' names, what each is worth, and what root can do on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

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
