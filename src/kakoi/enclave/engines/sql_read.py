"""DuckDB's own parse tree, read with an allow-list: every node is recognised whole, or the query is refused.

The tree comes from ``json_serialize_sql``: the parser that executes is the parser that is judged. What is recognised is written
out again as SQL, fully parenthesised and with every column qualified; ``sql_plan`` parses that text once more and compares.
What could fail on a row is written with TRY (``whole``), and numbers made of aggregates are computed as DOUBLE, which cannot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kakoi.enclave.engines.sql_total import OF_CAST, OF_TYPE, Kind, common, of_function
from kakoi.enclave.engines.sql_words import (
    AGGREGATES,
    COMPARISONS,
    CONJUNCTIONS,
    INFIX,
    RETURN_CELLS,
    SCALARS,
    TYPES,
    literal,
    quoted,
)
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import SITE_COLUMN, JobColumn, JobTable

Node = dict[str, Any]
PLACE: Final = frozenset({"query_location", "query_location_length"})
_EXPRESSION: Final = frozenset({"class", "type", "alias"})
_NUMBER: Final = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_MAX_DEPTH: Final = 40
_LEAST_QUANTILE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What may stand at a place of the query."""

    parameters: bool = False
    aggregates: bool = False
    identifiers: bool = False


CONDITION: Final = Where(parameters=True)
GROUPING: Final = Where(parameters=True)
ITEM: Final = Where(aggregates=True)
ARGUMENT: Final = Where()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A column of a table of the query. ``column`` is None for the injected site column."""

    alias: str
    name: str
    table: JobTable
    column: JobColumn | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """A recognised aggregate: what ``sql_plan`` must count to know how many people are behind it."""

    name: str
    arguments: tuple[Piece, ...]
    distinct: bool
    fraction: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A recognised expression: its text, and what matters about it."""

    sql: str
    tree: Node
    """Normalised: without places and aliases, columns qualified, casts that cannot fail."""
    bare: bool = False
    """It reads a column outside an aggregate."""
    aggregates: tuple[Aggregate, ...] = ()
    reference: Reference | None = None
    """Set if it is nothing but a column."""
    constants: tuple[str | None, ...] | None = None
    """The constants that it can only be; None if others are possible."""
    boolean: bool = False
    conditional: bool = False
    """Which rows count, or how, is chosen by a condition inside it."""
    kind: Kind = "?"
    total: bool = False
    """It cannot fail, whatever is in a row (``sql_total``)."""
    levels: frozenset[str] = frozenset()
    """Numbers that it gives to whoever a condition does not choose (``CASE … ELSE 0.5 END``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The tables of the query by alias, lower case, and the declared parameters with their kinds."""

    tables: Mapping[str, JobTable]
    parameters: Mapping[str, Kind]

    def resolve(self, names: Sequence[str]) -> Reference:
        """The column that one or two names mean. Raises Stopped."""
        if len(names) not in (1, 2):
            raise Stopped("sql.column", ".".join(names))
        wanted = names[-1].lower()
        among = self.tables if len(names) == 1 else {k: t for k, t in self.tables.items() if k == names[0].lower()}
        found = [
            (alias, table, name) for alias, table in among.items() for name in table.readable if name.lower() == wanted
        ]
        if not found:
            raise Stopped("sql.column", ".".join(names))
        if len(found) > 1:
            raise Stopped("sql.ambiguous", ".".join(names))
        alias, table, name = found[0]
        column = next((c for c in table.columns if c.name == name), None) if name != SITE_COLUMN else None
        return Reference(alias=alias, name=name, table=table, column=column)


def exactly(node: Any, fields: frozenset[str] | set[str], what: str) -> None:
    """Raise Stopped unless ``node`` is an object with exactly these members (places apart)."""
    if not isinstance(node, dict) or set(node) - PLACE != fields:
        raise Stopped("sql.not-allowed", what)


def read(node: Any, scope: Scope, where: Where, depth: int = 0) -> Piece:
    """The expression of a tree node, admitted at this place. Raises Stopped."""
    if depth > _MAX_DEPTH:
        raise Stopped("sql.too-long")
    kind = node.get("class") if isinstance(node, dict) else None
    reader = _READERS.get(str(kind))
    if reader is None:
        raise Stopped("sql.not-allowed", str(kind))
    return reader(node, scope, where, depth + 1)


