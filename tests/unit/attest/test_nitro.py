"""AWS Nitro documents: every rule has a document that breaks exactly it."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.attest.nitro import cbor, parse
from kakoi.attest.nitro.verifier import NitroVerifier
from kakoi.attest.nitro.verify import ROOTS, VerifiedDocument
from kakoi.attest.policy import PlatformPolicy, ReferenceValue, Unchecked
from kakoi.attest.registry import judge
from kakoi.attest.report import AppraisalRefused, Collateral, Evidence, VerifiedEvidence
from kakoi.core.errors import KakoiError, Malformed
from kakoi.core.x509 import parse_certificate
from kakoi.evidence import mint
from kakoi.testing import attest_kit, nitro_vendor, recorded
from kakoi.testing import x509_kit as kit

VENDOR = nitro_vendor.vendor()
FOLDER = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"
REPORT_DATA = bytes(range(64))


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def evidence(statement: bytes) -> Evidence:
    return Evidence(platform="nitro", statement=statement, parts=())


def prove(
    statement: bytes, *, lists: dict[str, bytes] | None = None, now: int = kit.NOW, roots: frozenset[str] | None = None
) -> VerifiedEvidence:
    collateral = Collateral(parts=attest_kit.pieces(VENDOR.lists() if lists is None else lists))
    return NitroVerifier(roots or VENDOR.roots).verify(evidence(statement), collateral, now=now)


@pytest.mark.parametrize("indefinite", [False, True])
@pytest.mark.parametrize("tag", [False, True])
def test_good(tag: bool, indefinite: bool) -> None:
    verified = prove(VENDOR.document(tag=tag, indefinite=indefinite))
    claims = verified.claims
    assert (claims.platform, claims.product, claims.debug) == ("nitro", "enclave", False)
    assert claims.report_data == REPORT_DATA.hex()
    assert bytes.fromhex(claims.platform_identity) == b"i-0123456789abcdef0"
    assert len(claims.measurements) == 16
    assert {f.name: f.value for f in claims.settings} == {
        "device": "enclave", "region": nitro_vendor.REGION, "user-data": "report-data", "nonce": "none",
        "public-key": "none", "revocation": "checked",
    }  # fmt: skip
    assert verified.collateral_issued_at == kit.NOW - 86400


def test_nitrotpm_is_told_apart() -> None:
    pcrs = VENDOR.members()["pcrs"]
    verified = prove(VENDOR.document(pcrs=..., nitrotpm_pcrs={**pcrs, 0: bytes(48)}))
    assert (verified.claims.product, verified.claims.debug) == ("nitrotpm", False)
    policy = attest_kit.echo(verified)
    skipped = ReferenceValue(name="pcr4", accepted=Unchecked(reason="left out by this test"))
    rest = tuple(m for m in policy.measurements if m.name != "pcr4")
    open_policy = replace(policy, measurements=(*rest, skipped))
    checks = NitroVerifier(VENDOR.roots).appraise(verified, open_policy)
    assert [(c.name, c.outcome) for c in checks] == [("identity.pcr4", "failed")]
    assert code(lambda: prove(VENDOR.document(nitrotpm_pcrs=pcrs))) == "nitro.malformed"


@pytest.mark.parametrize("zero", [(0,), (1,), (2,), (0, 1, 2)])
def test_debug(zero: tuple[int, ...]) -> None:
    pcrs = VENDOR.members()["pcrs"] | {i: bytes(48) for i in zero}
    assert prove(VENDOR.document(pcrs=pcrs)).claims.debug


MEMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "no module": ({"module_id": ...}, "nitro.malformed"),
    "module as bytes": ({"module_id": b"x"}, "nitro.malformed"),
    "another module": ({"module_id": "i-0-enc1"}, "nitro.module"),
    "SHA256": ({"digest": "SHA256"}, "nitro.malformed"),
    "time zero": ({"timestamp": 0}, "nitro.malformed"),
    "negative time": ({"timestamp": -1}, "nitro.malformed"),
    "time in seconds": ({"timestamp": kit.NOW}, "nitro.timestamp"),
    "time before the certificate": (
        {"timestamp": 1000 * (kit.NOW - nitro_vendor.HOUR) - 1},
        "nitro.timestamp",
    ),
    "time after the certificate": (
        {"timestamp": 1000 * (kit.NOW + 2 * nitro_vendor.HOUR + 1)},
        "nitro.timestamp",
    ),
    "no registers": ({"pcrs": ...}, "nitro.malformed"),
    "empty registers": ({"pcrs": {}}, "nitro.malformed"),
    "registers as list": ({"pcrs": [bytes(48)]}, "nitro.malformed"),
    "register 32": ({"pcrs": {32: bytes(48)}}, "nitro.malformed"),
    "register by text": ({"pcrs": {"0": bytes(48)}}, "nitro.malformed"),
    "33 registers": ({"pcrs": {i: bytes(48) for i in range(33)}}, "nitro.malformed"),
    "short register": ({"pcrs": {i: bytes(32) for i in range(16)}}, "nitro.malformed"),
    "no PCR2": ({"pcrs": {0: b"\1" * 48, 1: b"\1" * 48}}, "nitro.registers"),
    "no certificate": ({"certificate": ...}, "nitro.malformed"),
    "empty certificate": ({"certificate": b""}, "nitro.malformed"),
    "long certificate": ({"certificate": bytes(1025)}, "nitro.malformed"),
    "certificate that is none": ({"certificate": b"x"}, "der.encoding"),
    "empty bundle": ({"cabundle": []}, "nitro.malformed"),
    "bundle of texts": ({"cabundle": ["x"]}, "nitro.malformed"),
    "long bundle": ({"cabundle": [b"x"] * 9}, "nitro.malformed"),
    "long public key": ({"public_key": bytes(1025)}, "nitro.malformed"),
    "public key as text": ({"public_key": "x"}, "nitro.malformed"),
    "long user data": ({"user_data": bytes(513)}, "nitro.malformed"),
    "long nonce": ({"nonce": bytes(513)}, "nitro.malformed"),
    "unknown member": ({"more": 1}, "nitro.malformed"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_bad_members(name: str) -> None:
    """Documents that the enclave's own key signed: only the named rule can refuse them."""
    changes, expected = MEMBERS[name]
    assert code(lambda: prove(VENDOR.document(**changes))) == expected


