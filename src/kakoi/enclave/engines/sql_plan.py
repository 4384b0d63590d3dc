"""One SELECT, judged and completed. The result is SQL that the engine wrote, and how to read its columns.

1. exactly one SELECT statement, no CTE, no set operation;
2. FROM: declared tables, plain joins with an equality (``sql_from``);
3. no HAVING, QUALIFY, SAMPLE, LIMIT, DISTINCT: each would answer with a row's absence what the gate holds back;
4. GROUP BY: expressions over declared columns, each shown in the result;
5. every result column is a grouping expression or made of aggregates and constants, named and placed as declared;
6. ORDER BY grouping columns only; the engine orders by them anyway;
7. where owners demand noise, what one person can change is bounded by declarations (``sql_private``); else hidden columns count the rows and people behind every number (``sql_count``);
8. the text is parsed again by the same parser and must mean what was recognised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kakoi.core.errors import Fatal
from kakoi.enclave.engines.sql_cohort import PeopleAsked, PeopleQuery, people_queries, sums, unit_column
from kakoi.enclave.engines.sql_count import Counted, Counter, Support, figures
from kakoi.enclave.engines.sql_from import Source, read_from
from kakoi.enclave.engines.sql_private import PrivatePlan, PrivateWriter
from kakoi.enclave.engines.sql_read import (
    GROUPING,
    ITEM,
    Node,
    Piece,
    Scope,
    Where,
    exactly,
    read,
    whole,
    whole_condition,
)
from kakoi.enclave.engines.sql_total import OF_TYPE
from kakoi.enclave.engines.sql_words import quoted
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import SITE_COLUMN, Job, JobOutputColumn, code_labels

Parse = Callable[[str], str]
"""SQL text to DuckDB's ``json_serialize_sql`` of it."""
_SELECT: Final = frozenset(
    [
        "type",
        "modifiers",
        "cte_map",
        "select_list",
        "from_table",
        "where_clause",
        "group_expressions",
        "group_sets",
        "aggregate_handling",
        "having",
        "sample",
        "qualify",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedColumn:
    """A declared output column: where its support comes from, and which labels it can have."""

    declared: JobOutputColumn
    supports: tuple[Support, ...] = ()
    magnitudes: tuple[int, ...] = ()
    """Of which of the plan's magnitudes it is made."""
    domain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """SQL to execute. Its columns are the declared ones in order, then ``hidden`` counts, then, if people are asked about inline, power
    sums and figures of each magnitude, then one margin bit per group.
    """

    sql: str
    columns: tuple[PlannedColumn, ...]
    hidden: int
    cell: Counted
    groups: int
    """Group columns; the last so many result columns are margin bits if ``margins``."""
    shown: tuple[int, ...]
    """Numbers of the GROUP BY expressions in the order of their columns."""
    margins: bool
    parameters: frozenset[str]
    """Those that the query uses."""
    inline: str
    """Table whose people the query itself tells about; empty if it does not."""
    people: PeopleAsked
    queries: tuple[PeopleQuery, ...]
    """Where the query itself does not: queries of their own."""
    private: PrivatePlan | None
    """Asked in place of all this where owners demand noise."""

    @property
    def asked(self) -> int:
        """Columns about people, of the query itself or of each query of their own."""
        return self.people.terms + 2 * len(self.people.magnitudes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    name: str
    node: Node


def plan(job: Job, parse: Parse) -> Plan:
    """Judge ``job.source`` by its declared tables, parameters and its one table output. Raises Stopped."""
    node = _one_select(parse(job.source))
    tables = {table.name.lower(): table for table in job.tables}
    declared = {parameter.name: OF_TYPE[parameter.type] for parameter in job.parameters}
    source = read_from(node["from_table"], tables, declared)
    scope = Scope(tables=source.tables, parameters=declared)
    items = [_item(item, scope) for item in node["select_list"]]
    groups = _groups(node, items, scope)
    condition = None if node["where_clause"] is None else whole_condition(node["where_clause"], scope)
    return _Writer(job, source, scope, items, groups, condition).write(node, parse)


def _one_select(serialized: str) -> Node:
    tree = json.loads(serialized)
    if tree.get("error"):
        code = "sql.syntax" if tree.get("error_type") in ("parser", "syntax") else "sql.statement"
        raise Stopped(code)
    statements = tree["statements"]
    if len(statements) != 1:
        raise Stopped("sql.statement")
    node = statements[0]["node"]
    if node.get("type") != "SELECT_NODE":
        raise Stopped("sql.not-allowed", str(node.get("type")))
    exactly(node, _SELECT, "SELECT")
    if node["cte_map"] != {"map": []}:
        raise Stopped("sql.not-allowed", "WITH")
    for clause in ("having", "qualify", "sample"):
        if node[clause] is not None:
            raise Stopped("sql.modifier", clause.upper())
    return dict(node)


def _item(node: Any, scope: Scope) -> _Item:
    """A result column with its name. A name may not be a column's unless it is that column: it would mean two things."""
    kind = node.get("class") if isinstance(node, dict) else None
    if kind == "STAR":
        raise Stopped("sql.row-level", "*")
    if not isinstance(node, dict) or "alias" not in node:
        raise Stopped("sql.not-allowed", str(kind))
    own = node["column_names"][-1] if kind == "COLUMN_REF" else ""
    name = node["alias"] or own
    if not name:
        raise Stopped("sql.output", "a column without a name")
    taken = any(name.lower() == column.lower() for table in scope.tables.values() for column in table.readable)
    if taken and own.lower() != name.lower():
        raise Stopped("sql.ambiguous", name)
    return _Item(name=name, node=node)


def _groups(node: Node, items: Sequence[_Item], scope: Scope) -> list[Piece]:
    if node["aggregate_handling"] == "FORCE_AGGREGATES":
        pieces = [whole(read(item.node, scope, _EITHER)) for item in items]
        return [piece for piece in pieces if not piece.aggregates]
    if node["aggregate_handling"] != "STANDARD_HANDLING":
        raise Stopped("sql.not-allowed", "GROUP BY")
    return [whole(read(_meant(group, items, scope), scope, GROUPING)) for group in node["group_expressions"]]


_EITHER: Final = Where(parameters=True, aggregates=True)


def _meant(node: Any, items: Sequence[_Item], scope: Scope) -> Any:
    """The expression that a position or an alias in GROUP BY or ORDER BY stands for."""
    if isinstance(node, dict) and node.get("class") == "CONSTANT":
        text = str(node["literal"].get("text"))
        if node["literal"].get("kind") != "INTEGER" or not text.isdecimal() or not 1 <= int(text) <= len(items):
            raise Stopped("sql.not-allowed", "GROUP BY a constant")
        return items[int(text) - 1].node
    if isinstance(node, dict) and node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
        name = node["column_names"][0].lower()
        columns = {column.lower() for table in scope.tables.values() for column in table.readable}
        for item in items:
            if item.name.lower() == name and name not in columns:
                return item.node
    return node


class _Writer:
    """Writes the completed query and remembers what each column is."""

    def __init__(
        self,
        job: Job,
        source: Source,
        scope: Scope,
        items: Sequence[_Item],
        groups: Sequence[Piece],
        condition: Piece | None,
    ) -> None:
        self.terms, self.largest, self.rows_per_person = job.cohort_terms, job.largest_contributors, job.rows_per_person
        self.output, self.source, self.scope = job.outputs[0], source, scope
        self.items, self.groups, self.condition = items, groups, condition
        self.counter = Counter(source.tables)
        self.cell = self.counter.everything()
        self.position: dict[int, int] = {}
        """Group number to its place among the result columns, from 1."""

    def write(self, node: Node, parse: Parse) -> Plan:
        if [item.name for item in self.items] != [column.name for column in self.output.columns]:
            raise Stopped("sql.output", ", ".join(item.name for item in self.items))
        read_items = [
            self._column(place, item, declared)
            for place, (item, declared) in enumerate(zip(self.items, self.output.columns, strict=True), start=1)
        ]
        if set(self.position) != set(range(len(self.groups))):
            raise Stopped("sql.output", "every GROUP BY expression must be shown")
        pieces = [piece for piece, _ in read_items]
        margins = self._margins(node)
        people = PeopleAsked(terms=self.terms, magnitudes=tuple(self.counter.magnitudes), largest=self.largest)
        inline = next(iter(self.source.tables)) if self.counter.is_additive else ""
        sql = self._text(pieces, node, margins, _inline(people, inline) if inline else [])
        self._same_meaning(pieces, sql, parse)
        return Plan(
            sql=sql,
            columns=tuple(column for _, column in read_items),
            hidden=len(self.counter.columns),
            cell=self.cell,
            groups=len(self.groups),
            shown=tuple(sorted(self.position, key=self.position.__getitem__)),
            margins=bool(margins),
            parameters=frozenset(p for p in self.scope.parameters if _uses(p, [*pieces, *self._conditions()])),
            inline=self.source.tables[inline].name if inline else "",
            people=people,
            queries=self._people_queries(people, margins) if not inline and (people.terms or people.magnitudes) else (),
            private=self._private(pieces, margins) if self.rows_per_person else None,
        )

    def _private(self, pieces: Sequence[Piece], margins: list[list[int]]) -> PrivatePlan:
        if margins:
            raise Stopped("sql.noise-margins")
        shown = sorted(self.position, key=self.position.__getitem__)
        writer = PrivateWriter(self.output, self.source, self.scope, self.condition, self.rows_per_person)
        return writer.write(pieces, [self.groups[n] for n in shown], [self.position[n] - 1 for n in shown])

    def _people_queries(self, people: PeopleAsked, margins: list[list[int]]) -> tuple[PeopleQuery, ...]:
        shown = sorted(self.position, key=self.position.__getitem__)
        sets = margins or [list(range(len(self.groups)))]
        return tuple(
            people_queries(
                self.source.tables,
                people,
                source=self.source.sql,
                condition=self.condition.sql if self.condition is not None else None,
                groups=[self.groups[number].sql for number in shown],
                groupings=[[place for place, number in enumerate(shown) if number in one] for one in sets],
            )
        )

    def _conditions(self) -> list[Piece]:
        return [*self.source.conditions, *([self.condition] if self.condition is not None else [])]

    def _column(self, place: int, item: _Item, declared: JobOutputColumn) -> tuple[Piece, PlannedColumn]:
        piece = whole(read(item.node, self.scope, _EITHER))
        if piece.aggregates:
            piece = read(item.node, self.scope, ITEM)
            if not piece.total:
                raise Stopped("sql.fails", item.name)
            return piece, self._number(piece, declared)
        for number, group in enumerate(self.groups):
            if group.tree == piece.tree:
                if number in self.position or declared.role != "group":
                    raise Stopped("sql.output", item.name)
                self.position[number] = place
                return piece, PlannedColumn(declared=declared, domain=_domain(piece))
        raise Stopped("sql.row-level", item.name)

    def _number(self, piece: Piece, declared: JobOutputColumn) -> PlannedColumn:
        if piece.bare:
            raise Stopped("sql.row-level", declared.name)
        if declared.role == "group":
            raise Stopped("sql.output", declared.name)
        if declared.role == "count":
            self._counts_people(piece, declared.name)
            return PlannedColumn(declared=declared)
        supports = [support for aggregate in piece.aggregates for support in self.counter.supports(aggregate)]
        magnitudes = [self.counter.magnitude(aggregate) for aggregate in piece.aggregates] if self.largest else []
        return PlannedColumn(
            declared=declared,
            supports=tuple(supports),
            magnitudes=tuple(dict.fromkeys(place for place in magnitudes if place is not None)),
        )

    def _counts_people(self, piece: Piece, name: str) -> None:
        aggregate = piece.aggregates[0]
        whole = piece.tree.get("class") == "FUNCTION" and piece.tree.get("name") == aggregate.name
        if whole and aggregate.name == "count_star":
            return
        reference = aggregate.arguments[0].reference if aggregate.arguments else None
        person = reference is not None and reference.name == reference.table.person_column
        if not (whole and aggregate.name == "count" and aggregate.distinct and person):
            raise Stopped("sql.count", name)

    def _margins(self, node: Node) -> list[list[int]]:
        sets: list[list[int]] = node["group_sets"]
        trivial = len(sets) <= 1
        if node["aggregate_handling"] == "FORCE_AGGREGATES" or trivial:
            if sets and sorted(sets[0]) != list(range(len(self.groups))):
                raise Stopped("sql.not-allowed", "GROUP BY")
            return []
        if len({tuple(sorted(one)) for one in sets}) != len(sets):
            raise Stopped("sql.not-allowed", "the same grouping twice")
        return sets

    def _text(self, pieces: Sequence[Piece], node: Node, margins: list[list[int]], people: Sequence[str]) -> str:
        shown = [f"{piece.sql} AS {quoted(f'c{i}')}" for i, piece in enumerate(pieces)]
        bits = [f"GROUPING({group.sql})" for group in self.groups] if margins else []
        text = f"SELECT {', '.join([*shown, *self.counter.columns, *people, *bits])} FROM {self.source.sql}"  # noqa: S608 - our own text, parsed again below
        if self.condition is not None:
            text += f" WHERE {self.condition.sql}"
        if not self.groups:
            return text
        places = [str(self.position[number]) for number in range(len(self.groups))]
        if margins:
            sets = ", ".join("(" + ", ".join(places[i] for i in one) + ")" for one in margins)
            text += f" GROUP BY GROUPING SETS ({sets})"
        else:
            text += f" GROUP BY {', '.join(places)}"
        return f"{text} ORDER BY {', '.join(self._order(node, places))}"

    def _order(self, node: Node, places: Sequence[str]) -> list[str]:
        wanted: dict[str, str] = {}
        for modifier in node["modifiers"]:
            if modifier.get("type") != "ORDER_MODIFIER":
                raise Stopped("sql.modifier", str(modifier.get("type")).removesuffix("_MODIFIER"))
            for order in modifier["orders"]:
                exactly(order, {"type", "null_order", "expression"}, "ORDER BY")
                meant = _meant(order["expression"], self.items, self.scope)
                try:
                    tree = whole(read(meant, self.scope, GROUPING)).tree
                except Stopped:
                    raise Stopped("sql.order") from None
                found = [place for place, group in zip(places, self.groups, strict=True) if group.tree == tree]
                if not found:
                    raise Stopped("sql.order")
                down = " DESC" if order["type"] == "DESCENDING" else ""
                first = " NULLS FIRST" if order["null_order"] == "NULLS FIRST" else " NULLS LAST"
                wanted.setdefault(found[0], down + first)
        return [place + how for place, how in wanted.items()] + [
            f"{place} NULLS LAST" for place in sorted(places, key=int) if place not in wanted
        ]

    def _same_meaning(self, pieces: Sequence[Piece], sql: str, parse: Parse) -> None:
        """Step 8. Raises Fatal: our text would not mean what we judged."""
        again = _one_select(parse(sql))
        found = [whole(read(node, self.scope, _EITHER)).tree for node in again["select_list"][: len(pieces)]]
        where = None if again["where_clause"] is None else whole_condition(again["where_clause"], self.scope).tree
        source = read_from(
            again["from_table"], {t.name.lower(): t for t in self.source.tables.values()}, self.scope.parameters
        )
        expected = None if self.condition is None else self.condition.tree
        joins = [piece.tree for piece in source.conditions] == [piece.tree for piece in self.source.conditions]
        if found != [piece.tree for piece in pieces] or where != expected or not joins:
            raise Fatal(
                "sql.printer",
                "expected the engine's text to parse to what was judged, got something else",
                hint="this is an error in Kakoi or a new DuckDB: report it with the query",
            )


def _inline(people: PeopleAsked, alias: str) -> list[str]:
    """SQL about people where each row is one, for the query itself."""
    wanted = sums(unit_column(alias), people.terms) if people.terms else []
    return wanted + [sql for magnitude in people.magnitudes for sql in figures(magnitude.of_row(), people.largest)]


def _uses(name: str, pieces: Sequence[Piece]) -> bool:
    return any(f'"identifier": {json.dumps(name)}' in json.dumps(piece.tree) for piece in pieces)


def _domain(piece: Piece) -> tuple[str, ...]:
    """Labels that a group column can have whatever the data are; empty if they come from the data."""
    if piece.reference is not None:
        if piece.reference.name == SITE_COLUMN:
            return piece.reference.table.sites
        column = piece.reference.column
        return code_labels(column) if column is not None else ()
    if piece.boolean:
        return ("true", "false")
    if piece.constants is not None:
        return tuple(value for value in piece.constants if value)
    return ()


def parameters_of(job: Job, names: frozenset[str]) -> Mapping[str, int | float | str]:
    """Values to bind for the parameters that a query uses."""
    return {
        parameter.name: float(parameter.value) if parameter.type == "number" else parameter.value
        for parameter in job.parameters
        if parameter.name in names
    }
