"""Every cryptographic primitive of Kakoi's own objects, and the only module that names them.

Signatures are hybrid: Ed25519 (RFC 8032) **and** ML-DSA-65 (FIPS 204); both must verify, so a
forgery needs a break of both. Sealing is HPKE (RFC 9180) base mode with the hybrid KEM
MLKEM768-X25519 (draft-ietf-hpke-pq), HKDF-SHA256 and AES-256-GCM: recorded ciphertext stays
closed to a later quantum computer.

Keys are made from secret bytes that the caller draws. The library itself takes randomness from the operating system
for HPKE encapsulation and for hedged ML-DSA signatures; its interface offers no other way.

Deliberately not checked: that an Ed25519 point lies in the prime-order subgroup. Keys of small order, under which
anybody can sign anything, and non-canonical encodings are refused; a key with a small-order component harms nobody but
its holder, since verification here is cofactorless and every message names the whole key.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Malformed, Misuse, Refused, Unavailable, cannot_open

ED25519_PUBLIC: Final = 32
MLDSA65_PUBLIC: Final = 1952
MLKEM768_PUBLIC: Final = 1184
SEALING_PUBLIC: Final = MLKEM768_PUBLIC + 32
_SEED: Final = 32
SIGNING_SECRET: Final = 2 * _SEED
SEALING_SECRET: Final = 64 + 32
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_SIGN_CONTEXT: Final = b"kakoi/sig/v1"
_REQUEST_START: Final = b'"@method": '
_AEAD_KEY: Final = 32
_AEAD_NONCE: Final = 12
_MAX_SCRYPT_BYTES: Final = 2**30
_FIELD: Final = 2**255 - 19
Secret = bytes | bytearray | memoryview
"""Secret bytes. A view is read where it lies: what keeps its secrets in memory of its own needs no copy of them here."""
_SMALL_ORDER: Final = frozenset(
    int.from_bytes(bytes.fromhex(y), "little")
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
"""The y coordinates of the eight points whose order divides 8."""


def require_ed25519_public(public: bytes) -> None:
    """Raise Malformed unless ``public`` is 32 bytes, a canonical encoding, and not of small order.

    Under a key of small order a fixed signature verifies for many messages (RFC 8032 leaves the choice to the
    verifier; the library accepts such keys).
    """
    if len(public) != ED25519_PUBLIC:
        raise Malformed("crypto.key-length", f"expected an Ed25519 key of {ED25519_PUBLIC} bytes, got {len(public)}")
    y = int.from_bytes(public, "little") & (2**255 - 1)
    if y >= _FIELD or y in _SMALL_ORDER:
        raise Malformed("crypto.public-key", "expected an Ed25519 public key, got a point that cannot be one")


def _sealing_public(public: bytes) -> MLKEM768X25519PublicKey:
    if len(public) != SEALING_PUBLIC:
        raise Malformed("crypto.key-length", f"expected a sealing key of {SEALING_PUBLIC} bytes, got {len(public)}")
    try:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:MLKEM768_PUBLIC]),
            X25519PublicKey.from_public_bytes(public[MLKEM768_PUBLIC:]),
        )
    except ValueError:
        raise Malformed("crypto.public-key", "expected a valid MLKEM768-X25519 public key, got other bytes") from None


def require_sealing_public(public: bytes) -> None:
    """Raise Malformed unless something can be sealed to ``public`` (FIPS 203 §7.2 modulus check, RFC 7748 §6.1)."""
    seal(b"", public, info=b"kakoi/probe")


def ed25519_keyid(public: bytes) -> str:
    """The key id of an Ed25519 public key."""
    return sha256(b"kakoi/keyid/ed25519", public).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One hybrid signature: both halves are over the same message, and both are required."""

    ed25519: bytes
    mldsa65: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyingKey:
    """A pair of public keys: 32 bytes of Ed25519 and 1952 bytes of ML-DSA-65. Raises Malformed for other bytes."""

    ed25519: bytes
    mldsa65: bytes

    def __post_init__(self) -> None:
        require_ed25519_public(self.ed25519)
        if len(self.mldsa65) != MLDSA65_PUBLIC:
            got = len(self.mldsa65)
            raise Malformed("crypto.key-length", f"expected an ML-DSA-65 key of {MLDSA65_PUBLIC} bytes, got {got}")

    @property
    def ed25519_keyid(self) -> str:
        """SHA-256 of a label and the Ed25519 public key, hex; names that half in an envelope."""
        return ed25519_keyid(self.ed25519)

    @property
    def mldsa65_keyid(self) -> str:
        """SHA-256 of a label and the ML-DSA-65 public key, hex; names that half in an envelope."""
        return sha256(b"kakoi/keyid/mldsa65", self.mldsa65).hex()

    def verify(self, message: bytes, signature: Signature) -> None:
        """Raise Refused unless both halves of ``signature`` are this key's over ``message``."""
        try:
            Ed25519PublicKey.from_public_bytes(self.ed25519).verify(signature.ed25519, message)
            MLDSA65PublicKey.from_public_bytes(self.mldsa65).verify(signature.mldsa65, message, _SIGN_CONTEXT)
        except (InvalidSignature, ValueError):
            raise Refused(
                "signature.invalid",
                "expected a valid Ed25519 and a valid ML-DSA-65 signature, got at least one that does not verify",
                hint="the object was changed after signing, or signed by somebody else",
            ) from None


