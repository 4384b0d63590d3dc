"""Signed bundles: taken whole or not at all, and never believed for their signature alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.attest.report import Evidence, Part
from kakoi.broker.collateral import SKEW_SECONDS, KeptPieces
from kakoi.broker.collateral_bundle import import_bundle, make_bundle
from kakoi.contract.sign import seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import PartyId
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.testing import amd_vendor
from kakoi.testing.collateral_servers import VendorServer, amd_routes, aws_routes, intel_routes, listed_nitro
from kakoi.testing.dcap_vendor import DAY, NOW, Vendor
from kakoi.wire.collateral import Bundle, Piece
from support.collateral import INTEL, OTHER_INTEL, Site, anchors, snp_evidence


def _home(path: Path, name: str) -> PartyHome:
    path.mkdir()
    new_key_file(path / "key")
    return PartyHome.create(path / "party", name=name, unlock=Unlock(key_file=path / "key"), created=NOW)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[PartyHome, PartyHome]:
    directory = tmp_path_factory.mktemp("parties")
    return _home(directory / "a", "Hub's operator"), _home(directory / "b", "Somebody")


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Evidence, ...], tuple[Piece, ...]]:
    """Evidence of three kinds, and what was fetched for it."""
    genoa, nitro = amd_vendor.vendor("Genoa"), listed_nitro()
    chip = genoa.chip()
    routes = intel_routes(INTEL) | amd_routes(genoa, chip) | aws_routes(nitro)
    evidence = (
        INTEL.evidence(),
        snp_evidence(genoa.signed(chip)),
        Evidence(platform="nitro", statement=nitro.document(), parts=()),
    )
    with VendorServer(routes) as server:
        source = Site(tmp_path_factory.mktemp("far"), server).source()
        pieces = tuple(piece for item in evidence for _, piece in source.pieces(item, NOW))
    assert len(pieces) == 4
    return evidence, pieces


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with VendorServer() as server:
        yield Site(tmp_path / "near", server, offline=True)


Fetched = tuple[tuple[Evidence, ...], tuple[Piece, ...]]
Homes = tuple[PartyHome, PartyHome]


def take(site: Site, data: bytes, home: PartyHome, now: int = NOW) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return import_bundle(data, home.card, site.kept, now=now, anchors=anchors())


def test_a_broker_without_any_connection_is_served_by_a_bundle(site: Site, fetched: Fetched, homes: Homes) -> None:
    evidence, pieces = fetched
    data = make_bundle(homes[0], (*pieces, *pieces), NOW).encode()
    taken, left = take(site, data, homes[0], NOW + 5)
    assert (len(taken), left) == (4, ())
    for item in evidence:
        assert site.source().collateral(item, NOW + 5).parts
    assert not site.told
    assert site.source().collateral(evidence[0], NOW + DAY).parts
    assert site.told == ["collateral.absent"]
    assert not site.server.asked
    assert take(site, data, homes[0], NOW + 5) == ((), taken)


def test_the_signer_is_the_party_that_was_named(site: Site, fetched: Fetched, homes: Homes) -> None:
    data = make_bundle(homes[0], fetched[1], NOW)
    with pytest.raises(Refused) as caught:
        take(site, data.encode(), homes[1])
    assert caught.value.code == "signature.signer"
    theirs = replace(Bundle.decode(data.payload), party=PartyId(homes[0].card.id))
    with pytest.raises(Refused) as caught:
        take(site, seal(theirs, homes[1].keys.signer()).encode(), homes[1])
    assert caught.value.code == "signature.party"
    assert not site.directory.exists()


def _spoilt(piece: Piece) -> Piece:
    first = piece.parts[0]
    return replace(piece, parts=(Part(name=first.name, data=first.data[:-1] + b"\0"), *piece.parts[1:]))


def test_one_bad_piece_and_nothing_is_taken(site: Site, fetched: Fetched, homes: Homes) -> None:
    for at in range(4):
        pieces = list(fetched[1])
        pieces[at] = _spoilt(pieces[at])
        with pytest.raises((Malformed, Refused)):
            take(site, make_bundle(homes[0], pieces, NOW).encode(), homes[0])
    assert not site.directory.exists()


@pytest.mark.parametrize(
    ("change", "now"),
    [
        ({"asked": "intel/sgx/00906ed50001/platform"}, NOW),
        ({"asked": "intel/sgx/00906ed50000/processor"}, NOW),
        ({"asked": "intel/tdx/00906ed50000/platform"}, NOW),
        ({"asked": "something/else"}, NOW),
        ({"fetched_at": NOW + SKEW_SECONDS + 1}, NOW),
        ({}, INTEL.next_update + 1),
        ({}, INTEL.issued - 1),
        ({"parts": OTHER_INTEL.collateral().parts}, NOW),
    ],
)
def test_pieces_that_are_refused(
    site: Site, fetched: Fetched, homes: Homes, change: dict[str, object], now: int
) -> None:
    piece = replace(fetched[1][0], **change)  # type: ignore[arg-type]
    with pytest.raises((Malformed, Refused)):
        take(site, make_bundle(homes[0], [piece], NOW).encode(), homes[0], now)
    assert not site.directory.exists()


def test_a_minute_of_clock_skew_is_allowed(site: Site, fetched: Fetched, homes: Homes) -> None:
    piece = replace(fetched[1][0], fetched_at=NOW + SKEW_SECONDS)
    assert take(site, make_bundle(homes[0], [piece], NOW).encode(), homes[0])[0] == (piece.asked,)
    assert site.source().collateral(fetched[0][0], NOW).parts


def test_older_pieces_do_not_take_the_place_of_newer_ones(site: Site, fetched: Fetched, homes: Homes) -> None:
    new = fetched[1][0]
    old_vendor = Vendor(root=INTEL.root, issued=INTEL.issued - DAY)
    old = Piece(asked=new.asked, fetched_at=NOW + 9, parts=old_vendor.collateral().parts)
    take(site, make_bundle(homes[0], [new], NOW).encode(), homes[0])
    assert take(site, make_bundle(homes[0], [old], NOW).encode(), homes[0], NOW + 9) == ((), (new.asked,))
    kept = site.kept.read(new.asked)
    assert kept == new
    again = replace(new, fetched_at=NOW + 9)
    assert take(site, make_bundle(homes[0], [again], NOW).encode(), homes[0], NOW + 9) == ((new.asked,), ())


def test_bytes_of_a_bundle_cannot_be_changed(site: Site, fetched: Fetched, homes: Homes) -> None:
    data = make_bundle(homes[0], fetched[1][1:2], NOW).encode()
    for at in range(0, len(data), max(1, len(data) // 60)):
        with pytest.raises(KakoiError):
            take(site, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], homes[0])
    for bad in (data[:-1], data + b"\n", b"", b"{}"):
        with pytest.raises(KakoiError):
            take(site, bad, homes[0])
    assert not KeptPieces(site.directory).read(fetched[1][1].asked)


def test_a_bundle_names_each_question_once(fetched: Fetched, homes: Homes) -> None:
    piece = fetched[1][0]
    with pytest.raises(Malformed):
        Bundle(party=PartyId(homes[0].card.id), made_at=NOW, pieces=(piece, piece))
    with pytest.raises(Malformed):
        make_bundle(homes[0], [], NOW)
    assert Bundle.decode(Envelope.decode(make_bundle(homes[0], [piece], NOW).encode()).payload).pieces == (piece,)
