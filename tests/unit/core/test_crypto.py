"""Known answers, and what every primitive refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from kakoi.core import crypto
from kakoi.core.crypto import SealingKey, Signature, SigningKey, VerifyingKey
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused

KEY = SigningKey(bytes(range(64)))
OTHER = SigningKey(bytes(range(1, 65)))
MESSAGE = b"what is signed"

# RFC 8032 §7.1, tests 1 to 3: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]

# NIST ACVP ML-DSA-keyGen-FIPS204, parameter set ML-DSA-65, tcId 26 and 27: seed, start of the public key, and its end.
ACVP_KEYGEN = [
    (
        "1BD67DC782B2958E189E315C040DD1F64C8AB232A6A170E1A7A52C33F10851B1",
        "43AD6560D3BB684667A559EE6EC7C816020E5B65671F270F2353A8C912B6C26B0DB0C2CF42DC747B10AA3EBDD573B300",
        "0CCE86AA84B661FF22D4A56035E821A1CE30F33AFEB6C7B8FA9CE",
    ),
    (
        "B850D898A3D3D11C4E64ADE5A86FFED951B237C60D2A67A2DEF0A792B8F6990D",
        "712040468FC17996C93F18CEA90F4F58B7D8382C445211E1E81DC45B019CE2C8AD06793133ECEEF3E567DAD0F8CDEA47",
        "",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_the_ed25519_half_is_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(bytes.fromhex(seed) + bytes(32))
    assert key.verifying_key.ed25519.hex() == public
    assert key.sign(bytes.fromhex(message)).ed25519.hex() == signature
    assert crypto.ed25519_public(bytes.fromhex(seed)).hex() == public
    assert crypto.ed25519_sign(bytes.fromhex(seed), bytes.fromhex(message)).hex() == signature
    crypto.ed25519_verify(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))


@pytest.mark.parametrize(("seed", "start", "end"), ACVP_KEYGEN)
def test_the_ml_dsa_half_derives_its_key_as_fips_204_does(seed: str, start: str, end: str) -> None:
    public = SigningKey(bytes(32) + bytes.fromhex(seed)).verifying_key.mldsa65.hex()
    assert public.startswith(start.lower())
    assert public.endswith(end.lower())
    assert len(public) == 2 * crypto.MLDSA65_PUBLIC


def test_ml_dsa_signatures_are_hedged_and_all_verify() -> None:
    one, two = KEY.sign(MESSAGE), KEY.sign(MESSAGE)
    assert one.ed25519 == two.ed25519
    assert one.mldsa65 != two.mldsa65
    for signature in (one, two, Signature(ed25519=one.ed25519, mldsa65=two.mldsa65)):
        KEY.verifying_key.verify(MESSAGE, signature)


def _refused(signature: Signature, message: bytes = MESSAGE, key: VerifyingKey = KEY.verifying_key) -> None:
    with pytest.raises(Refused) as error:
        key.verify(message, signature)
    assert error.value.code == "signature.invalid"


def test_each_half_is_required() -> None:
    good, foreign = KEY.sign(MESSAGE), OTHER.sign(MESSAGE)
    for half in ("ed25519", "mldsa65"):
        _refused(dataclasses.replace(good, **{half: getattr(foreign, half)}))
        _refused(dataclasses.replace(good, **{half: b""}))
        _refused(dataclasses.replace(good, **{half: bytes(len(getattr(good, half)))}))
        _refused(dataclasses.replace(good, **{half: getattr(good, half)[:-1]}))
        _refused(dataclasses.replace(good, **{half: getattr(good, half) + b"\x00"}))
    _refused(Signature(ed25519=good.mldsa65, mldsa65=good.ed25519))
    _refused(good, MESSAGE + b"\x00")
    _refused(good, key=OTHER.verifying_key)
    mixed = VerifyingKey(ed25519=KEY.verifying_key.ed25519, mldsa65=OTHER.verifying_key.mldsa65)
    _refused(good, key=mixed)


def test_every_changed_byte_of_a_signature_is_refused() -> None:
    good = KEY.sign(MESSAGE)
    for at in range(64):
        bad = bytearray(good.ed25519)
        bad[at] ^= 1 << (at % 8)
        _refused(dataclasses.replace(good, ed25519=bytes(bad)))
    for at in [*range(0, len(good.mldsa65), 61), len(good.mldsa65) - 1]:
        bad = bytearray(good.mldsa65)
        bad[at] ^= 1 << (at % 8)
        _refused(dataclasses.replace(good, mldsa65=bytes(bad)))


def test_ml_dsa_signatures_of_other_protocols_do_not_count() -> None:
    """The context string of FIPS 204 §5.2 keeps a signature made for another purpose out."""
    raw = MLDSA65PrivateKey.from_seed_bytes(bytes(range(32, 64)))
    good = KEY.sign(MESSAGE)
    KEY.verifying_key.verify(MESSAGE, dataclasses.replace(good, mldsa65=raw.sign(MESSAGE, b"kakoi/sig/v1")))
    for context in (None, b"kakoi/sig/v2"):
        _refused(dataclasses.replace(good, mldsa65=raw.sign(MESSAGE, context)))


ORDER = 2**252 + 27742317777372353535851937790883648493


def test_ed25519_signatures_have_one_form() -> None:
    """S + L satisfies the same equation; RFC 8032 §5.1.7 demands S < L."""
    good = KEY.sign(MESSAGE)
    larger = int.from_bytes(good.ed25519[32:], "little") + ORDER
    _refused(dataclasses.replace(good, ed25519=good.ed25519[:32] + larger.to_bytes(32, "little")))


FIELD = 2**255 - 19
CANNOT_BE_KEYS = {
    "order 1": 1,
    "order 2": FIELD - 1,
    "order 4": 0,
    "order 8": int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    ),
    "order 8 too": int.from_bytes(
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
    ),
    "0 not reduced": FIELD,
    "1 not reduced": FIELD + 1,
    "largest": 2**255 - 1,
}


@pytest.mark.parametrize("name", CANNOT_BE_KEYS)
@pytest.mark.parametrize("sign", [0, 1])
def test_points_under_which_anybody_can_sign_are_no_keys(name: str, sign: int) -> None:
    public = (CANNOT_BE_KEYS[name] | sign << 255).to_bytes(32, "little")
    for check in (
        crypto.require_ed25519_public,
        lambda key: crypto.ed25519_verify(key, b"", bytes(64)),
        lambda key: VerifyingKey(ed25519=key, mldsa65=KEY.verifying_key.mldsa65),
    ):
        with pytest.raises(Malformed) as error:
            check(public)
        assert error.value.code == "crypto.public-key"


def test_the_library_itself_accepts_such_a_forgery() -> None:
    """Why the check exists: the identity point verifies (R = identity, S = 0) for every message."""
    identity = b"\x01" + bytes(31)
    Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), b"any message")


def test_lengths_of_keys_are_checked_where_they_are_made() -> None:
    good = KEY.verifying_key
    for make in (
        lambda: VerifyingKey(ed25519=good.ed25519[:-1], mldsa65=good.mldsa65),
        lambda: VerifyingKey(ed25519=good.ed25519, mldsa65=good.mldsa65 + b"\x00"),
        lambda: SigningKey(bytes(63)),
        lambda: SealingKey(bytes(95)),
        lambda: crypto.ed25519_sign(bytes(31), b""),
        lambda: crypto.ed25519_public(bytes(33)),
        lambda: crypto.AeadKey(bytes(16)),
        lambda: crypto.seal(b"", bytes(1215), info=b""),
    ):
        with pytest.raises(Malformed) as error:
            make()
        assert error.value.code == "crypto.key-length"


def test_key_ids_name_the_key_and_its_algorithm() -> None:
    key = KEY.verifying_key
    assert key.ed25519_keyid == hashlib.sha256(b"kakoi/keyid/ed25519" + key.ed25519).hexdigest()
    assert key.mldsa65_keyid == hashlib.sha256(b"kakoi/keyid/mldsa65" + key.mldsa65).hexdigest()
    assert len({key.ed25519_keyid, key.mldsa65_keyid, OTHER.verifying_key.ed25519_keyid}) == 3


def test_secret_keys_do_not_show_themselves() -> None:
    secret = os.urandom(96)
    for key in (SigningKey(secret[:64]), SealingKey(secret), crypto.AeadKey(secret[:32])):
        text = f"{key!r} {key} {vars(type(key))}"
        assert secret[:8].hex() not in text
        assert not hasattr(key, "__dict__")


def test_the_plain_ed25519_refusal() -> None:
    public = crypto.ed25519_public(bytes(32))
    good = crypto.ed25519_sign(bytes(32), b"note")
    for message, signature in ((b"nota", good), (b"note", good[:-1]), (b"note", bytes(64)), (b"note", b"")):
        with pytest.raises(Refused) as error:
            crypto.ed25519_verify(public, message, signature)
        assert error.value.code == "signature.invalid"


# AES-256-GCM: McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16.
GCM_KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
GCM_NONCE = bytes.fromhex("cafebabefacedbaddecaf888")
GCM_PLAIN = bytes.fromhex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
GCM_AAD = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
GCM_TAG = "76fc6ece0f4e1768cddf8853bb2d551b"


def test_aes_gcm_known_answer() -> None:
    sealed = crypto.aead_encrypt(GCM_KEY, GCM_NONCE, GCM_PLAIN, GCM_AAD)
    assert sealed[:16].hex() == "522dc1f099567d07f47f37a32a84427d"
    assert sealed[-16:].hex() == GCM_TAG
    assert crypto.aead_decrypt(GCM_KEY, GCM_NONCE, sealed, GCM_AAD) == GCM_PLAIN


def test_every_failure_to_decrypt_is_the_same_error() -> None:
    sealed = crypto.aead_encrypt(GCM_KEY, GCM_NONCE, b"secret", GCM_AAD)
    failures = [
        (bytes(32), GCM_NONCE, sealed, GCM_AAD),
        (GCM_KEY, bytes(12), sealed, GCM_AAD),
        (GCM_KEY, GCM_NONCE[:11], sealed, GCM_AAD),
        (GCM_KEY, GCM_NONCE + b"\x00", sealed, GCM_AAD),
        (GCM_KEY, b"", sealed, GCM_AAD),
        (GCM_KEY, GCM_NONCE, sealed, b""),
        (GCM_KEY, GCM_NONCE, b"", GCM_AAD),
        *((GCM_KEY, GCM_NONCE, sealed[:n], GCM_AAD) for n in range(len(sealed))),
        *((GCM_KEY, GCM_NONCE, _flip(sealed, n), GCM_AAD) for n in range(len(sealed))),
    ]
    texts = set()
    for arguments in failures:
        with pytest.raises(Refused) as error:
            crypto.aead_decrypt(*arguments)
        texts.add((str(error.value), error.value.hint))
    assert len(texts) == 1


def test_a_nonce_of_another_length_is_our_mistake() -> None:
    with pytest.raises(Misuse) as error:
        crypto.aead_encrypt(GCM_KEY, bytes(16), b"", b"")
    assert error.value.code == "crypto.nonce-length"


def test_hkdf_known_answer() -> None:
    """RFC 5869 appendix A.1."""
    okm = crypto.hkdf_sha256(
        bytes.fromhex("0b" * 22), salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)), length=42
    ).hex()
    assert okm == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_scrypt_known_answer() -> None:
    """RFC 7914 §12, second and third test."""
    derived = crypto.scrypt(b"password", salt=b"NaCl", n=1024, r=8, p=16, length=64).hex()
    assert derived.startswith("fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff1")
    derived = crypto.scrypt(b"pleaseletmein", salt=b"SodiumChloride", n=16384, r=8, p=1, length=64).hex()
    assert derived.startswith("7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d4")


@pytest.mark.parametrize(
    ("n", "r", "p"), [(0, 8, 1), (1, 8, 1), (3, 8, 1), (-2, 8, 1), (2**21, 8, 1), (2, 0, 1), (2, 8, 17), (2, 8, 0)]
)
def test_scrypt_parameters_from_a_file_cannot_exhaust_the_machine(n: int, r: int, p: int) -> None:
    with pytest.raises(Malformed) as error:
        crypto.scrypt(b"x", salt=b"y", n=n, r=r, p=p)
    assert error.value.code == "crypto.scrypt"


def test_comparison_raises() -> None:
    crypto.same(b"a", b"a", code="x.y", message="")
    for other in (b"b", b"", b"aa"):
        with pytest.raises(Refused) as error:
            crypto.same(b"a", other, code="x.y", message="expected the same")
        assert error.value.code == "x.y"


def test_key_commitments_bind_key_and_context() -> None:
    prk = hmac.digest(b"kakoi/key-commitment/v1", bytes(32), "sha256")
    assert crypto.key_commitment(bytes(32), context=b"c") == hmac.digest(prk, b"c\x01", "sha256")
    commitments = {
        crypto.key_commitment(key, context=context)
        for key in (bytes(32), b"\x01" + bytes(31))
        for context in (b"a", b"b")
    }
    assert len(commitments) == 4


def test_session_binding_is_a_framed_sha_512() -> None:
    def frame(part: bytes) -> bytes:
        return len(part).to_bytes(8, "big") + part

    expected = hashlib.sha512(frame(b"kakoi/report-data/v1") + frame(b"ab") + frame(b"")).digest()
    assert crypto.session_binding(b"ab", b"") == expected
    assert crypto.session_binding(b"a", b"b") != crypto.session_binding(b"ab") != crypto.session_binding(b"ab", b"")


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def test_only_our_errors_leave() -> None:
    for size in (0, 1, 31, 33, 1120, 4000):
        for call in (
            lambda data: KEY.verifying_key.verify(b"", Signature(ed25519=data, mldsa65=data)),
            lambda data: crypto.ed25519_verify(data, b"", data),
            lambda data: SealingKey(bytes(96)).open(data, info=b""),
            lambda data: crypto.seal(b"", data, info=b""),
            lambda data: crypto.AeadKey(data[:32]).decrypt(data, data, data),
        ):
            with pytest.raises(KakoiError):
                call(os.urandom(size))