ENVELOPES: dict[str, Callable[[bytes], bytes]] = {
    "ES256": lambda p: VENDOR.sign(p, protected=bytes.fromhex("a10126")),
    "a critical header": lambda p: VENDOR.sign(p, protected=bytes.fromhex("a2013822028101")),
    "protected header as map": lambda p: nitro_vendor.encode([{1: -35}, {}, p, bytes(96)]),
    "empty protected header": lambda p: VENDOR.sign(p, protected=b""),
    "an unprotected header": lambda p: VENDOR.sign(p, unprotected={4: b"kid"}),
    "tag 17": lambda p: b"\xd1" + VENDOR.sign(p),
    "the tag twice": lambda p: b"\xd2" + VENDOR.sign(p, tag=True),
    "three items": lambda p: nitro_vendor.encode([parse.PROTECTED, {}, p]),
    "detached payload": lambda p: nitro_vendor.encode([parse.PROTECTED, {}, None, bytes(96)]),
    "short signature": lambda p: nitro_vendor.encode([parse.PROTECTED, {}, p, bytes(95)]),
    "payload as list": lambda p: VENDOR.sign(nitro_vendor.encode([1])),
    "a byte after the payload": lambda p: VENDOR.sign(p + b"\0"),
    "too long": lambda p: VENDOR.sign(p) + bytes(parse.MAX_BYTES),
    "a repeated member": lambda p: VENDOR.sign(
        bytes([p[0] + 1]) + p[1:] + nitro_vendor.encode("nonce") + nitro_vendor.encode(b"x")
    ),
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_bad_envelope(name: str) -> None:
    statement = ENVELOPES[name](nitro_vendor.encode(VENDOR.members()))
    assert code(lambda: prove(statement)) in {"nitro.malformed", "evidence.malformed"}


def test_signature_context_and_key() -> None:
    payload = nitro_vendor.encode(VENDOR.members())

    def signed(key: mint.EcKey, context: str) -> bytes:
        signature = key.sign_raw(nitro_vendor.signed_bytes(payload, context=context))
        return nitro_vendor.encode([parse.PROTECTED, {}, payload, signature])

    prove(signed(VENDOR.key, "Signature1"))
    assert code(lambda: prove(signed(VENDOR.key, "Signature"))) == "x509.signature"
    assert code(lambda: prove(signed(mint.EcKey.generate("P-384"), "Signature1"))) == "x509.signature"


def test_chain() -> None:
    other = nitro_vendor.vendor(1)
    bundle = VENDOR.members()["cabundle"]
    forged = [other.root.der, *bundle[1:]]
    twins = {
        "another root in the bundle": ({"cabundle": forged}, {"x509.root"}),
        "leaf first": ({"cabundle": bundle[::-1]}, {"x509.root"}),
        "without the root": ({"cabundle": bundle[1:]}, {"x509.root"}),
        "without the instance": ({"cabundle": bundle[:-1]}, {"x509.issuer"}),
        "swapped CAs": ({"cabundle": nitro_vendor.reordered(bundle, 0, 2, 1, 3)}, {"x509.issuer"}),
        "a CA twice": ({"cabundle": nitro_vendor.reordered(bundle, 0, 1, 1, 2, 3)}, {"x509.issuer"}),
        "leaf of another AWS": ({"certificate": other.leaf()}, {"x509.signature"}),
        "expired leaf": (
            {"certificate": VENDOR.leaf(validity=(kit.NOW - 9, kit.NOW - 1))},
            {"x509.window"},
        ),
        "leaf not valid yet": (
            {"certificate": VENDOR.leaf(validity=(kit.NOW + 1, kit.NOW + 9))},
            {"x509.window"},
        ),
        "leaf that is a CA": (
            {"certificate": VENDOR.leaf(extensions=mint.ca_extensions(VENDOR.key.public, VENDOR.key.public, 0))},
            {"x509.ca"},
        ),
        "leaf for another use": (
            {
                "certificate": VENDOR.leaf(
                    extensions=[("2.5.29.19", True, b"\x30\0"), ("2.5.29.15", True, b"\x03\x02\x05\x20")]
                )
            },
            {"x509.key-usage"},
        ),
        "leaf of another module": (
            {"certificate": VENDOR.leaf(f"i-0-enc0.{nitro_vendor.REGION}.aws")},
            {"nitro.module"},
        ),
        "leaf without region": ({"certificate": VENDOR.leaf(nitro_vendor.MODULE)}, {"nitro.module"}),
        "leaf on P-256": ({"certificate": VENDOR.leaf(key=mint.EcKey.generate().public)}, {"nitro.key"}),
        "leaf as issuer of a leaf": (
            {"cabundle": [*bundle, VENDOR.leaf()]},
            {"x509.issuer"},
        ),
    }
    for name, (changes, expected) in twins.items():
        assert code(partial(prove, VENDOR.document(**changes))) in expected, name
    assert code(lambda: prove(VENDOR.document(), roots=ROOTS)) == "x509.root"


def test_revocation() -> None:
    vendor = nitro_vendor.vendor(2)
    statement = vendor.document()

    def judged(lists: dict[str, bytes]) -> VerifiedEvidence:
        collateral = Collateral(parts=attest_kit.pieces(lists))
        return NitroVerifier(vendor.roots).verify(evidence(statement), collateral, now=kit.NOW)

    good = vendor.lists()
    assert judged(good)
    unchecked = judged({})
    assert ("revocation", "not checked") in {(f.name, f.value) for f in unchecked.claims.settings}
    assert unchecked.collateral_issued_at == nitro_vendor.TIMESTAMP // 1000
    assert code(lambda: judged({"crl-root": good["crl-root"]})) == "evidence.parts"
    assert (
        code(lambda: judged({"crl-root": good["crl-region"], "crl-region": good["crl-region"]})) == "x509.crl-missing"
    )
    assert code(lambda: judged({**good, "crl-region": VENDOR.regional.crl()})) == "x509.signature"
    assert code(lambda: judged({**good, "crl-root": vendor.root.crl(window=(1, kit.NOW - 1))})) == "x509.crl-window"
    for authority, name, below in (
        (vendor.root, "crl-root", vendor.regional),
        (vendor.regional, "crl-region", vendor.zonal),
    ):
        authority.revoked.append(below.certificate.serial)
        assert code(partial(judged, {**good, name: authority.crl()})) == "x509.revoked"
        authority.revoked.clear()
    for name, data in good.items():
        for _, twin in attest_kit.flips(data, step=7):
            assert code(partial(judged, {**good, name: twin}))


def test_every_flipped_bit_is_refused() -> None:
    statement = VENDOR.document()
    collateral = Collateral(parts=())
    verifier = NitroVerifier(VENDOR.roots)

    def accepted(twin: bytes) -> bool:
        try:
            verifier.verify(evidence(twin), collateral, now=kit.NOW)
        except KakoiError:
            return False
        return True

    assert accepted(statement)
    assert [at for at, twin in attest_kit.flips(statement, step=5) if accepted(twin)] == []
    assert [len(twin) for twin in attest_kit.cuts(statement, step=53) if twin and accepted(twin)] == []


@pytest.mark.slow
def test_every_byte() -> None:
    statement = VENDOR.document()
    for at, twin in attest_kit.flips(statement):
        assert code(partial(prove, twin, lists={})), at


def failures(policy: PlatformPolicy, statement: bytes, *, now: int = kit.NOW) -> set[str]:
    with pytest.raises(AppraisalRefused) as caught:
        judge(
            evidence(statement), Collateral(parts=()), attest_kit.only(policy), report_data=REPORT_DATA, now=now,
            verifiers={"nitro": NitroVerifier(VENDOR.roots)},
        )  # fmt: skip
    return {check.name for check in caught.value.verdict.failed}


def test_policy() -> None:
    verified = prove(VENDOR.document(), lists={})
    policy = replace(attest_kit.echo(verified), collateral_max_age=300)
    statement = VENDOR.document()
    judge(
        evidence(statement), Collateral(parts=()), attest_kit.only(policy), report_data=REPORT_DATA, now=kit.NOW,
        verifiers={"nitro": NitroVerifier(VENDOR.roots)},
    )  # fmt: skip
    assert failures(policy, statement, now=kit.NOW + 600) == {"collateral-age"}
    pcrs = VENDOR.members()["pcrs"]
    for index in range(16):
        changed = VENDOR.document(pcrs={**pcrs, index: b"\7" * 48})
        assert failures(policy, changed) == {f"measurement.pcr{index}"}
    assert failures(policy, VENDOR.document(pcrs={**pcrs, 16: bytes(48)})) == {"measurement.pcr16"}
    debug = VENDOR.document(pcrs={**pcrs, 0: bytes(48), 1: bytes(48), 2: bytes(48)})
    assert failures(policy, debug) == {"debug", *(f"measurement.pcr{i}" for i in range(3))}
    assert failures(policy, VENDOR.document(user_data=REPORT_DATA[:63] + b"\0")) == {"report-data"}
    assert failures(policy, VENDOR.document(user_data=None)) == {"report-data", "setting.user-data"}
    assert failures(policy, VENDOR.document(user_data=b"x" * 300)) == {"report-data", "setting.user-data"}
    assert failures(policy, VENDOR.document(nonce=b"old")) == {"setting.nonce"}
    assert failures(policy, VENDOR.document(public_key=b"key")) == {"setting.public-key"}
    skipped = ReferenceValue(name="pcr0", accepted=Unchecked(reason="left out by this test"))
    rest = tuple(m for m in policy.measurements if m.name != "pcr0")
    assert failures(replace(policy, measurements=(*rest, skipped)), statement) == {"identity.pcr0"}


def test_only_the_verifier_makes_verified_documents() -> None:
    with pytest.raises(TypeError):
        VerifiedDocument()  # type: ignore[call-arg]


# --- CBOR ------------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=300) | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(0, 99), inner, max_size=4)
    ),
    max_leaves=12,
)


