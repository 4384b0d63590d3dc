"""Who may do what: Cedar policies from files (ADR 0131). What no policy permits is denied.

The shipped policies lie in ``kakoi/hub/policies``; an operator may name another folder with the same schema. A decision is a
function of what is asked and nothing else, so equal questions are answered from memory.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import cedarpy

from kakoi.core.errors import Malformed, Misuse, Refused
from kakoi.hub.identify import Principal
from kakoi.hub.settings import Settings
from kakoi.net.posture import parse

SHIPPED: Final = Path(__file__).parent / "policies"
SCHEMA: Final = "schema.cedarschema"
_REMEMBERED: Final = 32_768
_TYPES: Final = {"party": "Party", "enclave": "Enclave", "newcomer": "Newcomer", "operator": "Operator"}
_logger = logging.getLogger("kakoi.hub.decisions")
Decided = Callable[[Mapping[str, str]], None]


def read(folder: Path) -> tuple[str, str]:
    """Schema and policies of a folder. Raises Misuse if they are not whole, or do not fit each other."""
    try:
        schema = (folder / SCHEMA).read_text("utf-8")
        policies = "\n".join(path.read_text("utf-8") for path in sorted(folder.glob("*.cedar")))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "other bytes than text"
        raise _bad(f"files that can be read, got: {reason}") from None
    if not policies.strip():
        raise _bad("at least one policy in *.cedar, got none")
    found = cedarpy.validate_policies(policies, schema)
    if not found.validation_passed:
        raise _bad("policies that fit the schema, got: " + "; ".join(str(error) for error in found.errors)[:600])
    return schema, policies


def _bad(what: str) -> Misuse:
    return Misuse("hub.policies", f"expected {what}", hint="begin with a copy of the policies that Kakoi ships")


def zone_of(address: str) -> str:
    """``loopback``, ``private`` or ``public``."""
    found = ip_address(address)
    return "loopback" if found.is_loopback else "private" if found.is_private else "public"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What the operator demands of clients' posture; policies compare it with what clients say and show."""

    floor: int = 0
    """The oldest version of a client, as ``Posture.number``; 0: any, also one that does not say."""
    hardware_only: bool = False
    """The software platform, which protects nothing, has no place here."""


def demands_of(settings: Settings) -> Demands:
    """What the settings demand. Raises Misuse for a version that is none."""
    try:
        floor = parse(f'version="{settings.oldest_client}", software=?0').number if settings.oldest_client else 0
    except Malformed:
        raise Misuse("hub.oldest-client", "expected a version as 1.2.3, got something else") from None
    return Demands(floor=floor, hardware_only=settings.hardware_only)


class Policies:
    """Decides. ``decided`` hears of every decision, remembered or not."""

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], int],
        decided: Decided | None = None,
        *,
        demands: Demands | None = None,
    ) -> None:
        self._demands = demands or Demands()
        _, text = read(folder)
        self._policies, self._clock = cedarpy.PolicySet.from_str(text), clock
        self.decided = decided or _log
        self._known: OrderedDict[tuple[Any, ...], bool] = OrderedDict()

    def require(
        self,
        principal: Principal,
        action: str,
        *,
        object_id: str = "",
        attributes: Mapping[str, str | bool] | None = None,
    ) -> None:
        """Raise Refused ``hub.denied`` unless a policy permits it and none forbids it."""
        if not self._decide(principal, action, object_id, attributes or {}):
            raise Refused(
                "hub.denied",
                f"expected something that the hub's policies permit to this {principal.kind}, got: {action}",
                hint="the hub's operator decides: its policies are files",
            )

    def permits_everything(self, principal: Principal) -> str:
        """The key id by which lists must be narrowed to what concerns a party; empty if everything may be listed."""
        return "" if self._decide(principal, "listEverything", "", {}) else principal.id

    def _decide(self, principal: Principal, action: str, object_id: str, attributes: Mapping[str, str | bool]) -> bool:
        minute = self._clock() // 60
        address = principal.address.partition("%")[0] or "0.0.0.0"  # noqa: S104 - nowhere, not everywhere
        question = (
            principal.kind,
            principal.id,
            principal.card,
            address,
            principal.posture,
            principal.role,
            minute,
            action,
            object_id,
            *sorted(attributes.items()),
        )
        permitted = self._known.get(question)
        if permitted is None:
            permitted = self._ask(principal, address, minute, action, object_id, attributes)
            self._known[question] = permitted
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self.decided(
            {
                "decision": "permit" if permitted else "deny",
                "principal": f"{principal.kind}/{principal.id}",
                "action": action,
                "object": object_id,
                "address": address,
            }
        )
        return permitted

    def _ask(
        self,
        principal: Principal,
        address: str,
        minute: int,
        action: str,
        object_id: str,
        attributes: Mapping[str, str | bool],
    ) -> bool:
        who = {"type": _TYPES[principal.kind], "id": principal.id}
        what = {"type": "Object" if object_id else "Hub", "id": object_id or "hub"}
        known = {"party": {"card": principal.card}, "operator": {"role": principal.role}}.get(principal.kind, {})
        moment = datetime.fromtimestamp(minute * 60, UTC)
        context = {
            "address": {"__extn": {"fn": "ip", "arg": address}},
            "zone": zone_of(address),
            "minute": moment.hour * 60 + moment.minute,
            "weekday": moment.isoweekday(),
            "posture": {"version": principal.posture.number, "software": principal.posture.software},
            "demands": {"floor": self._demands.floor, "hardwareOnly": self._demands.hardware_only},
        }
        entities: list[dict[str, Any]] = [
            {"uid": who, "attrs": known, "parents": []},
            {"uid": what, "attrs": dict(attributes), "parents": []},
        ]
        request = {
            "principal": who,
            "action": {"type": "Action", "id": action},
            "resource": what,
            "context": context,
        }
        result = cedarpy.is_authorized(request, self._policies, entities)
        if result.diagnostics.errors:  # a policy that could not be evaluated permits nothing, and may have forbidden
            return False
        return bool(result.allowed)


def _log(decision: Mapping[str, str]) -> None:
    _logger.debug("%s", decision)
