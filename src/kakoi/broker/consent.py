"""A party's yes and no to contracts: the approval, the withdrawal, and the receipt that says what the withdrawal did.

Own ledger first, hub second: the ledger is what the broker obeys, with or without a hub. Every step can be repeated after
a crash and changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Protocol

from kakoi.broker.ledger import Ledger
from kakoi.contract.model import Approval, Assertion, Contract, DatasetManifest, Withdrawal
from kakoi.contract.passkey import verify_people
from kakoi.contract.sign import Signed, open_self_signed, open_signed, seal
from kakoi.core import dsse
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId, PartyId, parse_id
from kakoi.core.records import Digest, Limit, PartyRef, Record, Seconds
from kakoi.net.bundle import ObjectSource
from kakoi.party.files import read_limited, write_private
from kakoi.party.home import PartyHome
from kakoi.wire.messages import KeyGrant, Lease, SealedResult, Session


class Hub(ObjectSource, Protocol):
    """What is needed of a hub: ``net.client.HubClient`` is one."""

    def put_object(self, envelope: Envelope) -> object:
        """Deliver an object; again changes nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRun(Record):
    """One run that got this owner's keys: until when at most, and which results exist."""

    run: Digest
    lease_until: Seconds
    results: Annotated[tuple[Digest, ...], Limit(most=16, unique=True)]
    """Sealed results (`kakoi/result/v1`) that sessions with these keys signed, as the hub shows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalReceipt(Record):
    """What a withdrawal did, by the owner's own ledger and clock. Signed by the owner.

    Once ``issued_at`` lies behind every ``lease_until``, no enclave holds a key of this owner under the contract.
    """

    KIND: ClassVar[str] = "kakoi/withdrawal-receipt/v1"
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    party: PartyRef
    withdrawal: Digest
    contract: Digest
    withdrawn_at: Seconds
    people: Annotated[tuple[Assertion, ...], Limit(most=64)]
    """Passkey assertions over the withdrawal's id, where the party's people gave them."""
    asked: Annotated[int, Limit(most=10**6)]
    """Runs that were asked for in all; those not listed below never got a key."""
    granted: Annotated[tuple[ReceiptRun, ...], Limit(most=4096)]
    last_lease_until: Seconds | None
    """The latest of the leases; null if no key was ever released."""
    issued_at: Seconds

    def check(self) -> None:
        """The last lease is the latest of all."""
        if self.last_lease_until != max((run.lease_until for run in self.granted), default=None):
            raise Malformed("receipt.lease", "expected the last lease to be the latest of all, got another")


def approve(
    *,
    home: PartyHome,
    ledger: Ledger,
    hub: Hub,
    contract: ObjectId,
    assertions: Sequence[Assertion],
    now: int,
) -> Signed[Approval]:
    """Approve a contract that names this party's present card.

    1. the contract is well-formed and names this party under its present card, so that people who were removed cannot
       agree through an earlier one;
    2. as many of its people as the card demands say so with their passkeys;
    3. nothing that takes part was withdrawn;
    4. it is written into the own ledger, then signed and sent.

    Raises Malformed or Refused; Unavailable from the hub, after which the call can be repeated.
    """
    record = Contract.decode(hub.get_object(contract).payload)
    me = home.id_in(record)
    if me not in {party.party for party in record.parties}:
        raise Refused("contract.not-party", "expected a contract that names this party, got one that does not")
    if me != PartyId(home.card.id):
        raise Refused(
            "contract.earlier-card",
            "expected a contract that names this party's present card, got one with an earlier card",
            hint="ask the drafter for a version with this party's present id",
        )
    verify_people(home.card.record, contract, assertions)
    data = {entry.manifest for entry in record.data if entry.owner == me}
    code = {entry.manifest for entry in record.code if entry.owner == me}
    if _withdrawn(home, ledger, contract, data | code):
        raise Refused(
            "approval.withdrawn",
            "expected a contract and data that this party has not withdrawn, got one that is withdrawn",
            hint="a withdrawal is for ever: a new version of the contract is needed",
        )
    ledger.approve(contract, now)
    approval = Approval(contract=contract, party=me, assertions=tuple(assertions), approved_at=now)
    envelope = seal(approval, home.keys.signer())
    hub.put_object(home.card.envelope)
    hub.put_object(envelope)
    return open_signed(Approval, envelope, home.card)


def _withdrawn(home: PartyHome, ledger: Ledger, contract: ObjectId, manifests: set[ObjectId]) -> bool:
    """Whether the contract or any of these data is withdrawn; the same version signed anew under a later card is, too."""
    gone, own = ledger.withdrawn(), home.datasets()
    versions = {(s.record.dataset, s.record.version) for identity, s in own.items() if identity in gone}
    again = {i for i in manifests if i in own and (own[i].record.dataset, own[i].record.version) in versions}
    return bool(({contract} | manifests) & gone or again)


def withdrawal_of(home: PartyHome, contract: Contract, contract_id: ObjectId, *, reason: str, now: int) -> Withdrawal:
    """The withdrawal that ``withdraw`` will carry out: people see it, and sign its id, before."""
    return Withdrawal(party=home.id_in(contract), contract=contract_id, dataset=None, reason=reason, withdrawn_at=now)


def earlier_versions(hub: ObjectSource, ledger: Ledger, contract: Contract) -> list[tuple[ObjectId, Contract]]:
    """Versions before ``contract`` that this party approved and has not withdrawn, newest first: they would still be valid.

    Ids are digests, so the chain of versions is the drafters' own, whatever the hub says. It ends where the hub has nothing more.
    """
    approved, gone = ledger.approved(), ledger.withdrawn()
    found: list[tuple[ObjectId, Contract]] = []
    before = contract.supersedes
    while before is not None:
        try:
            contract = Contract.decode(hub.get_object(before).payload)
        except (Malformed, Refused):
            break
        if before in approved and before not in gone:
            found.append((before, contract))
        before = contract.supersedes
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptWithdrawal(Record):
    """What this party keeps of a withdrawal: the record as sent, and the people's signatures over its id."""

    MAX_BYTES: ClassVar[int] = 512 * 1024

    withdrawal: Withdrawal
    people: Annotated[tuple[Assertion, ...], Limit(most=64)]


