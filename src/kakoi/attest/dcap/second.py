"""The second opinion: dcap-qvl on the same quote, collateral, root and time. Both verifiers have to agree.

dcap-qvl (Rust, Phala) shares no code with ``own``. It cannot be told to look past some attributes of the guest, nor
does it read TCB information of version 2; there it has no opinion, and the verdict says so (fact ``second-opinion``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import dcap_qvl

from kakoi.attest.dcap.own.collateral import VerifiedCollateral
from kakoi.attest.dcap.own.verify import OwnReport
from kakoi.attest.dcap.parse import SgxReport
from kakoi.attest.report import refusal
from kakoi.core.errors import Refused

AGREES: Final = "agrees"
SGX_DEBUG: Final = 2
TD_DEBUG: Final = 0xFF
_TD_FIXED: Final = (
    ("sept-ve-disable", 1 << 28, 1 << 28),
    ("migratable", 1 << 29, 0),
    ("service-td-ext", 1 << 17, 0),
)
"""Attributes that dcap-qvl demands: name, bit, required value (its ``validate_td10``, read and measured)."""


@lru_cache(maxsize=64)
def _collateral(verified: VerifiedCollateral) -> dcap_qvl.QuoteCollateralV3:
    parts = verified.parts
    text = {name: parts[name].decode("utf-8") for name in ("tcb_info", "qe_identity")}
    chains = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain")
    text |= {name: parts[name].decode("ascii") for name in chains}
    rest = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
    return dcap_qvl.QuoteCollateralV3(**text, **{name: parts[name] for name in rest})


def _no_opinion(own: OwnReport) -> str:
    """What this quote or collateral has that dcap-qvl refuses by its own fixed rules; empty if nothing."""
    if own.collateral.tcb_info.version == 2:
        return "tcb-info-v2"
    body = own.quote.body
    if isinstance(body, SgxReport):
        return "debug" if body.flags & SGX_DEBUG else ""
    if body.td_attributes & TD_DEBUG:
        return "debug"
    for name, bit, required in _TD_FIXED:
        if body.td_attributes & bit != required:
            return name
    if body.mr_service_td is not None and any(body.mr_service_td):
        return "mr-service-td"
    return ""


def opinion(raw: bytes, own: OwnReport, now: int) -> str:
    """``agrees``, or why dcap-qvl has no opinion. Raises Refused ``dcap.second-opinion`` if it disagrees."""
    reason = _no_opinion(own)
    if reason:
        return reason
    try:
        report = dcap_qvl.verify_with_root_ca(raw, _collateral(own.collateral), own.collateral.root.der, now)
    except ValueError as error:
        raise _disagreement("accepted, as by our own verifier", _first_line(error)) from None
    got = (report.status, tuple(sorted(set(report.advisory_ids))), bytes(report.ppid))
    mine = (own.status, own.advisories, own.pck.ppid)
    if got != mine:
        raise _disagreement(f"{own.status} {own.advisories}", f"{report.status} {got[1]}")
    return AGREES


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _disagreement(expected: str, got: str) -> Refused:
    return refusal("dcap.second-opinion", "second verifier (dcap-qvl)", expected, got, "nobody")
