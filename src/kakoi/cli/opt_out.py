"""``kakoi dataset opt-out``: lists of people whose rows no analysis may use."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kakoi.broker.ledger import Ledger
from kakoi.broker.opt_out import remember
from kakoi.cli.contract import HubUrl, Party
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, err, errors_as_exit_codes, open_party, out, plain
from kakoi.contract.model import Column, DatasetManifest
from kakoi.core.errors import Misuse, Refused
from kakoi.core.ids import BlobId
from kakoi.net.client import HubClient
from kakoi.party.files import disk_error
from kakoi.party.home import KeptList, PartyHome
from kakoi.sdk.connect import connect

app = typer.Typer(no_args_is_help=True, help=t("help.opt-out"))
ListFile = Annotated[Path, typer.Argument(help=t("help.opt-out-file"))]
Data = Annotated[list[str] | None, typer.Option("--data", help=t("help.opt-out-data"))]
ColumnName = Annotated[str, typer.Option("--column", help=t("help.opt-out-column"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What one data set's next list will be."""

    manifest: DatasetManifest
    column: Column
    listed: dict[str, int]
    everybody: tuple[str, ...]


@app.command("add", help=t("help.opt-out-add"))
def add(
    file: ListFile,
    party: Party,
    hub: HubUrl,
    data: Data = None,
    column: ColumnName = "",
    key_file: KeyFile = None,
) -> None:
    """People opt out, besides those who have."""
    with errors_as_exit_codes():
        _change(open_party(party, key_file), hub, file, data or [], column, keep=True, shrink=False)


@app.command("set", help=t("help.opt-out-set"))
def replace_with(
    file: ListFile,
    party: Party,
    hub: HubUrl,
    data: Data = None,
    column: ColumnName = "",
    shrink: Annotated[bool, typer.Option("--shrink", help=t("help.opt-out-shrink"))] = False,
    key_file: KeyFile = None,
) -> None:
    """Exactly these people have opted out."""
    with errors_as_exit_codes():
        _change(open_party(party, key_file), hub, file, data or [], column, keep=False, shrink=shrink)


@app.command("show", help=t("help.opt-out-show"))
def show(party: Party, key_file: KeyFile = None) -> None:
    """How many people are on the present lists, by data set."""
    with errors_as_exit_codes():
        home = open_party(party, key_file)
        table = Table()
        for heading in ("data", "table", "column", "people", "number"):
            table.add_column(t(f"opt-out.{heading}"))
        for manifest in _newest(home).values():
            kept = home.opt_outs(manifest.dataset)
            if kept is not None:
                table.add_row(plain(manifest.title), manifest.table, kept.column, str(kept.people), str(kept.number))
        out.print(table if table.rows else t("opt-out.nobody"))


def _change(home: PartyHome, hub: str, file: Path, data: list[str], column: str, *, keep: bool, shrink: bool) -> None:
    """Seal the next list of every data set concerned. All are checked before the first is changed."""
    from kakoi.sdk.opt_out import seal_list

    plans, without = _plans(home, file, data, column, keep=keep, shrink=shrink)
    made: list[KeptList] = []
    now = SystemClock().now()
    with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
        for plan in plans:
            kept = seal_list(home, plan.manifest, plan.column, plan.everybody, now=now)
            remember(ledger, kept)
            made.append(kept)
            err.print(t("opt-out.counts", title=plan.manifest.title, people=kept.people))
    with connect(hub, home) as client:
        for kept in made:
            upload_list(client, home, kept)
    err.print(t("opt-out.uploaded"))
    if without:
        raise Refused(
            "opt-out.no-column",
            "expected a column that names people in every data set of this party, found none in "
            + ", ".join(manifest.title for manifest in without),
            hint='nobody can be left out of these: seal them again without those people, or with a column flagged identifier = "opt-out"',
        )


def _plans(
    home: PartyHome, file: Path, data: list[str], column: str, *, keep: bool, shrink: bool
) -> tuple[list[_Plan], list[DatasetManifest]]:
    from kakoi.contract.opt_out import usable_columns
    from kakoi.sdk.opt_out import column_for, match, present, read_identifiers, require_not_fewer

    plans, without = [], []
    for manifest in _chosen(home, data):
        if not usable_columns(manifest) and not data:
            without.append(manifest)
            continue
        chosen = column_for(manifest, column)
        listed = read_identifiers(file, chosen)
        before = present(home, manifest.dataset)
        everybody = tuple(sorted({*listed, *(before if keep else ())}))
        require_not_fewer(before, everybody, accepted=shrink)
        fit = match(home, manifest, chosen, listed)
        if fit.found is None:
            err.print(t("opt-out.not-compared", title=manifest.title))
        else:
            err.print(t("opt-out.found", title=manifest.title, found=fit.found, listed=fit.listed))
        if fit.unknown_lines:
            lines = ", ".join(map(str, fit.unknown_lines[:10])) + (" …" if len(fit.unknown_lines) > 10 else "")
            err.print(f"[yellow]{t('opt-out.unknown', lines=lines)}[/]")
        plans.append(_Plan(manifest=manifest, column=chosen, listed=listed, everybody=everybody))
    return plans, without


def _newest(home: PartyHome) -> dict[str, DatasetManifest]:
    """The newest version of each data set of this party."""
    found: dict[str, DatasetManifest] = {}
    for signed in home.datasets().values():
        known = found.get(signed.record.dataset)
        if known is None or signed.record.version > known.version:
            found[signed.record.dataset] = signed.record
    return found


def _chosen(home: PartyHome, data: list[str]) -> list[DatasetManifest]:
    mine = home.datasets()
    if not data:
        newest = list(_newest(home).values())
        if not newest:
            raise Misuse(
                "opt-out.no-data", "expected a party with sealed data sets, got one without", hint="kakoi dataset seal"
            )
        return newest
    for identity in data:
        if identity not in mine:
            raise Misuse("dataset.unknown", "expected a data set of this party, got an unknown id")
    return [mine[identity].record for identity in data]


def upload_list(client: HubClient, home: PartyHome, kept: KeptList) -> None:
    """Give a list's ciphertext to the hub. What it has already is not sent again."""
    path = home.opt_out_file(kept)
    try:
        with path.open("rb") as source:
            client.put_blob(BlobId(kept.file.blob), source, kept.file.size)
    except OSError as error:
        raise disk_error(error, path) from None
