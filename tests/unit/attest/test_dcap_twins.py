"""Bad twins of a good DCAP quote and of its collateral: each breaks one rule, and each is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kakoi.attest.dcap.own import collateral as own_collateral
from kakoi.attest.dcap.own import verify as own_verify
from kakoi.attest.dcap.own.collateral import PARTS, VerifiedCollateral
from kakoi.attest.dcap.own.verify import OwnReport
from kakoi.attest.dcap.parse import BodyKind, parse
from kakoi.attest.dcap.verify import VerifiedQuote
from kakoi.attest.report import VerifiedEvidence
from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError
from kakoi.core.x509 import parse_certificate
from kakoi.core.x509_fields import to_pem
from kakoi.evidence import mint
from kakoi.testing import x509_kit as kit
from kakoi.testing.dcap_vendor import (
    DAY,
    NOW,
    Json,
    Vendor,
    as_collateral,
    intel_name,
    level,
    sgx_body,
    svn_level,
    td_body,
)
from kakoi.testing.dcap_vendor_corpus import KINDS, raw_evidence, refused, verify


def own(vendor: Vendor, raw: bytes, collateral: VerifiedCollateral) -> OwnReport:
    return own_verify.verify(parse(raw), collateral, roots=vendor.roots, now=NOW)


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.mark.parametrize("kind", KINDS)
def test_good(kind: BodyKind) -> None:
    verified = verify(Vendor(), kind=kind)
    assert verified.claims.tcb_status == "UpToDate"
    assert verified.protected_by_hardware
    assert [c.name for c in verified.checks if c.outcome != "passed"] == []


def test_verified_types_have_no_public_constructor() -> None:
    classes: list[Callable[..., object]] = [VerifiedEvidence, VerifiedQuote, OwnReport, VerifiedCollateral]
    for cls in classes:
        with pytest.raises(TypeError, match="is made by the code that verified it"):
            cls()


# --- bytes of the quote ---


def flips_accepted(vendor: Vendor, kind: BodyKind, masks: tuple[int, ...], step: int) -> list[int]:
    """Positions at which a flipped byte is accepted by our own verifier alone: there must be none."""
    raw = vendor.quote(kind=kind)
    collateral = own_collateral.verify(vendor.collateral(kind), roots=vendor.roots, now=NOW)
    own(vendor, raw, collateral)
    found = []
    for at in range(0, len(raw), step):
        for mask in masks:
            bad = bytearray(raw)
            bad[at] ^= mask
            try:
                own(vendor, bytes(bad), collateral)
                found.append(at)
            except KakoiError:
                pass
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_of_the_quote(vendor: Vendor, kind: BodyKind) -> None:
    assert flips_accepted(vendor, kind, (0x01,), 1 if kind == "sgx" else 7) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_of_the_quote(vendor: Vendor, kind: BodyKind) -> None:
    assert flips_accepted(vendor, kind, tuple(1 << bit for bit in range(8)), 1) == []


@pytest.mark.parametrize("kind", KINDS)
def test_cut_quotes(vendor: Vendor, kind: BodyKind) -> None:
    raw = vendor.quote(kind=kind)
    for size in range(len(raw)):
        assert refused(parse, raw[:size]) == "dcap.quote"


@pytest.mark.parametrize("kind", KINDS)
def test_extended_quotes(vendor: Vendor, kind: BodyKind) -> None:
    raw = vendor.quote(kind=kind)
    for more in (b"\x01", bytes(8) + b"\x01", raw, bytes(40_000)):
        assert refused(parse, raw + more) == "dcap.quote"
    if kind == "sgx":
        assert refused(parse, raw + b"\0") == "dcap.quote"
    else:
        assert parse(raw + bytes(70)) == parse(raw), "TDX quote buffers are padded with zeros"


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_put_in_and_taken_out(vendor: Vendor, kind: BodyKind) -> None:
    raw = vendor.quote(kind=kind)
    collateral = own_collateral.verify(vendor.collateral(kind), roots=vendor.roots, now=NOW)
    for at in range(0, len(raw), 11):
        for bad in (raw[:at] + raw[at + 1 :], raw[:at] + b"\0" + raw[at:]):
            if bad != raw and not (kind != "sgx" and bad == raw + b"\0"):
                refused(own, vendor, bad, collateral)


def test_any_bytes_give_only_our_errors() -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=2000))
    def check(data: bytes) -> None:
        assert refused(parse, data) == "dcap.quote"

    check()


def test_any_splice_gives_only_our_errors(vendor: Vendor) -> None:
    raws = [vendor.quote(kind=kind) for kind in KINDS]
    collateral = own_collateral.verify(vendor.collateral("td-1.5"), roots=vendor.roots, now=NOW)

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(raws), st.integers(0, 6000), st.binary(min_size=1, max_size=64))
    def check(raw: bytes, at: int, new: bytes) -> None:
        at %= len(raw)
        bad = raw[:at] + new + raw[at + len(new) :]
        try:
            own(vendor, bad, collateral)
        except KakoiError:
            return
        assert bad == raw == raws[2] or bad.rstrip(b"\0") == raw.rstrip(b"\0")

    check()


def test_lengths_that_lie(vendor: Vendor) -> None:
    raw = vendor.quote()
    for huge in (0xFFFFFFFF, 0x7FFFFFFF, len(raw)):
        assert refused(parse, raw[:432] + huge.to_bytes(4, "little") + raw[436:]) == "dcap.quote"
    assert refused(parse, bytes(70_000)) == "dcap.quote"


def test_header_rules(vendor: Vendor) -> None:
    for kind in KINDS:
        raw = vendor.quote(kind=kind)
        for at, value in ((0, b"\x06\x00"), (0, b"\x02\x00"), (2, b"\x03\x00"), (4, b"\x01"), (12, b"\x00" * 16)):
            assert refused(parse, raw[:at] + value + raw[at + len(value) :]) == "dcap.quote"
    v4 = vendor.quote(kind="td-1.0")
    assert refused(parse, v4[:8] + b"\x01" + v4[9:]) == "dcap.quote"
    assert refused(parse, vendor.quote(kind="td-1.5", version=4)) == "dcap.quote"


def test_reserved_bytes_of_reports(vendor: Vendor) -> None:
    body = sgx_body()
    for at in (21, 31, 96, 127, 160, 191, 262, 303):
        bad = body[:at] + b"\x01" + body[at + 1 :]
        assert refused(verify, vendor, evidence=vendor.evidence(bad)) == "dcap.quote"
    assert refused(verify, vendor, evidence=vendor.evidence(sgx_body(flags=0x5 | 1 << 40))) == "dcap.quote"


def test_other_certification_data(vendor: Vendor) -> None:
    for number in (1, 2, 3, 4, 6, 7, 99):
        other = Vendor(certification_type=number)
        assert refused(parse, other.quote()) == "dcap.quote"


def test_other_spellings_of_the_pck_chain(vendor: Vendor) -> None:
    collateral = own_collateral.verify(vendor.collateral(), roots=vendor.roots, now=NOW)
    chain = vendor.chain()

    def with_chain(text: bytes) -> bytes:
        raw = vendor.quote()
        start = raw.index(chain)
        section = int.from_bytes(raw[432:436], "little") + len(text) - len(chain)
        return raw[:432] + section.to_bytes(4, "little") + raw[436 : start - 4] + len(text).to_bytes(4, "little") + text

    own(vendor, with_chain(chain), collateral)
    own(vendor, with_chain(chain[:-1]), collateral)
    own(vendor, with_chain(chain[:-2]), collateral)
    spellings = [
        chain.replace(b"\n", b"\r\n"),
        chain + b"\0",
        chain[:-3],
        b"\n" + chain,
        chain.replace(b"\n", b"", 2),
        chain[:-1] + b"\n\n",
        b"",
        chain[:-1] + to_pem(vendor.root.der),
    ]
    for text in spellings:
        assert refused(own, vendor, with_chain(text), collateral) in ("x509.malformed", "dcap.pck-spelling")


# --- who signed what ---


def test_attestation_key_of_somebody_else() -> None:
    vendor = Vendor()
    vendor.qe_signed_key = mint.EcKey.generate().public.point
    assert refused(verify, vendor) == "dcap.qe-binding"


def test_other_authentication_data() -> None:
    vendor = Vendor()
    raw = vendor.quote()
    at = raw.rindex(vendor.authentication + (5).to_bytes(2, "little"))
    assert (
        refused(verify, vendor, evidence=raw_evidence("sgx", raw[:at] + b"\x01" + raw[at + 1 :])) == "dcap.qe-binding"
    )


def test_upper_half_of_qe_report_data() -> None:
    """dcap-qvl does not look at it."""
    vendor = Vendor(qe_report_tail=b"\x01" + bytes(31))
    assert refused(verify, vendor) == "dcap.qe-binding"


def test_pck_key_that_did_not_sign() -> None:
    vendor = Vendor()
    vendor.pck()
    vendor.pck_key = mint.EcKey.generate()
    assert refused(verify, vendor) == "x509.signature"


def test_quote_of_another_vendor() -> None:
    good, other = Vendor(), Vendor()
    assert refused(verify, good, evidence=other.evidence()) in ("x509.signature", "x509.root")
    assert refused(verify, good, evidence=other.evidence(), collateral=other.collateral()) == "x509.root"
    assert refused(verify, good, collateral=other.collateral()) == "x509.root"


def _expired(vendor: Vendor) -> None:
    vendor.pck_validity = (kit.EPOCH, NOW - 1)


def _early(vendor: Vendor) -> None:
    vendor.pck_validity = (NOW + 1, NOW + DAY)


def _revoked_pck(vendor: Vendor) -> None:
    vendor.ca.revoked.append(parse_certificate(vendor.pck()).serial)


def _revoked_ca(vendor: Vendor) -> None:
    vendor.root.revoked.append(vendor.ca.certificate.serial)


def _revoked_signer(vendor: Vendor) -> None:
    vendor.root.revoked.append(parse_certificate(vendor.signer).serial)


def _expired_ca(vendor: Vendor) -> None:
    vendor.ca = vendor.root.child("", name=vendor.ca.name, validity=(kit.EPOCH, NOW - 1))


def _ca_without_key_usage(vendor: Vendor) -> None:
    key = mint.EcKey.generate()
    extensions = [e for e in mint.ca_extensions(key.public, vendor.root.key.public, 0) if e[0] != mint.KEY_USAGE]
    vendor.ca = vendor.root.child("", name=vendor.ca.name, key=key, extensions=extensions)


def _ca_that_is_none(vendor: Vendor) -> None:
    key = mint.EcKey.generate()
    extensions = mint.leaf_extensions(key.public, vendor.root.key.public)
    vendor.ca = vendor.root.child("", name=vendor.ca.name, key=key, extensions=extensions)


def _signer_of_another_name(vendor: Vendor) -> None:
    vendor.signer = vendor.root.leaf("", name=intel_name("Intel SGX PCK Certificate"), key=vendor.signer_key.public)


def _signer_below_the_pck_ca(vendor: Vendor) -> None:
    vendor.signer = vendor.ca.leaf("", name=intel_name("Intel SGX TCB Signing"), key=vendor.signer_key.public)


def _ca_of_another_name(vendor: Vendor) -> None:
    vendor.ca = vendor.root.child("", name=intel_name("Intel SGX PCK Somebody CA"))


def _stale_lists(vendor: Vendor) -> None:
    vendor.crl_window = (NOW - 2 * DAY, NOW - 1)


def _early_lists(vendor: Vendor) -> None:
    vendor.crl_window = (NOW + 1, NOW + DAY)


def _stale_information(vendor: Vendor) -> None:
    vendor.next_update = NOW - 1


def _early_information(vendor: Vendor) -> None:
    vendor.issued = NOW + 1


CERTIFICATES: list[tuple[Callable[[Vendor], None], set[str]]] = [
    (_expired, {"x509.window"}),
    (_early, {"x509.window"}),
    (_revoked_pck, {"x509.revoked"}),
    (_revoked_ca, {"x509.revoked"}),
    (_revoked_signer, {"x509.revoked"}),
    (_expired_ca, {"x509.window"}),
    (_ca_without_key_usage, {"x509.key-usage"}),
    (_ca_that_is_none, {"x509.ca"}),
    (_signer_of_another_name, {"dcap.collateral-signer"}),
    (_signer_below_the_pck_ca, {"x509.issuer"}),
    (_ca_of_another_name, {"dcap.collateral-signer"}),
    (_stale_lists, {"x509.crl-window"}),
    (_early_lists, {"x509.crl-window"}),
    (_stale_information, {"dcap.collateral-window"}),
    (_early_information, {"dcap.collateral-window"}),
]


@pytest.mark.parametrize(("change", "codes"), CERTIFICATES, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("kind", ["sgx", "td-1.5"])
def test_certificates_and_windows(change: Callable[[Vendor], None], codes: set[str], kind: BodyKind) -> None:
    vendor = Vendor()
    change(vendor)
    assert refused(verify, vendor, kind=kind) in codes


def test_kept_results_do_not_outlive_their_window(vendor: Vendor) -> None:
    """The same bytes, verified once, are judged anew at another time; and a refusal is not kept either."""
    evidence, collateral = vendor.evidence(), vendor.collateral()
    verify(vendor, evidence=evidence, collateral=collateral)
    for later in (NOW + 30 * DAY, NOW - 2 * DAY):
        refused(verify, vendor, evidence=evidence, collateral=collateral, now=later)
    verify(vendor, evidence=evidence, collateral=collateral)
    other = Vendor()
    refused(verify, other, evidence=evidence, collateral=collateral)


def test_pck_chain_is_judged_against_the_lists_at_hand() -> None:
    """A chain that was accepted under yesterday's list is refused under the list that revokes it."""
    vendor = Vendor()
    evidence = vendor.evidence()
    verify(vendor, evidence=evidence)
    _revoked_pck(vendor)
    assert refused(verify, vendor, evidence=evidence) == "x509.revoked"


