"""Azure confidential VM: the hardware vouches for the paravisor, the paravisor for a TPM key, the key for the guest.

``verify`` joins the pieces; who signed the hardware's report was proved before, by the room of that hardware. Steps:

1. The hardware report is of the kind that the evidence names (SNP, TDX).
2. Its REPORT_DATA is the hash of the claims, exactly as they stand in the HCL report, followed by zeros, over all 64
   bytes. So the claims, and ``HCLAkPub`` among them, are the paravisor's.
3. SNP: the report was asked for at VMPL 0, where the paravisor runs; a guest at VMPL 2 cannot speak for it.
   TDX: the TDREPORT is well-formed, its two hashes hold, and it shows what the quote shows (MRTD, RTMRs, owners), so
   that the unsigned copy can say nothing else.
4. The TPM quote is signed by ``HCLAkPub`` over **exactly** the SHA-256 PCRs 0 to 23 (see ``tpm.verify``).
5. An event log, if one is given, replays to PCRs 0 to 7 of the quote.

The quote's extraData is the session's report data, compared over its full length by the appraisal. VCEK certificates
come from Azure's THIM service, Intel's collateral from its cache: both prove themselves up to the vendor's pinned root.

Not checked, and why: the certificate of the attestation key up to "Global Virtual TPM CA" (it would add Microsoft's CA
to the trusted base and prove nothing that step 2 does not); CPUSVN and MAC inside a TDREPORT (the MAC's key never
leaves the processor; the signed quote stands for both); the quote's reset and restart counts (the challenge is the
freshness; ``safe`` is a fact); ``HCLEkPub`` (nothing is encrypted to it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kakoi.attest.azure.parse import HclReport
from kakoi.attest.ccel import replay
from kakoi.attest.report import Fact, refusal
from kakoi.attest.tpm import parse as tpm_parse
from kakoi.attest.tpm import verify as tpm
from kakoi.core.cursor import Cursor
from kakoi.core.errors import Malformed, Refused
from kakoi.core.sealed import Sealed

_PCR: Final = 32
_BOOT_PCRS: Final = range(8)
_REPORT_DATA: Final = 64
_SHA384: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What the guest presents beside the HCL report."""

    quote: bytes
    signature: bytes
    pcrs: bytes
    event_log: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedGuest(metaclass=Sealed):
    """PCRs and claims of a guest, proved up to the hardware's report."""

    hcl: HclReport
    quote: tpm.VerifiedQuote
    replayed: bool


def expected_report_data(hcl: HclReport) -> bytes:
    """The 64 bytes that the hardware has to have signed: the hash of the claims, and zeros."""
    return hashlib.new(hcl.hash_name, hcl.claims).digest().ljust(_REPORT_DATA, b"\0")


def verify(hcl: HclReport, presented: Presented, *, signed_report_data: bytes) -> VerifiedGuest:
    """The guest behind an HCL report whose hardware report was verified and holds ``signed_report_data``.

    Raises Malformed ``evidence.malformed``; Refused ``azure.claims``, ``azure.event-log``, ``tpm.*``, ``x509.signature``.
    """
    expected = expected_report_data(hcl)
    if signed_report_data != expected:  # step 2
        raise refusal("azure.claims", "hash of the HCL claims", expected.hex(), signed_report_data.hex(), "nobody")
    if len(presented.pcrs) != _PCR * len(tpm.ALL_PCRS):
        expected_size = f"{_PCR * len(tpm.ALL_PCRS)} bytes"
        raise Malformed("evidence.malformed", f"PCR values: expected {expected_size}, got {len(presented.pcrs)}")
    values = [presented.pcrs[i : i + _PCR] for i in range(0, len(presented.pcrs), _PCR)]
    quote = tpm.verify(  # step 4
        tpm_parse.parse_quote(presented.quote),
        tpm_parse.parse_signature(presented.signature),
        hcl.attestation_key,
        values,
        selection=tpm.ALL_PCRS,
    )
    if presented.event_log is not None:  # step 5
        _check_event_log(presented.event_log, quote.pcrs)
    return VerifiedGuest._seal(hcl=hcl, quote=quote, replayed=presented.event_log is not None)


