"""Writes tink.json: files sealed by PyPI's tink, which our reader must open for ever.

Run from the root of the repository: ``python tests/vectors/dataset/generate.py``. Salt and nonce prefix are Tink's own and
random, so the file changes with every run; the tests need only that it opens.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import tink
from tink import json_proto_keyset_format, secret_key_access, streaming_aead


def fresh() -> tuple[bytes, Any]:
    """A new AES256_GCM_HKDF_1MB key, generated and exported by Tink: its 32 bytes and its primitive."""
    handle = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    exported = json.loads(json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN))
    value = base64.b64decode(exported["key"][0]["keyData"]["value"])
    # The last protobuf field of the key is key_value (3): tag 0x1a, length 32.
    if value[-34:-32] != b"\x1a\x20":
        raise SystemExit("error: another key encoding than expected")
    return value[-32:], handle.primitive(streaming_aead.StreamingAead)


class _Kept(io.BytesIO):
    def close(self) -> None:
        self.kept = self.getvalue()
        super().close()


def main() -> None:
    """Write the corpus beside this program."""
    streaming_aead.register()
    files = []
    for name, size in (("empty", 0), ("one-byte", 1), ("hundred", 100), ("thousand", 1000)):
        key, primitive = fresh()
        associated = hashlib.sha256(name.encode()).digest()
        plaintext = hashlib.shake_128(name.encode()).digest(size)
        sink = _Kept()
        with primitive.new_encrypting_stream(sink, associated) as stream:
            stream.write(plaintext)
        files.append(
            {
                "name": name,
                "data_key": key.hex(),
                "associated_data": associated.hex(),
                "plaintext": plaintext.hex(),
                "ciphertext": sink.kept.hex(),
            }
        )
    text = json.dumps({"source": "PyPI tink, AES256_GCM_HKDF_1MB, generate.py", "files": files}, indent=1)
    Path(__file__).with_name("tink.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
