"""What is fuzzed: every parser of bytes that others send, every verifier, and what lies behind a good signature.

A target takes any bytes. It may return, or raise one of our errors; anything else is a bug. Targets whose name begins
with ``signed`` put the bytes where a vendor's signature covers them and sign, so that the fuzzer gets past it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, cast

from kakoi.attest import jose
from kakoi.attest.azure import parse as azure_parse
from kakoi.attest.azure import verify as azure_verify
from kakoi.attest.ccel import parse as ccel_parse
from kakoi.attest.ccel import replay
from kakoi.attest.dcap import parse as dcap_parse
from kakoi.attest.dcap.own import tcb
from kakoi.attest.nitro import cbor
from kakoi.attest.nitro import parse as nitro_parse
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.report import Collateral, Evidence, PlatformKind, Verdict
from kakoi.attest.snp import parse as snp_parse
from kakoi.attest.tokens import parse as token_parse
from kakoi.attest.tokens.verify import Service
from kakoi.attest.tpm import parse as tpm_parse
from kakoi.conformance import azure_minted, dcap_minted, nitro, own, snp_minted, tokens
from kakoi.conformance.adapter import read_answer
from kakoi.conformance.base import Base, base
from kakoi.conformance.layouts import quote_parts
from kakoi.conformance.trial import KINDS, Kind, Trial
from kakoi.core import x509
from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError
from kakoi.core.records import Record
from kakoi.sdk import evidence_files
from kakoi.testing import amd_vendor, azure_vendor, nitro_vendor, token_vendor
from kakoi.testing import azure_vendor_log as logs
from kakoi.testing import x509_kit as kit
from kakoi.testing.azure_vendor_tpm import Tpm
from kakoi.testing.dcap_vendor import Vendor

Run = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something to give bytes to. ``seeds`` are good inputs, from which the fuzzer starts."""

    name: str
    run: Run
    seeds: Callable[[], list[bytes]]


def check(target: Target, data: bytes) -> None:
    """Run it; let anything but our own errors through."""
    try:
        target.run(data)
    except KakoiError:
        return


BY_THEMSELVES: Final = ("nvidia", "ccel")
"""Kinds of conformance that have targets of their own below: a device's report and an event log are no evidence of a platform."""


@cache
def good(kind: Kind) -> Base:
    """A good minted one of each kind, with vendors that stay the same in this process."""
    if kind in ("sgx", "tdx"):
        return dcap_minted.good("sgx" if kind == "sgx" else "td-1.5ex")
    if kind == "snp":
        return snp_minted.good("Genoa", "VCEK")
    if kind in ("azure-snp", "azure-tdx"):
        return azure_minted.good(kind, log=kind == "azure-snp")
    if kind == "nitro":
        return nitro.good()
    return tokens.good(cast(Service, kind))


# --- parsers ---------------------------------------------------------------------------------------------------------


def _statement(kind: Kind) -> bytes:
    return good(kind).trial.evidence.statement


def _part(name: str) -> bytes:
    return next(p.data for p in good("azure-snp").trial.evidence.parts if p.name == name)


def _ccel(data: bytes) -> None:
    log = ccel_parse.parse(data)
    for name in ("sha256", "sha384"):
        replay.replay(log, name)


def _public(data: bytes) -> None:
    tpm_parse.check_attestation_key(tpm_parse.parse_public(data))


_RAW: tuple[PlatformKind, ...] = ("snp", "azure-snp", "nitro", "tdx")


def _raw_evidence(data: bytes) -> None:
    evidence_files.read_evidence(data[1:], _RAW[data[0] % len(_RAW)] if data else None)


def _raw_collateral(data: bytes) -> None:
    evidence_files.read_collateral([data[1:]], _RAW[data[0] % len(_RAW)] if data else "sgx")


def _record(cls: type[Record]) -> Run:
    def run(data: bytes) -> None:
        record = cls.decode(data)
        if record.encode() != data:
            raise AssertionError(f"{cls.__name__}: expected encode(decode(x)) == x")

    return run


@cache
def _root() -> kit.Authority:
    root = kit.root()
    root.revoked += [5, 6, 7]
    return root


def _policy() -> bytes:
    policy = good("tdx").trial.policy
    return b"" if policy is None else policy.encode()


