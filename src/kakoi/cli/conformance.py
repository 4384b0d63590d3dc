"""``kakoi conformance``: hold a verifier, ours or another's, against bad twins of good evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from kakoi.cli.i18n import t
from kakoi.cli.ui import err, errors_as_exit_codes, out, plain
from kakoi.core.encoding import dumps
from kakoi.core.errors import Misuse, Refused
from kakoi.core.records import to_value
from kakoi.party.files import write_private

if TYPE_CHECKING:
    from kakoi.conformance.corpus import Layer, Vector
    from kakoi.conformance.run import Finding, Report
    from kakoi.conformance.trial import Kind

_EXAMPLES: Final = 4
_LAYERS: Final[dict[str, tuple[Layer, ...]]] = {
    "all": ("verify", "appraise"), "verify": ("verify",), "appraise": ("appraise",),
}  # fmt: skip


def conformance(
    vectors: Annotated[Path | None, typer.Option("--vectors", help=t("help.vectors"))] = None,
    adapter: Annotated[str | None, typer.Option("--adapter", help=t("help.adapter"))] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help=t("help.conformance-kind"))] = None,
    layer: Annotated[str, typer.Option("--layer", help=t("help.layer"))] = "all",
    sample: Annotated[int | None, typer.Option("--sample", min=1, help=t("help.sample"))] = None,
    every_bit: Annotated[bool, typer.Option("--every-bit", help=t("help.every-bit"))] = False,
    seconds: Annotated[float, typer.Option("--timeout", min=0.1, help=t("help.trial-timeout"))] = 20.0,
    report_file: Annotated[Path | None, typer.Option("--report", help=t("help.report"))] = None,
    show: Annotated[str | None, typer.Option("--show", help=t("help.show-twin"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=t("help.json"))] = False,
) -> None:
    """Try every bad twin; exit code 4 if one was accepted, or a good one refused."""
    # Vendors of the tests sign what only vendors can sign; nothing else of the product loads them.
    from kakoi.conformance import adapter as adapters
    from kakoi.conformance import build, own, run

    with errors_as_exit_codes():
        corpus = build.vectors(_kinds(kind), vectors, every_bit=every_bit)
        if show is not None:
            _show_twin(corpus, show)
            return
        target: run.Target = own.OwnTarget() if adapter is None else adapters.AdapterTarget(adapter, timeout=seconds)
        layers = _layers(layer)
        with _progress(corpus, sample, layers) as tell:
            report = run.run(corpus, target, sample=sample, layers=layers, tell=tell)
        if report_file is not None:
            write_private(report_file, dumps(to_value(report)) + b"\n", mode=0o644)
        if as_json:
            typer.echo(dumps(to_value(report)).decode("utf-8"))
        else:
            _show(report)
        if report.findings:
            raise Refused(
                "conformance.findings",
                f"{report.target}: expected no bad twin to pass and no good one to fail, got {len(report.findings)} that do",
                hint="docs/conformance.md says what each group means; --show ID writes one trial",
            )


def _kinds(wanted: list[str] | None) -> Sequence[Kind]:
    from kakoi.conformance.trial import KINDS

    chosen = [known for known in KINDS if wanted is None or known in wanted]
    if wanted is not None and len(chosen) != len(set(wanted)):
        raise Misuse("conformance.kind", f"expected kinds among {', '.join(KINDS)}, got another")
    return chosen


def _layers(name: str) -> tuple[Layer, ...]:
    if name not in _LAYERS:
        raise Misuse("conformance.layer", f"expected one of {', '.join(_LAYERS)} as --layer, got another")
    return _LAYERS[name]


def _show_twin(corpus: Sequence[Vector], identity: str) -> None:
    """One trial, as an adapter gets it."""
    name, _, rest = identity.partition("/")
    group_name, _, index = rest.rpartition("/")
    for vector in corpus:
        for group in vector.groups:
            if (vector.name, group.name) == (name, group_name) and index.isdecimal() and int(index) < group.size:
                changed, trial = group.make(int(index))
                err.print(plain(f"{changed} · {group.family} · {group.layer}"))
                typer.echo(dumps(to_value(trial)).decode("utf-8"))
                return
    raise Misuse(
        "conformance.twin",
        "expected the id of a twin of this corpus, got another",
        hint="give the same --vectors and --kind",
    )


@contextmanager
def _progress(corpus: Sequence[Vector], sample: int | None, layers: tuple[Layer, ...]) -> Iterator[_Tell]:
    from kakoi.conformance.corpus import count

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(t("conformance.trying"), total=count(corpus, sample=sample, layers=layers))
        yield _Tell(progress, task)


class _Tell:
    """Moves the progress bar."""

    def __init__(self, progress: Progress, task: object) -> None:
        self._progress, self._task = progress, task

    def __call__(self, done: int) -> None:
        self._progress.update(self._task, completed=done)  # type: ignore[arg-type]


# --- output ----------------------------------------------------------------------------------------------------------


def _show(report: Report) -> None:
    table = Table(title=plain(t("conformance.title", target=report.target)), title_justify="left")
    for heading in ("kind", "layer", "good", "good-refused", "twins", "accepted", "crashed", "reason", "unsupported"):
        text = heading in ("kind", "layer")
        table.add_column(
            t(f"conformance.{heading}"), justify="left" if text else "right", overflow="fold", no_wrap=text
        )
    for tally in report.tallies:
        table.add_row(
            tally.kind_of_evidence,
            t(f"conformance.is-{tally.layer}"),
            str(tally.good),
            _count(tally.good_refused),
            str(tally.twins),
            _count(tally.accepted),
            _count(tally.crashed),
            _count(tally.another_reason),
            str(tally.unsupported),
        )
    out.print(table)
    out.print(t("conformance.layers"))
    if not report.findings:
        out.print(f"[bold green]{t('conformance.none')}[/]")
        return
    _show_findings(report.findings)


def _count(number: int) -> str:
    return f"[bold red]{number}[/]" if number else "0"


def _show_findings(findings: Sequence[Finding]) -> None:
    """By group: what was changed, how often it passed, and examples by id."""
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.problem, found.kind_of_evidence, found.group, found.family), []).append(found)
    table = Table(title=t("conformance.findings"), title_justify="left")
    for heading in ("problem", "kind", "group", "family", "count", "examples"):
        table.add_column(t(f"conformance.{heading}"), overflow="fold")
    for (problem, kind, group, family), members in groups.items():
        told = {found.changed: found.twin for found in reversed(members)}  # the same change to several vectors, once
        shown = [f"{changed} · {twin}" for changed, twin in list(reversed(told.items()))[:_EXAMPLES]]
        table.add_row(
            f"[bold red]{t(f'conformance.is-{problem}')}[/]",
            kind,
            group,
            t(f"conformance.family-{family}"),
            str(len(members)),
            plain("\n".join(shown)),
        )
    out.print(table)
