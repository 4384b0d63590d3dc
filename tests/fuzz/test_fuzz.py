"""Every fuzz target: its seeds are good, damaged seeds raise only our errors, and the fuzzer finds nothing in ten seconds each.

``KAKOI_FUZZ_SECONDS`` makes it longer. What breaks a target is kept in the test's folder as ``crash-…``.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import targets

FUZZ = Path(__file__).with_name("harness.py")
SECONDS = os.environ.get("KAKOI_FUZZ_SECONDS", "10")
FOREIGN = {"verdict-record"}
"""Targets whose seeds only resemble good input."""


def test_the_list_is_whole() -> None:
    assert len(targets.TARGETS) == len(targets.PARSERS) + len(targets.VERIFIERS) + len(targets.SIGNED) > 50


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds_are_good_and_damaged_ones_raise_only_our_errors(name: str) -> None:
    target = targets.TARGETS[name]
    seeds = target.seeds()
    assert seeds
    for seed in seeds:
        if name not in FOREIGN:
            target.run(seed)
        chance = random.Random(f"{name}")
        for _ in range(12):
            damaged = bytearray(seed)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(damaged) + 1)
                damaged[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            targets.check(target, bytes(damaged))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_short_inputs(name: str) -> None:
    for data in (b"", b"\0", b"\xff", b"{", b"[", b"0" * 40, bytes(100), b"\xff" * 100):
        targets.check(targets.TARGETS[name], data)


def fuzz(name: str, seconds: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FUZZ), name, seconds, str(folder)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_fuzzer_finds_a_planted_bug(tmp_path: Path) -> None:
    done = fuzz("planted", "60", tmp_path)
    assert done.returncode != 0
    assert [path.read_bytes()[:4] for path in tmp_path.glob("crash-*")] == [b"Kako"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", targets.TARGETS)
def test_coverage_guided(name: str, tmp_path: Path) -> None:
    done = fuzz(name, SECONDS, tmp_path)
    broken = [path.name for path in tmp_path.iterdir() if path.name != "corpus"]
    assert (done.returncode, broken) == (0, []), done.stderr[-3000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None
    assert int(runs[1]) > 20, "expected the target to be tried more often"
