"""The Azure producer against a real TPM (swtpm) that holds what a confidential VM's vTPM holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.attest import jose
from kakoi.attest.azure.verifier import AzureSnpVerifier
from kakoi.attest.report import Collateral, Part
from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError
from kakoi.evidence.azure import ATTESTATION_KEY, REPORT_INDEX, AzureProducer
from kakoi.evidence.tpm import Tpm
from kakoi.testing import azure_vendor, x509_kit
from kakoi.testing.swtpm import Swtpm

DATA = bytes(range(64))
pytestmark = pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed (apt-get install swtpm)")


@pytest.fixture
def tpm(tmp_path: Path) -> Iterator[Swtpm]:
    with Swtpm(tmp_path / "tpm") as found:
        yield found


def prepared(tpm: Swtpm) -> azure_vendor.Guest:
    """Give the TPM an attestation key and an HCL report about it; returns the guest whose hardware signed that report."""
    public = tpm.make_attestation_key(ATTESTATION_KEY)
    guest = azure_vendor.guest()
    (jwk,) = guest.claims["keys"] = [key for key in guest.claims["keys"] if key["kid"] == "HCLAkPub"]
    jwk["n"] = jose.b64url(public[-256:])
    # swtpm's NV indices end at 2048 bytes, Azure's at 2600: the zeros that fill the index are left out.
    tpm.store(REPORT_INDEX, guest.statement().rstrip(b"\0"))
    return guest


def producer(tpm: Swtpm, guest: azure_vendor.Guest) -> AzureProducer:
    parts = guest.vendor.collateral(guest.chip)
    certificates = tuple(Part(name=name, data=parts[name]) for name in ("vcek", "intermediate", "root"))

    def no_quote(report: bytes) -> bytes:
        raise AssertionError("an SNP guest asks for no TD quote")

    return AzureProducer(tpm.tpm, td_quote=no_quote, certificates=lambda: certificates)


def test_a_guest_with_a_real_tpm_is_believed(tpm: Swtpm) -> None:
    guest = prepared(tpm)
    tpm.extend(4, sha256(b"boot loader"))
    evidence = producer(tpm, guest).evidence(DATA)
    crl = Collateral(parts=(Part(name="crl", data=guest.vendor.collateral(guest.chip)["crl"]),))
    verified = AzureSnpVerifier(guest.vendor.roots).verify(evidence, crl, now=x509_kit.NOW)
    assert verified.claims.report_data == DATA.hex()
    pcr4 = next(m.value for m in verified.claims.measurements if m.name == "pcr4")
    assert pcr4 == sha256(bytes(32), sha256(b"boot loader")).hex()


def test_a_pcr_that_moves_is_an_error(tpm: Swtpm) -> None:
    guest = prepared(tpm)
    calls = []

    def channel(command: bytes) -> bytes:
        if command[6:10] == (0x158).to_bytes(4, "big"):
            tpm.extend(11, sha256(b"meanwhile"))
        calls.append(command)
        return tpm.send(command)

    tpm.tpm = Tpm(channel)
    with pytest.raises(KakoiError) as caught:
        producer(tpm, guest).evidence(DATA)
    assert caught.value.code == "evidence.race"


def test_a_tpm_that_is_not_azures(tpm: Swtpm) -> None:
    guest = azure_vendor.guest()
    with pytest.raises(KakoiError) as caught:
        producer(tpm, guest).evidence(DATA)
    assert caught.value.code == "evidence.tpm-refused"
    tpm.store(REPORT_INDEX, bytes(2000))
    with pytest.raises(KakoiError) as caught:
        producer(tpm, guest).evidence(DATA)
    assert caught.value.code == "evidence.hcl"


def test_the_td_report_goes_to_the_metadata_service(tpm: Swtpm) -> None:
    tpm.make_attestation_key(ATTESTATION_KEY)
    report = azure_vendor.td_report(bytes(64))
    tpm.store(REPORT_INDEX, azure_vendor.hcl(report, b"{}", kind=4).rstrip(b"\0"))
    asked: list[bytes] = []

    def td_quote(found: bytes) -> bytes:
        asked.append(found)
        return b"quote"

    evidence = AzureProducer(tpm.tpm, td_quote=td_quote, certificates=tuple).evidence(DATA)
    assert evidence.platform == "azure-tdx"
    assert asked == [report]
    assert next(part.data for part in evidence.parts if part.name == "td-quote") == b"quote"
