"""Recorded hardware evidence (``vectors.json`` and its files) as ``Evidence`` and ``Collateral``.

Reads the folder that the caller names; the vectors are test data and are not part of this package.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kakoi.attest.report import Collateral, Evidence
from kakoi.testing import attest_kit

YEAR: Final = 365 * 86400
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One vector. ``expect`` is the closed list of outcomes that its source documents."""

    name: str
    kind: str
    folder: Path
    fields: Mapping[str, Any]

    @property
    def expect(self) -> Mapping[str, Any]:
        """What must come out."""
        found: Mapping[str, Any] = self.fields["expect"]
        return found

    @property
    def at(self) -> int:
        """When to judge it, seconds since the epoch."""
        return int(self.fields["at"])

    def read(self, key: str) -> bytes:
        """The file that the vector's field ``key`` names."""
        return Path(self.folder, self.fields[key]).read_bytes()


def load(folder: Path, *kinds: str) -> list[Recorded]:
    """The vectors of these kinds in ``folder`` (the one with ``vectors.json``); none if it is not there."""
    index = folder / "vectors.json"
    if not index.is_file():
        return []
    return [
        Recorded(
            name=f"{item['kind']}:{Path(item['evidence']).name}#{i}", kind=item["kind"], folder=folder, fields=item
        )
        for i, item in enumerate(json.loads(index.read_bytes()))
        if item["kind"] in kinds
    ]


def certificates(data: bytes) -> list[bytes]:
    """DER certificates of a PEM or DER file."""
    found = [base64.b64decode(body) for body in _PEM.findall(data)]
    return found or [data]


def snp(vector: Recorded) -> tuple[Evidence, Collateral]:
    """An SEV-SNP vector: report, chip certificate and AMD's intermediate and root; there is no revocation list."""
    intermediate, root = certificates(vector.read("roots"))
    name = vector.expect["signing_key"].lower()
    pieces = {name: certificates(vector.read("cert"))[0], "intermediate": intermediate, "root": root}
    evidence = Evidence(platform="snp", statement=vector.read("evidence"), parts=())
    return evidence, Collateral(parts=attest_kit.pieces(pieces))
