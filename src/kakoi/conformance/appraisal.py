"""Twins that are genuine and still to be refused: another policy, another session, a later day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from kakoi.attest.policy import Grace, PlatformPolicy, ReferenceValue, Setting, Unchecked
from kakoi.attest.report import Component
from kakoi.conformance.base import Base
from kakoi.conformance.corpus import Group, one, several
from kakoi.conformance.trial import Trial
from kakoi.core.ids import ObjectId

_NEVER: Final = "kakoi-never"
_SKIPPED: Final = Unchecked(reason="left out by the conformance corpus")
Named = tuple[str, Callable[[], Trial]]


def _turned(text: str, bit: int) -> str:
    data = bytearray(bytes.fromhex(text))
    data[bit // 8] ^= 1 << bit % 8
    return data.hex()


def _wishes(base: Base, changed: list[tuple[str, PlatformPolicy]]) -> list[Named]:
    return [(what, partial(base.trial.with_entry, entry)) for what, entry in changed]


def _measurements(base: Base, entry: PlatformPolicy) -> Iterator[tuple[str, PlatformPolicy]]:
    listed = entry.measurements
    for i, reference in enumerate(listed):
        accepted = reference.accepted
        if not isinstance(accepted, tuple):
            continue
        rest = (*listed[:i], *listed[i + 1 :])
        for bit in {0, 8 * (len(accepted[0]) // 2) - 1} if accepted[0] else ():
            other = ReferenceValue(name=reference.name, accepted=(_turned(accepted[0], bit),))
            yield f"{reference.name}: a value that differs in bit {bit}", replace(entry, measurements=(*rest, other))
        if rest:
            yield f"{reference.name}: not in the policy", replace(entry, measurements=rest)
        shorter = ReferenceValue(name=reference.name, accepted=(accepted[0][:-2],))
        if accepted[0]:
            yield f"{reference.name}: a value that is a byte shorter", replace(entry, measurements=(*rest, shorter))
    unknown = ReferenceValue(name="kakoi-unknown", accepted=("00",))
    yield "a measurement that the evidence does not have", replace(entry, measurements=(*listed, unknown))


def _identities(base: Base, entry: PlatformPolicy) -> Iterator[tuple[str, PlatformPolicy]]:
    """Policies that skip what makes a guest the one that the owners know."""
    names: dict[str, tuple[str, ...]] = {
        "sgx": ("mrenclave",), "tdx": ("mrtd", "rtmr1", "rtmr2"), "snp": ("measurement",),
        "azure-snp": ("measurement", "pcr4"), "azure-tdx": ("mrtd", "pcr4"),
        "nitro": ("pcr0",) if base.verified.claims.product == "enclave" else ("pcr4",),
    }  # fmt: skip
    for name in names.get(base.kind, ()):
        rest = tuple(m for m in entry.measurements if m.name != name)
        skipped = ReferenceValue(name=name, accepted=_SKIPPED)
        changed = replace(entry, measurements=(*rest, skipped))
        if base.kind == "sgx":  # without mrenclave, product and minimum SVN have to be demanded: here they are not
            changed = replace(changed, minimum_tcb=_SKIPPED)
        yield f"{name}: skipped, with a reason", changed


def _settings(entry: PlatformPolicy) -> Iterator[tuple[str, PlatformPolicy]]:
    listed = entry.settings
    for i, setting in enumerate(listed):
        rest = (*listed[:i], *listed[i + 1 :])
        other = Setting(name=setting.name, accepted=(_NEVER,))
        yield f"{setting.name}: another value", replace(entry, settings=(*rest, other))
        yield f"{setting.name}: not in the policy", replace(entry, settings=rest)
    unknown = Setting(name="kakoi-unknown", accepted=("yes",))
    yield "a setting that the evidence does not have", replace(entry, settings=(*listed, unknown))


def _components(base: Base, entry: PlatformPolicy) -> Iterator[tuple[str, PlatformPolicy]]:
    listed = entry.minimum_tcb
    known = listed if isinstance(listed, tuple) else ()
    for i, component in enumerate(known):
        rest = (*known[:i], *known[i + 1 :])
        raised = Component(name=component.name, version=component.version + 1)
        yield f"{component.name}: a minimum of one more", replace(entry, minimum_tcb=(*rest, raised))
        if component.name in base.verified.bounded and rest:
            yield f"{component.name}: no minimum", replace(entry, minimum_tcb=rest)
    unknown = Component(name="kakoi-unknown", version=0)
    yield "a component that the evidence does not have", replace(entry, minimum_tcb=(*known, unknown))


def _status(base: Base, entry: PlatformPolicy) -> Iterator[tuple[str, PlatformPolicy]]:
    claims, now = base.verified.claims, base.trial.now
    yield "another status", replace(entry, statuses=(_NEVER,))
    over = Grace(statuses=(claims.tcb_status,), until=now - 1)
    yield "a grace that is over since a second", replace(entry, statuses=(_NEVER,), grace=over)
    for left in entry.advisories:
        rest = tuple(a for a in entry.advisories if a != left)
        yield f"advisory {left} not accepted", replace(entry, advisories=rest)


def _identity(base: Base, entry: PlatformPolicy) -> Iterator[tuple[str, PlatformPolicy]]:
    claims = base.verified.claims
    other = _turned(claims.platform_identity, 0) if claims.platform_identity else "00" * 16
    yield "another machine", replace(entry, platforms=(other,))
    yield "a refused product", replace(entry, refused_products=(claims.product,))
    yield "a refused product in other letters", replace(entry, refused_products=(claims.product.swapcase(),))
    yield "another root", replace(entry, roots=(ObjectId(_turned(claims.root, 0)),))


def _ages(base: Base, entry: PlatformPolicy) -> Iterator[tuple[str, PlatformPolicy]]:
    issued = base.verified.collateral_issued_at
    if issued is None:
        yield "collateral without a date", replace(entry, collateral_max_age=2**40)
    elif base.trial.now > issued:
        yield "collateral that is a second too old", replace(entry, collateral_max_age=base.trial.now - issued - 1)


def _numbers(base: Base) -> list[Named]:
    """Evaluation numbers: below the policy's minimum, and below what was accepted before."""
    entry, number = base.trial.entry, base.verified.claims.tcb_evaluation_number
    wanted = 1 if number is None else number + 1
    floor = replace(base.trial, evaluation_floor=wanted)
    return [
        *_wishes(base, [("a minimum of one more", replace(entry, minimum_tcb_evaluation_number=wanted))]),
        ("a higher number was accepted before", lambda: floor),
    ]


