"""Which expressions cannot fail on any row. A query that stops because of one row answers a question about that row, so an expression that
could (an integer that overflows, a division by zero, a text that is compared with a number) is evaluated with TRY: it is missing then.

Kinds are coarse types: integer, decimal, double, text, time, truth; empty for NULL alone; "?" for what is not known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

Kind = Literal["integer", "decimal", "double", "text", "time", "truth", "", "?"]
OF_TYPE: Final[dict[str, Kind]] = {
    "integer": "integer",
    "number": "double",
    "string": "text",
    "boolean": "truth",
    "date": "time",
    "datetime": "time",
}
"""By the declared type of a column or parameter."""
OF_CAST: Final[dict[str, Kind]] = {
    "BIGINT": "integer",
    "DOUBLE": "double",
    "VARCHAR": "text",
    "BOOLEAN": "truth",
    "DATE": "time",
    "TIMESTAMP": "time",
}
_NUMERIC: Final = ("", "integer", "decimal", "double")
_FEW: Final = re.compile(r"-?[0-9]{1,4}")
_ALWAYS: Final[dict[str, tuple[Kind, Kind]]] = {
    "length": ("text", "integer"),
    "lower": ("text", "text"),
    "upper": ("text", "text"),
    "trim": ("text", "text"),
    "day": ("time", "integer"),
    "month": ("time", "integer"),
    "quarter": ("time", "integer"),
    "year": ("time", "integer"),
    "isodow": ("time", "integer"),
    "~~": ("text", "truth"),
    "!~~": ("text", "truth"),
    "~~*": ("text", "truth"),
    "!~~*": ("text", "truth"),
}
"""Functions of arguments of one kind that never fail, and their kind."""
_TO_DOUBLE: Final = frozenset({"/", "**", "pow", "power", "sqrt", "ln", "log10", "log2", "exp"})
_ROUNDING: Final = frozenset({"abs", "ceil", "ceiling", "floor", "round", "trunc"})
_SPECIFIED: Final[dict[str, Kind]] = {
    "date_part": "integer",
    "date_trunc": "time",
    "date_diff": "integer",
    "datediff": "integer",
}
_CUT: Final = frozenset({"left", "right", "substr", "substring"})


def common(kinds: Sequence[Kind]) -> Kind:
    """The kind that values of these kinds have together; "?" if one would have to be converted in a way that can fail."""
    found = {kind for kind in kinds if kind}
    if found <= set(_NUMERIC):
        return next((kind for kind in ("double", "decimal", "integer") if kind in found), "")
    return found.pop() if len(found) == 1 else "?"


def of_function(name: str, kinds: Sequence[Kind], constants: Sequence[str | None]) -> tuple[Kind, bool]:
    """The kind of a scalar function's value, and whether it exists for every row on which the arguments exist.

    ``constants``: the text of each argument that is a constant.
    """
    together = common(kinds)
    numeric = together in _NUMERIC
    if name in _ALWAYS:
        wanted, kind = _ALWAYS[name]
        return kind, together in (wanted, "")
    if name in _TO_DOUBLE:
        return "double", numeric
    if name in ("+", "-", "*"):
        return together, together == "double"
    if name in ("%", "//"):
        divisor = constants[-1] or ""
        whole = all(kind == "integer" for kind in kinds)
        return together, whole and _FEW.fullmatch(divisor) is not None and int(divisor) > 0
    if name in ("nullif", "greatest", "least"):
        return together, together != "?"
    if name == "sign":
        return "integer", numeric
    return _of_other(name, kinds, constants)


def _of_other(name: str, kinds: Sequence[Kind], constants: Sequence[str | None]) -> tuple[Kind, bool]:
    small = all(text is not None and _FEW.fullmatch(text) for text in constants[1:])
    if name in _ROUNDING:
        return kinds[0], kinds[0] == "double" and small
    if name in _CUT:
        return "text", kinds[0] == "text" and small
    if name in _SPECIFIED:
        return _SPECIFIED[name], constants[0] is not None and all(kind == "time" for kind in kinds[1:])
    return "?", False
