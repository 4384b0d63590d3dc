"""The SQL engine: one fresh DuckDB per job, everything external off and locked, one query that ``sql_plan`` wrote.

DuckDB's own limits are advice (a single function call can pass them), so the process around it enforces memory and time.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from kakoi.enclave.decimals import of_number
from kakoi.enclave.engines.partfs import part_file_system, path_of
from kakoi.enclave.engines.sql_cohort import People, PeopleQuery, unit_of_row
from kakoi.enclave.engines.sql_count import PERSON_COLUMN, ROW_COLUMN
from kakoi.enclave.engines.sql_plan import Plan, PlannedColumn, parameters_of, plan
from kakoi.enclave.engines.sql_private import DATA_COLUMN
from kakoi.enclave.engines.sql_words import COLUMN_TYPES, FILE_TYPES, literal, quoted
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import (
    MAX_CELL,
    MAX_ROWS,
    PLACE_COLUMN,
    SITE_COLUMN,
    Job,
    JobColumn,
    JobTable,
    Result,
    ResultColumn,
    ResultTable,
)

if TYPE_CHECKING:
    import duckdb

Records = Sequence[Sequence[Any]]
Asked = Sequence[tuple[PeopleQuery, Records]]
_ROW_SHIFT: Final = 2**40
"""Rows of a part have numbers of their own: part · 2^40 + row."""


def locked(
    descriptors: Sequence[int], *, memory_megabytes: int, threads: int, milliseconds: int
) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that can read these descriptors as ``path_of(i)`` and can do nothing else outside itself.

    The order matters: permissions first, then what they need, the lock last (docs/adr/0060).
    """
    import duckdb

    connection = duckdb.connect()
    connection.register_filesystem(part_file_system(descriptors))
    paths = ", ".join(literal(path_of(i)) for i in range(len(descriptors)))
    for setting, value in (
        ("allowed_paths", f"[{paths}]"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("allow_community_extensions", "false"),
        ("python_enable_replacements", "false"),
        ("allow_persistent_secrets", "false"),
        ("temp_directory", "''"),
        ("max_temp_directory_size", "'0B'"),
        ("enable_external_file_cache", "false"),
        ("preserve_insertion_order", "false"),
        ("memory_limit", f"'{memory_megabytes}MiB'"),
        ("threads", str(threads)),
        ("max_execution_time", str(milliseconds)),
        ("enable_external_access", "false"),
        ("disabled_filesystems", "'LocalFileSystem'"),
        ("lock_configuration", "true"),
    ):
        connection.execute(f"SET {setting} = {value}")
    return connection


def serialize(connection: duckdb.DuckDBPyConnection) -> Any:
    """The connection's own parser, as ``sql_plan`` wants it. Text that does not parse gives its error object."""

    def parse(text: str) -> str:
        found: str = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [text]).fetchall()[0][0]
        return found

    return parse


