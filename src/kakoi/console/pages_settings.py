"""Settings: how this console is run, the languages, and where notifications go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.responses import Response

from kakoi.console import notify
from kakoi.console.herald import Herald
from kakoi.console.notify import Notify, Webhook
from kakoi.console.visit import Visit
from kakoi.core.errors import KakoiError


def settings_page(visit: Visit) -> Response:
    """How this console is run."""
    return visit.page("settings.html", **_values(visit))


def _values(visit: Visit, **more: Any) -> dict[str, Any]:
    console = visit.console
    wrong: KakoiError | None = None
    try:
        found = notify.load(console.home.path)
    except KakoiError as error:
        found, wrong = Notify(), error
    mailbox = Herald(console).mailbox(visit.who.member)
    return {
        "settings": console.settings,
        "home": console.home,
        "notify": found,
        "wrong": wrong,
        "mailbox": mailbox[0] if mailbox else "",
        "secret": "",
        "told": (),
        **more,
    }


def set_mailbox(visit: Visit) -> Response:
    """One's own mail address for notifications; empty: none."""
    Herald(visit.console).set_mailbox(visit.who.member, visit.field("address", most=254), visit.language)
    return visit.go("/settings")


def set_webhook(visit: Visit) -> Response:
    """Another address for the web hook, with a new secret that is shown once; empty: none."""
    visit.require_confirmed()
    console, url = visit.console, visit.field("url", most=2000)
    present = notify.load(console.home.path)
    hook = Webhook(url=url, secret=notify.new_secret()) if url else None
    notify.save(console.home.path, replace(present, webhook=hook))
    console.store.note(console.clock.now(), visit.who.member.name, "webhook-set", hook.host if hook else "–")
    return visit.page("settings.html", **_values(visit, secret=hook.secret if hook else ""))


def test_notification(visit: Visit) -> Response:
    """Send one now, and say to whom."""
    visit.console.attempts.count(visit.address)
    return visit.page("settings.html", **_values(visit, told=Herald(visit.console).test(visit.who.member)))
