"""From passports to what a weakness can touch: ``guard.weakness.exposure`` asks, this reads.

A passport's signatures are checked as ``verify_result`` checks them, so that nobody's invention is reported. What a result contains does
not matter here, so the hub's passports serve as well as result files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kakoi.attest import registry
from kakoi.attest.report import AppraisalRefused, Collateral
from kakoi.contract.approve import Agreement, agree
from kakoi.core import dsse
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError
from kakoi.guard.weakness.exposure import NOT_ASKED, PastRun, Released, Today
from kakoi.sdk.passport_parts import one_of_each
from kakoi.sdk.verify import Verifiers
from kakoi.wire.analyst_run import open_session
from kakoi.wire.messages import KeyGrant, Passport, Session
from kakoi.wire.request import open_request

Judge = Callable[[Agreement, Session, KeyGrant], Today]
_NOBODY: Final[Judge] = lambda agreement, session, grant: NOT_ASKED  # noqa: E731


def past_run(passport: Envelope, *, today: Judge = _NOBODY) -> PastRun:
    """What a passport says about the machine, the code and the keys of a run. Raises Malformed, Refused."""
    statement = Passport.decode(passport.payload)
    predicate = statement.predicate
    session = open_session(predicate.session)
    dsse.verify(passport, session.record.verifying_key, payload_type=dsse.IN_TOTO_TYPE)
    agreement = agree(predicate.bundle)
    asked = open_request(predicate.request, agreement).record
    grants = one_of_each(KeyGrant, predicate.grants, agreement, agreement.owners_of(asked.analysis))
    return PastRun(
        passport=passport.payload_id,
        run=predicate.run,
        contract=agreement.id,
        output=statement.subject[0].digest.sha256,
        released=tuple(
            Released(
                owner=agreement.cards[grant.record.owner].record.name,
                verdict=grant.record.verdict,
                manifests=tuple(key.manifest for key in grant.record.keys),
                today=today(agreement, session.record, grant.record),
            )
            for grant in grants
        ),
    )


def judged_again(newer: Mapping[str, Collateral], verifiers: Verifiers, now: int) -> Judge:
    """Today's verdicts with newer endorsements by kind of platform, on the evidence of the time.

    Parts that the newer endorsements lack, such as a chip's own certificate, are those of the time.
    """

    def today(agreement: Agreement, session: Session, grant: KeyGrant) -> Today:
        given = newer.get(session.evidence.platform)
        if given is None:
            return NOT_ASKED
        parts = {part.name: part for part in (*grant.collateral.parts, *given.parts)}
        try:
            verdict = registry.judge(
                session.evidence,
                Collateral(parts=tuple(parts[name] for name in sorted(parts))),
                agreement.contract.platforms,
                report_data=session.report_data,
                now=now,
                verifiers=verifiers(agreement.contract.platforms),
            )
        except AppraisalRefused as refused:
            verdict = refused.verdict
        except KakoiError as error:
            return Today(refused=(error.code,))
        return Today(verdict=verdict, refused=tuple(check.name for check in verdict.failed))

    return today
