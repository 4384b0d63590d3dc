"""Every line of the threat model names a test that exists, under ``tests/attacks``; ids are not used twice."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from support.tree import ROOT, functions, parsed

LINE: Final = re.compile(r"^\| (T\d+) \|(.*)\|$", re.MULTILINE)
TEST: Final = re.compile(r"`(tests/[^`]+)`")


@cache
def lines() -> dict[str, str]:
    """Lines by id."""
    found = LINE.findall((ROOT / "THREAT_MODEL.md").read_text("utf-8"))
    assert len({identity for identity, _ in found}) == len(found), "an id is used twice"
    return dict(found)


def missing(reference: str) -> str:
    """Why a reference names no attack test; empty if it names one."""
    path, _, name = reference.partition("::")
    place = ROOT / path
    if not place.exists():
        return f"{path} does not exist"
    if not place.is_relative_to(ROOT / "tests/attacks"):
        return f"{path} is not under tests/attacks"
    if place.is_dir():
        return "" if any(place.rglob("test_*.py")) and not name else f"{path} has no tests"
    names = {function.name for function in functions(parsed(place))}
    return "" if not name or name.partition("[")[0] in names else f"{path} has no test {name}"


@pytest.mark.parametrize("identity", lines())
def test_a_line_names_tests_that_exist(identity: str) -> None:
    references = TEST.findall(lines()[identity])
    assert references, "a threat without a test does not belong there"
    assert [why for reference in references if (why := missing(reference))] == []


def test_this_check_can_fail() -> None:
    here = Path(__file__).relative_to(ROOT).as_posix()
    assert len(lines()) > 40
    assert missing("tests/attacks/test_attack_nothing.py")
    assert missing("tests/attacks/test_attack_jobs.py::test_nothing")
    assert missing(here)
    assert not missing("tests/attacks/sql")
