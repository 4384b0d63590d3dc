"""From a contract's words to an engine's job. Pure: the same agreement and request give the same job."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from kakoi.contract.approve import Agreement
from kakoi.contract.model import Analysis, Column, DatasetManifest, TableUse
from kakoi.contract.rules import demands_noise
from kakoi.contract.sign import Signed
from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Refused
from kakoi.enclave.gate.dominance import largest_contributors
from kakoi.enclave.job import (
    COHORT_PRIME,
    Job,
    JobColumn,
    JobFile,
    JobOutput,
    JobOutputColumn,
    JobParameter,
    JobPart,
    JobTable,
)
from kakoi.wire.messages import RunRequest


def job_for(agreement: Agreement, request: RunRequest) -> Job:
    """What the engine is told. Raises Refused if owners' schemas for one table contradict each other."""
    analysis = agreement.analyses[request.analysis].record
    values = {binding.name: binding.value for binding in request.parameters}
    return Job(
        engine=analysis.engine,
        source=analysis.source,
        files=_files(agreement, analysis),
        tables=tuple(_table(agreement, use) for use in analysis.reads),
        parameters=tuple(JobParameter(name=p.name, type=p.type, value=values[p.name]) for p in analysis.parameters),
        outputs=_outputs(analysis),
        cohort_terms=cohort_terms(agreement) if analysis.engine == "sql" else 0,
        rows_per_person=_noisy_rows(agreement),
        largest_contributors=_largest(agreement),
    )


def _files(agreement: Agreement, analysis: Analysis) -> tuple[JobFile, ...]:
    if analysis.sealed_code is None:
        return ()
    manifest = agreement.code[analysis.sealed_code]
    return tuple(JobFile(manifest=manifest.id, file=file.name) for file in manifest.record.files)


def _noisy_rows(agreement: Agreement) -> int:
    """Rows of one person that count where an owner demands noise; 0 if none does."""
    rules = [entry.rules for entry in agreement.contract.data]
    return min(rule.rows_per_person for rule in rules) if demands_noise(rules) else 0


def _largest(agreement: Agreement) -> int:
    """Largest contributors that the gate asks about; none where numbers leave with noise, which protects them."""
    rules = [entry.rules for entry in agreement.contract.data]
    return 0 if demands_noise(rules) else largest_contributors(rules)


def cohort_terms(agreement: Agreement) -> int:
    """Power sums that tell fewer than k different people from more, k the strictest owner's; 0 if no owner asks.

    0 also where numbers leave with noise: it protects whoever is in one of two cohorts only, and comparing would tell (docs/adr/0102).
    """
    if demands_noise(entry.rules for entry in agreement.contract.data):
        return 0
    least = max(entry.rules.cohort_difference for entry in agreement.contract.data)
    return 2 * least if least > 1 else 0


def _outputs(analysis: Analysis) -> tuple[JobOutput, ...]:
    return tuple(
        JobOutput(
            name=output.name,
            shape=output.shape,
            columns=tuple(JobOutputColumn(name=c.name, role=c.role) for c in output.columns),
            max_rows=output.max_rows,
        )
        for output in analysis.outputs
    )


def _table(agreement: Agreement, use: TableUse) -> JobTable:
    parts = [m for m in agreement.manifests.values() if m.record.table == use.table]
    first = parts[0].record
    if any(part.record.person_column != first.person_column for part in parts):
        raise Refused(
            "contract.person-column",
            f"expected one person column for table {use.table} at every owner, got different ones",
            hint="compare the data sets: kakoi dataset inspect",
        )
    wanted = [name for name in use.columns if name != "site"]
    hidden = [] if first.person_column in (None, *wanted) else [first.person_column]
    return JobTable(
        name=use.table,
        person_column=first.person_column,
        columns=tuple(_column(parts, str(name), readable=name in wanted) for name in (*wanted, *hidden)),
        parts=tuple(
            JobPart(
                site=agreement.cards[part.record.owner].record.name,
                manifest=part.id,
                file=file.name,
                first_unit=_first_unit(part.record, file.name),
            )
            for part in parts
            for file in part.record.files
        ),
    )


def _first_unit(manifest: DatasetManifest, file: str) -> int:
    """Spread over the numbers there are: files' rows should not have the same ones."""
    place = sha256(framed(b"kakoi/unit/v1", bytes.fromhex(manifest.dataset), file.encode("utf-8")))
    return int.from_bytes(place[:4], "big") % (COHORT_PRIME - 1)


def _column(parts: list[Signed[DatasetManifest]], name: str, *, readable: bool) -> JobColumn:
    """One column as all owners declare it: their codes are joined, and one free declaration makes it free."""
    found: list[Column] = [c for part in parts for c in part.record.columns if c.name == name]
    if len(found) != len(parts) or len({(c.type, c.identifier, c.unit) for c in found}) != 1:
        raise Refused(
            "contract.schemas",
            f"expected column {name} with one type, unit and identifier flag at every owner, got different ones",
            hint="compare the data sets: kakoi dataset inspect",
        )
    if found[0].identifier != "no":
        # The engine gets a token in its place (``keying``), whatever it was.
        return JobColumn(name=name, type="string", identifier=found[0].identifier, codes=(), readable=readable)
    free = any(not column.codes for column in found)
    codes = () if free else tuple(sorted({code.value for column in found for code in column.codes}))
    return JobColumn(
        name=name,
        type=found[0].type,
        identifier=found[0].identifier,
        codes=codes,
        readable=readable,
        minimum=_end([column.minimum for column in found], min),
        maximum=_end([column.maximum for column in found], max),
        may_be_missing=any(column.missing for column in found),
    )


def _end(limits: list[str | None], outer: Callable[..., str]) -> str | None:
    """The outermost of the owners' limits; none if one of them declares none."""
    known = [limit for limit in limits if limit is not None]
    return outer(known, key=Decimal) if len(known) == len(limits) else None
