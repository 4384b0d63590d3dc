"""What an owner has been warned of: contracts in quarantine, and others' indicators. Both only ever make a broker refuse more.

Two files in the party's directory, written by commands and read at every decision: ``quarantine.json`` and ``indicators.json``. A damaged
file refuses, because nobody knows what it said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from kakoi.attest.report import Verdict
from kakoi.core.errors import Malformed, Refused
from kakoi.guard.intel import store
from kakoi.guard.registers import code_of
from kakoi.party.files import write_private

KIND: Final = "kakoi/quarantine/v1"
FILE: Final = "quarantine.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One contract that this owner's keys do not go to from a day on. Times in seconds since the epoch, UTC."""

    contract: str
    reason: str
    noticed: int
    since: int
    """When the grace ends: until then the operator can mend it."""


def quarantine(directory: Path) -> dict[str, Entry]:
    """A party's quarantine by contract. Raises Malformed (``quarantine.file``)."""
    try:
        data = (directory / FILE).read_bytes()
    except FileNotFoundError:
        return {}
    try:
        value = json.loads(data)
        if value["kind"] != KIND:
            raise ValueError
        entries = [Entry(**item) for item in value["contracts"]]
        if not all(type(e.since) is int and isinstance(e.contract, str) for e in entries):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Malformed(
            "quarantine.file",
            f"expected {FILE} as kakoi quarantine writes it, got a damaged one",
            hint="restore it from a backup",
        ) from None
    return {entry.contract: entry for entry in entries}


def put(directory: Path, entries: Mapping[str, Entry]) -> None:
    """Write a quarantine whole or not at all."""
    value = {"kind": KIND, "contracts": [asdict(entries[name]) for name in sorted(entries)]}
    write_private(directory / FILE, json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n")


def over(directory: Path, now: int) -> dict[str, str]:
    """Contracts in quarantine whose grace is over, with the reason. Raises Malformed."""
    return {name: entry.reason for name, entry in quarantine(directory).items() if entry.since <= now}


def not_indicated(directory: Path, verdict: Verdict, now: int) -> Verdict:
    """The verdict, unless an indicator that acts names its code or its machine. Raises Refused (``decision.indicator``)."""
    known = store.load(directory)
    claims = verdict.claims
    for kind, values in (("measurement", code_of(claims)), ("platform", {claims.platform_identity} - {""})):
        acting = known.acting(kind, now)  # type: ignore[arg-type]
        found = sorted(acting[value].id for value in values if value in acting)
        if found:
            raise Refused(
                "decision.indicator",
                f"expected a {kind} that nobody warns of, got one that {found[0]} names",
                hint="kakoi intel list shows the indicator and its source; the source or this owner can take it back",
            )
    return verdict
