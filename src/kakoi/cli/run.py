"""``kakoi run``, ``kakoi result status``, ``kakoi result open`` and ``kakoi verify``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kakoi.attest.software.admit import with_software
from kakoi.cli.contract import HubUrl, Party
from kakoi.cli.i18n import t
from kakoi.cli.noise import show_noise
from kakoi.cli.party import KeyFile
from kakoi.cli.preview import preview_run
from kakoi.cli.ui import SystemClock, at_hub, err, errors_as_exit_codes, out, plain, show_error, show_made
from kakoi.contract.approve import Agreement
from kakoi.core.errors import Misuse, Refused
from kakoi.core.ids import ObjectId, parse_id
from kakoi.party.files import read_limited, write_private
from kakoi.sdk.ask import can_be_asked
from kakoi.sdk.released import outputs_of
from kakoi.sdk.run import Following, Opened, await_run, bindings, load_agreement, open_result, request_run
from kakoi.sdk.verify import VerifiedResult, verify_result
from kakoi.sdk.waiting import Waiting
from kakoi.wire.messages import SealedResult
from kakoi.wire.result import ResultFile

result_app = typer.Typer(no_args_is_help=True, help=t("help.result"))
OutFile = Annotated[Path, typer.Option("--out", help=t("help.out"))]


def run(
    contract: Annotated[str, typer.Argument(help=t("help.contract-id"))],
    analysis: Annotated[str, typer.Argument(help=t("help.analysis-name"))],
    party: Party,
    hub: HubUrl,
    out_file: OutFile = Path("result.kakoi"),
    parameter: Annotated[list[str] | None, typer.Option("--param", "-p", help=t("help.param"))] = None,
    seconds: Annotated[int, typer.Option("--timeout", help=t("help.timeout"))] = 600,
    no_wait: Annotated[bool, typer.Option("--no-wait", help=t("help.no-wait"))] = False,
    preview: Annotated[bool, typer.Option("--preview", help=t("help.run-preview"))] = False,
    key_file: KeyFile = None,
) -> None:
    """Ask for a run, wait, open and verify the result."""
    with errors_as_exit_codes(), ExitStack() as stack:
        if preview:
            given = dict(_parameter(text) for text in parameter or [])
            client, home = stack.enter_context(at_hub(hub, party, key_file))
            preview_run(client, home, contract, analysis, given)
            return
        refuse_to_overwrite(out_file)
        client, home = stack.enter_context(at_hub(hub, party, key_file))
        agreement = load_agreement(client, parse_id(contract))
        identity = _analysis_named(agreement, analysis)
        values = bindings(dict(_parameter(text) for text in parameter or []))
        client.put_object(home.card.envelope)
        run_id = request_run(client, home, agreement, identity, values, SystemClock().now())
        if no_wait:
            show_made(run_id, t("run.requested"))
            return
        err.print(t("run.requested"))
        err.print(run_id, soft_wrap=True)
        try:
            sealed = await_run(
                client,
                agreement,
                run_id,
                clock=SystemClock(),
                seconds=seconds,
                tell=_said,
                waits=lambda waiting: err.print(_waiting(waiting)),
            )
        except Refused as error:
            show_error(error)
            if can_be_asked(error.code):
                err.print(t("ask.how", contract=agreement.id, run=run_id), soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        finish(open_result(client, home, sealed, verifiers=with_software), out_file)


def _said(kind: str, sender: str) -> None:
    err.print(t("run.step", what=t(f"run.message.{kind.split('/')[1]}"), who=sender or t("run.enclave")))


def _waiting(waiting: Waiting) -> str:
    """What a run waits for, in one line."""
    said = t(f"run.waits-{waiting.what}", names=", ".join(waiting.names))
    return said + (t("run.attempt", number=waiting.attempt) if waiting.attempt > 1 else "")


@result_app.command("status", help=t("help.result-status"))
def status(
    run_id: Annotated[str, typer.Argument(help=t("help.run-id"))],
    contract: Annotated[str, typer.Argument(help=t("help.contract-id"))],
    party: Party,
    hub: HubUrl,
    key_file: KeyFile = None,
) -> None:
    """Where a run is and what it waits for. A run that was denied or has failed gives that error and its exit code."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, _):
        following = Following(client, load_agreement(client, parse_id(contract)), parse_id(run_id))
        found: SealedResult | Waiting | None = None
        while found is None:
            found = following.look(wait=0, tell=_said)
        out.print(t("run.is-done") if isinstance(found, SealedResult) else _waiting(found))


