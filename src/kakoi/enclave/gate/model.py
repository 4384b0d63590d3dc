"""The records of what may leave lie in ``wire``, because recipients and verifiers read them too."""

from __future__ import annotations

from kakoi.wire.released import Released, ReleasedColumn, ReleasedStatistics, ReleasedTable, ReleasedValue

__all__ = ["Released", "ReleasedColumn", "ReleasedStatistics", "ReleasedTable", "ReleasedValue"]
