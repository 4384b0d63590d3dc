"""Everything in the threat model that can be tried from outside is tried by the red team, or it is written down why not."""

from __future__ import annotations

import re

import pytest

from kakoi.cli.redteam.command import ATTACKS
from kakoi.cli.redteam.left_out import _REASONS, LEFT_OUT
from support.tree import ROOT

LINES = re.findall(r"(?m)^\| (T\d+) \|", (ROOT / "THREAT_MODEL.md").read_text("utf-8"))
TRIED = {threat for attack in ATTACKS for threat in (attack.threat, *attack.also)}


def unexplained(lines: set[str], tried: set[str], left_out: set[str]) -> dict[str, set[str]]:
    """Lines that nobody tries and nobody explains, lines that are both, and names that the threat model does not have."""
    return {
        "neither": lines - tried - left_out,
        "both": tried & left_out,
        "unknown": (tried | left_out) - lines,
    }


def test_every_line_is_tried_or_has_a_reason() -> None:
    assert len(LINES) == len(set(LINES)) > 100
    assert not any(unexplained(set(LINES), TRIED, set(LEFT_OUT)).values()), unexplained(
        set(LINES), TRIED, set(LEFT_OUT)
    )


def test_a_reason_is_a_sentence_and_a_line_has_one() -> None:
    assert sum(len(threats) for threats in _REASONS.values()) == len(LEFT_OUT)
    assert all(len(reason.split()) >= 8 for reason in LEFT_OUT.values())
    assert len(TRIED) >= 45, "more reasons than attacks would be no exercise"


@pytest.mark.parametrize(
    ("lines", "tried", "left_out", "wrong"),
    [
        ({"T1"}, set(), set(), "neither"),
        ({"T1"}, {"T1"}, {"T1"}, "both"),
        ({"T1"}, {"T1"}, {"T2"}, "unknown"),
        ({"T1"}, {"T1", "T3"}, set(), "unknown"),
    ],
)
def test_what_the_comparison_finds(lines: set[str], tried: set[str], left_out: set[str], wrong: str) -> None:
    found = unexplained(lines, tried, left_out)
    assert [name for name, names in found.items() if names] == [wrong]
