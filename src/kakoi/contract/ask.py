"""A request for an exception: why a party wants a rule otherwise. It changes nothing: what could is the contract version that it names.

``docs/formats/ask.md`` is the human description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kakoi.core.errors import Malformed
from kakoi.core.records import Digest, Limit, PartyRef, Prose, Record, Seconds, Slug


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionRequest(Record):
    """A party asks owners for an exception from a rule, in the form of a next version that they may sign. Signed by who asks."""

    KIND: ClassVar[str] = "kakoi/exception-request/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    contract: Digest
    """In which the rule stands."""
    amendment: Digest
    """The next version, in which it would stand otherwise. Nothing changes until every party has signed it."""
    party: PartyRef
    owners: Annotated[tuple[PartyRef, ...], Limit(least=1, most=64, unique=True)]
    """Whose rules, or whose limits, would change."""
    reason: Prose
    run: Digest | None
    """The run that was denied, if there was one."""
    code: Slug | None
    """With which code."""
    asked_at: Seconds

    def check(self) -> None:
        """A reason is given, and a code belongs to a run."""
        if not self.reason.strip():
            raise Malformed("ask.reason", "expected a reason, got none", hint="owners sign what they understand")
        if (self.run is None) != (self.code is None):
            raise Malformed("ask.run", "expected a denied run together with its code, or neither")
