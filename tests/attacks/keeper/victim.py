"""A process that holds keys as the keeper does, and moves from stage to stage when it is told to. Started by the test.

It prints complements of its secrets, so that its own output is no copy of them.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise

from kakoi.core import crypto
from kakoi.core.crypto import AeadKey
from kakoi.dataset.format import file_key
from kakoi.enclave.keeper import secret
from kakoi.enclave.keeper.data import DataKeys
from kakoi.enclave.keeper.hardening import harden
from kakoi.enclave.keeper.session import SessionKeys

PARTS = (0, 32, 64, 128, 160)
"""Ed25519 seed, ML-DSA seed, ML-KEM seed, X25519 scalar."""


def complements(keys: SessionKeys) -> list[str]:
    found = []
    for start, end in pairwise(PARTS):
        with keys._memory.part(start, end - start) as view:
            found.append(bytes(byte ^ 0xFF for byte in view).hex())
    return found


def main() -> None:
    if "ordinary" in sys.argv:
        secret._secret_pages = lambda size: 0
    harden()
    keys, data = SessionKeys(), DataKeys(["a"])
    opened: AeadKey | None = None
    print(secret.kind_here(), keys.sealing_public.hex(), *complements(keys), flush=True)
    for line in sys.stdin:
        stage, _, argument = line.strip().partition(" ")
        if stage == "sign":
            keys.sign(b"a message")
        elif stage == "open":
            data.take("a", keys.open(bytes.fromhex(argument), info=b"test"))
        elif stage == "decrypt":
            with data.key("a") as key:
                opened = file_key(key, bytes(32), b"file")
                crypto.key_commitment(key, context=b"")
        elif stage == "decrypted":
            opened = None
            data.wipe()
            keys.forget_sealing()
        elif stage == "wipe":
            keys.wipe()
        print(stage, opened is not None, flush=True)
    time.sleep(0.01)


if __name__ == "__main__":
    main()
