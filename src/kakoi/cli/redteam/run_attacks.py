"""What an analyst, another owner and the operator try with runs, sessions and evidence."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Final

from kakoi.attest.report import Evidence
from kakoi.broker import consent
from kakoi.cli.redteam.attack import Attack, NotTried, Through, repelled_by
from kakoi.cli.redteam.ground import Ground, ledger, until
from kakoi.cli.ui import SystemClock
from kakoi.contract.model import Approval, ContractAnalysis, Withdrawal
from kakoi.contract.sign import seal
from kakoi.core.crypto import SEALING_SECRET, SealingKey
from kakoi.core.ids import ObjectId, PartyId
from kakoi.evidence import software
from kakoi.net.answers import Claim
from kakoi.wire.messages import Binding, Challenge, KeyGrant, grant_info

DAY: Final = 86400


def _must(code: str, *wanted: str) -> str:
    """The code of a denial, if it is one that this attack must meet."""
    if code not in wanted:
        raise NotTried(f"denied, but for another reason: {code}")
    return code


# -- the analyst


def parameter_outside(ground: Ground) -> str:
    """A parameter outside the contract, signed and sent past the analyst's own client."""
    run = ground.request(parameters=(Binding(name="minimum_age", value=121),))
    return _must(ground.denial(run), "request.parameter-range")


def foreign_requester(ground: Ground) -> str:
    """An owner asks as if it were the analyst."""
    run = ground.request(signer=ground.owner, party=PartyId(ground.owner.card.id))
    return ground.denial(run)


def old_request(ground: Ground) -> str:
    """A request of two days ago."""
    return _must(ground.denial(ground.request(requested_at=SystemClock().now() - 2 * DAY)), "request.time")


def missing_signature(ground: Ground) -> str:
    """A run under a contract that one owner has not signed."""
    contract = ground.publish(ground.another(), silent=ground.rival)
    return _must(ground.denial(ground.request(contract=contract)), "contract.approval-missing", "decision.not-approved")


def more_runs(ground: Ground) -> str:
    """One run more than was agreed."""
    entry = ContractAnalysis(analysis=ground.analysis, max_runs=1)
    contract = ground.publish(ground.another(analyses=(entry,)))
    run = ground.request(contract=contract)
    claim = ground.claim(run)
    ground.session(run, claim, ground.quote, contract=contract)
    until(lambda: ground.of_run(run, KeyGrant.KIND), "a key for the first run")
    ground.machine.fail(claim)
    late = ground.request(contract=contract)
    return _must(ground.denial(late), "decision.budget")


def after_withdrawal(ground: Ground) -> str:
    """Go on after an owner took its approval back."""
    record = ground.another()
    contract = ground.publish(record)
    now = SystemClock().now()
    wanted = consent.withdrawal_of(ground.owner, record, contract, reason="exercise", now=now)
    with ledger(ground.owner) as book:
        consent.withdraw(home=ground.owner, ledger=book, hub=ground.client, withdrawal=wanted)
    return _must(ground.denial(ground.request(contract=contract)), "decision.withdrawn")


def expired(ground: Ground) -> str:
    """Run under a contract that has ended."""
    now = SystemClock().now()
    contract = ground.publish(ground.another(not_before=now - 7200, expires=now - 3600))
    return _must(ground.denial(ground.request(contract=contract)), "contract.expired")


# -- another owner


def withdraw_for_another(ground: Ground) -> str:
    """Stop somebody else's contract in their name."""
    record = Withdrawal(
        party=PartyId(ground.owner.card.id),
        contract=ground.contract,
        dataset=None,
        reason="exercise",
        withdrawn_at=SystemClock().now(),
    )
    envelope = seal(record, ground.rival.keys.signer())
    return repelled_by(lambda: ground.client.put_object(envelope), "hub.signer")


