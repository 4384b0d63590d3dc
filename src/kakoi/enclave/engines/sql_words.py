"""The words of SQL that the engine admits. What is not listed is refused, so a new DuckDB can only refuse more.

Nothing here reads files, settings, time, randomness or the catalogue, returns a list or a structure, or makes a value much
larger than its arguments. Aggregates return a number that depends on every row, never a chosen cell
(no min, max, first, any_value, arg_max, mode, list, string_agg, histogram).
"""

from __future__ import annotations

from typing import Final

COMPARISONS: Final = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_DISTINCT_FROM": "IS DISTINCT FROM",
    "COMPARE_NOT_DISTINCT_FROM": "IS NOT DISTINCT FROM",
}
CONJUNCTIONS: Final = {"CONJUNCTION_AND": "AND", "CONJUNCTION_OR": "OR"}
INFIX: Final = {
    "+": "+",
    "-": "-",
    "*": "*",
    "/": "/",
    "//": "//",
    "%": "%",
    "**": "**",
    "~~": "LIKE",
    "!~~": "NOT LIKE",
    "~~*": "ILIKE",
    "!~~*": "NOT ILIKE",
}
SCALARS: Final[dict[str, tuple[int, int]]] = {
    "abs": (1, 1),
    "ceil": (1, 1),
    "ceiling": (1, 1),
    "date_diff": (3, 3),
    "date_part": (2, 2),
    "date_trunc": (2, 2),
    "datediff": (3, 3),
    "day": (1, 1),
    "exp": (1, 1),
    "floor": (1, 1),
    "greatest": (1, 8),
    "isodow": (1, 1),
    "least": (1, 8),
    "left": (2, 2),
    "length": (1, 1),
    "ln": (1, 1),
    "log10": (1, 1),
    "log2": (1, 1),
    "lower": (1, 1),
    "month": (1, 1),
    "nullif": (2, 2),
    "pow": (2, 2),
    "power": (2, 2),
    "quarter": (1, 1),
    "right": (2, 2),
    "round": (1, 2),
    "sign": (1, 1),
    "sqrt": (1, 1),
    "substr": (2, 3),
    "substring": (2, 3),
    "trim": (1, 1),
    "trunc": (1, 1),
    "upper": (1, 1),
    "year": (1, 1),
}
"""Name: fewest and most arguments."""
AGGREGATES: Final[dict[str, int]] = {
    "avg": 1,
    "corr": 2,
    "count": 1,
    "count_star": 0,
    "covar_pop": 2,
    "covar_samp": 2,
    "mean": 1,
    "median": 1,
    "quantile_cont": 2,
    "stddev": 1,
    "stddev_pop": 1,
    "stddev_samp": 1,
    "sum": 1,
    "var_pop": 1,
    "var_samp": 1,
    "variance": 1,
}
"""Name: number of arguments."""
RETURN_CELLS: Final = frozenset(
    [
        "min",
        "max",
        "first",
        "last",
        "any_value",
        "arbitrary",
        "arg_min",
        "arg_max",
        "argmin",
        "argmax",
        "min_by",
        "max_by",
        "mode",
        "list",
        "array_agg",
        "string_agg",
        "group_concat",
        "listagg",
        "histogram",
        "quantile",
        "quantile_disc",
        "approx_quantile",
        "approx_top_k",
        "entropy",
        "product",
        "bit_and",
        "bit_or",
        "bit_xor",
        "bool_and",
        "bool_or",
        "mad",
        "kurtosis",
        "skewness",
        "reservoir_quantile",
    ]
)
"""They return a chosen cell, or what is as good as one."""
TYPES: Final = {
    "bigint": "BIGINT",
    "integer": "BIGINT",
    "int": "BIGINT",
    "smallint": "BIGINT",
    "double": "DOUBLE",
    "float": "DOUBLE",
    "varchar": "VARCHAR",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
"""Casts go to the engine's own types: integers are 64 bit, numbers are binary64."""

COLUMN_TYPES: Final = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "string": "VARCHAR",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "datetime": "TIMESTAMP",
}
_INTEGERS: Final = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"})
FILE_TYPES: Final[dict[str, frozenset[str]]] = {
    "integer": _INTEGERS,
    "number": _INTEGERS | {"FLOAT", "DOUBLE"},
    "string": frozenset({"VARCHAR"}),
    "boolean": frozenset({"BOOLEAN"}),
    "date": frozenset({"DATE"}),
    "datetime": frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}),
}
"""Types in a part's file that a declared type admits: those that convert without a choice."""


def quoted(name: str) -> str:
    """An identifier for SQL text."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string constant for SQL text."""
    return "'" + text.replace("'", "''") + "'"