# --- bytes of the collateral ---


def collateral_flips(vendor: Vendor, kind: BodyKind, step: int) -> list[tuple[str, int]]:
    parts = vendor.parts(kind)
    found = []
    for name in PARTS:
        for at in range(0, len(parts[name]), step):
            bad = bytearray(parts[name])
            bad[at] ^= 1
            try:
                own_collateral.verify(as_collateral({**parts, name: bytes(bad)}), roots=vendor.roots, now=NOW)
                found.append((name, at))
            except KakoiError:
                pass
    return found


def test_flipped_bytes_of_collateral(vendor: Vendor) -> None:
    assert collateral_flips(vendor, "td-1.5", 5) == []


@pytest.mark.slow
def test_every_flipped_byte_of_collateral(vendor: Vendor) -> None:
    for kind in ("sgx", "td-1.5"):
        assert collateral_flips(vendor, kind, 1) == []


def test_parts_swapped_missing_repeated_or_unknown(vendor: Vendor) -> None:
    parts = vendor.parts()
    for name in PARTS:
        without = {k: v for k, v in parts.items() if k != name}
        assert refused(verify, vendor, collateral=as_collateral(without)) == "dcap.collateral"
        for other in PARTS:
            if parts[other] != parts[name]:
                refused(verify, vendor, collateral=as_collateral({**parts, name: parts[other]}))
    assert refused(verify, vendor, collateral=as_collateral({**parts, "more": b""})) == "dcap.collateral"
    twice = as_collateral(parts)
    from kakoi.attest.report import Collateral

    assert refused(verify, vendor, collateral=Collateral(parts=(*twice.parts, twice.parts[0]))) == "dcap.collateral"


