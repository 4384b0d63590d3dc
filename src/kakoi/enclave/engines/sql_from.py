"""FROM: base tables and plain joins. Every join needs an equality of columns, so that no table can multiply another at will."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kakoi.enclave.engines.sql_read import Node, Piece, Scope, Where, exactly, read, whole_condition
from kakoi.enclave.engines.sql_total import Kind, common
from kakoi.enclave.engines.sql_words import quoted
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import JobTable

_BASE: Final = frozenset(
    [
        "type",
        "alias",
        "sample",
        "schema_name",
        "table_name",
        "column_name_alias",
        "catalog_name",
        "at_clause",
        "qualified_name",
    ]
)
_JOIN: Final = frozenset(
    [
        "type",
        "alias",
        "sample",
        "left",
        "right",
        "condition",
        "join_type",
        "ref_type",
        "using_columns",
        "delim_flipped",
        "duplicate_eliminated_columns",
        "is_implicit",
        "ranking_expression",
        "nearest_count",
        "nearest_order_type",
        "nearest_approx",
    ]
)
_KEY: Final = Where(identifiers=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is read: tables by alias in order, the text after FROM, and the join conditions' pieces."""

    tables: Mapping[str, JobTable]
    sql: str
    conditions: tuple[Piece, ...]


def read_from(node: Any, tables: Mapping[str, JobTable], parameters: Mapping[str, Kind]) -> Source:
    """The FROM clause of a tree. ``tables`` are the job's by lower-case name. Raises Stopped."""
    kind = node.get("type") if isinstance(node, dict) else None
    if kind == "BASE_TABLE":
        return _base(node, tables)
    if kind == "JOIN":
        return _join(node, tables, parameters)
    raise Stopped("sql.not-allowed", f"FROM {kind}")


def _base(node: Node, tables: Mapping[str, JobTable]) -> Source:
    exactly(node, _BASE, "FROM")
    odd = [node["sample"], node["schema_name"], node["catalog_name"], node["at_clause"], node["column_name_alias"]]
    if any(odd) or node["qualified_name"] != {"path": [node["table_name"]]}:
        raise Stopped("sql.not-allowed", "FROM")
    name = str(node["table_name"])
    table = tables.get(name.lower())
    if table is None:
        raise Stopped("sql.table", name)
    alias = (str(node["alias"]) or name).lower()
    if any(alias == column.lower() for each in tables.values() for column in each.readable):
        raise Stopped("sql.ambiguous", alias)
    return Source(tables={alias: table}, sql=f"{quoted(table.name)} AS {quoted(alias)}", conditions=())


def _join(node: Node, tables: Mapping[str, JobTable], parameters: Mapping[str, Kind]) -> Source:
    exactly(node, _JOIN, "JOIN")
    odd = [node["alias"], node["sample"], node["duplicate_eliminated_columns"], node["ranking_expression"]]
    plain = node["ref_type"] == "REGULAR" and node["join_type"] in ("INNER", "LEFT")
    if any(odd) or not plain or node["delim_flipped"] or node["nearest_approx"]:
        raise Stopped("sql.join", f"{node['ref_type']} {node['join_type']}")
    left = read_from(node["left"], tables, parameters)
    if node["right"].get("type") != "BASE_TABLE":
        raise Stopped("sql.join")
    right = _base(node["right"], tables)
    both = {**left.tables, **right.tables}
    names = [table.name for table in both.values()]
    if len(both) != len(left.tables) + 1 or len(set(names)) != len(names):
        raise Stopped("sql.join", "a table joined to itself")
    scope = Scope(tables=both, parameters=parameters)
    new = next(iter(right.tables))
    pieces = _using(node, left, new, scope) if node["using_columns"] else _on(node["condition"], new, scope)
    on = " AND ".join(piece.sql for piece in pieces)
    return Source(
        tables=both,
        sql=f"{left.sql} {node['join_type']} JOIN {right.sql} ON ({on})",
        conditions=(*left.conditions, *pieces),
    )


def _using(node: Node, left: Source, new: str, scope: Scope) -> list[Piece]:
    if node["condition"] is not None:
        raise Stopped("sql.join")
    pieces = []
    for name in node["using_columns"]:
        old = Scope(tables=left.tables, parameters={}).resolve([name])
        sides = [_reference([old.alias, name]), _reference([new, name])]
        pieces.append(_equality({"left": sides[0], "right": sides[1]}, new, scope))
    return pieces


def _reference(names: list[str]) -> Node:
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": names}


def _on(condition: Any, new: str, scope: Scope) -> list[Piece]:
    if not isinstance(condition, dict):
        raise Stopped("sql.join")
    parts = condition["children"] if condition.get("type") == "CONJUNCTION_AND" else [condition]
    pieces, keys = [], 0
    for part in parts:
        if _is_equality(part):
            pieces.append(_equality(part, new, scope))
            keys += 1
        else:
            pieces.append(whole_condition(part, scope))
    if not keys:
        raise Stopped("sql.join", "no equality between columns of both sides")
    return pieces


def _is_equality(node: Any) -> bool:
    return (
        isinstance(node, dict)
        and node.get("type") == "COMPARE_EQUAL"
        and all(
            isinstance(node.get(side), dict) and node[side].get("class") == "COLUMN_REF" for side in ("left", "right")
        )
    )


def _equality(node: Node, new: str, scope: Scope) -> Piece:
    """``a.x = b.y`` with one side in the table that is joined now. Here, and only here, identifiers meet."""
    left, right = read(node["left"], scope, _KEY), read(node["right"], scope, _KEY)
    aliases = {piece.reference.alias for piece in (left, right) if piece.reference is not None}
    if len(aliases) != 2 or new not in aliases:
        raise Stopped("sql.join")
    if common((left.kind, right.kind)) == "?":
        raise Stopped("sql.join", "columns of different types")
    tree = {"class": "COMPARISON", "type": "COMPARE_EQUAL", "left": left.tree, "right": right.tree}
    return Piece(sql=f"({left.sql} = {right.sql})", tree=tree, bare=True, boolean=True)
