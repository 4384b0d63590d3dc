"""Power sums of the people behind each cell: what tells in how many people two cohorts differ, and nothing about anybody.

Each person is a number x from 1 to p-1; a cell's cohort becomes the sums of 1, x, x² … over its people, modulo the prime p. The
difference of two cohorts' sums belongs to the people that are in one of them only, so it tells whether they are fewer than k
(``enclave.gate.cohorts`` has the mathematics). Sums of disjoint cells add up.

A row of a table with one row per person is numbered by its place in its owner's file, so it has the same number in every run, whoever
has opted out in between (``engines.keying`` keeps the places of the rows that stay). A person
with several rows is numbered by MD5 of the person column's value, which is used as a spreading function and not for secrecy: the
sums leave the enclave sealed only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kakoi.enclave.engines.sql_count import PERSON_COLUMN
from kakoi.enclave.engines.sql_words import quoted
from kakoi.enclave.job import COHORT_PRIME, JobPart, JobTable

UNIT_COLUMN: Final = "kakoi unit"
"""Of a table with one row per person: the person's number."""


def unit_of_row(part: JobPart, place: str) -> str:
    """SQL of a row's number, for the view over a part; ``place``: SQL of its place. Places of different files start at different points."""
    return f"({part.first_unit}::BIGINT + {place}) % {COHORT_PRIME - 1} + 1 AS {quoted(UNIT_COLUMN)}"


def sums(unit: str, terms: int) -> list[str]:
    """SQL of the sums of the powers 0, 1, 2 … of a person's number."""
    powers = [f"({unit})"]
    while len(powers) < terms - 1:
        powers.append(f"({powers[-1]} * ({unit}) % {COHORT_PRIME})")
    return [f"count({unit})", *(f"sum({power})" for power in powers)]


def unit_column(alias: str) -> str:
    """A row's number in a query."""
    return f"{quoted(alias)}.{quoted(UNIT_COLUMN)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortQuery:
    """SQL that gives, for each row of one grouping, the sums of one table's people. Columns: the groups, then the sums."""

    table: str
    sql: str
    mask: int
    """A bit for each group column (in the result's order) that this grouping sums over."""
    groups: tuple[int, ...]
    """Places among the result's group columns."""


def cohort_queries(
    tables: Mapping[str, JobTable],
    *,
    source: str,
    condition: str | None,
    groups: Sequence[str],
    groupings: Sequence[Sequence[int]],
    terms: int,
) -> Iterator[CohortQuery]:
    """Queries where people have several rows or several tables are joined: every person counts once in a cell.

    ``groups``: SQL of the group columns in the result's order; ``groupings``: which of them each grouping shows.
    """
    where = f" WHERE {condition}" if condition is not None else ""
    for alias, table in tables.items():
        person = table.person_column is not None
        key = f"{quoted(alias)}.{quoted(PERSON_COLUMN)}" if person else unit_column(alias)
        unit = f"CAST(md5_number_lower(CAST(k AS VARCHAR)) % {COHORT_PRIME - 1} AS BIGINT) + 1" if person else "k"
        for shown in groupings:
            names = [f"g{place}" for place in shown]
            inner = ", ".join([*(f"{groups[place]} AS g{place}" for place in shown), f"{key} AS k"])
            numbered = ", ".join([*names, f"{unit} AS u"])
            by = f" GROUP BY {', '.join(names)}" if names else ""
            sql = (
                f"SELECT {', '.join([*names, *sums('u', terms)])} FROM (SELECT {numbered} FROM "  # noqa: S608 - our own text
                f"(SELECT DISTINCT {inner} FROM {source}{where}) WHERE k IS NOT NULL){by}"
            )
            mask = sum(1 << place for place in range(len(groups)) if place not in shown)
            yield CohortQuery(table=table.name, sql=sql, mask=mask, groups=tuple(shown))
