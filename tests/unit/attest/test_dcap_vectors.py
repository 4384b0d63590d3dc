"""Quotes that real machines made: each is judged as its vector says, by both verifiers."""

from __future__ import annotations

from typing import Any

import pytest

from kakoi.attest.dcap.parse import parse
from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.registry import HARDWARE, judge
from kakoi.attest.report import AppraisalRefused, Claims, Evidence
from kakoi.core.errors import KakoiError
from kakoi.testing.dcap_vendor import as_collateral
from kakoi.testing.dcap_vendor_corpus import EVIDENCE, recorded_collateral, refused, vectors

GOOD = vectors("sgx", "tdx")
NEGATIVE = vectors("negative")
DAY = 86400
pytestmark = pytest.mark.skipif(not GOOD, reason="recorded evidence is not here (KAKOI_SHARED)")


def name(vector: dict[str, Any]) -> str:
    return f"{vector['evidence'].split('/')[-1]}@{vector['at']}"


def evidence_of(vector: dict[str, Any]) -> Evidence:
    statement = (EVIDENCE / vector["evidence"]).read_bytes()
    return Evidence(platform=vector["kind"], statement=statement, parts=())


def attributes(claims: Claims) -> list[str]:
    settings = {fact.name: fact.value for fact in claims.settings}
    service = next((m.value for m in claims.measurements if m.name == "mrservicetd"), "")
    found = {
        "DEBUG": claims.debug,
        "no SEPT_VE_DISABLE": settings.get("sept-ve-disable") == "no",
        "MRSERVICETD!=0": bool(service.strip("0")),
    }
    return [label for label, present in found.items() if present]


def test_the_corpus_is_whole() -> None:
    print(f"{len(GOOD)} recorded quotes, {len(NEGATIVE)} recorded negatives")
    assert (len(GOOD), len(NEGATIVE)) == (35, 5)


@pytest.mark.parametrize("vector", GOOD, ids=name)
def test_recorded_quote(vector: dict[str, Any]) -> None:
    evidence, collateral, at = evidence_of(vector), recorded_collateral(vector["collateral"]), vector["at"]
    expected = vector["expect"]
    verifier = HARDWARE[evidence.platform]
    if expected["errors"]:
        assert refused(verifier.verify, evidence, collateral, now=at) == "dcap.tcb-not-supported"
        return
    verified = verifier.verify(evidence, collateral, now=at)
    claims = verified.claims
    assert claims.tcb_status == expected["status"]
    assert list(claims.advisories) == expected["advisories"]
    assert attributes(claims) == expected["attributes"]
    assert claims.product == vector["fmspc"]
    _judge(evidence, collateral, at, expected["attributes"], vector["dcap_qvl_0_7_0"])


def _judge(evidence: Evidence, collateral: Any, at: int, wanted: list[str], library: str) -> None:
    verified = HARDWARE[evidence.platform].verify(evidence, collateral, now=at)
    policy = AttestationPolicy(accepted=(draft(verified, collateral_max_age=60 * DAY),))
    report_data = bytes.fromhex(verified.claims.report_data)

    def decide() -> object:
        return judge(evidence, collateral, policy, report_data=report_data, now=at)

    second = next(c for c in verified.checks if c.name == "dcap.second-opinion")
    assert (second.outcome == "passed") == (not library.startswith("ERR"))
    if "DEBUG" in wanted:
        with pytest.raises(AppraisalRefused) as caught:
            decide()
        assert [c.name for c in caught.value.verdict.failed] == ["debug"]
    else:
        decide()


@pytest.mark.parametrize("vector", GOOD, ids=name)
def test_recorded_quote_outside_its_time(vector: dict[str, Any]) -> None:
    evidence, collateral = evidence_of(vector), recorded_collateral(vector["collateral"])
    for at in (vector["at"] - 400 * DAY, vector["at"] + 400 * DAY):
        code = refused(HARDWARE[evidence.platform].verify, evidence, collateral, now=at)
        assert code in ("x509.window", "x509.crl-window", "dcap.collateral-window")


@pytest.mark.parametrize(
    "vector", [v for v in NEGATIVE if not v["evidence"].endswith(".pem")], ids=lambda v: v["evidence"]
)
def test_recorded_negative(vector: dict[str, Any]) -> None:
    """A quote that must never pass, whatever collateral comes with it."""
    kind: Any = "tdx" if vector["evidence"].startswith("tdx/") else "sgx"
    evidence = Evidence(platform=kind, statement=(EVIDENCE / vector["evidence"]).read_bytes(), parts=())
    for other in [v for v in GOOD if v["kind"] == kind]:
        collateral = recorded_collateral(other["collateral"])
        code = refused(HARDWARE[kind].verify, evidence, collateral, now=other["at"])
        assert code in (
            "dcap.quote",
            "dcap.pck-spelling",
            "x509.malformed",
            "x509.signature",
            "x509.root",
            "x509.window",
        )


def test_recorded_altered_signer_chain() -> None:
    chain = (EVIDENCE / "sgx/oasis_tcb_signing_chain_bad.pem").read_bytes()
    tried = 0
    for vector in GOOD:
        parts = {p.name: p.data for p in recorded_collateral(vector["collateral"]).parts}
        for which in ("tcb_info_issuer_chain", "qe_identity_issuer_chain"):
            bad = as_collateral({**parts, which: chain})
            evidence = evidence_of(vector)
            code = refused(HARDWARE[evidence.platform].verify, evidence, bad, now=vector["at"])
            assert code == "x509.ca"  # it is the chain of the PCK CA, which signs certificates and no TCB information
            tried += 1
    assert tried == 70


def test_collateral_of_other_machines_is_refused() -> None:
    """Each recorded quote with the collateral of each other FMSPC."""
    tried = 0
    for vector in GOOD:
        evidence = evidence_of(vector)
        for other in GOOD:
            if (other["fmspc"], other["kind"]) == (vector["fmspc"], vector["kind"]):
                continue
            collateral = recorded_collateral(other["collateral"])
            with pytest.raises(KakoiError):
                HARDWARE[evidence.platform].verify(evidence, collateral, now=other["at"])
            tried += 1
    assert tried > 500


def test_every_recorded_quote_parses_and_truncation_does_not() -> None:
    for vector in GOOD:
        data = (EVIDENCE / vector["evidence"]).read_bytes()
        quote = parse(data)
        assert quote.version == vector["quote_version"]
        end = len(data.rstrip(b"\0"))
        for size in (0, 1, 47, 48, 431, 432, 436, end // 2, end - 1):
            assert refused(parse, data[:size]) == "dcap.quote"
