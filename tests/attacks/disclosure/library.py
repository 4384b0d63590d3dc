"""Attacks on single people through what leaves, each carried out on real patients and measured with the gate off and on.

``learned`` is the share of a few real patients about whom the attacker ends up right: a cholesterol value to within one, a diagnosis, or a
number of people in a small cell. With the gate off an attack must succeed, or it would not show that the gate is what stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from attacks.disclosure import membership
from attacks.disclosure.disclosure_setting import Attacker, Victim, everybody, total, victims
from attacks.disclosure.test_attack_differencing import by_parameter, by_tracker, by_two_queries
from kakoi.core.errors import Refused
from kakoi.enclave.gate.complement import Row
from support.clinic import Answer, output, shared_engine
from unit.gate.optimal import interval

PEOPLE: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack: what is tried, ``learned`` with the gate off (False) or on (True), and what stands against it."""

    name: str
    tries: str
    measure: str
    learned: Callable[[bool], float]
    rule: str
    at_least: float = 0.75
    """What must be learned with the gate off ..."""
    at_most: float = 0.0
    """... and what may be with it on."""


def _share(guess: Callable[[Attacker, Victim], float | None]) -> Callable[[bool], float]:
    """Victims whose cholesterol was found. Each has an attacker of its own, who has asked nothing before."""

    def learned(on: bool) -> float:
        people = victims(PEOPLE)
        right = 0
        for victim in people:
            try:
                found = guess(Attacker(on=on), victim)
            except Refused:
                found = None
            right += found is not None and abs(found - victim.chol) <= 1
        return right / len(people)

    return learned


def _number(row: dict[str, str | None], column: str) -> float | None:
    cell = row[column]
    return None if cell is None else float(cell)


def single_cell(attacker: Attacker, victim: Victim) -> float | None:
    """A table so fine that the victim is alone in a cell."""
    answer = attacker.ask(
        "SELECT age, sex, cp, count(*) AS people, avg(chol) AS mean FROM heart WHERE chol > 0 GROUP BY age, sex, cp",
        *("group:age", "group:sex", "group:cp", "count:people", "value:mean"),
    )
    wanted = {"age": str(victim.age), "sex": str(victim.sex), "cp": str(victim.cp)}
    found = [row for row in answer.rows() if wanted.items() <= row.items()]
    return _number(found[0], "mean") if found else None


def filter_then_mean(attacker: Attacker, victim: Victim) -> float | None:
    """The mean of those whom a condition leaves: the victim."""
    found = total(
        attacker.ask(
            f"SELECT count(*) AS people, avg(chol) AS mean FROM heart WHERE {victim.sql}",  # noqa: S608
            *("count:people", "value:mean"),
        )
    )
    return None if found is None else found[1]


def weighted_sum(attacker: Attacker, victim: Victim) -> float | None:
    """A sum over everybody in which everybody else counts nothing."""
    answer = attacker.ask(
        f"SELECT count(*) AS people, sum(CASE WHEN {victim.sql} THEN chol ELSE 0 END) AS v FROM heart WHERE chol > 0",  # noqa: S608
        *("count:people", "value:v"),
    )
    return _number(answer.rows()[0], "v")


def dominating_sum(attacker: Attacker, victim: Victim) -> float | None:
    """A sum over everybody in which the victim counts a million times as much as all others."""
    answer = attacker.ask(
        f"SELECT count(*) AS people, sum(CASE WHEN {victim.sql} THEN chol * 1000000000 ELSE chol END) AS v FROM heart WHERE chol > 0",  # noqa: S608
        *("count:people", "value:v"),
    )
    found = _number(answer.rows()[0], "v")
    return None if found is None else found / 1e9


def diagnosis_by_presence(on: bool) -> float:
    """Which row is there, when one person is asked about by diagnosis."""
    people, everyone = victims(PEOPLE), everybody()
    right = 0
    for victim in people:
        answer = Attacker(on=on).ask(
            f"SELECT num, count(*) AS people FROM heart WHERE {victim.sql} GROUP BY num",  # noqa: S608
            *("group:num", "count:people"),
        )
        told = [row["num"] for row in answer.rows()]
        alone = everyone[(everyone.age == victim.age) & (everyone.sex == victim.sex) & (everyone.cp == victim.cp)]
        right += told == [str(alone["num"].iloc[0])]
    return right / len(people)


def _pain_by_diagnosis(on: bool) -> Answer:
    """Pain by diagnosis in one hospital, with all totals."""
    return Attacker(on=on).ask(
        "SELECT cp, num, count(*) AS people FROM heart WHERE site = 'Cleveland' GROUP BY CUBE (cp, num)",
        *("group:cp", "group:num", "count:people"),
    )


def margins_by_program(on: bool) -> float:
    """Small counts that a program pins down from everything else in the table.

    With the gate off the attacker sees the small counts themselves; a table with only those removed (no complementary
    suppression) is the one that statistical offices warn of, and is what the gate's answer is compared with in the test.
    """
    truth = {_labels(row): int(row["people"] or 0) for row in _pain_by_diagnosis(False).rows()}
    shown = {_labels(row): row["people"] for row in _pain_by_diagnosis(on).rows()}
    return pinned_down(truth, {key: int(cell) for key, cell in shown.items() if cell is not None})


def _labels(row: dict[str, str | None]) -> tuple[str | None, ...]:
    return row["cp"], row["num"]