def test_collateral_of_the_other_tee(vendor: Vendor) -> None:
    assert refused(verify, vendor, kind="td-1.5", collateral=vendor.collateral("sgx")) == "dcap.other-tee"
    assert refused(verify, vendor, kind="sgx", collateral=vendor.collateral("td-1.5")) == "dcap.other-tee"
    mixed = {**vendor.parts("sgx"), **vendor.sign("qe_identity", vendor.qe_identity("td-1.5"))}
    assert refused(verify, vendor, kind="sgx", collateral=as_collateral(mixed)) == "dcap.other-tee"


@pytest.mark.parametrize(("field", "value"), [("fmspc", "00906ED50001"), ("pceId", "0001")])
def test_collateral_of_another_platform(vendor: Vendor, field: str, value: str) -> None:
    """dcap-qvl compares the FMSPC only."""
    info = {**vendor.tcb_info(), field: value}
    collateral = vendor.collateral(changed=vendor.sign("tcb_info", info))
    assert refused(verify, vendor, collateral=collateral) == "dcap.other-platform"


def _vendor_json() -> list[tuple[str, str, object]]:
    return [
        ("tcb_info", "version", 1),
        ("tcb_info", "version", 4),
        ("tcb_info", "version", "3"),
        ("tcb_info", "id", "QE"),
        ("tcb_info", "tcbType", 1),
        ("tcb_info", "issueDate", "yesterday"),
        ("tcb_info", "issueDate", "2026-02-30T00:00:00Z"),
        ("tcb_info", "fmspc", "00"),
        ("tcb_info", "pceId", "zzzz"),
        ("tcb_info", "tcbEvaluationDataNumber", -1),
        ("tcb_info", "tcbEvaluationDataNumber", True),
        ("tcb_info", "tcbLevels", {}),
        ("tcb_info", "tcbLevels", [[]]),
        ("tcb_info", "tcbLevels", [{}]),
        ("tcb_info", "tcbLevels", [{**level(5, 13, "Fine"), "tcb": {}}]),
        ("tcb_info", "tcbLevels", [{**level(5, 13, "Splendid")}]),
        ("tcb_info", "tcbLevels", [level([5] * 15, 13, "UpToDate")]),
        ("tcb_info", "tcbLevels", [level(256, 13, "UpToDate")]),
        ("qe_identity", "version", 1),
        ("qe_identity", "version", 3),
        ("qe_identity", "id", "QVE"),
        ("qe_identity", "mrsigner", "00"),
        ("qe_identity", "isvprodid", 70000),
        ("qe_identity", "attributesMask", "FF"),
        ("qe_identity", "tcbLevels", [{"tcb": {}}]),
        ("qe_identity", "tcbLevels", [svn_level(1, "Splendid")]),
    ]


