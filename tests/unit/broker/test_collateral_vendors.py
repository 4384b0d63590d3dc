"""Vendors' answers: fetched, told apart from lies, and good enough for the verifiers that use them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.attest.azure.verifier import AzureSnpVerifier
from kakoi.attest.nitro.verifier import NitroVerifier
from kakoi.attest.report import Evidence, Part
from kakoi.attest.snp.parse import Product
from kakoi.attest.snp.verifier import SnpVerifier
from kakoi.core.errors import Unavailable
from kakoi.core.x509_fields import to_pem
from kakoi.testing import amd_vendor, azure_vendor, nitro_vendor
from kakoi.testing import x509_kit as kit
from kakoi.testing.amd_vendor import certificate_table
from kakoi.testing.collateral_servers import (
    REGION_LIST,
    ROOT_LIST,
    Canned,
    VendorServer,
    amd_routes,
    aws_routes,
    intel_routes,
    listed_nitro,
    signed_answer,
)
from kakoi.testing.dcap_vendor import DAY, NOW, Vendor
from kakoi.testing.dcap_vendor_corpus import KINDS, verifier_of
from support.collateral import INTEL, OTHER_INTEL, Site, by_name, snp_evidence

VCEK_GUID = "63da758d-e664-4564-adc5-f4b93be8accd"
VLEK_GUID = "a8074bc2-a25a-483e-aae6-39c045a0b8a1"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with VendorServer() as server:
        yield Site(tmp_path / "collateral", server)


def lies(site: Site, evidence: Evidence, now: int = NOW) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        site.source().collateral(evidence, now)
    assert not list(site.directory.glob("*")), "a lie was kept"
    return caught.value


# --- Intel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hex_lists", [False, True], ids=["pcs", "pccs"])
def test_intels_answers_are_what_the_verifier_needs(site: Site, kind: str, hex_lists: bool) -> None:
    site.server.routes.update(intel_routes(INTEL, kind, hex_lists=hex_lists))  # type: ignore[arg-type]
    evidence = INTEL.evidence(kind=kind)  # type: ignore[arg-type]
    collateral = site.source().collateral(evidence, NOW)
    tcb_info = by_name(collateral)["tcb_info"]
    assert tcb_info in next(canned.body for path, canned in site.server.routes.items() if "tcb?" in path)
    verified = verifier_of(kind, INTEL.roots).verify(evidence, collateral, now=NOW)  # type: ignore[arg-type]
    assert verified.claims.tcb_status == "UpToDate"
    assert len(site.server.asked) == 4


def test_signed_bytes_stay_as_the_vendor_wrote_them(site: Site) -> None:
    """Blanks, order and unknown members inside the signed text survive; the members around it may come in any order."""
    spaced = b'{ "version" : 3 ,\n "x":[1, {"y":"}\\"{"}]}'
    from kakoi.broker.collateral_intel import signed_member

    signature = "Ab" * 64
    for body in (
        b'{"tcbInfo":' + spaced + b',"signature":"' + signature.encode() + b'"}',
        b' {\n"signature" : "' + signature.encode() + b'" , "tcbInfo" :\t' + spaced + b" }\r\n",
    ):
        assert signed_member(body, "tcbInfo") == (spaced, bytes.fromhex(signature))


def _intel_lies() -> dict[str, dict[str, Canned]]:
    tcb = f"/sgx/certification/v4/tcb?fmspc={INTEL.fmspc.hex().upper()}"
    qe = "/sgx/certification/v4/qe/identity"
    crl = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"
    good, other = intel_routes(INTEL), intel_routes(OTHER_INTEL)

    def tampered(path: str, old: bytes, new: bytes) -> dict[str, Canned]:
        assert old in good[path].body
        return {path: replace(good[path], body=good[path].body.replace(old, new))}

    foreign = signed_answer(INTEL, "tcb_info", "tcbInfo", {**INTEL.tcb_info(), "fmspc": "00606A000000"})
    as_tdx = signed_answer(INTEL, "qe_identity", "enclaveIdentity", INTEL.qe_identity("td-1.5"))
    old = Vendor(root=INTEL.root, issued=NOW - 60 * DAY, next_update=NOW - 30 * DAY)
    future = Vendor(root=INTEL.root, issued=NOW + DAY)
    lists = Vendor(root=INTEL.root, crl_window=(NOW - 60 * DAY, NOW - DAY))
    header = good[tcb].headers
    return {
        "signed by another root": other,
        "TCB info of another root": {tcb: other[tcb]},
        "list of another root": {crl: other[crl]},
        "chain of another root": {tcb: replace(good[tcb], headers=other[tcb].headers)},
        "another FMSPC": {tcb: Canned(body=foreign, media="application/json", headers=header)},
        "identity of another enclave": {qe: Canned(body=as_tdx, media="application/json", headers=good[qe].headers)},
        "a bit of the TCB info": tampered(tcb, b'"UpToDate"', b'"UpToDatf"'),
        "another status": tampered(tcb, b'"OutOfDate"', b'"UpToDate"'),
        "a bit of the signature": tampered(qe, b'"signature":"', b'"signature":"00'),
        "stale": intel_routes(old),
        "from the future": intel_routes(future),
        "stale lists": intel_routes(lists),
        "the other list": {crl: Canned(body=good["/sgx/certification/v4/rootcacrl"].body, headers=good[crl].headers)},
        "no chain": {tcb: Canned(body=good[tcb].body, media="application/json")},
        "a page": {tcb: Canned(body=b"<html>please log in</html>", media="text/html")},
        "a page as JSON": {tcb: Canned(body=b"<html>please log in</html>", media="application/json", headers=header)},
        "cut": {tcb: replace(good[tcb], drop=9)},
        "cut and announced so": {tcb: replace(good[tcb], body=good[tcb].body[:-9])},
        "huge": {tcb: replace(good[tcb], body=good[tcb].body + b" " * 2**20)},
        "redirected": {tcb: Canned(body=b"", status=302, headers={"Location": "https://example.org/"})},
        "silent": {tcb: Canned(body=b"", silent=True)},
        "unknown platform": {tcb: Canned(body=b"", status=404)},
    }


@pytest.mark.parametrize("name", _intel_lies())
def test_a_lie_about_intel_is_never_kept(site: Site, name: str) -> None:
    site.server.routes.update({**intel_routes(INTEL), **_intel_lies()[name]})
    error = lies(site, INTEL.evidence())
    assert error.code in ("collateral.answer", "collateral.not-genuine", "collateral.timeout")


@pytest.mark.parametrize("name", _intel_lies())
def test_a_lie_never_takes_the_place_of_a_good_answer(site: Site, name: str) -> None:
    site.server.routes.update(intel_routes(INTEL))
    good = site.source().collateral(INTEL.evidence(), NOW)
    site.server.routes.update(_intel_lies()[name])
    later = NOW + DAY // 2
    assert site.source().collateral(INTEL.evidence(), later) == good
    assert len(site.told) == 1


def test_an_older_answer_never_takes_the_place_of_a_newer_one(site: Site) -> None:
    """A cache that lags behind, or a replay: genuine, in its window, and older than what is here."""
    site.server.routes.update(intel_routes(INTEL))
    good = site.source().collateral(INTEL.evidence(), NOW)
    older = Vendor(root=INTEL.root, issued=INTEL.issued - 1)
    site.server.routes.update(intel_routes(older))
    assert site.source().collateral(INTEL.evidence(), NOW + DAY // 2) == good
    assert site.told == ["collateral.older"]


def test_a_list_that_revokes_its_own_signers_is_kept(site: Site) -> None:
    """Genuine and bad news: it has to reach the verifier, which then refuses. An older, kinder answer must not win."""
    vendor = Vendor()
    vendor.root.revoked.append(vendor.ca.certificate.serial)
    from kakoi.broker.collateral_wants import wants
    from support.collateral import anchors

    ((want,),) = wants(vendor.evidence())
    assert want.check(vendor.parts(), NOW, anchors(vendor))


# --- AMD -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_amds_answers_are_what_the_verifier_needs(site: Site, product: Product) -> None:
    site.product = product
    vendor = amd_vendor.vendor(product)
    chip = vendor.chip()
    site.server.routes.update(amd_routes(vendor, chip))
    evidence = snp_evidence(vendor.signed(chip))
    collateral = site.source().collateral(evidence, kit.NOW)
    verified = SnpVerifier(vendor.roots).verify(evidence, collateral, now=kit.NOW)
    assert verified.claims.product == product
    assert {fact.name: fact.value for fact in verified.claims.settings}["revocation"] == "checked"
    wanted = next(path for path in site.server.asked if chip.hwid.hex() in path)
    assert ("fmcSPL=1&blSPL=2" in wanted) == (product == "Turin")
    assert len(chip.hwid) == (8 if product == "Turin" else 64)


def test_a_report_that_does_not_say_its_product(site: Site) -> None:
    """Version 2 has no CPUID: the lines that wrote it are asked in turn."""
    vendor = amd_vendor.vendor("Genoa")
    chip = vendor.chip()
    site.server.routes.update(amd_routes(vendor, chip))
    evidence = snp_evidence(vendor.signed(chip, version=2))
    collateral = site.source().collateral(evidence, kit.NOW)
    assert SnpVerifier(vendor.roots).verify(evidence, collateral, now=kit.NOW).claims.product == "Genoa"


def test_the_hosts_certificate_is_used_if_it_fits(site: Site) -> None:
    vendor = amd_vendor.vendor("Genoa")
    chip = vendor.chip()
    site.server.routes.update(amd_routes(vendor))
    evidence = snp_evidence(vendor.signed(chip), certificate_table({VCEK_GUID: chip.certificate}))
    collateral = site.source().collateral(evidence, kit.NOW)
    assert set(by_name(collateral)) == {"intermediate", "root", "crl"}
    SnpVerifier(vendor.roots).verify(evidence, collateral, now=kit.NOW)


def test_the_hosts_certificate_of_another_version_is_not_used(site: Site) -> None:
    """go-sev-guest #72: after an update of firmware the host's table still has the certificate of the version before."""
    vendor = amd_vendor.vendor("Genoa")
    chip = vendor.chip()
    stale = vendor.chip(hwid=chip.hwid, tcb={**chip.tcb, "microcode": 1}, key=chip.key)
    site.server.routes.update(amd_routes(vendor, chip))
    evidence = snp_evidence(vendor.signed(chip), certificate_table({VCEK_GUID: stale.certificate}))
    collateral = site.source().collateral(evidence, kit.NOW)
    assert by_name(collateral)["vcek"] == chip.certificate
    SnpVerifier(vendor.roots).verify(evidence, collateral, now=kit.NOW)


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_vlek_comes_from_the_host_and_its_chain_from_amd(site: Site, product: Product) -> None:
    site.product = product
    vendor = amd_vendor.vendor(product)
    chip = vendor.chip("VLEK")
    site.server.routes.update(amd_routes(vendor, kind="VLEK"))
    evidence = snp_evidence(vendor.signed(chip), certificate_table({VLEK_GUID: chip.certificate}))
    collateral = site.source().collateral(evidence, kit.NOW)
    SnpVerifier(vendor.roots).verify(evidence, collateral, now=kit.NOW)
    assert site.server.asked[0] == f"/vlek/v1/{product}/cert_chain"


