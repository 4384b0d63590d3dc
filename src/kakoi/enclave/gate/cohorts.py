"""Cohorts of different runs held against each other: two numbers over nearly the same people tell about the few in whom they differ.

A cohort is known by its power sums  s_j = Σ x^j mod p  (j = 0, 1, … 2k-1; x a person's number, ``engines.sql_cohort``). The difference of
two cohorts' sums is  Σ ±x^j  over the people who are in one of them only: a sequence that satisfies a linear recurrence of exactly as many
terms as there are such people, and of no shorter one. The Berlekamp-Massey algorithm (Massey, Shift-register synthesis and BCH decoding,
1969) finds the length of the shortest recurrence. Fewer than k people are therefore always found out; that more look like fewer has a chance
of about 2^-62. This is the syndrome of a Reed-Solomon code; docs/adr/0100 compares it with other sketches, measured.

Compared with everything released earlier are: every row whose numbers leave, and everything that adding up such rows gives (the total,
and the totals by each group column), so that a small cell that was held back in one table cannot be had as the difference of another
table's row and the sum of what was shown; and what a margin has besides the rows below it that are shown, so that later a cell that was held
back only to protect another cannot be had by itself. What conflicts is held back, the smallest cell first, until nothing conflicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Annotated, ClassVar, Final

from kakoi.core.limits import Digest, Limit, Name
from kakoi.core.records import Record
from kakoi.enclave.gate.complement import Row, equations
from kakoi.enclave.job import COHORT_PRIME, MAX_COHORT_TERMS, ResultTable

_MOST_SUMS: Final = 50_000
"""Rows times ways of adding them up; beyond it only rows and totals are compared."""
Sums = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Population(Record):
    """The cohorts of one run among the people of one logical table. ``sums`` holds ``terms`` power sums for each cohort."""

    table: Name
    terms: Annotated[int, Limit(least=2, most=MAX_COHORT_TERMS)]
    sums: Annotated[tuple[Annotated[int, Limit(most=COHORT_PRIME - 1)], ...], Limit(most=100_000 * MAX_COHORT_TERMS)]

    def cohorts(self) -> Iterator[Sums]:
        """Each cohort's power sums."""
        for start in range(0, len(self.sums) - self.terms + 1, self.terms):
            yield self.sums[start : start + self.terms]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohorts(Record):
    """What enclaves leave for later ones in the owners' ledgers, sealed: whose numbers one run released."""

    KIND: ClassVar[str] = "kakoi/cohorts/v1"
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    run: Digest
    populations: Annotated[tuple[Population, ...], Limit(most=64)]


@dataclass(slots=True)
class Earlier:
    """Cohorts released earlier, found by how many people they hold: two that differ in fewer than k differ in size by fewer."""

    least: int
    """Fewest people by which cohorts may differ."""
    _by_size: dict[str, dict[int, set[Sums]]] = field(default_factory=dict)

    def add(self, population: Population) -> None:
        """Remember the cohorts of a run."""
        sizes = self._by_size.setdefault(population.table, {})
        for sums in population.cohorts():
            sizes.setdefault(sums[0], set()).add(sums)

    def conflicts(self, table: str, sums: Sums) -> bool:
        """Whether an earlier cohort differs in at least one person and fewer than ``least``."""
        sizes = self._by_size.get(table, {})
        for size in range(sums[0] - self.least + 1, sums[0] + self.least):
            for other in sizes.get(size % COHORT_PRIME, ()):
                if 1 <= different_people(sums, other, most=self.least) < self.least:
                    return True
        return False


def different_people(one: Sums, other: Sums, *, most: int) -> int:
    """How many people are in one of two cohorts only; ``most`` or more where they are that many.

    Of sums that are too few to tell ``most`` apart the answer is as many as they can tell.
    """
    terms = min(len(one), len(other))
    return _recurrence([(a - b) % COHORT_PRIME for a, b in zip(one[:terms], other[:terms], strict=True)], most)


