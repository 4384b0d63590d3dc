"""The broker at work: grants to the right session, denials with reasons, crashes at every step."""

from __future__ import annotations

import itertools

import pytest

from kakoi.broker.ledger import Ledger
from kakoi.contract.sign import open_signed
from kakoi.core.crypto import SealingKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Fatal, Unavailable
from kakoi.net.answers import RunState
from kakoi.testing.memory_hub import unavailable
from kakoi.testing.world import NOW, seeded, with_changes
from kakoi.wire.messages import Challenge, Denial, KeyGrant, grant_info
from support.broker_setting import Setting


def ask(setting: Setting, nonce: str = "1") -> tuple[Envelope, object]:
    agreement = setting.publish()
    request = setting.world.request(agreement, nonce=nonce)
    setting.hub.put_object(request)
    return request, agreement


def granted(setting: Setting) -> KeyGrant:
    found = setting.hub.of_kind(KeyGrant.KIND)
    assert len(found) == 1
    return open_signed(KeyGrant, found[0], setting.home.card).record


def denied(setting: Setting) -> Denial:
    found = setting.hub.of_kind(Denial.KIND)
    assert len(found) == 1
    return open_signed(Denial, found[0], setting.home.card).record


def test_a_whole_run_releases_the_key_to_the_session_only(setting: Setting) -> None:
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    broker = setting.broker()
    broker.step(wait=0)
    assert len(setting.hub.of_kind(Challenge.KIND)) == 1
    session = setting.session(request.payload_id, agreement)
    setting.hub.put_object(session)
    broker.step(wait=0)
    grant = granted(setting)
    info = grant_info(
        run=grant.run,
        attempt=1,
        contract=agreement.id,
        session=session.payload_id,
        owner=grant.owner,
        manifest=grant.keys[0].manifest,
    )
    opener = SealingKey(seeded("session/sealing", 96))
    assert opener.open(grant.keys[0].sealed, info=info) == setting.world.data_key(setting.world.owners[0])
    assert grant.lease_until - grant.issued_at == agreement.contract.limits.lease_seconds
    assert [d.outcome for d in setting.told] == ["yes", "yes"]


def test_steps_repeated_say_nothing_twice(setting: Setting) -> None:
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    for _ in range(3):
        setting.broker().step(wait=0)
    setting.hub.put_object(setting.session(request.payload_id, agreement))
    for _ in range(3):
        setting.broker().step(wait=0)
    assert len(setting.hub.of_kind(Challenge.KIND)) == 1
    granted(setting)


def test_refused_evidence_is_denied_with_every_failed_check(setting: Setting) -> None:
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    setting.refuse = True
    setting.hub.put_object(setting.session(request.payload_id, agreement))
    setting.broker().step(wait=0)
    denial = denied(setting)
    assert denial.code == "appraisal.refused"
    assert [check.name for check in denial.checks] == ["measurement"]
    assert setting.hub.of_kind(KeyGrant.KIND) == []
    recorded = Ledger(setting.path / "ledger.sqlite").decisions()[-1]
    assert (recorded["outcome"], recorded["code"]) == ("no", "appraisal.refused")
    assert {check["outcome"] for check in recorded["checks"]} == {"passed", "failed"}


def test_a_second_session_for_one_challenge_gets_nothing(setting: Setting) -> None:
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    broker = setting.broker()
    broker.step(wait=0)
    setting.hub.put_object(setting.session(request.payload_id, agreement))
    broker.step(wait=0)
    setting.hub.put_object(setting.session(request.payload_id, agreement, keys="thief"))
    broker.step(wait=0)
    granted(setting)
    assert setting.told[-1].code == "session.second"


def test_a_new_attempt_gets_a_new_challenge_and_counts_one_run(setting: Setting) -> None:
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    broker = setting.broker()
    broker.step(wait=0)
    setting.hub.put_object(setting.session(request.payload_id, agreement))
    broker.step(wait=0)
    setting.hub.states[request.payload_id] = RunState(state="claimed", attempt=2)
    broker.step(wait=0)
    setting.hub.put_object(setting.session(request.payload_id, agreement, attempt=2, keys="second"))
    broker.step(wait=0)
    assert len(setting.hub.of_kind(KeyGrant.KIND)) == 2
    assert (
        Ledger(setting.path / "ledger.sqlite").granted_runs(agreement.id, next(iter(agreement.analyses)), besides="")
        == 1
    )


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("decision.not-approved", lambda s: Ledger(s.path / "ledger.sqlite")._db.execute("delete from approved")),
        (
            "decision.withdrawn",
            lambda s: Ledger(s.path / "ledger.sqlite").withdraw(s.world.agreement().id, NOW),
        ),
        (
            "decision.withdrawn",
            lambda s: Ledger(s.path / "ledger.sqlite").withdraw(
                s.world.agreement().data_of(s.world.owners[0].id)[0].manifest, NOW
            ),
        ),
        ("contract.expired", lambda s: setattr(s.clock, "time", NOW + 100_000)),
        ("contract.not-yet", lambda s: setattr(s.clock, "time", NOW - 1001)),
        ("request.time", lambda s: setattr(s.clock, "time", NOW + 25 * 3600)),
    ],
)
def test_requests_that_get_no_challenge(setting: Setting, code: str, spoil: object) -> None:
    agreement = setting.publish()
    setting.hub.put_object(setting.world.request(agreement))
    spoil(setting)  # type: ignore[operator]
    setting.broker().step(wait=0)
    assert denied(setting).code == code
    assert setting.hub.of_kind(Challenge.KIND) == []


