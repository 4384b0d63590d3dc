"""``kakoi contract preview`` and ``kakoi run --preview``: what a contract's analyses would give on invented data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kakoi.cli.contract import HubUrl, Party
from kakoi.cli.draft_files import terms_of_draft
from kakoi.cli.i18n import language, t
from kakoi.cli.noise import show_noise
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, at_hub, err, errors_as_exit_codes, out, plain
from kakoi.contract.sign import seal
from kakoi.core.errors import Misuse
from kakoi.core.ids import PartyId, parse_id
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome
from kakoi.say.catalogue import rule_text
from kakoi.sdk.preview import outputs_shown
from kakoi.sdk.run import bindings
from kakoi.sdk.terms import Terms, fetch_terms
from kakoi.wire.preview import AnalysisPreview, Bite, Preview, Rehearsal

Sizes = Annotated[list[int] | None, typer.Option("--people", min=1, max=100_000, help=t("help.preview-people"))]
Accept = Annotated[list[str] | None, typer.Option("--accept-weakness", help=t("help.preview-accept"))]


def contract_preview(
    contract: Annotated[str, typer.Argument(help=t("help.preview-contract"))],
    party: Party,
    hub: HubUrl,
    analysis: Annotated[str, typer.Option("--analysis", help=t("help.preview-analysis"))] = "",
    people: Sizes = None,
    accept_weakness: Accept = None,
    store: Annotated[bool, typer.Option("--store", help=t("help.preview-store"))] = False,
    as_json: Annotated[bool, typer.Option("--json", help=t("help.json"))] = False,
    key_file: KeyFile = None,
) -> None:
    """Rehearse a contract that nobody needs to have signed, or the file of a draft that the hub does not have yet."""
    draft = Path(contract) if contract.endswith(".toml") else None
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        if draft is not None and store:
            raise Misuse(
                "preview.store-draft",
                "expected a contract of the hub to store a preview of, got a draft that nobody could find there",
                hint="kakoi contract draft gives it to the hub; or leave out --store",
            )
        if draft is not None:
            client.put_object(home.card.envelope)  # a hub answers those only whose card it has
            terms = terms_of_draft(client, draft, home, SystemClock().now())
        else:
            terms = fetch_terms(client, parse_id(contract))
        made = rehearsed(terms, home, only=analysis, people=people, accept=accept_weakness)
        if as_json:
            typer.echo(made.encode().decode())
        else:
            show_preview(terms, made)
        if store:
            envelope = seal(made, home.keys.signer())
            client.put_object(home.card.envelope)
            client.put_object(envelope)
            err.print(t("preview.stored", id=envelope.payload_id))


def preview_run(
    client: HubClient, home: PartyHome, contract: str, analysis: str, values: Mapping[str, str | int]
) -> None:
    """``kakoi run --preview``: one analysis with the parameters that were given. Asks nobody for anything."""
    terms = fetch_terms(client, parse_id(contract))
    show_preview(terms, rehearsed(terms, home, only=analysis, values=values or None))


def rehearsed(
    terms: Terms,
    home: PartyHome,
    *,
    only: str = "",
    values: Mapping[str, str | int] | None = None,
    people: Sequence[int] | None = None,
    accept: Sequence[str] | None = None,
) -> Preview:
    """The preview, with progress on standard error."""
    # Imported here: the engines' libraries take long to load, and few commands need them.
    from kakoi.enclave.keeper.compute import SandboxedEngine
    from kakoi.rehearse.run import SIZES, rehearse

    engine = SandboxedEngine()
    try:
        return rehearse(
            terms,
            party=PartyId(home.id_in(terms.contract)),
            now=SystemClock().now(),
            engine=engine,
            only=only,
            values=None if values is None else bindings(values),
            sizes=tuple(sorted(set(people or SIZES))),
            accept=tuple(accept or ()),
            tell=lambda name, size: err.print(t("preview.rehearsing", name=name, people=size)),
        )
    finally:
        engine.close()


def show_preview(terms: Terms, preview: Preview) -> None:
    """What would leave and which rules bite, for people."""
    out.print(f"[bold yellow]{t('preview.notice')}[/]")
    for analysis in preview.analyses:
        out.print(f"\n[bold]{plain(analysis.title)}[/]  {analysis.name}")
        if analysis.parameters:
            given = ", ".join(f"{binding.name}={binding.value}" for binding in analysis.parameters)
            out.print(t("preview.parameters", values=given))
        _summary(analysis)
        _owners(terms, analysis)
        _example(analysis)
    for identity in preview.not_rehearsed:
        out.print(t("preview.sealed", title=terms.analyses[identity].record.title))


def _summary(analysis: AnalysisPreview) -> None:
    table = Table()
    for heading in ("preview.people", "preview.leaves", "preview.bites"):
        table.add_column(t(heading), overflow="fold")
    for item in analysis.rehearsals:
        table.add_row(str(item.people), _leaves(item), "\n".join(map(_bite, item.bites)) or t("preview.none"))
    out.print(table)


def _leaves(item: Rehearsal) -> str:
    if item.refused is not None:
        return t("preview.refused", message=item.refused.message, code=item.refused.code)
    return "\n".join(
        t("preview.output", name=output.name, rows=rows) for output, rows in zip(item.outputs, item.rows, strict=True)
    )


def _bite(bite: Bite) -> str:
    owners = ", ".join(bite.owners) or t("preview.everybody")
    key = "preview.bite-refused" if bite.action == "refused" else "preview.bite-cells"
    return t(key, output=bite.output, rule=rule_text(bite.rule, language()), cells=bite.cells, owners=owners)


def _owners(terms: Terms, analysis: AnalysisPreview) -> None:
    """For each owner of data, which of its rules bite and with how many people."""
    names = dict.fromkeys(terms.name(entry.owner) for entry in terms.contract.data)
    sizes: dict[str, dict[str, list[int]]] = {name: {} for name in names}
    for item in analysis.rehearsals:
        for bite in item.bites:
            for name in bite.owners or names:
                held = sizes[name].setdefault(bite.rule, [])
                if item.people not in held:
                    held.append(item.people)
    table = Table(title=t("preview.by-owner"), title_justify="left")
    for heading in ("preview.owner", "preview.bites"):
        table.add_column(t(heading), overflow="fold")
    for name, rules in sizes.items():
        lines = [
            t("preview.bites-with", rule=rule_text(rule, language()), people=", ".join(map(str, people)))
            for rule, people in rules.items()
        ]
        table.add_row(plain(name), "\n".join(lines) or t("preview.none"))
    out.print(table)


def _example(analysis: AnalysisPreview) -> None:
    """The outputs of the size in the middle, or of the nearest larger one where something left."""
    left = [item for item in analysis.rehearsals if item.outputs]
    if not left:
        return
    middle = analysis.rehearsals[len(analysis.rehearsals) // 2].people
    item = next((item for item in left if item.people >= middle), left[-1])
    for shown, rows in zip(outputs_shown(item), item.rows, strict=True):
        table = Table(title=t("preview.example", name=shown.name, people=item.people), title_justify="left")
        for column in shown.columns:
            table.add_column(column, justify="right")
        for cells, held in zip(shown.rows, shown.held_back, strict=True):
            table.add_row(
                *(t("result.held-back") if kept else plain(cell or "") for cell, kept in zip(cells, held, strict=True))
            )
        out.print(table)
        if rows > len(shown.rows):
            out.print(t("preview.more", rows=rows - len(shown.rows)))
        if shown.rows_withheld:
            out.print(t("result.rows-withheld"))
        show_noise(shown)
