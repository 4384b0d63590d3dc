"""Levels and statuses: our reading of Intel's rules beside dcap-qvl's, over every combination."""

from __future__ import annotations

from itertools import product

import dcap_qvl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kakoi.attest.dcap.own import collateral as own_collateral
from kakoi.attest.dcap.own import tcb
from kakoi.attest.dcap.own import verify as own_verify
from kakoi.attest.dcap.parse import BodyKind, parse
from kakoi.core.errors import KakoiError, Refused
from kakoi.testing.dcap_vendor import NOW, Vendor, level, svn_level, td_body
from kakoi.testing.dcap_vendor_corpus import refused, verify

PART_STATUSES = ("UpToDate", "OutOfDate", "Revoked")


def library(vendor: Vendor, kind: BodyKind, raw: bytes) -> str:
    """What dcap-qvl alone says: a status, or an empty text for a refusal."""
    parts = vendor.parts(kind)
    text = {k: v.decode() for k, v in parts.items() if "chain" in k or k in ("tcb_info", "qe_identity")}
    collateral = dcap_qvl.QuoteCollateralV3(**{**parts, **text})
    try:
        return str(dcap_qvl.verify_with_root_ca(raw, collateral, vendor.root.der, NOW).status)
    except ValueError:
        return ""


def ours(vendor: Vendor, kind: BodyKind, raw: bytes) -> str:
    """What our own verifier alone says, in the same form."""
    try:
        collateral = own_collateral.verify(vendor.collateral(kind), roots=vendor.roots, now=NOW)
        return own_verify.verify(parse(raw), collateral, roots=vendor.roots, now=NOW).status
    except Refused:
        return ""


@pytest.mark.parametrize("platform", tcb.STATUSES)
@pytest.mark.parametrize("enclave", PART_STATUSES)
def test_status_of_an_sgx_platform(platform: str, enclave: str) -> None:
    vendor = Vendor()
    vendor.tcb_levels = [level(5, 13, platform, advisories=("INTEL-SA-00003",))]
    vendor.qe_levels = [svn_level(8, enclave, ("INTEL-SA-00004",))]
    raw = vendor.quote()
    mine = ours(vendor, "sgx", raw)
    assert mine == library(vendor, "sgx", raw)
    assert mine == ("" if "Revoked" in (platform, enclave) else tcb.converge(platform, enclave))
    if mine:
        claims = verify(vendor).claims
        assert claims.tcb_status == mine
        assert claims.advisories == ("INTEL-SA-00003", "INTEL-SA-00004")
    else:
        assert refused(verify, vendor) == "dcap.revoked"


@pytest.mark.parametrize("platform", tcb.STATUSES)
@pytest.mark.parametrize(("enclave", "module"), list(product(PART_STATUSES, repeat=2)))
@pytest.mark.parametrize("kind", ["td-1.0", "td-1.5"])
def test_status_of_a_tdx_platform(platform: str, enclave: str, module: str, kind: BodyKind) -> None:
    vendor = Vendor()
    vendor.tcb_levels = [level(5, 13, platform, tdx=[3, 1, 5, *[0] * 13])]
    vendor.qe_levels = [svn_level(8, enclave)]
    vendor.modules[0]["tcbLevels"] = [svn_level(3, module)]
    raw = vendor.quote(kind=kind)
    mine = ours(vendor, kind, raw)
    assert mine == library(vendor, kind, raw)
    assert (mine == "") == ("Revoked" in (platform, enclave, module))


RELAUNCH = [
    # at launch (module SVN 2), now (module SVN 3)
    ("UpToDate", "OutOfDate", "UpToDate", "TDRelaunchAdvised"),
    ("SWHardeningNeeded", "OutOfDate", "UpToDate", "TDRelaunchAdvised"),
    ("ConfigurationNeeded", "OutOfDate", "UpToDate", "TDRelaunchAdvisedConfigurationNeeded"),
    ("OutOfDate", "OutOfDate", "UpToDate", "OutOfDate"),
    ("UpToDate", "OutOfDate", "OutOfDate", "OutOfDate"),
    ("UpToDate", "UpToDate", "OutOfDate", "UpToDate"),
]


