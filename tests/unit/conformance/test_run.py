"""The run: each way to be wrong is told, by name, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from kakoi.conformance.adapter import Crash
from kakoi.conformance.corpus import Layer, Vector, count
from kakoi.conformance.own import OwnTarget
from kakoi.conformance.run import Report, run
from kakoi.conformance.trial import Answer, Kind, Trial
from kakoi.core.errors import Unavailable
from kakoi.core.records import to_value

Minted = Callable[[Kind], tuple[Vector, ...]]
ALL: tuple[Layer, ...] = ("verify", "appraise")


@dataclass
class Says:
    """A target that always does the same."""

    answer: Callable[[Trial], Answer | Crash]
    name: str = "always the same"
    closed: bool = False

    def ask(self, trial: Trial) -> Answer | Crash:
        return self.answer(trial)

    def close(self) -> None:
        self.closed = True


def saying(outcome: Any) -> Says:
    return Says(answer=lambda _: Answer(outcome=outcome, reason="because"))


@pytest.fixture(name="vectors")
def vectors_fixture(minted: Minted) -> tuple[Vector, ...]:
    return tuple(minted("intel-trust-authority"))


def total(report: Report, name: str) -> int:
    return sum(getattr(tally, name) for tally in report.tallies)


def test_whoever_accepts_everything_is_wrong_about_every_bad_twin(vectors: tuple[Vector, ...]) -> None:
    target = saying("accepted")
    report = run(vectors, target, sample=2)
    assert total(report, "accepted") == total(report, "twins") == len(report.findings) > 50
    assert total(report, "good_refused") == 0
    assert {finding.problem for finding in report.findings} == {"accepted"}
    assert target.closed
    ids = [finding.twin for finding in report.findings]
    assert len(set(ids)) == len(ids)


def test_whoever_refuses_everything_is_wrong_about_every_good_one(vectors: tuple[Vector, ...]) -> None:
    report = run(vectors, saying("refused"), sample=2)
    assert total(report, "good_refused") == total(report, "good") == len(report.findings) > 2
    assert {(finding.problem, finding.family) for finding in report.findings} == {("good-refused", "good")}


def test_a_verifier_that_knows_the_kind_not_at_all_is_not_judged(vectors: tuple[Vector, ...]) -> None:
    report = run(vectors, saying("unsupported"), sample=2)
    assert report.findings == ()
    assert total(report, "twins") == total(report, "good") == 0
    assert total(report, "unsupported") == count(vectors, sample=2, layers=ALL)


def test_not_knowing_a_twin_is_no_acceptance(vectors: tuple[Vector, ...]) -> None:
    good = vectors[0].groups[0].make(0)[1]

    def answer(trial: Trial) -> Answer:
        known = trial.evidence == good.evidence and trial.collateral == good.collateral
        return Answer(outcome="accepted" if known else "unsupported", reason="")

    report = run(vectors, Says(answer=answer), sample=1, layers=("verify",))
    assert total(report, "unsupported") == 0
    assert {finding.group.split(".")[0] for finding in report.findings} <= {"time", "chain", "collateral", "binding"}


def test_silence_and_foreign_exceptions_are_findings(vectors: tuple[Vector, ...]) -> None:
    few = [replace(vectors[0], groups=vectors[0].groups[:3])]
    silent = run(few, Says(answer=lambda _: Crash(reason="exit code 134")), sample=2)
    assert {(f.problem, f.reason) for f in silent.findings} == {("crashed", "exit code 134")}

    def raise_it(trial: Trial) -> Answer:
        raise IndexError("index out of range")

    broken = run(few, Says(answer=raise_it), sample=2)
    assert {(f.problem, f.reason) for f in broken.findings} == {("crashed", "IndexError: index out of range")}
    assert total(broken, "crashed") == len(broken.findings)


def test_a_target_that_is_dead_stops_the_run(vectors: tuple[Vector, ...]) -> None:
    target = Says(answer=lambda _: Crash(reason="gone"))
    with pytest.raises(Unavailable) as caught:
        run(vectors, target, sample=None)
    assert caught.value.code == "conformance.silent"
    assert target.closed


def test_only_our_own_are_held_to_the_reason(vectors: tuple[Vector, ...]) -> None:
    class Vague(OwnTarget):
        """Ours, but for the reason that it gives."""

        def ask(self, trial: Trial) -> Answer:
            answer = super().ask(trial)
            return replace(answer, reason="something" if answer.outcome == "refused" else "")

    ours = run(vectors, Vague(), sample=1)
    assert {finding.problem for finding in ours.findings} == {"another-reason"}
    assert total(ours, "another_reason") == len(ours.findings) > 10
    others = run(vectors, Says(answer=Vague().ask), sample=1)
    assert others.findings == ()


def test_progress_is_told_and_reports_are_records(vectors: tuple[Vector, ...]) -> None:
    heard: list[int] = []
    report = run(vectors, saying("accepted"), sample=1, tell=heard.append)
    assert heard == sorted(heard)
    assert heard
    assert Report.decode(report.encode()) == report
    assert to_value(report)["kind"] == "kakoi/conformance-report/v1"
