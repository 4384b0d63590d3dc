"""``kakoi posture``: gathers what can be seen of a party's or hub's directory without keys, and shows how it stands."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from kakoi.attest.policy import PlatformPolicy, Unchecked
from kakoi.broker import known
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, at_hub, errors_as_exit_codes, out, plain
from kakoi.cli.watch import Where, key_of
from kakoi.contract.model import Contract
from kakoi.contract.sign import open_card
from kakoi.core import encoding
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Misuse, Refused
from kakoi.core.ids import parse_id
from kakoi.guard.export import cursor_of
from kakoi.guard.intel.index import Shelf
from kakoi.guard.listeners import look
from kakoi.guard.posture import DAY, ContractFacts, Facts, Judged, Posture, stand
from kakoi.guard.registers import code_accepted
from kakoi.guard.restored import restored_at
from kakoi.guard.settings import GuardSettings, read_settings
from kakoi.guard.stream import FILE, Stream
from kakoi.net.bundle import ObjectSource
from kakoi.party.files import read_limited
from kakoi.party.keystore import KEY_FILE_BYTES

_PARTY_SECRETS: Final = ("secrets.json", "ledger.sqlite", "people.sqlite", FILE)
_HUB_SECRETS: Final = ("operator.token", "events.key", "log-key.json", FILE)
_COLOURS: Final = {"passed": "green", "failed": "bold red", "unknown": "yellow", "not-concerned": "dim"}
_ISSUED: Final = "issued %Y-%m-%dT%H:%M:%SZ"
WEEK: Final = 7 * 86400
GRAVE: Final = 4
"""OCSF's severity of alerts that count: high."""


def posture(
    where: Where,
    hub: Annotated[str, typer.Option("--hub", help=t("help.posture-hub"))] = "",
    key_file: KeyFile = None,
    as_json: Annotated[bool, typer.Option("--json", help=t("help.posture-json"))] = False,
    under: Annotated[int, typer.Option("--fail-under", min=0, max=100, help=t("help.posture-under"))] = 0,
) -> None:
    """Every control, the score, and how to mend what fails."""
    with errors_as_exit_codes(), ExitStack() as stack:
        client = stack.enter_context(at_hub(hub, where, key_file))[0] if hub else None
        found = stand(gather(where, client, SystemClock().now()))
        if as_json:
            typer.echo(json.dumps(_plain(found), indent=2, ensure_ascii=False))
        else:
            out.print(_table(found))
            out.print(f"[bold]{t('posture.score', score=found.score)}[/]")
        if found.score < under:
            raise Refused("posture.score", f"expected a score of at least {under}, got {found.score}")


def gather(directory: Path, hub: ObjectSource | None, now: int) -> Facts:
    """What is known of a directory. Raises Misuse if it is neither a party's nor a hub's."""
    settings = read_settings(directory)
    shared = {"now": now, **_stream_facts(directory, settings, now), "listeners": _listeners(directory)}
    shared["restored_at"] = _restored(directory)
    shared["warned_packages"] = _warned_packages(directory, now)
    if (directory / "card.dsse").exists():
        return Facts(role="party", **shared, **_party_facts(directory, hub, now, settings))
    if (directory / "hub.sqlite").exists() or (directory / "operator.token").exists():
        return Facts(role="hub", **shared, readable=_readable(directory, _HUB_SECRETS))
    raise Misuse("posture.directory", "expected the directory of a party or hub, got another", hint="see --help")


def _restored(directory: Path) -> int | None:
    """When a copy was restored last, by a proof that this party or hub signed."""
    with suppress(KakoiError):
        return restored_at(directory, key_of(directory))
    return None


# -- a stream of events


