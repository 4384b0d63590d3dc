"""Sealed code: what its owner signs about it, what a reviewer signs who has read it, and how a reviewer gets to read it.

Code is sealed as data are (``dataset.format``): files of ciphertext, one key, digests of every segment. The manifest's id stands for exactly
one plaintext, because the segments' digests and the commitment to the key leave no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from kakoi.contract.model import SealedFile, each_name_once
from kakoi.core.encoding import framed
from kakoi.core.errors import Malformed
from kakoi.core.records import Digest, Limit, PartyRef, Prose, Record, Seconds, Title

ENTRY_FILE: Final = "analysis.py"
"""The file that defines ``analyse``; all others are handed to it as bytes."""
MAX_CODE_BYTES: Final = 2**30
"""Of all files of one bundle together, as ciphertext."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeManifest(Record):
    """Sealed code and models of one analysis. Signed by their owner."""

    KIND: ClassVar[str] = "kakoi/code-manifest/v1"
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    owner: PartyRef
    code: Annotated[str, Limit(least=32, most=32, pattern=r"[0-9a-f]{32}\Z")]
    """Random id that stays the same across versions."""
    version: Annotated[int, Limit(least=1, most=2**31)]
    title: Title
    description: Prose
    """What the owner says that it does. Nobody checks it but reviewers."""
    format: Literal["tink-aes256-gcm-hkdf-1mb/files"]
    key_commitment: Annotated[bytes, Limit(least=32, most=32)]
    files: Annotated[tuple[SealedFile, ...], Limit(least=1, most=64)]
    """``analysis.py`` first. Names and sizes are visible, contents are not."""
    created: Seconds

    def check(self) -> None:
        """The entry comes first, files appear once, and the whole is not larger than an engine's memory can be."""
        each_name_once((f.name for f in self.files), "file")
        if self.files[0].name != ENTRY_FILE:
            raise Malformed("code.entry", f"expected {ENTRY_FILE} as the first file")
        if sum(f.size for f in self.files) > MAX_CODE_BYTES:
            raise Malformed("code.size", f"expected at most {MAX_CODE_BYTES} bytes of sealed code")

    @property
    def sealed_as(self) -> str:
        """What stands in the place of a data set's id when its files are sealed: never one of a data set."""
        return f"code/{self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeReview(Record):
    """A reviewer has opened exactly this sealed code and read it. Signed by the reviewer."""

    KIND: ClassVar[str] = "kakoi/code-review/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    code: Digest
    """Id of the code manifest."""
    reviewer: PartyRef
    statement: Prose
    """What the reviewer vouches for, in plain words: this is what data owners read instead of the source."""
    reviewed_at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeShare(Record):
    """The key of sealed code, for one reviewer. Not signed: whoever can open it holds the key or nothing."""

    KIND: ClassVar[str] = "kakoi/code-share/v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    code: Digest
    reviewer: PartyRef
    sealed: Annotated[bytes, Limit(least=1100, most=2048)]


def share_info(*, code: str, reviewer: str) -> bytes:
    """HPKE info of a shared key: opening needs exactly this code and reviewer."""
    return framed(b"kakoi/code-share/v1", bytes.fromhex(code), bytes.fromhex(reviewer))
