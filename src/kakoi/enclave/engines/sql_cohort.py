"""The people behind each cell: power sums, which tell in how many people two cohorts differ, and how much the largest contributors add.

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
from typing import Any, Final

from kakoi.enclave.decimals import of_number
from kakoi.enclave.engines.sql_count import PERSON_COLUMN, Magnitude, figures
from kakoi.enclave.engines.sql_words import quoted
from kakoi.enclave.job import COHORT_PRIME, JobPart, JobTable, ResultCohorts, ResultMagnitude

UNIT_COLUMN: Final = "kakoi unit"
"""Of a table with one row per person: the person's number."""


def unit_of_row(part: JobPart, place: str) -> str:
    """SQL of a row's number, for the view over a part; ``place``: SQL of its place. Places of different files start at different points."""
    return f"({part.first_unit}::BIGINT + {place}) % {COHORT_PRIME - 1} + 1 AS {quoted(UNIT_COLUMN)}"


def sums(unit: str, terms: int) -> list[str]:
    """SQL of the sums of the powers 0, 1, 2 … of a person's number, modulo the prime once the sums are reduced by it.

    Only powers that others are made of are reduced for each row: a product of two reduced ones stays below 2^62.
    """
    reduced = ["1", f"({unit})"]
    powers = [f"sum({unit})"]
    for power in range(2, terms):
        product = f"({reduced[power // 2]} * {reduced[power - power // 2]})"
        if power <= terms // 2:
            reduced.append(f"({product} % {COHORT_PRIME})")
            product = reduced[-1]
        powers.append(f"sum({product})")
    return [f"count({unit})", *powers]


def unit_column(alias: str) -> str:
    """A row's number in a query."""
    return f"{quoted(alias)}.{quoted(UNIT_COLUMN)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleQuery:
    """SQL that tells, for each row of one grouping, about one table's people. Columns: the groups, the power sums, then figures of each magnitude."""

    table: str
    sql: str
    mask: int
    """A bit for each group column (in the result's order) that this grouping sums over."""
    groups: tuple[int, ...]
    """Places among the result's group columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleAsked:
    """What is asked about people: how many power sums of their numbers, and of which magnitudes how many largest contributors."""

    terms: int
    magnitudes: Sequence[Magnitude]
    largest: int


def people_queries(
    tables: Mapping[str, JobTable],
    asked: PeopleAsked,
    *,
    source: str,
    condition: str | None,
    groups: Sequence[str],
    groupings: Sequence[Sequence[int]],
) -> Iterator[PeopleQuery]:
    """Queries where people have several rows or several tables are joined: every person counts once in a cell.

    ``groups``: SQL of the group columns in the result's order; ``groupings``: which of them each grouping shows. Rows without a person
    are in no cohort, and one contributor together.
    """
    where = f" WHERE {condition}" if condition is not None else ""
    for alias, table in tables.items():
        person = table.person_column is not None
        key = f"{quoted(alias)}.{quoted(PERSON_COLUMN)}" if person else unit_column(alias)
        unit = f"CAST(md5_number_lower(CAST(k AS VARCHAR)) % {COHORT_PRIME - 1} AS BIGINT) + 1" if person else "k"
        added = [f"{magnitude.of_person()} AS m{i}" for i, magnitude in enumerate(asked.magnitudes)]
        wanted = sums("u", asked.terms) if asked.terms else []
        wanted += [sql for i in range(len(added)) for sql in figures(f"m{i}", asked.largest)]
        kept = [f"m{i}" for i in range(len(added))]
        for shown in groupings:
            names = [f"g{place}" for place in shown]
            inner = ", ".join([*(f"{groups[place]} AS g{place}" for place in shown), f"{key} AS k", *added])
            numbered = ", ".join([*names, *kept, f"{unit} AS u"])
            each = ", ".join(str(place + 1) for place in range(len(names) + 1))
            by = f" GROUP BY {', '.join(names)}" if names else ""
            sql = (
                f"SELECT {', '.join([*names, *wanted])} FROM (SELECT {numbered} FROM "  # noqa: S608 - our own text
                f"(SELECT {inner} FROM {source}{where} GROUP BY {each})){by}"
            )
            mask = sum(1 << place for place in range(len(groups)) if place not in shown)
            yield PeopleQuery(table=table.name, sql=sql, mask=mask, groups=tuple(shown))


class People:
    """What was asked about people, for each row of a result and each table. ``rows``: by table, the columns of each row."""

    def __init__(self, asked: PeopleAsked, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        self._asked, self._rows = asked, rows

    def cohorts(self) -> tuple[ResultCohorts, ...]:
        """The power sums."""
        terms = self._asked.terms
        if not terms:
            return ()
        return tuple(
            ResultCohorts(table=table, sums=tuple(int(s or 0) % COHORT_PRIME for row in rows for s in row[:terms]))
            for table, rows in self._rows.items()
        )

    def magnitudes(self, wanted: Sequence[int]) -> tuple[ResultMagnitude, ...]:
        """Of these magnitudes the totals and largest contributions, by the people of each table."""
        return tuple(self._magnitude(rows, place) for place in wanted for rows in self._rows.values())

    def _magnitude(self, rows: Sequence[Sequence[Any]], place: int) -> ResultMagnitude:
        at = self._asked.terms + 2 * place
        largest = [list(row[at + 1] or ())[: self._asked.largest] for row in rows]
        return ResultMagnitude(
            totals=tuple("0" if row[at] is None else of_number(row[at]) for row in rows),
            largest=tuple(
                cell
                for found in largest
                for cell in (*map(of_number, found), *[None] * (self._asked.largest - len(found)))
            ),
        )
