"""What ``analyse`` returned, as the declared outputs: exact names, exact columns, plain numbers and short labels, or refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from kakoi.enclave.decimals import of_number
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import (
    MAX_CELL,
    JobOutput,
    Result,
    ResultColumn,
    ResultMagnitude,
    ResultStatistics,
    ResultTable,
    ResultValue,
)

CONTRIBUTIONS: Final = "contributions"
"""The attribute of a frame (``DataFrame.attrs``) that says, for value columns that are sums or means of magnitudes, what each person adds."""
BASIS: Final = "basis"
"""The key of a statistics output that says how many people are behind it."""


def collect(returned: Any, outputs: Sequence[JobOutput], *, largest: int = 0) -> Result:
    """The result of a job with these outputs; ``largest``: how many of the largest contributions are stated. Raises Stopped (``python.output``, ``engine.rows``, ``engine.text``)."""
    if type(returned) is not dict or list(map(type, returned)) != [str] * len(returned):
        raise Stopped("python.output", "analyse must return a dict by output name")
    names = {output.name for output in outputs}
    if set(returned) != names:
        raise Stopped("python.output", "declared are " + ", ".join(sorted(names)))
    return Result(
        outputs=tuple(
            _table(returned[output.name], output, largest)
            if output.shape == "table"
            else _statistics(returned[output.name], output)
            for output in outputs
        )
    )


def _table(frame: Any, output: JobOutput, largest: int) -> ResultTable:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise Stopped("python.output", f"{output.name} must be a DataFrame")
    declared = [column.name for column in output.columns]
    if list(frame.columns) != declared:
        raise Stopped("python.output", f"the columns of {output.name} must be {', '.join(declared)}")
    if len(frame) > output.max_rows:
        raise Stopped("engine.rows")
    stated = _stated(frame, output)
    columns: list[ResultColumn] = []
    counts: tuple[int, ...] = ()
    for place, column in enumerate(output.columns):
        values = list(frame.iloc[:, place].astype(object))
        if column.role == "group":
            cells = tuple(map(_label, values))
        elif column.role == "count":
            counts = tuple(_count(value, output.name) for value in values)
            cells = tuple(map(str, counts))
        else:
            cells = tuple(_number(value, output.name) for value in values)
        added = stated.get(column.name)
        columns.append(
            ResultColumn(
                name=column.name,
                cells=cells,
                support_rows=(),
                support_people=(),
                domain=(),
                magnitudes=() if added is None or not largest else (_magnitude(added, largest, output.name),),
            )
        )
    return ResultTable(name=output.name, columns=tuple(columns), rows=counts, people=counts, margins=())


def _stated(frame: Any, output: JobOutput) -> dict[str, Sequence[Sequence[Any]]]:
    """What each person adds to each row of a column, where the analysis says so. Raises Stopped."""
    stated = frame.attrs.get(CONTRIBUTIONS, {})
    names = {column.name for column in output.columns if column.role == "value"}
    if type(stated) is not dict or not set(stated) <= names:
        raise Stopped("python.output", f"contributions of {output.name} must be a dict by value column")
    if any(type(rows) is not list or len(rows) != len(frame) for rows in stated.values()):
        raise Stopped("python.output", f"contributions of {output.name} must have a list for each row")
    return stated


def _magnitude(rows: Sequence[Any], largest: int, name: str) -> ResultMagnitude:
    totals: list[str | None] = []
    first: list[str | None] = []
    for row in rows:
        if type(row) is not list:
            raise Stopped("python.output", f"contributions of {name} must have a list for each row")
        added = sorted((abs(Decimal(_number(value, name) or 0)) for value in row), reverse=True)
        totals.append(of_number(sum(added, start=Decimal(0))))
        first += [of_number(value) for value in added[:largest]] + [None] * max(0, largest - len(added))
    return ResultMagnitude(totals=tuple(totals), largest=tuple(first))


def _statistics(values: Any, output: JobOutput) -> ResultStatistics:
    declared = [column.name for column in output.columns]
    if type(values) is not dict or set(values) != {*declared, BASIS}:
        raise Stopped("python.output", f"{output.name} must be a dict of {', '.join(declared)} and {BASIS}")
    return ResultStatistics(
        name=output.name,
        values=tuple(ResultValue(name=name, number=_number(values[name], output.name)) for name in declared),
        basis=_count(values[BASIS], output.name),
    )


def _plain(value: Any) -> Any:
    """A Python value for a numpy scalar; None for every kind of missing."""
    import numpy as np
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and value != value else value


def _number(value: Any, name: str) -> str | None:
    value = _plain(value)
    if value is None:
        return None
    if type(value) not in (int, float, Decimal):
        raise Stopped("python.output", f"{name} must hold numbers, got a {type(value).__name__}")
    return of_number(value)


def _count(value: Any, name: str) -> int:
    value = _plain(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**48:
        raise Stopped("python.output", f"{name} must count people with whole numbers from 0")
    return value


def _label(value: Any) -> str | None:
    import pandas as pd

    value = _plain(value)
    if value is None:
        return None
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) in (int, float, Decimal):
        return of_number(value)
    if isinstance(value, (dt.datetime, dt.date)):
        value = value.isoformat()
    elif isinstance(value, pd.Interval):
        value = str(value)
    if type(value) is not str:
        raise Stopped("python.output", f"a group label must be text, a number or a date, got a {type(value).__name__}")
    if len(value) > MAX_CELL:
        raise Stopped("engine.text")
    return value
