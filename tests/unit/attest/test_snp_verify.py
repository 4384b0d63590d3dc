"""SEV-SNP: every step of the verifier has a report, a certificate or a list that breaks exactly it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.attest.policy import PlatformPolicy, ReferenceValue, Setting, Unchecked
from kakoi.attest.registry import judge
from kakoi.attest.report import AppraisalRefused, Collateral, Component, Evidence, VerifiedEvidence
from kakoi.attest.snp import parse, settings
from kakoi.attest.snp.verifier import SnpVerifier
from kakoi.attest.snp.verify import Endorsements, VerifiedReport, verify
from kakoi.core import der
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.evidence import mint
from kakoi.testing import amd_vendor as amd
from kakoi.testing import attest_kit
from kakoi.testing import x509_kit as kit

PRODUCTS: tuple[parse.Product, ...] = ("Milan", "Genoa", "Turin")
KINDS: tuple[parse.SigningKey, ...] = ("VCEK", "VLEK")


def evidence(statement: bytes, **parts: bytes) -> Evidence:
    return Evidence(platform="snp", statement=statement, parts=attest_kit.pieces(parts))


def prove(
    vendor: amd.AmdVendor, statement: bytes, pieces: dict[str, bytes], *, now: int = kit.NOW, **parts: bytes
) -> VerifiedEvidence:
    collateral = Collateral(parts=attest_kit.pieces(pieces))
    return SnpVerifier(vendor.roots).verify(evidence(statement, **parts), collateral, now=now)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def accepted(call: Callable[[], object]) -> bool:
    try:
        call()
    except (Malformed, Refused):
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("version", parse.VERSIONS)
def test_good(product: parse.Product, kind: parse.SigningKey, version: int) -> None:
    vendor = amd.vendor(product)
    chip = vendor.chip(kind)
    verified = prove(vendor, vendor.signed(chip, version=version), vendor.collateral(chip))
    claims = verified.claims
    assert (claims.product, claims.debug, claims.report_data) == (product, False, bytes(range(64)).hex())
    assert verified.collateral_issued_at == kit.NOW - 86400
    found = {fact.name: fact.value for fact in claims.settings}
    assert found["revocation"] == "checked"
    assert found["signing-key"] == kind
    assert found["chip-id"] == ("shown" if kind == "VCEK" else "masked")
    assert found["csp-id"] == ("none" if kind == "VCEK" else "CN=cloud.example")
    assert found["mitigations.launch"] == ("0x0000000000000001" if version == 5 else "absent")
    tcb = {component.name: component.version for component in claims.tcb}
    assert all(tcb[f"{when}.{name}"] == v for name, v in chip.tcb.items() for when in ("reported", "launch"))
    assert verified.bounded == tcb.keys()


def test_encode_is_the_inverse_of_parse() -> None:
    vendor = amd.vendor("Genoa")
    data = vendor.signed(vendor.chip(), guest_svn=7, vmpl=2)
    assert amd.encode(parse.parse(data)) == data


CHIP_TWINS: dict[str, tuple[dict[str, Any], str]] = {
    "reported TCB of another certificate": ({"tcb": {**amd.GOOD_TCB["Genoa"], "microcode": 83}}, "snp.tcb"),
    "common name without SEV-": ({"common_name": "VCEK"}, "snp.name"),
    "common name of a VLEK": ({"common_name": "SEV-VLEK"}, "snp.name"),
    "product of another line": ({"product_name": "Milan-B0"}, "snp.product"),
    "unknown product": ({"product_name": "Naples"}, "snp.product"),
    "expired": ({"validity": (kit.EPOCH, kit.NOW - 1)}, "x509.window"),
    "not yet valid": ({"validity": (kit.NOW + 1, kit.NOW + kit.YEAR)}, "x509.window"),
    "key on another curve": ({"key": mint.EcKey.generate("P-256")}, "snp.key"),
    "no chip id": ({"spoil": {"4": None}}, "x509.malformed"),
    "short chip id": ({"spoil": {"4": bytes(63)}}, "snp.endorsement"),
    "chip id of Turin's size": ({"spoil": {"4": bytes(8)}}, "snp.endorsement"),
    "cloud provider in a VCEK": ({"spoil": {"5": der.write(der.IA5_STRING, b"x")}}, "snp.endorsement"),
    "no product name": ({"spoil": {"2": None}}, "x509.malformed"),
    "empty product name": ({"spoil": {"2": der.write(der.IA5_STRING)}}, "snp.endorsement"),
    "structure version 2": ({"spoil": {"1": der.write_integer(2)}}, "snp.endorsement"),
    "missing component": ({"spoil": {"3.8": None}}, "x509.malformed"),
    "component beyond a byte": ({"spoil": {"3.8": der.write_integer(256)}}, "snp.endorsement"),
    "negative component": ({"spoil": {"3.8": der.write_integer(-1)}}, "snp.endorsement"),
    "reserved component": ({"spoil": {"3.5": der.write_integer(1)}}, "snp.endorsement"),
    "component of another line": ({"spoil": {"3.9": der.write_integer(0)}}, "snp.endorsement"),
    "unknown AMD extension": ({"spoil": {"6": der.write_integer(0)}}, "snp.endorsement"),
    "component with bytes after it": ({"spoil": {"3.8": der.write_integer(84) + b"\0"}}, "der.encoding"),
}


@pytest.mark.parametrize("name", CHIP_TWINS)
def test_bad_endorsement(name: str) -> None:
    changes, expected = CHIP_TWINS[name]
    vendor = amd.vendor("Genoa")
    chip = vendor.chip(**changes)
    good = vendor.chip()
    report = replace(vendor.report(good), chip_id=chip.hwid.ljust(64, b"\0")[:64])
    key = chip.key if chip.key.public.kind == "P-384" else good.key
    statement = vendor.sign(report, key)
    assert code(lambda: prove(vendor, statement, vendor.collateral(chip))) == expected


def test_chip_id_wrapped_in_an_octet_string_is_read() -> None:
    vendor = amd.vendor("Milan")
    wrapped = vendor.chip(spoil={"4": der.write(der.OCTET_STRING, b"\x07" * 64)})
    statement = vendor.signed(wrapped, chip_id=b"\x07" * 64)
    assert prove(vendor, statement, vendor.collateral(wrapped)).claims.platform_identity == "07" * 64


def _tcb(**changes: int) -> bytes:
    return amd.pack_tcb("Genoa", {**amd.GOOD_TCB["Genoa"], **changes})


REPORT_TWINS: dict[str, tuple[dict[str, Any], str]] = {
    "chip id of another chip": ({"chip_id": b"\x09" * 64}, "snp.chip-id"),
    "chip id off by a bit": ({"chip_id": b"\x01" + bytes(63)}, "snp.chip-id"),
    "CPUID of Milan": ({"cpuid": (0x19, 0x01, 1)}, "snp.product"),
    "CPUID of Turin": ({"cpuid": (0x1A, 0x02, 1)}, "snp.product"),
    "CPUID of an unknown model": ({"cpuid": (0x19, 0x30, 1)}, "snp.product"),
    "CPUID of an unknown family": ({"cpuid": (0x17, 0x01, 1)}, "snp.product"),
    "reported TCB below the certificate's": ({"reported_tcb": _tcb(microcode=83)}, "snp.tcb"),
    "reported TCB above the certificate's": ({"reported_tcb": _tcb(snp=26)}, "snp.tcb"),
    "reserved TCB byte": ({"launch_tcb": _tcb()[:3] + b"\1" + _tcb()[4:]}, "snp.endorsement"),
    "reported above current": ({"current_tcb": _tcb(snp=24), "committed_tcb": _tcb(snp=24)}, "snp.tcb-order"),
    "committed above current": ({"committed_tcb": _tcb(microcode=85)}, "snp.tcb-order"),
    "committed firmware above current": (
        {"committed_firmware": parse.Firmware(major=1, minor=55, build=44)},
        "snp.tcb-order",
    ),
    "the other kind of key": ({"signing_key": "VLEK"}, "evidence.parts"),
    "version 6": ({"version": 6}, "snp.malformed"),
    "version 1": ({"version": 1}, "snp.malformed"),
    "VMPL 4": ({"vmpl": 4}, "snp.malformed"),
    "policy bit 17 clear": ({"policy": 0x1001F}, "snp.malformed"),
    "policy bit 26": ({"policy": 0x403001F}, "snp.malformed"),
    "platform bit 8": ({"platform_info": 0x125}, "snp.malformed"),
    "author key without AUTHOR_KEY_EN": ({"author_key_digest": b"\1" * 48}, "snp.malformed"),
    "mitigations before version 5": ({"version": 4, "launch_mitigations": 1}, "snp.malformed"),
    "CPUID in version 2": ({"version": 2, "cpuid": (0x19, 0x11, 1)}, "snp.malformed"),
}


@pytest.mark.parametrize("name", REPORT_TWINS)
def test_bad_report(name: str) -> None:
    """Reports that the chip's own key signed: only the named check can refuse them."""
    changes, expected = REPORT_TWINS[name]
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    assert code(lambda: prove(vendor, vendor.signed(chip, **changes), vendor.collateral(chip))) == expected


