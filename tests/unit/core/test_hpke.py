"""Sealing is HPKE with MLKEM768-X25519: against the working group's vector, and against RFC 9180 written out here."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from kakoi.core.crypto import SEALING_PUBLIC, SealingKey, require_sealing_public, seal
from kakoi.core.encoding import framed
from kakoi.core.errors import Malformed, Refused

VECTOR = json.loads((Path(__file__).parents[2] / "vectors/core/hpke-mlkem768-x25519.json").read_text())
SECRET = hashlib.shake_256(b"a sealing key").digest(96)
KEY = SealingKey(SECRET)
INFO = framed(b"run", b"contract", b"session", b"data set")
ENC = 1088 + 32
KEM_ID, KDF_ID, AES_256_GCM, CHACHA = 0x647A, 1, 2, 3


def _member(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def _combine(mlkem: bytes, x25519: bytes, x25519_enc: bytes, x25519_public: bytes) -> bytes:
    """The combiner of draft-irtf-cfrg-concrete-hybrid-kems §4.2 (X-Wing)."""
    return hashlib.sha3_256(mlkem + x25519 + x25519_enc + x25519_public + b"\\.//^\\").digest()


def _decapsulate(secret: bytes, enc: bytes) -> bytes:
    x25519 = X25519PrivateKey.from_private_bytes(secret[64:])
    return _combine(
        MLKEM768PrivateKey.from_seed_bytes(secret[:64]).decapsulate(enc[:1088]),
        x25519.exchange(X25519PublicKey.from_public_bytes(enc[1088:])),
        enc[1088:],
        x25519.public_key().public_bytes_raw(),
    )


def _key_schedule(shared: bytes, info: bytes, aead_id: int) -> tuple[bytes, bytes]:
    """Key and base nonce of RFC 9180 §5.1, base mode."""
    suite = b"HPKE" + b"".join(part.to_bytes(2, "big") for part in (KEM_ID, KDF_ID, aead_id))

    def extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(prk: bytes, label: bytes, context: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context
        return hmac.digest(prk, labelled + b"\x01", "sha256")[:length]

    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)


def _seed_to_secret(seed: bytes) -> bytes:
    """The draft's private key is a 32-byte seed, which SHAKE256 expands to both halves."""
    return hashlib.shake_256(seed).digest(96)


def test_the_written_out_hpke_agrees_with_the_working_groups_vector() -> None:
    assert (VECTOR["kem_id"], VECTOR["kdf_id"], VECTOR["aead_id"]) == (KEM_ID, KDF_ID, CHACHA)
    shared = _decapsulate(_seed_to_secret(_member("skRm")), _member("enc"))
    assert shared == _member("shared_secret")
    key, nonce = _key_schedule(shared, _member("info"), CHACHA)
    assert (key, nonce) == (_member("key"), _member("base_nonce"))
    assert ChaCha20Poly1305(key).decrypt(nonce, _member("ct"), _member("aad")) == _member("pt")


def test_our_public_key_is_the_vectors() -> None:
    assert SealingKey(_seed_to_secret(_member("skRm"))).sealing_public == _member("pkRm")


def test_what_seal_writes_the_written_out_hpke_opens() -> None:
    sealed = seal(b"a data key", KEY.sealing_public, info=INFO)
    key, nonce = _key_schedule(_decapsulate(SECRET, sealed[:ENC]), INFO, AES_256_GCM)
    assert AESGCM(key).decrypt(nonce, sealed[ENC:], b"") == b"a data key"


def test_what_the_written_out_hpke_seals_open_opens() -> None:
    ephemeral = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = KEY.sealing_public
    mlkem, mlkem_enc = MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
    x25519 = ephemeral.exchange(X25519PublicKey.from_public_bytes(public[1184:]))
    x25519_enc = ephemeral.public_key().public_bytes_raw()
    key, nonce = _key_schedule(_combine(mlkem, x25519, x25519_enc, public[1184:]), INFO, AES_256_GCM)
    sealed = mlkem_enc + x25519_enc + AESGCM(key).encrypt(nonce, b"a data key", b"")
    assert KEY.open(sealed, info=INFO) == b"a data key"


def test_sealing_twice_gives_different_bytes() -> None:
    assert seal(b"x", KEY.sealing_public, info=INFO) != seal(b"x", KEY.sealing_public, info=INFO)


def _opaque(sealed: bytes, *, info: bytes = INFO, key: SealingKey = KEY) -> str:
    with pytest.raises(Refused) as error:
        key.open(sealed, info=info)
    assert error.value.code == "crypto.cannot-open"
    return str(error.value) + error.value.hint


SEALED = seal(b"a data key", KEY.sealing_public, info=INFO)
SMALL_ORDER = [bytes(32), b"\x01" + bytes(31), (2**255 - 20).to_bytes(32, "little")]


def test_every_failure_to_open_is_the_same_error() -> None:
    failures: list[dict[str, Any]] = [
        {"sealed": SEALED, "info": b""},
        {"sealed": SEALED, "info": INFO + b"\x00"},
        {"sealed": SEALED, "info": framed(b"run", b"contract", b"session", b"other data set")},
        {"sealed": SEALED, "info": framed(b"run2", b"contract", b"session", b"data set")},
        {"sealed": SEALED, "key": SealingKey(bytes(96))},
        {"sealed": b""},
        {"sealed": SEALED[:ENC]},
        {"sealed": SEALED + b"\x00"},
        *({"sealed": SEALED[:1088] + point + SEALED[ENC:]} for point in SMALL_ORDER),
        *({"sealed": SEALED[:at]} for at in range(1, len(SEALED), 37)),
        *({"sealed": SEALED[:at] + bytes([SEALED[at] ^ 1]) + SEALED[at + 1 :]} for at in range(0, ENC, 29)),
        *({"sealed": SEALED[:at] + bytes([SEALED[at] ^ 1]) + SEALED[at + 1 :]} for at in range(ENC, len(SEALED))),
    ]
    assert len({_opaque(**failure) for failure in failures}) == 1


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_nothing_is_sealed_to_a_point_of_small_order(point: bytes) -> None:
    """The X25519 half would be zero for everybody (RFC 7748 §6.1)."""
    for use in (lambda key: seal(b"", key, info=b""), require_sealing_public):
        with pytest.raises(Malformed) as error:
            use(KEY.sealing_public[:1184] + point)
        assert error.value.code == "crypto.public-key"


def test_nothing_is_sealed_to_an_ml_kem_key_that_is_not_reduced() -> None:
    """FIPS 203 §7.2, modulus check: a coefficient of 4095 is not below 3329."""
    with pytest.raises(Malformed):
        require_sealing_public(b"\xff\xff\xff" + KEY.sealing_public[3:])


def test_sealing_keys_have_one_length() -> None:
    require_sealing_public(KEY.sealing_public)
    for size in (0, SEALING_PUBLIC - 1, SEALING_PUBLIC + 1):
        with pytest.raises(Malformed):
            require_sealing_public((KEY.sealing_public + b"\x00")[:size] if size else b"")


def test_long_info_still_binds() -> None:
    info = bytes(1_000_000)
    sealed = seal(b"x", KEY.sealing_public, info=info)
    assert KEY.open(sealed, info=info) == b"x"
    _opaque(sealed, info=info[:-1])
