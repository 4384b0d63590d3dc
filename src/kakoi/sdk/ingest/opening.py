"""Which reader a file gets."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kakoi.core.errors import Malformed, Misuse, Unavailable
from kakoi.sdk.ingest.schema import Schema
from kakoi.sdk.ingest.source import Source


def open_source(path: Path, schema: Schema) -> Source:
    """The source at ``path``, by its suffix: .csv .tsv .txt .data, .parquet, .xpt, .xlsx.

    Raises Misuse if there is no such file or kind, Malformed if the content is another kind than the name says.
    """
    # The readers for the rarer kinds are imported when they are needed: each costs memory and start-up time.
    kind = path.suffix.lower()
    size, magic = _look(path)
    if size == 0:
        raise Malformed(
            "ingest.empty-file", f"{path.name}: expected a table, got an empty file", hint="export it again"
        )
    expected = _MAGIC.get(kind)
    found = next((k for k, start in _MAGIC.items() if magic.startswith(start)), None)
    if found != (kind if expected else None):
        raise Malformed(
            "ingest.kind",
            f"{path.name}: expected {kind or 'text'} content, got {found or 'something else'}",
            hint="give the file the suffix of its real kind, or export it again",
        )
    if kind in (".csv", ".tsv", ".txt", ".data"):
        from kakoi.sdk.ingest.csv_source import CsvSource

        return CsvSource(path, schema.file, [c.header for c in schema.columns])
    if kind == ".parquet":
        from kakoi.sdk.ingest.parquet_source import ParquetSource

        return ParquetSource(path)
    if kind == ".xpt":
        from kakoi.sdk.ingest.xpt_source import XptSource

        return XptSource(path, schema.file)
    if kind == ".xlsx":
        from kakoi.sdk.ingest.excel_source import ExcelSource

        return ExcelSource(path, schema.file.sheet)
    raise Misuse(
        "ingest.suffix",
        f"{path.name}: expected .csv, .tsv, .txt, .data, .parquet, .xpt or .xlsx, got {kind or 'no suffix'}",
        hint="export the table as one of these; old .xls and .sas7bdat files must be saved anew",
    )


_MAGIC: Final = {".parquet": b"PAR1", ".xlsx": b"PK\x03\x04", ".xpt": b"HEADER RECORD*******LIB"}


def _look(path: Path) -> tuple[int, bytes]:
    try:
        with path.open("rb") as file:
            return path.stat().st_size, file.read(24)
    except FileNotFoundError:
        raise Misuse("ingest.no-file", f"expected a file at {path}, got nothing there", hint="check the path") from None
    except IsADirectoryError:
        raise Misuse("ingest.no-file", f"expected a file at {path}, got a directory", hint="name one file") from None
    except PermissionError:
        raise Misuse("ingest.no-file", f"expected to read {path}, got permission denied") from None
    except OSError as error:
        raise Unavailable("ingest.read", f"expected to read {path}, got: {error.strerror}") from None