def test_vlek_of_a_report_without_cpuid(site: Site) -> None:
    vendor = amd_vendor.vendor("Genoa")
    chip = vendor.chip("VLEK")
    site.server.routes.update(amd_routes(vendor, kind="VLEK"))
    evidence = snp_evidence(vendor.signed(chip, version=2), certificate_table({VLEK_GUID: chip.certificate}))
    SnpVerifier(vendor.roots).verify(evidence, site.source().collateral(evidence, kit.NOW), now=kit.NOW)


def test_a_masked_chip_is_not_asked_for(site: Site) -> None:
    vendor = amd_vendor.vendor("Genoa")
    chip = vendor.chip()
    site.server.routes.update(amd_routes(vendor))
    evidence = snp_evidence(vendor.signed(chip, chip_id=bytes(64)))
    assert set(by_name(site.source().collateral(evidence, kit.NOW))) == {"intermediate", "root", "crl"}


def _amd_lies() -> dict[str, dict[str, bytes]]:
    vendor, other, another = amd_vendor.vendor("Genoa"), amd_vendor.vendor("Genoa", which=1), amd_vendor.vendor("Milan")
    ours = CHIP
    return {
        "chain of another root": {"cert_chain": to_pem(other.ask.der, other.ark.der)},
        "chain of another line": {"cert_chain": to_pem(another.ask.der, another.ark.der)},
        "chain for the other key": {"cert_chain": to_pem(vendor.asvk.der, vendor.ark.der)},
        "chain upside down": {"cert_chain": to_pem(vendor.ark.der, vendor.ask.der)},
        "half a chain": {"cert_chain": to_pem(vendor.ask.der)},
        "list of another root": {"crl": other.crl()},
        "stale list": {"crl": vendor.crl(window=(kit.NOW - 9, kit.NOW - 1))},
        "list of tomorrow": {"crl": vendor.crl(window=(kit.NOW + 1, kit.NOW + 9))},
        "another chip": {ours.hwid.hex(): vendor.chip().certificate},
        "another version": {ours.hwid.hex(): vendor.chip(hwid=ours.hwid, tcb={**ours.tcb, "snp": 1}).certificate},
        "a chip of another root": {ours.hwid.hex(): other.chip(hwid=ours.hwid).certificate},
        "an expired chip": {
            ours.hwid.hex(): vendor.chip(hwid=ours.hwid, validity=(kit.EPOCH, kit.NOW - 1)).certificate
        },
        "a chip cut": {ours.hwid.hex(): ours.certificate[:-1]},
        "a chip and more": {ours.hwid.hex(): ours.certificate + b"\0"},
        "nothing": {ours.hwid.hex(): b""},
    }


