"""Sigma rules and correlation rules as they are read from YAML (specification 2.1.0)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Literal, cast

import yaml

from kakoi.core.errors import Malformed
from kakoi.guard.happening import SEVERITY, Level
from kakoi.guard.sigma.match import Predicate, bad, detection

CorrelationType = Literal["event_count", "value_count", "temporal", "temporal_ordered"]
_TYPES: Final = ("event_count", "value_count", "temporal", "temporal_ordered")
_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])\Z")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_LIMITS: Final = frozenset({"gt", "gte", "eq"})
"""Of a stream one can say that something has become too much; that it stays too little, only in hindsight."""
_KNOWN: Final = frozenset(
    {"title", "id", "name", "status", "description", "level", "logsource", "detection", "correlation", "tags", "author"}
    | {"references", "date", "modified", "falsepositives", "fields", "license", "related", "taxonomy", "generate"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One Sigma rule over single events."""

    id: str
    name: str
    title: str
    description: str
    level: Level
    matches: Predicate


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """One correlation of hits of other rules. ``condition`` holds bounds of the count, all of which must be met."""

    id: str
    name: str
    title: str
    description: str
    level: Level
    type: CorrelationType
    rules: tuple[str, ...]
    group_by: tuple[str, ...]
    aliases: Mapping[str, Mapping[str, str]]
    timespan: int
    condition: tuple[tuple[str, int], ...]
    fields: tuple[str, ...]
    generate: bool


AnyRule = Rule | Correlation


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """Rules that belong together; every name that a correlation uses is here."""

    rules: tuple[Rule, ...]
    correlations: tuple[Correlation, ...]
    """A correlation stands behind those that it refers to."""

    @property
    def alerting(self) -> frozenset[str]:
        """Ids of the rules whose hits are alerts: all but those that only serve a correlation."""
        serving = {n for c in self.correlations if not c.generate for n in c.rules}
        everything: tuple[AnyRule, ...] = (*self.rules, *self.correlations)
        return frozenset(rule.id for rule in everything if rule.name not in serving and rule.id not in serving)

    @property
    def longest(self) -> int:
        """The longest time over which anything is correlated, in seconds."""
        return max((correlation.timespan for correlation in self.correlations), default=0)


def read_rules(texts: Iterable[str]) -> RuleSet:
    """Rules of YAML texts, each with one or more documents. Raises Malformed for what this evaluator does not know."""
    found: list[AnyRule] = []
    for text in texts:
        try:
            documents = list(yaml.safe_load_all(text))
        except yaml.YAMLError:
            raise bad("a text that is no YAML") from None
        found += [_rule(document) for document in documents if document is not None]
    names = [rule.name for rule in found] + [rule.id for rule in found if rule.id != rule.name]
    if len(set(names)) != len(names):
        raise bad("two rules with one id or name")
    rules = tuple(rule for rule in found if isinstance(rule, Rule))
    return RuleSet(rules=rules, correlations=_ordered(rules, [r for r in found if isinstance(r, Correlation)]))


def shipped() -> RuleSet:
    """The rules that come with Kakoi."""
    return read_rules(shipped_texts().values())


def shipped_texts() -> dict[str, str]:
    """The rules that come with Kakoi, by file name."""
    folder = resources.files("kakoi.guard").joinpath("rules")
    files = sorted(item.name for item in folder.iterdir() if item.name.endswith(".yml"))
    return {name: folder.joinpath(name).read_text("utf-8") for name in files}


def _ordered(rules: tuple[Rule, ...], correlations: list[Correlation]) -> tuple[Correlation, ...]:
    known = {name for rule in rules for name in (rule.id, rule.name)}
    ordered: list[Correlation] = []
    while correlations:
        ready = [c for c in correlations if set(c.rules) <= known]
        if not ready:
            raise bad("a correlation of rules that are not there, or of itself")
        ordered += ready
        known |= {name for c in ready for name in (c.id, c.name)}
        correlations = [c for c in correlations if c not in ready]
    return tuple(ordered)


def _rule(document: Any) -> AnyRule:
    if not isinstance(document, dict) or not set(document) <= _KNOWN:
        raise bad("a document with members that it does not know")
    if ("detection" in document) == ("correlation" in document):
        raise bad("a document with neither or both of detection and correlation")
    shared = _shared(document)
    if "detection" in document:
        logsource = document.get("logsource")
        if not isinstance(logsource, dict) or logsource.get("product") != "kakoi":
            raise bad("a rule for another product's log")
        return Rule(**shared, matches=detection(document["detection"]))
    return _correlation(document["correlation"], shared)


def _shared(document: dict[str, Any]) -> dict[str, Any]:
    identity, level = document.get("id"), document.get("level", "informational")
    title = document.get("title")
    if not isinstance(identity, str) or not _ID.match(identity):
        raise bad("a rule without a UUID")
    if level not in SEVERITY or not isinstance(title, str) or not 0 < len(title) <= 120:
        raise bad("a rule without a title or with another level")
    return {
        "id": identity,
        "name": str(document.get("name", identity)),
        "title": title,
        "description": str(document.get("description", "")).strip(),
        "level": cast("Level", level),
    }


def _correlation(table: Any, shared: dict[str, Any]) -> Correlation:
    if not isinstance(table, dict) or not set(table) <= {
        "type",
        "rules",
        "group-by",
        "timespan",
        "condition",
        "aliases",
        "generate",
    }:
        raise bad("a correlation with members that it does not know")
    kind, span = table.get("type"), _SPAN.match(str(table.get("timespan", "")))
    if kind not in _TYPES or span is None:
        raise bad("a correlation without a type or a time span")
    rules = tuple(map(str, _list(table.get("rules"))))
    if not rules:
        raise bad("a correlation of nothing")
    condition, fields = _bounds(kind, table.get("condition"), len(rules))
    return Correlation(
        **shared,
        type=cast("CorrelationType", kind),
        rules=rules,
        group_by=tuple(map(str, _list(table.get("group-by")))),
        aliases={str(a): {str(r): str(f) for r, f in m.items()} for a, m in (table.get("aliases") or {}).items()},
        timespan=int(span[1]) * _UNITS[span[2]],
        condition=condition,
        fields=fields,
        generate=table.get("generate") is True,
    )


def _bounds(kind: str, condition: Any, rules: int) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    if condition is None and kind.startswith("temporal"):
        return (("gte", rules),), ()
    if not isinstance(condition, dict):
        raise bad("a correlation without a condition")
    given = dict(condition)
    fields = tuple(map(str, _list(given.pop("field", None))))
    if (kind == "value_count") != bool(fields):
        raise bad("a field where none belongs, or none where one does")
    if not given or not set(given) <= _LIMITS or not all(type(v) is int and v > 0 for v in given.values()):
        raise bad("a condition that a stream cannot decide (gt, gte and eq can be)")
    return tuple(sorted(given.items())), fields


def _list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def require_known(rules: RuleSet) -> RuleSet:
    """Raise Malformed if nothing of the set can ever alert."""
    if not rules.alerting:
        raise Malformed("sigma.empty", "expected at least one rule that alerts, got none")
    return rules
