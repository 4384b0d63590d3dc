"""Attacks on noise, carried out against the real engine and gate over real patients, and measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from statistics import mean, pstdev

import pytest

from attacks.disclosure.disclosure_setting import Attacker, everybody, heart, victims
from kakoi.contract.model import Parameter
from kakoi.contract.rules import DisclosureRules
from kakoi.core.errors import Refused
from kakoi.enclave.engines import sql_engine
from kakoi.enclave.exact import ExactTable
from kakoi.enclave.gate.model import ReleasedTable
from kakoi.enclave.gate.release import judge
from kakoi.enclave.job import Job, Result
from support.clinic import RULES, needs_shared
from support.clinic import output as declared_output
from unit.engines.parts import column, job, output, table
from unit.gate.gate_setting import analysis

pytestmark = needs_shared

NOISY = replace(RULES, epsilon_per_run="1", epsilon_budget="20")
COUNT = "SELECT sex, count(*) AS people FROM heart GROUP BY sex"
ONE_VALUE = ("count:people", "value:mean")


@cache
def attacker(rules: DisclosureRules = NOISY) -> Attacker:
    return Attacker(on=True, rules=rules)


def test_averaging_repeated_answers_gives_nothing() -> None:
    """A hundred answers of the same question are one answer."""
    answers = {attacker().ask(COUNT, "group:sex", "count:people").released.encode() for _ in range(10)}
    assert len(answers) == 1


def test_asking_with_other_words_costs_again_and_gives_other_noise() -> None:
    """The mean over k wordings has noise smaller by the root of k, and has cost k times as much: that is the accountant's business."""
    conditions = ["TRUE", "age > 0", "age >= 1", "NOT age < 0", "age < 200", "age BETWEEN 1 AND 199"]
    counts = [
        attacker().ask(f"SELECT count(*) AS people FROM heart WHERE {condition}", "count:people").cell("people")  # noqa: S608 - a test
        for condition in conditions
    ]
    assert len(set(counts)) > 1
    assert all(abs(count - len(everybody())) < 20 for count in counts)


def test_a_difference_of_two_queries_hides_the_one_who_differs() -> None:
    """All but the victim are asked about, then all. Without noise the difference is the victim's cholesterol; with it, it lies within
    hundreds of it, and the rule on small cohorts did not have to hold anything back."""
    errors_on: list[float] = []
    errors_off: list[float] = []
    everything = "SELECT count(*) AS people, sum(chol) AS total FROM heart"
    for victim in victims(3):
        for rules, errors in ((NOISY, errors_on), (replace(RULES, cohort_difference=1), errors_off)):
            asked = Attacker(on=True, rules=rules)
            asked.clinic.ledger = None
            one = asked.ask(everything, "count:people", "value:total").cell("total")
            two = asked.ask(f"{everything} WHERE NOT ({victim.sql})", "count:people", "value:total").cell("total")
            errors.append(abs(one - two - victim.chol))
    assert max(errors_off) < 1e-6, "the attack works where there is no noise"
    assert mean(errors_on) > 300, "noise of a range of 700 with half of epsilon has a mean of 2 000 in each answer"


def test_an_opt_out_cannot_be_subtracted() -> None:
    """The same question before and after somebody opted out has other noise: else the difference would be that person."""
    from kakoi.enclave.keeper.opt_out import Listed, OptOuts
    from kakoi.wire.messages import RunRequest
    from kakoi.wire.release import noise_id

    room = attacker().clinic
    room.analyses = [attacker().analysis(COUNT, "group:sex", "count:people")]
    agreement = room.agreement()
    request = RunRequest(
        contract=agreement.id,
        analysis=next(iter(agreement.analyses.values())).id,
        parameters=(),
        party=room.analyst.id,
        nonce=bytes(32),
        requested_at=0,
    )
    lists = OptOuts()
    before = noise_id(agreement, request, lists.names)
    assert before == noise_id(agreement, replace(request, nonce=bytes([1]) * 32, requested_at=9), lists.names)
    lists.add(next(iter(agreement.manifests)), Listed(column="x", descriptor=-1, name="0" * 32))
    assert noise_id(agreement, request, lists.names) != before


