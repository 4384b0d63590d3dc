"""Objects: what the hub takes, what it refuses, and how they are found again."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from kakoi.core import dsse
from kakoi.core.dsse import Entry
from kakoi.core.encoding import b64, dumps
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.hub.kinds import RULES
from kakoi.hub.serve import HubServer
from kakoi.net.caller import Call
from kakoi.net.client import HubClient
from support.hub_client import client_of
from unit.hub.hubkit import ZERO, Party, World, put_all


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def put_bytes(hub: HubClient, identity: str, body: bytes) -> bytes:
    return hub._caller.read(Call(method="PUT", target=f"/v1/objects/{identity}", body=body), 10_000)


def test_an_object_is_stored_once_and_given_back_as_it_came(hub: HubClient, world: World) -> None:
    first = hub.put_object(world.owner.card)
    again = hub.put_object(dsse.sign(world.owner.card.payload, world.owner.key))  # other signature bytes, same object
    assert (first, first.seq) == (again, 1)
    assert hub.get_object(world.owner.card.payload_id) == world.owner.card
    assert hub.feed().items == (first,)
    assert code(lambda: hub.get_object(world.contract.payload_id)) == "hub.not-found"


def test_a_whole_world_is_taken_and_found_by_what_it_names(hub: HubClient, world: World) -> None:
    put_all(hub, world.setup)
    approval, request = world.approval(world.owner), world.request()
    put_all(hub, [approval, request])
    contract = world.contract.payload_id

    def found(*kinds: str, **refs: str) -> set[str]:
        return {item.id for item in hub.feed(kinds=[f"kakoi/{kind}/v1" for kind in kinds], refs=refs).items}

    assert found("contract", party=world.owner.id) == {contract}
    assert found("contract", party=world.stranger.id) == set()
    assert found("contract", manifest=world.manifest.payload_id) == {contract}
    assert found("dataset-manifest", blob="f" * 64) == {world.manifest.payload_id}
    assert found(contract=contract) == {approval.payload_id, request.payload_id}
    assert found("approval", contract=contract, party=world.owner.id) == {approval.payload_id}
    assert found("approval", contract=contract, party=world.analyst.id) == set()
    assert found("approval", "run-request", contract=contract) == {approval.payload_id, request.payload_id}
    assert found("nothing") == set()
    assert found(recipients=world.analyst.id) == {contract}


def test_pages_continue_where_the_last_one_ended(hub: HubClient, world: World) -> None:
    put_all(hub, world.setup)
    seen, after = [], 0
    while (page := hub.feed(after=after, limit=2)).items:
        seen += [item.id for item in page.items]
        after = page.next
    assert seen == [envelope.payload_id for envelope in world.setup]
    # A reader of one kind skips what is not for it.
    page = hub.feed(kinds=["kakoi/contract/v1"], limit=5)
    assert page.next == len(world.setup)
    assert hub.feed(after=99).next == 99


# -- refusals


def test_bytes_that_are_no_envelope(hub: HubClient, world: World) -> None:
    good = world.owner.card.encode()
    identity = world.owner.card.payload_id
    for bad in (b"{}", b"x", good[:-1], good + b" ", good.replace(b'"payload"', b'"payload" ')):
        assert isinstance(_raises(partial(put_bytes, hub, identity, bad)), Malformed)
    assert code(lambda: put_bytes(hub, ZERO, good)) == "hub.object-id"
    assert code(lambda: put_bytes(hub, "xyz", good)) == "encoding.id"
    assert code(lambda: put_bytes(hub, identity.upper(), good)) == "encoding.id"
    assert code(lambda: put_bytes(hub, identity, b"")) == "hub.empty"


def _raises(call: Callable[[], object]) -> KakoiError:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b'"text"',
        b"null",
        b'{"kind":"kakoi/unknown/v1"}',
        b'{"kind":7}',
        b'{"no":"kind"}',
        b'{"kind":"kakoi/passport/v1"}',
        b'{"kind":"kakoi/contract/v1" }',
        b'{"kind":"kakoi/contract/v1","kind":"kakoi/contract/v1"}',
        b'{"kind":"kakoi/contract/v1","x":1.5}',
        b"\xff\xff",
    ],
)
def test_payloads_of_no_known_kind(hub: HubClient, world: World, payload: bytes) -> None:
    hub.put_object(world.owner.card)
    assert isinstance(_raises(lambda: hub.put_object(dsse.sign(payload, world.owner.key))), Malformed)
    assert len(hub.feed().items) == 1


def test_signers(hub: HubClient, world: World) -> None:
    assert code(lambda: hub.put_object(world.manifest)) == "hub.signer-unknown"
    put_all(hub, world.cards)
    other = world.stranger.sign("dataset-manifest", owner=world.owner.id)
    assert code(lambda: hub.put_object(other)) == "hub.signer"
    nobody = world.owner.sign("dataset-manifest", title="without owner")
    assert code(lambda: hub.put_object(nobody)) == "hub.member"
    assert code(lambda: hub.put_object(world.owner.sign("result", run=ZERO))) == "hub.signer"


def test_every_broken_signature_is_refused(hub: HubClient, world: World) -> None:
    put_all(hub, world.cards)
    good = world.manifest
    first, second = good.signatures
    twins = [
        dataclasses.replace(good, signatures=(first, first)),
        dataclasses.replace(good, signatures=(second, second)),
        dataclasses.replace(good, signatures=(first, *world.stranger.sign("x").signatures[1:])),
        dataclasses.replace(good, payloadType="application/json"),
        dataclasses.replace(good, payloadType=dsse.IN_TOTO_TYPE),
    ]
    for index, entry in enumerate(good.signatures):
        for place in (0, len(entry.sig) // 2, len(entry.sig) - 1):
            sig = bytearray(entry.sig)
            sig[place] ^= 1
            entries = list(good.signatures)
            entries[index] = Entry(keyid=entry.keyid, sig=bytes(sig))
            twins.append(dataclasses.replace(good, signatures=tuple(entries)))
    for twin in twins:
        assert isinstance(_raises(partial(hub.put_object, twin)), Malformed | Refused)
    assert len(hub.feed().items) == len(world.cards)
    hub.put_object(good)


def test_a_card_must_be_signed_by_the_keys_in_it(hub: HubClient, world: World) -> None:
    stolen = dsse.sign(world.owner.card.payload, world.stranger.key)
    assert code(lambda: hub.put_object(stolen)) == "signature.signer"
    short = dumps({"kind": "kakoi/party-card/v1", "ed25519": b64(bytes(31)), "mldsa65": b64(bytes(1952))})
    assert code(lambda: hub.put_object(dsse.sign(short, world.owner.key))) == "crypto.key-length"


def test_one_key_may_have_two_cards(hub: HubClient, world: World) -> None:
    hub.put_object(world.owner.card)
    payload = world.owner.card.payload.replace(b'"created":1', b'"created":2')
    renewed = dsse.sign(payload, world.owner.key)
    hub.put_object(renewed)
    for identity in (world.owner.id, renewed.payload_id):
        hub.put_object(world.owner.sign("dataset-manifest", owner=identity))


def test_approvals_and_requests_need_the_contract_and_a_party_of_it(hub: HubClient, world: World) -> None:
    put_all(hub, world.cards)
    assert code(lambda: hub.put_object(world.approval(world.owner))) == "hub.contract-unknown"
    put_all(hub, world.setup)
    assert code(lambda: hub.put_object(world.approval(world.stranger))) == "hub.not-a-party"
    unknown = world.analyst.sign("run-request", contract=world.analysis.payload_id, party=world.analyst.id)
    assert code(lambda: hub.put_object(unknown)) == "hub.contract-unknown"
    assert hub.runs().items == ()


def test_answers_need_the_run_of_that_contract(hub: HubClient, world: World) -> None:
    put_all(hub, world.setup)
    assert code(lambda: hub.put_object(world.answer("challenge", ZERO))) == "hub.run-unknown"
    run = hub.put_object(world.request()).id
    second = world.analyst.sign(
        "contract",
        drafter=world.analyst.id,
        parties=[{"party": world.owner.id}, {"party": world.analyst.id}],
        version=2,
    )
    hub.put_object(second)
    foreign = world.owner.sign("challenge", run=run, attempt=1, contract=second.payload_id, owner=world.owner.id)
    assert code(lambda: hub.put_object(foreign)) == "hub.run-contract"
    stranger = world.answer("denial", run, party=world.stranger)
    assert code(lambda: hub.put_object(stranger)) == "hub.not-a-party"
    for kind in ("challenge", "denial", "key-grant"):
        hub.put_object(world.answer(kind, run))


def test_a_session_needs_the_live_claim(hub: HubClient, world: World, token: str) -> None:
    put_all(hub, world.setup)
    run = hub.put_object(world.request()).id
    key, session = world.session(run)
    assert code(lambda: hub.put_object(session)) == "hub.claim"
    claim = hub.claim(enclave="e", seconds=60)
    assert claim is not None
    assert code(lambda: hub.put_object(session, claim="0" * 64)) == "hub.claim"
    later = world.session(run, attempt=2)[1]
    assert code(lambda: hub.put_object(later, claim=claim.token)) == "hub.claim"
    result = dsse.sign(dumps({"kind": "kakoi/result/v1", "run": run, "contract": world.contract.payload_id}), key)
    assert code(lambda: hub.put_object(result)) == "hub.signer-unknown"
    hub.put_object(session, claim=claim.token)
    for said in (result, world.passport(key, run)):
        assert code(partial(hub.put_object, said)) == "hub.claim"
        assert code(partial(hub.put_object, said, claim="0" * 64)) == "hub.claim"
        hub.put_object(said, claim=claim.token)
    hub.finish(claim)
    hub.put_object(session)  # a replay of what is stored needs no claim
    by_run = {item.kind for item in hub.feed(refs={"run": run}).items}
    assert by_run == {"kakoi/session/v1", "kakoi/result/v1", "kakoi/passport/v1"}
    assert len(hub.feed(refs={"subject": "d" * 64}).items) == 1


def test_a_session_signs_for_its_own_run_only(hub: HubClient, world: World, token: str) -> None:
    put_all(hub, world.setup)
    runs = [hub.put_object(world.request(number)).id for number in (1, 2)]
    claim = hub.claim(enclave="e", seconds=60)
    assert claim is not None
    assert claim.run == runs[0]  # the one that waited longest
    key, session = world.session(claim.run)
    hub.put_object(session, claim=claim.token)
    other = dsse.sign(dumps({"kind": "kakoi/result/v1", "run": runs[1], "contract": world.contract.payload_id}), key)
    assert code(lambda: hub.put_object(other)) == "hub.signer"
    manifest = dsse.sign(dumps({"kind": "kakoi/dataset-manifest/v1", "owner": session.payload_id}), key)
    assert code(lambda: hub.put_object(manifest)) == "hub.signer"
    assert code(lambda: hub.put_object(world.passport(key, runs[1]))) == "hub.signer"
    assert code(lambda: hub.put_object(world.passport(key, claim.run, predicateType="urn:other"))) == "hub.kind"
    assert code(lambda: hub.put_object(world.passport(key, claim.run, predicate=[]))) == "hub.kind"
    assert code(lambda: hub.put_object(world.passport(world.owner.key, claim.run))) == "hub.signer"


def test_sizes_and_counts(hub: HubClient, world: World) -> None:
    put_all(hub, world.cards)
    big = world.owner.sign("withdrawal", party=world.owner.id, reason="x" * 20_000)
    assert code(lambda: hub.put_object(big)) == "encoding.size"
    many = world.owner.sign(
        "dataset-manifest", owner=world.owner.id, files=[{"blob": f"{n:064x}"} for n in range(4097)]
    )
    assert code(lambda: hub.put_object(many)) == "hub.references"
    assert code(lambda: put_bytes(hub, ZERO, bytes(25 * 1024 * 1024))) == "hub.too-large"


def test_every_rule_names_a_member_or_introduces_itself() -> None:
    for rule in RULES.values():
        assert (rule.signer == "party") == bool(rule.named_by), rule.name
        assert rule.most <= 16 * 1024 * 1024


# -- waiting


def test_a_feed_waits_for_what_it_asked_for_and_nothing_else(hub: HubClient, server: HubServer, world: World) -> None:
    put_all(hub, world.setup)
    last = hub.feed().next
    got: list[object] = []

    def wait() -> None:
        with client_of(server) as waiting:
            started = time.monotonic()
            page = waiting.feed(
                after=last, kinds=["kakoi/run-request/v1"], refs={"contract": world.contract.payload_id}, wait=20
            )
            got.extend([page, time.monotonic() - started])

    thread = threading.Thread(target=wait)
    thread.start()
    deadline = time.monotonic() + 15
    while server.hub.notifier.waiting == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.hub.notifier.waiting == 1
    hub.put_object(world.approval(world.owner))
    time.sleep(0.3)
    assert got == []
    request = hub.put_object(world.request())
    thread.join(timeout=60)
    page, took = got
    assert page.items == (request,)  # type: ignore[attr-defined]
    assert isinstance(took, float)
    assert took < 19
    assert server.hub.notifier.waiting == 0


def test_a_feed_ends_empty_after_its_wait(hub: HubClient) -> None:
    started = time.monotonic()
    assert hub.feed(after=5, wait=1).items == ()
    assert 0.9 < time.monotonic() - started < 3


def test_many_writers_and_followers_lose_nothing(hub: HubClient, server: HubServer, world: World) -> None:
    """Four followers see every object once and in order while four writers put objects."""
    parties = [Party(f"Writer {number}") for number in range(4)]
    each, seen = 25, []

    def follow() -> None:
        with client_of(server) as client:
            mine: list[int] = []
            for item in client.follow(wait=5):
                mine.append(item.seq)
                if len(mine) == len(parties) * (each + 1):
                    break
            seen.append(mine)

    def write(party: Party) -> None:
        with client_of(server) as client:
            client.put_object(party.card)
            for number in range(each):
                client.put_object(party.sign("analysis", author=party.id, number=number))

    threads = [threading.Thread(target=follow) for _ in range(4)]
    threads += [threading.Thread(target=write, args=(party,)) for party in parties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    expected = list(range(1, len(parties) * (each + 1) + 1))
    assert seen == [expected] * 4
    assert hub.log_checkpoint().splitlines()[1] == str(len(parties) * each).encode()
