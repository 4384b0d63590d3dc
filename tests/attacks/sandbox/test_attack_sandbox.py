"""Every attack of ``sandbox_cases`` is carried out for real, and held."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attacks.sandbox.conftest import Range
from attacks.sandbox.sandbox_cases import CASES, Case
from kakoi.enclave.sandbox import cgroup, layers
from kakoi.enclave.sandbox.box import Box


def status_of(process: int) -> dict[str, str]:
    lines = (Path("/proc") / str(process) / "status").read_text("ascii", "replace").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def users_of(process: int) -> set[int]:
    """Real, effective, saved and file system user, as the machine sees them."""
    return {int(uid) for uid in status_of(process)["Uid"].split()}


def tree_of(process: int) -> set[int]:
    """The process and all its descendants."""
    found, todo = set[int](), [process]
    while todo:
        one = todo.pop()
        found.add(one)
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            todo += [int(child) for child in children.read_text("ascii").split()]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_the_attack_is_held(case: Case, attack_range: Range) -> None:
    if case.machine and case.machine != os.uname().machine:
        pytest.skip(f"the attack is written for {case.machine}")
    outcome = attack_range.run(
        case.source, wall=case.wall, memory=case.memory, limits=case.limits, answer_bytes=case.answer_bytes
    )
    text = outcome.answer.decode("utf-8", "replace")
    assert case.held(outcome, text), (
        f"{case.layer}: {outcome.status} {outcome.code} {text[:2000]} {outcome.log[-500:]!r}"
    )


def test_there_are_more_attacks_than_the_prototype_had() -> None:
    assert len(CASES) >= 50
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_job_runs_as_a_user_without_rights(attack_range: Range) -> None:
    """Seen from outside, while it waits."""
    box = Box(engine="python", preload=(), without=frozenset(layers.missing()))
    try:
        assert box.wait_ready(20) == ""
        processes = tree_of(box.process_id)
        assert len(processes) >= 3  # bubblewrap outside, the first process of the namespace, the interpreter
        for process in processes:
            assert 0 not in users_of(process)
            assert status_of(process)["NoNewPrivs"].strip() == "1"
        engine = max(processes)
        assert int(status_of(engine)["CapEff"], 16) == 0
        assert int(status_of(engine)["CapBnd"], 16) == 0
        assert status_of(engine)["Seccomp"].strip() == "2"
    finally:
        box.close()


def test_nothing_is_left_of_a_job(attack_range: Range) -> None:
    box = Box(engine="python", preload=(), without=frozenset(layers.missing()))
    assert box.wait_ready(20) == ""
    processes = tree_of(box.process_id)
    group = [line.split(":")[2] for line in Path(f"/proc/{box.process_id}/cgroup").read_text().splitlines()]
    names = {path.rsplit("/", 1)[1] for path in group if "kakoi-job-" in path}
    box.close()
    time.sleep(0.1)  # their memory is gone; the kernel may still be writing their obituaries
    assert not [process for process in processes if _runs(process)]
    where = cgroup.find()
    if layers.CGROUP not in layers.missing():
        assert where is not None
        assert len(names) == 1
        assert not (where.memory / names.pop()).exists()


def _runs(process: int) -> bool:
    try:
        return status_of(process)["State"][0] != "Z"
    except (OSError, KeyError):
        return False


def test_a_job_ends_when_the_keeper_dies() -> None:
    """kill -9 of the keeper leaves nothing running."""
    code = (
        "import sys; sys.path.insert(0, 'src')\n"
        "from kakoi.enclave.sandbox import layers\n"
        "from kakoi.enclave.sandbox.box import Box\n"
        "b = Box(engine='python', preload=(), without=frozenset(layers.missing()))\n"
        "assert b.wait_ready(20) == ''\n"
        "print(b.process_id, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    keeper = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert keeper.stdout is not None
    with keeper.stdout:
        sandbox = int(keeper.stdout.readline())
    processes = tree_of(sandbox)
    assert len(processes) >= 3
    keeper.kill()
    keeper.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(_runs(process) for process in processes):
        time.sleep(0.02)
    assert not [process for process in processes if _runs(process)]
