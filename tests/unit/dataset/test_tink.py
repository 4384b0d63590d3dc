"""Interoperability with Google's Tink, both ways: anybody's Tink can seal for us and open what we sealed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import tink
from tink import json_proto_keyset_format, secret_key_access, streaming_aead

from kakoi.core.errors import Refused
from kakoi.dataset.format import FIRST_PLAINTEXT_BYTES, PLAINTEXT_BYTES, SEGMENT_BYTES, associated_data
from kakoi.dataset.open import SealedReader, open_stream
from kakoi.dataset.seal import SealingWriter

KEY = hashlib.sha256(b"a data key for tests").digest()
ASSOCIATED = associated_data("0123456789abcdef" * 2, 7, "part-0")
SIZES = [0, 1, FIRST_PLAINTEXT_BYTES, FIRST_PLAINTEXT_BYTES + 1, FIRST_PLAINTEXT_BYTES + 2 * PLAINTEXT_BYTES, 5_000_000]
VECTORS = Path(__file__).parents[2] / "vectors" / "dataset" / "tink.json"


def plain(size: int) -> bytes:
    return hashlib.shake_128(b"plaintext").digest(size)


def primitive(key: bytes) -> Any:
    """Tink's own implementation under ``key``: protobuf AesGcmHkdfStreamingKey with the AES256_GCM_HKDF_1MB parameters."""
    streaming_aead.register()
    # params: segment size (1) 1048576, derived key size (2) 32, hash (3) SHA256; key: params (2), key_value (3).
    params = bytes.fromhex("0880804010201803")
    value = b"\x12" + bytes([len(params)]) + params + b"\x1a\x20" + key
    keyset = {
        "primaryKeyId": 1,
        "key": [
            {
                "keyData": {
                    "typeUrl": "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
                    "value": base64.b64encode(value).decode(),
                    "keyMaterialType": "SYMMETRIC",
                },
                "status": "ENABLED",
                "keyId": 1,
                "outputPrefixType": "RAW",
            }
        ],
    }
    return json_proto_keyset_format.parse(json.dumps(keyset), secret_key_access.TOKEN).primitive(
        streaming_aead.StreamingAead
    )


class Kept(io.BytesIO):
    """Tink closes what it writes to; the bytes must stay readable."""

    def close(self) -> None:
        self.kept = self.getvalue()
        super().close()


def by_tink(plaintext: bytes) -> bytes:
    sink = Kept()
    with primitive(KEY).new_encrypting_stream(sink, ASSOCIATED) as stream:
        stream.write(plaintext)
    return sink.kept


def by_us(plaintext: bytes) -> bytes:
    sink = io.BytesIO()
    with SealingWriter(sink, data_key=KEY, associated_data=ASSOCIATED, salt=b"x" * 32, nonce_prefix=b"y" * 7) as writer:
        writer.write(plaintext)
    return sink.getvalue()


def digests(ciphertext: bytes) -> bytes:
    parts = [ciphertext[i : i + SEGMENT_BYTES] for i in range(0, len(ciphertext), SEGMENT_BYTES)]
    return b"".join(hashlib.sha256(p).digest() for p in parts)


def opened(ciphertext: bytes, key: bytes = KEY, associated: bytes = ASSOCIATED) -> bytes:
    names = {"data_key": key, "associated_data": associated, "segment_digests": digests(ciphertext)}
    whole = SealedReader(io.BytesIO(ciphertext), size=len(ciphertext), **names).read()
    assert b"".join(open_stream([ciphertext], size=len(ciphertext), **names)) == whole
    return whole


@pytest.mark.parametrize("size", SIZES)
def test_tink_wrote_we_read(size: int) -> None:
    ciphertext = by_tink(plain(size))
    assert opened(ciphertext) == plain(size)
    with pytest.raises(Refused):
        opened(ciphertext, key=bytes(32))
    with pytest.raises(Refused):
        opened(ciphertext, associated=b"other")


@pytest.mark.parametrize("size", SIZES)
def test_we_wrote_tink_reads(size: int) -> None:
    ciphertext = by_us(plain(size))
    with primitive(KEY).new_decrypting_stream(io.BytesIO(ciphertext), ASSOCIATED) as stream:
        assert stream.read() == plain(size)


@pytest.mark.parametrize("place", [0, 5, 60, SEGMENT_BYTES + 5, -1])
def test_tink_refuses_our_bad_twins_too(place: int) -> None:
    twin = bytearray(by_us(plain(FIRST_PLAINTEXT_BYTES + 100)))
    twin[place] ^= 1
    with pytest.raises(tink.TinkError):
        primitive(KEY).new_decrypting_stream(io.BytesIO(bytes(twin)), ASSOCIATED).read()


def test_tink_refuses_another_data_set() -> None:
    with pytest.raises(tink.TinkError):
        primitive(KEY).new_decrypting_stream(io.BytesIO(by_us(b"x")), ASSOCIATED + b"x").read()


def vectors() -> list[dict[str, str]]:
    loaded: list[dict[str, str]] = json.loads(VECTORS.read_text())["files"]
    return loaded


def test_the_corpus_of_files_that_tink_wrote_is_there() -> None:
    assert len(vectors()) >= 4


@pytest.mark.parametrize("vector", vectors(), ids=lambda v: v["name"])
def test_files_that_tink_wrote_once_still_open(vector: dict[str, str]) -> None:
    ciphertext = bytes.fromhex(vector["ciphertext"])
    key, associated = bytes.fromhex(vector["data_key"]), bytes.fromhex(vector["associated_data"])
    names = {"data_key": key, "associated_data": associated, "segment_digests": digests(ciphertext)}
    reader = SealedReader(io.BytesIO(ciphertext), size=len(ciphertext), **names)
    assert reader.read().hex() == vector["plaintext"]
