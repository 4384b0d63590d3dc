"""Signed DCAP twins about what the platform is: levels, quoting enclave, TDX module, guest, session."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kakoi.attest.dcap.own import tcb
from kakoi.attest.dcap.parse import BodyKind
from kakoi.conformance.base import base
from kakoi.conformance.corpus import Group, several
from kakoi.conformance.dcap_minted import CERTIFICATES, Change, Shop, twin
from kakoi.conformance.rules import Rule, both, rule_groups
from kakoi.conformance.sessions import HONEST, RELAYED
from kakoi.conformance.trial import Trial
from kakoi.core.encoding import sha256
from kakoi.testing.dcap_vendor import MRENCLAVE, MRTD, TD_ATTRIBUTES, Json, Vendor, level, sgx_body, svn_level, td_body

_TDX: Final = ("td-1.0", "td-1.5", "td-1.5ex")
_NEWER: Final = ("td-1.5", "td-1.5ex")
_SVN: Final = [3, 1, 5, *[0] * 13]


def _vendor(**changes: Any) -> Change:
    """Other properties of the vendor and its platform."""

    def change(shop: Shop) -> None:
        for name, value in changes.items():
            setattr(shop.vendor, name, value)

    return change


def _info(**changes: Any) -> Change:
    return lambda shop: shop.info(**changes)


def _identity(**changes: Any) -> Change:
    return lambda shop: shop.identity(**changes)


def _body(**changes: Any) -> Change:
    """A body with other fields, signed by the attestation key."""

    def change(shop: Shop) -> None:
        fields = {"report_data": HONEST, **changes}
        shop.body = sgx_body(**fields) if shop.sgx else td_body(shop.body_kind, **fields)

    return change


def _body_bytes(at: int, value: bytes) -> Change:
    def change(shop: Shop) -> None:
        body = shop.good_body()
        shop.body = body[:at] + value + body[at + len(value) :]

    return change


def _levels(*levels: Json) -> Change:
    return _vendor(tcb_levels=list(levels))


def _module(*levels: Json, **changes: Any) -> Change:
    def change(shop: Shop) -> None:
        listed = {"tcbLevels": list(levels)} if levels else {}
        shop.vendor.modules = [{**shop.vendor.modules[0], **listed, **changes}]

    return change


def _at(status: str, *, advisories: tuple[str, ...] = ()) -> Json:
    return level(5, 13, status, tdx=_SVN, advisories=advisories)


def _each_component() -> dict[str, Change]:
    """A platform that is one short of the lowest level in a single component."""
    found: dict[str, Change] = {}
    for i in range(16):
        needs = [5] * 16
        needs[i] = 6
        found[f"SGX component {i + 1} one too low"] = _levels(level(needs, 13, "UpToDate", tdx=_SVN))
    found["PCESVN one too low"] = _levels(level(5, 14, "UpToDate", tdx=_SVN))
    found["quoting enclave's SVN one too low"] = _vendor(qe_svn=5)
    found["no levels at all"] = _levels()
    found["no levels of the quoting enclave"] = _vendor(qe_levels=[])
    return found


def _each_tdx_component() -> dict[str, Change]:
    found: dict[str, Change] = {}
    for i in range(2, 16):
        needs = list(_SVN)
        needs[i] += 1
        found[f"TDX component {i + 1} one too low"] = _levels(level(5, 13, "UpToDate", tdx=needs))
    found["TDX module's SVN one too low"] = _module(svn_level(4, "UpToDate"))
    return found


def _each_status() -> dict[str, Change]:
    """Each status that is not UpToDate, at each place, with and without advisories."""
    found: dict[str, Change] = {}
    for status in tcb.STATUSES[1:-1]:
        found[f"platform {status}"] = _levels(_at(status))
        found[f"platform {status} with an advisory"] = _levels(_at(status, advisories=("INTEL-SA-00003",)))
    found["platform UpToDate with an advisory"] = _levels(_at("UpToDate", advisories=("INTEL-SA-00003",)))
    found["quoting enclave OutOfDate"] = _vendor(qe_levels=[svn_level(8, "OutOfDate")])
    found["quoting enclave with an advisory"] = _vendor(qe_levels=[svn_level(8, "UpToDate", ("INTEL-SA-00004",))])
    found["platform one level below"] = _vendor(components=(4,) * 16)
    found["quoting enclave one level below"] = _vendor(qe_svn=7)
    return found


def _relaunch(shop: Shop) -> None:
    """The module that runs now is current, the one at the guest's launch was not: Intel says TDRelaunchAdvised."""
    shop.vendor.tcb_levels = [level(5, 13, "UpToDate", tdx=[2, 1, 5, *[0] * 13])]
    old, new = bytes([2, 1, 5]) + bytes(13), bytes([3, 1, 5]) + bytes(13)
    shop.body = td_body(shop.body_kind, tee_tcb_svn=old, tee_tcb_svn2=new, report_data=HONEST)


