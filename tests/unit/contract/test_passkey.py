"""People's approvals: every good assertion and key has bad twins, and any bytes give only our errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.contract.approve import Agreement, ContractBundle, agree
from kakoi.contract.model import Approval, Assertion, PartyCard, Person
from kakoi.contract.passkey import (
    Algorithm,
    PasskeyKey,
    Vouched,
    challenge_text,
    judge_origin,
    parse_key,
    verify_assertion,
    verify_people,
)
from kakoi.contract.sign import open_card, seal
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import ObjectId, object_id
from kakoi.testing.software_authenticator import PRESENT, VERIFIED, SoftwareAuthenticator
from kakoi.testing.world import NOW, TestParty, World

RP = "console.hospital.example"
ORIGIN = f"https://{RP}"
SUBJECT = object_id(b"a contract")
CHALLENGE = bytes.fromhex(SUBJECT)
ALGORITHMS: list[Algorithm] = ["ES256", "EdDSA", "RS256"]


def device(name: str = "Aoki", algorithm: Algorithm = "ES256") -> SoftwareAuthenticator:
    return SoftwareAuthenticator(name=name, relying_party=RP, origin=ORIGIN, algorithm=algorithm)


def check(assertion: Assertion, person: Person | None = None) -> Vouched:
    return verify_assertion(
        assertion, person=person or device().person("Dr. Aoki"), relying_party=RP, challenge=CHALLENGE
    )


# Keys


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_has_one_spelling(algorithm: Algorithm) -> None:
    key = device(algorithm=algorithm).public_key
    data = key.encode()
    assert parse_key(data) == key
    assert cbor2.loads(data)[3] == {"ES256": -7, "EdDSA": -8, "RS256": -257}[algorithm]
    assert cbor2.dumps(cbor2.loads(data), canonical=True) == data


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_changed_byte_of_a_key_is_another_key_or_none(algorithm: Algorithm) -> None:
    data = device(algorithm=algorithm).public_key.encode()
    for place in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            twin = bytearray(data)
            twin[place] ^= flip
            try:
                assert parse_key(bytes(twin)).encode() == bytes(twin) != data
            except Malformed:
                continue
    for cut in range(len(data)):
        with pytest.raises(Malformed):
            parse_key(data[:cut])
    with pytest.raises(Malformed):
        parse_key(data + b"\x00")


def _members(algorithm: Algorithm) -> dict[int, object]:
    return dict(cbor2.loads(device(algorithm=algorithm).public_key.encode()))


KEY_TWINS: dict[str, Callable[[], bytes]] = {
    "another algorithm": lambda: cbor2.dumps({**_members("ES256"), 3: -35}),
    "another curve": lambda: cbor2.dumps({**_members("ES256"), -1: 2}),
    "a point off the curve": lambda: cbor2.dumps({**_members("ES256"), -2: bytes(32)}),
    "a compressed point": lambda: cbor2.dumps({**_members("ES256"), -3: True}),
    "a short coordinate": lambda: cbor2.dumps({**_members("ES256"), -2: bytes(31)}),
    "a further member": lambda: cbor2.dumps({**_members("EdDSA"), 2: b"kid"}),
    "other order": lambda: cbor2.dumps(dict(reversed(_members("ES256").items()))),
    "small order": lambda: cbor2.dumps({**_members("EdDSA"), -2: bytes(32)}),
    "a long length": lambda: device(algorithm="EdDSA").public_key.encode().replace(b"\x58\x20", b"\x59\x00\x20"),
    "no definite length": lambda: b"\xbf" + device(algorithm="EdDSA").public_key.encode()[1:] + b"\xff",
    "RSA of 1024 bits": lambda: cbor2.dumps({**_members("RS256"), -1: b"\xff" * 128}),
    "RSA with exponent 3": lambda: cbor2.dumps({**_members("RS256"), -2: b"\x03"}),
    "RSA with a leading zero": lambda: cbor2.dumps({**_members("RS256"), -1: bytes(1) + b"\xff" * 255}),
    "an array": lambda: cbor2.dumps([1, 2]),
    "a text": lambda: cbor2.dumps({1: 2, 3: -7, -1: "P-256"}),
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("twin", KEY_TWINS)
def test_no_other_key_is_read(twin: str) -> None:
    with pytest.raises(Malformed):
        parse_key(KEY_TWINS[twin]())


@given(st.binary(max_size=200))
def test_any_bytes_as_a_key(data: bytes) -> None:
    try:
        assert parse_key(data).encode() == data
    except Malformed:
        return


@given(
    st.dictionaries(
        st.sampled_from([1, 3, -1, -2, -3]), st.one_of(st.integers(-300, 300), st.binary(max_size=40)), max_size=5
    )
)
def test_any_map_as_a_key(value: dict[int, object]) -> None:
    data = cbor2.dumps(value, canonical=True)
    try:
        assert parse_key(data).encode() == data
    except Malformed:
        return


# Assertions


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_assertion_says_who_and_how_often(algorithm: Algorithm) -> None:
    key = device(algorithm=algorithm)
    key.counter = 6
    vouched = check(key.assertion(CHALLENGE), key.person("Dr. Aoki"))
    assert (vouched.person, vouched.counter, vouched.backed_up) == ("Dr. Aoki", 7, False)
    assert check(key.assertion(CHALLENGE, flags=0x1D), key.person("Dr. Aoki")).backed_up


def test_only_the_verifier_makes_a_voucher() -> None:
    with pytest.raises(TypeError):
        Vouched(person="Dr. Aoki", credential_id=bytes(16), counter=0, backed_up=False)


BAD: dict[str, tuple[Callable[[], Assertion], str]] = {
    "another contract": (lambda: device().assertion(bytes.fromhex(object_id(b"another"))), "passkey.challenge"),
    "the challenge with more behind it": (lambda: device().assertion(CHALLENGE + b"x"), "passkey.challenge"),
    "a sign-in": (lambda: device().assertion(b"kakoi/sign-in/v1" + bytes(32)), "passkey.challenge"),
    "no challenge": (lambda: device().assertion(CHALLENGE, change={"challenge": None}), "passkey.challenge"),
    "padded challenge": (
        lambda: device().assertion(CHALLENGE, change={"challenge": challenge_text(CHALLENGE) + "="}),
        "passkey.challenge",
    ),
    "a registration": (lambda: device().assertion(CHALLENGE, change={"type": "webauthn.create"}), "passkey.type"),
    "another site": (
        lambda: device().assertion(CHALLENGE, change={"origin": "https://evil.example"}),
        "passkey.origin",
    ),
    "plain http": (lambda: device().assertion(CHALLENGE, change={"origin": f"http://{RP}"}), "passkey.origin"),
    "a name that goes on": (
        lambda: device().assertion(CHALLENGE, change={"origin": f"{ORIGIN}.evil.example"}),
        "passkey.origin",
    ),
    "a subdomain": (lambda: device().assertion(CHALLENGE, change={"origin": f"https://x.{RP}"}), "passkey.origin"),
    "no origin": (lambda: device().assertion(CHALLENGE, change={"origin": None}), "passkey.origin"),
    "a frame elsewhere": (lambda: device().assertion(CHALLENGE, change={"crossOrigin": True}), "passkey.cross-origin"),
    "crossOrigin as text": (
        lambda: device().assertion(CHALLENGE, change={"crossOrigin": "false"}),
        "passkey.cross-origin",
    ),
    "a top origin": (
        lambda: device().assertion(CHALLENGE, change={"topOrigin": "https://evil.example"}),
        "passkey.cross-origin",
    ),
    "another relying party": (
        lambda: device().assertion(CHALLENGE, relying_party="evil.example"),
        "passkey.relying-party",
    ),
    "nobody present": (lambda: device().assertion(CHALLENGE, flags=VERIFIED), "passkey.presence"),
    "user not verified": (lambda: device().assertion(CHALLENGE, flags=PRESENT), "passkey.user-verification"),
    "attested data": (lambda: device().assertion(CHALLENGE, flags=PRESENT | VERIFIED | 0x40), "passkey.flags"),
    "extensions": (lambda: device().assertion(CHALLENGE, flags=PRESENT | VERIFIED | 0x80), "passkey.flags"),
    "a reserved flag": (lambda: device().assertion(CHALLENGE, flags=PRESENT | VERIFIED | 0x02), "passkey.flags"),
    "backed up but not eligible": (
        lambda: device().assertion(CHALLENGE, flags=PRESENT | VERIFIED | 0x10),
        "passkey.flags",
    ),
    "bytes behind": (lambda: device().assertion(CHALLENGE, extra=b"\xa0"), "passkey.authenticator-data"),
    "another device": (lambda: device("Baba").assertion(CHALLENGE), "passkey.credential"),
    "another device under this id": (
        lambda: replace(device("Baba").assertion(CHALLENGE), credential_id=device().credential_id),
        "passkey.signature",
    ),
    "no JSON": (lambda: device().assertion(CHALLENGE, client_data=b"challenge"), "passkey.client-data"),
    "a JSON list": (lambda: device().assertion(CHALLENGE, client_data=b"[]"), "passkey.client-data"),
    "deep JSON": (lambda: device().assertion(CHALLENGE, client_data=b"[" * 4000), "passkey.client-data"),
    "a challenge twice": (
        lambda: device().assertion(
            CHALLENGE,
            client_data=(
                f'{{"type":"webauthn.get","challenge":"AAAA","challenge":"{challenge_text(CHALLENGE)}",'
                f'"origin":"{ORIGIN}"}}'
            ).encode(),
        ),
        "passkey.client-data",
    ),
}


@pytest.mark.parametrize("twin", BAD)
def test_bad_twins_of_an_assertion(twin: str) -> None:
    make, code = BAD[twin]
    with pytest.raises((Malformed, Refused)) as caught:
        check(make())
    assert caught.value.code == code


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_changed_byte_of_an_assertion_is_refused(algorithm: Algorithm) -> None:
    key = device(algorithm=algorithm)
    good, person = key.assertion(CHALLENGE), key.person("Dr. Aoki")
    for name in ("credential_id", "authenticator_data", "client_data", "signature"):
        data = getattr(good, name)
        for place in range(len(data)):
            twin = bytearray(data)
            twin[place] ^= 0x01
            with pytest.raises((Malformed, Refused)):
                check(replace(good, **{name: bytes(twin)}), person)
        for changed in (data[:-1], data + b"\x00"):
            with pytest.raises((Malformed, Refused)):
                check(replace(good, **{name: changed}), person)


def test_browsers_may_add_members() -> None:
    added = {"other_keys_can_be_added_here": "do not compare clientDataJSON against a template"}
    assert check(device().assertion(CHALLENGE, change=added)).person == "Dr. Aoki"


@given(st.binary(min_size=1, max_size=300), st.binary(min_size=37, max_size=60), st.binary(min_size=32, max_size=80))
def test_any_bytes_as_an_assertion(client: bytes, authenticator: bytes, signature: bytes) -> None:
    twin = Assertion(
        credential_id=device().credential_id, authenticator_data=authenticator, client_data=client, signature=signature
    )
    with pytest.raises((Malformed, Refused)):
        check(twin)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(st.none(), st.just("webauthn.get"), st.text(max_size=5)),
            "challenge": st.one_of(st.none(), st.just(challenge_text(CHALLENGE)), st.text(max_size=5)),
            "origin": st.one_of(st.just(ORIGIN), st.integers(), st.lists(st.text(max_size=3), max_size=2)),
            "crossOrigin": st.one_of(st.booleans(), st.none(), st.integers(0, 1)),
        },
    )
)
def test_any_client_data_that_is_accepted_says_exactly_this(change: dict[str, object]) -> None:
    try:
        check(device().assertion(CHALLENGE, change=change))
    except (Malformed, Refused):
        return
    assert change.get("type", "webauthn.get") == "webauthn.get"
    assert change.get("challenge", challenge_text(CHALLENGE)) == challenge_text(CHALLENGE)
    assert change.get("origin", ORIGIN) == ORIGIN
    assert change.get("crossOrigin", False) is False


@pytest.mark.parametrize(
    ("origin", "rp", "good"),
    [
        (ORIGIN, RP, True),
        (f"{ORIGIN}:8443", RP, True),
        (f"{ORIGIN}:65535", RP, True),
        ("https://localhost:1", "localhost", True),
        ("http://localhost:8443", "localhost", True),
        ("http://localhost", "localhost", True),
        (f"{ORIGIN}:65536", RP, False),
        (f"{ORIGIN}:0443", RP, False),
        (f"{ORIGIN}:", RP, False),
        (f"{ORIGIN}/", RP, False),
        (f"{ORIGIN}\n", RP, False),
        (f"https://user@{RP}", RP, False),
        ("HTTPS://" + RP, RP, False),
        ("http://127.0.0.1:8443", "localhost", False),
        ("https://", "", False),
        (None, RP, False),
        (["https://" + RP], RP, False),
    ],
)
def test_origins(origin: object, rp: str, good: bool) -> None:
    if good:
        judge_origin(origin, rp)
        return
    with pytest.raises(Refused) as caught:
        judge_origin(origin, rp)
    assert caught.value.code == "passkey.origin"


# People


def card(*people: Person, required: int) -> PartyCard:
    base = TestParty.named("North").card.record
    return replace(base, people=people, approvals_required=required, relying_party=RP if people else "")


AOKI, AOKI_PHONE, BABA, CHIBA = (device(name) for name in ("Aoki", "Aoki's phone", "Baba", "Chiba"))
PEOPLE = (AOKI.person("Dr. Aoki"), AOKI_PHONE.person("Dr. Aoki"), BABA.person("Ms. Baba"))


def test_two_different_people_are_needed() -> None:
    both = verify_people(card(*PEOPLE, required=2), SUBJECT, (AOKI.assertion(CHALLENGE), BABA.assertion(CHALLENGE)))
    assert [item.person for item in both] == ["Dr. Aoki", "Ms. Baba"]


def test_a_card_without_people_needs_and_takes_no_assertion() -> None:
    assert verify_people(card(required=0), SUBJECT, ()) == ()
    with pytest.raises(Refused) as caught:
        verify_people(card(required=0), SUBJECT, (AOKI.assertion(CHALLENGE),))
    assert caught.value.code == "passkey.unknown"


@pytest.mark.parametrize(
    ("assertions", "code"),
    [
        ((), "approval.people"),
        ((AOKI.assertion(CHALLENGE),), "approval.people"),
        ((AOKI.assertion(CHALLENGE), AOKI_PHONE.assertion(CHALLENGE)), "approval.people"),
        ((AOKI.assertion(CHALLENGE), AOKI.assertion(CHALLENGE)), "passkey.repeated"),
        ((AOKI.assertion(CHALLENGE), CHIBA.assertion(CHALLENGE)), "passkey.unknown"),
        ((AOKI.assertion(CHALLENGE), BABA.assertion(bytes(32))), "passkey.challenge"),
        ((AOKI.assertion(CHALLENGE), BABA.assertion(CHALLENGE), CHIBA.assertion(CHALLENGE)), "passkey.unknown"),
    ],
)
def test_too_few_or_wrong_people(assertions: tuple[Assertion, ...], code: str) -> None:
    with pytest.raises((Malformed, Refused)) as caught:
        verify_people(card(*PEOPLE, required=2), SUBJECT, assertions)
    assert caught.value.code == code


def test_devices_of_one_person_do_not_make_two_people_on_a_card() -> None:
    with pytest.raises(Malformed) as caught:
        card(*PEOPLE[:2], required=2)
    assert caught.value.code == "card.approvals"


# The agreement


def world_with_people() -> tuple[World, ContractBundle]:
    """The first owner's card demands two people; nobody of them has approved yet."""
    world = World()
    owner = world.owners[0]
    record = replace(owner.card.record, people=PEOPLE, approvals_required=2, relying_party=RP)
    world.owners = (replace(owner, card=open_card(seal(record, owner.signing))), *world.owners[1:])
    return world, world.bundle()


