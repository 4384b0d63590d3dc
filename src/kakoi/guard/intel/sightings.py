"""What we tell others: that something hostile, or something unknown, was refused here. Nothing about patients, nothing about runs.

A refusal of evidence becomes an indicator (the measurement or machine that was refused) with a sighting that counts it by day. One's own
indicator has a low confidence, because a refused measurement may be an honest build that nobody approved yet. Ids are deterministic
(STIX 2.1 §2.9), so that telling twice is telling once.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kakoi.guard.intel.indicator import Indicator, stamp
from kakoi.guard.intel.store import KNOWN_MARKINGS

OWN_CONFIDENCE: Final = 30
VALID_SECONDS: Final = 30 * 86400
_NAMESPACE: Final = uuid.UUID("8f1f6a1c-7f0f-5a57-8a60-0b6f4f0c2f4e")
_SUBJECTS: Final = {
    "measurement": "x-kakoi-measurement:value",
    "platform": "x-kakoi-platform:identity",
    "key": "x-kakoi-key:fingerprint",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal: what was refused, when, and by which rule (an error code).

    ``kind`` is that of an indicator, or ``indicator`` with the id of the one that acted as ``value``.
    """

    kind: str
    value: str
    at: int
    code: str


def _id(kind: str, *parts: str) -> str:
    return f"{kind}--{uuid.uuid5(_NAMESPACE, json.dumps(parts))}"


def objects(
    refusals: Iterable[Refusal], *, reporter: str, tlp: str, matched: Mapping[tuple[str, str], Indicator]
) -> list[dict[str, Any]]:
    """STIX objects: who reports, the marking, and for each refused thing an indicator with one sighting a day.

    ``matched`` has others' indicators by kind and value: a sighting of one of those names it instead of a new one.
    """
    marking = next(identity for identity, name in KNOWN_MARKINGS.items() if name == tlp)
    by_day: dict[tuple[str, str, int], list[Refusal]] = {}
    for refusal in refusals:
        if refusal.kind in _SUBJECTS or refusal.kind == "indicator":
            by_day.setdefault((refusal.kind, refusal.value, refusal.at // 86400), []).append(refusal)
    if not by_day:
        return []
    who = _identity(reporter, min(group[0].at for group in by_day.values()) // 86400 * 86400)
    found: dict[str, dict[str, Any]] = {who["id"]: who}
    for (kind, value, day), group in sorted(by_day.items()):
        known = matched.get((kind, value))
        theirs = value if kind == "indicator" else "" if known is None else known.id
        if not theirs:
            first = min(item.at for key, items in by_day.items() if key[:2] == (kind, value) for item in items)
            own = _indicator(kind, value, first, who["id"], marking, sorted({item.code for item in group}))
            found.setdefault(own["id"], own)
        of = theirs or own["id"]
        sighting = _sighting(of, group, day, who["id"], marking)
        found[sighting["id"]] = sighting
    return list(found.values())


def _identity(reporter: str, at: int) -> dict[str, Any]:
    return {
        "type": "identity",
        "spec_version": "2.1",
        "id": _id("identity", reporter),
        "created": stamp(at),
        "modified": stamp(at),
        "name": f"Kakoi party {reporter[:16]}",
        "identity_class": "organization",
    }


def _indicator(kind: str, value: str, at: int, who: str, marking: str, codes: list[str]) -> dict[str, Any]:
    return {
        "type": "indicator",
        "spec_version": "2.1",
        "id": _id("indicator", kind, value, who),
        "created_by_ref": who,
        "created": stamp(at),
        "modified": stamp(at),
        "name": f"refused {kind}",
        "description": f"refused by {', '.join(codes)}",
        "indicator_types": ["anomalous-activity"],
        "pattern": f"[{_SUBJECTS[kind]} = '{value}']",
        "pattern_type": "stix",
        "valid_from": stamp(at),
        "valid_until": stamp(at + VALID_SECONDS),
        "confidence": OWN_CONFIDENCE,
        "object_marking_refs": [marking],
    }


def _sighting(of: str, group: list[Refusal], day: int, who: str, marking: str) -> dict[str, Any]:
    times = sorted(item.at for item in group)
    return {
        "type": "sighting",
        "spec_version": "2.1",
        "id": _id("sighting", of, who, str(day)),
        "created_by_ref": who,
        "created": stamp(times[0]),
        "modified": stamp(times[-1]),
        "first_seen": stamp(times[0]),
        "last_seen": stamp(times[-1]),
        "count": len(group),
        "sighting_of_ref": of,
        "where_sighted_refs": [who],
        "object_marking_refs": [marking],
    }
