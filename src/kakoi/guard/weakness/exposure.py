"""Which past runs, results and keys a weakness touches, read from passports.

A passport holds what every owner saw when it gave its keys: the machine with its TCB, the advisories of that moment, the measurement of
the code. A question asks for one of

    an advisory of a vendor        ``INTEL-SA-00615``, ``AMD-SB-3019``    named in a verdict of the time, or in one made today
    a TCB below a version          ``snp/Milan:microcode<213``            platform, product (may be left out), component, version
    an advisory about a package    ``PYSEC-2023-254``, ``CVE-2023-49083`` through the bill of the measured image
    a package                      ``duckdb<2.0.2``, ``duckdb==2.0.1``    likewise, with a specifier as PEP 440 writes it
    newer endorsements             ``today``                              what they would refuse now
    indicators of others           ``indicators``                         code, machines and packages that they name (``warned``)

Without the bill of an image nobody knows what was in it: such a run counts as touched, with that as the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from kakoi.attest.report import Claims, Verdict
from kakoi.core.errors import Misuse
from kakoi.guard.intel.index import Index
from kakoi.guard.registers import code_of
from kakoi.guard.weakness.advisory import Advisory, Component, matches, normal
from kakoi.guard.weakness.bill import Bill
from kakoi.guard.weakness.csaf import Bulletin

_TCB: Final = re.compile(r"^([a-z-]+)(?:/([A-Za-z0-9]+))?:([A-Za-z0-9._-]+)<(\d+)$")
_VENDOR: Final = re.compile(r"^(INTEL-SA-\d+|AMD-SB-\d+(\.\d+)?|INTEL-DOC-\S+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """Evidence of the time, judged with newer endorsements: the verdict, if it is genuine, and what refuses it now."""

    verdict: Verdict | None = None
    refused: tuple[str, ...] = ()


NOT_ASKED: Final = Today()


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """One owner's yes in a run: who, its verdict at that time, and the data sets whose keys it gave."""

    owner: str
    verdict: Verdict
    manifests: tuple[str, ...]
    today: Today = NOT_ASKED


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """What a passport says that a weakness can touch."""

    passport: str
    run: str
    contract: str
    output: str
    """SHA-256 of the result."""
    released: tuple[Released, ...]

    @property
    def at(self) -> int:
        """When the last key was given."""
        return max(item.verdict.evaluated_at for item in self.released)

    @property
    def measurements(self) -> tuple[str, ...]:
        """Measurements of the code, as every owner saw them."""
        return tuple(sorted(frozenset().union(*(code_of(item.verdict.claims) for item in self.released))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A run that a weakness touches, why, and the keys that were in its reach."""

    run: PastRun
    reasons: tuple[str, ...]

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Owner and data set of every key that the enclave held."""
        return tuple(sorted((item.owner, manifest) for item in self.run.released for manifest in item.manifests))


Question = Callable[[PastRun], tuple[str, ...]]
"""Reasons why a run is touched; none if it is not."""


def ask(runs: Sequence[PastRun], question: Question) -> tuple[Touched, ...]:
    """Runs that a question touches, oldest first."""
    found = [Touched(run=run, reasons=reasons) for run in runs if (reasons := question(run))]
    return tuple(sorted(found, key=lambda item: (item.run.at, item.run.run)))


def question(text: str, *, advisories: Sequence[Advisory] = (), bills: Sequence[Bill] = ()) -> Question:
    """What a text asks. Raises Misuse (``exposure.question``) for what is none, and for an advisory that nobody has."""
    by_measurement = {bill.measurement: bill for bill in bills if bill.measurement}
    if text == "today":
        return _refused_today
    if (tcb := _TCB.match(text)) is not None:
        return _below(tcb[1], tcb[2] or "", tcb[3], int(tcb[4]))
    if _VENDOR.match(text.upper()):
        return _vendor(text.upper())
    known = [advisory for advisory in advisories if text.upper() in {name.upper() for name in advisory.names}]
    if known:
        return _packages(lambda packages: _named(packages, known), by_measurement)
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        wanted = None
    if wanted is None or wanted.marker or wanted.extras or re.match(r"^(CVE|GHSA|PYSEC|OSV)-", text.upper()):
        raise Misuse(
            "exposure.question",
            "expected a vendor's advisory, an imported advisory, a TCB like snp/Milan:microcode<213 or a package like duckdb<2.0.2",
            hint="kakoi advisories import brings advisories about packages",
        )
    return _packages(lambda packages: _required(packages, wanted), by_measurement)


def warned(indicators: Index, *, bills: Sequence[Bill], now: int) -> Question:
    """Runs on code or machines, or with packages in the image, that an indicator which acts now names."""
    by_measurement = {bill.measurement: bill for bill in bills if bill.measurement}

    def reasons(run: PastRun) -> tuple[str, ...]:
        found: set[str] = set()
        for item in run.released:
            claims = item.verdict.claims
            for kind, values in (("measurement", code_of(claims)), ("platform", {claims.platform_identity} - {""})):
                if (named := indicators.find(kind, values, now)) is not None:  # type: ignore[arg-type]
                    found.add(f"{named.id} names its {kind} {named.value[:16]}")
        for measurement in set(run.measurements) & set(by_measurement):
            for package in by_measurement[measurement].packages:
                pinned = f"{normal(package.name)}=={package.version}"
                if (named := indicators.find("package", (pinned,), now)) is not None:
                    found.add(f"{named.id} names {pinned} of image {measurement[:16]}")
        return tuple(sorted(found))

    return reasons


def by_bulletins(asked: str, bulletins: Sequence[Bulletin]) -> Question | None:
    """What bulletins say to a name that one of them is known by: runs on machines for which the vendor lists it, or of a line that it
    calls affected. None if no bulletin is known by that name.
    """
    about = [bulletin for bulletin in bulletins if asked.upper() in bulletin.names]
    if not about:
        return None
    listed = [_vendor(name) for bulletin in about for name in sorted(bulletin.vendor_ids)]

    def reasons(run: PastRun) -> tuple[str, ...]:
        found = {reason for asks in listed for reason in asks(run)}
        for _, claims in _verdicts(run):
            for bulletin in about:
                if claims.platform in ("snp", "azure-snp") and claims.product in bulletin.lines:
                    place = f"{claims.platform}/{claims.product}"
                    found.add(f"{place}: {bulletin.id} of {bulletin.released} names this line as affected")
        return tuple(sorted(found))

    return reasons


def _refused_today(run: PastRun) -> tuple[str, ...]:
    found = {
        f"{item.verdict.claims.platform}: refused today by {name}"
        for item in run.released
        for name in item.today.refused
    }
    return tuple(sorted(found))


def _verdicts(run: PastRun) -> list[tuple[str, Claims]]:
    found = [("", item.verdict.claims) for item in run.released]
    return found + [(" today", v.claims) for item in run.released if (v := item.today.verdict) is not None]


def _below(platform: str, product: str, component: str, version: int) -> Question:
    def of(claims: Claims) -> list[str]:
        place = f"{claims.platform}/{claims.product}"
        versions = [item.version for item in claims.tcb if item.name == component]
        if not versions:
            return [f"{place}: its TCB does not tell {component}"]
        return [f"{place}: {component} {found} is below {version}" for found in versions if found < version]

    def reasons(run: PastRun) -> tuple[str, ...]:
        found = {
            reason
            for _, claims in _verdicts(run)
            if claims.platform == platform and product.lower() in ("", claims.product.lower())
            for reason in of(claims)
        }
        return tuple(sorted(found))

    return reasons


def _vendor(identity: str) -> Question:
    def reasons(run: PastRun) -> tuple[str, ...]:
        found = {
            f"{claims.platform}/{claims.product}: the vendor lists {identity} for this TCB{when}"
            for when, claims in _verdicts(run)
            if identity in {advisory.upper() for advisory in claims.advisories}
        }
        return tuple(sorted(found))

    return reasons


def _packages(about: Callable[[Sequence[Component]], list[str]], bills: Mapping[str, Bill]) -> Question:
    def reasons(run: PastRun) -> tuple[str, ...]:
        # A platform measures one image into several registers, and its bill names one of them.
        known = [measurement for measurement in run.measurements if measurement in bills]
        if not known:
            image = run.measurements[0][:16] if run.measurements else "unknown"
            return (f"nobody gave the bill of image {image}: it may hold the package",)
        found = {f"image {m[:16]}: {reason}" for m in known for reason in about(bills[m].packages)}
        return tuple(sorted(found))

    return reasons


def _named(packages: Sequence[Component], advisories: Sequence[Advisory]) -> list[str]:
    return [
        f"{found.component.name} {found.component.version} has {found.advisory.id}"
        for found in matches(packages, advisories)
    ]


def _required(packages: Sequence[Component], wanted: Requirement) -> list[str]:
    return [
        f"it holds {package.name} {package.version}"
        for package in packages
        if normal(package.name) == normal(wanted.name) and wanted.specifier.contains(package.version, prereleases=True)
    ]
