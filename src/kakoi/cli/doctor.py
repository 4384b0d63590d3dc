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
        out.print(f"Python {sys.version.split()[0]}")
        if shutil.which("bwrap") is None:
            raise Misuse("doctor.bwrap", "expected the program bwrap, found none", hint="apt-get install bubblewrap")
        if not missing():
            out.print(t("doctor.ok"))
