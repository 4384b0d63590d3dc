"""``kakoi doctor``: what this machine has, what it lacks, and what that is worth."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Annotated

import typer
from rich.table import Table

from kakoi.cli.i18n import t
from kakoi.cli.ui import errors_as_exit_codes, out, plain
from kakoi.core.errors import Misuse
from kakoi.enclave.machine import layers, missing
from kakoi.guard.listeners import Seen, beyond_this_machine, look


def doctor(weaknesses: Annotated[bool, typer.Option("--weaknesses", help=t("help.weaknesses"))] = False) -> None:
    """Show every isolation layer and whether it is here. Exit code 2 if a program is missing altogether."""
    with errors_as_exit_codes():
        if weaknesses:
            out.print(plain(f"accepted_weaknesses = {json.dumps(missing())}"), soft_wrap=True)
            return
        table = Table(title=t("doctor.title"), title_justify="left")
        for heading in ("doctor.layer", "doctor.state", "doctor.worth"):
            table.add_column(t(heading), overflow="fold")
        for layer in layers():
            state = (
                f"[green]{t('doctor.present')}[/]"
                if layer.present
                else f"[red]{t('doctor.missing')}[/] {plain(layer.missing)}"
            )
            table.add_row(layer.name, state, layer.worth)
        out.print(table)
        _show_listeners()
        out.print(f"Python {sys.version.split()[0]}")
        if shutil.which("bwrap") is None:
            raise Misuse("doctor.bwrap", "expected the program bwrap, found none", hint="apt-get install bubblewrap")
        if not missing():
            out.print(t("doctor.ok"))


def _show_listeners() -> None:
    """Every socket on which a program of Kakoi listens here, who may connect, and what is wrong with that."""
    seen = look()
    if seen is None:
        out.print(t("doctor.no-proc"))
        return
    if not seen:
        out.print(t("doctor.nothing-listens"))
        return
    table = Table(title=t("doctor.listeners"), title_justify="left")
    table.add_column(t("doctor.address"), no_wrap=True)
    for heading in ("doctor.what", "doctor.tls", "doctor.allowed", "doctor.who", "doctor.worries"):
        table.add_column(t(heading), overflow="fold")
    for one in seen:
        worries = ", ".join(t(f"doctor.worry.{worry}") for worry in one.worries)
        table.add_row(
            f"[{one.host}]:{one.port}" if ":" in one.host else f"{one.host}:{one.port}",
            t(f"doctor.door.{one.door.name}") if one.door is not None else t("doctor.door.unknown"),
            _tls(one),
            _allowed(one),
            t(f"doctor.may.{one.door.name}") if one.door is not None else t("doctor.may.unknown"),
            f"[bold yellow]{plain(worries)}[/]" if worries else f"[green]{t('doctor.fine')}[/]",
        )
    out.print(table)


def _tls(one: Seen) -> str:
    if not one.tls:
        return t("doctor.plain")
    asked = one.door.client_certificates if one.door is not None else "none"
    return t(f"doctor.certificates.{asked}")


def _allowed(one: Seen) -> str:
    if one.door is not None and one.door.allow:
        return ", ".join(one.door.allow)
    return t("doctor.from-anywhere" if beyond_this_machine(one.host) else "doctor.this-machine")
