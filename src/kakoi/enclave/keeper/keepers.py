"""Several keepers on one machine, each a process: jobs of different contracts share no memory, no keys and no file descriptor.

The parent holds no key and does nothing but wait. A keeper that crashes is replaced, so that what breaks one contract's job does
not end another's; one that ends by itself could not work, and then all end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PAUSE_SECONDS: Final = 1.0


def several(count: int, work: Callable[[int], int]) -> int:
    """Run ``work(place)`` in ``count`` processes until one ends by itself or this one is interrupted; returns the exit code."""
    children: dict[int, int] = {}
    try:
        for place in range(count):
            children[_begin(place, work)] = place
        while True:
            ended, status = os.wait()
            place = children.pop(ended)
            if os.WIFEXITED(status):
                return os.WEXITSTATUS(status)
            print(
                f"- keeper {place + 1} was killed by signal {os.WTERMSIG(status)}: replaced",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(_PAUSE_SECONDS)
            children[_begin(place, work)] = place
    except KeyboardInterrupt:
        return 0
    finally:
        _end(children)


def _begin(place: int, work: Callable[[int], int]) -> int:
    """Fork before anything is secret; the child never returns from here."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        # No keeper outlives its parent, however that one ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        code = 0 if os.getppid() != parent else work(place)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end(children: dict[int, int]) -> None:
    """Ask every keeper to end, as the operator does, and wait: keys are wiped and sandboxes killed."""
    for child in children:
        os.kill(child, signal.SIGTERM)
    for child in children:
        os.waitpid(child, 0)
