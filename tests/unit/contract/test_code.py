"""Sealed code as part of what makes a contract binding: each rule with the twin that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.contract.approve import Agreement, ContractBundle, agree
from kakoi.contract.code import CodeManifest, CodeReview
from kakoi.contract.model import Analysis, Contract, ContractCode
from kakoi.contract.sign import seal
from kakoi.core.errors import KakoiError, Malformed
from kakoi.testing.world import TestParty
from support.vendor import VendorWorld, make_vendor

STRANGER = TestParty.named("Stranger")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> VendorWorld:
    return VendorWorld(vendor=make_vendor(Path(tmp_path_factory.mktemp("vendor")) / "v"))


@pytest.fixture(scope="module")
def bundle(world: VendorWorld) -> ContractBundle:
    return world.bundle()


def refused(bundle: Callable[[], ContractBundle]) -> str:
    with pytest.raises(KakoiError) as caught:
        agree(bundle())
    return caught.value.code


def test_the_whole_is_an_agreement(world: VendorWorld, bundle: ContractBundle) -> None:
    agreement = agree(ContractBundle.decode(bundle.encode()))
    code, owner = world.vendor.sealed.payload_id, world.vendor.party.id
    sealed, open_one = world.sealed_analysis().payload_id, world.analysis().payload_id
    assert set(agreement.code) == {code}
    assert [review.record.statement for review in agreement.reviews[code]] == ["It counts people and keeps nothing."]
    hospitals = tuple(hospital.id for hospital in world.owners)
    assert agreement.owners == (*hospitals, owner)
    assert agreement.owners_of(sealed) == (*hospitals, owner), "its owner's yes is needed for a run of it"
    assert agreement.owners_of(open_one) == hospitals, "and for no other"
    assert agreement.keys_of(owner, sealed) == (code,)
    assert agreement.keys_of(owner, open_one) == (), "no run of another analysis gets the code's key"
    assert agreement.objects_of(owner) == (code,)


def test_without_reviewers_nobody_needs_to_have_read_it(world: VendorWorld) -> None:
    agreement: Agreement = agree(replace(world, reviewed=False).bundle())
    assert agreement.reviews == {world.vendor.sealed.payload_id: ()}


def test_code_that_is_missing_twice_or_another(world: VendorWorld, bundle: ContractBundle, tmp_path: Path) -> None:
    other = make_vendor(tmp_path / "other").sealed
    assert other.payload_id != world.vendor.sealed.payload_id, "the same source, sealed again, is another code"
    assert refused(lambda: replace(bundle, code=())) == "contract.objects"
    assert refused(lambda: replace(bundle, code=(*bundle.code, *bundle.code))) == "contract.objects"
    assert refused(lambda: replace(bundle, code=(other,))) == "contract.objects"
    assert refused(lambda: replace(bundle, code=(*bundle.code, other))) == "contract.objects"


def test_a_manifest_that_somebody_else_signed(world: VendorWorld, bundle: ContractBundle) -> None:
    forged = seal(world.vendor.manifest, STRANGER.signing)
    assert forged.payload_id == world.vendor.sealed.payload_id, "the same bytes"
    assert refused(lambda: replace(bundle, code=(forged,))) == "signature.signer"


def test_code_of_another_party_than_the_contract_names(world: VendorWorld) -> None:
    """The contract calls the auditor the code's owner."""

    def another(contract: Contract) -> Contract:
        parties = tuple(
            replace(p, roles=(*p.roles, "code-owner")) if p.party == world.auditor.id else p for p in contract.parties
        )
        return replace(
            contract, parties=parties, code=(replace(contract.code[0], owner=world.auditor.id, reviewers=()),)
        )

    made = replace(world, change_sealed=another, reviewed=False)
    assert refused(made.bundle) == "signature.signer"


def test_an_analysis_of_somebody_elses_code(world: VendorWorld, bundle: ContractBundle) -> None:
    """A hospital publishes an analysis with the vendor's code, so that the vendor has not said what it may read."""
    thief = world.owners[0]
    taken = seal(replace(Analysis.decode(world.sealed_analysis().payload), author=thief.id), thief.signing)

    def with_taken(contract: Contract) -> Contract:
        entries = (
            *contract.analyses[:-1],
            replace(contract.analyses[-1], analysis=taken.payload_id),
        )
        return replace(contract, analyses=entries)

    made = replace(world, change_sealed=with_taken).bundle()
    swapped = replace(made, analyses=(*made.analyses[:-1], taken))
    assert refused(lambda: swapped) == "code.owner"


