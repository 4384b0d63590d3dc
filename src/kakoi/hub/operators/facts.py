"""What the operations pages show of a hub, gathered: numbers of the service, ids and names of parties, never anything of a contract's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select

from kakoi.contract.model import PartyCard
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError
from kakoi.hub import networks, schema
from kakoi.hub.decisions import Decisions, Denial
from kakoi.hub.hub import Hub
from kakoi.hub.quota import Usage, all_usage
from kakoi.hub.upkeep import backed_up_at

STATES: Final = ("queued", "claimed", "done", "failed", "abandoned")
_MOST_PARTIES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much of something is in use."""

    name: str
    used: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The state of one hub process and of the database that it is on."""

    at: int
    up_seconds: int
    healthy: str
    """Empty, or the code of what is wrong."""
    late_milliseconds: int
    """How late the event loop is: the measure by which strangers are sent away."""
    strangers_per_second: int
    amounts: tuple[Amount, ...]
    locked_out: tuple[tuple[str, int], ...]
    """Networks that spent their budget, and seconds until they are let in again."""
    runs: Mapping[str, int]
    objects: int
    log_size: int
    backed_up_at: int | None

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyLine:
    """One party, or one network of unknown senders."""

    identity: str
    party: str
    """Id of its first card; empty for a network."""
    name: str
    usage: Usage
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """One event of the hub's stream."""

    at: int
    what: str
    who: str
    code: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What policies decided, and what happened."""

    totals: tuple[tuple[str, str, int, int], ...]
    """Kind of principal, action, permits, denials."""
    denials: tuple[Denial, ...]
    events: tuple[EventLine, ...]


async def overview(hub: Hub, now: int, up_seconds: int) -> Overview:
    """The first page's facts. What cannot be read is shown as an error, not left out."""
    healthy, counts = "", {"objects": 0, "log": 0, **dict.fromkeys(STATES, 0)}
    try:
        counts |= await hub.database.read(_counts)
    except KakoiError as error:
        healthy = error.code
    limits = hub.settings.limits
    amounts = (
        Amount(name="connections", used=hub.crowd.total, most=limits.connections),
        Amount(name="requests", used=hub.requests.used, most=limits.requests),
        Amount(name="waiters", used=hub.notifier.waiting, most=limits.waiters),
        Amount(name="uploads", used=hub.uploads.used, most=limits.uploads),
        Amount(name="downloads", used=hub.downloads.used, most=limits.downloads),
        Amount(name="memory", used=hub.memory.used, most=limits.object_bytes_in_flight),
    )
    return Overview(
        at=now,
        up_seconds=up_seconds,
        healthy=healthy,
        late_milliseconds=round(1000 * hub.gauge.late),
        strangers_per_second=round(hub.gauge.rate),
        amounts=amounts,
        locked_out=hub.crowd.punished(),
        runs={state: counts[state] for state in STATES},
        objects=counts["objects"],
        log_size=counts["log"],
        backed_up_at=backed_up_at(hub.settings.directory),
    )


def _counts(connection: Connection) -> dict[str, int]:
    head = connection.execute(select(schema.head.c.seq, schema.head.c.size)).one()
    columns = schema.runs.c
    rows = connection.execute(select(columns.state, func.count()).group_by(columns.state)).all()
    return {"objects": int(head.seq), "log": int(head.size), **{str(state): int(count) for state, count in rows}}


async def parties(hub: Hub) -> tuple[PartyLine, ...]:
    """Who keeps how much, the largest first, and from where each may ask."""
    return await hub.database.read(lambda connection: _parties(connection, hub))


def _parties(connection: Connection, hub: Hub) -> tuple[PartyLine, ...]:
    used = {usage.identity: usage for usage in all_usage(connection, hub.settings.limits, _MOST_PARTIES)}
    allowed = networks.read(connection)
    for party in allowed:
        identity = f"party:{party}"
        if identity not in used:
            usual = hub.settings.limits.quota_bytes
            used[identity] = Usage(
                identity=identity, blobs=0, blob_bytes=0, objects=0, object_bytes=0, most_bytes=usual
            )
    lines = []
    for identity, usage in used.items():
        party = identity.removeprefix("party:") if identity.startswith("party:") else ""
        lines.append(
            PartyLine(
                identity=identity,
                party=party,
                name=_name(connection, party) if party else "",
                usage=usage,
                networks=tuple(str(network) for network in allowed.get(party, ())),
            )
        )
    return tuple(lines)


def _name(connection: Connection, party: str) -> str:
    query = select(schema.objects.c.envelope).where(schema.objects.c.id == party)
    found = connection.execute(query).scalar()
    try:
        return PartyCard.decode(Envelope.decode(bytes(found)).payload).name if found is not None else ""
    except KakoiError:
        return ""


def activity(decisions: Decisions, events: Sequence[Mapping[str, Any]]) -> Activity:
    """Decisions of this process since it started, the latest denials, and events (OCSF) as lines."""
    pairs = sorted({(kind, action) for kind, action, _ in decisions.totals})
    totals = tuple(
        (kind, action, decisions.totals[(kind, action, "permit")], decisions.totals[(kind, action, "deny")])
        for kind, action in pairs
    )
    return Activity(totals=totals, denials=tuple(reversed(decisions.denials)), events=tuple(map(_line, events)))


def _line(event: Mapping[str, Any]) -> EventLine:
    name = (event.get("actor", {}).get("user") or event.get("user") or {}).get("name", "")
    return EventLine(
        at=event["time"] // 1000,
        what=event["metadata"]["event_code"],
        who="" if name == "unknown" else name,
        code=event.get("status_code", ""),
        count=event.get("count", 1),
    )
