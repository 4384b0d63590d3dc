"""What can be asked of vendors, and whose word counts. The answers' records are ``wire.collateral``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from kakoi.attest.dcap import roots as dcap_roots
from kakoi.attest.nitro import verify as nitro
from kakoi.attest.snp import endorsement
from kakoi.attest.snp.parse import Product
from kakoi.broker.collateral_http import Get
from kakoi.core.errors import Malformed, Unavailable

HOUR: Final = 3600
DAY: Final = 24 * HOUR


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
