"""Parsing costs no more than its input: twice the bytes, twice the work, and beyond a hard limit none at all.

Work is counted, not timed: interpreted instructions of our own code, calls into C, and the peak of memory. Each parser gets
well-formed inputs of growing size, as large as its limits let them be, so that the work is really done.
"""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from types import FrameType
from typing import Any

import pytest

from fuzz.targets import good
from kakoi.attest import jose
from kakoi.attest.azure import parse as azure_parse
from kakoi.attest.ccel import parse as ccel_parse
from kakoi.attest.ccel import replay
from kakoi.attest.dcap import parse as dcap_parse
from kakoi.attest.dcap.own import tcb
from kakoi.attest.nitro import cbor
from kakoi.attest.nitro import parse as nitro_parse
from kakoi.attest.policy import AttestationPolicy, Setting
from kakoi.attest.report import Evidence
from kakoi.attest.snp import parse as snp_parse
from kakoi.attest.tokens import parse as token_parse
from kakoi.attest.tpm import parse as tpm_parse
from kakoi.conformance.layouts import quote_parts
from kakoi.core import der, x509
from kakoi.core.errors import KakoiError
from kakoi.core.x509_fields import to_pem
from kakoi.evidence import mint
from kakoi.sdk import evidence_files
from kakoi.testing import amd_vendor, azure_vendor, nitro_vendor
from kakoi.testing import azure_vendor_log as logs
from kakoi.testing import x509_kit as kit
from kakoi.testing.azure_vendor_tpm import SHA1, Tpm, select
from kakoi.testing.dcap_vendor import Vendor, level

SLACK = 1.35
"""How much more than twice the work twice the input may cost: growing lists, rounding."""


class Counter:
    """Counts instructions of ``kakoi`` code and calls into C while it is on."""

    def __init__(self) -> None:
        self.operations = 0

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "call":
            ours = "/kakoi/" in frame.f_code.co_filename
            frame.f_trace_opcodes = ours
            frame.f_trace_lines = False
            return self._trace if ours else None
        if event == "opcode":
            self.operations += 1
        return self._trace

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            self.operations += 1

    def __enter__(self) -> Counter:
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        sys.setprofile(None)


def work(parse: Callable[[bytes], object], data: bytes) -> int:
    """Operations to parse ``data``, whether it is accepted or refused."""
    before = sys.gettrace(), sys.getprofile()
    try:
        with Counter() as counter, suppress(KakoiError):
            parse(data)
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return counter.operations


