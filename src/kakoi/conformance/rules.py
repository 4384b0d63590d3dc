"""Twins that are minted: a rule of a verifier, and the changes that break exactly it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from kakoi.conformance.corpus import Family, Group, Layer, several
from kakoi.conformance.trial import Trial

S = TypeVar("S")
"""A shop: keys of a pretended vendor, and what they make for one trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[S]):
    """Changes that break one rule. Each spoils a shop; everything else about it stays good and signed."""

    name: str
    family: Family
    layer: Layer = "verify"
    changes: Mapping[str, Callable[[S], None]]
    reasons: tuple[str, ...]
    only: tuple[str, ...] = ()
    """Variants (bodies, keys, services) that the rule is about; empty: all."""


def rule_groups(rules: Iterable[Rule[S]], twin: Callable[[Callable[[S], None]], Trial], variant: str) -> list[Group]:
    """The groups of the rules that are about ``variant``; ``twin`` makes a trial of a change."""
    found: list[Group] = []
    for rule in rules:
        if not rule.only or variant in rule.only:
            named = [(what, partial(twin, change)) for what, change in rule.changes.items()]
            found += several(rule.name, rule.family, rule.layer, named, rule.reasons)
    return found


def put(**values: Any) -> Callable[[object], None]:
    """A change that gives attributes of a shop other values."""

    def change(shop: object) -> None:
        for name, value in values.items():
            setattr(shop, name, value)

    return change


def both(*changes: Callable[[S], None]) -> Callable[[S], None]:
    """Several changes, one after another."""

    def change(shop: S) -> None:
        for each in changes:
            each(shop)

    return change