PARSERS = [
    Target(name="dcap", run=dcap_parse.parse, seeds=lambda: [_statement("sgx"), _statement("tdx")]),
    Target(name="snp", run=snp_parse.parse, seeds=lambda: [_statement("snp")]),
    Target(
        name="snp-certificates",
        run=snp_parse.parse_certificate_table,
        seeds=lambda: [
            amd_vendor.certificate_table({snp_parse.VCEK_GUID: _root().der, snp_parse.ARK_GUID: _root().der})
        ],
    ),
    Target(name="hcl", run=azure_parse.parse, seeds=lambda: [_statement("azure-snp"), _statement("azure-tdx")]),
    Target(name="td-report", run=azure_verify.parse_td_report, seeds=lambda: [_statement("azure-tdx")[32:1056]]),
    Target(name="tpm-quote", run=tpm_parse.parse_quote, seeds=lambda: [_part("tpm-quote")]),
    Target(name="tpm-signature", run=tpm_parse.parse_signature, seeds=lambda: [_part("tpm-signature")]),
    Target(name="tpm-public", run=_public, seeds=lambda: [Tpm(key=azure_vendor.key()).public()]),
    Target(name="event-log", run=_ccel, seeds=lambda: [logs.first() + logs.event(0, b"a") + logs.event(7, b"b" * 40)]),
    Target(name="nitro", run=nitro_parse.parse, seeds=lambda: [_statement("nitro")]),
    Target(name="cbor", run=cbor.loads, seeds=lambda: [nitro_vendor.encode({"a": [1, b"x", None, {2: "y"}]})]),
    Target(
        name="token",
        run=token_parse.parse,
        seeds=lambda: [_statement("azure-maa"), _statement("google-confidential-space")],
    ),
    Target(name="vendor-json", run=lambda d: jose.load(d, "JSON"), seeds=lambda: [b'{"a":[1,{"b":"c"}],"d":true}']),
    Target(name="tcb-info", run=tcb.parse_tcb_info, seeds=lambda: [good("tdx").trial.piece("tcb_info")]),
    Target(name="qe-identity", run=tcb.parse_qe_identity, seeds=lambda: [good("tdx").trial.piece("qe_identity")]),
    Target(
        name="certificate", run=x509.parse_certificate, seeds=lambda: [_root().der, good("snp").trial.piece("vcek")]
    ),
    Target(name="revocation-list", run=x509.parse_crl, seeds=lambda: [_root().crl()]),
    Target(
        name="pem-chain",
        run=lambda data: x509.parse_pem_chain(data, 2),
        seeds=lambda: [good("sgx").trial.piece("tcb_info_issuer_chain")],
    ),
    Target(name="evidence-record", run=_record(Evidence), seeds=lambda: [good("azure-snp").trial.evidence.encode()]),
    Target(name="collateral-record", run=_record(Collateral), seeds=lambda: [good("snp").trial.collateral.encode()]),
    Target(name="policy-record", run=_record(AttestationPolicy), seeds=lambda: [_policy()]),
    Target(name="verdict-record", run=_record(Verdict), seeds=lambda: [b'{"checks":[],"kind":"kakoi/verdict/v1"}']),
    Target(name="trial-record", run=_record(Trial), seeds=lambda: [good("snp").trial.encode()]),
    Target(name="adapter-answer", run=read_answer, seeds=lambda: [b'{"outcome":"accepted","reason":"x"}']),
    Target(
        name="raw-evidence", run=_raw_evidence, seeds=lambda: [b"\0" + _statement("snp"), b"\2" + _statement("nitro")]
    ),
    Target(
        name="raw-collateral",
        run=_raw_collateral,
        seeds=lambda: [b"\0" + good("snp").trial.piece("crl"), b"\0" + good("snp").trial.collateral.encode()],
    ),
]


# --- verifiers -------------------------------------------------------------------------------------------------------


def _whole(kind: Kind) -> Target:
    """Any bytes as statement, beside good collateral and a good policy."""

    def run(data: bytes) -> None:
        own.judge(good(kind).trial.with_statement(data or b"\0"))

    return Target(name=f"verify-{kind}", run=run, seeds=lambda: [_statement(kind)])


def _collateral(kind: Kind) -> Target:
    """Any bytes as one piece of collateral, which the first byte chooses."""

    def pieces() -> list[tuple[str, bytes]]:
        return [(p.name, p.data) for p in good(kind).trial.collateral.parts]

    def run(data: bytes) -> None:
        found = pieces()
        own.judge(good(kind).trial.with_collateral({found[data[0] % len(found)][0]: data[1:]} if data else {}))

    return Target(
        name=f"collateral-{kind}", run=run, seeds=lambda: [bytes([i]) + data for i, (_, data) in enumerate(pieces())]
    )


VERIFIERS = [
    *(_whole(kind) for kind in KINDS if kind not in BY_THEMSELVES),
    *(
        _collateral(kind)
        for kind in KINDS
        if kind not in (*BY_THEMSELVES, "azure-tdx", "azure-snp", "google-confidential-space")
    ),
]


# --- behind the signature --------------------------------------------------------------------------------------------


@cache
def _dcap_shop(body: str) -> tuple[dcap_minted.Shop, Trial]:
    shop = dcap_minted.Shop(vendor=Vendor(), body_kind=body)  # type: ignore[arg-type]
    return shop, base("fuzz", shop.trial()).trial


