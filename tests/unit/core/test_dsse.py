"""Envelopes: what is signed, by whom, and that nothing else passes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature as TheirSignature  # type: ignore[attr-defined]
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from kakoi.core import dsse, encoding
from kakoi.core.crypto import SigningKey
from kakoi.core.dsse import Entry, Envelope
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import object_id

ALICE = SigningKey(bytes(range(64)))
BOB = SigningKey(bytes(range(64, 128)))
PAYLOAD = b'{"kind":"kakoi/test/v1"}'
GOOD = dsse.sign(PAYLOAD, ALICE)


def _their_key() -> SSlibKey:
    public = ALICE.verifying_key.ed25519.hex()
    return SSlibKey(ALICE.verifying_key.ed25519_keyid, "ed25519", "ed25519", {"public": public})


def test_pre_authentication_encoding_is_the_specifications() -> None:
    """The example of the DSSE protocol text."""
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_lengths_are_in_bytes() -> None:
    assert dsse.pae("é", b"\xff") == b"DSSEv1 2 \xc3\xa9 1 \xff"


def test_securesystemslib_reads_our_envelope_and_verifies_its_ed25519_half() -> None:
    theirs = TheirEnvelope.from_dict(json.loads(GOOD.encode()))
    assert theirs.pae() == dsse.pae(dsse.PAYLOAD_TYPE, PAYLOAD)
    assert set(theirs.verify([_their_key()], 1)) == {ALICE.verifying_key.ed25519_keyid}


def test_securesystemslib_refuses_our_envelope_when_changed() -> None:
    changed = dataclasses.replace(GOOD, payload=PAYLOAD + b" ")
    theirs = TheirEnvelope.from_dict(json.loads(changed.encode()))
    signature = theirs.signatures[ALICE.verifying_key.ed25519_keyid]
    with pytest.raises(UnverifiedSignatureError):
        _their_key().verify_signature(signature, theirs.pae())


def test_we_verify_what_securesystemslib_writes() -> None:
    signature = ALICE.sign(dsse.pae(dsse.PAYLOAD_TYPE, PAYLOAD))
    key = ALICE.verifying_key
    theirs = TheirEnvelope(
        PAYLOAD,
        dsse.PAYLOAD_TYPE,
        {
            key.ed25519_keyid: TheirSignature(key.ed25519_keyid, signature.ed25519.hex()),
            key.mldsa65_keyid: TheirSignature(key.mldsa65_keyid, signature.mldsa65.hex()),
        },
    )
    envelope = Envelope.decode(encoding.dumps(theirs.to_dict()))
    assert dsse.verify(envelope, key) == PAYLOAD


def test_a_signed_payload_comes_back() -> None:
    assert dsse.verify(GOOD, ALICE.verifying_key) == PAYLOAD
    assert dsse.verify(Envelope.decode(GOOD.encode()), ALICE.verifying_key) == PAYLOAD
    assert GOOD.payload_id == object_id(PAYLOAD)


def test_in_toto_statements_have_their_own_type() -> None:
    statement = dsse.sign(PAYLOAD, ALICE, payload_type=dsse.IN_TOTO_TYPE)
    assert dsse.verify(statement, ALICE.verifying_key, payload_type=dsse.IN_TOTO_TYPE) == PAYLOAD
    for envelope, payload_type in ((statement, dsse.PAYLOAD_TYPE), (GOOD, dsse.IN_TOTO_TYPE)):
        with pytest.raises(Malformed) as error:
            dsse.verify(envelope, ALICE.verifying_key, payload_type=payload_type)
        assert error.value.code == "envelope.type"


def test_a_changed_type_is_refused_even_where_it_is_expected() -> None:
    relabelled = dataclasses.replace(GOOD, payloadType=dsse.IN_TOTO_TYPE)
    with pytest.raises(Refused) as error:
        dsse.verify(relabelled, ALICE.verifying_key, payload_type=dsse.IN_TOTO_TYPE)
    assert error.value.code == "signature.invalid"


def test_another_signer_is_refused() -> None:
    with pytest.raises(Refused) as error:
        dsse.verify(GOOD, BOB.verifying_key)
    assert error.value.code == "signature.signer"


FIRST, SECOND = GOOD.signatures
BOBS = dsse.sign(PAYLOAD, BOB).signatures
OTHER_PAYLOAD = dsse.sign(b'{"kind":"kakoi/other/v1"}', ALICE).signatures


@pytest.mark.parametrize(
    ("signatures", "code"),
    [
        ((SECOND, FIRST), "signature.signer"),
        ((FIRST, FIRST), "signature.signer"),
        ((SECOND, SECOND), "signature.signer"),
        ((FIRST, BOBS[1]), "signature.signer"),
        ((BOBS[0], SECOND), "signature.signer"),
        ((FIRST, dataclasses.replace(SECOND, keyid=FIRST.keyid)), "signature.signer"),
        ((FIRST, OTHER_PAYLOAD[1]), "signature.invalid"),
        ((OTHER_PAYLOAD[0], SECOND), "signature.invalid"),
        ((FIRST, dataclasses.replace(SECOND, sig=FIRST.sig)), "signature.invalid"),
        ((dataclasses.replace(FIRST, sig=SECOND.sig), SECOND), "signature.invalid"),
        ((dataclasses.replace(FIRST, sig=BOBS[0].sig), SECOND), "signature.invalid"),
        ((FIRST, dataclasses.replace(SECOND, sig=BOBS[1].sig)), "signature.invalid"),
    ],
)
def test_mixed_signatures_are_refused(signatures: tuple[Entry, Entry], code: str) -> None:
    with pytest.raises(Refused) as error:
        dsse.verify(dataclasses.replace(GOOD, signatures=signatures), ALICE.verifying_key)
    assert error.value.code == code


@pytest.mark.parametrize("signatures", [(), (FIRST,), (FIRST, SECOND, BOBS[0]), (FIRST, SECOND, FIRST, SECOND)])
def test_envelopes_have_exactly_two_signatures(signatures: tuple[Entry, ...]) -> None:
    with pytest.raises(Malformed):
        dataclasses.replace(GOOD, signatures=signatures)
    value = json.loads(GOOD.encode())
    value["signatures"] = [{"keyid": e.keyid, "sig": encoding.b64(e.sig)} for e in signatures]
    with pytest.raises(Malformed):
        Envelope.decode(encoding.dumps(value))


@pytest.mark.parametrize("payload_type", ["", "a b", "é", "a\n", "x" * 81])
def test_odd_payload_types_are_refused(payload_type: str) -> None:
    with pytest.raises(Malformed):
        dataclasses.replace(GOOD, payloadType=payload_type)


def test_every_changed_byte_of_an_envelope_is_refused() -> None:
    good = GOOD.encode()
    places = [*range(220), *range(220, len(good), 97), *range(len(good) - 40, len(good))]
    for at in places:
        bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        with pytest.raises(KakoiError):
            dsse.verify(Envelope.decode(bad), ALICE.verifying_key)


def test_large_payloads_have_a_limit() -> None:
    assert len(dsse.sign(bytes(16 * 1024 * 1024), ALICE).encode()) <= Envelope.MAX_BYTES
    with pytest.raises(Malformed):
        dsse.sign(bytes(16 * 1024 * 1024 + 1), ALICE)


def test_the_published_vector() -> None:
    """What docs/formats/envelope.md describes, as other implementations can check it."""
    vector = json.loads((Path(__file__).parents[2] / "vectors/core/envelope.json").read_text("utf-8"))
    key = SigningKey(bytes.fromhex(vector["secret"])).verifying_key
    assert (key.ed25519.hex(), key.mldsa65.hex()) == (vector["ed25519"], vector["mldsa65"])
    envelope = Envelope.decode(vector["envelope"].encode())
    assert dsse.verify(envelope, key) == vector["payload"].encode()
    assert envelope.payload_id == vector["payload_id"]