def _renewed(**changes: Any) -> Change:
    """Other properties that the PCK certificate shows."""

    def change(shop: Shop) -> None:
        _vendor(**changes)(shop)
        shop.vendor.renew()

    return change


def _other_pck(**changes: Any) -> Change:
    """The same, with the TCB information from before."""

    def change(shop: Shop) -> None:
        before = shop.vendor.tcb_info(shop.body_kind)
        _renewed(**changes)(shop)
        shop.sign("tcb_info", before)

    return change


def _old_information(shop: Shop) -> None:
    """The platform is listed as it was before its PCK certificate was renewed: another FMSPC."""
    shop.info(fmspc="00906ED50001")


def _other_tee(shop: Shop) -> None:
    shop.parts = shop.vendor.parts("td-1.5" if shop.sgx else "sgx")


def _half_other_tee(shop: Shop) -> None:
    shop.parts = shop.vendor.sign("qe_identity", shop.vendor.qe_identity("td-1.5" if shop.sgx else "sgx"))


def _quoting_enclaves() -> dict[str, Change]:
    return {
        "MRSIGNER of somebody else": _vendor(qe_mr_signer=sha256(b"somebody")),
        "another product": _identity(isvprodid=2),
        "another MISCSELECT": _identity(miscselect="01000000"),
        "other attributes": _vendor(qe_flags=0x35),
        "MRSIGNER that the identity does not name": _identity(mrsigner="00" * 32),
    }


def _texts() -> dict[str, Change]:
    """TCB information and QE identities that are signed and not well-formed."""
    wrong: tuple[tuple[str, object], ...] = (
        ("version", 1), ("version", 4), ("version", "3"), ("tcbType", 1), ("issueDate", "yesterday"),
        ("issueDate", "2026-02-30T00:00:00Z"), ("fmspc", "00"), ("pceId", "zzzz"), ("tcbEvaluationDataNumber", -1),
        ("tcbEvaluationDataNumber", True), ("tcbLevels", {}), ("tcbLevels", [{}]), ("tcbLevels", [_at("Splendid")]),
    )  # fmt: skip
    found: dict[str, Change] = {f"TCB information with {name} {value}": _info(**{name: value}) for name, value in wrong}
    members = (
        "issueDate",
        "nextUpdate",
        "fmspc",
        "pceId",
        "tcbType",
        "tcbEvaluationDataNumber",
        "tcbLevels",
        "version",
    )
    found |= {f"TCB information without {name}": partial(_signed_without, "tcb_info", name) for name in members}
    found |= {
        f"QE identity without {name}": partial(_signed_without, "qe_identity", name)
        for name in ("id", "mrsigner", "isvprodid", "attributes", "attributesMask", "miscselectMask", "nextUpdate")
    }
    raw = {
        "an empty text": b"", "a list": b"[]", "cut": b'{"version":3', "NaN": b'{"version":NaN}', "a fraction": b'{"version":3.0}', "not UTF-8": b"\xff",
        "deep nesting": b"[" * 100_000, "two mebibytes of spaces": b" " * 2_000_000,
        "a repeated member": b'{"version":3,"version":3}',
    }  # fmt: skip
    return found | {f"TCB information: {what}": partial(_signed_text, text) for what, text in raw.items()}


