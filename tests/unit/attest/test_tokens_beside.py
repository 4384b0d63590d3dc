"""Tokens beside evidence: demanded by the contract or refused, judged for the same session, never instead of evidence."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from kakoi.attest import jose
from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, ReferenceValue
from kakoi.attest.report import AppraisalRefused, Part, Verdict, token_binding
from kakoi.attest.tokens.verify import Service
from kakoi.core import encoding
from kakoi.core.errors import KakoiError, Malformed
from kakoi.testing import token_vendor as vendor
from kakoi.testing import x509_kit as kit
from support.token_machine import BOUND, SERVICES, Machine, demand, make, said


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("platform") / "platform")


def why(call: Callable[[], object]) -> str:
    """The code, or for an appraisal the names of the failed checks."""
    with pytest.raises(KakoiError) as caught:
        call()
    error = caught.value
    return " ".join(c.name for c in error.verdict.failed) if isinstance(error, AppraisalRefused) else error.code


@pytest.mark.parametrize("service", SERVICES)
def test_a_demanded_token_is_in_the_verdict(machine: Machine, service: Service) -> None:
    signed = make(service)
    verdict = machine.judge(machine.policy(demand(service)), signed)
    names = {check.name for check in verdict.checks}
    assert {f"token.{service}.{name}" for name in ("token.key", "token.time", "report-data", "debug")} <= names
    assert verdict.claims.platform == "software"
    assert not verdict.protected_by_hardware, "a token does not make hardware of the software platform"
    used = {piece.name for piece in verdict.collateral if piece.name.startswith("jwks.")}
    assert used == (set() if signed.keys is None else {f"jwks.{service}"})
    assert Verdict.decode(verdict.encode()) == verdict


def test_several_services_at_once(machine: Machine) -> None:
    verdict = machine.judge(machine.policy(*map(demand, SERVICES)), *map(make, SERVICES))
    assert {c.name.split(".")[1] for c in verdict.checks if c.name.startswith("token.")} == set(SERVICES)
    longest = max(len(check.name) for check in verdict.checks)
    assert longest <= 128


@pytest.mark.parametrize("service", SERVICES)
def test_neither_missing_nor_undemanded_ones(machine: Machine, service: Service) -> None:
    policy = machine.policy(demand(service))
    assert why(lambda: machine.judge(policy)) == "appraisal.token-missing"
    assert why(lambda: machine.judge(machine.policy(), make(service))) == "appraisal.token-not-accepted"
    other = next(s for s in SERVICES if s != service)
    assert why(lambda: machine.judge(policy, make(service), make(other))) == "appraisal.token-not-accepted"
    unknown = replace(machine.quote, parts=(Part(name="token.somebody", data=b"a.b.c"),))
    assert (
        why(lambda: machine.judge_as_is(machine.policy(), unknown, machine.given())) == "appraisal.token-not-accepted"
    )
    twice = machine.evidence(make(service), make(service))
    assert why(lambda: machine.judge_as_is(policy, twice, machine.given(make(service)))) == "evidence.parts"
    assert machine.judge(machine.policy()), "and without any, evidence is judged as ever"


def test_a_token_is_never_evidence(machine: Machine) -> None:
    """Good token, forged quote: the quote decides."""
    policy, signed = machine.policy(demand("intel-trust-authority")), make("intel-trust-authority")
    statement = bytearray(machine.quote.statement)
    statement[48 + 64] ^= 1
    forged = replace(machine.evidence(signed), statement=bytes(statement))
    assert why(lambda: machine.judge_as_is(policy, forged, machine.given(signed))) == "x509.signature"


def hs256(service: Service) -> vendor.Signed:
    """The classic: an HMAC keyed with the public key."""
    good = make(service)
    header, claims, _ = good.token.split(b".")
    forged = {**json.loads(jose.unb64url(header.decode(), "header")), "alg": "HS256"}
    signed = jose.b64url(json.dumps(forged).encode()).encode() + b"." + claims
    key = vendor.rsa(service == "intel-trust-authority").public.spki
    mac = hmac.new(key, signed, hashlib.sha256).digest()
    return replace(good, token=signed + b"." + jose.b64url(mac).encode())


def unsigned(service: Service) -> vendor.Signed:
    good = make(service, None, alg="none")
    return replace(good, token=good.token.rpartition(b".")[0] + b".")


def by_a_stranger(service: Service, **header: Any) -> vendor.Signed:
    """Signed by somebody else's key, whose key set comes along."""
    pss = service == "intel-trust-authority"
    key = vendor.rsa(pss, 7)
    members = {"alg": "PS384" if pss else "RS256", "typ": "JWT", "kid": vendor.KID, **header}
    token = vendor.compact(json.dumps(members).encode(), json.dumps(said(service)).encode(), key)
    keys = vendor.key_set(vendor.jwk(key.public))
    return vendor.Signed(service=service, token=token, keys=keys, anchors=frozenset({key.public.spki_sha256}))