def withdrawals_of_data(
    home: PartyHome, manifest: DatasetManifest, *, reason: str, now: int
) -> list[tuple[ObjectId, Withdrawal]]:
    """Withdrawals of every version of one's own data set, under every card: no contract gets it any more."""
    return [
        (
            signed.id,
            Withdrawal(
                party=PartyId(signed.record.owner), contract=None, dataset=signed.id, reason=reason, withdrawn_at=now
            ),
        )
        for signed in home.datasets().values()
        if signed.record.dataset == manifest.dataset and signed.record.owner in home.ids
    ]


def withdraw(
    *,
    home: PartyHome,
    ledger: Ledger,
    hub: Hub,
    withdrawal: Withdrawal,
    people: Sequence[Assertion] = (),
    besides: Sequence[Withdrawal] = (),
) -> None:
    """Take an approval or a data set back: from now on the own broker releases no key for it, then the others are told.

    Stopping needs nobody's consent, so it works without passkeys and without a hub: the ledger is written for all of
    them before the hub is asked for the first. ``besides``: what goes with it (earlier versions). Unavailable is raised after the
    ledger was written; the call can be repeated.
    """
    everything = [(withdrawal, tuple(people)), *((item, ()) for item in besides)]
    for item, _ in everything:
        ledger.withdraw(_subject(item), item.withdrawn_at)
    for item, assertions in everything:
        path = _kept_path(home, _subject(item))
        path.parent.mkdir(exist_ok=True, mode=0o700)
        write_private(path, KeptWithdrawal(withdrawal=item, people=assertions).encode())
    for item, _ in everything:
        hub.put_object(seal(item, home.keys.signer()))


def _subject(withdrawal: Withdrawal) -> ObjectId:
    """What is withdrawn: a contract, or one version of a data set. A record names exactly one of them."""
    return parse_id(str(withdrawal.contract or withdrawal.dataset))


def _kept_path(home: PartyHome, subject: str) -> Path:
    return home.path / "withdrawals" / f"{parse_id(subject)}.json"


def receipt(*, home: PartyHome, ledger: Ledger, hub: Hub, contract: ObjectId, now: int) -> Envelope:
    """The signed receipt of a withdrawal for one contract, which was withdrawn itself or by its data.

    Raises Refused unless the own ledger and directory know the withdrawal.
    """
    kept = _kept(home, ledger, hub, contract)
    withdrawal = kept.withdrawal
    asked = ledger.runs_of(contract)
    granted = tuple(item for run in asked if (item := _granted(hub, ledger, home, run)) is not None)
    record = WithdrawalReceipt(
        party=withdrawal.party,
        withdrawal=withdrawal.id,
        contract=contract,
        withdrawn_at=withdrawal.withdrawn_at,
        people=kept.people,
        asked=len(asked),
        granted=granted,
        last_lease_until=max((item.lease_until for item in granted), default=None),
        issued_at=now,
    )
    return seal(record, home.keys.signer())


def _kept(home: PartyHome, ledger: Ledger, hub: Hub, contract: ObjectId) -> KeptWithdrawal:
    gone = ledger.withdrawn()
    subjects: list[str] = [contract]
    if contract not in gone and gone:
        record = Contract.decode(hub.get_object(contract).payload)
        subjects = [entry.manifest for entry in record.data if entry.owner == home.id_in(record)]
    for subject in subjects:
        path = _kept_path(home, subject)
        if subject in gone and path.exists():
            return KeptWithdrawal.decode(read_limited(path, limit=KeptWithdrawal.MAX_BYTES))
    raise Refused("receipt.not-withdrawn", "expected a contract that this party has withdrawn, got another")


def _granted(hub: Hub, ledger: Ledger, home: PartyHome, run: str) -> ReceiptRun | None:
    grants = [
        open_signed(KeyGrant, answer.envelope, home.card).record
        for answer in ledger.answers(run)
        if answer.stage == "grant"
    ]
    if not grants:
        return None
    sessions = {grant.session for grant in grants}
    renewed = [
        open_signed(Lease, answer.envelope, home.card).record
        for answer in ledger.answers(run)
        if answer.stage.startswith("lease.")
    ]
    return ReceiptRun(
        run=parse_id(run),
        lease_until=max(*(grant.lease_until for grant in grants), *(lease.lease_until for lease in renewed), 0),
        results=tuple(_results(hub, run, sessions))[:16],
    )


def _results(hub: Hub, run: str, sessions: set[ObjectId]) -> list[ObjectId]:
    """Results whose signature is that of a session which got this owner's key; anything else is noise."""
    found: list[ObjectId] = []
    for item in hub.feed(kinds=(SealedResult.KIND,), refs={"run": run}).items:
        envelope = hub.get_object(item.id)
        try:
            claimed = SealedResult.decode(envelope.payload)
            if claimed.session not in sessions:
                continue
            session = open_self_signed(Session, hub.get_object(claimed.session), lambda s: s.verifying_key)
            dsse.verify(envelope, session.record.verifying_key)
        except (Malformed, Refused):
            continue
        found.append(item.id)
    return found
