"""Names for things that look alike. All digests are SHA-256, written as 64 lower-case hex digits."""

from __future__ import annotations

import re
from typing import Final, NewType

from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed

ObjectId = NewType("ObjectId", str)
"""SHA-256 of an object's payload bytes."""
PartyId = NewType("PartyId", str)
"""ObjectId of a party's card."""
BlobId = NewType("BlobId", str)
"""SHA-256 of a blob of ciphertext."""

HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


def object_id(payload: bytes) -> ObjectId:
    """The id of the object with these payload bytes."""
    return ObjectId(sha256(payload).hex())


def parse_id(text: str) -> ObjectId:
    """Text as an id. Raises Malformed unless it is 64 lower-case hex digits."""
    if not HEX_DIGEST.match(text):
        raise Malformed("encoding.id", "expected 64 lower-case hex digits", hint="copy the whole id")
    return ObjectId(text)
