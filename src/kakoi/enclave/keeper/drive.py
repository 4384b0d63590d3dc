"""One claimed run from challenge to passport: the state machine of ``wire.enclave_run`` joined to the hub and the engine.

Threads of a run: this one, which alone moves the state machine and holds the session's keys; one that renews the claim; one
that reads the hub's feed; and, while it computes, one that works. What the others find comes here through the inbox.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from kakoi.attest.report import TokenService
from kakoi.contract.approve import agree
from kakoi.contract.model import Contract
from kakoi.contract.rules import NO_EPSILON
from kakoi.contract.sign import seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Refused, Unavailable
from kakoi.core.ids import BlobId, ObjectId
from kakoi.enclave.gate.cohorts import Cohorts, Earlier
from kakoi.enclave.keeper.data import open_keys
from kakoi.enclave.keeper.data_secret import DataSecret
from kakoi.enclave.keeper.earlier import earlier_cohorts
from kakoi.enclave.keeper.inbox import Inbox
from kakoi.enclave.keeper.lease import LeaseClock, lease_over
from kakoi.enclave.keeper.opt_out import OptOuts, open_list_keys
from kakoi.enclave.keeper.publish import publish
from kakoi.enclave.keeper.session import Producer, SessionKeys
from kakoi.enclave.keeper.work import Ended, Engine, Judged, Task, Work
from kakoi.evidence.tokens import TokenClient, WithTokens
from kakoi.net.answers import Claim
from kakoi.net.bundle import fetch_bundle
from kakoi.net.client import HubClient
from kakoi.wire.enclave_run import (
    AskRelease,
    CloseFailed,
    CompareEarlier,
    Compute,
    EnclaveRun,
    Event,
    ExtendLease,
    Instruction,
    MakeSession,
    MessageArrived,
    OutputJudged,
    OutputReleased,
    PublishResult,
    ReleaseAsked,
    RenewalMade,
    RenewSession,
    SessionMade,
    StepFailed,
)
from kakoi.wire.messages import (
    Challenge,
    Denial,
    KeyGrant,
    Lease,
    Release,
    ReleaseRequest,
    RunFailure,
    RunRequest,
    SealedResult,
)
from kakoi.wire.release import data_id, data_read, epsilon_of, noise_id
from kakoi.wire.released import Released
from kakoi.wire.request import open_request

OWNERS_SECONDS: Final = 300
"""How long to wait for the owners' challenges, and again for their answers."""
CLAIM_SECONDS: Final = 30
"""Lease of the claim on a run, unless told otherwise; renewed at a third of it."""
SILENT_ATTEMPTS: Final = 3
"""In how many attempts a demanded attestation service may stay silent: the last of them tells the analyst. Fewer than the hub's own limit."""
_KINDS: Final = (Challenge.KIND, Denial.KIND, KeyGrant.KIND, Lease.KIND, Release.KIND)
_TICK_SECONDS: Final = 0.5
_NOT_OURS: Final = frozenset({"hub.claim", "hub.run-ended"})
"""The hub's words for a claim that ended, and for a run that another attempt has ended."""