def pinned_down(truth: dict[tuple[str | None, ...], int], shown: dict[tuple[str | None, ...], int]) -> float:
    """The share of small cells (of one or two people) of which the attacker's program leaves one value."""
    keys = list(truth)
    # A missing label stands for a total here: nobody's diagnosis or pain is missing in this hospital.
    rows = [
        Row(labels=key, mask=sum(1 << place for place, label in enumerate(key) if label is None), people=truth[key])
        for key in keys
    ]
    hidden = frozenset(i for i, key in enumerate(keys) if key not in shown)
    small = [i for i, key in enumerate(keys) if 0 < truth[key] < 3]
    known = 0
    for place in small:
        if place not in hidden:
            known += 1
            continue
        low, high = interval(rows, hidden, place)
        known += high - low < 1e-6
    return known / len(small)


def digits_of_a_number(on: bool) -> float:
    """A Python analysis hides it in the eleventh digit of an honest mean."""
    return _by_python(
        on,
        "    rows = heart.groupby('sex', as_index=False).agg(people=('age', 'size'), v=('age', 'mean'))\n"
        "    rows['v'] = rows['v'].round(8) + (4e-10 if high else 0.0)\n"
        "    return {'o': rows}\n",
        lambda answer: any(len(str(row["v"]).partition(".")[2]) > 8 for row in answer.rows()),
        *("group:sex", "count:people", "value:v"),
    )


def _by_python(on: bool, body: str, read: Callable[[Answer], bool], *columns: str) -> float:
    """The share of victims whose one bit comes through, above guessing: 0 is a coin, 1 is certainty."""
    people = _both_kinds()
    right = 0
    for victim, high in people:
        source = (
            "def analyse(tables, parameters):\n    heart = tables['heart'].dropna(subset=['sex'])\n"
            f"    one = heart[(heart.age == {victim.age}) & (heart.sex == {victim.sex}) & (heart.cp == {victim.cp})]\n"
            "    high = float(one['chol'].iloc[0]) > 250\n" + body
        )
        attacker = Attacker(on=on, engine="python")
        try:
            right += read(attacker.ask(source, *columns)) == high
        except Refused:
            right += high  # all that is left is to say the same each time
    return max(0.0, 2 * right / len(people) - 1)


def _both_kinds() -> Sequence[tuple[Victim, bool]]:
    """As many victims above 250 as below."""
    every = victims(40)
    high, low = [v for v in every if v.chol > 250][:3], [v for v in every if v.chol <= 250][:3]
    return [(v, True) for v in high] + [(v, False) for v in low]


def membership_by_residuals(on: bool) -> float:
    """Twice the area under the curve less one, of telling those whom a regression was fitted on by how well it fits them.

    The attacker takes the fewest people that the gate allows for twelve parameters; with the gate off, thirteen.
    """
    least = next(n for n in (13, 16, 20, 24, 30, 36, 37, 40) if not on or _fits(n))
    return membership.advantage(least, np.random.default_rng(7))


def _fits(people: int) -> bool:
    names = [f"b{i}" for i in range(membership.PARAMETERS)]
    source = (
        "def analyse(tables, parameters):\n"
        f"    return {{'m': {{**dict.fromkeys({names!r}, 1.0), 'basis': {people}}}}}\n"
    )
    attacker = Attacker(on=True, engine="python")
    model = output("m", *names, shape="statistics", parameters=membership.PARAMETERS)
    analysis = attacker.clinic.analysis(source, model, name="model")
    try:
        attacker.clinic.run(shared_engine(), analysis)
    except Refused as refused:
        if refused.code != "gate.statistics-parameters":
            raise
        return False
    return True


ATTACKS: Final = (
    Attack(name="single-cell", tries="read a cell of one person", measure="cholesterol", learned=_share(single_cell), rule="minimum_cell"),
    Attack(name="filter-then-mean", tries="the mean of one person", measure="cholesterol", learned=_share(filter_then_mean), rule="minimum_cell"),
    Attack(name="weighted-sum", tries="a sum in which everybody else counts nothing", measure="cholesterol", learned=_share(weighted_sum), rule="minimum_contributors of each number"),
    Attack(name="dominating-sum", tries="a sum in which everybody else counts next to nothing", measure="cholesterol", learned=_share(dominating_sum), rule="minimum_contributors of each number, dominance"),
    Attack(name="two-queries", tries="subtract two results that differ in one person", measure="cholesterol", learned=_share(by_two_queries), rule="cohort_difference"),
    Attack(name="parameter", tries="the same by changing a parameter", measure="cholesterol", learned=_share(by_parameter), rule="cohort_difference"),
    Attack(name="tracker", tries="four large queries, added up", measure="cholesterol", learned=_share(by_tracker), rule="cohort_difference"),
    Attack(name="row-presence", tries="which row is there", measure="diagnosis", learned=diagnosis_by_presence, rule="rows of too few people are not there"),
    Attack(name="margins", tries="an exact program over a table with totals", measure="small counts", learned=margins_by_program, rule="complementary suppression"),
    Attack(name="late-digits", tries="a bit in the eleventh digit of a mean", measure="one bit, above guessing", learned=digits_of_a_number, rule="max_digits"),
    Attack(name="membership", tries="who was in a model's data, by how well it fits", measure="2 AUC - 1", learned=membership_by_residuals, rule="parameters_per_person", at_most=0.4),
)  # fmt: skip
