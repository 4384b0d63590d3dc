"""Tickets: cheap proof that somebody has just taken part in a run that is at work, for the hours in which the hub is attacked.

Checking a party's signatures costs a millisecond; checking a ticket costs a microsecond. A hub gives one to whoever stored an
object of a run that an enclave holds, or holds a claim itself, and everybody sends it along. It proves nothing to anybody but the hub, and gives no right
except to be served first: before strangers, and out of a part of every budget that strangers cannot use up.

A ticket is bound to the address prefix it was given to, so a stolen one is of use only to a neighbour, and ends after a quarter of an hour
without use.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Final

HEADER: Final = "Kakoi-Ticket"
_SECONDS: Final = 900
_MOST: Final = 200
_PURPOSE: Final = b"kakoi/hub-ticket/v1"


class Tickets:
    """Tickets of all hubs that share an operator's token."""

    def __init__(self, operator_token: bytes, now: Callable[[], int]) -> None:
        self._key = hmac.digest(operator_token, _PURPOSE, "sha256")
        self._now = now

    def give(self, holder: str, prefix: str) -> str:
        """A ticket for ``holder`` (a party's id, or ``enclave``)."""
        text = f"{self._now() + _SECONDS}.{holder}"
        return f"{text}.{self._tag(text, prefix)}"

    def holder(self, ticket: str, prefix: str) -> str:
        """Whose ticket it is; empty if it is none, or has ended. It decides who is served first, and nothing else."""
        text, _, tag = ticket.rpartition(".")
        if not text or len(ticket) > _MOST or not ticket.isascii():
            return ""
        if not hmac.compare_digest(tag, self._tag(text, prefix)):
            return ""
        until, _, holder = text.partition(".")
        left = int(until) - self._now()  # a tag of ours, so a number of ours
        return holder if 0 < left <= _SECONDS else ""

    def renewed(self, ticket: str, holder: str, prefix: str) -> str:
        """A new ticket for whoever used one in its second half; empty before."""
        left = int(ticket.partition(".")[0]) - self._now()
        return self.give(holder, prefix) if left < _SECONDS // 2 else ""

    def _tag(self, text: str, prefix: str) -> str:
        return hmac.new(self._key, f"{text}\n{prefix}".encode(), sha256).hexdigest()[:32]
