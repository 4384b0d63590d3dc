"""seccomp filters in two stages, written as BPF without a library.

Stage 1 is loaded by bubblewrap before it starts the interpreter. Stage 2 is loaded by the engine's own start-up code when all
libraries are in memory and the job is about to begin; it covers every thread. Both are allow-lists: an unlisted call fails with
EPERM, a call of another ABI (32-bit, x32) kills the process.

What arguments are checked, because the call cannot be left out:
    clone       threads only: CLONE_THREAD and no new namespace. clone3 hides its flags in memory: ENOSYS makes libc use clone
    mmap        no shared anonymous memory, which RLIMIT_DATA does not count
    ioctl       TCGETS, FIOCLEX, FIONCLEX, FIONREAD, FIONBIO; no TIOCSTI, no TIOCLINUX
    fcntl       descriptor flags and record locks; no signals (F_SETOWN), no leases, no seals
    madvise     no hardware poison tests
    prlimit64   stage 2: reading one's own limits; stage 1 may also lower them
    prctl       stage 2: thread names
    kill        stage 2: signals to oneself only (abort)
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Sequence
from typing import Final

from kakoi.core.errors import Fatal
from kakoi.enclave.sandbox.syscalls import CHECKED, NUMBERS, STARTING

ARCHITECTURES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine: its column in ``NUMBERS`` and its AUDIT_ARCH."""
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
ERRNO: Final = 0x00050000
EPERM: Final = ERRNO | errno.EPERM
_X32_BIT: Final = 0x40000000
_LOAD, _AND, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH = 0, 4
_NAMESPACES: Final = 0x7E020000 | 0x80
"""All CLONE_NEW… flags, NEWTIME included."""
_CLONE_THREAD: Final = 0x00010000
_SHARED_ANONYMOUS: Final = 0x21
_IOCTLS: Final = (0x5401, 0x5451, 0x5450, 0x541B, 0x5421)
_FCNTLS: Final = (0, 1, 2, 3, 4, 1030, 5, 6, 7)
_PRCTL_NAMES: Final = (15, 16, 3)
_MADVISE_HARDWARE_POISON: Final = (100, 101)

Code = bytes


def _ins(code: int, value: int, yes: int = 0, no: int = 0) -> Code:
    return struct.pack("<HBBI", code, yes, no, value & 0xFFFFFFFF)


def _argument(index: int, *, high: bool = False) -> Code:
    """Load 32 bits of an argument. Both architectures are little-endian."""
    return _ins(_LOAD, 16 + 8 * index + (4 if high else 0))


def _answer(action: int) -> Code:
    return _ins(_RETURN, action)


def _one_of(values: Sequence[int], refused: int) -> list[Code]:
    out: list[Code] = []
    for value in values:
        out += [_ins(_EQUAL, value, 0, 1), _answer(ALLOW)]
    return [*out, _answer(refused)]


def _blocks(*, final: bool, own_pid: int) -> dict[str, list[Code]]:
    """For each checked call the instructions that judge it; each ends with an answer."""
    threads = [
        _argument(0),
        _ins(_BITS, _NAMESPACES, 2, 0),
        _ins(_BITS, _CLONE_THREAD, 0, 1),
        _answer(ALLOW),
        _answer(EPERM),
    ]
    shared = [_argument(3), _ins(_AND, _SHARED_ANONYMOUS), _ins(_EQUAL, _SHARED_ANONYMOUS, 0, 1), _answer(EPERM)]
    own_limits = [_argument(0), _ins(_EQUAL, 0, 0, 5), _argument(2), _ins(_EQUAL, 0, 0, 3), _argument(2, high=True)]
    poison = [_ins(_EQUAL, advice, 2 - i, 0) for i, advice in enumerate(_MADVISE_HARDWARE_POISON)]
    blocks = {
        "clone": threads,
        "clone3": [_answer(ERRNO | errno.ENOSYS)],
        "mmap": [*shared, _answer(ALLOW)],
        "ioctl": [_argument(1), *_one_of(_IOCTLS, ERRNO | errno.ENOTTY)],
        "fcntl": [_argument(1), *_one_of(_FCNTLS, ERRNO | errno.EINVAL)],
        "madvise": [_argument(2), *poison, _answer(ALLOW), _answer(EPERM)],
        "prlimit64": [*own_limits, _ins(_EQUAL, 0, 0, 1), _answer(ALLOW), _answer(EPERM)],
    }
    if not final:
        own = [_argument(0), _ins(_EQUAL, 0, 0, 1), _answer(ALLOW), _answer(EPERM)]
        everything = [_answer(ALLOW)]
        return (
            blocks
            | {"prlimit64": own, "setrlimit": everything, "prctl": everything}
            | dict.fromkeys(("kill", "tgkill"), everything)
        )
    blocks["prctl"] = [_argument(0), *_one_of(_PRCTL_NAMES, EPERM)]
    blocks["kill"] = blocks["tgkill"] = [_argument(0), *_one_of((own_pid,), EPERM)]
    return blocks


def program(machine: str, *, final: bool, own_pid: int = 0) -> bytes:
    """The filter for a machine (``platform.machine()``). ``final``: stage 2, for the process ``own_pid``."""
    column, arch = ARCHITECTURES[machine]
    code = [_ins(_LOAD, _ARCH), _ins(_EQUAL, arch, 1, 0), _answer(KILL), _ins(_LOAD, _NR)]
    if machine == "x86_64":
        code += [_ins(_AT_LEAST, _X32_BIT, 0, 1), _answer(KILL)]
    for name, numbers in NUMBERS.items():
        number = numbers[column]
        if number is None or name in CHECKED or (final and name in STARTING):
            continue
        code += [_ins(_EQUAL, number, 0, 1), _answer(ALLOW)]
    for name, block in _blocks(final=final, own_pid=own_pid).items():
        number = NUMBERS[name][column]
        if number is not None:
            code += [_ins(_EQUAL, number, 0, len(block)), *block]
    return b"".join([*code, _answer(EPERM)])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_SET_MODE_FILTER: Final = 1
_GET_ACTION_AVAIL: Final = 2
_ALL_THREADS: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38


def _seccomp(operation: int, flags: int, argument: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    number = NUMBERS["seccomp"][ARCHITECTURES[platform.machine()][0]]
    return int(libc.syscall(number, operation, flags, argument))


def available() -> str:
    """Empty if this machine can filter system calls, else why not."""
    if platform.machine() not in ARCHITECTURES:
        return f"no filter is written for {platform.machine()}"
    action = ctypes.c_uint32(ERRNO)
    if _seccomp(_GET_ACTION_AVAIL, 0, ctypes.byref(action)) != 0:
        return "the kernel has no seccomp filters"
    return ""


def install(code: bytes) -> None:
    """Load a filter for every thread of this process, for ever. Raises Fatal if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(code, len(code))
    loaded = _Program(len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _seccomp(_SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(loaded)):
        raise Fatal("sandbox.seccomp", "expected the kernel to load the filter, got a refusal")
