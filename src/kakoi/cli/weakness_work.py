"""What ``kakoi sbom``, ``kakoi advisories`` and ``kakoi exposure`` do. Loaded when one of them runs: not everybody installs ``guard``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from kakoi.attest.report import Collateral
from kakoi.attest.software.admit import with_software
from kakoi.broker.quarantine import Entry, entries_in
from kakoi.cli.i18n import t
from kakoi.cli.ui import SystemClock, at_hub, out, plain
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import sha256
from kakoi.core.errors import Misuse
from kakoi.enclave import image as images
from kakoi.guard.intel.index import Shelf
from kakoi.guard.weakness import bill as bills
from kakoi.guard.weakness import csaf
from kakoi.guard.weakness import sbom as writing
from kakoi.guard.weakness.advisory import Advisory, Component, Finding, matches
from kakoi.guard.weakness.bill import Bill
from kakoi.guard.weakness.collecting import collect, of_zip
from kakoi.guard.weakness.exposure import PastRun, Question, Touched, ask, by_bulletins, question, warned
from kakoi.guard.weakness.fetch import download
from kakoi.guard.weakness.snapshot import Snapshot, parsed, read
from kakoi.party.files import read_limited, write_private
from kakoi.sdk.exposure import judged_again, past_run
from kakoi.tlog.leaf import PASSPORT_KIND
from kakoi.wire.result import ResultFile


def sbom(component: str, image: Path | None, file: Path | None) -> None:
    """Write a bill."""
    if (image is None) == (component == ""):
        raise Misuse(
            "sbom.what", f"expected a component ({', '.join(writing.COMPONENTS)}) or --image, got neither or both"
        )
    data = of_image(image) if image is not None else writing.bill(component, writing.installed(component))
    if file is None:
        typer.echo(data.decode("utf-8"), nl=False)
    else:
        write_private(file, data)
        out.print(t("weakness.sbom-written", path=file, packages=len(bills.read(data).packages)))


def of_image(image: Path) -> bytes:
    """The bill of an enclave's image."""
    measurement = images.measure(image).hex()
    lock = read_limited(image / images.LOCK, limit=1 << 22).decode("utf-8", "replace")
    files = {
        path.relative_to(image).as_posix(): sha256(path.read_bytes()) for path in image.rglob("*") if path.is_file()
    }
    return writing.bill("enclave", writing.of_lock(lock), files=files, measurement=measurement)


def import_(sources: Sequence[Path], file: Path) -> None:
    """One snapshot of all sources."""
    found = [advisory for source in sources for advisory in collect(source)]
    _store(file, found, source=", ".join(source.name for source in sources))


def fetch(file: Path, url: str) -> None:
    """One snapshot of a feed."""
    _store(file, parsed(of_zip(download(url))), source=url)


def _store(file: Path, found: Iterable[Advisory], *, source: str) -> None:
    advisories = {advisory.id: advisory for advisory in found}
    newest = max((advisory.published for advisory in advisories.values()), default="")
    snapshot = Snapshot(source=source, revision="", date=newest, advisories=tuple(advisories.values()))
    write_private(file, snapshot.encode())
    out.print(t("weakness.advisories-written", path=file, count=len(advisories), date=newest or "-"))


def check(advisories: Path, component: str, sbom_files: Sequence[Path], as_json: bool) -> int:
    """Compare; returns how many findings there are."""
    snapshot, packages = read(advisories), _packages(component, sbom_files)
    findings = matches(packages, snapshot.advisories)
    if as_json:
        typer.echo(json.dumps({"date": snapshot.date, "findings": [_finding(item) for item in findings]}))
    else:
        _show_findings(findings)
        out.print(t("weakness.checked", packages=len(packages), date=snapshot.date, count=len(findings)))
    return len(findings)


def _packages(component: str, sbom_files: Sequence[Path]) -> list[Component]:
    found = {package for path in sbom_files for package in bills.read_file(path).packages}
    if component or not sbom_files:
        found |= {Component(name=item.name, version=item.version) for item in writing.installed(component or "owner")}
    return sorted(found, key=lambda item: (item.name, item.version))


def _finding(item: Finding) -> dict[str, Any]:
    return {
        "package": item.component.name,
        "version": item.component.version,
        "advisory": item.advisory.id,
        "aliases": list(item.advisory.aliases),
        "fixed": item.fixed or None,
    }


def _show_findings(findings: Sequence[Finding]) -> None:
    if not findings:
        return
    table = Table()
    for heading in ("package", "version", "advisory", "fixed"):
        table.add_column(t(f"weakness.{heading}"))
    for item in findings:
        names = ", ".join(item.advisory.names)
        table.add_row(item.component.name, item.component.version, plain(names), item.fixed or "-")
    out.print(table)