@pytest.mark.parametrize(("part", "member", "value"), _vendor_json())
def test_signed_but_malformed_vendor_json(vendor: Vendor, part: str, member: str, value: object) -> None:
    members: Json = vendor.tcb_info() if part == "tcb_info" else vendor.qe_identity()
    for changed in ({**members, member: value}, {k: v for k, v in members.items() if k != member}):
        collateral = vendor.collateral(changed=vendor.sign(part, changed))
        assert refused(verify, vendor, collateral=collateral) == "dcap.vendor-json"


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"a":1,"a":2}', b'{"a":1.5}', b'{"a":NaN}', b"\xff", b"[" * 100_000, b" " * 2_000_000]
)
def test_signed_but_no_vendor_json(vendor: Vendor, text: bytes) -> None:
    signature = vendor.signer_key.sign_raw(text)
    collateral = vendor.collateral(changed={"tcb_info": text, "tcb_info_signature": signature})
    assert refused(verify, vendor, collateral=collateral) == "dcap.vendor-json"


# --- quoting enclave and guest ---


@pytest.mark.parametrize(
    "change",
    [
        {"qe_flags": 0x17},
        {"qe_flags": 0x14},
        {"qe_flags": 0x35},
        {"qe_mr_signer": sha256(b"somebody")},
    ],
)
def test_quoting_enclave_that_is_not_the_vendors(change: Json) -> None:
    assert refused(verify, Vendor(**change)) == "dcap.qe-identity"


