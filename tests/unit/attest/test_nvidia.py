"""NVIDIA devices: a report counts for one session, one chip and the firmware that signed it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.attest.nvidia import appraise, parse
from kakoi.attest.nvidia.verify import ROOTS, VerifiedDevice, verify
from kakoi.attest.policy import ReferenceValue, Unchecked
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.x509 import parse_certificate
from kakoi.evidence import mint
from kakoi.testing import attest_kit, nvidia_vendor, recorded
from kakoi.testing import x509_kit as kit

DEVICE = nvidia_vendor.device()
REPORT_DATA = bytes(range(64))
NONCE = appraise.nonce(REPORT_DATA)
FOLDER = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def prove(data: bytes, chain: list[bytes] | None = None, *, now: int = kit.NOW, **more: Any) -> VerifiedDevice:
    return verify(parse.parse(data), chain or DEVICE.chain(), now=now, **{"roots": DEVICE.roots, **more})


def test_good() -> None:
    for extension in (None, nvidia_vendor.composite_id(DEVICE.key.public.spki, nvidia_vendor.FIRMWARE)):
        verified = prove(DEVICE.report(NONCE), DEVICE.chain(DEVICE.leaf(extension)))
        assert (verified.model, verified.firmware) == (nvidia_vendor.MODEL, nvidia_vendor.FIRMWARE.hex())
        assert (len(verified.report.measurements), verified.revocation_checked) == (64, False)
    assert prove(DEVICE.report(NONCE) + b"\0").model == nvidia_vendor.MODEL


REPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "no signature asked for": ({"request": b"\x11\xe0\0\xff"}, "evidence.malformed"),
    "one block asked for": ({"request": b"\x11\xe0\x01\x01"}, "evidence.malformed"),
    "SPDM 1.2": ({"request": b"\x12\xe0\x01\xff"}, "evidence.malformed"),
    "an error response": ({"response": b"\x11\x7f\0\0"}, "evidence.malformed"),
    "another slot": ({"slot": 1}, "evidence.malformed"),
    "slot 8": ({"slot": 8, "response": b"\x11\x60\0\x08"}, "evidence.malformed"),
    "a block less": ({"count": 63}, "evidence.malformed"),
    "a block more": ({"count": 65}, "evidence.malformed"),
    "no block": ({"record": b"", "count": 0}, "evidence.malformed"),
    "blocks from 2": ({"record": nvidia_vendor.blocks(start=2)}, "evidence.malformed"),
    "the same block twice": ({"record": nvidia_vendor.blocks(1) * 2, "count": 2}, "evidence.malformed"),
    "SHA-256 digests": ({"record": nvidia_vendor.blocks(size=32)}, "evidence.malformed"),
    "raw measurements": ({"record": nvidia_vendor.blocks(kind=0x81)}, "evidence.malformed"),
    "a field twice": ({"fields": nvidia_vendor.opaque({3: b"x"}) * 2}, "evidence.malformed"),
    "a cut field": ({"fields": nvidia_vendor.opaque({3: b"x"})[:-1]}, "evidence.malformed"),
    "another firmware": ({"fields": nvidia_vendor.opaque({20: bytes(48)})}, "nvidia.firmware"),
    "another key": ({"key": mint.EcKey.generate("P-384")}, "x509.signature"),
    "a key on P-256": ({"key": mint.EcKey.generate()}, "evidence.malformed"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_bad_report(name: str) -> None:
    changes, expected = REPORTS[name]
    assert code(lambda: prove(DEVICE.report(NONCE, **changes))) == expected


def test_chain() -> None:
    other = nvidia_vendor.device(1)
    good = DEVICE.chain()
    data = DEVICE.report(NONCE)
    fwid = nvidia_vendor.fwid
    twins: dict[str, tuple[list[bytes], str]] = {
        "cut": (good[:-1], "nvidia.chain"),
        "another root": ([*good[:-1], other.root.der], "x509.root"),
        "swapped": ([good[0], good[2], good[1], *good[3:]], "x509.issuer"),
        "another device": (other.chain(), "x509.root"),
        "expired": (DEVICE.chain(DEVICE.leaf(validity=(kit.EPOCH, kit.NOW - 1))), "x509.window"),
        "P-256 leaf": (DEVICE.chain(DEVICE.leaf(key=mint.EcKey.generate().public)), "nvidia.key"),
        "no firmware id": (DEVICE.chain(DEVICE.leaf(("2.23.133.5.4.9", False, b"\x05\0"))), "x509.malformed"),
        "no firmware id in the list": (DEVICE.chain(DEVICE.leaf(nvidia_vendor.tcb_info())), "nvidia.chain"),
        "firmware id of SHA-256": (
            DEVICE.chain(DEVICE.leaf(nvidia_vendor.tcb_info(fwid(bytes(32), "2.16.840.1.101.3.4.2.1")))),
            "nvidia.chain",
        ),
        "firmware second": (
            DEVICE.chain(DEVICE.leaf(nvidia_vendor.tcb_info(fwid(bytes(48)), fwid(nvidia_vendor.FIRMWARE)))),
            "nvidia.firmware",
        ),
    }
    for name, (chain, expected) in twins.items():
        assert code(partial(prove, data, chain)) == expected, name
    assert code(lambda: prove(data, roots=ROOTS)) == "x509.root"


def test_revocation() -> None:
    data = DEVICE.report(NONCE)
    lists = [DEVICE.root.crl(), DEVICE.line.crl()]
    assert prove(data, crls=lists).revocation_checked
    assert code(lambda: prove(data, crls=lists[:1])) == "x509.crl-missing"
    DEVICE.line.revoked.append(DEVICE.provisioner.certificate.serial)
    assert code(lambda: prove(data, crls=[lists[0], DEVICE.line.crl()])) == "x509.revoked"
    DEVICE.line.revoked.clear()


def test_every_flipped_bit_is_refused() -> None:
    data, chain = DEVICE.report(NONCE), DEVICE.chain()

    def accepted(twin: bytes) -> bool:
        try:
            prove(twin, chain)
        except KakoiError:
            return False
        return True

    assert [at for at, twin in attest_kit.flips(data, step=11) if accepted(twin)] == []
    assert [len(twin) for twin in attest_kit.cuts(data, step=97) if accepted(twin) and twin != data + b"\0"] == []
    assert not accepted(data + bytes(5))


def policy(verified: VerifiedDevice, **changes: Any) -> appraise.DevicePolicy:
    digests = verified.report.measurements
    good = appraise.DevicePolicy(
        models=(verified.model,),
        drivers=("575.32",),
        vbios=("00880097",),
        firmware=(verified.firmware,),
        measurements=tuple(ReferenceValue(name=f"m{i}", accepted=(digest.hex(),)) for i, digest in digests.items()),
        revocation=Unchecked(reason="no lists in this test"),
    )
    return replace(good, **changes)


def test_policy() -> None:
    verified = prove(DEVICE.report(NONCE))
    good = policy(verified)
    checks = appraise.appraise(verified, good, report_data=REPORT_DATA)
    assert len(checks) == 69
    assert [check.name for check in checks if check.outcome == "skipped"] == ["nvidia.revocation"]

    def refused(entry: appraise.DevicePolicy) -> str:
        with pytest.raises(Refused) as caught:
            appraise.appraise(verified, entry, report_data=REPORT_DATA)
        assert caught.value.code == "nvidia.refused"
        return caught.value.message

    assert code(lambda: appraise.appraise(verified, good, report_data=bytes(64))) == "nvidia.nonce"
    assert "nvidia.model" in refused(replace(good, models=("GH100",)))
    assert "nvidia.driver" in refused(replace(good, drivers=("1.0",)))
    assert "nvidia.vbios" in refused(replace(good, vbios=("1.0",)))
    assert "nvidia.firmware" in refused(replace(good, firmware=("00",)))
    assert "nvidia.revocation" in refused(replace(good, revocation=("checked",)))
    assert "nvidia.measurement.m64" in refused(replace(good, measurements=good.measurements[:-1]))
    spare = ReferenceValue(name="m65", accepted=("00",))
    assert "nvidia.measurement.m65" in refused(replace(good, measurements=(*good.measurements, spare)))
    wrong = ReferenceValue(name="m1", accepted=("00",))
    both = refused(replace(good, models=("GH100",), measurements=(wrong, *good.measurements[1:])))
    assert "nvidia.model" in both
    assert "nvidia.measurement.m1" in both


def test_only_the_verifier_makes_verified_devices() -> None:
    with pytest.raises(TypeError):
        VerifiedDevice()  # type: ignore[call-arg]


@given(st.binary(max_size=400))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    for start in (b"", b"\x11\xe0\x01\xff" + bytes(33), b"\x11\xe0\x01\xff" + bytes(33) + b"\x11\x60\0\0"):
        try:
            parse.parse(start + data)
        except Malformed:
            continue


VECTORS = recorded.load(FOLDER, "nvidia")
AT = 1_760_000_000


@pytest.mark.skipif(not VECTORS, reason="recorded evidence is not here (KAKOI_SHARED)")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_recorded(vector: recorded.Recorded) -> None:
    data = bytes.fromhex(vector.read("evidence").decode())
    chain = recorded.certificates(vector.read("certs"))
    assert {parse_certificate(recorded.certificates(vector.read("root"))[0]).spki_sha256} == ROOTS
    judged = partial(verify, chain=chain, now=AT)
    if vector.expect["verdict"] == "reject: SPDM signature":
        assert code(lambda: judged(parse.parse(data))) == "x509.signature"
        return
    assert vector.expect["verdict"] == "accept"
    assert judged(parse.parse(data)).firmware
    for _, twin in attest_kit.flips(data, step=29):
        assert code(lambda twin=twin: judged(parse.parse(twin)))  # type: ignore[misc]
