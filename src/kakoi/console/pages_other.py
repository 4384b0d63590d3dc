"""Home, parties, data sets, the analyst's desk, decisions."""

from __future__ import annotations

import tomllib
from contextlib import closing
from typing import Any, Literal

from starlette.responses import Response

from kakoi.broker import decisions
from kakoi.broker.decisions import DecisionHead
from kakoi.broker.ledger import Ledger
from kakoi.console import runs
from kakoi.console.contracts import all_standings
from kakoi.console.drafting import published
from kakoi.console.first_draft import offer
from kakoi.console.memory import Memory
from kakoi.console.visit import Visit
from kakoi.console.waits import recent_runs, waits_for
from kakoi.contract.model import Analysis, DatasetManifest
from kakoi.contract.opt_out import usable_columns
from kakoi.contract.sign import open_signed, seal
from kakoi.core import encoding
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import parse_id
from kakoi.core.records import from_value

_DEFAULTS: dict[str, dict[str, Any]] = {
    "parameters": {"minimum": None, "maximum": None, "choices": []},
    "outputs": {"parameters": 0, "max_rows": 100},
}

_CATEGORIES = ("Conformance", "Completeness", "Plausibility")
_MEMBERS = {
    "parameters": {"name", "type", "minimum", "maximum", "choices"},
    "outputs": {"name", "shape", "columns", "parameters", "max_rows"},
}


def home_page(visit: Visit) -> Response:
    """What waits for whoever asks, and what happened last."""
    console = visit.console
    standings, recent = all_standings(console), recent_runs(console)
    waits = waits_for(console, visit.who.member.name, standings, recent)
    return visit.page(
        "home.html",
        waits=waits,
        asked={item.whole.id: console.library.asked(item.whole) for item in waits.approve},
        recent=recent[:6],
        decisions=Memory(console.home).decisions(limit=5),
        in_force=[item for item in standings if item.status == "in-force"],
        outdated=bool(console.people.for_card()) and console.people.for_card() != console.home.card.record.people,
    )


def parties_page(visit: Visit) -> Response:
    """Everybody with whom this party has a contract, by what their own cards say."""
    library = visit.console.library
    found: dict[str, dict[str, Any]] = {}
    for whole in library.contracts():
        for identity, card in whole.cards.items():
            roles = {r for p in whole.contract.parties if p.party == identity for r in p.roles}
            known = found.setdefault(identity, {"card": card, "roles": set(), "contracts": []})
            known["roles"] |= roles
            known["contracts"].append(whole)
    own = visit.console.home.card
    found.setdefault(own.id, {"card": own, "roles": set(), "contracts": []})
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in sorted(found.values(), key=lambda entry: -entry["card"].record.created):
        groups.setdefault(entry["card"].record.verifying_key.ed25519_keyid, []).append(entry)
    ordered = sorted(groups.values(), key=lambda group: (group[0]["card"].id != own.id, group[0]["card"].record.name))
    return visit.page("parties.html", groups=ordered, own=visit.console.home.ids)


def data_page(visit: Visit) -> Response:
    """This party's own data sets, then those of others in its contracts."""
    console = visit.console
    own = sorted(console.home.datasets().values(), key=lambda s: (-s.record.created, s.id))
    present = [signed for signed in own if signed.record.owner == console.home.ids[0]]
    others = {
        identity: manifest
        for whole in console.library.contracts()
        for identity, manifest in whole.manifests.items()
        if manifest.record.owner not in console.home.ids
    }
    memory = Memory(console.home)
    left = {signed.record.dataset: memory.left(signed.record.dataset) for signed in present}
    return visit.page("data.html", own=present, others=list(others.values()), uses=_uses(visit), left=left)


def _uses(visit: Visit) -> dict[str, list[Any]]:
    """Contracts by data set (whatever its version)."""
    found: dict[str, list[Any]] = {}
    for whole in visit.console.library.contracts():
        for manifest in whole.manifests.values():
            found.setdefault(manifest.record.dataset, []).append(whole)
    return found


