"""Which measurements make a guest the one that the owners know: they have to be judged by value, never skipped."""

from __future__ import annotations

from kakoi.attest.policy import PlatformPolicy
from kakoi.attest.report import Check


def by_value(policy: PlatformPolicy, *names: str) -> tuple[Check, ...]:
    """One check per name: failed if the policy leaves that measurement out, or gives a reason to skip it."""
    judged = {m.name for m in policy.measurements if isinstance(m.accepted, tuple)}
    return tuple(
        Check(
            name=f"identity.{name}",
            outcome="passed" if name in judged else "failed",
            expected=f"{name} judged by accepted values",
            got="so" if name in judged else "left out",
            mender="owner-policy",
        )
        for name in names
    )
