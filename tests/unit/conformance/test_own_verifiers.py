"""Our own verifiers against the corpus; and weakened copies of them, which the corpus has to notice."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kakoi.attest import appraise
from kakoi.attest.azure import verify as azure_verify
from kakoi.attest.dcap import second
from kakoi.attest.dcap.own import verify as dcap_verify
from kakoi.attest.nitro import verify as nitro_verify
from kakoi.attest.snp import verify as snp_verify
from kakoi.attest.tokens import verify as token_verify
from kakoi.attest.tpm import verify as tpm_verify
from kakoi.conformance import build
from kakoi.conformance.corpus import Vector
from kakoi.conformance.own import OwnTarget
from kakoi.conformance.run import Report, run
from kakoi.conformance.trial import KINDS, Kind
from kakoi.core import x509

EVIDENCE = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"
needs_recorded = pytest.mark.skipif(not EVIDENCE.is_dir(), reason="recorded evidence is not here (KAKOI_SHARED)")
MINTED: list[Kind] = [kind for kind in KINDS if kind != "ccel"]
Minted = Callable[[Kind], tuple[Vector, ...]]


def no_findings(report: Report) -> None:
    shown = [f"{f.problem}: {f.twin}: {f.changed}: {f.reason}" for f in report.findings[:20]]
    assert not shown, f"{len(report.findings)} findings"
    # a device's minted vectors have 16 twins; every other kind has more
    assert sum(tally.twins for tally in report.tallies) > 15
    assert sum(tally.good for tally in report.tallies) > 0


@pytest.mark.parametrize("kind", MINTED)
def test_no_minted_twin_passes(minted: Minted, kind: Kind) -> None:
    no_findings(run(minted(kind), OwnTarget(), sample=1))


@needs_recorded
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_twin_of_recorded_evidence_passes(kind: Kind) -> None:
    no_findings(run(build.vectors([kind], EVIDENCE), OwnTarget(), sample=12))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", MINTED)
def test_no_minted_twin_passes_at_all(minted: Minted, kind: Kind) -> None:
    no_findings(run(minted(kind), OwnTarget(), sample=None))


# --- the corpus has teeth --------------------------------------------------------------------------------------------


def _nothing(*_: object, **__: object) -> None:
    return None


def _no_revocation(*_: object) -> list[object]:
    return []


def _agrees(*_: object) -> str:
    return second.AGREES


def _selected(quote: Any) -> tuple[int, ...]:
    """What two well-known verifiers do: take the registers of whatever selections there are."""
    found = [index for selection in quote.selections for index in selection.pcrs]
    return tuple(range(24)) if len(found) == 24 else tuple(found)


def _any_report_data(*_: object) -> bool:
    return True


class _Blind:
    """``hmac`` of a module that compares nothing."""

    compare_digest = staticmethod(_any_report_data)


# A check taken out: where, what stands in its place, which kind, and which groups have to notice.
WEAKENED: dict[str, tuple[list[tuple[Any, str, Any]], Kind, set[str]]] = {
    "revocation": ([(x509, "_revocation", _no_revocation)], "sgx", {"revocation.revoked", "revocation.list"}),
    "revocation of AMD": ([(x509, "_revocation", _no_revocation)], "snp", {"revocation.revoked", "revocation.list"}),
    "revocation of AWS": ([(x509, "_revocation", _no_revocation)], "nitro", {"revocation.revoked"}),
    "windows": ([(x509, "_in_window", _nothing)], "snp", {"chain.window", "time.window", "revocation.list"}),
    "use of issuers' keys": ([(x509, "_issuer", _nothing)], "snp", {"chain.use"}),
    "use of leaves' keys": ([(x509, "_leaf", _nothing)], "nitro", {"chain.use"}),
    "platform of the TCB information": ([(dcap_verify, "_same_platform", _nothing)], "sgx", {"binding.platform"}),
    "TEE of the collateral": (
        [(dcap_verify, "_kind", _nothing), (second, "opinion", _agrees)], "sgx", {"binding.tee"},
    ),
    "names of AMD": ([(snp_verify, "_check_certificates", _nothing)], "snp", {"chain.name"}),
    "product": ([(snp_verify, "_check_product", _nothing)], "snp", {"binding.product"}),
    "chip id": ([(snp_verify, "_check_chip_id", lambda *_: False)], "snp", {"binding.chip-id"}),
    "order of TCB versions": ([(snp_verify, "_check_order", _nothing)], "snp", {"tcb.order"}),
    "PCR selection": ([(tpm_verify, "_selected", _selected)], "azure-snp", {"pcr.selection"}),
    "TPM signature": ([(tpm_verify, "_check_signature", _nothing)], "azure-snp", {"signature.tpm", "tpm-signature.flip"}),
    "event log": ([(azure_verify, "_check_event_log", _nothing)], "azure-snp", {"binding.event-log"}),
    "TDREPORT": ([(azure_verify, "check_td_report", _nothing)], "azure-tdx", {"binding.td-report"}),
    "module and time of the leaf": (
        [(nitro_verify, "_check_leaf", lambda *_: "eu-central-1")], "nitro", {"binding.module", "binding.time"},
    ),
    "debug of enclaves": ([(nitro_verify, "_debug", lambda _: False)], "nitro", {"debug.enclave"}),
    "token signature": ([(token_verify, "_check_signature", _nothing)], "azure-maa", {"token.unsigned"}),
    "report data": ([(appraise, "hmac", _Blind)], "snp", {"session.report-data-bit", "session.relay"}),
}  # fmt: skip


@pytest.mark.parametrize("check", WEAKENED)
def test_a_verifier_without_a_check_is_noticed(minted: Minted, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    places, kind, groups = WEAKENED[check]
    vectors = [
        replace(vector, groups=[g for g in vector.groups if g.name in groups or g.name == "good"])
        for vector in minted(kind)
    ]
    vectors = [vector for vector in vectors if len(vector.groups) > 1][:2]
    if check == "event log":
        vectors = [v for v in vectors if v.name.endswith("-log")]
    no_findings_before = run(vectors, OwnTarget(), sample=8)
    assert not no_findings_before.findings
    for module, name, other in places:
        monkeypatch.setattr(module, name, other)
    found = run(vectors, OwnTarget(), sample=8)
    assert {finding.group for finding in found.findings} == groups