def _depth(value: Any) -> int:
    inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(_depth, inner)) if inner else 0


@given(VALUES)
def test_cbor_agrees_with_a_general_decoder(value: Any) -> None:
    data = nitro_vendor.encode(value)
    assert cbor2.dumps(value) == data
    if _depth(value) <= 6:
        assert cbor.loads(data) == value == cbor2.loads(data)


@given(st.binary(max_size=64))
def test_cbor_accepts_nothing_that_a_general_decoder_refuses(data: bytes) -> None:
    try:
        value = cbor.loads(data)
    except Malformed:
        return
    assert cbor2.loads(data) == value


REFUSED_CBOR = {
    "indefinite bytes": "5f4101ff",
    "indefinite text": "7f6161ff",
    "long zero": "1800",
    "long length": "5801aa"[:2] + "01aa",
    "long 16-bit": "1900ff",
    "long 32-bit": "1a0000ffff",
    "long 64-bit": "1b00000000ffffffff",
    "half float": "f97e00",
    "tag": "c11a514b67b0",
    "shared reference": "d81d00",
    "big number": "c24101",
    "undefined": "f7",
    "simple 32": "f820",
    "break alone": "ff",
    "reserved head": "1c",
    "repeated key": "a201010102",
    "list as key": "a18001",
    "boolean as key": "a1f501",
    "leftover": "0000",
    "cut": "42aa",
    "bad UTF-8": "61ff",
    "deep": "81" * 9 + "00",
    "many": "990400" + "00" * 1024,
    "unended": "9f00",
    "odd indefinite map": "bf00ff",
    "nothing": "",
}


