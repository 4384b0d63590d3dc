"""Azure confidential VMs: the paravisor's report in the vTPM's NV memory, and a quote by the vTPM's key.

Source: Microsoft's "Azure confidential VM guest attestation" and the open-source guest attestation library: NV index 0x01400001 holds
the HCL report, 0x01400002 takes 64 bytes of user data for it, 0x81000003 is the attestation key. On TDX the instance metadata service turns
the TDREPORT inside the HCL report into a quote; on SNP it has the VCEK chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kakoi.attest.report import Evidence, Part, PlatformKind
from kakoi.core.errors import Refused, Unavailable
from kakoi.evidence.devices import no_answer, require_report_data
from kakoi.evidence.tpm import Tpm, TpmError

REPORT_INDEX: Final = 0x01400001
ATTESTATION_KEY: Final = 0x81000003
_MAX_REPORT: Final = 8192
_HEADER: Final = b"HCLA"
_HARDWARE_REPORT: Final = slice(32, 32 + 1184)
_TDREPORT: Final = slice(32, 32 + 1024)
_KIND_OFFSET: Final = 1216 + 8
_KINDS: Final[dict[int, PlatformKind]] = {2: "azure-snp", 4: "azure-tdx"}

TdQuote = Callable[[bytes], bytes]
"""TDREPORT in, quote out: the metadata service at /acc/tdquote. Raises Unavailable."""
Certificates = Callable[[], tuple[Part, ...]]
"""Certificates of the SNP host, DER: the metadata service's THIM. Raises Unavailable."""


class AzureProducer:
    """Asks the vTPM, and the instance metadata service where the hardware's own quote comes from there."""

    def __init__(self, tpm: Tpm, *, td_quote: TdQuote, certificates: Certificates) -> None:
        self._tpm, self._td_quote, self._certificates = tpm, td_quote, certificates

    def evidence(self, report_data: bytes) -> Evidence:
        """HCL report, TPM quote over all PCRs with these 64 bytes as qualifying data, PCR values.

        Quote and PCRs are read one after the other; if a PCR was extended between, they do not belong together and both are
        read again. Raises Unavailable or Refused.
        """
        require_report_data(report_data)
        try:
            report = self._tpm.nv_read(REPORT_INDEX, self._report_size())
            kind = _kind(report)
            before = self._tpm.pcrs()
            quote, signature = self._tpm.quote(ATTESTATION_KEY, report_data)
            if self._tpm.pcrs() != before:
                raise Unavailable(
                    "evidence.race", "expected PCRs that stand still while they are quoted", hint="try again"
                )
        except OSError as error:
            raise no_answer("the TPM", error) from error
        except TpmError as error:
            raise Refused(
                "evidence.tpm-refused",
                f"expected the vTPM of an Azure confidential VM to answer, it refused with code 0x{error.code:x}",
                hint="is this an Azure confidential VM with a vTPM?",
            ) from error
        parts = [
            Part(name="tpm-quote", data=quote),
            Part(name="tpm-signature", data=signature),
            Part(name="pcrs", data=before),
        ]
        if kind == "azure-tdx":
            parts.append(Part(name="td-quote", data=self._td_quote(report[_TDREPORT])))
        else:
            parts += self._certificates()
        return Evidence(platform=kind, statement=report, parts=tuple(parts))

    def _report_size(self) -> int:
        size = self._tpm.nv_size(REPORT_INDEX)
        if not _HARDWARE_REPORT.stop < size <= _MAX_REPORT:
            raise Refused("evidence.hcl-size", "expected an HCL report in the vTPM, got an NV index of another size")
        return size


def _kind(report: bytes) -> PlatformKind:
    number = int.from_bytes(report[_KIND_OFFSET : _KIND_OFFSET + 4], "little")
    if not report.startswith(_HEADER) or number not in _KINDS:
        raise Refused("evidence.hcl", "expected an HCL report of an SNP or TDX machine, got something else")
    return _KINDS[number]