def changed(service: Service, **changes: Any) -> vendor.Signed:
    return make(service, said(service, **changes))


def of_another_session(service: Service) -> vendor.Signed:
    return make(service, said(service, bytes(64)))


def debug(service: Service) -> vendor.Signed:
    if service == "azure-maa":
        claims = said(service)
        claims["x-ms-isolation-tee"]["x-ms-sevsnpvm-is-debuggable"] = True
        return make(service, claims)
    if service == "intel-trust-authority":
        return changed(service, sgx_is_debuggable=True)
    return changed(service, dbgstat="enabled")


TWINS: dict[str, tuple[Callable[[Service], vendor.Signed], str]] = {
    "alg none": (unsigned, "evidence.malformed"),
    "HS256 with the public key": (hs256, "evidence.malformed"),
    "somebody else's key": (by_a_stranger, "token.anchor"),
    "a key at an address of its own": (partial(by_a_stranger, jku="https://example.org/keys"), "token.anchor"),
    "another issuer": (partial(changed, iss="https://attest.example.org"), "token.issuer"),
    "expired": (partial(changed, iat=kit.NOW - 7200, nbf=kit.NOW - 7200, exp=kit.NOW - 1), "token.time"),
    "not yet valid": (partial(changed, nbf=kit.NOW + 3600), "token.time"),
    "too old for the contract": (partial(changed, iat=kit.NOW - 601), "token.{}.collateral-age"),
    "of another session": (of_another_session, "token.{}.report-data"),
    "in debug mode": (debug, "token.{}.debug"),
}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", TWINS)
def test_bad_twins(machine: Machine, service: Service, name: str) -> None:
    forge, expected = TWINS[name]
    policy = machine.policy(demand(service))
    assert why(lambda: machine.judge(policy, forge(service))) == expected.format(service)


def test_a_flipped_byte_anywhere(machine: Machine) -> None:
    good = make("intel-trust-authority")
    policy = machine.policy(demand("intel-trust-authority"))
    for at in range(0, len(good.token), 41):
        token = bytearray(good.token)
        token[at] ^= 4
        assert why(lambda bad=bytes(token): machine.judge(policy, replace(good, token=bad)))  # type: ignore[misc]


def test_the_key_set_has_to_be_there(machine: Machine) -> None:
    signed = make("azure-maa")
    policy = machine.policy(demand("azure-maa"))
    assert why(lambda: machine.judge_as_is(policy, machine.evidence(signed), machine.collateral)) == "token.key"
    # Key sets of services that nobody demanded change nothing: an owner may hand them out with every session.
    assert machine.judge_as_is(machine.policy(), machine.quote, machine.given(signed))


def test_a_token_about_another_machine(machine: Machine) -> None:
    """The owners accept either of two enclaves, and one of them shows the other's token."""
    other = "67" * 32
    wanted = demand("intel-trust-authority")
    both = tuple(
        ReferenceValue(name=m.name, accepted=(*m.accepted, other)) if m.name == "mrenclave" else m
        for m in wanted.claims.measurements
        if isinstance(m.accepted, tuple)
    )
    policy = machine.policy(replace(wanted, claims=replace(wanted.claims, measurements=both)))
    signed = changed("intel-trust-authority", sgx_mrenclave=other)
    assert why(lambda: machine.judge(policy, signed)) == "token.intel-trust-authority.same.mrenclave"


def test_every_mismatch_at_once(machine: Machine) -> None:
    """Of the evidence and of its token, in one denial."""
    entry: PlatformPolicy = replace(machine.entry, statuses=("SWHardeningNeeded",))
    policy = AttestationPolicy(accepted=(entry,), tokens=(demand("google-confidential-space"),))
    signed = changed("google-confidential-space", secboot=False)
    found = why(lambda: machine.judge(policy, signed)).split()
    assert found == ["tcb-status", "token.google-confidential-space.setting.secboot"]


def test_googles_nonce_is_short_and_belongs_to_one_session() -> None:
    bound = token_binding("google-confidential-space", BOUND)
    assert len(bound.hex()) <= 74
    assert bound != token_binding("google-confidential-space", bytes(64))
    assert token_binding("azure-maa", BOUND) == BOUND


def test_policies_say_what_they_demand(machine: Machine) -> None:
    value: dict[str, Any] = encoding.loads(machine.policy().encode())
    assert value.pop("tokens") == []
    with pytest.raises(Malformed) as caught:
        AttestationPolicy.decode(encoding.dumps(value))
    assert caught.value.code == "record.missing-field"
    entry = demand("azure-maa")
    with pytest.raises(Malformed) as caught:
        machine.policy(entry, entry)
    assert caught.value.code == "policy.repeated"
    with pytest.raises(Malformed) as caught:
        machine.policy(replace(entry, accompanies="tdx"))
    assert caught.value.code == "policy.token"
