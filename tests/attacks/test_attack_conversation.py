"""Attacks on the conversation of a run: each is carried out against the real broker, state machine or verifier."""

from __future__ import annotations

import pytest

from kakoi.broker.ledger import Ledger
from kakoi.contract.approve import ContractBundle, agree
from kakoi.contract.model import ContractAnalysis
from kakoi.contract.sign import seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.testing.world import NOW, RULES, TestParty, World, seeded, with_changes
from kakoi.wire.enclave_run import CloseFailed, MessageArrived
from kakoi.wire.messages import Binding, Challenge, Denial, GrantedKey, KeyGrant, RunRequest, Session, grant_info
from kakoi.wire.request import open_request
from support.broker_setting import Setting
from support.conversation import Conversation


def start(setting: Setting, nonce: str = "1") -> ObjectId:
    """Publish the contract, ask for a run, let the broker challenge; returns the run."""
    agreement = setting.publish()
    request = setting.world.request(agreement, nonce=nonce)
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    return request.payload_id


def grants(setting: Setting) -> list[Envelope]:
    return setting.hub.of_kind(KeyGrant.KIND)


def test_old_session_again(setting: Setting) -> None:
    """T04: the session of the first run is delivered once more, during a second run."""
    agreement = setting.publish()
    first = start(setting)
    session = setting.session(first, agreement)
    setting.hub.put_object(session)
    setting.broker().step(wait=0)
    assert len(grants(setting)) == 1
    second = start(setting, nonce="2")
    setting.hub.objects.append((Session.KIND, session))  # the hub lists it again, as new
    setting.broker().step(wait=0)
    assert len(grants(setting)) == 1
    assert setting.hub.of_kind(Denial.KIND) == []
    # The same keys with the new run's name do not help either: the old session does not answer the new challenge.
    forged = Session.decode(session.payload)
    moved = Session(**{name: getattr(forged, name) for name in forged.__slots__} | {"run": second})
    setting.hub.put_object(seal(moved, crypto.SigningKey(seeded("session/signing", crypto.SIGNING_SECRET))))
    setting.broker().step(wait=0)
    assert len(grants(setting)) == 1
    assert setting.told[-1].code == "session.challenge"


def test_second_session_for_one_challenge(setting: Setting) -> None:
    """T14: a thief answers the challenge that was answered already."""
    agreement = setting.publish()
    run = start(setting)
    setting.hub.put_object(setting.session(run, agreement))
    setting.broker().step(wait=0)
    setting.hub.put_object(setting.session(run, agreement, keys="thief"))
    setting.broker().step(wait=0)
    assert len(grants(setting)) == 1
    assert setting.told[-1].code == "session.second"


def test_after_withdrawal(setting: Setting) -> None:
    """T19: the owner withdraws after its challenge; the session comes all the same."""
    agreement = setting.publish()
    run = start(setting)
    Ledger(setting.path / "ledger.sqlite").withdraw(agreement.id, NOW)
    setting.hub.put_object(setting.session(run, agreement))
    setting.broker().step(wait=0)
    assert grants(setting) == []
    assert Denial.decode(setting.hub.of_kind(Denial.KIND)[0].payload).code == "decision.withdrawn"


def test_more_runs_than_agreed(setting: Setting) -> None:
    """T20: the hub forgets the first run, the owner does not."""
    setting.world.change_contract = lambda contract: with_changes(
        contract, analyses=(ContractAnalysis(analysis=contract.analyses[0].analysis, max_runs=1),)
    )
    agreement = setting.publish()
    run = start(setting)
    setting.hub.put_object(setting.session(run, agreement))
    setting.broker().step(wait=0)
    setting.hub.objects = [item for item in setting.hub.objects if item[0] != RunRequest.KIND]
    start(setting, nonce="2")
    assert Denial.decode(setting.hub.of_kind(Denial.KIND)[0].payload).code == "decision.budget"


def altered(envelope: Envelope, at: int) -> Envelope:
    payload = bytearray(envelope.payload)
    payload[at] ^= 1
    return Envelope(payload=bytes(payload), payloadType=envelope.payloadType, signatures=envelope.signatures)


