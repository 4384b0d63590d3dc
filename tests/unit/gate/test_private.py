"""The gate's noise: intervals that hold as often as they say, the same each time, and a bound that is the rule's."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from kakoi.contract.rules import DisclosureRules
from kakoi.core.errors import Malformed, Refused
from kakoi.enclave.exact import ExactColumn, ExactRanks, ExactSum, ExactTable
from kakoi.enclave.gate.cohorts import Earlier
from kakoi.enclave.gate.private import Noised
from kakoi.enclave.gate.release import judge
from kakoi.enclave.job import Result
from kakoi.wire.released import ReleasedNoise, ReleasedTable
from unit.gate.gate_setting import RULES, analysis, declared

NOISY = replace(RULES, epsilon_per_run="1", epsilon_budget="10", max_digits=9)
OUTPUT = declared("o", "group:g", "count:n", "value:total", "value:mean", "value:middle")
ROWS = (40, 0, 500)
"""People in three cells."""
VALUES = (700, 0, 3100)
"""Sums of what lies above 5.0, in steps of 0.01; values are from 0 to 10."""
MIDDLE = [50 + i for i in range(20)]


def column(name: str, role: str, made: str, *measures: int, **more: object) -> ExactColumn:
    usual: dict[str, object] = {"labels": (), "step": "1", "centre": 0, "low": 0, "high": 0, "stride": 1}
    return ExactColumn(name=name, role=role, made=made, measures=measures, **{**usual, **more})  # type: ignore[arg-type]


def table(*, rows: tuple[int, ...] = ROWS) -> ExactTable:
    filled = [part for candidate in MIDDLE for part in (0, candidate, 2)]
    return ExactTable(
        name="o",
        columns=(
            column("g", "group", "label", labels=("a", "b", None)),
            column("n", "count", "count", 0),
            column("total", "value", "sum", 1, step="0.01"),
            column("mean", "value", "mean", 2, 3, step="0.01", centre=500, low=0, high=1000),
            column("middle", "value", "quantile", 4, step="0.1", low=0, high=100),
        ),
        measures=(
            ExactSum(reach="1", cells=tuple(map(str, rows))),
            ExactSum(reach="1000", cells=tuple(str(500 * n + v) for n, v in zip(rows, VALUES, strict=True))),
            ExactSum(reach="500", cells=tuple(map(str, VALUES))),
            ExactSum(reach="1", cells=tuple(map(str, rows))),
            ExactRanks(reach=1, share=(1, 2), candidates=101, height=3, filled=tuple(filled)),
        ),
    )


def noised(key: int, *, rules: DisclosureRules = NOISY, found: ExactTable | None = None) -> ReleasedTable:
    judged = judge(
        Result(outputs=(found or table(),)).encode(),
        analysis(OUTPUT),
        [rules],
        noise_key=key.to_bytes(32, "big"),
    )
    assert isinstance(judged, Noised)
    (released,) = judged.released.outputs
    assert isinstance(released, ReleasedTable)
    assert judged.populations() == ()
    assert judged.against(Earlier(least=3)) is judged.released
    return released


def test_intervals_hold_the_exact_numbers_as_often_as_they_say() -> None:
    """Over many keys: counts, sums and averages at least 19 times out of 20; and not always, or they would be too wide."""
    exact = {
        "n": [Fraction(n) for n in ROWS],
        "total": [Fraction(500 * n + v, 100) for n, v in zip(ROWS, VALUES, strict=True)],
        "mean": [Fraction(500 * n + v, 100 * n) if n else Fraction(5) for n, v in zip(ROWS, VALUES, strict=True)],
    }
    hits = dict.fromkeys(exact, 0)
    keys = 300
    for key in range(keys):
        for noise in noised(key).noise:
            if noise.off_by == "number":
                ends = zip(noise.low, noise.high, exact[noise.column], strict=True)
                hits[noise.column] += sum(
                    Fraction(low or 0) <= truth <= Fraction(high or 0) for low, high, truth in ends
                )
    assert all(hit >= 0.94 * 3 * keys for hit in hits.values()), hits
    assert hits["n"] < 0.985 * 3 * keys
    assert hits["total"] < 0.985 * 3 * keys


def test_a_quantile_lies_as_near_as_it_says() -> None:
    """In ranks: so many of its cell's 40 rows more or fewer than half may lie below it."""
    misses = 0
    for key in range(200):
        made = noised(key)
        noise = next(item for item in made.noise if item.off_by == "rows")
        value = Fraction(made.columns[4].cells[0] or 0)
        below = sum(2 for candidate in MIDDLE if Fraction(candidate, 10) < value)
        misses += abs(below - 20) > int(noise.at_most or 0) + 2
        assert 0 <= value <= 10
    assert misses <= 10


