"""Which measurements make a guest the one that the owners know: they have to be judged by value, never skipped."""

from __future__ import annotations

from kakoi.attest.policy import PlatformPolicy
from kakoi.attest.report import Check, check


def by_value(policy: PlatformPolicy, *names: str) -> tuple[Check, ...]:
    """One check per name: failed if the policy leaves that measurement out, or gives a reason to skip it."""
    judged = {m.name for m in policy.measurements if isinstance(m.accepted, tuple)}
    return tuple(_judged(name, name in judged) for name in names)


def _judged(name: str, so: bool) -> Check:
    expected = f"{name} judged by accepted values"
    return check(f"identity.{name}", "passed" if so else "failed", expected, "so" if so else "left out", "owner-policy")
