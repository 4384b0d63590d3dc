"""Sigma: what the specification says about fields, modifiers, conditions and correlations; what is not known is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import Malformed
from kakoi.guard.sigma.engine import Engine
from kakoi.guard.sigma.match import detection
from kakoi.guard.sigma.rules import AnyRule, read_rules, shipped, shipped_texts
from kakoi.say import catalogue

EVENT = {
    "status_id": 2,
    "user": {"name": "Aoki"},
    "code": "dcap.quote",
    "path": "C:\\x*y",
    "ip": "192.0.2.7",
    "marks": ["first-seen", "late"],
    "nothing": None,
}
ID = "00000000-0000-0000-0000-00000000000"


@pytest.mark.parametrize(
    ("search", "hit"),
    [
        ({"status_id": 2}, True),
        ({"status_id": "2"}, True),
        ({"status_id": [1, 2]}, True),
        ({"status_id": 1}, False),
        ({"user.name": "AOKI"}, True),
        ({"user.name|cased": "AOKI"}, False),
        ({"code": "dcap.*"}, True),
        ({"code": "dcap.quot?"}, True),
        ({"code": "dcap.quote?"}, False),
        ({"path": "C:\\\\x\\*y"}, True),
        ({"path": "C:\\\\x\\*z"}, False),
        ({"code|startswith": "dcap"}, True),
        ({"code|endswith": "quote"}, True),
        ({"code|contains": "ap.q"}, True),
        ({"code|re": "^d.{3}\\."}, True),
        ({"code|re|i": "^DCAP"}, True),
        ({"code|re": "^DCAP"}, False),
        ({"marks": "late"}, True),
        ({"marks|all": ["late", "first-seen"]}, True),
        ({"marks|all": ["late", "never"]}, False),
        ({"marks|neq": "never"}, True),
        ({"marks|neq": "late"}, False),
        ({"ip|cidr": "192.0.2.0/24"}, True),
        ({"ip|cidr": "198.51.100.0/24"}, False),
        ({"status_id|gte": 2}, True),
        ({"status_id|lt": 2}, False),
        ({"missing": "x"}, False),
        ({"missing|exists": False}, True),
        ({"code|exists": True}, True),
        ({"nothing": None}, True),
        ({"missing": None}, True),
        ({"code": None}, False),
        ([{"status_id": 1}, {"code": "dcap.quote"}], True),
        ({"status_id": 2, "code": "other"}, False),
    ],
)
def test_fields_and_modifiers(search: Any, hit: bool) -> None:
    assert detection({"s": search, "condition": "s"})(EVENT) is hit


@pytest.mark.parametrize(
    ("condition", "hit"),
    [
        ("yes", True),
        ("not no", True),
        ("yes and no", False),
        ("no or yes and yes", True),
        ("(no or yes) and not no", True),
        ("not (yes and no)", True),
        ("1 of sel_*", True),
        ("all of sel_*", False),
        ("1 of them", True),
        ("all of them", False),
        (["no", "yes"], True),
    ],
)
def test_conditions(condition: Any, hit: bool) -> None:
    searches = {"yes": {"status_id": 2}, "no": {"status_id": 9}, "sel_a": {"status_id": 2}, "sel_b": {"status_id": 9}}
    assert detection({**searches, "_ignored": {"status_id": 9}, "condition": condition})(EVENT) is hit


@pytest.mark.parametrize(
    "table",
    [
        {"s": {"a": 1}},
        {"s": ["keyword"], "condition": "s"},
        {"s": {"a|base64": "x"}, "condition": "s"},
        {"s": {"a|re": "("}, "condition": "s"},
        {"s": {"a|cidr": "x"}, "condition": "s"},
        {"s": {"a|gt": "x"}, "condition": "s"},
        {"s": {}, "condition": "s"},
        {"s": {"a": 1}, "condition": "s | count() > 5"},
        {"s": {"a": 1}, "condition": "other"},
        {"s": {"a": 1}, "condition": "(s"},
        {"s": {"a": 1}, "condition": "s s"},
        {"s": {"a": 1}, "condition": ""},
        {"s": {"a": 1}, "condition": "1 of other*"},
    ],
)
def test_what_is_not_known_is_refused(table: Any) -> None:
    with pytest.raises(Malformed):
        detection(table)


@given(st.text(max_size=40))
def test_any_condition_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Malformed):
        detection({"a": {"x": 1}, "condition": text})({"x": 1})


def rules(correlation: dict[str, Any], *, names: tuple[str, ...] = ("a", "b")) -> Engine:
    documents: list[dict[str, Any]] = [
        {
            "title": name,
            "id": f"{ID}{number}",
            "name": name,
            "logsource": {"product": "kakoi"},
            "detection": {"s": {"what": name}, "condition": "s"},
        }
        for number, name in enumerate(names)
    ]
    documents.append({"title": "found", "id": ID + "9", "level": "high", "correlation": correlation})
    return Engine(read_rules([yaml.safe_dump_all(documents)]))


def play(engine: Engine, *events: tuple[int, str, dict[str, Any]]) -> list[int]:
    """Numbers of the events at which something was found."""
    found = []
    for number, (at, what, more) in enumerate(events, start=1):
        event = {"time": at * 1000, "metadata": {"sequence": number}, "what": what, **more}
        found += [number for finding in engine.hear(event) if finding.title == "found"]
    return found


def test_event_count_counts_by_group_within_the_time_span() -> None:
    count = {"type": "event_count", "rules": ["a"], "group-by": ["ip"], "timespan": "10s", "condition": {"gte": 3}}
    one, two = {"ip": "1"}, {"ip": "2"}
    assert play(rules(count), (0, "a", one), (1, "a", two), (2, "a", one), (3, "b", one), (4, "a", one)) == [5]
    assert play(rules(count), (0, "a", one), (5, "a", one), (11, "a", one)) == []
    assert play(rules(count), (0, "a", one), (5, "a", {**one, "count": 2})) == [2]
    assert play(rules(count), *[(n, "a", one) for n in range(7)]) == [3, 6], "told again only after once more in full"


def test_value_count_counts_different_values() -> None:
    count = {"type": "value_count", "rules": ["a"], "timespan": "1m", "condition": {"field": "ip", "gt": 2}}
    values = [{"ip": name} for name in ("1", "1", "2", "3")]
    assert play(rules(count), *[(n, "a", value) for n, value in enumerate(values)]) == [4]


def test_temporal_needs_all_in_any_order_and_ordered_in_theirs() -> None:
    together = {"type": "temporal", "rules": ["a", "b"], "group-by": ["who"], "timespan": "10s"}
    me, you = {"who": "me"}, {"who": "you"}
    assert play(rules(together), (0, "b", me), (1, "a", you), (2, "a", me)) == [3]
    ordered = {**together, "type": "temporal_ordered"}
    assert play(rules(ordered), (0, "b", me), (1, "a", me)) == []
    assert play(rules(ordered), (0, "b", me), (1, "a", me), (2, "b", me)) == [3]


def test_aliases_join_fields_of_different_names() -> None:
    together = {
        "type": "temporal",
        "rules": ["a", "b"],
        "group-by": ["who"],
        "aliases": {"who": {"a": "user.name", "b": "actor"}},
        "timespan": "10s",
    }
    assert play(rules(together), (0, "a", {"user": {"name": "x"}}), (1, "b", {"actor": "y"})) == []
    assert play(rules(together), (0, "a", {"user": {"name": "x"}}), (1, "b", {"actor": "x"})) == [2]


@pytest.mark.parametrize(
    "spoil",
    [
        {"type": "value_sum"},
        {"timespan": "soon"},
        {"condition": {"lt": 5}},
        {"condition": {"gte": 0}},
        {"rules": ["nobody"]},
        {"rules": []},
        {"condition": {"gte": 3, "field": "x"}},
        {"more": 1},
    ],
)
def test_correlations_that_a_stream_cannot_decide_are_refused(spoil: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        rules({"type": "event_count", "rules": ["a"], "timespan": "1m", "condition": {"gte": 3}, **spoil})


@pytest.mark.parametrize("text", ["a: [", "title: x", "- 1", "title: x\nid: y\ndetection: {}\n"])
def test_files_that_are_no_rules_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_rules([text])


def test_the_shipped_rules_are_read_and_have_words_in_both_languages() -> None:
    known = shipped()
    assert len(shipped_texts()) >= 10
    assert len(known.alerting) >= 17
    everything: list[AnyRule] = [*known.rules, *known.correlations]
    for rule in everything:
        if rule.id in known.alerting:
            assert catalogue.read(catalogue.SHARED, "en")[f"alerts.rule.{rule.id}"] == rule.title
            assert any(ord(char) > 0x3000 for char in catalogue.read(catalogue.SHARED, "ja")[f"alerts.rule.{rule.id}"])
