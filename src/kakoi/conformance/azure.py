"""Twins of any Azure confidential VM's evidence, recorded or minted: bytes of every part, swaps, PCR values, time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from kakoi.attest.report import Part
from kakoi.conformance import spoil
from kakoi.conformance.base import Base
from kakoi.conformance.corpus import Group, several
from kakoi.conformance.layouts import (
    LOG_BLIND,
    QUOTE_PADDING,
    TD_BLIND,
    event_log_spans,
    hcl_spans,
    quote_parts,
    tpm_quote_spans,
    tpm_signature_spans,
)
from kakoi.conformance.snp import signature_values
from kakoi.conformance.spoil import Blob, Span, consecutive
from kakoi.conformance.trial import Trial

Named = tuple[str, Callable[[], Trial]]
_REPORT_AT: Final = 32
_REPORT_END: Final = 1216
_CLAIMS_AT: Final = 1236
_PCRS: Final = 24
_HCL_MOST: Final = 8192


def part(trial: Trial, name: str) -> bytes:
    """A part of the evidence."""
    return next(p.data for p in trial.evidence.parts if p.name == name)


def _blobs(base: Base) -> list[Blob]:
    trial = base.trial
    tdx = trial.format == "azure-tdx"
    hcl = trial.evidence.statement
    blobs = [
        Blob(
            name="hcl", data=hcl, rebuild=trial.with_statement, spans=hcl_spans(hcl, "tdx" if tdx else "snp"),
            padding=_HCL_MOST - len(hcl.rstrip(b"\0")), blind=TD_BLIND if tdx else (),
        )
    ]  # fmt: skip
    return [*blobs, *(_part_blob(trial, piece) for piece in trial.evidence.parts)]


_SPANS: Final[dict[str, Callable[[bytes], list[Span]]]] = {
    "tpm-quote": tpm_quote_spans,
    "tpm-signature": tpm_signature_spans,
    "pcrs": lambda _: consecutive(*((f"pcr{i}", 32) for i in range(_PCRS))),
    "td-quote": lambda raw: quote_parts(raw).spans(),
    "event-log": event_log_spans,
}


def _part_blob(trial: Trial, piece: Part) -> Blob:
    spans = _SPANS[piece.name](piece.data) if piece.name in _SPANS else []
    blind = [
        at
        for span in spans
        if piece.name == "event-log" and span.name.rpartition(".")[2] in LOG_BLIND
        for at in range(span.start, span.end)
    ]
    if piece.name == "event-log":
        blind.append(0)  # the first event names register 0 or 1, and extends neither
    return Blob(
        name=piece.name,
        data=piece.data,
        rebuild=lambda data: trial.with_parts({piece.name: data}),
        spans=[span for span in spans if not set(range(span.start, span.end)) & set(blind) - {0}],
        padding={"td-quote": QUOTE_PADDING, "event-log": 1024 * 1024}.get(piece.name, 0),
        blind=blind,
        order="big" if piece.name.startswith("tpm") else "little",
    )


def byte_groups(base: Base, *, every_bit: bool) -> list[Group]:
    """Every byte of every part; the hardware's collateral is the matter of ``snp`` and ``tdx``."""
    found: list[Group] = []
    for blob in _blobs(base):
        found += spoil.everything(blob, every_bit=every_bit, step=1 if len(blob.data) < 4096 else 3)
        if blob.name != "hcl":
            found.append(spoil.absent(blob.name, partial(base.trial.with_parts, {blob.name: None})))
    return found


def _with_claims(trial: Trial, claims: bytes) -> Trial:
    """An HCL report with other claims and all sizes right; the hardware's report stays."""
    hcl = trial.evidence.statement
    runtime = 20 + len(claims)
    head = hcl[:8] + (1216 + runtime).to_bytes(4, "little") + hcl[12:_REPORT_END]
    sizes = runtime.to_bytes(4, "little") + hcl[_REPORT_END + 4 : _CLAIMS_AT - 4] + len(claims).to_bytes(4, "little")
    return trial.with_statement(head + sizes + claims)


