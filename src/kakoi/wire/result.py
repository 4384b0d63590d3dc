"""The result as its recipient keeps it: the output, and the passport that proves where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kakoi.core.dsse import Envelope
from kakoi.core.records import Digest, Limit, Record

MAX_OUTPUT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPayload(Record):
    """What is sealed to the recipients, and what the passport's subject digest is over.

    The salt keeps whoever sees the digest from guessing a small output and checking the guess.
    """

    KIND: ClassVar[str] = "kakoi/output/v1"
    MAX_BYTES: ClassVar[int] = 2 * MAX_OUTPUT_BYTES

    run: Digest
    contract: Digest
    salt: Annotated[bytes, Limit(least=32, most=32)]
    released: Annotated[bytes, Limit(least=2, most=MAX_OUTPUT_BYTES)]
    """What the gate let out: canonical JSON (docs/formats/engine.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile(Record):
    """``result.kakoi``: one file that ``kakoi verify`` checks offline, for ever."""

    KIND: ClassVar[str] = "kakoi/result-file/v1"
    MAX_BYTES: ClassVar[int] = 4 * MAX_OUTPUT_BYTES

    passport: Envelope
    output: Annotated[bytes, Limit(least=2, most=2 * MAX_OUTPUT_BYTES)]
    log: Annotated[bytes, Limit(least=1, most=64 * 1024)]
    """C2SP tlog-proof that the passport is in the contract's transparency log."""
