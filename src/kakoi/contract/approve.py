"""Is this contract in force? One function answers, for brokers, enclaves and verifiers alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from kakoi.contract.agreed_code import code_is_whose, open_code, open_reviews
from kakoi.contract.code import CodeManifest, CodeReview
from kakoi.contract.model import (
    Analysis,
    Approval,
    Contract,
    ContractData,
    DatasetManifest,
    PartyCard,
)
from kakoi.contract.passkey import verify_people
from kakoi.contract.rules import demands_noise
from kakoi.contract.sign import Signed, open_card, open_signed, require_signer
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId, PartyId
from kakoi.core.records import Limit, Record
from kakoi.core.sealed import Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractBundle(Record):
    """A contract with everything it names, as signed: enough to check it without asking anybody."""

    KIND: ClassVar[str] = "kakoi/contract-bundle/v1"
    MAX_BYTES: ClassVar[int] = 12 * 1024 * 1024

    contract: Envelope
    cards: Annotated[tuple[Envelope, ...], Limit(least=2, most=64)]
    manifests: Annotated[tuple[Envelope, ...], Limit(least=1, most=256)]
    analyses: Annotated[tuple[Envelope, ...], Limit(least=1, most=256)]
    code: Annotated[tuple[Envelope, ...], Limit(most=64)]
    reviews: Annotated[tuple[Envelope, ...], Limit(most=512)]
    approvals: Annotated[tuple[Envelope, ...], Limit(most=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement(metaclass=Sealed):
    """A contract that every party approved, with its objects. Only ``agree`` makes one."""

    id: ObjectId
    contract: Contract
    bundle: ContractBundle
    cards: dict[str, Signed[PartyCard]]
    manifests: dict[str, Signed[DatasetManifest]]
    analyses: dict[str, Signed[Analysis]]
    code: dict[str, Signed[CodeManifest]]
    reviews: dict[str, tuple[Signed[CodeReview], ...]]
    """By code manifest, in the contract's order."""

    @property
    def owners(self) -> tuple[PartyId, ...]:
        """Owners of data and of sealed code, in the contract's order, each once."""
        data = (entry.owner for entry in self.contract.data)
        return tuple(dict.fromkeys((*data, *(entry.owner for entry in self.contract.code))))

    def owners_of(self, analysis: str) -> tuple[PartyId, ...]:
        """Whose yes a run of this analysis needs: every data owner's, and its sealed code's owner's. Each once."""
        data = (entry.owner for entry in self.contract.data)
        code = self.analyses[analysis].record.sealed_code
        return tuple(dict.fromkeys((*data, *([self.code[code].record.owner] if code is not None else []))))

    def keys_of(self, owner: str, analysis: str) -> tuple[ObjectId, ...]:
        """What an owner gives a run of this analysis keys for: its data sets whose table is read, and its sealed code.

        A data owner of whose data nothing is read gives its yes without a key.
        """
        record = self.analyses[analysis].record
        tables = {use.table for use in record.reads}
        data = [e.manifest for e in self.data_of(owner) if self.manifests[e.manifest].record.table in tables]
        code = [record.sealed_code] if record.sealed_code is not None else []
        return (*data, *(identity for identity in code if self.code[identity].record.owner == owner))

    def data_of(self, owner: str) -> tuple[ContractData, ...]:
        """One owner's data sets."""
        return tuple(entry for entry in self.contract.data if entry.owner == owner)

    def objects_of(self, owner: str) -> tuple[ObjectId, ...]:
        """Everything of one owner that can be withdrawn besides the contract: data sets and sealed code."""
        data = (entry.manifest for entry in self.data_of(owner))
        return (*data, *(entry.manifest for entry in self.contract.code if entry.owner == owner))

    def max_runs(self, analysis: str) -> int:
        """How often the analysis may run; raises Refused if the contract does not name it."""
        for entry in self.contract.analyses:
            if entry.analysis == analysis:
                return entry.max_runs
        raise Refused(
            "request.analysis",
            "expected an analysis that the contract names, got another",
            hint="all parties must approve a new version of the contract that lists it",
        )


def agree(bundle: ContractBundle) -> Agreement:
    """The agreement in a bundle.

    1. every card is signed by itself, exactly the contract's parties have cards here, and no two share a name;
    2. the contract is signed by its drafter;
    3. every manifest is signed by the owner that it and the contract name, and exactly those of the contract are here;
    4. every analysis is signed by its author, a party, and reads only tables and columns that the manifests declare;
    5. where an owner demands noise, every analysis is in SQL: nobody could bound what one person changes about another program;
    6. sealed code is its analysis' author's own, and every reviewer that the contract names has signed a review of it;
    7. every party approved exactly this contract's id, with the passkeys of as many people as its card demands.

    Dates are judged by ``in_force`` with a time the caller trusts. Raises Malformed or Refused.
    """
    cards: dict[str, Signed[PartyCard]] = {card.id: card for card in map(open_card, bundle.cards)}
    draft = Contract.decode(bundle.contract.payload)
    _exactly(list(cards), [party.party for party in draft.parties], "parties' cards")
    if len({card.record.name.casefold() for card in cards.values()}) != len(bundle.cards):
        raise Refused(
            "contract.names",
            "expected every party under a name of its own, got the same name twice",
            hint="the site column shows these names: one of the parties needs a new card",
        )
    contract = open_signed(Contract, bundle.contract, _card(cards, draft.drafter)).record
    manifests = _manifests(bundle, contract, cards)
    analyses = _analyses(bundle, contract, cards)
    for analysis in analyses.values():
        _reads_are_declared(analysis.record, [m.record for m in manifests.values()])
    noise_is_possible(contract, [analysis.record for analysis in analyses.values()])
    code = open_code(bundle.code, contract, cards)
    code_is_whose(analyses, code)
    reviews = open_reviews(bundle.reviews, contract, cards)
    _approved(bundle, contract, cards)
    return Agreement._seal(
        id=bundle.contract.payload_id,
        contract=contract,
        bundle=bundle,
        cards=cards,
        manifests=manifests,
        analyses=analyses,
        code=code,
        reviews=reviews,
    )