@pytest.mark.parametrize("part", ["contract", "cards", "manifests", "analyses", "approvals"])
def test_altered_objects(part: str) -> None:
    """T07: one bit of an object of each kind is flipped, at twenty places."""
    bundle = World().bundle()
    whole: Envelope | tuple[Envelope, ...] = getattr(bundle, part)
    victim = whole[0] if isinstance(whole, tuple) else whole
    for at in range(0, len(victim.payload), max(1, len(victim.payload) // 20)):
        bad = altered(victim, at)
        changed = (bad, *whole[1:]) if isinstance(whole, tuple) else bad
        fields = {name: getattr(bundle, name) for name in bundle.__slots__}
        with pytest.raises((Refused, Malformed)):
            agree(ContractBundle(**fields | {part: changed}))


def test_altered_contract_with_the_drafters_help() -> None:
    """T07: the drafter itself signs a changed contract; the others' approvals are of the first."""
    world = World()
    honest = world.bundle()
    world.change_contract = lambda contract: with_changes(contract, expires=contract.expires + 1)
    changed = world.bundle()
    fields = {name: getattr(changed, name) for name in changed.__slots__}
    with pytest.raises(Refused) as caught:
        agree(ContractBundle(**fields | {"approvals": honest.approvals}))
    assert caught.value.code == "approval.contract"


def test_approval_of_another_contract() -> None:
    """T08: rules are loosened, and the approvals of the strict contract are shown."""
    world = World()
    strict = world.bundle()
    loose = type(RULES)(**{name: getattr(RULES, name) for name in RULES.__slots__} | {"minimum_cell": 1})
    world.change_contract = lambda contract: with_changes(
        contract, data=tuple(type(e)(manifest=e.manifest, owner=e.owner, rules=loose) for e in contract.data)
    )
    fields = {name: getattr(world.bundle(), name) for name in strict.__slots__}
    with pytest.raises(Refused) as caught:
        agree(ContractBundle(**fields | {"approvals": strict.approvals}))
    assert caught.value.code == "approval.contract"


@pytest.mark.parametrize("value", [-1, 121, "40", "1e1", "0x28", "４０"])
def test_parameter_outside_contract(value: int | str) -> None:
    """T09: values beyond the limits, and other spellings of a number."""
    world = World()
    agreement = world.agreement()
    with pytest.raises(Refused) as caught:
        open_request(world.request(agreement, minimum_age=value), agreement)
    assert caught.value.code == "request.parameter-range"


@pytest.mark.parametrize("names", [(), ("minimum_age", "more"), ("other",)])
def test_parameters_missing_or_added(names: tuple[str, ...]) -> None:
    """T09: a parameter too few, one too many, one by another name."""
    world = World()
    agreement = world.agreement()
    request = RunRequest.decode(world.request(agreement).payload)
    fields = {name: getattr(request, name) for name in request.__slots__}
    changed = RunRequest(**fields | {"parameters": tuple(Binding(name=name, value=40) for name in names)})
    with pytest.raises(Refused) as caught:
        open_request(seal(changed, world.analyst.signing), agreement)
    assert caught.value.code == "request.parameters"


def imposter(talk: Conversation) -> TestParty:
    """The analyst, under the first owner's name and card."""
    analyst = talk.world.analyst
    return TestParty(name="North", signing=analyst.signing, sealing=analyst.sealing, card=talk.world.owners[0].card)


def test_stranger_in_an_owners_name() -> None:
    """T13: forged challenges, denials and grants move nothing, and do not keep the real ones from being heard."""
    talk = Conversation()
    run = talk.run()
    fake = imposter(talk)
    assert run.handle(MessageArrived(kind=Challenge.KIND, envelope=talk.challenge(fake))) == []
    assert run.handle(MessageArrived(kind=Denial.KIND, envelope=talk.denial(fake))) == []
    assert run.handle(MessageArrived(kind=KeyGrant.KIND, envelope=talk.grant(fake))) == []
    assert (run.state, run.challenges, run.grants) == ("claimed", {}, {})
    said = [
        instruction
        for owner in talk.world.owners
        for instruction in run.handle(MessageArrived(kind=Challenge.KIND, envelope=talk.challenge(owner)))
    ]
    assert len(said) == 1
    assert run.state == "attesting"


@pytest.mark.parametrize("offset", [301, -301, 10**6, -(10**6)])
def test_clocks(offset: int) -> None:
    """T15: one owner's time differs from the others'; the enclave has no other clock to be fooled with."""
    talk = Conversation()
    run = talk.run()
    run.handle(MessageArrived(kind=Challenge.KIND, envelope=talk.challenge(talk.world.owners[0])))
    late = talk.challenge(talk.world.owners[1], at=NOW + offset)
    said = run.handle(MessageArrived(kind=Challenge.KIND, envelope=late))
    assert isinstance(said[0], CloseFailed)
    assert said[0].error.code in {"session.clock-skew", "contract.expired", "contract.not-yet"}


def test_grant_opens_nowhere_else() -> None:
    """T23: the sealed key, opened by another session, and by the right session in every other context."""
    talk = Conversation()
    owner = talk.world.owners[0]
    grant = KeyGrant.decode(talk.grant(owner).payload)
    sealed: GrantedKey = grant.keys[0]
    context = {
        "run": grant.run,
        "attempt": grant.attempt,
        "contract": grant.contract,
        "session": grant.session,
        "owner": grant.owner,
        "manifest": sealed.manifest,
    }
    assert talk.sealing.open(sealed.sealed, info=grant_info(**context)) == talk.world.data_key(owner)  # type: ignore[arg-type]
    thief = SealingKey(seeded("thief", crypto.SEALING_SECRET))
    attempts = [(thief, context)]
    attempts += [(talk.sealing, {**context, name: 2 if name == "attempt" else "00" * 32}) for name in context]
    for key, claimed in attempts:
        with pytest.raises(Refused) as caught:
            key.open(sealed.sealed, info=grant_info(**claimed))  # type: ignore[arg-type]
        assert caught.value.code == "crypto.cannot-open"
