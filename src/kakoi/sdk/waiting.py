"""What a run waits for, from what was signed so far: whose answer is missing, or whether the enclave is at work.

Messages count if whoever they name signed them. Which attempt runs, and whether an enclave holds the run, only the hub says: good
enough to tell a person whom to telephone, and nobody relies on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from kakoi.contract.approve import Agreement
from kakoi.contract.sign import open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.net.answers import RunState
from kakoi.wire.analyst_run import open_session
from kakoi.wire.messages import Challenge, KeyGrant, Release, ReleaseRequest, Session

What = Literal["enclave", "owners", "evidence", "tokens", "keys", "computing", "release", "publishing"]
KINDS: Final = (ReleaseRequest.KIND, Release.KIND)
"""Kinds that tell nothing about how a run ends, and are read to see what it waits for."""
ALL_KINDS: Final = (Challenge.KIND, Session.KIND, KeyGrant.KIND, *KINDS)
"""Everything that ``Waits`` learns from."""

_OF_OWNERS: Final[dict[str, type[Challenge] | type[KeyGrant] | type[Release]]] = {
    Challenge.KIND: Challenge,
    KeyGrant.KIND: KeyGrant,
    Release.KIND: Release,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a run waits for, whom by name, and in which attempt (0: none yet)."""

    what: What
    names: tuple[str, ...]
    attempt: int


@dataclass(slots=True, kw_only=True)
class Waits:
    """Follows one run. ``owners``: ids of those whose yes it needs."""

    agreement: Agreement
    run: str
    owners: tuple[str, ...]
    _attempt: int = 0
    _said: dict[str, set[str]] = field(default_factory=dict)

    def saw(self, kind: str, envelope: Envelope) -> None:
        """One more message of the run. What nobody entitled signed is noise."""
        try:
            if kind in _OF_OWNERS:
                self._owner(_OF_OWNERS[kind], envelope)
            elif kind == Session.KIND:
                session = open_session(envelope).record
                self._note(session.run, session.attempt, kind, "")
            elif kind == ReleaseRequest.KIND:
                request = ReleaseRequest.decode(envelope.payload)
                self._note(request.run, request.attempt, kind, "")
        except (Malformed, Refused, KeyError):
            return

    def _owner(self, cls: type[Challenge] | type[KeyGrant] | type[Release], envelope: Envelope) -> None:
        said = cls.decode(envelope.payload)
        if isinstance(said, Challenge) and said.renewal:
            return  # a long job has thousands of these: no signature is checked for nothing
        open_signed(cls, envelope, self.agreement.cards[said.owner])
        self._note(said.run, said.attempt, cls.KIND, said.owner)

    def _note(self, run: str, attempt: int, kind: str, who: str) -> None:
        if run != self.run or attempt < self._attempt:
            return
        if attempt > self._attempt:
            self._attempt, self._said = attempt, {}
        self._said.setdefault(kind, set()).add(who)

    def now(self, state: RunState) -> Waiting:
        """What it waits for, with the hub's word on who works."""
        attempt = max(state.attempt, self._attempt)
        if state.state == "queued":
            return Waiting(what="enclave", names=(), attempt=state.attempt)
        said = self._said if attempt == self._attempt else {}
        if missing := self._missing(said, Challenge.KIND):
            return Waiting(what="owners", names=missing, attempt=attempt)
        if Session.KIND not in said:
            services = tuple(dict.fromkeys(token.service for token in self.agreement.contract.platforms.tokens))
            return Waiting(what="tokens" if services else "evidence", names=services, attempt=attempt)
        if missing := self._missing(said, KeyGrant.KIND):
            return Waiting(what="keys", names=missing, attempt=attempt)
        if ReleaseRequest.KIND not in said:
            return Waiting(what="computing", names=(), attempt=attempt)
        if missing := self._missing(said, Release.KIND):
            return Waiting(what="release", names=missing, attempt=attempt)
        return Waiting(what="publishing", names=(), attempt=attempt)

    def _missing(self, said: dict[str, set[str]], kind: str) -> tuple[str, ...]:
        there = said.get(kind, set())
        return tuple(self.agreement.cards[owner].record.name for owner in self.owners if owner not in there)
