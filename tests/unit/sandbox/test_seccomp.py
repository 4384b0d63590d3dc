"""The filters, run in a small BPF machine on both architectures: every call number, and the arguments that matter."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.enclave.sandbox.seccomp import ALLOW, ARCHITECTURES, EPERM, ERRNO, KILL, program
from kakoi.enclave.sandbox.syscalls import CHECKED, NUMBERS, STARTING

PID = 4242
MACHINES = sorted(ARCHITECTURES)


def judge(code: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """What a filter answers (Linux ``Documentation/networking/filter.rst``)."""
    words = [argument & (2**64 - 1) for argument in (*arguments, 0, 0, 0, 0, 0, 0)][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *words)
    accumulator, at = 0, 0
    for _ in range(4096):
        operation, yes, no, value = struct.unpack_from("<HBBI", code, 8 * at)
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return int(value)
        else:
            test = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[operation]
            at += yes if test else no
    raise AssertionError("the filter does not end")


def number_of(name: str, machine: str) -> int | None:
    return NUMBERS[name][ARCHITECTURES[machine][0]]


def answer(name: str, machine: str, *arguments: int, final: bool = True) -> int:
    number = number_of(name, machine)
    assert number is not None
    return judge(program(machine, final=final, own_pid=PID), number, ARCHITECTURES[machine][1], arguments)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("final", [False, True])
def test_every_number_is_judged_by_the_list(machine: str, final: bool) -> None:
    column, arch = ARCHITECTURES[machine]
    code = program(machine, final=final, own_pid=PID)
    names = {numbers[column]: name for name, numbers in NUMBERS.items() if numbers[column] is not None}
    for number in range(600):
        name = names.get(number)
        if name in CHECKED:
            continue
        listed = name is not None and not (final and name in STARTING)
        assert judge(code, number, arch) == (ALLOW if listed else EPERM), (number, name)


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_killed(machine: str) -> None:
    code = program(machine, final=True, own_pid=PID)
    for arch in (0x40000003, 0x40000028, 0, 0xFFFFFFFF, *(a for m, (_, a) in ARCHITECTURES.items() if m != machine)):
        assert judge(code, 0, arch) == KILL


def test_the_x32_table_is_killed() -> None:
    code = program("x86_64", final=True, own_pid=PID)
    assert judge(code, 0x40000000 | 39, ARCHITECTURES["x86_64"][1]) == KILL
    assert judge(code, 0xFFFFFFFF, ARCHITECTURES["x86_64"][1]) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_and_nothing_else_are_cloned(machine: str) -> None:
    thread = 0x3D0F00  # what glibc's pthread_create passes
    assert answer("clone", machine, thread) == ALLOW
    assert answer("clone", machine, 17) == EPERM
    for namespace in (0x00000080, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer("clone", machine, thread | namespace) == EPERM
    assert answer("clone3", machine) == ERRNO | errno.ENOSYS
    for name in ("fork", "vfork", "unshare", "setns", "execveat"):
        assert name not in NUMBERS


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_are_checked(machine: str) -> None:
    assert answer("mmap", machine, 0, 4096, 3, 0x22) == ALLOW
    assert answer("mmap", machine, 0, 4096, 1, 0x01) == ALLOW
    assert answer("mmap", machine, 0, 4096, 3, 0x21) == EPERM
    assert answer("mmap", machine, 0, 4096, 3, 0x23) == EPERM
    assert answer("ioctl", machine, 0, 0x5401) == ALLOW
    for request in (0x5412, 0x541C, 0x4B4A, 0):
        assert answer("ioctl", machine, 0, request) == ERRNO | errno.ENOTTY
    assert answer("fcntl", machine, 3, 1) == ALLOW
    for command in (8, 10, 15, 1024, 1026, 1031, 1033, 2**32 - 1):
        assert answer("fcntl", machine, 3, command) == ERRNO | errno.EINVAL
    assert answer("madvise", machine, 0, 4096, 4) == ALLOW
    assert answer("madvise", machine, 0, 4096, 100) == answer("madvise", machine, 0, 4096, 101) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_what_the_second_stage_takes_away(machine: str) -> None:
    for name in STARTING - {"setrlimit"}:
        assert answer(name, machine, final=False) == ALLOW
        assert answer(name, machine, final=True) == EPERM
    for name in ("kill", "tgkill"):
        assert answer(name, machine, 1, 9, final=False) == ALLOW
        assert answer(name, machine, PID, 6) == ALLOW
        for other in (0, 1, -1, PID + 1):
            assert answer(name, machine, other, 9) == EPERM
    assert answer("prctl", machine, 38, 1, final=False) == ALLOW
    for option in (4, 22, 35, 38, 59, 0x53564D41):
        assert answer("prctl", machine, option) == EPERM
    assert answer("prctl", machine, 15) == ALLOW
    assert answer("prlimit64", machine, 0, 7, 0x7FFF0000, 0, final=False) == ALLOW
    assert answer("prlimit64", machine, 1, 7, 0x7FFF0000, 0, final=False) == EPERM
    assert answer("prlimit64", machine, 0, 7, 0, 0x7FFF0000) == ALLOW
    assert answer("prlimit64", machine, 0, 7, 0x7FFF0000, 0) == EPERM
    assert answer("prlimit64", machine, 0, 7, 0x7FFF_0000_0000, 0) == EPERM, "the upper half of the pointer counts"
    assert answer("setrlimit", machine, final=True) == EPERM


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=6), st.sampled_from(MACHINES))
def test_the_filter_always_answers(number: int, arguments: list[int], machine: str) -> None:
    code = program(machine, final=True, own_pid=PID)
    assert judge(code, number, ARCHITECTURES[machine][1], tuple(arguments)) & 0xFFFF0000 in (ALLOW, ERRNO, KILL)


@pytest.mark.parametrize("machine", MACHINES)
def test_jumps_stay_inside_and_the_program_is_short(machine: str) -> None:
    code = program(machine, final=True, own_pid=PID)
    count = len(code) // 8
    assert len(code) % 8 == 0
    assert count < 4096, "BPF_MAXINSNS"
    for at in range(count):
        operation, yes, no, _ = struct.unpack_from("<HBBI", code, 8 * at)
        if operation in (0x15, 0x35, 0x45):
            assert at + 1 + max(yes, no) < count
    assert struct.unpack_from("<HBBI", code, 8 * (count - 1))[0] == 0x06


def test_numbers_are_unique_and_the_sets_are_real() -> None:
    for column in (0, 1):
        numbers = [pair[column] for pair in NUMBERS.values() if pair[column] is not None]
        assert len(set(numbers)) == len(numbers)
    assert set(NUMBERS) >= CHECKED
    assert set(NUMBERS) >= STARTING
    assert len(NUMBERS) - len(STARTING) <= 111, "no more than the prototype had"
