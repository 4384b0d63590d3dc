"""What can happen, and how it is said in OCSF (Open Cybersecurity Schema Framework 1.7.0). Pure.

A ``Happening`` has no free text, on purpose: ids, codes, names of people and parties, addresses, times. Whoever writes one cannot
let a cell of anybody's data, a secret or a number computed from data slip into a stream that leaves the house, because there
is no place for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from kakoi.core.errors import Malformed
from kakoi.core.limits import Digest, Limit, Seconds, Slug, Title
from kakoi.core.records import Record

OCSF_VERSION: Final = "1.7.0"
Component = Literal["broker", "hub", "console", "enclave", "client", "guard"]
Outcome = Literal["success", "failure", "other"]
Level = Literal["informational", "low", "medium", "high", "critical"]
Hex = Annotated[str, Limit(least=2, most=512, pattern=r"(?:[0-9a-f]{2})+", form="lower-case hex digits")]
Address = Annotated[
    str, Limit(least=2, most=45, pattern=r"[0-9a-f.:]+", form="an IPv4 or IPv6 address in lower case, without a zone")
]
SEVERITY: Final[dict[Level, int]] = {"informational": 1, "low": 2, "medium": 3, "high": 4, "critical": 5}
_STATUS: Final[dict[Outcome, int]] = {"success": 1, "failure": 2, "other": 99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one kind of happening is said: class and activity of OCSF, severity of success and of failure."""

    ocsf_class: int
    activity: int
    good: Level = "informational"
    bad: Level = "low"


AUTHENTICATION: Final = 3002
ACCOUNT_CHANGE: Final = 3001
ENTITY_MANAGEMENT: Final = 3004
API_ACTIVITY: Final = 6003
APPLICATION_LIFECYCLE: Final = 6002
DETECTION_FINDING: Final = 2004