def _all(nodes: Any, scope: Scope, where: Where, depth: int) -> list[Piece]:
    if not isinstance(nodes, list):
        raise Stopped("sql.not-allowed")
    return [read(node, scope, where, depth) for node in nodes]


def whole(piece: Piece) -> Piece:
    """The expression, missing where it would fail. A place where it is missing is then chosen by what is in a row."""
    if piece.total or piece.aggregates:
        return piece
    tree = {"class": "TRY", "child": piece.tree}
    return replace(piece, sql=f"TRY({piece.sql})", tree=tree, total=True, conditional=True)


def whole_condition(node: Any, scope: Scope) -> Piece:
    """The condition of WHERE or JOIN: not true where it would fail. Raises Stopped."""
    piece = whole(read(node, scope, CONDITION))
    if not _decides(piece):
        raise Stopped("sql.not-allowed", "a condition that is neither true nor false")
    return piece


def _beside_aggregates(parts: Sequence[Piece]) -> list[Piece]:
    """Operands of an expression. TRY cannot stand around aggregates, so those become DOUBLE, with which nothing fails."""
    if not any(part.aggregates for part in parts):
        return list(parts)
    return [
        _double(part) if part.aggregates and part.kind not in ("double", "truth") else whole(part) for part in parts
    ]


def _double(part: Piece) -> Piece:
    tree = {"class": "CAST", "child": part.tree, "to": "DOUBLE"}
    return replace(part, sql=f"TRY_CAST({part.sql} AS DOUBLE)", tree=tree, kind="double")


def _made(
    sql: str,
    tree: Node,
    parts: Sequence[Piece],
    *,
    kind: Kind = "truth",
    fits: bool = True,
    boolean: bool = False,
    conditional: bool = False,
) -> Piece:
    """An expression of parts. ``fits``: it cannot fail by itself."""
    return Piece(
        kind=kind,
        total=fits and all(part.total for part in parts),
        sql=sql,
        tree=tree,
        bare=any(part.bare for part in parts),
        aggregates=tuple(a for part in parts for a in part.aggregates),
        boolean=boolean,
        conditional=conditional or boolean or any(part.conditional for part in parts),
    )


