"""Our own verifiers as a target: the registry's for evidence under the vendors' roots, the same classes under others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, cast

from kakoi.attest import parts, registry
from kakoi.attest.azure.verifier import AzureSnpVerifier, AzureTdxVerifier
from kakoi.attest.ccel import parse as ccel_parse
from kakoi.attest.ccel.replay import check_rtmrs
from kakoi.attest.dcap import parse as dcap_parse
from kakoi.attest.dcap.roots import INTEL
from kakoi.attest.nitro.verifier import NitroVerifier
from kakoi.attest.nitro.verify import ROOTS as NITRO_ROOTS
from kakoi.attest.nvidia import parse as nvidia_parse
from kakoi.attest.nvidia import verify as nvidia
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.registry import HARDWARE, Verifier
from kakoi.attest.report import AppraisalRefused, PlatformKind, VerifiedEvidence
from kakoi.attest.sgx.verify import SgxVerifier
from kakoi.attest.snp.endorsement import ROOTS as SNP_ROOTS
from kakoi.attest.snp.parse import Product
from kakoi.attest.snp.verifier import SnpVerifier
from kakoi.attest.tdx.verify import TdxVerifier
from kakoi.attest.tokens.verifier import judge_token, verify_token
from kakoi.attest.tokens.verify import Service
from kakoi.conformance.trial import Anchor, Answer, Trial
from kakoi.core.errors import KakoiError, Malformed

_PINNED: Final = INTEL | SNP_ROOTS.keys() | NITRO_ROOTS
SERVICES: Final[frozenset[str]] = frozenset({"azure-maa", "google-confidential-space", "intel-trust-authority"})
NAME: Final = "kakoi"
CHAIN: Final = ("leaf", "device", "provisioner", "line", "root")
"""Parts of an NVIDIA trial's evidence: DER certificates."""


@lru_cache(maxsize=64)
def _verifiers(anchors: tuple[Anchor, ...]) -> Mapping[PlatformKind, Verifier]:
    """Verifiers that pin these anchors and nothing else."""
    keys = frozenset(anchor.spki for anchor in anchors)
    lines: dict[str, Product] = {anchor.spki: cast(Product, anchor.product) for anchor in anchors if anchor.product}
    return MappingProxyType(
        {
            "sgx": SgxVerifier(keys),
            "tdx": TdxVerifier(keys),
            "snp": SnpVerifier(lines),
            "azure-snp": AzureSnpVerifier(lines),
            "azure-tdx": AzureTdxVerifier(TdxVerifier(keys)),
            "nitro": NitroVerifier(keys),
        }
    )


def _chosen(trial: Trial) -> Mapping[PlatformKind, Verifier]:
    """The product's own registry where the trial pins vendors' roots, so that what it pins is on trial too."""
    own = _verifiers(trial.anchors)
    return {**own, **HARDWARE} if {anchor.spki for anchor in trial.anchors} <= _PINNED else own


def verify(trial: Trial) -> VerifiedEvidence:
    """What our verifier proves about the evidence. Raises Malformed and Refused."""
    if trial.format in SERVICES:
        service = cast(Service, trial.format)
        anchors = frozenset(anchor.spki for anchor in trial.anchors)
        return verify_token(trial.evidence.statement, service, trial.collateral, anchors=anchors, now=trial.now)
    return _chosen(trial)[cast(PlatformKind, trial.format)].verify(trial.evidence, trial.collateral, now=trial.now)


def judge(trial: Trial) -> None:
    """Return if we accept. Raises Malformed and Refused otherwise, and AppraisalRefused with the whole verdict."""
    if trial.format == "nvidia":
        _device(trial)
    elif trial.format == "ccel":
        _log(trial)
    elif trial.policy is None:
        verify(trial)
    else:
        _appraise(trial, trial.policy)


def _device(trial: Trial) -> None:
    """A report under its certificates. Raises Malformed for missing ones."""
    given = parts.named(trial.evidence.parts, "NVIDIA trial", allowed=(), required=CHAIN)
    anchors = frozenset(anchor.spki for anchor in trial.anchors)
    report = nvidia_parse.parse(trial.evidence.statement)
    nvidia.verify(report, [given[name] for name in CHAIN], now=trial.now, roots=anchors)


def _log(trial: Trial) -> None:
    """A genuine TDX quote, and a log that replays to all of its registers."""
    given = parts.named(trial.evidence.parts, "event log trial", allowed=(), required=("event-log",))
    quote = replace(trial.evidence, parts=())
    _chosen(trial)["tdx"].verify(quote, trial.collateral, now=trial.now)
    body = dcap_parse.parse(quote.statement).body
    if not isinstance(body, dcap_parse.TdReport):
        raise Malformed("evidence.malformed", "expected the quote of a TDX guest, got another")
    check_rtmrs(ccel_parse.parse(given["event-log"]), body.rtmr)


def _appraise(trial: Trial, policy: AttestationPolicy) -> None:
    report_data = bytes.fromhex(trial.report_data)
    if trial.format in SERVICES:
        entry = registry.find_policy(trial.evidence, policy)
        service, statement = cast(Service, trial.format), trial.evidence.statement
        judge_token(statement, service, trial.collateral, entry, report_data=report_data, now=trial.now)
        return
    registry.judge(
        trial.evidence,
        trial.collateral,
        policy,
        report_data=report_data,
        now=trial.now,
        verifiers=_chosen(trial),
        evaluation_floor=trial.evaluation_floor,
    )


def reasons(error: KakoiError) -> tuple[str, ...]:
    """Why we refused, for comparison with what a twin breaks: an error's code, or the checks that failed."""
    if isinstance(error, AppraisalRefused):
        return tuple(f"appraisal.{check.name}" for check in error.verdict.failed)
    return (error.code,)


class OwnTarget:
    """The verifiers of this package."""

    name = NAME

    def ask(self, trial: Trial) -> Answer:
        """Our answer. Anything raised that is not one of our errors is a mistake of ours and passes through."""
        try:
            judge(trial)
        except KakoiError as error:
            return Answer(outcome="refused", reason=" ".join(reasons(error))[:2000])
        return Answer(outcome="accepted", reason="")

    def close(self) -> None:
        """Nothing to close."""