def test_code_that_no_analysis_names(world: VendorWorld) -> None:
    made = replace(world, change_sealed=lambda contract: replace(contract, analyses=contract.analyses[:1])).bundle()
    assert refused(lambda: replace(made, analyses=made.analyses[:1])) == "contract.objects"


def test_an_analysis_whose_code_the_contract_leaves_out(world: VendorWorld) -> None:
    made = replace(world, change_sealed=lambda contract: replace(contract, code=()), reviewed=False).bundle()
    assert refused(lambda: replace(made, code=())) == "contract.objects"


# -- reviews


def test_a_review_that_is_missing_or_twice(bundle: ContractBundle, world: VendorWorld) -> None:
    assert refused(lambda: replace(bundle, reviews=())) == "code.review-missing"
    assert refused(lambda: replace(bundle, reviews=bundle.reviews * 2)) == "contract.objects"


def test_a_review_of_another_code(bundle: ContractBundle, world: VendorWorld) -> None:
    assert refused(lambda: replace(bundle, reviews=(world.review(code="0" * 64),))) == "contract.objects"


def test_a_review_in_a_reviewers_name(bundle: ContractBundle, world: VendorWorld) -> None:
    """The vendor writes it itself."""
    forged = seal(CodeReview.decode(world.review().payload), world.vendor.party.signing)
    assert refused(lambda: replace(bundle, reviews=(forged,))) == "signature.signer"


def test_a_review_whose_words_or_signature_were_altered(bundle: ContractBundle, world: VendorWorld) -> None:
    good = bundle.reviews[0]
    altered = replace(good, payload=good.payload.replace(b"keeps nothing", b"keeps any row"))
    assert refused(lambda: replace(bundle, reviews=(altered,))) == "signature.invalid"
    for place, signature in enumerate(good.signatures):
        for at in range(0, len(signature.sig), max(1, len(signature.sig) // 16)):
            flipped = signature.sig[:at] + bytes([signature.sig[at] ^ 1]) + signature.sig[at + 1 :]
            signatures = tuple(
                replace(each, sig=flipped) if i == place else each for i, each in enumerate(good.signatures)
            )
            twin = replace(good, signatures=signatures)
            assert refused(lambda twin=twin: replace(bundle, reviews=(twin,))) == "signature.invalid"  # type: ignore[misc]


def test_a_review_of_a_party_that_the_contract_does_not_name(bundle: ContractBundle, world: VendorWorld) -> None:
    stray = seal(replace(CodeReview.decode(world.review().payload), reviewer=STRANGER.id), STRANGER.signing)
    assert refused(lambda: replace(bundle, reviews=(stray,))) == "contract.objects"


# -- the records themselves


def test_roles_are_needed(world: VendorWorld) -> None:
    contract = Contract.decode(world.bundle().contract.payload)
    entry: ContractCode = contract.code[0]
    for bad in (
        (replace(entry, owner=world.owners[0].id),),
        (replace(entry, reviewers=(world.owners[0].id,)),),
        (replace(entry, reviewers=(STRANGER.id,)),),
        (replace(entry, owner=STRANGER.id),),
    ):
        with pytest.raises(Malformed) as caught:
            replace(contract, code=bad)
        assert caught.value.code == "contract.code"
    with pytest.raises(Malformed) as caught:
        replace(contract, code=(entry, entry))
    assert caught.value.code == "record.repeated"


def test_a_manifest_begins_with_its_source(world: VendorWorld) -> None:
    manifest: CodeManifest = world.vendor.manifest
    first, second = manifest.files
    for files, code in (
        ((second,), "code.entry"),
        ((second, first), "code.entry"),
        ((first, first), "record.repeated"),
        ((first, replace(second, name="Analysis.py")), "record.repeated"),
    ):
        with pytest.raises(Malformed) as caught:
            replace(manifest, files=files)
        assert caught.value.code == code
    assert manifest.sealed_as == f"code/{manifest.code}"
