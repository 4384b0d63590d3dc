"""A software platform whose contract demands tokens, and good tokens about its sessions."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy, TokenPolicy
from kakoi.attest.registry import judge
from kakoi.attest.report import Collateral, Evidence, Part, Verdict, token_binding
from kakoi.attest.software.admit import with_software
from kakoi.attest.software.verify import reference_policy
from kakoi.attest.tokens.verifier import verify_token
from kakoi.attest.tokens.verify import Service
from kakoi.evidence import software
from kakoi.testing import token_vendor as vendor
from kakoi.testing import x509_kit as kit

BOUND = bytes(range(100, 164))
MRENCLAVE = bytes.fromhex("66" * 32)
SERVICES: tuple[Service, ...] = ("azure-maa", "google-confidential-space", "intel-trust-authority")


def said(service: Service, bound: bytes = BOUND, **changes: Any) -> dict[str, Any]:
    """Good claims of a service about a session with this report data."""
    nonce = token_binding(service, bound)
    if service == "azure-maa":
        payload = {"client-payload": {"nonce": base64.b64encode(nonce).decode()}, "keys": []}
        return vendor.azure_claims(**{"x-ms-runtime": payload, **changes})
    if service == "intel-trust-authority":
        return vendor.intel_claims(**{"sgx_report_data": nonce.hex(), **changes})
    return vendor.google_claims(**{"eat_nonce": nonce.hex(), **changes})


def make(service: Service, claims: dict[str, Any] | None = None, **header: Any) -> vendor.Signed:
    return vendor.make(service, said(service) if claims is None else claims, **header)


def demand(service: Service) -> TokenPolicy:
    """What the owners demand: exactly what a good token says."""
    signed = make(service)
    keys = () if signed.keys is None else (Part(name="jwks", data=signed.keys),)
    verified = verify_token(
        signed.token, service, Collateral(parts=keys), anchors=frozenset(signed.anchors), now=kit.NOW
    )
    return TokenPolicy(accompanies="software", service=service, claims=draft(verified, collateral_max_age=600))


class Machine:
    """A software platform, and a policy that accepts it."""

    def __init__(self, directory: Path) -> None:
        software.create(directory)
        self.platform = platform = software.SoftwarePlatform.load(directory)
        self.bound = BOUND
        self.quote = platform.quote(BOUND, MRENCLAVE)
        self.collateral = platform.collateral(kit.NOW)
        self.entry = reference_policy(mrenclave=MRENCLAVE.hex(), root=platform.root_spki_sha256)

    def policy(self, *tokens: TokenPolicy) -> AttestationPolicy:
        return AttestationPolicy(accepted=(self.entry,), tokens=tokens)

    def evidence(self, *tokens: vendor.Signed) -> Evidence:
        parts = tuple(Part(name=f"token.{signed.service}", data=signed.token) for signed in tokens)
        return replace(self.quote, parts=(*self.quote.parts, *parts))

    def given(self, *tokens: vendor.Signed) -> Collateral:
        sets = tuple(Part(name=f"jwks.{s.service}", data=s.keys) for s in tokens if s.keys is not None)
        return Collateral(parts=(*self.collateral.parts, *sets))

    def judge(self, policy: AttestationPolicy, *tokens: vendor.Signed, now: int = kit.NOW) -> Verdict:
        return self.judge_as_is(policy, self.evidence(*tokens), self.given(*tokens), now=now)

    def judge_as_is(
        self, policy: AttestationPolicy, evidence: Evidence, collateral: Collateral, *, now: int = kit.NOW
    ) -> Verdict:
        verifiers = with_software(policy)
        return judge(evidence, collateral, policy, report_data=BOUND, now=now, verifiers=verifiers)
