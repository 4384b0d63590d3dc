"""Dominance: a sum or mean to which few people add nearly everything tells about those few.

Two rules of the owners (Hundepool et al., Statistical Disclosure Control, Wiley 2012, 4.2), each owner's judged by itself: merging two
(n,k) rules field by field would be stricter than either. x1 ≥ x2 ≥ … are contributions of people, without their sign, T their sum.

    (n,k)   held back if  x1 + … + xn > k % · T
    p %     held back if  T - x1 - x2 < p % · x1: then the second largest contributor knows the first to within p %
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from kakoi.contract.rules import DisclosureRules
from kakoi.core.errors import Malformed
from kakoi.enclave import decimals
from kakoi.enclave.job import ResultMagnitude


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributions:
    """What the largest contributors add to one number, and all together."""

    total: Decimal
    largest: tuple[Decimal, ...]


def largest_contributors(rules: Sequence[DisclosureRules]) -> int:
    """How many of the largest contributions the rules ask for; 0 if none does."""
    pairs = [rule.dominance_contributors for rule in rules if rule.dominance_percent < 100]
    return max([*pairs, *(2 for rule in rules if rule.p_percent)], default=0)


def contributions(magnitude: ResultMagnitude, rows: int) -> Iterator[Contributions | None]:
    """Those of each row; None where a total is no number. Raises Malformed for another shape, or text that is no number."""
    width, left = divmod(len(magnitude.largest), rows) if rows else (0, 0)
    if len(magnitude.totals) != rows or left:
        raise Malformed("record.range", "expected contributions for each row, got others")
    for row, total in enumerate(magnitude.totals):
        largest = tuple(decimals.parse(n) for n in magnitude.largest[row * width : (row + 1) * width] if n is not None)
        yield None if total is None else Contributions(total=decimals.parse(total), largest=largest)


def is_dominated(found: Contributions, rules: DisclosureRules) -> bool:
    """Whether one owner's rules hold the number back."""
    first, second = (*found.largest, Decimal(0), Decimal(0))[:2]
    some = sum(found.largest[: rules.dominance_contributors], start=Decimal(0))
    if rules.dominance_percent < 100 and some * 100 > found.total * rules.dominance_percent:
        return True
    return bool(rules.p_percent) and (found.total - first - second) * 100 < first * rules.p_percent


def protection(found: Contributions, rules: Sequence[DisclosureRules]) -> float:
    """By how much a reader must be unsure of a number that is held back, up and down: by so much more it would not be dominated
    (Hundepool et al. 2012, 4.3.2: upper protection levels).
    """
    wanted = Decimal(0)
    first, second = (*found.largest, Decimal(0), Decimal(0))[:2]
    for rule in rules:
        some = sum(found.largest[: rule.dominance_contributors], start=Decimal(0))
        if rule.dominance_percent < 100:
            wanted = max(wanted, some * 100 / rule.dominance_percent - found.total)
        wanted = max(wanted, first * rule.p_percent / 100 - (found.total - first - second))
    return float(wanted)


def dominated(magnitude: ResultMagnitude, rows: int, rules: Sequence[DisclosureRules]) -> frozenset[int]:
    """Rows whose number the rules hold back. What is no number is held back."""
    return frozenset(
        row
        for row, found in enumerate(contributions(magnitude, rows))
        if found is None or any(is_dominated(found, rule) for rule in rules)
    )