def test_no_group_is_absent_and_none_is_present_because_of_somebody() -> None:
    """Switzerland has patients of every kind; a cohort of nobody shows the same rows."""
    columns = ("group:cp", "group:num", "group:site", "count:people")
    source = "SELECT cp, num, site, count(*) AS people FROM heart WHERE age > $least GROUP BY cp, num, site"
    parameter = Parameter(name="least", type="integer", minimum="0", maximum="120", choices=())
    shapes = set()
    for least in (0, 76, 119):
        found = attacker().ask(source, *columns, parameters=(parameter,), least=least)
        (released,) = found.released.outputs
        assert isinstance(released, ReleasedTable)
        shapes.add(tuple(c.cells for c in released.columns if c.role == "group"))
        assert not released.rows_withheld
        assert all(not c.held_back for c in released.columns)
        assert {d.action for d in found.released.decisions} == {"released", "rounded", "noised"}
    (labels,) = shapes
    assert len(labels[0]) == 5 * 6 * 4


def test_published_counts_are_within_their_intervals() -> None:
    found = attacker().ask(
        "SELECT sex, site, count(*) AS people, avg(age) AS mean FROM heart GROUP BY sex, site",
        *("group:sex", "group:site", "count:people", "value:mean"),
    )
    (released,) = found.released.outputs
    assert isinstance(released, ReleasedTable)
    groups = everybody().groupby(["sex", "site"])["age"]
    truth = {key: {"size": len(ages), "mean": ages.mean()} for key, ages in groups}
    inside = []
    for place, row in enumerate(found.rows()):
        exact = truth.get((int(row["sex"] or -1), row["site"]))
        for noise, name in zip(released.noise, ("size", "mean"), strict=True):
            if exact is not None:
                inside.append(float(noise.low[place] or 0) <= exact[name] <= float(noise.high[place] or 0))
    assert len(inside) == 16
    assert sum(inside) >= 15


# The gate's own noise, on neighbouring answers, under many keys -------------------------------------------------------

QUERY = "SELECT sex, count(*) AS people, avg(age) AS mean, median(age) AS middle FROM t GROUP BY sex"
SHAPE = ("group:sex", "count:people", "value:mean", "value:middle")
TABLE = table("t", [column("sex", codes=("1", "2")), column("age", minimum="0", maximum="10")], sites=("A",))


def exact_answer(people: Sequence[tuple[int, int]]) -> bytes:
    """The SQL engine's own answer about these people (sex, age)."""
    import pyarrow as pa

    from unit.engines.parts import parquet, part_fds

    made: Job = replace(job(QUERY, [TABLE], [output("o", *SHAPE)]), rows_per_person=1)
    rows = pa.table(
        {"sex": pa.array([s for s, _ in people], pa.int64()), "age": pa.array([a for _, a in people], pa.int64())}
    )
    with part_fds(made, [parquet(rows)]) as parts:
        result = sql_engine.run(
            made, [p.descriptor for p in parts], memory_megabytes=128, threads=1, milliseconds=10_000
        )
    assert isinstance(result.outputs[0], ExactTable)
    return result.encode()


def keys(count: int) -> Iterator[bytes]:
    return (number.to_bytes(32, "big") for number in range(count))


def outcomes(answer: bytes, rules: DisclosureRules, count: int) -> list[tuple[str | None, ...]]:
    """What leaves under each key: the cells of the first row."""
    found = []
    declared = analysis(OUTPUT, source=QUERY)
    for key in keys(count):
        released = judge(answer, declared, [rules], noise_key=key).released
        (one,) = released.outputs
        assert isinstance(one, ReleasedTable)
        found.append(tuple(c.cells[0] for c in one.columns))
    return found


OUTPUT = declared_output("o", *SHAPE)
PEOPLE = [(1, 0), (1, 3), (1, 10), (2, 5)]


