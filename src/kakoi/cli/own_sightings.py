"""A party's own refusals of evidence, from its decision log, as STIX objects for others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from kakoi.broker.ledger import Ledger
from kakoi.core.encoding import sha256
from kakoi.core.errors import Misuse
from kakoi.guard.intel import store
from kakoi.guard.intel.indicator import STRICTNESS, Indicator
from kakoi.guard.intel.sightings import Refusal, objects
from kakoi.guard.registers import CODE

_SUBJECTS: Final = {f"measurement.{name}": "measurement" for name in CODE} | {"platform-identity": "platform"}
_HEX: Final = re.compile(r"^[0-9a-f]{8,256}$")
_NAMED: Final = re.compile(r"\b(indicator--[0-9a-f-]{36})\b")


def refusals(directory: Path) -> Iterator[Refusal]:
    """Refused code and machines by the decision log: failed checks of measurement and machine, and indicators that acted.

    What concerns people, contracts or data is not among them.
    """
    with closing(Ledger(directory / "ledger.sqlite")) as ledger:
        decisions = ledger.decisions()
    for decision in decisions:
        code, at, checks = decision.get("code"), decision.get("at"), decision.get("checks")
        if not isinstance(code, str) or not isinstance(at, int) or decision.get("outcome") != "no":
            continue
        if code == "decision.indicator" and (named := _NAMED.search(str(decision.get("message")))) is not None:
            yield Refusal(kind="indicator", value=named[1], at=at, code=code)
        for check in checks if isinstance(checks, list) else ():
            if isinstance(check, dict) and check.get("outcome") == "failed" and check.get("name") in _SUBJECTS:
                found = str(check.get("got"))
                if _HEX.match(found):
                    yield Refusal(kind=_SUBJECTS[str(check["name"])], value=found, at=at, code=code)


def own_sightings(directory: Path, *, tlp: str, now: int) -> list[dict[str, Any]]:
    """STIX objects of a party's refusals. Raises Misuse for a marking that nobody knows, and for red, which is not for sharing."""
    if tlp not in STRICTNESS or tlp in ("TLP:RED", "TLP:AMBER+STRICT"):
        raise Misuse(
            "intel.tlp", "expected TLP:CLEAR, TLP:GREEN or TLP:AMBER, got another marking", hint="--tlp TLP:AMBER"
        )
    known = store.load(directory)
    matched: dict[tuple[str, str], Indicator] = {
        (item.kind, item.value): item for item in known.items if item.active(now)
    }
    reporter = sha256((directory / "card.dsse").read_bytes()).hex()
    return objects(refusals(directory), reporter=reporter, tlp=tlp, matched=matched)
