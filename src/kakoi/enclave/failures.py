"""Why an analysis was not run to its end: a closed list, so that an answer can say nothing else.

An engine that refuses or fails answers with a code of this list and a word of the analysis' own source. The words shown to
people are here, at the receiver. Nothing in them was computed from data. That a run failed, and with which of a few codes,
can still depend on data: docs/adr/0061 says how much that tells.
"""

from __future__ import annotations

from typing import Final

from kakoi.core.errors import Refused
from kakoi.enclave.job import Failure

_SHAPE: Final = "docs/formats/engine.md says how a query must look; kakoi contract preview tries it on invented data"

FAILURES: Final[dict[str, tuple[str, str]]] = {
    # --- SQL: judged from the source and the declared schema, before any row is read
    "sql.statement": ("expected exactly one SELECT statement, got something else", "remove everything but one SELECT"),
    "sql.syntax": ("expected SQL that DuckDB can read, got a syntax error", "try the query in DuckDB"),
    "sql.not-allowed": (
        "expected an aggregate query over the declared tables, got something the engine does not admit",
        "use one SELECT … FROM tables [JOIN] [WHERE] GROUP BY; the python engine can do the rest",
    ),
    "sql.row-level": (
        "expected only grouping columns and aggregates in the result, got a column of single rows",
        "aggregate it, or add it to GROUP BY: rows never leave",
    ),
    "sql.table": ("expected a table that the analysis declares in reads, got another", "declare it in reads"),
    "sql.column": ("expected a column that the analysis declares in reads, got another", "declare it in reads"),
    "sql.ambiguous": ("expected a name that means one thing, got one that means two", "write table.column"),
    "sql.identifier": (
        "an identifier column may join tables by equality and be counted distinct, nothing else",
        "use another column in conditions, groups and sums",
    ),
    "sql.function": (
        "expected a function of the engine's list, got another",
        "docs/formats/engine.md lists the functions",
    ),
    "sql.aggregate": (
        "expected an aggregate that cannot return a single cell, got another",
        "use count, sum, avg, median, quantile_cont, stddev, variance, corr, covar",
    ),
    "sql.filter": (
        "an aggregate may not have FILTER, DISTINCT (but for count) or ORDER BY",
        "use sum(CASE WHEN … THEN 1 ELSE 0 END)",
    ),
    "sql.quantile": ("expected a quantile from 0.05 to 0.95 as a plain number", "write quantile_cont(column, 0.25)"),
    "sql.parameter": (
        "a parameter may stand in WHERE, JOIN and GROUP BY, and must be declared",
        "declare it, and keep it out of the aggregates: there it could single out one person",
    ),
    "sql.order": (
        "ORDER BY may name grouping columns only: the order of values tells their values",
        "order the result after opening it",
    ),
    "sql.modifier": (
        "LIMIT, DISTINCT, HAVING, QUALIFY and SAMPLE are not admitted",
        "leave them out: the gate holds back small cells itself",
    ),
    "sql.join": (
        "expected INNER or LEFT joins, each with an equality between columns of both sides, and each table once",
        "write a JOIN b ON a.key = b.key",
    ),
    "sql.output": (
        "expected exactly the declared output columns, in order and in their roles",
        "name them with AS as the analysis declares them",
    ),
    "sql.count": (
        "expected count(*) or count(DISTINCT person column) in the column of role count",
        "the engine writes the number of people there itself",
    ),
    "sql.type": ("expected a number in every value column, got another type", "use aggregates that give numbers"),
    "sql.cast": ("expected a cast to BIGINT, DOUBLE, VARCHAR, BOOLEAN, DATE or TIMESTAMP", "use one of these types"),
    "sql.fails": (
        "expected arithmetic of aggregates that gives a number for all data, got one that can stop the query",
        "use + - * / and round, with numbers; nullif(x, 0) before a division",
    ),
    "sql.too-long": ("expected a query of moderate depth and length, got a larger one", "split it"),
    # --- SQL where owners demand noise: what cannot be bounded by declarations
    "sql.noise-join": (
        "expected one table, because noise is demanded and a join has no bound on what one person changes",
        "read one table; or ask the owners to seal the joined table",
    ),
    "sql.noise-margins": (
        "expected one grouping, because noise is demanded and each further one would cost as much again",
        "leave out ROLLUP, CUBE and GROUPING SETS: margins can be added up from what leaves",
    ),
    "sql.noise-group": (
        "expected groups whose labels are declared, because noise is demanded and the presence of a label would tell",
        "declare the column's codes (or the limits of a short whole number), or group by CASE with constants",
    ),
    "sql.noise-number": (
        "expected count, sum, avg, median or quantile_cont alone in each number, because noise is demanded",
        "ask for these, and compute the rest from what leaves",
    ),
    "sql.noise-range": (
        "expected a number between declared limits, because noise is demanded and must cover what one person can change",
        "declare the column's minimum and maximum, or write greatest(least(expression, 100), 0) with your own limits",
    ),
    "sql.noise-cells": (
        "expected at most the declared number of rows for all declared combinations of labels, because noise is demanded",
        "group by fewer columns or coarser codes, or declare more rows: absent groups have a row, too",
    ),
    "sql.failed": ("the query was stopped while it ran", "try it on invented data: kakoi contract preview"),
    # --- Python
    "python.source": (
        "expected source that defines analyse(tables, parameters), got something else",
        "run it locally with the same harness first",
    ),
    "python.failed": (
        "the analysis raised an exception; its text stays inside, because it can hold data",
        "run it with the same harness on your own machine, or on invented data: kakoi contract preview",
    ),
    "python.output": (
        "expected exactly the declared outputs with exactly the declared columns, got something else",
        "docs/formats/engine.md shows what analyse must return",
    ),
    # --- both
    "engine.part": (
        "expected a Parquet file with the declared columns and types, got something else",
        "the owner must seal the data again with the schema of its manifest",
    ),
    "engine.list": (
        "expected the owner's list of people who opted out in its own format, got something else",
        "the owner makes it anew: kakoi dataset opt-out",
    ),
    "engine.rows": ("expected at most the declared number of rows, got more", "group more coarsely, or declare more"),
    "engine.text": ("expected labels of at most 120 characters, got longer text", "group by codes"),
    "engine.failed": ("the engine stopped without an answer", "ask the operator for more memory, or ask for less"),
}

