"""Bulletins of hardware vendors in CSAF: ids, affected products, and which past runs they touch; what cannot be read is no bulletin about nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError
from kakoi.guard.weakness.csaf import Bulletin, decode
from kakoi.guard.weakness.exposure import ask, by_bulletins
from unit.weakness.test_exposure import past


def document(**changes: Any) -> dict[str, Any]:
    """As OASIS CSAF 2.0 §3 lays it out: branches by vendor and family, a status for each vulnerability."""
    return {
        "document": {
            "category": "csaf_security_advisory",
            "csaf_version": "2.0",
            "publisher": {"category": "vendor", "name": "AMD", "namespace": "https://vendor.example"},
            "title": "t",
            "tracking": {
                "id": "AMD-SB-3019",
                "status": "final",
                "version": "2",
                "initial_release_date": "2025-02-03T10:00:00Z",
                "current_release_date": "2025-02-04T10:00:00Z",
                "revision_history": [],
                **changes.get("tracking", {}),
            },
            **changes.get("document", {}),
        },
        "product_tree": {
            "branches": [
                {
                    "category": "vendor",
                    "name": "AMD",
                    "branches": [
                        {
                            "category": "product_family",
                            "name": f"EPYC series, formerly codenamed {line}",
                            "product": {"name": f"EPYC {line}", "product_id": line},
                        }
                        for line in ("Milan", "Genoa", "Bergamo", "Turin")
                    ],
                }
            ]
        },
        "vulnerabilities": [
            {
                "cve": "CVE-2024-56161",
                "product_status": {
                    "known_affected": ["Milan"],
                    "known_not_affected": ["Turin"],
                    **changes.get("status", {}),
                },
            }
        ],
    }


def read(**changes: Any) -> Bulletin:
    return decode(json.dumps(document(**changes)).encode())


def reasons(asked: str, bulletin: Bulletin, **claims: Any) -> tuple[str, ...]:
    question = by_bulletins(asked, [bulletin])
    assert question is not None
    found = ask([past(**claims)], question)
    return found[0].reasons if found else ()


def test_names_products_and_lines() -> None:
    found = read()
    assert (found.id, found.released, found.publisher) == ("AMD-SB-3019", "2025-02-04", "AMD")
    assert found.names == {"AMD-SB-3019", "CVE-2024-56161"}
    assert found.lines == {"Milan"}
    assert read(status={"under_investigation": ["Bergamo"]}).lines == {"Milan", "Genoa"}


@pytest.mark.parametrize("asked", ["AMD-SB-3019", "amd-sb-3019", "CVE-2024-56161"])
def test_runs_on_an_affected_line_are_touched(asked: str) -> None:
    assert reasons(asked, read()) == ("snp/Milan: AMD-SB-3019 of 2025-02-04 names this line as affected",)
    assert not reasons(asked, read(), product="Turin")
    assert not reasons(asked, read(), product="Genoa")
    assert not reasons(asked, read(), platform="tdx")


def test_a_bulletin_of_intel_by_its_cve_touches_what_the_vendor_lists() -> None:
    bulletin = read(tracking={"id": "INTEL-SA-00615"}, status={"known_affected": []})
    assert reasons("CVE-2024-56161", bulletin) == ("snp/Milan: the vendor lists INTEL-SA-00615 for this TCB",)
    assert not reasons("CVE-2024-56161", bulletin, advisories=())


def test_a_name_that_no_bulletin_has_is_not_answered_by_one() -> None:
    assert by_bulletins("CVE-2024-00000", [read()]) is None
    assert by_bulletins("AMD-SB-301", [read()]) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"document": {"csaf_version": "1.2"}},
        {"tracking": {"status": "draft"}},
        {"tracking": {"current_release_date": "soon"}},
        {"status": {"known_affected": ["Nobody"]}},
        {"document": {"publisher": None}},
    ],
)
def test_what_cannot_be_read_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(KakoiError) as caught:
        read(**changes)
    assert caught.value.code == "bulletin.csaf"


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(lambda v: json.dumps(v).encode())
)
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(KakoiError) as caught:
        decode(data)
    assert caught.value.code == "bulletin.csaf"


def test_a_tree_without_end_is_refused() -> None:
    value = document()
    deep: dict[str, Any] = {"name": "x", "category": "vendor"}
    for _ in range(100):
        deep = {"name": "x", "category": "vendor", "branches": [deep]}
    value["product_tree"]["branches"] = [deep]
    with pytest.raises(KakoiError):
        decode(json.dumps(value).encode())
