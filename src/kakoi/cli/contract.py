"""``kakoi analysis`` and ``kakoi contract``: draft, show, sign, verify, withdraw, receipt."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer
from rich.syntax import Syntax
from rich.table import Table

from kakoi.broker import consent
from kakoi.broker.ledger import Ledger
from kakoi.cli.asked import show_asked
from kakoi.cli.code_words import describe_sealed
from kakoi.cli.draft_files import read_draft
from kakoi.cli.i18n import language, t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, at_hub, errors_as_exit_codes, out, plain, show_made, words
from kakoi.contract.approve import Agreement, agree, in_force
from kakoi.contract.model import Analysis, Approval, Contract, DatasetManifest, LogKey
from kakoi.contract.rules import NO_EPSILON, DisclosureRules
from kakoi.contract.sign import open_card, open_signed, seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse, Refused, Unavailable
from kakoi.core.ids import ObjectId, PartyId, parse_id
from kakoi.net.bundle import fetch_bundle
from kakoi.net.client import HubClient
from kakoi.party.files import read_limited, write_private
from kakoi.party.home import PartyHome
from kakoi.rehearse.noise import require_noise_possible
from kakoi.say import locale
from kakoi.sdk.draft import analysis_from_file, pinned, policy_from_file
from kakoi.sdk.terms import fetch_terms, terms_of

app = typer.Typer(no_args_is_help=True, help=t("help.contract"))
analysis_app = typer.Typer(no_args_is_help=True, help=t("help.analysis"))
Party = Annotated[Path, typer.Option("--party", help=t("help.party-directory"))]
HubUrl = Annotated[str, typer.Option("--hub", envvar="KAKOI_HUB", help=t("help.hub"))]
Identity = Annotated[str, typer.Argument(help=t("help.contract-id"))]


@analysis_app.command("publish", help=t("help.analysis-publish"))
def publish_analysis(
    file: Annotated[Path, typer.Argument(help=t("help.analysis-file"))],
    party: Party,
    hub: HubUrl,
    key_file: KeyFile = None,
) -> None:
    """Sign an analysis and give it to the hub."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        envelope = seal(analysis_from_file(file, PartyId(home.card.id)), home.keys.signer())
        client.put_object(home.card.envelope)
        client.put_object(envelope)
        show_made(envelope.payload_id, t("analysis.published"))


@app.command("draft", help=t("help.contract-draft"))
def draft(
    file: Annotated[Path, typer.Argument(help=t("help.contract-file"))],
    party: Party,
    hub: HubUrl,
    policy: Annotated[Path, typer.Option("--platforms", help=t("help.platforms"))],
    log_key: Annotated[Path, typer.Option("--log", help=t("help.log-key"))],
    products: Annotated[list[str] | None, typer.Option("--only-product", help=t("help.only-product"))] = None,
    machines: Annotated[list[str] | None, typer.Option("--only-platform", help=t("help.only-platform"))] = None,
    key_file: KeyFile = None,
) -> None:
    """Make a contract from a draft, sign it as its drafter, and give it to the hub. Approves nothing."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        client.put_object(home.card.envelope)  # a hub answers those only whose card it has
        contract = read_draft(
            client,
            file,
            drafter=PartyId(home.card.id),
            platforms=pinned(policy_from_file(policy), products or (), machines or ()),
            log=LogKey.decode(read_limited(log_key, limit=4096)),
            now=SystemClock().now(),
        )
        envelope = seal(contract, home.keys.signer())
        require_noise_possible(terms_of(client, envelope))
        client.put_object(envelope)
        show_made(envelope.payload_id, t("contract.drafted", words=words(envelope.payload_id)))


@app.command("show", help=t("help.contract-show"))
def show(identity: Identity, party: Party, hub: HubUrl, key_file: KeyFile = None) -> None:
    """Show a contract in plain sentences, signed or not."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, _):
        describe(client, parse_id(identity))


@app.command("sign", help=t("help.contract-sign"))
def sign(
    identity: Identity,
    party: Party,
    hub: HubUrl,
    key_file: KeyFile = None,
    yes: Annotated[bool, typer.Option("--yes", help=t("help.yes"))] = False,
    wait: Annotated[int, typer.Option("--wait", min=0, max=86400, help=t("help.sign-wait"))] = 600,
) -> None:
    """Show a contract, ask, approve it, and remember the approval in this party's own ledger.

    Where the party's card names people, they approve in a browser, each with a passkey: say where, and wait for them.
    """
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        contract_id = parse_id(identity)
        describe(client, contract_id)
        require_noise_possible(fetch_terms(client, contract_id))
        if home.card.record.approvals_required:
            _wait_for_people(home, contract_id, wait)
            return
        if not yes and not typer.confirm(t("contract.ask-approve")):
            raise typer.Exit(1)
        approve(client, home, contract_id)
        out.print(t("contract.approved", id=contract_id))