def test_quoting_enclave_of_another_product(vendor: Vendor) -> None:
    identity = {**vendor.qe_identity(), "isvprodid": 2}
    assert (
        refused(verify, vendor, collateral=vendor.collateral(changed=vendor.sign("qe_identity", identity)))
        == "dcap.qe-identity"
    )
    identity = {**vendor.qe_identity(), "miscselect": "01000000"}
    assert (
        refused(verify, vendor, collateral=vendor.collateral(changed=vendor.sign("qe_identity", identity)))
        == "dcap.qe-identity"
    )


def test_quoting_enclave_in_debug_mode_that_the_mask_hides() -> None:
    """Whatever Intel's mask says, a quoting enclave in debug mode is refused."""
    vendor = Vendor(qe_flags=0x17)
    identity = {**vendor.qe_identity(), "attributesMask": "00" * 16}
    assert (
        refused(verify, vendor, collateral=vendor.collateral(changed=vendor.sign("qe_identity", identity)))
        == "dcap.qe-identity"
    )


def test_tdx_module_of_another_signer(vendor: Vendor) -> None:
    for body in (td_body(mr_signer_seam=b"\x01" * 48), td_body(seam_attributes=b"\x01" + bytes(7))):
        evidence = vendor.evidence(body, kind="td-1.5")
        assert refused(verify, vendor, kind="td-1.5", evidence=evidence) == "dcap.tdx-module"


