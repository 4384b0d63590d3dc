"""Producers against devices that answer like the kernel's; what they bring is judged by the real verifiers."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from kakoi.attest.nitro.verifier import NitroVerifier
from kakoi.attest.report import Collateral, Evidence, Part
from kakoi.attest.sgx.verify import SgxVerifier
from kakoi.attest.snp.verifier import SnpVerifier
from kakoi.core.errors import KakoiError
from kakoi.evidence.gramine import GramineProducer
from kakoi.evidence.nsm import MAX_RESPONSE, NsmProducer, document_of, request_for
from kakoi.evidence.tsm import TsmProducer
from kakoi.testing import amd_vendor, nitro_vendor, x509_kit
from kakoi.testing.dcap_vendor import NOW as DCAP_NOW
from kakoi.testing.dcap_vendor import Vendor, sgx_body, td_body
from kakoi.testing.dcap_vendor_corpus import verifier_of
from kakoi.testing.device_trees import Configfs, GramineFiles

DATA = bytes(range(64))
OTHER = bytes(64)


def names() -> Callable[[], str]:
    count = itertools.count()
    return lambda: f"kakoi-{next(count)}"


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def snp() -> tuple[Configfs, amd_vendor.AmdVendor, amd_vendor.Chip]:
    vendor = amd_vendor.vendor("Genoa")
    chip = vendor.chip()
    return Configfs(quote=lambda data: vendor.signed(chip, report_data=data)), vendor, chip


def as_collateral(parts: dict[str, bytes]) -> Collateral:
    return Collateral(parts=tuple(Part(name=name, data=data) for name, data in parts.items()))


def test_an_snp_guests_report_is_believed() -> None:
    tree, vendor, chip = snp()
    evidence = TsmProducer(tree, name=names(), privilege_level=0).evidence(DATA)
    verified = SnpVerifier(vendor.roots).verify(evidence, as_collateral(vendor.collateral(chip)), now=x509_kit.NOW)
    assert (evidence.platform, verified.claims.report_data) == ("snp", DATA.hex())
    assert tree.levels == [0]
    assert tree.entries == {}, "the conversation is removed"


def test_the_hosts_certificates_come_along() -> None:
    tree, _, _ = snp()
    tree.auxiliary = b"table"
    assert [part.name for part in TsmProducer(tree, name=names()).evidence(DATA).parts] == ["certificates"]


def test_a_td_guests_quote_is_believed() -> None:
    vendor = Vendor()
    tree = Configfs(
        quote=lambda data: vendor.quote(td_body("td-1.5", report_data=data), kind="td-1.5"), provider="tdx_guest"
    )
    evidence = TsmProducer(tree, name=names()).evidence(DATA)
    verified = verifier_of("td-1.5", vendor.roots).verify(evidence, vendor.collateral("td-1.5"), now=DCAP_NOW)
    assert (evidence.platform, verified.claims.report_data) == ("tdx", DATA.hex())


def test_another_writer_once_is_survived() -> None:
    """Somebody writes his own question between ours and the answer; the second conversation is ours alone."""
    tree, _, _ = snp()

    def disturb(found: Configfs, path: str) -> None:
        if len(found.made) == 1:
            found.write(f"{path}/inblob", OTHER)

    tree.between = disturb
    evidence = TsmProducer(tree, name=names()).evidence(DATA)
    assert len(tree.made) == 2
    assert DATA in evidence.statement


def test_another_writer_always_is_an_error() -> None:
    tree, _, _ = snp()
    tree.between = lambda found, path: found.write(f"{path}/inblob", OTHER)
    assert code(lambda: TsmProducer(tree, name=names()).evidence(DATA)) == "evidence.race"
    assert tree.entries == {}


def test_the_kernels_own_word_of_a_race() -> None:
    tree, _, _ = snp()

    def would_block(found: Configfs, path: str) -> None:
        if len(found.made) == 1:
            raise OSError(errno.EWOULDBLOCK, "race")

    tree.between = would_block
    TsmProducer(tree, name=names()).evidence(DATA)
    assert len(tree.made) == 2


def test_a_name_that_is_taken_is_not_used() -> None:
    tree, _, _ = snp()
    tree.make(f"{tree.root}/kakoi-0")
    TsmProducer(tree, name=names()).evidence(DATA)
    assert list(tree.entries) == [f"{tree.root}/kakoi-0"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV, errno.ETIMEDOUT, errno.EPERM])
def test_a_device_that_fails(number: int) -> None:
    tree, _, _ = snp()

    def fail(found: Configfs, path: str) -> None:
        raise OSError(number, "no")

    tree.between = fail
    assert code(lambda: TsmProducer(tree, name=names()).evidence(DATA)) == "evidence.device"
    assert tree.entries == {}


def test_no_configfs_at_all() -> None:
    tree, _, _ = snp()
    assert code(lambda: TsmProducer(tree, name=names(), root="/nowhere").evidence(DATA)) == "evidence.device"


def test_answers_that_are_wrong() -> None:
    tree, _, _ = snp()
    assert code(lambda: TsmProducer(replace(tree, provider="arm_cca_guest"), name=names()).evidence(DATA)) == (
        "evidence.provider"
    )
    huge = replace(tree, quote=lambda data: bytes(2 * 1024 * 1024))
    assert code(lambda: TsmProducer(huge, name=names()).evidence(DATA)) == "evidence.answer-size"
    for length in (0, 63, 65):
        data = bytes(length)
        assert code(lambda data=data: TsmProducer(tree, name=names()).evidence(data)) == "evidence.report-data"  # type: ignore[misc]


def gramine(vendor: Vendor) -> GramineFiles:
    return GramineFiles(quote=lambda data: vendor.quote(sgx_body(report_data=data)))


def test_a_gramine_enclaves_quote_is_believed() -> None:
    vendor = Vendor()
    evidence = GramineProducer(gramine(vendor)).evidence(DATA)
    verified = SgxVerifier(vendor.roots).verify(evidence, vendor.collateral(), now=DCAP_NOW)
    assert verified.claims.report_data == DATA.hex()


def test_gramine_that_is_no_enclave_or_disturbed() -> None:
    files = gramine(Vendor())
    assert code(lambda: GramineProducer(replace(files, kind=b"none")).evidence(DATA)) == "evidence.gramine"
    assert code(lambda: GramineProducer(files, root="/nowhere").evidence(DATA)) == "evidence.device"
    files.between = lambda found: found.write(f"{found.root}/user_report_data", OTHER)
    assert code(lambda: GramineProducer(files).evidence(DATA)) == "evidence.race"


def nsm(request: bytes) -> bytes:
    """A Nitro device: reads the request as AWS' library encodes it, signs a document."""
    head, tail = request_for(DATA).split(DATA)
    assert request.startswith(head)
    assert request.endswith(tail)
    document = nitro_vendor.vendor().document(user_data=request[len(head) : len(request) - len(tail)])
    return nitro_vendor.encode({"Attestation": {"document": document}})


