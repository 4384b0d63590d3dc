"""The command, and its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from kakoi.cli.contract import HubUrl
from kakoi.cli.i18n import t
from kakoi.cli.redteam import (
    hub_attacks,
    place_attacks,
    pressure_attacks,
    request_attacks,
    run_attacks,
    warned_attacks,
)
from kakoi.cli.redteam.attack import ROLES, Attack, Outcome, tried
from kakoi.cli.redteam.ground import Ground, Means, ground_on
from kakoi.cli.redteam.left_out import LEFT_OUT
from kakoi.cli.ui import err, errors_as_exit_codes, out, plain
from kakoi.core.errors import Misuse, Refused

ATTACKS: Final = (
    *hub_attacks.ATTACKS,
    *request_attacks.ATTACKS,
    *place_attacks.ATTACKS,
    *run_attacks.ATTACKS,
    *warned_attacks.ATTACKS,
    *pressure_attacks.ATTACKS,
)
"""In the order in which they are carried out: what presses comes last in its role."""
_MARKS: Final = {"repelled": "[green]✔[/]", "not-repelled": "[bold red]✘[/]", "not-tried": "[yellow]○[/]"}


def redteam(
    hub: HubUrl,
    roles: Annotated[list[str] | None, typer.Option("--as", help=t("help.redteam-as"))] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help=t("help.token-file"))] = None,
    storage: Annotated[Path | None, typer.Option("--storage", help=t("help.redteam-storage"))] = None,
    console: Annotated[str, typer.Option("--console", help=t("help.redteam-console"))] = "",
    as_json: Annotated[bool, typer.Option("--json", help=t("help.redteam-json"))] = False,
    names: Annotated[bool, typer.Option("--list", help=t("help.redteam-list"))] = False,
) -> None:
    """Attack a deployment that runs, with parties of one's own. Exit code 4 if anything got through."""
    with errors_as_exit_codes():
        chosen = attacks_of(roles or list(ROLES))
        if names:
            out.print(_listing(chosen))
            out.print(_left_out())
            return
        means = Means(hub=hub, token_file=token_file, storage=storage, console=console)
        if not as_json:
            err.print(t("redteam.begins", hub=hub, count=len(chosen)))
        with ground_on(means) as ground:
            outcomes = exercise(ground, chosen, quiet=as_json)
        if as_json:
            typer.echo(json.dumps([_plain(outcome) for outcome in outcomes], indent=2, ensure_ascii=False))
        else:
            _summary(outcomes)
        got = [outcome.attack.name for outcome in outcomes if outcome.state == "not-repelled"]
        if got:
            raise Refused(
                "redteam.through",
                f"expected every attack to be repelled, got through: {', '.join(got)}",
                hint="docs/redteam.md",
            )


def attacks_of(roles: Sequence[str]) -> list[Attack]:
    """The attacks of some roles. Raises Misuse for a role that is none."""
    unknown = set(roles) - set(ROLES)
    if unknown:
        raise Misuse("redteam.role", f"expected roles among {', '.join(ROLES)}, got another")
    return [attack for role in ROLES if role in roles for attack in ATTACKS if attack.role == role]


def exercise(ground: Ground, attacks: Sequence[Attack], *, quiet: bool = True) -> list[Outcome]:
    """Carry attacks out, one after the other."""
    outcomes, role = [], ""
    for attack in attacks:
        outcome = tried(attack, ground)
        outcomes.append(outcome)
        if quiet:
            continue
        if attack.role != role:
            role = attack.role
            out.print(f"[bold]{t('redteam.role.' + role)}[/]")
        out.print(
            f"  {_MARKS[outcome.state]} {t('redteam.attack.' + attack.name)} [dim]{attack.threat}[/] "
            f"{t('redteam.state.' + outcome.state, detail=outcome.detail)}",
            soft_wrap=True,
        )
    return outcomes


def _summary(outcomes: Sequence[Outcome]) -> None:
    counts = {state: sum(1 for o in outcomes if o.state == state) for state in _MARKS}
    out.print(
        t(
            "redteam.summary",
            repelled=counts["repelled"],
            through=counts["not-repelled"],
            untried=counts["not-tried"],
        )
    )


def _plain(outcome: Outcome) -> dict[str, str]:
    attack = outcome.attack
    return {
        "attack": attack.name,
        "role": attack.role,
        "threat": attack.threat,
        "state": outcome.state,
        "detail": outcome.detail,
    }


def _listing(attacks: Sequence[Attack]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("role", "threat", "attack"):
        table.add_column(t(f"redteam.column.{heading}"), overflow="fold")
    for attack in attacks:
        table.add_row(t(f"redteam.role.{attack.role}"), attack.threat, plain(t(f"redteam.attack.{attack.name}")))
    return table


def _left_out() -> Table:
    """Lines of the threat model that nobody can try from outside, and why."""
    table = Table(box=None, pad_edge=False)
    for heading in ("threat", "left-out"):
        table.add_column(t(f"redteam.column.{heading}"), overflow="fold")
    for threat, reason in LEFT_OUT.items():
        table.add_row(threat, plain(reason))
    return table