def test_masked_chip_is_told_apart() -> None:
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    claims = prove(vendor, vendor.signed(chip, chip_id=bytes(64)), vendor.collateral(chip)).claims
    assert claims.platform_identity == ""
    assert ("chip-id", "masked") in {(fact.name, fact.value) for fact in claims.settings}


def test_every_flipped_bit_of_the_report_is_refused() -> None:
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    data, pieces = vendor.signed(chip), vendor.collateral(chip)
    assert [at for at, twin in attest_kit.flips(data) if accepted(partial(prove, vendor, twin, pieces))] == []


@pytest.mark.parametrize("piece", ["vcek", "intermediate", "root", "crl"])
def test_every_flipped_bit_of_the_collateral_is_refused(piece: str) -> None:
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    data, pieces = vendor.signed(chip), vendor.collateral(chip)
    wrong = [
        at
        for at, twin in attest_kit.flips(pieces[piece])
        if accepted(partial(prove, vendor, data, {**pieces, piece: twin}))
    ]
    assert wrong == []


def test_cut_and_extended_reports_and_collateral_are_refused() -> None:
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    data, pieces = vendor.signed(chip), vendor.collateral(chip)
    for twin in attest_kit.cuts(data, step=37):
        assert code(partial(parse.parse, twin)) == "snp.malformed"
    for name in pieces:
        for twin in attest_kit.cuts(pieces[name], step=41):
            assert not accepted(partial(prove, vendor, data, {**pieces, name: twin}))