def _wait_for_people(home: PartyHome, contract_id: ObjectId, seconds: int) -> None:
    """Until the own ledger has the approval. Raises Unavailable when the time is over: people may still approve later."""
    path = home.path / "console.address"
    if not path.exists():
        raise Misuse(
            "contract.no-console",
            "expected a console in which this party's people approve, got none that was started here",
            hint="kakoi broker serve --console",
        )
    address = read_limited(path, limit=4096).decode("utf-8", "replace").strip()
    card = home.card.record
    out.print(t("contract.sign-in-browser", required=card.approvals_required))
    out.print(f"{address}/contracts/{contract_id}", soft_wrap=True)
    deadline = time.monotonic() + seconds
    while True:
        with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
            if contract_id in ledger.approved():
                out.print(t("contract.approved", id=contract_id))
                return
        if time.monotonic() >= deadline:
            raise Unavailable(
                "contract.people-missing",
                "expected enough people of this party to approve within the time, got fewer",
                hint="they can still do so; the console shows who has",
            )
        time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))


def approve(client: HubClient, home: PartyHome, contract_id: ObjectId) -> None:
    """Approve a contract by the party's key. Raises Refused if its card demands people: they approve in the console."""
    now = SystemClock().now()
    with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
        consent.approve(home=home, ledger=ledger, hub=client, contract=contract_id, assertions=(), now=now)


@app.command("withdraw", help=t("help.contract-withdraw"))
def withdraw(
    identity: Identity,
    party: Party,
    hub: HubUrl,
    reason: Annotated[str, typer.Option("--reason", help=t("help.reason"))],
    receipt_file: Annotated[Path | None, typer.Option("--receipt", help=t("help.receipt"))] = None,
    only_this_version: Annotated[bool, typer.Option("--only-this-version", help=t("help.only-this-version"))] = False,
    key_file: KeyFile = None,
) -> None:
    """Take an approval back, and those of earlier versions: from now on this party's broker releases no key under them."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        now, contract_id = SystemClock().now(), parse_id(identity)
        with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
            if contract_id in ledger.approved():
                ledger.withdraw(contract_id, now)  # at once: whether the hub answers decides nothing
            record = Contract.decode(client.get_object(contract_id).payload)
            if home.id_in(record) not in {entry.party for entry in record.parties}:
                raise Refused("contract.not-party", "expected a contract that names this party, got one that does not")
            before = consent.earlier_versions(client, ledger, record)
            everything = [(contract_id, record), *([] if only_this_version else before)]
            first, *others = [
                consent.withdrawal_of(home, version, known, reason=reason, now=now) for known, version in everything
            ]
            consent.withdraw(home=home, ledger=ledger, hub=client, withdrawal=first, besides=others)
            for known, version in everything:
                out.print(t("contract.withdrawn", id=known, version=version.version))
            if only_this_version:
                for known, version in before:
                    out.print(t("contract.still-in-force", id=known, version=version.version))
            made = consent.receipt(home=home, ledger=ledger, hub=client, contract=contract_id, now=now)
            _tell_receipt(made, receipt_file)


@app.command("receipt", help=t("help.contract-receipt"))
def receipt(
    identity: Identity,
    party: Party,
    hub: HubUrl,
    receipt_file: Annotated[Path | None, typer.Option("--out", help=t("help.receipt"))] = None,
    key_file: KeyFile = None,
) -> None:
    """What a withdrawal did, by what is known now: when the last lease ends or ended, and which results exist."""
    with ExitStack() as stack:
        stack.enter_context(errors_as_exit_codes())
        client, home = stack.enter_context(at_hub(hub, party, key_file))
        ledger = stack.enter_context(closing(Ledger(home.path / "ledger.sqlite")))
        now = SystemClock().now()
        made = consent.receipt(home=home, ledger=ledger, hub=client, contract=parse_id(identity), now=now)
        _tell_receipt(made, receipt_file)


def _tell_receipt(made: Envelope, file: Path | None) -> None:
    record = consent.WithdrawalReceipt.decode(made.payload)
    if record.last_lease_until is None:
        out.print(t("receipt.never"))
    else:
        key = "receipt.ended" if record.last_lease_until <= record.issued_at else "receipt.running"
        out.print(t(key, when=locale.time(record.last_lease_until, language())))
    results = sum(len(run.results) for run in record.granted)
    out.print(t("receipt.counts", asked=record.asked, granted=len(record.granted), results=results))
    for run in record.granted:
        for result in run.results:
            out.print(t("receipt.result", run=run.run, result=result), soft_wrap=True)
    if file is not None:
        write_private(file, made.encode(), mode=0o644)
        out.print(t("run.written", path=file))


@app.command("verify", help=t("help.contract-verify"))
def verify(identity: Identity, party: Party, hub: HubUrl, key_file: KeyFile = None) -> None:
    """Check that a contract is whole, approved by everybody and in force."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, _):
        agreement: Agreement = agree(fetch_bundle(client, parse_id(identity)))
        in_force(agreement, SystemClock().now())
        out.print(t("contract.in-force", parties=len(agreement.cards), id=agreement.id))


