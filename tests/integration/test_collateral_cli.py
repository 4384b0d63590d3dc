"""``kakoi collateral`` and the broker's options as people type them, on recorded evidence, at the time of its recording."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from typer.testing import CliRunner, Result

from kakoi.attest.registry import HARDWARE
from kakoi.attest.report import Evidence
from kakoi.broker.collateral import FileCollateral, KeptCollateral, SplitCollateral
from kakoi.cli import collateral as command
from kakoi.cli.main import app
from kakoi.cli.ui import SystemClock
from kakoi.core.errors import KakoiError, Misuse
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.testing import recorded
from kakoi.testing.collateral_servers import JSON, Canned, VendorServer
from kakoi.testing.dcap_vendor_corpus import EVIDENCE, recorded_collateral
from support.hub_client import client_of

here = pytest.mark.skipif(not EVIDENCE.is_dir(), reason="recorded evidence is not here (KAKOI_SHARED)")


def kakoi(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300", "KAKOI_LANG": "en"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    directory: Path
    evidence: Path
    url: str
    record: Evidence

    def bundle(self, *more: str | Path) -> Result:
        options: list[str | Path] = ["--party", self.directory / "party", "--key-file", self.directory / "key"]
        files: list[str | Path] = ["--for", self.evidence, "--out", self.directory / "bundle.dsse"]
        cache: list[str | Path] = ["--collateral-cache", self.directory / "far"]
        return kakoi("collateral", "bundle", *options, *files, *cache, *more)

    def take(self, card: Path | None = None) -> Result:
        card = card or self.directory / "party" / "card.dsse"
        cache = self.directory / "near"
        return kakoi(
            "collateral", "import", self.directory / "bundle.dsse", "--signed-by", card, "--collateral-cache", cache
        )


def routes(parts: dict[str, bytes], tee: str, fmspc: str) -> dict[str, Canned]:
    def signed(name: str, member: str, header: str) -> Canned:
        body = b'{"%s":%s,"signature":"%s"}' % (member.encode(), parts[name], parts[f"{name}_signature"].hex().encode())
        return Canned(body=body, media=JSON, headers={header: quote(parts[f"{name}_issuer_chain"].decode())})

    chain = {"SGX-PCK-CRL-Issuer-Chain": quote(parts["pck_crl_issuer_chain"].decode())}
    lists = {
        f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der": Canned(body=parts["pck_crl"], headers=chain)
        for ca in ("platform", "processor")
    }
    return lists | {
        "/sgx/certification/v4/rootcacrl": Canned(body=parts["root_ca_crl"]),
        f"/{tee}/certification/v4/tcb?fmspc={fmspc.upper()}": signed("tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain"),
        f"/{tee}/certification/v4/qe/identity": signed(
            "qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"
        ),
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A party that reaches a cache of Intel's service, on the day of a recorded TDX quote."""
    vector = next(v for v in recorded.load(EVIDENCE, "tdx") if "gotdx_quote_v5" in v.name)
    parts = {part.name: part.data for part in recorded_collateral(vector.fields["collateral"]).parts}
    monkeypatch.setattr(SystemClock, "now", lambda self: vector.at)
    record = Evidence(platform="tdx", statement=vector.read("evidence"), parts=())
    (tmp_path / "evidence.json").write_bytes(record.encode())
    made = kakoi("party", "new", tmp_path / "party", "--name", "Clinic A", "--key-file", tmp_path / "key")
    assert made.exit_code == 0, made.output
    with VendorServer(routes(parts, "tdx", vector.fields["fmspc"])) as server:
        yield Place(directory=tmp_path, evidence=tmp_path / "evidence.json", url=server.url, record=record)


@here
def test_a_bundle_from_one_machine_serves_a_broker_on_another(place: Place) -> None:
    made = place.bundle("--collateral-from", f"intel={place.url}")
    assert made.exit_code == 0, made.output
    assert made.stdout.split() == ["intel/tdx/90c06f000000/platform"]
    taken = place.take()
    assert taken.exit_code == 0, taken.output
    assert taken.stdout == made.stdout
    assert "Took 1 pieces signed by Clinic A" in taken.stderr
    assert "Took 0" in place.take().stderr
    near = command.source(None, place.directory / "near", "", None)
    now = SystemClock().now()
    verified = HARDWARE["tdx"].verify(place.record, near.collateral(place.record, now), now=now)
    assert verified.claims.tcb_status == "UpToDate"