CHIP = amd_vendor.vendor("Genoa").chip()


@pytest.mark.parametrize("name", _amd_lies())
def test_a_lie_about_amd_is_never_used(site: Site, name: str) -> None:
    vendor = amd_vendor.vendor("Genoa")
    site.server.routes.update(amd_routes(vendor, CHIP))
    for part, body in _amd_lies()[name].items():
        site.server.change(part, body=body)
    with pytest.raises(Unavailable) as caught:
        site.source().collateral(snp_evidence(vendor.signed(CHIP)), kit.NOW)
    assert caught.value.code == "collateral.not-genuine"


def test_amds_list_that_revokes_reaches_the_verifier(site: Site) -> None:
    vendor = amd_vendor.vendor("Genoa")
    site.server.routes.update(amd_routes(vendor, CHIP))
    site.server.change("/crl", body=vendor.crl(revoked=[vendor.ask.certificate.serial]))
    evidence = snp_evidence(vendor.signed(CHIP))
    collateral = site.source().collateral(evidence, kit.NOW)
    with pytest.raises(Exception, match="revoked by the vendor"):
        SnpVerifier(vendor.roots).verify(evidence, collateral, now=kit.NOW)


# --- Azure -----------------------------------------------------------------------------------------------------------


def test_an_azure_guest_on_snp_needs_what_its_processor_needs(site: Site) -> None:
    site.product = "Milan"
    guest = azure_vendor.guest("Milan")
    site.server.routes.update(amd_routes(guest.vendor, guest.chip))
    collateral = site.source().collateral(guest.evidence(), kit.NOW)
    assert set(by_name(collateral)) == {"vcek", "intermediate", "root", "crl"}
    verified = AzureSnpVerifier(guest.vendor.roots).verify(guest.evidence(), collateral, now=kit.NOW)
    assert verified.claims.platform == "azure-snp"
    asked = len(site.server.asked)
    given = guest.evidence(vcek=guest.chip.certificate)
    collateral = site.source().collateral(given, kit.NOW)
    assert set(by_name(collateral)) == {"intermediate", "root", "crl"}
    AzureSnpVerifier(guest.vendor.roots).verify(given, collateral, now=kit.NOW)
    assert len(site.server.asked) == asked + 1


