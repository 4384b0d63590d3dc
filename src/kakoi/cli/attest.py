"""``kakoi attest``: judge evidence by itself, outside any run; read a policy.

Exit codes are those of the error families, and one more: 1 where evidence is genuine and nothing was appraised, so
that no script takes "the signatures hold" for "this is what we want".
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, get_args

import typer
from rich.table import Table

from kakoi.attest.jose import MAX_JSON_BYTES
from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, Unchecked
from kakoi.attest.report import Check, Claims, Collateral, Evidence, PlatformKind, TokenService
from kakoi.attest.tokens.parse import MAX_BYTES as MAX_TOKEN
from kakoi.cli.i18n import t
from kakoi.cli.ui import SystemClock, errors_as_exit_codes, out, plain
from kakoi.core.encoding import dumps
from kakoi.core.errors import KakoiError, Misuse
from kakoi.core.records import to_value
from kakoi.core.x509 import utc
from kakoi.party.files import read_limited
from kakoi.sdk.attest_file import AttestReport, draft_policy, examine
from kakoi.sdk.attest_token import TokenFile, draft_token_policy, examine_token, token_policy_from_file
from kakoi.sdk.draft import policy_from_file
from kakoi.sdk.evidence_files import read_collateral, read_evidence

app = typer.Typer(no_args_is_help=True, help=t("help.attest"))
NOT_APPRAISED: Final = 1
_LIMIT: Final = 8 * 1024 * 1024
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_HEX: Final = re.compile(r"[0-9a-fA-F]+")
_COLOURS: Final = {"passed": "green", "failed": "bold red", "skipped": "yellow"}
_ORDER: Final = ("failed", "skipped", "passed")


@app.command("verify", help=t("help.attest-verify"))
def verify(
    file: Annotated[Path, typer.Argument(help=t("help.evidence-file"))],
    collateral: Annotated[list[Path] | None, typer.Option("--collateral", help=t("help.attest-collateral"))] = None,
    at: Annotated[str | None, typer.Option("--at", help=t("help.attest-at"))] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help=t("help.attest-policy-file"))] = None,
    report_data: Annotated[str | None, typer.Option("--report-data", help=t("help.report-data"))] = None,
    kind: Annotated[str | None, typer.Option("--kind", help=t("help.evidence-kind"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=t("help.json"))] = False,
    write_draft: Annotated[bool, typer.Option("--draft-policy", help=t("help.draft-policy"))] = False,
    jwks: Annotated[Path | None, typer.Option("--jwks", help=t("help.jwks"))] = None,
    anchor: Annotated[list[str] | None, typer.Option("--anchor", help=t("help.anchor"))] = None,
    beside: Annotated[str | None, typer.Option("--beside", help=t("help.beside"))] = None,
) -> None:
    """Judge evidence, or a token, and print every check."""
    with errors_as_exit_codes():
        if kind in get_args(TokenService):
            _verify_token(
                TokenFile(service=_service(kind), token=_token(file), keys=None if jwks is None else _keys(jwks)),
                policy,
                tuple(anchor or ()),
                _platform(beside),
                report_data=_octets(report_data),
                now=_seconds(at),
                as_json=as_json,
                write_draft=write_draft,
            )
            return
        if jwks is not None or anchor or beside is not None:
            raise Misuse("attest.kind", "expected --jwks, --anchor and --beside with a kind of token, got another kind")
        evidence, given = read_evidence(read_limited(file, limit=_LIMIT), _platform(kind))
        files = [read_limited(path, limit=_LIMIT) for path in collateral or []]
        endorsements = read_collateral(files, evidence.platform, given)
        now = _seconds(at)
        if write_draft:
            _print_json(to_value(draft_policy(evidence, endorsements, now=now)))
            return
        _judge(
            evidence,
            endorsements,
            None if policy is None else policy_from_file(policy),
            report_data=_octets(report_data),
            now=now,
            as_json=as_json,
        )


def _judge(
    evidence: Evidence,
    collateral: Collateral,
    policy: AttestationPolicy | None,
    *,
    report_data: bytes | None,
    now: int,
    as_json: bool,
) -> None:
    report, error = examine(evidence, collateral, policy, report_data=report_data, now=now)
    _answer(report, error, evidence.platform, as_json=as_json)


def _answer(report: AttestReport, error: KakoiError | None, kind: str, *, as_json: bool) -> None:
    if as_json:
        _print_json(to_value(report))
    else:
        _show(report, kind)
    if error is not None:
        raise error
    if report.outcome == "not-appraised":
        raise typer.Exit(NOT_APPRAISED)


def _verify_token(
    file: TokenFile,
    policy: Path | None,
    anchors: tuple[str, ...],
    beside: PlatformKind | None,
    *,
    report_data: bytes | None,
    now: int,
    as_json: bool,
    write_draft: bool,
) -> None:
    if write_draft:
        _print_json(to_value(draft_token_policy(file, anchors, beside, now=now)))
        return
    demand = None if policy is None else token_policy_from_file(policy, file.service, beside)
    report, error = examine_token(file, demand, anchors=anchors, report_data=report_data, now=now)
    _answer(report, error, file.service, as_json=as_json)


@app.command("policy", help=t("help.attest-policy"))
def show_policy(file: Annotated[Path, typer.Argument(help=t("help.attest-policy-file"))]) -> None:
    """Print a policy: what each accepted platform must show, and what is skipped for which reason."""
    with errors_as_exit_codes():
        policy = policy_from_file(file)
        for entry in policy.accepted:
            _show_entry(entry, t("contract.platform", platform=entry.platform))
        for token in policy.tokens:
            title = t("contract.token", service=token.service, platform=token.accompanies)
            _show_entry(token.claims, title)


# --- arguments -------------------------------------------------------------------------------------------------------


def _platform(kind: str | None) -> PlatformKind | None:
    for known in get_args(PlatformKind):
        if kind == known:
            found: PlatformKind = known
            return found
    if kind is None:
        return None
    raise Misuse(
        "attest.kind",
        f"expected one of {', '.join((*get_args(PlatformKind), *get_args(TokenService)))} as --kind, got another",
    )


def _service(kind: str | None) -> TokenService:
    return next(service for service in get_args(TokenService) if service == kind)


def _token(path: Path) -> bytes:
    return read_limited(path, limit=MAX_TOKEN).strip()


def _keys(path: Path) -> bytes:
    return read_limited(path, limit=MAX_JSON_BYTES)


def _seconds(text: str | None) -> int:
    """The time at which to judge: seconds since the epoch, or ``2026-01-31T12:00:00Z``; now if not given."""
    if text is None:
        return SystemClock().now()
    if text.isascii() and text.isdecimal() and len(text) <= 12:
        return int(text)
    if _TIME.fullmatch(text):
        try:
            return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
        except ValueError:
            pass
    raise Misuse(
        "attest.time",
        "expected a time in UTC such as 2026-01-31T12:00:00Z, or seconds since 1970, got something else",
        hint="the time decides which certificates and lists are in their windows",
    )


def _octets(text: str | None) -> bytes | None:
    if text is None:
        return None
    if len(text) % 2 or not _HEX.fullmatch(text):
        raise Misuse("attest.hex", "expected hex digits in pairs as --report-data, got something else")
    return bytes.fromhex(text)


# --- output ----------------------------------------------------------------------------------------------------------


def _print_json(value: object) -> None:
    typer.echo(dumps(value).decode("utf-8"))


def _show(report: AttestReport, kind: str) -> None:
    if report.verdict is not None:
        _show_claims(report.verdict.claims, protected=report.verdict.protected_by_hardware)
        _show_checks(report.verdict.checks)
    elif report.unappraised is not None:
        out.print(f"[bold reverse yellow] {t('attest.not-appraised')} [/]")
        _show_claims(report.unappraised.claims, protected=report.unappraised.protected_by_hardware)
        _show_checks(report.unappraised.checks)
        out.print(f"[bold reverse yellow] {t('attest.not-appraised')} [/]")
        out.print(t("attest.not-appraised-why"))
        return
    style = "bold green" if report.outcome == "accepted" else "bold red"
    key = {"accepted": "attest.accepted", "refused": "attest.refused"}.get(report.outcome, "attest.not-genuine")
    sentence = t(key, platform=kind, time=utc(report.evaluated_at))
    out.print(f"[{style}]{plain(sentence)}[/]")


def _show_checks(checks: tuple[Check, ...]) -> None:
    """Every check; those that refuse first."""
    table = Table(title=t("attest.checks"), title_justify="left")
    for heading in ("attest.check", "attest.outcome", "attest.expected", "attest.got", "attest.mender"):
        table.add_column(t(heading), overflow="fold")
    for check in sorted(checks, key=lambda c: _ORDER.index(c.outcome)):
        colour = _COLOURS[check.outcome]
        table.add_row(
            check.name,
            f"[{colour}]{t(f'attest.is-{check.outcome}')}[/]",
            plain(check.expected),
            plain(check.got),
            t(f"attest.mend-{check.mender}"),
        )
    out.print(table)


def _show_claims(claims: Claims, *, protected: bool) -> None:
    """What the hardware says."""
    if not protected:
        out.print(f"[bold red]{t('software.notice')}[/]")
    table = Table(title=t("attest.claims"), title_justify="left")
    table.add_column(t("attest.claim"), overflow="fold")
    table.add_column(t("attest.value"), overflow="fold")
    rows = {
        "platform": claims.platform,
        "product": claims.product,
        "platform-identity": claims.platform_identity or "-",
        "debug": "on" if claims.debug else "off",
        "report-data": claims.report_data or "-",
        "tcb-status": claims.tcb_status,
        "advisories": ", ".join(claims.advisories) or "-",
        "tcb-evaluation-number": str(claims.tcb_evaluation_number or "-"),
        "root": claims.root,
        **{f"measurement.{m.name}": m.value for m in claims.measurements},
        **{f"setting.{fact.name}": fact.value for fact in claims.settings},
        "tcb": " ".join(f"{component.name}={component.version}" for component in claims.tcb) or "-",
    }
    for name, value in rows.items():
        table.add_row(name, plain(value))
    out.print(table)


def _accepted(values: tuple[object, ...] | Unchecked) -> str:
    if isinstance(values, Unchecked):
        return f"[yellow]{t('attest.is-skipped')}[/]: {plain(values.reason)}"
    return plain("\n".join(map(str, values))) or "-"


def _number(value: int | Unchecked) -> str:
    return _accepted(value if isinstance(value, Unchecked) else (value,))


def _show_entry(entry: PlatformPolicy, title: str) -> None:
    table = Table(title=plain(title), title_justify="left")
    table.add_column(t("attest.check"), overflow="fold")
    table.add_column(t("attest.expected"), overflow="fold")
    grace = [] if entry.grace is None else [f"{', '.join(entry.grace.statuses)} ({utc(entry.grace.until)})"]
    rows = {
        "root": _accepted(entry.roots),
        **{f"measurement.{m.name}": _accepted(m.accepted) for m in entry.measurements},
        **{f"setting.{s.name}": _accepted(s.accepted) for s in entry.settings},
        "tcb-status": _accepted((*entry.statuses, *grace)),
        "advisories": _accepted(entry.advisories),
        "tcb-evaluation-number": _number(entry.minimum_tcb_evaluation_number),
        "platform-identity": _accepted(entry.platforms),
        "refused-products": _accepted(entry.refused_products),
        "collateral-age": _number(entry.collateral_max_age),
    }
    if isinstance(entry.minimum_tcb, Unchecked):
        rows["minimum-tcb"] = _accepted(entry.minimum_tcb)
    else:
        rows |= {f"minimum-tcb.{c.name}": str(c.version) for c in entry.minimum_tcb}
    for name, value in rows.items():
        table.add_row(name, value)
    out.print(table)
