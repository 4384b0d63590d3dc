"""One honest session, and what an attacker would like to pass for it (wire.messages.report_data)."""

from __future__ import annotations

from typing import Any, Final

from kakoi.core.crypto import VerifyingKey
from kakoi.core.encoding import sha256
from kakoi.wire.messages import report_data


def _digest(what: str) -> str:
    return sha256(what.encode()).hex()


def _key(what: str, size: int) -> bytes:
    return (sha256(what.encode()) * (size // 32 + 1))[:size]


_MINE: Final = VerifyingKey(ed25519=_key("session", 32), mldsa65=_key("session", 1952))
_THEIRS: Final = VerifyingKey(ed25519=_key("attacker", 32), mldsa65=_key("attacker", 1952))
_SESSION: Final[dict[str, Any]] = {
    "run": _digest("run"), "attempt": 1, "contract": _digest("contract"),
    "challenges": (_digest("challenge of a"), _digest("challenge of b")),
    "signing": _MINE, "sealing": _key("sealing", 1216), "missing_layers": (),
}  # fmt: skip


def _bound(**changes: Any) -> bytes:
    return report_data(**{**_SESSION, **changes})


HONEST: Final = _bound()
"""What evidence of the honest session binds: 64 bytes."""
_A, _B = _SESSION["challenges"]
RELAYED: Final[dict[str, bytes]] = {
    "another run": _bound(run=_digest("another run")),
    "an earlier attempt": _bound(attempt=0),
    "another contract": _bound(contract=_digest("another contract")),
    "yesterday's challenge of one owner": _bound(challenges=(_A, _digest("yesterday"))),
    "one challenge only": _bound(challenges=(_A,)),
    "the challenges exchanged": _bound(challenges=(_B, _A)),
    "the attacker's signature key": _bound(signing=_THEIRS),
    "half of the attacker's signature key": _bound(
        signing=VerifyingKey(ed25519=_THEIRS.ed25519, mldsa65=_MINE.mldsa65)
    ),
    "the attacker's sealing key": _bound(sealing=_key("attacker", 1216)),
    "a missing layer that is kept silent": _bound(missing_layers=("landlock",)),
    "the first half only": HONEST[:32] + bytes(32),
    "the second half only": bytes(32) + HONEST[32:],
    "the halves exchanged": HONEST[32:] + HONEST[:32],
    "a hash of it": sha256(HONEST) + bytes(32),
    "nothing": bytes(64),
}
"""Report data of evidence that belongs to another session, by what is different."""
