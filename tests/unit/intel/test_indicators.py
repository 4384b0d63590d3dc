"""Indicators: what can be acted on, what is set aside, and when one acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError, Malformed
from kakoi.guard.intel import store
from kakoi.guard.intel.indicator import FOREVER, UNSTATED, Indicator, SetAside, parse, pattern
from kakoi.guard.intel.store import Indicators, decode, read_objects
from kakoi.party.files import write_private

CODE = "ab" * 32


def stix(pattern: str = f"[x-kakoi-measurement:value = '{CODE}']", **changes: Any) -> dict[str, Any]:
    return {
        "type": "indicator",
        "spec_version": "2.1",
        "id": "indicator--11111111-1111-4111-8111-111111111111",
        "created": "2026-01-01T00:00:00.000Z",
        "modified": "2026-01-02T00:00:00.000Z",
        "pattern": pattern,
        "pattern_type": "stix",
        "valid_from": "2026-01-01T00:00:00Z",
        "valid_until": "2026-02-01T00:00:00Z",
        "confidence": 80,
        **changes,
    }


def read(value: dict[str, Any]) -> Indicator | SetAside | None:
    return parse(value, source="cert", tlp=store.KNOWN_MARKINGS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[ipv4-addr:value = '198.51.100.7']", ("address", "198.51.100.7/32")),
        ("[ipv4-addr:value ISSUBSET '198.51.100.0/24']", ("address", "198.51.100.0/24")),
        ("[ipv6-addr:value = '2001:db8::1']", ("address", "2001:db8::1/128")),
        (f"[x-kakoi-key:fingerprint = '{CODE}']", ("key", CODE)),
        (f"[x-kakoi-measurement:value = '{CODE.upper()}']", ("measurement", CODE)),
        ("[x-kakoi-platform:identity = '00112233']", ("platform", "00112233")),
        ("[software:name = 'Duck_DB' AND software:version = '2.0.1']", ("package", "duck-db==2.0.1")),
    ],
)
def test_patterns_that_can_be_acted_on(text: str, expected: tuple[str, str]) -> None:
    assert pattern(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[ipv4-addr:value = '198.51.100.0/24']",
        "[ipv4-addr:value ISSUBSET '0.0.0.0/0']",
        "[ipv4-addr:value ISSUBSET '10.0.0.0/8']",
        "[ipv6-addr:value ISSUBSET '2000::/3']",
        "[ipv4-addr:value = '2001:db8::1']",
        "[ipv4-addr:value != '198.51.100.7']",
        f"[x-kakoi-measurement:value = '{CODE[:-1]}']",
        f"[x-kakoi-measurement:value = '{CODE}' OR x-kakoi-measurement:value = '{CODE}']",
        f"[x-kakoi-measurement:value = '{CODE}'] REPEATS 5 TIMES",
        f"NOT [x-kakoi-measurement:value = '{CODE}']",
        "[file:hashes.'SHA-256' = 'aa']",
    ],
)
def test_patterns_that_are_not_half_understood(text: str) -> None:
    """Half of the internet in one indicator is not acted on either."""
    assert pattern(text) is None
    assert isinstance(read(stix(text)), SetAside)


def test_an_indicator() -> None:
    found = read(stix(object_marking_refs=["marking-definition--f88d31f6-486f-44da-b317-01333bde0b82"]))
    assert isinstance(found, Indicator)
    assert (found.kind, found.value, found.confidence, found.tlp) == ("measurement", CODE, 80, "TLP:AMBER")
    assert not found.active(found.valid_from - 1)
    assert found.active(found.valid_from)
    assert not found.active(found.valid_until)
    open_ended = stix()
    del open_ended["valid_until"], open_ended["confidence"]
    unlimited = read(open_ended)
    assert isinstance(unlimited, Indicator)
    assert (unlimited.valid_until, unlimited.confidence) == (FOREVER, UNSTATED)


@pytest.mark.parametrize(
    "changes",
    [
        {"revoked": True},
        {"confidence": 101},
        {"confidence": True},
        {"confidence": "80"},
        {"pattern_type": "sigma"},
        {"spec_version": "2.0"},
        {"valid_from": "yesterday"},
        {"valid_from": 5},
        {"valid_until": "2026-02-01T00:00:00+09:00"},
        {"pattern": 7},
    ],
)
def test_what_is_set_aside(changes: dict[str, Any]) -> None:
    assert isinstance(read(stix(**changes)), SetAside)


def test_other_objects_are_nothing_and_no_object_is_an_error() -> None:
    assert read({"type": "malware", "id": "malware--1"}) is None
    wrong: tuple[Any, ...] = (None, [], {}, {"type": "indicator"}, {"id": 1, "type": "indicator"})
    for value in wrong:
        with pytest.raises(Malformed):
            parse(value, source="", tlp={})


def only(**changes: Any) -> Indicators:
    found, _ = read_objects([stix(**changes)], source="cert")
    return Indicators().merged(found, now=0)


def test_when_an_indicator_acts() -> None:
    """Confidence times trust must reach the minimum; a source that nobody named is believed in nothing."""
    now = only().items[0].valid_from
    assert only().acting("measurement", now) == {}
    assert set(only().trusting("cert", 100).acting("measurement", now)) == {CODE}
    assert set(only().trusting("cert", 63).acting("measurement", now)) == {CODE}
    assert only().trusting("cert", 62).acting("measurement", now) == {}
    assert only().trusting("other", 100).acting("measurement", now) == {}
    assert only().trusting("cert", 100).acting("platform", now) == {}
    assert only().trusting("cert", 100).acting("measurement", now - 1) == {}


def test_a_later_version_counts_and_a_revoked_or_expired_one_goes() -> None:
    known = only().trusting("cert", 100)
    later, _ = read_objects([stix(confidence=10, modified="2026-01-03T00:00:00.000Z")], source="cert")
    earlier, _ = read_objects([stix(confidence=99, modified="2025-01-03T00:00:00.000Z")], source="cert")
    _, revoked = read_objects([stix(revoked=True)], source="cert")
    assert known.merged(later, now=0).items[0].confidence == 10
    assert known.merged(earlier, now=0).items[0].confidence == 80
    assert known.merged(revoked, now=0).items == ()
    assert known.merged([], now=known.items[0].valid_until).items == ()


def test_a_file_holds_what_was_put_in(tmp_path: Path) -> None:
    known = only().trusting("cert", 70)
    write_private(tmp_path / store.FILE, known.encode())
    assert store.load(tmp_path) == known
    assert [path.name for path in tmp_path.iterdir()] == [store.FILE]
    assert store.load(tmp_path / "nowhere") == Indicators()


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_a_damaged_file_is_no_empty_list(data: bytes) -> None:
    with pytest.raises(KakoiError) as caught:
        decode(data)
    assert caught.value.code == "intel.file"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"minimum": 50', b'"minimum": 0'), (b'"cert": 70', b'"cert": 700'), (b'"confidence": 80', b'"confidence": "x"')],
)
def test_altered_members_are_noticed(old: bytes, new: bytes) -> None:
    data = only().trusting("cert", 70).encode()
    assert old in data
    with pytest.raises(Malformed):
        decode(data.replace(old, new))