def dataset_page(visit: Visit) -> Response:
    """One data set: its schema, and where it is used."""
    console, identity = visit.console, visit.path("manifest")
    signed = console.home.datasets().get(identity)
    if signed is None:
        envelope = console.library.envelope(identity)
        owner = DatasetManifest.decode(envelope.payload).owner
        signed = open_signed(DatasetManifest, envelope, console.library.card(owner))
    manifest = signed.record
    own = manifest.owner in console.home.ids
    return visit.page(
        "dataset.html",
        id=signed.id,
        manifest=manifest,
        owner=console.library.name(manifest.owner) if not own else console.home.card.record.name,
        own=own,
        opt_outs=console.home.opt_outs(manifest.dataset) if own else None,
        can_opt_out=bool(usable_columns(manifest)),
        uses=_uses(visit).get(manifest.dataset, []),
        withdrawn_at=Memory(console.home).withdrawn().get(signed.id),
        **_quality(visit, manifest),
    )


def prepare_data_withdrawal(visit: Visit) -> Response:
    """Write the withdrawal of a data set down, then show it to be signed."""
    manifest = parse_id(visit.path("manifest"))
    subject = visit.console.assent.prepare_data_withdrawal(visit.who, manifest, visit.field("reason"))
    return visit.go(f"/withdrawals/{subject}")


def _quality(visit: Visit, manifest: DatasetManifest) -> dict[str, Any]:
    """The validation report of one's own data set, which nobody else sees."""
    from kakoi.sdk.ingest.report import Report  # here: only this page needs it

    kept = visit.console.home.report(manifest) if manifest.owner in visit.console.home.ids else None
    if kept is None:
        return {"report": None}
    report = Report.decode(kept)
    groups = [(name, [check for check in report.checks if check.category == name]) for name in _CATEGORIES]
    return {
        "report": report,
        "groups": groups,
        "found": [check for check in report.checks if check.violated],
        "passed": [check for check in report.checks if not check.violated],
    }


def decisions_page(visit: Visit) -> Response:
    """The own decision log, its chain checked."""
    memory = Memory(visit.console.home)
    before = visit.request.query_params.get("before", "")
    limit = int(before) if before.isascii() and before.isdigit() and len(before) < 16 else 2**62
    found = memory.decisions(before=limit, limit=50)
    return visit.page(
        "decisions.html",
        total=memory.check(),
        head=_head(visit),
        decisions=found,
        more=found[-1].seq if len(found) == 50 else 0,
        events=visit.console.store.rows("select at, person, what, about from event order by seq desc limit 30"),
    )


def _head(visit: Visit) -> DecisionHead | None:
    """The log's signed head, if there are decisions."""
    console = visit.console
    with closing(Ledger(console.home.path / "ledger.sqlite")) as ledger:
        try:
            return decisions.head(console.home, ledger, now=console.clock.now()).record
        except Refused:
            return None


def decision_proof(visit: Visit) -> Response:
    """One decision with its proof, as a file that is checked again before it is given out."""
    console, number = visit.console, visit.path("number")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise Refused("console.not-found", "expected the address of a page of this console, got another")
    with closing(Ledger(console.home.path / "ledger.sqlite")) as ledger:
        data = decisions.prove(console.home, ledger, int(number), now=console.clock.now()).encode()
    decisions.verify(data, console.home.card)
    headers = {"content-disposition": f'attachment; filename="decision-{int(number)}.kakoi-proof.json"'}
    return Response(data, media_type="application/octet-stream", headers=headers)


# The analyst's desk ---------------------------------------------------------------------------------------------------


def analyst_page(visit: Visit) -> Response:
    """Agreed analyses to run, and an editor for new ones with the schema at hand."""
    return visit.page("analyst.html", **_desk(visit))