def test_an_azure_guest_on_tdx_needs_what_its_quote_needs(site: Site) -> None:
    site.server.routes.update(intel_routes(INTEL, "td-1.5"))
    parts = (Part(name="td-quote", data=INTEL.quote(kind="td-1.5")),)
    evidence = Evidence(platform="azure-tdx", statement=b"the paravisor's report", parts=parts)
    assert site.source().collateral(evidence, NOW) == site.source().collateral(INTEL.evidence(kind="td-1.5"), NOW)


# --- AWS -------------------------------------------------------------------------------------------------------------


def test_awss_lists_are_what_the_verifier_needs(site: Site) -> None:
    vendor = listed_nitro()
    site.server.routes.update(aws_routes(vendor))
    evidence = Evidence(platform="nitro", statement=vendor.document(), parts=())
    collateral = site.source().collateral(evidence, kit.NOW)
    verified = NitroVerifier(vendor.roots).verify(evidence, collateral, now=kit.NOW)
    assert {fact.name: fact.value for fact in verified.claims.settings}["revocation"] == "checked"
    assert sorted(site.server.asked) == sorted(f"/crl/{name}.crl" for name in (ROOT_LIST, REGION_LIST))


HOSTS = [
    ("http://example.org/crl/{root}.crl", ""),
    ("http://aws-nitro-enclaves-crl.s3.amazonaws.com.example.org/crl/{root}.crl", ""),
    ("http://example.org/?aws-nitro-enclaves-crl.s3.amazonaws.com/crl/{root}.crl", ""),
    ("http://aws-nitro-enclaves-crl.s3.amazonaws.com:22/crl/{root}.crl", ""),
    ("http://169.254.169.254/latest/meta-data", ""),
    ("http://aws-nitro-enclaves-crl.s3.amazonaws.com/crl/../{root}.crl", ""),
    ("", "http://crl-eu-central-1-aws-nitro-enclaves.s3.us-east-1.amazonaws.com/crl/{region}.crl"),
    ("", "http://crl-evil-aws-nitro-enclaves.s3.evil.amazonaws.com/crl/{region}.crl"),
    ("", "ftp://crl-eu-central-1-aws-nitro-enclaves.s3.eu-central-1.amazonaws.com/crl/{region}.crl"),
]


