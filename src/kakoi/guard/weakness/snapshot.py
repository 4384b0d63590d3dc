"""A file of advisories at one moment, with where they come from: what `make check` and `kakoi advisories` compare with.

JSON with the members ``kind``, ``source``, ``revision``, ``date`` and ``advisories``; each advisory is an OSV record reduced to ``id``,
``aliases``, ``published`` and ``affected``. A snapshot says of itself how old it is; nobody else does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kakoi.core.errors import Malformed, Misuse
from kakoi.guard.weakness.advisory import ECOSYSTEM, Advisory, parse

KIND: Final = "kakoi/advisory-snapshot/v1"
MAX_BYTES: Final = 256 * 1024 * 1024
"""Of a file of advisories; all of PyPI's together are a tenth of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Advisories and where they come from. ``date`` is the day of the newest that the source had, as YYYY-MM-DD."""

    source: str
    revision: str
    date: str
    advisories: tuple[Advisory, ...]

    def encode(self) -> bytes:
        """As a file, the same for the same content."""
        records = [_record(advisory) for advisory in sorted(self.advisories, key=lambda item: item.id)]
        head = {"kind": KIND, "source": self.source, "revision": self.revision, "date": self.date}
        lines = ",\n".join(json.dumps(record, ensure_ascii=False, sort_keys=True) for record in records)
        return (json.dumps(head, ensure_ascii=False)[:-1] + ', "advisories": [\n' + lines + "\n]}\n").encode()


def _record(advisory: Advisory) -> dict[str, Any]:
    affected = []
    for item in advisory.affected:
        events = []
        for span in item.spans:
            events.append({"introduced": span.introduced})
            events += [{"fixed": span.fixed}] if span.fixed else [{"last_affected": span.last}] if span.last else []
        ranges = [{"type": "ECOSYSTEM", "events": events}] if events else []
        # Where ranges say it, the list of single versions would say it again.
        versions = [] if ranges else list(item.versions)
        affected.append(
            {"package": {"ecosystem": ECOSYSTEM, "name": item.package}, "ranges": ranges, "versions": versions}
        )
    return {
        "id": advisory.id,
        "aliases": list(advisory.aliases),
        "published": advisory.published,
        "affected": affected,
    }


def decode(data: bytes) -> Snapshot:
    """A snapshot's file. Raises Malformed (``advisory.snapshot``, ``advisory.osv``)."""
    try:
        value = json.loads(data)
        members = {name: value[name] for name in ("source", "revision", "date")}
        if value["kind"] != KIND or not all(isinstance(member, str) for member in members.values()):
            raise ValueError
        records = list(value["advisories"])
    except (ValueError, KeyError, TypeError):
        raise Malformed(
            "advisory.snapshot",
            f"expected a file of the kind {KIND}, got something else",
            hint="kakoi advisories import",
        ) from None
    return Snapshot(advisories=parsed(records), **members)


def read(path: Path) -> Snapshot:
    """A snapshot from a file. Raises Misuse, Malformed."""
    return decode(contents(path))


def contents(path: Path) -> bytes:
    """A file of advisories as bytes, within bounds. Raises Misuse, Malformed."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Malformed("advisory.size", f"expected at most {MAX_BYTES >> 20} MiB of advisories, got more")
        return path.read_bytes()
    except OSError:
        raise Misuse(
            "file.missing", f"expected a file of advisories in {path}, found none", hint="check the path"
        ) from None


def parsed(records: Iterable[Any]) -> tuple[Advisory, ...]:
    """Records that are about packages of PyPI and were not withdrawn. Raises Malformed for one that cannot be read."""
    return tuple(found for record in records if (found := parse(record)) is not None)
