"""Subtracting results: carried out on real patients, with the rules loosened and with the defaults."""

from __future__ import annotations

import pytest

from attacks.disclosure.disclosure_setting import Attacker, Victim, total, victims
from kakoi.contract.model import Parameter
from support.clinic import needs_shared

pytestmark = needs_shared
SELECT = "SELECT count(*) AS people, avg(chol) AS mean FROM heart WHERE chol > 0"
COLUMNS = ("count:people", "value:mean")


def by_two_queries(attacker: Attacker, victim: Victim) -> float | None:
    """Everybody's mean, and everybody's but one: the difference is that one's value."""
    everyone = total(attacker.ask(SELECT, *COLUMNS))
    others = total(attacker.ask(f"{SELECT} AND NOT ({victim.sql})", *COLUMNS))
    return None if everyone is None or others is None else everyone[1] - others[1]


@pytest.mark.parametrize("victim", victims(1) if not needs_shared.args[0] else [], ids=str)
def test_two_queries_that_differ_in_one_person(victim: Victim) -> None:
    assert by_two_queries(Attacker(on=False), victim) == pytest.approx(victim.chol, abs=1e-3)
    assert by_two_queries(Attacker(on=True), victim) is None


def by_parameter(attacker: Attacker, victim: Victim) -> float | None:
    """One approved query, asked twice with another age: the oldest two people drop out one after another."""
    age = (Parameter(name="age", type="integer", minimum="0", maximum="120", choices=()),)
    source = f"{SELECT} AND (age < $age OR NOT (sex = {victim.sex} AND cp = {victim.cp}))"
    with_them = total(attacker.ask(source, *COLUMNS, parameters=age, age=victim.age + 1))
    without = total(attacker.ask(source, *COLUMNS, parameters=age, age=victim.age))
    return None if with_them is None or without is None else with_them[1] - without[1]


def test_changing_a_parameter() -> None:
    (victim,) = victims(1)
    assert by_parameter(Attacker(on=False), victim) == pytest.approx(victim.chol, abs=1e-3)
    assert by_parameter(Attacker(on=True), victim) is None


def by_tracker(attacker: Attacker, victim: Victim) -> float | None:
    """Denning and Schlörer's general tracker: with T any large group, q(C) = q(C or T) + q(C or not T) - q(T) - q(not T)."""
    group = "sex = 1"
    conditions = (f"({victim.sql}) OR {group}", f"({victim.sql}) OR NOT ({group})", group, f"NOT ({group})")
    found = [total(attacker.ask(f"{SELECT} AND ({c})", *COLUMNS)) for c in conditions]
    sums = [item[1] for item in found if item is not None]
    return sums[0] + sums[1] - sums[2] - sums[3] if len(sums) == 4 else None


def test_the_tracker() -> None:
    (victim,) = victims(1)
    assert by_tracker(Attacker(on=False), victim) == pytest.approx(victim.chol, abs=1e-3)
    assert by_tracker(Attacker(on=True), victim) is None


def from_two_tables(attacker: Attacker) -> list[int]:
    """Small cells as what a table by hospital has more than the shown cells of a table by hospital and age band."""
    by_site = attacker.ask(
        "SELECT site, count(*) AS people, avg(age) AS mean FROM heart GROUP BY site", "group:site", *COLUMNS
    )
    band = "CASE WHEN age < 35 THEN 'young' WHEN age < 75 THEN 'middle' ELSE 'old' END"
    query = f"SELECT site, {band} AS band, count(*) AS people, avg(age) AS mean FROM heart GROUP BY site, band"  # noqa: S608
    crossed = attacker.ask(
        query,
        "group:site",
        "group:band",
        *COLUMNS,
    )
    learned = []
    for row in by_site.rows():
        cells = [cell["people"] for cell in crossed.rows() if cell["site"] == row["site"]]
        if row["people"] is not None and None not in cells:
            learned.append(int(row["people"]) - sum(int(count or 0) for count in cells))
    return learned


def test_a_small_cell_from_two_tables() -> None:
    """With the minimum cell alone the two tables give a small cell away; with the ledger no hospital is left with one unknown."""
    without_ledger = Attacker(on=True)
    without_ledger.clinic.ledger = None
    assert any(0 < count < 3 for count in from_two_tables(without_ledger))
    assert not any(0 < count < 3 for count in from_two_tables(Attacker(on=True)))