@pytest.mark.parametrize(("platform", "launched", "now", "expected"), RELAUNCH)
def test_guest_that_only_needs_a_relaunch(platform: str, launched: str, now: str, expected: str) -> None:
    vendor = Vendor()
    vendor.tcb_levels = [level(5, 13, platform, tdx=[2, 1, 5, *[0] * 13])]
    vendor.modules[0]["tcbLevels"] = [svn_level(3, now), svn_level(2, launched)]
    body = td_body(tee_tcb_svn=bytes([2, 1, 5]) + bytes(13), tee_tcb_svn2=bytes([3, 1, 5]) + bytes(13))
    raw = vendor.quote(body, kind="td-1.5")
    assert ours(vendor, "td-1.5", raw) == expected
    assert expected == library(vendor, "td-1.5", raw)


def test_second_module_that_intel_does_not_list_is_refused() -> None:
    body = td_body(tee_tcb_svn2=bytes([3, 9, 5]) + bytes(13))
    vendor = Vendor()
    assert refused(verify, vendor, kind="td-1.5", evidence=vendor.evidence(body, kind="td-1.5")) == "dcap.tdx-module"


@pytest.mark.parametrize("kind", ["sgx", "td-1.5"])
def test_levels_are_sorted_before_they_are_compared(kind: BodyKind) -> None:
    vendor = Vendor()
    vendor.tcb_levels.reverse()
    assert verify(vendor, kind=kind).claims.tcb_status == "UpToDate"
    vendor.qe_levels.reverse()
    vendor.modules[0]["tcbLevels"].reverse()
    raw = vendor.quote(kind=kind)
    assert ours(vendor, kind, raw) == "UpToDate"
    # dcap-qvl takes the levels of enclave and module in the order they come: no agreement, so nobody gets a key
    assert library(vendor, kind, raw) == "OutOfDate"
    assert refused(verify, vendor, kind=kind) == "dcap.second-opinion"


def test_every_single_component_counts() -> None:
    for which in range(16):
        vendor = Vendor()
        needs = [5] * 16
        needs[which] = 6
        vendor.tcb_levels = [level(needs, 13, "UpToDate"), level(5, 13, "OutOfDate")]
        assert verify(vendor).claims.tcb_status == "OutOfDate"
        vendor.tcb_levels = [level(needs, 13, "UpToDate")]
        assert refused(verify, vendor) == "dcap.tcb-not-supported"


def test_every_single_tdx_component_counts() -> None:
    for which in range(16):
        vendor = Vendor()
        needs = [3, 1, 5, *[0] * 13]
        needs[which] += 1
        vendor.tcb_levels = [level(5, 13, "UpToDate", tdx=needs)]
        if which < 2:  # judged by the module's identity instead
            assert verify(vendor, kind="td-1.5").claims.tcb_status == "UpToDate"
        else:
            assert refused(verify, vendor, kind="td-1.5") == "dcap.tcb-not-supported"


def test_pce_and_quoting_enclave_versions() -> None:
    vendor = Vendor()
    vendor.tcb_levels = [level(5, 14, "UpToDate"), level(5, 13, "OutOfDate")]
    assert verify(vendor).claims.tcb_status == "OutOfDate"
    assert refused(verify, Vendor(qe_svn=5)) == "dcap.tcb-not-supported"
    assert verify(Vendor(qe_svn=7)).claims.tcb_status == "OutOfDate"
    assert verify(Vendor(qe_svn=9)).claims.tcb_status == "UpToDate"
    empty = Vendor()
    empty.qe_levels = []
    assert refused(verify, empty) == "dcap.tcb-not-supported"


def test_evaluation_number_is_the_lower_of_both() -> None:
    assert verify(Vendor(evaluation_number=18)).claims.tcb_evaluation_number == 17
    assert verify(Vendor(qe_evaluation_number=16)).claims.tcb_evaluation_number == 16