@pytest.mark.slow
@pytest.mark.parametrize("gone", [0, 2, 3], ids=["lowest", "highest", "other-cell"])
def test_one_person_changes_the_odds_of_no_result_by_more_than_epsilon(gone: int) -> None:
    """The gate's privacy loss, estimated: with and without one person, over thousands of keys, for every number by itself.

    Of each column's outcomes the likelier ones with the person are an event; its probability must not exceed e^epsilon times that without,
    beyond four standard deviations. The full epsilon is the bound although each column has only its share of it.
    """
    draws, rules = 3000, replace(NOISY, epsilon_per_run="1")
    with_them = outcomes(exact_answer(PEOPLE), rules, draws)
    without = outcomes(exact_answer(PEOPLE[:gone] + PEOPLE[gone + 1 :]), rules, draws)
    for place, share in ((1, Fraction(1, 4)), (2, Fraction(1, 2)), (3, Fraction(1, 4))):
        for one, other in ((with_them, without), (without, with_them)):
            loss, doubt = privacy_loss([row[place] for row in one], [row[place] for row in other])
            assert loss <= float(share) + doubt


@pytest.mark.slow
def test_the_audit_finds_noise_that_is_too_small() -> None:
    """The same audit of a gate that believes a reach four times too small: it is caught."""
    draws = 3000
    strong = replace(NOISY, epsilon_per_run="4")
    with_them = outcomes(exact_answer(PEOPLE), strong, draws)
    without = outcomes(exact_answer(PEOPLE[1:]), strong, draws)
    loss, doubt = privacy_loss([row[1] for row in with_them], [row[1] for row in without])
    assert loss > 0.25 + doubt


def privacy_loss(one: Sequence[str | None], other: Sequence[str | None]) -> tuple[float, float]:
    """The largest log ratio over events "at least t" and "at most t", and four of its standard deviations."""
    values = [[float(cell) if cell is not None else -1e9 for cell in cells] for cells in (one, other)]
    worst = (0.0, 1.0)
    for threshold in sorted(set(values[0])):
        for above in (True, False):
            hits = [sum((v >= threshold) is above for v in part) for part in values]
            if min(hits) < 30:
                continue
            loss = math.log(hits[0] / len(one)) - math.log(hits[1] / len(other))
            doubt = 4 * math.sqrt(1 / hits[0] + 1 / hits[1])
            worst = max(worst, (loss, doubt), key=lambda found: found[0] - found[1])
    return worst


def test_no_answer_has_holes_that_give_the_exact_one_away() -> None:
    """Mironov's attack needs outputs that one answer can give and its neighbour cannot. Counts are whole numbers, all of them reachable."""
    one = Counter(row[1] for row in outcomes(exact_answer(PEOPLE), NOISY, 600))
    other = Counter(row[1] for row in outcomes(exact_answer(PEOPLE[1:]), NOISY, 600))
    assert all(float(cell or "x").is_integer() for cell in one + other)
    assert {str(n) for n in range(-3, 9)} <= set(one) & set(other)


def test_the_same_key_is_of_no_use_for_another_answer() -> None:
    """Noise that stayed the same while the answer changed by one would be subtracted. It does not."""
    differences = [
        int(a[1] or 0) - int(b[1] or 0)
        for a, b in zip(
            outcomes(exact_answer(PEOPLE), NOISY, 200), outcomes(exact_answer(PEOPLE[1:]), NOISY, 200), strict=True
        )
    ]
    assert pstdev(differences) > 4
    assert Counter(differences)[1] < 60


def test_without_the_key_nothing_leaves_and_python_cannot_claim_a_small_reach() -> None:
    answer = exact_answer(PEOPLE)
    with pytest.raises(Exception, match=r"gate\.noise-key"):
        judge(answer, analysis(OUTPUT, source=QUERY), [NOISY])
    with pytest.raises(Refused, match=r"gate\.noise\]"):
        judge(answer, replace(analysis(OUTPUT, source=QUERY), engine="python"), [NOISY], noise_key=bytes(32))
    with pytest.raises(Refused, match=r"gate\.undeclared"):
        judge(answer, analysis(OUTPUT, source=QUERY), [RULES])
    assert heart()
    assert Result.decode(answer).outputs
