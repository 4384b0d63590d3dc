"""What makes a contract binding: each step of ``agree``, with the twin that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kakoi.contract.approve import Agreement, ContractBundle, agree, in_force
from kakoi.contract.model import Analysis, Approval, Contract, ContractParty, DatasetManifest, TableUse
from kakoi.contract.sign import Signed, open_card, open_signed, require_signer, seal
from kakoi.core.crypto import SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.testing.world import NOW, TestParty, World, seeded

WORLD = World()
BUNDLE = WORLD.bundle()
STRANGER = TestParty.named("Stranger")
NORTH, EAST, _ = WORLD.owners


def _code(bundle: Callable[[], ContractBundle]) -> str:
    with pytest.raises(KakoiError) as error:
        agree(bundle())
    return error.value.code


def _changed(**parts: Any) -> ContractBundle:
    return replace(BUNDLE, **parts)


def _contract(**changes: Any) -> World:
    """A world whose drafter signed, and whose parties approved, a contract with these changes."""
    return World(change_contract=lambda contract: replace(contract, **changes))


def test_a_whole_bundle_is_an_agreement() -> None:
    agreement = agree(BUNDLE)
    assert agreement.id == BUNDLE.contract.payload_id
    assert agreement.contract == Contract.decode(BUNDLE.contract.payload)
    assert agreement.owners == tuple(owner.id for owner in WORLD.owners)
    assert [entry.owner for entry in agreement.data_of(EAST.id)] == [EAST.id]
    assert agreement.max_runs(BUNDLE.analyses[0].payload_id) == 2


def test_the_bundle_survives_its_encoding() -> None:
    assert agree(ContractBundle.decode(BUNDLE.encode())).id == BUNDLE.contract.payload_id


def test_an_analysis_that_the_contract_does_not_name_has_no_runs() -> None:
    with pytest.raises(Refused) as error:
        agree(BUNDLE).max_runs("0" * 64)
    assert error.value.code == "request.analysis"


# 1. cards


def test_a_missing_and_a_foreign_card() -> None:
    assert _code(lambda: _changed(cards=BUNDLE.cards[1:])) == "contract.objects"
    assert _code(lambda: _changed(cards=(*BUNDLE.cards, STRANGER.card.envelope))) == "contract.objects"
    assert _code(lambda: _changed(cards=(STRANGER.card.envelope, *BUNDLE.cards[1:]))) == "contract.objects"


def test_a_card_twice() -> None:
    assert _code(lambda: _changed(cards=(*BUNDLE.cards, BUNDLE.cards[0]))) in ("contract.names", "contract.objects")


def test_a_card_that_another_party_signed() -> None:
    forged = seal(NORTH.card.record, STRANGER.signing)
    assert _code(lambda: _changed(cards=(forged, *BUNDLE.cards[1:]))) == "signature.signer"


def test_two_parties_of_one_name() -> None:
    """The name is what the site column shows."""
    keys = SigningKey(seeded("impostor", 64)).verifying_key
    signer = SigningKey(seeded("impostor", 64))
    card = open_card(seal(replace(NORTH.card.record, ed25519=keys.ed25519, mldsa65=keys.mldsa65), signer))
    impostor = replace(STRANGER, name="North", signing=signer, card=card)
    assert _code(World(owners=(NORTH, impostor)).bundle) == "contract.names"


# 2. the contract


def test_a_contract_that_its_drafter_did_not_sign() -> None:
    contract = Contract.decode(BUNDLE.contract.payload)
    assert _code(lambda: _changed(contract=seal(contract, NORTH.signing))) == "signature.signer"


def test_a_contract_drafted_by_somebody_else() -> None:
    """The drafter named inside must be a party, whoever signed."""
    contract = Contract.decode(BUNDLE.contract.payload)
    with pytest.raises(Malformed):
        replace(contract, drafter=STRANGER.id)


def test_an_object_of_another_kind_in_the_place_of_the_contract() -> None:
    assert _code(lambda: _changed(contract=BUNDLE.manifests[0])) == "record.kind"


# 3. data sets


def test_missing_foreign_and_repeated_data_sets() -> None:
    other = World(owners=(STRANGER, NORTH)).manifest(STRANGER)
    for manifests in (BUNDLE.manifests[1:], (*BUNDLE.manifests, other), (*BUNDLE.manifests, BUNDLE.manifests[0])):
        assert _code(lambda manifests=manifests: _changed(manifests=manifests)) == "contract.objects"  # type: ignore[misc]


def test_a_data_set_signed_by_another_party() -> None:
    manifest = DatasetManifest.decode(BUNDLE.manifests[0].payload)
    forged = seal(manifest, EAST.signing)
    assert _code(lambda: _changed(manifests=(forged, *BUNDLE.manifests[1:]))) == "signature.signer"


def test_a_data_set_that_the_contract_gives_to_another_owner() -> None:
    contract = Contract.decode(BUNDLE.contract.payload)
    data = (replace(contract.data[0], owner=EAST.id), *contract.data[1:])
    assert _code(_contract(data=data).bundle) == "signature.signer"


# 4. analyses


def test_missing_and_repeated_analyses() -> None:
    assert _code(lambda: _changed(analyses=BUNDLE.analyses * 2)) == "contract.objects"


def _with_analysis(**changes: Any) -> World:
    class Changed(World):
        def analysis(self) -> Any:
            analysis = Analysis.decode(super().analysis().payload)
            return seal(replace(analysis, **changes), self.analyst.signing)

    return Changed()


def test_an_analysis_of_an_author_who_is_no_party() -> None:
    assert _code(_with_analysis(author=STRANGER.id).bundle) == "contract.unknown-party"


def test_an_analysis_that_another_party_signed() -> None:
    assert _code(_with_analysis(author=NORTH.id).bundle) == "signature.signer"


@pytest.mark.parametrize(
    ("table", "columns", "code"),
    [
        ("other", ("age",), "analysis.table"),
        ("Trial", ("age",), "analysis.table"),
        ("trial", ("name",), "analysis.column"),
        ("trial", ("Age",), "analysis.column"),
        ("trial", ("Site",), "analysis.column"),
    ],
)
def test_an_analysis_reads_only_what_is_declared(table: str, columns: tuple[str, ...], code: str) -> None:
    assert _code(_with_analysis(reads=(TableUse(table=table, columns=columns),)).bundle) == code


def test_an_analysis_may_read_the_site() -> None:
    world = _with_analysis(reads=(TableUse(table="trial", columns=("age", "sex", "site")),))
    assert world.agreement().analyses


def test_a_column_of_two_types_is_refused() -> None:
    class Changed(World):
        def manifest(self, owner: TestParty) -> Any:
            manifest = DatasetManifest.decode(super().manifest(owner).payload)
            if owner.name == "East":
                columns = tuple(replace(c, type="string") if c.name == "age" else c for c in manifest.columns)
                manifest = replace(manifest, columns=columns)
            return seal(manifest, owner.signing)

    assert _code(Changed().bundle) == "analysis.column"


# 5. approvals


@pytest.mark.parametrize("silent", ["North", "East", "South", "Analyst"])
def test_every_party_must_approve(silent: str) -> None:
    assert _code(World(silent=(silent,)).bundle) == "contract.approval-missing"


def _approval(party: TestParty, signer: TestParty, **changes: Any) -> ContractBundle:
    good = Approval(contract=BUNDLE.contract.payload_id, party=party.id, assertions=(), approved_at=NOW)
    others = BUNDLE.approvals[1:]
    return _changed(approvals=(seal(replace(good, **changes), signer.signing), *others))


def test_one_party_cannot_approve_for_another() -> None:
    assert _code(lambda: _approval(NORTH, EAST)) == "signature.signer"
    assert _code(lambda: _approval(STRANGER, STRANGER)) == "contract.unknown-party"


def test_an_approval_of_another_contract() -> None:
    assert _code(lambda: _approval(NORTH, NORTH, contract="0" * 64)) == "approval.contract"


def test_two_approvals_of_one_party() -> None:
    assert _code(lambda: _changed(approvals=(*BUNDLE.approvals, BUNDLE.approvals[0]))) == "approval.repeated"


def test_more_approvals_than_parties_do_not_help_a_missing_one() -> None:
    assert _code(lambda: _changed(approvals=(*BUNDLE.approvals[1:], BUNDLE.approvals[1]))) == "approval.repeated"


def test_a_party_without_a_part_in_the_data_must_approve_too() -> None:
    contract = Contract.decode(BUNDLE.contract.payload)
    roles = tuple(
        ContractParty(party=p.party, roles=("auditor",)) if p.party == WORLD.analyst.id else p for p in contract.parties
    )
    world = _contract(parties=roles)
    world.silent = ("Analyst",)
    assert _code(world.bundle) == "contract.approval-missing"


# Dates, and the types that only a verifier makes


def test_a_contract_binds_between_its_dates() -> None:
    agreement = agree(BUNDLE)
    begin, end = agreement.contract.not_before, agreement.contract.expires
    for now in (begin, NOW, end - 1):
        in_force(agreement, now)
    for now, code in ((begin - 1, "contract.not-yet"), (0, "contract.not-yet"), (end, "contract.expired")):
        with pytest.raises(Refused) as error:
            in_force(agreement, now)
        assert error.value.code == code


def test_nobody_but_the_verifier_makes_verified_things() -> None:
    agreement = agree(BUNDLE)
    for make in (
        lambda: Agreement(
            id=agreement.id,
            contract=agreement.contract,
            bundle=BUNDLE,
            cards={},
            manifests={},
            analyses={},
            code={},
            reviews={},
        ),
        lambda: replace(agreement, id=ObjectId("0" * 64)),
        lambda: Signed(record=NORTH.card.record, id=NORTH.card.id, envelope=NORTH.card.envelope),
        lambda: replace(NORTH.card, id=ObjectId("0" * 64)),
    ):
        with pytest.raises(TypeError):
            make()


def test_what_open_signed_returns_was_verified() -> None:
    manifest = open_signed(DatasetManifest, BUNDLE.manifests[0], NORTH.card)
    assert manifest.id == BUNDLE.manifests[0].payload_id
    require_signer(manifest.record.owner, NORTH.card, "a data set")
    with pytest.raises(Refused) as error:
        require_signer(manifest.record.owner, EAST.card, "a data set")
    assert error.value.code == "signature.party"
    with pytest.raises(Refused):
        open_signed(DatasetManifest, BUNDLE.manifests[0], EAST.card)
    with pytest.raises(Malformed):
        open_signed(Analysis, BUNDLE.manifests[0], NORTH.card)


def test_a_card_proves_that_somebody_holds_its_keys() -> None:
    card = NORTH.card.record
    assert open_card(seal(card, NORTH.signing)).record == card
    with pytest.raises(Refused):
        open_card(seal(card, EAST.signing))


# Noise


class _Python(World):
    def analysis(self) -> Envelope:
        record = replace(Analysis.decode(super().analysis().payload), engine="python")
        return seal(record, self.analyst.signing)


def _one_demands_noise(contract: Contract) -> Contract:
    rules = replace(contract.data[1].rules, epsilon_per_run="0.5", epsilon_budget="5")
    return replace(contract, data=(contract.data[0], replace(contract.data[1], rules=rules), *contract.data[2:]))


def test_where_one_owner_demands_noise_nobody_can_agree_to_python() -> None:
    assert _code(lambda: _Python(change_contract=_one_demands_noise).bundle()) == "contract.noise-python"
    assert agree(World(change_contract=_one_demands_noise).bundle())
    assert agree(_Python().bundle())
