"""The corpus itself: complete, enumerable, reproducible, and each twin different from the good one."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from kakoi.conformance import build, recorded
from kakoi.conformance.corpus import FAMILIES, Group, Vector, chosen, count, one, several, twins
from kakoi.conformance.layouts import SNP_REPORT, cbor_spans, event_log_spans, quote_parts, tpm_quote_spans
from kakoi.conformance.nitro import document_spans
from kakoi.conformance.sessions import HONEST, RELAYED
from kakoi.conformance.trial import KINDS, Kind, Trial
from kakoi.core.encoding import dumps
from kakoi.core.errors import Misuse
from kakoi.core.records import to_value
from kakoi.testing import azure_vendor_log as logs

EVIDENCE = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"
needs_recorded = pytest.mark.skipif(not EVIDENCE.is_dir(), reason="recorded evidence is not here (KAKOI_SHARED)")
Minted = Callable[[Kind], tuple[Vector, ...]]

# What each kind's minted corpus has to break. A family that is missing here would be a check that nobody tries.
EVERYWHERE = {"good", "form", "signature", "window", "binding", "debug", "policy", "session"}
MORE: dict[Kind, set[str]] = {
    "sgx": {"chain", "revocation", "tcb"},
    "tdx": {"chain", "revocation", "tcb"},
    "snp": {"chain", "revocation", "tcb"},
    "azure-snp": set(),
    "azure-tdx": set(),
    "nitro": {"chain", "revocation"},
    "azure-maa": {"chain"},
    "google-confidential-space": {"chain"},
    "intel-trust-authority": {"chain"},
    "nvidia": {"chain"},
}
GENUINE = {"good", "form", "signature", "window", "binding"}
"""Of kinds that no policy speaks of."""
MINTED: list[Kind] = [kind for kind in KINDS if kind != "ccel"]
"""Event logs are tried on recorded ones only."""


@pytest.mark.parametrize("kind", MINTED)
def test_each_kind_is_broken_in_each_family(minted: Minted, kind: Kind) -> None:
    families = {group.family for vector in minted(kind) for group in vector.groups}
    assert families >= (GENUINE if kind == "nvidia" else EVERYWHERE) | MORE[kind]
    assert families <= set(FAMILIES)


@pytest.mark.parametrize("kind", MINTED)
def test_ids_are_unique_and_every_vector_begins_with_the_good_one(minted: Minted, kind: Kind) -> None:
    vectors = minted(kind)
    assert len({vector.name for vector in vectors}) == len(vectors)
    for vector in vectors:
        names = [group.name for group in vector.groups]
        assert len(set(names)) == len(names), vector.name
        assert vector.groups[0].name == "good"
        assert not vector.recorded


@pytest.mark.parametrize("kind", MINTED)
def test_no_twin_is_the_good_one(minted: Minted, kind: Kind) -> None:
    for vector in minted(kind):
        good = dumps(to_value(vector.groups[0].make(0)[1]))
        for twin in twins([vector], sample=1, layers=("verify", "appraise")):
            changed, trial = twin.group.make(twin.index)
            assert changed
            assert twin.group.name == "good" or dumps(to_value(trial)) != good, twin.id


@pytest.mark.parametrize("kind", MINTED)
def test_a_trial_tells_nothing_of_what_is_expected(minted: Minted, kind: Kind) -> None:
    vector = minted(kind)[0]
    for twin in list(twins([vector], sample=1, layers=("verify", "appraise")))[:40]:
        trial = twin.group.make(twin.index)[1]
        assert set(to_value(trial)) == {
            "kind", "format", "evidence", "collateral", "anchors", "policy", "report_data", "now", "evaluation_floor",
        }  # fmt: skip
        assert Trial.decode(trial.encode()) == trial


def test_twins_without_minting_are_the_same_each_time(minted: Minted) -> None:
    vector = minted("snp")[0]
    group = next(g for g in vector.groups if g.name == "report.flip")
    assert group.make(77) == group.make(77)
    assert list(chosen(vector, group, 5)) == list(chosen(vector, group, 5))


@pytest.mark.parametrize(("size", "sample", "expected"), [(3, None, 3), (3, 5, 3), (1000, 7, 7), (8, 8, 8), (9, 8, 8)])
def test_samples_are_spread(size: int, sample: int | None, expected: int) -> None:
    group = Group(name="g", family="form", layer="verify", size=size, make=lambda i: (str(i), None))  # type: ignore[arg-type, return-value]
    vector = Vector(name="v", kind="snp", recorded=False, groups=[group])
    indices = list(chosen(vector, group, sample))
    assert len(indices) == len(set(indices)) == expected
    assert all(0 <= index < size for index in indices)
    if expected > 2 and size > expected:
        gaps = [b - a for a, b in pairwise(indices)]
        assert max(gaps) <= 2 * size // expected + 1


def test_layers_choose_groups_and_keep_the_good_ones() -> None:
    def trial() -> Trial:
        raise AssertionError("expected no trial to be made for counting")

    groups = [
        one("good", "good", "appraise", trial),
        one("a.b", "form", "verify", trial),
        one("c", "policy", "appraise", trial),
    ]
    vector = Vector(name="v", kind="snp", recorded=False, groups=groups)
    assert [t.id for t in twins([vector], sample=None, layers=("verify",))] == ["v/good/0", "v/a.b/0"]
    assert count([vector], sample=None, layers=("verify", "appraise")) == 3
    assert several("none", "form", "verify", []) == []


def test_session_values_are_all_different() -> None:
    values = [HONEST, *RELAYED.values()]
    assert len(set(values)) == len(values)
    assert {len(value) for value in values} == {64}


# --- layouts ---------------------------------------------------------------------------------------------------------


def tiles(spans: object, size: int) -> bool:
    """Whether fields follow each other from 0 to ``size`` without a gap."""
    at = 0
    for span in spans:  # type: ignore[attr-defined]
        if span.start != at:
            return False
        at = span.end
    return bool(at == size)


def test_fields_tile_what_they_describe(minted: Minted) -> None:
    assert tiles(SNP_REPORT, 1184)
    for kind in ("sgx", "tdx"):
        for vector in minted(kind):
            raw = vector.groups[0].make(0)[1].evidence.statement
            pieces = quote_parts(raw)
            assert pieces.write() == raw
            assert tiles(pieces.spans(), len(raw))
    parts = {p.name: p.data for p in minted("azure-snp")[0].groups[0].make(0)[1].evidence.parts}
    assert tiles(tpm_quote_spans(parts["tpm-quote"]), len(parts["tpm-quote"]))
    document = minted("nitro")[0].groups[0].make(0)[1].evidence.statement
    assert tiles(document_spans(document), len(document))
    log = logs.first() + logs.event(0, b"abc") + logs.event(1, b"")
    assert tiles(event_log_spans(log + bytes(99)), len(log))


def test_cbor_of_indefinite_length_is_walked() -> None:
    raw = bytes.fromhex("bf 61 61 9f 01 02 ff 61 62 d2 40 ff".replace(" ", ""))
    spans, end = cbor_spans(raw)
    assert end == len(raw)
    assert tiles(sorted(spans, key=lambda span: (span.start, span.end)), len(raw))


@needs_recorded
def test_recorded_quotes_can_be_taken_apart_and_put_together() -> None:
    shelf = recorded.load(EVIDENCE)
    quotes = [base.trial.evidence.statement for base in shelf.good if base.kind in ("sgx", "tdx")]
    assert len(quotes) > 20
    for raw in quotes:
        assert quote_parts(raw).write() == raw


@needs_recorded
def test_every_recorded_vector_has_its_place() -> None:
    """Good ones become bases, documented bad ones are tried as they are; nothing is left out."""
    shelf = recorded.load(EVIDENCE)
    found = (len(shelf.good), len(shelf.devices), len(shelf.logs), len(shelf.bad))
    assert found == (42, 2, 1, 25), found
    assert sum(found) == 70
    assert {vector.groups[0].family for vector in shelf.bad} == {"tcb", "debug", "chain", "signature", "binding"}


@needs_recorded
def test_pieces_that_vectors_share_are_spoilt_once() -> None:
    vectors = [v for v in build.vectors(["sgx"], EVIDENCE) if v.recorded]
    flipped = [(v.name, g.size) for v in vectors for g in v.groups if g.name == "pck_crl_issuer_chain.flip"]
    with_collateral = [v for v in vectors if len(v.groups) > 1]
    assert 0 < len(flipped) < len(with_collateral)


def test_a_folder_without_vectors_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse) as caught:
        recorded.load(tmp_path)
    assert caught.value.code == "conformance.vectors"
