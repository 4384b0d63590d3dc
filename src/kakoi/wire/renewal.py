"""Renewing the leases of a session that computes: who asked, who agreed. Part of the enclave's state machine, without I/O.

Each owner asks anew when half of its lease is over (a challenge with a number). When all have asked, the session gets fresh
evidence; when all have answered it with a lease of that number, the session may go on for the shortest of them. An owner
that is quick can ask for the next renewal while another has not yet answered the last: one number ahead is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kakoi.contract.approve import Agreement
from kakoi.contract.sign import Signed, open_self_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId
from kakoi.wire.messages import Challenge, LastRenewal, Lease, Renewed, Session, SessionRenewal, leases_digest


def open_renewal(envelope: Envelope, session: Signed[Session]) -> Signed[SessionRenewal]:
    """A renewal that the session's own key signed and that names it. Says nothing about the evidence in it.

    Raises Malformed or Refused.
    """
    renewal = open_self_signed(SessionRenewal, envelope, lambda _: session.record.verifying_key)
    named = (renewal.record.session, renewal.record.run, renewal.record.attempt, renewal.record.contract)
    if named != (session.id, session.record.run, session.record.attempt, session.record.contract):
        raise Refused("session.replayed", "expected a renewal of this session, got one of another")
    return renewal


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One renewal that all owners agreed to."""

    renewal: int
    statement: Envelope
    """The session renewal."""
    challenges: tuple[Signed[Challenge], ...]
    leases: tuple[Signed[Lease], ...]

    @property
    def seconds(self) -> int:
        """The shortest lease."""
        return min(lease.record.lease_until - lease.record.issued_at for lease in self.leases)

    @property
    def note(self) -> Renewed:
        """What the passport says of each renewal."""
        leases = leases_digest(lease.id for lease in self.leases)
        return Renewed(renewal=self.renewal, evidence=self.statement.payload_id, leases=leases)

    @property
    def whole(self) -> LastRenewal:
        """What the passport holds of the last renewal."""
        return LastRenewal(
            challenges=tuple(challenge.envelope for challenge in self.challenges),
            evidence=self.statement,
            leases=tuple(lease.envelope for lease in self.leases),
        )


@dataclass(slots=True, kw_only=True)
class RenewalRun:
    """All renewals of one session, one after another."""

    agreement: Agreement
    owners: tuple[str, ...]
    done: list[Renewed] = field(default_factory=list)
    last: Round | None = None
    _asked: dict[int, dict[str, Signed[Challenge]]] = field(default_factory=dict)
    _leases: dict[str, Signed[Lease]] = field(default_factory=dict)
    _wanted: bool = False
    _statement: Envelope | None = None

    @property
    def number(self) -> int:
        """Of the renewal that is next or under way."""
        return len(self.done) + 1

    @property
    def silent(self) -> tuple[str, ...]:
        """Owners whose turn it is: those who did not ask for the next renewal, or did not answer its evidence."""
        spoken = self._asked.get(self.number, {}).keys() if self._statement is None else self._leases.keys()
        return tuple(owner for owner in self.owners if owner not in spoken)

    def asked(self, challenge: Signed[Challenge]) -> None:
        """Remember an owner's challenge. Raises Refused if the owner asked otherwise before."""
        record = challenge.record
        if not self.number <= record.renewal <= self.number + 1:
            return
        known = self._asked.setdefault(record.renewal, {})
        if record.owner in known and known[record.owner].id != challenge.id:
            raise _conflict()
        known.setdefault(record.owner, challenge)

    def due(self) -> tuple[ObjectId, ...] | None:
        """Ids of all owners' challenges, sorted, once all have asked; said once for each renewal."""
        asked = self._asked.get(self.number, {})
        if self._wanted or set(asked) != set(self.owners):
            return None
        self._wanted = True
        return self._challenge_ids()

    def _challenge_ids(self) -> tuple[ObjectId, ...]:
        return tuple(sorted(challenge.id for challenge in self._asked[self.number].values()))

    def made(self, renewal: int, statement: Envelope) -> None:
        """The session's fresh evidence was published. Raises RuntimeError for another than the one that was due."""
        if not self._wanted or self._statement is not None or renewal != self.number:
            raise RuntimeError(f"evidence of renewal {renewal} where {self.number} was due")
        self._statement = statement

    def leased(self, lease: Signed[Lease], session: str) -> Round | None:
        """Take an owner's lease; the finished round once all owners gave theirs. Raises Refused for a lease that contradicts."""
        record = lease.record
        statement = self._statement
        if record.renewal != self.number or statement is None:
            return None
        if (record.session, record.contract, record.evidence) != (session, self.agreement.id, statement.payload_id):
            raise Refused("session.grant", "expected a lease for this session and its evidence, got one for another")
        if record.owner in self._leases:
            if self._leases[record.owner].id != lease.id:
                raise _conflict()
            return None
        if not 0 < record.lease_until - record.issued_at <= self.agreement.contract.limits.lease_seconds:
            raise Refused("session.lease", "expected a lease within the contract's limit")
        if record.issued_at < self._asked[self.number][record.owner].record.issued_at:
            raise Refused("session.clock-back", "expected an owner's clock that goes forward, got an earlier time")
        self._leases[record.owner] = lease
        return self._finish(statement) if set(self._leases) == set(self.owners) else None

    def _finish(self, statement: Envelope) -> Round:
        asked = self._asked.pop(self.number)
        finished = Round(
            renewal=self.number,
            statement=statement,
            challenges=tuple(asked[owner] for owner in self.owners),
            leases=tuple(self._leases[owner] for owner in self.owners),
        )
        self.done.append(finished.note)
        self.last = finished
        self._leases, self._wanted, self._statement = {}, False, None
        return finished


def _conflict() -> Refused:
    return Refused("session.conflict", "expected one message of each owner, got two different ones")