class Signer(Protocol):
    """Whoever holds a signing key: a file, an HSM, a cloud KMS."""

    @property
    def verifying_key(self) -> VerifyingKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> Signature:
        """A hybrid signature over ``message``."""
        ...


class RequestSigner(Protocol):
    """Whoever signs HTTP requests with the Ed25519 half of a party's key.

    One half is enough here: a request's signature is worth something for a minute and is checked at once, so there is
    nothing for a later quantum computer to do. What lasts is inside the objects, under both halves.
    """

    @property
    def verifying_key(self) -> VerifyingKey:
        """The party's public keys."""
        ...

    def sign_request(self, base: bytes) -> bytes:
        """64 bytes over a signature base. Raises Misuse for bytes that are none."""
        ...


class Opener(Protocol):
    """Whoever holds a sealing key."""

    @property
    def sealing_public(self) -> bytes:
        """The public half, 1216 bytes."""
        ...

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """Plaintext of an HPKE ciphertext; raises the opaque ``crypto.cannot-open``."""
        ...


class SigningKey:
    """A hybrid signing key in memory, made from 64 secret bytes (two seeds)."""

    __slots__ = ("_ed25519", "_mldsa65", "verifying_key")

    def __init__(self, secret: Secret) -> None:
        if len(secret) != SIGNING_SECRET:
            raise Malformed("crypto.key-length", f"expected {SIGNING_SECRET} secret bytes, got {len(secret)}")
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(secret[:_SEED])
        self._mldsa65 = MLDSA65PrivateKey.from_seed_bytes(secret[_SEED:])
        self.verifying_key = VerifyingKey(
            ed25519=self._ed25519.public_key().public_bytes_raw(),
            mldsa65=self._mldsa65.public_key().public_bytes_raw(),
        )

    def sign(self, message: bytes) -> Signature:
        """A hybrid signature over ``message``."""
        return Signature(ed25519=self._ed25519.sign(message), mldsa65=self._mldsa65.sign(message, _SIGN_CONTEXT))

    def sign_request(self, base: bytes) -> bytes:
        """The Ed25519 signature of one HTTP request (see ``RequestSigner``)."""
        return self._ed25519.sign(_request_base(base))


class RequestKey:
    """An Ed25519 key that signs HTTP requests and nothing else, made from 32 secret bytes."""

    __slots__ = ("_key", "public")

    def __init__(self, secret: Secret) -> None:
        if len(secret) != _SEED:
            raise Malformed("crypto.key-length", f"expected {_SEED} secret bytes, got {len(secret)}")
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    def sign_request(self, base: bytes) -> bytes:
        """The Ed25519 signature of one HTTP request (see ``RequestSigner``)."""
        return self._key.sign(_request_base(base))


