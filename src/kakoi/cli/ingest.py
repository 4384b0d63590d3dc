"""``kakoi dataset describe`` and ``validate``: from a hospital's file to a schema that a person corrects, and to a report without values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID
from rich.table import Table

from kakoi.cli.i18n import t
from kakoi.cli.ui import byte_progress, err, errors_as_exit_codes, plain
from kakoi.core.errors import Misuse
from kakoi.party.files import disk_error, write_private

if TYPE_CHECKING:
    from rich.console import Console

    from kakoi.sdk.ingest.draft import Draft
    from kakoi.sdk.ingest.report import Check, Report
    from kakoi.sdk.ingest.schema import FileOptions

SchemaFile = Annotated[Path, typer.Option("--schema", help=t("help.schema"))]
Accept = Annotated[list[str] | None, typer.Option("--accept", help=t("help.accept"))]
Progress = Callable[[int, int], None]
_CATEGORIES = ("Conformance", "Completeness", "Plausibility")


def describe(
    file: Annotated[Path | None, typer.Argument(help=t("help.describe-file"))] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help=t("help.describe-out"))] = None,
    redcap: Annotated[Path | None, typer.Option("--redcap", help=t("help.redcap"))] = None,
    omop: Annotated[str, typer.Option("--omop", help=t("help.omop"))] = "",
    sheet: Annotated[str, typer.Option("--sheet", help=t("help.sheet"))] = "",
    delimiter: Annotated[str, typer.Option("--delimiter", help=t("help.delimiter"))] = "",
    encoding: Annotated[str, typer.Option("--encoding", help=t("help.encoding"))] = "",
    no_header: Annotated[bool, typer.Option("--no-header", help=t("help.no-header"))] = False,
) -> None:
    """Draft a schema for a person to correct."""
    with errors_as_exit_codes():
        if out_file is not None and out_file.exists():
            raise Misuse("file.exists", f"expected no {out_file.name} yet, found one", hint="choose another name")
        if redcap is not None and omop:
            raise Misuse(
                "describe.model", "expected a REDCap dictionary or an OMOP table, got both", hint="give one of them"
            )
        given = {"sheet": sheet, "delimiter": delimiter, "encoding": encoding}
        draft = _draft(file, {k: v for k, v in given.items() if v}, redcap, omop, has_header=not no_header)
        text = draft.to_toml()
        if out_file is None:
            typer.echo(text, nl=False)
        else:
            write_private(out_file, text.encode(), mode=0o644)
        err.print(t("describe.drafted", columns=len(draft.schema.columns), left=len(draft.schema.leave_out)))
        err.print(t("describe.check", count=draft.to_check) if draft.to_check else t("describe.read"))


def _draft(file: Path | None, given: dict[str, str], redcap: Path | None, omop: str, *, has_header: bool) -> Draft:
    from kakoi.sdk.ingest.describe import describe as draft_of
    from kakoi.sdk.ingest.describe import headers_of
    from kakoi.sdk.ingest.fit import fitted
    from kakoi.sdk.ingest.omop import omop_schema
    from kakoi.sdk.ingest.redcap import from_redcap

    if file is None:
        if redcap is None and not omop:
            raise Misuse(
                "describe.file",
                "expected a file, a REDCap dictionary or an OMOP table, got none of them",
                hint="kakoi dataset describe --help",
            )
        return from_redcap(redcap) if redcap is not None else omop_schema(omop)
    options, remarks = _options(file, given, has_header=has_header)
    if redcap is None and not omop:
        with reading(file, t("describe.reading", name=file.name)) as progress:
            return draft_of(file, options=options, remarks=remarks, progress=progress)
    headers = headers_of(file, options)
    model = from_redcap(redcap, header=headers) if redcap is not None else fitted(omop_schema(omop), headers)
    return replace(model, schema=replace(model.schema, file=options))


def _options(file: Path, given: dict[str, str], *, has_header: bool) -> tuple[FileOptions, list[str]]:
    """How the file is written: as the caller says, and where the caller says nothing as it seems, which is then remarked."""
    from kakoi.sdk.ingest.describe import file_options

    seen, remarks = file_options(file)
    options = replace(
        seen,
        sheet=given.get("sheet", seen.sheet),
        delimiter=given.get("delimiter", seen.delimiter),
        encoding=given.get("encoding", seen.encoding),
        has_header=has_header,
    )
    return options, list(remarks)


def validate(
    file: Annotated[Path, typer.Argument(help=t("help.dataset-file"))],
    schema: SchemaFile,
    accept: Accept = None,
    everything: Annotated[bool, typer.Option("--all", help=t("help.validate-all"))] = False,
    as_json: Annotated[bool, typer.Option("--json", help=t("help.json"))] = False,
) -> None:
    """Check every cell by the schema; seal nothing. Exit code 4 if sealing would be refused."""
    from kakoi.cli.ui import out
    from kakoi.sdk.ingest.schema import load_schema
    from kakoi.sdk.ingest.seal import validate as check

    with errors_as_exit_codes():
        declared = load_schema(schema)
        with reading(file, t("validate.reading", name=file.name)) as progress:
            report = check(file, declared, accept=accept or (), progress=progress)
        if as_json:
            typer.echo(report.encode().decode())
        else:
            show_report(report, out, everything=everything)
        report.require_sound()


@contextmanager
def reading(file: Path, label: str) -> Iterator[Progress]:
    """A progress bar over a file's bytes, on standard error."""
    try:
        size = file.stat().st_size
    except OSError as error:
        raise disk_error(error, file) from None
    with byte_progress(label, size) as bar:
        yield lambda done, _: bar.update(TaskID(0), completed=done)


def show_report(report: Report, console: Console, *, everything: bool = False) -> None:
    """The report for people: what failed, what is only described, and how many checks passed in each category."""
    console.print(t("validate.title", file=report.file, table=report.table, rows=report.rows))
    shown = [check for check in report.checks if everything or (check.violated and not check.describes)]
    if shown:
        console.print(_checks(shown))
    gaps = [check for check in report.checks if check.describes and check.violated]
    if gaps and not everything:
        console.print(t("validate.gaps", gaps=", ".join(f"{c.column} {_share(c)}" for c in gaps[:12])))
        if len(gaps) > 12:
            console.print(t("validate.more-gaps", count=len(gaps) - 12))
    for category in _CATEGORIES:
        checks = [check for check in report.checks if check.category == category]
        failed = sum(check.failed for check in checks)
        accepted = sum(check.accepted and check.violated > 0 for check in checks)
        values = {"category": t(f"check.category-{category.lower()}"), "total": len(checks)}
        console.print(t("validate.category", **values, failed=failed, accepted=accepted))


def _checks(checks: list[Check]) -> Table:
    table = Table()
    for heading in ("column", "name", "meaning", "cells", "first", "state"):
        table.add_column(t(f"check.{heading}"), overflow="fold", no_wrap=heading == "name")
    for check in checks:
        table.add_row(
            check.column or "",
            check.name,
            t(f"check.rule-{check.rule}"),
            _share(check) if check.violated else "0",
            "" if check.first_row is None else str(check.first_row),
            t(f"check.is-{_state(check)}"),
        )
    return table


def _state(check: Check) -> str:
    if check.failed:
        return "failed"
    if check.accepted and check.violated:
        return "accepted"
    return "described" if check.describes and check.violated else "passed"


def _share(check: Check) -> str:
    return plain(f"{check.violated} ({100 * check.violated / max(1, check.rows):.1f} %)")
