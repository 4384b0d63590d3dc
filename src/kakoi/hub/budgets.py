"""Who asks, and how much of what is left for them: token buckets for identities and address prefixes.

All of it is arithmetic in memory, so that it can stand before anything expensive. A bucket is found under a text, never under a
number that a client chooses: Python's hashes of texts are keyed, those of numbers are not, and a dictionary of chosen
numbers can be made as slow as a list.

Budgets are each hub process's own: its part of what all hubs on one database give (``Settings.hubs``). What must hold across hubs
and restarts is a quota (``hub.quota``), in the database.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

from kakoi.core.errors import Unavailable
from kakoi.hub.settings import Limits

_MOST_BUCKETS: Final = 65_536
"""About 20 MB. Beyond it the bucket that was used longest ago is forgotten, and with it at most one burst of its owner."""
_V4, _V6 = 24, 56
"""What one organisation usually has: a budget for each single IPv6 address would be a budget for each of 2^64."""


class Later(Unavailable):
    """An Unavailable that says when to come back: ``after`` seconds, to which clients add a random part."""

    def __init__(self, error: Unavailable, after: float) -> None:
        super().__init__(error.code, error.message, hint=error.hint)
        self.after = after


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks, as far as that is known: the address it came from, and the party whose signature on the request was verified."""

    prefix: str
    party: str = ""
    holder: str = ""
    """Whoever holds a valid ticket (``hub.tickets``): serves first, and nothing else."""

    @property
    def vital(self) -> bool:
        """True if it takes part in runs at work: it is served when others are not."""
        return bool(self.holder)

    @property
    def name(self) -> str:
        """What budgets and quotas are kept under."""
        return f"party:{self.party}" if self.party else f"prefix:{self.prefix}"


@lru_cache(maxsize=4096)
def prefix_of(host: str) -> str:
    """The network that a client's address belongs to; what is no address (a socket file) is one network."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return "local"
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return str(ip_network((address, _V4 if address.version == 4 else _V6), strict=False))


class Buckets:
    """One token bucket for each name: ``rate`` tokens a second, ``burst`` at most. Every operation takes constant time."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float], *, most: int = _MOST_BUCKETS) -> None:
        self._rate, self._burst, self._clock, self._most = rate, burst, clock, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def wait(self, name: str, amount: float = 1) -> float:
        """Seconds until ``amount`` can be taken; 0 if it can be now. Takes nothing."""
        return max(0.0, (min(amount, self._burst) - self._now(name)) / self._rate)

    def take(self, name: str, amount: float = 1) -> float:
        """Take ``amount`` and return 0; or take nothing and return the seconds until there is enough."""
        left = self._now(name)
        if left < min(amount, self._burst):
            return (min(amount, self._burst) - left) / self._rate
        self._left[name] = (left - amount, self._clock())
        self._left.move_to_end(name)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return 0

    def _now(self, name: str) -> float:
        known = self._left.get(name)
        return self._burst if known is None else min(self._burst, known[0] + (self._clock() - known[1]) * self._rate)


class Budgets:
    """What one hub gives to each. Everything raises ``Later`` when it is spent."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float],
        punish: Callable[[str], None] = lambda prefix: None,
        *,
        hubs: int = 1,
    ) -> None:
        """``punish`` hears of networks that spent their budget of requests. Of ``hubs`` each gives its part (ADR 0146)."""

        def buckets(rate: float, burst: float) -> Buckets:
            return Buckets(rate / hubs, burst / hubs, clock)

        self._punish = punish
        self._requests = buckets(limits.prefix_requests, 20 * limits.prefix_requests)
        self._holders = buckets(limits.party_requests, 20 * limits.party_requests)
        self._newcomers = buckets(limits.newcomer_objects, 40 * limits.newcomer_objects)
        self._objects = buckets(limits.party_objects, 20 * limits.party_objects)
        self._bytes = buckets(limits.newcomer_bytes, 8 * limits.newcomer_bytes)
        self._cards = buckets(limits.prefix_cards, 100)
        self._all_cards = buckets(limits.cards, 500)
        self._bad = buckets(limits.bad_signatures, 100)

    def request(self, who: Identity) -> None:
        """Before anything else is looked at."""
        if who.vital:
            self._spend(self._holders, f"{who.holder}@{who.prefix}", "requests from this party")
        else:
            try:
                self._spend(self._requests, who.prefix, "requests from this network")
            except Later:
                self._punish(who.prefix)
                raise

    def may_verify(self, who: Identity) -> None:
        """Before a signature is verified: whoever sent too many wrong ones waits."""
        if (after := self._bad.wait(who.prefix)) > 0:
            raise _later("signatures that can be verified for this network", after)

    def wrong_signature(self, who: Identity) -> None:
        """A signature was verified for nothing."""
        self._bad.take(who.prefix)

    def card(self, who: Identity) -> None:
        """Somebody registers."""
        self._spend(self._cards, who.prefix, "new party cards from this network")
        self._spend(self._all_cards, "all", "new party cards")

    def body(self, who: Identity, size: int) -> None:
        """Before an object's bytes are taken and read: reading a large one costs as much as verifying many small ones."""
        if not who.vital:
            self._spend(self._bytes, "all", "bytes of objects", size)

    def object(self, party: str, who: Identity) -> None:
        """A party whose signature was verified stores an object."""
        self._spend(self._objects, party, "objects of this party")
        if not who.vital:
            self._spend(self._newcomers, who.prefix, "objects from this network")

    @staticmethod
    def _spend(buckets: Buckets, name: str, what: str, amount: float = 1) -> None:
        if (after := buckets.take(name, amount)) > 0:
            raise _later(what, after)


def _later(what: str, after: float) -> Later:
    error = Unavailable(
        "hub.rate", f"expected fewer {what}, got more than the budget", hint="come back later, more slowly"
    )
    return Later(error, after)
