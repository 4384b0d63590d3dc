"""A job that outlives its leases, through hub, brokers and enclave as processes: renewed, taken back, or left to end."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from kakoi.broker.ledger import Ledger
from kakoi.cli.ui import SystemClock
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId
from kakoi.evidence.software import SoftwarePlatform
from kakoi.party.files import write_private
from kakoi.sdk.run import RunDenied, await_run
from kakoi.wire.messages import KeyGrant, Lease, SealedResult, SessionRenewal
from support.deployment import Deployment
from support.memory import copies
from support.sleeper import LEASE, computing, on_leases

pytestmark = on_leases


def sent(leased: Deployment, run: ObjectId, kind: str) -> int:
    return len(leased.client.feed(kinds=(kind,), refs={"run": run}).items)


def test_a_long_job_renews_its_leases_and_the_passport_says_so(leased: Deployment) -> None:
    run = computing(leased, int(LEASE * 1.6))
    owners = len(leased.cast.hospitals)
    keys = {
        f"{home.card.record.name}": home.data_key(signed.record)
        for home in leased.cast.hospitals
        for signed in home.datasets().values()
    }
    found = copies(leased.stage.process_id("enclave"), keys)
    finished = leased.finish(run)
    verified = finished.opened.verified
    renewals = verified.passport.renewals
    assert len(renewals) >= 2
    assert [note.renewal for note in renewals] == list(range(1, len(renewals) + 1))
    assert verified.passport.last_renewal is not None
    assert sent(leased, run, SessionRenewal.KIND) >= len(renewals)
    assert sent(leased, run, Lease.KIND) >= owners * len(renewals)
    assert sent(leased, run, KeyGrant.KIND) == owners
    assert "verify.proven.renewed" in {said.key for said in verified.proven}
    assert set(found.values()) == {0}, "no data key is in the keeper while the job runs"


def refusal(leased: Deployment, run: ObjectId) -> Refused:
    quiet: Callable[[str, str], None] = lambda kind, who: None  # noqa: E731
    with pytest.raises(Refused) as caught:
        await_run(leased.client, leased.agreement, run, clock=SystemClock(), seconds=60, tell=quiet)
    assert sent(leased, run, SealedResult.KIND) == 0
    return caught.value


def test_an_owner_that_does_not_renew_stops_the_job_within_its_lease(leased: Deployment) -> None:
    """Its broker dies. The analyst is told whose lease was not renewed; nothing of the job is left."""
    run = computing(leased, 200)
    begun = time.monotonic()
    name, home = sorted(leased.brokers.items())[0]
    leased.stage.stop(name, kill=True)
    try:
        error = refusal(leased, run)
        assert error.code == "session.lease-over"
        assert home.card.record.name in error.message
        assert time.monotonic() - begun < 150, "long before the job would have ended"
        assert f"{run[:12]} ends without a result: session.lease-over" in leased.stage.log("enclave")
    finally:
        leased.start_broker(name)


def test_a_withdrawal_stops_a_running_job_at_once(leased: Deployment) -> None:
    """Long before the lease is over; and the reason is the owner's own."""
    run = computing(leased, 200)
    begun = time.monotonic()
    home = leased.cast.hospitals[1]
    ledger = Ledger(home.path / "ledger.sqlite")
    try:
        ledger.withdraw(leased.cast.contract, SystemClock().now())
        error = refusal(leased, run)
        assert isinstance(error, RunDenied)
        assert (error.code, error.owner) == ("decision.withdrawn", home.card.record.name)
        assert time.monotonic() - begun < 150, "long before the job would have ended"
    finally:
        ledger._db.execute("delete from withdrawn")
        ledger.close()


def test_endorsements_that_no_longer_please_stop_a_running_job(leased: Deployment) -> None:
    """The owners' endorsements grow too old for the contract's policy while the job runs."""
    path = leased.cast.collateral
    good = path.read_bytes()
    run = computing(leased, 200)
    old = SoftwarePlatform.load(leased.cast.platform).collateral(SystemClock().now() - 400 * 86400)
    write_private(path, old.encode())
    try:
        error = refusal(leased, run)
        assert isinstance(error, RunDenied)
        assert error.code == "x509.crl-window"
    finally:
        write_private(path, good)
