"""From where each party may ask, as the hub's operator said: in the database, so that all hubs on it know, and kept in memory, so
that a request's network is checked before its signature is.

Until a signature is verified, a key id is a claim. That is enough to refuse: whoever claims to be a party from a network that is
not this party's is not answered, whoever they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from kakoi.core.errors import KakoiError, Misuse, Refused
from kakoi.hub import schema
from kakoi.hub.database import Database
from kakoi.hub.listen import Networks, admits, networks

MOST: Final = 64
"""Networks of one party."""
_RELOAD_SECONDS: Final = 5.0
_columns = schema.networks.c


def read(connection: Connection) -> dict[str, Networks]:
    """Networks by the id of a party's first card; who has no entry may ask from everywhere."""
    found: dict[str, list[str]] = {}
    for row in connection.execute(select(schema.networks).order_by(_columns.party, _columns.network)):
        found.setdefault(row.party, []).append(row.network)
    return {party: networks(texts) for party, texts in found.items()}


def write(connection: Connection, party: str, allowed: Networks) -> None:
    """Replace a party's networks; none: it may ask from everywhere. For a connection in a transaction. Raises Misuse."""
    wanted = sorted({str(network) for network in allowed})
    if len(wanted) > MOST:
        raise Misuse("hub.allow", f"expected at most {MOST} networks of one party, got more")
    connection.execute(delete(schema.networks).where(_columns.party == party))
    if wanted:
        connection.execute(insert(schema.networks), [{"party": party, "network": network} for network in wanted])


class PartyNetworks:
    """What ``read`` gives, a few seconds old at most. For use from one event loop."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._known: Mapping[str, Networks] = {}
        self._read_at = float("-inf")

    async def require(self, party: str, address: str) -> None:
        """Raise Refused unless this party may ask from this address. An address that is unknown is on no list.

        If the database does not answer, what was read last goes on to hold; before it was ever read, nobody is let in.
        """
        if self._clock() - self._read_at > _RELOAD_SECONDS:
            try:
                self._known, self._read_at = await self._database.read(read), self._clock()
            except KakoiError:
                if self._read_at == float("-inf"):
                    raise
        allowed = self._known.get(party)
        if allowed is not None and not admits(allowed, address):
            raise Refused(
                "hub.party-network",
                "expected a request from one of the networks that this party asks from, got one from another",
                hint="the hub's operator names them: kakoi hub networks",
            )

    def forget(self) -> None:
        """Read again at the next request."""
        self._read_at = min(self._read_at, self._clock() - 2 * _RELOAD_SECONDS)
