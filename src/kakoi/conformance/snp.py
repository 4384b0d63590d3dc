"""Twins of any SEV-SNP report, recorded or minted: bytes, certificates, time, others' pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from kakoi.conformance import spoil
from kakoi.conformance.base import Base
from kakoi.conformance.corpus import Group, several
from kakoi.conformance.layouts import SNP_REPORT
from kakoi.conformance.spoil import Blob
from kakoi.conformance.trial import Trial
from kakoi.core.x509 import parse_certificate, parse_crl

Named = tuple[str, Callable[[], Trial]]
_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
_WINDOWS: Final = ("x509.window", "x509.crl-window")
R_AT: Final = 0x2A0
S_AT: Final = 0x2E8


def signature_values(report: bytes) -> dict[str, bytes]:
    """Reports with r and s that broken ECDSA implementations took for any message; little-endian, 48 bytes each."""
    zero, one, order = bytes(48), (1).to_bytes(48, "little"), _ORDER.to_bytes(48, "little")
    r, s = report[R_AT : R_AT + 48], report[S_AT : S_AT + 48]
    values = {
        "r = s = 0": (zero, zero), "r = 0": (zero, s), "s = 0": (r, zero), "r = s = n": (order, order),
        "r = s = 1": (one, one), "r and s exchanged": (s, r), "r and s big-endian": (r[::-1], s[::-1]),
    }  # fmt: skip
    return {
        what: report[:R_AT] + r + report[R_AT + 48 : S_AT] + s + report[S_AT + 48 :] for what, (r, s) in values.items()
    }


def statement_groups(base: Base, *, every_bit: bool) -> list[Group]:
    """Bytes and fields of the report."""
    trial = base.trial
    report = trial.evidence.statement
    blob = Blob(name="report", data=report, rebuild=trial.with_statement, spans=SNP_REPORT)
    forged = [
        (f"report: {what}", partial(trial.with_statement, twin)) for what, twin in signature_values(report).items()
    ]
    return [
        *spoil.everything(blob, every_bit=every_bit),
        *several("report.signature-values", "signature", "verify", forged),
    ]


def collateral_groups(base: Base, *, every_bit: bool) -> list[Group]:
    """Each certificate and list: bytes, values, absence, and each other's place."""
    trial = base.trial
    names = [part.name for part in trial.collateral.parts]
    found: list[Group] = []
    for name in names:
        data = trial.piece(name)

        def with_part(twin: bytes, name: str = name) -> Trial:
            return trial.with_collateral({name: twin})

        blob = Blob(name=name, data=data, rebuild=with_part)
        found += spoil.flips(blob, every_bit=every_bit)
        found += spoil.truncations(blob, step=3)
        found += spoil.extensions(blob)
        found += spoil.der_values(name, data, with_part)
        found += spoil.replaced(name, {other: trial.piece(other) for other in names if other != name}, with_part)
        if name != "crl":  # a missing list is told by a fact, which the policy judges: see below
            found.append(spoil.absent(name, partial(trial.with_collateral, {name: None})))
    if "crl" in names and base.appraised:
        missing = ("the revocation list left out", partial(trial.with_collateral, {"crl": None}))
        found += several("revocation.missing", "revocation", "appraise", [missing], ("appraisal.setting.revocation",))
    unknown = ("a part of an unknown name", partial(trial.with_collateral, {"more": b"x"}))
    return [*found, *several("collateral.unknown-part", "form", "verify", [unknown])]


def time_groups(base: Base) -> list[Group]:
    """A second outside each window, and far outside all."""
    trial = base.trial
    edges: dict[int, str] = {0: "1970", trial.now + 50 * 365 * 86400: "in fifty years"}
    for part in trial.collateral.parts:
        if part.name == "crl":
            crl = parse_crl(part.data)
            edges[crl.this_update - 1] = "a second before the revocation list begins"
            edges[crl.next_update + 1] = "a second after the revocation list ends"
        else:
            certificate = parse_certificate(part.data)
            edges[certificate.not_before - 1] = f"a second before {certificate.common_name} begins"
            edges[certificate.not_after + 1] = f"a second after {certificate.common_name} ends"
    named = [(f"judged {what}", partial(replace, trial, now=at)) for at, what in sorted(edges.items()) if at >= 0]
    return several("time.window", "window", "verify", named, _WINDOWS)


def exchange_groups(base: Base, others: Sequence[Base]) -> list[Group]:
    """Each certificate of other good evidence in the place of its own, and the other's report over its own certificates."""
    trial, pieces = base.trial, {part.name: part.data for part in base.trial.collateral.parts}
    named: list[Named] = []
    for other in others:
        if other.trial.format != trial.format:
            continue
        for part in other.trial.collateral.parts:
            shared = part.name == "crl" and other.trial.anchors == trial.anchors  # the same root's list serves both
            if pieces.get(part.name, part.data) != part.data and not shared:
                change = {part.name: part.data}
                named.append((f"{part.name} of {other.name}", partial(trial.with_collateral, change)))
        if other.trial.piece(_key(other)) != pieces.get(_key(other)):
            named.append((f"report of {other.name}", partial(trial.with_statement, other.trial.evidence.statement)))
    return several("exchange", "binding", "verify", named)


def _key(base: Base) -> str:
    return next(part.name for part in base.trial.collateral.parts if part.name in ("vcek", "vlek"))


def groups(base: Base, others: Sequence[Base], *, every_bit: bool) -> list[Group]:
    """Everything that can be done to a report without its keys."""
    return [
        *statement_groups(base, every_bit=every_bit),
        *collateral_groups(base, every_bit=every_bit),
        *time_groups(base),
        *exchange_groups(base, others),
    ]