class RequestVerifier:
    """An Ed25519 public key, read once, that verifies many requests. Raises Malformed for a key that cannot be one."""

    __slots__ = ("_key", "public")

    def __init__(self, public: bytes) -> None:
        require_ed25519_public(public)
        self._key, self.public = Ed25519PublicKey.from_public_bytes(public), public

    def verify(self, base: bytes, signature: bytes) -> None:
        """Raise Refused unless ``signature`` is this key's over the signature base of a request."""
        try:
            self._key.verify(signature, _request_base(base))
        except (InvalidSignature, ValueError):
            raise Refused(
                "signature.request", "expected the request's own signature by its key, got one that does not verify"
            ) from None


def _request_base(base: bytes) -> bytes:
    """A signature base of RFC 9421 §2.5 begins so, and nothing else that these keys sign does (DSSE begins ``DSSEv1``)."""
    if not base.startswith(_REQUEST_START):
        raise Misuse("crypto.request-base", "expected the signature base of an HTTP request, got something else")
    return base


class SealingKey:
    """An HPKE private key in memory, made from 96 secret bytes (ML-KEM seed, X25519 scalar)."""

    __slots__ = ("_key", "sealing_public")

    def __init__(self, secret: Secret) -> None:
        if len(secret) != SEALING_SECRET:
            raise Malformed("crypto.key-length", f"expected {SEALING_SECRET} secret bytes, got {len(secret)}")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(secret[:64])
        x25519 = X25519PrivateKey.from_private_bytes(secret[64:])
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.sealing_public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """Plaintext of ``sealed``; raises the opaque ``crypto.cannot-open``."""
        try:
            return _SUITE.decrypt(sealed, self._key, info)
        except (InvalidTag, ValueError):
            raise cannot_open() from None


def seal(plaintext: Secret, sealing_public: bytes, *, info: bytes) -> bytes:
    """HPKE ciphertext of ``plaintext`` for the holder of ``sealing_public`` (1216 bytes).

    ``info`` enters the key schedule (RFC 9180 §5.1): opening needs the same bytes, so whatever the
    ciphertext must be bound to (run, contract, data set, session) goes there.
    Raises Malformed for a bad public key.
    """
    key = _sealing_public(sealing_public)
    try:
        return _SUITE.encrypt(plaintext, key, info)
    except ValueError:  # an X25519 point of small order: the shared secret would be zero
        raise Malformed("crypto.public-key", "expected a valid MLKEM768-X25519 public key, got other bytes") from None


def aead_encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """AES-256-GCM (SP 800-38D): ciphertext and 16-byte tag. The caller never repeats a nonce under a key."""
    return AeadKey(key).encrypt(nonce, plaintext, aad)


def aead_decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """Plaintext of AES-256-GCM; raises the opaque ``crypto.cannot-open``."""
    return AeadKey(key).decrypt(nonce, ciphertext, aad)


