"""Attacks on renewed leases: in the passport of a run that was renewed, and on the job while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kakoi.attest.software.admit import with_software
from kakoi.contract.sign import seal
from kakoi.core import dsse
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.enclave.keeper.session import SessionKeys
from kakoi.sdk.verify import verify_result
from kakoi.wire.messages import LastRenewal, Lease, Passport, Predicate, Renewed, Session, SessionRenewal
from kakoi.wire.result import ResultFile
from support.deployment import Deployment
from support.sleeper import long_run, on_leases

pytestmark = on_leases


class Forger:
    """Whoever has the result file, and session keys of its own: it can sign any passport, but the session's evidence is another's."""

    def __init__(self, file: bytes) -> None:
        self.file = ResultFile.decode(file)
        self.passport = Passport.decode(self.file.passport.payload)
        self.predicate: Predicate = self.passport.predicate
        assert self.predicate.last_renewal is not None
        self.last: LastRenewal = self.predicate.last_renewal
        self.keys = SessionKeys()

    def refused(self, **changes: object) -> str:
        """The code for the passport with these parts of the predicate changed, everything else honest but the signature."""
        changed = replace(self.passport, predicate=replace(self.predicate, **changes))  # type: ignore[arg-type]
        signed = dsse.sign(changed.encode(), self.keys, payload_type=dsse.IN_TOTO_TYPE)
        try:
            verify_result(replace(self.file, passport=signed).encode(), verifiers=with_software)
        except (Malformed, Refused) as error:
            return error.code
        raise AssertionError(f"accepted with another {', '.join(changes)}")

    def judged(self, **changes: object) -> str:
        """The same, where only the check of renewals looks: as if the forger had the session's own key."""
        from kakoi.contract.approve import agree
        from kakoi.sdk.passport_parts import one_of_each
        from kakoi.sdk.verify_renewals import check_renewals
        from kakoi.wire.analyst_run import open_session
        from kakoi.wire.messages import KeyGrant

        predicate = replace(self.predicate, **changes)  # type: ignore[arg-type]
        agreement = agree(predicate.bundle)
        session = open_session(predicate.session)
        grants = one_of_each(KeyGrant, predicate.grants, agreement, agreement.owners)
        try:
            check_renewals(predicate, agreement, session, grants, with_software)
        except (Malformed, Refused) as error:
            return error.code
        return ""

    def lease(self, number: int = 0, **changes: object) -> tuple[Envelope, ...]:
        """The leases of the last renewal with one changed, signed by nobody who may."""
        changed = replace(Lease.decode(self.last.leases[number].payload), **changes)  # type: ignore[arg-type]
        leases = list(self.last.leases)
        leases[number] = seal(changed, self.keys)
        return tuple(leases)


@pytest.fixture
def forger(leased: Deployment) -> Forger:
    return Forger(long_run(leased).opened.file)


def test_a_passport_cannot_be_signed_by_another_session(forger: Forger) -> None:
    """T62: whatever is changed about the renewals, the passport needs the session's own signature."""
    for changes in (
        {"renewals": (), "last_renewal": None},
        {"renewals": forger.predicate.renewals[:1]},
        {"last_renewal": None},
        {"renewals": (*forger.predicate.renewals, forger.predicate.renewals[-1])},
    ):
        assert forger.refused(**changes) == "signature.signer"


CHANGES: dict[str, Callable[[Forger], dict[str, object]]] = {
    "listed, but not there": lambda f: {"last_renewal": None},
    "there, but not listed": lambda f: {"renewals": ()},
    "a gap": lambda f: {"renewals": f.predicate.renewals[1:]},
    "one twice": lambda f: {"renewals": (*f.predicate.renewals, f.predicate.renewals[-1])},
    "listed with another id": lambda f: {
        "renewals": (*f.predicate.renewals[:-1], replace(f.predicate.renewals[-1], evidence=ObjectId("0" * 64)))
    },
    "an earlier one as the last": lambda f: {"renewals": f.predicate.renewals[:-1]},
    "a lease left out": lambda f: {"last_renewal": replace(f.last, leases=f.last.leases[:1])},
    "a lease twice": lambda f: {"last_renewal": replace(f.last, leases=(f.last.leases[0], f.last.leases[0]))},
    "a lease that nobody signed": lambda f: {"last_renewal": replace(f.last, leases=f.lease(lease_until=2**39))},
    "a challenge left out": lambda f: {"last_renewal": replace(f.last, challenges=f.last.challenges[:1])},
    "the first challenges": lambda f: {"last_renewal": replace(f.last, challenges=f.predicate.challenges)},
    "the session's first evidence": lambda f: {"last_renewal": replace(f.last, evidence=first_evidence(f))},
    "made up": lambda f: {
        "renewals": (Renewed(renewal=1, evidence=ObjectId("1" * 64), leases=ObjectId("2" * 64)),),
    },
}


def first_evidence(forger: Forger) -> Envelope:
    """The last renewal with the evidence of the session's beginning in it, under the forger's signature."""
    renewal = SessionRenewal.decode(forger.last.evidence.payload)
    session = Session.decode(forger.predicate.session.payload)
    return seal(replace(renewal, evidence=session.evidence), forger.keys)


@pytest.mark.parametrize("name", CHANGES)
def test_renewals_in_a_passport_hold_together(forger: Forger, name: str) -> None:
    """T62: even a session that lies about its renewals (a broken enclave) is caught by the owners' signatures and ids."""
    assert forger.judged() == ""
    assert forger.judged(**CHANGES[name](forger)) != ""
