"""Control groups, version 1 and 2: one per sandbox, for what rlimits cannot count (shared memory, tmpfs, all processes together).

The parent makes the group, the launcher enters it before it gives up its privileges, the parent empties and removes it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")
_PREFIX: Final = "kakoi-job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Directories in which groups can be made. Version 1: one for memory and one for processes; version 2: one for both."""

    version: int
    memory: Path
    pids: Path


def find(root: Path = ROOT, own: Path = OWN) -> Where | None:
    """This machine's place for groups, below the group of this process. None if there is none."""
    try:
        lines = [line.split(":", 2) for line in own.read_text("ascii").splitlines()]
    except OSError:
        return None
    paths = {name: path for _, names, path in lines for name in names.split(",")}
    if "memory" in paths and "pids" in paths:
        found = [_below(root / name, paths[name]) for name in ("memory", "pids")]
        return Where(version=1, memory=found[0], pids=found[1]) if all(path.is_dir() for path in found) else None
    group = _below(root, paths.get("", "/"))
    return Where(version=2, memory=group, pids=group) if (group / "cgroup.controllers").is_file() else None


def _below(root: Path, path: str) -> Path:
    """In a container the path is often relative to a mount that shows only its end."""
    inside = root / path.lstrip("/")
    return inside if inside.is_dir() else root


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The group of one sandbox."""

    version: int
    directories: tuple[Path, ...]

    @property
    def entries(self) -> tuple[str, ...]:
        """Files that the launcher writes itself into."""
        return tuple(str(directory / "cgroup.procs") for directory in self.directories)

    def limit(self, memory_bytes: int) -> None:
        """Set the memory limit; nothing may be swapped. Raises OSError."""
        memory = self.directories[0]
        if self.version == 2:
            (memory / "memory.max").write_text(str(memory_bytes))
            _try(memory / "memory.swap.max", "0")
            _try(memory / "memory.oom.group", "1")
            return
        # The sum with swap may never be below the memory limit: it goes up before it and down after it.
        _try(memory / "memory.memsw.limit_in_bytes", str(memory_bytes))
        (memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
        _try(memory / "memory.memsw.limit_in_bytes", str(memory_bytes))
        _try(memory / "memory.swappiness", "0")

    def remove(self) -> None:
        """Kill whoever is still inside and remove the group."""
        for directory in self.directories:
            for _ in range(200):
                _try_remove(directory)
                if not directory.exists():
                    break
                self._kill(directory)
                time.sleep(0.005)

    @staticmethod
    def _kill(directory: Path) -> None:
        with contextlib.suppress(OSError):
            for line in (directory / "cgroup.procs").read_text("ascii").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line), signal.SIGKILL)


def _try(path: Path, value: str) -> None:
    """Settings that not every kernel has."""
    with contextlib.suppress(OSError):
        path.write_text(value)


def make(where: Where, name: str, *, memory_bytes: int, processes: int) -> Group:
    """A new group with its limits. Raises OSError where this machine does not let us."""
    parents = (where.memory,) if where.version == 2 else (where.memory, where.pids)
    if where.version == 2:
        _delegate(where.memory)
    directories = tuple(parent / f"{_PREFIX}-{name}" for parent in parents)
    group = Group(version=where.version, directories=directories)
    try:
        for directory in directories:
            directory.mkdir()
        group.limit(memory_bytes)
        (directories[-1] / "pids.max").write_text(str(processes))
    except OSError:
        group.remove()
        raise
    return group


def sweep(where: Where) -> None:
    """Remove the empty groups of keepers that were killed."""
    for parent in {where.memory, where.pids}:
        for directory in parent.glob(f"{_PREFIX}-*"):
            keeper = directory.name.removeprefix(f"{_PREFIX}-").split("-")[0]
            if keeper.isdecimal() and not Path(f"/proc/{keeper}").exists():
                _try_remove(directory)


def _try_remove(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()


def _delegate(parent: Path) -> None:
    """Version 2: let children have memory and process limits. Fails with OSError while a process is in the group itself."""
    control = parent / "cgroup.subtree_control"
    missing = [name for name in ("memory", "pids") if name not in control.read_text("ascii").split()]
    if missing:
        control.write_text(" ".join(f"+{name}" for name in missing))


def missing_reason(root: Path = ROOT, own: Path = OWN) -> str:
    """Empty if groups can be made, else why not."""
    where = find(root, own)
    if where is None:
        return "no memory and process controllers are mounted"
    sweep(where)
    try:
        make(where, f"{os.getpid()}-probe", memory_bytes=64 << 20, processes=8).remove()
    except OSError as error:
        return f"version {where.version}: {error.strerror or 'refused'}"
    return ""