def run(job: Job, descriptors: Sequence[int], *, memory_megabytes: int, threads: int, milliseconds: int) -> Result:
    """The job's one table. ``descriptors`` hold the parts' Parquet bytes in the job's order. Raises Stopped."""
    import duckdb

    connection = locked(descriptors, memory_megabytes=memory_megabytes, threads=threads, milliseconds=milliseconds)
    try:
        planned = plan(job, serialize(connection))
        first = 0
        for table in job.tables:
            _view(connection, table, first)
            first += len(table.parts)
        statements = connection.extract_statements(planned.sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise Stopped("sql.statement")
        values = dict(parameters_of(job, planned.parameters))
        if planned.private is not None:
            return Result(outputs=(planned.private.answer(lambda sql: _rows(connection, sql, values)),))
        connection.execute(statements[0], values) if values else connection.execute(statements[0])
        # The gate judges the declared number of rows, on rows of enough people: whether there is one more may be one person's answer.
        records = connection.fetchmany(MAX_ROWS + 1)
        asked = [(query, _rows(connection, query.sql, values)) for query in planned.queries]
    except duckdb.Error:
        # Its text can hold cells (a failed conversion quotes the value).
        raise Stopped("sql.failed") from None
    finally:
        connection.close()
    if len(records) > MAX_ROWS:
        raise Stopped("engine.rows")
    return Result(outputs=(_table(job.outputs[0].name, planned, records, asked),))


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    """All rows of a query of ours, with those parameters bound that it has."""
    bound = {name: value for name, value in values.items() if re.search(rf"\${name}\b", sql)}
    connection.execute(sql, bound) if bound else connection.execute(sql)
    return connection.fetchall()


def warm() -> None:
    """Use everything once that the first query of a process would otherwise load."""
    connection = locked([], memory_megabytes=64, threads=1, milliseconds=10_000)
    serialize(connection)("SELECT count(*) FROM t")
    connection.close()


def check(job: Job) -> None:
    """Judge the source of an SQL job without data, as ``run`` will. Raises Stopped."""
    connection = locked([], memory_megabytes=512, threads=1, milliseconds=10_000)
    try:
        plan(job, serialize(connection))
    finally:
        connection.close()


def _view(connection: duckdb.DuckDBPyConnection, table: JobTable, first: int) -> None:
    """The logical table: each part's declared columns in the declared types, behind its owner's site label."""
    selects = []
    data = {manifest: number for number, manifest in enumerate(dict.fromkeys(part.manifest for part in table.parts))}
    for offset, part in enumerate(table.parts):
        path = path_of(first + offset)
        types = _part_types(connection, table, path)
        row = f"{(first + offset) * _ROW_SHIFT}::BIGINT + file_row_number AS {quoted(ROW_COLUMN)}"
        shown = [f"{literal(part.site)} AS {quoted(SITE_COLUMN)}", *map(_cast, table.columns), row]
        shown.append(
            unit_of_row(part, quoted(PLACE_COLUMN) if types.get(PLACE_COLUMN) == "BIGINT" else "file_row_number")
        )
        shown.append(f"{data[part.manifest]} AS {quoted(DATA_COLUMN)}")
        if table.person_column is not None:
            shown.append(f"{quoted(table.person_column)} AS {quoted(PERSON_COLUMN)}")
        source = f"read_parquet({literal(path)}, file_row_number = true, hive_partitioning = false)"
        selects.append(f"SELECT {', '.join(shown)} FROM {source}")  # noqa: S608 - quoted names of the contract
    connection.execute(f"CREATE VIEW {quoted(table.name)} AS {' UNION ALL '.join(selects)}")


def _cast(column: JobColumn) -> str:
    return f"CAST({quoted(column.name)} AS {COLUMN_TYPES[column.type]}) AS {quoted(column.name)}"


def _part_types(connection: duckdb.DuckDBPyConnection, table: JobTable, path: str) -> dict[str, str]:
    """Types of a part's columns by their names in lower case. Raises Stopped (``engine.part``) if they are not as declared."""
    import duckdb

    try:
        rows = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({literal(path)})").fetchall()  # noqa: S608
    except duckdb.Error:
        raise Stopped("engine.part", table.name) from None
    types = {str(row[0]).lower(): str(row[1]) for row in rows}
    for column in table.columns:
        if types.get(column.name.lower()) not in FILE_TYPES[column.type]:
            raise Stopped("engine.part", f"{table.name}.{column.name}")
    return types


def _table(name: str, planned: Plan, records: Records, asked: Asked) -> ResultTable:
    width = len(planned.columns)
    hidden = [[int(value or 0) for value in record[width : width + planned.hidden]] for record in records]
    cells = [planned.cell.of(counts) for counts in hidden]
    margins: list[int] = []
    if planned.margins:
        margins = [sum(int(bit) << i for i, bit in enumerate(record[-planned.groups :])) for record in records]
    masks = _shown_order(planned, margins)
    columns = [
        _column(column, [record[place] for record in records], hidden, cells)
        for place, column in enumerate(planned.columns)
    ]
    people = _people(planned, records, asked, columns, masks)
    return ResultTable(
        name=name,
        columns=tuple(
            replace(column, magnitudes=people.magnitudes(wanted.magnitudes))
            for wanted, column in zip(planned.columns, columns, strict=True)
        ),
        rows=tuple(rows for rows, _ in cells),
        people=tuple(people for _, people in cells),
        margins=masks,
        cohorts=people.cohorts(),
    )


def _people(
    planned: Plan, records: Records, asked: Asked, columns: Sequence[ResultColumn], masks: Sequence[int]
) -> People:
    if planned.inline:
        first = len(planned.columns) + planned.hidden
        return People(planned.people, {planned.inline: [record[first : first + planned.asked] for record in records]})
    cells = [
        column.cells for wanted, column in zip(planned.columns, columns, strict=True) if wanted.declared.role == "group"
    ]
    keys = [
        (tuple(None if mask >> place & 1 else labels[row] for place, labels in enumerate(cells)), mask)
        for row, mask in enumerate(masks or (0,) * len(records))
    ]
    found: dict[str, dict[tuple[tuple[str | None, ...], int], Sequence[Any]]] = {}
    for query, answer in asked:
        rows = found.setdefault(query.table, {})
        for record in answer:
            labels: list[str | None] = [None] * planned.groups
            for place, value in zip(query.groups, record, strict=False):
                labels[place] = _label(value)
            rows[tuple(labels), query.mask] = record[len(query.groups) :]
    nobody = (None,) * planned.asked
    return People(planned.people, {table: [rows.get(key, nobody) for key in keys] for table, rows in found.items()})


def _shown_order(planned: Plan, masks: Sequence[int]) -> tuple[int, ...]:
    """Margin bits by the group columns' order in the result rather than in GROUP BY."""
    return tuple(sum((mask >> number & 1) << place for place, number in enumerate(planned.shown)) for mask in masks)


def _column(
    column: PlannedColumn, values: Sequence[Any], hidden: Sequence[Sequence[int]], cells: Sequence[tuple[int, int]]
) -> ResultColumn:
    role = column.declared.role
    support: list[tuple[int, int]] = []
    if role == "group":
        texts: list[str | None] = [_label(value) for value in values]
    elif role == "count":
        texts = [str(people) for _, people in cells]
    else:
        texts = [_number(value) for value in values]
        support = [_least(column, record, cell) for record, cell in zip(hidden, cells, strict=True)]
    whole = support == list(cells)
    return ResultColumn(
        name=column.declared.name,
        cells=tuple(texts),
        support_rows=() if whole else tuple(rows for rows, _ in support),
        support_people=() if whole else tuple(people for _, people in support),
        domain=column.domain if role == "group" else (),
    )


def _least(column: PlannedColumn, record: Sequence[int], cell: tuple[int, int]) -> tuple[int, int]:
    found = [cell, *(support.of(record, cell) for support in column.supports)]
    return min(rows for rows, _ in found), min(people for _, people in found)


def _label(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal)):
        return of_number(value)
    text = value.isoformat() if isinstance(value, (dt.date, dt.datetime)) else value
    if not isinstance(text, str):
        raise Stopped("sql.type")
    # Cut, not refused: a refusal could be about one person's text.
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _number(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise Stopped("sql.type")
    return of_number(value)