def test_swapped_certificates_and_wrong_roots_are_refused() -> None:
    vendor, other, milan = amd.vendor("Genoa"), amd.vendor("Genoa", which=1), amd.vendor("Milan")
    chip, vlek = vendor.chip(), vendor.chip("VLEK")
    data, pieces = vendor.signed(chip), vendor.collateral(chip)
    twins: dict[str, dict[str, bytes]] = {
        "another chip": {**pieces, "vcek": vendor.chip().certificate},
        "chip of another root": {**pieces, "vcek": other.chip().certificate},
        "VLEK's intermediate": {**pieces, "intermediate": vendor.asvk.der},
        "intermediate of another root": {**pieces, "intermediate": other.ask.der},
        "root as intermediate": {**pieces, "intermediate": vendor.ark.der},
        "another root": {**pieces, "root": other.ark.der},
        "another line's root": {**pieces, "root": milan.ark.der},
        "VLEK for VCEK": {**pieces, "vcek": vlek.certificate},
        "another root's list": {**pieces, "crl": other.crl()},
    }
    assert [name for name, twin in twins.items() if accepted(partial(prove, vendor, data, twin))] == []
    chain = {**other.collateral(chip), "vcek": other.chip(key=chip.key, hwid=chip.hwid).certificate}
    assert code(lambda: prove(vendor, data, chain)) == "x509.root"
    assert (
        code(lambda: SnpVerifier().verify(evidence(data), Collateral(parts=attest_kit.pieces(pieces)), now=kit.NOW))
        == "x509.root"
    )


def test_a_leaf_under_its_own_kind_of_intermediate_only() -> None:
    vendor = amd.vendor("Genoa")
    chip = vendor.chip("VCEK", issuer=vendor.asvk)
    pieces = {**vendor.collateral(chip), "intermediate": vendor.asvk.der}
    assert code(lambda: prove(vendor, vendor.signed(chip), pieces)) == "snp.name"


def test_revocation() -> None:
    vendor = amd.vendor("Genoa")
    chip, vlek = vendor.chip(), vendor.chip("VLEK")

    def outcome(target: amd.Chip, crl: bytes) -> str:
        return code(lambda: prove(vendor, vendor.signed(target), vendor.collateral(target, crl=crl)))

    ask, asvk = vendor.ask.certificate.serial, vendor.asvk.certificate.serial
    assert outcome(chip, vendor.crl(revoked=[5, ask])) == "x509.revoked"
    assert outcome(vlek, vendor.crl(revoked=[asvk])) == "x509.revoked"
    prove(vendor, vendor.signed(chip), vendor.collateral(chip, crl=vendor.crl(revoked=[asvk, 0])))
    assert outcome(chip, vendor.crl(window=(kit.NOW - 9, kit.NOW - 1))) == "x509.crl-window"
    assert outcome(chip, vendor.crl(window=(kit.NOW + 1, kit.NOW + 9))) == "x509.crl-window"
    unchecked = prove(vendor, vendor.signed(chip), vendor.collateral(chip, crl=b""))
    assert ("revocation", "not checked") in {(f.name, f.value) for f in unchecked.claims.settings}
    assert [c.outcome for c in unchecked.checks if c.name == "snp.revocation"] == ["skipped"]
    assert unchecked.collateral_issued_at is None


