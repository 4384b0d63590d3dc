"""What each wall is worth: the same attacks with walls switched off. Where one wall falls, another often holds."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from attacks.sandbox.conftest import Range
from attacks.sandbox.sandbox_cases import CASES
from kakoi.enclave.sandbox import layers
from kakoi.enclave.sandbox.layers import CGROUP, LANDLOCK, NAMESPACES, RLIMITS, SECCOMP, UID


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One attack without some walls, and whether it then succeeds."""

    attack: str
    without: frozenset[str]
    succeeds: bool
    needs: frozenset[str] = frozenset()
    """Walls that must stand on this machine for the expectation."""


def trial(attack: str, *without: str, succeeds: bool, needs: tuple[str, ...] = ()) -> Trial:
    return Trial(attack=attack, without=frozenset(without), succeeds=succeeds, needs=frozenset(needs))


TRIALS = [
    # seccomp is what keeps the kernel's surface small
    trial("sockets of every family", SECCOMP, succeeds=True),
    trial("ninety other system calls", SECCOMP, succeeds=True),
    trial("process descriptors", SECCOMP, succeeds=True),
    trial("share memory with a new process", SECCOMP, succeeds=True),
    # … and what it held is then held by others
    trial("the machine's own port", SECCOMP, succeeds=False),
    trial("sockets of the host without a path", SECCOMP, succeeds=False),
    trial("read and write another process's memory", SECCOMP, succeeds=False),
    trial("mounts", SECCOMP, NAMESPACES, succeeds=True),
    trial("memory bomb in shared memory", SECCOMP, succeeds=False, needs=(CGROUP,)),
    # rlimits
    trial("descriptor bomb", RLIMITS, succeeds=True),
    trial("processor time", RLIMITS, succeeds=True),
    trial("memory bomb on the heap", RLIMITS, succeeds=False, needs=(CGROUP,)),
    trial("memory bomb on the heap", CGROUP, succeeds=False),
    trial("thread bomb", RLIMITS, succeeds=False, needs=(CGROUP,)),
    trial("thread bomb", RLIMITS, CGROUP, succeeds=True),
    # files: two walls
    trial("files, users and environment of the machine", NAMESPACES, succeeds=False, needs=(LANDLOCK,)),
    trial("files, users and environment of the machine", LANDLOCK, succeeds=False),
    trial("files, users and environment of the machine", NAMESPACES, LANDLOCK, succeeds=True),
    trial("proc and sys", NAMESPACES, succeeds=False, needs=(LANDLOCK,)),
    trial("proc and sys", NAMESPACES, LANDLOCK, succeeds=True),
    trial("writing outside its own directory", LANDLOCK, succeeds=False),
]


@pytest.mark.parametrize(
    "one", TRIALS, ids=lambda one: f"{one.attack}-without-{'+'.join(sorted(one.without))}".replace(" ", "-")
)
def test_what_a_wall_is_worth(one: Trial, attack_range: Range) -> None:
    case = next(case for case in CASES if case.name == one.attack)
    if case.machine and case.machine != os.uname().machine:
        pytest.skip(f"the attack is written for {case.machine}")
    lacking = one.needs & set(layers.missing())
    if lacking:
        pytest.skip(f"this machine lacks {', '.join(sorted(lacking))}")
    outcome = attack_range.run(
        case.source,
        without=one.without,
        # an attack that a wall holds may be cut short; one that succeeds needs the time to say so, on a slow machine too
        wall=case.wall if one.succeeds else min(case.wall, 2.5),
        memory=64,
        limits=case.limits,
        answer_bytes=case.answer_bytes,
    )
    text = outcome.answer.decode("utf-8", "replace")
    assert case.held(outcome, text) is not one.succeeds, f"{outcome.status} {text[:1500]}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can show what giving up root is worth")
def test_without_its_own_user_a_job_is_root_outside() -> None:
    from attacks.sandbox.test_attack_sandbox import users_of
    from kakoi.enclave.sandbox.box import Box

    box = Box(engine="python", preload=(), without=frozenset({UID, *layers.missing()}))
    try:
        assert box.wait_ready(20) == ""
        assert 0 in users_of(box.process_id)
    finally:
        box.close()


def test_every_wall_says_what_it_is_worth() -> None:
    tried = frozenset().union(*(one.without for one in TRIALS)) | {UID}
    assert tried == set(layers.WORTH)
    assert all(len(layer.worth) > 60 for layer in layers.layers())
