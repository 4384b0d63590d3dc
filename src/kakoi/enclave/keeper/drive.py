"""One claimed run from challenge to passport: the state machine of ``wire.enclave_run`` joined to the hub and the engine."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from kakoi.contract.approve import Agreement, agree
from kakoi.contract.sign import seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Refused, Unavailable
from kakoi.core.ids import BlobId, ObjectId
from kakoi.enclave.keeper.data import DataKeys, open_file, open_keys
from kakoi.enclave.keeper.publish import publish
from kakoi.enclave.keeper.session import Producer, SessionKeys
from kakoi.net.answers import Claim
from kakoi.net.bundle import fetch_bundle
from kakoi.net.client import HubClient
from kakoi.wire.enclave_run import (
    CloseFailed,
    Compute,
    EnclaveRun,
    Event,
    Instruction,
    MakeSession,
    MessageArrived,
    OutputReleased,
    SessionMade,
    StepFailed,
)
from kakoi.wire.messages import Challenge, Denial, GateDecision, KeyGrant, RunFailure, RunRequest, SealedResult
from kakoi.wire.request import open_request

OWNERS_SECONDS: Final = 300
"""How long to wait for the owners' challenges, and again for their answers."""
CLAIM_SECONDS: Final = 30
"""Lease of the claim on a run, unless told otherwise; renewed at a third of it."""
_KINDS: Final = (Challenge.KIND, Denial.KIND, KeyGrant.KIND)


class Engine(Protocol):
    """Whoever turns plaintext tables into a gated output. The keeper gives it descriptors of sealed memory, never keys."""

    def compute(
        self,
        agreement: Agreement,
        request: RunRequest,
        tables: Mapping[str, tuple[int, ...]],
        *,
        seconds: int,
        stopped: Callable[[], bool],
    ) -> tuple[bytes, tuple[GateDecision, ...]]:
        """What the gate let out, and its decisions. ``tables``: descriptors of Parquet by manifest id.

        ``stopped`` is asked now and then; once it says yes the job is killed.
        """
        ...


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


