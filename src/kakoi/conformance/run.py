"""Ask a target about every twin, and tell what it got wrong.

Four ways to be wrong: a bad twin accepted; a good vector refused; no answer at all, or an exception that is not an
error of ours; and, for our own verifiers only, a refusal for another reason than the one thing that was changed, which
would mean that the check behind that thing has not been seen to work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Final, Literal, Protocol, get_args

from kakoi.attest.report import NOTE, Note
from kakoi.conformance.adapter import Crash
from kakoi.conformance.corpus import Layer, Twin, Vector, twins
from kakoi.conformance.own import OwnTarget
from kakoi.conformance.trial import Answer, Kind, Trial
from kakoi.core.errors import Unavailable
from kakoi.core.records import Limit, Record

Problem = Literal["accepted", "good-refused", "crashed", "another-reason"]
_COUNT: Final = Limit(most=2**40)
_DEAD: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Record):
    """One mistake of a target."""

    twin: Annotated[str, Limit(most=300)]
    kind_of_evidence: Kind
    group: Annotated[str, Limit(most=200)]
    family: Annotated[str, Limit(most=20)]
    layer: Annotated[str, Limit(most=20)]
    changed: Note
    problem: Problem
    reason: Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally(Record):
    """What came of one kind of evidence at one layer."""

    kind_of_evidence: Kind
    layer: Annotated[str, Limit(most=20)]
    twins: Annotated[int, _COUNT]
    accepted: Annotated[int, _COUNT]
    crashed: Annotated[int, _COUNT]
    another_reason: Annotated[int, _COUNT]
    good: Annotated[int, _COUNT]
    good_refused: Annotated[int, _COUNT]
    unsupported: Annotated[int, _COUNT]
    """Twins not tried, because the target does not know the good one's kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Record):
    """What a run found."""

    KIND: ClassVar[str] = "kakoi/conformance-report/v1"
    MAX_BYTES: ClassVar[int] = 512 * 1024 * 1024

    target: Annotated[str, Limit(most=1000)]
    sample: Annotated[int, _COUNT] | None
    vectors: Annotated[int, _COUNT]
    tallies: tuple[Tally, ...]
    findings: tuple[Finding, ...]


class Target(Protocol):
    """A verifier on trial."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    def ask(self, trial: Trial) -> Answer | Crash:
        """Its answer."""
        ...

    def close(self) -> None:
        """Done."""
        ...


@dataclass(kw_only=True)
class _Count:
    twins: int = 0
    accepted: int = 0
    crashed: int = 0
    another_reason: int = 0
    good: int = 0
    good_refused: int = 0
    unsupported: int = 0


@dataclass(kw_only=True)
class _State:
    """What is known so far."""

    counts: dict[tuple[Kind, Layer], _Count] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    """Vectors whose good one the target does not know."""
    silent: int = 0
    """Trials without an answer, one after another."""

    def count(self, twin: Twin) -> _Count:
        """The counters of the twin's kind and layer."""
        return self.counts.setdefault((twin.vector.kind, twin.group.layer), _Count())


def _asked(target: Target, trial: Trial) -> Answer | Crash:
    try:
        return target.ask(trial)
    except Exception as error:  # whatever a verifier raises that is none of our errors is what we are looking for
        return Crash(reason=f"{type(error).__name__}: {error}")


def _problem(twin: Twin, answer: Answer | Crash, *, own: bool) -> Problem | None:
    if isinstance(answer, Crash):
        return "crashed"
    if twin.group.good:
        return "good-refused" if answer.outcome == "refused" else None
    if answer.outcome == "accepted":
        return "accepted"
    expected = twin.group.reasons
    if own and expected and not any(fnmatchcase(r, p) for r in answer.reason.split() for p in expected):
        return "another-reason"
    return None


def _judge(state: _State, twin: Twin, target: Target) -> None:
    """Ask about one twin, and remember what came of it."""
    count = state.count(twin)
    if twin.vector.name in state.unknown:
        count.unsupported += 1
        return
    changed, trial = twin.group.make(twin.index)
    answer = _asked(target, trial)
    state.silent = state.silent + 1 if isinstance(answer, Crash) else 0
    if state.silent >= _DEAD:
        raise Unavailable(
            "conformance.silent",
            f"{target.name}: expected an answer to some trial, got none to {_DEAD} one after another",
            hint="try the adapter by hand: kakoi conformance --show ID writes a trial",
        )
    if isinstance(answer, Answer) and answer.outcome == "unsupported" and twin.group.good:
        state.unknown.add(twin.vector.name)
        count.unsupported += 1
        return
    if twin.group.good:
        count.good += 1
    else:
        count.twins += 1
    problem = _problem(twin, answer, own=isinstance(target, OwnTarget))
    if problem is not None:
        _remember(state, twin, changed, problem, answer.reason)


def _remember(state: _State, twin: Twin, changed: str, problem: Problem, reason: str) -> None:
    count = state.count(twin)
    name = {"accepted": "accepted", "crashed": "crashed", "another-reason": "another_reason"}.get(
        problem, "good_refused"
    )
    setattr(count, name, getattr(count, name) + 1)
    state.findings.append(
        Finding(
            twin=twin.id,
            kind_of_evidence=twin.vector.kind,
            group=twin.group.name,
            family=twin.group.family,
            layer=twin.group.layer,
            changed=changed[:NOTE],
            problem=problem,
            reason=reason[:NOTE],
        )
    )


def run(
    vectors: Sequence[Vector],
    target: Target,
    *,
    sample: int | None,
    layers: Sequence[Layer] = get_args(Layer),
    tell: Callable[[int], None] = lambda _: None,
) -> Report:
    """Try every twin of ``vectors`` on ``target``; ``tell`` hears how many are done.

    Raises Unavailable ``conformance.silent`` if the target answers nothing any more.
    """
    state = _State()
    try:
        for done, twin in enumerate(twins(vectors, sample=sample, layers=layers), 1):
            _judge(state, twin, target)
            if done % 20 == 0:
                tell(done)
    finally:
        target.close()
    return Report(
        target=target.name[:1000],
        sample=sample,
        vectors=len(vectors),
        tallies=tuple(_tallies(state)),
        findings=tuple(state.findings),
    )


def _tallies(state: _State) -> Iterable[Tally]:
    for (kind, layer), count in state.counts.items():
        yield Tally(
            kind_of_evidence=kind,
            layer=layer,
            twins=count.twins,
            accepted=count.accepted,
            crashed=count.crashed,
            another_reason=count.another_reason,
            good=count.good,
            good_refused=count.good_refused,
            unsupported=count.unsupported,
        )