def _recurrence(sequence: Sequence[int], most: int) -> int:
    """Length of the shortest linear recurrence (Berlekamp-Massey over the integers modulo p); ``most`` ends the search."""
    p = COHORT_PRIME
    current, before, length, gap, last = [1], [1], 0, 1, 1
    for n, value in enumerate(sequence):
        wrong = (value + sum(current[i] * sequence[n - i] for i in range(1, min(length, len(current) - 1) + 1))) % p
        if wrong == 0:
            gap += 1
            continue
        factor = wrong * pow(last, -1, p) % p
        following = current + [0] * (len(before) + gap - len(current))
        for i, coefficient in enumerate(before):
            following[i + gap] = (following[i + gap] - factor * coefficient) % p
        if 2 * length <= n:
            length, before, last, gap = n + 1 - length, current, wrong, 1
            if length >= most:
                return most
        else:
            gap += 1
        current = following
    return length


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Something a reader of a table knows the size of: a row, or rows added up."""

    rows: tuple[int, ...]
    sums: Mapping[str, Sums]
    """By the table whose people they are."""


def told(found: ResultTable, labels: Sequence[tuple[str | None, ...]], shown: Iterable[int], terms: int) -> list[Told]:
    """Every row that is shown, and every total of shown rows of one grouping by some of its columns."""
    rows = sorted(shown)
    masks = found.margins or (0,) * len(labels)
    by_row = {row: _of_row(found, row, terms) for row in rows}
    out = [Told(rows=(row,), sums=by_row[row]) for row in rows]
    width = len(labels[0]) if labels else 0
    for mask in sorted({masks[row] for row in rows}):
        mine = [row for row in rows if masks[row] == mask]
        visible = [place for place in range(width) if not mask >> place & 1]
        for kept in _subsets(visible, len(mine)):
            groups: dict[tuple[str | None, ...], list[int]] = {}
            for row in mine:
                groups.setdefault(tuple(labels[row][place] for place in kept), []).append(row)
            out += [Told(rows=tuple(g), sums=_added(by_row, g)) for g in groups.values() if len(g) > 1]
    return [*out, *_remainders(found, labels, by_row)]


def _remainders(
    found: ResultTable, labels: Sequence[tuple[str | None, ...]], by_row: Mapping[int, Mapping[str, Sums]]
) -> Iterator[Told]:
    """What is held back of each margin that is shown, all of it together: the margin less the rows below it that are shown."""
    rows = [
        Row(labels=label, mask=mask, people=people)
        for label, mask, people in zip(labels, found.margins, found.people, strict=False)
    ]
    for equation in equations(rows):
        for whole, parts in ((equation.left, equation.right), (equation.right, equation.left)):
            seen = [part for part in parts if part in by_row]
            if len(whole) == 1 and whole[0] in by_row and seen and len(seen) < len(parts):
                shown = _added(by_row, seen)
                left = {
                    table: tuple((a - b) % COHORT_PRIME for a, b in zip(sums, shown[table], strict=True))
                    for table, sums in by_row[whole[0]].items()
                }
                yield Told(rows=(whole[0], *seen), sums=left)


def _subsets(places: Sequence[int], rows: int) -> Iterator[tuple[int, ...]]:
    """Proper subsets, the empty one first."""
    yield ()
    if rows << len(places) <= _MOST_SUMS:
        for size in range(1, len(places)):
            yield from combinations(places, size)


def _of_row(found: ResultTable, row: int, terms: int) -> dict[str, Sums]:
    return {cohort.table: tuple(cohort.sums[row * terms : (row + 1) * terms]) for cohort in found.cohorts}


def _added(by_row: Mapping[int, Mapping[str, Sums]], rows: Sequence[int]) -> dict[str, Sums]:
    return {
        table: tuple(sum(column) % COHORT_PRIME for column in zip(*(by_row[row][table] for row in rows), strict=True))
        for table in by_row[rows[0]]
    }


def populations(everything: Iterable[Told], terms: int) -> tuple[Population, ...]:
    """The cohorts as they are left for later runs, each once, in an order that tells nothing."""
    found: dict[str, set[Sums]] = {}
    for item in everything:
        for table, sums in item.sums.items():
            found.setdefault(table, set()).add(sums)
    return tuple(
        Population(table=table, terms=terms, sums=tuple(s for sums in sorted(cohorts) for s in sums))
        for table, cohorts in sorted(found.items())
    )
