"""Leases of sessions that compute: asked about when half is over, renewed on fresh evidence, taken back when consent is gone.

An enclave whose lease is not renewed kills its job, so an owner that says nothing stops it too, only later and without a reason.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from kakoi.attest.report import Collateral, Verdict
from kakoi.broker.decide import decide_going_on, decide_renewal
from kakoi.broker.desk import Desk, NoEndorsements, stage_of
from kakoi.broker.ledger import Answer
from kakoi.contract.sign import Signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.wire.analyst_run import open_session
from kakoi.wire.broker_run import IssueChallenge, JudgeRenewal, RenewalArrived, RenewalWanted
from kakoi.wire.messages import Challenge, KeyGrant, Lease, Session, SessionRenewal
from kakoi.wire.renewal import open_renewal


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a session holds of this owner: since when and until when, by the owner's own clock."""

    attempt: int
    issued_at: int
    lease_until: int

    def is_over(self, now: int) -> bool:
        """Whether the enclave must have stopped."""
        return not self.issued_at <= now < self.lease_until

    def is_due(self, now: int) -> bool:
        """Whether half of it is over."""
        return 2 * (now - self.issued_at) >= self.lease_until - self.issued_at


Put = Callable[[Envelope], bool]
"""Remember something that cannot be judged yet; False if it was remembered already."""


class Leases:
    """The part of a broker that looks after running jobs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._held: dict[str, Held | None] = {}

    def look_after(self, run: ObjectId, contract: ObjectId, request: Envelope) -> None:
        """Stop the run if consent is gone; ask for fresh evidence if half of the lease is over."""
        held, now = self._lease(run), self._desk.clock.now()
        machine = self._desk.machine(run)
        if held is None or held.is_over(now) or machine.denied:
            return
        agreement, me = self._desk.agreement(contract), self._desk.me(contract)
        try:
            decide_going_on(agreement=agreement, owner=me, facts=self._desk.facts(request), now=now)
            self._desk.require_unwarned(agreement)
        except (Malformed, Refused) as error:
            self._desk.say_no(run, contract, held.attempt, machine.answers.get(held.attempt, ""), error, now)
            return
        if held.is_due(now):
            for instruction in machine.handle(RenewalWanted(attempt=held.attempt)):
                if isinstance(instruction, IssueChallenge):
                    self._ask(run, contract, instruction, now)

    def forget(self, run: str) -> None:
        """The run is over."""
        self._held.pop(run, None)

    def granted(self, run: str, grant: KeyGrant | Lease) -> None:
        """A session got the keys, or may go on."""
        self._held[run] = Held(attempt=grant.attempt, issued_at=grant.issued_at, lease_until=grant.lease_until)

    def _lease(self, run: str) -> Held | None:
        """The last lease of the last attempt that got one; read from the ledger after a restart."""
        if run not in self._held:
            self._held[run] = None
            for answer in self._desk.ledger.answers(run):
                stage = answer.stage.partition(".")[0]
                if stage in ("grant", "lease"):
                    cls = KeyGrant if stage == "grant" else Lease
                    self.granted(run, cls.decode(answer.envelope.payload))
        return self._held[run]

    def _ask(self, run: ObjectId, contract: ObjectId, instruction: IssueChallenge, now: int) -> None:
        challenge = Challenge(
            run=run,
            attempt=instruction.attempt,
            renewal=instruction.renewal,
            contract=contract,
            owner=self._desk.me(contract),
            nonce=secrets.token_bytes(32),
            issued_at=now,
        )
        answer = Answer(
            run=run,
            attempt=instruction.attempt,
            stage=stage_of("challenge", instruction.renewal),
            about="",
            envelope=self._desk.sign(challenge),
        )
        self._desk.say(answer, now)

    def arrived(self, envelope: Envelope, contract: ObjectId, request: Envelope, put_off: Put) -> None:
        """Judge a session's fresh evidence. Raises Malformed or Refused for what is not a renewal of this owner's session."""
        claimed = SessionRenewal.decode(envelope.payload)
        session = open_session(self._desk.hub.get_object(claimed.session))
        renewal = open_renewal(envelope, session)
        for instruction in self._desk.machine(claimed.run).handle(RenewalArrived(renewal=renewal)):
            if isinstance(instruction, JudgeRenewal):
                self._judge(contract, request, session, renewal, put_off)

    def _judge(
        self,
        contract: ObjectId,
        request: Envelope,
        session: Signed[Session],
        renewal: Signed[SessionRenewal],
        put_off: Put,
    ) -> None:
        record, now = renewal.record, self._desk.clock.now()
        held = self._lease(record.run)
        if held is None or held.is_over(now):
            raise Refused(
                "session.lease-over",
                "expected fresh evidence within the lease, got it later",
                hint="the enclave should have stopped; nothing was renewed",
            )
        try:
            self._renew(contract, request, session, renewal, now)
        except (Malformed, Refused) as error:
            self._desk.say_no(record.run, contract, record.attempt, renewal.id, error, now)
        except NoEndorsements as missing:
            # The vendor may answer before the lease is over; nothing is renewed on what cannot be judged.
            if put_off(renewal.envelope):
                self._desk.note(record.run, record.attempt, "collateral", missing.why)

    def _renew(
        self,
        contract: ObjectId,
        request: Envelope,
        session: Signed[Session],
        renewal: Signed[SessionRenewal],
        now: int,
    ) -> None:
        desk, record = self._desk, renewal.record
        agreement = desk.agreement(contract)
        desk.require_unwarned(agreement, session.record.verifying_key)
        used: list[Collateral] = []

        def judge(record: SessionRenewal) -> Verdict:
            used.append(desk.endorsements(record.evidence, agreement, now))
            return desk.judge(record.evidence, used[0], agreement, record.report_data, now)

        verdict = decide_renewal(
            agreement=agreement,
            owner=desk.me(contract),
            challenge=desk.own_challenge(record.run, record.attempt, record.renewal),
            session=session,
            renewal=renewal,
            facts=desk.facts(request),
            judge=judge,
            now=now,
        )
        lease = Lease(
            run=record.run,
            attempt=record.attempt,
            renewal=record.renewal,
            contract=contract,
            session=session.id,
            owner=desk.me(contract),
            evidence=renewal.id,
            verdict=verdict,
            collateral=used[0],
            issued_at=now,
            lease_until=now + agreement.contract.limits.lease_seconds,
        )
        desk.accepted(verdict)
        answer = Answer(
            run=record.run,
            attempt=record.attempt,
            stage=stage_of("lease", record.renewal),
            about=renewal.id,
            envelope=desk.sign(lease),
        )
        desk.say(answer, now, verdict)
        self.granted(record.run, lease)
