"""Analyses, rules and answers for gate tests, written short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kakoi.contract.model import Analysis, Output, OutputColumn, TableUse
from kakoi.contract.rules import DisclosureRules
from kakoi.core.ids import PartyId
from kakoi.enclave.job import Result, ResultColumn, ResultStatistics, ResultTable, ResultValue

RULES = DisclosureRules(
    minimum_cell=3,
    minimum_contributors=3,
    parameters_per_person="0.33",
    max_digits=6,
    max_output_bytes=1_000_000,
    dominance_contributors=2,
    dominance_percent=85,
    p_percent=10,
    rounding_base=1,
    cohort_difference=3,
    python_settings=1,
    budget_runs=100,
    budget_kilobytes=100_000,
    epsilon_per_run="none",
    epsilon_budget="none",
    rows_per_person=1,
)


def rules(**changes: Any) -> DisclosureRules:
    return replace(RULES, **changes)


def declared(name: str, *columns: str, shape: str = "table", parameters: int = 0, max_rows: int = 1000) -> Output:
    roles = [column.split(":") for column in columns]
    return Output(
        name=name,
        shape=shape,  # type: ignore[arg-type]
        columns=tuple(OutputColumn(name=what, role=role) for role, what in roles),  # type: ignore[arg-type]
        parameters=parameters,
        max_rows=max_rows,
    )


def analysis(*outputs: Output, engine: str = "sql", source: str = "SELECT 1") -> Analysis:
    return Analysis(
        author=PartyId("0" * 64),
        name="a",
        title="A",
        engine=engine,  # type: ignore[arg-type]
        source=source,
        sealed_code=None,
        reads=(TableUse(table="t", columns=("g",)),),
        parameters=(),
        outputs=outputs,
    )


TABLE = declared("o", "group:g", "count:n", "value:v")
NUMBERS = declared("s", "value:a", shape="statistics", parameters=2)


def column(
    name: str, cells: Sequence[str | None], *, support: Sequence[int] = (), domain: Sequence[str] = ()
) -> ResultColumn:
    return ResultColumn(
        name=name, cells=tuple(cells), support_rows=tuple(support), support_people=tuple(support), domain=tuple(domain)
    )


def table(
    rows: Sequence[tuple[str | None, int, str | None]],
    *,
    people: Sequence[int] | None = None,
    support: Sequence[int] = (),
    domain: Sequence[str] = ("a", "b", "c", "d"),
) -> ResultTable:
    """Rows of label, count and value, for the output ``TABLE``."""
    counts = tuple(people if people is not None else (row[1] for row in rows))
    return ResultTable(
        name="o",
        columns=(
            column("g", [row[0] for row in rows], domain=domain),
            column("n", [str(count) for count in counts]),
            column("v", [row[2] for row in rows], support=support),
        ),
        rows=tuple(row[1] for row in rows),
        people=counts,
        margins=(),
    )


def statistics(number: str | None, basis: int) -> ResultStatistics:
    return ResultStatistics(name="s", values=(ResultValue(name="a", number=number),), basis=basis)


def encoded(*outputs: ResultTable | ResultStatistics) -> bytes:
    return Result(outputs=outputs).encode()
