"""The enclave's side of one run, as a state machine without I/O: events in, instructions out.

    claimed ──all challenges──▶ attesting ──evidence──▶ waiting ──all grants──▶ computing ──output, all releases──▶ done
       │                                                  │                        │
       └───────────── a denial, a contradiction, an error: ─────────────────────────▶ failed

The output is not published when the gate has judged it: every owner writes the release into its ledger first, says yes, and tells
what was released earlier from the same data, which the output is held against.

While it computes, the leases are renewed as often as the owners ask (``wire.renewal``); a denial ends the run then too.

The machine never reads a clock: it compares the times that owners signed. How long a lease lasts is an instruction to
whoever runs the machine: measured from before the evidence was made, so never longer than the owner meant. A message that arrives twice changes
nothing the second time. A message that the owner it names did not sign is noise, which anybody could post, and is
ignored. Two different signed messages of one owner where one was due end the run: somebody is lying.
After a crash the session keys are gone, so the hub hands out a new attempt with new challenges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeVar

from kakoi.contract.approve import Agreement, in_force
from kakoi.contract.sign import Signed, open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Refused
from kakoi.core.ids import ObjectId
from kakoi.wire.messages import Challenge, Denial, KeyGrant, Lease, Release, RunRequest
from kakoi.wire.renewal import RenewalRun

MAX_CLOCK_DIFFERENCE = 300
"""Seconds by which the owners' clocks may differ from one another."""

