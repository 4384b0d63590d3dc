"""Layout of a sealed file: Tink's ``AES256_GCM_HKDF_1MB`` streaming AEAD, and what it is bound to.

Source: Tink wire format, "Streaming AEAD / AES-GCM-HKDF". A file is a row of ciphertext segments of 1 MiB; the first begins
with a header, the last may be shorter:

    header      1 byte header length (40), 32 bytes salt, 7 bytes nonce prefix
    segment i   AES-256-GCM(key, prefix || i as 4 bytes big-endian || 1 if last else 0, plaintext i), no associated data
    key         HKDF-SHA256(data key, salt, info = associated data of the file), 32 bytes

The associated data names data set, version and file, so a file opens only as the one it was sealed as.
``docs/formats/sealed-dataset.md`` is the human description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn

from kakoi.core.crypto import AeadKey, Secret, key_commitment
from kakoi.core.encoding import framed
from kakoi.core.errors import Malformed, Misuse

SEGMENT_BYTES: Final = 1024 * 1024
"""Ciphertext bytes of every segment but the last, header included."""
TAG_BYTES: Final = 16
SALT_BYTES: Final = 32
NONCE_PREFIX_BYTES: Final = 7
HEADER_BYTES: Final = 1 + SALT_BYTES + NONCE_PREFIX_BYTES
DATA_KEY_BYTES: Final = 32
DIGEST_BYTES: Final = 32
MAX_SEGMENTS: Final = 16384
"""Of one file: 16 GiB. Larger data sets have more files."""
FIRST_PLAINTEXT_BYTES: Final = SEGMENT_BYTES - HEADER_BYTES - TAG_BYTES
PLAINTEXT_BYTES: Final = SEGMENT_BYTES - TAG_BYTES

_FILE_TAG: Final = b"kakoi/sealed-file/v1"
_DATASET_TAG: Final = b"kakoi/sealed-dataset/v1"


def associated_data(dataset: str, version: int, file: str) -> bytes:
    """What one file is bound to: data set id, version and file name, framed under a tag of its own."""
    return framed(_FILE_TAG, dataset.encode("utf-8"), _version(version), file.encode("utf-8"))


def sealed_key_commitment(data_key: Secret, *, dataset: str, version: int) -> bytes:
    """The 32-byte commitment that a manifest makes to the data key of this version of the data set.

    All files of one version share one data key; their own keys differ by salt and associated data. HMAC pads short
    keys with zeros, so a hostile salt can repeat the commitment's; the different tags in ``info`` keep both outputs apart.
    """
    _data_key(data_key)
    return key_commitment(data_key, context=framed(_DATASET_TAG, dataset.encode("utf-8"), _version(version)))


def _version(version: int) -> bytes:
    if not 0 < version < 2**63:
        raise Misuse("dataset.version", "expected a version from 1 on, got another number")
    return version.to_bytes(8, "big")


def _data_key(data_key: Secret) -> None:
    if len(data_key) != DATA_KEY_BYTES:
        raise Malformed("crypto.key-length", f"expected a data key of {DATA_KEY_BYTES} bytes, got {len(data_key)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the segments of a file of ``size`` ciphertext bytes lie. Made by ``layout``."""

    size: int
    segments: int

    @property
    def plaintext_size(self) -> int:
        """Bytes of plaintext in the file."""
        return self.size - HEADER_BYTES - TAG_BYTES * self.segments

    def ciphertext_range(self, index: int) -> tuple[int, int]:
        """Offset and length of segment ``index`` in the file, header included."""
        start = index * SEGMENT_BYTES
        return start, min(SEGMENT_BYTES, self.size - start)

    def plaintext_start(self, index: int) -> int:
        """Offset of the first plaintext byte of segment ``index``."""
        return 0 if index == 0 else index * PLAINTEXT_BYTES - HEADER_BYTES

    def segment_at(self, position: int) -> int:
        """Index of the segment that holds the plaintext byte at ``position``."""
        return (position + HEADER_BYTES) // PLAINTEXT_BYTES


def layout(size: int) -> Layout:
    """Layout of a file of ``size`` ciphertext bytes. Raises Malformed for a size that no sealed file has.

    Only an empty file has an empty segment: one plaintext has one layout.
    """
    segments = -(-size // SEGMENT_BYTES)
    last = size - (segments - 1) * SEGMENT_BYTES
    least = HEADER_BYTES + TAG_BYTES if segments == 1 else TAG_BYTES + 1
    if not 0 < segments <= MAX_SEGMENTS or last < least:
        raise Malformed(
            "dataset.layout",
            f"expected the size of a sealed file, got {size} bytes",
            hint="the manifest does not describe a sealed file: ask its owner",
        )
    return Layout(size=size, segments=segments)


def ciphertext_size(plaintext_size: int) -> int:
    """Bytes that ``plaintext_size`` bytes take when sealed."""
    segments = max(1, -(-(plaintext_size + HEADER_BYTES) // PLAINTEXT_BYTES))
    return plaintext_size + HEADER_BYTES + TAG_BYTES * segments


def header(salt: bytes, nonce_prefix: bytes) -> bytes:
    """The first 40 bytes of a file."""
    if len(salt) != SALT_BYTES or len(nonce_prefix) != NONCE_PREFIX_BYTES:
        raise Misuse(
            "dataset.randomness", f"expected {SALT_BYTES} bytes of salt and {NONCE_PREFIX_BYTES} of nonce prefix"
        )
    return bytes([HEADER_BYTES]) + salt + nonce_prefix


def split_header(first: bytes) -> tuple[bytes, bytes]:
    """Salt and nonce prefix of a file that begins with ``first``. Raises Malformed for another header."""
    if len(first) < HEADER_BYTES or first[0] != HEADER_BYTES:
        bad_header()
    return first[1 : 1 + SALT_BYTES], first[1 + SALT_BYTES : HEADER_BYTES]


def bad_header() -> NoReturn:
    """Raise the error for a file that does not begin like a sealed file."""
    raise Malformed(
        "dataset.header",
        f"expected a header of {HEADER_BYTES} bytes (AES256_GCM_HKDF_1MB), got something else",
        hint="the file was sealed by another program or with other parameters",
    )


def file_key(data_key: Secret, salt: bytes, associated: bytes) -> AeadKey:
    """The key of one file."""
    _data_key(data_key)
    return AeadKey.derived(data_key, salt=salt, info=associated)


def segment_nonce(nonce_prefix: bytes, index: int, *, last: bool) -> bytes:
    """The 12-byte nonce of a segment: it fixes order (index) and end (last flag)."""
    return nonce_prefix + index.to_bytes(4, "big") + (b"\x01" if last else b"\x00")