def claim_groups(base: Base) -> list[Group]:
    """Claims that say something else, with all lengths right: only the hash in the hardware's report tells."""
    trial = base.trial
    hcl = trial.evidence.statement
    size = int.from_bytes(hcl[_CLAIMS_AT - 4 : _CLAIMS_AT], "little")
    text = hcl[_CLAIMS_AT : _CLAIMS_AT + size]
    value: dict[str, Any] = json.loads(text)
    configuration = value["vm-configuration"]
    options = {
        "a space after them": text + b" ",
        "spelled anew": json.dumps(value, separators=(", ", ": ")).encode(),
        "a zero byte after them": text + b"\0",
        "other user data": _json({**value, "user-data": "A5" * 64}),
        "without the attestation key": _json({**value, "keys": value["keys"][1:]}),
        "the attestation key twice": _json({**value, "keys": [value["keys"][0], *value["keys"]]}),
        "secure boot turned": _json(
            {**value, "vm-configuration": {**configuration, "secure-boot": not configuration.get("secure-boot")}}
        ),
    }
    named = [(f"claims: {what}", partial(_with_claims, trial, data)) for what, data in options.items() if data != text]
    return several("hcl.claims", "binding", "verify", named)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def pcr_groups(base: Base) -> list[Group]:
    """Values in another order, missing, more, changed; the quote stays."""
    trial = base.trial
    values = [part(trial, "pcrs")[i : i + 32] for i in range(0, 32 * _PCRS, 32)]

    def given(changed: Sequence[bytes]) -> Trial:
        return trial.with_parts({"pcrs": b"".join(changed)})

    named: list[Named] = [
        ("PCR values backwards", partial(given, values[::-1])),
        ("the first PCR left out", partial(given, values[1:])),
        ("a PCR more", partial(given, [*values, bytes(32)])),
        ("all PCRs zero", partial(given, [bytes(32)] * _PCRS)),
    ]
    for i in range(_PCRS - 1):
        if values[i] != values[i + 1]:
            swapped = [*values[:i], values[i + 1], values[i], *values[i + 2 :]]
            named.append((f"PCR {i} and {i + 1} exchanged", partial(given, swapped)))
    return several("pcrs.order", "binding", "verify", named, ("tpm.*", "evidence.malformed"))


def report_groups(base: Base) -> list[Group]:
    """Signature values inside the hardware's report (SNP)."""
    trial = base.trial
    if trial.format != "azure-snp":
        return []
    hcl = trial.evidence.statement

    def put(report: bytes) -> Trial:
        return trial.with_statement(hcl[:_REPORT_AT] + report + hcl[_REPORT_END:])

    forged = signature_values(hcl[_REPORT_AT:_REPORT_END])
    named = [(f"hardware report: {what}", partial(put, report)) for what, report in forged.items()]
    return several("hcl.signature-values", "signature", "verify", named)


def time_groups(base: Base) -> list[Group]:
    """Far outside all windows."""
    named = [
        (f"judged {what}", partial(replace, base.trial, now=at))
        for what, at in {"in 1970": 0, "in fifty years": base.trial.now + 50 * 365 * 86400}.items()
    ]
    return several("time.window", "window", "verify", named)


def exchange_groups(base: Base, others: Sequence[Base]) -> list[Group]:
    """Each part of other good evidence of the same kind in the place of its own."""
    trial, named = base.trial, []
    for other in others:
        if other.trial.format != trial.format or other.name == base.name:
            continue
        if other.trial.evidence.statement != trial.evidence.statement:
            statement = other.trial.evidence.statement
            named.append((f"HCL report of {other.name}", partial(trial.with_statement, statement)))
        for piece in other.trial.evidence.parts:
            if piece.name in {p.name for p in trial.evidence.parts} and piece.data != part(trial, piece.name):
                change = {piece.name: piece.data}
                named.append((f"{piece.name} of {other.name}", partial(trial.with_parts, change)))
    return several("exchange", "binding", "verify", named)


def groups(base: Base, others: Sequence[Base], *, every_bit: bool) -> list[Group]:
    """Everything that can be done to a guest's evidence without any key."""
    unknown = ("a part of an unknown name", partial(base.trial.with_parts, {"more": b"x"}))
    return [
        *byte_groups(base, every_bit=every_bit),
        *claim_groups(base),
        *pcr_groups(base),
        *report_groups(base),
        *time_groups(base),
        *exchange_groups(base, others),
        *several("parts.unknown", "form", "verify", [unknown]),
    ]
