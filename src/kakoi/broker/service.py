"""The broker at work: asks the hub what is new, decides, answers. Outbound requests only; it listens nowhere.

Everything it says is stored before it is sent (``ledger``). ``step`` is one round; killing the process between or within
rounds loses nothing and says nothing twice, because the state machines are rebuilt from the ledger.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from kakoi.attest.registry import find_policy
from kakoi.attest.report import Collateral, Evidence, Verdict
from kakoi.broker.decide import Facts, decide_grant, decide_request
from kakoi.broker.ledger import Answer, Decision, Ledger
from kakoi.contract.approve import Agreement, agree
from kakoi.contract.model import Contract
from kakoi.contract.sign import Signed, open_signed, seal
from kakoi.core import crypto
from kakoi.core.clock import Clock
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.core.ids import ObjectId, PartyId
from kakoi.net.answers import RunState
from kakoi.net.bundle import ObjectSource, fetch_bundle
from kakoi.party.home import PartyHome
from kakoi.wire.analyst_run import open_session
from kakoi.wire.broker_run import (
    Answered,
    AttemptWanted,
    BrokerRun,
    ChallengeIssued,
    Instruction,
    IssueChallenge,
    RunDenied,
    SessionArrived,
)
from kakoi.wire.messages import Challenge, Denial, GrantedKey, KeyGrant, RunRequest, Session, grant_info

COLLATERAL_SECONDS: Final = 240
"""For how long after its challenge a session may wait for endorsements that nobody gives now. An enclave waits longer."""


class CollateralSource(Protocol):
    """Where the owner gets vendors' endorsements."""

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        """Current endorsements for this evidence. Raises Unavailable."""
        ...


Judge = Callable[[Evidence, Collateral, Agreement, bytes, int, Mapping[str, int]], Verdict]
"""Verify and appraise: evidence, collateral, agreement, expected report data, now, and by product the highest TCB
evaluation number that was accepted before."""


class Hub(ObjectSource, Protocol):
    """What a broker needs of a hub: ``net.client.HubClient`` is one."""

    def put_object(self, envelope: Envelope) -> object:
        """Deliver an object; again changes nothing."""
        ...

    def run(self, run: ObjectId) -> RunState:
        """State and attempt of a run, as the hub says."""
        ...


