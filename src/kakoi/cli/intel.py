"""``kakoi intel``: others' warnings, and what was refused here, told to others."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kakoi.cli.contract import Party
from kakoi.cli.i18n import t
from kakoi.cli.ui import SystemClock, errors_as_exit_codes, out, plain
from kakoi.core.errors import Misuse
from kakoi.guard.intel import store
from kakoi.guard.intel.index import Index
from kakoi.guard.intel.indicator import stamp
from kakoi.party.files import read_limited, write_private

app = typer.Typer(no_args_is_help=True, help=t("help.intel"))
Url = Annotated[str, typer.Option("--url", help=t("help.intel-url"))]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help=t("help.intel-token-file"))]
User = Annotated[str, typer.Option("--user", help=t("help.intel-user"))]


@app.command("trust", help=t("help.intel-trust"))
def trust(
    party: Party,
    source: Annotated[str, typer.Argument(help=t("help.intel-source"))],
    percent: Annotated[int, typer.Argument(min=0, max=100, help=t("help.intel-percent"))],
) -> None:
    """Say how far a source is believed."""
    with errors_as_exit_codes():
        _keep(party, store.load(_directory(party)).trusting(source, percent))
        out.print(t("intel.trusted", source=plain(source), percent=percent))


@app.command("pull", help=t("help.intel-pull"))
def pull(
    party: Party,
    url: Url,
    source: Annotated[str, typer.Option("--source", help=t("help.intel-source"))] = "",
    token_file: TokenFile = None,
    user: User = "",
) -> None:
    """Take indicators from a TAXII collection."""
    with errors_as_exit_codes():
        from kakoi.guard.intel import taxii_client

        known, name = store.load(_directory(party)), source or url
        place = taxii_client.collection(url, **_credentials(token_file, user))
        found, aside = store.read_objects(taxii_client.pull(place), source=name)
        _keep(party, known.merged([*found, *aside], now=SystemClock().now()))
        out.print(t("intel.pulled", count=len(found), aside=len(aside), source=plain(name)))
        for item in aside[:20]:
            out.print(f"  {plain(item.id)}: {plain(item.reason)}")
        if name not in known.sources:
            out.print(t("intel.untrusted", source=plain(name)))


@app.command("list", help=t("help.intel-list"))
def listed(party: Party) -> None:
    """Show indicators and which of them act."""
    with errors_as_exit_codes():
        known, now = store.load(_directory(party)), SystemClock().now()
        spared = {item.id for item in Index(known).spared(now)}
        table = Table()
        for heading in ("kind", "value", "source", "confidence", "until", "acts"):
            table.add_column(t(f"intel.{heading}"))
        for item in known.items:
            acts = item.active(now) and known.believed(item) and item.id not in spared
            until = "-" if item.valid_until >= 2**52 else stamp(item.valid_until)[:10]
            row = (item.kind, plain(item.value), plain(item.source), str(item.confidence), until)
            table.add_row(*row, t("intel.yes") if acts else t("intel.no"))
        out.print(table)


@app.command("sightings", help=t("help.intel-sightings"))
def sightings(
    party: Party,
    file: Annotated[Path | None, typer.Option("--out", help=t("help.intel-out"))] = None,
    url: Annotated[str, typer.Option("--push", help=t("help.intel-push"))] = "",
    tlp: Annotated[str, typer.Option("--tlp", help=t("help.intel-tlp"))] = "TLP:AMBER",
    token_file: TokenFile = None,
    user: User = "",
) -> None:
    """Tell others what was refused here."""
    with errors_as_exit_codes():
        import json

        from kakoi.cli.own_sightings import own_sightings
        from kakoi.guard.intel import taxii_client

        made = own_sightings(_directory(party), tlp=tlp, now=SystemClock().now())
        bundle = {"type": "bundle", "id": _bundle_id(), "objects": made}
        if file is not None:
            write_private(file, json.dumps(bundle, indent=1).encode() + b"\n")
        if url:
            taxii_client.push(taxii_client.collection(url, **_credentials(token_file, user)), made)
        out.print(t("intel.told", count=sum(item["type"] == "sighting" for item in made)))


def _bundle_id() -> str:
    import uuid

    return f"bundle--{uuid.uuid4()}"


@app.command("serve", help=t("help.intel-serve"))
def serve(
    party: Party,
    token_file: Annotated[Path, typer.Option("--token-file", help=t("help.intel-token-file"))],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help=t("help.intel-port"))] = 8790,
    tlp: Annotated[str, typer.Option("--tlp", help=t("help.intel-tlp"))] = "TLP:AMBER",
) -> None:
    """Serve sightings over TAXII 2.1, on loopback: a reverse proxy with TLS stands before it."""
    with errors_as_exit_codes():
        import uvicorn

        from kakoi.cli.own_sightings import own_sightings
        from kakoi.guard.intel.taxii_server import COLLECTION, application

        directory = _directory(party)
        if not token_file.exists():
            write_private(token_file, secrets.token_urlsafe(32).encode() + b"\n")
        token = read_limited(token_file, limit=4096).decode("ascii", "replace").strip()
        if len(token) < 16:
            raise Misuse("intel.token", "expected a token of at least 16 characters in the file, got a shorter one")
        made = application(
            lambda: own_sightings(directory, tlp=tlp, now=SystemClock().now()), token=token, title="Kakoi sightings"
        )
        out.print(t("intel.serving", url=f"http://127.0.0.1:{port}/kakoi/collections/{COLLECTION}/"))
        uvicorn.run(made, host="127.0.0.1", port=port, log_level="warning", server_header=False)


def _keep(party: Path, indicators: store.Indicators) -> None:
    write_private(party / store.FILE, indicators.encode())


def _credentials(token_file: Path | None, user: str) -> dict[str, str]:
    if token_file is None:
        return {}
    secret = read_limited(token_file, limit=4096).decode("utf-8", "replace").strip()
    return {"user": user, "password": secret} if user else {"token": secret}


def _directory(party: Path) -> Path:
    if not party.is_dir():
        raise Misuse("party.missing", f"expected a party's directory in {party}, found none", hint="kakoi party new")
    return party
