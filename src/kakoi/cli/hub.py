"""``kakoi hub``: run a hub, show its log's key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kakoi.cli.i18n import t
from kakoi.cli.ui import SystemClock, errors_as_exit_codes, out
from kakoi.contract.model import LogKey
from kakoi.core.errors import Misuse
from kakoi.core.ids import parse_id
from kakoi.party.files import read_limited, write_private

app = typer.Typer(no_args_is_help=True, help=t("help.hub-app"))
Directory = Annotated[Path, typer.Option("--directory", help=t("help.hub-directory"))]
Database = Annotated[
    str,
    typer.Option(
        "--database", envvar="KAKOI_DATABASE", show_envvar=True, show_default=False, help=t("help.hub-database")
    ),
]


@app.command("serve", help=t("help.hub-serve"))
def serve(
    directory: Directory,
    host: Annotated[str, typer.Option("--host", help=t("help.hub-host"))] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help=t("help.hub-port"))] = 0,
    token_file: Annotated[Path | None, typer.Option("--token-file", help=t("help.token-file"))] = None,
    blobs: Annotated[str, typer.Option("--blobs", help=t("help.hub-blobs"))] = "",
    database: Database = "",
    metrics_port: Annotated[int | None, typer.Option("--metrics-port", help=t("help.metrics-port"))] = None,
    name: Annotated[list[str] | None, typer.Option("--name", help=t("help.hub-name"))] = None,
    allow: Annotated[list[str] | None, typer.Option("--allow", help=t("help.hub-allow"))] = None,
    policies: Annotated[Path | None, typer.Option("--policies", help=t("help.hub-policies"))] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help=t("help.hub-tls-certificate"))
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help=t("help.hub-tls-key"))] = None,
    tls_client_ca: Annotated[Path | None, typer.Option("--tls-client-ca", help=t("help.hub-tls-client-ca"))] = None,
) -> None:
    """Run a hub until interrupted."""
    # An owner's machine does not have the hub's dependencies, so they are asked for only here.
    from kakoi.hub.serve import serve as run_hub
    from kakoi.hub.settings import Settings

    with errors_as_exit_codes():
        settings = Settings(
            directory=directory,
            host=host,
            port=port,
            operator_token_file=token_file,
            blobs=blobs,
            database_url=database,
            metrics_port=metrics_port,
            names=tuple(name or ()),
            allow=tuple(allow or ()),
            policies=policies,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
        )
        run_hub(settings)


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
