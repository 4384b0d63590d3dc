"""A contract version that somebody asked for as an exception, for whoever is to sign it."""

from __future__ import annotations

from kakoi.cli.i18n import t
from kakoi.cli.ui import out, plain
from kakoi.net.client import HubClient
from kakoi.sdk.ask import asked_for, rule_changes
from kakoi.sdk.terms import Terms, fetch_terms


def show_asked(client: HubClient, terms: Terms) -> None:
    """Who asks for this version and why, and which rules it changes. Nothing for a version that nobody asked for as an exception."""
    found = asked_for(client, terms)
    if not found:
        return
    out.print(f"[bold yellow]{t('ask.title')}[/] [bold]{plain(terms.contract.title)}[/]  v{terms.contract.version}")
    out.print(terms.id, soft_wrap=True)
    for item in found:
        out.print(t("ask.by", name=item.by, reason=item.request.reason))
        if item.request.code is not None:
            out.print(t("ask.after", code=item.request.code))
    if terms.contract.supersedes is not None:
        before = fetch_terms(client, terms.contract.supersedes).contract
        for place, name, was, now in rule_changes(before, terms.contract):
            if place >= 0:
                owner = terms.name(terms.contract.data[place].owner)
                out.print(t("ask.change", owner=owner, rule=name, old=was, new=now))
            else:
                title = terms.analyses[name].record.title
                out.print(t("ask.change-runs", title=title, old=was, new=now))
