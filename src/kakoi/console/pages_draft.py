"""The first draft of a contract: one form, from parties to dates. What was typed is kept when something is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import Response

from kakoi.console import first_draft
from kakoi.console.first_draft import ROLES, Choice, Machines, Offer
from kakoi.console.review import output_sentences
from kakoi.console.visit import Visit
from kakoi.contract.model import Limits, Role
from kakoi.contract.rules import DisclosureRules
from kakoi.core.errors import Fatal, KakoiError, Malformed
from kakoi.core.records import from_value, to_value
from kakoi.sdk.draft import DATASHIELD_RULES, GRACE_DAYS

_DAY: Final = 86400
_RULES: Final = (
    ("minimum_cell", 10**6),
    ("minimum_contributors", 10**6),
    ("max_digits", 15),
    ("max_output_bytes", 64 * 1024 * 1024),
)
_TEXTS: Final = (
    ("parameters_per_person", "draft.rule.parameters_per_person"),
    ("epsilon_per_run", "amend.epsilon-per-run"),
    ("epsilon_budget", "amend.epsilon-budget"),
    ("rows_per_person", "amend.rows-per-person"),
)
_LIMITS: Final = (
    ("wall_seconds", 1, 7 * _DAY, 600),
    ("memory_megabytes", 64, 2**22, 2048),
    ("lease_seconds", 10, 3600, 300),
    ("grain_milliseconds", 100, 3_600_000, 1000),
)
_GRACE: Final = ("grace_days", 0, 90, GRACE_DAYS)
_PASTED: Final = "paste"


def new_contract_page(visit: Visit) -> Response:
    """An empty form; ``with`` in the address chooses an analysis."""
    return _page(visit, first_draft.offer(visit.console.library, visit.console.home), None)


def _page(visit: Visit, offered: Offer, wrong: KakoiError | None) -> Response:
    now = visit.console.clock.now()
    form = visit.form or {
        "analysis": visit.request.query_params.get("with", ""),
        "machines": offered.machines[0].id if offered.machines else _PASTED,
        f"role-{visit.console.home.card.id}": "",
    }
    return visit.page(
        "draft.html",
        status=200 if wrong is None else 400,
        offered=offered,
        form=form,
        wrong=wrong,
        ticked=lambda name: set(form.get(name, "").split("\n")),
        rules=[(name, getattr(DATASHIELD_RULES, name), most) for name, most in _RULES],
        texts=[(name, key, getattr(DATASHIELD_RULES, name)) for name, key in _TEXTS],
        limits=(*_LIMITS, _GRACE),
        roles=ROLES,
        outputs=output_sentences,
        begins=_date(now),
        ends=_date(now + 180 * _DAY),
        pasted=_PASTED,
    )


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).date().isoformat()


def new_contract(visit: Visit) -> Response:
    """Sign the draft as its drafter and give it to the hub: the review follows. It approves nothing."""
    console = visit.console
    offered = first_draft.offer(console.library, console.home)
    try:
        envelope = first_draft.first_version(console.library, console.home, offered, _choice(visit, offered))
    except Fatal:
        raise
    except KakoiError as error:
        return _page(visit, offered, error)
    console.library.hub.put_object(console.home.card.envelope)
    console.library.hub.put_object(envelope)
    console.store.note(console.clock.now(), visit.who.member.name, "drafted", envelope.payload_id)
    return visit.go(f"/contracts/{envelope.payload_id}")


def _choice(visit: Visit, offered: Offer) -> Choice:
    now = visit.console.clock.now()
    begins = _seconds(visit.field("begins", most=10))
    limits = {name: visit.number(name, least=least, most=most) for name, least, most, _ in _LIMITS}
    return Choice(
        title=visit.field("title", most=120),
        purpose=visit.field("purpose"),
        roles={card.id: _roles(visit, card.id) for card in offered.cards},
        recipients=_ticked(visit, "recipient"),
        data={identity: _rules(visit, identity) for identity in _ticked(visit, "data")},
        analyses={
            identity: visit.number(f"runs-{identity}", least=1, most=100_000) for identity in _ticked(visit, "analysis")
        },
        limits=Limits(**limits),
        grace_days=visit.number(_GRACE[0], least=_GRACE[1], most=_GRACE[2]),
        machines=_machines(visit, offered),
        # A contract that begins today begins a minute ago: clocks differ.
        not_before=max(begins, now - 60),
        expires=_seconds(visit.field("expires", most=10)) + _DAY - 1,
    )


def _ticked(visit: Visit, name: str) -> tuple[str, ...]:
    return tuple(part for part in visit.form.get(name, "").split("\n") if part)


def _roles(visit: Visit, card: str) -> tuple[Role, ...]:
    return tuple(role for role in ROLES if role in _ticked(visit, f"role-{card}"))


def _rules(visit: Visit, manifest: str) -> DisclosureRules:
    changed: dict[str, Any] = {name: visit.number(f"{name}-{manifest}", least=1, most=most) for name, most in _RULES}
    changed |= {name: visit.field(f"{name}-{manifest}", most=8) for name, _ in _TEXTS[:3]}
    changed["rows_per_person"] = visit.number(f"rows_per_person-{manifest}", least=1, most=10_000)
    return from_value(DisclosureRules, {**to_value(DATASHIELD_RULES), **changed}, "rules")


def _machines(visit: Visit, offered: Offer) -> Machines:
    chosen = visit.field("machines", most=64)
    for whole in offered.machines:
        if whole.id == chosen:
            return first_draft.machines_of(whole)
    names = visit.form.get("weaknesses", "").replace(",", " ").split()
    policy, log = visit.field("policy", most=200_000), visit.field("log", most=4000)
    return first_draft.machines_from(policy, log, names)


def _seconds(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise Malformed("console.form", "expected a date such as 2027-03-31") from None
