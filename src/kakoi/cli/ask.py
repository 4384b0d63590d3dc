"""``kakoi contract ask`` and ``kakoi contract asked``: exceptions are asked for, as a contract version that everybody has to sign."""

from __future__ import annotations

from typing import Annotated

import typer

from kakoi.cli.asked import show_asked
from kakoi.cli.contract import HubUrl, Identity, Party
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, at_hub, err, errors_as_exit_codes, show_made, words
from kakoi.contract.ask import ExceptionRequest
from kakoi.contract.sign import seal
from kakoi.core.errors import KakoiError, Misuse
from kakoi.core.ids import ObjectId, PartyId, parse_id
from kakoi.sdk.ask import amended, denied_run, wished_rules
from kakoi.sdk.terms import fetch_terms


def ask(
    identity: Identity,
    party: Party,
    hub: HubUrl,
    why: Annotated[str, typer.Option("--why", help=t("help.ask-why"))],
    rule: Annotated[list[str] | None, typer.Option("--rule", help=t("help.ask-rule"))] = None,
    owner: Annotated[list[str] | None, typer.Option("--owner", help=t("help.ask-owner"))] = None,
    runs: Annotated[list[str] | None, typer.Option("--runs", help=t("help.ask-runs"))] = None,
    run: Annotated[str, typer.Option("--run", help=t("help.ask-run"))] = "",
    key_file: KeyFile = None,
) -> None:
    """Draft the version in which the rule would be otherwise, and give it to the owners with the reason."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        terms = fetch_terms(client, parse_id(identity))
        denied = denied_run(client, parse_id(run)) if run else None
        made = amended(
            terms,
            drafter=PartyId(home.id_in(terms.contract)),
            rules=wished_rules(rule or [], denied),
            owners=owner or (),
            runs=dict(_runs(text) for text in runs or []),
        )
        envelope = seal(made.contract, home.keys.signer())
        request = ExceptionRequest(
            contract=terms.id,
            amendment=envelope.payload_id,
            party=PartyId(home.id_in(terms.contract)),
            owners=made.owners,
            reason=why,
            run=denied.run if denied else None,
            code=denied.code if denied else None,
            asked_at=SystemClock().now(),
        )
        signed = seal(request, home.keys.signer())
        for item in (home.card.envelope, envelope, signed):
            client.put_object(item)
        names = ", ".join(terms.name(party) for party in made.owners)
        show_made(envelope.payload_id, t("ask.made", owners=names, words=words(envelope.payload_id)))


def _runs(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isascii() or not number.isdigit():
        raise Misuse("ask.runs", "expected a number of runs as analysis=number", hint="for example --runs pressure=20")
    return name, int(number)


def asked(party: Party, hub: HubUrl, key_file: KeyFile = None) -> None:
    """What this party is asked for, newest last."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        seen: dict[str, None] = {}
        for identity in home.ids:
            page = client.feed(kinds=(ExceptionRequest.KIND,), refs={"owners": identity})
            for item in page.items:
                request = ExceptionRequest.decode(client.get_object(item.id).payload)
                seen[request.amendment] = None
        for amendment in seen:
            try:
                show_asked(client, fetch_terms(client, ObjectId(amendment)))
            except KakoiError:
                continue  # somebody's noise: whoever signs sees the contract itself
        if not seen:
            err.print(t("ask.nobody"))
