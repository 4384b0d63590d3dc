"""Which hardware this enclave asks, by the name given on its command line."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from kakoi.attest.report import Evidence
from kakoi.core.errors import Misuse
from kakoi.enclave.keeper.session import Producer
from kakoi.evidence.azure import AzureProducer
from kakoi.evidence.azure_metadata import Metadata
from kakoi.evidence.devices import KernelTree
from kakoi.evidence.gramine import GramineProducer
from kakoi.evidence.nsm import NsmProducer
from kakoi.evidence.software import SoftwarePlatform
from kakoi.evidence.tpm import Tpm, kernel_channel
from kakoi.evidence.tsm import TsmProducer

NAMES: Final = ("software", "tsm", "gramine", "nsm", "azure")
"""``tsm`` is SNP or TDX, whichever the kernel offers."""


class SoftwareProducer:
    """The software platform plays the hardware: it measures the image this program runs from, and signs that."""

    def __init__(self, platform: SoftwarePlatform, measurement: bytes) -> None:
        self._platform, self._measurement = platform, measurement

    def evidence(self, report_data: bytes) -> Evidence:
        """A quote over these 64 bytes."""
        return self._platform.quote(report_data, self._measurement)


def producer(name: str, *, software: Path | None, measurement: bytes) -> Producer:
    """The producer of this name. Only ``software`` needs a directory, and takes our own word for the measurement: real hardware measures.

    Raises Misuse for an unknown name or a missing directory.
    """
    if name == "software":
        if software is None:
            raise Misuse(
                "platform.directory",
                "expected the directory of the software platform, got none",
                hint="--platform-directory",
            )
        return SoftwareProducer(SoftwarePlatform.load(software), measurement)
    if name == "tsm":
        return TsmProducer(KernelTree(), name=lambda: f"kakoi-{secrets.token_hex(8)}")
    if name == "gramine":
        return GramineProducer(KernelTree())
    if name == "nsm":
        return NsmProducer()
    if name == "azure":
        metadata = Metadata()
        return AzureProducer(Tpm(kernel_channel()), td_quote=metadata.td_quote, certificates=metadata.certificates)
    raise Misuse("platform.name", f"expected a platform of {', '.join(NAMES)}, got another")
