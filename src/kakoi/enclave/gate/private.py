"""Differential privacy: noise on every number of a table, as wide as declarations say that one person can move it.

Every number of a table gets the same share of the run's epsilon, so the table as a whole costs exactly that (composition of the shares; the
cells of one column together cost one share, because ``reach`` counts what a person changes in all of them). Nothing else is done to a
table: no cell is held back, because which ones are small would tell what the noise hides, and none is compared with earlier releases.
What is computed from noisy numbers (a mean from sum and count, an interval, rounding) costs nothing more.

The interval beside each number covers the clamped exact number at least 19 times out of 20. docs/privacy.md has the mathematics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from hashlib import sha256
from typing import Final

from kakoi.contract.model import Analysis
from kakoi.contract.rules import bounded
from kakoi.core.encoding import framed
from kakoi.core.errors import Misuse
from kakoi.enclave import decimals
from kakoi.enclave.exact import ExactColumn, ExactRanks, ExactSum, ExactTable
from kakoi.enclave.gate.cohorts import Earlier, Population
from kakoi.enclave.gate.noise import Coins, exponential, half_width, laplace, rank_width
from kakoi.enclave.gate.rules import Bench
from kakoi.wire.messages import GateDecision
from kakoi.wire.released import Released, ReleasedColumn, ReleasedNoise, ReleasedTable

_DIVISION_DIGITS: Final = 34
NOISE_KEY_BYTES: Final = 32


class Noised:
    """A table with noise. It leaves as it is: earlier releases change nothing about it, and no cohorts are kept of it."""

    def __init__(self, table: ExactTable, analysis: Analysis, bench: Bench, key: bytes) -> None:
        """``key``: of this question about these data, and of no other (``wire.release.noise_id``)."""
        if len(key) != NOISE_KEY_BYTES:
            raise Misuse(
                "gate.noise-key",
                "expected a key for the noise that owners demand, got none",
                hint="the keeper derives it from the data: ``DataSecret.key``",
            )
        made = _Noisy(table, bench, key)
        output, rules = analysis.outputs[0].name, bench.rules
        whole = f"differential-privacy epsilon={rules.epsilon_per_run} rows-per-person={rules.rows_per_person}"
        done = [("declared-output", "released"), ("max-digits", "rounded"), (whole, "noised")]
        decisions = [*done, *((rule, "noised") for rule in made.rules)]
        self.released = Released(
            outputs=(made.table(),),
            decisions=tuple(GateDecision(output=output, rule=rule, action=act) for rule, act in decisions),  # type: ignore[arg-type]
        )
        if len(self.released.encode()) > bench.rules.max_output_bytes:
            raise bench.deny(
                "gate.output-bytes",
                "max_output_bytes",
                "the output is larger than it may be",
                "ask for fewer rows or columns",
            )

    def left_out(self) -> dict[str, int]:
        """Nothing: every declared row is there."""
        return {}

    def populations(self) -> tuple[Population, ...]:
        """Nobody's: numbers with noise are not compared with others."""
        return ()

    def against(self, _: Earlier) -> Released:
        """The same, whatever left earlier."""
        return self.released


@dataclass(frozen=True, slots=True, kw_only=True)
class _Number:
    """A number with its interval, in steps; None where nothing can be said (an average over nobody)."""

    value: Fraction | None
    low: Fraction
    high: Fraction