Tell = Callable[[str, str], None]
"""Where progress goes: run and step. Nothing in it depends on data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclave:
    """What one enclave process is made of."""

    hub: HubClient
    producer: Producer
    engine: Engine
    missing_layers: tuple[str, ...]
    tell: Tell
    claim_seconds: int = CLAIM_SECONDS
    token_clients: Mapping[TokenService, TokenClient] = field(default_factory=dict)
    """Attestation services that this machine can ask for tokens, where a contract demands them."""


class Drive:
    """One attempt at one run."""

    def __init__(self, enclave: Enclave, claim: Claim) -> None:
        self._enclave, self._hub, self._claim = enclave, enclave.hub, claim
        self._run_id = ObjectId(claim.run)
        self._keys = SessionKeys()
        self._lease = LeaseClock()
        self._session: Envelope | None = None
        self._secret: DataSecret | None = None
        self._judged: Judged | None = None
        self._request: Envelope | None = None
        self._released: Released | None = None
        self._opt_outs = OptOuts()
        self._work: Work | None = None
        self._inbox: Inbox[Event | Ended] | None = None
        self._lost, self._stop = threading.Event(), threading.Event()

    def carry_out(self) -> None:
        """Everything until the run is closed. Raises Unavailable if the hub stays away: the claim then expires."""
        try:
            with self._renewing():
                self._carry_out()
        finally:
            self._end_work()
            self._keys.wipe()
            if self._secret is not None:
                self._secret.wipe()

    def _end_work(self) -> None:
        """Kill the job, if one runs, and wait until nothing of it is left."""
        self._stop.set()
        if self._work is not None:
            self._work.join()
        if self._inbox is not None:
            self._inbox.close()

    def _stopped(self) -> bool:
        """Whether the work must end: asked by the thread that works, so that it ends even if this one is held up."""
        return self._stop.is_set() or self._lost.is_set() or self._lease.is_over()

    def _carry_out(self) -> None:
        if self._is_settled():
            return
        try:
            machine = self._prepare()
        except (KakoiError, ValueError) as error:
            self._tell(f"refused before a session: {getattr(error, 'code', 'internal')}")
            if isinstance(error, Unavailable):
                raise
            self._hub.fail(self._claim)
            return
        self._inbox = Inbox(
            self._hub, self._run_id, _KINDS, lambda kind, envelope: MessageArrived(kind=kind, envelope=envelope)
        )
        self._converse(machine, self._inbox)

    def _tell(self, step: str) -> None:
        self._enclave.tell(self._run_id, step)

    def _is_settled(self) -> bool:
        """Whether an earlier attempt told how the run ended and died before it could close it: then this closes it."""
        if self._claim.attempt == 1:
            return False
        page = self._hub.feed(kinds=(SealedResult.KIND, RunFailure.KIND), refs={"run": self._run_id})
        kinds = {item.kind for item in page.items}
        if SealedResult.KIND in kinds:
            self._tell("has a result already")
            self._hub.finish(self._claim)
        elif kinds:
            self._tell("has failed already")
            self._hub.fail(self._claim)
        return bool(kinds)

    def _prepare(self) -> EnclaveRun:
        envelope = self._hub.get_object(self._run_id)
        contract = RunRequest.decode(envelope.payload).contract
        agreement = agree(fetch_bundle(self._hub, contract))
        request = open_request(envelope, agreement)
        return EnclaveRun(agreement=agreement, request=request, attempt=self._claim.attempt)

    def _converse(self, machine: EnclaveRun, inbox: Inbox[Event | Ended]) -> None:
        waited, state = time.monotonic(), machine.state
        while machine.state not in ("done", "failed"):
            if self._lost.is_set():
                raise _given_away()
            if machine.state != state:
                state, waited = machine.state, time.monotonic()
            found = inbox.next(min(_TICK_SECONDS, self._lease.left()))
            if machine.state == "computing" and self._lease.is_over():
                self._handle(machine, StepFailed(error=self._lease_over(machine)))
            elif machine.state != "computing" and time.monotonic() - waited > OWNERS_SECONDS:
                self._handle(machine, StepFailed(error=_silent_owners()))
            elif isinstance(found, Ended):
                self._handle(machine, self._of_end(found))
            elif found is not None:
                self._handle(machine, found)

    def _of_end(self, ended: Ended) -> Event:
        """What the end of the work means for the machine. Raises Unavailable if another attempt may do better."""
        if ended.error is not None:
            if not ended.final:
                raise ended.error
            return StepFailed(error=ended.error)
        self._judged = ended.judged
        return OutputJudged()

    def _lease_over(self, machine: EnclaveRun) -> Refused:
        names = [machine.agreement.cards[owner].record.name for owner in machine.renewals.silent]
        return lease_over(names)

    def _handle(self, machine: EnclaveRun, event: Event) -> None:
        pending = machine.handle(event)
        while pending:
            following: list[Event] = []
            for instruction in pending:
                try:
                    following += self._do(machine, instruction)
                except Unavailable:
                    raise
                except KakoiError as error:
                    following.append(StepFailed(error=error))
            pending = [instruction for event in following for instruction in machine.handle(event)]

    def _do(self, machine: EnclaveRun, instruction: Instruction) -> list[Event]:
        if isinstance(instruction, MakeSession):
            return [self._make_session(machine, instruction)]
        if isinstance(instruction, RenewSession):
            return [self._renew_session(machine, instruction)]
        if isinstance(instruction, AskRelease):
            return [self._ask_release(machine)]
        if isinstance(instruction, CompareEarlier):
            return [self._compare(machine, instruction)]
        if isinstance(instruction, Compute):
            self._compute(machine, instruction)
        elif isinstance(instruction, ExtendLease):
            self._lease.granted(instruction.renewal, instruction.lease_seconds)
            self._tell(f"may go on, renewal {instruction.renewal}")
        elif isinstance(instruction, PublishResult):
            self._publish(machine)
        else:
            self._close_failed(machine, instruction)
        return []

    def _producer(self, contract: Contract) -> Producer:
        """The hardware, with the tokens that this contract demands beside its evidence."""
        wanted = frozenset((token.accompanies, token.service) for token in contract.platforms.tokens)
        if not wanted:
            return self._enclave.producer
        return WithTokens(inner=self._enclave.producer, clients=self._enclave.token_clients, wanted=wanted)

    def _make_session(self, machine: EnclaveRun, instruction: MakeSession) -> SessionMade:
        self._tell("asks the hardware for evidence")
        self._lease.asked(0)
        silent: Refused | None = None
        try:
            self._session = self._new_session(machine, instruction, self._producer(machine.agreement.contract))
        except Unavailable as error:
            silent = self._silent_service(error)
            # A failure needs a session that signs it. This one lacks what the contract demands, so no owner gives it a key.
            self._session = self._new_session(machine, instruction, self._enclave.producer)
        self._put(self._session)
        if silent is not None:
            raise silent
        return SessionMade(session=self._session.payload_id)

    def _new_session(self, machine: EnclaveRun, instruction: MakeSession, producer: Producer) -> Envelope:
        return self._keys.session(
            producer,
            run=self._run_id,
            attempt=machine.attempt,
            contract=machine.agreement.id,
            challenges=instruction.challenges,
            missing_layers=self._enclave.missing_layers,
        )

    def _silent_service(self, error: Unavailable) -> Refused:
        """What ends the run, if an attestation service was silent too often. Raises ``error`` if another attempt may do better."""
        if error.code != "evidence.token" or self._claim.attempt < SILENT_ATTEMPTS:
            raise error
        return Refused(
            "session.token-silent",
            f"expected a token that the contract demands within {SILENT_ATTEMPTS} attempts, got none from its service",
            hint="ask the operator whether the service is reachable from the enclave; then ask for the run again",
        )

    def _renew_session(self, machine: EnclaveRun, instruction: RenewSession) -> RenewalMade:
        self._tell(f"asks the hardware again, renewal {instruction.renewal}")
        self._lease.asked(instruction.renewal)
        try:
            envelope = self._keys.renewal(
                self._producer(machine.agreement.contract),
                run=self._run_id,
                attempt=machine.attempt,
                renewal=instruction.renewal,
                contract=machine.agreement.id,
                session=ObjectId(machine.session),
                challenges=instruction.challenges,
            )
        except Unavailable as error:
            raise self._silent_service(error) from None
        self._put(envelope)
        return RenewalMade(renewal=instruction.renewal, statement=envelope)

    def _compute(self, machine: EnclaveRun, instruction: Compute) -> None:
        self._lease.granted(0, instruction.lease_seconds)
        inbox = self._inbox
        if inbox is None:
            raise RuntimeError("no inbox")
        keys = open_keys(instruction.grants, machine.agreement, self._keys)
        try:
            list_keys = open_list_keys(instruction.grants, machine.agreement, self._keys)
        except BaseException:
            keys.wipe()
            raise
        self._keys.forget_sealing()
        analysis = machine.request.record.analysis
        data = data_id(machine.agreement, analysis)
        self._secret = DataSecret(keys, data_read(machine.agreement, analysis), data)
        task = Task(
            hub=self._hub,
            engine=self._enclave.engine,
            agreement=machine.agreement,
            request=machine.request.record,
            keys=keys,
            list_keys=list_keys,
            lists=tuple(item for grant in instruction.grants for item in grant.record.opt_outs),
            opt_outs=self._opt_outs,
            secret=self._secret,
            tell=self._tell,
        )
        self._work = Work(task, stopped=self._stopped, ended=inbox.put)

    def _ask_release(self, machine: EnclaveRun) -> ReleaseAsked:
        if self._judged is None or self._secret is None or self._session is None:
            raise RuntimeError("nothing to ask for")
        self._tell("asks the owners to let the result go")
        epsilon, asked = epsilon_of(machine.agreement), machine.request.record
        request = ReleaseRequest(
            run=self._run_id,
            attempt=machine.attempt,
            contract=machine.agreement.id,
            session=self._session.payload_id,
            cohorts=self._secret.seal(Cohorts(run=self._run_id, populations=self._judged.populations())),
            output_kilobytes=-(-len(self._judged.released.encode()) // 1024),
            epsilon=epsilon,
            noise=None if epsilon == NO_EPSILON else noise_id(machine.agreement, asked, self._opt_outs.names),
        )
        self._request = seal(request, self._keys)
        self._put(self._request)
        return ReleaseAsked(request=self._request.payload_id)

    def _compare(self, machine: EnclaveRun, instruction: CompareEarlier) -> OutputReleased:
        """Hold the output against what every owner's ledger says was released earlier. Raises Refused, Unavailable."""
        if self._judged is None or self._secret is None:
            raise RuntimeError("nothing to compare")
        self._tell("holds the result against earlier releases")
        rules = [entry.rules.cohort_difference for entry in machine.agreement.contract.data]
        earlier = Earlier(least=max(rules))
        for cohorts in earlier_cohorts(self._hub, machine.agreement, instruction.releases, self._secret):
            if cohorts.run != self._run_id:
                for population in cohorts.populations:
                    earlier.add(population)
        self._released = self._judged.against(earlier)
        return OutputReleased()

    def _publish(self, machine: EnclaveRun) -> None:
        if self._released is None or self._session is None or self._request is None:
            raise RuntimeError("nothing to publish")
        self._still_ours()
        self._tell("seals the result and signs the passport")
        published = publish(
            machine,
            keys=self._keys,
            session=self._session,
            missing_layers=self._enclave.missing_layers,
            request=self._request,
            released=self._released,
            opt_outs=self._opt_outs.said(machine.agreement),
        )
        blob = BlobId(SealedResult.decode(published.result.payload).blob)
        self._hub.put_blob(blob, io.BytesIO(published.blob), len(published.blob))
        self._put(published.passport)
        self._put(published.result)
        self._hub.finish(self._claim)
        self._tell("is done")

    def _still_ours(self) -> None:
        """Raise Unavailable if the claim ended while the engine ran, before anything is sealed; ``_put`` makes sure of it."""
        try:
            self._hub.renew(self._claim)
        except Refused:
            raise _given_away() from None

    def _put(self, envelope: Envelope) -> None:
        """Store what the session says, if the run is still this claim's: the hub compares in the same transaction."""
        try:
            self._hub.put_object(envelope, claim=self._claim.token)
        except Refused as error:
            if error.code in _NOT_OURS:
                raise _given_away() from None
            raise

    def _close_failed(self, machine: EnclaveRun, instruction: CloseFailed) -> None:
        error = instruction.error
        self._end_work()
        self._tell(f"ends without a result: {error.code}")
        if self._session is not None and not instruction.said_by:
            failure = RunFailure(
                run=self._run_id,
                attempt=machine.attempt,
                contract=machine.agreement.id,
                session=self._session.payload_id,
                code=error.code,
                message=error.message[:2000],
                hint=error.hint[:2000],
            )
            self._put(seal(failure, self._keys))
        self._hub.fail(self._claim)

    @contextmanager
    def _renewing(self) -> Iterator[None]:
        """Keep the claim alive from a thread of its own, because the engine may run long."""
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(self._enclave.claim_seconds / 3):
                try:
                    self._hub.renew(self._claim)
                except Refused:
                    self._lost.set()
                    return
                except KakoiError:
                    continue

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _given_away() -> Unavailable:
    return Unavailable("run.given-away", "the hub gave the run to another enclave")


def _silent_owners() -> Unavailable:
    return Unavailable(
        "session.owners-silent",
        f"expected every owner's answer within {OWNERS_SECONDS} seconds, got none from at least one",
        hint="ask the owners whether their brokers run",
    )
