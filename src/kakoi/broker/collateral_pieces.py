"""What can be asked of vendors, and what they answered: the records that are kept on disk and travel in bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Protocol

from kakoi.attest.dcap import roots as dcap_roots
from kakoi.attest.nitro import verify as nitro
from kakoi.attest.report import Part
from kakoi.attest.snp import endorsement
from kakoi.attest.snp.parse import Product
from kakoi.broker.collateral_http import Get
from kakoi.core.errors import Malformed, Unavailable
from kakoi.core.records import Limit, PartyRef, Record, Seconds

HOUR: Final = 3600
DAY: Final = 24 * HOUR
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """The vendors' pinned root keys. Only tests use others."""

    intel: frozenset[str] = dcap_roots.INTEL
    amd: Mapping[str, Product] = field(default_factory=lambda: endorsement.ROOTS)
    aws: frozenset[str] = nitro.ROOTS


PINNED: Final = Anchors()


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Base addresses of the services that may be asked; None for those that may not."""

    intel: str | None = None
    amd: str | None = None
    aws: str | None = None


class Want(Protocol):
    """Something to ask a vendor for."""

    @property
    def asked(self) -> str:
        """The question as text; the same for every server that could answer it."""
        ...

    @property
    def refresh(self) -> int:
        """After how many seconds the vendor is asked again."""
        ...

    def fetch(self, get: Get, services: Services) -> dict[str, bytes]:
        """The vendor's answer, split into parts. Nothing in it is trusted. Raises Unavailable and Malformed."""
        ...

    def check(self, parts: Mapping[str, bytes], now: int, anchors: Anchors) -> tuple[int, ...]:
        """Whether these are the vendor's own words about what was asked, and of today: signatures up to a pinned root,
        windows, and the platform that was asked about.

        Returns the dates at which the parts were issued, always in the same order. **Not** judged: revocation and
        status. A list that revokes the very chain that is used here is genuine, and has to reach the verifier.
        Raises Malformed and Refused.
        """
        ...

    def collateral(self, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        """The parts of ``kakoi/collateral/v1`` in this answer."""
        ...


def base_of(services: Services, vendor: str) -> str:
    """The address of a vendor's service. Raises Unavailable ``collateral.absent`` if none may be asked."""
    base: str | None = getattr(services, vendor)
    if base is None:
        raise Unavailable(
            "collateral.absent",
            f"expected a service of {vendor} to ask, or an imported piece, got neither",
            hint="kakoi broker serve --collateral-from, or kakoi collateral import",
        )
    return base


def exactly(parts: Mapping[str, bytes], *names: str) -> None:
    """Raise Malformed unless ``parts`` are these."""
    if set(parts) != set(names):
        raise Malformed("collateral.piece", f"expected the parts {', '.join(names)} in a collateral piece, got others")