def memory(parse: Callable[[bytes], object], data: bytes) -> int:
    """Peak of bytes allocated while parsing."""
    tracemalloc.start()
    try:
        with suppress(KakoiError):
            parse(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A parser, well-formed input of any size, the sizes to try (each twice the one before), and what is too large."""

    parse: Callable[[bytes], object]
    make: Callable[[int], bytes]
    sizes: tuple[int, ...]
    beyond: Callable[[int], bytes]
    """Input of about so many bytes, beyond the limit."""


@cache
def _root_der() -> bytes:
    return kit.root(name=amd_vendor.amd_name("ARK-Milan")).der


def _quote(size: int) -> bytes:
    pieces = quote_parts(good("sgx").trial.evidence.statement)
    return replace(pieces, authentication=bytes(size)).write()


def _tcb_info(levels: int) -> bytes:
    vendor = Vendor()
    vendor.tcb_levels = [level(min(i, 255), i, "UpToDate") for i in range(levels)]
    return vendor.parts("sgx")["tcb_info"]


def _crl(entries: int) -> bytes:
    authority = kit.root()
    authority.revoked = list(range(1, entries + 1))
    return authority.crl()


def _certificate(extensions: int) -> bytes:
    key = mint.EcKey.generate()
    more = tuple((f"1.3.6.1.4.1.99999.{i}", False, bytes(32)) for i in range(extensions))
    return kit.root().leaf("leaf", key=key.public, more=more)


def _token(size: int) -> bytes:
    header = jose.b64url(b'{"alg":"RS256"}')
    return f"{header}.{jose.b64url(json.dumps({'a': 'x' * size}).encode())}.AA".encode()


def _policy(settings: int) -> bytes:
    entry = good("snp").trial.entry
    named = tuple(Setting(name=f"s{i}", accepted=tuple(f"value {n}" for n in range(8))) for i in range(settings))
    return AttestationPolicy(accepted=(replace(entry, settings=named),)).encode()


def _claims(size: int) -> bytes:
    return azure_vendor.hcl(
        bytes(1184), json.dumps(azure_vendor.claims(azure_vendor.key())).encode().ljust(size), kind=2
    )


def _selections(count: int) -> bytes:
    selections = [select(range(24), bank=SHA1) for _ in range(count)]
    return Tpm(key=azure_vendor.key()).attest(b"", selections=selections)


def _document(size: int) -> bytes:
    return nitro_vendor.vendor().document(user_data=bytes(size), public_key=bytes(size), nonce=bytes(size))


def _table(size: int) -> bytes:
    return amd_vendor.certificate_table({snp_parse.VCEK_GUID: b"\x01" * size, snp_parse.ARK_GUID: b"\x02" * size})


def _pem(extensions: int) -> bytes:
    """Two certificates of growing size as PEM."""
    return to_pem(_certificate(extensions), _certificate(extensions))


CASES: dict[str, Case] = {
    "dcap quote": Case(parse=dcap_parse.parse, make=_quote, sizes=(7000, 14_000, 28_000, 56_000), beyond=bytes),
    "snp certificate table": Case(
        parse=snp_parse.parse_certificate_table, make=_table, sizes=(3000, 6000, 12_000, 24_000), beyond=bytes
    ),
    "hcl report": Case(parse=azure_parse.parse, make=_claims, sizes=(1024, 2048, 4096), beyond=bytes),
    "tpm quote": Case(parse=tpm_parse.parse_quote, make=_selections, sizes=(2, 4, 8, 16), beyond=bytes),
    "event log": Case(
        parse=lambda data: replay.replay(ccel_parse.parse(data), "sha256"),
        make=lambda n: logs.first() + b"".join(logs.event(i % 8, b"data") for i in range(n)),
        sizes=(1000, 2000, 4000, 8000),
        beyond=lambda n: logs.first() + logs.event(0, b"x") * (n // 100),
    ),
    "cbor": Case(
        parse=cbor.loads,
        make=lambda n: nitro_vendor.encode([bytes(100)] * n),
        sizes=(60, 120, 240, 480),
        beyond=bytes,
    ),
    "nitro document": Case(parse=nitro_parse.parse, make=_document, sizes=(128, 256, 512), beyond=bytes),
    "vendor json": Case(
        parse=lambda data: jose.load(data, "JSON"),
        make=lambda n: json.dumps({f"m{i}": i for i in range(n)}).encode(),
        sizes=(2000, 4000, 8000, 16_000),
        beyond=lambda n: b"[" * n,
    ),
    "tcb information": Case(
        parse=tcb.parse_tcb_info, make=_tcb_info, sizes=(32, 64, 128, 256), beyond=lambda n: b" " * (n + 1024 * 1024)
    ),
    "token": Case(parse=token_parse.parse, make=_token, sizes=(2000, 4000, 8000, 16_000), beyond=lambda n: b"A" * n),
    "certificate": Case(
        parse=x509.parse_certificate, make=_certificate, sizes=(25, 50, 100, 200), beyond=lambda n: b"\x30" + bytes(n)
    ),
    "revocation list": Case(
        parse=x509.parse_crl, make=_crl, sizes=(2000, 4000, 8000, 16_000),
        beyond=lambda n: b"\x30" + bytes(n + x509.MAX_CRL_BYTES),
    ),
    "pem chain": Case(
        parse=lambda data: x509.parse_pem_chain(data, 2),
        make=_pem,
        sizes=(25, 50, 100, 200),
        beyond=lambda n: b"-----BEGIN CERTIFICATE-----\n" * n,
    ),
    "evidence record": Case(
        parse=Evidence.decode,
        make=lambda n: Evidence(platform="snp", statement=bytes(n), parts=()).encode(),
        sizes=(100_000, 200_000, 400_000, 800_000),
        beyond=lambda n: b'"' + b"A" * (n + Evidence.MAX_BYTES),
    ),
    "policy record": Case(
        parse=AttestationPolicy.decode, make=_policy, sizes=(8, 16, 32, 64), beyond=lambda n: b"[" * n + b"]" * n
    ),
    "raw evidence": Case(
        parse=lambda data: evidence_files.read_evidence(data, "snp"),
        make=lambda n: bytes(n).hex().encode(),
        sizes=(100_000, 200_000, 400_000),
        beyond=lambda n: b"00" * (n + 4 * 1024 * 1024),
    ),
    "raw collateral": Case(
        parse=lambda data: evidence_files.read_collateral([data], "snp"),
        make=lambda n: to_pem(*[_root_der()] * n),
        sizes=(16, 32, 64, 128),
        beyond=lambda n: b"-----BEGIN CERTIFICATE-----\n" * (n // 30),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_twice_the_input_is_twice_the_work(name: str) -> None:
    case = CASES[name]
    inputs = [case.make(size) for size in case.sizes]
    for data in inputs:
        case.parse(data)  # well-formed, and whatever is computed once is computed now
    counted = [work(case.parse, data) for data in inputs]
    peaks = [memory(case.parse, data) for data in inputs]
    sizes = [len(data) for data in inputs]
    for i in range(1, len(inputs)):
        growth = max(sizes[i] / sizes[i - 1], case.sizes[i] / case.sizes[i - 1])
        assert counted[i] <= growth * SLACK * counted[i - 1], (sizes, counted)
        assert peaks[i] <= growth * SLACK * max(peaks[i - 1], 16_384), (sizes, peaks)


@pytest.mark.parametrize("name", CASES)
def test_beyond_the_limit_nothing_is_read(name: str) -> None:
    """Ten times as much beyond the limit costs the same handful of operations."""
    case = CASES[name]
    small, large = case.beyond(300_000), case.beyond(3_000_000)
    with pytest.raises(KakoiError):
        case.parse(large)
    first, second = work(case.parse, small), work(case.parse, large)
    assert second <= first + 200, (first, second)
    assert memory(case.parse, large) <= 4 * len(large) + 64 * 1024


def test_the_counter_sees_quadratic_work() -> None:
    """Quadratic code of the kind this test is about, seen by the counter: a DER reader that reads its rest again and again."""

    def quadratic(data: bytes) -> None:
        for i in range(len(data) // 64):
            der.items(data[64 * i :])

    inputs = [der.write(der.NULL, bytes(62)) * n for n in (32, 64, 128)]
    counted = [work(quadratic, data) for data in inputs]
    assert counted[2] > 3.5 * counted[1] > 3.5 * 3.5 * counted[0] / 1.2