def _signed_without(part: str, member: str, shop: Shop) -> None:
    kind, vendor = shop.body_kind, shop.vendor
    value = vendor.tcb_info(kind) if part == "tcb_info" else vendor.qe_identity(kind)
    shop.sign(part, {name: item for name, item in value.items() if name != member})


def _signed_text(text: bytes, shop: Shop) -> None:
    shop.parts = {"tcb_info": text, "tcb_info_signature": shop.vendor.signer_key.sign_raw(text)}


def _td_facts() -> dict[str, Change]:
    bits = {
        "ICSSD": 16, "service TD extension": 17, "LASS": 27, "migratable": 29, "PKS": 30, "key locker": 31, "TPA": 62,
        "PERFMON": 63, **{f"attribute {bit}": bit for bit in range(18, 23)},
    }  # fmt: skip
    found: dict[str, Change] = {f"{name} on": _body(attributes=TD_ATTRIBUTES | 1 << bit) for name, bit in bits.items()}
    found["SEPT_VE_DISABLE off"] = _body(attributes=0)
    found["XFAM with AMX"] = _body(xfam=0x602E7 ^ 0x400E0)
    found["MRTD of another firmware"] = _body(mr_td=bytes([MRTD[0] ^ 1]) + MRTD[1:])
    for name, at in {"MRSEAM": 16, "MRCONFIGID": 184, "MROWNER": 232, "MROWNERCONFIG": 280}.items():
        found[f"another {name}"] = _body_bytes(at, b"\x01")
    found |= {f"another RTMR{i}": _body_bytes(328 + 48 * i, b"\xa5" * 48) for i in range(4)}
    return found


def _sgx_facts() -> dict[str, Change]:
    flags = {"provisioning key": 0x10, "launch key": 0x20, "key separation": 0x80, "AEX notify": 0x400}
    found: dict[str, Change] = {f"{name} on": _body(flags=0x5 | bit) for name, bit in flags.items()}
    places = {
        "MISCSELECT": 16, "CET": 20, "extended product": 32, "XFRM": 56, "configuration": 192, "product": 256,
        "configuration SVN": 260, "family": 304,
    }  # fmt: skip
    found |= {f"another {name}": _body_bytes(at, b"\x02") for name, at in places.items()}
    return found | {
        "32-bit": _body(flags=0x1),
        "a lower ISVSVN": _body(svn=2),
        "another enclave": _body(mr_enclave=bytes([MRENCLAVE[0] ^ 1]) + MRENCLAVE[1:]),
        "another signer": _body(mr_signer=bytes(32)),
    }


