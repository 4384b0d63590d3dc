"""``kakoi``: what people type. Each command is thin; what it does lies in ``sdk``, ``broker``, ``enclave`` and ``hub``."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import NoReturn

import typer

from kakoi.cli import (
    ask,
    attest,
    collateral,
    console,
    contract,
    dataset,
    events,
    intel,
    ledger,
    party,
    preview,
    quarantine,
    restoring,
    run,
    serve,
    weakness,
)
from kakoi.cli.code import app as code_app
from kakoi.cli.conformance import conformance
from kakoi.cli.doctor import doctor
from kakoi.cli.figures import figures  # noqa: F401 - a command of ``kakoi result``
from kakoi.cli.hub import app as hub_app
from kakoi.cli.i18n import t
from kakoi.cli.posture import posture
from kakoi.cli.redteam.command import redteam
from kakoi.cli.ui import show_error
from kakoi.core.errors import Misuse

app = typer.Typer(
    name="kakoi",
    no_args_is_help=True,
    help=t("help.kakoi"),
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
party.app.command("check-backup", help=t("help.party-check-backup"))(restoring.party_check_backup)
app.add_typer(party.app, name="party")
app.add_typer(dataset.app, name="dataset")
app.add_typer(code_app, name="code")
app.add_typer(contract.analysis_app, name="analysis")
contract.app.command("ask", help=t("help.contract-ask"))(ask.ask)
contract.app.command("asked", help=t("help.contract-asked"))(ask.asked)
contract.app.command("preview", help=t("help.contract-preview"))(preview.contract_preview)
app.add_typer(contract.app, name="contract")
app.add_typer(attest.app, name="attest")
app.add_typer(collateral.app, name="collateral")
hub_app.command("check-backup", help=t("help.hub-check-backup"))(restoring.hub_check_backup)
app.add_typer(hub_app, name="hub")
ledger.add_to(serve.broker_app)
app.add_typer(serve.broker_app, name="broker")
app.add_typer(console.app, name="console")
app.add_typer(serve.enclave_app, name="enclave")
app.add_typer(serve.platform_app, name="platform")
app.command("run", help=t("help.run"))(run.run)
app.add_typer(run.result_app, name="result")
app.command("verify", help=t("help.verify"))(run.verify)
app.add_typer(events.app, name="events")
app.command("alerts", help=t("help.alerts"))(events.alerts)
app.command("posture", help=t("help.posture"))(posture)
app.command("redteam", help=t("help.redteam"))(redteam)
app.command("conformance", help=t("help.conformance"))(conformance)
app.add_typer(intel.app, name="intel")
app.add_typer(quarantine.app, name="quarantine")
app.command("sbom", help=t("help.sbom"))(weakness.sbom)
app.add_typer(weakness.advisories_app, name="advisories")
app.command("exposure", help=t("help.exposure"))(weakness.exposure)
app.command("doctor", help=t("help.doctor"))(doctor)


def _version(wanted: bool) -> None:
    """Say what is installed, and nothing else."""
    if wanted:
        typer.echo(f"kakoi {version('kakoi')}")
        raise typer.Exit


@app.callback()
def options(
    _: bool = typer.Option(False, "--version", is_eager=True, callback=_version, help=t("help.version")),
) -> None:
    """What every command shares."""


@app.command("demo", help=t("help.demo"))
def demo(
    out_directory: str = typer.Option("demo-out", "--out", help=t("help.demo-out")),
    keep_open: bool = typer.Option(False, "--keep-open", help=t("help.demo-keep")),
) -> None:
    """Three hospitals, one real result, six attacks."""
    from pathlib import Path

    from kakoi.cli.demo.story import tell_story
    from kakoi.cli.ui import errors_as_exit_codes

    with errors_as_exit_codes():
        tell_story(Path(out_directory), keep_open=keep_open)


def main() -> NoReturn:
    """Entry point. What is wrong with the command line itself is told like every other mistake of the caller."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        code = _usage(error)
    except typer.Abort:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: typer.TyperException) -> int:
    message = error.format_message().strip().rstrip(".")
    context = getattr(error, "ctx", None)
    if message:  # a group without a command has shown its help instead
        path = context.command_path if context is not None else "kakoi"
        show_error(Misuse("cli.usage", message[:1].lower() + message[1:], hint=f"{path} --help"))
    return Misuse.exit_code