def _sessions(base: Base) -> list[Group]:
    """The evidence as it is, and another value expected: what a replay or relay looks like to its receiver."""
    expected = base.trial.report_data
    size = len(expected) // 2

    def expecting(text: str) -> Trial:
        return replace(base.trial, report_data=text)

    def bit(index: int) -> tuple[str, Trial]:
        return f"report data: bit {index} differs", expecting(_turned(expected, index))

    others = {"zeros": "00" * size, "ones": "ff" * size, "backwards": bytes.fromhex(expected)[::-1].hex()}
    others |= {f"its first {n} bytes": expected[: 2 * n] for n in (32, 48) if n < size}
    others |= {f"zeros after it, to {n} bytes": expected.ljust(2 * n, "0") for n in (48, 64) if n > size}
    named = [(f"report data: {what}", partial(expecting, text)) for what, text in others.items() if text != expected]
    reasons = ("appraisal.report-data",)
    flipped = Group(
        name="session.report-data-bit", family="session", layer="appraise", size=8 * size, make=bit, reasons=reasons
    )
    return [flipped, *several("session.report-data", "session", "appraise", named, reasons)]


def _tolerances(base: Base) -> list[Group]:
    """What has to pass: the last second of a grace, the last second of an age, the exact minimum, which the draft is."""
    entry, claims, now = base.trial.entry, base.verified.claims, base.trial.now
    grace = Grace(statuses=(claims.tcb_status,), until=now)
    changed: dict[str, Any] = {"the last second of a grace": {"statuses": (_NEVER,), "grace": grace}}
    issued = base.verified.collateral_issued_at
    if issued is not None and now >= issued:
        changed["the last second of the collateral's age"] = {"collateral_max_age": now - issued}
    named = _wishes(base, [(what, replace(entry, **changes)) for what, changes in changed.items()])
    return several("good.tolerances", "good", "appraise", named)


def groups(base: Base) -> list[Group]:
    """All of the above for one good trial; nothing where it has no policy."""
    if not base.appraised:
        return []
    entry = base.trial.entry
    token = base.kind in ("azure-maa", "google-confidential-space", "intel-trust-authority")
    rules: tuple[tuple[str, Iterator[tuple[str, PlatformPolicy]], tuple[str, ...]], ...] = (
        ("policy.measurement", _measurements(base, entry), ("appraisal.measurement.*",)),
        ("policy.identity", _identities(base, entry), ("appraisal.identity.*", "appraisal.sgx.identity")),
        ("policy.setting", _settings(entry), ("appraisal.setting.*",)),
        ("policy.minimum-tcb", _components(base, entry), ("appraisal.minimum-tcb.*",)),
        ("policy.status", _status(base, entry), ("appraisal.tcb-status", "appraisal.advisories")),
        (
            "policy.platform",
            _identity(base, entry),
            ("appraisal.platform-identity", "appraisal.product", "appraisal.root", "token.anchor", "x509.root"),
        ),
        ("policy.collateral-age", _ages(base, entry), ("appraisal.collateral-age",)),
    )
    found = []
    for name, changed, reasons in rules:
        found += several(name, "policy", "appraise", _wishes(base, list(changed)), reasons)
    other = replace(entry, platform="software")
    kind = one("policy.kind", "policy", "appraise", partial(base.trial.with_entry, other), "a policy for another kind",
               ("appraisal.platform-not-accepted",))  # fmt: skip
    numbers = [] if token else _numbers(base)
    found += several("policy.evaluation-number", "policy", "appraise", numbers, ("appraisal.tcb-evaluation-number*",))
    return [*found, kind, *_sessions(base), *_tolerances(base)]
