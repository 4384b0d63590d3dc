"""Envelopes against the reference library, and against anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as TheirEnvelope

from kakoi.core import dsse
from kakoi.core.crypto import SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError

KEY = SigningKey(bytes(64))
GOOD = dsse.sign(b'{"kind":"kakoi/test/v1"}', KEY).encode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.binary(max_size=60))
def test_pae_equals_securesystemslibs(payload_type: str, payload: bytes) -> None:
    assert dsse.pae(payload_type, payload) == TheirEnvelope(payload, payload_type, {}).pae()


PAIRS = st.tuples(st.text("a 0129DSEv", max_size=6), st.binary(max_size=6))


@given(PAIRS, PAIRS)
def test_pae_is_injective(a: tuple[str, bytes], b: tuple[str, bytes]) -> None:
    assert (dsse.pae(*a) == dsse.pae(*b)) == (a == b)


@given(st.binary(min_size=2, max_size=200))
def test_any_payload_is_signed_and_verified(payload: bytes) -> None:
    envelope = dsse.sign(payload, KEY)
    assert dsse.verify(Envelope.decode(envelope.encode()), KEY.verifying_key) == payload


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_never_verifies(at: int, mask: int) -> None:
    bad = GOOD[:at] + bytes([GOOD[at] ^ mask]) + GOOD[at + 1 :]
    with pytest.raises(KakoiError):
        dsse.verify(Envelope.decode(bad), KEY.verifying_key)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_inserted_bytes_never_verify(at: int, more: bytes) -> None:
    with pytest.raises(KakoiError):
        dsse.verify(Envelope.decode(GOOD[:at] + more + GOOD[at:]), KEY.verifying_key)
