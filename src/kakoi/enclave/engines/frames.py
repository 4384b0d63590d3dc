"""Parquet parts as one pandas table per logical table, converted by the declared types and by nothing that the data decide.

declared   pandas dtype        missing
integer    Int64               <NA>
number     float64             NaN
string     str (pyarrow)       NaN
boolean    boolean             <NA>
date       datetime64[s]       NaT
datetime   datetime64[us]      NaT
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import SITE_COLUMN, Job, JobTable

if TYPE_CHECKING:
    import pandas as pd

DTYPES: Final = {
    "integer": "Int64",
    "number": "float64",
    "string": "str",
    "boolean": "boolean",
    "date": "datetime64[s]",
    "datetime": "datetime64[us]",
}


def admits(declared: str, kind: Any) -> bool:
    """Whether a column of an Arrow type converts to a declared type without a choice."""
    import pyarrow.types as t

    if declared == "integer":
        return bool(t.is_integer(kind)) and not t.is_uint64(kind)
    if declared == "number":
        return bool(t.is_integer(kind) or t.is_float32(kind) or t.is_float64(kind))
    if declared == "string":
        return bool(t.is_string(kind) or t.is_large_string(kind) or _is_text_dictionary(kind))
    if declared == "datetime":
        return bool(t.is_timestamp(kind)) and kind.tz is None
    return bool({"boolean": t.is_boolean, "date": t.is_date}[declared](kind))


def _is_text_dictionary(kind: Any) -> bool:
    import pyarrow.types as t

    return bool(t.is_dictionary(kind)) and bool(t.is_string(kind.value_type) or t.is_large_string(kind.value_type))


def arrow_types() -> dict[str, Any]:
    """The Arrow type of each declared type."""
    import pyarrow as pa

    return {
        "integer": pa.int64(),
        "number": pa.float64(),
        "string": pa.string(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "datetime": pa.timestamp("us"),
    }


def read_part(descriptor: int, table: JobTable, names: Sequence[str]) -> Any:
    """The named columns of one part as an Arrow table in the declared types. Raises Stopped (``engine.part``)."""
    import pyarrow as pa

    if os.fstat(descriptor).st_size == 0:
        raise Stopped("engine.part", table.name)
    # Read, not mapped: nothing of the file is in memory afterwards but the columns that were asked for.
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        try:
            columns = _columns(file, table, names)
        except (pa.ArrowMemoryError, MemoryError):
            raise Stopped("engine.failed") from None
        except (pa.ArrowException, OSError):
            raise Stopped("engine.part", table.name) from None
    return pa.table(columns)


def _columns(source: Any, table: JobTable, names: Sequence[str]) -> dict[str, Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        schema = file.schema_arrow
        types = arrow_types()
        declared = {column.name: column.type for column in table.columns}
        for name in names:
            place = schema.get_field_index(name)
            if place < 0 or not admits(declared[name], schema.field(place).type):
                raise Stopped("engine.part", f"{table.name}.{name}")
        read = file.read(columns=list(names))
    return {name: read.column(name).cast(types[declared[name]]) for name in names}


def frames(job: Job, descriptors: Sequence[int]) -> dict[str, pd.DataFrame]:
    """The job's logical tables by name, site column first. ``descriptors`` are in the job's order. Raises Stopped."""
    found: dict[str, pd.DataFrame] = {}
    first = 0
    for table in job.tables:
        found[table.name] = _frame(table, descriptors[first : first + len(table.parts)])
        first += len(table.parts)
    return found


def _frame(table: JobTable, descriptors: Sequence[int]) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    names = [name for name in table.readable if name != SITE_COLUMN]
    parts = [read_part(descriptor, table, names) for descriptor in descriptors]
    sites = [pa.repeat(place.site, part.num_rows) for place, part in zip(table.parts, parts, strict=True)]
    whole = pa.concat_tables(parts)
    kinds = {column.name: column.type for column in table.columns}
    data: dict[str, Any] = {SITE_COLUMN: _series(pa.chunked_array(sites, pa.string()), "string")}
    for name in names:
        data[name] = _series(whole.column(name), kinds[name])
    return pd.DataFrame(data, copy=False)


def _series(column: Any, kind: str) -> Any:
    if kind in ("integer", "boolean"):
        return column.to_pandas(types_mapper=_nullable)
    return column.to_pandas(date_as_object=False).astype(DTYPES[kind])


def _nullable(kind: Any) -> Any:
    """A masked array keeps 64-bit integers exact beside missing values."""
    import pandas as pd
    import pyarrow.types as t

    return pd.Int64Dtype() if t.is_integer(kind) else pd.BooleanDtype() if t.is_boolean(kind) else None
