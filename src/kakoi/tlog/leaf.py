"""What the log's entries are: the kind and the digest of an object, never the object.

So a log can be published whole: whoever holds an object can show that it was logged, and when, and nobody learns
anything from the log about an object that he does not hold.
"""

from __future__ import annotations

from typing import Final

from kakoi.core.errors import Misuse
from kakoi.core.ids import parse_id
from kakoi.tlog import merkle

PASSPORT_KIND: Final = "kakoi/passport/v1"
"""The kind under which in-toto passports are logged and listed; their payload has no member ``kind``."""
LOGGED_KINDS: Final = frozenset(
    {
        "kakoi/analysis/v1",
        "kakoi/approval/v1",
        "kakoi/code-manifest/v1",
        "kakoi/code-review/v1",
        "kakoi/contract/v1",
        "kakoi/dataset-manifest/v1",
        "kakoi/withdrawal/v1",
        PASSPORT_KIND,
    }
)
"""What a hub must append to its log before anybody relies on it."""
_DOMAIN: Final = b"kakoi/log-leaf/v1\x00"


def leaf_data(kind: str, digest: str) -> bytes:
    """The entry for an object: domain tag, kind, zero byte, and the 32 bytes of its id ``digest`` (hex)."""
    if not kind or not kind.isascii() or "\x00" in kind:
        raise Misuse("log.kind", "expected the kind of an object in ASCII")
    return _DOMAIN + kind.encode("ascii") + b"\x00" + bytes.fromhex(parse_id(digest))


def leaf_hash(kind: str, digest: str) -> bytes:
    """Hash of the entry for an object: 32 bytes."""
    return merkle.leaf_hash(leaf_data(kind, digest))