def test_kept_chain_ends_with_its_window() -> None:
    vendor = amd.vendor("Genoa")
    chip = vendor.chip(validity=(kit.EPOCH, kit.NOW))
    data, pieces = vendor.signed(chip), vendor.collateral(chip)
    prove(vendor, data, pieces)
    assert code(lambda: prove(vendor, data, pieces, now=kit.NOW + 1)) == "x509.window"
    assert code(lambda: prove(vendor, data, pieces, now=kit.EPOCH - 1)) == "x509.window"


def test_certificate_table() -> None:
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    data = vendor.signed(chip)
    entries = {parse.VCEK_GUID: chip.certificate, parse.ASK_GUID: vendor.ask.der, parse.ARK_GUID: vendor.ark.der}
    table = amd.certificate_table(entries)
    assert parse.parse_certificate_table(table) == entries
    verified = prove(vendor, data, {"crl": vendor.crl()}, certificates=table)
    assert {d.name for d in verified.collateral} == {"vcek", "intermediate", "root", "crl"}
    bare = amd.certificate_table(entries, pad=1)
    for twin in [bare[:-1], bare + b"\1", table[:23], b"", table[:16] + b"\1" + table[17:], bytes(24)[:-1] + b"\1"]:
        assert code(partial(parse.parse_certificate_table, twin)) in {"snp.malformed", "evidence.malformed"}
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(chip.certificate) + b"-----END CERTIFICATE-----\n"
    as_pem = amd.certificate_table({**entries, parse.VCEK_GUID: pem})
    assert prove(vendor, data, {"crl": vendor.crl()}, certificates=as_pem).claims == verified.claims
    assert code(lambda: prove(vendor, data, {"crl": vendor.crl()})) == "evidence.parts"
    assert code(lambda: prove(vendor, data, {"other": b"x"})) == "evidence.parts"


def policy(verified: VerifiedEvidence, **changes: Any) -> PlatformPolicy:
    return replace(attest_kit.echo(verified), **changes)


def failures(vendor: amd.AmdVendor, chip: amd.Chip, entry: PlatformPolicy, **changes: Any) -> set[str]:
    collateral = Collateral(parts=attest_kit.pieces(vendor.collateral(chip)))
    with pytest.raises(AppraisalRefused) as caught:
        judge(
            evidence(vendor.signed(chip, **changes)), collateral, attest_kit.only(entry),
            report_data=bytes(range(64)), now=kit.NOW, verifiers={"snp": SnpVerifier(vendor.roots)},
        )  # fmt: skip
    return {check.name for check in caught.value.verdict.failed}


APPRAISAL_TWINS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "debug": ({"policy": 0xB001F}, {"debug"}),
    "migration allowed": ({"policy": 0x7001F}, {"setting.policy.migrate-ma"}),
    "VMPL 1": ({"vmpl": 1}, {"setting.vmpl"}),
    "asked by the host": ({"vmpl": parse.HOST_REQUEST}, {"setting.vmpl"}),
    "no alias check": ({"platform_info": 0x05}, {"setting.platform.alias-check-complete"}),
    "SMT on": ({"platform_info": 0x25 ^ 1}, {"setting.platform.smt"}),
    "a migration agent": ({"report_id_ma": bytes(32)}, {"setting.migration-agent"}),
    "provisional firmware": (
        {"current_firmware": parse.Firmware(major=1, minor=55, build=44)},
        {"setting.provisional-firmware"},
    ),
    "lower guest version": ({"guest_svn": 2}, {"minimum-tcb.guest-svn"}),
    "lower TCB at launch": ({"launch_tcb": _tcb(microcode=83)}, {"minimum-tcb.launch.microcode"}),
    "another measurement and host data": (
        {"measurement": bytes(48), "host_data": b"\1" * 32},
        {"measurement.measurement", "measurement.host-data"},
    ),
    "fewer mitigations": ({"current_mitigations": 0}, {"setting.mitigations.current"}),
    "report data off by a bit": ({"report_data": b"\x80" + bytes(range(1, 64))}, {"report-data"}),
    "masked chip": ({"chip_id": bytes(64)}, {"platform-identity", "setting.chip-id"}),
}


