"""Keys at rest. ``KeyStore`` is the seam behind which an HSM (PKCS#11) or a cloud KMS can stand.

The built-in store keeps one file of secrets, encrypted with AES-256-GCM under a key that is either derived from a
passphrase (scrypt, RFC 7914, N=2^17, r=8, p=1: 128 MiB) or read from a key file of mode 600 that lies elsewhere,
for instance on a removable disk. No key is on disk in clear, except in such a key file.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Protocol

from kakoi.core import crypto
from kakoi.core.crypto import Opener, RequestSigner, SealingKey, Signer, SigningKey
from kakoi.core.encoding import framed
from kakoi.core.errors import Misuse, Refused
from kakoi.core.records import Limit, Record
from kakoi.party.files import read_limited, require_private, write_private

SCRYPT_N: Final = 2**17
_R, _P = 8, 1
KEY_FILE_BYTES: Final = 32


class KeyStore(Protocol):
    """Whoever keeps a party's keys."""

    def signer(self) -> Signer:
        """The party's signature key."""
        ...

    def opener(self) -> Opener:
        """The party's sealing key."""
        ...

    def request_signer(self) -> RequestSigner:
        """What signs the party's requests to a hub."""
        ...

    def wrap(self, secret: bytes, *, context: bytes) -> bytes:
        """Encrypt a data key for storage; ``context`` must be given again to unwrap it."""
        ...

    def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        """A wrapped data key; raises the opaque ``crypto.cannot-open``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsFile(Record):
    """The encrypted secrets of a party."""

    KIND: ClassVar[str] = "kakoi/secrets/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    protection: Literal["passphrase", "key-file"]
    salt: Annotated[bytes, Limit(least=16, most=16)]
    scrypt_n: Annotated[int, Limit(most=2**20)]
    nonce: Annotated[bytes, Limit(least=12, most=12)]
    ciphertext: Annotated[bytes, Limit(least=16, most=4096)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock:
    """How to open the secrets: exactly one of the two."""

    passphrase: str | None = None
    key_file: Path | None = None

    @property
    def kind(self) -> Literal["passphrase", "key-file"]:
        """Which of the two."""
        return "key-file" if self.key_file is not None else "passphrase"

    def key(self, salt: bytes, n: int) -> tuple[Literal["passphrase", "key-file"], bytes]:
        """The kind of protection and the 32-byte key. Raises Misuse for neither or both, or a bad key file."""
        if (self.passphrase is None) == (self.key_file is None):
            raise Misuse(
                "key.unlock", "expected either a passphrase or a key file", hint="set KAKOI_PASSPHRASE or --key-file"
            )
        if self.key_file is not None:
            require_private(self.key_file)
            data = read_limited(self.key_file, limit=4096)
            if len(data) != KEY_FILE_BYTES:
                raise Misuse("key.file-length", f"expected a key file of {KEY_FILE_BYTES} bytes, got {len(data)}")
            return "key-file", crypto.hkdf_sha256(data, salt=salt, info=b"kakoi/key-file/v1", length=32)
        if not self.passphrase:
            raise Misuse("key.passphrase-empty", "expected a passphrase, got an empty one", hint="choose a long one")
        return "passphrase", crypto.scrypt(self.passphrase.encode("utf-8"), salt=salt, n=n, r=_R, p=_P)


class FileKeyStore:
    """The built-in key store: secrets in memory, opened from one encrypted file."""

    __slots__ = ("_opener", "_signer", "_wrapping")

    def __init__(self, secret: bytes) -> None:
        split = crypto.SIGNING_SECRET, crypto.SIGNING_SECRET + crypto.SEALING_SECRET
        self._signer = SigningKey(secret[: split[0]])
        self._opener = SealingKey(secret[split[0] : split[1]])
        self._wrapping = secret[split[1] :]

    @classmethod
    def create(cls, path: Path, unlock: Unlock) -> FileKeyStore:
        """New keys in a new file. Raises Misuse if the file exists: keys are never overwritten."""
        require_absent(path)
        keys, data = cls.generate(unlock)
        write_private(path, data)
        return keys

    @classmethod
    def generate(cls, unlock: Unlock) -> tuple[FileKeyStore, bytes]:
        """New keys, and the bytes of the file that will hold them."""
        secret = secrets.token_bytes(crypto.SIGNING_SECRET + crypto.SEALING_SECRET + 32)
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        protection, key = unlock.key(salt, SCRYPT_N)
        n = SCRYPT_N if protection == "passphrase" else 0
        ciphertext = crypto.aead_encrypt(key, nonce, secret, _context(protection, n))
        record = SecretsFile(protection=protection, salt=salt, scrypt_n=n, nonce=nonce, ciphertext=ciphertext)
        return cls(secret), record.encode()

    @classmethod
    def load(cls, path: Path, unlock: Unlock) -> FileKeyStore:
        """Open the secrets. A wrong passphrase, a wrong key file and a changed file are the same opaque error."""
        require_private(path)
        record = SecretsFile.decode(read_limited(path, limit=SecretsFile.MAX_BYTES))
        if record.protection == "passphrase" and record.scrypt_n < SCRYPT_N:
            raise Refused("key.weak-derivation", f"expected scrypt with N of at least {SCRYPT_N}, got less")
        if unlock.kind != record.protection:
            raise Misuse(
                "key.unlock",
                f"expected a {record.protection}, which protects these keys, got a {unlock.kind}",
                hint="set KAKOI_PASSPHRASE or --key-file, as when the party was made",
            )
        _, key = unlock.key(record.salt, record.scrypt_n)
        context = _context(record.protection, record.scrypt_n)
        return cls(crypto.aead_decrypt(key, record.nonce, record.ciphertext, context))

    def signer(self) -> Signer:
        """The party's signature key."""
        return self._signer

    def opener(self) -> Opener:
        """The party's sealing key."""
        return self._opener

    def request_signer(self) -> RequestSigner:
        """What signs the party's requests to a hub."""
        return self._signer

    def wrap(self, secret: bytes, *, context: bytes) -> bytes:
        """12-byte nonce and AES-256-GCM ciphertext of ``secret``."""
        nonce = secrets.token_bytes(12)
        return nonce + crypto.aead_encrypt(self._wrapping, nonce, secret, framed(b"kakoi/wrap/v1", context))

    def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        """The secret again; raises the opaque ``crypto.cannot-open``."""
        return crypto.aead_decrypt(self._wrapping, wrapped[:12], wrapped[12:], framed(b"kakoi/wrap/v1", context))


def require_absent(path: Path) -> None:
    """Raise Misuse if there are keys already: they are never overwritten."""
    if path.exists():
        raise Misuse(
            "key.exists",
            f"expected no {path.name} yet, found one",
            hint="keys are never overwritten; choose another directory",
        )


def _context(protection: str, n: int) -> bytes:
    return framed(b"kakoi/secrets/v1", protection.encode(), n.to_bytes(4, "big"))


def new_key_file(path: Path) -> None:
    """A fresh key file of mode 600. Raises Misuse if it exists."""
    if path.exists():
        raise Misuse("key.exists", f"expected no {path.name} yet, found one", hint="keys are never overwritten")
    write_private(path, secrets.token_bytes(KEY_FILE_BYTES))
