"""Owners' rules merged: the strictest wins, field by field, and a denial names the owner whose rule it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from kakoi.contract.rules import NO_EPSILON, DisclosureRules
from kakoi.core.errors import Misuse, Refused

_STRICTER: Final[dict[str, Callable[..., Any]]] = {
    "minimum_cell": max,
    "minimum_contributors": max,
    "parameters_per_person": min,
    "max_digits": min,
    "max_output_bytes": min,
    "dominance_contributors": max,
    "dominance_percent": min,
    "p_percent": max,
    "rounding_base": max,
    "cohort_difference": max,
    "python_settings": min,
    "budget_runs": min,
    "budget_kilobytes": min,
    "epsilon_per_run": min,
    "epsilon_budget": min,
    "rows_per_person": min,
}
"""Which of two values of a field protects more. A field that is missing here stops every release (a test compares)."""


def _order(value: int | str) -> Decimal:
    return Decimal("Infinity" if value == NO_EPSILON else value)


def strictest(rules: Sequence[DisclosureRules]) -> DisclosureRules:
    """The strictest of several owners' rules. Raises Misuse for no rules: unset means deny."""
    if not rules:
        raise Misuse("gate.rules", "expected the rules of at least one owner, got none")
    return DisclosureRules(
        **{name: stricter((getattr(rule, name) for rule in rules), key=_order) for name, stricter in _STRICTER.items()}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The rules that judge one release, and who can change them."""

    rules: DisclosureRules
    each: tuple[DisclosureRules, ...]
    owners: tuple[str, ...]
    """Names of the owners, in the order of ``each``; empty if the caller has none."""

    def deny(self, code: str, rule: str, what: str, hint: str) -> Refused:
        """A denial by one rule: which rule, whose, and how to change it. Never a number that data decided."""
        strict = getattr(self.rules, rule)
        theirs = [owner for owner, rules in zip(self.owners, self.each, strict=False) if getattr(rules, rule) == strict]
        whose = " and ".join(theirs) if theirs else "the owners"
        return Refused(
            code,
            f"{what}: rule {rule} of {whose}",
            hint=f"{hint}; {whose} can change the rule in a new contract version",
        )
