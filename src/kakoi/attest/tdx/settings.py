"""Facts and measurements of a TDX guest that a policy has to judge, and values to start from (docs/formats/evidence-dcap.md)."""

from __future__ import annotations

from typing import Final

from kakoi.attest.dcap import facts
from kakoi.attest.dcap.parse import TdReport
from kakoi.attest.policy import Setting, Unchecked
from kakoi.attest.report import Fact, Measurement, fact, measurement, refusal

# TD attributes (Intel TDX Module ABI, "ATTRIBUTES"): bits 0-7 put the TD under debug or profiling, whatever else they
# mean. Bits 18 to 22 have meanings in newer modules only; a policy judges them as they stand.
TUD: Final = 0xFF
_BITS: Final = {
    "icssd": 16,
    "service-td-ext": 17,
    "lass": 27,
    "sept-ve-disable": 28,
    "migratable": 29,
    "pks": 30,
    "key-locker": 31,
    "tpa": 62,
    "perfmon": 63,
}
_NEWER: Final = 0x7C0000
_KNOWN: Final = TUD | _NEWER | sum(1 << bit for bit in _BITS.values())
# XFAM (same document): x87 and SSE always on; bits that no module allows off.
_XFAM_FIXED1: Final = 0x3
_XFAM_ALLOWED: Final = 0x6DBE7 | 1 << 19
_ON: Final = ("no", "yes")
_NONE: Final = bytes(48)


_FEATURES: Final = Unchecked(reason="processor features that the guest may use; no module grants a harmful one")

RECOMMENDED: Final = (
    Setting(name="td-body", accepted=("1.0", "1.5")),
    Setting(name="xfam", accepted=_FEATURES),
    Setting(name="icssd", accepted=("no",)),
    Setting(name="service-td-ext", accepted=("no",)),
    Setting(name="lass", accepted=_ON),
    Setting(name="sept-ve-disable", accepted=("yes",)),  # else the host can inject #VE on private pages
    Setting(name="migratable", accepted=("no",)),  # else a migration TD, which the owners do not know, holds the state
    Setting(name="pks", accepted=_ON),
    Setting(name="key-locker", accepted=_ON),
    Setting(name="tpa", accepted=("no",)),
    Setting(name="perfmon", accepted=("no",)),  # else the guest's counters are its own, and its timing shows more
    Setting(name="newer-attributes", accepted=("0x0",)),
    *facts.RECOMMENDED,
)
"""For guests with a 1.0 or 1.5 body. One entry for each fact."""
AUTHOR_SETTINGS: Final = frozenset({*_BITS, "newer-attributes", "xfam"})


def settings(body: TdReport) -> tuple[Fact, ...]:
    """The facts of the guest itself."""
    values = {"td-body": body.kind.removeprefix("td-"), "xfam": f"{body.xfam:#x}"}
    values |= {name: _ON[body.td_attributes >> bit & 1] for name, bit in _BITS.items()}
    values["newer-attributes"] = f"{body.td_attributes & _NEWER:#x}"
    if body.extended is not None:
        extended = body.extended
        values |= {
            "vm-id": str(extended.vm_id),
            "td-id": extended.td_id.hex(),
            "device-info": extended.device_info.hex(),
            "init-service-td-attributes": extended.init_service_td_attributes.hex(),
            "current-service-td-attributes": extended.current_service_td_attributes.hex(),
            "init-cpu-svn": extended.init_cpu_svn.hex(),
            "init-tee-tcb-svn": extended.init_tee_tcb_svn.hex(),
            "init-tee-fmspc": extended.init_tee_fmspc.hex(),
        }
    return tuple(fact(name, value) for name, value in values.items())


def measurements(body: TdReport) -> tuple[Measurement, ...]:
    """Everything measured, also what older bodies do not have (then all zero, as those guests have no service TD)."""
    values = {
        "mrtd": body.mr_td,
        **{f"rtmr{i}": value for i, value in enumerate(body.rtmr)},
        "mrconfigid": body.mr_config_id,
        "mrowner": body.mr_owner,
        "mrownerconfig": body.mr_owner_config,
        "mrseam": body.mr_seam,
        "mrsignerseam": body.mr_signer_seam,
        "mrservicetd": body.mr_service_td or _NONE,
    }
    if body.extended is not None:
        values |= {
            "initservicetd": body.extended.init_service_td_hash,
            "currentservicetd": body.extended.current_service_td_hash,
        }
    return tuple(measurement(name, value.hex()) for name, value in values.items())


def reserved(body: TdReport) -> None:
    """Bits that no module defines, or that every module fixes. Raises Refused ``tdx.attributes``, ``tdx.xfam``."""
    if body.td_attributes & ~_KNOWN:
        unknown = f"{body.td_attributes & ~_KNOWN:#x}"
        raise refusal("tdx.attributes", "TD attributes", "known bits only", unknown, "enclave-author")
    if body.xfam & _XFAM_FIXED1 != _XFAM_FIXED1 or body.xfam & ~_XFAM_ALLOWED:
        expected = f"x87 and SSE, within {_XFAM_ALLOWED:#x}"
        raise refusal("tdx.xfam", "XFAM", expected, f"{body.xfam:#x}", "enclave-author")