@here
def test_a_bundle_travels_through_the_hub(place: Place, tmp_path: Path) -> None:
    """One machine reaches Intel; the broker's reaches only the hub, which is a real one."""
    assert place.bundle("--collateral-from", f"intel={place.url}").exit_code == 0
    token = tmp_path / "operator.token"
    token.write_text("0" * 64)
    token.chmod(0o600)
    near, card = place.directory / "near", place.directory / "party" / "card.dsse"
    kakoi("party", "new", place.directory / "other", "--name", "Other", "--key-file", place.directory / "key2")
    settings = Settings(directory=tmp_path / "hub", port=0, operator_token_file=token)
    with running(settings) as hub, client_of(hub) as client:
        keys: list[str | Path] = ["--party", place.directory / "party", "--key-file", place.directory / "key"]
        fetch: list[str | Path] = ["collateral", "fetch", "--hub", hub.url, *keys]
        fetch += ["--collateral-cache", near, "--signed-by"]
        empty = kakoi(*fetch, card)
        assert (empty.exit_code, empty.stdout) == (0, ""), empty.output
        published = kakoi(
            "collateral", "publish", place.directory / "bundle.dsse", "--signed-by", card, "--hub", hub.url, *keys
        )
        assert published.exit_code == 0, published.output
        assert kakoi(*fetch, place.directory / "other" / "card.dsse").stdout == "", "a stranger's bundles are not read"
        source = command.source(None, near, "", None, bundles=[card], hub=client)
        now = SystemClock().now()
        verified = HARDWARE["tdx"].verify(place.record, source.collateral(place.record, now), now=now)
        assert verified.claims.tcb_status == "UpToDate"
        again = kakoi(*fetch, card)
        assert "Took 0 pieces" in again.stderr, "what is kept is as new"
        # Without the owner's word about whose bundles to read, nothing comes from the hub.
        with pytest.raises(KakoiError) as caught:
            command.source(None, tmp_path / "elsewhere", "", None, hub=client).collateral(place.record, now)
        assert caught.value.code == "collateral.absent"


@here
def test_only_good_bundles_are_published(place: Place) -> None:
    assert place.bundle("--collateral-from", f"intel={place.url}").exit_code == 0
    kakoi("party", "new", place.directory / "other", "--name", "Other", "--key-file", place.directory / "key2")
    other = place.directory / "other" / "card.dsse"
    where = ("--hub", "http://127.0.0.1:9", "--party", place.directory / "party", "--key-file", place.directory / "key")
    ran = kakoi("collateral", "publish", place.directory / "bundle.dsse", "--signed-by", other, *where)
    assert ran.exit_code == 4


@here
def test_a_bundle_of_another_party_or_with_another_byte_is_refused(place: Place) -> None:
    assert place.bundle("--collateral-from", f"intel={place.url}").exit_code == 0
    kakoi("party", "new", place.directory / "other", "--name", "Other", "--key-file", place.directory / "key2")
    assert place.take(place.directory / "other" / "card.dsse").exit_code == 4
    file = place.directory / "bundle.dsse"
    value = json.loads(file.read_bytes())
    text = value["payload"]
    value["payload"] = text[:5000] + ("A" if text[5000] != "A" else "B") + text[5001:]
    file.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")))
    assert place.take().exit_code in (3, 4)
    assert not (place.directory / "near").exists()


@here
def test_nobody_is_asked_who_was_not_named(place: Place) -> None:
    silent = place.bundle()
    assert silent.exit_code == 5
    assert "collateral.absent" in silent.output
    assert not (place.directory / "bundle.dsse").exists()


@here
def test_what_is_kept_is_used_when_the_service_is_gone_and_that_is_said(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.bundle("--collateral-from", f"intel={place.url}").exit_code == 0
    later = SystemClock().now() + 86400
    monkeypatch.setattr(SystemClock, "now", lambda self: later)
    again = place.bundle("--collateral-from", "intel=http://127.0.0.1:9")
    assert again.exit_code == 0
    assert "the kept ones are used" in again.stderr
    assert "collateral.unreachable" in again.stderr


def test_evidence_of_the_software_platform_has_nothing_to_fetch(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_bytes(Evidence(platform="software", statement=b"q", parts=()).encode())
    result = kakoi(
        "collateral", "bundle", "--party", tmp_path, "--for", tmp_path / "e.json", "--out", tmp_path / "b",
        "--collateral-cache", tmp_path / "c",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "collateral.nothing" in result.output


def test_where_a_broker_gets_its_endorsements(tmp_path: Path) -> None:
    file, cache = tmp_path / "file", tmp_path / "cache"
    assert isinstance(command.source(file, None, "", None), FileCollateral)
    assert isinstance(command.source(None, cache, "intel,amd,aws", None), KeptCollateral)
    assert isinstance(command.source(file, cache, "", None), SplitCollateral)
    for wrong in (
        (None, None, "", None),
        (None, None, "intel", None),
        (file, None, "intel", None),
        (file, None, "", file),
        (None, cache, "nobody", None),
        (None, cache, "intel", tmp_path / "missing.pem"),
    ):
        with pytest.raises(Misuse):
            command.source(*wrong)
    file.write_text("no certificate")
    with pytest.raises(KakoiError) as caught:
        command.source(None, cache, "intel", file)
    assert caught.value.code == "collateral.ca"


def test_a_broker_needs_to_be_told(tmp_path: Path) -> None:
    kakoi("party", "new", tmp_path / "party", "--name", "Clinic", "--key-file", tmp_path / "key")
    options: list[str | Path] = [
        "--party",
        tmp_path / "party",
        "--hub",
        "http://127.0.0.1:9",
        "--key-file",
        tmp_path / "key",
    ]
    result = kakoi("broker", "serve", *options)
    assert result.exit_code == 2
    assert "collateral.source-missing" in result.output
