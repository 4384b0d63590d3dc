"""Between the keeper and bubblewrap: a fresh process that gives up everything and becomes bubblewrap.

It is a program of its own, started with exec, so that no page of the keeper's memory is ever in it, and it imports nothing but
the standard library. Steps, in this order, because each takes away what the one before needs:
 1. enter the control group;
 2. as root: a mount namespace of its own in which the image's directories can be reached without root's rights
    (a home directory is often closed to others);
 3. rlimits;
 4. as root: become an unprivileged user of its own, for this job only;
 5. no new privileges; end when the parent ends;
 6. become bubblewrap, or the interpreter where bubblewrap is missing and the contract accepts that.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import sys
from typing import Any, Final

_NEW_MOUNTS: Final = 0x00020000
_BIND, _RECURSIVE, _PRIVATE = 0x1000, 0x4000, 0x40000
_NO_SUID, _NO_DEVICES = 2, 4
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def _call(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def _stage(libc: ctypes.CDLL, directory: str, roots: list[str]) -> None:
    """Bind each root below ``directory`` under its number, in a namespace that nobody else sees."""
    _call(libc.unshare(_NEW_MOUNTS), "unshare")
    _call(libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None), "private")
    place = directory.encode()
    _call(libc.mount(b"kakoi", place, b"tmpfs", _NO_SUID | _NO_DEVICES, b"mode=0755,size=1m"), "tmpfs")
    for number, root in enumerate(roots):
        target = f"{directory}/{number}".encode()
        os.mkdir(target, 0o755)
        _call(libc.mount(root.encode(), target, None, _BIND | _RECURSIVE, None), "bind")


def _arrange(answer: int, control: int, inherit: list[int]) -> None:
    """The answer becomes 3, the control socket 4; of the others only ``inherit`` survives the exec."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64) for descriptor in (answer, control)]
    for target, source in zip((3, 4), high, strict=True):
        os.dup2(source, target, inheritable=True)
    for descriptor in {answer, control} - {3, 4}:
        os.close(descriptor)
    for descriptor in inherit:
        os.set_inheritable(descriptor, True)


def main() -> None:
    """Carry out the specification in a descriptor; does not return. Arguments: its number, the answer's, the control socket's."""
    with open(int(sys.argv[1]), "rb") as file:
        spec: dict[str, Any] = json.load(file)
    libc = ctypes.CDLL(None, use_errno=True)
    for entry in spec["cgroup"]:
        with open(entry, "w", encoding="ascii") as file:
            file.write("0")
    if spec["stage"]:
        _stage(libc, spec["stage"], spec["roots"])
    for name, value in spec["rlimits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if spec["uid"] is not None:
        os.setgroups([])
        os.setresgid(spec["uid"], spec["uid"], spec["uid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    _call(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    if os.getppid() != spec["parent"]:
        os._exit(0)
    _call(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _arrange(int(sys.argv[2]), int(sys.argv[3]), spec["inherit"])
    os.execve(spec["command"][0], spec["command"], spec["environment"])  # noqa: S606 - no shell


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:  # the parent sees the log end; a traceback would only be noise in it
        os.write(2, f"launch: {type(error).__name__} {error}\n".encode())
    os._exit(126)
