"""Looking up one thing among many indicators: built once for each version of the file, asked at every decision and every request.

Which indicators are believed does not change while a file stays as it is, so the index holds only those; whether one is in its time is
asked at each look. An address is looked for once for each length of prefix that occurs, not once for each indicator.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kakoi.core.errors import Refused
from kakoi.guard.intel import store
from kakoi.guard.intel.indicator import Indicator, Kind
from kakoi.guard.intel.store import Indicators

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK: Final = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128")))
WIDEST: Final = {4: 16, 6: 32}
"""Prefix lengths. A wider network in an allow-list says whom a hub serves, not whom it trusts, and spares nobody."""


class Indicated(Refused):
    """Somebody or something that an indicator names."""

    def __init__(self, why: Refused, indicator: str) -> None:
        super().__init__(why.code, why.message, hint=why.hint)
        self.indicator = indicator


class Index:
    """The believed indicators of one file, by what they name."""

    def __init__(self, known: Indicators, *, spared: Iterable[Network] = ()) -> None:
        """``spared`` networks are refused by no indicator, whatever it says; loopback is always among them."""
        self._named: dict[tuple[Kind, str], list[Indicator]] = {}
        self._networks: dict[tuple[int, int], dict[int, list[Indicator]]] = {}
        self._spared = (*LOOPBACK, *(network for network in spared if network.prefixlen >= WIDEST[network.version]))
        self.size = 0
        for item in known.items:
            if not known.believed(item):
                continue
            self.size += 1
            self._named.setdefault((item.kind, item.value), []).append(item)
            if item.kind == "address":
                network = ipaddress.ip_network(item.value)
                at = self._networks.setdefault((network.version, network.prefixlen), {})
                at.setdefault(int(network.network_address), []).append(item)

    def find(self, kind: Kind, values: Iterable[str], now: int) -> Indicator | None:
        """An indicator that acts now and names one of these values."""
        found = (item for value in values for item in self._named.get((kind, value), ()) if item.active(now))
        return min(found, key=lambda item: item.id, default=None)

    def of_address(self, text: str, now: int) -> Indicator | None:
        """An indicator that acts now and names this address or its network. None for what is no address, and for spared ones."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return None
        # A socket that listens for both shows IPv4 addresses as IPv6 ones (RFC 4291 §2.5.5.2).
        address = getattr(address, "ipv4_mapped", None) or address
        if any(address.version == network.version and address in network for network in self._spared):
            return None
        number, bits = int(address), address.max_prefixlen
        for (version, length), networks in self._networks.items():
            if version != address.version:
                continue
            for item in networks.get(number >> (bits - length) << (bits - length), ()):
                if item.active(now):
                    return item
        return None

    def spared(self, now: int) -> list[Indicator]:
        """Indicators that would act but for the networks they name, which are spared: whoever reads the list should know."""
        return [
            item
            for networks in self._networks.values()
            for items in networks.values()
            for item in items
            if item.active(now) and any(_overlap(item.value, network) for network in self._spared)
        ]


def _overlap(text: str, network: Network) -> bool:
    other = ipaddress.ip_network(text)
    return other.version == network.version and other.overlaps(network)


class Shelf:
    """The indicators of a directory, read again whenever their file has changed."""

    def __init__(self, directory: Path, *, spared: Iterable[Network] = ()) -> None:
        self._directory, self._spared = directory, tuple(spared)
        self._version: tuple[int, ...] | None = None
        self._index = Index(Indicators())

    def version(self) -> tuple[int, ...]:
        """What tells one version of the file from another; empty without a file."""
        try:
            found = (self._directory / store.FILE).stat()
        except FileNotFoundError:
            return ()
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def changed(self) -> bool:
        """Whether ``index`` would read the file."""
        return self.version() != self._version

    @property
    def last(self) -> Index:
        """What was read last, without a look at the file."""
        return self._index

    def index(self) -> Index:
        """The index of the present file. Raises Malformed for a damaged one, each time it is asked."""
        version = self.version()
        if version != self._version:
            self._index = Index(store.load(self._directory), spared=self._spared)
            self._version = version
        return self._index
