"""Indicators: what others say to be hostile, as far as something here can act on it.

Source: STIX 2.1 (OASIS), §4.7 indicator, §9 patterns. Of the pattern language this reads one observation of equalities, because anything
richer needs an event stream to be matched with and must not be half understood:

    [ipv4-addr:value = '198.51.100.7']        [ipv4-addr:value ISSUBSET '198.51.100.0/24']       likewise ipv6-addr
    [x-kakoi-key:fingerprint = '<64 hex>']    a party's or session's key, or a party's id
    [x509-certificate:hashes.'SHA-256' = '<64 hex>']                                               a TLS certificate
    [x-kakoi-measurement:value = '<hex>']     measured code
    [x-kakoi-platform:identity = '<hex>']     a machine: PPID, chip id
    [software:name = 'duckdb' AND software:version = '2.0.1']                                      a package

Everything else is set aside with a reason, and counted. An indicator blocks only while it is valid, and only if its confidence (0 to 100, STIX
§3.2) scaled by the trust in its source reaches what the party demands.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from kakoi.core.errors import Malformed

Kind = Literal["address", "key", "certificate", "measurement", "platform", "package"]
UNSTATED: Final = 50
"""Confidence of an indicator that states none: STIX leaves it open, and silence is not certainty."""
FOREVER: Final = 2**53
_ONE: Final = re.compile(r"^\[\s*([a-z0-9-]+):([a-z_]+)\s*(=|ISSUBSET)\s*'([^'\\]{1,256})'\s*\]$")
_CERTIFICATE: Final = re.compile(r"^\[\s*x509-certificate:hashes\.'SHA-256'\s*=\s*'([0-9A-Fa-f]{64})'\s*\]$")
_PACKAGE: Final = re.compile(
    r"^\[\s*software:name\s*=\s*'([A-Za-z0-9._-]{1,100})'\s+AND\s+software:version\s*=\s*'([^'\\]{1,64})'\s*\]$"
)
_HEX_KINDS: Final[Mapping[tuple[str, str], tuple[Kind, re.Pattern[str]]]] = {
    ("x-kakoi-key", "fingerprint"): ("key", re.compile(r"^[0-9a-f]{64}$")),
    ("x-kakoi-measurement", "value"): ("measurement", re.compile(r"^[0-9a-f]{64}([0-9a-f]{32}){0,2}$")),
    ("x-kakoi-platform", "identity"): ("platform", re.compile(r"^[0-9a-f]{8,256}$")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """One indicator that something here can act on. Times are seconds since the epoch, UTC."""

    id: str
    kind: Kind
    value: str
    """An address or network; hex digits; ``name==version``."""
    confidence: int
    valid_from: int
    valid_until: int
    source: str
    tlp: str
    modified: str

    def active(self, now: int) -> bool:
        """Whether it is in its time."""
        return self.valid_from <= now < self.valid_until


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An object that cannot be acted on, and why."""

    id: str
    reason: str


def parse(value: Any, *, source: str, tlp: Mapping[str, str]) -> Indicator | SetAside | None:
    """A STIX object: an indicator, one that is set aside, or None for objects of other types.

    ``tlp`` has the names of marking definitions by id. Raises Malformed (``intel.object``) for what is no STIX object.
    """
    if not isinstance(value, Mapping) or not all(isinstance(value.get(name), str) for name in ("id", "type")):
        raise Malformed("intel.object", "expected a STIX object with type and id, got something else")
    if value["type"] != "indicator":
        return None
    identity = value["id"][:120]
    try:
        if value.get("revoked") is True:
            return SetAside(id=identity, reason="revoked")
        if value.get("pattern_type", "stix") != "stix" or value.get("spec_version") != "2.1":
            return SetAside(id=identity, reason="another language than STIX 2.1 patterns")
        confidence = value.get("confidence", UNSTATED)
        if type(confidence) is not int or not 0 <= confidence <= 100:
            return SetAside(id=identity, reason="a confidence outside 0 to 100")
        found = pattern(value["pattern"])
        if found is None:
            return SetAside(id=identity, reason="a pattern that nothing here can act on")
        until = value.get("valid_until")
        marks = [tlp[mark] for mark in value.get("object_marking_refs", ()) if mark in tlp]
        return Indicator(
            id=identity,
            kind=found[0],
            value=found[1],
            confidence=confidence,
            valid_from=seconds(value["valid_from"]),
            valid_until=FOREVER if until is None else seconds(until),
            source=source,
            tlp=max(marks, key=STRICTNESS.index, default="") if marks else "",
            modified=str(value.get("modified", "")),
        )
    except (KeyError, TypeError, ValueError):
        return SetAside(id=identity, reason="a required property is missing or has another type")


STRICTNESS: Final = ("TLP:CLEAR", "TLP:GREEN", "TLP:AMBER", "TLP:AMBER+STRICT", "TLP:RED")


def pattern(text: str) -> tuple[Kind, str] | None:
    """Kind and value of a pattern that can be acted on; None for any other."""
    if (package := _PACKAGE.match(text)) is not None:
        return "package", f"{re.sub(r'[-_.]+', '-', package[1]).lower()}=={package[2]}"
    if (certificate := _CERTIFICATE.match(text)) is not None:
        return "certificate", certificate[1].lower()
    if (one := _ONE.match(text)) is None:
        return None
    subject, member, operator, value = one.groups()
    if subject in ("ipv4-addr", "ipv6-addr") and member == "value":
        return _address(subject, operator, value)
    kind, form = _HEX_KINDS.get((subject, member), ("key", re.compile(r"(?!)")))
    value = value.lower()
    # A register that nobody measured anything into has the same value everywhere: whoever names it names every machine.
    blank = not value.strip("0") or not value.strip("f")
    return (kind, value) if operator == "=" and form.match(value) and not blank else None


def _address(subject: str, operator: str, value: str) -> tuple[Kind, str] | None:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return None
    if f"ipv{network.version}-addr" != subject or (operator == "=" and network.num_addresses != 1):
        return None
    return ("address", str(network)) if is_narrow(network) else None


def is_narrow(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether an indicator may name it: whoever lists half of the internet blocks everybody, by mistake or on purpose."""
    return network.prefixlen >= {4: 16, 6: 32}[network.version]


def seconds(text: str) -> int:
    """A STIX timestamp (RFC 3339, UTC) as seconds. Raises ValueError."""
    if not isinstance(text, str) or not text.endswith("Z"):
        raise ValueError(text)
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def stamp(at: int) -> str:
    """Seconds as a STIX timestamp."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
