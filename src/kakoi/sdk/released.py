"""A result's outputs, for people and for pandas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kakoi.sdk.verify import VerifiedResult
from kakoi.wire.released import Released, ReleasedStatistics, ReleasedTable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One output as text: columns, rows, and for each row which cells the gate kept."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    held_back: tuple[tuple[bool, ...], ...]
    rows_withheld: bool


def released(result: VerifiedResult) -> Released:
    """What the gate let out, decoded."""
    return Released.decode(result.output.released)


def outputs_of(result: VerifiedResult) -> tuple[Shown, ...]:
    """Every output as text, in the analysis' order."""
    return tuple(shown(output) for output in released(result).outputs)


def shown(output: ReleasedTable | ReleasedStatistics) -> Shown:
    """One output as text. Statistics become two columns, name and value."""
    if isinstance(output, ReleasedStatistics):
        rows = tuple((value.name, value.number) for value in output.values)
        held = tuple((False, False) for _ in rows)
        return Shown(name=output.name, columns=("name", "value"), rows=rows, held_back=held, rows_withheld=False)
    count = len(output.columns[0].cells)
    return Shown(
        name=output.name,
        columns=tuple(column.name for column in output.columns),
        rows=tuple(tuple(column.cells[i] for column in output.columns) for i in range(count)),
        held_back=tuple(tuple(i in column.held_back for column in output.columns) for i in range(count)),
        rows_withheld=output.rows_withheld,
    )


def frame(output: ReleasedTable) -> pd.DataFrame:
    """A table as a DataFrame: numbers as numbers, what was held back as missing, with a column ``held_back``."""
    import pandas as pd

    data: dict[str, Any] = {}
    for column in output.columns:
        values = pd.Series(column.cells, dtype="object")
        data[column.name] = values if column.role == "group" else pd.to_numeric(values)
    held = sorted({i for column in output.columns for i in column.held_back})
    made = pd.DataFrame(data)
    for column in output.columns:
        if column.role == "group":
            made[column.name] = _labels(made[column.name])
    made["held_back"] = made.index.isin(held)
    return made


def _labels(labels: pd.Series[Any]) -> pd.Series[Any]:
    """Labels that are all whole numbers become numbers, because that is how people filter on them."""
    import pandas as pd

    try:
        return pd.to_numeric(labels)
    except (ValueError, TypeError):
        return labels


def statistics(output: ReleasedStatistics) -> dict[str, float | None]:
    """Named numbers as floats; None where one could not be computed."""
    return {value.name: None if value.number is None else float(value.number) for value in output.values}