KINDS: Final[dict[str, Kind]] = {
    # The broker's decisions: challenge, grant, denial, lease and what was noted without an answer.
    "broker.challenge": Kind(ocsf_class=API_ACTIVITY, activity=1),
    "broker.grant": Kind(ocsf_class=API_ACTIVITY, activity=1),
    "broker.lease": Kind(ocsf_class=API_ACTIVITY, activity=3),
    "broker.denial": Kind(ocsf_class=API_ACTIVITY, activity=1, bad="medium"),
    "broker.note": Kind(ocsf_class=API_ACTIVITY, activity=2),
    "contract.approved": Kind(ocsf_class=ENTITY_MANAGEMENT, activity=8),
    "contract.withdrawn": Kind(ocsf_class=ENTITY_MANAGEMENT, activity=9, good="medium"),
    "contract.quarantine": Kind(ocsf_class=ENTITY_MANAGEMENT, activity=9, good="low", bad="high"),
    # The console.
    "console.sign-in": Kind(ocsf_class=AUTHENTICATION, activity=1),
    "console.enrol": Kind(ocsf_class=ACCOUNT_CHANGE, activity=10),
    "console.invite": Kind(ocsf_class=ACCOUNT_CHANGE, activity=1),
    "console.recovery": Kind(ocsf_class=ACCOUNT_CHANGE, activity=4, good="low"),
    "console.remove": Kind(ocsf_class=ACCOUNT_CHANGE, activity=6, good="low"),
    "console.device-removed": Kind(ocsf_class=ACCOUNT_CHANGE, activity=11, good="low"),
    "console.signature": Kind(ocsf_class=ENTITY_MANAGEMENT, activity=3),
    "console.card": Kind(ocsf_class=ENTITY_MANAGEMENT, activity=3, good="low"),
    "console.action": Kind(ocsf_class=API_ACTIVITY, activity=99),
    "console.refused": Kind(ocsf_class=API_ACTIVITY, activity=99),
    # The hub.
    "hub.refused": Kind(ocsf_class=API_ACTIVITY, activity=99),
    "hub.overload": Kind(ocsf_class=API_ACTIVITY, activity=99),
    "hub.identity": Kind(ocsf_class=AUTHENTICATION, activity=1),
    "hub.access": Kind(ocsf_class=API_ACTIVITY, activity=99),
    "operator.sign-in": Kind(ocsf_class=AUTHENTICATION, activity=1, bad="medium"),
    "operator.action": Kind(ocsf_class=API_ACTIVITY, activity=3, good="low"),
    "operator.refused": Kind(ocsf_class=API_ACTIVITY, activity=99),
    "hub.indicator": Kind(ocsf_class=API_ACTIVITY, activity=99, bad="medium"),
    "hub.fatal": Kind(ocsf_class=APPLICATION_LIFECYCLE, activity=4, bad="critical"),
    # The machine that an enclave runs on.
    "enclave.run": Kind(ocsf_class=API_ACTIVITY, activity=1, bad="medium"),
    # Clients of a log.
    "log.fork": Kind(ocsf_class=API_ACTIVITY, activity=2, bad="critical"),
    # Programs, and the stream itself.
    "program.started": Kind(ocsf_class=APPLICATION_LIFECYCLE, activity=3),
    "program.stopped": Kind(ocsf_class=APPLICATION_LIFECYCLE, activity=4, bad="medium"),
    "stream.begun": Kind(ocsf_class=APPLICATION_LIFECYCLE, activity=6),
    "stream.broken": Kind(ocsf_class=APPLICATION_LIFECYCLE, activity=7, bad="critical"),
    "stream.dropped": Kind(ocsf_class=APPLICATION_LIFECYCLE, activity=99, bad="medium"),
    "guard.alert": Kind(ocsf_class=DETECTION_FINDING, activity=1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Record):
    """What a rule found: the rule's id, title and level, and which of the stream's events made it fire."""

    rule: Annotated[str, Limit(least=36, most=36, pattern=r"[0-9a-f-]{36}", form="a UUID in lower case")]
    title: Title
    level: Level
    first: Annotated[int, Limit(least=1, most=2**52)]
    last: Annotated[int, Limit(least=1, most=2**52)]
    events: Annotated[int, Limit(least=1, most=2**40)]

    @property
    def uid(self) -> str:
        """The same finding, found again, has the same uid."""
        return f"{self.rule}-{self.first}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening(Record):
    """One thing that happened, before it has its place in a stream."""

    MAX_BYTES: ClassVar[int] = 8192

    what: Slug
    at: Seconds
    component: Component
    outcome: Outcome
    code: Slug | None = None
    actor: Title | None = None
    """A person or party by name."""
    about: Title | None = None
    """Whom or what it concerns, by name."""
    address: Address | None = None
    run: Digest | None = None
    contract: Digest | None = None
    subject: Digest | None = None
    attempt: Annotated[int, Limit(most=2**31)] | None = None
    operation: Slug | None = None
    platform: Slug | None = None
    measurement: Hex | None = None
    failed: Annotated[
        tuple[
            Annotated[str, Limit(least=1, most=80, pattern=r"[A-Za-z0-9][A-Za-z0-9._-]*", form="a check's name")], ...
        ],
        Limit(most=64, unique=True),
    ] = ()
    """Names of checks that refused."""
    marks: Annotated[tuple[Slug, ...], Limit(most=8, unique=True)] = ()
    """What only the party itself knows at that moment: ``first-seen``, ``outside-hours``, ``not-protected-by-hardware``."""
    count: Annotated[int, Limit(least=1, most=2**40)] = 1
    until: Seconds | None = None
    """With ``count``: when the last of them happened."""
    finding: Finding | None = None

    def check(self) -> None:
        """The kind is known, and only alerts carry a finding."""
        if self.what not in KINDS or (self.finding is not None) != (self.what == "guard.alert"):
            raise Malformed("event.kind", "expected a kind of event that this version writes, got another")

    @property
    def level(self) -> Level:
        """How grave it is."""
        if self.finding is not None:
            return self.finding.level
        kind = KINDS[self.what]
        return kind.bad if self.outcome == "failure" else kind.good


def ocsf(happening: Happening, *, stream: str, log_name: str, sequence: int, previous: str, version: str) -> Any:
    """The event as OCSF, at its place in a stream. ``previous`` is the hex hash of the event before."""
    kind = KINDS[happening.what]
    found: dict[str, Any] = {
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": "Kakoi", "vendor_name": "Kakoi", "version": version},
            "event_code": happening.what,
            "log_name": log_name,
            "log_provider": happening.component,
            "sequence": sequence,
            "uid": f"{stream[:16]}-{sequence}",
        },
        "time": happening.at * 1000,
        "class_uid": kind.ocsf_class,
        "category_uid": kind.ocsf_class // 1000,
        "activity_id": kind.activity,
        "type_uid": kind.ocsf_class * 100 + kind.activity,
        "severity_id": SEVERITY[happening.level],
        "status_id": _STATUS[happening.outcome],
        "unmapped": {"kakoi": {"previous": previous, **_own(happening)}},
    }
    if happening.code is not None:
        found["status_code"] = happening.code
    if happening.count > 1 or happening.until is not None:
        found["count"] = happening.count
        found["start_time"] = happening.at * 1000
        found["end_time"] = (happening.until if happening.until is not None else happening.at) * 1000
    return {**found, **_BY_CLASS[kind.ocsf_class](happening)}


