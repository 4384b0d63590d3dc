"""The profile of RFC 9421: the RFC's own vectors, another implementation as a peer, and every other spelling refused."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
    algorithms,
)
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core import crypto
from kakoi.core.crypto import RequestKey, RequestVerifier, SigningKey
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.net import signature as profile
from kakoi.net.identity import enclave_identity, enclave_key, party_identity
from kakoi.net.signature import Message, Parameters

SEED = bytes(range(32))
KEY = RequestKey(SEED)
NONCE = "A" * 22
PARAMETERS = Parameters(created=1_700_000_000, keyid="a" * 64, expires=1_700_000_060, nonce=NONCE)
MESSAGE = Message(
    method="PUT",
    authority="hub.example:8440",
    path="/v1/objects/%41",
    query="a=1&b=%20",
    fields={"content-type": "application/json", "content-length": "2", "x-other": "y"},
)


def refused(call: Any) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def test_the_rfcs_ed25519_example() -> None:
    """RFC 9421 appendix B.2.6: our lines under the RFC's key give the RFC's signature."""
    seed = b64decode("MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF")[-32:]
    parameters = (
        '("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    )
    base = profile.lines(
        [
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("@method", "POST"),
            ("@path", "/foo"),
            ("@authority", "example.com"),
            ("content-type", "application/json"),
            ("content-length", "18"),
            ("@signature-params", parameters),
        ]
    )
    expected = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    assert crypto.ed25519_sign(seed, base) == b64decode(expected)


def test_the_rfcs_digest_example() -> None:
    """RFC 9530 appendix D / RFC 9421 appendix B.2."""
    digest = hashlib.sha256(b'{"hello": "world"}').digest()
    assert profile.content_digest(digest) == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    assert profile.parse_digest(profile.content_digest(digest)) == digest
    for other in ("", "sha-256=:x:", "sha-512=:" + "A" * 86 + "==:", profile.content_digest(digest) + ", md5=:AA==:"):
        assert refused(lambda other=other: profile.parse_digest(other)) == "hub.digest-form"


def test_the_base_covers_what_changes_the_meaning() -> None:
    base = profile.base(MESSAGE, PARAMETERS).decode()
    assert base.splitlines() == [
        '"@method": PUT',
        '"@authority": hub.example:8440',
        '"@path": /v1/objects/%41',
        '"@query": ?a=1&b=%20',
        '"content-length": 2',
        '"content-type": application/json',
        f'"@signature-params": {PARAMETERS.text(MESSAGE.components)}',
    ]


class Resolver(HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(KEY.public)

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(SEED)


COVERED = ("@method", "@authority", "@path", "@query", "content-digest", "content-length", "content-type")


def prepared(body: bytes = b"{}") -> requests.PreparedRequest:
    headers = {
        "Content-Type": "application/json",
        "Content-Digest": profile.content_digest(hashlib.sha256(body).digest()),
    }
    url = "http://hub.example:8440/v1/objects/abc?a=1"
    return requests.Request("PUT", url, headers=headers, data=body).prepare()


def message_of(request: requests.PreparedRequest) -> Message:
    fields = {name.lower(): str(value) for name, value in request.headers.items()}
    return Message(method="PUT", authority="hub.example:8440", path="/v1/objects/abc", query="a=1", fields=fields)


def test_another_implementation_verifies_ours() -> None:
    request = prepared()
    now = int(datetime.now(UTC).timestamp())
    parameters = Parameters(created=now, keyid="a" * 64, expires=now + 60, nonce=NONCE)
    message = message_of(request)
    request.headers.update(profile.fields_of(message, parameters, KEY.sign_request(profile.base(message, parameters))))
    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=Resolver())
    (result,) = verifier.verify(request, expect_tag=profile.TAG, require_components=COVERED)
    assert result.parameters["nonce"] == NONCE
    request.headers["Content-Type"] = "text/plain"
    with pytest.raises(InvalidSignature):
        verifier.verify(request, expect_tag=profile.TAG)


def test_ours_verifies_another_implementations() -> None:
    request = prepared()
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=Resolver())
    now = datetime.now(UTC)
    signer.sign(
        request,
        key_id="a" * 64,
        created=now,
        expires=now + timedelta(seconds=60),
        nonce=NONCE,
        label=profile.LABEL,
        tag=profile.TAG,
        covered_component_ids=COVERED,
        use_existing_digest=True,
    )
    message = message_of(request)
    parameters, signature = profile.parse(
        str(request.headers["Signature-Input"]), str(request.headers["Signature"]), message.components
    )
    RequestVerifier(KEY.public).verify(profile.base(message, parameters), signature)


GOOD = profile.fields_of(MESSAGE, PARAMETERS, bytes(64))


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("kakoi=", "sig1=", "hub.signature-form"),
        ("kakoi=", "kakoi=(), kakoi=", "hub.signature-form"),
        ('"@query" ', '"@query"  ', "hub.signature-form"),
        ('"@query" ', "", "hub.signature-form"),
        (' "content-type"', "", "hub.signature-covers"),
        (' "content-type"', ' "content-type" "content-type"', "hub.signature-covers"),
        (' "content-length" "content-type"', ' "content-type" "content-length"', "hub.signature-covers"),
        (' "content-type"', ' "content-type" "x-other"', "hub.signature-covers"),
        ('"@path"', '"@path";req', "hub.signature-form"),
        ('alg="ed25519"', 'alg="hmac-sha256"', "hub.signature-form"),
        (';alg="ed25519"', "", "hub.signature-form"),
        (";created=1700000000", "", "hub.signature-form"),
        (";created=1700000000", ";created=01700000000", "hub.signature-form"),
        (";created=1700000000", ';created="1700000000"', "hub.signature-form"),
        (";created=1700000000", ";created=-1", "hub.signature-form"),
        (";expires=1700000060", "", "hub.signature-form"),
        (f';nonce="{NONCE}"', "", "hub.signature-form"),
        (NONCE, NONCE[:-1], "hub.signature-form"),
        ('tag="kakoi-hub-v1"', 'tag="other"', "hub.signature-form"),
        ('tag="kakoi-hub-v1"', 'tag="kakoi-hub-v1";x=1', "hub.signature-form"),
        ('tag="kakoi-hub-v1"', 'tag="kakoi-hub-v1" ', "hub.signature-form"),
    ],
)
def test_every_other_spelling_is_refused(old: str, new: str, code: str) -> None:
    said = GOOD["Signature-Input"]
    assert old in said
    assert profile.parse(said, GOOD["Signature"], MESSAGE.components) == (PARAMETERS, bytes(64))
    assert refused(lambda: profile.parse(said.replace(old, new, 1), GOOD["Signature"], MESSAGE.components)) == code


@given(text=st.text(max_size=300), other=st.text(max_size=120))
def test_any_text_is_only_our_error(text: str, other: str) -> None:
    with pytest.raises(Malformed):
        profile.parse(text, other, MESSAGE.components)
    with pytest.raises(Malformed):
        profile.parse(GOOD["Signature-Input"], other, MESSAGE.components)


@given(where=st.integers(0, 600), flip=st.integers(1, 255))
def test_every_flipped_byte_of_the_base_breaks_the_signature(where: int, flip: int) -> None:
    base = profile.base(MESSAGE, PARAMETERS)
    signature = KEY.sign_request(base)
    RequestVerifier(KEY.public).verify(base, signature)
    altered = bytearray(base)
    altered[where % len(base)] ^= flip
    with pytest.raises((Refused, Misuse)):
        RequestVerifier(KEY.public).verify(bytes(altered), signature)


def test_request_keys_sign_requests_only() -> None:
    """A party's Ed25519 half signs envelopes too: neither signature can be passed off as the other."""
    party = SigningKey(bytes(range(64)))
    for key in (KEY, party):
        assert refused(lambda key=key: key.sign_request(b"DSSEv1 1 a 1 b")) == "crypto.request-base"
        assert refused(lambda key=key: key.sign_request(b"")) == "crypto.request-base"
    base = profile.base(MESSAGE, PARAMETERS)
    RequestVerifier(party.verifying_key.ed25519).verify(base, party.sign_request(base))
    assert refused(lambda: RequestKey(b"x")) == "crypto.key-length"
    assert refused(lambda: RequestVerifier(bytes(32))) == "crypto.public-key"


def test_enclaves_keys_come_from_token_and_name() -> None:
    one = enclave_key("e1", b"token")
    assert enclave_identity("e1", "token").public == one.public
    assert enclave_key("e2", b"token").public != one.public
    assert enclave_key("e1", b"token2").public != one.public
    for name in ("", "a/b", "a" * 81, "a b", 'a"'):
        assert refused(lambda name=name: enclave_identity(name, "token")) == "net.enclave-name"


def test_an_identity_shows_no_secret() -> None:
    from kakoi.core import dsse

    key = SigningKey(bytes(range(64)))
    identity = party_identity(key, dsse.sign(b"{}", key))
    assert "sign" not in repr(identity).replace("signatures", "")


@pytest.mark.parametrize(
    ("host", "port", "tls", "name"),
    [
        ("Hub.Example", 443, True, "hub.example"),
        ("hub.example", None, True, "hub.example"),
        ("hub.example", 443, False, "hub.example:443"),
        ("hub.example", 80, False, "hub.example"),
        ("::1", 8440, False, "[::1]:8440"),
    ],
)
def test_names_of_hubs(host: str, port: int | None, tls: bool, name: str) -> None:
    assert profile.authority(host, port, tls=tls) == name
