"""The samplers: exactly the distributions they promise, the same for the same key, and no floats anywhere in them."""

from __future__ import annotations

import ast
import inspect
import math
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import opendp.prelude as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from kakoi.enclave.gate import noise
from kakoi.enclave.gate.noise import Coins, exponential, half_width, laplace, rank_width
from kakoi.enclave.gate.private import _losses

KEY = bytes(range(32))
DRAWS = 20_000
LEAST_P = 1e-6
"""Keys are fixed, so a test of ours gives the same each time; against OpenDP, which cannot be seeded, one run in a million fails."""
dp.enable_features("contrib")


def probability(x: int, scale: Fraction) -> float:
    """Of the discrete Laplace distribution."""
    q = math.exp(-1 / float(scale))
    return (1 - q) / (1 + q) * q ** abs(x)


def in_bins(drawn: list[int], most: int) -> Counter[int]:
    """Counts by value; both tails are one bin each."""
    return Counter(max(-most, min(most, x)) for x in drawn)


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(7, 3), Fraction(1, 2), Fraction(20)], ids=str)
def test_laplace_noise_has_exactly_its_distribution(scale: Fraction) -> None:
    drawn = in_bins([laplace(Coins(KEY, i), scale) for i in range(DRAWS)], most := 2 + 2 * math.ceil(scale))
    inner = {x: probability(x, scale) for x in range(1 - most, most)}
    tail = (1 - sum(inner.values())) / 2
    expected = {-most: tail, **inner, most: tail}
    assert chisquare([drawn[x] for x in expected], [DRAWS * p for p in expected.values()]).pvalue > LEAST_P


def test_opendp_draws_the_same_noise_for_the_same_epsilon() -> None:
    """An independent implementation: the scale that it says gives epsilon is ours, and so is what it draws."""
    reach, epsilon = 3, Fraction(1, 2)
    domain, metric = dp.vector_domain(dp.atom_domain(T=int)), dp.l1_distance(T=int)
    theirs: Any = dp.m.make_laplace(domain, metric, scale=float(reach / epsilon))
    assert theirs.map(reach) == pytest.approx(float(epsilon), abs=1e-12)
    ours = in_bins([laplace(Coins(KEY, i), reach / epsilon) for i in range(DRAWS)], 25)
    other = in_bins(theirs([0] * DRAWS), 25)
    table = [[drawn[x] for x in range(-25, 26)] for drawn in (ours, other)]
    assert chi2_contingency(table).pvalue > LEAST_P
    wrong = in_bins([laplace(Coins(KEY, i), Fraction(5)) for i in range(DRAWS)], 25)
    assert chi2_contingency([table[1], [wrong[x] for x in range(-25, 26)]]).pvalue < LEAST_P


@pytest.mark.parametrize("unit", [Fraction(1, 3), Fraction(2), Fraction(1, 40)], ids=str)
def test_the_exponential_mechanism_has_exactly_its_distribution(unit: Fraction) -> None:
    losses = [9, 4, 1, 1, 0, 3, 7]
    drawn = Counter(exponential(Coins(KEY, i), losses, unit) for i in range(DRAWS // 2))
    weights = [math.exp(-float(unit) * (loss - min(losses))) for loss in losses]
    expected = [w / sum(weights) * DRAWS / 2 for w in weights]
    merged: Mapping[bool, list[int]] = {
        big: [i for i, e in enumerate(expected) if (e > 5) is big] for big in (True, False)
    }
    seen = [drawn[i] for i in merged[True]] + [sum(drawn[i] for i in merged[False])]
    want = [expected[i] for i in merged[True]] + [sum(expected[i] for i in merged[False])]
    if want[-1] == 0:
        seen, want = seen[:-1], want[:-1]
    assert chisquare(seen, want).pvalue > LEAST_P


@given(st.lists(st.integers(0, 8), max_size=12), st.sampled_from([(1, 2), (1, 4), (9, 10)]))
def test_opendp_loses_as_much_at_every_candidate_of_a_quantile(values: list[int], share: tuple[int, int]) -> None:
    part, whole = share
    theirs: Any = dp.t.make_quantile_score_candidates(
        dp.vector_domain(dp.atom_domain(T=int)), dp.symmetric_distance(), list(range(9)), part / whole
    )
    scale = Fraction(theirs.map(1), max(part, whole - part))
    ours = _losses([values.count(candidate) for candidate in range(9)], part, whole)
    assert [Fraction(x) for x in theirs(values)] == [loss * scale for loss in ours]


@settings(max_examples=200)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 10**12), st.integers(1, 10**6))
def test_the_same_key_and_place_give_the_same_draw(key: bytes, top: int, bottom: int) -> None:
    scale = Fraction(top, bottom)
    assert laplace(Coins(key, 1, 2), scale) == laplace(Coins(key, 1, 2), scale)


def test_other_keys_and_places_give_unrelated_draws() -> None:
    scale = Fraction(1000)
    draws = [laplace(Coins(KEY, 1, i), scale) for i in range(2000)]
    others = [laplace(Coins(KEY, i, 1), scale) for i in range(2, 2002)]
    mean = sum(a * b for a, b in zip(draws, others, strict=True)) / 2000 / 2e6
    assert abs(mean) < 0.15, "correlated"
    assert len(set(draws)) > 1000
    assert laplace(Coins(KEY, 12), scale) != laplace(Coins(KEY, 1, 2), scale)


@given(st.integers(1, 10**9))
def test_uniform_numbers_stay_below(limit: int) -> None:
    coins = Coins(KEY, limit)
    found = [coins.below(limit) for _ in range(50)]
    assert all(0 <= x < limit for x in found)
    assert limit < 10**6 or len(set(found)) > 40


@pytest.mark.parametrize("one_in", [20, 40])
@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(2), Fraction(300), Fraction(10**9, 7)], ids=str)
def test_an_interval_is_missed_as_seldom_as_it_says(scale: Fraction, one_in: int) -> None:
    width, q = half_width(scale, one_in=one_in), math.exp(-1 / float(scale))
    beyond = 2 * q ** (width + 1) / (1 + q)
    assert beyond <= 1 / one_in
    assert scale < 100 or beyond > 0.8 / one_in, "wider than it need be"


def test_a_drawn_quantile_is_rarely_worse_than_it_says() -> None:
    losses, unit = [abs(i - 300) for i in range(1000)], Fraction(1, 10)
    bound = rank_width(unit, len(losses))
    drawn = [losses[exponential(Coins(KEY, i), losses, unit)] for i in range(400)]
    assert sum(loss > bound for loss in drawn) <= 20
    assert max(drawn) > 0


def test_samplers_compute_with_whole_numbers_only() -> None:
    """No float constant, no true division, no math: what Mironov (2012) found needs them."""
    tree = ast.parse(inspect.getsource(noise))
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, float)]
    assert constants == []
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"float", "math", "random", "secrets"}
    samplers = [
        f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name not in ("half_width", "rank_width")
    ]
    assert not [n for f in samplers for n in ast.walk(f) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)]
