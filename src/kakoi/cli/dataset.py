"""``kakoi dataset``: describe, validate, seal, inspect, upload, withdraw."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from kakoi.broker import consent
from kakoi.broker.ledger import Ledger
from kakoi.cli.contract import HubUrl, Party
from kakoi.cli.i18n import t
from kakoi.cli.ingest import Accept, SchemaFile, describe, reading, show_report, validate
from kakoi.cli.opt_out import app as opt_out_app
from kakoi.cli.opt_out import upload_list
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, at_hub, err, errors_as_exit_codes, open_party, out, plain, show_made
from kakoi.contract.model import DatasetManifest
from kakoi.contract.sign import Signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse
from kakoi.core.ids import BlobId, PartyId, parse_id
from kakoi.net.client import HubClient
from kakoi.party.files import disk_error, make_directory, read_limited, whole_or_absent
from kakoi.party.home import PartyHome
from kakoi.sdk.connect import connect
from kakoi.sdk.ingest.overview import ColumnLine, overview

if TYPE_CHECKING:
    from kakoi.sdk.ingest.report import Report

app = typer.Typer(no_args_is_help=True, help=t("help.dataset"))
app.command("describe", help=t("help.dataset-describe"))(describe)
app.add_typer(opt_out_app, name="opt-out")
app.command("validate", help=t("help.dataset-validate"))(validate)


@app.command("seal", help=t("help.dataset-seal"))
def seal(
    file: Annotated[Path, typer.Argument(help=t("help.dataset-file"))],
    schema: SchemaFile,
    party: Party,
    publish_rows: Annotated[bool, typer.Option("--publish-rows", help=t("help.publish-rows"))] = False,
    replaces: Annotated[str, typer.Option("--replaces", help=t("help.replaces"))] = "",
    accept: Accept = None,
    key_file: KeyFile = None,
) -> None:
    """Convert by the schema, validate, encrypt; nothing leaves this machine."""
    with errors_as_exit_codes():
        home = open_party(party, key_file)
        envelope = seal_file(
            home,
            file,
            schema,
            publish_rows=publish_rows,
            replaces=replaces,
            accept=accept or (),
            reported=lambda report: show_report(report, err),
        )
        show_made(envelope.payload_id, t("dataset.sealed"))


@app.command("withdraw", help=t("help.dataset-withdraw"))
def withdraw(
    identity: Annotated[str, typer.Argument(help=t("help.manifest-id"))],
    party: Party,
    hub: HubUrl,
    reason: Annotated[str, typer.Option("--reason", help=t("help.reason"))],
    key_file: KeyFile = None,
) -> None:
    """Take a data set back from every contract, in all its versions: no key of it is released any more."""
    with errors_as_exit_codes():
        home = open_party(party, key_file)
        own = home.datasets().get(parse_id(identity))
        if own is None:
            raise Misuse("dataset.not-here", "expected the id of a data set of this party, got another")
        found = consent.withdrawals_of_data(home, own.record, reason=reason, now=SystemClock().now())
        first, *others = [withdrawal for _, withdrawal in found]
        with closing(Ledger(home.path / "ledger.sqlite")) as ledger, connect(hub, home) as client:
            consent.withdraw(home=home, ledger=ledger, hub=client, withdrawal=first, besides=others)
        out.print(t("dataset.withdrawn", table=own.record.table, versions=len(found)))


def seal_file(
    home: PartyHome,
    file: Path,
    schema: Path,
    *,
    publish_rows: bool = False,
    replaces: str = "",
    accept: Sequence[str] = (),
    reported: Callable[[Report], None] = lambda report: None,
    quiet: bool = False,
) -> Envelope:
    """Seal one file into the party's directory; ``replaces`` is the manifest of the version before.

    ``reported`` gets the validation report before anything is sealed; ``accept`` names checks that may fail. If anything
    fails, nothing of it stays there.
    """
    # Imported here, because the libraries that read hospitals' files take long to load and few commands need them.
    from kakoi.sdk.ingest.schema import load_schema
    from kakoi.sdk.ingest.seal import no_progress, seal_dataset

    dataset, version = _identity(home, replaces)
    data_key = secrets.token_bytes(32)
    declared = load_schema(schema)
    reports: list[Report] = []

    def seen(report: Report) -> None:
        reports.append(report)
        reported(report)

    bar = nullcontext(no_progress) if quiet else reading(file, t("dataset.sealing", name=file.name))
    with whole_or_absent(home.dataset_directory(dataset, version)) as directory:
        make_directory(directory)
        with bar as progress:
            manifest = seal_dataset(
                file,
                declared,
                directory,
                owner=PartyId(home.card.id),
                data_key=data_key,
                dataset=dataset,
                version=version,
                created=SystemClock().now(),
                publish_rows=publish_rows,
                accept=accept,
                reported=seen,
                progress=progress,
            )
        return home.store_dataset(manifest, data_key, report=reports[0].encode())


def _identity(home: PartyHome, replaces: str) -> tuple[str, int]:
    if not replaces:
        return secrets.token_hex(16), 1
    known = home.datasets()
    if replaces not in known:
        raise Misuse("dataset.unknown", "expected a data set of this party to replace, got an unknown id")
    dataset = known[replaces].record.dataset
    # The next free version: a version that was sealed once keeps its key, whatever replaces what.
    return dataset, 1 + max(item.record.version for item in known.values() if item.record.dataset == dataset)


@app.command("inspect", help=t("help.dataset-inspect"))
def inspect(file: Annotated[Path, typer.Argument(help=t("help.manifest-file"))]) -> None:
    """Show what a manifest declares. Needs no keys and verifies no signature: the file is shown as it claims to be."""
    with errors_as_exit_codes():
        path = file / "manifest.dsse" if file.is_dir() else file
        envelope = Envelope.decode(read_limited(path, limit=Envelope.MAX_BYTES))
        seen = overview(DatasetManifest.decode(envelope.payload))
        out.print(f"[bold]{plain(seen.title)}[/]")
        facts = Table.grid(padding=(0, 2))
        for fact in seen.facts:
            text = t(f"overview.{fact.words}", text=fact.text) if fact.words else plain(fact.text)
            facts.add_row(t(f"overview.{fact.label}"), text)
        out.print(facts)
        table = Table()
        for heading in ("column", "type", "unit", "codes", "missing", "identifier", "description"):
            table.add_column(t(f"dataset.{heading}"), overflow="fold")
        for line in seen.columns:
            table.add_row(*map(plain, (line.name, line.type, line.unit, line.values, line.missing)), *_rest(line))
        out.print(table)


def _rest(line: ColumnLine) -> tuple[str, str]:
    return t(f"dataset.is-{line.identifier}") if line.identifier else "", plain(line.description)


@app.command("upload", help=t("help.dataset-upload"))
def upload(party: Party, hub: HubUrl, key_file: KeyFile = None) -> None:
    """Give ciphertext and manifests of this party's data sets to the hub. What it has already is not sent again."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        client.put_object(home.card.envelope)
        for signed in home.datasets().values():
            upload_dataset(client, home, signed)
            err.print(t("dataset.uploaded", id=signed.id))
        for dataset in {signed.record.dataset for signed in home.datasets().values()}:
            kept = home.opt_outs(dataset)
            if kept is not None:
                upload_list(client, home, kept)


def upload_dataset(client: HubClient, home: PartyHome, signed: Signed[DatasetManifest]) -> None:
    """Upload one data set: ciphertext first, then the manifest that names it."""
    manifest = signed.record
    directory = home.dataset_directory(manifest.dataset, manifest.version)
    for file in manifest.files:
        path = directory / f"{file.blob}.sealed"
        try:
            with path.open("rb") as source:
                client.put_blob(BlobId(file.blob), source, file.size)
        except OSError as error:
            raise disk_error(error, path) from None
    client.put_object(signed.envelope)
