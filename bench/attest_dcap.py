"""Verdicts per second on DCAP evidence with every check on, beside bare dcap-qvl on the same quotes in the same run.

One thread, CPU time of the process, with the time on the wall beside it: on a busy machine the two differ. Each round judges fresh quotes of one platform: parse, our own verifier, dcap-qvl as second opinion,
appraisal of a complete policy, and the verdict as a record. Verified collateral and PCK chains are kept between quotes, as
in a broker; report data differ in every quote. Bare dcap-qvl keeps nothing, and appraises nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import dcap_qvl

from kakoi.attest.dcap.own import collateral as own_collateral
from kakoi.attest.dcap.own import verify as own_verify
from kakoi.attest.dcap.parse import BodyKind, parse
from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.registry import Verifier, judge
from kakoi.attest.report import Evidence, PlatformKind
from kakoi.testing.dcap_vendor import DAY, NOW, Vendor, sgx_body, td_body
from kakoi.testing.dcap_vendor_corpus import verifier_of

QUOTES = 200
ROUNDS = 5
GOAL = 900
Row = tuple[str, float, str]


class _Work:
    """Quotes of one kind that differ in their report data, with the policy that accepts them."""

    def __init__(self, kind: BodyKind, quotes: int) -> None:
        self.vendor, self.kind = Vendor(), kind
        self.platform: PlatformKind = "sgx" if kind == "sgx" else "tdx"
        self.report_data = [hashlib.sha512(i.to_bytes(4, "big")).digest() for i in range(quotes)]
        self.evidence = [self._evidence(data) for data in self.report_data]
        self.collateral = self.vendor.collateral(kind)
        self.verifiers: dict[PlatformKind, Verifier] = {self.platform: verifier_of(kind, self.vendor.roots)}
        verified = self.verifiers[self.platform].verify(self.evidence[0], self.collateral, now=NOW)
        self.policy = AttestationPolicy(accepted=(draft(verified, collateral_max_age=2 * DAY),))
        parts = {part.name: part.data for part in self.collateral.parts}
        text = {k: v.decode() for k, v in parts.items() if "chain" in k or k in ("tcb_info", "qe_identity")}
        self.library = dcap_qvl.QuoteCollateralV3(**{**parts, **text})

    def _evidence(self, report_data: bytes) -> Evidence:
        body = sgx_body(report_data=report_data) if self.kind == "sgx" else td_body(self.kind, report_data=report_data)
        return self.vendor.evidence(body, kind=self.kind)

    def verdicts(self) -> None:
        for evidence, data in zip(self.evidence, self.report_data, strict=True):
            judge(evidence, self.collateral, self.policy, report_data=data, now=NOW, verifiers=self.verifiers)

    def own(self) -> None:
        for evidence in self.evidence:
            verified = own_collateral.verify(self.collateral, roots=self.vendor.roots, now=NOW)
            own_verify.verify(parse(evidence.statement), verified, roots=self.vendor.roots, now=NOW)

    def bare(self) -> None:
        root = self.vendor.root.der
        for evidence in self.evidence:
            dcap_qvl.verify_with_root_ca(evidence.statement, self.library, root, NOW)


def _rates(work: Callable[[], None], quotes: int) -> tuple[float, float]:
    """The best of a few rounds: quotes for each second of CPU, and of the wall."""
    cpu = wall = float("inf")
    for _ in range(ROUNDS):
        start, began = time.process_time(), time.perf_counter()
        work()
        cpu, wall = min(cpu, time.process_time() - start), min(wall, time.perf_counter() - began)
    return quotes / cpu, quotes / wall


def run(quotes: int = QUOTES) -> list[Row]:
    """Name, rate per second or ratio to bare dcap-qvl (1.0 is as fast), and detail."""
    rows: list[Row] = []
    kinds: list[tuple[str, BodyKind]] = [("SGX v3", "sgx"), ("TDX v4", "td-1.0"), ("TDX v5", "td-1.5")]
    for name, kind in kinds:
        work = _Work(kind, quotes)
        (bare, _), (own, _), (verdicts, wall) = (_rates(w, quotes) for w in (work.bare, work.own, work.verdicts))
        detail = (
            f"{verdicts:.0f}/s with every check ({wall:.0f}/s on the wall), bare dcap-qvl {bare:.0f}/s; goal {GOAL}/s"
        )
        rows.append((f"{name} verdicts / bare dcap-qvl", verdicts / bare, detail))
        rows.append((f"{name} own verifier / bare dcap-qvl", own / bare, f"{own:.0f}/s without second opinion"))
    return rows


if __name__ == "__main__":
    for row in run():
        print(f"{row[0]:40} {row[1]:6.2f}  {row[2]}")
