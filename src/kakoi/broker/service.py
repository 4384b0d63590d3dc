"""The broker at work: asks the hub what is new, decides, answers. Outbound requests only; it listens nowhere.

Everything it says is stored before it is sent (``ledger``). ``step`` is one round; killing the process between or within
rounds loses nothing and says nothing twice, because the state machines are rebuilt from the ledger.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Final

from kakoi.attest.report import Collateral, Verdict
from kakoi.broker.decide import decide_grant, decide_request
from kakoi.broker.desk import CollateralSource, Desk, Hub, Judge, NoEndorsements
from kakoi.broker.leases import Leases
from kakoi.broker.ledger import Answer, Decision, Ledger
from kakoi.broker.letting_go import LettingGo
from kakoi.broker.opt_out import granted_lists
from kakoi.contract.approve import Agreement
from kakoi.contract.model import Analysis, Contract
from kakoi.contract.sign import Signed
from kakoi.core import crypto, encoding
from kakoi.core.clock import Clock
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Misuse, Refused, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.party.home import PartyHome
from kakoi.wire.analyst_run import open_session
from kakoi.wire.broker_run import AttemptWanted, Instruction, IssueChallenge, JudgeSession, SessionArrived
from kakoi.wire.messages import (
    Challenge,
    GrantedKey,
    KeyGrant,
    Release,
    ReleaseRequest,
    RunRequest,
    Session,
    SessionRenewal,
    grant_info,
)

COLLATERAL_SECONDS: Final = 240
"""For how long after its challenge a session may wait for endorsements that nobody gives now. An enclave waits longer."""


_KINDS: Final = (RunRequest.KIND, Session.KIND, SessionRenewal.KIND, ReleaseRequest.KIND, Release.KIND)


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
        self._home, self._ledger, self._hub, self._clock = home, ledger, hub, clock
        self._desk = Desk(home=home, ledger=ledger, hub=hub, collateral=collateral, judge=judge, clock=clock, tell=tell)
        self._leases = Leases(self._desk)
        self._letting_go = LettingGo(self._desk)
        self._unanswered: set[str] = set()
        """Sessions and renewals that had to be put off in this round."""

    def step(self, wait: int) -> None:
        """Send what is unsent, read what is new, answer. Raises Unavailable when the hub does not answer."""
        self._desk.look_out()
        self._send()
        after = self._ledger.cursor("objects")
        page = self._hub.feed(after=after, kinds=_KINDS, wait=wait)
        for item in page.items:
            try:
                self._arrived(self._hub.get_object(item.id), item.kind)
            except (Malformed, Refused) as error:
                # One bad object must not stop the feed; what was wrong with it is on record.
                self._desk.note("", 0, "read", error)
        self._ledger.move_cursor("objects", page.next)
        self._judge_waiting()
        self._attempts()
        self._send()

    def _send(self) -> None:
        for answer in self._ledger.unsent():
            try:
                self._hub.put_object(answer.envelope)
            except Refused as error:
                self._desk.note(answer.run, answer.attempt, "send", error)
            self._ledger.sent(answer)

    def _arrived(self, envelope: Envelope, kind: str) -> None:
        if kind == RunRequest.KIND:
            self._request(envelope)
        elif kind == SessionRenewal.KIND:
            self._renewal(envelope)
        elif kind == ReleaseRequest.KIND:
            self._release_request(envelope)
        elif kind == Release.KIND:
            self._letting_go.own(envelope)
        else:
            self._session(open_session(envelope))

    def _request(self, envelope: Envelope) -> None:
        request = RunRequest.decode(envelope.payload)
        contract = Contract.decode(self._hub.get_object(request.contract).payload)
        if not self._concerns(request, contract):
            return
        run = envelope.payload_id
        self._ledger.open_run(run, request.contract, request.analysis, envelope)

    def _concerns(self, request: RunRequest, contract: Contract) -> bool:
        """Whether the run needs this owner's yes: its data take part, or the analysis is its sealed code."""
        if any(entry.owner in self._home.ids for entry in contract.data):
            return True
        mine = {entry.manifest for entry in contract.code if entry.owner in self._home.ids}
        return bool(mine) and Analysis.decode(self._hub.get_object(request.analysis).payload).sealed_code in mine

    def _attempts(self) -> None:
        for run, contract, envelope in self._ledger.open_runs():
            seen = self._hub.run(ObjectId(run))
            if seen.state in ("done", "failed", "abandoned"):
                self._ledger.close_run(run)
                self._desk.forget(run)
                self._leases.forget(run)
                continue
            for instruction in self._desk.machine(run).handle(AttemptWanted(attempt=max(seen.attempt, 1))):
                self._carry_out(ObjectId(contract), envelope, instruction)
            self._leases.look_after(ObjectId(run), ObjectId(contract), envelope)

    def _open_run(self, run: str) -> tuple[ObjectId, Envelope] | None:
        for known, contract, envelope in self._ledger.open_runs():
            if known == run:
                return ObjectId(contract), envelope
        return None

    def _session(self, session: Signed[Session]) -> None:
        found = self._open_run(session.record.run)
        if found is None:
            return
        try:
            instructions = self._desk.machine(session.record.run).handle(SessionArrived(session=session))
        except Refused as error:
            self._desk.note(session.record.run, session.record.attempt, "session", error)
            return
        for instruction in instructions:
            self._carry_out(*found, instruction)

    def _renewal(self, envelope: Envelope) -> None:
        claimed = SessionRenewal.decode(envelope.payload)
        found = self._open_run(claimed.run)
        if found is None:
            return
        try:
            self._leases.arrived(envelope, *found, self._put_off)
        except (Malformed, Refused) as error:
            self._desk.note(claimed.run, claimed.attempt, "renewal", error)

    def _release_request(self, envelope: Envelope) -> None:
        claimed = ReleaseRequest.decode(envelope.payload)
        found = self._open_run(claimed.run)
        if found is None:
            return
        try:
            self._letting_go.arrived(envelope, *found)
        except (Malformed, Refused) as error:
            self._desk.note(claimed.run, claimed.attempt, "release", error)

    def _put_off(self, envelope: Envelope) -> bool:
        self._unanswered.add(envelope.payload_id)
        return self._ledger.wait(envelope)

    def _judge_waiting(self) -> None:
        """Sessions and renewals for which endorsements were missing: the vendor may answer now."""
        for envelope in self._ledger.waiting():
            self._unanswered.discard(envelope.payload_id)
            self._arrived(envelope, str(encoding.loads(envelope.payload, limit=Session.MAX_BYTES)["kind"]))
            if envelope.payload_id not in self._unanswered:
                self._ledger.stop_waiting(envelope.payload_id)

    def _carry_out(self, contract: ObjectId, request: Envelope, instruction: Instruction) -> None:
        now, run = self._clock.now(), request.payload_id
        if isinstance(instruction, IssueChallenge):
            try:
                self._challenge(contract, request, instruction.attempt, now)
            except (Malformed, Refused) as error:
                self._desk.say_no(run, contract, instruction.attempt, "", error, now)
        elif isinstance(instruction, JudgeSession):
            session = instruction.session
            try:
                self._grant(contract, request, session, now)
            except (Malformed, Refused) as error:
                self._desk.say_no(run, contract, session.record.attempt, session.id, error, now)
            except NoEndorsements as missing:
                self._wait_or_deny(contract, session, missing.why, now)

    def _wait_or_deny(self, contract: ObjectId, session: Signed[Session], why: Unavailable, now: int) -> None:
        """Try again in the next round while the session is young; then say no, so that the analyst learns why."""
        record = session.record
        challenge = self._desk.own_challenge(record.run, record.attempt)
        if 0 <= now - challenge.record.issued_at <= COLLATERAL_SECONDS:
            if self._put_off(session.envelope):
                self._desk.note(record.run, record.attempt, "collateral", why)
            return
        self._desk.say_no(record.run, contract, record.attempt, session.id, why, now)

    def _challenge(self, contract: ObjectId, request: Envelope, attempt: int, now: int) -> None:
        run = request.payload_id
        agreement, me = self._desk.agreement(contract), self._desk.me(contract)
        self._desk.require_unwarned(agreement)
        decide_request(agreement=agreement, owner=me, request=request, facts=self._desk.facts(request), now=now)
        challenge = Challenge(
            run=run,
            attempt=attempt,
            renewal=0,
            contract=agreement.id,
            owner=me,
            nonce=secrets.token_bytes(32),
            issued_at=now,
        )
        envelope = self._desk.sign(challenge)
        self._desk.say(Answer(run=run, attempt=attempt, stage="challenge", about="", envelope=envelope), now)

    def _grant(self, contract: ObjectId, request: Envelope, session: Signed[Session], now: int) -> None:
        desk, record = self._desk, session.record
        agreement = desk.agreement(contract)
        desk.require_unwarned(agreement, record.verifying_key)
        used: list[Collateral] = []

        def judge(record: Session) -> Verdict:
            """Asks for endorsements last, when nothing else refuses: nobody makes a broker call its vendors for nothing."""
            used.append(desk.endorsements(record.evidence, agreement, now))
            return desk.judge(record.evidence, used[0], agreement, record.report_data, now)

        verdict = decide_grant(
            agreement=agreement,
            owner=desk.me(contract),
            request=request,
            challenge=desk.own_challenge(record.run, record.attempt),
            session=session,
            facts=desk.facts(request),
            judge=judge,
            now=now,
        )
        analysis = RunRequest.decode(request.payload).analysis
        grant = KeyGrant(
            run=record.run,
            attempt=record.attempt,
            contract=agreement.id,
            session=session.id,
            owner=desk.me(contract),
            keys=tuple(self._sealed_keys(agreement, analysis, session)),
            opt_outs=tuple(granted_lists(self._home, self._ledger, agreement, desk.me(contract), analysis, session)),
            verdict=verdict,
            collateral=used[0],
            issued_at=now,
            lease_until=now + agreement.contract.limits.lease_seconds,
        )
        desk.accepted(verdict)
        envelope = desk.sign(grant)
        answer = Answer(run=record.run, attempt=record.attempt, stage="grant", about=session.id, envelope=envelope)
        desk.say(answer, now, verdict)
        self._leases.granted(record.run, grant)

    def _sealed_keys(self, agreement: Agreement, analysis: str, session: Signed[Session]) -> Iterable[GrantedKey]:
        me = self._desk.me(agreement.id)
        for identity in agreement.keys_of(me, analysis):
            info = grant_info(
                run=session.record.run,
                attempt=session.record.attempt,
                contract=agreement.id,
                session=session.id,
                owner=me,
                manifest=identity,
            )
            sealed = crypto.seal(self._own_key(identity), session.record.sealing, info=info)
            yield GrantedKey(manifest=identity, sealed=sealed)

    def _own_key(self, identity: ObjectId) -> bytes:
        datasets, code = self._home.datasets(), self._home.codes()
        if identity in datasets:
            return self._home.data_key(datasets[identity].record)
        if identity in code:
            return self._home.code_key(code[identity].record)
        raise Misuse(
            "dataset.missing",
            "expected the contract's data set or sealed code in this party's directory, found none",
            hint="start the broker with the directory that sealed it",
        )