@result_app.command("open", help=t("help.result-open"))
def reopen(
    run_id: Annotated[str, typer.Argument(help=t("help.run-id"))],
    contract: Annotated[str, typer.Argument(help=t("help.contract-id"))],
    party: Party,
    hub: HubUrl,
    out_file: OutFile = Path("result.kakoi"),
    seconds: Annotated[int, typer.Option("--timeout", help=t("help.timeout"))] = 10,
    key_file: KeyFile = None,
) -> None:
    """Open the result of an earlier run again."""
    with errors_as_exit_codes(), ExitStack() as stack:
        refuse_to_overwrite(out_file)
        client, home = stack.enter_context(at_hub(hub, party, key_file))
        agreement = load_agreement(client, parse_id(contract))
        sealed = await_run(
            client, agreement, parse_id(run_id), clock=SystemClock(), seconds=seconds, tell=lambda kind, sender: None
        )
        finish(open_result(client, home, sealed, verifiers=with_software), out_file)


def verify(
    file: Annotated[Path, typer.Argument(help=t("help.result-file"))],
) -> None:
    """Verify a result offline, and say what it proves and what it does not."""
    with errors_as_exit_codes():
        verified = verify_result(read_limited(file, limit=ResultFile.MAX_BYTES), verifiers=with_software)
        show_verified(verified)


def finish(opened: Opened, out_file: Path) -> None:
    """Write the file, show what is in it."""
    write_private(out_file, opened.file)
    show_outputs(opened.verified)
    show_verified(opened.verified)
    out.print(t("run.written", path=out_file))


def refuse_to_overwrite(path: Path) -> None:
    """Raise Misuse before any work if the output file exists, or could not be written."""
    if path.exists():
        raise Misuse("file.exists", f"expected no {path.name} yet, found one", hint="choose another name with --out")
    if not path.absolute().parent.is_dir():
        raise Misuse("file.missing", f"expected a directory for {path}, found none", hint="make it first")


def show_outputs(verified: VerifiedResult) -> None:
    """Every output as a table."""
    for output in outputs_of(verified):
        table = Table(title=output.name, title_justify="left")
        for column in output.columns:
            table.add_column(column, justify="right")
        for row, held in zip(output.rows, output.held_back, strict=True):
            table.add_row(
                *(t("result.held-back") if kept else plain(cell or "") for cell, kept in zip(row, held, strict=True))
            )
        out.print(table)
        if output.rows_withheld:
            out.print(t("result.rows-withheld"))
        show_noise(output)


def show_verified(verified: VerifiedResult) -> None:
    """What is proven and what is not, in the user's language."""
    if not verified.protected_by_hardware:
        out.print(f"[bold red]{t('software.notice')}[/]")
    out.print(f"[bold]{t('verify.title', title=verified.agreement.contract.title)}[/]")
    for said in verified.proven:
        out.print(f"  [green]✔[/] {t(said.key, **said.parameters)}")
    for said in verified.not_proven:
        out.print(f"  [yellow]○[/] {t(said.key, **said.parameters)}")


def _parameter(text: str) -> tuple[str, str | int]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise Misuse("run.parameter", "expected a parameter as name=value", hint="for example -p minimum_age=40")
    try:
        return name, int(value)
    except ValueError:
        return name, value


def _analysis_named(agreement: Agreement, name: str) -> ObjectId:
    for identity, analysis in agreement.analyses.items():
        if name in (identity, analysis.record.name):
            return ObjectId(identity)
    names = ", ".join(sorted(analysis.record.name for analysis in agreement.analyses.values()))
    raise Misuse("run.analysis", f"expected one of the contract's analyses: {names}", hint="kakoi contract show")
