"""Tokens: keys come from outside, algorithms from the service, and every claim that matters from the policy."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.attest import jose
from kakoi.attest.policy import PlatformPolicy, ReferenceValue, Unchecked
from kakoi.attest.report import AppraisalRefused, Collateral, VerifiedEvidence
from kakoi.attest.tokens import parse
from kakoi.attest.tokens.verifier import judge_token, verify_token
from kakoi.attest.tokens.verify import GOOGLE_ROOT, Service, VerifiedToken
from kakoi.core.errors import KakoiError, Malformed
from kakoi.core.x509 import parse_certificate
from kakoi.testing import attest_kit, recorded
from kakoi.testing import token_vendor as vendor
from kakoi.testing import x509_kit as kit

FOLDER = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"
CLAIMS: dict[Service, Callable[..., dict[str, Any]]] = {
    "azure-maa": vendor.azure_claims,
    "google-confidential-space": vendor.google_claims,
    "intel-trust-authority": vendor.intel_claims,
}
SERVICES: tuple[Service, ...] = tuple(CLAIMS)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def prove(signed: vendor.Signed, *, now: int = kit.NOW) -> VerifiedEvidence:
    pieces = {} if signed.keys is None else {"jwks": signed.keys}
    collateral = Collateral(parts=attest_kit.pieces(pieces))
    return verify_token(signed.token, signed.service, collateral, anchors=signed.anchors, now=now)


def made(service: Service, **changes: Any) -> vendor.Signed:
    return vendor.make(service, CLAIMS[service](**changes))


@pytest.mark.parametrize("service", SERVICES)
def test_good(service: Service) -> None:
    signed = made(service)
    verified = prove(signed)
    claims = verified.claims
    facts = {fact.name: fact.value for fact in claims.settings}
    assert (facts["token"], claims.debug, claims.report_data) == (service, False, vendor.REPORT_DATA.hex())
    assert {claims.root} == signed.anchors
    assert verified.collateral_issued_at == kit.NOW - 10
    key = vendor.rsa(service == "intel-trust-authority").public
    oracle = jwt.api_jws.decode_complete(signed.token, jwt.PyJWK.from_dict({**vendor.jwk(key), "alg": _alg(service)}))
    assert json.loads(oracle["payload"]) == CLAIMS[service]()


def _alg(service: Service) -> str:
    return "PS384" if service == "intel-trust-authority" else "RS256"


def test_hardware_of_each_service() -> None:
    tdx = prove(vendor.make("intel-trust-authority", vendor.intel_tdx_claims())).claims
    assert (tdx.platform, tdx.tcb_status, len(tdx.measurements)) == ("tdx", "UpToDate", 10)
    azure = prove(made("azure-maa")).claims
    assert (azure.platform, azure.tcb_status) == ("azure-snp", "NotPublished")
    assert {c.name: c.version for c in azure.tcb}["reported.snp"] == 24
    sev = prove(made("google-confidential-space", hwmodel="GCP_AMD_SEV", tdx=...)).claims
    assert (sev.platform, sev.tcb_status) == ("vtpm", "NotPublished")


HEADERS: dict[str, dict[str, Any]] = {
    "no algorithm": {"alg": "none"},
    "a symmetric algorithm": {"alg": "HS256"},
    "RS512": {"alg": "RS512"},
    "critical members": {"crit": ["exp"]},
    "an embedded key": {"jwk": {}},
    "a certificate address": {"x5u": "https://example.org"},
    "another type": {"typ": "JOSE"},
    "key id as number": {"kid": 1},
    "empty chain": {"x5c": []},
    "chain as text": {"x5c": "AA=="},
    "chain in base64url": {"x5c": ["_w"]},
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("service", SERVICES)
def test_bad_header(service: Service, name: str) -> None:
    signed = vendor.make(service, CLAIMS[service](), **HEADERS[name])
    assert code(lambda: prove(signed)) == "evidence.malformed"


def test_one_algorithm_per_service() -> None:
    for service in SERVICES:
        other = "RS256" if service == "intel-trust-authority" else "PS384"
        assert code(partial(prove, vendor.make(service, CLAIMS[service](), alg=other))) == "token.algorithm"
        assert code(partial(prove, vendor.make(service, CLAIMS[service](), alg="ES384"))) == "token.algorithm"


def test_keys_come_from_outside() -> None:
    signed = made("azure-maa")
    key, other = vendor.rsa(False).public, vendor.rsa(False, 1).public
    jku = vendor.make("azure-maa", vendor.azure_claims(), jku="https://evil.example/certs")
    assert prove(jku).claims == prove(signed).claims
    assert code(lambda: prove(replace(signed, keys=None))) == "token.key"
    assert code(lambda: prove(replace(signed, anchors=frozenset({other.spki_sha256})))) == "token.anchor"
    twins: dict[str, tuple[bytes, str]] = {
        "another key": (vendor.key_set(vendor.jwk(other)), "token.anchor"),
        "another id": (vendor.key_set(vendor.jwk(key, kid="key-2")), "token.key"),
        "the id twice": (vendor.key_set(vendor.jwk(key), vendor.jwk(other)), "token.key"),
        "for encryption": (vendor.key_set(vendor.jwk(key, use="enc")), "token.key"),
        "for another algorithm": (vendor.key_set(vendor.jwk(key, alg="PS256")), "token.key"),
        "private": (vendor.key_set(vendor.jwk(key, d="AQ")), "evidence.malformed"),
        "symmetric": (vendor.key_set({"kty": "oct", "kid": vendor.KID, "k": "AQ"}), "evidence.malformed"),
        "no keys": (b'{"keys":[]}', "evidence.malformed"),
        "no JSON": (b"{", "evidence.malformed"),
        "keys twice": (b'{"keys":[1],"keys":[2]}', "evidence.malformed"),
    }
    for name, (keys, expected) in twins.items():
        assert code(partial(prove, replace(signed, keys=keys))) == expected, name
    both = frozenset({key.spki_sha256, other.spki_sha256})
    wrong = replace(signed, keys=vendor.key_set(vendor.jwk(other)), anchors=both)
    assert code(lambda: prove(wrong)) == "x509.signature"
    without = vendor.make("azure-maa", vendor.azure_claims(), kid="")
    assert code(lambda: prove(without)) == "evidence.malformed"


def test_a_key_set_with_certificates() -> None:
    key = vendor.rsa(True)
    root, ca = vendor.google_chain()
    chain = vendor.x5c(ca.leaf("Token signing", key=key.public), *ca.chain)
    signed = replace(
        made("intel-trust-authority"),
        keys=vendor.key_set(vendor.jwk(key.public, x5c=chain)),
        anchors=frozenset({root.certificate.spki_sha256}),
    )
    assert prove(signed).claims.root == root.certificate.spki_sha256
    foreign = vendor.x5c(ca.leaf("Another key", key=vendor.rsa(True, 1).public), *ca.chain)
    expired = vendor.x5c(ca.leaf("x", key=key.public, validity=(kit.EPOCH, kit.NOW - 1)), *ca.chain)
    twins: dict[str, tuple[list[str], str]] = {
        "certificate of another key": (foreign, "token.anchor"),
        "expired": (expired, "x509.window"),
        "cut": (chain[:2], "x509.root"),
        "reordered": (chain[::-1], "x509.root"),
        "root only": (chain[2:], "x509.malformed"),
    }
    for name, (x5c, expected) in twins.items():
        twin = replace(signed, keys=vendor.key_set(vendor.jwk(key.public, x5c=x5c)))
        assert code(partial(prove, twin)) == expected, name
    bare = replace(signed, keys=vendor.key_set({"kty": "RSA", "kid": vendor.KID, "x5c": chain}))
    assert {prove(bare).claims.root} == signed.anchors


def test_a_chain_in_the_token_only_where_the_service_brings_one() -> None:
    signed = made("google-confidential-space")
    root, ca = vendor.google_chain()
    evil_root = kit.root("Pretend Confidential Space Root CA", key=kit.RsaKey(2048, pss=False))
    key = vendor.rsa(False)
    evil = vendor.make(
        "google-confidential-space",
        vendor.google_claims(),
        x5c=vendor.x5c(evil_root.leaf("x", key=key.public), evil_root.der),
    )
    assert code(lambda: prove(evil)) == "x509.root"
    other = vendor.make(
        "google-confidential-space",
        vendor.google_claims(),
        x5c=vendor.x5c(ca.leaf("x", key=vendor.rsa(False, 1).public), *ca.chain),
    )
    assert code(lambda: prove(other)) == "x509.signature"
    itself = vendor.make("google-confidential-space", vendor.google_claims(), x5c=vendor.x5c(root.der))
    assert code(lambda: prove(itself)) == "x509.malformed"
    azure = made("azure-maa")
    chain = vendor.x5c(ca.leaf("x", key=key.public), *ca.chain)
    brought = vendor.make("azure-maa", vendor.azure_claims(), x5c=chain)
    assert code(lambda: prove(replace(brought, anchors=azure.anchors | signed.anchors))) == "token.key"


TIMES: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": kit.NOW}, "token.time"),
    "not yet": ({"nbf": kit.NOW + 61}, "token.time"),
    "issued in the future": ({"iat": kit.NOW + 61}, "token.time"),
    "no expiry": ({"exp": ...}, "evidence.malformed"),
    "no issue time": ({"iat": ...}, "evidence.malformed"),
    "expiry as text": ({"exp": str(kit.NOW + 99)}, "evidence.malformed"),
    "expiry as flag": ({"exp": True}, "evidence.malformed"),
    "expiry as fraction": ({"exp": kit.NOW + 0.5}, "evidence.malformed"),
    "lives for ever": ({"exp": kit.NOW + 10**6}, "evidence.malformed"),
    "dies before it is born": ({"iat": kit.NOW + 50, "exp": kit.NOW + 40}, "evidence.malformed"),
    "no issuer": ({"iss": ...}, "evidence.malformed"),
    "another issuer": ({"iss": "https://evil.example"}, "token.issuer"),
    "issuer with a suffix": ({"iss": "https://example.weu.attest.azure.net.evil.example"}, "token.issuer"),
    "issuer with a path": ({"iss": "https://evil.example/attest.azure.net"}, "token.issuer"),
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("service", SERVICES)
def test_times_and_issuers(service: Service, name: str) -> None:
    changes, expected = TIMES[name]
    assert code(lambda: prove(made(service, **changes))) == expected


def test_a_little_skew_is_tolerated() -> None:
    assert prove(made("azure-maa", iat=kit.NOW + 60, nbf=kit.NOW + 60, exp=kit.NOW + 600))
    assert prove(made("azure-maa", nbf=...))
    assert code(lambda: prove(made("azure-maa"), now=kit.NOW + 3590)) == "token.time"


def without(service: Service, *path: str) -> vendor.Signed:
    """A token whose claims lack the member at ``path``."""
    claims = json.loads(json.dumps(CLAIMS[service]()))
    inner = claims
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return vendor.make(service, claims)


REQUIRED: list[tuple[Service, tuple[str, ...]]] = [
    ("azure-maa", ("x-ms-attestation-type",)),
    ("azure-maa", ("x-ms-isolation-tee",)),
    ("azure-maa", ("x-ms-isolation-tee", "x-ms-attestation-type")),
    ("azure-maa", ("x-ms-isolation-tee", "x-ms-compliance-status")),
    ("azure-maa", ("x-ms-isolation-tee", "x-ms-sevsnpvm-is-debuggable")),
    ("azure-maa", ("x-ms-isolation-tee", "x-ms-sevsnpvm-launchmeasurement")),
    ("azure-maa", ("x-ms-isolation-tee", "x-ms-sevsnpvm-snpfw-svn")),
    ("azure-maa", ("x-ms-isolation-tee", "x-ms-runtime")),
    ("azure-maa", ("x-ms-runtime",)),
    ("azure-maa", ("x-ms-runtime", "client-payload", "nonce")),
    ("azure-maa", ("secureboot",)),
    ("azure-maa", ("x-ms-policy-hash",)),
    ("google-confidential-space", ("aud",)),
    ("google-confidential-space", ("hwmodel",)),
    ("google-confidential-space", ("dbgstat",)),
    ("google-confidential-space", ("secboot",)),
    ("google-confidential-space", ("swname",)),
    ("google-confidential-space", ("tdx",)),
    ("google-confidential-space", ("submods",)),
    ("google-confidential-space", ("submods", "container", "image_digest")),
    ("google-confidential-space", ("submods", "gce", "project_id")),
    ("intel-trust-authority", ("attester_type",)),
    ("intel-trust-authority", ("attester_tcb_status",)),
    ("intel-trust-authority", ("sgx_mrenclave",)),
    ("intel-trust-authority", ("sgx_is_debuggable",)),
    ("intel-trust-authority", ("sgx_report_data",)),
    ("intel-trust-authority", ("ver",)),
]


@pytest.mark.parametrize(("service", "path"), REQUIRED)
def test_a_missing_claim_refuses(service: Service, path: tuple[str, ...]) -> None:
    assert code(lambda: prove(without(service, *path))) == "evidence.malformed"


def policy_of(signed: vendor.Signed) -> PlatformPolicy:
    return replace(attest_kit.echo(prove(signed)), collateral_max_age=300)


def failures(policy: PlatformPolicy, signed: vendor.Signed, *, now: int = kit.NOW) -> set[str]:
    pieces = {} if signed.keys is None else {"jwks": signed.keys}
    collateral = Collateral(parts=attest_kit.pieces(pieces))
    with pytest.raises(AppraisalRefused) as caught:
        judge_token(signed.token, signed.service, collateral, policy, report_data=vendor.REPORT_DATA, now=now)
    return {check.name for check in caught.value.verdict.failed}


APPRAISALS: list[tuple[Service, dict[str, Any], set[str]]] = [
    ("azure-maa", {"secureboot": False}, {"setting.secureboot"}),
    ("azure-maa", {"x-ms-azurevm-bootdebug-enabled": True}, {"setting.azurevm.bootdebug-enabled"}),
    ("azure-maa", {"x-ms-azurevm-new-claim": 1}, {"setting.azurevm.new-claim"}),
    ("azure-maa", {"x-ms-policy-hash": "other"}, {"setting.policy-hash"}),
    ("azure-maa", {"iss": "https://other.weu.attest.azure.net"}, {"setting.issuer"}),
    ("azure-maa", {"x-ms-runtime": {"client-payload": {"nonce": "AAAA"}}}, {"report-data"}),
    ("google-confidential-space", {"aud": "other"}, {"setting.audience"}),
    ("google-confidential-space", {"dbgstat": "enabled"}, {"debug"}),
    ("google-confidential-space", {"dbgstat": "disabled"}, {"debug"}),
    ("google-confidential-space", {"secboot": False}, {"setting.secboot"}),
    ("google-confidential-space", {"swname": "GCE"}, {"setting.swname"}),
    ("google-confidential-space", {"tdx": {"gcp_attester_tcb_status": "OutOfDate"}}, {"tcb-status"}),
    ("google-confidential-space", {"eat_nonce": "0" * 64}, {"report-data"}),
    ("google-confidential-space", {"eat_nonce": [jose.b64url(vendor.REPORT_DATA), "x"]}, {"report-data"}),
    ("google-confidential-space", {"eat_nonce": "short"}, {"report-data"}),
    ("google-confidential-space", {"google_service_accounts": ["evil"]}, {"setting.service-accounts"}),
    ("intel-trust-authority", {"attester_tcb_status": "OutOfDate"}, {"tcb-status"}),
    ("intel-trust-authority", {"attester_advisory_ids": ["INTEL-SA-00615"]}, {"advisories"}),
    ("intel-trust-authority", {"sgx_is_debuggable": True}, {"debug"}),
    ("intel-trust-authority", {"dbgstat": "enabled"}, {"debug"}),
    ("intel-trust-authority", {"sgx_isvsvn": 1}, {"minimum-tcb.isvsvn"}),
    ("intel-trust-authority", {"sgx_mrenclave": "00" * 32}, {"measurement.mrenclave"}),
    ("intel-trust-authority", {"sgx_new": True}, {"setting.sgx.new"}),
    ("intel-trust-authority", {"policy_ids_unmatched": [{"id": "x"}]}, {"setting.policies-unmatched"}),
    ("intel-trust-authority", {"sgx_report_data": "00" * 64}, {"report-data"}),
]


@pytest.mark.parametrize(("service", "changes", "expected"), APPRAISALS)
def test_policy_names_every_mismatch(service: Service, changes: dict[str, Any], expected: set[str]) -> None:
    assert failures(policy_of(made(service)), made(service, **changes)) == expected


def test_nested_claims_are_judged_too() -> None:
    policy = policy_of(made("azure-maa"))
    tee = {**vendor.azure_claims()["x-ms-isolation-tee"], "x-ms-sevsnpvm-is-debuggable": True, "x-ms-sevsnpvm-vmpl": 1}
    assert failures(policy, made("azure-maa", **{"x-ms-isolation-tee": tee})) == {"debug", "setting.sevsnpvm.vmpl"}
    google = policy_of(made("google-confidential-space"))
    modules = json.loads(json.dumps(vendor.google_claims()["submods"]))
    modules["container"]["image_digest"] = "sha256:" + "66" * 32
    modules["container"]["args"] = ["/other"]
    modules["confidential_space"] = {}
    assert failures(google, made("google-confidential-space", submods=modules)) == {
        "measurement.image-digest", "setting.container.args", "setting.support", "setting.monitoring",
    }  # fmt: skip
    doubled = vendor.make("intel-trust-authority", vendor.intel_tdx_claims(tdx_mrtd="00" * 48))
    assert code(lambda: prove(doubled)) == "evidence.malformed"


def test_age_and_identity() -> None:
    for service in SERVICES:
        signed = made(service)
        policy = policy_of(signed)
        assert failures(policy, signed, now=kit.NOW + 300) == {"collateral-age"}
        names = ("image-digest", "measurement", "mrenclave", "mrsigner")
        skipped = tuple(
            ReferenceValue(name=m.name, accepted=Unchecked(reason="left out by this test")) if m.name in names else m
            for m in policy.measurements
        )
        spare = ReferenceValue(name="spare", accepted=("00",))
        found = failures(replace(policy, measurements=(*skipped, spare)), signed)
        assert {name for name in found if name.startswith("identity.")}, service


def test_a_policy_for_raw_evidence_refuses_a_token() -> None:
    signed = made("azure-maa")
    policy = policy_of(signed)
    raw = replace(policy, settings=tuple(s for s in policy.settings if s.name not in ("token", "issuer")))
    assert failures(raw, signed) == {"setting.token", "setting.issuer"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_flipped_bit_is_refused(service: Service) -> None:
    signed = made(service)

    def accepted(token: bytes) -> bool:
        try:
            prove(replace(signed, token=token))
        except KakoiError:
            return False
        return True

    assert accepted(signed.token)
    assert [at for at, twin in attest_kit.flips(signed.token) if accepted(twin)] == []
    assert [len(twin) for twin in attest_kit.cuts(signed.token, step=7) if accepted(twin)] == []
    twins = [signed.token + b"\n", signed.token + b"=", b" " + signed.token, signed.token.replace(b".", b"..", 1)]
    assert not any(map(accepted, twins))
    if signed.keys is not None:
        for at, twin in attest_kit.flips(signed.keys, step=3):
            try:
                prove(replace(signed, keys=twin))
            except KakoiError:
                continue
            assert json.loads(twin)["keys"][0]["n"] == json.loads(signed.keys)["keys"][0]["n"], at


def test_the_same_claims_in_another_spelling_are_refused() -> None:
    key = vendor.rsa(False)
    header = json.dumps({"alg": "RS256", "typ": "JWT", "kid": vendor.KID}).encode()
    base = made("azure-maa")
    twice = b'{"iss":"https://evil.example",' + json.dumps(vendor.azure_claims()).encode()[1:]
    for claims in (twice, b"[]", b"1", b"", b"\xff", json.dumps(vendor.azure_claims()).encode() + b" x"):
        assert code(partial(prove, replace(base, token=vendor.compact(header, claims, key)))) == "evidence.malformed"
    padded = base.token.split(b".")
    padded[1] = base64.urlsafe_b64encode(jose.unb64url(padded[1].decode(), "x"))
    if padded[1].endswith(b"="):
        assert code(lambda: prove(replace(base, token=b".".join(padded)))) == "evidence.malformed"


def test_only_the_verifier_makes_verified_tokens() -> None:
    with pytest.raises(TypeError):
        VerifiedToken()  # type: ignore[call-arg]


@given(st.binary(max_size=300))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    text = jose.b64url(data).encode()
    for token in (data, text + b"." + text + b"." + text, b"eyJhbGciOiJSUzI1NiJ9." + text + b"." + text):
        with pytest.raises(Malformed):
            parse.parse(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**41) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(SERVICES), st.data())
def test_any_claims_give_only_our_errors(service: Service, data: st.DataObject) -> None:
    claims = CLAIMS[service]()
    name = data.draw(st.sampled_from(sorted(claims)))
    changed = vendor.make(service, {**claims, name: data.draw(JSON)})
    try:
        assert not prove(changed).claims.debug or name in ("dbgstat", "sgx_is_debuggable")
    except KakoiError:
        return


@given(st.binary(max_size=80))
def test_base64url_has_one_spelling(data: bytes) -> None:
    assert jose.unb64url(jose.b64url(data), "x") == data


# --- recorded --------------------------------------------------------------------------------------------------------

MAA_KEY = {
    # Public key of Azure Attestation in East US 2, as its service published it in 2025.
    "kty": "RSA",
    "kid": "J0pAPdfXXHqWWimgrH853wMIdh5/fLe1z6uSXYPXCa0=",
    "e": "AQAB",
    "n": "2NBrEQdwXUzVy2p-SZ7sBjxbVd4iTGNEQJu_Ot_C0NCzXIDT6DMEAeVZLSoWWcW6oXQ81h-yQWtw-jFW_SPgG4FGSL1UnVO8Zak80thovQk0"
    "dbZDo-9lsoOnOfXfPUL0T9AgHtqJpUr3tCfyRRLdC0MgF1tAyjZbMj8bHe2ZmJ9GLTJT5v9E0i5l3S4WZY52vMzZaVpfxw-0_s5tRzcoPGqIrMOn"
    "X_7kv5j7sisqZKNq6fP-4MHvLb_tXyHCkW6FzX8mUlwyRNzBP3R4xaXBvykzJMaAiCW_Yr_TxycdnmwsTR7he1Q78q12KnYqLvUVjg_v39_RWGSb"
    "FnaP1YX5Hw",
}
VECTORS = recorded.load(FOLDER, "token")


def recorded_token(vector: recorded.Recorded) -> vendor.Signed:
    token = vector.read("evidence").strip()
    name = Path(vector.fields["evidence"]).name
    if name.startswith("google"):
        root = parse_certificate(recorded.certificates(vector.read("keys"))[0])
        assert root.spki_sha256 == GOOGLE_ROOT
        return vendor.Signed(
            service="google-confidential-space", token=token, keys=None, anchors=frozenset({GOOGLE_ROOT})
        )
    if name.startswith("ita"):
        good = json.loads((FOLDER / "tokens/ita_validJwks.json").read_bytes())["keys"][0]["x5c"][-1]
        anchors = frozenset({parse_certificate(base64.b64decode(good)).spki_sha256})
        return vendor.Signed(service="intel-trust-authority", token=token, keys=vector.read("keys"), anchors=anchors)
    anchors = frozenset({jose.public_key(MAA_KEY).spki_sha256})
    return vendor.Signed(service="azure-maa", token=token, keys=vendor.key_set(MAA_KEY), anchors=anchors)


@pytest.mark.skipif(not VECTORS, reason="recorded evidence is not here (KAKOI_SHARED)")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_recorded(vector: recorded.Recorded) -> None:
    signed, verdict = recorded_token(vector), vector.expect["verdict"]
    if verdict == "reject: x5c":
        assert code(lambda: prove(signed, now=vector.at)) == "x509.malformed"
        return
    claims = prove(signed, now=vector.at).claims
    assert not claims.debug
    if "OutOfDate" in verdict:
        assert claims.tcb_status == "OutOfDate"
        policy = replace(attest_kit.echo(prove(signed, now=vector.at)), statuses=("UpToDate",))
        pieces = Collateral(parts=attest_kit.pieces({"jwks": signed.keys or b""}))
        report_data = bytes.fromhex(claims.report_data)
        with pytest.raises(AppraisalRefused) as caught:
            judge_token(signed.token, signed.service, pieces, policy, report_data=report_data, now=vector.at)
        assert [check.name for check in caught.value.verdict.failed] == ["tcb-status"]
    elif signed.service == "google-confidential-space":
        assert (claims.tcb_status, claims.product) == ("UpToDate", "GCP_INTEL_TDX")
    else:
        assert verdict.startswith("RS256 OK")
        assert bytes.fromhex(claims.report_data) == b"midnight-srs"
    for _, twin in attest_kit.flips(signed.token, step=17):
        assert code(partial(prove, replace(signed, token=twin), now=vector.at))
    for delta in (-86400, 2 * 86400):
        assert code(partial(prove, signed, now=vector.at + delta)) in {"token.time", "x509.window"}