M = TypeVar("M", Challenge, KeyGrant, Denial, Lease, Release)
State = Literal["claimed", "attesting", "waiting", "computing", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageArrived:
    """A challenge, denial, key grant or lease, as delivered (not yet verified)."""

    kind: str
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMade:
    """The session object with its evidence exists and has this id."""

    session: ObjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalMade:
    """The session renewal with its fresh evidence was published."""

    renewal: int
    statement: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputJudged:
    """The engine ran and the gate judged its output. Nothing has left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAsked:
    """The release request was published and has this id."""

    request: ObjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputReleased:
    """Held against everything that was released earlier, the output may leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """Evidence, keys, data, engine or gate failed, or a lease is over."""

    error: KakoiError


Event = MessageArrived | SessionMade | RenewalMade | OutputJudged | ReleaseAsked | OutputReleased | StepFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSession:
    """Make evidence over these challenges (ids, sorted) and publish the session."""

    challenges: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Open the grants and run the analysis."""

    grants: tuple[Signed[KeyGrant], ...]
    lease_seconds: int
    """From before the session's evidence was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewSession:
    """Make fresh evidence over these challenges (ids, sorted) and publish it; the job goes on."""

    renewal: int
    challenges: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendLease:
    """All owners agreed: the job may go on for so long from before the evidence of this renewal was made."""

    renewal: int
    lease_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRelease:
    """Publish the release request; the leases go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareEarlier:
    """Every owner said yes: hold the output against what each says was released earlier."""

    releases: tuple[Signed[Release], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """Seal the output, sign the passport, publish both, close the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseFailed:
    """Kill the job, publish the failure if a session exists, wipe keys, close the run."""

    error: KakoiError
    said_by: str
    """Party id of the owner who denied; empty if it was the enclave."""


Instruction = (
    MakeSession | Compute | RenewSession | ExtendLease | AskRelease | CompareEarlier | PublishResult | CloseFailed
)


@dataclass(slots=True, kw_only=True)
class EnclaveRun:
    """One attempt at one run. Feed events to ``handle``; carry out what it returns."""

    agreement: Agreement
    request: Signed[RunRequest]
    attempt: int
    state: State = "claimed"
    session: str = ""
    challenges: dict[str, Signed[Challenge]] = field(default_factory=dict)
    grants: dict[str, Signed[KeyGrant]] = field(default_factory=dict)
    owners: tuple[str, ...] = field(init=False)
    """Whose yes this run needs."""
    judged: bool = False
    asked: str = ""
    """Id of the release request, once it was published."""
    releases: dict[str, Signed[Release]] = field(default_factory=dict)
    renewals: RenewalRun = field(init=False)

    def __post_init__(self) -> None:
        """Owners and renewals are this run's own."""
        self.owners = self.agreement.owners_of(self.request.record.analysis)
        self.renewals = RenewalRun(agreement=self.agreement, owners=self.owners)

    def handle(self, event: Event) -> list[Instruction]:
        """What to do about ``event``. Errors in messages end the run; errors in calling raise RuntimeError."""
        if self.state in ("done", "failed"):
            return []
        if isinstance(event, StepFailed):
            return self._fail(event.error)
        if isinstance(event, MessageArrived):
            try:
                return self._message(event)
            except KakoiError as error:
                return self._fail(error)
        return self._step(event)

    def _step(
        self, event: SessionMade | RenewalMade | OutputJudged | ReleaseAsked | OutputReleased
    ) -> list[Instruction]:
        if isinstance(event, SessionMade) and self.state == "attesting":
            self.session, self.state = event.session, "waiting"
            return []
        if isinstance(event, RenewalMade) and self.state == "computing":
            self.renewals.made(event.renewal, event.statement)
            return []
        if self.state == "computing":
            if isinstance(event, OutputJudged) and not self.judged:
                self.judged = True
                return [AskRelease()]
            if isinstance(event, ReleaseAsked) and self.judged and not self.asked:
                self.asked = event.request
                return []
            if isinstance(event, OutputReleased) and set(self.releases) == set(self.owners):
                self.state = "done"
                return [PublishResult()]
        raise RuntimeError(f"{type(event).__name__} in state {self.state}")

    def _message(self, event: MessageArrived) -> list[Instruction]:
        if event.kind == Challenge.KIND:
            return self._challenge(event.envelope)
        if event.kind == KeyGrant.KIND:
            return self._grant(event.envelope)
        if event.kind == Lease.KIND:
            return self._lease(event.envelope)
        if event.kind == Release.KIND:
            return self._release(event.envelope)
        if event.kind == Denial.KIND:
            return self._denial(event.envelope)
        return []

    def _challenge(self, envelope: Envelope) -> list[Instruction]:
        claimed = Challenge.decode(envelope.payload)
        if claimed.attempt != self.attempt or claimed.run != self.request.id:
            return []
        challenge = self._signed(Challenge, envelope, claimed.owner)
        if challenge is None:
            return []
        if challenge.record.contract != self.agreement.id:
            raise Refused("session.contract", "expected a challenge of this contract, got one of another")
        if claimed.renewal:
            return self._renewal_challenge(challenge)
        if self._seen(self.challenges, claimed.owner, challenge):
            return []
        self.challenges[claimed.owner] = challenge
        self._same_time([c.record.issued_at for c in self.challenges.values()])
        in_force(self.agreement, challenge.record.issued_at)
        if self.state != "claimed" or set(self.challenges) != set(self.owners):
            return []
        self.state = "attesting"
        return [MakeSession(challenges=tuple(sorted(c.id for c in self.challenges.values())))]

    def _renewal_challenge(self, challenge: Signed[Challenge]) -> list[Instruction]:
        """An owner asks for fresh evidence. It may do so before the others have granted: then it is kept."""
        if self.state not in ("waiting", "computing"):
            return []
        in_force(self.agreement, challenge.record.issued_at)
        self.renewals.asked(challenge)
        return self._renew_if_due()

    def _renew_if_due(self) -> list[Instruction]:
        due = self.renewals.due() if self.state == "computing" else None
        return [] if due is None else [RenewSession(renewal=self.renewals.number, challenges=due)]

    def _lease(self, envelope: Envelope) -> list[Instruction]:
        claimed = Lease.decode(envelope.payload)
        if claimed.attempt != self.attempt or claimed.run != self.request.id or self.state != "computing":
            return []
        lease = self._signed(Lease, envelope, claimed.owner)
        if lease is None:
            return []
        in_force(self.agreement, lease.record.issued_at)
        finished = self.renewals.leased(lease, self.session)
        if finished is None:
            return []
        lease_seconds = self.agreement.contract.limits.lease_seconds
        self._same_time([item.record.issued_at for item in finished.leases], slack=lease_seconds)
        extended = ExtendLease(renewal=finished.renewal, lease_seconds=finished.seconds)
        return [extended, *self._renew_if_due()]

    def _grant(self, envelope: Envelope) -> list[Instruction]:
        claimed = KeyGrant.decode(envelope.payload)
        if (
            claimed.attempt != self.attempt
            or claimed.run != self.request.id
            or self.state not in ("waiting", "computing")
        ):
            return []
        grant = self._signed(KeyGrant, envelope, claimed.owner)
        if grant is None:
            return []
        if grant.record.session != self.session or grant.record.contract != self.agreement.id:
            raise Refused("session.grant", "expected a key grant for this session and contract, got one for another")
        if self._seen(self.grants, claimed.owner, grant):
            return []
        self._grant_is_whole(grant.record)
        self.grants[claimed.owner] = grant
        if set(self.grants) != set(self.owners):
            return []
        self.state = "computing"
        lease = min(g.record.lease_until - g.record.issued_at for g in self.grants.values())
        compute = Compute(grants=tuple(self.grants.values()), lease_seconds=lease)
        return [compute, *self._renew_if_due()]

    def _grant_is_whole(self, grant: KeyGrant) -> None:
        """An owner grants the keys that the run needs of it, for a lease within the contract, at a time the others agree with."""
        wanted = set(self.agreement.keys_of(grant.owner, self.request.record.analysis))
        if {key.manifest for key in grant.keys} != wanted or len(grant.keys) != len(wanted):
            raise Refused("session.grant-keys", "expected one key for each of the owner's objects that the run needs")
        lists = [item.manifest for item in grant.opt_outs]
        if not set(lists) <= wanted & self.agreement.manifests.keys() or len(set(lists)) != len(lists):
            raise Refused(
                "session.grant-lists",
                "expected lists of opt-outs for the owner's data sets that the run needs, each once",
            )
        if not 0 < grant.lease_until - grant.issued_at <= self.agreement.contract.limits.lease_seconds:
            raise Refused("session.lease", "expected a lease within the contract's limit")
        in_force(self.agreement, grant.issued_at)
        self._same_time([grant.issued_at, *(g.record.issued_at for g in self.grants.values())])

    def _release(self, envelope: Envelope) -> list[Instruction]:
        claimed = Release.decode(envelope.payload)
        if claimed.attempt != self.attempt or claimed.run != self.request.id or not self.asked:
            return []
        release = self._signed(Release, envelope, claimed.owner)
        if release is None:
            return []
        record = release.record
        if (record.session, record.contract, record.request) != (self.session, self.agreement.id, self.asked):
            raise Refused("session.release", "expected a release of this session's request, got one of another")
        if self._seen(self.releases, claimed.owner, release):
            return []
        in_force(self.agreement, record.released_at)
        self.releases[claimed.owner] = release
        if set(self.releases) != set(self.owners):
            return []
        return [CompareEarlier(releases=tuple(self.releases.values()))]

    def _denial(self, envelope: Envelope) -> list[Instruction]:
        claimed = Denial.decode(envelope.payload)
        # A denial is of the run as a whole: an owner that denied an earlier attempt says nothing more about any later one.
        if claimed.attempt > self.attempt or claimed.run != self.request.id:
            return []
        denial = self._signed(Denial, envelope, claimed.owner)
        if denial is None:
            return []
        said = denial.record
        return self._fail(Refused(said.code, said.message, hint=said.hint), said_by=said.owner)

    def _signed(self, cls: type[M], envelope: Envelope, owner: str) -> Signed[M] | None:
        """The message, if that owner of this contract signed it; None for noise."""
        if owner not in self.owners:
            return None
        try:
            return open_signed(cls, envelope, self.agreement.cards[owner])
        except Refused:
            return None

    @staticmethod
    def _seen(known: dict[str, Signed[M]], owner: str, new: Signed[M]) -> bool:
        if owner not in known:
            return False
        if known[owner].id != new.id:
            raise Refused("session.conflict", "expected one message of each owner, got two different ones")
        return True

    @staticmethod
    def _same_time(times: list[int], *, slack: int = 0) -> None:
        """``slack``: seconds by which honest owners may answer one after another."""
        if max(times) - min(times) > MAX_CLOCK_DIFFERENCE + slack:
            raise Refused(
                "session.clock-skew",
                f"expected the owners' clocks within {MAX_CLOCK_DIFFERENCE} seconds of one another",
                hint="one of the owners' brokers has a wrong clock; set it with NTP",
            )

    def _fail(self, error: KakoiError, said_by: str = "") -> list[Instruction]:
        self.state = "failed"
        return [CloseFailed(error=error, said_by=said_by)]