PLATFORM: Final[tuple[Rule[Shop], ...]] = (
    Rule(name="tcb.unsupported", family="tcb", reasons=("dcap.tcb-not-supported",), changes=_each_component()),
    Rule(name="tcb.unsupported-tdx", family="tcb", reasons=("dcap.tcb-not-supported",), only=_NEWER,
         changes=_each_tdx_component()),
    Rule(name="tcb.revoked", family="tcb", reasons=("dcap.revoked",), changes={
        "platform Revoked": _levels(_at("Revoked")),
        "platform Revoked with a better level that it does not reach": _levels(
            level(6, 13, "UpToDate", tdx=_SVN), _at("Revoked")),
        "quoting enclave Revoked": _vendor(qe_levels=[svn_level(8, "Revoked")]),
        "platform OutOfDate, quoting enclave Revoked": both(
            _levels(_at("OutOfDate")), _vendor(qe_levels=[svn_level(8, "Revoked")])),
    }),
    Rule(name="tcb.revoked-module", family="tcb", reasons=("dcap.revoked",), only=_TDX, changes={
        "TDX module Revoked": _module(svn_level(3, "Revoked")),
    }),
    Rule(name="tcb.status", family="tcb", layer="appraise", changes=_each_status(),
         reasons=("appraisal.tcb-status", "appraisal.advisories")),
    Rule(name="tcb.status-module", family="tcb", layer="appraise", only=_TDX,
         reasons=("appraisal.tcb-status", "appraisal.advisories"), changes={
        "TDX module OutOfDate": _module(svn_level(3, "OutOfDate")),
        "TDX module with an advisory": _module(svn_level(3, "UpToDate", ("INTEL-SA-00005",))),
    }),
    Rule(name="tcb.relaunch", family="tcb", layer="appraise", reasons=("appraisal.tcb-status",), only=_NEWER,
         changes={"a guest that was launched under an older module": _relaunch}),
    Rule(name="tcb.evaluation-number", family="tcb", layer="appraise", reasons=("appraisal.tcb-evaluation-number",),
         changes={
        "TCB information of an earlier evaluation": _vendor(evaluation_number=16),
        "QE identity of an earlier evaluation": _vendor(qe_evaluation_number=16),
    }),
    Rule(name="binding.platform", family="binding", reasons=("dcap.other-platform", "dcap.pck-extension"), changes={
        "TCB information of another FMSPC": _old_information,
        "TCB information of another PCEID": _info(pceId="0001"),
        "PCK certificate of another FMSPC": _other_pck(fmspc=bytes(6)),
        "PCK certificate of another PCEID": _other_pck(pce_id=b"\0\1"),
        "PCK certificate with a PPID that is too short": _renewed(ppid=bytes(15)),
        "PCK certificate with a component too few": _renewed(components=(5,) * 15),
        "PCK certificate with an unknown SGX type": _renewed(sgx_type=7),
    }),
    Rule(name="binding.tee", family="binding", reasons=("dcap.other-tee", "dcap.vendor-json"), changes={
        "collateral of the other TEE": _other_tee,
        "QE identity of the other TEE": _half_other_tee,
    }),
    Rule(name="binding.qe-report", family="binding", reasons=("dcap.qe-binding",), changes={
        f"upper half of the QE report data: byte {i} not zero": _vendor(
            qe_report_tail=bytes(i) + b"\x01" + bytes(31 - i)) for i in (0, 15, 31)
    }),
    Rule(name="binding.quoting-enclave", family="binding", reasons=("dcap.qe-identity",), changes=_quoting_enclaves()),
    Rule(name="binding.module", family="binding", reasons=("dcap.tdx-module",), only=_NEWER, changes={
        "TDX module of another signer": _body(mr_signer_seam=b"\x01" * 48),
        "TDX module with attributes": _body(seam_attributes=b"\x01" + bytes(7)),
        "TDX module that the vendor does not list": _body(tee_tcb_svn=bytes([3, 2, 5]) + bytes(13)),
        "second TDX module that the vendor does not list": _body(tee_tcb_svn2=bytes([3, 9, 5]) + bytes(13)),
    }),
    Rule(name="debug.quoting-enclave", family="debug", reasons=("dcap.qe-identity",), changes={
        "quoting enclave in debug mode": _vendor(qe_flags=0x17),
        "quoting enclave in debug mode, which the identity's mask hides": both(
            _vendor(qe_flags=0x17), _identity(attributesMask="00" * 16)),
        "quoting enclave that was not initialised": _vendor(qe_flags=0x14),
    }),
    Rule(name="debug.enclave", family="debug", reasons=("appraisal.debug",), only=("sgx",),
         changes={"enclave in debug mode": _body(flags=0x7)}),
    Rule(name="debug.guest", family="debug", reasons=("appraisal.debug",), only=_TDX, changes={
        f"TUD bit {bit} of the guest": _body(attributes=TD_ATTRIBUTES | 1 << bit) for bit in range(8)
    }),
    Rule(name="form.reserved", family="form", reasons=("dcap.quote",), only=("sgx",), changes={
        f"reserved byte {at} of the enclave's report": _body_bytes(at, b"\x01")
        for at in (21, 31, 96, 127, 160, 191, 262, 303)
    } | {
        "an unknown attribute": _body(flags=0x5 | 1 << 40),
    }),
    Rule(name="form.not-initialised", family="form", reasons=("sgx.not-initialised", "dcap.second-opinion"),
         only=("sgx",), changes={"an enclave that was not initialised": _body(flags=0x4)}),
    Rule(name="form.attributes", family="form", reasons=("tdx.attributes", "tdx.xfam", "dcap.second-opinion"),
         only=_TDX, changes={
        **{f"reserved TD attribute {bit}": _body(attributes=TD_ATTRIBUTES | 1 << bit) for bit in (8, 15, 24, 32, 61)},
        **{f"XFAM {x:#x}": _body(xfam=x) for x in (0, 1, 2, 3 | 1 << 63, 3 | 1 << 20)},
    }),
    Rule(name="form.vendor-json", family="form", reasons=("dcap.vendor-json", "dcap.other-*"), changes=_texts()),
    Rule(name="policy.enclave", family="policy", layer="appraise", only=("sgx",), changes=_sgx_facts(),
         reasons=("appraisal.setting.*", "appraisal.measurement.*", "appraisal.minimum-tcb.*")),
    Rule(name="policy.guest", family="policy", layer="appraise", only=_TDX, changes=_td_facts(),
         reasons=("appraisal.setting.*", "appraisal.measurement.*")),
    Rule(name="policy.service-td", family="policy", layer="appraise", only=_NEWER,
         reasons=("appraisal.setting.*", "appraisal.measurement.*"),
         changes={"a service TD is bound": _body(mr_service_td=b"\x01" * 48)}),
    Rule(name="policy.configuration", family="policy", layer="appraise", reasons=("appraisal.setting.*",), changes={
        "not a dynamic platform": _renewed(configuration=(False, True, False)),
        "keys not cached": _renewed(configuration=(True, False, False)),
        "hyper-threads": _renewed(configuration=(True, True, True)),
        "no configuration": _renewed(configuration=None),
    }),
    Rule(name="policy.machine", family="policy", layer="appraise", reasons=("appraisal.platform-identity",), changes={
        "another machine of the same kind": _renewed(ppid=sha256(b"another platform")[:16]),
    }),
    Rule(name="session.relay", family="session", layer="appraise", reasons=("appraisal.report-data",), changes={
        what: _body(report_data=value) for what, value in RELAYED.items()
    }),
)  # fmt: skip


