"""What is kept on disk: when it is used, when it is renewed, and what happens to files that others wrote."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.attest.report import Collateral, Evidence, Part, PlatformKind
from kakoi.broker.collateral import (
    QUIET_SECONDS,
    VENDORS,
    FileCollateral,
    KeptCollateral,
    KeptPieces,
    SplitCollateral,
    services,
)
from kakoi.broker.collateral_http import Reply
from kakoi.broker.collateral_pieces import Services
from kakoi.broker.collateral_wants import want_of, wants
from kakoi.core.errors import KakoiError, Malformed, Misuse, Unavailable
from kakoi.testing import amd_vendor
from kakoi.testing import x509_kit as kit
from kakoi.testing.collateral_servers import VendorServer, intel_routes, listed_nitro
from kakoi.testing.dcap_vendor import DAY, NOW, Vendor
from kakoi.wire.collateral import Piece
from support.collateral import INTEL, Site, anchors, snp_evidence

ASKED = "intel/sgx/00906ed50000/platform"
REFRESH = 6 * 3600


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with VendorServer(intel_routes(INTEL)) as server:
        yield Site(tmp_path / "collateral", server)


def test_a_young_answer_is_used_without_asking(site: Site) -> None:
    first = site.source().collateral(INTEL.evidence(), NOW)
    asked = len(site.server.asked)
    for later in (0, 1, REFRESH - 1):
        assert site.source().collateral(INTEL.evidence(), NOW + later) == first
    assert len(site.server.asked) == asked
    site.source().collateral(INTEL.evidence(), NOW + REFRESH)
    assert len(site.server.asked) == 2 * asked
    assert not site.told


def test_a_clock_that_went_back_asks_anew(site: Site) -> None:
    site.source().collateral(INTEL.evidence(), NOW)
    site.source().collateral(INTEL.evidence(), NOW - 1)
    assert len(site.server.asked) == 8


def test_a_silent_vendor_costs_nothing_while_the_kept_answer_is_good(site: Site) -> None:
    good = site.source().collateral(INTEL.evidence(), NOW)
    site.server.routes.clear()
    last = INTEL.next_update
    assert site.source().collateral(INTEL.evidence(), last) == good
    assert site.told == ["collateral.answer"]
    with pytest.raises(Unavailable) as caught:
        site.source().collateral(INTEL.evidence(), last + 1)
    assert caught.value.code == "collateral.answer"


def test_nothing_out_of_its_window_is_given_out_however_young_its_fetch(site: Site) -> None:
    short = Vendor(root=INTEL.root, next_update=NOW + 60)
    site.server.routes.update(intel_routes(short))
    site.source().collateral(INTEL.evidence(), NOW)
    site.server.routes.update(intel_routes(INTEL))
    site.source().collateral(INTEL.evidence(), NOW + 60)
    assert len(site.server.asked) == 4
    site.source().collateral(INTEL.evidence(), NOW + 61)
    assert len(site.server.asked) == 8


def test_a_vendor_that_does_not_answer_is_left_alone_for_a_while(site: Site) -> None:
    source = site.source()
    site.server.routes.clear()
    for later in (0, 1, QUIET_SECONDS - 1):
        with pytest.raises(Unavailable):
            source.collateral(INTEL.evidence(), NOW + later)
    assert len(site.server.asked) == 1
    site.server.routes.update(intel_routes(INTEL))
    source.collateral(INTEL.evidence(), NOW + QUIET_SECONDS)


def test_a_vendor_out_of_reach_is_asked_once_for_all_questions(tmp_path: Path) -> None:
    calls = []

    def get(url: str, *, most: int, types: Collection[str]) -> Reply:
        calls.append(url)
        raise Unavailable("collateral.unreachable", "expected to reach it, got nothing")

    source = KeptCollateral(
        KeptPieces(tmp_path),
        services=Services(intel="https://x"),
        get=get,
        tell=lambda _: None,
        anchors=anchors(),
    )
    for vendor in (INTEL, Vendor(fmspc=b"\1" * 6)):
        with pytest.raises(Unavailable):
            source.collateral(vendor.evidence(), NOW)
    assert len(calls) == 1


def test_what_is_kept_says_what_was_asked_and_when(site: Site) -> None:
    site.source().collateral(INTEL.evidence(), NOW)
    (path,) = site.directory.iterdir()
    piece = Piece.decode(path.read_bytes())
    assert (piece.asked, piece.fetched_at) == (ASKED, NOW)
    assert path.stat().st_mode & 0o077 == 0
    assert site.directory.stat().st_mode & 0o077 == 0
    assert piece.by_name == INTEL.parts() | piece.by_name


def test_files_that_others_wrote_are_not_believed(site: Site) -> None:
    """Whoever can write there can at most make the broker ask again."""
    site.source().collateral(INTEL.evidence(), NOW)
    (path,) = site.directory.iterdir()
    good = path.read_bytes()
    piece = Piece.decode(good)
    parts = {**piece.by_name, "tcb_info": piece.by_name["tcb_info"].replace(b"OutOfDate", b"UpToDate!")}
    for bad in (
        b"",
        b"{}",
        good[:-1],
        good + b"\n",
        replace(piece, asked="intel/sgx/00906ed50001/platform").encode(),
        replace(piece, parts=tuple(Part(name=n, data=d) for n, d in parts.items())).encode(),
        replace(piece, parts=piece.parts[1:]).encode(),
        b"x" * (Piece.MAX_BYTES + 1),
    ):
        path.write_bytes(bad)
        site.server.asked.clear()
        site.source().collateral(INTEL.evidence(), NOW)
        assert len(site.server.asked) == 4
        assert Piece.decode(path.read_bytes()).fetched_at == NOW


def test_a_full_disk_keeps_the_old_answer_and_gives_the_new_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    good = site.source().collateral(INTEL.evidence(), NOW)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        site.server.routes.update(intel_routes(Vendor(root=INTEL.root, issued=NOW + 1)))
        fresh = site.source().collateral(INTEL.evidence(), NOW + DAY // 2)
    assert fresh != good
    assert site.told == ["disk.full"]
    assert len(list(site.directory.iterdir())) == 1
    kept = site.kept.read(ASKED)
    assert kept is not None
    assert kept.parts == good.parts


def test_a_file_serves_the_software_platform_and_the_vendors_the_rest(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "software.json"
    software = Collateral(parts=(Part(name="x", data=b"y"),))
    file.write_bytes(software.encode())
    source = SplitCollateral(software=FileCollateral(file), hardware=site.source())
    assert source.collateral(Evidence(platform="software", statement=b"q", parts=()), NOW) == software
    assert source.collateral(INTEL.evidence(), NOW) != software


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Services()),
        ("intel", Services(intel="https://api.trustedservices.intel.com")),
        ("intel=http://127.0.0.1:8081/ , amd", Services(intel="http://127.0.0.1:8081", amd="https://kdsintf.amd.com")),
        ("aws", Services(aws="")),
        ("aws=https://mirror.example.org/aws", Services(aws="https://mirror.example.org/aws")),
    ],
)
def test_names_of_services(text: str, expected: Services) -> None:
    assert services(text) == expected
    assert set(VENDORS) == {"intel", "amd", "aws"}


@pytest.mark.parametrize("text", ["google", "intel,intel", "intel=", "amd=http://kds.example.org", "=https://x.org"])
def test_names_that_are_no_services(text: str) -> None:
    with pytest.raises(Misuse):
        services(text)


def test_every_question_can_be_read_back() -> None:
    chip = amd_vendor.vendor("Turin").chip()
    nitro = Evidence(platform="nitro", statement=listed_nitro().document(), parts=())
    evidence = [
        INTEL.evidence(),
        INTEL.evidence(kind="td-1.5"),
        snp_evidence(amd_vendor.vendor("Turin").signed(chip)),
        snp_evidence(amd_vendor.vendor("Milan").signed(amd_vendor.vendor("Milan").chip("VLEK"), version=2)),
        nitro,
    ]
    questions = [want for item in evidence for needed in wants(item) for want in needed]
    assert len(questions) == 2 + 2 + 4 + 1
    for want in questions:
        assert want_of(want.asked).asked == want.asked


@pytest.mark.parametrize(
    "asked",
    [
        "intel/sgx/00906ED50000/platform",
        "intel/sgx/00906ed5000/platform",
        "intel/software/00906ed50000/platform",
        "intel/sgx/00906ed50000/root",
        "amd/Rome/vcek/crl",
        "amd/Turin/vcek/" + "00" * 64 + "/1.2.3.4.5",
        "amd/Turin/vcek/" + "00" * 8 + "/1.2.3.4",
        "amd/Milan/vcek/" + "00" * 64 + "/01.2.3.4",
        "amd/Milan/vlek/" + "00" * 64 + "/1.2.3.4",
        "aws/eu-central-1/x/y",
        "other/thing",
    ],
)
def test_questions_that_nobody_knows(asked: str) -> None:
    with pytest.raises(Malformed) as caught:
        want_of(asked)
    assert caught.value.code == "collateral.asked"


def test_unreadable_evidence_is_no_reason_to_ask_anybody(site: Site) -> None:
    statements = (b"x", INTEL.quote()[:-9], bytes(1184), b"\xd2" * 40)
    platforms: tuple[PlatformKind, ...] = ("sgx", "tdx", "snp", "azure-snp", "azure-tdx", "nitro")
    for platform in platforms:
        for statement in statements:
            with pytest.raises(KakoiError) as caught:
                site.source().collateral(Evidence(platform=platform, statement=statement, parts=()), kit.NOW)
            assert not isinstance(caught.value, Unavailable)
    assert not site.server.asked
