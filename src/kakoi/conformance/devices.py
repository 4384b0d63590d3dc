"""Twins of what contracts do not name by itself: NVIDIA devices' reports, and event logs of TDX guests beside their quotes.

Both are tried for genuineness only: no attestation policy speaks of a device, and what a log says beyond its digests is its
writer's word. A device's nonce and reference values are the matter of ``attest.nvidia.appraise`` and its tests.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Final

from kakoi.attest.ccel.parse import NO_ACTION
from kakoi.attest.report import Collateral, Evidence
from kakoi.conformance import spoil
from kakoi.conformance.base import anchor, parts, plain_trial
from kakoi.conformance.corpus import Group, Vector, one, several
from kakoi.conformance.layouts import LOG_BLIND, event_log_spans
from kakoi.conformance.own import CHAIN
from kakoi.conformance.spoil import Blob, Span, consecutive
from kakoi.conformance.trial import Trial
from kakoi.core.x509 import parse_certificate
from kakoi.testing import nvidia_vendor
from kakoi.testing import x509_kit as kit

_FILL: Final = 4
_SHA384: Final = 0x000C
_REPORT: Final = (
    ("request", 4), ("nonce", 32), ("slot", 1), ("response", 2), ("parameter-1", 1), ("parameter-2", 1), ("blocks", 1),
    ("length", 3),
)  # fmt: skip


# --- NVIDIA ----------------------------------------------------------------------------------------------------------


def nvidia_trial(report: bytes, chain: Sequence[bytes], now: int) -> Trial:
    """A report with its certificates, leaf first. The kind of platform is of no meaning: a device is none."""
    pieces = parts(dict(zip(CHAIN, chain, strict=True)))
    evidence = Evidence(platform="vtpm", statement=report, parts=pieces)
    return plain_trial("nvidia", evidence, Collateral(parts=()), [anchor(chain[-1])], now)


def nvidia_vector(name: str, trial: Trial, others: Sequence[Trial], *, recorded: bool, every_bit: bool) -> Vector:
    """Everything that can be done to a report without the device's key."""
    raw = trial.evidence.statement
    length = int.from_bytes(raw[42:45], "little")
    fields = [*_REPORT, ("record", length), ("response-nonce", 32), ("opaque-length", 2)]
    spans = [span for span in consecutive(*fields) if span.name != "record"]
    blob = Blob(name="report", data=raw, rebuild=trial.with_statement, spans=spans, padding=_FILL)
    groups = [one("good", "good", "verify", lambda: trial, "nothing"), *spoil.everything(blob, every_bit=every_bit)]
    for piece in trial.evidence.parts:
        if piece.name != CHAIN[-1]:  # the root in the message is ignored, and the pinned key used
            groups += spoil.der_values(piece.name, piece.data, lambda data, at=piece.name: trial.with_parts({at: data}))  # type: ignore[misc]
        groups.append(spoil.absent(piece.name, partial(trial.with_parts, {piece.name: None})))
    return Vector(name=name, kind="nvidia", recorded=recorded, groups=[*groups, *_order(trial), *_of(trial, others)])


def _order(trial: Trial) -> list[Group]:
    """Certificates exchanged with their neighbours, and times outside their windows."""
    ders = {piece.name: piece.data for piece in trial.evidence.parts}
    swapped = [
        (f"{a} and {b} exchanged", partial(trial.with_parts, {a: ders[b], b: ders[a]})) for a, b in pairwise(CHAIN)
    ]
    late = []
    for name, der in ders.items():
        certificate = parse_certificate(der)
        late += [
            (f"a second before {name} begins", partial(_at, trial, certificate.not_before - 1)),
            (f"a second after {name} ends", partial(_at, trial, certificate.not_after + 1)),
        ]
    return [*several("chain.order", "chain", "verify", swapped), *several("time.window", "window", "verify", late)]


def _at(trial: Trial, now: int) -> Trial:
    return replace(trial, now=now)


def _of(trial: Trial, others: Sequence[Trial]) -> list[Group]:
    """The report of one device under the certificates of another."""
    named = [
        (f"the certificates of device {number}",
         partial(trial.with_parts, {piece.name: piece.data for piece in other.evidence.parts}))
        for number, other in enumerate(others)
    ]  # fmt: skip
    return several("exchange", "binding", "verify", named)


def minted(*, every_bit: bool) -> Vector:
    """A pretend device under a test root."""
    first, second = nvidia_vendor.device(), nvidia_vendor.device(1)
    trials = [nvidia_trial(device.report(bytes(32)), device.chain(), kit.NOW) for device in (first, second)]
    return nvidia_vector("minted-nvidia", trials[0], trials[1:], recorded=False, every_bit=every_bit)


# --- event logs ------------------------------------------------------------------------------------------------------


def log_trial(quote: Trial, log: bytes) -> Trial:
    """A TDX guest's quote with the log that claims to explain its registers."""
    return replace(quote, format="ccel", policy=None, report_data="").with_parts({"event-log": log})


def log_vector(name: str, trial: Trial, *, every_bit: bool) -> Vector:
    """Everything that can be done to a log that explains a quote."""
    table = next(piece.data for piece in trial.evidence.parts if piece.name == "event-log")
    raw = table.rstrip(b"\xff")  # firmware fills its table up
    spans, blind = _spans(raw)
    blob = Blob(
        name="event-log",
        data=raw,
        rebuild=lambda data: trial.with_parts({"event-log": data}),
        # A separator's data are four zeros: without its size they are read as one, and only the data, which nothing covers, differ.
        spans=[
            span
            for span in spans
            if not set(range(span.start, span.end)) & blind
            and not (span.name.endswith(".size") and raw[span.start : span.end + 4] == b"\4" + bytes(7))
        ],
        padding=1024 * 1024,
        blind=blind,
        same=lambda twin: twin.rstrip(b"\xff") == raw,
    )
    groups = [one("good", "good", "verify", lambda: trial, "nothing"), *spoil.everything(blob, every_bit=every_bit)]
    groups.append(spoil.absent("event-log", partial(trial.with_parts, {"event-log": None})))
    return Vector(name=name, kind="ccel", recorded=True, groups=groups)


def _spans(raw: bytes) -> tuple[list[Span], set[int]]:
    """Fields, and the bytes that no register covers: labels, data, digests of other banks, events that extend nothing."""
    spans = event_log_spans(raw, _SHA384)
    end = spans[-1].end
    blind = {0, *range(end, len(raw))}
    kinds = {
        span.name.rpartition(".")[0]: struct.unpack_from("<I", raw, span.start)[0]
        for span in spans
        if span.name.endswith(".kind")
    }
    for span in spans:
        event, _, what = span.name.rpartition(".")
        nothing = kinds.get(event) == NO_ACTION and what in ("index", "digest", "algorithm")
        if what in LOG_BLIND or nothing:
            blind |= set(range(span.start, span.end))
    return spans, blind
