"""Ways to tell whether two cohorts differ in fewer than k people, held against the truth (docs/adr/0100).

    python -m bench sketches        a minute

Pairs of cohorts of a made-up population of 20,000: the same people; different in 1 … k-1 (must be refused: what passes is a false accept);
different in k, k+1, 2k, 10k or half (must pass: what is refused is a false refusal).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from kakoi.enclave.gate.cohorts import different_people
from kakoi.enclave.job import COHORT_PRIME

POPULATION: Final = 20_000
PAIRS: Final = 60
SIZES: Final = (20, 200, 2000)
Row = tuple[str, float, str]
Cohort = frozenset[int]
Sketch = Callable[[Cohort, int], object]
Near = Callable[[object, object, int], bool]


def _hash(person: int, salt: int) -> int:
    return int.from_bytes(
        blake2b(person.to_bytes(8, "big"), digest_size=8, salt=salt.to_bytes(8, "big")).digest(), "big"
    )


HASHES: Final = [[_hash(person, salt) for person in range(POPULATION)] for salt in range(2)]


def digest(cohort: Cohort, k: int) -> object:
    """A keyed digest of the whole cohort: tells equal from different and nothing else."""
    return sum(HASHES[0][p] for p in cohort) & (2**64 - 1)


def never(one: object, other: object, k: int) -> bool:
    return False


def bottom(cohort: Cohort, k: int) -> object:
    """Bottom-1024 sketch (MinHash): the 1024 smallest hashes."""
    return sorted(HASHES[0][p] for p in cohort)[:1024]


def bottom_near(one: object, other: object, k: int) -> bool:
    """Estimated symmetric difference below k. Jaccard by the smallest 1024 of the union."""
    a, b = set(one), set(other)  # type: ignore[call-overload]
    union = sorted(a | b)[:1024]
    both = sum(1 for item in union if item in a and item in b)
    share = both / max(1, len(union))
    kth = max(union, default=1) / 2**64
    size = len(union) if len(union) < 1024 else len(union) / kth
    return bool(share < 1 and (1 - share) * size < k)


def odd(cohort: Cohort, k: int) -> object:
    """Odd sketch of 1024 bits: the parity of each bucket."""
    bits = 0
    for person in cohort:
        bits ^= 1 << (HASHES[0][person] % 1024)
    return bits


def odd_near(one: object, other: object, k: int) -> bool:
    different = (one ^ other).bit_count()  # type: ignore[operator]
    return bool(0 < different < k)


def tug(cohort: Cohort, k: int) -> object:
    """Tug-of-war sketch (AMS) of 64 counters: each the sum of ±1 over the cohort."""
    return [sum(1 if HASHES[0][p] >> bit & 1 else -1 for p in cohort) for bit in range(64)]


def tug_near(one: object, other: object, k: int) -> bool:
    squares = [(a - b) ** 2 for a, b in zip(one, other, strict=True)]  # type: ignore[call-overload]
    estimate = sum(squares) / len(squares)
    return bool(0 < estimate < k)


def power(cohort: Cohort, k: int) -> object:
    """2k power sums modulo 2^31 - 1."""
    points = [HASHES[0][p] % (COHORT_PRIME - 1) + 1 for p in cohort]
    out, powers = [], [1] * len(points)
    for _ in range(2 * k):
        out.append(sum(powers) % COHORT_PRIME)
        powers = [a * b % COHORT_PRIME for a, b in zip(powers, points, strict=True)]
    return tuple(out)


def power_near(one: object, other: object, k: int) -> bool:
    return 1 <= different_people(one, other, most=k) < k  # type: ignore[arg-type]


SKETCHES: Final[dict[str, tuple[Sketch, Near, Callable[[int], int]]]] = {
    "digest": (digest, never, lambda k: 8),
    "bottom-1024": (bottom, bottom_near, lambda k: 8192),
    "odd sketch, 1024 bits": (odd, odd_near, lambda k: 128),
    "tug of war, 64 counters": (tug, tug_near, lambda k: 256),
    "power sums": (power, power_near, lambda k: 8 * k),
}


def _pair(size: int, different: int, chance: random.Random) -> tuple[Cohort, Cohort]:
    people = chance.sample(range(POPULATION), size + different)
    gone = chance.randint(0, min(different, size - 1))
    return frozenset(people[:size]), frozenset(people[gone : size + different - gone])


def _different(size: int, wanted: int, chance: random.Random) -> tuple[Cohort, Cohort]:
    one, other = _pair(size, wanted, chance)
    while len(one ^ other) != wanted:
        extra = chance.sample(range(POPULATION), size + wanted)
        out = chance.randint(0, min(wanted, size - 1))
        one = frozenset(extra[:size])
        other = frozenset([*extra[out:size], *extra[size : size + wanted - out]])
    return one, other


def run() -> list[Row]:
    """Errors of each sketch, in percent of the pairs."""
    chance = random.Random(20261125)
    rows: list[Row] = []
    for k in (3, 10):
        for name, (sketch, near, size_of) in SKETCHES.items():
            accepted, refused = _errors(sketch, near, k, chance)
            detail = f"{size_of(k)} bytes, k = {k}, {PAIRS * len(SIZES)} pairs"
            rows += [
                (f"{name}: false accept, %", 100 * accepted, detail),
                (f"{name}: false refusal, %", 100 * refused, detail),
            ]
    return rows


def _errors(sketch: Sketch, near: Near, k: int, chance: random.Random) -> tuple[float, float]:
    few, many = list(range(1, k)), [k, k + 1, 2 * k, 10 * k]
    missed = refused = 0
    for size in SIZES:
        for number in range(PAIRS):
            one, other = _different(size, few[number % len(few)], chance)
            missed += not near(sketch(one, k), sketch(other, k), k)
            one, other = _different(size, many[number % len(many)], chance)
            refused += near(sketch(one, k), sketch(other, k), k) or near(sketch(one, k), sketch(one, k), k)
    return missed / (PAIRS * len(SIZES)), refused / (PAIRS * len(SIZES))
