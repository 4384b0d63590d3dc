"""The example adapter: the report names what bare dcap-qvl accepts and should refuse, and ours has none of it.

Each gap here was measured by others before (docs/conformance.md). When one of these tests fails, the library has learnt a rule.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from kakoi.conformance.adapter import AdapterTarget
from kakoi.conformance.corpus import Vector
from kakoi.conformance.own import OwnTarget
from kakoi.conformance.run import Report, run
from kakoi.conformance.trial import Kind
from support.tree import ROOT

Minted = Callable[[Kind], tuple[Vector, ...]]
ADAPTER = ROOT / "examples" / "adapters" / "dcap_qvl_adapter.py"


def bare(vectors: list[Vector], *, sample: int) -> Report:
    target = AdapterTarget(f"{sys.executable} {ADAPTER}", timeout=20.0)
    return run(vectors, target, sample=sample, layers=("verify",))


def only(vectors: tuple[Vector, ...], *prefixes: str) -> list[Vector]:
    """The good one, and the groups whose names begin like this."""
    return [
        replace(v, groups=[g for g in v.groups if g.name == "good" or g.name.startswith(prefixes)]) for v in vectors
    ]


GAPS: dict[str, tuple[str, set[str]]] = {
    "PCEID is not compared": (
        "binding.platform",
        {"TCB information of another PCEID", "PCK certificate of another PCEID"},
    ),
    "upper half of the QE report data": (
        "binding.qe-report",
        {f"upper half of the QE report data: byte {i} not zero" for i in (0, 15, 31)},
    ),
    "bytes after the quote": (
        "quote.extend",
        {"quote: a byte 01 after the end", "quote: a copy of itself after the end"},
    ),
    "names of certificates: a PCK key can sign TCB information": (
        "chain.name",
        {"PCK CA of another name", "PCK certificate of another name", "TCB information signed by the platform"},
    ),
    "lists from the future": ("revocation.list", {"PCK list from tomorrow", "root list from tomorrow"}),
    "unknown versions": ("form.vendor-json", {"TCB information with version 4", "TCB information with tcbType 1"}),
}


@pytest.mark.parametrize("gap", GAPS)
def test_known_gaps_are_named(minted: Minted, gap: str) -> None:
    group, changed = GAPS[gap]
    vectors = only(minted("sgx"), group)
    report = bare(vectors, sample=200)
    accepted = {finding.changed for finding in report.findings if finding.problem == "accepted"}
    assert accepted >= changed
    ours = run(vectors, OwnTarget(), sample=200)
    assert ours.findings == ()


def test_a_part_that_is_never_read_and_spellings_of_the_chain(minted: Minted) -> None:
    vectors = only(minted("sgx"), "pck_crl_issuer_chain.", "pck-chain.spelling")
    report = bare(vectors, sample=8)
    by_group: dict[str, int] = {}
    for finding in report.findings:
        by_group[finding.group] = by_group.get(finding.group, 0) + 1
    assert by_group["pck-chain.spelling"] == 8
    assert by_group["pck_crl_issuer_chain.flip"] > 5
    assert run(vectors, OwnTarget(), sample=8).findings == ()


def test_what_it_checks_it_refuses(minted: Minted) -> None:
    """The comparison is fair: revocation, levels, signatures, debug and forged texts are refused by both."""
    groups = ("revocation.revoked", "tcb.", "signature.", "debug.", "tcb_info.forged", "chain.root", "chain.window")
    report = bare(only(minted("sgx"), *groups), sample=200)
    assert report.findings == ()
    assert sum(tally.twins for tally in report.tallies) > 60


def test_other_kinds_are_not_held_against_it(minted: Minted) -> None:
    report = bare(list(minted("nitro"))[:1], sample=1)
    assert report.findings == ()
    assert sum(tally.unsupported for tally in report.tallies) > 10