def _check_event_log(log: bytes, pcrs: Mapping[int, bytes]) -> None:
    try:
        boot = {index: pcrs[index] for index in _BOOT_PCRS}
        replay.check_registers(replay.parse(log), boot, "sha256", "PCR 0 to 7")
    except Refused as error:
        raise Refused("azure.event-log", error.message, hint=error.hint) from None


def facts(guest: VerifiedGuest) -> tuple[Fact, ...]:
    """What a policy has to judge about the guest: its configuration, user data, TPM and event log."""
    user, extra = guest.hcl.user_data, guest.quote.quote.extra_data
    shown = "zero" if not any(user) else "report-data" if user == extra.ljust(len(user), b"\0") else user.hex()
    values = {
        "hcl.user-data": shown,
        "tpm.clock-safe": "yes" if guest.quote.quote.safe else "no",
        "event-log": "replayed" if guest.replayed else "none",
        **{f"vm.{name}": value for name, value in guest.hcl.configuration.items()},
    }
    return tuple(Fact(name=name, value=value) for name, value in values.items())


# --- TDREPORT (Intel TDX Module ABI, TDREPORT_STRUCT) --------------------------------------------------------------

TD_FIELDS: Final = ("mrtd", "mrconfigid", "mrowner", "mrownerconfig", "rtmr0", "rtmr1", "rtmr2", "rtmr3")


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReportCopy:
    """The unsigned TDREPORT inside an HCL report."""

    report_data: bytes
    registers: Mapping[str, bytes]


def parse_td_report(data: bytes) -> TdReportCopy:
    """A TDREPORT whose own hashes hold. Raises Malformed ``evidence.malformed``, Refused ``azure.td-report``."""
    cursor = Cursor(data, "TDREPORT", "little")
    if cursor.take(4, "the report type") not in (b"\x81\0\0\0", b"\x81\0\1\0"):
        raise cursor.bad("a TDX report of version 0 or 1", "another type")
    cursor.zeros(12, "the bytes after the report type")
    cursor.take(16, "CPUSVN")
    tcb_hash, info_hash = cursor.take(_SHA384, "TEETCBINFOHASH"), cursor.take(_SHA384, "TEEINFOHASH")
    report_data = cursor.take(_REPORT_DATA, "REPORTDATA")
    cursor.zeros(32, "the bytes after REPORTDATA")
    cursor.take(32, "MAC")
    tcb_info = cursor.take(239, "TEE_TCB_INFO")
    cursor.zeros(17, "the bytes after TEE_TCB_INFO")
    info = cursor.take(512, "TDINFO")
    cursor.done()
    hashes: Sequence[tuple[str, bytes, bytes]] = (
        ("TEETCBINFOHASH", tcb_hash, tcb_info),
        ("TEEINFOHASH", info_hash, info),
    )
    for name, expected, hashed in hashes:
        got = hashlib.sha384(hashed).digest()
        if got != expected:
            raise refusal("azure.td-report", name, expected.hex(), got.hex(), "nobody")
    at = 16
    registers = {}
    for name in TD_FIELDS:
        registers[name] = info[at : at + _SHA384]
        at += _SHA384
    return TdReportCopy(report_data=report_data, registers=registers)


def check_td_report(copy: TdReportCopy, quoted: Mapping[str, str], report_data: str) -> None:
    """Raise Refused ``azure.td-report`` unless the copy shows what the quote shows (hex, by name)."""
    shown = {**{name: value.hex() for name, value in copy.registers.items()}, "report data": copy.report_data.hex()}
    for name, value in {**quoted, "report data": report_data}.items():
        if name in shown and shown[name] != value:
            raise refusal("azure.td-report", f"{name} of the TDREPORT", f"the quote's {value}", shown[name], "nobody")
    missing = [name for name in TD_FIELDS if name not in quoted]
    if missing:
        raise refusal("azure.td-report", "quote", f"a value for {missing[0]}", "none", "nobody")