def in_force(agreement: Agreement, now: int) -> None:
    """Raise Refused unless ``now`` (seconds since the epoch) lies within the contract's dates."""
    if now < agreement.contract.not_before:
        raise Refused("contract.not-yet", "expected a contract that has begun, got one that begins later")
    if now >= agreement.contract.expires:
        raise Refused(
            "contract.expired",
            "expected a contract in force, got one that has expired",
            hint="the parties can approve a new version with a later date",
        )


def _card(cards: dict[str, Signed[PartyCard]], party: str) -> Signed[PartyCard]:
    if party not in cards:
        raise Refused("contract.unknown-party", "expected a party of the contract, got somebody else")
    return cards[party]


def _exactly(found: Sequence[str], named: Sequence[str], what: str) -> None:
    if len(set(found)) != len(found) or set(found) != set(named):
        raise Refused(
            "contract.objects", f"expected exactly the {what} that the contract names", hint="fetch them again"
        )


def _manifests(
    bundle: ContractBundle, contract: Contract, cards: dict[str, Signed[PartyCard]]
) -> dict[str, Signed[DatasetManifest]]:
    _exactly([e.payload_id for e in bundle.manifests], [d.manifest for d in contract.data], "data sets")
    owners = {entry.manifest: entry.owner for entry in contract.data}
    out: dict[str, Signed[DatasetManifest]] = {}
    for envelope in bundle.manifests:
        card = _card(cards, owners[envelope.payload_id])
        signed = open_signed(DatasetManifest, envelope, card)
        require_signer(signed.record.owner, card, "a data set")
        out[signed.id] = signed
    return out


def _analyses(
    bundle: ContractBundle, contract: Contract, cards: dict[str, Signed[PartyCard]]
) -> dict[str, Signed[Analysis]]:
    _exactly([e.payload_id for e in bundle.analyses], [a.analysis for a in contract.analyses], "analyses")
    out: dict[str, Signed[Analysis]] = {}
    for envelope in bundle.analyses:
        author = Analysis.decode(envelope.payload).author
        signed = open_signed(Analysis, envelope, _card(cards, author))
        out[signed.id] = signed
    return out


def _reads_are_declared(analysis: Analysis, manifests: list[DatasetManifest]) -> None:
    """Every part of a table that is read must declare each read column, with one type for all parts."""
    for use in analysis.reads:
        parts = [m for m in manifests if m.table == use.table]
        if not parts:
            raise Refused("analysis.table", f"expected a table of the contract, got {use.table}")
        for name in use.columns:
            found = [column for part in parts for column in part.columns if column.name == name]
            if any(column.identifier in ("direct", "opt-out") for column in found):
                raise Refused(
                    "analysis.identifier",
                    f"expected no identifier but join keys among the columns that are read, got {name} of table {use.table}",
                    hint="if tables must be joined by it, its owner can declare it a join-key: then only tokens are seen",
                )
            kinds = {next((c.type for c in part.columns if c.name == name), None) for part in parts}
            if name != "site" and (None in kinds or len(kinds) != 1):
                raise Refused(
                    "analysis.column",
                    f"expected column {name} of table {use.table} with one type at every owner",
                    hint="compare the data sets' schemas: kakoi dataset inspect",
                )


def noise_is_possible(contract: Contract, analyses: Iterable[Analysis]) -> None:
    """Raise Refused if an owner demands noise and an analysis is in Python. Queries are judged by the SQL engine."""
    if not demands_noise(entry.rules for entry in contract.data):
        return
    for analysis in analyses:
        if analysis.engine != "sql":
            raise Refused(
                "contract.noise-python",
                f"expected SQL analyses only, because an owner demands noise (rule epsilon_per_run); {analysis.name} is in Python",
                hint="write it in SQL with counts, sums, averages and quantiles, or ask for a contract of its own: docs/privacy.md",
            )


def open_approval(envelope: Envelope, card: Signed[PartyCard], contract: ObjectId) -> Signed[Approval]:
    """An approval of exactly ``contract`` by the party of ``card`` and by as many of its people as the card demands.

    Raises Malformed or Refused.
    """
    signed = open_signed(Approval, envelope, card)
    require_signer(signed.record.party, card, "an approval")
    if signed.record.contract != contract:
        raise Refused("approval.contract", "expected an approval of this contract, got one of another")
    verify_people(card.record, contract, signed.record.assertions)
    return signed


def _approved(bundle: ContractBundle, contract: Contract, cards: dict[str, Signed[PartyCard]]) -> None:
    given: set[str] = set()
    for envelope in bundle.approvals:
        giver = Approval.decode(envelope.payload).party
        open_approval(envelope, _card(cards, giver), bundle.contract.payload_id)
        if giver in given:
            raise Malformed("approval.repeated", "expected one approval of each party")
        given.add(giver)
    for party in contract.parties:
        if party.party not in given:
            raise Refused(
                "contract.approval-missing",
                f"expected every party's approval; {cards[party.party].record.name} has not approved",
                hint="ask that party to run: kakoi contract sign",
            )