def _stream_facts(directory: Path, settings: GuardSettings, now: int) -> dict[str, Any]:
    exports: dict[str, Any] = {"exports": len(settings.exports)}
    if not (directory / FILE).exists():
        return exports
    stream = Stream(directory / FILE, name="", component="client", now=now, look=False)
    try:
        lags = [stream.size - stream.cursor(cursor_of(address)) for address in settings.exports]
        recent = [e for e in stream.newest(what="guard.alert", limit=10_000) if e["time"] // 1000 >= now - WEEK]
        try:
            stream.verify(key_of(directory))
            chain = ""
        except KakoiError as error:
            chain = error.code
        grave = sum(1 for event in recent if event["severity_id"] >= GRAVE)
        return {**exports, "export_lag": max(lags, default=0), "chain": chain, "alerts": grave}
    finally:
        stream.close()


# -- a party


def _party_facts(directory: Path, hub: ObjectSource | None, now: int, settings: GuardSettings) -> dict[str, Any]:
    card = open_card(Envelope.decode(read_limited(directory / "card.dsse", limit=1024 * 1024))).record
    names = [person.name for person in card.people]
    devices = _devices(directory / "people.sqlite")
    if devices is None and names:
        devices = {name: names.count(name) for name in names}
    facts: dict[str, Any] = {
        "devices": devices if devices is not None else {},
        "people_on_card": len(set(names)),
        "approvals_required": card.approvals_required,
        "keys_since": _keys_since(directory),
        "hours": settings.hours is not None,
        "key_beside": any(path.is_file() and path.stat().st_size == KEY_FILE_BYTES for path in directory.iterdir()),
        "readable": _readable(directory, _PARTY_SECRETS),
    }
    with _ledger(directory) as ledger:
        if ledger is None:
            return {**facts, "contracts": (), "unseen": ()}
        contracts = _contracts(ledger, directory, hub, now)
        unseen = _unseen(directory, contracts, now)
        return {**facts, **_decided(ledger, now), "contracts": contracts, "unseen": unseen}


def _warned_packages(directory: Path, now: int) -> tuple[str, ...]:
    """Packages installed beside this program that an indicator of the directory names."""
    from kakoi.guard.weakness.advisory import normal

    indicators = Shelf(directory).index()
    found = {f"{normal(item.metadata['Name'])}=={item.version}" for item in metadata.distributions()}
    return tuple(sorted(pinned for pinned in found if indicators.find("package", (pinned,), now) is not None))


def _unseen(directory: Path, contracts: tuple[ContractFacts, ...] | None, now: int) -> tuple[str, ...]:
    """What a broker would need in its directory to see weaknesses of these contracts."""
    if not contracts:
        return ()
    path, missing = directory / known.ADVISORIES, []
    if not path.exists():
        missing.append(f"no {path.name}")
    elif (age := now - int(path.stat().st_mtime)) > 30 * DAY:
        missing.append(f"{path.name}: {age // DAY} d")
    bills = known.read_knowledge(directory).bills
    return (*missing, *(f"{c.id[:12]}: no bill" for c in contracts if c.code and not set(c.code) & set(bills)))


def _devices(path: Path) -> dict[str, int] | None:
    if not path.exists():
        return None
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute(
            "select p.name, count(d.credential) from person p left join device d on d.person = p.id and d.removed is null "
            "where p.removed is null group by p.id"
        ).fetchall()
    return {str(name): int(count) for name, count in rows}


def _keys_since(directory: Path) -> int:
    """When the oldest card with the present keys was made."""
    present, *earlier = [
        open_card(Envelope.decode(read_limited(path, limit=1024 * 1024))).record
        for path in (directory / "card.dsse", *sorted((directory / "cards").glob("*.dsse")))
    ]
    same = [card.created for card in earlier if card.verifying_key == present.verifying_key]
    return min([present.created, *same])


class _ledger:  # noqa: N801 - used as a context manager only
    """A ledger that is only read, or None if there is none."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ledger.sqlite"
        self._db: sqlite3.Connection | None = None

    def __enter__(self) -> sqlite3.Connection | None:
        if self._path.exists():
            self._db = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True)
        return self._db

    def __exit__(self, *_: object) -> None:
        if self._db is not None:
            self._db.close()


def _decided(db: sqlite3.Connection, now: int) -> dict[str, Any]:
    """What the newest decision about evidence says of endorsements and TCB."""
    for (body,) in db.execute("select body from decision order by seq desc limit 200"):
        checks = {check["name"]: check for check in encoding.loads(body)["checks"]}
        if "tcb-status" not in checks:
            continue
        age = None
        with suppress(ValueError):
            issued = datetime.strptime(checks["collateral-age"]["got"], _ISSUED).replace(tzinfo=UTC)
            age = now - int(issued.timestamp())
        return {"collateral_known": True, "collateral_age": age, "tcb_status": checks["tcb-status"]["got"]}
    return {}


def _contracts(
    db: sqlite3.Connection, directory: Path, hub: ObjectSource | None, now: int
) -> tuple[ContractFacts, ...] | None:
    withdrawn = {row[0] for row in db.execute("select object from withdrawn")}
    approved = [row[0] for row in db.execute("select contract from approved") if row[0] not in withdrawn]
    if not approved:
        return ()
    if hub is None:
        return None
    me = _ids(directory)
    records = [(i, Contract.decode(hub.get_object(parse_id(i)).payload)) for i in approved]
    return tuple(_contract(identity, record, me) for identity, record in records if record.expires > now)


def _ids(directory: Path) -> set[str]:
    paths = (directory / "card.dsse", *(directory / "cards").glob("*.dsse"))
    return {Envelope.decode(read_limited(path, limit=1024 * 1024)).payload_id for path in paths}


def _contract(identity: str, record: Contract, me: set[str]) -> ContractFacts:
    policies = record.platforms.accepted
    mine = [entry.rules for entry in record.data if entry.owner in me]
    ages = [p.collateral_max_age for p in policies]
    return ContractFacts(
        id=identity,
        platforms=tuple(p.platform for p in policies),
        floors=tuple(p.platform for p in policies if _no_floor(p)),
        lax_statuses=tuple(sorted({s for p in policies for s in p.statuses if s not in ("UpToDate", "ok")})),
        collateral_seconds=None
        if any(isinstance(a, Unchecked) for a in ages)
        else max(a for a in ages if isinstance(a, int)),
        minimum_cell=min((rules.minimum_cell for rules in mine), default=None),
        minimum_contributors=min((rules.minimum_contributors for rules in mine), default=None),
        weaknesses=record.accepted_weaknesses,
        code=tuple(sorted({value for policy in policies for value in code_accepted(policy)})),
        witnesses=len(getattr(record.log, "witnesses", ())),
    )


def _no_floor(policy: PlatformPolicy) -> bool:
    return isinstance(policy.minimum_tcb, Unchecked) and isinstance(policy.minimum_tcb_evaluation_number, Unchecked)


def _readable(directory: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    paths = [directory / name for name in names] + sorted(directory.glob("datasets/*/key.wrapped"))
    return tuple(str(path.relative_to(directory)) for path in paths if path.exists() and path.stat().st_mode & 0o077)


def _listeners(directory: Path) -> tuple[str, ...] | None:
    """Addresses beyond loopback on which a program that names this directory listens without TLS; None if /proc is not there."""
    seen = look(directory)
    return None if seen is None else tuple(f"{one.host} port {one.port}" for one in seen if "plain" in one.worries)


# -- what is shown


def _table(found: Posture) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("state", "control", "ids", "evidence", "mend"):
        table.add_column(t(f"posture.column.{heading}"), overflow="fold")
    for item in found.judged:
        control, colour = item.control, _COLOURS[item.state]
        mend = t(f"posture.mend.{control.id}") if item.state in ("failed", "unknown") else ""
        table.add_row(
            f"[{colour}]{t('posture.state.' + item.state)}[/]",
            t(f"posture.title.{control.id}"),
            f"{control.azure}, {control.cis}",
            plain("; ".join(item.evidence)),
            mend,
        )
    return table


def _plain(found: Posture) -> dict[str, Any]:
    return {"score": found.score, "controls": [_control(item) for item in found.judged]}


def _control(item: Judged) -> dict[str, Any]:
    control = item.control
    return {
        "id": control.id,
        "state": item.state,
        "azure": control.azure,
        "cis": control.cis,
        "weight": control.weight,
        "evidence": list(item.evidence),
        "title": t(f"posture.title.{control.id}"),
        "mend": t(f"posture.mend.{control.id}").replace("\\[", "["),
    }
