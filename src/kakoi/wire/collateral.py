"""Vendors' answers about their hardware, as brokers keep them and parties carry them: records only (docs/formats/collateral.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kakoi.attest.report import Part
from kakoi.core.errors import Malformed
from kakoi.core.records import Limit, PartyRef, Record, Seconds

Asked = Annotated[
    str,
    Limit(
        least=1,
        most=400,
        pattern=r"[A-Za-z0-9-]+(?:/[A-Za-z0-9.-]+)+",
        form="words joined by '/', as docs/collateral.md lists them",
    ),
]
"""What was asked of a vendor, whichever server answered: ``intel/sgx/00906ed50000/platform``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece(Record):
    """One genuine answer of a vendor: the parts that were asked for together, and when they were fetched."""

    KIND: ClassVar[str] = "kakoi/collateral-piece/v1"

    asked: Asked
    fetched_at: Seconds
    parts: Annotated[tuple[Part, ...], Limit(least=1, most=16)]

    def check(self) -> None:
        """Each part once."""
        if len({part.name for part in self.parts}) != len(self.parts):
            raise Malformed("collateral.piece", "expected each part of a collateral piece once, got one repeated")

    @property
    def by_name(self) -> dict[str, bytes]:
        """The parts' bytes by name."""
        return {part.name: part.data for part in self.parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle(Record):
    """Pieces that a party vouches to have fetched, for brokers that reach only the hub or nothing at all.

    The signature says who carried it. What makes the pieces true are the vendors' own signatures.
    """

    KIND: ClassVar[str] = "kakoi/collateral-bundle/v1"

    party: PartyRef
    made_at: Seconds
    pieces: Annotated[tuple[Piece, ...], Limit(least=1, most=256)]

    def check(self) -> None:
        """Each question once."""
        if len({piece.asked for piece in self.pieces}) != len(self.pieces):
            raise Malformed("collateral.piece", "expected each question of a collateral bundle once, got one repeated")
