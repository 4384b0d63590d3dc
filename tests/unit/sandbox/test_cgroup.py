"""Control groups of both versions, on a directory that looks like them and on this machine where it has them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kakoi.enclave.sandbox import cgroup

V1 = "9:name=systemd:/\n8:pids:/\n4:memory:/outer/inner\n0::/\n"
V2 = "0::/system.slice/kakoi.service\n"


def _v1(root: Path) -> Path:
    (root / "pids").mkdir()
    (root / "memory/outer/inner").mkdir(parents=True)
    (root / "self").write_text(V1)
    return root / "self"


def _v2(root: Path) -> Path:
    group = root / "system.slice/kakoi.service"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text("cpu memory pids")
    (group / "cgroup.subtree_control").write_text("")
    (root / "self").write_text(V2)
    return root / "self"


def test_version_1_is_found_below_the_own_group(tmp_path: Path) -> None:
    where = cgroup.find(tmp_path, _v1(tmp_path))
    assert where is not None
    assert (where.version, where.memory, where.pids) == (1, tmp_path / "memory/outer/inner", tmp_path / "pids")


def test_version_2_is_found_below_the_own_group(tmp_path: Path) -> None:
    where = cgroup.find(tmp_path, _v2(tmp_path))
    assert where is not None
    assert (where.version, where.memory) == (2, tmp_path / "system.slice/kakoi.service")


def test_a_container_shows_the_end_of_the_path_only(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory pids")
    (tmp_path / "self").write_text("0::/docker/0123\n")
    where = cgroup.find(tmp_path, tmp_path / "self")
    assert where is not None
    assert where.memory == tmp_path


@pytest.mark.parametrize("own", ["", "1:memory:/\n", "0::/\n"])
def test_no_controllers_no_groups(tmp_path: Path, own: str) -> None:
    (tmp_path / "self").write_text(own)
    assert cgroup.find(tmp_path, tmp_path / "self") is None
    assert cgroup.missing_reason(tmp_path, tmp_path / "self")
    assert cgroup.find(tmp_path, tmp_path / "nothing") is None


def test_limits_of_version_1(tmp_path: Path) -> None:
    where = cgroup.find(tmp_path, _v1(tmp_path))
    assert where is not None
    group = cgroup.make(where, "1-1", memory_bytes=1 << 20, processes=7)
    memory, pids = group.directories
    assert (memory / "memory.limit_in_bytes").read_text() == str(1 << 20)
    assert (memory / "memory.memsw.limit_in_bytes").read_text() == str(1 << 20)
    assert (pids / "pids.max").read_text() == "7"
    assert group.entries == (str(memory / "cgroup.procs"), str(pids / "cgroup.procs"))


def test_limits_of_version_2_and_the_controllers_are_asked_for(tmp_path: Path) -> None:
    where = cgroup.find(tmp_path, _v2(tmp_path))
    assert where is not None
    group = cgroup.make(where, "1-1", memory_bytes=1 << 20, processes=7)
    (directory,) = group.directories
    values = {
        name: (directory / name).read_text()
        for name in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max")
    }
    assert values == {"memory.max": str(1 << 20), "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "7"}
    assert (where.memory / "cgroup.subtree_control").read_text() == "+memory +pids"
    group.limit(1 << 21)
    assert (directory / "memory.max").read_text() == str(1 << 21)


def test_groups_of_dead_keepers_are_swept(tmp_path: Path) -> None:
    where = cgroup.find(tmp_path, _v2(tmp_path))
    assert where is not None
    dead, alive, foreign = (
        where.memory / name for name in ("kakoi-job-999999999-1", f"kakoi-job-{os.getpid()}-1", "other-1-1")
    )
    for directory in (dead, alive, foreign):
        directory.mkdir()
    cgroup.sweep(where)
    assert [d.exists() for d in (dead, alive, foreign)] == [False, True, True]


def test_a_group_on_this_machine() -> None:
    reason = cgroup.missing_reason()
    if reason:
        pytest.skip(f"no control groups here: {reason}")
    where = cgroup.find()
    assert where is not None
    group = cgroup.make(where, f"{os.getpid()}-test", memory_bytes=64 << 20, processes=8)
    inside = subprocess.Popen(
        ["/bin/sh", "-c", 'for f in "$@"; do echo $$ > $f; done; echo in; sleep 60', "sh", *group.entries],
        stdout=subprocess.PIPE,
    )
    assert inside.stdout is not None
    with inside.stdout:
        assert inside.stdout.readline() == b"in\n"
    for size in (32 << 20, 256 << 20, 64 << 20):
        group.limit(size)
        name = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
        assert int((group.directories[0] / name).read_text()) == size, "limits go up and down"
    group.remove()
    assert inside.wait(5) == -9, "whoever is inside is killed"
    assert not any(directory.exists() for directory in group.directories)
