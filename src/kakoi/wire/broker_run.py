"""An owner's side of one run, as a state machine without I/O.

For each attempt the broker issues one challenge and gives one answer to one session, a grant or a denial.
What it issued and answered is its persistent state; everything else can be lost and asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kakoi.contract.sign import Signed
from kakoi.core.errors import Refused
from kakoi.wire.messages import Session

MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptWanted:
    """The hub says that this attempt began (or will be the first)."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionArrived:
    """An enclave's session, signed by itself; its evidence has not been judged."""

    session: Signed[Session]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeIssued:
    """A challenge for this attempt was stored and can be sent."""

    attempt: int
    challenge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A grant or a denial for this session was stored and can be sent."""

    attempt: int
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDenied:
    """The run was refused as a whole; nothing more will be said about it."""


Event = AttemptWanted | SessionArrived | ChallengeIssued | Answered | RunDenied


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueChallenge:
    """Check the request; issue a challenge for the attempt, or deny the run."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSession:
    """Verify and appraise the session's evidence and decide."""

    session: Signed[Session]


Instruction = IssueChallenge | JudgeSession


@dataclass(slots=True, kw_only=True)
class BrokerRun:
    """One run as its owner's broker sees it."""

    run: str
    challenges: dict[int, str] = field(default_factory=dict)
    """Challenge id by attempt."""
    answers: dict[int, str] = field(default_factory=dict)
    """Session id answered, by attempt."""
    denied: bool = False

    def handle(self, event: Event) -> list[Instruction]:
        """What to do about ``event``. Raises Refused for a session that this broker must not answer."""
        if isinstance(event, ChallengeIssued):
            self.challenges.setdefault(event.attempt, event.challenge)
        elif isinstance(event, Answered):
            self.answers.setdefault(event.attempt, event.session)
        elif isinstance(event, RunDenied):
            self.denied = True
        elif self.denied:
            return []
        elif isinstance(event, AttemptWanted):
            if 1 <= event.attempt <= MAX_ATTEMPTS and event.attempt not in self.challenges:
                return [IssueChallenge(attempt=event.attempt)]
        else:
            return self._session(event.session)
        return []

    def _session(self, session: Signed[Session]) -> list[Instruction]:
        record = session.record
        if self.answers.get(record.attempt) == session.id:
            return []
        if record.run != self.run:
            raise Refused(
                "session.replayed",
                "expected a session of this run, got one that was made for another",
                hint="whoever sent it replays an old session; nothing was released",
            )
        if self.challenges.get(record.attempt) not in record.challenges:
            raise Refused(
                "session.challenge",
                "expected a session that answers this owner's challenge for this attempt, got one that does not",
                hint="the session is old or was made for somebody else; nothing was released",
            )
        if record.attempt in self.answers:
            raise Refused(
                "session.second",
                "expected one session for each challenge, got a second one",
                hint="a new attempt gets a new challenge",
            )
        return [JudgeSession(session=session)]
