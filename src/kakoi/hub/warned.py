"""Whom a hub turns away because others warned of them: addresses, keys, and certificates of clients.

``indicators.json`` in the hub's directory is written by `kakoi intel` and read again within a second of a change, in a thread, so that a
large list holds nobody up. A hub does not start on a damaged list. One that is damaged while the hub runs changes nothing: what acted
before goes on to act, and the hub's stream says so. Loopback and the networks that the operator itself allows are spared (ADR 0154).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError, Refused
from kakoi.guard.intel.index import Indicated, Shelf
from kakoi.guard.intel.indicator import Indicator
from kakoi.hub.listen import networks

logger = logging.getLogger("kakoi.hub")
_HINT = "whoever is meant asks the hub's operator, who sees the indicator and its source with kakoi intel list"


class Warned:
    """The indicators of one hub. ``tell`` hears of refusals that nobody else hears of, and of a list that cannot be read."""

    def __init__(self, directory: Path, allow: tuple[str, ...], now: Callable[[], int]) -> None:
        """Raises Malformed for a damaged list."""
        self._shelf, self._now = Shelf(directory, spared=networks(allow)), now
        self._shelf.index()
        self._bad: tuple[int, ...] | None = None
        self.tell: Callable[[KakoiError, str], None] = lambda error, address: None

    def require_address(self, address: str) -> None:
        """Raise Refused if an indicator that acts names this address."""
        _refuse(self._shelf.last.of_address(address, self._now()), "an address")

    def require_keys(self, *names: str) -> None:
        """Raise Refused if an indicator that acts names a key by its id, or a party by its card's."""
        _refuse(self._shelf.last.find("key", filter(None, names), self._now()), "a key")

    def certificate_fits(self, certificate: bytes | None, address: str) -> bool:
        """Whether a client's certificate (DER) may connect. There is no request yet that could be answered, so the stream is told."""
        if certificate is None:
            return True
        try:
            _refuse(self._shelf.last.find("certificate", (sha256(certificate).hex(),), self._now()), "a certificate")
        except Indicated as error:
            self.tell(error, address)
            return False
        return True

    async def look(self) -> None:
        """Read the list again if it has changed."""
        if not self._shelf.changed() or self._shelf.version() == self._bad:
            return
        version = self._shelf.version()
        try:
            found = await asyncio.to_thread(self._shelf.index)
        except KakoiError as error:
            self._bad = version
            logger.warning("%s", error)
            self.tell(error, "")
            return
        self._bad = None
        logger.info("%d indicators are believed", found.size)


def _refuse(found: Indicator | None, what: str) -> None:
    if found is not None:
        why = Refused(
            "hub.indicated", f"expected {what} that nobody warns of, got one that an indicator names", hint=_HINT
        )
        raise Indicated(why, found.id)
