"""What all answers of one broker need: its directory and ledger, the hub, the judges, and how something is said.

Everything is stored before it is sent, with the decision that led to it, and moves the run's state machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from kakoi.attest.registry import find_policy
from kakoi.attest.report import Collateral, Evidence, Verdict
from kakoi.broker import precautions
from kakoi.broker.decide import Facts
from kakoi.broker.ledger import Answer, Decision, Ledger
from kakoi.broker.lookout import Lookout
from kakoi.broker.releases import Entry, Place
from kakoi.contract.approve import Agreement, agree
from kakoi.contract.model import Contract
from kakoi.contract.sign import Signed, open_signed, seal
from kakoi.core.clock import Clock
from kakoi.core.crypto import VerifyingKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Refused, Unavailable
from kakoi.core.ids import ObjectId, PartyId
from kakoi.core.records import Record
from kakoi.net.answers import RunState
from kakoi.net.bundle import ObjectSource, fetch_bundle
from kakoi.party.home import PartyHome
from kakoi.wire.broker_run import Answered, BrokerRun, ChallengeIssued, LeaseGiven, Released, RunDenied
from kakoi.wire.messages import Challenge, Denial, Lease, RunRequest


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


class NoEndorsements(Exception):
    """Nobody gives endorsements for some evidence now. Not an Unavailable of the hub, which ends the round."""

    def __init__(self, why: Unavailable) -> None:
        super().__init__(why.code)
        self.why = why


def stage_of(name: str, renewal: int = 0) -> str:
    """How an answer is filed: challenge, grant and denial once for each attempt; ``challenge.3`` and ``lease.3`` of renewals."""
    return f"{name}.{renewal}" if renewal else name


class Desk:
    """One owner's means of answering."""

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
        self.home, self.ledger, self.hub, self.clock = home, ledger, hub, clock
        self._collateral, self._judge, self._tell = collateral, judge, tell
        self.lookout = Lookout(home=home, ledger=ledger, contract=self._record)
        self._agreements: dict[str, Agreement] = {}
        self._machines: dict[str, BrokerRun] = {}
        self._ids: dict[str, PartyId] = {}

    def me(self, contract: ObjectId) -> PartyId:
        """This owner's id in a contract, which may name an earlier card of the same keys."""
        if contract not in self._ids:
            record = Contract.decode(self.hub.get_object(contract).payload)
            self._ids[contract] = self.home.id_in(record)
        return self._ids[contract]

    def agreement(self, contract: ObjectId) -> Agreement:
        """The contract with everything, checked whole once. Raises Refused."""
        if contract not in self._agreements:
            self._agreements[contract] = agree(fetch_bundle(self.hub, contract))
        return self._agreements[contract]

    def facts(self, envelope: Envelope) -> Facts:
        """What the own ledger knows about a run request."""
        request = RunRequest.decode(envelope.payload)
        quarantined = self.lookout.quarantined(ObjectId(request.contract), self.clock.now())
        self._tell_of(self.lookout.news())
        return Facts(
            approved=self.ledger.approved(),
            withdrawn=self.ledger.withdrawn(),
            granted_runs=self.ledger.granted_runs(request.contract, request.analysis, besides=envelope.payload_id),
            quarantined=quarantined,
        )

    def require_unwarned(self, agreement: Agreement, *sessions: VerifyingKey) -> None:
        """Raise Refused if an indicator that acts names a key of a party of this contract, or one of these sessions'."""
        shelf, now = self.lookout.shelf, self.clock.now()
        precautions.parties_not_indicated(shelf, agreement.cards, now)
        precautions.keys_not_indicated(shelf, sessions, (), now)

    def look_out(self) -> None:
        """Look whether a weakness has become known that touches a contract of this owner, or a grace is over."""
        self.lookout.look(self.clock.now())
        self._tell_of(self.lookout.news())

    def _tell_of(self, news: Iterable[KakoiError]) -> None:
        for item in news:
            self.note("", 0, "quarantine", item)

    def _record(self, contract: ObjectId) -> Contract:
        return Contract.decode(self.hub.get_object(contract).payload)

    def machine(self, run: str) -> BrokerRun:
        """The run's state machine, rebuilt from the ledger after a restart."""
        if run not in self._machines:
            machine = BrokerRun(run=run)
            for answer in self.ledger.answers(run):
                _move(machine, answer)
            self._machines[run] = machine
        return self._machines[run]

    def forget(self, run: str) -> None:
        """The run is over."""
        self._machines.pop(run, None)

    def endorsements(self, evidence: Evidence, agreement: Agreement, now: int) -> Collateral:
        """Current endorsements for evidence of a kind that the contract accepts. Raises Refused, NoEndorsements."""
        find_policy(evidence, agreement.contract.platforms)
        try:
            return self._collateral.collateral(evidence, now)
        except Unavailable as error:
            raise NoEndorsements(error) from None

    def judge(
        self, evidence: Evidence, collateral: Collateral, agreement: Agreement, report_data: bytes, now: int
    ) -> Verdict:
        """The verdict, held against the highest TCB evaluation numbers that this owner accepted before."""
        floors = self.ledger.floors(evidence.platform)
        verdict = self._judge(evidence, collateral, agreement, report_data, now, floors)
        return precautions.not_indicated(self.lookout.shelf, verdict, now)

    def accepted(self, verdict: Verdict) -> None:
        """Remember the TCB evaluation number, so that an older recovery is never accepted again."""
        number = verdict.claims.tcb_evaluation_number
        if number is not None:
            self.ledger.raise_floor(verdict.claims.platform, verdict.claims.product, number)

    def own_challenge(self, run: str, attempt: int, renewal: int = 0) -> Signed[Challenge]:
        """What this owner asked. Raises Refused if it did not."""
        for answer in self.ledger.answers(run):
            if (answer.stage, answer.attempt) == (stage_of("challenge", renewal), attempt):
                return open_signed(Challenge, answer.envelope, self.home.card)
        raise Refused("session.challenge", "expected a session that answers a challenge of this owner, got another")

    def sign(self, record: Record) -> Envelope:
        """An object in its envelope, signed by this owner."""
        return seal(record, self.home.keys.signer())

    def say_no(self, run: ObjectId, contract: ObjectId, attempt: int, about: str, error: KakoiError, now: int) -> None:
        """Say no, with the reason and every failed check."""
        verdict: Verdict | None = getattr(error, "verdict", None)
        failed = tuple(c for c in verdict.checks if c.outcome == "failed") if verdict else ()
        denial = Denial(
            run=run,
            attempt=attempt,
            contract=contract,
            owner=self.me(contract),
            code=error.code,
            message=error.message[:2000],
            hint=error.hint[:2000],
            checks=failed,
            denied_at=now,
        )
        answer = Answer(run=run, attempt=attempt, stage="denial", about=about, envelope=self.sign(denial))
        self.say(answer, now, verdict, error)

    def say(self, answer: Answer, now: int, verdict: Verdict | None = None, error: KakoiError | None = None) -> None:
        """Store an answer with its decision, and move the run's machine."""
        decision = _decision(answer, now, verdict, error)
        self.ledger.say(answer, decision)
        _move(self.machine(answer.run), answer)
        self._tell(decision)

    def release(self, answers: tuple[Answer, Answer], entry: Entry, place: Place) -> None:
        """Store a release (the earlier cohorts, then the yes) with its entry in the ledger, and move the run's machine."""
        decision = _decision(answers[1], entry.at, None, None)
        self.ledger.release(answers, decision, entry, place)
        _move(self.machine(entry.run), answers[1])
        self._tell(decision)

    def note(self, run: str, attempt: int, step: str, error: KakoiError) -> None:
        """Store a decision that has no answer."""
        decision = Decision(
            at=self.clock.now(),
            run=run,
            attempt=attempt,
            step=step,
            outcome="no",
            code=error.code,
            message=error.message,
            hint=error.hint,
        )
        self.ledger.note(decision)
        self._tell(decision)


def _decision(answer: Answer, now: int, verdict: Verdict | None, error: KakoiError | None) -> Decision:
    checks = tuple(
        {"name": c.name, "outcome": c.outcome, "expected": c.expected, "got": c.got, "mender": c.mender}
        for c in (verdict.checks if verdict else ())
    )
    return Decision(
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


def _move(machine: BrokerRun, answer: Answer) -> None:
    """Tell a run's machine what was said. What goes with a release moves nothing."""
    stage = answer.stage.partition(".")[0]
    event: ChallengeIssued | Answered | LeaseGiven | Released | RunDenied = RunDenied()
    if stage == "earlier":
        return
    if stage == "challenge":
        asked = Challenge.decode(answer.envelope.payload)
        event = ChallengeIssued(attempt=asked.attempt, renewal=asked.renewal, challenge=answer.envelope.payload_id)
    elif stage == "grant":
        event = Answered(attempt=answer.attempt, session=answer.about)
    elif stage == "lease":
        lease = Lease.decode(answer.envelope.payload)
        event = LeaseGiven(attempt=lease.attempt, renewal=lease.renewal, evidence=lease.evidence)
    elif stage == "release":
        event = Released(attempt=answer.attempt, request=answer.about)
    machine.handle(event)
