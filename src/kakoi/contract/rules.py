"""One owner's disclosure rules, as they stand in a contract."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal as Number
from typing import Annotated, Final

from kakoi.core.errors import Malformed
from kakoi.core.records import Decimal, Limit, Record

NO_EPSILON: Final = "none"
MAX_EPSILON_PER_RUN: Final = 20
"""Beyond it noise protects nobody: what one person can change about the odds is a factor of e^20."""
Epsilon = Annotated[
    str,
    Limit(
        least=1,
        most=8,
        pattern=r"none|(?:0|[1-9][0-9]{0,3})(?:\.[0-9]{1,3})?",
        form="a number such as 0.5 with at most three decimals, or the word none",
    ),
]
"""A bound on privacy loss, or ``none``: nothing is left open by leaving it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureRules(Record):
    """One owner's rules for what may leave. Where owners differ the strictest wins.

    Defaults are DataSHIELD's (nfilter.tab 3, nfilter.subset 3, nfilter.glm 0.33); ``sdk`` fills them in. What counts over several
    runs is kept in the owner's own ledger.
    """

    minimum_cell: Annotated[int, Limit(least=1, most=10**6)]
    """Fewest rows behind a released cell."""
    minimum_contributors: Annotated[int, Limit(least=1, most=10**6)]
    """Fewest different people behind a released cell or statistic."""
    parameters_per_person: Decimal
    """Most fitted parameters as a share of the people they are fitted on."""
    max_digits: Annotated[int, Limit(least=1, most=15)]
    """Significant digits of a released number."""
    max_output_bytes: Annotated[int, Limit(least=1, most=64 * 1024 * 1024)]
    dominance_contributors: Annotated[int, Limit(least=1, most=10)]
    """n of the (n,k) rule: a sum or mean is held back if its n largest contributors (people) make up more than k % of it."""
    dominance_percent: Annotated[int, Limit(least=1, most=100)]
    """k of the (n,k) rule. 100: not judged."""
    p_percent: Annotated[int, Limit(most=100)]
    """A sum or mean is held back if the second largest contributor could tell the largest one to within p %. 0: not judged."""
    rounding_base: Annotated[int, Limit(least=1, most=1000)]
    """Released counts are multiples of this, and no other number is more precise than that allows. 1: not rounded."""
    cohort_difference: Annotated[int, Limit(least=1, most=16)]
    """Fewest people in whom the cohorts of two released numbers may differ, unless they are the same people. 1: not compared."""
    python_settings: Annotated[int, Limit(least=1, most=10**6)]
    """Settings of its parameters with which one Python analysis may be released: nobody sees its cohorts but its code."""
    budget_runs: Annotated[int, Limit(least=1, most=10**6)]
    """Runs whose results may leave from this data set, under all contracts."""
    budget_kilobytes: Annotated[int, Limit(least=1, most=10**9)]
    """Kilobytes of results that may leave from this data set, under all contracts."""

    epsilon_per_run: Epsilon
    """Most privacy loss of one run about one person (differential privacy): numbers leave with noise only. ``none``: without noise."""
    epsilon_budget: Epsilon
    """Privacy loss of all runs on this data set together, under all contracts; ``none`` where ``epsilon_per_run`` is."""
    rows_per_person: Annotated[int, Limit(least=1, most=10**4)]
    """Rows of one person that a number with noise counts; a person's other rows are left out. Means nothing without noise."""

    def check(self) -> None:
        """A share lies between 0 and 1; noise is demanded for one run and for all, or for neither."""
        if not 0 <= Number(self.parameters_per_person) <= 1:
            raise Malformed("rules.share", "expected parameters_per_person from 0 to 1")
        per_run, budget = bounded(self.epsilon_per_run), bounded(self.epsilon_budget)
        if (per_run is None) != (budget is None):
            raise Malformed(
                "rules.epsilon",
                "expected epsilon_per_run and epsilon_budget both as numbers, or both as none",
                hint="whoever demands noise says how much one run may tell, and how much all runs together",
            )
        if per_run is not None and budget is not None and (not 0 < per_run <= budget or per_run > MAX_EPSILON_PER_RUN):
            raise Malformed(
                "rules.epsilon",
                f"expected epsilon_per_run above 0, at most {MAX_EPSILON_PER_RUN} and at most epsilon_budget",
                hint="usual values lie between 0.1 and 2",
            )


def bounded(epsilon: str) -> Number | None:
    """The number of an ``Epsilon``; None where its owner demands nothing."""
    return None if epsilon == NO_EPSILON else Number(epsilon)


def strictest_epsilon(texts: Iterable[str]) -> str:
    """The smallest of several owners' values; ``none`` only if all say so."""
    return min(texts, key=lambda text: Number("Infinity") if text == NO_EPSILON else Number(text))


def demands_noise(rules: Iterable[DisclosureRules]) -> bool:
    """Whether an owner demands that numbers leave with noise only."""
    return any(rule.epsilon_per_run != NO_EPSILON for rule in rules)