def _own(happening: Happening) -> dict[str, Any]:
    """Ids and words for which OCSF has no place."""
    values = {
        name: getattr(happening, name)
        for name in ("run", "contract", "subject", "attempt", "platform", "measurement")
        if getattr(happening, name) is not None
    }
    if happening.what == "hub.indicator" and happening.about is not None:
        values["indicator"] = happening.about
    if happening.failed:
        values["failed"] = list(happening.failed)
    if happening.marks:
        values["marks"] = list(happening.marks)
    if happening.finding is not None:
        values |= {"first_sequence": happening.finding.first, "last_sequence": happening.finding.last}
    return values


def _who(happening: Happening) -> dict[str, Any]:
    if happening.actor is not None:
        return {"actor": {"user": {"name": happening.actor}}}
    return {"actor": {"app_name": f"kakoi {happening.component}"}}


def _where(happening: Happening) -> dict[str, Any]:
    if happening.address is not None:
        return {"src_endpoint": {"ip": happening.address}}
    return {"src_endpoint": {"svc_name": f"kakoi {happening.component}"}}


def _api_activity(happening: Happening) -> dict[str, Any]:
    operation = happening.operation or happening.what
    return {"api": {"operation": operation}, **_who(happening), **_where(happening)}


def _authentication(happening: Happening) -> dict[str, Any]:
    found = {
        "user": {"name": happening.actor or "unknown"},
        "service": {"name": f"kakoi {happening.component}"},
        **_where(happening),
    }
    if happening.component == "console":
        found |= {"is_mfa": True, "auth_factors": [{"factor_type_id": 10, "factor_type": "WebAuthn"}]}
    return found


def _account_change(happening: Happening) -> dict[str, Any]:
    return {"user": {"name": happening.about or happening.actor or "unknown"}, **_who(happening), **_where(happening)}


def _entity_management(happening: Happening) -> dict[str, Any]:
    subject = happening.subject or happening.contract or "unknown"
    return {"entity": {"uid": subject, "type": happening.what.partition(".")[0]}, **_who(happening)}


def _application_lifecycle(happening: Happening) -> dict[str, Any]:
    return {"app": {"name": f"kakoi {happening.component}", "vendor_name": "Kakoi"}}


def _detection_finding(happening: Happening) -> dict[str, Any]:
    finding = happening.finding
    if finding is None:
        raise Malformed("event.kind", "expected a finding in an alert, got none")
    return {
        "is_alert": True,
        "finding_info": {
            "uid": finding.uid,
            "title": finding.title,
            "analytic": {"type_id": 1, "type": "Rule", "uid": finding.rule},
            "related_events_count": finding.events,
        },
    }


_BY_CLASS: Final = {
    API_ACTIVITY: _api_activity,
    AUTHENTICATION: _authentication,
    ACCOUNT_CHANGE: _account_change,
    ENTITY_MANAGEMENT: _entity_management,
    APPLICATION_LIFECYCLE: _application_lifecycle,
    DETECTION_FINDING: _detection_finding,
}
