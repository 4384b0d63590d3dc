"""Advisories about packages, as the Open Source Vulnerability format tells them, reduced to what a match needs.

Source: OSV schema 1.6 (https://ossf.github.io/osv-schema/), fields ``id``, ``aliases``, ``published``, ``modified``, ``withdrawn`` and
``affected``; the evaluation of ranges follows its section "Evaluation". Only the ecosystem PyPI is read: versions are compared as PEP 440
orders them. Whatever cannot be read is an error, never a package without advisories.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from packaging.version import InvalidVersion, Version

from kakoi.core.errors import Malformed

ECOSYSTEM: Final = "PyPI"
_ENDS: Final = {"fixed": "fixed", "last_affected": "last"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Versions from ``introduced`` ("0" is the first) up to, not including, ``fixed``, or including ``last``; both empty: no end."""

    introduced: str
    fixed: str = ""
    last: str = ""

    def holds(self, version: Version) -> bool:
        """Whether a version lies in the span."""
        if self.introduced != "0" and version < Version(self.introduced):
            return False
        if self.fixed:
            return version < Version(self.fixed)
        return not self.last or version <= Version(self.last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """One package of an advisory."""

    package: str
    """Normalised as PEP 503 says."""
    spans: tuple[Span, ...]
    versions: tuple[str, ...]
    """Versions named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """One advisory."""

    id: str
    aliases: tuple[str, ...]
    published: str
    affected: tuple[Affected, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that people know it by."""
        return (self.id, *self.aliases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One package in one version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A component that an advisory is about."""

    component: Component
    advisory: Advisory

    @property
    def fixed(self) -> str:
        """The lowest version in which it is fixed; empty if the advisory names none above this one."""
        mine = Version(self.component.version)
        ends = [
            Version(span.fixed)
            for item in self.advisory.affected
            if item.package == normal(self.component.name)
            for span in item.spans
            if span.fixed and Version(span.fixed) > mine
        ]
        return str(min(ends)) if ends else ""


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(value: Any) -> Advisory | None:
    """An OSV record. None if it was withdrawn or is not about packages of PyPI. Raises Malformed (``advisory.osv``)."""
    if not isinstance(value, Mapping) or not isinstance(value.get("id"), str):
        raise _malformed("a record with an id")
    if value.get("withdrawn"):
        return None
    try:
        affected = tuple(found for entry in value.get("affected") or () if (found := _affected(entry)) is not None)
        aliases = tuple(sorted({str(alias) for alias in value.get("aliases") or ()}))
        published = str(value.get("published") or value.get("modified") or "")
    except (AttributeError, KeyError, TypeError):
        raise _malformed(f"the affected versions of {str(value['id'])[:40]}") from None
    if not affected:
        return None
    return Advisory(id=value["id"], aliases=aliases, published=published[:10], affected=affected)


def _malformed(what: str) -> Malformed:
    return Malformed(
        "advisory.osv",
        f"expected {what} as the OSV schema writes it, got something else",
        hint="see ossf.github.io/osv-schema",
    )


def _affected(entry: Mapping[str, Any]) -> Affected | None:
    package = entry.get("package") or {}
    if package.get("ecosystem") != ECOSYSTEM:
        return None
    spans = [
        span
        for ranges in entry.get("ranges") or ()
        if ranges["type"] == "ECOSYSTEM"
        for span in _spans(ranges["events"])
    ]
    versions = tuple(sorted(str(version) for version in entry.get("versions") or ()))
    return Affected(package=normal(package["name"]), spans=tuple(spans), versions=versions)


def _spans(events: Sequence[Mapping[str, str]]) -> list[Span]:
    """Spans of a range. Events come in any order; each ``introduced`` goes with the next end above it.

    Where a bound is not a version of PEP 440 the span is taken to be wider: an unreadable start is the first version, an unreadable
    end is none.
    """
    points = []
    for kind, version in ((kind, str(version)) for event in events for kind, version in event.items()):
        order = _order(version)
        if kind == "introduced":
            points.append((order or _order("0"), 0, kind, version if order else "0"))
        elif kind in _ENDS and order is not None:
            points.append((order, 1, kind, version))
    spans, start = [], ""
    for _, _, kind, version in sorted(points, key=lambda point: point[:2]):
        if kind == "introduced":
            start = start or version
        elif start:
            spans.append(Span(introduced=start, **{_ENDS[kind]: version}))
            start = ""
    return [*spans, Span(introduced=start)] if start else spans


def _order(version: str) -> Version | None:
    try:
        return Version("0.dev0" if version == "0" else version)
    except InvalidVersion:
        return None


def matches(components: Iterable[Component], advisories: Iterable[Advisory]) -> tuple[Finding, ...]:
    """Which advisories are about which components, by component and id. Raises Malformed for a version that PEP 440 does not know."""
    by_package: dict[str, list[tuple[Affected, Advisory]]] = {}
    for advisory in advisories:
        for item in advisory.affected:
            by_package.setdefault(item.package, []).append((item, advisory))
    found: dict[tuple[str, str], Finding] = {}
    for component in components:
        try:
            version = Version(component.version)
        except InvalidVersion:
            raise Malformed(
                "advisory.version", f"expected a version of {component.name} as PEP 440 writes it, got another form"
            ) from None
        for item, advisory in by_package.get(normal(component.name), ()):
            named = any(_same(version, text) for text in item.versions)
            if named or any(span.holds(version) for span in item.spans):
                found[component.name, advisory.id] = Finding(component=component, advisory=advisory)
    return tuple(found[key] for key in sorted(found))


def _same(version: Version, text: str) -> bool:
    try:
        return Version(text) == version
    except InvalidVersion:
        return False
