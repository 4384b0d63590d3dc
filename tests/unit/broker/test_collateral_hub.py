"""Bundles at the hub: whose are read, what is passed over, and what a lying hub gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kakoi.broker.collateral import KeptPieces
from kakoi.broker.collateral_bundle import make_bundle
from kakoi.broker.collateral_hub import MAX_AGE, HubBundles
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.net.answers import FeedItem, FeedPage
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.testing.collateral_servers import VendorServer, intel_routes
from kakoi.testing.dcap_vendor import DAY, NOW
from kakoi.wire.collateral import Bundle, Piece
from support.collateral import INTEL, Site, anchors


def party(path: Path, name: str) -> PartyHome:
    path.mkdir(parents=True)
    new_key_file(path / "key")
    return PartyHome.create(path / "party", name=name, unlock=Unlock(key_file=path / "key"), created=NOW)


@dataclass
class FakeHub:
    """Gives out what it was given, to whoever asks for that party; ``everything`` shows all to all, as a liar would."""

    objects: list[Envelope] = field(default_factory=list)
    everything: bool = False
    silent: bool = False

    def feed(
        self, *, after: int = 0, kinds: Sequence[str] = (), refs: Mapping[str, str] | None = None, limit: int = 100
    ) -> FeedPage:
        if self.silent:
            raise Unavailable("hub.unreachable", "the hub does not answer")
        assert tuple(kinds) == (Bundle.KIND,)
        items = tuple(
            FeedItem(seq=number, id=envelope.payload_id, kind=Bundle.KIND)
            for number, envelope in enumerate(self.objects, 1)
            if number > after and (self.everything or Bundle.decode(envelope.payload).party == (refs or {})["party"])
        )[:limit]
        return FeedPage(items=items, next=items[-1].seq if items else max(after, len(self.objects)))

    def get_object(self, object_id: ObjectId) -> Envelope:
        return next(envelope for envelope in self.objects if envelope.payload_id == object_id)


@dataclass
class Setting:
    hub: FakeHub
    site: Site
    told: list[str]
    source: HubBundles
    pieces: tuple[Piece, ...]
    carrier: PartyHome
    stranger: PartyHome


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    carrier, stranger = party(tmp_path / "a", "Carrier"), party(tmp_path / "b", "Stranger")
    with VendorServer(intel_routes(INTEL)) as server:
        pieces = tuple(piece for _, piece in Site(tmp_path / "far", server).source().pieces(INTEL.evidence(), NOW))
        site = Site(tmp_path / "near", server, offline=True)
        hub, told = FakeHub(), list[str]()

        def tell(error: KakoiError) -> None:
            told.append(error.code)

        kept = KeptPieces(site.directory)
        source = HubBundles(site.source(), kept, hub, [carrier.card], tell=tell, anchors=anchors())
    return Setting(hub, site, told, source, pieces, carrier, stranger)


def test_what_the_broker_lacks_comes_through_the_hub(setting: Setting) -> None:
    with pytest.raises(Unavailable) as caught:
        setting.source.collateral(INTEL.evidence(), NOW)
    assert caught.value.code == "collateral.absent"
    setting.hub.objects.append(make_bundle(setting.carrier, setting.pieces, NOW))
    assert setting.source.collateral(INTEL.evidence(), NOW).parts
    assert setting.source.refresh(NOW) == (), "each bundle is read once"
    assert setting.told == []
    setting.hub.silent = True
    with pytest.raises(Unavailable):
        setting.source.collateral(INTEL.evidence(), NOW)


def test_nobody_elses_bundle_is_taken(setting: Setting) -> None:
    setting.hub.objects.append(make_bundle(setting.stranger, setting.pieces, NOW))
    assert setting.source.refresh(NOW) == ()
    assert setting.told == []
    setting.hub.everything, setting.hub.objects = True, [*setting.hub.objects, *setting.hub.objects]
    assert setting.source.refresh(NOW) == ()
    assert setting.told == ["signature.signer"], "the hub says it is the carrier's; the signature says whose it is"
    assert not setting.site.directory.exists()


def test_a_bad_bundle_does_not_stop_the_good_one_behind_it(setting: Setting) -> None:
    future = make_bundle(setting.carrier, [_later(piece) for piece in setting.pieces], NOW)
    good = make_bundle(setting.carrier, setting.pieces, NOW)
    setting.hub.objects += [future, good]
    assert setting.source.refresh(NOW) == tuple(piece.asked for piece in setting.pieces)
    assert setting.told == ["collateral.future"]


def _later(piece: Piece) -> Piece:
    return Piece(asked=piece.asked, fetched_at=NOW + DAY, parts=piece.parts)


def test_old_bundles_are_passed_over_in_silence(setting: Setting) -> None:
    setting.hub.objects.append(make_bundle(setting.carrier, setting.pieces, NOW))
    assert setting.source.refresh(NOW + MAX_AGE + 1) == ()
    assert setting.told == []
