"""People: who is enrolled with which devices, invitations, recovery, removal, and the party's next card."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from kakoi.console.ceremony import read_assertion, request_options
from kakoi.console.people import Role
from kakoi.console.visit import Visit
from kakoi.core.encoding import unb64
from kakoi.core.errors import Refused
from kakoi.core.ids import parse_id


def people_page(visit: Visit) -> Response:
    """Everybody, and what the card says about them."""
    return visit.page("people.html", **_values(visit))


def _values(visit: Visit, **more: Any) -> dict[str, Any]:
    console = visit.console
    card = console.home.card.record
    enrolled = console.people.for_card()
    return {
        "members": [(member, console.people.devices(member.id)) for member in console.people.members()],
        "card": card,
        "on_card": console.assent.approvers(),
        "card_people": list(dict.fromkeys(person.name for person in card.people)),
        "outdated": bool(enrolled) and (enrolled != card.people or card.relying_party != console.settings.name),
        "proposed": console.assent.proposed_card(),
        "recoveries": console.people.waiting_recoveries(),
        "required": console.assent.card_required(),
        "distinct": len({person.name for person in enrolled}),
        "link": "",
        "invited": "",
        **more,
    }


def invite(visit: Visit) -> Response:
    """Invite a new person; the link is shown once."""
    visit.require_confirmed()
    name = visit.field("name", most=120)
    role: Role = "administrator" if visit.form.get("role") == "administrator" else "member"
    return _link(visit, visit.console.people.invite(name, role, by=visit.who.member.name), name)


def add_device(visit: Visit) -> Response:
    """A link for another device of one's own."""
    visit.require_confirmed()
    return _link(visit, visit.console.people.invite_device(visit.who.member), visit.who.member.name)


def ask_recovery(visit: Visit) -> Response:
    """Ask for a person's recovery."""
    visit.require_confirmed()
    visit.console.people.ask_recovery(visit.field("person", most=32), by=visit.who.member)
    return visit.go("/people")


def second_recovery(visit: Visit) -> Response:
    """Agree to a recovery as the second person; the link is shown once."""
    visit.require_confirmed()
    identity = visit.field("invitation", most=32)
    waiting = {item.id: item for item in visit.console.people.waiting_recoveries()}
    if identity not in waiting:
        raise Refused("people.invitation", "expected a recovery that waits for a second person, got another")
    return _link(
        visit, visit.console.people.second_recovery(identity, by=visit.who.member), waiting[identity].person.name
    )


def _link(visit: Visit, token: str, name: str) -> Response:
    return visit.page(
        "people.html", **_values(visit, link=f"{visit.console.settings.origin}/enrol/{token}", invited=name)
    )


def remove(visit: Visit) -> Response:
    """Remove a person."""
    visit.require_confirmed()
    visit.console.people.remove(visit.field("person", most=32), by=visit.who.member)
    return visit.go("/people")


def remove_device(visit: Visit) -> Response:
    """Remove a device."""
    visit.require_confirmed()
    visit.console.people.remove_device(unb64(visit.field("device", most=2000)), by=visit.who.member)
    return visit.go("/people")


# The next card --------------------------------------------------------------------------------------------------------


def propose_card(visit: Visit) -> Response:
    """Write down the next card, with everybody who is enrolled now."""
    required = visit.number("required", least=1, most=64)
    visit.console.assent.propose_card(visit.who, approvals_required=required)
    return visit.go("/people")


def card_options(visit: Visit) -> Response:
    """Options for saying yes to the next card."""
    visit.require_csrf()
    subject = parse_id(visit.path("subject"))
    own = [device.credential_id for device in visit.console.people.devices(visit.who.member.id)]
    on_card = visit.console.assent.approvers()
    allowed = [identity for identity in own if not on_card or identity in on_card]
    if not allowed:
        raise Refused(
            "card.not-on-card",
            "expected somebody whom the present card names to agree to the next one, got another person",
        )
    return visit.options(
        request_options(relying_party=visit.console.settings.name, challenge=bytes.fromhex(subject), allowed=allowed)
    )


def approve_card(visit: Visit) -> Response:
    """One person's yes to the next card."""
    subject = parse_id(visit.path("subject"))
    visit.console.assent.approve_card(visit.who, subject, read_assertion(visit.field("answer", most=32768)))
    return visit.go("/people")
