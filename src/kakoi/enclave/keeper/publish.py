"""The end of a run: the output sealed to its recipients, and the passport that says what it is."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from kakoi.contract.approve import Agreement
from kakoi.contract.sign import Signed, seal
from kakoi.core import crypto, dsse
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import sha256
from kakoi.core.ids import ObjectId
from kakoi.enclave.keeper.secret import wipe_bytes
from kakoi.enclave.keeper.session import SessionKeys
from kakoi.wire.enclave_run import EnclaveRun
from kakoi.wire.messages import (
    GateDecision,
    LeftOut,
    Passport,
    Predicate,
    RecipientKey,
    RunRequest,
    SealedResult,
    Subject,
    SubjectDigest,
    result_info,
)
from kakoi.wire.released import Released
from kakoi.wire.result import OutputPayload

HARDWARE_NOTICE = "The enclave's evidence was made by hardware and judged by every owner."
SOFTWARE_NOTICE = (
    "NOT PROTECTED BY HARDWARE: the software platform protects nothing. For tests and demonstrations only."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What is sent to the hub, in this order: the blob, the passport, the result."""

    blob: bytes
    passport: Envelope
    result: Envelope


def publish(
    machine: EnclaveRun,
    *,
    keys: SessionKeys,
    session: Envelope,
    missing_layers: tuple[str, ...],
    request: Envelope,
    released: Released,
    opt_outs: tuple[LeftOut, ...],
) -> Published:
    """Seal what was released to the contract's recipients and sign the passport with the session's key."""
    agreement = machine.agreement
    output = OutputPayload(
        run=machine.request.id, contract=agreement.id, salt=secrets.token_bytes(32), released=released.encode()
    ).encode()
    passport = Passport(
        _type="https://in-toto.io/Statement/v1",
        predicateType="urn:kakoi:passport:v1",
        subject=(Subject(name="output", digest=SubjectDigest(sha256=ObjectId(sha256(output).hex()))),),
        predicate=_predicate(machine, session, missing_layers, request, released.decisions, opt_outs),
    )
    signed = dsse.sign(passport.encode(), keys, payload_type=dsse.IN_TOTO_TYPE)
    blob, result = _sealed(output, signed.payload_id, agreement, machine.request, session, machine.attempt)
    return Published(blob=blob, passport=signed, result=seal(result, keys))


def _predicate(
    machine: EnclaveRun,
    session: Envelope,
    missing_layers: tuple[str, ...],
    release_request: Envelope,
    gate: tuple[GateDecision, ...],
    opt_outs: tuple[LeftOut, ...],
) -> Predicate:
    last = machine.renewals.last
    leases = last.leases if last is not None else ()
    verdicts = [*(grant.record.verdict for grant in machine.grants.values()), *(item.record.verdict for item in leases)]
    hardware = all(verdict.protected_by_hardware for verdict in verdicts)
    return Predicate(
        run=machine.request.id,
        contract=machine.agreement.id,
        request=machine.request.envelope,
        bundle=machine.agreement.bundle,
        challenges=tuple(challenge.envelope for challenge in machine.challenges.values()),
        session=session,
        grants=tuple(grant.envelope for grant in machine.grants.values()),
        renewals=tuple(machine.renewals.done),
        last_renewal=None if last is None else last.whole,
        opt_outs=opt_outs,
        release_request=release_request,
        releases=tuple(release.envelope for release in machine.releases.values()),
        gate=gate,
        missing_layers=missing_layers,
        protected_by_hardware=hardware,
        notice=HARDWARE_NOTICE if hardware else SOFTWARE_NOTICE,
    )


def _sealed(
    output: bytes,
    passport: ObjectId,
    agreement: Agreement,
    request: Signed[RunRequest],
    session: Envelope,
    attempt: int,
) -> tuple[bytes, SealedResult]:
    """The output's ciphertext, and the record that says who can open it."""
    context = {"run": request.id, "contract": agreement.id, "session": session.payload_id}
    key = secrets.token_bytes(32)
    try:
        # The key is used for this one message, so the nonce may be constant.
        blob = crypto.aead_encrypt(key, bytes(12), output, result_info(**context, party=""))
        recipients = tuple(
            RecipientKey(
                party=party,
                sealed=crypto.seal(
                    key, agreement.cards[party].record.sealing, info=result_info(**context, party=party)
                ),
            )
            for party in agreement.contract.recipients
        )
    finally:
        wipe_bytes(key)
    return blob, SealedResult(
        run=request.id,
        attempt=attempt,
        contract=agreement.id,
        session=session.payload_id,
        passport=passport,
        blob=ObjectId(sha256(blob).hex()),
        size=len(blob),
        keys=recipients,
    )
