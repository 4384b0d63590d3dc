"""Pages for those who are not signed in: sign in, use an invitation, choose a language."""

from __future__ import annotations

from starlette.responses import Response

from kakoi.console.ceremony import (
    challenge_of_registration,
    creation_options,
    read_assertion,
    read_registration,
    request_options,
)
from kakoi.console.visit import Visit, language_cookie, session_cookie


def sign_in_page(visit: Visit) -> Response:
    """The page with one button."""
    if visit.session is not None:
        return visit.go("/")
    return visit.page("sign_in.html", invited=bool(visit.console.people.devices()))


def sign_in_options(visit: Visit) -> Response:
    """Options for signing in with any passkey of this console."""
    visit.console.attempts.count(visit.address)
    challenge = visit.console.sessions.challenge("sign-in")
    return visit.options(request_options(relying_party=visit.console.settings.name, challenge=challenge))


def sign_in(visit: Visit) -> Response:
    """Begin a session."""
    visit.console.attempts.count(visit.address)
    token = visit.console.sessions.sign_in(read_assertion(visit.field("answer", most=32768)), agent=visit.agent)
    answer = visit.go("/")
    answer.headers.append("set-cookie", session_cookie(visit.console.settings, token))
    return answer


def sign_out(visit: Visit) -> Response:
    """End the session."""
    visit.console.sessions.sign_out(visit.who)
    answer = visit.go("/sign-in")
    answer.headers.append("set-cookie", session_cookie(visit.console.settings, ""))
    return answer


def enrol_page(visit: Visit) -> Response:
    """What an invitation is for."""
    visit.console.attempts.count(visit.address)
    return visit.page(
        "enrol.html", invitation=visit.console.people.invitation(visit.path("token")), token=visit.path("token")
    )


def enrol_options(visit: Visit) -> Response:
    """Options for making a passkey."""
    console, token = visit.console, visit.path("token")
    console.attempts.count(visit.address)
    invitation = console.people.invitation(token)
    challenge = console.sessions.challenge("enrol", about=invitation.id)
    return visit.options(
        creation_options(
            relying_party=console.settings.name,
            party=console.home.card.record.name,
            person=invitation.person.name,
            handle=invitation.person.id,
            challenge=challenge,
            known=[device.credential_id for device in console.people.devices(invitation.person.id)],
        )
    )


def enrol(visit: Visit) -> Response:
    """Make the new passkey the person's."""
    console, token = visit.console, visit.path("token")
    console.attempts.count(visit.address)
    invitation = console.people.invitation(token)
    text = visit.field("answer", most=32768)
    challenge = challenge_of_registration(text)
    console.sessions.take(challenge, "enrol", about=invitation.id)
    new = read_registration(
        text, challenge=challenge, relying_party=console.settings.name, origin=console.settings.origin
    )
    console.people.enrol(token, new, label=visit.field("label", most=80) or "–")
    return visit.page("enrolled.html", person=invitation.person)


def choose_language(visit: Visit) -> Response:
    """Remember a language, and go back to where the choice was made."""
    answer = visit.go(visit.form.get("back", "/"))
    japanese = visit.form.get("language") == "ja"
    answer.headers.append("set-cookie", language_cookie(visit.console.settings, "ja" if japanese else "en"))
    return answer