def _column(node: Node, scope: Scope, where: Where, _: int) -> Piece:
    exactly(node, _EXPRESSION | {"column_names"}, "COLUMN_REF")
    found = scope.resolve(node["column_names"])
    if found.column is not None and found.column.identifier != "no" and not where.identifiers:
        raise Stopped("sql.identifier", found.name)
    tree = {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": [found.alias, found.name]}
    codes = None if found.column is None or not found.column.codes else found.column.codes
    return Piece(
        sql=f"{quoted(found.alias)}.{quoted(found.name)}",
        tree=tree,
        bare=True,
        reference=found,
        constants=(*codes, None) if codes else None,
        boolean=found.column is not None and found.column.type == "boolean",
        kind="text" if found.column is None else OF_TYPE[found.column.type],
        total=True,
    )


def _constant(node: Node, _: Scope, __: Where, ___: int) -> Piece:
    exactly(node, _EXPRESSION | {"literal"}, "CONSTANT")
    value = node["literal"]
    exactly(value, {"kind", "text"}, "CONSTANT")
    kind, text = value["kind"], value["text"]
    if kind in ("INTEGER", "NUMERIC") and _NUMBER.fullmatch(text) and len(text) <= 40:
        sql = f"({text})" if text.startswith("-") else text
    elif kind == "STRING" and len(text) <= 200 and "\x00" not in text:
        sql = literal(text)
    elif kind == "BOOLEAN" and text in ("true", "false"):
        sql = text
    elif kind == "NULL_LITERAL":
        sql, text = "NULL", None
    else:
        raise Stopped("sql.not-allowed", "CONSTANT")
    tree = {"class": "CONSTANT", "type": node["type"], "literal": dict(value)}
    of: Kind = _KINDS[kind] if kind != "INTEGER" or len(text) < _LONG_INTEGER else "decimal"
    return Piece(sql=sql, tree=tree, constants=(text,), boolean=kind == "BOOLEAN", kind=of, total=True)


_KINDS: Final[dict[str, Kind]] = {
    "INTEGER": "integer",
    "NUMERIC": "decimal",
    "STRING": "text",
    "BOOLEAN": "truth",
    "NULL_LITERAL": "",
}
_LONG_INTEGER: Final = 19
"""Characters of an integer that may need more than 64 bits."""


def _parameter(node: Node, scope: Scope, where: Where, _: int) -> Piece:
    exactly(node, _EXPRESSION | {"identifier"}, "PARAMETER")
    name = node["identifier"]
    if name not in scope.parameters or not where.parameters:
        raise Stopped("sql.parameter", str(name))
    tree = {"class": "PARAMETER", "type": node["type"], "identifier": name}
    return Piece(sql=f"${name}", tree=tree, kind=scope.parameters[name], total=True)


def _comparison(node: Node, scope: Scope, where: Where, depth: int) -> Piece:
    exactly(node, _EXPRESSION | {"left", "right"}, "COMPARISON")
    word = COMPARISONS.get(node["type"])
    if word is None:
        raise Stopped("sql.not-allowed", str(node["type"]))
    left, right = _beside_aggregates([read(node[side], scope, where, depth) for side in ("left", "right")])
    tree = {"class": "COMPARISON", "type": node["type"], "left": left.tree, "right": right.tree}
    fits = common((left.kind, right.kind)) != "?"
    return _made(f"({left.sql} {word} {right.sql})", tree, (left, right), fits=fits, boolean=True)


def _conjunction(node: Node, scope: Scope, where: Where, depth: int) -> Piece:
    exactly(node, _EXPRESSION | {"children"}, "CONJUNCTION")
    word = CONJUNCTIONS.get(node["type"])
    parts = _beside_aggregates(_all(node["children"], scope, where, depth))
    if word is None or len(parts) < 2:
        raise Stopped("sql.not-allowed", str(node["type"]))
    tree = {"class": "CONJUNCTION", "type": node["type"], "children": [part.tree for part in parts]}
    sql = "(" + f" {word} ".join(part.sql for part in parts) + ")"
    return _made(sql, tree, parts, fits=all(map(_decides, parts)), boolean=True)


def _decides(piece: Piece) -> bool:
    """Whether it stands as a condition without a conversion that can fail."""
    return piece.kind not in ("text", "time", "?")


def _operator(node: Node, scope: Scope, where: Where, depth: int) -> Piece:
    exactly(node, _EXPRESSION | {"children"}, "OPERATOR")
    parts = _beside_aggregates(_all(node["children"], scope, where, depth))
    if node["type"] == "OPERATOR_TRY" and len(parts) == 1:
        return whole(parts[0])
    first, rest = (parts[0].sql if parts else ""), ", ".join(part.sql for part in parts[1:])
    forms = {
        "OPERATOR_NOT": (1, f"(NOT {first})"),
        "OPERATOR_IS_NULL": (1, f"({first} IS NULL)"),
        "OPERATOR_IS_NOT_NULL": (1, f"({first} IS NOT NULL)"),
        "COMPARE_IN": (256, f"({first} IN ({rest}))"),
        "OPERATOR_COALESCE": (8, f"coalesce({', '.join(part.sql for part in parts)})"),
    }
    most, sql = forms.get(node["type"], (0, ""))
    least = 2 if most > 1 else 1
    if not least <= len(parts) <= most:
        raise Stopped("sql.not-allowed", str(node["type"]))
    tree = {"class": "OPERATOR", "type": node["type"], "children": [part.tree for part in parts]}
    value = node["type"] == "OPERATOR_COALESCE"
    together = common([part.kind for part in parts])
    fits = _decides(parts[0]) if node["type"] == "OPERATOR_NOT" else together != "?"
    kind = together if value else "truth"
    made = _made(sql, tree, parts, kind=kind, fits=fits, boolean=not value, conditional=True)
    return replace(made, levels=_levels(parts)) if value else made


def _levels(results: Sequence[Piece]) -> frozenset[str]:
    found = frozenset(c for result in results if not result.bare for c in result.constants or () if c is not None)
    return frozenset(c for c in found if _NUMBER.fullmatch(c)).union(*(result.levels for result in results))


def _between(node: Node, scope: Scope, where: Where, depth: int) -> Piece:
    exactly(node, _EXPRESSION | {"input", "lower", "upper"}, "BETWEEN")
    parts = _beside_aggregates([read(node[name], scope, where, depth) for name in ("input", "lower", "upper")])
    tree = {"class": "BETWEEN", "type": node["type"]} | {
        name: part.tree for name, part in zip(("input", "lower", "upper"), parts, strict=True)
    }
    if node["type"] != "COMPARE_BETWEEN":
        raise Stopped("sql.not-allowed", str(node["type"]))
    fits = common([part.kind for part in parts]) != "?"
    return _made(f"({parts[0].sql} BETWEEN {parts[1].sql} AND {parts[2].sql})", tree, parts, fits=fits, boolean=True)


def _case(node: Node, scope: Scope, where: Where, depth: int) -> Piece:
    exactly(node, _EXPRESSION | {"case_checks", "else_expr"}, "CASE")
    for check in node["case_checks"]:
        exactly(check, {"when_expr", "then_expr"}, "CASE")
    every = [check[name] for check in node["case_checks"] for name in ("when_expr", "then_expr")]
    *pairs, other = _beside_aggregates(_all([*every, node["else_expr"]], scope, where, depth))
    checks = list(zip(pairs[::2], pairs[1::2], strict=True))
    text = " ".join(f"WHEN {when.sql} THEN {then.sql}" for when, then in checks)
    tree = {
        "class": "CASE",
        "type": node["type"],
        "case_checks": [{"when_expr": when.tree, "then_expr": then.tree} for when, then in checks],
        "else_expr": other.tree,
    }
    results = [*(then for _, then in checks), other]
    kind = common([result.kind for result in results])
    fits = kind != "?" and all(_decides(when) for when, _ in checks)
    made = _made(f"CASE {text} ELSE {other.sql} END", tree, [*pairs, other], kind=kind, fits=fits)
    constants = {c for result in results for c in (result.constants or ())}
    known = all(result.constants is not None for result in results)
    boolean = all(result.boolean or result.sql == "NULL" for result in results)
    return replace(
        made,
        sql=f"({made.sql})",
        boolean=boolean,
        conditional=True,
        constants=tuple(sorted(constants, key=str)) if known else None,
        levels=_levels(results),
    )


def _cast(node: Node, scope: Scope, where: Where, depth: int) -> Piece:
    exactly(node, _EXPRESSION | {"child", "try_cast", "type_expr"}, "CAST")
    kind = node["type_expr"]
    exactly(kind, _EXPRESSION | {"catalog", "schema", "type_name", "children", "qualified_name"}, "CAST")
    to = TYPES.get(str(kind["type_name"]).lower())
    if to is None or kind["children"] or kind["catalog"] or kind["schema"]:
        raise Stopped("sql.cast", str(kind["type_name"]))
    child = read(node["child"], scope, where, depth)
    # A cast that fails would answer a question about one cell by stopping the query: here it gives NULL.
    tree = {"class": "CAST", "child": child.tree, "to": to}
    made = _made(f"TRY_CAST({child.sql} AS {to})", tree, (child,), kind=OF_CAST[to], boolean=to == "BOOLEAN")
    dichotomous = child.boolean and to in ("BIGINT", "DOUBLE")
    return replace(made, constants=("0", "1", None) if dichotomous else child.constants if to == "VARCHAR" else None)


_CALL: Final = _EXPRESSION | {
    "function_name",
    "schema",
    "filter",
    "order_bys",
    "distinct",
    "is_operator",
    "export_state",
    "catalog",
    "arguments",
    "qualified_name",
    "is_legacy_function_call",
}


def _function(node: Node, scope: Scope, where: Where, depth: int) -> Piece:
    exactly(node, _CALL, "FUNCTION")
    name = str(node["function_name"]).lower()
    for argument in node["arguments"]:
        exactly(argument, {"name", "expression"}, "FUNCTION")
    odd = node["schema"] or node["catalog"] or node["export_state"] or node["is_legacy_function_call"]
    if odd or node["qualified_name"] != {"path": [node["function_name"]]} or any(a["name"] for a in node["arguments"]):
        raise Stopped("sql.function", name)
    arguments = [argument["expression"] for argument in node["arguments"]]
    if name in AGGREGATES:
        return _aggregate(node, name, arguments, scope, where, depth)
    if node["filter"] is not None or node["distinct"] or node["order_bys"]["orders"]:
        raise Stopped("sql.filter", name)
    parts = _beside_aggregates(_all(arguments, scope, where, depth))
    kind, fits = of_function(name, [part.kind for part in parts], [_constant_text(part) for part in parts])
    return _made(
        _call_text(name, node, parts),
        _call_tree(name, parts),
        parts,
        kind=kind,
        fits=fits,
        boolean=name.endswith(("~~", "~~*")),
        conditional=name in ("nullif", "greatest", "least", "sign"),
    )


def _constant_text(piece: Piece) -> str | None:
    return piece.constants[0] if piece.tree["class"] == "CONSTANT" and piece.constants else None


def _call_text(name: str, node: Node, parts: Sequence[Piece]) -> str:
    if name in INFIX and len(parts) == 2:
        return f"({parts[0].sql} {INFIX[name]} {parts[1].sql})"
    if name == "-" and len(parts) == 1:
        return f"(- ({parts[0].sql}))"
    least, most = SCALARS.get(name, (1, 0))
    if not least <= len(parts) <= most or node["is_operator"]:
        code = "sql.aggregate" if name in RETURN_CELLS else "sql.function"
        raise Stopped(code, name)
    return f"{name}({', '.join(part.sql for part in parts)})"


def _call_tree(name: str, parts: Sequence[Piece], *, distinct: bool = False) -> Node:
    return {"class": "FUNCTION", "name": name, "arguments": [part.tree for part in parts], "distinct": distinct}


def _aggregate(node: Node, name: str, arguments: list[Any], scope: Scope, where: Where, depth: int) -> Piece:
    if not where.aggregates:
        raise Stopped("sql.not-allowed", name)
    distinct = bool(node["distinct"])
    if node["filter"] is not None or node["order_bys"]["orders"] or (distinct and name != "count"):
        raise Stopped("sql.filter", name)
    if len(arguments) != AGGREGATES[name]:
        raise Stopped("sql.aggregate", name)
    place = replace(ARGUMENT, identifiers=distinct)
    parts = [whole(part) for part in _all(arguments, scope, place, depth)]
    if parts and not parts[0].bare:
        raise Stopped("sql.aggregate", f"{name} of a constant")
    fraction = 0.5
    if name == "quantile_cont":
        fraction = _fraction(parts[1])
    inner = ("DISTINCT " if distinct else "") + (", ".join(part.sql for part in parts) or "*")
    found = Aggregate(name=name, arguments=tuple(parts), distinct=distinct, fraction=fraction)
    shown = "count" if name == "count_star" else name
    return Piece(
        sql=f"{shown}({inner})",
        tree=_call_tree(name, parts, distinct=distinct),
        bare=False,
        aggregates=(found,),
        kind="integer",
        total=True,
    )


def _fraction(piece: Piece) -> float:
    number = piece.constants[0] if piece.constants and not piece.bare else None
    if number is None or not _NUMBER.fullmatch(number):
        raise Stopped("sql.quantile")
    fraction = float(number)
    if not _LEAST_QUANTILE <= fraction <= 1 - _LEAST_QUANTILE:
        raise Stopped("sql.quantile", number)
    return fraction


_READERS: Final = {
    "COLUMN_REF": _column,
    "CONSTANT": _constant,
    "PARAMETER": _parameter,
    "COMPARISON": _comparison,
    "CONJUNCTION": _conjunction,
    "OPERATOR": _operator,
    "BETWEEN": _between,
    "CASE": _case,
    "CAST": _cast,
    "FUNCTION": _function,
}