def _accepted(body_kind: BodyKind, change: Change) -> Trial:
    """A twin with the policy drafted from itself: what an owner who accepts exactly this would write."""
    shop = Shop(vendor=Vendor(), body_kind=body_kind)
    change(shop)
    return base("accepted", shop.trial()).trial


def tolerances(body_kind: BodyKind) -> list[Group]:
    """What has to pass where the policy names it: every status but Revoked, padding, levels in any order."""
    named = [
        (f"{what}, which the policy accepts", partial(_accepted, body_kind, change))
        for what, change in _each_status().items()
    ]
    good = twin(body_kind, lambda _: None)
    raw = good.evidence.statement
    if body_kind != "sgx":
        named += [
            (f"{n} zero bytes after the quote", partial(good.with_statement, raw + bytes(n))) for n in (1, 70, 3000)
        ]
    return several("good.platform", "good", "appraise", named)


def confused(body_kind: BodyKind) -> list[Group]:
    """Evidence of one kind presented, and wanted, as another."""

    def make(other: str) -> Callable[[], Any]:
        return lambda: twin(body_kind, lambda _: None).called(*_NAMES[other])

    mine = "sgx" if body_kind == "sgx" else "tdx"
    named = [(f"presented as {other}", make(other)) for other in _NAMES if other != mine]
    return several("binding.kind", "binding", "verify", named)


_NAMES: Final[dict[str, Any]] = {
    name: (name, name) for name in ("sgx", "tdx", "snp", "azure-snp", "azure-tdx", "nitro")
}


def groups(body_kind: BodyKind) -> list[Group]:
    """Everything that only the vendor's keys can make."""
    return [*rule_groups((*CERTIFICATES, *PLATFORM), partial(twin, body_kind), body_kind), *confused(body_kind)]
