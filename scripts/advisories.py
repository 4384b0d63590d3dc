"""Hold every lock file against the pinned snapshot of advisories. Part of `make check`.

    python scripts/advisories.py             exit 1 and say what is affected, unless `requirements/accepted.toml` names it with a reason
    python scripts/advisories.py --from DIR  make the snapshot anew from a checkout of the PyPI Advisory Database

The snapshot keeps only advisories about packages that some lock names; facts (ids, versions, dates), no texts.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from kakoi.core.errors import KakoiError
from kakoi.guard.weakness.advisory import Component, matches
from kakoi.guard.weakness.collecting import collect
from kakoi.guard.weakness.sbom import of_lock
from kakoi.guard.weakness.snapshot import Snapshot, read

ROOT: Final = Path(__file__).parents[1]
SNAPSHOT: Final = ROOT / "requirements" / "advisories.json"
ACCEPTED: Final = ROOT / "requirements" / "accepted.toml"
LOCKS: Final = (*sorted((ROOT / "requirements").glob("*.lock")), ROOT / "src/kakoi/enclave/enclave.lock")


def locked() -> dict[Component, list[str]]:
    """Every locked package with the locks that name it."""
    found: dict[Component, list[str]] = {}
    for lock in LOCKS:
        for pinned in of_lock(lock.read_text("utf-8")):
            found.setdefault(Component(name=pinned.name, version=pinned.version), []).append(lock.name)
    return found


def renew(database: Path) -> None:
    """Write the snapshot from a checkout."""
    git = ["git", "-C", str(database), "log", "-1", "--format=%H %cs"]
    revision, date = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()
    names = {component.name for component in locked()}
    kept = tuple(
        advisory for advisory in collect(database / "vulns") if any(item.package in names for item in advisory.affected)
    )
    source = "https://github.com/pypa/advisory-database"
    SNAPSHOT.write_bytes(Snapshot(source=source, revision=revision, date=date, advisories=kept).encode())
    print(f"{len(kept)} advisories about {len(names)} locked packages, as of {date}")


def check() -> int:
    """Compare; returns the exit code."""
    snapshot, components = read(SNAPSHOT), locked()
    accepted = tomllib.loads(ACCEPTED.read_text("utf-8")) if ACCEPTED.exists() else {}
    findings = matches(components, snapshot.advisories)
    for finding in findings:
        reason = accepted.get(finding.advisory.id, {}).get("reason", "")
        where = ", ".join(components[finding.component])
        state = f"accepted: {reason}" if reason else f"fixed in {finding.fixed or 'no version yet'}"
        print(f"{finding.component.name} {finding.component.version} ({where}): {finding.advisory.id}; {state}")
    unread = [f for f in findings if not accepted.get(f.advisory.id, {}).get("reason")]
    print(
        f"{len(components)} locked packages, {len(snapshot.advisories)} advisories as of {snapshot.date}: {len(unread)} open"
    )
    return 1 if unread else 0


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--from"]:
            renew(Path(sys.argv[2]))
        sys.exit(check())
    except KakoiError as error:
        sys.exit(f"error: {error.message} [{error.code}]")