class _Noisy:
    """One table on its way out. Each measure is drawn once, whichever columns use it."""

    def __init__(self, table: ExactTable, bench: Bench, key: bytes) -> None:
        self._table, self._digits = table, bench.rules.max_digits
        epsilon = Fraction(bounded(bench.rules.epsilon_per_run) or 0)
        self._share = epsilon / len(table.measures)
        # The exact answer is part of the key: should the same question ever have another answer, its noise is unrelated, and
        # subtracting one from the other gives two draws instead of the difference.
        self._key = sha256(framed(b"kakoi/noise-key/v1", key, table.encode())).digest()
        self._sums = {i: self._drawn(i, m) for i, m in enumerate(table.measures) if isinstance(m, ExactSum)}

    @property
    def rules(self) -> list[str]:
        """Mechanisms for the passport: what they are and what each of their columns costs. No number that data decided."""
        found = [self._mechanism(column) for column in self._table.columns if column.measures]
        return [f"{mechanism} epsilon={self._cost(n)}" for mechanism, n in dict.fromkeys(found)]

    def _mechanism(self, column: ExactColumn) -> tuple[str, int]:
        return ("exponential" if column.made == "quantile" else "discrete-laplace", len(column.measures))

    def _cost(self, measures: int) -> str:
        return str(self._share * measures)

    def _scale(self, place: int) -> Fraction:
        return int(self._table.measures[place].reach) / self._share

    def _drawn(self, place: int, measure: ExactSum) -> list[int]:
        scale = self._scale(place)
        return [int(cell) + laplace(Coins(self._key, place, at), scale) for at, cell in enumerate(measure.cells)]

    def table(self) -> ReleasedTable:
        """What leaves."""
        made = [self._column(column) for column in self._table.columns]
        return ReleasedTable(
            name=self._table.name,
            columns=tuple(column for column, _ in made),
            margins=(),
            rows_withheld=False,
            noise=tuple(noise for _, noise in made if noise is not None),
        )

    def _column(self, column: ExactColumn) -> tuple[ReleasedColumn, ReleasedNoise | None]:
        if column.made == "label":
            return _released(column, column.labels), None
        if column.made == "quantile":
            return self._quantile(column)
        numbers = list(self._means(column) if column.made == "mean" else self._plain(column))
        unit = Fraction(Decimal(column.step))
        mechanism, measures = self._mechanism(column)
        noise = ReleasedNoise(
            column=column.name,
            mechanism=mechanism,  # type: ignore[arg-type]
            epsilon=self._cost(measures),
            off_by="number",
            at_most=None if column.made == "mean" else self._text(self._width(column) * unit, ROUND_CEILING),
            low=tuple(self._text(number.low * unit, ROUND_FLOOR) for number in numbers),
            high=tuple(self._text(number.high * unit, ROUND_CEILING) for number in numbers),
        )
        shown = [None if number.value is None else self._text(number.value * unit) for number in numbers]
        return _released(column, shown), noise

    def _width(self, column: ExactColumn) -> int:
        return half_width(self._scale(column.measures[0]), one_in=20)

    def _plain(self, column: ExactColumn) -> Iterable[_Number]:
        width = self._width(column)
        for number in self._sums[column.measures[0]]:
            yield _Number(value=Fraction(number), low=Fraction(number - width), high=Fraction(number + width))

    def _means(self, column: ExactColumn) -> Iterable[_Number]:
        """Noisy sum over noisy count, within the declared range. Each may be off once in 40 times, so both hold 19 times out of 20."""
        above, count = column.measures
        spread, doubt = (half_width(self._scale(place), one_in=40) for place in column.measures)
        low, high = Fraction(column.low), Fraction(column.high)
        for total, rows in zip(self._sums[above], self._sums[count], strict=True):
            if rows - doubt <= 0:
                value = None if rows <= 0 else _within(column.centre + Fraction(total, rows), low, high)
                yield _Number(value=value, low=low, high=high)
                continue
            ends = [Fraction(t, n) for t in (total - spread, total + spread) for n in (rows - doubt, rows + doubt)]
            # Half a step on either side: values were rounded to steps.
            yield _Number(
                value=_within(column.centre + Fraction(total, rows), low, high),
                low=_within(column.centre + min(ends) - Fraction(1, 2), low, high),
                high=_within(column.centre + max(ends) + Fraction(1, 2), low, high),
            )

    def _quantile(self, column: ExactColumn) -> tuple[ReleasedColumn, ReleasedNoise]:
        place = column.measures[0]
        ranks = self._table.measures[place]
        if not isinstance(ranks, ExactRanks):
            raise Misuse("gate.noise-key", "expected ranks behind a quantile, got sums")
        part, whole = ranks.share
        weight = max(part, whole - part)
        # Twice the reach: one person can lower one candidate's loss and raise another's.
        unit = self._share / (2 * weight * ranks.reach)
        step = Fraction(Decimal(column.step))
        shown = []
        for cell, rows in enumerate(_rows(ranks)):
            chosen = exponential(Coins(self._key, place, cell), _losses(rows, part, whole), unit)
            value = _within(Fraction(column.low + chosen * column.stride), Fraction(column.low), Fraction(column.high))
            shown.append(self._text(value * step))
        noise = ReleasedNoise(
            column=column.name,
            mechanism="exponential",
            epsilon=self._cost(1),
            off_by="rows",
            at_most=str(-(-rank_width(unit, ranks.candidates) // whole)),
            low=(),
            high=(),
        )
        return _released(column, shown), noise

    def _text(self, number: Fraction, rounding: str = ROUND_HALF_EVEN) -> str:
        """Decimal text with as many digits as the rules allow; ends of intervals are rounded outward."""
        exact = Context(prec=_DIVISION_DIGITS, rounding=rounding)
        quotient = exact.divide(Decimal(number.numerator), Decimal(number.denominator))
        return decimals.canonical(Context(prec=self._digits, rounding=rounding).plus(quotient))


def _released(column: ExactColumn, cells: Sequence[str | None]) -> ReleasedColumn:
    return ReleasedColumn(name=column.name, role=column.role, cells=tuple(cells), held_back=())


def _within(number: Fraction, low: Fraction, high: Fraction) -> Fraction:
    return min(max(number, low), high)


def _rows(ranks: ExactRanks) -> list[list[int]]:
    """For each cell the rows at each candidate."""
    cells = [[0] * ranks.candidates for _ in range(ranks.height)]
    for at in range(0, len(ranks.filled), 3):
        cell, candidate, rows = ranks.filled[at : at + 3]
        cells[cell][candidate] += rows
    return cells


def _losses(rows: Sequence[int], part: int, whole: int) -> list[int]:
    """How far each candidate is from parting the rows as ``part`` to ``whole`` - ``part``: 0 for the quantile itself (Smith 2011)."""
    losses, below, total = [], 0, sum(rows)
    for here in rows:
        losses.append(abs((whole - part) * below - part * (total - below - here)))
        below += here
    return losses