class Broker:
    """One owner's broker."""

    def __init__(
        self,
        *,
        home: PartyHome,
        ledger: Ledger,
        hub: Hub,
        collateral: CollateralSource,
        judge: Judge,
        clock: Clock,
        tell: Callable[[Decision], None],
    ) -> None:
        self._home, self._ledger, self._hub = home, ledger, hub
        self._collateral, self._judge, self._clock, self._tell = collateral, judge, clock, tell
        self._agreements: dict[str, Agreement] = {}
        self._machines: dict[str, BrokerRun] = {}
        self._ids: dict[str, PartyId] = {}
        self._unanswered: set[str] = set()
        """Sessions that had to be put off in this round."""

    def _me(self, contract: ObjectId) -> PartyId:
        """This owner's id in a contract, which may name an earlier card of the same keys."""
        if contract not in self._ids:
            record = Contract.decode(self._hub.get_object(contract).payload)
            self._ids[contract] = self._home.id_in(record)
        return self._ids[contract]

    def step(self, wait: int) -> None:
        """Send what is unsent, read what is new, answer. Raises Unavailable when the hub does not answer."""
        self._send()
        after = self._ledger.cursor("objects")
        page = self._hub.feed(after=after, kinds=(RunRequest.KIND, Session.KIND), wait=wait)
        for item in page.items:
            try:
                self._arrived(item.id, item.kind)
            except (Malformed, Refused) as error:
                # One bad object must not stop the feed; what was wrong with it is on record.
                self._note("", 0, "read", error)
        self._ledger.move_cursor("objects", page.next)
        self._judge_waiting()
        self._attempts()
        self._send()

    def _send(self) -> None:
        for answer in self._ledger.unsent():
            try:
                self._hub.put_object(answer.envelope)
            except Refused as error:
                self._note(answer.run, answer.attempt, "send", error)
            self._ledger.sent(answer)

    def _arrived(self, identity: ObjectId, kind: str) -> None:
        envelope = self._hub.get_object(identity)
        if kind == RunRequest.KIND:
            self._request(envelope)
        else:
            self._session(open_session(envelope))

    def _request(self, envelope: Envelope) -> None:
        request = RunRequest.decode(envelope.payload)
        contract = Contract.decode(self._hub.get_object(request.contract).payload)
        if not any(entry.owner in self._home.ids for entry in contract.data):
            return
        run = envelope.payload_id
        self._ledger.open_run(run, request.contract, request.analysis, envelope)

    def _attempts(self) -> None:
        for run, contract, envelope in self._ledger.open_runs():
            seen = self._hub.run(ObjectId(run))
            if seen.state in ("done", "failed", "abandoned"):
                self._ledger.close_run(run)
                self._machines.pop(run, None)
                continue
            for instruction in self._machine(run).handle(AttemptWanted(attempt=max(seen.attempt, 1))):
                self._carry_out(ObjectId(contract), envelope, instruction)

    def _machine(self, run: str) -> BrokerRun:
        if run not in self._machines:
            machine = BrokerRun(run=run)
            for answer in self._ledger.answers(run):
                machine.handle(_as_event(answer))
            self._machines[run] = machine
        return self._machines[run]

    def _agreement(self, contract: ObjectId) -> Agreement:
        if contract not in self._agreements:
            self._agreements[contract] = agree(fetch_bundle(self._hub, contract))
        return self._agreements[contract]

    def _session(self, session: Signed[Session]) -> None:
        runs = {run: (contract, envelope) for run, contract, envelope in self._ledger.open_runs()}
        if session.record.run not in runs:
            return
        contract, envelope = runs[session.record.run]
        try:
            instructions = self._machine(session.record.run).handle(SessionArrived(session=session))
        except Refused as error:
            self._note(session.record.run, session.record.attempt, "session", error)
            return
        for instruction in instructions:
            self._carry_out(ObjectId(contract), envelope, instruction)

    def _judge_waiting(self) -> None:
        """Sessions for which endorsements were missing: the vendor may answer now."""
        for envelope in self._ledger.waiting():
            self._unanswered.discard(envelope.payload_id)
            self._session(open_session(envelope))
            if envelope.payload_id not in self._unanswered:
                self._ledger.stop_waiting(envelope.payload_id)

    def _carry_out(self, contract: ObjectId, request: Envelope, instruction: Instruction) -> None:
        now = self._clock.now()
        attempt, about = (
            (instruction.attempt, "")
            if isinstance(instruction, IssueChallenge)
            else (instruction.session.record.attempt, instruction.session.id)
        )
        try:
            if isinstance(instruction, IssueChallenge):
                self._challenge(contract, request, attempt, now)
            else:
                self._grant(contract, request, instruction.session, now)
        except (Malformed, Refused) as error:
            self._deny(request.payload_id, contract, attempt, about, error, now)
        except _NoEndorsements as missing:
            self._wait_or_deny(contract, request, missing, now)

    def _wait_or_deny(self, contract: ObjectId, request: Envelope, missing: _NoEndorsements, now: int) -> None:
        """Try again in the next round while the session is young; then say no, so that the analyst learns why."""
        session = missing.session
        challenge = self._own_challenge(session.record.run, session.record.attempt)
        if 0 <= now - challenge.record.issued_at <= COLLATERAL_SECONDS:
            self._unanswered.add(session.id)
            if self._ledger.wait(session.envelope):
                self._note(request.payload_id, session.record.attempt, "collateral", missing.why)
            return
        self._deny(request.payload_id, contract, session.record.attempt, session.id, missing.why, now)

    def _challenge(self, contract: ObjectId, request: Envelope, attempt: int, now: int) -> None:
        run = request.payload_id
        agreement = self._agreement(contract)
        decide_request(
            agreement=agreement, owner=self._me(contract), request=request, facts=self._facts(request), now=now
        )
        challenge = Challenge(
            run=run,
            attempt=attempt,
            contract=agreement.id,
            owner=self._me(contract),
            nonce=secrets.token_bytes(32),
            issued_at=now,
        )
        envelope = seal(challenge, self._home.keys.signer())
        self._say(Answer(run=run, attempt=attempt, stage="challenge", about="", envelope=envelope), now)

    def _grant(self, contract: ObjectId, request: Envelope, session: Signed[Session], now: int) -> None:
        record = session.record
        agreement = self._agreement(contract)
        used: list[Collateral] = []

        def judge(record: Session) -> Verdict:
            """Asks for endorsements last, when nothing else refuses: nobody makes a broker call its vendors for nothing."""
            used.append(self._endorsements(session, agreement, now))
            floors = self._ledger.floors(record.evidence.platform)
            return self._judge(record.evidence, used[0], agreement, record.report_data, now, floors)

        verdict = decide_grant(
            agreement=agreement,
            owner=self._me(contract),
            request=request,
            challenge=self._own_challenge(record.run, record.attempt),
            session=session,
            facts=self._facts(request),
            judge=judge,
            now=now,
        )
        grant = KeyGrant(
            run=record.run,
            attempt=record.attempt,
            contract=agreement.id,
            session=session.id,
            owner=self._me(contract),
            keys=tuple(self._sealed_keys(agreement, session)),
            verdict=verdict,
            collateral=used[0],
            issued_at=now,
            lease_until=now + agreement.contract.limits.lease_seconds,
        )
        envelope = seal(grant, self._home.keys.signer())
        answer = Answer(run=record.run, attempt=record.attempt, stage="grant", about=session.id, envelope=envelope)
        number = verdict.claims.tcb_evaluation_number
        if number is not None:
            self._ledger.raise_floor(verdict.claims.platform, verdict.claims.product, number)
        self._say(answer, now, verdict)

    def _endorsements(self, session: Signed[Session], agreement: Agreement, now: int) -> Collateral:
        evidence = session.record.evidence
        find_policy(evidence, agreement.contract.platforms)
        try:
            return self._collateral.collateral(evidence, now)
        except Unavailable as error:
            raise _NoEndorsements(session, error) from None

    def _own_challenge(self, run: str, attempt: int) -> Signed[Challenge]:
        for answer in self._ledger.answers(run):
            if answer.stage == "challenge" and answer.attempt == attempt:
                return open_signed(Challenge, answer.envelope, self._home.card)
        raise Refused("session.challenge", "expected a session that answers a challenge of this owner, got another")

    def _sealed_keys(self, agreement: Agreement, session: Signed[Session]) -> Iterable[GrantedKey]:
        mine = self._home.datasets()
        me = self._me(agreement.id)
        for entry in agreement.data_of(me):
            if entry.manifest not in mine:
                raise Misuse(
                    "dataset.missing",
                    "expected the contract's data set in this party's directory, found none",
                    hint="start the broker with the directory that sealed it",
                )
            info = grant_info(
                run=session.record.run,
                attempt=session.record.attempt,
                contract=agreement.id,
                session=session.id,
                owner=me,
                manifest=entry.manifest,
            )
            data_key = self._home.data_key(mine[entry.manifest].record)
            yield GrantedKey(manifest=entry.manifest, sealed=crypto.seal(data_key, session.record.sealing, info=info))

    def _deny(self, run: ObjectId, contract: ObjectId, attempt: int, about: str, error: KakoiError, now: int) -> None:
        verdict: Verdict | None = getattr(error, "verdict", None)
        failed = tuple(c for c in verdict.checks if c.outcome == "failed") if verdict else ()
        denial = Denial(
            run=run,
            attempt=attempt,
            contract=contract,
            owner=self._me(contract),
            code=error.code,
            message=error.message[:2000],
            hint=error.hint[:2000],
            checks=failed,
            denied_at=now,
        )
        envelope = seal(denial, self._home.keys.signer())
        answer = Answer(run=denial.run, attempt=attempt, stage="denial", about=about, envelope=envelope)
        self._say(answer, now, verdict, error)

    def _say(self, answer: Answer, now: int, verdict: Verdict | None = None, error: KakoiError | None = None) -> None:
        checks = tuple(
            {"name": c.name, "outcome": c.outcome, "expected": c.expected, "got": c.got, "mender": c.mender}
            for c in (verdict.checks if verdict else ())
        )
        decision = Decision(
            at=now,
            run=answer.run,
            attempt=answer.attempt,
            step=answer.stage,
            outcome="no" if error else "yes",
            code=error.code if error else "",
            message=error.message if error else "",
            hint=error.hint if error else "",
            checks=checks,
        )
        self._ledger.say(answer, decision)
        self._machine(answer.run).handle(_as_event(answer))
        self._tell(decision)

    def _note(self, run: str, attempt: int, step: str, error: KakoiError) -> None:
        decision = Decision(
            at=self._clock.now(),
            run=run,
            attempt=attempt,
            step=step,
            outcome="no",
            code=error.code,
            message=error.message,
            hint=error.hint,
        )
        self._ledger.note(decision)
        self._tell(decision)

    def _facts(self, envelope: Envelope) -> Facts:
        request = RunRequest.decode(envelope.payload)
        return Facts(
            approved=self._ledger.approved(),
            withdrawn=self._ledger.withdrawn(),
            granted_runs=self._ledger.granted_runs(request.contract, request.analysis, besides=envelope.payload_id),
        )


class _NoEndorsements(Exception):
    """Nobody gives endorsements for a session's evidence now. Not an Unavailable of the hub, which ends the round."""

    def __init__(self, session: Signed[Session], why: Unavailable) -> None:
        super().__init__(why.code)
        self.session, self.why = session, why


def _as_event(answer: Answer) -> ChallengeIssued | Answered | RunDenied:
    if answer.stage == "challenge":
        return ChallengeIssued(attempt=answer.attempt, challenge=answer.envelope.payload_id)
    if answer.stage == "grant":
        return Answered(attempt=answer.attempt, session=answer.about)
    return RunDenied()