class Drive:
    """One attempt at one run."""

    def __init__(self, enclave: Enclave, claim: Claim) -> None:
        self._enclave, self._hub, self._claim = enclave, enclave.hub, claim
        self._run_id = ObjectId(claim.run)
        self._keys = SessionKeys()
        self._session: Envelope | None = None
        self._released: tuple[bytes, tuple[GateDecision, ...]] | None = None
        self._lost = threading.Event()

    def carry_out(self) -> None:
        """Everything until the run is closed. Raises Unavailable if the hub stays away: the claim then expires."""
        try:
            with self._renewing():
                self._carry_out()
        finally:
            self._keys.wipe()

    def _carry_out(self) -> None:
        if self._is_settled():
            return
        try:
            machine = self._prepare()
        except (KakoiError, ValueError) as error:
            self._enclave.tell(self._run_id, f"refused before a session: {getattr(error, 'code', 'internal')}")
            if isinstance(error, Unavailable):
                raise
            self._hub.fail(self._claim)
            return
        self._converse(machine)

    def _is_settled(self) -> bool:
        """Whether an earlier attempt gave its result and died before it could say that it was done: then this says so."""
        if self._claim.attempt == 1:
            return False
        if not self._hub.feed(kinds=(SealedResult.KIND,), refs={"run": self._run_id}).items:
            return False
        self._enclave.tell(self._run_id, "has a result already")
        self._hub.finish(self._claim)
        return True

    def _prepare(self) -> EnclaveRun:
        envelope = self._hub.get_object(self._run_id)
        contract = RunRequest.decode(envelope.payload).contract
        agreement = agree(fetch_bundle(self._hub, contract))
        request = open_request(envelope, agreement)
        return EnclaveRun(agreement=agreement, request=request, attempt=self._claim.attempt)

    def _converse(self, machine: EnclaveRun) -> None:
        after, waited, state = 0, time.monotonic(), machine.state
        while machine.state not in ("done", "failed"):
            if self._lost.is_set():
                raise _given_away()
            if machine.state != state:
                state, waited = machine.state, time.monotonic()
            if time.monotonic() - waited > OWNERS_SECONDS:
                self._handle(machine, StepFailed(error=_silent_owners()))
                return
            page = self._hub.feed(after=after, kinds=_KINDS, refs={"run": self._run_id}, wait=5)
            for item in page.items:
                self._handle(machine, MessageArrived(kind=item.kind, envelope=self._hub.get_object(item.id)))
            after = page.next

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
        if isinstance(instruction, Compute):
            return [self._compute(machine, instruction)]
        if isinstance(instruction, CloseFailed):
            self._close_failed(machine, instruction)
        else:
            self._publish(machine)
        return []

    def _make_session(self, machine: EnclaveRun, instruction: MakeSession) -> SessionMade:
        self._enclave.tell(self._run_id, "asks the hardware for evidence")
        self._session = self._keys.session(
            self._enclave.producer,
            run=self._run_id,
            attempt=machine.attempt,
            contract=machine.agreement.id,
            challenges=instruction.challenges,
            missing_layers=self._enclave.missing_layers,
        )
        self._hub.put_object(self._session, claim=self._claim.token)
        return SessionMade(session=self._session.payload_id)

    def _compute(self, machine: EnclaveRun, instruction: Compute) -> OutputReleased:
        agreement, request = machine.agreement, machine.request.record
        self._enclave.tell(self._run_id, "has all keys, decrypts")
        started = time.monotonic()
        with ExitStack() as stack:
            with open_keys(instruction.grants, agreement, self._keys) as keys:
                self._keys.forget_sealing()
                tables = self._decrypt(agreement, request, keys, stack)
            self._enclave.tell(self._run_id, "runs the analysis")
            left = int(
                min(agreement.contract.limits.wall_seconds, instruction.lease_seconds) - time.monotonic() + started
            )
            if left <= 0:
                raise Refused("session.lease-over", "expected the data within the lease of the keys; it took longer")
            self._released = self._in_sandbox(agreement, request, tables, left)
        if time.monotonic() - started > instruction.lease_seconds:
            raise Refused("session.lease-over", "expected a result within the lease of the keys; it took longer")
        return OutputReleased()

    def _decrypt(
        self, agreement: Agreement, request: RunRequest, keys: DataKeys, stack: ExitStack
    ) -> dict[str, tuple[int, ...]]:
        """Descriptors of the plaintext by manifest; ``stack`` closes them."""
        source = _HubBlobs(self._hub)
        tables: dict[str, tuple[int, ...]] = {}
        for identity in _needed(agreement, request):
            manifest = agreement.manifests[identity].record
            descriptors = []
            with keys.key(identity) as key:
                for file in manifest.files:
                    descriptors.append(open_file(source, manifest, file, key))
                    stack.callback(os.close, descriptors[-1])
            tables[identity] = tuple(descriptors)
        return tables

    def _in_sandbox(
        self, agreement: Agreement, request: RunRequest, tables: Mapping[str, tuple[int, ...]], seconds: int
    ) -> tuple[bytes, tuple[GateDecision, ...]]:
        try:
            return self._enclave.engine.compute(agreement, request, tables, seconds=seconds, stopped=self._lost.is_set)
        except Unavailable as error:
            # A machine that cannot run the engine will not learn it in another attempt: the analyst is told, once.
            raise Refused(error.code, error.message, hint=error.hint) from error

    def _publish(self, machine: EnclaveRun) -> None:
        if self._released is None or self._session is None:
            raise RuntimeError("nothing to publish")
        self._still_ours()
        self._enclave.tell(self._run_id, "seals the result and signs the passport")
        published = publish(
            agreement=machine.agreement,
            request=machine.request,
            attempt=machine.attempt,
            keys=self._keys,
            session=self._session,
            challenges=tuple(machine.challenges.values()),
            grants=tuple(machine.grants.values()),
            missing_layers=self._enclave.missing_layers,
            released=self._released[0],
            gate=self._released[1],
        )
        blob = BlobId(SealedResult.decode(published.result.payload).blob)
        self._hub.put_blob(blob, io.BytesIO(published.blob), len(published.blob))
        self._hub.put_object(published.passport)
        self._hub.put_object(published.result)
        self._hub.finish(self._claim)
        self._enclave.tell(self._run_id, "is done")

    def _still_ours(self) -> None:
        """Raise Unavailable if the claim ended while the engine ran: another attempt gives the result, so that there is one."""
        try:
            self._hub.renew(self._claim)
        except Refused:
            raise _given_away() from None

    def _close_failed(self, machine: EnclaveRun, instruction: CloseFailed) -> None:
        error = instruction.error
        self._enclave.tell(self._run_id, f"ends without a result: {error.code}")
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
            self._hub.put_object(seal(failure, self._keys))
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


class _HubBlobs:
    """Ciphertext from the hub's storage. Segments are checked by the reader, the whole blob by the client."""

    def __init__(self, hub: HubClient) -> None:
        self._hub = hub

    def blob(self, blob: str, *, size: int) -> Iterator[bytes]:
        return self._hub.stream_blob(BlobId(blob), most=size)


def _needed(agreement: Agreement, request: RunRequest) -> list[str]:
    """Manifests of the tables that the analysis reads; other data sets stay sealed."""
    tables = {use.table for use in agreement.analyses[request.analysis].record.reads}
    return [identity for identity, manifest in agreement.manifests.items() if manifest.record.table in tables]


def _given_away() -> Unavailable:
    return Unavailable("run.given-away", "the hub gave the run to another enclave")


def _silent_owners() -> Unavailable:
    return Unavailable(
        "session.owners-silent",
        f"expected every owner's answer within {OWNERS_SECONDS} seconds, got none from at least one",
        hint="ask the owners whether their brokers run",
    )
