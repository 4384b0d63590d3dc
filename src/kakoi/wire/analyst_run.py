"""The analyst's side of one run: wait for a result, a denial or a failure. A state machine without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kakoi.contract.approve import Agreement
from kakoi.contract.sign import Signed, open_self_signed, open_signed
from kakoi.core import dsse
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.wire.messages import Denial, RunFailure, SealedResult, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """Something about the run, as delivered by the hub (not yet verified)."""

    kind: str
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the run ended: a result to open, or who refused and why."""

    state: Literal["result", "denied", "failed"]
    result: SealedResult | None = None
    denial: Denial | None = None
    failure: RunFailure | None = None


def open_session(envelope: Envelope) -> Signed[Session]:
    """A session that its own key signed. Says nothing about the evidence in it."""
    return open_self_signed(Session, envelope, lambda session: session.verifying_key)


@dataclass(slots=True, kw_only=True)
class AnalystRun:
    """One run as its analyst sees it."""

    agreement: Agreement
    run: str
    owners: tuple[str, ...]
    """Whose yes the run needs, and whose no ends it."""
    sessions: dict[str, Session]
    outcome: Outcome | None = None

    def handle(self, event: Arrived) -> Outcome | None:
        """The outcome once it is known. Messages that nobody entitled signed are ignored as noise.

        A result is only a claim until its passport is verified (``sdk.verify``): a session here has proven nothing.
        """
        if self.outcome is None:
            try:
                self.outcome = self._read(event)
            except (Malformed, Refused):
                return None
        return self.outcome

    def _read(self, event: Arrived) -> Outcome | None:
        if event.kind == Session.KIND:
            session = open_session(event.envelope)
            if session.record.run == self.run:
                self.sessions[session.id] = session.record
        elif event.kind == Denial.KIND:
            claimed = Denial.decode(event.envelope.payload)
            if claimed.owner in self.owners and claimed.run == self.run:
                denial: Signed[Denial] = open_signed(Denial, event.envelope, self.agreement.cards[claimed.owner])
                return Outcome(state="denied", denial=denial.record)
        elif event.kind == RunFailure.KIND:
            failure = RunFailure.decode(event.envelope.payload)
            self._from_session(event.envelope, failure.session, failure.run)
            return Outcome(state="failed", failure=failure)
        elif event.kind == SealedResult.KIND:
            result = SealedResult.decode(event.envelope.payload)
            self._from_session(event.envelope, result.session, result.run)
            return Outcome(state="result", result=result)
        return None

    def _from_session(self, envelope: Envelope, session: str, run: str) -> None:
        if run != self.run or session not in self.sessions:
            raise Refused("session.unknown", "expected a message of a session of this run, got another")
        dsse.verify(envelope, self.sessions[session].verifying_key)