def describe(client: HubClient, contract_id: ObjectId) -> None:
    """A contract in sentences and one table; what each party must know before it signs."""
    envelope = client.get_object(contract_id)
    contract = Contract.decode(envelope.payload)
    cards = {p.party: open_card(client.get_object(parse_id(p.party))) for p in contract.parties}
    open_signed(Contract, envelope, cards[contract.drafter])
    out.print(f"[bold]{plain(contract.title)}[/]  v{contract.version}")
    out.print(plain(contract.purpose))
    out.print(t("contract.id", id=contract_id, words=words(contract_id)))
    show_asked(client, fetch_terms(client, contract_id))
    table = Table(title=t("contract.data"), title_justify="left")
    for heading in ("contract.owner", "contract.table", "contract.columns", "contract.rules"):
        table.add_column(t(heading))
    keys: set[tuple[str, str]] = set()
    for entry in contract.data:
        manifest = open_signed(DatasetManifest, client.get_object(parse_id(entry.manifest)), cards[entry.owner]).record
        rules = entry.rules
        keys |= {(manifest.table, column.name) for column in manifest.columns if column.identifier == "join-key"}
        table.add_row(
            plain(cards[entry.owner].record.name),
            manifest.table,
            ", ".join(column.name for column in manifest.columns),
            t(
                "contract.rule-text",
                cell=rules.minimum_cell,
                people=rules.minimum_contributors,
                digits=rules.max_digits,
                n=rules.dominance_contributors,
                k=rules.dominance_percent,
                p=rules.p_percent,
                base=rules.rounding_base,
                difference=rules.cohort_difference,
                runs=rules.budget_runs,
                kilobytes=rules.budget_kilobytes,
            )
            + _noise(rules),
        )
    out.print(table)
    for item in contract.analyses:
        analysis = _describe_analysis(client, item.analysis, item.max_runs, keys)
        if analysis.sealed_code is not None:
            describe_sealed(client, contract, analysis, cards)
    for recipient in contract.recipients:
        out.print(t("contract.recipient", name=cards[recipient].record.name))
    for platform in contract.platforms.accepted:
        out.print(t("contract.platform", platform=platform.platform))
        if platform.platform == "software":
            out.print(f"[bold red]{t('software.notice')}[/]")
    for token in contract.platforms.tokens:
        out.print(t("contract.token", service=token.service, platform=token.accompanies))
    for weakness in contract.accepted_weaknesses:
        out.print(t("contract.weakness", layer=weakness))
    out.print(t("contract.grace", days=contract.grace_days))
    _describe_approvals(client, contract_id)


def _noise(rules: DisclosureRules) -> str:
    if rules.epsilon_per_run == NO_EPSILON:
        return t("contract.rule-no-noise")
    return t("contract.rule-noise", run=rules.epsilon_per_run, budget=rules.epsilon_budget, rows=rules.rows_per_person)


def _describe_analysis(client: HubClient, identity: str, runs: int, keys: set[tuple[str, str]]) -> Analysis:
    analysis = Analysis.decode(client.get_object(parse_id(identity)).payload)
    outputs = ", ".join(f"{output.name} ({output.shape})" for output in analysis.outputs)
    out.print(t("contract.analysis", title=analysis.title, engine=analysis.engine, outputs=outputs, runs=runs))
    for use in analysis.reads:
        for name in sorted({name for table, name in keys if table == use.table} & set(use.columns)):
            out.print(t("contract.tokens", table=use.table, column=name))
    if analysis.source:
        # The source is part of what is agreed: whoever signs sees all of it, not a name for it.
        out.print(Syntax(analysis.source, analysis.engine, line_numbers=True, word_wrap=True))
    return analysis


def _describe_approvals(client: HubClient, contract_id: ObjectId) -> None:
    bundle = fetch_bundle(client, contract_id)
    given = {Approval.decode(envelope.payload).party for envelope in bundle.approvals}
    for envelope in bundle.cards:
        card = open_card(envelope)
        key = "contract.has-approved" if PartyId(card.id) in given else "contract.has-not-approved"
        out.print(t(key, name=card.record.name))
