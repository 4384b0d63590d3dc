"""A verified device against what the owners accept, bound to the CPU's session."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from kakoi.attest.nvidia.parse import DRIVER, VBIOS
from kakoi.attest.nvidia.verify import VerifiedDevice
from kakoi.attest.policy import ReferenceValue, Unchecked
from kakoi.attest.report import Check, Hex, refusal
from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Refused
from kakoi.core.records import Limit, Record

_CONTEXT: Final = b"kakoi/nvidia-nonce/v1"
Text = Annotated[str, Limit(least=1, most=128)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePolicy(Record):
    """What one model of device must show. All fields are judged; none may be left out."""

    KIND: ClassVar[str] = "kakoi/nvidia-policy/v1"

    models: Annotated[tuple[Text, ...], Limit(least=1, most=16, unique=True)]
    drivers: Annotated[tuple[Text, ...], Limit(least=1, most=32, unique=True)] | Unchecked
    vbios: Annotated[tuple[Text, ...], Limit(least=1, most=32, unique=True)] | Unchecked
    firmware: Annotated[tuple[Hex, ...], Limit(least=1, most=32, unique=True)] | Unchecked
    measurements: Annotated[tuple[ReferenceValue, ...], Limit(least=1, most=128)]
    """Named ``m1``, ``m2``, …: every index that the device reports, with digests or with a reason to skip it."""
    revocation: Annotated[tuple[Text, ...], Limit(least=1, most=1)] | Unchecked
    """``checked``, or a reason why not."""


def nonce(report_data: bytes) -> bytes:
    """The 32 bytes that the enclave asks the device with, so that its report belongs to this session only."""
    return sha256(framed(_CONTEXT, report_data))


def _text(value: bytes | None) -> str:
    """A version as text: ASCII up to a zero byte, else hex."""
    if value is None:
        return "none"
    bare = value.rstrip(b"\0")
    return bare.decode("ascii") if bare and all(32 < byte < 127 for byte in bare) else value.hex() or "none"


def _judge(name: str, accepted: tuple[str, ...] | Unchecked, got: str) -> Check:
    if isinstance(accepted, Unchecked):
        return Check(
            name=name, outcome="skipped", expected=f"not checked: {accepted.reason}", got=got, mender="owner-policy"
        )
    outcome = "passed" if got in accepted else "failed"
    expected = " or ".join(accepted)[:2000]
    return Check(name=name, outcome=outcome, expected=expected, got=got, mender="platform-operator")  # type: ignore[arg-type]


def _unnamed(name: str, got: str) -> Check:
    return Check(name=name, outcome="failed", expected="nothing in the policy", got=got, mender="owner-policy")


def appraise(device: VerifiedDevice, policy: DevicePolicy, *, report_data: bytes) -> tuple[Check, ...]:
    """All checks, if none failed. ``report_data`` is that of the CPU's evidence, verified and appraised before.

    Raises Refused ``nvidia.refused`` with every mismatch, ``nvidia.nonce`` for a report of another session.
    """
    expected = nonce(report_data)
    if not hmac.compare_digest(device.report.nonce, expected):
        raise refusal(
            "nvidia.nonce", "nonce of the device's report", expected.hex(), device.report.nonce.hex(), "nobody"
        )
    opaque = device.report.opaque
    checks = [
        _judge("nvidia.model", policy.models, device.model),
        _judge("nvidia.driver", policy.drivers, _text(opaque.get(DRIVER))),
        _judge("nvidia.vbios", policy.vbios, _text(opaque.get(VBIOS))),
        _judge("nvidia.firmware", policy.firmware, device.firmware),
        _judge("nvidia.revocation", policy.revocation, "checked" if device.revocation_checked else "not checked"),
    ]
    found = {f"m{index}": digest.hex() for index, digest in device.report.measurements.items()}
    for reference in policy.measurements:
        got = found.pop(reference.name, "not in this report")
        checks.append(_judge(f"nvidia.measurement.{reference.name}", reference.accepted, got))
    checks += [_unnamed(f"nvidia.measurement.{name}", digest) for name, digest in found.items()]
    failed = [check for check in checks if check.outcome == "failed"]
    if failed:
        lines = "; ".join(f"{check.name}: expected {check.expected}, got {check.got}" for check in failed)
        raise Refused("nvidia.refused", f"NVIDIA device: {len(failed)} of {len(checks)} checks refuse: {lines[:1500]}")
    return tuple(checks)