def approve_for_another(ground: Ground) -> str:
    """Approve in another owner's name."""
    record = Approval(
        contract=ground.contract, party=PartyId(ground.owner.card.id), assertions=(), approved_at=SystemClock().now()
    )
    envelope = seal(record, ground.rival.keys.signer())
    return repelled_by(lambda: ground.client.put_object(envelope), "hub.signer")


def challenge_for_another(ground: Ground) -> str:
    """Speak in another owner's name in a run."""
    record = Challenge(
        run=ground.request(),
        attempt=1,
        renewal=0,
        contract=ground.contract,
        owner=PartyId(ground.owner.card.id),
        nonce=secrets.token_bytes(32),
        issued_at=SystemClock().now(),
    )
    envelope = seal(record, ground.rival.keys.signer())
    return repelled_by(lambda: ground.client.put_object(envelope), "hub.signer")


def manifest_of_another(ground: Ground) -> str:
    """Publish another version of somebody else's data set."""
    signed = next(iter(ground.owner.datasets().values()))
    envelope = seal(replace(signed.record, version=2), ground.rival.keys.signer())
    return repelled_by(lambda: ground.client.put_object(envelope), "hub.signer")


# -- the operator: it has the token, and plays the enclave


def _forged(ground: Ground, evidence: Evidence | None, *, missing: tuple[str, ...] = ()) -> tuple[ObjectId, Claim]:
    run = ground.request()
    claim = ground.claim(run)
    produce = ground.quote if evidence is None else lambda bound: evidence
    ground.session(run, claim, produce, missing=missing)
    return run, claim


def _end(ground: Ground, run: ObjectId, claim: Claim, *wanted: str) -> str:
    try:
        code = ground.denial(run)
    finally:
        ground.machine.fail(claim)
    return _must(code, *wanted) if wanted else code


def no_evidence(ground: Ground) -> str:
    """The operator's token, and words instead of evidence."""
    return _end(ground, *_forged(ground, Evidence(platform="software", statement=b"trust me", parts=())))


def replayed_evidence(ground: Ground) -> str:
    """Genuine evidence of another session."""
    return _end(ground, *_forged(ground, ground.whole_run()[0].evidence), "appraisal.refused")


def changed_code(ground: Ground) -> str:
    """Genuine evidence of code that differs."""
    run = ground.request()
    claim = ground.claim(run)
    other = bytes([ground.measurement[0] ^ 1]) + ground.measurement[1:]
    ground.session(run, claim, lambda bound: ground.platform.quote(bound, other))
    return _end(ground, run, claim, "appraisal.refused")


def own_root(ground: Ground) -> str:
    """Evidence in genuine form under a root of the attacker's own."""
    platform = software.create(ground.directory / f"own-{secrets.token_hex(4)}")
    run = ground.request()
    claim = ground.claim(run)
    ground.session(run, claim, lambda bound: platform.quote(bound, ground.measurement))
    return _end(ground, run, claim)


def relabelled(ground: Ground) -> str:
    """Evidence of the software platform, labelled as hardware."""
    run = ground.request()
    claim = ground.claim(run)
    ground.session(run, claim, lambda bound: replace(ground.quote(bound), platform="sgx"))
    return _end(ground, run, claim)


def missing_layer(ground: Ground) -> str:
    """A machine without a sandbox that the contract asks for."""
    return _end(ground, *_forged(ground, None, missing=("seccomp",)), "session.layer-missing")


def foreign_challenges(ground: Ground) -> str:
    """A session that answers the challenges of an earlier run."""
    old = ground.whole_run()[0]
    run = ground.request()
    claim = ground.claim(run)
    ground.challenges(run)
    ground.session(run, claim, ground.quote, challenges=old.challenges)
    try:
        code = until(lambda: _noted(ground, run), "the owner's note of the session")
    finally:
        ground.machine.fail(claim)
    if ground.of_run(run, KeyGrant.KIND):
        raise Through("an owner's key was released")
    return code


