"""How long the owners' keys may be used, measured by a clock that goes on while a machine sleeps.

An owner's lease runs from its own signed time to its own signed end. The enclave has no clock that it could compare with them, so it
counts the same number of seconds from before it asked the hardware for the evidence that the owner answered: it stops before the
owner's lease is over, never after. Whoever can stop the machine's clocks can stretch this; LIMITATIONS.md says how far.
"""

from __future__ import annotations

import threading
import time

from kakoi.core.errors import Refused


def now() -> float:
    """Seconds since the machine started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseClock:
    """When the shortest of the owners' leases is over. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._evidence: dict[int, float] = {}
        self._until: float | None = None

    def asked(self, renewal: int) -> None:
        """The hardware is about to be asked for the evidence of this renewal (0: of the session)."""
        with self._lock:
            self._evidence[renewal] = now()

    def granted(self, renewal: int, seconds: int) -> None:
        """All owners answered that evidence with leases of at least ``seconds``."""
        with self._lock:
            self._until = self._evidence.pop(renewal) + seconds

    def left(self) -> float:
        """Seconds until it is over; without end before anything was granted, because nothing is held then."""
        with self._lock:
            return float("inf") if self._until is None else self._until - now()

    def is_over(self) -> bool:
        """Whether nothing may be used any more."""
        return self.left() <= 0


def lease_over(silent: list[str]) -> Refused:
    """The reason for the analyst: which owners did not renew."""
    who = ", ".join(silent) or "an owner"
    return Refused(
        "session.lease-over",
        f"expected every owner to renew its lease in time; not renewed: {who}",
        hint="ask that owner whether its broker runs and still agrees; the run can be asked for again",
    )