@pytest.mark.parametrize("name", REFUSED_CBOR)
def test_cbor_refuses(name: str) -> None:
    assert code(lambda: cbor.loads(bytes.fromhex(REFUSED_CBOR[name]))) == "evidence.malformed"


@given(st.binary(max_size=500))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    for start in (b"", b"\xd2\x84\x44\xa1\x01\x38\x22\xa0"):
        try:
            parse.parse(start + data)
        except Malformed:
            continue


@given(
    st.dictionaries(
        st.sampled_from(["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "nonce"]), VALUES
    )
)
def test_any_payload_gives_only_our_errors(members: dict[str, Any]) -> None:
    with pytest.raises(KakoiError):
        prove(VENDOR.document(**members), lists={}, roots=ROOTS)


# --- recorded --------------------------------------------------------------------------------------------------------

VECTORS = recorded.load(FOLDER, "nitro")
recorded_only = pytest.mark.skipif(not VECTORS, reason="recorded evidence is not here (KAKOI_SHARED)")


def document_of(vector: recorded.Recorded) -> bytes:
    data = vector.read("evidence")
    return base64.b64decode(data) if vector.fields["evidence"].endswith(".b64") else data


@recorded_only
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_recorded(vector: recorded.Recorded) -> None:
    statement, verifier = document_of(vector), NitroVerifier()
    document = parse.parse(statement)
    assert document.module_id == vector.expect["module"]
    assert document.pcrs[0].hex().startswith(vector.expect["pcr0_prefix"])
    root = parse_certificate(recorded.certificates(vector.read("root"))[0])
    assert {root.spki_sha256} == ROOTS
    verified = verifier.verify(evidence(statement), Collateral(parts=()), now=vector.at)
    policy = replace(attest_kit.echo(verified), collateral_max_age=Unchecked(reason="recorded long ago"))
    report_data = bytes.fromhex(verified.claims.report_data)
    bound = len(report_data) in (32, 48, 64)
    wrong = set() if bound else {"report-data"}
    if vector.expect["verdict"] == "reject: debug (PCR0-2 zero)":
        wrong |= {"debug"}
    else:
        assert vector.expect["verdict"] == "accept"
    call = partial(
        judge, evidence(statement), Collateral(parts=()), attest_kit.only(policy),
        report_data=report_data if bound else bytes(64), now=vector.at, verifiers={"nitro": verifier},
    )  # fmt: skip
    if not wrong:
        assert not call().failed
        return
    with pytest.raises(AppraisalRefused) as caught:
        call()
    assert {check.name for check in caught.value.verdict.failed} == wrong


@recorded_only
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_bad_twins_of_recorded(vector: recorded.Recorded) -> None:
    statement, verifier = document_of(vector), NitroVerifier()

    def accepted(twin: bytes, now: int = vector.at) -> bool:
        try:
            verifier.verify(evidence(twin), Collateral(parts=()), now=now)
        except KakoiError:
            return False
        return True

    assert accepted(statement)
    assert [at for at, twin in attest_kit.flips(statement, step=13) if accepted(twin)] == []
    assert [len(twin) for twin in attest_kit.cuts(statement, step=101) if twin and accepted(twin)] == []
    assert not any(accepted(statement, vector.at + delta) for delta in (-86400, 4 * 3600, 86400))
