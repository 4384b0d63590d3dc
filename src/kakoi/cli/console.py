"""``kakoi console``: the pages of one's own party, without or beside its broker; first invitation and card from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from kakoi.attest.software.admit import with_software
from kakoi.cli.contract import HubUrl, Party
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, err, errors_as_exit_codes, open_party, out, require_party, words
from kakoi.cli.watch import MetricsPort, watching
from kakoi.console.settings import Settings
from kakoi.contract.sign import open_card
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse
from kakoi.guard.watch import Watch
from kakoi.net.caller import Patience
from kakoi.party.files import read_limited, write_private
from kakoi.party.home import PartyHome
from kakoi.sdk.connect import connect

# The web framework is imported where it is used: an owner's other commands do without it.
if TYPE_CHECKING:
    from kakoi.console.people import People
    from kakoi.console.serve import Server

app = typer.Typer(no_args_is_help=True, help=t("help.console"))
Port = Annotated[int, typer.Option("--console-port", help=t("help.console-port"))]
Host = Annotated[str, typer.Option("--console-host", help=t("help.console-host"))]
Name = Annotated[str, typer.Option("--console-name", help=t("help.console-name"))]
Certificate = Annotated[Path | None, typer.Option("--console-certificate", help=t("help.console-certificate"))]
TlsKey = Annotated[Path | None, typer.Option("--console-key", help=t("help.console-key"))]
ADDRESS_FILE: Final = "console.address"
_PATIENCE: Final = Patience(connect=3, idle=10, attempts=2)
"""People wait in front of the page: a hub that is silent is said to be, soon."""


@app.command("serve", help=t("help.console-serve"))
def serve(
    party: Party,
    hub: HubUrl,
    port: Port = 8443,
    host: Host = "127.0.0.1",
    name: Name = "localhost",
    certificate: Certificate = None,
    tls_key: TlsKey = None,
    metrics_port: MetricsPort = None,
    key_file: KeyFile = None,
) -> None:
    """Serve the console until interrupted."""
    with errors_as_exit_codes():
        settings = Settings(host=host, port=port, name=name, tls_certificate=certificate, tls_key=tls_key)
        home = open_party(party, key_file)
        with watching(home, "console", metrics_port=metrics_port) as watch:
            server_for(home, hub, settings, broker=False, watch=watch).run()


def server_for(home: PartyHome, hub: str, settings: Settings, *, broker: bool, watch: Watch | None = None) -> Server:
    """A console that has its port. It says its address on standard error and in ``console.address``."""
    from kakoi.console.serve import open_server

    def ready(address: str) -> None:
        write_private(home.path / ADDRESS_FILE, address.encode() + b"\n", mode=0o644)
        err.print(t("console.ready", name=home.card.record.name, address=address))
        if not server.console.people.devices():
            err.print(t("console.nobody", party=home.path))

    server = open_server(
        settings,
        home=home,
        hub=connect(hub, home, patience=_PATIENCE),
        clock=SystemClock(),
        verifiers=with_software,
        broker=broker,
        watch=watch,
        ready=ready,
    )
    return server


@app.command("invite", help=t("help.console-invite"))
def invite(
    party: Party,
    name: Annotated[str, typer.Option("--name", help=t("help.console-person"))],
    role: Annotated[str, typer.Option("--role", help=t("help.console-role"))] = "administrator",
    address: Annotated[str, typer.Option("--address", help=t("help.console-address"))] = "",
) -> None:
    """Print a one-time link. Needs no keys: whoever runs this machine decides who may look at the console."""
    with errors_as_exit_codes():
        card = open_card(Envelope.decode(read_limited(party / "card.dsse", limit=1024 * 1024)))
        if role not in ("administrator", "member"):
            raise Misuse("people.role", "expected the role administrator or member, got another")
        with _people(party) as people:
            token = people.invite(name, "member" if role == "member" else "administrator", by=card.record.name)
        out.print(f"{address.rstrip('/') or _address(party)}/enrol/{token}", soft_wrap=True)


@contextmanager
def _people(party: Path) -> Iterator[People]:
    from kakoi.console.people import People
    from kakoi.console.store import Store

    store = Store(party / "people.sqlite")
    try:
        yield People(store, SystemClock(), invitation_seconds=Settings().invitation_seconds)
    finally:
        store.close()


def _address(party: Path) -> str:
    path = party / ADDRESS_FILE
    return path.read_text("utf-8").strip() if path.exists() else Settings().origin


@app.command("notify", help=t("help.console-notify"))
def notify(
    party: Party,
    webhook: Annotated[str, typer.Option("--webhook", help=t("help.notify-webhook"))] = "",
    mail_server: Annotated[str, typer.Option("--mail-server", help=t("help.notify-mail-server"))] = "",
    mail_port: Annotated[int, typer.Option("--mail-port", help=t("help.notify-mail-port"))] = 587,
    mail_security: Annotated[str, typer.Option("--mail-security", help=t("help.notify-mail-security"))] = "starttls",
    mail_from: Annotated[str, typer.Option("--mail-from", help=t("help.notify-mail-from"))] = "",
    mail_user: Annotated[str, typer.Option("--mail-user", help=t("help.notify-mail-user"))] = "",
    mail_password_file: Annotated[
        Path | None, typer.Option("--mail-password-file", help=t("help.notify-mail-password"))
    ] = None,
    internal: Annotated[list[str] | None, typer.Option("--internal", help=t("help.notify-internal"))] = None,
    authorities: Annotated[Path | None, typer.Option("--authorities", help=t("help.notify-authorities"))] = None,
    off: Annotated[bool, typer.Option("--off", help=t("help.notify-off"))] = False,
) -> None:
    """Say where notifications go. A running console follows at once. Without options: print what is set."""
    from kakoi.console import notify as settings_of

    with errors_as_exit_codes():
        require_party(party)
        present = settings_of.Notify() if off else settings_of.load(party)
        if internal:
            present = replace(present, internal=tuple(dict.fromkeys([*present.internal, *map(str.lower, internal)])))
        if authorities is not None:
            present = replace(present, authorities=str(authorities.resolve()))
        if webhook:
            present = replace(present, webhook=settings_of.Webhook(url=webhook, secret=settings_of.new_secret()))
        if mail_server:
            mail = settings_of.Mail(
                server=mail_server,
                port=mail_port,
                security=cast("settings_of.Security", mail_security),
                sender=mail_from,
                user=mail_user,
                password_file=str(mail_password_file.resolve()) if mail_password_file else "",
            )
            present = replace(present, mail=mail)
        if off or internal or authorities or webhook or mail_server:
            settings_of.save(party, present)
        if webhook and present.webhook is not None:
            out.print(t("notify.secret", secret=present.webhook.secret), soft_wrap=True)
        out.print(t("notify.webhook", host=present.webhook.host) if present.webhook else t("notify.no-webhook"))
        out.print(t("notify.mail", server=present.mail.server) if present.mail else t("notify.no-mail"))


@app.command("card", help=t("help.console-card"))
def card(
    party: Party,
    hub: HubUrl,
    required: Annotated[int, typer.Option("--required", help=t("help.console-required"))],
    name: Name = "localhost",
    key_file: KeyFile = None,
) -> None:
    """Make the party's next card with everybody who is enrolled, by the party's keys alone."""
    with errors_as_exit_codes():
        home = open_party(party, key_file)
        with _people(home.path) as people:
            enrolled = people.for_card()
        record = home.next_card(
            people=enrolled,
            approvals_required=required,
            relying_party=name,
            created=SystemClock().now(),
        )
        signed = home.adopt(record)
        with connect(hub, home) as client:
            client.put_object(signed.envelope)
            for envelope in home.present_manifests():
                client.put_object(envelope)
        out.print(t("console.card", id=signed.id, words=words(signed.id)))
