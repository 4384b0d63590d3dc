"""What a party keeps of others' indicators: one JSON file, rewritten whole, read by whatever acts on it.

`kakoi/indicators/v1`: ``sources`` with the trust that the party puts in each (0 to 100 percent) and ``indicators``. Of two versions of one indicator
the later ``modified`` counts; a revoked or expired one goes. An indicator acts if confidence × trust reaches ``minimum``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, get_args

from kakoi.core.errors import Malformed
from kakoi.guard.intel.indicator import Indicator, Kind, SetAside, is_narrow, parse

KIND: Final = "kakoi/indicators/v1"
FILE: Final = "indicators.json"
MINIMUM: Final = 50
"""Confidence times trust, in percent, from which an indicator acts, unless the party says otherwise."""
MOST: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicators:
    """All indicators of a party."""

    minimum: int = MINIMUM
    sources: Mapping[str, int] = field(default_factory=dict)
    items: tuple[Indicator, ...] = ()

    def believed(self, item: Indicator) -> bool:
        """Whether confidence and the trust in its source suffice. An unknown source is believed in nothing."""
        return item.confidence * self.sources.get(item.source, 0) >= self.minimum * 100

    def acting(self, kind: Kind, now: int) -> dict[str, Indicator]:
        """Indicators of a kind that act now, by value: in their time, and believed. ``index.Index`` answers for single values."""
        return {
            item.value: item for item in self.items if item.kind == kind and item.active(now) and self.believed(item)
        }

    def trusting(self, source: str, trust: int) -> Indicators:
        """The same with another trust in a source, in percent."""
        return replace(self, sources={**self.sources, source: trust})

    def merged(self, found: Iterable[Indicator | SetAside], *, now: int) -> Indicators:
        """With newly found ones; what is set aside (revoked, for instance) is removed, and so is what has expired."""
        known = {item.id: item for item in self.items}
        for item in found:
            if isinstance(item, SetAside):
                known.pop(item.id, None)
            elif item.id not in known or known[item.id].modified <= item.modified:
                known[item.id] = item
        kept = sorted((item for item in known.values() if item.valid_until > now), key=lambda item: item.id)
        if len(kept) > MOST:
            raise Malformed("intel.size", f"expected at most {MOST} indicators, got more", hint="take fewer sources")
        return replace(self, items=tuple(kept))

    def encode(self) -> bytes:
        """As a file."""
        value = {
            "kind": KIND,
            "minimum": self.minimum,
            "sources": dict(self.sources),
            "indicators": [asdict(item) for item in self.items],
        }
        return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def decode(data: bytes) -> Indicators:
    """The content of a file. Raises Malformed (``intel.file``): a damaged list is no empty list."""
    try:
        value = json.loads(data)
        if value["kind"] != KIND or not 1 <= value["minimum"] <= 100:
            raise ValueError
        sources = {str(name): int(trust) for name, trust in value["sources"].items()}
        items = tuple(Indicator(**item) for item in value["indicators"])
        if not all(0 <= trust <= 100 for trust in sources.values()) or not all(_sound(item) for item in items):
            raise ValueError
        return Indicators(minimum=value["minimum"], sources=sources, items=items)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Malformed(
            "intel.file",
            "expected a file of indicators, got a damaged one",
            hint="remove it and pull again: kakoi intel pull",
        ) from None


def _sound(item: Indicator) -> bool:
    texts = (item.id, item.kind, item.value, item.source, item.tlp, item.modified)
    numbers = (item.confidence, item.valid_from, item.valid_until)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        return False
    return item.kind in get_args(Kind) and (item.kind != "address" or is_narrow(ip_network(item.value)))


def load(directory: Path) -> Indicators:
    """A directory's indicators; none if there is no file. Raises Malformed."""
    try:
        return decode((directory / FILE).read_bytes())
    except FileNotFoundError:
        return Indicators()


def read_objects(objects: Iterable[Any], *, source: str) -> tuple[list[Indicator], list[SetAside]]:
    """Indicators among STIX objects, and those that are set aside. Raises Malformed."""
    everything = list(objects)
    markings = {item["id"]: _tlp(item) for item in everything if isinstance(item, dict) and _tlp(item)}
    found, aside = [], []
    for value in everything:
        item = parse(value, source=source, tlp={**KNOWN_MARKINGS, **markings})
        if isinstance(item, Indicator):
            found.append(item)
        elif item is not None:
            aside.append(item)
    return found, aside


KNOWN_MARKINGS: Final = {
    "marking-definition--613f2e26-407d-48c7-9eca-b8e91df99dc9": "TLP:CLEAR",
    "marking-definition--34098fce-860f-48ae-8e50-ebd3cc5e41da": "TLP:GREEN",
    "marking-definition--f88d31f6-486f-44da-b317-01333bde0b82": "TLP:AMBER",
    "marking-definition--5e57c739-391a-4eb3-b6be-7d15ca92d5ed": "TLP:RED",
}
"""The four that STIX 2.1 §7.2.1.4 fixes (WHITE is today's CLEAR)."""


def _tlp(value: Mapping[str, Any]) -> str:
    definition = value.get("definition")
    if value.get("type") != "marking-definition" or not isinstance(definition, dict) or "id" not in value:
        return ""
    level = str(definition.get("tlp", "")).upper()
    name = {"WHITE": "TLP:CLEAR"}.get(level, f"TLP:{level}")
    return name if name in KNOWN_MARKINGS.values() else ""
