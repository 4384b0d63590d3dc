"""The range that an expression's values lie in by declaration: columns' declared limits, constants, and what is computed from them.

A number with noise is made of rows clamped to this range, so a range that is wrong or too narrow biases the number and tells nothing more
about anybody: what one person can change follows from the clamp, not from this inference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from kakoi.enclave.engines.sql_read import Node, Scope

_WHOLE: Final = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """From ``low`` to ``high``; None where nothing is declared. ``whole``: whole numbers only."""

    low: Decimal | None
    high: Decimal | None
    whole: bool


_UNKNOWN: Final = Range(low=None, high=None, whole=False)
_TRUTH: Final = Range(low=Decimal(0), high=Decimal(1), whole=True)


def range_of(tree: Node, scope: Scope) -> Range:
    """The range of a recognised expression (``sql_read.Piece.tree``)."""
    reader = _READERS.get(str(tree.get("class")))
    return reader(tree, scope) if reader is not None else _UNKNOWN


def _column(tree: Node, scope: Scope) -> Range:
    alias, name = tree["column_names"]
    column = next((c for c in scope.tables[alias].columns if c.name == name), None)
    if column is None or column.type not in ("integer", "number", "boolean"):
        return _UNKNOWN
    if column.type == "boolean":
        return _TRUTH
    codes = [_number(code) for code in column.codes]
    known = [code for code in codes if code is not None]
    low, high = _number(column.minimum), _number(column.maximum)
    if known and len(known) == len(codes):
        low, high = (min(known) if low is None else low), (max(known) if high is None else high)
    return Range(low=low, high=high, whole=column.type == "integer")


def _number(text: Any) -> Decimal | None:
    try:
        return Decimal(text) if text is not None else None
    except InvalidOperation:
        return None


def _constant(tree: Node, _: Scope) -> Range:
    if tree["literal"]["kind"] == "NULL_LITERAL":
        return Range(low=Decimal("Infinity"), high=Decimal("-Infinity"), whole=True)
    text = tree["literal"]["text"]
    number = _number(text) if tree["literal"]["kind"] in ("INTEGER", "NUMERIC") else None
    return Range(low=number, high=number, whole=bool(_WHOLE.fullmatch(str(text))))


def _united(parts: Sequence[Range]) -> Range:
    lows, highs = [part.low for part in parts], [part.high for part in parts]
    return Range(low=_all(min, lows), high=_all(max, highs), whole=all(part.whole for part in parts))


def _all(choose: Callable[[Sequence[Decimal]], Decimal], values: Sequence[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return choose(known) if known and len(known) == len(values) else None


def _any(choose: Callable[[Sequence[Decimal]], Decimal], values: Sequence[Decimal | None]) -> Decimal | None:
    known = [value for value in values if value is not None]
    return choose(known) if known else None


def _case(tree: Node, scope: Scope) -> Range:
    results = [check["then_expr"] for check in tree["case_checks"]] + [tree["else_expr"]]
    return _united([range_of(result, scope) for result in results])


def _cast(tree: Node, scope: Scope) -> Range:
    inner = range_of(tree["child"], scope)
    if tree["to"] not in ("BIGINT", "DOUBLE"):
        return _UNKNOWN
    return Range(low=inner.low, high=inner.high, whole=inner.whole or tree["to"] == "BIGINT")


def _operator(tree: Node, scope: Scope) -> Range:
    if tree["type"] != "OPERATOR_COALESCE":
        return _TRUTH
    return _united([range_of(child, scope) for child in tree["children"]])


def _function(tree: Node, scope: Scope) -> Range:
    parts = [range_of(argument, scope) for argument in tree["arguments"]]
    name, whole = tree["name"], all(part.whole for part in parts)
    lows, highs = [part.low for part in parts], [part.high for part in parts]
    if name == "least":
        return Range(low=_all(min, lows), high=_any(min, highs), whole=whole)
    if name == "greatest":
        return Range(low=_any(max, lows), high=_all(max, highs), whole=whole)
    ends = [end for end in (*lows, *highs) if end is not None and end.is_finite()]
    if name in ("+", "-", "*") and len(parts) == 2 and len(ends) == 4:
        return _arithmetic(name, (ends[0], ends[2]), (ends[1], ends[3]), whole=whole)
    return _UNKNOWN


def _arithmetic(name: str, one: tuple[Decimal, Decimal], other: tuple[Decimal, Decimal], *, whole: bool) -> Range:
    if name == "+":
        found = [one[0] + other[0], one[1] + other[1]]
    elif name == "-":
        found = [one[0] - other[1], one[1] - other[0]]
    else:
        found = [a * b for a in one for b in other]
    return Range(low=min(found), high=max(found), whole=whole)


_READERS: Final[dict[str, Callable[[Node, Scope], Range]]] = {
    "COLUMN_REF": _column,
    "CONSTANT": _constant,
    "CASE": _case,
    "CAST": _cast,
    "TRY": lambda tree, scope: range_of(tree["child"], scope),
    "OPERATOR": _operator,
    "COMPARISON": lambda tree, scope: _TRUTH,
    "CONJUNCTION": lambda tree, scope: _TRUTH,
    "BETWEEN": lambda tree, scope: _TRUTH,
    "FUNCTION": _function,
}
