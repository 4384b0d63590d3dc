"""``kakoi events`` and ``kakoi alerts``: read, check and export a party's stream of events. None of it needs keys."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from kakoi.cli.i18n import t
from kakoi.cli.ui import errors_as_exit_codes, out, plain
from kakoi.cli.watch import Where, key_of, reading
from kakoi.core import encoding
from kakoi.core.dsse import PAYLOAD_TYPE, Envelope
from kakoi.core.errors import Misuse, Refused, Unavailable
from kakoi.guard.chain import VerifiedStream, verify_stream
from kakoi.guard.export import export_new
from kakoi.guard.happening import SEVERITY
from kakoi.guard.sinks import close_quietly, open_sink
from kakoi.party.files import read_limited

app = typer.Typer(no_args_is_help=True, help=t("help.events"))
_LEVELS: Final = {number: name for name, number in SEVERITY.items()}
_STATUS: Final = {1: "[green]✔[/]", 2: "[red]✘[/]"}
_COLOURS: Final = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "informational": "dim"}
LARGEST_EXPORT: Final = 4 * 1024**3


@app.command("show", help=t("help.events-show"))
def show(
    where: Where,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help=t("help.events-limit"))] = 50,
    what: Annotated[str, typer.Option("--code", help=t("help.events-code"))] = "",
    as_json: Annotated[bool, typer.Option("--json", help=t("help.events-json"))] = False,
) -> None:
    """The newest events, oldest of them first."""
    with errors_as_exit_codes(), reading(where) as found:
        events = list(reversed(found.stream.newest(limit=limit, what=what)))
        if as_json:
            for event in events:
                typer.echo(encoding.dumps(event).decode())
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("number", "time", "event", "result", "who", "more"):
            table.add_column(t(f"events.column.{heading}"), overflow="fold")
        for event in events:
            table.add_row(*_row(event))
        out.print(table)


def _row(event: Any) -> tuple[str, ...]:
    at = datetime.fromtimestamp(event["time"] // 1000, UTC).strftime("%m-%d %H:%M:%S")
    level = _LEVELS.get(event["severity_id"], "low")
    count = f" ×{event['count']}" if event.get("count", 1) > 1 else ""
    code = f"[{_COLOURS[level]}]{plain(event['metadata']['event_code'])}[/]{count}"
    state = f"{_STATUS.get(event['status_id'], '·')} {plain(event.get('status_code', ''))}"
    return str(event["metadata"]["sequence"]), at, code, state, plain(_who(event)), plain(_more(event))


def _who(event: Any) -> str:
    person = event.get("actor", {}).get("user", event.get("user", {})).get("name", "")
    address = event.get("src_endpoint", {}).get("ip", "")
    return " ".join(part for part in (person, address) if part)


def _more(event: Any) -> str:
    own = event["unmapped"]["kakoi"]
    parts = [f"{name} {own[name][:12]}" for name in ("run", "contract", "subject", "measurement") if name in own]
    parts += list(own.get("marks", ())) + list(own.get("failed", ()))
    title = event.get("finding_info", {}).get("title")
    return ", ".join([title, *parts] if title else parts)


@app.command("verify", help=t("help.events-verify"))
def verify(
    where: Annotated[Path | None, typer.Option("--party", "--directory", help=t("help.events-where"))] = None,
    file: Annotated[Path | None, typer.Option("--file", help=t("help.events-file"))] = None,
    key: Annotated[Path | None, typer.Option("--key", help=t("help.events-key"))] = None,
    against: Annotated[Path | None, typer.Option("--against", help=t("help.events-against"))] = None,
) -> None:
    """The whole chain and every signed head, of a directory or of what was exported from it."""
    with errors_as_exit_codes():
        if (where is None) == (file is None) or (file is not None and key is None):
            raise Misuse("event.verify", "expected --party or --directory, or --file with --key", hint="see --help")
        kept = _exported(against)[1] if against is not None else []
        if file is not None and key is not None:
            lines, heads = _exported(file)
            verified = verify_stream(lines, [*heads, *kept], key_of(key))
        elif where is not None:
            with reading(where) as found:
                lines = [line for _, line in found.stream.everything()]
                verified = verify_stream(lines, [*found.stream.heads(), *kept], key_of(key or where))
        _say(verified)


def _exported(path: Path) -> tuple[list[bytes], list[Envelope]]:
    """Events and heads of a file that the sink ``jsonl:`` wrote. Sent again after a crash, a line counts once."""
    lines: dict[bytes, None] = {}
    heads: dict[bytes, None] = {}
    mark = f'"payloadType":"{PAYLOAD_TYPE}"'.encode()
    for line in read_limited(path, limit=LARGEST_EXPORT).split(b"\n"):
        if line:
            (heads if mark in line and b'"signatures"' in line else lines)[line] = None
    return list(lines), [Envelope.decode(line) for line in heads]


def _say(verified: VerifiedStream) -> None:
    out.print(f"[green]✔[/] {t('events.whole', size=verified.size)}")
    unsigned = verified.size - verified.signed
    mark = "[green]✔[/]" if unsigned == 0 else "[yellow]○[/]"
    out.print(f"{mark} {t('events.signed', signed=verified.signed, unsigned=unsigned)}")
    out.print(f"[yellow]○[/] {t('events.tail')}")


@app.command("export", help=t("help.events-export"))
def export(
    where: Where,
    to: Annotated[str, typer.Option("--to", help=t("help.events-to"))],
    follow: Annotated[bool, typer.Option("--follow", help=t("help.events-follow"))] = False,
) -> None:
    """What the sink has not got yet; with ``--follow`` also what comes."""
    with errors_as_exit_codes(), reading(where) as found:
        sink = open_sink(to)
        try:
            sent = export_new(found.stream, sink, to)
            out.print(t("events.exported", count=sent))
            while follow:
                time.sleep(1)
                try:
                    export_new(found.stream, sink, to)
                except Unavailable as error:
                    out.print(f"{plain(error.message)} \\[{error.code}]")
        finally:
            close_quietly(sink)


def alerts(
    where: Where,
    as_json: Annotated[bool, typer.Option("--json", help=t("help.events-json"))] = False,
    fail_on: Annotated[str, typer.Option("--fail-on", help=t("help.alerts-fail"))] = "",
    rules: Annotated[bool, typer.Option("--rules", help=t("help.alerts-rules"))] = False,
) -> None:
    """What the rules found in the whole stream, judged again from its beginning; nothing is written."""
    with errors_as_exit_codes():
        if fail_on and fail_on not in SEVERITY:
            raise Misuse("alerts.level", f"expected one of {', '.join(SEVERITY)}, got another level")
        from kakoi.cli.alerts import judged_again, rule_table
        from kakoi.guard.settings import read_settings
        from kakoi.guard.shipped import rules_with

        known = rules_with(read_settings(where).rules)
        if rules:
            out.print(rule_table(known))
            return
        with reading(where) as found:
            raised = judged_again(found.stream, known)
        if as_json:
            for alert in raised:
                typer.echo(json.dumps(alert, ensure_ascii=False, sort_keys=True))
        else:
            _show_alerts(raised)
        worst = max((SEVERITY[alert["level"]] for alert in raised), default=0)
        if fail_on and worst >= SEVERITY[fail_on]:
            raise Refused("alerts.raised", f"expected no alert of level {fail_on} or above, got some")


def _show_alerts(raised: list[dict[str, Any]]) -> None:
    from kakoi.cli.alerts import rule_title

    if not raised:
        out.print(f"[green]✔[/] {t('alerts.none')}")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("time", "level", "rule", "events"):
        table.add_column(t(f"alerts.column.{heading}"), overflow="fold")
    for alert in raised:
        at = datetime.fromtimestamp(alert["time"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        level = f"[{_COLOURS[alert['level']]}]{t('alerts.level.' + alert['level'])}[/]"
        table.add_row(at, level, plain(rule_title(alert["rule"], alert["title"])), f"{alert['first']}–{alert['last']}")
    out.print(table)
