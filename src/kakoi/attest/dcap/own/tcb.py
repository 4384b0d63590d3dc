"""TCB information and QE identity: what Intel says about versions, and which level a platform reaches.

Sources: Intel PCS API v3/v4 documentation (TCB info versions 2 and 3, QE identity version 2); TDX DCAP QVL,
"TCB level verification"; Intel TDX Module base specification on TD-preserving update (second TCB SVN of 1.5 bodies).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kakoi.attest.dcap.own import vendor_json as vj
from kakoi.attest.report import refusal

STATUSES: Final = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
_OUT_OF_DATE: Final = ("OutOfDate", "OutOfDateConfigurationNeeded")
COMPONENTS: Final = 16
_MAX_LEVELS: Final = 256
_MAX_ADVISORIES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What Intel says about one level: status, advisories and the date of the level."""

    status: str
    advisories: tuple[str, ...]
    date: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformLevel:
    """A level of the platform: reached if every SVN is at least this."""

    sgx: tuple[int, ...]
    pce_svn: int
    tdx: tuple[int, ...]
    """All zero for SGX TCB information."""
    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleLevel:
    """A level of a TDX module, or of the quoting enclave."""

    isv_svn: int
    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleIdentity:
    """Who may have signed a TDX module, and its levels."""

    mr_signer: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[ModuleLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """Parsed TCB information, levels from the highest to the lowest."""

    version: int
    id: Literal["SGX", "TDX"]
    issued: int
    next_update: int
    fmspc: bytes
    pce_id: bytes
    evaluation_number: int
    levels: tuple[PlatformLevel, ...]
    module: ModuleIdentity | None
    """Of TDX modules without a version (first SVN byte of index 1 is 0)."""
    modules: Mapping[str, ModuleIdentity]
    """By upper-case id, ``TDX_01``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity:
    """Parsed identity of the quoting enclave."""

    id: Literal["QE", "TD_QE"]
    issued: int
    next_update: int
    evaluation_number: int
    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mr_signer: bytes
    isv_prod_id: int
    levels: tuple[ModuleLevel, ...]


def _level(members: Mapping[str, Any]) -> Level:
    status = vj.text(members, "tcbStatus")
    if status not in STATUSES:
        raise vj.bad("tcbStatus", "a known status", status)
    advisories = vj.texts(members, "advisoryIDs", _MAX_ADVISORIES)
    return Level(status=status, advisories=advisories, date=vj.date(members, "tcbDate"))


def _components(tcb: Mapping[str, Any], name: str) -> tuple[int, ...]:
    items = vj.objects(tcb, name, COMPONENTS)
    if len(items) != COMPONENTS:
        raise vj.bad(name, f"{COMPONENTS} components", str(len(items)))
    return tuple(vj.number(item, "svn", 255) for item in items)


def _platform_level(members: Mapping[str, Any], version: int, tdx: bool) -> PlatformLevel:
    tcb = vj.member(members, "tcb")
    if version == 2:
        sgx = tuple(vj.number(tcb, f"sgxtcbcomp{i:02d}svn", 255) for i in range(1, COMPONENTS + 1))
    else:
        sgx = _components(tcb, "sgxtcbcomponents")
    return PlatformLevel(
        sgx=sgx,
        pce_svn=vj.number(tcb, "pcesvn", 65535),
        tdx=_components(tcb, "tdxtcbcomponents") if tdx else (0,) * COMPONENTS,
        level=_level(members),
    )


def _module_levels(members: Mapping[str, Any], most: int) -> tuple[ModuleLevel, ...]:
    found = [
        ModuleLevel(isv_svn=vj.number(vj.member(item, "tcb"), "isvsvn", most), level=_level(item))
        for item in vj.objects(members, "tcbLevels", _MAX_LEVELS)
    ]
    return tuple(sorted(found, key=lambda level: level.isv_svn, reverse=True))


def _module(members: Mapping[str, Any], *, levels: bool) -> ModuleIdentity:
    return ModuleIdentity(
        mr_signer=vj.octets(members, "mrsigner", 48),
        attributes=vj.octets(members, "attributes", 8),
        attributes_mask=vj.octets(members, "attributesMask", 8),
        levels=_module_levels(members, 255) if levels else (),
    )


def _modules(members: Mapping[str, Any]) -> dict[str, ModuleIdentity]:
    if "tdxModuleIdentities" not in members:
        return {}
    found: dict[str, ModuleIdentity] = {}
    for item in vj.objects(members, "tdxModuleIdentities", 64):
        name = vj.text(item, "id").upper()
        if name in found:
            raise vj.bad("tdxModuleIdentities", "each module once", name)
        found[name] = _module(item, levels=True)
    return found


def parse_tcb_info(data: bytes) -> TcbInfo:
    """TCB information of version 2 (SGX) or 3 (SGX, TDX). Raises Malformed ``dcap.vendor-json``."""
    members = vj.load(data, "TCB information")
    version = vj.number(members, "version", 255)
    if version not in (2, 3):
        raise vj.bad("TCB information", "version 2 or 3", str(version))
    kind = vj.text(members, "id") if version == 3 else "SGX"
    if kind not in ("SGX", "TDX"):
        raise vj.bad("TCB information", "id SGX or TDX", kind)
    if vj.number(members, "tcbType", 255) != 0:
        raise vj.bad("TCB information", "type 0", "another")
    tdx = kind == "TDX"
    levels = [_platform_level(item, version, tdx) for item in vj.objects(members, "tcbLevels", _MAX_LEVELS)]
    return TcbInfo(
        version=version,
        id="TDX" if tdx else "SGX",
        issued=vj.date(members, "issueDate"),
        next_update=vj.date(members, "nextUpdate"),
        fmspc=vj.octets(members, "fmspc", 6),
        pce_id=vj.octets(members, "pceId", 2),
        evaluation_number=vj.number(members, "tcbEvaluationDataNumber", 2**32),
        levels=tuple(sorted(levels, key=lambda v: (v.sgx, v.pce_svn, v.tdx), reverse=True)),
        module=_module(vj.member(members, "tdxModule"), levels=False) if tdx else None,
        modules=_modules(members) if tdx else {},
    )


def parse_qe_identity(data: bytes) -> QeIdentity:
    """The quoting enclave's identity, version 2 (TDX: also 3, which has the same members). Raises Malformed ``dcap.vendor-json``."""
    members = vj.load(data, "QE identity")
    kind, version = vj.text(members, "id"), vj.number(members, "version", 255)
    if (kind, version) not in (("QE", 2), ("TD_QE", 2), ("TD_QE", 3)):
        raise vj.bad("QE identity", "QE of version 2, or TD_QE of version 2 or 3", f"{kind} of version {version}")
    return QeIdentity(
        id="TD_QE" if kind == "TD_QE" else "QE",
        issued=vj.date(members, "issueDate"),
        next_update=vj.date(members, "nextUpdate"),
        evaluation_number=vj.number(members, "tcbEvaluationDataNumber", 2**32),
        misc_select=vj.octets(members, "miscselect", 4),
        misc_select_mask=vj.octets(members, "miscselectMask", 4),
        attributes=vj.octets(members, "attributes", 16),
        attributes_mask=vj.octets(members, "attributesMask", 16),
        mr_signer=vj.octets(members, "mrsigner", 32),
        isv_prod_id=vj.number(members, "isvprodid", 65535),
        levels=_module_levels(members, 65535),
    )


def masked(value: bytes, mask: bytes) -> bytes:
    """``value`` with only the bits of ``mask``."""
    return (int.from_bytes(value, "big") & int.from_bytes(mask, "big")).to_bytes(len(value), "big")


def module_level(levels: Sequence[ModuleLevel], isv_svn: int, what: str) -> Level:
    """The highest level that ``isv_svn`` reaches. Raises Refused ``dcap.tcb-not-supported``."""
    for candidate in levels:
        if isv_svn >= candidate.isv_svn:
            return candidate.level
    raise refusal(
        "dcap.tcb-not-supported",
        f"level of the {what}",
        f"at least {levels[-1].isv_svn if levels else 'one level'}",
        str(isv_svn),
        "platform-operator",
    )


def platform_level(info: TcbInfo, components: Sequence[int], pce_svn: int, tee_tcb_svn: bytes | None) -> PlatformLevel:
    """The highest level the platform reaches. Raises Refused ``dcap.tcb-not-supported``.

    For TDX the components are compared too, without the first two when the module has a version of its own
    (``tee_tcb_svn[1]`` > 0): those two are then judged by the module's identity.
    """
    skip = 2 if tee_tcb_svn is not None and tee_tcb_svn[1] > 0 else 0
    for level in info.levels:
        if pce_svn < level.pce_svn or any(have < need for have, need in zip(components, level.sgx, strict=True)):
            continue
        if tee_tcb_svn is None or not any(
            have < need for have, need in zip(tee_tcb_svn[skip:], level.tdx[skip:], strict=True)
        ):
            return level
    raise refusal(
        "dcap.tcb-not-supported",
        "TCB level of the platform",
        "one that reaches the lowest that Intel lists",
        f"components {bytes(components).hex()}, PCESVN {pce_svn}"
        + (f", TDX {tee_tcb_svn.hex()}" if tee_tcb_svn is not None else ""),
        "platform-operator",
    )


def converge(platform: str, part: str) -> str:
    """The status of a platform whose quoting enclave or TDX module has the status ``part``."""
    if "Revoked" in (platform, part):
        return "Revoked"
    if part == "UpToDate" or part not in _OUT_OF_DATE:
        return platform if part == "UpToDate" else max(platform, part, key=STATUSES.index)
    if platform in ("UpToDate", "SWHardeningNeeded", "OutOfDate"):
        return "OutOfDate"
    return "OutOfDateConfigurationNeeded"


def relaunch(status: str, second: str) -> str:
    """The status of a TD 1.5 guest, from the level at its launch and the level of the module that runs now.

    If only a relaunch is missing to be current, Intel's name for it is ``TDRelaunchAdvised``.
    """
    if status in _OUT_OF_DATE and second not in (*_OUT_OF_DATE, "Revoked"):
        if status == "OutOfDate" and second in ("UpToDate", "SWHardeningNeeded"):
            return "TDRelaunchAdvised"
        return "TDRelaunchAdvisedConfigurationNeeded"
    return status
