"""Pretended vendors behind local servers, for tests of a broker's collateral."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kakoi.attest.report import Collateral, Evidence, Part
from kakoi.attest.snp.parse import Product
from kakoi.broker.collateral import KeptCollateral, KeptPieces
from kakoi.broker.collateral_http import HttpGet
from kakoi.broker.collateral_pieces import Anchors, Services
from kakoi.core.errors import KakoiError
from kakoi.testing import amd_vendor, nitro_vendor
from kakoi.testing.collateral_servers import VendorServer
from kakoi.testing.dcap_vendor import Vendor

INTEL = Vendor()
OTHER_INTEL = Vendor()
GET = HttpGet(connect=2, idle=0.7, total=1.2)


def anchors(intel: Vendor = INTEL, product: Product = "Genoa") -> Anchors:
    """What a broker pins. The pretended AMD's lines share their keys, so only one of them at a time."""
    return Anchors(intel=intel.roots, amd=amd_vendor.vendor(product).roots, aws=nitro_vendor.vendor().roots)


@dataclass(slots=True)
class Site:
    """One owner's kept collateral, in front of one server that plays every vendor."""

    directory: Path
    server: VendorServer
    told: list[str] = field(default_factory=list)
    offline: bool = False
    product: Product = "Genoa"

    @property
    def kept(self) -> KeptPieces:
        return KeptPieces(self.directory)

    def source(self) -> KeptCollateral:
        """As after a restart: nothing is remembered but what is on disk."""
        url = None if self.offline else self.server.url
        return KeptCollateral(
            self.kept,
            services=Services(intel=url, amd=url, aws=url),
            get=GET,
            tell=self._tell,
            anchors=anchors(product=self.product),
        )

    def _tell(self, error: KakoiError) -> None:
        self.told.append(error.code)


def by_name(collateral: Collateral) -> dict[str, bytes]:
    return {part.name: part.data for part in collateral.parts}


def snp_evidence(statement: bytes, table: bytes | None = None) -> Evidence:
    parts = () if table is None else (Part(name="certificates", data=table),)
    return Evidence(platform="snp", statement=statement, parts=parts)