def approved_by(world: World, bundle: ContractBundle, *devices: SoftwareAuthenticator) -> Agreement:
    owner, contract = world.owners[0], bundle.contract.payload_id
    approval = Approval(
        contract=contract,
        party=owner.id,
        assertions=tuple(item.assertion(bytes.fromhex(contract)) for item in devices),
        approved_at=NOW,
    )
    others = tuple(e for e in bundle.approvals if Approval.decode(e.payload).party != owner.id)
    return agree(replace(bundle, approvals=(seal(approval, owner.signing), *others)))


def test_an_agreement_needs_the_people_of_each_card() -> None:
    world, bundle = world_with_people()
    assert approved_by(world, bundle, AOKI, BABA).id == bundle.contract.payload_id


@pytest.mark.parametrize("devices", [(), (AOKI,), (AOKI, AOKI_PHONE), (AOKI, CHIBA)])
def test_the_partys_key_alone_agrees_to_nothing(devices: tuple[SoftwareAuthenticator, ...]) -> None:
    world, bundle = world_with_people()
    with pytest.raises(Refused):
        approved_by(world, bundle, *devices)


def test_errors_are_ours() -> None:
    with pytest.raises(KakoiError):
        verify_people(card(*PEOPLE, required=1), ObjectId("00" * 32), (AOKI.assertion(CHALLENGE),))
    key = PasskeyKey(algorithm="EdDSA", parts=(bytes(32),))
    with pytest.raises(Refused):
        key.verify(b"", bytes(64))