def test_tdx_module_that_is_not_listed(vendor: Vendor) -> None:
    body = td_body(tee_tcb_svn=bytes([3, 2, 5]) + bytes(13))
    assert refused(verify, vendor, kind="td-1.5", evidence=vendor.evidence(body, kind="td-1.5")) == "dcap.tdx-module"


def test_tdx_module_without_version_is_judged_by_the_platform_levels() -> None:
    vendor = Vendor()
    vendor.tcb_levels = [level(5, 13, "UpToDate", tdx=[3, 0, 5, *[0] * 13])]
    body = td_body(tee_tcb_svn=bytes([3, 0, 5]) + bytes(13))
    assert verify(vendor, kind="td-1.5", evidence=vendor.evidence(body, kind="td-1.5")).claims.tcb_status == "UpToDate"
    body = td_body(tee_tcb_svn=bytes([2, 0, 5]) + bytes(13))
    code = refused(verify, vendor, kind="td-1.5", evidence=vendor.evidence(body, kind="td-1.5"))
    assert code == "dcap.tcb-not-supported"


@pytest.mark.parametrize("xfam", [0, 1, 2, 3 | 1 << 63, 3 | 1 << 20])
def test_xfam_that_no_module_allows(vendor: Vendor, xfam: int) -> None:
    evidence = vendor.evidence(td_body(xfam=xfam), kind="td-1.5")
    assert refused(verify, vendor, kind="td-1.5", evidence=evidence) == "tdx.xfam"


def test_enclave_that_was_not_initialised(vendor: Vendor) -> None:
    assert refused(verify, vendor, evidence=vendor.evidence(sgx_body(flags=0x4))) in (
        "sgx.not-initialised",
        "dcap.second-opinion",
    )


def test_evidence_under_another_name(vendor: Vendor) -> None:
    assert refused(verify, vendor, evidence=raw_evidence("td-1.5", vendor.quote())) == "sgx.kind"
    tdx = raw_evidence("sgx", vendor.quote(kind="td-1.5"))
    assert refused(verify, vendor, kind="td-1.5", evidence=tdx) == "tdx.kind"


def test_sgx_body_in_newer_quotes_is_refused(vendor: Vendor) -> None:
    """Intel's library makes none, and dcap-qvl refuses them."""
    for version in (4, 5):
        evidence = raw_evidence("sgx", vendor.quote(version=version))
        assert refused(verify, vendor, evidence=evidence) == "dcap.second-opinion"


def test_pck_extension_rules() -> None:
    for change in (
        {"ppid": bytes(15)},
        {"fmspc": bytes(5)},
        {"pce_id": bytes(3)},
        {"sgx_type": 7},
        {"components": (5,) * 15},
    ):
        vendor = Vendor(**change)
        info = {**vendor.tcb_info(), "fmspc": "00906ED50000", "pceId": "0000"}
        code = refused(verify, vendor, collateral=vendor.collateral(changed=vendor.sign("tcb_info", info)))
        assert code == "dcap.pck-extension"


def test_pck_without_configuration() -> None:
    vendor = Vendor(configuration=None)
    facts = {f.name: f.value for f in verify(vendor).claims.settings}
    assert (facts["smt"], facts["dynamic-platform"], facts["cached-keys"]) == ("undefined",) * 3
