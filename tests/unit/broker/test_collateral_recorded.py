"""Recorded evidence of real machines: what is asked for it, and that the vendors' recorded words pass under the pinned roots."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote

import pytest

from kakoi.attest.report import Evidence, PlatformKind
from kakoi.broker.collateral import KeptCollateral, KeptPieces
from kakoi.broker.collateral_amd import AmdList, AmdVcek
from kakoi.broker.collateral_aws import AwsLists
from kakoi.broker.collateral_pieces import PINNED, Services
from kakoi.broker.collateral_wants import wants
from kakoi.core.errors import Refused
from kakoi.testing import recorded
from kakoi.testing.collateral_servers import JSON, Canned, VendorServer
from kakoi.testing.dcap_vendor_corpus import EVIDENCE, recorded_collateral
from kakoi.testing.recorded import Recorded
from support.collateral import GET, by_name

pytestmark = pytest.mark.skipif(not EVIDENCE.is_dir(), reason="recorded evidence is not here (KAKOI_SHARED)")
INTEL = recorded.load(EVIDENCE, "sgx", "tdx")
SNP = recorded.load(EVIDENCE, "snp")
NITRO = recorded.load(EVIDENCE, "nitro")


def names(vectors: list[Recorded]) -> list[str]:
    return [vector.name for vector in vectors]


def intel_evidence(vector: Recorded) -> Evidence:
    platform: PlatformKind = "sgx" if vector.kind == "sgx" else "tdx"
    return Evidence(platform=platform, statement=vector.read("evidence"), parts=())


@pytest.mark.parametrize("vector", INTEL, ids=names(INTEL))
def test_intels_recorded_words_are_genuine_and_about_what_is_asked(vector: Recorded) -> None:
    ((want,),) = wants(intel_evidence(vector))
    assert want.asked.startswith(f"intel/{vector.kind}/{vector.fields['fmspc']}/")
    parts = by_name(recorded_collateral(vector.fields["collateral"]))
    dates = want.check(parts, vector.at, PINNED)
    assert all(date <= vector.at for date in dates)
    assert len(dates) == 4


def test_intels_recorded_words_over_http(tmp_path: Path) -> None:
    """As the service sends them: the signed text is cut out of the answer byte for byte, and still verifies."""
    vector = INTEL[0]
    parts = by_name(recorded_collateral(vector.fields["collateral"]))
    ((want,),) = wants(intel_evidence(vector))
    _, tee, fmspc, ca = want.asked.split("/")

    def signed(name: str, member: str, header: str) -> Canned:
        body = b'{"%s":%s,"signature":"%s"}' % (member.encode(), parts[name], parts[f"{name}_signature"].hex().encode())
        return Canned(body=body, media=JSON, headers={header: quote(parts[f"{name}_issuer_chain"].decode())})

    chain = quote(parts["pck_crl_issuer_chain"].decode())
    routes = {
        f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der": Canned(
            body=parts["pck_crl"], headers={"SGX-PCK-CRL-Issuer-Chain": chain}
        ),
        "/sgx/certification/v4/rootcacrl": Canned(body=parts["root_ca_crl"].hex().encode()),
        f"/{tee}/certification/v4/tcb?fmspc={fmspc.upper()}": signed("tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain"),
        f"/{tee}/certification/v4/qe/identity": signed(
            "qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"
        ),
    }
    with VendorServer(routes) as server:
        source = KeptCollateral(KeptPieces(tmp_path), services=Services(intel=server.url), get=GET, tell=lambda _: None)
        assert by_name(source.collateral(intel_evidence(vector), vector.at)) == parts


@pytest.mark.parametrize("vector", SNP, ids=names(SNP))
def test_the_certificate_asked_of_amd_is_the_recorded_one(vector: Recorded) -> None:
    evidence, collateral = recorded.snp(vector)
    parts = by_name(collateral)
    alternatives = wants(evidence)
    products = [needed[1].product for needed in alternatives if isinstance(needed[1], AmdList)]
    assert vector.expect["product"].title() in products
    needed = alternatives[products.index(vector.expect["product"].title())]
    if vector.expect["signing_key"] == "VLEK":
        assert needed[0].asked.endswith("/vlek/chain")
        assert needed[0].check({n: parts[n] for n in ("intermediate", "root")}, vector.at, PINNED)
        return
    assert isinstance(needed[0], AmdVcek)
    if "invalid" in vector.fields["cert"]:  # upstream's negative vectors: nobody at AMD signed these
        with pytest.raises(Refused) as caught:
            needed[0].check(parts, vector.at, PINNED)
        assert caught.value.code == "x509.signature"
    else:
        assert needed[0].check(parts, vector.at, PINNED)


@pytest.mark.parametrize("vector", NITRO, ids=names(NITRO))
def test_every_recorded_nitro_document_says_where_its_lists_are(vector: Recorded) -> None:
    data = vector.read("evidence")
    if vector.fields["evidence"].endswith(".b64"):
        data = base64.b64decode(data)
    ((want,),) = wants(Evidence(platform="nitro", statement=data, parts=()))
    assert isinstance(want, AwsLists)
    assert want.region == "us-east-1"
