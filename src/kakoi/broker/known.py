"""What the files of a party's directory say of weaknesses, and what of it touches a contract.

What compares versions of packages is loaded where there is something to compare: every command imports this, and not everybody has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kakoi.attest.report import Verdict
from kakoi.contract.model import Contract
from kakoi.core.errors import Malformed
from kakoi.guard.intel import store
from kakoi.guard.intel.index import Index
from kakoi.guard.registers import code_accepted
from kakoi.party.files import read_limited, write_private

if TYPE_CHECKING:
    from kakoi.guard.weakness.advisory import Advisory, Component
    from kakoi.guard.weakness.bill import Bill
    from kakoi.guard.weakness.exposure import Question

ADVISORIES: Final = "advisories.json"
BILLS: Final = "bills"
WATCHED: Final = "watched.json"
WATCHED_KIND: Final = "kakoi/watched/v1"
MOST_WATCHED: Final = 1000
_MOST_BILLS: Final = 256
_BILL_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a contract is touched. ``seen`` is the time of the evidence that shows it, 0 where the contract itself does."""

    id: str
    reason: str
    seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What is known, without indicators, which have an index of their own."""

    bills: Mapping[str, Bill] = field(default_factory=dict)
    """By measurement."""
    advisories: tuple[Advisory, ...] = ()
    """Those about packages of the bills."""
    questions: tuple[tuple[str, Question], ...] = ()


def versions(directory: Path) -> tuple[object, ...]:
    """What tells one state of these files from another."""
    return tuple(sorted(_stamps(directory)))


def _stamps(directory: Path) -> Iterator[tuple[str, int, int, int]]:
    for path in (directory / ADVISORIES, directory / WATCHED, directory / store.FILE, *_bills(directory)):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        yield path.name, found.st_mtime_ns, found.st_size, found.st_ino


def _bills(directory: Path) -> list[Path]:
    return sorted((directory / BILLS).glob("*.json"))[:_MOST_BILLS]


def read_knowledge(directory: Path) -> Knowledge:
    """The files as they are. Raises Malformed for a damaged one, which is no empty one."""
    if not any((directory / name).exists() for name in (ADVISORIES, BILLS, WATCHED)):
        return Knowledge()
    from kakoi.guard.weakness import bill as bills
    from kakoi.guard.weakness import snapshot
    from kakoi.guard.weakness.advisory import normal
    from kakoi.guard.weakness.exposure import question

    read = [bills.read(read_limited(path, limit=_BILL_BYTES)) for path in _bills(directory)]
    mine = {bill.measurement: bill for bill in read if bill.measurement}
    packages = {normal(package.name) for bill in mine.values() for package in bill.packages}
    path = directory / ADVISORIES
    found = snapshot.decode(read_limited(path, limit=snapshot.MAX_BYTES)).advisories if path.exists() else ()
    about = tuple(advisory for advisory in found if any(item.package in packages for item in advisory.affected))
    asked = [(text, question(text, advisories=found, bills=tuple(mine.values()))) for text in watched(directory)]
    return Knowledge(bills=mine, advisories=about, questions=tuple(asked))


def watched(directory: Path) -> tuple[str, ...]:
    """Questions that the owner wants asked of its contracts again and again. Raises Malformed."""
    path = directory / WATCHED
    if not path.exists():
        return ()
    try:
        value = json.loads(read_limited(path, limit=1024 * 1024))
        if value["kind"] != WATCHED_KIND or not all(isinstance(item, str) for item in value["questions"]):
            raise ValueError
        return tuple(value["questions"])
    except (ValueError, KeyError, TypeError):
        raise Malformed(
            "quarantine.watched",
            f"expected {WATCHED} as kakoi quarantine watch writes it, got a damaged one",
            hint="restore it from a backup",
        ) from None


def watch(directory: Path, questions: Sequence[str]) -> None:
    """Write the questions, whole or not at all. Raises Malformed if they are too many."""
    if len(questions) > MOST_WATCHED:
        raise Malformed("quarantine.watched", f"expected at most {MOST_WATCHED} questions, got more")
    value = {"kind": WATCHED_KIND, "questions": sorted(set(questions))}
    write_private(directory / WATCHED, json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n")


def causes_of(
    contract: Contract, seen: Sequence[Verdict], knowledge: Knowledge, indicators: Index, now: int
) -> list[Cause]:
    """Everything that touches a contract now, by the code that it accepts and the machines that it was carried out on."""
    code = frozenset().union(*(code_accepted(policy) for policy in contract.platforms.accepted))
    found = [*_by_code(code, knowledge, indicators, now), *_by_machine(seen, knowledge)]
    return list({cause.id: cause for cause in found}.values())


def _by_code(code: frozenset[str], knowledge: Knowledge, indicators: Index, now: int) -> Iterator[Cause]:
    if knowledge.bills:
        from kakoi.guard.weakness.advisory import matches
    for value in sorted(code):
        warned = indicators.find("measurement", (value,), now)
        if warned is not None:
            yield Cause(id=f"indicator:{warned.id}"[:200], reason=f"{warned.id} names image {value[:16]}")
        if (bill := knowledge.bills.get(value)) is None:
            continue
        for match in matches(bill.packages, knowledge.advisories):
            what = f"{match.component.name} {match.component.version}"
            yield Cause(
                id=f"advisory:{match.advisory.id}:{value[:16]}"[:200],
                reason=f"{match.advisory.id}: image {value[:16]} holds {what}",
            )
        for package in bill.packages:
            warned = indicators.find("package", (_pinned(package),), now)
            if warned is not None:
                yield Cause(
                    id=f"indicator:{warned.id}:{value[:16]}"[:200],
                    reason=f"{warned.id} names {package.name} {package.version} of image {value[:16]}",
                )


def _pinned(package: Component) -> str:
    from kakoi.guard.weakness.advisory import normal

    return f"{normal(package.name)}=={package.version}"


def _by_machine(seen: Sequence[Verdict], knowledge: Knowledge) -> Iterator[Cause]:
    if not knowledge.questions:
        return
    from kakoi.guard.weakness.exposure import PastRun, Released

    for text, asks in knowledge.questions:
        for verdict in seen:
            released = Released(owner="", verdict=verdict, manifests=())
            run = PastRun(passport="", run="", contract="", output="", released=(released,))
            for reason in asks(run):
                yield Cause(id=f"asked:{text}"[:200], reason=f"{text}: {reason}"[:200], seen=verdict.evaluated_at)
