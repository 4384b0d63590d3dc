"""Verdicts per second on the other kinds of evidence with every check on, beside the bare signature in the same run.

One thread, CPU time. Each round judges fresh evidence of one platform, which differs in its report data: parse, verify,
appraisal of a complete policy, verdict as a record. Outcomes for certificates that were seen before are kept, as in a
broker; one row has a new chip in every report, so that nothing can be kept but AMD's own certificates.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace

from kakoi.attest.azure.verifier import AzureSnpVerifier
from kakoi.attest.ccel import replay
from kakoi.attest.draft import draft
from kakoi.attest.nitro.verifier import NitroVerifier
from kakoi.attest.nvidia import parse as nvidia_parse
from kakoi.attest.nvidia import verify as nvidia
from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, Unchecked
from kakoi.attest.registry import Verifier, judge
from kakoi.attest.report import Collateral, Evidence, PlatformKind
from kakoi.attest.snp import parse as snp_parse
from kakoi.attest.snp.verifier import SnpVerifier
from kakoi.attest.tokens.verifier import judge_token, verify_token
from kakoi.testing import (
    amd_vendor,
    attest_kit,
    azure_vendor,
    azure_vendor_log,
    nitro_vendor,
    nvidia_vendor,
    token_vendor,
)
from kakoi.testing import x509_kit as kit

REPORTS = 100
ROUNDS = 3
GOAL = 1000
_DAYS = 10 * 86400
_ANY = Unchecked(reason="every report comes from another machine")
Row = tuple[str, float, str]


def _data(index: int) -> bytes:
    return hashlib.sha512(index.to_bytes(4, "big")).digest()


def _rate(work: Callable[[], object], count: int, rounds: int = ROUNDS) -> float:
    """The best of a few rounds of ``work``, which does ``count`` things."""
    best = 0.0
    for _ in range(rounds):
        started = time.process_time()
        work()
        best = max(best, count / (time.process_time() - started))
    return best


class _Work:
    """Evidence of one platform with the policy that accepts all of it."""

    def __init__(
        self, platform: PlatformKind, verifier: Verifier, evidence: list[Evidence], pieces: list[dict[str, bytes]]
    ) -> None:
        self.evidence = evidence
        self.collateral = [Collateral(parts=attest_kit.pieces(p)) for p in pieces]
        self.verifiers: dict[PlatformKind, Verifier] = {platform: verifier}
        verified = verifier.verify(evidence[0], self.collateral[0], now=kit.NOW)
        policy = draft(verified, collateral_max_age=_DAYS)
        self.policy = AttestationPolicy(accepted=(replace(policy, platforms=_ANY),))

    def verdicts(self) -> None:
        for i, evidence in enumerate(self.evidence):
            collateral = self.collateral[i % len(self.collateral)]
            judge(evidence, collateral, self.policy, report_data=_data(i), now=kit.NOW, verifiers=self.verifiers)

    def row(self, name: str, detail: str, rounds: int = ROUNDS) -> Row:
        return (name, _rate(self.verdicts, len(self.evidence), rounds), detail)


def _snp() -> list[Row]:
    vendor = amd_vendor.vendor("Genoa")
    chip = vendor.chip()
    statements = [vendor.signed(chip, report_data=_data(i)) for i in range(REPORTS)]
    evidence = [Evidence(platform="snp", statement=s, parts=()) for s in statements]
    work = _Work("snp", SnpVerifier(vendor.roots), evidence, [vendor.collateral(chip)])
    chips = [vendor.chip() for _ in range(REPORTS)]
    fresh = [vendor.signed(c, report_data=_data(i)) for i, c in enumerate(chips)]
    crl = vendor.crl()
    strangers = _Work(
        "snp",
        SnpVerifier(vendor.roots),
        [Evidence(platform="snp", statement=s, parts=()) for s in fresh],
        [vendor.collateral(c, crl=crl) for c in chips],
    )
    reports = [snp_parse.parse(s) for s in statements]

    def bare() -> None:
        for report in reports:
            chip.key.public.verify_ecdsa_raw(report.signature, report.signed, "report")

    checks = len(
        judge(
            evidence[0], work.collateral[0], work.policy, report_data=_data(0), now=kit.NOW, verifiers=work.verifiers
        ).checks
    )
    floor = _rate(bare, REPORTS)
    row = work.row("SNP, verdicts/s", "")
    detail = f"goal {GOAL}; {checks} checks, list and chain, one chip; {floor / row[1]:.2f} x the time of its signature"
    return [
        (row[0], row[1], detail),
        strangers.row("SNP, verdicts/s, new chip each time", "chip, intermediate, root and list verified each time", 1),
        ("P-384 signature alone, /s", floor, "floor of the above, same library"),
    ]


def _azure() -> Row:
    guest = azure_vendor.guest("Genoa")
    evidence = []
    for i in range(REPORTS):
        quote = guest.tpm.attest(_data(i))
        evidence.append(guest.evidence(tpm_quote=quote, tpm_signature=guest.tpm.sign(quote)))
    work = _Work("azure-snp", AzureSnpVerifier(guest.vendor.roots), evidence, [guest.vendor.collateral(guest.chip)])
    return work.row("Azure SNP with vTPM quote, verdicts/s", "24 PCRs, HCL claims")


def _nitro() -> Row:
    vendor = nitro_vendor.vendor()
    documents = [vendor.document(user_data=_data(i)) for i in range(REPORTS)]
    evidence = [Evidence(platform="nitro", statement=d, parts=()) for d in documents]
    work = _Work("nitro", NitroVerifier(vendor.roots), evidence, [vendor.lists()])
    return work.row("Nitro, verdicts/s", "five certificates, all verified again for each document")


def _tokens() -> list[Row]:
    rows: list[Row] = []
    for signed in (
        token_vendor.make("azure-maa", token_vendor.azure_claims()),
        token_vendor.make("google-confidential-space", token_vendor.google_claims()),
        token_vendor.make("intel-trust-authority", token_vendor.intel_claims()),
    ):
        pieces = {} if signed.keys is None else {"jwks": signed.keys}
        collateral = Collateral(parts=attest_kit.pieces(pieces))
        verified = verify_token(signed.token, signed.service, collateral, anchors=signed.anchors, now=kit.NOW)
        policy = draft(verified, collateral_max_age=_DAYS)

        def work(
            signed: token_vendor.Signed = signed, policy: PlatformPolicy = policy, collateral: Collateral = collateral
        ) -> None:
            for _ in range(REPORTS):
                judge_token(
                    signed.token, signed.service, collateral, policy, report_data=token_vendor.REPORT_DATA, now=kit.NOW
                )

        rows.append((f"token {signed.service}, verdicts/s", _rate(work, REPORTS), f"{len(signed.token)} bytes"))
    return rows


def _rest() -> list[Row]:
    log = azure_vendor_log.first() + azure_vendor_log.event(4, b"x" * 200) * 100

    def replayed() -> None:
        for _ in range(20):
            replay.replay(replay.parse(log), "sha256")

    device = nvidia_vendor.device()
    report, chain = nvidia_parse.parse(device.report(bytes(32))), device.chain()

    def devices() -> None:
        for _ in range(20):
            nvidia.verify(report, chain, now=kit.NOW, roots=device.roots)

    return [
        ("event log of 100 events, replays/s", _rate(replayed, 20), f"{len(log)} bytes"),
        ("NVIDIA report, verifications/s", _rate(devices, 20), "five certificates, 64 measurements"),
    ]


def run() -> list[Row]:
    """Rows of name, rate per second and detail."""
    return [*_snp(), _azure(), _nitro(), *_tokens(), *_rest()]