def test_withdrawal_between_challenge_and_session(setting: Setting) -> None:
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    broker = setting.broker()
    broker.step(wait=0)
    Ledger(setting.path / "ledger.sqlite").withdraw(agreement.id, NOW)
    setting.hub.put_object(setting.session(request.payload_id, agreement))
    broker.step(wait=0)
    assert denied(setting).code == "decision.withdrawn"
    assert setting.hub.of_kind(KeyGrant.KIND) == []


def test_a_missing_approval_is_denied(setting: Setting) -> None:
    setting.world.silent = ("South",)
    bundle = setting.world.bundle()
    setting.world.silent = ()
    full = setting.world.agreement()
    for envelope in (*bundle.cards, *bundle.manifests, *bundle.analyses, bundle.contract, *bundle.approvals):
        setting.hub.put_object(envelope)
    ledger = Ledger(setting.path / "ledger.sqlite")
    ledger.approve(full.id, NOW)
    setting.hub.put_object(setting.world.request(full))
    setting.broker().step(wait=0)
    assert denied(setting).code == "contract.approval-missing"


def test_the_budget_of_runs(setting: Setting) -> None:
    setting.world.change_contract = lambda c: with_changes(
        c, analyses=(type(c.analyses[0])(analysis=c.analyses[0].analysis, max_runs=1),)
    )
    agreement = setting.publish()
    broker = setting.broker()
    first = setting.world.request(agreement, nonce="1")
    setting.hub.put_object(first)
    broker.step(wait=0)
    setting.hub.put_object(setting.session(first.payload_id, agreement))
    broker.step(wait=0)
    setting.hub.put_object(setting.world.request(agreement, nonce="2"))
    broker.step(wait=0)
    assert denied(setting).code == "decision.budget"


def test_a_late_session_is_stale(setting: Setting) -> None:
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    broker = setting.broker()
    broker.step(wait=0)
    setting.clock.time += 601
    setting.hub.put_object(setting.session(request.payload_id, agreement))
    broker.step(wait=0)
    assert denied(setting).code == "session.stale"


class Crash(BaseException):
    """The process dies: nothing in the code may catch this."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(14))
def test_death_at_every_request_loses_nothing_and_repeats_nothing(setting: Setting, when: str, nth: int) -> None:
    """Kill the broker before or after its nth request to the hub, restart it, and look at what was said in the end."""
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    counter = itertools.count()

    def die(step: str) -> None:
        if next(counter) == nth:
            raise Crash(step)

    setattr(setting.hub, when, die)
    broker = setting.broker()
    for _ in range(5):
        try:
            broker.step(wait=0)
        except Crash:
            broker = setting.broker()
        if setting.hub.of_kind(Challenge.KIND) and not setting.hub.of_kind("kakoi/session/v1"):
            setting.hub.before = setting.hub.after = lambda step: None
            setting.hub.put_object(setting.session(request.payload_id, agreement))
            setattr(setting.hub, when, die)
    assert len(setting.hub.of_kind(Challenge.KIND)) == 1
    granted(setting)


def test_a_hub_that_is_down_is_waited_for(setting: Setting) -> None:
    agreement = setting.publish()
    setting.hub.put_object(setting.world.request(agreement))
    setting.hub.before = unavailable
    broker = setting.broker()
    with pytest.raises(Unavailable):
        broker.step(wait=0)
    setting.hub.before = lambda step: None
    broker.step(wait=0)
    assert len(setting.hub.of_kind(Challenge.KIND)) == 1


@pytest.mark.parametrize(
    "edit",
    [
        "delete from decision where seq = 1",
        "update decision set at = at + 1 where seq = 1",
        "update decision set body = replace(body, 'yes', 'no')",
        "update decision set seq = 7 where seq = 2",
    ],
)
def test_an_edited_ledger_does_not_open(setting: Setting, edit: str) -> None:
    agreement = setting.publish()
    for nonce in ("1", "2"):
        setting.hub.put_object(setting.world.request(agreement, nonce=nonce))
    setting.broker().step(wait=0)
    ledger = Ledger(setting.path / "ledger.sqlite")
    assert len(ledger.decisions()) == 2
    ledger._db.execute(edit)
    ledger.close()
    with pytest.raises(Fatal) as caught:
        Ledger(setting.path / "ledger.sqlite")
    assert caught.value.code == "ledger.chain"
