"""Azure confidential VMs: hardware, paravisor, TPM key and guest are joined, and no joint holds by omission."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.attest.azure import parse, settings
from kakoi.attest.azure import verify as azure
from kakoi.attest.azure.verifier import AzureSnpVerifier, AzureTdxVerifier
from kakoi.attest.policy import ReferenceValue, Setting, Unchecked
from kakoi.attest.registry import judge
from kakoi.attest.report import AppraisalRefused, Claims, Collateral, Evidence, Measurement, VerifiedEvidence
from kakoi.attest.snp import settings as snp_settings
from kakoi.attest.tdx.verify import TdxVerifier
from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.testing import attest_kit, azure_vendor, recorded
from kakoi.testing import azure_vendor_log as log_vendor
from kakoi.testing import azure_vendor_tpm as tpm_vendor
from kakoi.testing import x509_kit as kit
from kakoi.testing.dcap_vendor_corpus import recorded_collateral

FOLDER = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def collateral(guest: azure_vendor.Guest) -> Collateral:
    return Collateral(parts=attest_kit.pieces(guest.vendor.collateral(guest.chip)))


def prove(guest: azure_vendor.Guest, evidence: Evidence | None = None, /, **parts: bytes) -> VerifiedEvidence:
    verifier = AzureSnpVerifier(guest.vendor.roots)
    return verifier.verify(evidence or guest.evidence(**parts), collateral(guest), now=kit.NOW)


@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
def test_good(hash_name: Any) -> None:
    guest = azure_vendor.guest()
    guest.hash_name = hash_name
    verified = prove(guest)
    claims = verified.claims
    assert (claims.platform, claims.report_data) == ("azure-snp", azure_vendor.NONCE.hex())
    found = {m.name: m.value for m in claims.measurements}
    assert [found[f"pcr{i}"] for i in range(24)] == [value.hex() for value in guest.tpm.pcrs]
    assert found["measurement"] == "11" * 48
    facts = {fact.name: fact.value for fact in claims.settings}
    assert (facts["vm.secure-boot"], facts["hcl.user-data"], facts["event-log"]) == ("true", "zero", "none")
    assert verified.bounded


def test_recommended_settings_name_every_fact() -> None:
    verified = prove(azure_vendor.guest())
    names = [s.name for s in (*snp_settings.RECOMMENDED, *settings.RECOMMENDED)]
    assert names == [fact.name for fact in verified.claims.settings]


def with_claims(**changes: Any) -> azure_vendor.Guest:
    return azure_vendor.guest(**changes)


CLAIM_TWINS: dict[str, tuple[dict[str, Any], str]] = {
    "no keys": ({"keys": None}, "evidence.malformed"),
    "empty keys": ({"keys": []}, "evidence.malformed"),
    "keys as text": ({"keys": "HCLAkPub"}, "evidence.malformed"),
    "only the encryption key": (
        {"keys": [azure_vendor.jwk(azure_vendor.key(), "HCLEkPub", "encrypt")]},
        "evidence.malformed",
    ),
    "two attestation keys": (
        {"keys": [azure_vendor.jwk(azure_vendor.key(i), "HCLAkPub", "sign") for i in range(2)]},
        "evidence.malformed",
    ),
    "key for encryption": (
        {"keys": [azure_vendor.jwk(azure_vendor.key(), "HCLAkPub", "encrypt")]},
        "evidence.malformed",
    ),
    "private key": (
        {"keys": [{**azure_vendor.jwk(azure_vendor.key(), "HCLAkPub", "sign"), "d": "AQ"}]},
        "evidence.malformed",
    ),
    "small key": (
        {"keys": [{**azure_vendor.jwk(azure_vendor.key(), "HCLAkPub", "sign"), "n": "w" * 171}]},
        "evidence.malformed",
    ),
    "another key": (
        {"keys": [azure_vendor.jwk(azure_vendor.key(1), "HCLAkPub", "sign")]},
        "x509.signature",
    ),
    "no user data": ({"user-data": None}, "evidence.malformed"),
    "short user data": ({"user-data": "00" * 63}, "evidence.malformed"),
    "no configuration": ({"vm-configuration": None}, "evidence.malformed"),
    "nested configuration": ({"vm-configuration": {"x": {"y": 1}}}, "evidence.malformed"),
    "fraction in the configuration": ({"vm-configuration": {"x": 1.5}}, "evidence.malformed"),
    "odd name in the configuration": ({"vm-configuration": {"x y": 1}}, "evidence.malformed"),
    "unknown member": ({"more": 1}, "evidence.malformed"),
}


@pytest.mark.parametrize("name", CLAIM_TWINS)
def test_bad_claims(name: str) -> None:
    """Claims that the hardware vouches for, and that still may not pass."""
    changes, expected = CLAIM_TWINS[name]
    assert code(lambda: prove(azure_vendor.guest(**changes))) in {expected, "x509.public-key"}


def test_unknown_configuration_becomes_a_fact_that_policies_must_name() -> None:
    guest = azure_vendor.guest(**{"vm-configuration": {"secure-boot": False, "new-thing": 7}})
    facts = {fact.name: fact.value for fact in prove(guest).claims.settings}
    assert (facts["vm.secure-boot"], facts["vm.new-thing"]) == ("false", "7")


def test_claims_that_the_hardware_did_not_sign_are_refused() -> None:
    guest = azure_vendor.guest()
    signed = guest.report_data()
    guest.report_changes = {"report_data": signed[:31] + bytes([signed[31] ^ 1]) + signed[32:]}
    assert code(lambda: prove(guest)) == "azure.claims"
    guest.report_changes = {"report_data": signed[:63] + b"\1"}
    assert code(lambda: prove(guest)) == "azure.claims"
    guest.report_changes = {"report_data": signed}
    guest.hash_name = "sha512"
    assert code(lambda: prove(guest)) == "azure.claims"


@pytest.mark.parametrize("vmpl", [1, 2, 3, 0xFFFFFFFF])
def test_a_guest_cannot_speak_for_the_paravisor(vmpl: int) -> None:
    guest = azure_vendor.guest()
    guest.report_changes = {"vmpl": vmpl}
    assert code(lambda: prove(guest)) == "azure.vmpl"


def test_pcr_selection_is_exact() -> None:
    guest = azure_vendor.guest()
    pcrs = guest.tpm.pcrs
    moved = [*pcrs[:4], pcrs[16], *pcrs[5:]]
    select = tpm_vendor.select
    for selections, values in (
        ([select(range(4)), select([16]), select(range(5, 24))], moved),
        ([select(range(23))], pcrs[:23]),
        ([select(range(24), bank=tpm_vendor.SHA1)], pcrs),
    ):
        quote = guest.tpm.attest(azure_vendor.NONCE, selections=selections, digest=sha256(*values))
        parts = {"tpm_quote": quote, "tpm_signature": guest.tpm.sign(quote), "pcrs": b"".join(values).ljust(768, b"\0")}
        assert code(partial(prove, guest, **parts)) == "tpm.selection"
    assert code(lambda: prove(guest, pcrs=b"".join(pcrs[::-1]))) == "tpm.digest"
    assert code(lambda: prove(guest, pcrs=b"".join(pcrs)[:-1])) == "evidence.malformed"


def test_parts_and_kinds() -> None:
    guest = azure_vendor.guest()
    good = guest.evidence()
    assert code(lambda: prove(guest, replace(good, parts=good.parts[:-1]))) == "evidence.parts"
    assert code(lambda: prove(guest, replace(good, parts=(*good.parts, good.parts[0])))) == "evidence.parts"
    assert code(lambda: prove(guest, replace(good, platform="azure-tdx"))) == "azure.kind"
    assert code(lambda: prove(guest, ak_certificate=b"x")) == "evidence.parts"
    pieces = guest.vendor.collateral(guest.chip)
    presented = guest.evidence(vcek=pieces["vcek"], intermediate=pieces["intermediate"], root=pieces["root"])
    only_list = Collateral(parts=attest_kit.pieces({"crl": pieces["crl"]}))
    assert AzureSnpVerifier(guest.vendor.roots).verify(presented, only_list, now=kit.NOW).claims.product == "Milan"


def test_every_flipped_bit_is_refused() -> None:
    guest = azure_vendor.guest()
    good = guest.evidence()
    verifier, pieces = AzureSnpVerifier(guest.vendor.roots), collateral(guest)

    def accepted(evidence: Evidence) -> bool:
        try:
            verifier.verify(evidence, pieces, now=kit.NOW)
        except (Malformed, Refused):
            return False
        return True

    assert accepted(good)
    flips = attest_kit.flips(good.statement)
    assert [at for at, twin in flips if accepted(replace(good, statement=twin))] == []
    body = good.statement.rstrip(b"\0")
    cuts = [twin for twin in attest_kit.cuts(body) if twin and twin.rstrip(b"\0") != body]
    assert [len(twin) for twin in cuts if accepted(replace(good, statement=twin))] == []
    for i, part in enumerate(good.parts):
        step = 1 if len(part.data) < 400 else 3
        for at, twin in attest_kit.flips(part.data, step=step):
            parts = (*good.parts[:i], replace(part, data=twin), *good.parts[i + 1 :])
            assert not accepted(replace(good, parts=parts)), f"{part.name} {at}"


def failures(guest: azure_vendor.Guest, evidence: Evidence, **changes: Any) -> set[str]:
    policy = replace(attest_kit.echo(prove(guest)), **changes)
    with pytest.raises(AppraisalRefused) as caught:
        judge(
            evidence, collateral(guest), attest_kit.only(policy), report_data=azure_vendor.NONCE, now=kit.NOW,
            verifiers={"azure-snp": AzureSnpVerifier(guest.vendor.roots)},
        )  # fmt: skip
    return {check.name for check in caught.value.verdict.failed}


def test_policy() -> None:
    guest = azure_vendor.guest()
    policy = attest_kit.echo(prove(guest))
    good = guest.evidence()
    judge(
        good, collateral(guest), attest_kit.only(policy), report_data=azure_vendor.NONCE, now=kit.NOW,
        verifiers={"azure-snp": AzureSnpVerifier(guest.vendor.roots)},
    )  # fmt: skip
    replay = guest.pieces(bytes(64))
    old = replace(good, parts=attest_kit.pieces(replay))
    assert failures(guest, old) == {"report-data"}
    short = replace(good, parts=attest_kit.pieces(guest.pieces(azure_vendor.NONCE[:32])))
    assert failures(guest, short) == {"report-data"}
    skipped = Unchecked(reason="left out by this test")
    for name in ("measurement", "pcr4"):
        rest = tuple(m for m in policy.measurements if m.name != name)
        assert failures(guest, good, measurements=(*rest, ReferenceValue(name=name, accepted=skipped))) == {
            f"identity.{name}"
        }
    rest_settings = tuple(s for s in policy.settings if s.name != "vm.secure-boot")
    assert failures(guest, good, settings=rest_settings) == {"setting.vm.secure-boot"}
    off = (*rest_settings, Setting(name="vm.secure-boot", accepted=("false",)))
    assert failures(guest, good, settings=off) == {"setting.vm.secure-boot"}


def test_user_data_that_repeats_the_report_data_is_told() -> None:
    guest = azure_vendor.guest(**{"user-data": azure_vendor.NONCE.hex().upper()})
    assert ("hcl.user-data", "report-data") in {(f.name, f.value) for f in prove(guest).claims.settings}


# --- TDX -------------------------------------------------------------------------------------------------------------


class Td:
    """A stand-in for the room of TDX quotes, which has tests of its own: vouches for given registers."""

    def __init__(self, report_data: bytes, registers: dict[str, str]) -> None:
        self.claims = Claims(
            platform="tdx", measurements=tuple(Measurement(name=n, value=v) for n, v in registers.items()),
            report_data=report_data.hex(), debug=False, tcb_status="UpToDate", advisories=(), tcb=(), tcb_date=None,
            tcb_evaluation_number=17, platform_identity="", product="test", root=ObjectId("0" * 64), settings=(),
        )  # fmt: skip

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        assert (evidence.platform, evidence.statement) == ("tdx", b"a TD quote")
        return VerifiedEvidence._seal(
            claims=self.claims,
            checks=(),
            collateral=(),
            collateral_issued_at=now,
            protected_by_hardware=True,
            bounded=frozenset(),
        )


REGISTERS = {name: bytes([i]) * 48 for i, name in enumerate(azure.TD_FIELDS, 1)}


def td_evidence(guest: azure_vendor.Guest, copy: bytes, **parts: bytes) -> Evidence:
    statement = azure_vendor.hcl(copy, guest.claim_bytes(), kind=4)
    pieces = {**guest.pieces(), "td-quote": b"a TD quote", **parts}
    return Evidence(platform="azure-tdx", statement=statement, parts=attest_kit.pieces(pieces))


def prove_td(evidence: Evidence, signed: bytes, **changes: bytes) -> VerifiedEvidence:
    quoted = {name: value.hex() for name, value in (REGISTERS | changes).items()}
    return AzureTdxVerifier(Td(signed, quoted)).verify(evidence, Collateral(parts=()), now=kit.NOW)


def test_tdx() -> None:
    guest = azure_vendor.guest()
    signed = guest.report_data()
    copy = azure_vendor.td_report(signed, REGISTERS)
    good = td_evidence(guest, copy)
    claims = prove_td(good, signed).claims
    assert (claims.platform, claims.report_data) == ("azure-tdx", azure_vendor.NONCE.hex())
    assert code(lambda: prove_td(good, signed[:-1] + b"\1")) == "azure.td-report"
    assert code(lambda: prove_td(good, signed, rtmr2=bytes(48))) == "azure.td-report"
    other = td_evidence(guest, azure_vendor.td_report(bytes(64), REGISTERS))
    assert code(lambda: prove_td(other, bytes(64))) == "azure.claims"
    snp = azure_vendor.hcl(copy, guest.claim_bytes(), kind=2)
    assert code(lambda: prove_td(replace(good, statement=snp), signed)) == "azure.kind"
    missing = AzureTdxVerifier(Td(signed, {"rtmr0": REGISTERS["rtmr0"].hex()}))
    assert code(lambda: missing.verify(good, Collateral(parts=()), now=kit.NOW)) == "azure.td-report"


def test_every_flipped_bit_of_a_td_report_is_refused_but_cpusvn_and_mac() -> None:
    """Nobody outside the processor can check these two; the signed quote stands for both (azure.verify)."""
    guest = azure_vendor.guest()
    signed = guest.report_data()
    copy = azure_vendor.td_report(signed, REGISTERS)
    blind = {*range(16, 32), *range(224, 256), 6}
    for at, twin in attest_kit.flips(copy):
        judged = partial(prove_td, td_evidence(guest, twin), signed)
        if at in blind:
            judged() if at != 6 else None
        else:
            assert code(judged) in {"azure.td-report", "evidence.malformed", "azure.claims"}, at


@given(st.binary(max_size=3000))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    for read in (parse.parse, azure.parse_td_report):
        for start in (b"", b"HCLA\2\0\0\0", b"\x81\0\0\0" + bytes(12)):
            try:
                read(start + data)
            except KakoiError:
                continue


@given(st.binary(max_size=300))
def test_any_claims_give_only_our_errors(data: bytes) -> None:
    for claims in (data, b'{"keys":' + data, json.dumps({"keys": [data.hex()], "user-data": data.hex()}).encode()):
        try:
            parse.parse(azure_vendor.hcl(bytes(1184), claims, kind=2))
        except Malformed:
            continue


# --- recorded --------------------------------------------------------------------------------------------------------

VECTORS = [v for v in recorded.load(FOLDER, "azure") if "hw" in v.fields]


def judged_vector(vector: recorded.Recorded) -> tuple[Evidence, Collateral, int, AzureSnpVerifier | AzureTdxVerifier]:
    evidence, chip = recorded.azure(vector)
    if vector.fields["hw"] == "tdx":
        path = vector.fields["dcap_vectors"][0]
        issued = datetime.strptime(path.split(".")[-3], "%Y-%m-%d").replace(tzinfo=UTC)
        at = int(issued.timestamp()) + 2 * 86400
        return evidence, recorded_collateral(path), at, AzureTdxVerifier(TdxVerifier())
    product = "genoa" if "genoa" in vector.name else "milan"
    intermediate, root = recorded.certificates((FOLDER / f"snp/roots_ask_ark_{product}.pem").read_bytes())
    pieces = {**chip, "intermediate": intermediate, "root": root}
    return evidence, Collateral(parts=attest_kit.pieces(pieces)), 1_760_000_000, AzureSnpVerifier()


@pytest.mark.skipif(not VECTORS, reason="recorded evidence is not here (KAKOI_SHARED)")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_recorded(vector: recorded.Recorded) -> None:
    evidence, pieces, at, verifier = judged_vector(vector)
    verified = verifier.verify(evidence, pieces, now=at)
    claims = verified.claims
    assert claims.report_data == vector.expect["nonce"]
    assert len([m for m in claims.measurements if m.name.startswith("pcr")]) == 24
    for expected in vector.expect["td_quote_status"]:
        assert (claims.tcb_status, sorted(claims.advisories)) == (expected["status"], sorted(expected["advisories"]))
        off = ("sept-ve-disable", "no") in {(f.name, f.value) for f in claims.settings}
        assert off == ("no SEPT_VE_DISABLE" in expected["attributes"])
    policy = attest_kit.only(attest_kit.echo(verified))
    nonce = bytes.fromhex(claims.report_data)
    if len(nonce) in (32, 48, 64):
        assert not judge(
            evidence, pieces, policy, report_data=nonce, now=at, verifiers={evidence.platform: verifier}
        ).failed
    with pytest.raises(AppraisalRefused) as caught:
        judge(evidence, pieces, policy, report_data=bytes(64), now=at, verifiers={evidence.platform: verifier})
    assert [check.name for check in caught.value.verdict.failed] == ["report-data"]


@pytest.mark.skipif(not VECTORS, reason="recorded evidence is not here (KAKOI_SHARED)")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_bad_twins_of_recorded(vector: recorded.Recorded) -> None:
    evidence, pieces, at, verifier = judged_vector(vector)
    blind = {4} if evidence.platform == "azure-snp" else {4, *range(48, 64), *range(256, 288)}

    def accepted(twin: Evidence) -> bool:
        try:
            verifier.verify(twin, pieces, now=at)
        except KakoiError:
            return False
        return True

    for at_byte, twin in attest_kit.flips(evidence.statement, step=11):
        assert at_byte in blind or not accepted(replace(evidence, statement=twin)), at_byte
    for i, part in enumerate(evidence.parts):
        if part.name == "td-quote":
            continue  # the room of TDX quotes flips these
        for at_byte, twin in attest_kit.flips(part.data, step=5):
            parts = (*evidence.parts[:i], replace(part, data=twin), *evidence.parts[i + 1 :])
            assert not accepted(replace(evidence, parts=parts)), f"{part.name} {at_byte}"


def test_event_log_has_to_replay_to_the_boot_registers() -> None:
    guest = azure_vendor.guest()
    log = log_vendor.first() + b"".join(log_vendor.event(i, bytes([i])) for i in range(8))
    for i in range(8):
        guest.tpm.pcrs[i] = log_vendor.extended("sha256", bytes(32), bytes([i]))
    assert ("event-log", "replayed") in {(f.name, f.value) for f in prove(guest, event_log=log).claims.settings}
    shorter = log_vendor.first() + b"".join(log_vendor.event(i, bytes([i])) for i in range(7))
    assert code(lambda: prove(guest, event_log=shorter)) == "azure.event-log"
    assert code(lambda: prove(guest, event_log=log[:-1])) == "evidence.malformed"
    guest.tpm.pcrs[7] = bytes(32)
    assert prove(guest, event_log=shorter)
    assert code(lambda: prove(guest, event_log=log)) == "azure.event-log"
