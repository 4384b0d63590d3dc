"""A result's outputs, for people and for pandas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kakoi.sdk.verify import VerifiedResult
from kakoi.wire.released import Released, ReleasedNoise, ReleasedStatistics, ReleasedTable

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
    noise: tuple[ReleasedNoise, ...] = ()
    """What was added to which column; then a column with the interval of each number stands behind it."""


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
    columns: list[tuple[str, Sequence[str | None], Sequence[int]]] = []
    for column in output.columns:
        columns.append((column.name, column.cells, column.held_back))
        if (ends := intervals(output).get(column.name)) is not None:
            between = [f"{low} – {high}" for low, high in zip(*ends, strict=True)]
            columns.append((f"{column.name} 95 %", between, ()))
    return Shown(
        name=output.name,
        columns=tuple(name for name, _, _ in columns),
        rows=tuple(tuple(cells[i] for _, cells, _ in columns) for i in range(count)),
        held_back=tuple(tuple(i in held for _, _, held in columns) for i in range(count)),
        rows_withheld=output.rows_withheld,
        noise=output.noise,
    )


def intervals(output: ReleasedTable) -> dict[str, tuple[Sequence[str | None], Sequence[str | None]]]:
    """By column the lower and the upper ends between which its numbers without noise lie, 19 times out of 20."""
    return {noise.column: (noise.low, noise.high) for noise in output.noise if noise.off_by == "number"}


def frame(output: ReleasedTable) -> pd.DataFrame:
    """A table as a DataFrame: numbers as numbers, what was held back as missing, with a column ``held_back``.

    Where numbers have noise, ``NAME_low`` and ``NAME_high`` are the ends of each number's interval (19 times out of 20), and
    ``frame.attrs["noise"]`` says by column what was added: mechanism, epsilon, by how much it is off at most, and in what.
    """
    import pandas as pd

    data: dict[str, Any] = {}
    for column in output.columns:
        values = pd.Series(column.cells, dtype="object")
        data[column.name] = values if column.role == "group" else pd.to_numeric(values)
        for end, cells in zip(("low", "high"), intervals(output).get(column.name, ()), strict=False):
            data[f"{column.name}_{end}"] = pd.to_numeric(pd.Series(list(cells), dtype="object"))
    held = sorted({i for column in output.columns for i in column.held_back})
    made = pd.DataFrame(data)
    for column in output.columns:
        if column.role == "group":
            made[column.name] = _labels(made[column.name])
    made["held_back"] = made.index.isin(held)
    if output.noise:
        made.attrs["noise"] = {
            item.column: {
                "mechanism": item.mechanism,
                "epsilon": item.epsilon,
                "at_most": None if item.at_most is None else float(item.at_most),
                "off_by": item.off_by,
            }
            for item in output.noise
        }
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
