"""Twins of any DCAP quote (``sgx``, ``tdx``), recorded or minted: bytes, certificates, collateral, time."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from kakoi.attest.dcap.own.collateral import PARTS
from kakoi.conformance import spoil
from kakoi.conformance.base import Base
from kakoi.conformance.corpus import Group, several
from kakoi.conformance.layouts import QUOTE_PADDING, QuoteParts, quote_parts
from kakoi.conformance.spoil import Blob
from kakoi.conformance.trial import Trial
from kakoi.core.x509 import Certificate, parse_certificate, parse_crl
from kakoi.core.x509_fields import pem_bodies, to_pem

Named = tuple[str, Callable[[], Trial]]
CHAINS: Final = {"pck_crl_issuer_chain": 2, "tcb_info_issuer_chain": 2, "qe_identity_issuer_chain": 2}
_SIGNED_JSON: Final = ("tcb_info", "qe_identity")
_LIMIT: Final = 16 * 1024
_WINDOWS: Final = ("x509.window", "x509.crl-window", "dcap.collateral-window")
_ORDER: Final = int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)


def statement_groups(base: Base, *, every_bit: bool) -> list[Group]:
    """Bytes and fields of the quote."""
    trial = base.trial
    raw = trial.evidence.statement
    pieces = quote_parts(raw)
    blob = Blob(
        name="quote",
        data=raw,
        rebuild=trial.with_statement,
        spans=pieces.spans(),
        padding=QUOTE_PADDING if trial.format == "tdx" else 0,
        same=partial(_says_the_same, pieces),
    )

    def written(**changes: Any) -> Trial:
        return trial.with_statement(replace(pieces, **changes).write())

    corrected = [
        (f"quote: {name} {how}, all lengths corrected", partial(written, **{name: value}))
        for name in ("signed", "signature", "key", "qe_report", "qe_signature", "authentication", "chain")
        for how, value in _sizes(getattr(pieces, name)).items()
        if not _says_the_same(pieces, written(**{name: value}).evidence.statement)
    ]
    return [
        *spoil.everything(blob, every_bit=every_bit),
        *several("quote.field-with-lengths", "form", "verify", corrected),
        *several("quote.certification-type", "form", "verify", _types(trial, pieces)),
        *several("quote.signature-values", "signature", "verify", _signatures(trial, pieces)),
        *several("quote.header", "form", "verify", _headers(trial, raw)),
    ]


def _says_the_same(pieces: QuoteParts, twin: bytes) -> bool:
    """Whether a quote differs in its padding only, or in the last line end and NUL of its chain, which vendors write or not."""
    try:
        other = quote_parts(twin)
    except (struct.error, KeyError, IndexError):
        return False
    endings = (b"-----", b"-----\n", b"-----\0", b"-----\n\0")
    most = 0 if other.version == 3 else QUOTE_PADDING
    if other.padding.strip(b"\0") or len(other.padding) > most or not other.chain.endswith(endings):
        return False
    if other.write() != twin:
        return False
    return replace(other, chain=b"", padding=b"") == replace(pieces, chain=b"", padding=b"") and (
        other.chain.rstrip(b"\n\0") == pieces.chain.rstrip(b"\n\0")
    )


def _sizes(value: bytes) -> dict[str, bytes]:
    found = {"a byte shorter": value[:-1], "a byte longer": value + b"\0", "left out": b"", "twice": value * 2}
    return {how: other for how, other in found.items() if other != value}


def _types(trial: Trial, pieces: QuoteParts) -> list[Named]:
    return [
        (f"certification data of type {kind}", partial(_with, trial, pieces, certification_type=kind))
        for kind in (0, 1, 2, 3, 4, 6, 7, 99, 0xFFFF)
    ]


def _with(trial: Trial, pieces: QuoteParts, **changes: Any) -> Trial:
    return trial.with_statement(replace(pieces, **changes).write())


def _signatures(trial: Trial, pieces: QuoteParts) -> list[Named]:
    """Values that broken ECDSA implementations took for any message (CVE-2022-21449 and its kin)."""
    zero, one, order = bytes(32), (1).to_bytes(32, "big"), _ORDER.to_bytes(32, "big")
    values = {
        "r = s = 0": zero + zero, "r = 0": zero + one, "s = 0": one + zero, "r = s = n": order + order,
        "r = s = 1": one + one, "all ones": b"\xff" * 64,
    }  # fmt: skip
    named: list[Named] = [
        (f"{where.replace('_', ' ')}: {what}", partial(_with, trial, pieces, **{where: value}))
        for where in ("signature", "qe_signature")
        for what, value in values.items()
    ]
    return [
        *named,
        ("the signatures of quote and QE report exchanged",
         partial(_with, trial, pieces, signature=pieces.qe_signature, qe_signature=pieces.signature)),
        ("attestation key: the point at infinity", partial(_with, trial, pieces, key=bytes(64))),
        ("attestation key: no point of the curve", partial(_with, trial, pieces, key=b"\x01" * 64)),
    ]  # fmt: skip


def _headers(trial: Trial, raw: bytes) -> list[Named]:
    changes = {f"version {n}": (0, n.to_bytes(2, "little")) for n in (0, 1, 2, 3, 4, 5, 6, 0xFFFF)}
    changes |= {f"attestation key type {n}": (2, n.to_bytes(2, "little")) for n in (0, 1, 3)}
    changes |= {f"TEE type {n:#x}": (4, n.to_bytes(4, "little")) for n in (0, 1, 0x80, 0x81, 0x82)}
    changes |= {"another vendor of the quoting enclave": (12, bytes(16))}
    return [
        (f"quote header: {what}", partial(trial.with_statement, twin))
        for what, (at, value) in changes.items()
        if (twin := raw[:at] + value + raw[at + len(value) :]) != raw
    ]


# --- certificates in the quote and in the collateral -----------------------------------------------------------------


def chain_groups(base: Base, strangers: Sequence[bytes]) -> list[Group]:
    """The embedded PCK chain: values, order, members, spelling. ``strangers``: certificates of others (DER)."""
    trial = base.trial
    pieces = quote_parts(trial.evidence.statement)
    tail = b"\0" if pieces.chain.endswith(b"\0") else b""
    chain = pem_bodies(pieces.chain.removesuffix(b"\0"), 3, _LIMIT)

    def rebuilt(text: bytes) -> Trial:
        return _with(trial, pieces, chain=text)

    groups = _ordered("pck-chain", chain, strangers, lambda certificates: rebuilt(to_pem(*certificates) + tail))
    for i, name in enumerate(("pck", "pck-ca", "root")):
        rest = list(chain)

        def with_one(der: bytes, i: int = i, rest: list[bytes] = rest) -> Trial:
            return rebuilt(to_pem(*rest[:i], der, *rest[i + 1 :]) + tail)

        groups += spoil.der_values(f"pck-chain.{name}", chain[i], with_one)
    spelled = [(f"PCK chain: {what}", partial(rebuilt, text)) for what, text in _spellings(pieces.chain).items()]
    return [*groups, *several("pck-chain.spelling", "form", "verify", spelled)]


def _spellings(chain: bytes) -> dict[str, bytes]:
    """Other texts that a lenient reader takes for the same certificates. Nothing signs the text, so one is enough."""
    text = chain.rstrip(b"\0")
    lines = text.split(b"\n")
    return {
        "lines end in CR LF": text.replace(b"\n", b"\r\n"),
        "lines end in CR": text.replace(b"\n", b"\r"),
        "two NUL after it": text + b"\0\0",
        "a space after it": text + b" ",
        "an empty line before it": b"\n" + text,
        "an empty line inside": text.replace(b"-----\n-----", b"-----\n\n-----", 1),
        "two lines joined": text.replace(lines[1] + b"\n", lines[1], 1),
        "a line broken": text.replace(lines[1], lines[1][:32] + b"\n" + lines[1][32:], 1),
        "a comment before it": b"# PCK\n" + text,
        "a comment inside": text.replace(b"-----\n-----", b"-----\ncomment\n-----", 1),
        "a header inside": text.replace(b"CERTIFICATE-----\n", b"CERTIFICATE-----\nProc-Type: 4\n\n", 1),
        "bytes after the last certificate": text + b"\ngarbage",
        "a fourth certificate": text.rstrip(b"\n") + b"\n" + to_pem(pem_bodies(text, 3, _LIMIT)[2]),
    }


def _ordered(
    name: str, chain: Sequence[bytes], strangers: Sequence[bytes], rebuild: Callable[[Sequence[bytes]], Trial]
) -> list[Group]:
    """A chain in other orders, with members missing, repeated, or others' in their place."""
    size = len(chain)
    lists: dict[str, list[bytes]] = {"backwards": list(chain[::-1]), "empty": []}
    for i in range(size):
        lists[f"without certificate {i}"] = [*chain[:i], *chain[i + 1 :]]
        lists[f"certificate {i} twice"] = [*chain[: i + 1], *chain[i:]]
        for j in range(size):
            if chain[i] != chain[j]:
                lists[f"certificate {j} in the place of {i}"] = [*chain[:i], chain[j], *chain[i + 1 :]]
    swapped = [(f"{name}: {what}", partial(rebuild, certificates)) for what, certificates in lists.items()]
    foreign = [
        (f"{name}: a stranger's in the place of certificate {i} ({parse_certificate(der).common_name})",
         partial(rebuild, [*chain[:i], der, *chain[i + 1 :]]))
        for i in range(size)
        for der in strangers
        if der not in chain
    ]  # fmt: skip
    return [
        *several(f"{name}.order", "chain", "verify", swapped),
        *several(f"{name}.stranger", "chain", "verify", foreign),
    ]


