"""Signed bundles: what one machine fetched, carried to brokers that reach only the hub, or nothing at all.

The party's signature answers "who gave us this?". It makes nothing true: every piece is checked against the vendors'
pinned roots on arrival, exactly as if it had been fetched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kakoi.broker.collateral import SKEW_SECONDS, KeptPieces
from kakoi.broker.collateral_pieces import PINNED, Anchors
from kakoi.broker.collateral_wants import want_of
from kakoi.contract.model import PartyCard
from kakoi.contract.sign import Signed, open_signed, require_signer, seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import PartyId
from kakoi.core.x509 import utc
from kakoi.party.home import PartyHome
from kakoi.wire.collateral import Bundle, Piece

MAX_BYTES: Final = 12 * 1024 * 1024
"""Of the file: an envelope around at most 8 MiB."""


def make_bundle(home: PartyHome, pieces: Iterable[Piece], now: int) -> Envelope:
    """A bundle of these pieces, each question once, signed by the party. Raises Malformed if there is none."""
    by_question = {piece.asked: piece for piece in pieces}
    ordered = tuple(by_question[asked] for asked in sorted(by_question))
    return seal(Bundle(party=PartyId(home.card.id), made_at=now, pieces=ordered), home.keys.signer())


def import_bundle(
    data: bytes, card: Signed[PartyCard], kept: KeptPieces, *, now: int, anchors: Anchors = PINNED
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keep the pieces of a bundle that are newer than what is kept: (taken, left because ours are at least as new).

    1. The envelope is signed by the party of ``card``, which the bundle names.
    2. Nothing in it was fetched in the future, but for a minute of clock skew.
    3. Every piece answers a known question and is the vendor's own word, in its window at ``now``.
    4. Only then is anything written: a bundle is taken whole or not at all.

    Raises Malformed and Refused.
    """
    newer, left = [], []
    for piece, dates in check_bundle(data, card, now=now, anchors=anchors):
        mine = kept.read(piece.asked)
        if mine is not None and _is_good(mine, dates, piece, now, anchors):
            left.append(piece.asked)
        else:
            newer.append(piece)
    for piece in newer:
        kept.write(piece)
    return tuple(piece.asked for piece in newer), tuple(left)


def check_bundle(
    data: bytes, card: Signed[PartyCard], *, now: int, anchors: Anchors = PINNED
) -> tuple[tuple[Piece, tuple[int, ...]], ...]:
    """The pieces of a bundle with their dates, after steps 1 to 3 of ``import_bundle``. Raises Malformed and Refused."""
    bundle = open_signed(Bundle, Envelope.decode(data), card).record
    require_signer(bundle.party, card, "a collateral bundle")
    return tuple((piece, _check(piece, now, anchors)) for piece in bundle.pieces)


def _check(piece: Piece, now: int, anchors: Anchors) -> tuple[int, ...]:
    if piece.fetched_at > now + SKEW_SECONDS:
        raise Refused(
            "collateral.future",
            f"{piece.asked}: expected to be fetched before {utc(now)}, got {utc(piece.fetched_at)}",
            hint="one of the two machines has a wrong clock",
        )
    return want_of(piece.asked).check(piece.by_name, now, anchors)


def _is_good(mine: Piece, dates: tuple[int, ...], piece: Piece, now: int, anchors: Anchors) -> bool:
    """Whether the kept piece is good and nothing in it is older than in the other; an older fetch of the same is left."""
    try:
        own = want_of(mine.asked).check(mine.by_name, now, anchors)
    except (Malformed, Refused):
        return False
    if any(new < old for new, old in zip(dates, own, strict=True)):
        return True
    return dates == own and mine.fetched_at >= piece.fetched_at