def _signed_body(body: str) -> Target:
    def run(data: bytes) -> None:
        shop, trial = _dcap_shop(body)
        size = len(shop.good_body())
        own.judge(trial.with_statement(shop.vendor.quote(data[:size].ljust(size, b"\0"), kind=shop.body_kind)))

    return Target(name=f"signed-body-{body}", run=run, seeds=lambda: [_dcap_shop(body)[0].good_body()])


def _signed_text(part: str) -> Target:
    def run(data: bytes) -> None:
        shop, trial = _dcap_shop("td-1.5")
        signature = shop.vendor.signer_key.sign_raw(data)
        own.judge(trial.with_collateral({part: data, f"{part}_signature": signature}))

    return Target(name=f"signed-{part.replace('_', '-')}", run=run, seeds=lambda: [_dcap_shop("td-1.5")[1].piece(part)])


def _signed_qe_report(data: bytes) -> None:
    """A QE report that the PCK key signs; attestation key and authentication data are good."""
    shop, trial = _dcap_shop("sgx")
    pieces = quote_parts(trial.evidence.statement)
    report = data[:384].ljust(384, b"\0")
    signature = shop.vendor.pck_key.sign_raw(report)
    own.judge(trial.with_statement(replace(pieces, qe_report=report, qe_signature=signature).write()))


@cache
def _snp_shop() -> tuple[snp_minted.Shop, Trial]:
    shop = snp_minted.shop("Genoa")
    return shop, base("fuzz", shop.trial()).trial


def _signed_report(data: bytes) -> None:
    shop, trial = _snp_shop()
    signed = data[: snp_parse.SIGNED_BYTES].ljust(snp_parse.SIGNED_BYTES, b"\0")
    raw = shop.chip.key.sign_raw(signed)
    own.judge(trial.with_statement(signed + raw[:48][::-1] + bytes(24) + raw[48:][::-1] + bytes(24) + bytes(368)))


@cache
def _nitro_shop() -> tuple[nitro.Shop, Trial]:
    shop = nitro.shop(lists=False)
    return shop, base("fuzz", shop.trial()).trial


def _signed_payload(data: bytes) -> None:
    shop, trial = _nitro_shop()
    own.judge(trial.with_statement(shop.vendor.sign(data)))


@cache
def _azure_shop() -> tuple[azure_minted.Shop, Trial]:
    shop = azure_minted.shop("azure-snp")
    return shop, base("fuzz", shop.trial()).trial


def _vouched_claims(data: bytes) -> None:
    """Claims whose hash the hardware signs."""
    shop, trial = _azure_shop()
    claims = data[:4096]
    digest = sha256(claims).ljust(64, b"\0")
    report = shop.guest.vendor.signed(shop.guest.chip, report_data=digest)
    own.judge(trial.with_statement(azure_vendor.hcl(report, claims, kind=2)))


def _signed_tpm_quote(data: bytes) -> None:
    shop, trial = _azure_shop()
    quote = data[:1000]
    own.judge(trial.with_parts({"tpm-quote": quote, "tpm-signature": shop.guest.tpm.sign(quote)}))


def _signed_claims(kind: Any) -> Target:
    def run(data: bytes) -> None:
        made = good(kind)
        shop = tokens.shop(kind)
        header = jose.unb64url(made.trial.evidence.statement.split(b".")[0].decode(), "token")
        own.judge(made.trial.with_statement(token_vendor.compact(header, data, shop.key)))

    return Target(name=f"signed-claims-{kind}", run=run, seeds=lambda: [json.dumps(tokens.shop(kind).claims).encode()])


SIGNED = [
    *(_signed_body(body) for body in ("sgx", "td-1.0", "td-1.5", "td-1.5ex")),
    _signed_text("tcb_info"),
    _signed_text("qe_identity"),
    Target(
        name="signed-qe-report",
        run=_signed_qe_report,
        seeds=lambda: [quote_parts(_dcap_shop("sgx")[1].evidence.statement).qe_report],
    ),
    Target(
        name="signed-snp-report",
        run=_signed_report,
        seeds=lambda: [_snp_shop()[1].evidence.statement[: snp_parse.SIGNED_BYTES]],
    ),
    Target(name="signed-nitro-payload", run=_signed_payload, seeds=lambda: [_nitro_shop()[0].payload()]),
    Target(name="signed-hcl-claims", run=_vouched_claims, seeds=lambda: [_azure_shop()[0].guest.claim_bytes()]),
    Target(
        name="signed-tpm-quote",
        run=_signed_tpm_quote,
        seeds=lambda: [next(p.data for p in _azure_shop()[1].evidence.parts if p.name == "tpm-quote")],
    ),
    *(_signed_claims(kind) for kind in ("azure-maa", "google-confidential-space", "intel-trust-authority")),
]

TARGETS = {target.name: target for target in (*PARSERS, *VERIFIERS, *SIGNED)}