def test_what_a_column_costs_adds_up_to_the_rule() -> None:
    noise: dict[str, ReleasedNoise] = {item.column: item for item in noised(1).noise}
    assert {name: item.epsilon for name, item in noise.items()} == {
        "n": "1/5",
        "total": "1/5",
        "mean": "2/5",
        "middle": "1/5",
    }
    assert sum(Fraction(item.epsilon) for item in noise.values()) == 1


def test_a_stricter_owner_decides_for_all() -> None:
    strict = replace(NOISY, epsilon_per_run="0.1")
    wide = next(item for item in noised(1, rules=strict).noise if item.column == "n")
    narrow = next(item for item in noised(1).noise if item.column == "n")
    assert float(wide.at_most or 0) > 9 * float(narrow.at_most or 0)
    merged = judge(
        Result(outputs=(table(),)).encode(), analysis(OUTPUT), [RULES, strict, NOISY], noise_key=bytes(32)
    ).released
    (released,) = merged.outputs
    assert isinstance(released, ReleasedTable)
    assert next(item for item in released.noise if item.column == "n").at_most == wide.at_most
    assert any("epsilon=0.1 " in decision.rule for decision in merged.decisions)


def test_the_same_key_and_answer_give_the_same_and_anything_else_other_noise() -> None:
    assert noised(1).encode() == noised(1).encode()
    assert noised(1) != noised(2)
    others = noised(1, found=table(rows=(41, 0, 500)))
    assert others.columns[1].cells[1:] != noised(1).columns[1].cells[1:], (
        "cells that did not change have other noise, too"
    )


def test_numbers_have_few_digits_and_intervals_are_rounded_outward() -> None:
    coarse, fine = noised(7, rules=replace(NOISY, max_digits=2)), noised(7)
    for one, other in zip(coarse.noise, fine.noise, strict=True):
        for low, exact_low in zip(one.low, other.low, strict=True):
            assert Fraction(low or 0) <= Fraction(exact_low or 0)
        for high, exact_high in zip(one.high, other.high, strict=True):
            assert Fraction(high or 0) >= Fraction(exact_high or 0)
    for cell in coarse.columns[2].cells:
        assert len((cell or "").strip("-").replace(".", "").strip("0")) <= 2


def test_small_cells_and_empty_ones_are_there_and_nothing_is_held_back() -> None:
    released = noised(3, rules=replace(NOISY, minimum_cell=100, minimum_contributors=100))
    assert [column.held_back for column in released.columns] == [()] * 5
    assert released.columns[0].cells == ("a", "b", None)
    assert all(cell is not None for cell in released.columns[1].cells)


def test_a_negative_count_leaves_as_it_is_and_an_average_of_nobody_is_missing() -> None:
    counts = [noised(key).columns[1].cells[1] for key in range(60)]
    assert any((count or "").startswith("-") for count in counts)
    means = [noised(key).columns[3].cells[1] for key in range(60)]
    assert None in means


def test_an_answer_of_another_shape_is_refused_and_names_the_owner() -> None:
    with pytest.raises(Refused, match=r"rule epsilon_per_run of North"):
        judge(
            Result(outputs=(table(),)).encode(),
            replace(analysis(OUTPUT), engine="python"),
            [NOISY],
            owners=["North"],
            noise_key=bytes(32),
        )
    renamed = replace(table(), columns=(replace(table().columns[0], name="other"), *table().columns[1:]))
    with pytest.raises(Refused, match=r"gate\.undeclared"):
        noised(1, found=renamed)
    with pytest.raises(Refused, match=r"gate\.output-bytes"):
        noised(1, rules=replace(NOISY, max_output_bytes=100))


def test_exact_tables_are_whole() -> None:
    good = table()
    with pytest.raises(Malformed, match=r"exact\.cells"):
        replace(good, measures=(ExactSum(reach="1", cells=("1",)), *good.measures[1:]))
    with pytest.raises(Malformed, match=r"exact\.columns"):
        replace(good, columns=(*good.columns[:3], replace(good.columns[3], measures=(2,)), good.columns[4]))
    with pytest.raises(Malformed, match=r"exact\.reach"):
        ExactSum(reach="0", cells=())
    for broken in ({"share": (2, 2)}, {"filled": (0, 101, 1)}, {"filled": (3, 0, 1)}, {"filled": (0, 1)}):
        with pytest.raises(Malformed, match=r"exact\.ranks"):
            replace(good.measures[4], **broken)
    assert ExactTable.decode(good.encode()) == good
