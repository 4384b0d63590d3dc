"""``kakoi hub``: run a hub, show its log's key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kakoi.cli.hub_serve import Database, Directory, serve
from kakoi.cli.i18n import t
from kakoi.cli.ui import SystemClock, errors_as_exit_codes, out
from kakoi.contract.model import LogKey
from kakoi.core.errors import Misuse
from kakoi.core.ids import parse_id
from kakoi.party.files import read_limited, write_private

app = typer.Typer(no_args_is_help=True, help=t("help.hub-app"))
app.command("serve", help=t("help.hub-serve"))(serve)


@app.command("networks", help=t("help.hub-networks"))
def party_networks(
    directory: Directory,
    party: Annotated[str, typer.Argument(help=t("help.hub-networks-party"))] = "",
    allow: Annotated[list[str] | None, typer.Option("--allow", help=t("help.hub-networks-allow"))] = None,
    everywhere: Annotated[bool, typer.Option("--everywhere", help=t("help.hub-networks-everywhere"))] = False,
    database: Database = "",
) -> None:
    """Show from where parties may ask, or say so for one."""
    from kakoi.hub.settings import Settings
    from kakoi.hub.upkeep import allow_networks, networks_of

    with errors_as_exit_codes():
        settings = Settings(directory=directory, database_url=database)
        if (party != "") != (bool(allow) != everywhere):
            raise Misuse(
                "hub.networks-usage",
                "expected a party with networks or with --everywhere, or neither, got another mixture",
                hint="kakoi hub networks --directory D PARTY --allow 192.0.2.0/24",
            )
        if party:
            allow_networks(settings, parse_id(party), allow or ())
        table = Table(t("hub.networks-party"), t("hub.networks-from"))
        for identity, found in networks_of(settings).items():
            table.add_row(identity, ", ".join(found))
        out.print(table)


@app.command("log-key", help=t("help.hub-log-key"))
def write_log_key(directory: Directory, out_file: Annotated[Path, typer.Option("--out", help=t("help.out"))]) -> None:
    """Write the public key of the hub's log, which contracts name."""
    with errors_as_exit_codes():
        write_private(out_file, log_key(directory).encode(), mode=0o644)
        out.print(t("run.written", path=out_file))


def log_key(directory: Path) -> LogKey:
    """The public key of a hub's log. Raises Misuse before the hub has started once."""
    from kakoi.hub.log import KEY_FILE, SecretLogKey

    path = directory / KEY_FILE
    if not path.exists():
        raise Misuse(
            "log.not-started", "expected a hub that has started once, found no log key", hint="kakoi hub serve"
        )
    return SecretLogKey.decode(read_limited(path, limit=SecretLogKey.MAX_BYTES)).public


@app.command("check", help=t("help.hub-check"))
def check(
    directory: Directory,
    blobs: Annotated[bool, typer.Option("--blobs", help=t("help.hub-check-blobs"))] = False,
    database: Database = "",
) -> None:
    """Verify the database, the log and, if asked, every blob again."""
    from kakoi.hub.settings import Settings
    from kakoi.hub.upkeep import check as check_hub

    with errors_as_exit_codes():
        found = check_hub(Settings(directory=directory, database_url=database), blobs=blobs)
        out.print(t("hub.checked", objects=found.objects, entries=found.size))


@app.command("gc", help=t("help.hub-gc"))
def collect(
    directory: Directory,
    delete: Annotated[bool, typer.Option("--delete", help=t("help.hub-gc-delete"))] = False,
    database: Database = "",
) -> None:
    """Count, or delete, old blobs that no object names."""
    from kakoi.hub.settings import Settings
    from kakoi.hub.upkeep import collect as collect_blobs

    with errors_as_exit_codes():
        settings = Settings(directory=directory, database_url=database)
        found = collect_blobs(settings, now=SystemClock().now(), delete=delete)
        key = "hub.deleted" if delete else "hub.orphans"
        out.print(t(key, kept=found.kept, count=found.deleted, size=found.deleted_bytes))


@app.command("quota", help=t("help.hub-quota"))
def quota(
    directory: Directory,
    party: Annotated[str, typer.Argument(help=t("help.hub-quota-party"))] = "",
    most: Annotated[int | None, typer.Option("--bytes", min=0, help=t("help.hub-quota-bytes"))] = None,
    database: Database = "",
) -> None:
    """Show who keeps how much, or allow a party another amount of encrypted data."""
    from kakoi.hub.settings import Settings
    from kakoi.hub.upkeep import allow, usage

    with errors_as_exit_codes():
        settings = Settings(directory=directory, database_url=database)
        if party:
            allow(settings, parse_id(party), most)
        table = Table(t("hub.quota-who"), t("hub.quota-blobs"), t("hub.quota-most"), t("hub.quota-objects"))
        for item in usage(settings):
            table.add_row(item.identity, f"{item.blob_bytes:,}", f"{item.most_bytes:,}", f"{item.objects:,}")
        out.print(table)


@app.command("backup", help=t("help.hub-backup"))
def backup(directory: Directory, target: Annotated[Path, typer.Argument(help=t("help.hub-backup-target"))]) -> None:
    """Copy a hub, which may be running, to a new directory."""
    from kakoi.hub.settings import Settings
    from kakoi.hub.upkeep import backup as copy_hub

    with errors_as_exit_codes():
        copy_hub(Settings(directory=directory), target)
        out.print(t("run.written", path=target))


@app.command("migrate", help=t("help.hub-migrate"))
def migrate(directory: Directory, database: Database = "") -> None:
    """Upgrade the tables of a hub that does not run."""
    from kakoi.hub.migrate import migrate as migrate_hub
    from kakoi.hub.settings import Settings

    with errors_as_exit_codes():
        out.print(t("hub.migrated", version=migrate_hub(Settings(directory=directory, database_url=database))))
