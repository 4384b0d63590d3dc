"""Invented data: for each manifest a table that fits its schema, and nothing else. No real cell has any part in it.

Everything follows from the manifests and the size, so that everybody who rehearses a contract invents the same. Codes are drawn
unevenly, the first often and the last seldom, so that some cells are small and the owners' rules have something to do. People have
numbers; a table's parts share them out among its owners, and other tables know the same people, so that joins find partners.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from kakoi.contract.model import Column, DatasetManifest
from kakoi.core.encoding import sha256
from kakoi.enclave.engines.frames import arrow_types

if TYPE_CHECKING:
    import numpy as np

_MOST_EVENTS: Final = 4
_MISSING_SHARE: Final = 0.04
_LABELS: Final = 8
"""Different invented texts in a column of text without codes."""
_SECONDS: Final = 4 * 365 * 86400
_EPOCH: Final = 1_577_836_800
"""2020-01-01: invented days lie in the four years from then on."""


def invent(manifests: Mapping[str, DatasetManifest], people: int) -> dict[str, bytes]:
    """A Parquet file for each manifest, with ``people`` people at each owner's part; rows are events where the manifest says so."""
    places = _places(manifests)
    most = max((parts for _, parts in places.values()), default=1)
    return {
        identity: _parquet(manifest, _people(*places[identity], people * most), _seed(manifest, people))
        for identity, manifest in manifests.items()
    }


def _places(manifests: Mapping[str, DatasetManifest]) -> dict[str, tuple[int, int]]:
    """For each manifest which part of its table it is, and of how many."""
    tables: dict[str, list[str]] = {}
    for identity, manifest in manifests.items():
        tables.setdefault(manifest.table, []).append(identity)
    return {identity: (place, len(parts)) for parts in tables.values() for place, identity in enumerate(parts)}


def _people(place: int, parts: int, universe: int) -> range:
    """Everybody in this part: all tables share out the same people among their parts."""
    return range(place, universe, parts)


def _seed(manifest: DatasetManifest, people: int) -> int:
    return int.from_bytes(sha256(b"kakoi/preview/v1", manifest.encode(), str(people).encode())[:8], "big")


def _parquet(manifest: DatasetManifest, people: range, seed: int) -> bytes:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = np.random.default_rng(seed)
    numbers = np.asarray(people, dtype=np.int64)
    if manifest.person_column is not None:
        numbers = np.repeat(numbers, draw.integers(1, _MOST_EVENTS + 1, len(numbers)))
    columns = {column.name: _values(column, manifest, numbers, draw) for column in manifest.columns}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _values(column: Column, manifest: DatasetManifest, people: Any, draw: np.random.Generator) -> Any:
    import pyarrow as pa

    kind = arrow_types()[column.type]
    if column.name == manifest.person_column or column.identifier != "no":
        return pa.array(_identifiers(column.type, people), kind)
    values = _coded(column, len(people), draw) if column.codes else _free(column, len(people), draw)
    gaps = draw.random(len(people)) < _MISSING_SHARE if column.missing else None
    return pa.array(values, kind, mask=gaps, from_pandas=False)


def _identifiers(kind: str, people: Any) -> list[Any]:
    if kind == "string":
        return [f"invented-{number:07d}" for number in people.tolist()]
    if kind == "number":
        return [float(number) for number in people.tolist()]
    if kind == "boolean":
        return [bool(number % 2) for number in people.tolist()]
    if kind == "datetime":
        return [(_EPOCH + number * 60) * 1_000_000 for number in people.tolist()]
    return [int(number) for number in people.tolist()]


def _uneven(count: int) -> Any:
    """Shares that fall: the last of many is rare."""
    import numpy as np

    shares = 1.0 / np.arange(1, count + 1, dtype=np.float64)
    return shares / shares.sum()


def _coded(column: Column, rows: int, draw: np.random.Generator) -> Any:
    import numpy as np

    codes = [code.value for code in column.codes]
    chosen = draw.choice(len(codes), size=rows, p=_uneven(len(codes)))
    if column.type == "string":
        return np.array(codes, dtype=object)[chosen]
    kind = np.int64 if column.type == "integer" else np.float64
    return np.array([float(Decimal(code)) for code in codes]).astype(kind)[chosen]


def _free(column: Column, rows: int, draw: np.random.Generator) -> Any:
    import numpy as np

    if column.type == "string":
        labels: Sequence[str] = [f"invented text {number}" for number in range(1, _LABELS + 1)]
        return np.array(labels, dtype=object)[draw.choice(_LABELS, size=rows, p=_uneven(_LABELS))]
    if column.type == "boolean":
        return draw.random(rows) < 0.4
    if column.type == "date":
        return ((_EPOCH + draw.integers(0, _SECONDS, rows)) // 86400).astype(np.int32)
    if column.type == "datetime":
        return (_EPOCH + draw.integers(0, _SECONDS, rows)) * 1_000_000
    low, high = _span(column)
    values = np.clip(draw.normal((low + high) / 2, max((high - low) / 5, 1e-9), rows), low, high)
    return np.round(values).astype(np.int64) if column.type == "integer" else np.round(values, 3)


def _span(column: Column) -> tuple[float, float]:
    """The declared limits; where one is missing, a hundred from the other or from 0."""
    low = float(column.minimum) if column.minimum is not None else None
    high = float(column.maximum) if column.maximum is not None else None
    if low is None:
        low = 0.0 if high is None or high > 0 else high - 100.0
    return low, low + 100.0 if high is None else high
