"""Sealed code at a hub before any contract names it: its reviewer reads it, drafters find the review, others see ciphertext."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.contract.code import CodeManifest, CodeReview
from kakoi.core.errors import Refused
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Settings
from kakoi.net.client import HubClient
from kakoi.net.identity import party_identity
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.sdk.sealed_code import fetch_code, open_shared, review, share, upload_code
from kakoi.testing.world import NOW
from support.vendor import MODEL, SOURCE, Vendor, make_vendor


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with running(Settings(directory=tmp_path / "hub", port=0)) as server:
        yield server


def party(directory: Path, name: str) -> PartyHome:
    new_key_file(directory / f"{name}.key")
    return PartyHome.create(directory / name, name=name, unlock=Unlock(key_file=directory / f"{name}.key"), created=NOW)


def client(hub: HubServer, home: PartyHome) -> HubClient:
    found = HubClient(hub.url, identity=party_identity(home.keys.request_signer(), home.card.envelope))
    found.put_object(home.card.envelope)
    return found


@pytest.fixture
def vendor(tmp_path: Path, hub: HubServer) -> Vendor:
    made = make_vendor(tmp_path / "vendor")
    with client(hub, made.home) as own:
        for signed in made.home.codes().values():
            upload_code(own, made.home, signed)
    return made


def test_a_reviewer_reads_and_a_drafter_finds_the_review(tmp_path: Path, hub: HubServer, vendor: Vendor) -> None:
    auditor, hospital = party(tmp_path, "auditor"), party(tmp_path, "hospital")
    shared = share(vendor.home, vendor.home.codes()[vendor.sealed.payload_id], auditor.card)
    with client(hub, auditor) as own:
        files = open_shared(own, auditor, shared)
        assert set(files.values()) == {SOURCE.encode(), MODEL}
        signed = review(own, auditor, vendor.sealed.payload_id, "It counts people and keeps nothing.", NOW)
    with client(hub, hospital) as own:
        found = own.feed(kinds=(CodeReview.KIND,), refs={"code": vendor.sealed.payload_id, "reviewer": auditor.card.id})
        assert [own.get_object(item.id) for item in found.items] == [signed]
        assert fetch_code(own, vendor.sealed.payload_id).record == vendor.manifest


def test_who_was_told_nothing_is_shown_nothing(tmp_path: Path, hub: HubServer, vendor: Vendor) -> None:
    auditor, stranger = party(tmp_path, "auditor"), party(tmp_path, "stranger")
    with client(hub, auditor) as own:
        review(own, auditor, vendor.sealed.payload_id, "It counts people and keeps nothing.", NOW)
    with client(hub, stranger) as own:
        assert own.feed(kinds=(CodeManifest.KIND, CodeReview.KIND)).items == ()
        shared = share(vendor.home, vendor.home.codes()[vendor.sealed.payload_id], auditor.card)
        with pytest.raises(Refused) as refused:
            open_shared(own, stranger, shared)
        assert refused.value.code == "code.reviewer"
