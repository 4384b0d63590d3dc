"""What a weakness touches: every form of question, with runs that it touches and runs that it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kakoi.attest.report import Check, Claims, Component, Measurement, Verdict
from kakoi.core.errors import Misuse
from kakoi.core.ids import ObjectId
from kakoi.guard.intel.index import Index
from kakoi.guard.intel.indicator import Indicator
from kakoi.guard.intel.store import Indicators
from kakoi.guard.registers import code_of
from kakoi.guard.weakness import advisory
from kakoi.guard.weakness.bill import Bill
from kakoi.guard.weakness.exposure import NOT_ASKED, PastRun, Released, Today, ask, question, warned

CODE, OTHER = "aa" * 32, "bb" * 32


def verdict(**changes: object) -> Verdict:
    claims = Claims(
        platform="snp",
        measurements=(Measurement(name="measurement", value=CODE), Measurement(name="host-data", value="cc")),
        report_data="00" * 64,
        debug=False,
        tcb_status="UpToDate",
        advisories=("INTEL-SA-00615",),
        tcb=(Component(name="microcode", version=210), Component(name="snp", version=23)),
        tcb_date=None,
        tcb_evaluation_number=None,
        platform_identity="",
        product="Milan",
        root=ObjectId("00" * 32),
        settings=(),
    )
    return Verdict(
        claims=replace(claims, **changes),  # type: ignore[arg-type]
        protected_by_hardware=True,
        checks=(Check(name="x", outcome="passed", expected="", got="", mender="nobody"),),
        evaluated_at=1000,
        collateral=(),
        collateral_issued_at=None,
    )


def past(name: str = "1", today: Today = NOT_ASKED, **changes: object) -> PastRun:
    released = Released(owner="North", verdict=verdict(**changes), manifests=("m1", "m2"), today=today)
    return PastRun(passport="p", run=name, contract="c", output="o", released=(released,))


def reasons(text: str, run: PastRun, **more: object) -> tuple[str, ...]:
    found = ask([run], question(text, **more))  # type: ignore[arg-type]
    return found[0].reasons if found else ()


def test_a_tcb_below_a_version() -> None:
    assert reasons("snp/Milan:microcode<213", past()) == ("snp/Milan: microcode 210 is below 213",)
    assert reasons("snp/milan:microcode<211", past())
    assert reasons("snp:microcode<211", past())
    assert not reasons("snp/Milan:microcode<210", past())
    assert not reasons("snp/Genoa:microcode<213", past())
    assert not reasons("tdx:microcode<213", past())
    assert reasons("snp:pce<1", past()) == ("snp/Milan: its TCB does not tell pce",), "what is not told is not excluded"


def test_an_advisory_of_the_vendor() -> None:
    assert reasons("intel-sa-00615", past()) == ("snp/Milan: the vendor lists INTEL-SA-00615 for this TCB",)
    assert not reasons("INTEL-SA-00999", past())
    newer = Today(verdict=verdict(advisories=("INTEL-SA-00999",)))
    assert reasons("INTEL-SA-00999", past(today=newer)) == (
        "snp/Milan: the vendor lists INTEL-SA-00999 for this TCB today",
    )


def test_what_newer_endorsements_refuse() -> None:
    assert not reasons("today", past(today=Today(verdict=verdict())))
    assert reasons("today", past(today=Today(refused=("tcb-status",)))) == ("snp: refused today by tcb-status",)


PACKAGES = (advisory.Component(name="duckdb", version="2.0.1"), advisory.Component(name="scikit-learn", version="1.5"))
BILLS = [Bill(name="kakoi-enclave", measurement=CODE, packages=PACKAGES)]


def test_a_package_in_the_measured_image() -> None:
    assert reasons("duckdb<2.0.2", past(), bills=BILLS) == (f"image {CODE[:16]}: it holds duckdb 2.0.1",)
    assert reasons("scikit_learn==1.5", past(), bills=BILLS)
    assert not reasons("duckdb<2.0.1", past(), bills=BILLS)
    assert not reasons("numpy<99", past(), bills=BILLS)


def test_without_a_bill_nothing_is_excluded() -> None:
    assert "nobody gave the bill" in reasons("numpy<1", past())[0]
    elsewhere = past(measurements=(Measurement(name="measurement", value=OTHER),))
    assert "nobody gave the bill" in reasons("numpy<1", elsewhere, bills=BILLS)[0]
    assert "unknown" in reasons("numpy<1", past(measurements=()), bills=BILLS)[0]


def test_an_advisory_about_a_package() -> None:
    spans = (advisory.Span(introduced="0", fixed="2.0.2"),)
    known = advisory.Advisory(
        id="PYSEC-9",
        aliases=("CVE-2026-1", "GHSA-a"),
        published="2026-01-01",
        affected=(advisory.Affected(package="duckdb", spans=spans, versions=()),),
    )
    for name in ("PYSEC-9", "cve-2026-1", "GHSA-a"):
        assert reasons(name, past(), bills=BILLS, advisories=[known]) == (
            f"image {CODE[:16]}: duckdb 2.0.1 has PYSEC-9",
        )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CVE-2026-9",
        "PYSEC-1",
        "GHSA-x",
        "a b c",
        "snp:microcode<x",
        "duckdb[extra]<2",
        "duckdb<2; python_version<'3'",
    ],
)
def test_what_is_no_question(text: str) -> None:
    """An advisory that nobody imported is none, so that nobody takes silence for safety."""
    with pytest.raises(Misuse) as caught:
        question(text)
    assert caught.value.code == "exposure.question"


def test_runs_come_in_order_with_the_keys_that_were_in_reach() -> None:
    touched = ask([past("2"), past("1"), past("3", platform="tdx")], question("snp:microcode<213"))
    assert [item.run.run for item in touched] == ["1", "2"]
    assert touched[0].keys == (("North", "m1"), ("North", "m2"))


@pytest.mark.parametrize(
    ("indicator", "touched"),
    [
        ({"kind": "measurement", "value": CODE}, True),
        ({"kind": "platform", "value": "0102030405"}, True),
        ({"kind": "package", "value": "duckdb==2.0.1"}, True),
        ({"kind": "measurement", "value": OTHER}, False),
        ({"kind": "package", "value": "duckdb==2.0.2"}, False),
        ({"kind": "measurement", "value": CODE, "valid_until": 900}, False),
        ({"kind": "package", "value": "duckdb==2.0.1", "source": "stranger"}, False),
        ({"kind": "platform", "value": "0102030405", "confidence": 49}, False),
    ],
)
def test_what_others_warn_of_is_found_in_past_runs(indicator: dict[str, Any], touched: bool) -> None:
    base = {"id": "indicator--1", "confidence": 50, "valid_from": 0, "valid_until": 2000, "source": "cert", "tlp": ""}
    known = Index(Indicators(sources={"cert": 100}, items=(Indicator(**{**base, "modified": "", **indicator}),)))
    bill = Bill(name="x", measurement=CODE, packages=(advisory.Component(name="DuckDB", version="2.0.1"),))
    found = ask([past(platform_identity="0102030405")], warned(known, bills=[bill], now=1000))
    assert bool(found) is touched


@pytest.mark.parametrize(
    ("platform", "registers", "code"),
    [
        ("azure-snp", {"measurement": "11" * 48, "pcr0": "22" * 32, "pcr4": CODE, "pcr11": OTHER}, {CODE, OTHER}),
        ("azure-snp", {"pcr4": CODE, "pcr11": "00" * 32}, {CODE}),
        (
            "tdx",
            {"mrtd": "11" * 48, "rtmr0": "22" * 48, "rtmr1": "33" * 48, "rtmr3": "00" * 48},
            {"11" * 48, "33" * 48},
        ),
        ("nitro", {"pcr0": "11" * 48, "pcr4": "22" * 48}, {"11" * 48}),
        ("sgx", {"mrenclave": CODE, "mrsigner": OTHER}, {CODE}),
    ],
)
def test_which_registers_name_code(platform: str, registers: dict[str, str], code: set[str]) -> None:
    measured = tuple(Measurement(name=name, value=value) for name, value in registers.items())
    assert code_of(verdict(platform=platform, measurements=measured).claims) == code
