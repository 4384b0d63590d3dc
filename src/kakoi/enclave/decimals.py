"""Numbers as text, one spelling each. Floats have no canonical form and can carry more than their value (signs of zero,
payloads of NaN, digits below any meaning), so none crosses the border between engine and keeper.

    number   -?INTEGER(.FRACTION)?(e-?EXPONENT)?   no leading or trailing zeros, no "-0"; the exponent is written only
             where plain digits would need more than 7 zeros after the point or more than 21 digits
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from kakoi.core.errors import Malformed

PATTERN: Final = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?(?:e-?[1-9][0-9]{0,2})?"
MAX_CHARACTERS: Final = 48
ENGINE_DIGITS: Final = 17
"""Significant digits that a binary64 number has at most."""
_FORM: Final = re.compile(PATTERN)
_SMALLEST_PLAIN: Final = -7
_LARGEST_PLAIN: Final = 20


def canonical(number: Decimal) -> str:
    """The one spelling of a finite number. Raises Malformed beyond 10^±999."""
    if not number.is_finite() or abs(number.adjusted()) > 999:
        raise Malformed("decimal.range", "expected a finite number within 10^±999, got another")
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - finite
    text = "".join(map(str, digits)).lstrip("0")
    stripped = text.rstrip("0")
    if not stripped:
        return "0"
    exponent += len(text) - len(stripped)
    adjusted = exponent + len(stripped) - 1
    return ("-" if sign else "") + _unsigned(stripped, exponent, adjusted)


def _unsigned(digits: str, exponent: int, adjusted: int) -> str:
    if not _SMALLEST_PLAIN <= adjusted <= _LARGEST_PLAIN:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{digits[0]}{fraction}e{adjusted}"
    if exponent >= 0:
        return digits + "0" * exponent
    if adjusted >= 0:
        return f"{digits[: adjusted + 1]}.{digits[adjusted + 1 :]}"
    return "0." + "0" * (-adjusted - 1) + digits


def parse(text: str) -> Decimal:
    """The number of a canonical text. Raises Malformed for any other spelling."""
    if len(text) <= MAX_CHARACTERS and _FORM.fullmatch(text):
        number = Decimal(text)
        if canonical(number) == text:
            return number
    raise Malformed("decimal.spelling", "expected a number in its one spelling, got other text")


def significant(number: Decimal, digits: int) -> Decimal:
    """The number rounded to so many significant digits, halves to even."""
    return Context(prec=digits, rounding=ROUND_HALF_EVEN, Emax=10**6, Emin=-(10**6)).plus(number)


def of_number(value: float | Decimal) -> str | None:
    """Canonical text of an int, float or Decimal with at most 17 significant digits; None for NaN and infinities."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = Decimal(repr(value))
    number = Decimal(value)
    return canonical(significant(number, ENGINE_DIGITS)) if number.is_finite() else None
