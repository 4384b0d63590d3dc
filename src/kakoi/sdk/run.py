"""Ask for a run, wait for it, open and verify the result. The command line and notebooks both use this."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kakoi.contract.approve import Agreement, agree, in_force
from kakoi.contract.sign import seal
from kakoi.core import crypto
from kakoi.core.clock import Clock
from kakoi.core.errors import KakoiError, Malformed, Refused, Unavailable
from kakoi.core.ids import BlobId, ObjectId, parse_id
from kakoi.net.bundle import fetch_bundle
from kakoi.net.client import HubClient
from kakoi.party.files import read_limited, write_private
from kakoi.party.home import PartyHome
from kakoi.sdk import waiting
from kakoi.sdk.alarm import alarmed_by_forks
from kakoi.sdk.verify import VerifiedResult, Verifiers, verify_result
from kakoi.sdk.waiting import Waiting, Waits
from kakoi.tlog import checkpoint as checkpoints
from kakoi.tlog.leaf import PASSPORT_KIND, leaf_hash
from kakoi.tlog.proof import LogProof
from kakoi.wire.analyst_run import AnalystRun, Arrived, Outcome
from kakoi.wire.messages import (
    Binding,
    Challenge,
    Denial,
    KeyGrant,
    Lease,
    Release,
    RunFailure,
    RunRequest,
    SealedResult,
    Session,
    SessionRenewal,
    result_info,
)
from kakoi.wire.request import check_parameters
from kakoi.wire.result import ResultFile

TOLD_KINDS: Final = (
    Challenge.KIND,
    Session.KIND,
    KeyGrant.KIND,
    SessionRenewal.KIND,
    Lease.KIND,
    Denial.KIND,
    RunFailure.KIND,
    SealedResult.KIND,
    *waiting.KINDS,
)
"""Messages of a run that an analyst is told of as they arrive."""
Tell = Callable[[str, str], None]
"""Progress: the kind of message that arrived, and who sent it (empty for an enclave)."""


class RunDenied(Refused):
    """An owner said no. ``denial`` has the failed checks, ``owner`` the owner's name."""

    def __init__(self, denial: Denial, owner: str) -> None:
        super().__init__(denial.code, f"{owner} refused: {denial.message}", hint=denial.hint)
        self.denial = denial
        self.owner = owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A verified result and the bytes of its ``result.kakoi``."""

    file: bytes
    verified: VerifiedResult


def load_agreement(hub: HubClient, contract: ObjectId) -> Agreement:
    """The contract with everything it names, checked whole. Raises Refused, naming what is missing."""
    return agree(fetch_bundle(hub, contract))


def bindings(values: Mapping[str, str | int]) -> tuple[Binding, ...]:
    """Parameter values by name, sorted."""
    return tuple(Binding(name=name, value=values[name]) for name in sorted(values))


def request_run(
    hub: HubClient, home: PartyHome, agreement: Agreement, analysis: ObjectId, values: tuple[Binding, ...], now: int
) -> ObjectId:
    """Sign and send a run request; returns the run's id.

    A contract that is not in force and parameters outside it are refused here already, and again by everybody else.
    """
    in_force(agreement, now)
    agreement.max_runs(analysis)
    check_parameters(agreement.analyses[analysis].record, values)
    request = RunRequest(
        contract=agreement.id,
        analysis=analysis,
        parameters=values,
        party=home.id_in(agreement.contract),
        nonce=secrets.token_bytes(32),
        requested_at=now,
    )
    envelope = seal(request, home.keys.signer())
    hub.put_object(envelope)
    return envelope.payload_id


class Following:
    """One run as its analyst follows it: page by page of what was said about it."""

    def __init__(self, hub: HubClient, agreement: Agreement, run: ObjectId) -> None:
        """Raises Refused if the run is of no analysis of this contract."""
        analysis = RunRequest.decode(hub.get_object(run).payload).analysis
        if analysis not in agreement.analyses:
            raise Refused("request.analysis", "expected a run of an analysis that the contract names, got another")
        self._hub, self._agreement, self._run, self._after = hub, agreement, run, 0
        owners = agreement.owners_of(analysis)
        self._machine = AnalystRun(agreement=agreement, run=run, owners=owners, sessions={})
        self._waits = Waits(agreement=agreement, run=run, owners=owners)

    def look(self, *, wait: int, tell: Tell) -> SealedResult | Waiting | None:
        """The result; or, if nothing was said for ``wait`` seconds, what the run waits for; else None: look again.

        Raises RunDenied, Refused for an enclave's failure, Unavailable ``run.ended`` for an end that nobody gave a reason for.
        """
        page = self._hub.feed(after=self._after, kinds=TOLD_KINDS, refs={"run": self._run}, wait=wait)
        state = None if page.items else self._hub.run(self._run)
        if state is not None and state.state in ("failed", "abandoned"):
            # The reason may have come between the two questions.
            page = self._hub.feed(after=self._after, kinds=TOLD_KINDS, refs={"run": self._run})
            if not page.items:
                raise _ended(self._waits.now(state))
        for item in page.items:
            envelope = self._hub.get_object(item.id)
            tell(item.kind, _sender(self._agreement, item.kind, envelope.payload))
            self._waits.saw(item.kind, envelope)
            outcome = self._machine.handle(Arrived(kind=item.kind, envelope=envelope))
            if outcome is not None:
                return _result_of(outcome, self._agreement)
        self._after = page.next
        return self._waits.now(state) if state is not None and not page.items else None


def _ended(last: Waiting) -> Unavailable:
    whom = f" (the last attempt waited for {', '.join(last.names)})" if last.names else ""
    return Unavailable(
        "run.ended",
        f"expected a result, got none: the enclave gave up without one{whom}",
        hint="the operator's enclave log says why; the run can be asked for again",
    )


def await_run(
    hub: HubClient,
    agreement: Agreement,
    run: ObjectId,
    *,
    clock: Clock,
    seconds: int,
    tell: Tell,
    waits: Callable[[Waiting], None] = lambda waiting: None,
) -> SealedResult:
    """Wait until the run has ended; ``waits`` hears what it waits for whenever that changes.

    Raises RunDenied, Refused for an enclave's failure, Unavailable after ``seconds``.
    """
    following, last, deadline = Following(hub, agreement, run), None, clock.now() + seconds
    while clock.now() < deadline:
        found = following.look(wait=2, tell=tell)
        if isinstance(found, SealedResult):
            return found
        if found is not None and found != last:
            last = found
            waits(found)
    whom = f"; it waits for {', '.join(last.names)}" if last is not None and last.names else ""
    raise Unavailable(
        "run.timeout",
        f"expected a result within {seconds} seconds, got none{whom}",
        hint="it may still arrive: kakoi result status, kakoi result open",
    )


def _sender(agreement: Agreement, kind: str, payload: bytes) -> str:
    try:
        for cls in (Challenge, KeyGrant, Lease, Release, Denial):
            if kind == cls.KIND:
                return agreement.cards[cls.decode(payload).owner].record.name
        return ""
    except (KeyError, KakoiError):
        return ""


def _result_of(outcome: Outcome, agreement: Agreement) -> SealedResult:
    if outcome.denial is not None:
        raise RunDenied(outcome.denial, agreement.cards[outcome.denial.owner].record.name)
    if outcome.failure is not None:
        raise Refused(outcome.failure.code, outcome.failure.message, hint=outcome.failure.hint)
    if outcome.result is None:
        raise RuntimeError("an outcome without a result")
    return outcome.result


def open_result(hub: HubClient, home: PartyHome, result: SealedResult, *, verifiers: Verifiers) -> Opened:
    """Fetch, decrypt and verify a result, with its proof from the transparency log.

    The log is checked against the checkpoint this party saw last, which is then advanced. Raises Refused if this party
    is no recipient, or for whatever ``verify_result`` refuses.
    """
    mine = next((key for key in result.keys if key.party in home.ids), None)
    if mine is None:
        raise Refused(
            "result.recipient",
            "expected a recipient of this contract's results, got another party",
            hint="the contract names its recipients; a new version can add one",
        )
    context = {"run": result.run, "contract": result.contract, "session": result.session}
    key = home.keys.opener().open(mine.sealed, info=result_info(**context, party=mine.party))
    blob = b"".join(hub.stream_blob(BlobId(result.blob), most=result.size))
    output = crypto.aead_decrypt(key, bytes(12), blob, result_info(**context, party=""))
    passport = hub.get_object(parse_id(result.passport))
    file = ResultFile(passport=passport, output=output, log=_log_proof(hub, passport.payload_id)).encode()
    verified = verify_result(file, verifiers=verifiers)
    if verified.passport.run != result.run:
        raise Refused("result.run", "expected the passport of this run, got another's")
    remember_checkpoint(hub, home, verified)
    return Opened(file=file, verified=verified)


def _log_proof(hub: HubClient, passport: ObjectId) -> bytes:
    note = hub.log_checkpoint()
    # The size is read from a note whose signature ``verify_result`` checks; a false one only makes that fail.
    size = unverified_size(note)
    found = hub.log_inclusion(leaf_hash(PASSPORT_KIND, passport), size)
    return LogProof(index=found.index, hashes=found.hashes, checkpoint=note).encode()


def unverified_size(note: bytes) -> int:
    """The tree size a checkpoint claims. Raises Refused if there is none."""
    lines = note.split(b"\n")
    if len(lines) < 2 or not lines[1].isdigit() or len(lines[1]) > 16:
        raise Malformed("log.checkpoint", "expected a checkpoint with a size, got something else")
    return int(lines[1])


def remember_checkpoint(hub: HubClient, home: PartyHome, verified: VerifiedResult) -> None:
    """Check that the log only grew since this party last looked, and remember where it is now."""
    log = verified.agreement.contract.log
    path: Path = home.path / f"log.{log.id[:16]}.checkpoint"
    seen = None
    if path.exists():
        seen = checkpoints.verify(read_limited(path, limit=64 * 1024), log)
    new = verified.checkpoint
    proof = hub.log_consistency(seen.size, new.size) if seen is not None and 0 < seen.size < new.size else ()
    with alarmed_by_forks(home):
        newest = checkpoints.advance(seen, new, proof)
    write_private(path, newest.note)