class AeadKey:
    """An AES-256-GCM key that is used for many messages (SP 800-38D). No nonce twice under one key.

    The library's ``decrypt_into`` is not used: it leaves what it decrypted in the buffer when the tag is wrong.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: Secret) -> None:
        if len(key) != _AEAD_KEY:
            raise Malformed("crypto.key-length", f"expected a key of {_AEAD_KEY} bytes, got {len(key)}")
        self._cipher = AESGCM(key)

    @classmethod
    def derived(cls, secret: Secret, *, salt: bytes, info: bytes) -> AeadKey:
        """The key that HKDF-SHA256 (RFC 5869) derives. Its bytes are zeroed here once the cipher has them."""
        key = bytearray(_AEAD_KEY)
        try:
            HKDF(algorithm=hashes.SHA256(), length=_AEAD_KEY, salt=salt, info=info).derive_into(secret, key)
            return cls(key)
        finally:
            key[:] = bytes(_AEAD_KEY)

    def encrypt(self, nonce: bytes, plaintext: bytes | bytearray | memoryview, aad: bytes) -> bytes:
        """Ciphertext and 16-byte tag. Raises Misuse unless the nonce is 12 bytes."""
        if len(nonce) != _AEAD_NONCE:
            raise Misuse("crypto.nonce-length", f"expected a nonce of {_AEAD_NONCE} bytes, got {len(nonce)}")
        return self._cipher.encrypt(nonce, plaintext, aad)

    def decrypt(self, nonce: bytes, ciphertext: bytes | bytearray | memoryview, aad: bytes) -> bytes:
        """Plaintext; raises the opaque ``crypto.cannot-open``."""
        if len(nonce) != _AEAD_NONCE:
            raise cannot_open()
        try:
            return self._cipher.decrypt(nonce, ciphertext, aad)
        except (InvalidTag, ValueError):
            raise cannot_open() from None


def hkdf_sha256(secret: Secret, *, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869): ``length`` bytes."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


def scrypt(passphrase: bytes, *, salt: bytes, n: int, r: int, p: int, length: int = 32) -> bytes:
    """scrypt (RFC 7914). Parameters may come from a file, so their cost is bounded: at most 1 GiB, p at most 16.

    Raises Malformed for other parameters, Unavailable if the memory cannot be had.
    """
    if not (n >= 2 and n & (n - 1) == 0 and r >= 1 and 1 <= p <= 16 and 128 * n * r <= _MAX_SCRYPT_BYTES):
        raise Malformed("crypto.scrypt", "expected scrypt parameters within 1 GiB, N a power of two, got others")
    try:
        return Scrypt(salt=salt, length=length, n=n, r=r, p=p).derive(passphrase)
    except MemoryError:
        raise Unavailable("crypto.memory", "expected enough memory for scrypt, got too little") from None


def same(a: bytes, b: bytes, *, code: str, message: str, hint: str = "") -> None:
    """Raise Refused unless ``a`` equals ``b``, comparing in constant time."""
    if not hmac.compare_digest(a, b):
        raise Refused(code, message, hint=hint)


def key_commitment(data_key: Secret, *, context: bytes) -> bytes:
    """A 32-byte commitment to a data key (HKDF-SHA256 under its own label).

    AES-GCM does not commit to its key; a receiver that checks this value cannot be made to decrypt one
    ciphertext under two keys.
    """
    return hkdf_sha256(data_key, salt=b"kakoi/key-commitment/v1", info=context, length=32)


def session_binding(*parts: bytes) -> bytes:
    """64 bytes of report data over ``parts``: SHA-512 of a tagged, framed list (never ambiguous)."""
    digest = hashes.Hash(hashes.SHA512())
    digest.update(framed(b"kakoi/report-data/v1", *parts))
    return digest.finalize()


def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Plain Ed25519, for formats that are not ours (C2SP signed notes).

    Raises Refused, and Malformed for a public key that cannot be one.
    """
    require_ed25519_public(public)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Refused("signature.invalid", "expected a valid Ed25519 signature, got another") from None


def ed25519_sign(secret: bytes, message: bytes) -> bytes:
    """Plain Ed25519 with a 32-byte seed. Raises Malformed for a seed of another length."""
    return _ed25519(secret).sign(message)


def ed25519_public(secret: bytes) -> bytes:
    """Public key of a 32-byte Ed25519 seed. Raises Malformed for a seed of another length."""
    return _ed25519(secret).public_key().public_bytes_raw()


def _ed25519(secret: bytes) -> Ed25519PrivateKey:
    if len(secret) != _SEED:
        raise Malformed("crypto.key-length", f"expected {_SEED} secret bytes, got {len(secret)}")
    return Ed25519PrivateKey.from_private_bytes(secret)
