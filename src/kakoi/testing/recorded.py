"""Recorded hardware evidence (``vectors.json`` and its files) as ``Evidence`` and ``Collateral``.

Reads the folder that the caller names; the vectors are test data and are not part of this package.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

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


def octets(value: str | list[int]) -> bytes:
    """Bytes of a recorded file's number lists, hex or base64."""
    if isinstance(value, list):
        return bytes(value)
    text = "".join(value.split())
    if re.fullmatch(r"(?:[0-9a-f]{2})+", text):
        return bytes.fromhex(text)
    text = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4))


def azure(vector: Recorded) -> tuple[Evidence, dict[str, bytes]]:
    """An Azure vector: evidence, and what of AMD's collateral it brings (``vcek``); nothing of Intel's."""
    found = json.loads(vector.read("evidence"))
    quote = found.get("tpm_quote") or found["quote"]
    signature = octets(quote["signature"])
    pieces = {
        "tpm-quote": octets(quote["message"]),
        "tpm-signature": struct.pack(">HHH", 0x0014, 0x000B, len(signature)) + signature,
        "pcrs": b"".join(octets(value) for value in quote["pcrs"]),
    }
    if "td_quote" in found:
        pieces["td-quote"] = octets(found["td_quote"])
    hcl = octets(found.get("hcl_report") or found["report"])
    platform: Literal["azure-snp", "azure-tdx"] = "azure-tdx" if vector.fields["hw"] == "tdx" else "azure-snp"
    chip = found.get("vcek")
    vcek = {} if chip is None else {"vcek": certificates(chip.encode())[0] if "-----" in chip else octets(chip)}
    return Evidence(platform=platform, statement=hcl, parts=attest_kit.pieces(pieces)), vcek
