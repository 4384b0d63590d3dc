"""What people of this party say yes to with their passkeys: contracts, withdrawals, and their party's next card.

Each yes is an assertion whose challenge is the id of the very bytes that were shown. It is kept until enough different people
have said the same; then it is carried out, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from kakoi.broker import consent
from kakoi.broker.ledger import Ledger
from kakoi.console.people import People
from kakoi.console.sessions import Session, Sessions
from kakoi.console.store import Store
from kakoi.contract.model import Assertion, Contract, PartyCard, Withdrawal
from kakoi.core.clock import Clock
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId, object_id
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome

Kind = Literal["card", "withdrawal"]
T = TypeVar("T")
PENDING_SECONDS: Final = 7 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Who has said yes so far, and of how many different people it takes."""

    people: tuple[str, ...]
    required: int

    @property
    def complete(self) -> bool:
        """Whether enough have."""
        return len(self.people) >= self.required


class Assent:
    """Collects yeses, and carries out what enough people want."""

    def __init__(
        self,
        *,
        store: Store,
        people: People,
        sessions: Sessions,
        home: PartyHome,
        hub: HubClient,
        clock: Clock,
        relying_party: str,
    ) -> None:
        self._store, self._people, self._sessions = store, people, sessions
        self._home, self._hub, self._clock, self._relying_party = home, hub, clock, relying_party

    # -- contracts

    def approvers(self) -> frozenset[bytes]:
        """Passkeys whose yes counts under this party's present card; empty if the card names nobody."""
        return frozenset(person.credential_id for person in self._home.card.record.people)

    def contract_progress(self, contract: ObjectId) -> Progress:
        """Who of this party has said yes to a contract."""
        return Progress(people=self._people_of(contract), required=max(1, self._home.card.record.approvals_required))

    def approve(self, session: Session, contract: ObjectId, assertion: Assertion) -> Progress:
        """One person's yes to a contract; with the last one needed, the party's approval.

        Raises Refused if the card does not know the passkey: people approve under the card that the contract names.
        """
        allowed = self.approvers()
        if allowed and assertion.credential_id not in allowed:
            raise Refused(
                "approval.not-on-card",
                "expected a passkey that this party's card names, got one that it does not name yet",
                hint="publish the party's next card first (People), and use it in the contract's next version",
            )
        self._hear(session, contract, assertion)
        progress = self.contract_progress(contract)
        if progress.complete:
            self._with_ledger(lambda ledger: self._approve(ledger, contract))
        return progress

    def _approve(self, ledger: Ledger, contract: ObjectId) -> None:
        consent.approve(
            home=self._home,
            ledger=ledger,
            hub=self._hub,
            contract=contract,
            assertions=self._assertions(contract) if self.approvers() else (),
            now=self._clock.now(),
        )
        self._store.note(self._clock.now(), "", "approved", contract)

    # -- withdrawals

    def prepare_withdrawal(self, session: Session, contract: ObjectId, reason: str) -> ObjectId:
        """Write down a withdrawal for a person to sign; its id."""
        record = Contract.decode(self._hub.get_object(contract).payload)
        withdrawal = consent.withdrawal_of(self._home, record, contract, reason=reason, now=self._clock.now())
        return self._pend("withdrawal", withdrawal.encode(), session)

    def prepare_data_withdrawal(self, session: Session, manifest: ObjectId, reason: str) -> ObjectId:
        """Write down the withdrawal of a data set for a person to sign; its id. Raises Refused for somebody else's."""
        own = self._home.datasets().get(manifest)
        if own is None or own.record.owner not in self._home.ids:
            raise Refused("dataset.not-own", "expected a data set of this party, got another")
        made = dict(consent.withdrawals_of_data(self._home, own.record, reason=reason, now=self._clock.now()))
        return self._pend("withdrawal", made[manifest].encode(), session)

    def withdrawal(self, subject: ObjectId) -> Withdrawal:
        """A prepared withdrawal. Raises Refused if there is none."""
        return Withdrawal.decode(self._pending("withdrawal", subject))

    def withdraw(
        self, session: Session, subject: ObjectId, assertion: Assertion, *, earlier: Sequence[tuple[ObjectId, Contract]]
    ) -> None:
        """Carry a withdrawal out with one person's passkey: stopping must be easy.

        ``earlier``: versions of the contract that this party approved; they would still be valid, so they are withdrawn
        too. A data set is withdrawn in all its versions.
        """
        withdrawal = self.withdrawal(subject)
        self._hear(session, subject, assertion)
        reason, at = withdrawal.reason, withdrawal.withdrawn_at
        before = [
            consent.withdrawal_of(self._home, record, identity, reason=reason, now=at) for identity, record in earlier
        ]
        if withdrawal.dataset is not None:
            record = self._home.datasets()[withdrawal.dataset].record
            found = consent.withdrawals_of_data(self._home, record, reason=reason, now=at)
            before = [item for identity, item in found if identity != withdrawal.dataset]
        people = self._assertions(subject, anybody=True)
        self._with_ledger(
            lambda ledger: consent.withdraw(
                home=self._home, ledger=ledger, hub=self._hub, withdrawal=withdrawal, people=people, besides=before
            )
        )
        now, name = self._clock.now(), session.member.name
        self._store.run("update pending set done = ? where subject = ?", now, subject)
        if withdrawal.dataset is not None:
            self._store.note(now, name, "withdrew-data", withdrawal.dataset)
        else:
            self._store.note(now, name, "withdrew", str(withdrawal.contract))

    def receipt(self, contract: ObjectId) -> Envelope:
        """The signed receipt of a withdrawal, by what is known now. Raises Refused if there was none."""
        return self._with_ledger(
            lambda ledger: consent.receipt(
                home=self._home, ledger=ledger, hub=self._hub, contract=contract, now=self._clock.now()
            )
        )

    # -- the party's next card

    def card_required(self) -> int:
        """How many people change the card: as many as approve contracts, and two as soon as it names two.

        The first card with people needs one administrator: before it, whoever holds the party's keys is the party.
        """
        card = self._home.card.record
        return max(card.approvals_required, min(2, len({person.name for person in card.people})), 1)

    def propose_card(self, session: Session, *, approvals_required: int) -> ObjectId:
        """Write down the next card with everybody who is enrolled; its id. Raises Malformed, Refused."""
        if session.member.role != "administrator":
            raise Refused("people.not-administrator", "expected an administrator, got another person")
        card = self._home.next_card(
            people=self._people.for_card(),
            approvals_required=approvals_required,
            relying_party=self._relying_party,
            created=self._clock.now(),
        )
        self._store.run("delete from pending where kind = 'card' and done is null")
        return self._pend("card", card.encode(), session)

    def proposed_card(self) -> tuple[ObjectId, PartyCard, Progress] | None:
        """The next card that waits for people, if any."""
        row = self._store.row(
            "select subject, body from pending where kind = 'card' and done is null and created > ?",
            self._clock.now() - PENDING_SECONDS,
        )
        if row is None:
            return None
        subject = ObjectId(row[0])
        return subject, PartyCard.decode(row[1]), self._card_progress(subject)

    def _card_progress(self, subject: ObjectId) -> Progress:
        return Progress(people=self._people_of(subject), required=self.card_required())

    def approve_card(self, session: Session, subject: ObjectId, assertion: Assertion) -> Progress:
        """One person's yes to the next card; with the last one needed, the card becomes this party's."""
        card = PartyCard.decode(self._pending("card", subject))
        allowed = self.approvers()
        if allowed and assertion.credential_id not in allowed:
            raise Refused(
                "card.not-on-card",
                "expected somebody whom the present card names to agree to the next one, got another person",
            )
        if not allowed and session.member.role != "administrator":
            raise Refused("people.not-administrator", "expected an administrator, got another person")
        self._hear(session, subject, assertion)
        progress = self._card_progress(subject)
        if progress.complete:
            now = self._clock.now()
            self._home.adopt(card)
            self._store.run("update pending set done = ? where subject = ?", now, subject)
            self._store.note(now, session.member.name, "card-changed", subject)
            self.publish()
        return progress

    def publish(self) -> None:
        """Give the present card, and the data sets and sealed code signed anew under it, to the hub. Again changes nothing."""
        self._hub.put_object(self._home.card.envelope)
        for envelope in self._home.present_manifests():
            self._hub.put_object(envelope)

    # -- what all of them share

    def _hear(self, session: Session, subject: ObjectId, assertion: Assertion) -> None:
        device = self._sessions.own_device(session, assertion)
        self._sessions.verified(assertion, device, bytes.fromhex(subject))
        self._store.run(
            "insert or replace into vouched values (?, ?, ?, ?, ?)",
            subject,
            device.credential_id,
            session.member.name,
            assertion.encode(),
            self._clock.now(),
        )
        self._store.note(self._clock.now(), session.member.name, "signed", subject)

    def _people_of(self, subject: ObjectId) -> tuple[str, ...]:
        """Different people whose devices are still in use and, where the card names people, on the card."""
        allowed, in_use = self.approvers(), {device.credential_id for device in self._people.devices()}
        rows = self._store.rows("select person, credential from vouched where subject = ? order by at", subject)
        return tuple(dict.fromkeys(name for name, key in rows if key in in_use and (not allowed or key in allowed)))

    def _assertions(self, subject: ObjectId, *, anybody: bool = False) -> Sequence[Assertion]:
        allowed, in_use = (
            frozenset() if anybody else self.approvers(),
            {device.credential_id for device in self._people.devices()},
        )
        rows = self._store.rows("select assertion, credential from vouched where subject = ? order by at", subject)
        return [Assertion.decode(data) for data, key in rows if key in in_use and (not allowed or key in allowed)]

    def _pend(self, kind: Kind, body: bytes, session: Session) -> ObjectId:
        subject = object_id(body)
        self._store.run(
            "insert or ignore into pending values (?, ?, ?, ?, ?, null)",
            subject,
            kind,
            body,
            session.member.name,
            self._clock.now(),
        )
        return subject

    def _pending(self, kind: Kind, subject: ObjectId) -> bytes:
        row = self._store.row(
            "select body from pending where subject = ? and kind = ? and done is null and created > ?",
            subject,
            kind,
            self._clock.now() - PENDING_SECONDS,
        )
        if row is None:
            raise Refused(
                "assent.pending",
                "expected something that still waits for people, got something done, replaced or too old",
                hint="reload the page",
            )
        return bytes(row[0])

    def _with_ledger(self, work: Callable[[Ledger], T]) -> T:
        """The ledger is opened for each use: opening it checks its whole chain."""
        ledger = Ledger(self._home.path / "ledger.sqlite")
        try:
            return work(ledger)
        finally:
            ledger.close()
