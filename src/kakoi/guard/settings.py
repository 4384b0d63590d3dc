"""``guard.toml`` in a party's or hub's directory: hours, where events go, and rules of one's own. Everything in it is optional."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kakoi.core.errors import Malformed
from kakoi.guard.hours import Hours, read_hours

FILE: Final = "guard.toml"
LARGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """What a party has decided about its events."""

    hours: Hours | None = None
    exports: tuple[str, ...] = ()
    """Addresses of sinks (``sinks.open_sink``)."""
    rules: Path | None = None
    """A directory with Sigma rules of one's own, beside the shipped ones."""


def read_settings(directory: Path) -> GuardSettings:
    """The settings of a directory; the defaults if there is no file. Raises Malformed."""
    path = directory / FILE
    if not path.exists():
        return GuardSettings()
    data = path.read_bytes()
    if len(data) > LARGEST:
        raise Malformed("guard.settings", f"expected at most {LARGEST} bytes in {FILE}, got more")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Malformed("guard.settings", f"expected TOML in {FILE}, got an error: {error}") from None
    return _settings(directory, table)


def _settings(directory: Path, table: dict[str, Any]) -> GuardSettings:
    if set(table) - {"hours", "export", "rules"}:
        raise Malformed("guard.settings", f"expected hours, export and rules in {FILE}, got another member")
    exports, rules, hours = table.get("export", []), table.get("rules"), table.get("hours")
    if not isinstance(exports, list) or not all(isinstance(item, str) for item in exports):
        raise Malformed("guard.settings", f"expected export in {FILE} as a list of addresses, got something else")
    if rules is not None and not isinstance(rules, str):
        raise Malformed("guard.settings", f"expected rules in {FILE} as the name of a directory, got something else")
    if hours is not None and not isinstance(hours, dict):
        raise Malformed("guard.settings", f"expected hours in {FILE} as a table, got something else")
    return GuardSettings(
        hours=read_hours(hours) if hours is not None else None,
        exports=tuple(exports),
        rules=directory / rules if rules is not None else None,
    )