@pytest.mark.parametrize(("root_url", "region_url"), HOSTS)
def test_no_document_makes_a_broker_call_another_host(site: Site, root_url: str, region_url: str) -> None:
    """The verifier then says ``not checked``, and the policy decides."""
    names = {"root": ROOT_LIST, "region": REGION_LIST}
    vendor = listed_nitro(root_url.format(**names), region_url.format(**names))
    evidence = Evidence(platform="nitro", statement=vendor.document(), parts=())
    assert site.source().collateral(evidence, kit.NOW).parts == ()
    assert not site.server.asked


def test_documents_without_lists_ask_for_nothing(site: Site) -> None:
    evidence = Evidence(platform="nitro", statement=nitro_vendor.vendor().document(), parts=())
    assert site.source().collateral(evidence, kit.NOW).parts == ()


@pytest.mark.parametrize("which", [ROOT_LIST, REGION_LIST])
def test_a_lie_about_aws_is_never_kept(site: Site, which: str) -> None:
    vendor, other = listed_nitro(), nitro_vendor.vendor(1)
    evidence = Evidence(platform="nitro", statement=vendor.document(), parts=())
    for body in (
        other.root.crl(),
        other.regional.crl(),
        vendor.root.crl(window=(kit.NOW - 9, kit.NOW - 1)),
        b"no list",
    ):
        site.server.routes.update(aws_routes(vendor))
        site.server.change(which, body=body)
        assert lies(site, evidence, kit.NOW).code == "collateral.not-genuine"


# --- nobody to ask ---------------------------------------------------------------------------------------------------


def test_the_software_platform_has_no_vendor_to_ask(site: Site) -> None:
    evidence = Evidence(platform="software", statement=b"quote", parts=())
    assert site.source().collateral(evidence, NOW).parts == ()


def test_without_a_service_and_without_anything_kept(site: Site) -> None:
    site.offline = True
    assert lies(site, INTEL.evidence()).code == "collateral.absent"
