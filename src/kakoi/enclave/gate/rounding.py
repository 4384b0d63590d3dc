"""Counts as multiples of an owner's base, so that nobody can undo it, and other numbers no more precise than that.

Each cell of the finest groupings is rounded to the nearest multiple (halves to the even one); margins are *sums of rounded cells*, where cells
add up. So all counts that leave are computed from the rounded finest cells: totals agree with what they are totals of, and add nothing from which
cells could be told more closely than to within half a base. What this costs: a total of many cells can be off by half a base for each of
them, usually by the square root of their number (docs/adr/0107).

A mean or a sum to six digits would give the count behind it away (a sum divided by a mean; the fractions that means of whole numbers
can have). So any other number v over n people keeps its digits above v · base / n, n rounded too.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal

from kakoi.enclave.gate.complement import Labels, Row, visible


def nearest(count: int, base: int) -> int:
    """The nearest multiple, halves to the even one."""
    whole, left = divmod(count, base)
    return (whole + (2 * left > base or (2 * left == base and whole % 2))) * base


def counts(rows: Sequence[Row], amounts: Sequence[int], base: int) -> list[int]:
    """The counts of tables of one run, rounded: the finest cells each by itself, what they add up to as the sum of them."""
    groupings: dict[tuple[int, int], list[int]] = {}
    for place, row in enumerate(rows):
        groupings.setdefault((row.table, row.mask), []).append(place)
    finest = [key for key in sorted(groupings) if not any(_is_finer(other, key) for other in groupings)]
    found = [nearest(amount, base) for amount in amounts]
    below: dict[tuple[tuple[int, int], int], dict[Labels, list[int]]] = {}
    made = list(found)
    for place, row in enumerate(rows):
        for key in (key for key in finest if _is_finer(key, (row.table, row.mask))):
            if (key, row.mask) not in below:
                below[key, row.mask] = {}
                for part in groupings[key]:
                    below[key, row.mask].setdefault(visible(rows[part].labels, row.mask), []).append(part)
            parts = below[key, row.mask].get(visible(row.labels, row.mask), [])
            if parts and sum(amounts[part] for part in parts) == amounts[place]:
                made[place] = sum(found[part] for part in parts)
                break
    return made


def _is_finer(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one grouping is a part of another's cells; of equal ones in two tables the first is."""
    (table, mask), (other_table, other_mask) = one, other
    return mask & ~other_mask == 0 and (mask != other_mask or table < other_table)


def precise(number: Decimal, people: int, base: int) -> Decimal:
    """A number that is no count, as precisely as the rounded count of the people behind it allows."""
    if not number:
        return number
    unit = abs(number) * base / max(base, nearest(people, base))
    digits = unit.adjusted() if unit == Decimal(1).scaleb(unit.adjusted()) else unit.adjusted() + 1
    step = Decimal(1).scaleb(digits)
    return (number / step).to_integral_value(ROUND_HALF_EVEN) * step