def second_session(ground: Ground) -> str:
    """Two sessions, with different keys, for one challenge: one answer at most."""
    run = ground.request()
    claim = ground.claim(run)
    ground.session(run, claim, ground.quote)
    first = until(lambda: ground.of_run(run, KeyGrant.KIND), "a key for the first session")
    try:
        ground.session(run, claim, ground.quote)
        code = until(lambda: _noted(ground, run), "the owner's note of the second session")
    finally:
        ground.machine.fail(claim)
    sessions = {KeyGrant.decode(ground.client.get_object(i).payload).session for i in ground.of_run(run, KeyGrant.KIND)}
    if len(sessions) != 1 or not first:
        raise Through("keys for two sessions")
    return _must(code, "session.second")


def _noted(ground: Ground, run: ObjectId) -> str:
    """The code with which the owner noted, or denied, something about a run; empty if it has not yet."""
    with ledger(ground.owner) as book:
        return next((str(line["code"]) for line in book.decisions() if line["run"] == run and line["code"]), "")


def session_without_claim(ground: Ground) -> str:
    """Show a session for a run that somebody else has claimed."""
    run = ground.request()
    claim = ground.claim(run)
    try:
        return repelled_by(
            lambda: ground.session(run, replace(claim, token=secrets.token_hex(32)), ground.quote), "hub.claim"
        )
    finally:
        ground.machine.fail(claim)


def open_a_grant(ground: Ground) -> str:
    """Open a key grant that anybody can read at the hub, with keys of one's own."""
    session, envelope, grant = ground.whole_run()
    key = SealingKey(secrets.token_bytes(SEALING_SECRET))
    info = grant_info(
        run=session.run,
        attempt=session.attempt,
        contract=ground.contract,
        session=envelope.payload_id,
        owner=grant.owner,
        manifest=grant.keys[0].manifest,
    )
    return repelled_by(lambda: key.open(grant.keys[0].sealed, info=info), "crypto.cannot-open")


ATTACKS: Final = (
    Attack(name="parameter-outside", role="analyst", threat="T09", carry_out=parameter_outside),
    Attack(name="foreign-requester", role="analyst", threat="T13", carry_out=foreign_requester),
    Attack(name="old-request", role="analyst", threat="T15", carry_out=old_request),
    Attack(name="missing-signature", role="analyst", threat="T06", carry_out=missing_signature),
    Attack(name="more-runs", role="analyst", threat="T20", carry_out=more_runs),
    Attack(name="after-withdrawal", role="analyst", threat="T19", carry_out=after_withdrawal),
    Attack(name="expired", role="analyst", threat="T15", carry_out=expired),
    Attack(name="withdraw-for-another", role="owner", threat="T13", carry_out=withdraw_for_another),
    Attack(name="approve-for-another", role="owner", threat="T08", carry_out=approve_for_another),
    Attack(name="challenge-for-another", role="owner", threat="T13", carry_out=challenge_for_another),
    Attack(name="manifest-of-another", role="owner", threat="T22", carry_out=manifest_of_another),
    Attack(name="no-evidence", role="operator", threat="T02", carry_out=no_evidence),
    Attack(name="replayed-evidence", role="operator", threat="T03", carry_out=replayed_evidence),
    Attack(name="changed-code", role="operator", threat="T01", carry_out=changed_code),
    Attack(name="own-root", role="operator", threat="T02", carry_out=own_root),
    Attack(name="relabelled", role="operator", threat="T16", carry_out=relabelled),
    Attack(name="missing-layer", role="operator", threat="T01", carry_out=missing_layer),
    Attack(name="foreign-challenges", role="operator", threat="T04", carry_out=foreign_challenges),
    Attack(name="second-session", role="operator", threat="T14", carry_out=second_session),
    Attack(name="session-without-claim", role="operator", threat="T02", carry_out=session_without_claim),
    Attack(name="open-a-grant", role="operator", threat="T23", carry_out=open_a_grant),
)
