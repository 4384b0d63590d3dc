"""Reading bills of material in CycloneDX. Apart from writing them (``sbom``), because brokers read and have no library for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kakoi.core.errors import Malformed, Misuse
from kakoi.guard.weakness.advisory import Component

MEASUREMENT: Final = "kakoi:measurement"
"""The property that names the measured register's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What is read back from a document: the measurement it belongs to, empty if none, and its packages."""

    name: str
    measurement: str
    packages: tuple[Component, ...]


def read(data: bytes) -> Bill:
    """Packages of a CycloneDX document. Raises Malformed (``sbom.document``)."""
    try:
        value = json.loads(data)
        if value["bomFormat"] != "CycloneDX":
            raise ValueError
        head = value.get("metadata", {})
        measurement = next((p["value"] for p in head.get("properties", ()) if p["name"] == MEASUREMENT), "")
        packages = tuple(
            Component(name=str(item["name"]), version=str(item["version"]))
            for item in value.get("components", ())
            if str(item.get("purl", "")).startswith("pkg:pypi/")
        )
        return Bill(name=str(head["component"]["name"]), measurement=str(measurement), packages=packages)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Malformed(
            "sbom.document", "expected a CycloneDX document in JSON, got something else", hint="kakoi sbom makes one"
        ) from None


def read_file(path: Path) -> Bill:
    """The same from a file. Raises Misuse, Malformed."""
    try:
        return read(path.read_bytes())
    except OSError:
        raise Misuse(
            "file.missing", f"expected a CycloneDX document in {path}, found none", hint="kakoi sbom"
        ) from None
