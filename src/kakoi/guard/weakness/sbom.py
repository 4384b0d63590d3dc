"""Software bills of material in CycloneDX 1.6: of a component as it is installed here, and of an enclave's image with its measurement.

A bill has no random part and no time: the same content gives the same bytes, so it can be compared and signed. An image's bill lists
every measured file with its SHA-256 and every locked package with the hashes of its archives, and carries the measurement as a property:
that ties a passport, which names the measurement, to what ran.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component as CycloneComponent
from cyclonedx.model.component import ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement

from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed, Misuse
from kakoi.guard.weakness.advisory import normal
from kakoi.guard.weakness.bill import MEASUREMENT

COMPONENTS: Final = ("owner", "hub", "console", "enclave", "analyst", "guard")
_NAMESPACE: Final = uuid.UUID("5d3d8a52-6a67-5e0f-9c35-0d2f6d1f3b6c")
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A package of a lock file, with the SHA-256 of every archive that may be installed as it."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()


def of_lock(text: str) -> tuple[Pinned, ...]:
    """Packages of a hashed lock file. Raises Malformed (``sbom.lock``) if it pins none or one without a hash."""
    starts = [match.start() for match in _PIN.finditer(text)]
    ends = [*starts[1:], len(text)][: len(starts)]
    blocks = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    found = []
    for block in blocks:
        match = _PIN.match(block)
        hashes = tuple(sorted(_HASH.findall(block)))
        if match is None or not hashes:
            raise Malformed("sbom.lock", "expected a hash for every package of the lock file, got one without")
        found.append(Pinned(name=normal(match[1]), version=match[2], hashes=hashes))
    if not found:
        raise Malformed("sbom.lock", "expected a lock file with pinned packages, got none")
    return tuple(sorted(found, key=lambda item: item.name))


def installed(component: str) -> tuple[Pinned, ...]:
    """Packages that a component needs, in the versions installed here. Raises Misuse for one that is not installed."""
    if component not in COMPONENTS:
        raise Misuse("sbom.component", f"expected one of {', '.join(COMPONENTS)}, got another component")
    found: dict[str, Pinned] = {}
    waiting = [(Requirement("kakoi"), component)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted, extra = waiting.pop()
        for one in (extra, *sorted(wanted.extras)) if wanted.extras else (extra,):
            if (normal(wanted.name), one) in seen:
                continue
            seen.add((normal(wanted.name), one))
            distribution = _distribution(wanted.name, component)
            if normal(wanted.name) != "kakoi":
                name = normal(distribution.metadata["Name"])
                found[name] = Pinned(name=name, version=distribution.version)
            for text in distribution.requires or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": one}):
                    waiting.append((needed, ""))
    return tuple(found[name] for name in sorted(found))


def _distribution(name: str, component: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise Misuse(
            "sbom.not-installed",
            f"expected {name}, which {component} needs, to be installed here, found none",
            hint=f"pip install kakoi[{component}]",
        ) from None


def bill(
    name: str, packages: Iterable[Pinned], *, files: Mapping[str, bytes] | None = None, measurement: str = ""
) -> bytes:
    """A CycloneDX document. ``files`` are SHA-256 by path; ``measurement`` is the image's, in hex."""
    bom = Bom()
    version = metadata.version("kakoi")
    bom.metadata.component = CycloneComponent(
        name=f"kakoi-{name}", version=version, type=ComponentType.APPLICATION, bom_ref=f"kakoi-{name}@{version}"
    )
    for package in packages:
        bom.components.add(_package(package))
    for path, digest in (files or {}).items():
        bom.components.add(
            CycloneComponent(
                name=path,
                type=ComponentType.FILE,
                bom_ref=f"file:{path}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest.hex())],
            )
        )
    bom.register_dependency(bom.metadata.component, bom.components)
    if measurement:
        bom.metadata.properties.add(Property(name=MEASUREMENT, value=measurement))
    return _stable(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string())


def _package(package: Pinned) -> CycloneComponent:
    purl = PackageURL(type="pypi", name=package.name, version=package.version)
    return CycloneComponent(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=purl.to_string(),
        # CycloneDX has one hash of a kind for a component; a package has one for each of its archives.
        properties=[Property(name="kakoi:archive-sha256", value=digest) for digest in package.hashes],
    )


def _stable(text: str) -> bytes:
    """Without the time and with a serial number that follows from the content."""
    value: dict[str, Any] = json.loads(text)
    value.get("metadata", {}).pop("timestamp", None)
    value.pop("serialNumber", None)
    digest = sha256(json.dumps(value, sort_keys=True).encode()).hex()
    value["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}"
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"