# --- collateral ------------------------------------------------------------------------------------------------------


def collateral_groups(base: Base, strangers: Sequence[bytes], *, every_bit: bool) -> list[Group]:
    """Each part: bytes, fields, order, and absence."""
    trial = base.trial
    found: list[Group] = []
    for name in PARTS:
        data, rebuild = trial.piece(name), partial(_with_piece, trial, name)
        blob = Blob(name=name, data=data, rebuild=rebuild, text=name in CHAINS)
        found += spoil.flips(blob, every_bit=every_bit)
        found += spoil.truncations(blob, step=7)
        found += spoil.extensions(blob)
        found.append(spoil.absent(name, partial(trial.with_collateral, {name: None})))
        others = {other: trial.piece(other) for other in PARTS if trial.piece(other) != data}
        found += spoil.replaced(name, others, rebuild, family="form")
        if name in CHAINS:
            found += _issuer_groups(trial, name, strangers)
        elif name.endswith("crl"):
            found += spoil.der_values(name, data, rebuild)
    for name in _SIGNED_JSON:
        found += several(f"{name}.forged", "signature", "verify", _forged(trial, name))
    found += several("collateral.unknown-part", "form", "verify", _unknown(trial))
    return found


def _with_piece(trial: Trial, name: str, data: bytes) -> Trial:
    return trial.with_collateral({name: data})


