"""A client that catches a log lying writes that down in its own party's stream, before anybody is told anything else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from kakoi.core.errors import KakoiError, Refused
from kakoi.guard.happening import Happening
from kakoi.guard.stream import FILE, Stream
from kakoi.party.home import PartyHome

FORKS: Final = frozenset({"log.fork", "log.rollback", "log.inconsistent", "log.origin"})


@contextmanager
def alarmed_by_forks(home: PartyHome) -> Iterator[None]:
    """Refusals of a log's checkpoint inside become events of the party; they are raised all the same."""
    try:
        yield
    except Refused as error:
        if error.code in FORKS:
            with suppress(KakoiError):  # the refusal counts more than its record
                _write(home, error.code, int(time.time()))
        raise


def _write(home: PartyHome, code: str, now: int) -> None:
    stream = Stream(
        home.path / FILE, name=home.card.record.name, component="client", signer=home.keys.signer(), now=now
    )
    try:
        stream.append(Happening(what="log.fork", at=now, component="client", outcome="failure", code=code))
    finally:
        stream.close(now)
