"""``kakoi broker ledger``: what has left from this owner's data, and how much of the budgets is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kakoi.broker.ledger import Ledger
from kakoi.broker.releases import losses, plainly
from kakoi.cli.i18n import t
from kakoi.cli.ui import errors_as_exit_codes, out, require_party
from kakoi.contract.rules import NO_EPSILON
from kakoi.core import encoding


def add_to(app: typer.Typer) -> None:
    """Make it a command of ``kakoi broker``."""
    app.command("ledger", help=t("help.broker-ledger"))(broker_ledger)


def broker_ledger(
    party: Annotated[Path, typer.Option("--party", help=t("help.party-directory"))],
    as_json: Annotated[bool, typer.Option("--json", help=t("help.json"))] = False,
) -> None:
    """Print the releases after checking their chain. Needs no keys; whose numbers they were only an enclave can read."""
    with errors_as_exit_codes():
        require_party(party)
        with closing(Ledger(party / "ledger.sqlite")) as ledger:
            entries, place = ledger.releases.entries(), ledger.releases.place()
        if as_json:
            for entry in entries:
                typer.echo(json.dumps(entry, sort_keys=True))
            return
        table = Table(title=t("ledger.title", count=len(entries), head=place.head.hex()[:16]))
        for heading in ("number", "when", "run", "data", "kilobytes", "epsilon"):
            table.add_column(t(f"ledger.{heading}"))
        for number, entry in enumerate(entries, start=1):
            when = datetime.fromtimestamp(int(str(entry["at"])), tz=UTC).strftime("%Y-%m-%d %H:%M")
            datasets = ", ".join(str(item)[:12] for item in entry["datasets"])
            table.add_row(str(number), when, str(entry["run"])[:12], datasets, str(entry["kilobytes"]), _loss(entry))
        out.print(table)
        for dataset in sorted({str(item) for entry in entries for item in entry["datasets"]}):
            mine = [entry for entry in entries if dataset in entry["datasets"]]
            out.print(
                t(
                    "ledger.used",
                    data=dataset[:12],
                    runs=len({str(entry["run"]) for entry in mine}),
                    kilobytes=sum(int(str(entry["kilobytes"])) for entry in mine),
                )
            )
            if told := losses(mine):
                out.print(t("ledger.used-noise", data=dataset[:12], epsilon=plainly(told)))


def _loss(entry: Mapping[str, encoding.Json]) -> str:
    return "–" if entry["epsilon"] == NO_EPSILON else str(entry["epsilon"])
