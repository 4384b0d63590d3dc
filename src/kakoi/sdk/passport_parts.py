"""Parts of a passport that are checked alike: one message of each owner, and the error for what does not fit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from kakoi.contract.approve import Agreement
from kakoi.contract.sign import Signed, open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused
from kakoi.wire.messages import Challenge, KeyGrant, Lease, Release

M = TypeVar("M", Challenge, KeyGrant, Lease, Release)


def wrong(what: str) -> Refused:
    """The error for a passport that contradicts itself."""
    return Refused(
        "passport.contradiction",
        f"the passport contradicts itself: {what}",
        hint="the file was put together from different runs, or altered; ask the recipient for the original",
    )


def one_of_each(
    cls: type[M], envelopes: tuple[Envelope, ...], agreement: Agreement, owners: Sequence[str]
) -> tuple[Signed[M], ...]:
    """The messages of one kind, exactly one of each owner and signed by it. Raises Malformed or Refused."""
    found: dict[str, Signed[M]] = {}
    for envelope in envelopes:
        owner = cls.decode(envelope.payload).owner
        if owner not in owners:
            raise wrong("expected messages of the owners whose yes the run needed only")
        found[owner] = open_signed(cls, envelope, agreement.cards[owner])
    if set(found) != set(owners) or len(envelopes) != len(found):
        raise wrong("expected one message of each kind of each owner")
    return tuple(found.values())