PYTHON_CODES: Final = frozenset(
    {
        "python.source",
        "python.failed",
        "python.output",
        "engine.part",
        "engine.list",
        "engine.rows",
        "engine.text",
        "engine.failed",
    }
)
"""What the python engine may say: the analyst's code shares its process, so each code is a choice it could make."""


class Stopped(Refused):
    """An analysis that is not run to its end: a code of ``FAILURES`` and a word of the source that it is about."""

    def __init__(self, code: str, subject: str = "") -> None:
        message, hint = FAILURES[code]
        super().__init__(code, f"{message}: {subject}" if subject else message, hint=hint)
        self.subject = subject

    def __reduce__(self) -> tuple[type[Stopped], tuple[str, str]]:
        """A copy in another process is built from code and subject."""
        return Stopped, (self.code, self.subject)

    def failure(self) -> Failure:
        """The record that crosses the process border."""
        return Failure(code=self.code, subject=self.subject[:120])


def of_failure(failure: Failure, *, engine: str) -> Stopped:
    """What an engine's failure means here. Codes that this engine cannot mean become ``engine.failed``."""
    if engine == "sql" and failure.code.startswith(("sql.", "engine.")) and failure.code in FAILURES:
        printable = failure.subject if failure.subject.isprintable() else ""
        return Stopped(failure.code, printable)
    if engine == "python" and failure.code in PYTHON_CODES:
        return Stopped(failure.code)
    return Stopped("engine.failed")
