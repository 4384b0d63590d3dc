"""One spelling per number."""

from __future__ import annotations

import math
import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError, Malformed
from kakoi.enclave import decimals


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-3, "-3"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (1e-8, "1e-8"),
        (123456789012345678901, "123456789012345680000"),
        (1e21, "1e21"),
        (-1.5e-300, "-1.5e-300"),
        (2**70, "1.1805916207174113e21"),
        (Decimal("1.2300"), "1.23"),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (Decimal("NaN"), None),
        (struct.unpack("<d", struct.pack("<Q", 0x7FF8DEADBEEF0001))[0], None),
    ],
)
def test_spellings(number: float | Decimal, text: str | None) -> None:
    assert decimals.of_number(number) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-0",
        "00",
        "01",
        "1.0",
        "1.",
        ".5",
        "+1",
        "1e5",
        "1E30",
        "1e+30",
        "10e29",
        "1e021",
        "1e1000",
        "NaN",
        "inf",
        " 1",
        "1 ",
        "1_0",
        "١",
        "0.00000001",
        "1" * 60,
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        decimals.parse(text)


@given(st.floats())
def test_a_float_comes_back_exactly(number: float) -> None:
    text = decimals.of_number(number)
    if text is None:
        assert not math.isfinite(number)
        return
    assert float(decimals.parse(text)) == number
    assert len(text) <= decimals.MAX_CHARACTERS


@given(st.text())
def test_any_text_is_the_one_spelling_or_refused(text: str) -> None:
    try:
        number = decimals.parse(text)
    except KakoiError:
        return
    assert decimals.canonical(number) == text


@given(st.integers(), st.integers(min_value=1, max_value=15))
def test_rounding_keeps_the_digits_asked_for(number: int, digits: int) -> None:
    rounded = decimals.significant(Decimal(number), digits)
    assert len(str(abs(int(rounded))).rstrip("0")) <= digits
    assert abs(rounded - number) <= abs(Decimal(number)) * Decimal(10) ** (1 - digits)


def test_numbers_beyond_all_measure_are_refused() -> None:
    for number in (Decimal(10) ** 1000, Decimal(10) ** -1001, Decimal("Infinity")):
        with pytest.raises(Malformed):
            decimals.canonical(number)