def _issuer_groups(trial: Trial, name: str, strangers: Sequence[bytes]) -> list[Group]:
    """The certificates of an issuer chain: order, members, values."""
    certificates = pem_bodies(trial.piece(name), CHAINS[name], _LIMIT)

    def written(chain: Sequence[bytes]) -> Trial:
        return _with_piece(trial, name, to_pem(*chain) or b"\n")

    def with_one(index: int, der: bytes) -> Trial:
        return written([*certificates[:index], der, *certificates[index + 1 :]])

    found = _ordered(name, certificates, strangers, written)
    for i, der in enumerate(certificates):
        found += spoil.der_values(f"{name}.{('signer', 'root')[i]}", der, partial(with_one, i))
    return found


def _unknown(trial: Trial) -> list[Named]:
    extra = partial(trial.with_collateral, {"more": b"x"})
    return [("a part of an unknown name", extra)]


def _forged(trial: Trial, name: str) -> list[Named]:
    """The vendor's text with one thing changed and the old signature: what a forger of collateral sends."""
    text = trial.piece(name)
    value = json.loads(text)

    def told(other: bytes) -> Trial:
        return trial.with_collateral({name: other})

    changed: dict[str, bytes] = {
        "every status UpToDate": _replaced_statuses(text),
        "no advisories": _compact(
            {**value, "tcbLevels": [_without(level, "advisoryIDs") for level in value["tcbLevels"]]}
        ),
        "next update in 2099": text.replace(value["nextUpdate"].encode(), b"2099-12-31T00:00:00Z"),
        "a space after it": text + b" ",
        "spaces inside": json.dumps(value).encode(),
        "a higher evaluation number": _compact({**value, "tcbEvaluationDataNumber": 99}),
        "no levels": _compact({**value, "tcbLevels": []}),
    }
    changed |= {f"without {member}": _compact(_without(value, member)) for member in value}
    changed |= {f"{member} twice": text[:-1] + b"," + _compact({member: value[member]})[1:] for member in value}
    signature = f"{name}_signature"
    values = {"zeros": bytes(64), "r = s = n": _ORDER.to_bytes(32, "big") * 2, "of the other text": _other(trial, name)}
    return [
        *((f"{name}: {what}", partial(told, other)) for what, other in changed.items() if other != text),
        *((f"{signature}: {what}", partial(trial.with_collateral, {signature: v})) for what, v in values.items()),
    ]


