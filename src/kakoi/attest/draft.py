"""A draft of a platform policy from evidence that was seen on a machine known to be good.

For people who write contracts: everything the evidence holds is named with exactly the value it has, so that the
owners strike out or widen what they mean to, instead of guessing names. A draft is not an approval.
"""

from __future__ import annotations

from typing import Final

from kakoi.attest.policy import PlatformPolicy, ReferenceValue, Setting, Unchecked
from kakoi.attest.report import VerifiedEvidence

_NONE: Final = Unchecked(reason="this kind of evidence has no such value")


def draft(verified: VerifiedEvidence, *, collateral_max_age: int) -> PlatformPolicy:
    """The policy that accepts exactly what ``verified`` shows, its status and advisories included.

    ``collateral_max_age`` in seconds. Raises Malformed for evidence without measurements or with a revoked status.
    """
    claims = verified.claims
    number = claims.tcb_evaluation_number
    return PlatformPolicy(
        platform=claims.platform,
        roots=(claims.root,),
        measurements=tuple(ReferenceValue(name=m.name, accepted=(m.value,)) for m in claims.measurements),
        statuses=(claims.tcb_status,),
        advisories=claims.advisories,
        grace=None,
        minimum_tcb=claims.tcb or _NONE,
        minimum_tcb_evaluation_number=_NONE if number is None else number,
        platforms=(claims.platform_identity,) if claims.platform_identity else _NONE,
        refused_products=(),
        settings=tuple(Setting(name=fact.name, accepted=(fact.value,)) for fact in claims.settings),
        collateral_max_age=_NONE if verified.collateral_issued_at is None else collateral_max_age,
    )
