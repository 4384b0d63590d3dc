"""An owner's side of one run, as a state machine without I/O.

For each attempt the broker issues one challenge and gives one answer to one session, a grant or a denial. While
the session computes, the broker asks again before the lease is over, and renews it or takes it back. Before anything
leaves the session asks for its release, once.
What it issued and answered is its persistent state; everything else can be lost and asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kakoi.contract.model import MAX_RENEWALS
from kakoi.contract.sign import Signed
from kakoi.core.errors import Refused
from kakoi.wire.messages import ReleaseRequest, Session, SessionRenewal

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
class RenewalWanted:
    """Half of the lease that this attempt's session holds is over."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalArrived:
    """Fresh evidence, signed by the key of the session it names; it has not been judged."""

    renewal: Signed[SessionRenewal]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseWanted:
    """A session's release request, signed by the key of the session it names."""

    request: Signed[ReleaseRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeIssued:
    """A challenge for this attempt (renewal 0) or for a renewal of its lease was stored and can be sent."""

    attempt: int
    challenge: str
    renewal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A grant or a denial for this session was stored and can be sent."""

    attempt: int
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGiven:
    """A lease for this renewal was stored and can be sent."""

    attempt: int
    renewal: int
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A release of this request was stored in the ledger and can be sent."""

    attempt: int
    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDenied:
    """The run was refused as a whole; nothing more will be said about it."""


Event = (
    AttemptWanted
    | SessionArrived
    | RenewalWanted
    | RenewalArrived
    | ReleaseWanted
    | ChallengeIssued
    | Answered
    | LeaseGiven
    | Released
    | RunDenied
)
_Said = ChallengeIssued | Answered | LeaseGiven | Released | RunDenied


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueChallenge:
    """Check the request; issue a challenge for the attempt, or for a renewal of its lease, or deny the run."""

    attempt: int
    renewal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSession:
    """Verify and appraise the session's evidence and decide."""

    session: Signed[Session]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRenewal:
    """Verify and appraise the fresh evidence, and renew the lease or take it back."""

    renewal: Signed[SessionRenewal]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRelease:
    """Hold the request against the ledger; write it down and say yes, or deny."""

    request: Signed[ReleaseRequest]


Instruction = IssueChallenge | JudgeSession | JudgeRenewal | JudgeRelease


@dataclass(slots=True, kw_only=True)
class BrokerRun:
    """One run as its owner's broker sees it."""

    run: str
    challenges: dict[int, str] = field(default_factory=dict)
    """Challenge id by attempt."""
    answers: dict[int, str] = field(default_factory=dict)
    """Session id answered, by attempt."""
    renewals: dict[tuple[int, int], str] = field(default_factory=dict)
    """Challenge id by attempt and renewal."""
    leases: dict[tuple[int, int], str] = field(default_factory=dict)
    """Id of the evidence that got a lease, by attempt and renewal."""
    released: dict[int, str] = field(default_factory=dict)
    """Release request answered, by attempt."""
    denied: bool = False

    def handle(self, event: Event) -> list[Instruction]:
        """What to do about ``event``. Raises Refused for a session that this broker must not answer."""
        if isinstance(event, _Said):
            self._remember(event)
            return []
        if self.denied:
            return []
        if isinstance(event, AttemptWanted):
            wanted = 1 <= event.attempt <= MAX_ATTEMPTS and event.attempt not in self.challenges
            return [IssueChallenge(attempt=event.attempt)] if wanted else []
        if isinstance(event, RenewalWanted):
            return self._ask_again(event.attempt)
        if isinstance(event, RenewalArrived):
            return self._renewal(event.renewal)
        if isinstance(event, ReleaseWanted):
            return self._release(event.request)
        return self._session(event.session)

    def _remember(self, event: _Said) -> None:
        if isinstance(event, RunDenied):
            self.denied = True
        elif isinstance(event, Answered):
            self.answers.setdefault(event.attempt, event.session)
        elif isinstance(event, LeaseGiven):
            self.leases.setdefault((event.attempt, event.renewal), event.evidence)
        elif isinstance(event, Released):
            self.released.setdefault(event.attempt, event.request)
        elif event.renewal:
            self.renewals.setdefault((event.attempt, event.renewal), event.challenge)
        else:
            self.challenges.setdefault(event.attempt, event.challenge)

    def _ask_again(self, attempt: int) -> list[Instruction]:
        """One challenge for the renewal after the last that got a lease."""
        number = 1 + max((renewal for at, renewal in self.leases if at == attempt), default=0)
        if attempt not in self.answers or (attempt, number) in self.renewals or number > MAX_RENEWALS:
            return []
        return [IssueChallenge(attempt=attempt, renewal=number)]

    def _renewal(self, renewal: Signed[SessionRenewal]) -> list[Instruction]:
        record = renewal.record
        place = (record.attempt, record.renewal)
        if record.run != self.run or self.answers.get(record.attempt) != record.session:
            raise Refused(
                "session.replayed",
                "expected a renewal by the session that got this owner's key, got another",
                hint="nothing was renewed",
            )
        if self.leases.get(place) == renewal.id:
            return []
        if self.renewals.get(place) not in record.challenges:
            raise Refused(
                "session.challenge",
                "expected a renewal that answers this owner's challenge of its number, got one that does not",
                hint="the renewal is old or was made for somebody else; nothing was renewed",
            )
        if place in self.leases:
            raise Refused("session.second", "expected one renewal for each challenge, got a second one")
        return [JudgeRenewal(renewal=renewal)]

    def _release(self, request: Signed[ReleaseRequest]) -> list[Instruction]:
        record = request.record
        if record.run != self.run or self.answers.get(record.attempt) != record.session:
            raise Refused(
                "session.replayed",
                "expected a release request of the session that got this owner's key, got another",
                hint="nothing was released",
            )
        if self.released.get(record.attempt) == request.id:
            return []
        if record.attempt in self.released:
            raise Refused("session.second", "expected one release request of a session, got a second one")
        return [JudgeRelease(request=request)]

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
