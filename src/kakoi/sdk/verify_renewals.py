"""What a passport says about renewed leases, checked offline.

Every renewal is listed by ids; the session, whose code is known by its evidence, vouches for those between. The last is there whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kakoi.attest import registry
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.registry import Verifier
from kakoi.attest.report import PlatformKind, Verdict
from kakoi.contract.approve import Agreement, in_force
from kakoi.contract.sign import Signed
from kakoi.sdk.passport_parts import one_of_each, wrong
from kakoi.wire.enclave_run import MAX_CLOCK_DIFFERENCE
from kakoi.wire.messages import Challenge, KeyGrant, LastRenewal, Lease, Predicate, Renewed, Session, SessionRenewal
from kakoi.wire.messages import leases_digest as digest_of
from kakoi.wire.renewal import open_renewal

Verifiers = Callable[[AttestationPolicy], Mapping[PlatformKind, Verifier]]


def check_renewals(
    predicate: Predicate,
    agreement: Agreement,
    session: Signed[Session],
    grants: tuple[Signed[KeyGrant], ...],
    verifiers: Verifiers,
) -> tuple[Verdict, ...]:
    """The verdicts of the last renewal; none if the leases were never renewed.

    1. renewals are numbered from 1 without a gap, and the last is there whole;
    2. it is listed with exactly these ids;
    3. each owner asked once for it and answered once, in the contract's dates, within the contract's lease, not before the grant;
    4. the fresh evidence is signed by the session's key, names the session and answers exactly these challenges;
    5. judged again with each owner's collateral and time, it gives each owner's verdict, and binds this renewal.

    Raises Malformed or Refused.
    """
    if [note.renewal for note in predicate.renewals] != list(range(1, len(predicate.renewals) + 1)):
        raise wrong("expected renewals numbered from 1 without a gap")
    if (predicate.last_renewal is None) != (not predicate.renewals):
        raise wrong("expected the last renewal whole if there was one")
    if predicate.last_renewal is None:
        return ()
    return _last(predicate.last_renewal, predicate.renewals[-1], agreement, session, grants, verifiers)


def _last(
    last: LastRenewal,
    note: Renewed,
    agreement: Agreement,
    session: Signed[Session],
    grants: tuple[Signed[KeyGrant], ...],
    verifiers: Verifiers,
) -> tuple[Verdict, ...]:
    renewal = open_renewal(last.evidence, session)
    owners = [grant.record.owner for grant in grants]
    challenges = one_of_each(Challenge, last.challenges, agreement, owners)
    leases = one_of_each(Lease, last.leases, agreement, owners)
    listed = Renewed(
        renewal=renewal.record.renewal, evidence=renewal.id, leases=digest_of(lease.id for lease in leases)
    )
    if listed != note:
        raise wrong("expected the last renewal as it is listed")
    if tuple(sorted(challenge.id for challenge in challenges)) != renewal.record.challenges:
        raise wrong("expected the renewal to answer exactly the owners' challenges")
    granted = {grant.record.owner: grant.record.issued_at for grant in grants}
    asked = {challenge.record.owner: challenge.record for challenge in challenges}
    for lease in (signed.record for signed in leases):
        _one_lease(lease, asked[lease.owner], renewal, agreement, since=granted[lease.owner])
    return tuple(_judge_again(agreement, renewal.record, lease.record, verifiers) for lease in leases)


def _one_lease(
    lease: Lease, asked: Challenge, renewal: Signed[SessionRenewal], agreement: Agreement, *, since: int
) -> None:
    record = renewal.record
    for message in (asked, lease):
        named = (message.run, message.attempt, message.renewal, message.contract)
        if named != (record.run, record.attempt, record.renewal, record.contract):
            raise wrong("expected challenges and leases of this renewal")
        in_force(agreement, message.issued_at)
    if (lease.session, lease.evidence) != (record.session, renewal.id):
        raise wrong("expected leases for this session and its fresh evidence")
    if not 0 < lease.lease_until - lease.issued_at <= agreement.contract.limits.lease_seconds:
        raise wrong("expected leases within the contract's limit")
    if not since <= asked.issued_at <= lease.issued_at:
        raise wrong("expected owners' times that go forward")


def _judge_again(agreement: Agreement, renewal: SessionRenewal, lease: Lease, verifiers: Verifiers) -> Verdict:
    verdict = registry.judge(
        renewal.evidence,
        lease.collateral,
        agreement.contract.platforms,
        report_data=renewal.report_data,
        now=lease.verdict.evaluated_at,
        verifiers=verifiers(agreement.contract.platforms),
    )
    if verdict != lease.verdict:
        raise wrong("expected the fresh evidence to give the verdict that the owner recorded")
    if abs(lease.verdict.evaluated_at - lease.issued_at) > MAX_CLOCK_DIFFERENCE:
        raise wrong("expected the fresh evidence to be judged when the lease was given")
    return verdict
