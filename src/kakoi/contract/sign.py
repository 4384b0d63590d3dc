"""Signing objects, and opening signed ones. What comes out of here was verified; nothing else can make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from kakoi.contract.model import PartyCard
from kakoi.core import dsse
from kakoi.core.crypto import Signer, VerifyingKey
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId, PartyId
from kakoi.core.records import Record
from kakoi.core.sealed import Sealed

T = TypeVar("T", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(Generic[T], metaclass=Sealed):
    """A record whose signature was verified. Only the ``open_…`` functions here make one.

    ``id`` is the SHA-256 of the payload, ``envelope`` the exact bytes that were signed.
    """

    record: T
    id: ObjectId
    envelope: dsse.Envelope


def _signed(record: T, envelope: dsse.Envelope) -> Signed[T]:
    made: Any = Signed._seal(record=record, id=envelope.payload_id, envelope=envelope)
    return cast("Signed[T]", made)


def seal(record: Record, signer: Signer) -> dsse.Envelope:
    """A record in its envelope. The record passes its own decoder first, so nobody signs what others would refuse."""
    payload = record.encode()
    type(record).decode(payload)
    return dsse.sign(payload, signer)


def open_self_signed(cls: type[T], envelope: dsse.Envelope, key: Callable[[T], VerifyingKey]) -> Signed[T]:
    """A record signed by the key inside it. Proves possession of that key and nothing about whose it is.

    Raises Malformed or Refused.
    """
    record = cls.decode(envelope.payload)
    dsse.verify(envelope, key(record))
    return _signed(record, envelope)


def open_card(envelope: dsse.Envelope) -> Signed[PartyCard]:
    """A party card that its own keys signed. Whose keys they are, people compare by the id.

    Raises Malformed or Refused.
    """
    return open_self_signed(PartyCard, envelope, lambda card: card.verifying_key)


def open_signed(cls: type[T], envelope: dsse.Envelope, card: Signed[PartyCard]) -> Signed[T]:
    """A record of class ``cls`` signed by the party of ``card``. Raises Malformed or Refused."""
    payload = dsse.verify(envelope, card.record.verifying_key)
    return _signed(cls.decode(payload), envelope)


def party_id(card: Signed[PartyCard]) -> PartyId:
    """A party's id is the id of its card."""
    return PartyId(card.id)


def require_signer(claimed: str, card: Signed[PartyCard], what: str) -> None:
    """Raise Refused unless the party named inside an object is the one that signed it."""
    if claimed != card.id:
        raise Refused(
            "signature.party",
            f"expected {what} to be signed by the party it names, got another party's signature",
            hint="ask the named party for its own signed copy",
        )