def test_a_nitro_enclaves_document_is_believed() -> None:
    evidence: Evidence = NsmProducer(nsm).evidence(DATA)
    verified = NitroVerifier(nitro_vendor.vendor().roots).verify(evidence, Collateral(parts=()), now=x509_kit.NOW)
    assert verified.claims.report_data == DATA.hex()


def test_the_nsm_request_is_what_aws_encodes() -> None:
    wanted = {"Attestation": {"user_data": DATA, "nonce": None, "public_key": None}}
    assert request_for(DATA) == nitro_vendor.encode(wanted)


def test_nsm_answers_that_are_wrong() -> None:
    good = nsm(request_for(DATA))
    assert document_of(good)
    for bad in (b"", good[:-1], good + b"\0", good[1:], nitro_vendor.encode({"Attestation": {}})):
        assert code(lambda bad=bad: document_of(bad)) == "evidence.nsm-answer"  # type: ignore[misc]
    error = nitro_vendor.encode({"Error": "InvalidArgument"})
    assert code(lambda: NsmProducer(lambda request: error).evidence(DATA)) == "evidence.nsm-error"
    assert code(lambda: NsmProducer(lambda request: bytes(MAX_RESPONSE + 1)).evidence(DATA)) == "evidence.answer-size"

    def missing(request: bytes) -> bytes:
        raise FileNotFoundError(errno.ENOENT, "no device")

    assert code(lambda: NsmProducer(missing).evidence(DATA)) == "evidence.device"