def test_tcb_information_of_version_2() -> None:
    """dcap-qvl cannot read it: our own verifier stands alone, and the verdict says so."""
    vendor = Vendor(tcb_version=2)
    verified = verify(vendor)
    assert verified.claims.tcb_status == "UpToDate"
    assert {f.name: f.value for f in verified.claims.settings}["second-opinion"] == "tcb-info-v2"
    skipped = next(c for c in verified.checks if c.name == "dcap.second-opinion")
    assert skipped.outcome == "skipped"
    assert refused(verify, vendor, kind="td-1.5") == "dcap.other-tee"


def test_a_disagreement_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever dcap-qvl says, if it is not what we say, nobody gets a key."""
    vendor = Vendor()

    class Report:
        status = "OutOfDate"
        advisory_ids: tuple[str, ...] = ()
        ppid = vendor.ppid

    monkeypatch.setattr(dcap_qvl, "verify_with_root_ca", lambda *_: Report)
    assert refused(verify, vendor) == "dcap.second-opinion"
    Report.status, Report.ppid = "UpToDate", bytes(16)
    assert refused(verify, vendor) == "dcap.second-opinion"
    Report.ppid, Report.advisory_ids = vendor.ppid, ("INTEL-SA-99999",)
    assert refused(verify, vendor) == "dcap.second-opinion"

    def refuse(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(dcap_qvl, "verify_with_root_ca", refuse)
    assert refused(verify, vendor) == "dcap.second-opinion"


def test_what_our_verifier_refuses_and_dcap_qvl_does_not() -> None:
    """The measured gaps of the library, each closed. When one of these fails, the library has learnt the rule."""
    gaps = 0
    tail = Vendor(qe_report_tail=b"\x01" + bytes(31))
    raw = tail.quote()
    gaps += library(tail, "sgx", raw) == "UpToDate"
    good = Vendor()
    raw = good.quote()
    gaps += library(good, "sgx", raw + b"trailing") == "UpToDate"
    gaps += library(good, "sgx", raw.replace(b"\n", b"\r\n", 0)[:-1] + b"\x01") == "UpToDate"
    other = Vendor()
    info = {**other.tcb_info(), "pceId": "0001"}
    other.tcb_info = lambda kind="sgx": info  # type: ignore[method-assign]
    gaps += library(other, "sgx", other.quote()) == "UpToDate"
    assert gaps == 4


statuses = st.sampled_from(tcb.STATUSES[:-1])
components = st.lists(st.integers(3, 7), min_size=16, max_size=16)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(components, st.integers(12, 14), statuses), min_size=1, max_size=5))
def test_any_levels_give_the_same_answer_twice(levels: list[tuple[list[int], int, str]]) -> None:
    vendor = _VENDOR
    vendor.tcb_levels = [level(sgx, pce, status) for sgx, pce, status in levels]
    raw = _RAW
    assert ours(vendor, "sgx", raw) == library(vendor, "sgx", raw)


_VENDOR = Vendor()
_RAW = _VENDOR.quote()


@given(st.sampled_from(tcb.STATUSES), st.sampled_from(tcb.STATUSES))
def test_converging_never_improves(platform: str, part: str) -> None:
    result = tcb.converge(platform, part)
    assert tcb.STATUSES.index(result) >= tcb.STATUSES.index(platform)
    assert (result == "Revoked") == ("Revoked" in (platform, part))
    if part in ("OutOfDate", "OutOfDateConfigurationNeeded"):
        assert tcb.STATUSES.index(result) >= tcb.STATUSES.index("OutOfDate")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda c: (
            st.lists(c, max_size=4)
            | st.dictionaries(
                st.sampled_from(["version", "id", "tcbLevels", "tcb", "fmspc", "issueDate"]), c, max_size=6
            )
        ),
        max_leaves=20,
    )
)
def test_any_vendor_json_gives_only_our_errors(value: object) -> None:
    import json

    for parse_it in (tcb.parse_tcb_info, tcb.parse_qe_identity):
        with pytest.raises(KakoiError):
            parse_it(json.dumps(value).encode())