def _desk(visit: Visit, wrong: KakoiError | None = None) -> dict[str, Any]:
    library, home = visit.console.library, visit.console.home
    everything = all_standings(visit.console)
    standings = [
        item
        for item in everything
        if item.status in ("in-force", "waiting", "not-yet") and set(home.ids) & set(item.whole.parties_with("analyst"))
    ]
    tables: dict[str, list[Any]] = {}
    named = [manifest for item in standings for manifest in item.whole.manifests.values()]
    for manifest in (*named, *offer(library, home).data):
        known = tables.setdefault(manifest.record.table, [])
        known += [column for column in manifest.record.columns if column.name not in {c.name for c in known}]
    history = [
        runs.view(library, request.id)
        for item in everything
        for request in library.runs(item.whole)[:10]
        if request.record.party in home.ids
    ]
    history.sort(key=lambda run: run.request.requested_at, reverse=True)
    return {
        "standings": standings,
        "tables": tables,
        "history": history[:15],
        "published": published(library, home),
        "form": visit.form,
        "ticked": set(visit.form.get("column", "").split("\n")),
        "wrong": wrong,
    }


def publish(visit: Visit) -> Response:
    """Sign an analysis and publish it; a contract can then name it. What was typed is kept when something is wrong."""
    console = visit.console
    try:
        analysis = _analysis(visit)
    except (Malformed, Refused) as error:
        return visit.page("analyst.html", status=400, **_desk(visit, error))
    envelope = seal(analysis, console.home.keys.signer())
    console.library.hub.put_object(console.home.card.envelope)
    console.library.hub.put_object(envelope)
    console.store.note(console.clock.now(), visit.who.member.name, "published", envelope.payload_id)
    target = visit.form.get("contract", "")
    if target == "new":
        return visit.go_with("/contracts/new", envelope.payload_id)
    if target and target in {whole.id for whole in console.library.contracts()}:
        return visit.go_with(f"/contracts/{target}/amend", envelope.payload_id)
    return visit.go("/analyst")


def _analysis(visit: Visit) -> Analysis:
    """The analysis of the form. Raises Malformed, naming what is wrong."""
    engine: Literal["sql", "python"] = "python" if visit.form.get("engine") == "python" else "sql"
    chosen = [part for part in visit.form.get("column", "").split("\n") if part]
    reads: dict[str, list[str]] = {}
    for part in chosen:
        table, _, column = part.partition("/")
        reads.setdefault(table, []).append(column)
    if not reads:
        raise Refused("console.no-columns", "expected at least one column that the analysis reads, got none")
    declared = _declared(visit.field("declared", most=32_000))
    value = {
        "kind": Analysis.KIND,
        "author": visit.console.home.ids[0],
        "name": visit.field("name", most=64),
        "title": visit.field("title", most=120),
        "engine": engine,
        "sealed_code": None,
        "source": visit.field("source", most=256 * 1024) + "\n",
        "reads": [{"table": table, "columns": columns} for table, columns in reads.items()],
        **declared,
    }
    return from_value(Analysis, encoding.loads(encoding.dumps(value)), "analysis")


def _declared(text: str) -> dict[str, Any]:
    """Parameters and outputs, in TOML."""
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed("draft.toml", f"expected TOML, got an error: {error}", hint="correct that line") from None
    if not set(value) <= set(_DEFAULTS):
        raise Malformed("draft.unknown", "expected only parameters and outputs, got another member")
    made: dict[str, Any] = {}
    for name, default in _DEFAULTS.items():
        entries = value.get(name, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Malformed("draft.toml", f"expected {name} as a list of tables", hint=f"[[{name}]]")
        unknown = sorted({member for entry in entries for member in entry} - _MEMBERS[name])
        if unknown:
            raise Malformed(
                "draft.unknown",
                f"expected only {', '.join(sorted(_MEMBERS[name]))} in {name}, got: {unknown[0]}",
                hint="docs/formats/drafts.md describes them",
            )
        made[name] = [{**default, **entry} for entry in entries]
    return made
