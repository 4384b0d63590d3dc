"""Times and numbers as people of a language write them. Times are this machine's local time, with its zone named."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from kakoi.say.catalogue import Language

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?\Z")
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def local(seconds: int) -> datetime:
    """Seconds since the epoch as local time."""
    return datetime.fromtimestamp(seconds, tz=UTC).astimezone()


def day(seconds: int, language: Language) -> str:
    """A date: ``24 Nov 2026`` or ``2026年11月24日``."""
    at = local(seconds)
    if language == "ja":
        return f"{at.year}年{at.month}月{at.day}日"
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def time(seconds: int, language: Language) -> str:
    """Date and time to the minute, with the zone."""
    at = local(seconds)
    return f"{day(seconds, language)} {at:%H:%M} {at.tzname()}"


def clock(seconds: int) -> str:
    """Time of day to the second."""
    return f"{local(seconds):%H:%M:%S}"


def number(text: str) -> str:
    """A decimal number with its thousands apart by commas, as both languages do; other text unchanged."""
    if not _NUMBER.match(text):
        return text
    whole, dot, fraction = text.partition(".")
    sign = "-" if whole.startswith("-") else ""
    return f"{sign}{int(whole.lstrip('-')):,}{dot}{fraction}"


def size(count: int) -> str:
    """Bytes in decimal units."""
    amount, unit = float(count), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"