def _other(trial: Trial, name: str) -> bytes:
    return trial.piece("qe_identity_signature" if name == "tcb_info" else "tcb_info_signature")


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}


def _replaced_statuses(text: bytes) -> bytes:
    for status in (
        "OutOfDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "Revoked",
    ):
        text = text.replace(f'"{status}"'.encode(), b'"UpToDate"')
    return text


# --- time ------------------------------------------------------------------------------------------------------------


def _edges(certificates: Iterable[Certificate], lists: Iterable[bytes], texts: Iterable[bytes]) -> dict[int, str]:
    """Seconds just outside a window, and whose window it is."""
    found: dict[int, str] = {}
    for certificate in certificates:
        found[certificate.not_before - 1] = f"a second before {certificate.common_name} begins"
        found[certificate.not_after + 1] = f"a second after {certificate.common_name} ends"
    for data in lists:
        crl = parse_crl(data)
        found[crl.this_update - 1] = "a second before a revocation list begins"
        found[crl.next_update + 1] = "a second after a revocation list ends"
    for text in texts:
        found[seconds(text, "issueDate") - 1] = "a second before a signed text was issued"
        found[seconds(text, "nextUpdate") + 1] = "a second after a signed text's next update"
    return {at: what for at, what in found.items() if at >= 0}


def seconds(text: bytes, member: str) -> int:
    """A date of Intel's JSON as seconds since the epoch."""
    return int(datetime.fromisoformat(json.loads(text)[member]).timestamp())


def time_groups(base: Base) -> list[Group]:
    """A second outside each window, and far outside all."""
    trial = base.trial
    chain = pem_bodies(quote_parts(trial.evidence.statement).chain.removesuffix(b"\0"), 3, _LIMIT)
    signers = [der for name in CHAINS for der in pem_bodies(trial.piece(name), 2, _LIMIT)]
    certificates = [parse_certificate(der) for der in (*chain, *signers)]
    edges = _edges(
        certificates, [trial.piece("root_ca_crl"), trial.piece("pck_crl")], [trial.piece(n) for n in _SIGNED_JSON]
    )
    edges |= {0: "1970", trial.now + 50 * 365 * 86400: "in fifty years"}
    named = [(f"judged {what}", partial(replace, trial, now=at)) for at, what in sorted(edges.items())]
    return several("time.window", "window", "verify", named, _WINDOWS)


# --- others' pieces --------------------------------------------------------------------------------------------------


def exchange_groups(base: Base, others: Sequence[Base]) -> list[Group]:
    """Pieces of other good evidence of the same kind in the place of its own, at the other's time."""
    mine = quote_parts(base.trial.evidence.statement)
    foreign, mixed = [], []
    for other in others:
        if other.trial.format != base.trial.format or _fmspc(other) == _fmspc(base):
            continue
        trial = replace(base.trial, collateral=other.trial.collateral, now=other.trial.now)
        foreign.append((f"collateral of {other.name}", partial(_same, trial)))
        theirs = quote_parts(other.trial.evidence.statement)
        for name in ("signature", "key", "qe_report", "qe_signature", "chain"):
            change = {name: getattr(theirs, name)}
            if getattr(mine, name) != change[name]:
                mixed.append((f"{name.replace('_', ' ')} of {other.name}", partial(_with, base.trial, mine, **change)))
    return [
        *several("exchange.collateral", "binding", "verify", foreign),
        *several("exchange.quote", "binding", "verify", mixed),
    ]


def _same(trial: Trial) -> Trial:
    return trial


def _fmspc(base: Base) -> str:
    return base.verified.claims.product


def groups(base: Base, others: Sequence[Base], *, every_bit: bool) -> list[Group]:
    """Everything that can be done to a quote without its keys."""
    strangers = _strangers(others, base)
    return [
        *statement_groups(base, every_bit=every_bit),
        *chain_groups(base, strangers),
        *collateral_groups(base, strangers, every_bit=every_bit),
        *time_groups(base),
        *exchange_groups(base, others),
    ]


def _strangers(others: Sequence[Base], base: Base) -> list[bytes]:
    """A few certificates of other machines, each once."""
    mine = set(pem_bodies(quote_parts(base.trial.evidence.statement).chain.removesuffix(b"\0"), 3, _LIMIT))
    found: dict[bytes, None] = {}
    for other in others:
        for der in pem_bodies(quote_parts(other.trial.evidence.statement).chain.removesuffix(b"\0"), 3, _LIMIT):
            if der not in mine and len(found) < 6:
                found[der] = None
    return list(found)
