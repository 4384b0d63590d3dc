"""Advisories from where people have them: files, directories and zip files of OSV records, in JSON or YAML.

Apart from reading a snapshot (``snapshot``), because brokers do only that and have no library for YAML.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from kakoi.core.errors import Malformed
from kakoi.guard.weakness.advisory import Advisory
from kakoi.guard.weakness.snapshot import KIND, MAX_BYTES, contents, decode, parsed

MAX_RECORD_BYTES: Final = 4 * 1024 * 1024


def collect(path: Path) -> tuple[Advisory, ...]:
    """Advisories of a snapshot, of one OSV record (JSON or YAML), of a zip of them, or of a directory, subdirectories included.

    Raises Misuse, Malformed: one unreadable record refuses all.
    """
    if path.is_dir():
        return parsed(_of_directory(path))
    data = contents(path)
    if data[:4] == b"PK\x03\x04":
        return parsed(of_zip(data))
    if path.suffix == ".json" and f'"{KIND}"'.encode() in data[:200]:
        return decode(data).advisories
    return parsed([_loaded(path.name, data)])


def _of_directory(path: Path) -> Iterator[Any]:
    for file in sorted(item for item in path.rglob("*") if item.suffix in (".json", ".yaml", ".yml")):
        yield _loaded(file.name, contents(file))


def of_zip(data: bytes) -> Iterator[Any]:
    """Records of a zip file, as OSV publishes one for each ecosystem. Each is bounded before it is unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            total = 0
            for entry in archive.infolist():
                total += entry.file_size
                if entry.file_size > MAX_RECORD_BYTES or total > 4 * MAX_BYTES:
                    raise Malformed(
                        "advisory.size", "expected advisories of ordinary size in the zip file, got larger ones"
                    )
                if entry.filename.endswith((".json", ".yaml", ".yml")):
                    with archive.open(entry) as file:
                        yield _loaded(entry.filename, file.read(MAX_RECORD_BYTES))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError):
        raise Malformed("advisory.zip", "expected a zip file, got a damaged one", hint="fetch it again") from None


def _loaded(name: str, data: bytes) -> Any:
    try:
        return json.loads(data) if name.endswith(".json") else yaml.load(data, Loader=_Loader)  # noqa: S506 - a safe loader
    except (ValueError, yaml.YAMLError, RecursionError):
        raise Malformed("advisory.file", f"expected JSON or YAML in {name[:80]}, got something else") from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe, and it leaves dates as text, so that nothing becomes another type."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
