"""When a party expects its keys to be asked for. Pure: the time is an argument; zones come with the system or ``tzdata``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kakoi.core.errors import Malformed

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Days of the week, and the minutes of a day from which and until when."""

    zone: ZoneInfo
    days: frozenset[int]
    begin: int
    end: int

    def inside(self, at: int) -> bool:
        """Whether a time (seconds since the epoch) lies within them."""
        local = datetime.fromtimestamp(at, UTC).astimezone(self.zone)
        return local.weekday() in self.days and self.begin <= local.hour * 60 + local.minute < self.end


def read_hours(table: Mapping[str, Any]) -> Hours:
    """Hours of a table with ``timezone``, ``from``, ``until`` and ``days``. Raises Malformed."""
    if set(table) - {"timezone", "from", "until", "days"}:
        raise Malformed("guard.hours", "expected timezone, from, until and days in [hours], got another member")
    try:
        zone = ZoneInfo(str(table.get("timezone", "UTC")))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Malformed("guard.hours", "expected a time zone such as Asia/Tokyo in [hours], got another") from None
    days = table.get("days", ["mon", "tue", "wed", "thu", "fri"])
    if not isinstance(days, list) or not days or not set(days) <= set(DAYS):
        raise Malformed("guard.hours", "expected days such as mon and tue in [hours], got others")
    begin, end = (_minutes(table.get(name, default)) for name, default in (("from", "07:00"), ("until", "20:00")))
    if begin >= end:
        raise Malformed("guard.hours", "expected hours that end after they begin, got others")
    return Hours(zone=zone, days=frozenset(DAYS.index(day) for day in days), begin=begin, end=end)


def _minutes(text: Any) -> int:
    match = _TIME.match(text) if isinstance(text, str) else None
    if match is None:
        raise Malformed("guard.hours", "expected a time such as 07:30 in [hours], got another")
    return int(match[1]) * 60 + int(match[2])