@pytest.mark.parametrize("name", APPRAISAL_TWINS)
def test_policy_names_every_mismatch(name: str) -> None:
    changes, expected = APPRAISAL_TWINS[name]
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    entry = policy(prove(vendor, vendor.signed(chip), vendor.collateral(chip)))
    assert failures(vendor, chip, entry, **changes) == expected


def test_unset_means_deny() -> None:
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    entry = policy(prove(vendor, vendor.signed(chip), vendor.collateral(chip)))
    for i, setting in enumerate(entry.settings):
        rest = replace(entry, settings=entry.settings[:i] + entry.settings[i + 1 :])
        assert failures(vendor, chip, rest) == {f"setting.{setting.name}"}
    assert isinstance(entry.minimum_tcb, tuple)
    for i, component in enumerate(entry.minimum_tcb):
        rest = replace(entry, minimum_tcb=entry.minimum_tcb[:i] + entry.minimum_tcb[i + 1 :])
        assert failures(vendor, chip, rest) == {f"minimum-tcb.{component.name}"}
    raised = tuple(Component(name=c.name, version=c.version + 1) for c in entry.minimum_tcb)
    assert len(failures(vendor, chip, replace(entry, minimum_tcb=raised))) == len(raised)
    assert failures(vendor, chip, replace(entry, refused_products=("Genoa",))) == {"product"}
    skipped = ReferenceValue(name="measurement", accepted=Unchecked(reason="left out by this test"))
    rest_measurements = tuple(m for m in entry.measurements if m.name != "measurement")
    anything = replace(entry, measurements=(skipped, *rest_measurements))
    assert failures(vendor, chip, anything) == {"identity.measurement"}


def test_recommended_settings_accept_a_good_platform_and_name_every_fact() -> None:
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    verified = prove(vendor, vendor.signed(chip), vendor.collateral(chip))
    assert [s.name for s in settings.RECOMMENDED] == [f.name for f in verified.claims.settings]
    entry = policy(verified, settings=settings.RECOMMENDED)
    judge(
        evidence(vendor.signed(chip)), Collateral(parts=attest_kit.pieces(vendor.collateral(chip))),
        attest_kit.only(entry), report_data=bytes(range(64)), now=kit.NOW,
        verifiers={"snp": SnpVerifier(vendor.roots)},
    )  # fmt: skip
    assert failures(vendor, chip, entry, vmpl=1, policy=0x7001F) == {
        "setting.vmpl",
        "setting.policy.migrate-ma",
    }
    assert all(
        (isinstance(s, Setting) and not isinstance(s.accepted, Unchecked)) or s.name.startswith("mitigations")
        for s in settings.RECOMMENDED
    )


def test_only_the_verifier_makes_verified_reports() -> None:
    with pytest.raises(TypeError):
        VerifiedReport()  # type: ignore[call-arg]
    vendor = amd.vendor("Genoa")
    chip = vendor.chip()
    pieces = vendor.collateral(chip)
    good = verify(
        parse.parse(vendor.signed(chip)),
        Endorsements(
            endorsement_key=pieces["vcek"], intermediate=pieces["intermediate"], root=pieces["root"], crl=None
        ),
        now=kit.NOW,
        roots=vendor.roots,
    )
    with pytest.raises(TypeError):
        replace(good, product="Turin")


@given(st.binary(max_size=1200))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    for read in (parse.parse, parse.parse_certificate_table):
        try:
            read(data)
        except Malformed:
            continue


@given(st.binary(min_size=parse.REPORT_BYTES, max_size=parse.REPORT_BYTES))
def test_any_report_that_parses_is_written_back_alike(data: bytes) -> None:
    vendor = amd.vendor("Genoa")
    base = bytearray(vendor.signed(_CHIP))
    for start, end in ((0x10, 0x30), (0x50, 0x188), (0x1A0, 0x1E8), (0x2A0, 0x2D0), (0x2E8, 0x318)):
        base[start:end] = data[start:end]
    base[0x110:0x140] = bytes(48)
    assert amd.encode(parse.parse(bytes(base))) == bytes(base)


_CHIP = amd.vendor("Genoa").chip()
