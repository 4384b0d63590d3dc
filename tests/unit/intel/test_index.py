"""One thing among many indicators: found exactly when an indicator that is believed and in its time names it."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import Malformed
from kakoi.guard.intel import store
from kakoi.guard.intel.index import Index, Network, Shelf
from kakoi.guard.intel.indicator import FOREVER, Indicator, Kind
from kakoi.guard.intel.store import Indicators
from kakoi.party.files import write_private

NOW = 1_800_000_000


def indicator(value: str = "198.51.100.7/32", *, kind: Kind = "address", **changes: object) -> Indicator:
    made = Indicator(
        id="indicator--1", kind=kind, value=value, confidence=80, valid_from=NOW - 10, valid_until=NOW + 10,
        source="cert", tlp="", modified="",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def index(*items: Indicator, spared: tuple[Network, ...] = (), trust: int = 100) -> Index:
    return Index(Indicators(sources={"cert": trust}, items=items), spared=spared)


@pytest.mark.parametrize(
    ("network", "address", "found"),
    [
        ("198.51.100.7/32", "198.51.100.7", True),
        ("198.51.100.7/32", "198.51.100.8", False),
        ("198.51.100.0/24", "198.51.100.255", True),
        ("198.51.100.0/24", "198.51.101.0", False),
        ("198.51.100.0/24", "::ffff:198.51.100.9", True),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:db8::1/128", "2001:db8::1%eth0", True),
        ("198.51.100.7/32", "", False),
        ("198.51.100.7/32", "testclient", False),
        ("127.0.0.0/16", "127.0.0.1", False),
        ("::1/128", "::1", False),
        ("127.0.0.1/32", "::ffff:127.0.0.1", False),
    ],
)
def test_addresses_and_networks(network: str, address: str, found: bool) -> None:
    assert (index(indicator(network)).of_address(address, NOW) is not None) is found


@pytest.mark.parametrize(
    "changes",
    [
        {"valid_until": NOW},
        {"valid_from": NOW + 1},
        {"confidence": 49},
        {"source": "stranger"},
    ],
)
def test_what_is_expired_unsure_or_a_strangers_names_nobody(changes: dict[str, Any]) -> None:
    known = index(indicator(**changes), indicator("ab" * 32, kind="key", **changes))
    assert known.of_address("198.51.100.7", NOW) is None
    assert known.find("key", ["ab" * 32], NOW) is None


def test_trust_and_confidence_together_have_to_suffice() -> None:
    assert index(indicator(), trust=62).of_address("198.51.100.7", NOW) is None
    assert index(indicator(), trust=63).of_address("198.51.100.7", NOW) is not None


def test_one_active_indicator_of_several_suffices() -> None:
    known = index(indicator(valid_until=NOW), indicator(id="indicator--2"))
    found = known.of_address("198.51.100.7", NOW)
    assert found is not None
    assert found.id == "indicator--2"


def test_ones_own_networks_are_spared_unless_they_are_half_of_the_internet() -> None:
    inside, everything = ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("0.0.0.0/0")
    assert index(indicator(), spared=(inside,)).of_address("198.51.100.7", NOW) is None
    assert index(indicator(), spared=(everything,)).of_address("198.51.100.7", NOW) is not None
    assert [item.id for item in index(indicator(), spared=(inside,)).spared(NOW)] == ["indicator--1"]
    assert index(indicator(), spared=(everything,)).spared(NOW) == []


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(16, 32)), max_size=8), st.integers(0, 2**32 - 1))
def test_the_index_says_what_a_search_of_all_says(networks: list[tuple[int, int]], number: int) -> None:
    made = [ipaddress.ip_network((address, length), strict=False) for address, length in networks]
    address = ipaddress.ip_address(number)
    expected = any(address in network for network in made) and not address.is_loopback
    known = index(*(indicator(str(network)) for network in made))
    assert (known.of_address(str(address), NOW) is not None) is expected


def test_a_shelf_reads_a_changed_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    shelf = Shelf(tmp_path)
    original = store.load

    def read(directory: Path) -> Indicators:
        reads.append(1)
        return original(directory)

    monkeypatch.setattr(store, "load", read)
    assert shelf.index().of_address("198.51.100.7", NOW) is None
    known = Indicators(sources={"cert": 100}, items=(indicator(valid_until=FOREVER),))
    write_private(tmp_path / store.FILE, known.encode())
    before = len(reads)
    assert all(shelf.index().of_address("198.51.100.7", NOW) is not None for _ in range(5))
    assert len(reads) == before + 1
    (tmp_path / store.FILE).write_text("{}")
    for _ in range(2):
        with pytest.raises(Malformed):
            shelf.index()
    assert shelf.last.of_address("198.51.100.7", NOW) is not None
    (tmp_path / store.FILE).unlink()
    assert shelf.index().of_address("198.51.100.7", NOW) is None


@pytest.mark.parametrize("value", ["0.0.0.0/0", "10.0.0.0/8", "2000::/3", "no address", ""])
def test_a_file_that_names_half_of_the_internet_is_damaged(value: str) -> None:
    with pytest.raises(Malformed):
        store.decode(Indicators(items=(indicator(value),)).encode())