def passports(results: Sequence[Path], hub: str, party: Path | None, key_file: Path | None) -> list[Envelope]:
    """Passports of result files, and all that a hub shows to a party."""
    if not results and not hub:
        raise Misuse(
            "exposure.nothing",
            "expected result files, or a hub and a party, got neither",
            hint="--result FILE, or --hub URL --party DIR",
        )
    found = [ResultFile.decode(read_limited(path, limit=ResultFile.MAX_BYTES)).passport for path in results]
    if hub:
        if party is None:
            raise Misuse("exposure.nothing", "expected a party that asks the hub, got none", hint="--party DIR")
        with at_hub(hub, party, key_file) as (client, _):
            after = 0
            while (page := client.feed(after=after, kinds=(PASSPORT_KIND,))).items:
                found += [client.get_object(item.id) for item in page.items]
                after = page.next
    return found


def exposure(
    asked: str,
    given: Sequence[Envelope],
    sbom_files: Sequence[Path],
    advisories: Path | None,
    collateral: Sequence[Path],
    as_json: bool,
    party: Path | None = None,
    bulletins: Sequence[Path] = (),
) -> int:
    """List what is touched, and which of these contracts are in quarantine at a party; returns how many runs are."""
    if asked == "today" and not collateral:
        raise Misuse(
            "exposure.collateral", "expected newer endorsements to judge with, got none", hint="--collateral FILE"
        )
    about = by_bulletins(asked, [csaf.read(path) for path in bulletins])
    asks = about or _question(asked, [bills.read_file(path) for path in sbom_files], advisories, party)
    runs = _runs(given, collateral)
    found = ask(runs, asks)
    entries = entries_in(party / "ledger.sqlite") if party is not None else []
    if as_json:
        touched = [_touched(item, entries) for item in found]
        typer.echo(json.dumps({"asked": asked, "runs": len(runs), "touched": touched}))
    else:
        _show_touched(found, entries, SystemClock().now())
        out.print(t("weakness.exposed", runs=len(runs), count=len(found)))
    return len(found)


def _question(asked: str, known: Sequence[Bill], advisories: Path | None, party: Path | None) -> Question:
    if asked != "indicators":
        return question(asked, advisories=() if advisories is None else read(advisories).advisories, bills=known)
    if party is None:
        raise Misuse(
            "exposure.indicators", "expected the party whose indicators are meant, got none", hint="--party DIR"
        )
    return warned(Shelf(party).index(), bills=known, now=SystemClock().now())


def _runs(passports: Iterable[Envelope], collateral: Sequence[Path]) -> list[PastRun]:
    newer = [Collateral.decode(read_limited(path, limit=16 << 20)) for path in collateral]
    if not newer:
        return [past_run(passport) for passport in passports]
    # Pieces are named by what they are, so one record can serve every kind of platform.
    merged = Collateral(parts=tuple({part.name: part for record in newer for part in record.parts}.values()))
    kinds = ("software", "sgx", "tdx", "snp", "azure-snp", "azure-tdx", "nitro", "vtpm")
    judge = judged_again(dict.fromkeys(kinds, merged), with_software, SystemClock().now())
    return [past_run(passport, today=judge) for passport in passports]


def _touched(item: Touched, entries: Sequence[Entry]) -> dict[str, Any]:
    return {
        "quarantine": [
            {"since": entry.since, "reason": entry.reason} for entry in entries if entry.contract == item.run.contract
        ],
        "run": item.run.run,
        "contract": item.run.contract,
        "passport": item.run.passport,
        "output": item.run.output,
        "at": item.run.at,
        "reasons": list(item.reasons),
        "keys": [{"owner": owner, "manifest": manifest} for owner, manifest in item.keys],
    }


def _show_touched(found: Sequence[Touched], entries: Sequence[Entry], now: int) -> None:
    for item in found:
        when = datetime.fromtimestamp(item.run.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        out.print(
            f"[bold]{t('weakness.run')} {item.run.run[:16]}[/] {when}, {t('weakness.contract')} {item.run.contract[:16]}"
        )
        for reason in item.reasons:
            out.print(f"  {plain(reason)}")
        for entry in entries:
            if entry.contract == item.run.contract:
                key = "weakness.quarantined" if entry.since <= now else "weakness.grace"
                out.print(f"  {t(key, since=_day(entry.since), reason=plain(entry.reason))}")
        for owner, manifest in item.keys:
            out.print(f"  {t('weakness.key')} {plain(owner)}: {manifest[:16]}")


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
